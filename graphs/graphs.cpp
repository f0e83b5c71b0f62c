#include "graphs/graphs.h"

#include "graphs/networks.h"

namespace pc::graphs {

std::span<const Network* const> all_networks() {
  static constexpr const Network* list[] = {&mlp,     &autoencoder, &vgg5, &vgg7, &vgg9, &resnet18,
                                            &decoder, &pc_graph,    &rnn,  &gru,  &lstm, &transformer};
  return list;
}

}  // namespace pc::graphs

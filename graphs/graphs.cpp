#include "graphs/graphs.h"

#include "graphs/networks.h"

namespace pc::graphs {

std::span<const Network* const> all_networks() {
  static constexpr const Network* list[] = {&mlp};
  return list;
}

}  // namespace pc::graphs

// autoencoder: fully connected layers down to a code and, mirrored, up to a reconstruction.
#include "graphs/networks.h"

namespace pc::graphs {
namespace {

Description make(Settings& settings) {
  const std::vector<std::int64_t> widths = settings.integers("widths");
  const OpSpec activation = settings.op("activation", "gelu"), last = settings.op("output_activation", "identity");
  const EnergySpec output{&find_energy(settings.text("output", "gaussian")),
                          {settings.number("output_precision", 1.0)}};
  const std::string input = settings.text("input", "image"), target = settings.text("target", "reconstruction");
  PC_CHECK(widths.size() >= 2, "autoencoder", "widths needs at least those of the input and of the code");

  Description graph;
  const std::size_t code = widths.size() - 1, end = 2 * code;
  for (std::size_t i = 0; i <= end; ++i) {
    const std::string name = i == 0      ? input
                             : i == code ? "code"
                             : i == end  ? target
                                         : (i < code ? "encoder" : "decoder") + std::to_string(i < code ? i : i - code);
    graph.nodes.push_back({.name = name,
                           .shape = {widths[i <= code ? i : end - i]},
                           .energy = i == end ? output : EnergySpec{},
                           .place = settings.place()});
    if (i == 0) continue;
    graph.edges.push_back({.from = {graph.nodes[i - 1].name},
                           .to = name,
                           .chain = {{&find_op("linear"), {}}, i == end ? last : activation},
                           .place = settings.place()});
  }
  return graph;
}

}  // namespace

extern const Network autoencoder{.name = "autoencoder",
                                 .about = "fully connected layers to a code and back",
                                 .keys =
                                     "widths: [in, ..., code]\n"
                                     "activation: gelu\n"
                                     "output_activation: identity # after the last layer\n"
                                     "output: gaussian            # energy of the last node\n"
                                     "output_precision: 1.0\n"
                                     "input: image                # name of the first node\n"
                                     "target: reconstruction      # name of the last node\n",
                                 .make = make};

}  // namespace pc::graphs

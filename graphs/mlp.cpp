// mlp: a chain of fully connected layers, image -> hidden1 -> ... -> label; the last one is linear. With `residual`,
// all layers but the first and the last add their input to what they predict (as jpc's skip connections do), where it
// has their width.
#include "graphs/networks.h"

namespace pc::graphs {
namespace {

std::vector<OpSpec> layer(const std::string& order, const OpSpec& linear, const OpSpec& activation, bool first,
                          bool last) {
  if (order == "before") return first ? std::vector{linear} : std::vector{activation, linear};
  return last ? std::vector{linear} : std::vector{linear, activation};
}

Description make(Settings& settings) {
  const std::vector<std::int64_t> widths = settings.integers("widths");
  const OpSpec activation = settings.op("activation", "gelu");
  const std::string output = settings.text("output", "gaussian");
  const double precision = settings.number("output_precision", 1.0);
  const std::string order = settings.text("order", "after");
  const OpSpec linear{&find_op("linear"), {{"bias", settings.flag("bias", true) ? 1.0 : 0.0}}};
  const bool residual = settings.flag("residual", false);
  const std::string input = settings.text("input", "image"), target = settings.text("target", "label");
  PC_CHECK(widths.size() >= 2, "mlp", "widths needs at least an input and an output width");
  PC_CHECK(order == "after" || order == "before", "mlp",
           "order is \"after\" (mu = f(W x + b)) or \"before\" (mu = W f(x) + b), not \"", order, "\"");

  Description graph;
  const std::size_t last = widths.size() - 1;
  for (std::size_t i = 0; i <= last; ++i) {
    const std::string name = i == 0 ? input : i == last ? target : "hidden" + std::to_string(i);
    EnergySpec energy;
    if (i == last) energy = {&find_energy(output), {precision}};
    graph.nodes.push_back({.name = name, .shape = {widths[i]}, .energy = energy, .place = settings.place()});
  }
  for (std::size_t i = 1; i <= last; ++i) {
    // First what needs no product, so that it can be there before the product is, which is then added to it. The edge
    // with parameters keeps the plain name: checkpoints know them by it.
    if (residual && i > 1 && i < last && widths[i] == widths[i - 1]) {
      graph.edges.push_back({.name = graph.nodes[i - 1].name + "->" + graph.nodes[i].name + "#2",
                             .from = {graph.nodes[i - 1].name},
                             .to = graph.nodes[i].name,
                             .chain = {{&find_op("identity"), {}}},
                             .place = settings.place()});
    }
    graph.edges.push_back({.from = {graph.nodes[i - 1].name},
                           .to = graph.nodes[i].name,
                           .chain = layer(order, linear, activation, i == 1, i == last),
                           .place = settings.place()});
  }
  return graph;
}

}  // namespace

extern const Network mlp{.name = "mlp",
                         .about = "fully connected layers in a chain",
                         .keys =
                             "widths: [in, ..., out]\n"
                             "activation: gelu            # any activation; the last layer is linear\n"
                             "output: gaussian            # energy of the last node\n"
                             "output_precision: 1.0\n"
                             "order: after                # after: mu = f(W x + b); before: mu = W f(x) + b\n"
                             "bias: true\n"
                             "residual: false             # true: identity edges between equal hidden nodes\n"
                             "input: image                # name of the first node\n"
                             "target: label               # name of the last node\n",
                         .make = make};

}  // namespace pc::graphs

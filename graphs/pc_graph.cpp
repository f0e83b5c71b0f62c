// pc_graph: neurons that predict each other along any topology (Salvatori et al. 2022, "Learning on Arbitrary Graph
// Topologies via Predictive Coding"): mu_i = sum over the neurons j that i reads of w_ij f(x_j).
//
// The neurons are three nodes: the inputs, the hidden ones and the outputs, in this order. An edge of the graph holds
// all edges from one of them to another, so that what comes from a clamped part is computed once, and nothing is pulled
// back into it.
#include <algorithm>
#include <cmath>

#include "graphs/networks.h"
#include "graphs/topology.h"

namespace pc::graphs {
namespace {

/// Of a block that has not all edges: below this density products with an index are faster than masked ones.
constexpr double kSparse = 0.05;

struct Part {
  std::string name;
  std::int64_t begin, count;
};

Pattern make_pattern(Settings& settings, const Wanted& wanted) {
  std::vector<std::string> known;
  for (const Topology* topology : all_topologies()) known.emplace_back(topology->name);
  const Settings::Choice choice = settings.choice("topology", known, "full");
  const auto chosen = std::find_if(all_topologies().begin(), all_topologies().end(),
                                   [&](const Topology* topology) { return topology->name == choice.name; });
  return (*chosen)->make(*choice.settings, wanted);
}

Description make(Settings& settings) {
  Wanted wanted{.seed = settings.seed()};
  Parts& parts = wanted.parts;
  const auto count = [&](std::string_view key, double fallback) {
    const double value = settings.number(key, fallback);
    constexpr double kMost = 2147483647;
    settings.check(value >= 0 && value <= kMost && value == std::floor(value), key, " is a number of neurons, not ",
                   value);
    return static_cast<std::int64_t>(value);
  };
  parts = {count("inputs", 784), count("hidden", 1206), count("outputs", 10)};
  settings.check(parts.inputs > 0, "inputs", " must be above 0");
  PC_CHECK(parts.total() <= 2147483647, "pc_graph", parts.total(), " neurons are too many: their numbers are int32");
  wanted.self_loops = settings.flag("self_loops", false);
  wanted.sensory_edges = settings.flag("sensory_edges", true);
  const std::string form = settings.text("edges", "auto");
  settings.check(form == "auto" || form == "dense" || form == "sparse", "edges", " is auto, dense or sparse, not \"",
                 form, "\"");
  const OpSpec activation = settings.op("activation", "tanh");
  const Attrs attrs = {{"bias", settings.flag("bias", false) ? 1.0 : 0.0}};
  const std::vector<Part> list = {{settings.text("input", "image"), 0, parts.inputs},
                                  {"hidden", parts.inputs, parts.hidden},
                                  {settings.text("target", "label"), parts.inputs + parts.hidden, parts.outputs}};
  const Pattern pattern = make_pattern(settings, wanted);

  Description graph;
  for (const Part& part : list) {
    if (part.count == 0) continue;
    NodeSpec& node = graph.nodes.emplace_back();
    node.name = part.name;
    node.shape = {part.count};
    node.place = settings.place();
  }
  for (const Part& to : list) {
    bool biased = false;
    for (const Part& from : list) {
      auto block = std::make_shared<const Pattern>(block_of(pattern, to.begin, to.count, from.begin, from.count));
      if (block->count() == 0) continue;
      const double density = double(block->count()) / (double(block->rows) * double(block->cols));
      const bool sparse = form == "sparse" || (form == "auto" && density < kSparse);
      Attrs here = attrs;
      if (biased) here["bias"] = 0;  // a neuron has one
      biased = true;
      EdgeSpec edge{.from = {from.name},
                    .to = to.name,
                    .chain = {activation, {&find_op(sparse ? "sparse_linear" : "linear"), here}},
                    .place = settings.place()};
      if (sparse || !block->complete()) edge.pattern = std::move(block);
      graph.edges.push_back(std::move(edge));
    }
  }
  PC_CHECK(!graph.edges.empty(), "pc_graph", "the topology has no edges");
  return graph;
}

}  // namespace

extern const Network pc_graph{
    .name = "pc_graph",
    .about = "neurons that predict each other along any topology",
    .keys =
        "inputs: 784\n"
        "hidden: 1206\n"
        "outputs: 10                 # 0: none\n"
        "topology: full              # or one with settings: {erdos_renyi: {degree: 100}}\n"
        "self_loops: false           # whether a neuron may read itself\n"
        "sensory_edges: true         # whether inputs and outputs may read each other\n"
        "edges: auto                 # dense | sparse | auto: sparse where few weights exist\n"
        "activation: tanh            # of what is read\n"
        "bias: false\n"
        "input: image                # names of the first and the last node\n"
        "target: label\n",
    .make = make};

}  // namespace pc::graphs

#include "experiments/graph_config.h"

#include <algorithm>

#include "experiments/edge_file.h"
#include "experiments/fields.h"
#include "experiments/names.h"
#include "kernels/philox.h"
#include "pc/message.h"

namespace pc::experiments {
namespace {

template <class List>
std::vector<std::string> names_in(const List& list) {
  std::vector<std::string> names;
  for (const auto* item : list) names.emplace_back(item->name);
  return names;
}

/// The value of `list` with that name, or an error at the place with the nearest one.
template <class List>
auto named(const List& list, const std::string& name, const Place& place, const std::string& what) {
  for (const auto* item : list) {
    if (item->name == name) return item;
  }
  fail_at(place, "there is no ", what, " \"", name, "\"", did_you_mean(name, names_in(list)));
}

Attrs read_attrs(const ConfigTree& body, const Op& op) {
  Attrs attrs;
  Fields fields(body, std::string(op.name));
  for (const AttrSpec& spec : op.attrs) {
    const ConfigTree* value = fields.child(spec.name);
    if (value == nullptr) continue;
    const std::string name = fields.name_of(spec.name);
    if (spec.kind == AttrSpec::Kind::list) {
      std::vector<double> list;
      read_value(*value, name, list);
      set_list(attrs, spec.name, list);
    } else if (spec.kind == AttrSpec::Kind::flag) {
      bool flag = false;
      read_value(*value, name, flag);
      attrs.emplace(spec.name, flag ? 1 : 0);
    } else {
      double number = 0;
      read_value(*value, name, number);
      attrs.emplace(spec.name, number);
    }
  }
  fields.done();
  return attrs;
}

OpSpec read_op(const ConfigTree& node) {
  if (node.is_scalar()) return {named(all_ops(), node.scalar(), node.place(), "operator"), {}};
  if (!node.is_map() || node.entries().size() != 1) {
    fail_at(node.place(), "an operator is a name, as in tanh, or a name with settings, as in {linear: {bias: false}}");
  }
  const auto& [key, key_place, body] = node.entries()[0];
  const Op* op = named(all_ops(), key, key_place, "operator");
  return {op, body.is_null() ? Attrs{} : read_attrs(body, *op)};
}

EnergySpec read_energy(Fields& fields) {
  EnergySpec spec;
  if (const ConfigTree* node = fields.child("energy")) {
    std::string name;
    read_value(*node, fields.name_of("energy"), name);
    spec.energy = named(all_energies(), name, node->place(), "energy");
  }
  if (const ConfigTree* node = fields.child("precision")) {
    if (node->is_map()) {
      const std::string name = fields.name_of("precision");
      Fields learned(*node, name);
      learned.require("learn", spec.learn_precision).read_in("learn", spec.learn_precision, 1e-12, 1);
      learned.read_positive("start", spec.precision[0]).read_positive("most", spec.most_precision).done();
    } else if (node->is_list()) {
      read_value(*node, fields.name_of("precision"), spec.precision);
    } else {
      read_value(*node, fields.name_of("precision"), spec.precision[0]);
    }
  }
  return spec;
}

NodeSpec read_node(const std::string& name, const ConfigTree& body, const ConfigTree& all) {
  NodeSpec spec;
  spec.name = name;
  spec.place = body.place().text();
  Fields fields(body, "graph.nodes." + name);
  std::vector<std::int64_t> dims;
  // An override with a slip in the name makes a node of its own.
  if (body.place().line == 0 && body.find("shape") == nullptr) {
    std::vector<std::string> others;
    for (const ConfigTree::Entry& e : all.entries()) {
      if (e.key != name) others.push_back(e.key);
    }
    fail_at(body.place(), "there is no node \"", name, "\"", did_you_mean(name, others));
  }
  const ConfigTree& shape = fields.required_child("shape");
  if (shape.is_list()) {
    read_value(shape, fields.name_of("shape"), dims);
  } else {
    dims.resize(1);
    read_value(shape, fields.name_of("shape"), dims[0]);
  }
  if (dims.size() >= static_cast<std::size_t>(Shape::kMaxRank)) {
    fail_at(shape.place(), fields.name_of("shape"), " has ", dims.size(), " dimensions; at most ", Shape::kMaxRank - 1,
            " are supported beside the batch");
  }
  for (const std::int64_t dim : dims) {
    if (dim < 1)
      fail_at(shape.place(), fields.name_of("shape"), " has the dimension ", dim, "; each must be at least 1");
    spec.shape.append(dim);
  }
  spec.energy = read_energy(fields);
  fields.read("prior", spec.prior);
  if (const ConfigTree* more = fields.child("predictions")) {
    if (!more->is_map()) fail_at(more->place(), "predictions is a map: {name: {energy: ..., precision: ...}}");
    for (const auto& [key, place, value] : more->entries()) {
      Fields prediction(value, fields.name_of("predictions." + key));
      spec.predictions.emplace_back(key, read_energy(prediction));
      prediction.done();
    }
  }
  fields.done();
  return spec;
}

/// Which weights an edge has: no_diagonal, lower (below the diagonal), or {density: p} at random.
std::function<std::vector<std::uint8_t>(const Shape&)> read_mask(const ConfigTree& node, std::uint64_t seed,
                                                                 std::uint32_t edge) {
  static const std::string kKinds[] = {"no_diagonal", "lower", "density"};
  if (node.is_map()) {
    Fields fields(node, "mask");
    double density = 1;
    fields.require("density", density).read_in("density", density, 0, 1);
    fields.done();
    return [=](const Shape& shape) {
      std::vector<std::uint8_t> mask(static_cast<std::size_t>(shape.count()));
      for (std::size_t i = 0; i < mask.size(); ++i) {
        mask[i] = philox::uniform(philox::bits(seed, Purpose::masks, edge, 0, i)) < density ? 1 : 0;
      }
      return mask;
    };
  }
  const std::string kind = node.is_scalar() ? node.scalar() : "";
  if (kind != "no_diagonal" && kind != "lower") {
    fail_at(node.place(), "mask is no_diagonal, lower or {density: 0.1}", did_you_mean(kind, kKinds));
  }
  return [lower = kind == "lower"](const Shape& shape) {
    PC_CHECK(lower || shape[0] == shape[1], "mask", "no_diagonal is for a square of weights, as from a node to ",
             "itself, where no entry is to see itself, and not for ", shape.text(), "; take it out");
    std::vector<std::uint8_t> mask;
    for (std::int64_t row = 0; row < shape[0]; ++row) {
      for (std::int64_t col = 0; col < shape[1]; ++col) mask.push_back(lower ? col < row : col != row);
    }
    return mask;
  };
}

EdgeSpec read_edge(const ConfigTree& body, std::uint64_t seed, std::uint32_t index) {
  EdgeSpec spec;
  spec.place = body.place().text();
  Fields fields(body, "graph.edges[" + std::to_string(index) + "]");
  fields.read("name", spec.name);
  if (const ConfigTree* from = fields.child("from")) {
    if (from->is_list()) {
      read_value(*from, fields.name_of("from"), spec.from);
    } else {
      spec.from.resize(1);
      read_value(*from, fields.name_of("from"), spec.from[0]);
    }
  }
  fields.require("to", spec.to).read("prediction", spec.prediction).read("share", spec.share);
  const ConfigTree& op = fields.required_child("op");
  if (op.is_list()) {
    for (const ConfigTree& link : op.items()) spec.chain.push_back(read_op(link));
  } else {
    spec.chain.push_back(read_op(op));
  }
  if (const ConfigTree* mask = fields.child("mask")) spec.mask = read_mask(*mask, seed, index);
  fields.done();
  return spec;
}

/// Predictions are listed by their nodes and made by edges: a name on one side alone is a slip.
void check_predictions(const graphs::Description& graph, const ConfigTree& edges) {
  for (std::size_t i = 0; i < graph.edges.size(); ++i) {
    const EdgeSpec& edge = graph.edges[i];
    if (edge.prediction.empty()) continue;
    for (const NodeSpec& node : graph.nodes) {
      if (node.name != edge.to) continue;
      std::vector<std::string> known;
      for (const auto& [name, energy] : node.predictions) known.push_back(name);
      if (std::find(known.begin(), known.end(), edge.prediction) != known.end()) continue;
      fail_at(edges.items()[i].find("prediction")->place(), "node ", node.name, " lists no prediction \"",
              edge.prediction, "\"", did_you_mean(edge.prediction, known), "; write predictions: {", edge.prediction,
              ": {}} in the node");
    }
  }
  for (const NodeSpec& node : graph.nodes) {
    for (const auto& [name, energy] : node.predictions) {
      const bool used = std::any_of(graph.edges.begin(), graph.edges.end(), [&](const EdgeSpec& edge) {
        return edge.to == node.name && edge.prediction == name;
      });
      if (!used && !(node.prior && name == "prior")) {
        throw Error(node.place + ": no edge makes the prediction \"" + name + "\" of node " + node.name +
                    "; give one with prediction: " + name + ", or take it out");
      }
    }
    const EnergySpec& own = node.energy;
    const bool written = own.energy != &gaussian || own.precision != EnergySpec{}.precision || own.learn_precision != 0;
    const bool predicted = std::any_of(graph.edges.begin(), graph.edges.end(), [&](const EdgeSpec& edge) {
      return edge.to == node.name && edge.prediction.empty();
    });
    // Whoever wrote it meant the prior's, which is a prediction of its own.
    if (node.prior && written && !predicted) {
      throw Error(node.place + ": node " + node.name +
                  " has an energy or precision, but only its prior predicts it; write predictions: {prior: {...}}");
    }
  }
}

graphs::Description read_written_out(const ConfigTree& node, std::uint64_t seed) {
  graphs::Description graph;
  Fields fields(node, "graph");
  const ConfigTree& nodes = fields.required_child("nodes");
  if (!nodes.is_map()) fail_at(nodes.place(), "graph.nodes is a map: {name: {shape: [...]}}");
  for (const auto& [key, place, body] : nodes.entries()) graph.nodes.push_back(read_node(key, body, nodes));
  const ConfigTree& edges = fields.required_child("edges");
  if (!edges.is_list()) fail_at(edges.place(), "graph.edges is a list: [{from: a, to: b, op: linear}]");
  for (const ConfigTree& edge : edges.items()) {
    graph.edges.push_back(read_edge(edge, seed, static_cast<std::uint32_t>(graph.edges.size())));
  }
  fields.done();
  check_predictions(graph, edges);
  return graph;
}

/// graphs::Settings over one map of the config.
class ConfigSettings final : public graphs::Settings {
 public:
  ConfigSettings(const experiments::Choice& choice, const std::string& what, std::uint64_t seed,
                 const DataRequest& data)
      : fields_(choice, what + '.' + choice.name), seed_(seed), data_(data) {}

  std::vector<std::int64_t> integers(std::string_view key) override {
    std::vector<std::int64_t> values;
    fields_.require(key, values);
    fields_.read_at_least(key, values, 1);
    return values;
  }
  std::string text(std::string_view key, std::string_view fallback) override {
    std::string value(fallback);
    fields_.read(key, value);
    return value;
  }
  double number(std::string_view key, double fallback) override {
    fields_.read(key, fallback);
    return fallback;
  }
  bool flag(std::string_view key, bool fallback) override {
    fields_.read(key, fallback);
    return fallback;
  }
  OpSpec op(std::string_view key, std::string_view fallback) override {
    const ConfigTree* node = fields_.child(key);
    return node == nullptr ? OpSpec{&find_op(fallback), {}} : read_op(*node);
  }
  std::vector<std::int64_t> integers_or(std::string_view key, std::vector<std::int64_t> fallback) override {
    return fields_.child(key) == nullptr ? fallback : integers(key);
  }
  Choice choice(std::string_view key, std::span<const std::string> known, std::string_view fallback) override {
    const ConfigTree* node = fields_.child(key);
    const experiments::Choice chosen = node == nullptr
                                           ? experiments::Choice{std::string(fallback), nullptr, fields_.place()}
                                           : read_choice(*node, fields_.name_of(key), known);
    below_.push_back(std::make_unique<ConfigSettings>(chosen, fields_.name_of(key), seed_, data_));
    return {chosen.name, below_.back().get()};
  }
  graphs::EdgeList edge_list(std::string_view key) override {
    const ConfigTree& node = fields_.required_child(key);
    std::filesystem::path file;
    read_value(node, fields_.name_of(key), file);
    try {
      return read_edge_list(own_file(data_, file));
    } catch (const Error& e) {
      fail_at(node.place(), fields_.name_of(key), ": ", bare(e.what()));
    }
  }
  [[nodiscard]] std::uint64_t seed() const override { return seed_; }
  [[nodiscard]] std::string place() const override { return fields_.place().text(); }
  void done() const {
    fields_.done();
    for (const auto& settings : below_) settings->done();
  }

 private:
  [[noreturn]] void refuse(std::string_view key, const std::string& text) override {
    const ConfigTree* node = fields_.child(key);
    fail_at(node == nullptr ? fields_.place() : node->place(), fields_.name_of(key), text);
  }

  Fields fields_;
  std::uint64_t seed_;
  const DataRequest& data_;
  std::vector<std::unique_ptr<ConfigSettings>> below_;
};

}  // namespace

graphs::Description read_graph(const ConfigTree& whole, std::uint64_t seed, const DataRequest& data) {
  // `unroll` stands beside the network; read_config sees to it.
  const ConfigTree node = whole.is_map() ? without(whole, "unroll") : whole;
  const std::vector<std::string> known = names_in(graphs::all_networks());
  for (const char* written : {"nodes", "edges"}) {
    if (node.find(written) == nullptr) continue;
    for (const std::string& name : known) {
      if (const ConfigTree::Entry* other = node.entry(name)) {
        fail_at(other->key_place, "graph has two choices, ", written, " at ", node.entry(written)->key_place.text(),
                " and ", name, "; keep one");
      }
    }
    return read_written_out(node, seed);
  }
  const Choice choice = read_choice(node, "graph (or nodes and edges)", known);
  const graphs::Network* network = named(graphs::all_networks(), choice.name, choice.place, "network");
  ConfigSettings settings(choice, "graph", seed, data);
  try {
    graphs::Description graph = network->make(settings);
    settings.done();
    return graph;
  } catch (const Error& e) {
    const std::string text = e.what(), plain = bare(text);
    if (plain == text) throw;  // it has its place
    fail_at(choice.place, "graph.", choice.name, ": ", plain);
  }
}

}  // namespace pc::experiments

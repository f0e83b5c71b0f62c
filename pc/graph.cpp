#include "pc/graph.h"

#include <algorithm>
#include <set>

#include "pc/message.h"
#include "pc/ops/images.h"
#include "pc/ops/ops.h"

namespace pc {
namespace {

/// Runs body; an error that it throws is told again with the place and the node or edge in front.
template <class Body>
auto located(const std::string& place, const std::string& what, Body&& body) {
  try {
    return body();
  } catch (const Error& e) {
    throw Error((place.empty() ? "[graph] " : place + ": ") + what + ": " + bare(e.what()));
  }
}

[[noreturn]] void fail_at(const std::string& place, const std::string& text) {
  throw Error((place.empty() ? "[graph] " : place + ": ") + text);
}

std::string joined(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& name : names) out += (out.empty() ? "" : "+") + name;
  return out;
}

std::string label(const EdgeSpec& spec) { return spec.name.empty() ? joined(spec.from) + "->" + spec.to : spec.name; }

std::string number_of_sources(const Op& op) {
  const std::string least = std::to_string(op.min_sources);
  if (op.max_sources < 0) return "at least " + least;
  return op.max_sources == op.min_sources ? least : least + " to " + std::to_string(op.max_sources);
}

/// What to do about an operator that has another number of sources than it takes.
std::string sources_mended(const Op& op, const EdgeSpec& spec, int given) {
  if (op.max_sources == 0) {
    return "; write an edge of its own without from: {to: " + spec.to + ", op: " + std::string(op.name) + "}";
  }
  if (given == 0) return "; add from: NODE to the edge";
  return given > 1 ? "; begin the chain with add, multiply or concat" : "";
}

/// Shapes travel backwards through operators that keep it, so that [linear, tanh] knows its width from the node.
std::optional<Shape> wanted_after(const std::vector<OpSpec>& chain, std::size_t link, const Shape& target) {
  for (std::size_t later = link + 1; later < chain.size(); ++later) {
    if (!chain[later].op->keeps_shape) return std::nullopt;
  }
  return target;
}

bool sees_image(const Op& op) {
  static constexpr const Op* kOps[] = {&ops::conv2d,     &ops::conv_transpose2d, &ops::max_pool2d,
                                       &ops::avg_pool2d, &ops::global_avg_pool,  &ops::upsample,
                                       &ops::pad};
  return std::find(std::begin(kOps), std::end(kOps), &op) != std::end(kOps);
}

/// Which weights a sparse operator has: what the edge lists, or what its mask keeps of a matrix of that shape.
std::shared_ptr<const Pattern> pattern_for(const EdgeSpec& spec, const Shape& shape) {
  PC_CHECK(spec.pattern || spec.mask, "graph",
           "must know which weights there are: give the edge a mask, or use linear");
  const auto pattern =
      spec.pattern ? spec.pattern : std::make_shared<const Pattern>(pattern_of(spec.mask(shape), shape[0], shape[1]));
  PC_CHECK(pattern->rows == shape[0] && pattern->cols == shape[1], "graph", "has a mask of [", pattern->rows, ", ",
           pattern->cols, "], but weights ", shape.text());
  return pattern;
}

}  // namespace

Fans fans_of(const Param& param, const Pattern* pattern) {
  if (pattern != nullptr) {
    const auto mean = [&](std::int64_t ends) { return std::max(1.0, double(pattern->count()) / double(ends)); };
    return {mean(pattern->rows), mean(pattern->cols)};
  }
  const ParamSpec& spec = param.spec;
  if (param.mask.empty()) return {double(spec.fan_in), double(spec.fan_out)};
  const auto kept = std::count_if(param.mask.begin(), param.mask.end(), [](auto m) { return m != 0; });
  const auto left = [&](std::int64_t fan) {
    return std::max(1.0, double(fan) * double(kept) / double(param.mask.size()));
  };
  return {left(spec.fan_in), left(spec.fan_out)};
}

Graph::Graph(const std::vector<NodeSpec>& nodes, const std::vector<EdgeSpec>& edges) {
  if (nodes.empty()) fail("graph", "it has no nodes");
  for (const NodeSpec& spec : nodes) add_node(spec);
  std::vector<std::pair<std::string, EdgeId>> shared;
  for (const EdgeSpec& spec : edges) add_edge(spec, shared);
  for (const NodeSpec& spec : nodes) {
    if (!spec.prior) continue;
    add_edge({.name = spec.name + ".prior",
              .from = {},
              .to = spec.name,
              .prediction = "prior",
              .chain = {{&find_op("constant"), {}}},
              .place = spec.place},
             shared);
  }
}

void Graph::add_node(const NodeSpec& spec) {
  if (spec.name.empty()) fail_at(spec.place, "a node needs a name");
  for (const Node& node : nodes_) {
    if (node.name == spec.name) fail_at(spec.place, "there are two nodes named " + spec.name);
  }
  if (spec.shape.count() < 1) fail_at(spec.place, "node " + spec.name + " has the empty shape " + spec.shape.text());
  nodes_.push_back({spec.name, spec.shape, {}, {}});
  default_energy_.push_back(spec.energy);
  place_.push_back(spec.place);
  const NodeId id = node_count() - 1;
  for (const auto& [name, energy] : spec.predictions) add_prediction(id, name, energy, spec.place);
  const auto of_prior = [](const auto& named) { return named.first == "prior"; };
  if (spec.prior && std::none_of(spec.predictions.begin(), spec.predictions.end(), of_prior)) {
    add_prediction(id, "prior", {}, spec.place);
  }
}

PredictionId Graph::add_prediction(NodeId node, const std::string& name, const EnergySpec& spec,
                                   const std::string& place) {
  Node& owner = nodes_[static_cast<std::size_t>(node)];
  const std::string full = name.empty() ? owner.name : owner.name + "." + name;
  // Buffers are kept under these names ("a.b" is also a fair name for a node).
  for (const Prediction& other : predictions_) {
    if (other.name == full) fail_at(place, "there are two predictions named " + full);
  }
  const auto count = static_cast<std::int64_t>(spec.precision.size());
  if (count != 1 && count != owner.shape.count()) {
    fail_at(place, "prediction " + full + " has " + std::to_string(count) + " precisions; give 1 or " +
                       std::to_string(owner.shape.count()));
  }
  if (count != 1 && !spec.energy->diagonal_precision) {
    fail_at(place, "prediction " + full + ": energy " + std::string(spec.energy->name) + " takes one precision only");
  }
  for (const double p : spec.precision) {
    if (!(p >= 0)) fail_at(place, "prediction " + full + ": a precision cannot be negative");
  }
  if (spec.learn_precision != 0) {
    if (spec.energy != &gaussian) fail_at(place, "prediction " + full + ": only a gaussian's precision can be learned");
    if (!(spec.learn_precision > 0 && spec.learn_precision <= 1)) {
      fail_at(place, "prediction " + full + ": precisions are learned at a rate above 0 and at most 1");
    }
    for (const double p : spec.precision) {
      if (!(p > 0)) fail_at(place, "prediction " + full + ": a precision that is learned begins above 0");
      if (spec.most_precision > 0 && !(p <= spec.most_precision)) {
        fail_at(place, "prediction " + full + ": a precision that is learned begins at most as large as it may become");
      }
    }
  }
  predictions_.push_back({full, node, spec, {}});
  if (spec.learn_precision > 0 && count == 1) {
    predictions_.back().spec.precision.assign(static_cast<std::size_t>(owner.shape.count()), spec.precision[0]);
  }
  // The default prediction comes first: a feedforward start takes a node's value from its first prediction.
  owner.predictions.insert(name.empty() ? owner.predictions.begin() : owner.predictions.end(), prediction_count() - 1);
  return prediction_count() - 1;
}

PredictionId Graph::prediction_for(NodeId node, const EdgeSpec& spec) {
  const Node& owner = this->node(node);
  const std::string full = spec.prediction.empty() ? owner.name : owner.name + "." + spec.prediction;
  for (const PredictionId id : owner.predictions) {
    if (prediction(id).name == full) return id;
  }
  const auto index = static_cast<std::size_t>(node);
  // A name that the node does not list makes a Gaussian prediction of unit precision.
  return add_prediction(node, spec.prediction, spec.prediction.empty() ? default_energy_[index] : EnergySpec{},
                        place_[index]);
}

void Graph::add_edge(const EdgeSpec& spec, std::vector<std::pair<std::string, EdgeId>>& shared) {
  const std::string name = label(spec);
  const std::string what = "edge " + name;
  if (spec.chain.empty()) fail_at(spec.place, what + " has no operator");
  Edge edge;
  edge.name = name;
  for (int twin = 2; std::any_of(edges_.begin(), edges_.end(), [&](const Edge& e) { return e.name == edge.name; });
       ++twin) {
    edge.name = name + "#" + std::to_string(twin);
  }
  std::vector<Shape> shapes;
  const NodeId to = located(spec.place, what, [&] {
    for (const std::string& from : spec.from) {
      edge.from.push_back(find(from));
      shapes.push_back(node(edge.from.back()).shape);
    }
    return find(spec.to);
  });
  edge.prediction = prediction_for(to, spec);  // what is wrong with it is the node's, and has its place
  const Shape target = node(prediction(edge.prediction).node).shape;

  const Edge* sharer = nullptr;
  for (const auto& [share, id] : shared) {
    if (!spec.share.empty() && share == spec.share) sharer = &edges_[static_cast<std::size_t>(id)];
  }
  if (sharer != nullptr && sharer->chain.size() != spec.chain.size()) {
    fail_at(spec.place, what + " shares parameters with edge " + sharer->name + ", which has another chain");
  }

  std::string axes;  // as the first operator on images takes them
  for (std::size_t i = 0; i < spec.chain.size(); ++i) {
    const Op& op = *spec.chain[i].op;
    located(spec.place, what + ": " + std::string(op.name), [&] {
      const int given = static_cast<int>(shapes.size());
      PC_CHECK(given >= op.min_sources && (op.max_sources < 0 || given <= op.max_sources), "graph", "takes ",
               number_of_sources(op), " source(s), not ", given, sources_mended(op, spec, given));
      Link link{&op, complete_attrs(op, spec.chain[i].attrs), {}, {}};
      OpSite site{shapes, link.attrs, wanted_after(spec.chain, i, target)};
      link.out = op.infer(site);
      if (axes.empty() && sees_image(op)) axes = "; for " + std::string(op.name) + ", " + ops::axes_of_image(shapes[0]);
      if (op.sparse) link.pattern = pattern_for(spec, {link.out.count(), shapes[0].count()});
      site.pattern = link.pattern.get();
      add_params(edge, link, site, sharer == nullptr ? nullptr : &sharer->chain[i]);
      shapes.assign(1, link.out);
      edge.chain.push_back(std::move(link));
    });
  }
  if (shapes[0].count() != target.count() || (shapes[0].rank() > 1 && !(shapes[0] == target))) {
    fail_at(spec.place,
            what + " gives shape " + shapes[0].text() + ", but node " + spec.to + " has shape " + target.text() + axes);
  }
  if (spec.mask || spec.pattern) add_mask(spec, edge);

  edges_.push_back(std::move(edge));
  const EdgeId id = edge_count() - 1;
  const Edge& made = edges_.back();
  // What ends in a product comes last: to sum up the others need not wait for it.
  auto& edges = predictions_[static_cast<std::size_t>(made.prediction)].edges;
  const auto ends_in_product = [&](EdgeId e) { return this->edge(e).chain.back().op->products; };
  edges.insert(ends_in_product(id) ? edges.end() : std::find_if(edges.begin(), edges.end(), ends_in_product), id);
  for (const NodeId from : std::set<NodeId>(made.from.begin(), made.from.end())) {
    nodes_[static_cast<std::size_t>(from)].out.push_back(id);
  }
  if (!spec.share.empty() && sharer == nullptr) shared.emplace_back(spec.share, id);
}

/// A mask stays with the first weights of the chain; those of a sparse operator have it in their pattern.
void Graph::add_mask(const EdgeSpec& spec, const Edge& edge) {
  const std::string what = "edge " + edge.name;
  const auto masked =
      std::find_if(edge.chain.begin(), edge.chain.end(), [](const Link& l) { return !l.params.empty(); });
  if (masked == edge.chain.end()) fail_at(spec.place, what + " has a mask, but no weights");
  if (masked->op->sparse) return;
  Param& weight = params_[static_cast<std::size_t>(masked->params[0])];
  const std::vector<std::uint8_t> mask =
      located(spec.place, what, [&] { return spec.pattern ? mask_of(*spec.pattern) : spec.mask(weight.spec.shape); });
  if (static_cast<std::int64_t>(mask.size()) != weight.spec.shape.count()) {
    fail_at(spec.place, what + ": its mask has " + std::to_string(mask.size()) + " entries, its weights " +
                            weight.spec.shape.text());
  }
  if (!weight.mask.empty() && weight.mask != mask) {
    fail_at(spec.place, what + " shares its weights with an edge that has another mask");
  }
  weight.mask = mask;
}

void Graph::add_params(Edge& edge, Link& link, const OpSite& site, const Link* sharer) {
  if (link.op->params == nullptr) return;
  const std::vector<ParamSpec> specs = link.op->params(site, link.out);
  if (sharer != nullptr) {
    PC_CHECK(sharer->op == link.op && sharer->params.size() == specs.size(), "graph",
             "shares parameters with another operator");
    PC_CHECK(link.pattern == sharer->pattern || *link.pattern == *sharer->pattern, "graph",
             "shares parameters with an edge that has another mask");
    for (std::size_t i = 0; i < specs.size(); ++i) {
      Param& param = params_[static_cast<std::size_t>(sharer->params[i])];
      PC_CHECK(param.spec.shape == specs[i].shape, "graph", "shares ", param.name, " of shape ",
               param.spec.shape.text(), ", but needs ", specs[i].shape.text());
      ++param.uses;
    }
    link.params = sharer->params;
    return;
  }
  int alike = 0;  // earlier links of this chain with the same operator
  for (const Link& earlier : edge.chain) alike += earlier.op == link.op ? 1 : 0;
  const std::string stem = edge.name + "/" + std::string(link.op->name) + (alike ? std::to_string(alike + 1) : "");
  for (const ParamSpec& spec : specs) {
    params_.push_back({stem + "." + spec.name, spec, {}, 1});
    link.params.push_back(param_count() - 1);
  }
}

NodeId Graph::find(std::string_view name) const {
  std::vector<std::string> known;
  for (NodeId id = 0; id < node_count(); ++id) {
    if (node(id).name == name) return id;
    known.push_back(node(id).name);
  }
  std::string list;
  for (std::size_t i = 0; i < std::min<std::size_t>(known.size(), 20); ++i) list += (i ? ", " : "") + known[i];
  fail("graph", "no node named \"", name, "\"; there are: ", list, known.size() > 20 ? ", ..." : "");
}

std::int64_t Graph::weight_count() const {
  std::int64_t n = 0;
  for (const Param& param : params_) {
    n += param.mask.empty() ? param.spec.shape.count()
                            : std::count_if(param.mask.begin(), param.mask.end(), [](auto m) { return m != 0; });
  }
  return n;
}

}  // namespace pc

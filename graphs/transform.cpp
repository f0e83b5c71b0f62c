#include "graphs/transform.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "pc/levels.h"
#include "pc/schedule.h"

namespace pc::graphs {
namespace {

constexpr std::size_t at(int id) { return static_cast<std::size_t>(id); }

void need_acyclic(const Graph& graph, const char* who) {
  const auto cycle = find_cycle(graph);
  PC_CHECK(cycle.empty(), who, "the graph has a cycle: ", cycle_text(graph, cycle), "; unroll it first");
}

/// How far, in levels, an edge of `from` reaches beyond the next one.
int excess(const std::vector<int>& level, NodeId from, NodeId to) {
  return level[at(from)] < 0 || level[at(to)] < 0 ? 0 : level[at(from)] - level[at(to)] - 1;
}

std::string pad_name(const std::string& node, int i) { return node + ".pad" + std::to_string(i); }

}  // namespace

Description pad_paths(const Description& description, const std::vector<std::string>& clamped) {
  const Graph graph(description.nodes, description.edges);
  need_acyclic(graph, "pad");
  std::vector<Clamp> clamps;
  for (const std::string& name : clamped) clamps.push_back({.node = graph.find(name)});
  const std::vector<int> level = levels_to_loss(graph, clamps);
  std::vector<bool> moves(level.size(), true);
  for (const Clamp& clamp : clamps) moves[at(clamp.node)] = false;

  Description padded = description;
  std::vector<int> pads(moves.size(), 0);
  for (std::size_t e = 0; e < padded.edges.size(); ++e) {
    const Edge& edge = graph.edges()[e];
    padded.edges[e].name = edge.name;
    for (std::size_t source = 0; source < edge.from.size(); ++source) {
      const NodeId from = edge.from[source];
      const int missing = moves[at(from)] ? excess(level, from, graph.prediction(edge.prediction).node) : 0;
      if (missing == 0) continue;
      padded.edges[e].from[source] = pad_name(graph.node(from).name, missing);
      pads[at(from)] = std::max(pads[at(from)], missing);
    }
  }
  for (NodeId v = 0; v < graph.node_count(); ++v) {
    const NodeSpec& spec = description.nodes[at(v)];
    for (int i = 1; i <= pads[at(v)]; ++i) {
      NodeSpec& pad = padded.nodes.emplace_back();
      pad.name = pad_name(spec.name, i);
      pad.shape = spec.shape;
      pad.place = spec.place;
      padded.edges.push_back({.from = {i == 1 ? spec.name : pad_name(spec.name, i - 1)},
                              .to = pad_name(spec.name, i),
                              .chain = {{&find_op("identity"), {}}},
                              .place = spec.place});
    }
  }
  return padded;
}

namespace {

class Unrolling {
 public:
  Unrolling(const Description& description, int sweeps, const std::vector<std::string>& inputs)
      : given_(description), graph_(description.nodes, description.edges), sweeps_(sweeps) {
    PC_CHECK(sweeps >= 1, "unroll", "it takes at least one sweep, not ", sweeps);
    constexpr std::int64_t kMost = 100000;  // copies of edges: more than anybody can wait for
    PC_CHECK(std::int64_t{sweeps} * graph_.edge_count() <= kMost, "unroll", sweeps, " sweeps over ",
             graph_.edge_count(), " edges make more than ", kMost, " copies; take fewer");
    for (const Node& node : graph_.nodes()) swept_.push_back(!node.predictions.empty());
    for (const std::string& name : inputs) swept_[at(graph_.find(name))] = false;
    for (NodeId v = 0; v < graph_.node_count(); ++v) {
      const Node& node = graph_.node(v);
      PC_CHECK(!swept_[at(v)] || node.predictions.size() == 1, "unroll", "node ", node.name, " has ",
               node.predictions.size(), " predictions, but x <- mu needs one at every node that is no input");
    }
    // The Graph's own edges: those written down, then those of priors.
    edges_ = given_.edges;
    for (const NodeSpec& node : given_.nodes) {
      if (!node.prior) continue;
      edges_.push_back(
          {.to = node.name, .prediction = "prior", .chain = {{&find_op("constant"), {}}}, .place = node.place});
    }
    find_kept();
  }

  Description make() {
    for (NodeId v = 0; v < graph_.node_count(); ++v) add_last(v);
    for (int sweep = 0; sweep < sweeps_; ++sweep) {
      for (NodeId v = 0; v < graph_.node_count(); ++v) {
        if (kept(sweep, v)) add_copy(v, sweep);
      }
    }
    // The last copies come first, as they stood in the given graph: they name the parameters.
    for (int sweep = sweeps_; sweep >= 1; --sweep) {
      for (EdgeId e = 0; e < graph_.edge_count(); ++e) {
        if (kept(sweep, target(e))) add_edge(e, sweep);
      }
    }
    return std::move(made_);
  }

 private:
  [[nodiscard]] NodeId target(EdgeId e) const { return graph_.prediction(graph_.edge(e).prediction).node; }
  [[nodiscard]] bool kept(int sweep, NodeId v) const { return kept_[at(sweep)][at(v)]; }

  /// What comes to something: all last copies, and what these read.
  void find_kept() {
    kept_.assign(at(sweeps_) + 1, std::vector<bool>(swept_.size(), false));
    kept_[at(sweeps_)] = swept_;
    for (int sweep = sweeps_; sweep >= 1; --sweep) {
      for (EdgeId e = 0; e < graph_.edge_count(); ++e) {
        if (!kept(sweep, target(e))) continue;
        for (const NodeId from : graph_.edge(e).from) {
          if (swept_[at(from)]) kept_[at(sweep) - 1][at(from)] = true;
        }
      }
    }
  }

  [[nodiscard]] std::string name_of(NodeId v, int sweep) const {
    const std::string& name = graph_.node(v).name;
    return !swept_[at(v)] || sweep == sweeps_ ? name : name + "@" + std::to_string(sweep);
  }

  void add_last(NodeId v) {
    NodeSpec spec = given_.nodes[at(v)];
    spec.prior = false;  // its edge is among the others
    if (!swept_[at(v)]) spec.predictions.clear();
    made_.nodes.push_back(spec);
  }

  void add_copy(NodeId v, int sweep) {
    NodeSpec spec = given_.nodes[at(v)];
    spec.name = name_of(v, sweep);
    spec.prior = false;
    const auto unobserved = [](EnergySpec& energy) {
      if (!energy.energy->zero_at_prediction) energy = {};
    };
    unobserved(spec.energy);
    for (auto& [name, energy] : spec.predictions) unobserved(energy);
    if (sweep == 0) spec.predictions.clear();
    made_.nodes.push_back(spec);
  }

  void add_edge(EdgeId e, int sweep) {
    const Edge& edge = graph_.edge(e);
    EdgeSpec spec = edges_[at(e)];
    const std::string group = spec.share.empty() ? "edge " + edge.name : "share " + spec.share;
    if (shared_.insert(group).second) {  // the parameters' first use, though perhaps not in the given graph
      spec.name = graph_.edge(first_of(e)).name;
      spec.mask = mask_of(edge);
    } else {
      spec.name = edge.name + (sweep == sweeps_ ? "" : "@" + std::to_string(sweep));
      spec.mask = nullptr;
    }
    spec.pattern = pattern_of(edge);
    spec.share = group;
    for (std::size_t source = 0; source < edge.from.size(); ++source) {
      spec.from[source] = name_of(edge.from[source], sweep - 1);
    }
    spec.to = name_of(target(e), sweep);
    made_.edges.push_back(spec);
  }

  /// The first edge with the same parameters in the given graph.
  [[nodiscard]] EdgeId first_of(EdgeId e) const {
    for (EdgeId other = 0; other < e; ++other) {
      if (!edges_[at(e)].share.empty() && edges_[at(other)].share == edges_[at(e)].share) return other;
    }
    return e;
  }

  /// The mask of an edge's weights, which any of the edges that share them may have given.
  [[nodiscard]] std::function<std::vector<std::uint8_t>(const Shape&)> mask_of(const Edge& edge) const {
    for (const Link& link : edge.chain) {
      if (link.params.empty()) continue;
      const std::vector<std::uint8_t>& mask = graph_.param(link.params[0]).mask;
      if (mask.empty()) return nullptr;
      return [mask](const Shape&) { return mask; };
    }
    return nullptr;
  }

  /// Of a sparse operator, in place of a mask: every copy has it.
  [[nodiscard]] static std::shared_ptr<const Pattern> pattern_of(const Edge& edge) {
    const auto found =
        std::find_if(edge.chain.begin(), edge.chain.end(), [](const Link& l) { return bool(l.pattern); });
    return found == edge.chain.end() ? nullptr : found->pattern;
  }

  const Description& given_;
  Graph graph_;
  int sweeps_;
  std::vector<EdgeSpec> edges_;          // of graph_
  std::vector<bool> swept_;              // nodes that have copies
  std::vector<std::vector<bool>> kept_;  // [sweep][node]: which
  std::set<std::string> shared_;         // parameters that have been used
  Description made_;
};

}  // namespace

Description unroll(const Description& graph, int sweeps, const std::vector<std::string>& inputs) {
  return Unrolling(graph, sweeps, inputs).make();
}

namespace {

bool is_linear(const Link& link) { return link.op == &find_op("linear") || link.op->sparse; }

int linear_count(const Edge& edge) {
  return static_cast<int>(std::count_if(edge.chain.begin(), edge.chain.end(), is_linear));
}

bool is_skip(const Edge& edge) {
  return std::all_of(edge.chain.begin(), edge.chain.end(),
                     [](const Link& link) { return link.op == &find_op("identity"); });
}

/// The number of linear operators on the longest way through the graph.
int linear_depth(const Graph& graph) {
  std::vector<int> depth(at(graph.node_count()), 0);
  const std::vector<NodeId> order = topological_order(graph).value();
  for (const NodeId v : order) {
    for (const PredictionId p : graph.node(v).predictions) {
      for (const EdgeId e : graph.prediction(p).edges) {
        for (const NodeId from : graph.edge(e).from) {
          depth[at(v)] = std::max(depth[at(v)], depth[at(from)] + linear_count(graph.edge(e)));
        }
      }
    }
  }
  return *std::max_element(depth.begin(), depth.end());
}

}  // namespace

Description mupc(const Description& description) {
  const Graph graph(description.nodes, description.edges);
  need_acyclic(graph, "mupc");
  const double depth = linear_depth(graph);
  Description scaled = description;
  for (std::size_t e = 0; e < scaled.edges.size(); ++e) {
    const Edge& edge = graph.edges()[e];
    const Prediction& prediction = graph.prediction(edge.prediction);
    const bool output = graph.node(prediction.node).out.empty();
    const bool input = std::all_of(edge.from.begin(), edge.from.end(),
                                   [&](NodeId from) { return graph.node(from).predictions.empty(); });
    int summands = 0;
    bool skip = false;
    for (const EdgeId other : prediction.edges) {
      summands += linear_count(graph.edge(other)) > 0 ? 1 : 0;
      skip = skip || is_skip(graph.edge(other));
    }
    const int count = linear_count(edge);
    int number = 0;
    for (std::size_t i = 0; i < edge.chain.size(); ++i) {
      const Link& link = edge.chain[i];
      const bool weighted = !link.params.empty() && graph.param(link.params[0]).spec.role == ParamRole::weight;
      PC_CHECK(!weighted || is_linear(link), "mupc", "edge ", edge.name, ": it has no gain for ", link.op->name,
               ", only for linear; use parameterization: standard");
      if (!is_linear(link)) continue;
      ++number;
      const bool first = input && number == 1, last = number == count;
      const double n = fans_of(graph.param(link.params[0]), link.pattern.get()).in;
      double gain = 1 / std::sqrt(n);
      if (last) gain /= std::sqrt(summands);
      if (last && !first && output) gain /= std::sqrt(n);
      if (last && !first && !output && skip) gain /= std::sqrt(depth);
      scaled.edges[e].chain[i].attrs["gain"] = link.attrs.at("gain") * gain;
    }
  }
  return scaled;
}

namespace {

NodeSpec& node_named(Description& graph, const std::string& name) {
  const auto found =
      std::find_if(graph.nodes.begin(), graph.nodes.end(), [&](const auto& n) { return n.name == name; });
  PC_CHECK(found != graph.nodes.end(), "graph", "there is no node \"", name, "\"");
  return *found;
}

}  // namespace

Description intervene(const Description& graph, const std::vector<std::string>& nodes) {
  Description result = graph;
  for (const std::string& name : nodes) {
    NodeSpec& node = node_named(result, name);
    node.energy.precision = {0.0};
    for (auto& [prediction, energy] : node.predictions) energy.precision = {0.0};
    const auto listed = [](const auto& named) { return named.first == "prior"; };
    if (node.prior && std::none_of(node.predictions.begin(), node.predictions.end(), listed)) {
      node.predictions.emplace_back("prior", EnergySpec{&gaussian, {0.0}});
    }
  }
  return result;
}

Description observe(const Description& graph, const std::string& node, double precision) {
  Description result = graph;
  NodeSpec seen;
  seen.name = node + ".seen";
  seen.shape = node_named(result, node).shape;
  seen.energy.precision = {precision};
  seen.place = node_named(result, node).place;
  result.edges.push_back({.from = {node}, .to = seen.name, .chain = {{&find_op("identity"), {}}}, .place = seen.place});
  result.nodes.push_back(std::move(seen));
  return result;
}

}  // namespace pc::graphs

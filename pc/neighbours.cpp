#include "pc/neighbours.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>
#include <utility>

namespace pc {
namespace {

bool maps_first(const Edge& edge) {
  return edge.from.size() == 1 && edge.chain.size() > 1 && edge.chain[0].op->activation &&
         !edge.chain[1].op->activation;
}

/// Only a product writes the prediction, and only with weights of its own.
bool is_product(const Graph& graph, const Edge& edge) {
  const Link& last = edge.chain.back();
  return edge.from.size() == 1 && edge.chain.size() == (maps_first(edge) ? 2U : 1U) && last.op->name == "linear" &&
         last.attrs.at("last_axis") == 0 && graph.param(last.params[0]).uses == 1;
}

}  // namespace

std::vector<EdgeId> first_maps(const Graph& graph) {
  std::vector<EdgeId> first;
  std::map<std::tuple<NodeId, std::string_view, Attrs>, EdgeId> seen;
  for (EdgeId e = 0; e < graph.edge_count(); ++e) {
    const Edge& edge = graph.edge(e);
    if (!maps_first(edge)) {
      first.push_back(e);
    } else {
      first.push_back(seen.try_emplace({edge.from[0], edge.chain[0].op->name, edge.chain[0].attrs}, e).first->second);
    }
  }
  return first;
}

Neighbours neighbours(const Graph& graph) {
  const auto predictions = static_cast<std::size_t>(graph.prediction_count());
  std::vector<bool> fits(predictions, true);
  for (const Edge& edge : graph.edges()) {
    if (!is_product(graph, edge)) fits[static_cast<std::size_t>(edge.prediction)] = false;
  }
  // The factor that edges share: the node, or what an activation makes of it. At most one edge into each prediction.
  const std::vector<EdgeId> first = first_maps(graph);
  std::map<std::pair<NodeId, EdgeId>, std::map<PredictionId, EdgeId>> by_factor;
  for (EdgeId e = 0; e < graph.edge_count(); ++e) {
    const Edge& edge = graph.edge(e);
    if (!fits[static_cast<std::size_t>(edge.prediction)]) continue;
    const EdgeId map = maps_first(edge) ? first[static_cast<std::size_t>(e)] : -1;
    by_factor[{edge.from[0], map}].try_emplace(edge.prediction, e);
  }
  Neighbours result;
  result.predictions.resize(predictions);
  result.params.resize(static_cast<std::size_t>(graph.param_count()));
  std::vector<PredictionId> root(predictions);  // of predictions with a factor in common
  std::iota(root.begin(), root.end(), 0);
  const auto root_of = [&](PredictionId p) {
    while (root[static_cast<std::size_t>(p)] != p) p = root[static_cast<std::size_t>(p)];
    return p;
  };
  for (const auto& [factor, edges] : by_factor) {
    if (edges.size() < 2) continue;
    const PredictionId begin = root_of(edges.begin()->first);
    std::int64_t rows = 0;
    for (const auto& [p, e] : edges) {
      root[static_cast<std::size_t>(root_of(p))] = begin;
      const ParamId weight = graph.edge(e).chain.back().params[0];
      result.params[static_cast<std::size_t>(weight)] = {static_cast<int>(result.rows.size()), rows};
      rows += graph.param(weight).spec.shape[0];
    }
    result.rows.push_back(rows);
  }
  std::map<PredictionId, std::vector<PredictionId>> groups;
  for (PredictionId p = 0; p < graph.prediction_count(); ++p) groups[root_of(p)].push_back(p);
  for (const auto& [begin, members] : groups) {
    if (members.size() < 2) continue;
    std::int64_t columns = 0;
    for (const PredictionId p : members) {
      result.predictions[static_cast<std::size_t>(p)] = {static_cast<int>(result.columns.size()), columns};
      columns += graph.node(graph.prediction(p).node).shape.count();
    }
    result.columns.push_back(columns);
  }
  return result;
}

}  // namespace pc

#include "pc/levels.h"

#include <algorithm>
#include <span>

#include "pc/components.h"

namespace pc {
namespace {

/// Nodes that a node feeds.
std::vector<std::vector<NodeId>> successors(const Graph& graph) {
  std::vector<std::vector<NodeId>> next(static_cast<std::size_t>(graph.node_count()));
  for (NodeId v = 0; v < graph.node_count(); ++v) {
    for (const EdgeId e : graph.node(v).out) {
      next[static_cast<std::size_t>(v)].push_back(graph.prediction(graph.edge(e).prediction).node);
    }
  }
  return next;
}

}  // namespace

std::vector<std::vector<NodeId>> strongly_connected_components(const Graph& graph) {
  const auto next = successors(graph);
  return strongly_connected_components(next.size(), [&](std::size_t v) { return std::span<const NodeId>(next[v]); });
}

std::optional<std::vector<NodeId>> topological_order(const Graph& graph) {
  const auto next = successors(graph);
  std::vector<int> waiting(next.size(), 0);
  for (const auto& list : next) {
    for (const NodeId w : list) ++waiting[static_cast<std::size_t>(w)];
  }
  std::vector<NodeId> order;
  for (NodeId v = 0; v < graph.node_count(); ++v) {
    if (waiting[static_cast<std::size_t>(v)] == 0) order.push_back(v);
  }
  for (std::size_t done = 0; done < order.size(); ++done) {
    for (const NodeId w : next[static_cast<std::size_t>(order[done])]) {
      if (--waiting[static_cast<std::size_t>(w)] == 0) order.push_back(w);
    }
  }
  if (order.size() != next.size()) return std::nullopt;
  return order;
}

std::vector<NodeId> find_cycle(const Graph& graph) {
  const auto next = successors(graph);
  for (const auto& component : strongly_connected_components(graph)) {
    const NodeId start = component[0];
    const auto& first = next[static_cast<std::size_t>(start)];
    if (component.size() == 1) {
      if (std::find(first.begin(), first.end(), start) != first.end()) return {start};
      continue;
    }
    // Breadth first inside the component, back to the start.
    std::vector<NodeId> came_from(next.size(), -1), queue = {start};
    for (std::size_t done = 0; done < queue.size(); ++done) {
      for (const NodeId w : next[static_cast<std::size_t>(queue[done])]) {
        if (w == start) {
          std::vector<NodeId> cycle;
          for (NodeId v = queue[done]; v != start; v = came_from[static_cast<std::size_t>(v)]) cycle.push_back(v);
          cycle.push_back(start);
          std::reverse(cycle.begin(), cycle.end());
          return cycle;
        }
        const bool inside = std::find(component.begin(), component.end(), w) != component.end();
        if (inside && came_from[static_cast<std::size_t>(w)] < 0) {
          came_from[static_cast<std::size_t>(w)] = queue[done];
          queue.push_back(w);
        }
      }
    }
  }
  return {};
}

std::vector<int> levels(const Graph& graph) {
  const auto order = topological_order(graph);
  PC_CHECK(order.has_value(), "levels", "the graph has a cycle: ", cycle_text(graph, find_cycle(graph)));
  const auto next = successors(graph);
  std::vector<int> level(next.size(), 0);
  for (auto v = order->rbegin(); v != order->rend(); ++v) {
    for (const NodeId w : next[static_cast<std::size_t>(*v)]) {
      int& here = level[static_cast<std::size_t>(*v)];
      here = std::max(here, level[static_cast<std::size_t>(w)] + 1);
    }
  }
  return level;
}

std::string cycle_text(const Graph& graph, const std::vector<NodeId>& cycle) {
  std::string text;
  for (const NodeId v : cycle) text += graph.node(v).name + " -> ";
  return cycle.empty() ? "none" : text + graph.node(cycle[0]).name;
}

}  // namespace pc

// What can be said of a graph's shape before any arithmetic: order, cycles, distances.
#pragma once

#include <optional>
#include <vector>

#include "pc/graph.h"

namespace pc {

/// Nodes so that every source of a node's predictions comes before it; nothing on a cyclic graph.
std::optional<std::vector<NodeId>> topological_order(const Graph& graph);

/// Strongly connected components (Tarjan 1972), sources before what they feed.
std::vector<std::vector<NodeId>> strongly_connected_components(const Graph& graph);

/// The nodes of one cycle in order, a self-loop being a cycle of one; empty when there is none.
std::vector<NodeId> find_cycle(const Graph& graph);

/// Longest distance, in edges, from each node to a node that feeds nothing; acyclic graphs only.
std::vector<int> levels(const Graph& graph);

/// "a -> b -> a"
std::string cycle_text(const Graph& graph, const std::vector<NodeId>& cycle);

}  // namespace pc

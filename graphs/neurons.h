// A graph seen neuron by neuron: its nodes' entries, and an edge where one is multiplied by a weight on its way into
// the prediction of another.
#pragma once

#include <optional>

#include "pc/graph.h"

namespace pc::graphs {

/// How many edges there are between single entries. Nothing where an edge of the graph is more than one linear operator
/// beside others that work entry by entry.
std::optional<std::int64_t> neuron_edges(const Graph& graph);

/// All entries of all nodes side by side; row i lists those that the prediction of i reads. Nothing as above.
std::optional<Pattern> neurons_of(const Graph& graph);

struct Degrees {
  std::int64_t least = 0, most = 0;
  double mean = 0;
};

struct NeuronStatistics {
  std::int64_t neurons = 0, edges = 0, self_loops = 0;
  Degrees in, out;
  double reciprocity = 0;       // the share of edges, without self-loops, whose reverse exists too
  std::int64_t components = 0;  // strongly connected ones
  std::int64_t largest = 0;     // neurons in the largest of them
  std::int64_t on_cycles = 0;   // neurons that lie on a cycle, self-loops included
};

NeuronStatistics statistics_of(const Pattern& neurons);

}  // namespace pc::graphs

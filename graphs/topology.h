// Which neuron reads which: the topologies of PC graphs by name. A topology of n neurons is a pattern [n, n] whose row
// i lists those that neuron i reads, its predictors. All random ones depend on the seed alone.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "graphs/graphs.h"
#include "pc/pattern.h"

namespace pc::graphs {

/// Neurons stand in this order: inputs, hidden, outputs. Inputs and outputs are the sensory ones.
struct Parts {
  std::int64_t inputs = 0, hidden = 0, outputs = 0;

  [[nodiscard]] std::int64_t total() const { return inputs + hidden + outputs; }
  [[nodiscard]] bool sensory(std::int64_t neuron) const { return neuron < inputs || neuron >= inputs + hidden; }
};

/// What every topology is asked for.
struct Wanted {
  Parts parts;
  bool self_loops = false;    // whether a neuron may read itself
  bool sensory_edges = true;  // whether sensory neurons may read sensory ones
  std::uint64_t seed = 0;
};

struct Topology {
  std::string_view name;
  std::string_view about;
  std::string_view keys;  // what it reads, one a line
  Pattern (*make)(Settings&, const Wanted&);
};

std::span<const Topology* const> all_topologies();

/// Entries of rows [row, row + rows) and columns [col, col + cols).
Pattern block_of(const Pattern& pattern, std::int64_t row, std::int64_t rows, std::int64_t col, std::int64_t cols);

}  // namespace pc::graphs

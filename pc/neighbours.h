// Which buffers lie side by side, so that products that share a factor can be one product (Program::join): edges out of
// one node through the same activation multiply the same matrix, by weights that stand one below the other, into
// predictions that are columns of one matrix.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "pc/graph.h"

namespace pc {

/// For each edge the first that begins with the same activation of the same node, so that one map serves both; itself,
/// where there is none before.
std::vector<EdgeId> first_maps(const Graph& graph);

struct Neighbours {
  /// Columns of a matrix that several predictions share, or rows of one that several parameters share.
  struct Place {
    int group;
    std::int64_t offset;
  };
  std::vector<std::optional<Place>> predictions, params;  // by PredictionId, by ParamId
  std::vector<std::int64_t> columns, rows;                // of each group
};

/// Of the edges that are one linear operator, with at most an activation before it.
Neighbours neighbours(const Graph& graph);

}  // namespace pc

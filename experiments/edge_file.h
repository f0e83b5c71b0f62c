// Graphs from files, for topologies.
#pragma once

#include <filesystem>

#include "graphs/graphs.h"

namespace pc::experiments {

/// By its suffix (which may be followed by .gz or .xz):
///   .csv      a line for each edge: source, target, as numbers from 0. Commas, semicolons, tabs or blanks between
///             them; lines that begin with # or %, and a first line without numbers, are left out. How many nodes there
///             are it does not say.
///   .mtx      Matrix Market, coordinates of a square matrix: entry (i, j) is the edge from i to j, whatever its value;
///             of a symmetric one also the edge from j to i.
///   .graphml  GraphML: nodes in the order of the file; an edge that is not directed counts both ways.
/// Throws with the file, and the line where there is one, on anything else.
graphs::EdgeList read_edge_list(const std::filesystem::path& file);

}  // namespace pc::experiments

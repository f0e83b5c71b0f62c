// The `graph:` part of a config: a network by name, or nodes and edges written out.
#pragma once

#include "experiments/config_tree.h"
#include "experiments/data/dataset.h"
#include "graphs/graphs.h"

namespace pc::experiments {

/// `data` tells where files of edges may lie.
graphs::Description read_graph(const ConfigTree& node, std::uint64_t seed, const DataRequest& data = {});

}  // namespace pc::experiments

// Recorded calls as a CUDA graph.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "kernels/kernel.h"

namespace pc::cu {

/// Runs the calls: entry j of `dependencies` names those that must be done before call j. Alike calls that need not
/// wait for each other are done by one launch where their kernel can. The same calls captured as a graph do the same
/// launches; libraries must have chosen their kernels before that, which is what a first run is for. `seldom`: they
/// need not time them (Program::seldom).
void run_once(CudaContext& context, const std::vector<const Call*>& calls,
              const std::vector<std::vector<std::size_t>>& dependencies, bool seldom);

/// A graph that does that again and again. Nothing runs yet.
std::shared_ptr<void> capture(CudaContext& context, const std::vector<const Call*>& calls,
                              const std::vector<std::vector<std::size_t>>& dependencies);

/// Queues one run of a captured graph.
void launch(CudaContext& context, void* graph);

}  // namespace pc::cu

// Recorded calls as a CUDA graph.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "kernels/kernel.h"

namespace pc::cu {

/// A graph that runs the calls again and again, over and over the list as long as `dependencies` is: entry j names the
/// entries that must be done before call j % calls.size() runs for that time. Nothing runs yet.
std::shared_ptr<void> capture(CudaContext& context, const std::vector<Call>& calls,
                              const std::vector<std::vector<std::size_t>>& dependencies);

/// Queues one run of a captured graph.
void launch(CudaContext& context, void* graph);

}  // namespace pc::cu

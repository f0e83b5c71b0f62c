#include "kernels/capture.h"

#include <algorithm>

#include "kernels/cuda_context.h"

namespace pc::cu {
namespace {

using Graph = CudaHandle<cudaGraph_t, cudaGraphDestroy>;
using GraphExec = CudaHandle<cudaGraphExec_t, cudaGraphExecDestroy>;

/// What the next node of a capture would wait for: the last nodes captured.
std::vector<cudaGraphNode_t> frontier(cudaStream_t stream) {
  cudaStreamCaptureStatus status{};
  const cudaGraphNode_t* nodes = nullptr;
  std::size_t count = 0;
#if CUDART_VERSION >= 13000
  PC_CUDA_CHECK(cudaStreamGetCaptureInfo(stream, &status, nullptr, nullptr, &nodes, nullptr, &count));
#else
  PC_CUDA_CHECK(cudaStreamGetCaptureInfo_v2(stream, &status, nullptr, nullptr, &nodes, &count));
#endif
  return {nodes, nodes + count};
}

void wait_for(cudaStream_t stream, std::vector<cudaGraphNode_t> nodes) {
#if CUDART_VERSION >= 13000
  PC_CUDA_CHECK(cudaStreamUpdateCaptureDependencies(stream, nodes.data(), nullptr, nodes.size(),
                                                    cudaStreamSetCaptureDependencies));
#else
  PC_CUDA_CHECK(
      cudaStreamUpdateCaptureDependencies(stream, nodes.data(), nodes.size(), cudaStreamSetCaptureDependencies));
#endif
}

}  // namespace

std::shared_ptr<void> capture(CudaContext& context, const std::vector<Call>& calls,
                              const std::vector<std::vector<std::size_t>>& dependencies) {
  std::vector<std::vector<cudaGraphNode_t>> ends(dependencies.size());  // the last nodes of each call
  PC_CUDA_CHECK(cudaStreamBeginCapture(context.stream, cudaStreamCaptureModeThreadLocal));
  cudaGraph_t made = nullptr;
  try {
    for (std::size_t j = 0; j < dependencies.size(); ++j) {
      std::vector<cudaGraphNode_t> before;
      const auto add = [&](std::size_t i) { before.insert(before.end(), ends[i].begin(), ends[i].end()); };
      for (const std::size_t i : dependencies[j]) add(i);
      // Calls that may run side by side need scratch memory of their own; there are so many places, then one waits.
      const std::size_t slot = j % CudaContext::kSlots;
      if (j >= CudaContext::kSlots) add(j - CudaContext::kSlots);
      std::sort(before.begin(), before.end());
      before.erase(std::unique(before.begin(), before.end()), before.end());
      wait_for(context.stream, before);
      context.use_slot(slot);
      calls[j % calls.size()].cuda(context);
      ends[j] = frontier(context.stream);
    }
  } catch (...) {
    static_cast<void>(cudaStreamEndCapture(context.stream, &made));
    const Graph dropped(made);
    context.use_slot(0);
    throw;
  }
  context.use_slot(0);
  std::vector<cudaGraphNode_t> all;
  for (const auto& nodes : ends) all.insert(all.end(), nodes.begin(), nodes.end());
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  wait_for(context.stream, all);
  PC_CUDA_CHECK(cudaStreamEndCapture(context.stream, &made));
  const Graph graph(made);
  cudaGraphExec_t exec = nullptr;
  PC_CUDA_CHECK(cudaGraphInstantiate(&exec, graph, 0));
  return std::make_shared<GraphExec>(exec);
}

void launch(CudaContext& context, void* graph) {
  PC_CUDA_CHECK(cudaGraphLaunch(*static_cast<GraphExec*>(graph), context.stream));
}

}  // namespace pc::cu

#include "kernels/capture.h"

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string_view>
#include <utility>

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

std::vector<cudaGraphNode_t> without_twins(std::vector<cudaGraphNode_t> nodes) {
  std::sort(nodes.begin(), nodes.end());
  nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
  return nodes;
}

/// Entries that are done by one launch, the launches that it waits for, and its place of scratch memory.
struct Launch {
  std::vector<std::size_t> entries, before;
  std::size_t slot = 0;
};

/// Entries of one level, the longest way from an entry without dependencies, do not depend on each other.
std::vector<Launch> launches_of(const std::vector<const Call*>& calls,
                                const std::vector<std::vector<std::size_t>>& dependencies) {
  const auto call = [&](std::size_t entry) -> const Call& { return *calls[entry]; };
  std::vector<std::size_t> level(dependencies.size(), 0), launch(dependencies.size());
  std::vector<std::vector<std::size_t>> levels;
  for (std::size_t j = 0; j < dependencies.size(); ++j) {
    for (const std::size_t i : dependencies[j]) level[j] = std::max(level[j], level[i] + 1);
    levels.resize(std::max(levels.size(), level[j] + 1));
    levels[level[j]].push_back(j);
  }
  std::vector<Launch> list;
  for (const auto& entries : levels) {
    std::map<std::pair<std::string_view, std::size_t>, std::size_t> alike;
    for (const std::size_t j : entries) {
      const Call& c = call(j);
      const auto [found, fresh] = alike.try_emplace({c.kernel, c.alike}, list.size());
      if (fresh || c.alike == 0) {
        launch[j] = list.size();
        list.emplace_back();
      } else {
        launch[j] = found->second;
      }
      list[launch[j]].entries.push_back(j);
    }
  }
  for (std::size_t j = 0; j < dependencies.size(); ++j) {
    for (const std::size_t i : dependencies[j]) list[launch[j]].before.push_back(launch[i]);
  }
  return list;
}

/// Launches that may run side by side need scratch memory of their own. There are so many places: who finds none whose
/// last user it waits for anyway waits for the one that used its place longest ago. And what a launch waits for through
/// others it need not wait for by itself, which takes a GPU time.
void order(std::vector<Launch>& launches) {
  const std::size_t words = (launches.size() + 63) / 64;
  std::vector<std::uint64_t> all(launches.size() * words, 0);  // for each launch a bit for everything before it
  std::vector<std::size_t> users;                              // the last launch in each place
  std::deque<std::size_t> turns;                               // the places, that used longest ago first
  for (std::size_t j = 0; j < launches.size(); ++j) {
    Launch& launch = launches[j];
    std::uint64_t* const mine = &all[j * words];
    const auto known = [&](std::size_t i) { return (mine[i / 64] >> (i % 64) & 1) != 0; };
    std::vector<std::size_t> direct;
    const auto wait_for = [&](std::size_t i) {
      if (known(i)) return;
      direct.push_back(i);
      for (std::size_t w = 0; w < words; ++w) mine[w] |= all[i * words + w];
      mine[i / 64] |= std::uint64_t{1} << (i % 64);
    };
    std::sort(launch.before.begin(), launch.before.end(), std::greater<>());
    for (const std::size_t i : launch.before) wait_for(i);
    auto turn = std::find_if(turns.begin(), turns.end(), [&](std::size_t slot) { return known(users[slot]); });
    if (turn == turns.end() && users.size() < CudaContext::kSlots) {
      launch.slot = users.size();
      users.push_back(j);
    } else {
      if (turn == turns.end()) turn = turns.begin();
      launch.slot = *turn;
      wait_for(std::exchange(users[launch.slot], j));
      turns.erase(turn);
    }
    turns.push_back(launch.slot);
    launch.before = std::move(direct);
  }
}

void run(const Launch& launch, const std::vector<const Call*>& calls, CudaContext& context) {
  const auto call = [&](std::size_t entry) -> const Call& { return *calls[entry]; };
  if (launch.entries.size() == 1) return call(launch.entries[0]).cuda(context);
  std::vector<const void*> args;
  for (const std::size_t entry : launch.entries) args.push_back(call(entry).args.get());
  call(launch.entries[0]).together(args, context);
}

/// Tables of pointers for the launches of one graph.
class Tables {
 public:
  /// `now`: a table is used at once, and not when a graph runs.
  Tables(CudaContext& context, std::size_t most, bool now = false)
      : context_(context), now_(now), room_(most), memory_(allocate(most * sizeof(void*))) {
    context_.tables = [this](const std::vector<void*>& pointers) { return add(pointers); };
    context_.keeps = [this](const void* data, std::size_t bytes) -> const void* {
      kept_.push_back(copy_of(data, bytes));
      return kept_.back();
    };
  }
  Tables(const Tables&) = delete;
  Tables& operator=(const Tables&) = delete;
  ~Tables() {
    context_.tables = nullptr;
    context_.keeps = nullptr;
  }

  /// Once nothing is being captured.
  std::vector<Memory> take() {
    copy_bytes(context_, memory_, all_.data(), all_.size() * sizeof(void*));
    kept_.push_back(std::move(memory_));
    return std::move(kept_);
  }

 private:
  void** add(const std::vector<void*>& pointers) {
    PC_CHECK(all_.size() + pointers.size() <= room_, "cuda", "too many pointers for their table");
    void** at = static_cast<void**>(memory_.get()) + all_.size();
    all_.insert(all_.end(), pointers.begin(), pointers.end());
    if (now_) copy_bytes(context_, at, pointers.data(), pointers.size() * sizeof(void*));
    return at;
  }

  CudaContext& context_;
  bool now_;
  std::size_t room_;
  Memory memory_;
  std::vector<void*> all_;
  std::vector<Memory> kept_;
};

constexpr std::size_t kPointers = 3;  // of one entry, at most

/// A graph, and what it reads beside its calls' own memory.
struct Captured {
  std::vector<Memory> tables;
  GraphExec exec;
};

std::shared_ptr<Captured> capture_graph(CudaContext& context, const std::vector<const Call*>& calls,
                                        const std::vector<std::vector<std::size_t>>& dependencies) {
  std::vector<Launch> launches = launches_of(calls, dependencies);
  order(launches);
  Tables tables(context, kPointers * dependencies.size());
  std::vector<std::vector<cudaGraphNode_t>> ends(launches.size());  // the last nodes of each launch
  PC_CUDA_CHECK(cudaStreamBeginCapture(context.stream, cudaStreamCaptureModeThreadLocal));
  cudaGraph_t made = nullptr;
  try {
    for (std::size_t j = 0; j < launches.size(); ++j) {
      std::vector<cudaGraphNode_t> before;
      for (const std::size_t i : launches[j].before) before.insert(before.end(), ends[i].begin(), ends[i].end());
      wait_for(context.stream, without_twins(std::move(before)));
      context.use_slot(launches[j].slot);
      run(launches[j], calls, context);
      ends[j] = frontier(context.stream);
    }
    std::vector<cudaGraphNode_t> all;
    for (const auto& nodes : ends) all.insert(all.end(), nodes.begin(), nodes.end());
    wait_for(context.stream, without_twins(std::move(all)));
  } catch (...) {
    static_cast<void>(cudaStreamEndCapture(context.stream, &made));
    const Graph dropped(made);
    context.use_slot(0);
    throw;
  }
  context.use_slot(0);
  PC_CUDA_CHECK(cudaStreamEndCapture(context.stream, &made));
  const Graph graph(made);
  cudaGraphExec_t exec = nullptr;
  PC_CUDA_CHECK(cudaGraphInstantiate(&exec, graph, 0));
  auto captured = std::make_shared<Captured>();
  captured->exec = GraphExec(exec);
  captured->tables = tables.take();
  return captured;
}

}  // namespace

void run_once(CudaContext& context, const std::vector<const Call*>& calls,
              const std::vector<std::vector<std::size_t>>& dependencies, bool seldom) {
  Tables tables(context, kPointers * dependencies.size(), true);
  struct Seldom {
    CudaContext& context;
    ~Seldom() { context.seldom = false; }
  } now{context};
  context.seldom = seldom;
  for (const Launch& launch : launches_of(calls, dependencies)) run(launch, calls, context);
  PC_CUDA_CHECK(cudaStreamSynchronize(context.stream));  // before the tables go
}

std::shared_ptr<void> capture(CudaContext& context, const std::vector<const Call*>& calls,
                              const std::vector<std::vector<std::size_t>>& dependencies) {
  return capture_graph(context, calls, dependencies);
}

void launch(CudaContext& context, void* graph) {
  PC_CUDA_CHECK(cudaGraphLaunch(static_cast<Captured*>(graph)->exec, context.stream));
}

}  // namespace pc::cu

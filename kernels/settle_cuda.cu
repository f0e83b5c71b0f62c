#include <cmath>
#include <type_traits>

#include "kernels/launch.cuh"
#include "kernels/narrow.cuh"
#include "kernels/settle.h"
#include "kernels/settle_tiles.h"
#include "kernels/settle_warps.h"
#include "kernels/squares.cuh"

namespace pc::kernels {
namespace {

using cu::fetch, cu::load_square, cu::multiply_add, cu::wait_for_fetched;

constexpr int kThreads = 512, kWarp = 32, kWarps = kThreads / kWarp;

/// SettleArgs as device code reads it: a prediction's edges stand beside each other, and each node has lists of the
/// edges that leave it and of its predictions.
struct Network {
  struct Node {
    const void* x;
    void *dx, *whole;
    std::int64_t x_ld, dx_ld, whole_ld;
    int n;
    int tasks;  // warps that its moves take; none where it is clamped
    int edges_begin, edges_end, predictions_begin, predictions_end;
    SettleLayout::NodeAt at;
    cu::Narrow narrow, narrow_whole;
  };
  struct Prediction {
    const void* start;
    void *delta, *dz;
    double* energy;
    std::int64_t ld, delta_ld, dz_ld;
    cu::Narrow narrow;
    int node, n, tasks, edges_begin, edges_end;
    double precision;
    SettleLayout::PredictionAt at;
  };
  struct Edge {
    const void *w, *z;
    std::int64_t ld, z_ld;
    int source, in, out;
    Activation before, after;
    double gain, leak;
    SettleLayout::EdgeAt at;
  };
  Node nodes[kSettleMost];
  Prediction predictions[kSettleMost];
  Edge edges[kSettleMost];
  int leaving[kSettleMost], of_node[kSettleMost];  // the nodes' lists
  int node_count, prediction_count, edge_count, steps, weights, state;
  int predicting, moving;  // tasks in all
  std::int64_t rows;
  double rate, momentum;
  float up, down;  // what operands of 16 bits are multiplied by, and its inverse
  double* overflow;
};

Network network_of(const SettleArgs& args) {
  const SettleLayout layout = settle_layout(args);
  const auto tasks = [](std::int64_t n) { return static_cast<int>((n + kWarp - 1) / kWarp); };
  Network net{};
  for (int i = 0; i < args.predictions.count; ++i) {
    const SettlePrediction& p = args.predictions[i];
    const int begin = net.edge_count;
    for (int k = 0; k < args.edges.count; ++k) {
      const SettleEdge& e = args.edges[k];
      if (e.prediction != i) continue;
      net.edges[net.edge_count++] = {.w = e.w.data,
                                     .z = e.z.data,
                                     .ld = e.w.empty() ? 0 : e.w.ld(),
                                     .z_ld = e.z.empty() ? 0 : e.z.ld(),
                                     .source = e.source,
                                     .in = e.constant() ? 0 : static_cast<int>(args.nodes[e.source].x.cols()),
                                     .out = static_cast<int>(args.width(p)),
                                     .before = e.before,
                                     .after = e.after,
                                     .gain = e.gain,
                                     .leak = e.leak,
                                     .at = layout.edges[k]};
    }
    net.predictions[i] = {.start = p.start.data,
                          .delta = p.delta.data,
                          .dz = p.dz.data,
                          .energy = p.energy.as<double>(),
                          .ld = p.start.empty() ? 0 : p.start.ld(),
                          .delta_ld = p.delta.empty() ? 0 : p.delta.ld(),
                          .dz_ld = p.dz.empty() ? 0 : p.dz.ld(),
                          .narrow = cu::Narrow(p.narrow),
                          .node = p.node,
                          .n = static_cast<int>(args.width(p)),
                          .tasks = tasks(args.width(p)),
                          .edges_begin = begin,
                          .edges_end = net.edge_count,
                          .precision = p.precision,
                          .at = layout.predictions[i]};
    net.predicting += net.predictions[i].tasks;
  }
  int leaving = 0, of_node = 0;
  for (int i = 0; i < args.nodes.count; ++i) {
    const SettleNode& n = args.nodes[i];
    Network::Node& node = net.nodes[i];
    node = {.x = n.x.data,
            .dx = n.dx.data,
            .whole = n.whole.data,
            .x_ld = n.x.ld(),
            .dx_ld = n.dx.empty() ? 0 : n.dx.ld(),
            .whole_ld = n.whole.empty() ? 0 : n.whole.ld(),
            .n = static_cast<int>(n.x.cols()),
            .tasks = n.dx.empty() ? 0 : tasks(n.x.cols()),
            .edges_begin = leaving,
            .predictions_begin = of_node,
            .at = layout.nodes[i],
            .narrow = cu::Narrow(n.narrow),
            .narrow_whole = cu::Narrow(n.narrow_whole)};
    for (int e = 0; e < net.edge_count; ++e) {
      if (net.edges[e].source == i) net.leaving[leaving++] = e;
    }
    for (int p = 0; p < args.predictions.count; ++p) {
      if (args.predictions[p].node == i) net.of_node[of_node++] = p;
    }
    node.edges_end = leaving;
    node.predictions_end = of_node;
    net.moving += node.tasks;
  }
  net.node_count = args.nodes.count;
  net.prediction_count = args.predictions.count;
  net.steps = args.steps;
  net.weights = layout.weights;
  net.state = layout.state;
  net.rows = args.rows();
  net.rate = args.rate;
  net.momentum = args.momentum;
  net.up = std::ldexp(1.0F, args.exponent);
  net.down = std::ldexp(1.0F, -args.exponent);
  net.overflow = args.overflow.as<double>();
  return net;
}

/// A block's samples: `kSamples` rows from `first` on; rows past the last are computed with and never stored. Operand:
/// T, or 16 bits for tensor cores.
template <class T, class Operand, int kSamples>
class Block {
 public:
  static constexpr bool kTensor = sizeof(Operand) < sizeof(T);

  __device__ Block(const Network& net, T* memory)
      : net_(net),
        weights_(memory),
        state_(memory + net.weights),
        first_(std::int64_t{blockIdx.x} * kSamples),
        warp_(static_cast<int>(threadIdx.x) / kWarp),
        lane_(static_cast<int>(threadIdx.x) % kWarp) {}

  __device__ void load() {
    for (int i = threadIdx.x; i < kSamples * net_.state; i += kThreads) state_[i] = T(0);
    for (int e = 0; e < net_.edge_count; ++e) {
      if (net_.edges[e].w != nullptr) load_weights(net_.edges[e]);
    }
    __syncthreads();  // before zeros are written over
    for (int s = 0; s < kSamples; ++s) {
      const std::int64_t row = row_of(s);
      T* state = state_ + s * net_.state;
      for (int p = 0; p < net_.prediction_count; ++p) {
        const Network::Prediction& prediction = net_.predictions[p];
        const T* start = static_cast<const T*>(prediction.start);
        for (int i = threadIdx.x; start != nullptr && i < prediction.n; i += kThreads) {
          fetch(&state[prediction.at.start + i], &start[row * prediction.ld + i]);
        }
      }
      for (int e = 0; e < net_.edge_count; ++e) {
        const Network::Edge& edge = net_.edges[e];
        for (int i = threadIdx.x; edge.before != Activation::identity && i < edge.in; i += kThreads) {
          const Network::Node& source = net_.nodes[edge.source];
          fetch(&state[edge.at.x + i], &static_cast<const T*>(source.x)[row * source.x_ld + i]);
        }
        for (int i = threadIdx.x; edge.after != Activation::identity && i < edge.out; i += kThreads) {
          fetch(&state[edge.at.z + i], &static_cast<const T*>(edge.z)[row * edge.z_ld + i]);
        }
      }
    }
    wait_for_fetched();
    __syncthreads();
    each_task(net_.nodes, net_.moving, [this](const Network::Node& node, int j) {
      for (int s = 0; s < kSamples && j < node.n; ++s) map_source(node, j, state_ + s * net_.state);
    });
    __syncthreads();
  }

  __device__ void step() {
    each_task(net_.predictions, net_.predicting, [this](const Network::Prediction& p, int j) { compare(p, j); });
    __syncthreads();
    each_task(net_.nodes, net_.moving, [this](const Network::Node& node, int j) { move(node, j); });
    __syncthreads();
  }

  /// What the last move has led to, where it is wanted.
  __device__ void store_errors() {
    bool any = false;
    for (int p = 0; p < net_.prediction_count; ++p) any = any || net_.predictions[p].delta != nullptr;
    if (!any) return;
    each_task(net_.predictions, net_.predicting, [this](const Network::Prediction& p, int j) { compare(p, j); });
    __syncthreads();
    for (int task = warp_; task < net_.prediction_count * kSamples; task += kWarps) {
      const Network::Prediction& p = net_.predictions[task / kSamples];
      const std::int64_t row = first_ + task % kSamples;
      if (p.delta != nullptr && row < net_.rows) store_errors(p, row, state_ + task % kSamples * net_.state);
    }
  }

  __device__ void store() const {
    for (int s = 0; s < kSamples; ++s) {
      if (first_ + s >= net_.rows) return;
      for (int n = 0; n < net_.node_count; ++n) {
        const Network::Node& node = net_.nodes[n];
        if (node.tasks == 0) continue;
        const std::int64_t row = first_ + s;
        for (int i = threadIdx.x; i < node.n; i += kThreads) {
          const T dx = state_[s * net_.state + node.at.dx + i];
          const T whole = static_cast<const T*>(node.x)[row * node.x_ld + i] + dx;
          static_cast<T*>(node.dx)[row * node.dx_ld + i] = dx;
          if (node.whole != nullptr) static_cast<T*>(node.whole)[row * node.whole_ld + i] = whole;
          node.narrow(row, i, dx);
          node.narrow_whole(row, i, whole);
        }
      }
    }
  }

 private:
  /// By a warp.
  __device__ void store_errors(const Network::Prediction& p, std::int64_t row, const T* state) const {
    double squares = 0;
    for (int i = lane_; i < p.n; i += kWarp) {
      T sent = state[p.at.delta + i];
      squares += double(sent) * double(sent);
      static_cast<T*>(p.delta)[row * p.delta_ld + i] = sent;
      if (p.dz != nullptr) {
        sent = state[net_.edges[p.edges_begin].at.dz + i];
        static_cast<T*>(p.dz)[row * p.dz_ld + i] = sent;
      }
      p.narrow(row, i, sent);
    }
    for (int apart = kWarp / 2; apart > 0; apart /= 2) squares += __shfl_xor_sync(~0U, squares, apart);
    // 1/2 p e^2, of delta = p e
    if (lane_ == 0 && p.energy != nullptr) p.energy[row] = p.precision == 0 ? 0 : 0.5 / p.precision * squares;
  }

  [[nodiscard]] __device__ std::int64_t row_of(int s) const { return min(first_ + s, net_.rows - 1); }
  /// Entries from one row of an edge's weights to the next.
  [[nodiscard]] __device__ static int row_stride(const Network::Edge& edge) {
    return kTensor ? settle_tiled(edge.in) + kSettleGap : edge.in | 1;
  }

  __device__ void load_weights(const Network::Edge& edge) {
    const auto* from = static_cast<const Operand*>(edge.w);
    auto* to = reinterpret_cast<Operand*>(weights_ + edge.at.w);
    const int stride = row_stride(edge);
    if constexpr (!kTensor) {
      for (int row = warp_; row < edge.out; row += kWarps) {
        for (int col = lane_; col < edge.in; col += kWarp) fetch(&to[row * stride + col], &from[row * edge.ld + col]);
      }
    } else {
      using Eight = cu::Pack<Operand, 8>;
      const bool packed = edge.ld % 8 == 0 && reinterpret_cast<std::uintptr_t>(from) % sizeof(Eight) == 0;
      for (int row = warp_; row < settle_tiled(edge.out); row += kWarps) {
        for (int col = lane_ * 8; col < settle_tiled(edge.in); col += kWarp * 8) {
          auto* run = reinterpret_cast<Eight*>(to + row * stride + col);
          if (packed && row < edge.out && col + 8 <= edge.in) {
            fetch(run, reinterpret_cast<const Eight*>(from + row * edge.ld + col));
            continue;
          }
          for (int k = 0; k < 8; ++k) {
            const bool inside = row < edge.out && col + k < edge.in;
            run->items[k] = inside ? from[row * edge.ld + col + k] : Operand(0.0F);
          }
        }
      }
    }
  }

  /// body(thing, entry) for all entries of all things in a list; a warp does 32 neighbours together, the last of which
  /// may lie outside. Threads of a warp stay side by side, so that they can multiply together.
  template <class Thing, class Body>
  __device__ void each_task(const Thing* things, int tasks, Body body) {
    for (int task = warp_; task < tasks; task += kWarps) {
      const Thing* thing = things;
      int part = task;
      for (; part >= thing->tasks; ++thing) part -= thing->tasks;
      body(*thing, part * kWarp + lane_);
    }
  }

  /// Stores an operand of 16 bits.
  __device__ void narrow(T* operands, int entry, T value) const {
    if constexpr (kTensor) {
      const auto rounded = Operand(net_.up * value);
      if constexpr (std::is_same_v<Operand, __half>) {
        if (__hisinf(rounded) != 0 && !isinf(value)) *net_.overflow = 1.0;  // whoever writes, writes the same
      }
      reinterpret_cast<Operand*>(operands)[entry] = rounded;
    }
  }

  /// The change of before(x) and its slope, for the edges that read an entry.
  __device__ void map_source(const Network::Node& node, int j, T* state) const {
    const T dx = state[node.at.dx + j];
    for (int i = node.edges_begin; i < node.edges_end; ++i) {
      const Network::Edge& edge = net_.edges[net_.leaving[i]];
      T value = dx;
      if (edge.before != Activation::identity) {
        const auto f = scalar::change(edge.before, state[edge.at.x + j], dx, T(edge.leak));
        value = state[edge.at.a + j] = f.value;
        state[edge.at.slope + j] = f.slope;
      }
      if (edge.w != nullptr) narrow(state + edge.at.forward, j, value);
    }
  }

  /// One output of an edge's product with its weights, or back with the transpose, for each sample; for all threads of
  /// a warp at once. Outside there is no sense in it.
  template <bool back>
  __device__ void multiply(const Network::Edge& edge, int output, T (&result)[kSamples]) const {
    if constexpr (kTensor) {
      multiply_squares<back>(edge, output - lane_, result);
    } else {
      multiply_terms<back>(edge, output, result);
    }
#pragma unroll
    for (int s = 0; s < kSamples; ++s) result[s] *= T(edge.gain);
  }

  template <bool back>
  __device__ void multiply_terms(const Network::Edge& edge, int output, T (&sum)[kSamples]) const {
    const int outputs = back ? edge.in : edge.out, length = back ? edge.out : edge.in;
    const int stride = row_stride(edge), along = back ? stride : 1;
    const int source = edge.before == Activation::identity ? net_.nodes[edge.source].at.dx : edge.at.a;
    const T* w = weights_ + edge.at.w + min(output, outputs - 1) * (back ? 1 : stride);
    const T* term = state_ + (back ? edge.at.dz : source);
#pragma unroll
    for (int s = 0; s < kSamples; ++s) sum[s] = 0;
#pragma unroll 16
    for (int k = 0; k < length; ++k) {
      const T factor = w[k * along];
#pragma unroll
      for (int s = 0; s < kSamples; ++s) sum[s] = fma(factor, term[s * net_.state + k], sum[s]);
    }
  }

  /// Two squares of 16 outputs, from `first` on, of eight samples at once; kSamples of them are wanted.
  template <bool back>
  __device__ void multiply_squares(const Network::Edge& edge, int first, T (&result)[kSamples]) const {
    const int outputs = settle_tiled(back ? edge.in : edge.out);
    const int squares = settle_tiled(back ? edge.out : edge.in) / kSettleTile;
    const int stride = row_stride(edge), step = back ? kSettleTile * stride : kSettleTile;
    const auto* w = reinterpret_cast<const Operand*>(weights_ + edge.at.w);
    const int sample = min(lane_ / 4, kSamples - 1);
    const auto* terms =
        reinterpret_cast<const unsigned*>(state_ + sample * net_.state + (back ? edge.at.back : edge.at.forward)) +
        lane_ % 4;
    __syncwarp();
    float sums[2][2][4] = {};  // of either square, of even and odd places: so that one need not wait for the other
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int begin = first + half * kSettleTile;
      if (begin >= outputs) break;
      const Operand* row = back ? w + (lane_ / 16 * 8 + lane_ % 8) * stride + begin + lane_ / 8 % 2 * 8
                                : w + (begin + lane_ % 16) * stride + lane_ / 16 * 8;
#pragma unroll 2
      for (int k = 0; k < squares; k += 2) {
        unsigned a[4], b[4];
        load_square<back>(a, row + k * step);
        multiply_add(sums[half][0], a, terms[k * 8], terms[k * 8 + 4], Operand{});
        if (k + 1 == squares) break;
        load_square<back>(b, row + (k + 1) * step);
        multiply_add(sums[half][1], b, terms[k * 8 + 8], terms[k * 8 + 12], Operand{});
      }
    }
    // Thread 4 r + s / 2 has rows r and r + 8 of sample s. What a thread wants is its own row of each sample.
#pragma unroll
    for (int s = 0; s < kSamples; ++s) {
      float mine = 0;
#pragma unroll
      for (int quarter = 0; quarter < 4; ++quarter) {
        const int half = quarter / 2, i = quarter % 2 * 2 + s % 2;
        const float sum = __shfl_sync(~0U, sums[half][0][i] + sums[half][1][i], lane_ % 8 * 4 + s / 2);
        if (lane_ / 8 == quarter) mine = sum;
      }
      result[s] = net_.down * mine;
    }
  }

  __device__ void compare(const Network::Prediction& p, int j) const {
    const bool inside = j < p.n;
    T error[kSamples], dz[kSamples];
#pragma unroll
    for (int s = 0; s < kSamples; ++s) {
      const T* state = state_ + s * net_.state;
      error[s] = inside ? state[p.at.start + j] + state[net_.nodes[p.node].at.dx + j] : T(0);
    }
    for (int e = p.edges_begin; e < p.edges_end; ++e) {
      const Network::Edge& edge = net_.edges[e];
      if (edge.w != nullptr) multiply<false>(edge, j, dz);
      if (!inside) continue;
#pragma unroll
      for (int s = 0; s < kSamples; ++s) {
        T* state = state_ + s * net_.state;
        if (edge.w == nullptr) dz[s] = edge.source < 0 ? T(0) : state[net_.nodes[edge.source].at.dx + j];
        scalar::ValueSlope<T> f{dz[s], T(1)};
        if (edge.after != Activation::identity) {
          f = scalar::change(edge.after, state[edge.at.z + j], dz[s], T(edge.leak));
        }
        if (edge.source >= 0) error[s] -= f.value;
        state[edge.at.dz + j] = f.slope;  // for now
      }
    }
    if (!inside) return;
#pragma unroll
    for (int s = 0; s < kSamples; ++s) {
      T* state = state_ + s * net_.state;
      const T delta = T(p.precision) * error[s];
      state[p.at.delta + j] = delta;
      for (int e = p.edges_begin; e < p.edges_end; ++e) {
        const Network::Edge& edge = net_.edges[e];
        const T sent = state[edge.at.dz + j] *= delta;
        if (edge.w != nullptr) narrow(state + edge.at.back, j, sent);
      }
    }
  }

  __device__ void move(const Network::Node& node, int j) const {
    const bool inside = j < node.n;
    T gradient[kSamples] = {}, back[kSamples];
    for (int i = node.predictions_begin; i < node.predictions_end && inside; ++i) {
      const int delta = net_.predictions[net_.of_node[i]].at.delta + j;
#pragma unroll
      for (int s = 0; s < kSamples; ++s) gradient[s] += state_[s * net_.state + delta];
    }
    for (int i = node.edges_begin; i < node.edges_end; ++i) {
      const Network::Edge& edge = net_.edges[net_.leaving[i]];
      if (edge.w != nullptr) multiply<true>(edge, j, back);
      if (!inside) continue;
#pragma unroll
      for (int s = 0; s < kSamples; ++s) {
        const T* state = state_ + s * net_.state;
        if (edge.w == nullptr) back[s] = state[edge.at.dz + j];
        if (edge.before != Activation::identity) back[s] *= state[edge.at.slope + j];
        gradient[s] -= back[s];
      }
    }
    if (!inside) return;
#pragma unroll
    for (int s = 0; s < kSamples; ++s) {
      T* state = state_ + s * net_.state;
      T& velocity = state[node.at.velocity + j];
      velocity = T(net_.momentum) * velocity + gradient[s];
      state[node.at.dx + j] -= T(net_.rate) * velocity;
      map_source(node, j, state);
    }
  }

  const Network& net_;
  T *weights_, *state_;
  std::int64_t first_;
  int warp_, lane_;
};

template <class T, class Operand, int kSamples>
__global__ void __launch_bounds__(kThreads) settle_kernel(const __grid_constant__ Network net) {
  extern __shared__ float4 memory[];
  // Read again and again, by threads that want different parts of it: more than the cache for arguments holds.
  __shared__ Network here;
  static_assert(sizeof(Network) <= kSettleDescription && sizeof(Network) % sizeof(double) == 0);
  constexpr int kWords = sizeof(Network) / sizeof(double);
#pragma unroll 4
  for (int i = threadIdx.x / kWarp; i < kWords;
       i += kWarps) {  // a warp reads one argument at a time, or waits 32 times
    const double word = reinterpret_cast<const double*>(&net)[i];
    if (threadIdx.x % kWarp == 0) reinterpret_cast<double*>(&here)[i] = word;
  }
  __syncthreads();
  cu::follow();
  Block<T, Operand, kSamples> block(here, reinterpret_cast<T*>(memory));
  block.load();
  for (int t = 0; t < net.steps; ++t) block.step();
  block.store_errors();
  block.store();
}

template <class T, class Operand, int kSamples>
void launch_with(const Network& net, CudaContext& context) {
  const std::size_t bytes = sizeof(T) * (net.weights + std::size_t{kSamples} * net.state);
  PC_CUDA_CHECK(cudaFuncSetAttribute(settle_kernel<T, Operand, kSamples>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     static_cast<int>(bytes)));
  const auto blocks = static_cast<unsigned>((net.rows + kSamples - 1) / kSamples);
  cu::launch(settle_kernel<T, Operand, kSamples>, blocks, kThreads, bytes, context.stream, net);
}

/// As few samples a block as keep every multiprocessor busy once; more where there are more, while memory lasts.
template <class T, class Operand>
void settle_typed(const SettleArgs& args, CudaContext& context) {
  const Network net = network_of(args);
  int processors = 0;
  PC_CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, context.device));
  const std::size_t most = cu::block_memory(context);
  const auto fits = [&](int samples) {
    return sizeof(T) * (net.weights + static_cast<std::size_t>(samples) * net.state) + kSettleDescription <= most;
  };
  PC_CHECK(fits(1), "settle", "the weights do not fit the device's shared memory");
  if (net.rows > 2 * processors && fits(4)) return launch_with<T, Operand, 4>(net, context);
  if (net.rows > processors && fits(2)) return launch_with<T, Operand, 2>(net, context);
  launch_with<T, Operand, 1>(net, context);
}

}  // namespace

void settle_cuda(const SettleArgs& args, CudaContext& context) {
#if defined(PC_WITH_HOPPER)
  if (!args.scratch.empty()) return settle_tiled_cuda(args, context);
#endif
  PC_CHECK(args.scratch.empty(), "settle",
           "this build has no code for tiles; configure with -DCMAKE_CUDA_ARCHITECTURES=90");
  if (args.warps) return settle_warps_cuda(args, context);
  PC_CHECK(args.stages() == 0, "settle", "only warps begin by themselves");
  if (args.operands() == DType::f16) return settle_typed<float, __half>(args, context);
  if (args.operands() == DType::bf16) return settle_typed<float, __nv_bfloat16>(args, context);
  with_float(args.dtype(), [&]<class T>(T) { settle_typed<T, T>(args, context); });
}

bool settle_by_warps_cuda(const SettleArgs& args, CudaContext& context) { return settle_warps_fit(args, context); }

}  // namespace pc::kernels

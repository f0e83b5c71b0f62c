#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <type_traits>

#include "kernels/launch.cuh"
#include "kernels/narrow.cuh"
#include "kernels/settle.h"

namespace pc::kernels {
namespace {

constexpr int kThreads = 512, kWarp = 32, kWarps = kThreads / kWarp;

/// SettleArgs as device code reads it.
struct Network {
  struct Node {
    const void* x;
    void *dx, *whole;
    std::int64_t x_ld, dx_ld, whole_ld;
    int n;
    bool free;
    SettleLayout::NodeAt at;
    cu::Narrow narrow, narrow_whole;
  };
  struct Prediction {
    const void* start;
    std::int64_t ld;
    int node, n;
    double precision;
    SettleLayout::PredictionAt at;
  };
  struct Edge {
    const void *w, *z;
    std::int64_t ld, z_ld;
    int source, prediction, in, out;
    Activation before, after;
    double gain, leak;
    SettleLayout::EdgeAt at;
  };
  Node nodes[SettleArgs::kMost];
  Prediction predictions[SettleArgs::kMost];
  Edge edges[SettleArgs::kMost];
  int node_count, prediction_count, edge_count, steps, weights, state;
  int predicted, moving;  // how often a warp must work to do all predictions, or all free nodes, of a sample
  std::int64_t rows;
  double rate, momentum;
  float up, down;  // what operands of 16 bits are multiplied by, and its inverse
  double* overflow;
};

__host__ __device__ constexpr int parts_of(int n, int size) { return (n + size - 1) / size; }

Network network_of(const SettleArgs& args) {
  const SettleLayout layout = settle_layout(args);
  Network net{};
  for (int i = 0; i < args.nodes.count; ++i) {
    const SettleNode& n = args.nodes[i];
    net.nodes[i] = {.x = n.x.data,
                    .dx = n.dx.data,
                    .whole = n.whole.data,
                    .x_ld = n.x.ld(),
                    .dx_ld = n.dx.empty() ? 0 : n.dx.ld(),
                    .whole_ld = n.whole.empty() ? 0 : n.whole.ld(),
                    .n = static_cast<int>(n.x.cols()),
                    .free = !n.dx.empty(),
                    .at = layout.nodes[i],
                    .narrow = cu::Narrow(n.narrow),
                    .narrow_whole = cu::Narrow(n.narrow_whole)};
  }
  for (int i = 0; i < args.predictions.count; ++i) {
    const SettlePrediction& p = args.predictions[i];
    net.predictions[i] = {.start = p.start.data,
                          .ld = p.start.empty() ? 0 : p.start.ld(),
                          .node = p.node,
                          .n = static_cast<int>(args.width(p)),
                          .precision = p.precision,
                          .at = layout.predictions[i]};
  }
  for (int i = 0; i < args.edges.count; ++i) {
    const SettleEdge& e = args.edges[i];
    net.edges[i] = {.w = e.w.data,
                    .z = e.z.data,
                    .ld = e.w.empty() ? 0 : e.w.ld(),
                    .z_ld = e.z.empty() ? 0 : e.z.ld(),
                    .source = e.source,
                    .prediction = e.prediction,
                    .in = static_cast<int>(args.nodes[e.source].x.cols()),
                    .out = static_cast<int>(args.width(args.predictions[e.prediction])),
                    .before = e.before,
                    .after = e.after,
                    .gain = e.gain,
                    .leak = e.leak,
                    .at = layout.edges[i]};
  }
  for (int i = 0; i < args.nodes.count; ++i) net.moving += net.nodes[i].free ? parts_of(net.nodes[i].n, kWarp) : 0;
  for (int i = 0; i < args.predictions.count; ++i) net.predicted += parts_of(net.predictions[i].n, kWarp);
  net.node_count = args.nodes.count;
  net.prediction_count = args.predictions.count;
  net.edge_count = args.edges.count;
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

// --- memory to shared memory, without waiting for each entry before the next is asked for ---

template <class T>
__device__ void fetch(T* to, const T* from) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16);
  const auto at = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(at), "l"(from), "n"(sizeof(T)));
}
__device__ void wait_for_fetched() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// --- a product of a square of 16-bit weights and the operands of eight samples, on tensor cores ---

/// The square, or its transpose, as the instruction wants it: each lane brings the address of 8 entries of one row.
template <bool transposed, class Operand>
__device__ void load_square(unsigned (&a)[4], const Operand* row) {
  const auto at = static_cast<unsigned>(__cvta_generic_to_shared(row));
  if constexpr (transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                 : "r"(at));
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                 : "r"(at));
  }
}

__device__ void multiply_add(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, __half) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ void multiply_add(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, __nv_bfloat16) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
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
        const Network::Node& source = net_.nodes[edge.source];
        for (int i = threadIdx.x; edge.before != Activation::identity && i < edge.in; i += kThreads) {
          fetch(&state[edge.at.x + i], &static_cast<const T*>(source.x)[row * source.x_ld + i]);
        }
        for (int i = threadIdx.x; edge.after != Activation::identity && i < edge.out; i += kThreads) {
          fetch(&state[edge.at.z + i], &static_cast<const T*>(edge.z)[row * edge.z_ld + i]);
        }
      }
    }
    wait_for_fetched();
    __syncthreads();
    each_moving([this](int node, int j, T* state) { map_source(node, j, state); });
    __syncthreads();
  }

  __device__ void step() {
    multiply<false>();
    __syncthreads();
    each_of(
        net_.prediction_count, net_.predicted, [this](int p) { return net_.predictions[p].n; },
        [this](int p, int j, T* state) { compare(p, j, state); });
    __syncthreads();
    multiply<true>();
    __syncthreads();
    each_moving([this](int node, int j, T* state) { move(node, j, state); });
    __syncthreads();
  }

  __device__ void store() const {
    for (int s = 0; s < kSamples; ++s) {
      if (first_ + s >= net_.rows) return;
      for (int n = 0; n < net_.node_count; ++n) {
        const Network::Node& node = net_.nodes[n];
        if (!node.free) continue;
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
      for (int i = threadIdx.x; i < edge.out * edge.in; i += kThreads) {
        const int row = i / edge.in, col = i % edge.in;
        fetch(&to[row * stride + col], &from[row * edge.ld + col]);
      }
    } else {
      using Eight = cu::Pack<Operand, 8>;
      const int runs = settle_tiled(edge.in) / 8;
      const bool packed = edge.ld % 8 == 0 && reinterpret_cast<std::uintptr_t>(from) % sizeof(Eight) == 0;
      for (int i = threadIdx.x; i < settle_tiled(edge.out) * runs; i += kThreads) {
        const int row = i / runs, col = i % runs * 8;
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

  /// body(place in a list, entry, state of a sample) for all entries of all things in the list, of all samples. A warp
  /// does 32 of one thing at a time, `chunks` for each sample.
  template <class Width, class Body>
  __device__ void each_of(int count, int chunks, Width width, Body body) {
    for (int c = warp_; c < kSamples * chunks; c += kWarps) {
      int place = 0, chunk = c % chunks;
      for (; place < count; ++place) {
        const int here = parts_of(width(place), kWarp);
        if (chunk < here) break;
        chunk -= here;
      }
      const int entry = chunk * kWarp + lane_;
      if (entry < width(place)) body(place, entry, state_ + c / chunks * net_.state);
    }
  }
  template <class Body>
  __device__ void each_moving(Body body) {
    each_of(
        net_.node_count, net_.moving, [this](int n) { return net_.nodes[n].free ? net_.nodes[n].n : 0; }, body);
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
  __device__ void map_source(int node, int j, T* state) const {
    const T dx = state[net_.nodes[node].at.dx + j];
    for (int e = 0; e < net_.edge_count; ++e) {
      const Network::Edge& edge = net_.edges[e];
      if (edge.source != node) continue;
      T value = dx;
      if (edge.before != Activation::identity) {
        const auto f = scalar::change(edge.before, state[edge.at.x + j], dx, T(edge.leak));
        value = state[edge.at.a + j] = f.value;
        state[edge.at.slope + j] = f.slope;
      }
      if (edge.w != nullptr) narrow(state + edge.at.forward, j, value);
    }
  }

  /// The products of all edges with their weights, or back with the transposes, in "sums".
  template <bool back>
  __device__ void multiply() {
    int task = warp_;
    for (int e = 0; e < net_.edge_count; ++e) {
      const Network::Edge& edge = net_.edges[e];
      if (edge.w == nullptr) continue;
      const int outputs = back ? edge.in : edge.out, length = back ? edge.out : edge.in;
      const int groups = kTensor ? parts_of(outputs, kSettleTile) : parts_of(outputs, kWarp);
      const int tasks = kTensor ? groups : groups * parts_of(length, kSettleChunk);
      for (; task < tasks; task += kWarps) {
        if constexpr (kTensor) {
          multiply_tile<back>(edge, task * kSettleTile, parts_of(length, kSettleTile));
        } else {
          multiply_chunk<back>(edge, task % groups * kWarp + lane_, outputs, task / groups, length);
        }
      }
      task -= tasks;
    }
  }

  /// The sum of up to kSettleChunk terms of one output, of each sample.
  template <bool back>
  __device__ void multiply_chunk(const Network::Edge& edge, int output, int outputs, int part, int length) {
    if (output >= outputs) return;
    const int stride = row_stride(edge), along = back ? stride : 1;
    const int begin = part * kSettleChunk, end = min(begin + kSettleChunk, length);
    const int source = edge.before == Activation::identity ? net_.nodes[edge.source].at.dx : edge.at.a;
    const T *w = weights_ + edge.at.w + output * (back ? 1 : stride), *term = state_ + (back ? edge.at.dz : source);
    T sum[kSamples] = {};
    const auto add = [&](int k) {
      const T factor = w[k * along];
#pragma unroll
      for (int s = 0; s < kSamples; ++s) sum[s] = fma(factor, term[s * net_.state + k], sum[s]);
    };
    if (end - begin == kSettleChunk) {  // unrolled, so that loads need not wait for each other
#pragma unroll
      for (int k = 0; k < kSettleChunk; ++k) add(begin + k);
    } else {
      for (int k = begin; k < end; ++k) add(k);
    }
#pragma unroll
    for (int s = 0; s < kSamples; ++s) state_[s * net_.state + edge.at.sums + part * outputs + output] = sum[s];
  }

  /// Kept apart so that the other path needs no operands: 16 outputs from `first` on, of eight samples at once.
  template <bool back>
  __device__ void multiply_tile(const Network::Edge& edge, int first, int squares) {
    const int stride = row_stride(edge), step = back ? kSettleTile * stride : kSettleTile;
    const auto* w = reinterpret_cast<const Operand*>(weights_ + edge.at.w);
    const Operand* row = back ? w + (lane_ / 16 * 8 + lane_ % 8) * stride + first + lane_ / 8 % 2 * 8
                              : w + (first + lane_ % 16) * stride + lane_ / 16 * 8;
    const int sample = min(lane_ / 4, kSamples - 1);
    const auto* terms =
        reinterpret_cast<const unsigned*>(state_ + sample * net_.state + (back ? edge.at.back : edge.at.forward)) +
        lane_ % 4;
    float even[4] = {}, odd[4] = {};
    unsigned a[4], b[4];
    for (int k = 0; k < squares; k += 2) {
      load_square<back>(a, row + k * step);
      multiply_add(even, a, terms[k * 8], terms[k * 8 + 4], Operand{});
      if (k + 1 == squares) break;
      load_square<back>(b, row + (k + 1) * step);
      multiply_add(odd, b, terms[k * 8 + 8], terms[k * 8 + 12], Operand{});
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int s = lane_ % 4 * 2 + i % 2, output = first + lane_ / 4 + i / 2 * 8;
      if (s < kSamples) state_[s * net_.state + edge.at.sums + output] = even[i] + odd[i];
    }
  }

  /// One entry of what an edge's product gives.
  __device__ T product(const Network::Edge& edge, const T* state, int entry, int outputs, int length) const {
    if constexpr (kTensor) return T(edge.gain) * net_.down * state[edge.at.sums + entry];
    T sum = 0;
    for (int part = 0; part < parts_of(length, kSettleChunk); ++part) {
      sum += state[edge.at.sums + part * outputs + entry];
    }
    return T(edge.gain) * sum;
  }

  __device__ void compare(int p, int j, T* state) const {
    const Network::Prediction& prediction = net_.predictions[p];
    T error = state[prediction.at.start + j] + state[net_.nodes[prediction.node].at.dx + j];
    for (int e = 0; e < net_.edge_count; ++e) {
      const Network::Edge& edge = net_.edges[e];
      if (edge.prediction != p) continue;
      const T dz =
          edge.w == nullptr ? state[net_.nodes[edge.source].at.dx + j] : product(edge, state, j, edge.out, edge.in);
      const bool bent = edge.after != Activation::identity;
      const auto f =
          bent ? scalar::change(edge.after, state[edge.at.z + j], dz, T(edge.leak)) : scalar::ValueSlope<T>{dz, T(1)};
      error -= f.value;
      state[edge.at.dz + j] = f.slope;  // for now
    }
    const T delta = T(prediction.precision) * error;
    state[prediction.at.delta + j] = delta;
    for (int e = 0; e < net_.edge_count; ++e) {
      const Network::Edge& edge = net_.edges[e];
      if (edge.prediction != p) continue;
      const T sent = state[edge.at.dz + j] *= delta;
      if (edge.w != nullptr) narrow(state + edge.at.back, j, sent);
    }
  }

  __device__ void move(int n, int j, T* state) const {
    const Network::Node& node = net_.nodes[n];
    T gradient = 0;
    for (int p = 0; p < net_.prediction_count; ++p) {
      if (net_.predictions[p].node == n) gradient += state[net_.predictions[p].at.delta + j];
    }
    for (int e = 0; e < net_.edge_count; ++e) {
      const Network::Edge& edge = net_.edges[e];
      if (edge.source != n) continue;
      T back = edge.w == nullptr ? state[edge.at.dz + j] : product(edge, state, j, edge.in, edge.out);
      if (edge.before != Activation::identity) back *= state[edge.at.slope + j];
      gradient -= back;
    }
    T& velocity = state[node.at.velocity + j];
    velocity = T(net_.momentum) * velocity + gradient;
    state[node.at.dx + j] -= T(net_.rate) * velocity;
    map_source(n, j, state);
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
  static_assert(sizeof(Network) <= kSettleDescription && sizeof(Network) % sizeof(int) == 0);
  for (int i = threadIdx.x; i < static_cast<int>(sizeof(Network) / sizeof(int)); i += kThreads) {
    reinterpret_cast<int*>(&here)[i] = reinterpret_cast<const int*>(&net)[i];
  }
  __syncthreads();
  Block<T, Operand, kSamples> block(here, reinterpret_cast<T*>(memory));
  block.load();
  for (int t = 0; t < net.steps; ++t) block.step();
  block.store();
}

template <class T, class Operand, int kSamples>
void launch_with(const Network& net, CudaContext& context) {
  const std::size_t bytes = sizeof(T) * (net.weights + std::size_t{kSamples} * net.state);
  PC_CUDA_CHECK(cudaFuncSetAttribute(settle_kernel<T, Operand, kSamples>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     static_cast<int>(bytes)));
  const auto blocks = static_cast<unsigned>((net.rows + kSamples - 1) / kSamples);
  settle_kernel<T, Operand, kSamples><<<blocks, kThreads, bytes, context.stream>>>(net);
  PC_CUDA_CHECK(cudaGetLastError());
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
  if (args.operands() == DType::f16) return settle_typed<float, __half>(args, context);
  if (args.operands() == DType::bf16) return settle_typed<float, __nv_bfloat16>(args, context);
  with_float(args.dtype(), [&]<class T>(T) { settle_typed<T, T>(args, context); });
}

}  // namespace pc::kernels

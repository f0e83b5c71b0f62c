#include "kernels/launch.cuh"
#include "kernels/settle.h"

namespace pc::kernels {
namespace {

constexpr int kThreads = 512, kWarp = 32;

/// SettleArgs as device code reads it.
struct Network {
  struct Node {
    const void* x;
    void* dx;
    std::int64_t x_ld, dx_ld;
    int n;
    bool free;
    SettleLayout::NodeAt at;
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
  int predicted, moving;  // entries of all predictions, and of all free nodes
  std::int64_t rows;
  double rate, momentum;
};

Network network_of(const SettleArgs& args) {
  const SettleLayout layout = settle_layout(args);
  Network net{};
  for (int i = 0; i < args.nodes.count; ++i) {
    const SettleNode& n = args.nodes[i];
    net.nodes[i] = {n.x.data,      n.dx.data,      n.x.ld(), n.dx.empty() ? 0 : n.dx.ld(), static_cast<int>(n.x.cols()),
                    !n.dx.empty(), layout.nodes[i]};
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
  for (int i = 0; i < args.nodes.count; ++i) net.moving += net.nodes[i].free ? net.nodes[i].n : 0;
  for (int i = 0; i < args.predictions.count; ++i) net.predicted += net.predictions[i].n;
  net.node_count = args.nodes.count;
  net.prediction_count = args.predictions.count;
  net.edge_count = args.edges.count;
  net.steps = args.steps;
  net.weights = layout.weights;
  net.state = layout.state;
  net.rows = args.rows();
  net.rate = args.rate;
  net.momentum = args.momentum;
  return net;
}

__host__ __device__ constexpr int parts_of(int n, int size) { return (n + size - 1) / size; }

/// A block's samples: `kSamples` rows from `first` on; rows past the last are computed with and never stored.
template <class T, int kSamples>
class Block {
 public:
  __device__ Block(const Network& net, T* memory)
      : net_(net), weights_(memory), state_(memory + net.weights), first_(std::int64_t{blockIdx.x} * kSamples) {}

  __device__ void load() {
    for (int e = 0; e < net_.edge_count; ++e) {
      const Network::Edge& edge = net_.edges[e];
      const T* w = static_cast<const T*>(edge.w);
      for (int i = threadIdx.x; w != nullptr && i < edge.out * edge.in; i += kThreads) {
        const int row = i / edge.in, col = i % edge.in;
        weights_[edge.at.w + row * (edge.in | 1) + col] = w[row * edge.ld + col];
      }
    }
    for (int s = 0; s < kSamples; ++s) {
      const std::int64_t row = row_of(s);
      T* state = state_ + s * net_.state;
      for (int n = 0; n < net_.node_count; ++n) {
        const Network::Node& node = net_.nodes[n];
        for (int i = threadIdx.x; i < node.n; i += kThreads) {
          state[node.at.dx + i] = T(0);
          if (node.free) state[node.at.velocity + i] = T(0);
        }
      }
      for (int p = 0; p < net_.prediction_count; ++p) {
        const Network::Prediction& prediction = net_.predictions[p];
        const T* start = static_cast<const T*>(prediction.start);
        for (int i = threadIdx.x; i < prediction.n; i += kThreads) {
          state[prediction.at.start + i] = start == nullptr ? T(0) : start[row * prediction.ld + i];
        }
      }
      for (int e = 0; e < net_.edge_count; ++e) {
        const Network::Edge& edge = net_.edges[e];
        const Network::Node& source = net_.nodes[edge.source];
        for (int i = threadIdx.x; edge.before != Activation::identity && i < edge.in; i += kThreads) {
          state[edge.at.x + i] = static_cast<const T*>(source.x)[row * source.x_ld + i];
        }
        for (int i = threadIdx.x; edge.after != Activation::identity && i < edge.out; i += kThreads) {
          state[edge.at.z + i] = static_cast<const T*>(edge.z)[row * edge.z_ld + i];
        }
      }
    }
    __syncthreads();
    map_sources();
  }

  __device__ void step() {
    multiply_forward();
    __syncthreads();
    compare();
    __syncthreads();
    multiply_back();
    __syncthreads();
    move();
    __syncthreads();
    map_sources();
  }

  __device__ void store() const {
    for (int s = 0; s < kSamples; ++s) {
      if (first_ + s >= net_.rows) return;
      for (int n = 0; n < net_.node_count; ++n) {
        const Network::Node& node = net_.nodes[n];
        if (!node.free) continue;
        for (int i = threadIdx.x; i < node.n; i += kThreads) {
          static_cast<T*>(node.dx)[(first_ + s) * node.dx_ld + i] = state_[s * net_.state + node.at.dx + i];
        }
      }
    }
  }

 private:
  [[nodiscard]] __device__ std::int64_t row_of(int s) const { return min(first_ + s, net_.rows - 1); }
  [[nodiscard]] __device__ int source_at(const Network::Edge& e) const {
    return e.before == Activation::identity ? net_.nodes[e.source].at.dx : e.at.a;
  }

  /// The change of before(x) and its slope, for edges that have one. Ends with all threads together.
  __device__ void map_sources() {
    bool any = false;
    for (int e = 0; e < net_.edge_count; ++e) {
      const Network::Edge& edge = net_.edges[e];
      if (edge.before == Activation::identity) continue;
      any = true;
      for (int i = threadIdx.x; i < kSamples * edge.in; i += kThreads) {
        T* state = state_ + i / edge.in * net_.state;
        const int at = i % edge.in;
        const auto f =
            scalar::change(edge.before, state[edge.at.x + at], state[net_.nodes[edge.source].at.dx + at], T(edge.leak));
        state[edge.at.a + at] = f.value;
        state[edge.at.slope + at] = f.slope;
      }
    }
    if (any) __syncthreads();
  }

  /// Sums of up to kSettleChunk terms: a warp takes 32 outputs of an edge and one chunk of the terms. `outputs` lie
  /// `across` entries apart in W, terms `along`.
  template <class Terms, class Shape>
  __device__ void multiply(Terms terms, Shape shape) {
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    int task = warp;
    for (int e = 0; e < net_.edge_count; ++e) {
      const Network::Edge& edge = net_.edges[e];
      if (edge.w == nullptr) continue;
      const auto [outputs, length, across, along] = shape(edge);
      const int groups = parts_of(outputs, kWarp), tasks = groups * parts_of(length, kSettleChunk);
      for (; task < tasks; task += kThreads / kWarp) {
        const int output = task % groups * kWarp + lane, begin = task / groups * kSettleChunk;
        if (output >= outputs) continue;
        const int end = min(begin + kSettleChunk, length);
        const T* w = weights_ + edge.at.w + output * across;
        T sum[kSamples] = {};
        const T* term = state_ + terms(edge);
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
        for (int s = 0; s < kSamples; ++s) {
          state_[s * net_.state + edge.at.sums + task / groups * outputs + output] = sum[s];
        }
      }
      task -= tasks;
    }
  }

  struct Product {
    int outputs, length, across, along;
  };

  __device__ void multiply_forward() {
    multiply([this](const Network::Edge& e) { return source_at(e); },
             [](const Network::Edge& e) {
               return Product{e.out, e.in, e.in | 1, 1};
             });
  }

  __device__ void multiply_back() {
    multiply([](const Network::Edge& e) { return e.at.dz; },
             [this](const Network::Edge& e) {
               return Product{net_.nodes[e.source].free ? e.in : 0, e.out, 1, e.in | 1};
             });
  }

  /// One entry of what an edge's product gives.
  __device__ T product(const Network::Edge& edge, const T* state, int entry, int outputs, int length) const {
    T sum = 0;
    for (int part = 0; part < parts_of(length, kSettleChunk); ++part) {
      sum += state[edge.at.sums + part * outputs + entry];
    }
    return T(edge.gain) * sum;
  }

  __device__ void compare() {
    // Entries of all predictions side by side, so that all threads have some.
    for (int i = threadIdx.x; i < kSamples * net_.predicted; i += kThreads) {
      T* state = state_ + i / net_.predicted * net_.state;
      int p = 0, j = i % net_.predicted;
      while (j >= net_.predictions[p].n) j -= net_.predictions[p++].n;
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
        if (net_.edges[e].prediction == p) state[net_.edges[e].at.dz + j] *= delta;
      }
    }
  }

  __device__ void move() {
    for (int i = threadIdx.x; i < kSamples * net_.moving; i += kThreads) {
      T* state = state_ + i / net_.moving * net_.state;
      int n = 0, j = i % net_.moving;
      for (; !net_.nodes[n].free || j >= net_.nodes[n].n; ++n) j -= net_.nodes[n].free ? net_.nodes[n].n : 0;
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
    }
  }

  const Network& net_;
  T *weights_, *state_;
  std::int64_t first_;
};

template <class T, int kSamples>
__global__ void __launch_bounds__(kThreads) settle_kernel(const __grid_constant__ Network net) {
  extern __shared__ double memory[];
  Block<T, kSamples> block(net, reinterpret_cast<T*>(memory));
  block.load();
  for (int t = 0; t < net.steps; ++t) block.step();
  block.store();
}

template <class T, int kSamples>
void launch_with(const Network& net, CudaContext& context) {
  const std::size_t bytes = sizeof(T) * (net.weights + std::size_t{kSamples} * net.state);
  PC_CUDA_CHECK(cudaFuncSetAttribute(settle_kernel<T, kSamples>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     static_cast<int>(bytes)));
  const auto blocks = static_cast<unsigned>((net.rows + kSamples - 1) / kSamples);
  settle_kernel<T, kSamples><<<blocks, kThreads, bytes, context.stream>>>(net);
  PC_CUDA_CHECK(cudaGetLastError());
}

/// As few samples a block as keep every multiprocessor busy once; more where there are more, while memory lasts.
template <class T>
void settle_typed(const SettleArgs& args, CudaContext& context) {
  const Network net = network_of(args);
  int processors = 0;
  PC_CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, context.device));
  const std::size_t most = cu::block_memory(context);
  const auto fits = [&](int samples) {
    return sizeof(T) * (net.weights + static_cast<std::size_t>(samples) * net.state) <= most;
  };
  PC_CHECK(fits(1), "settle", "the weights do not fit the device's shared memory");
  if (net.rows > 2 * processors && fits(4)) return launch_with<T, 4>(net, context);
  if (net.rows > processors && fits(2)) return launch_with<T, 2>(net, context);
  launch_with<T, 1>(net, context);
}

}  // namespace

void settle_cuda(const SettleArgs& args, CudaContext& context) {
  with_float(args.dtype(), [&]<class T>(T) { settle_typed<T>(args, context); });
}

}  // namespace pc::kernels

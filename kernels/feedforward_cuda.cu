// A cluster of blocks does a few samples. A block has an eighth of each layer's rows of weights, of which those of the
// next layers are on their way while it multiplies, and all that its samples' f(x) are; the results of its rows go to
// the shared memory of all blocks of the cluster.
#include <cooperative_groups.h>
#include <cuda_pipeline.h>

#include <cmath>
#include <utility>

#include "kernels/exec.h"
#include "kernels/feedforward.h"
#include "kernels/launch.cuh"
#include "kernels/squares.cuh"

namespace pc::kernels {
namespace {

using cu::matrix, cu::Matrix;

constexpr int kCluster = 8, kThreads = 512, kWarp = 32, kWarps = kThreads / kWarp;
constexpr int kSamples = 16;  // so that all clusters of a batch of 128 are there at once: an H200 has room for 15
constexpr int kStages = 2;    // layers whose weights are there or on their way
constexpr int kSquare = 16;   // entries of a factor that tensor cores take at once
constexpr int kRun = 8, kGap = kRun;   // operands of 16 bytes; rows are so much further apart than they are long
constexpr int kGroups = kSamples / 8;  // of as many samples as tensor cores take
constexpr int kSumStride = kSamples + 1;
static_assert(FeedforwardArgs::kWidths == kCluster * kSquare);

template <class Operand>
struct Layer {
  const Operand* w;
  const float* bias;
  Matrix<float> z, y;
  int ld;
  float gain, leak;
  Activation f;
  bool residual;
};

template <class Operand>
struct Layers {
  Matrix<float> x;
  double* overflow;
  std::int64_t rows;
  int count;
  Layer<Operand> layer[FeedforwardArgs::kMost];
};

/// What a block of layers of width n has in shared memory.
template <class Operand, int n>
struct Room {
  static constexpr int kOwn = n / kCluster, kSquares = kOwn / kSquare;
  static constexpr int kPairs = n / (2 * kSquare);  // of squares, along the terms
  static constexpr int kParts = kWarps / kSquares < kPairs ? kWarps / kSquares : kPairs;

  Operand weights[kStages][kOwn][n + kGap];
  Operand values[2][kSamples][n + kGap];  // f(x): of this layer, and of the next
  Operand results[kSamples][kOwn];
  float sums[kParts][kOwn][kSumStride];
  Layer<Operand> layers[FeedforwardArgs::kMost];
};
static_assert(sizeof(Room<__half, FeedforwardArgs::kWidest>) <= 227 * 1024);

__device__ __nv_bfloat16 rounded(float value, double*, __nv_bfloat16) { return __float2bfloat16_rn(value); }
__device__ __half rounded(float value, double* overflow, __half) {
  const __half result = __float2half_rn(value);
  if (__hisinf(result) != 0 && !isinf(value)) *overflow = 1.0;  // whoever writes, writes the same
  return result;
}

/// A block's rows of a layer's weights.
template <class Operand, int n>
__device__ void fetch(Room<Operand, n>& room, int layer, int count, int first_row) {
  constexpr int kRuns = n / kRun, kRowsAtOnce = kThreads / kRuns;
  constexpr int kOwn = Room<Operand, n>::kOwn;
  if (layer < count) {
    const Layer<Operand>& from = room.layers[layer];
    const int thread = static_cast<int>(threadIdx.x), col = thread % kRuns * kRun;
#pragma unroll 4
    for (int row = thread / kRuns; row < kOwn && thread < kRowsAtOnce * kRuns; row += kRowsAtOnce) {
      __pipeline_memcpy_async(&room.weights[layer % kStages][row][col],
                              from.w + static_cast<std::int64_t>(first_row + row) * from.ld + col, 16);
    }
  }
  __pipeline_commit();
}

template <class Operand, int n>
__global__ void __launch_bounds__(kThreads, 1) feedforward_kernel(const __grid_constant__ Layers<Operand> net) {
#if __CUDA_ARCH__ >= 900
  cu::follow();
  using R = Room<Operand, n>;
  constexpr int kOwn = R::kOwn, kResults = kOwn * kSamples, kEach = (kResults + kThreads - 1) / kThreads;
  extern __shared__ __align__(16) std::byte memory[];
  R& room = *reinterpret_cast<R*>(memory);
  auto cluster = cooperative_groups::this_cluster();
  const int rank = static_cast<int>(cluster.block_rank()), thread = static_cast<int>(threadIdx.x);
  const int first_row = rank * kOwn;
  auto begun = cluster.barrier_arrive();  // nobody writes to a block that has not begun
  const std::int64_t first = std::int64_t{blockIdx.x} / kCluster * kSamples;
  for (int i = thread; i < net.count; i += kThreads) room.layers[i] = net.layer[i];
  __syncthreads();
  for (int layer = 0; layer < kStages; ++layer) fetch(room, layer, net.count, first_row);

  // Result e = thread + i kThreads of this block: row e % kOwn, sample e / kOwn.
  float value[kEach] = {};
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int e = thread + i * kThreads;
    if (e < kResults && first + e / kOwn < net.rows) value[i] = net.x(first + e / kOwn, first_row + e % kOwn);
  }

  cluster.barrier_wait(std::move(begun));

  const int lane = thread % kWarp, warp = thread / kWarp, square = warp % R::kSquares, part = warp / R::kSquares;
  for (int l = 0; l < net.count; ++l) {
    const Layer<Operand>& layer = room.layers[l];
    // f of what this block has, for all
    float fixed[kEach] = {};
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int e = thread + i * kThreads;
      if (e >= kResults) continue;
      const bool there = first + e / kOwn < net.rows;  // what is behind the batch stays 0, and cannot overflow
      const float z = there ? scalar::activate(layer.f, value[i], layer.leak).value : 0.0F;
      if (layer.z && there) layer.z(first + e / kOwn, first_row + e % kOwn) = z;
      room.results[e / kOwn][e % kOwn] = rounded(z, net.overflow, Operand{});
      fixed[i] = (layer.residual ? value[i] : 0.0F) + (layer.bias == nullptr ? 0.0F : layer.bias[first_row + e % kOwn]);
    }
    __syncthreads();
    auto& values = room.values[l % 2];
    constexpr int kRuns = kOwn / kRun, kPieces = kSamples * kRuns;
#pragma unroll
    for (int i = thread; i < kCluster * kPieces; i += kThreads) {
      const int sample = i % kPieces / kRuns, col = i % kRuns * kRun;
      auto* const to = cluster.map_shared_rank(&values[sample][first_row + col], static_cast<unsigned>(i / kPieces));
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(&room.results[sample][col]);
    }
    __pipeline_wait_prior(0);  // this layer's weights, as far as this thread has fetched them
    auto arrival = cluster.barrier_arrive();
    if (l > 0) fetch(room, l - 1 + kStages, net.count, first_row);  // in the place of what has been multiplied
    cluster.barrier_wait(std::move(arrival));

    if (part < R::kParts) {
      const Operand* const weights =
          &room.weights[l % kStages][square * kSquare + lane % kSquare][lane / kSquare * kRun];
      const Operand* const columns = &values[lane % 8][lane / 8 * kRun];
      constexpr int kMost = (R::kPairs + R::kParts - 1) / R::kParts;
      const int begin = R::kPairs * part / R::kParts, end = R::kPairs * (part + 1) / R::kParts;
      float sum[kGroups][2][4] = {};
#pragma unroll
      for (int i = 0; i < kMost; ++i) {
        const int term = (begin + i) * 2 * kSquare;
        if (begin + i >= end) continue;
        unsigned a[2][4];
        cu::load_square<false>(a[0], weights + term);
        cu::load_square<false>(a[1], weights + term + kSquare);
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
          unsigned b[4];
          cu::load_columns(b, columns + g * 8 * (n + kGap) + term);
          cu::multiply_add(sum[g][0], a[0], b[0], b[1], Operand{});
          cu::multiply_add(sum[g][1], a[1], b[2], b[3], Operand{});
        }
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = square * kSquare + lane / 4 + i / 2 * 8;
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
          room.sums[part][row][g * 8 + lane % 4 * 2 + i % 2] = sum[g][0][i] + sum[g][1][i];
        }
      }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int e = thread + i * kThreads;
      if (e >= kResults) continue;
      const int row = e % kOwn, sample = e / kOwn;
      float total = 0;
#pragma unroll
      for (int k = 0; k < R::kParts; ++k) total += room.sums[k][row][sample];
      value[i] = fixed[i] + layer.gain * total;
      if (first + sample < net.rows) layer.y(first + sample, first_row + row) = value[i];
    }
  }
#endif
}

template <class Operand, int n>
void launch(const Layers<Operand>& net, CudaContext& context) {
  const auto kernel = feedforward_kernel<Operand, n>;
  constexpr std::size_t kBytes = sizeof(Room<Operand, n>);
  PC_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kBytes)));
  const auto clusters = static_cast<unsigned>((net.rows + kSamples - 1) / kSamples);
  cu::LaunchAttributes attributes(kCluster);
  const cudaLaunchConfig_t config = attributes.config(clusters * kCluster, kThreads, kBytes, context.stream);
  PC_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, net));
}

template <class Operand>
void feedforward_typed(const FeedforwardArgs& a, CudaContext& context) {
  Layers<Operand> net{.x = matrix<float>(a.x),
                      .overflow = a.overflow.as<double>(),
                      .rows = a.x.rows(),
                      .count = static_cast<int>(a.layers.size())};
  for (int i = 0; i < net.count; ++i) {
    const FeedforwardLayer& layer = a.layers[static_cast<std::size_t>(i)];
    PC_CHECK(layer.w.ld() % kRun == 0 && reinterpret_cast<std::uintptr_t>(layer.w.data) % 16 == 0, "feedforward",
             "weights are in runs of 16 bytes");
    net.layer[i] = {layer.w.as<Operand>(),
                    layer.bias.as<float>(),
                    matrix<float>(layer.z),
                    matrix<float>(layer.y),
                    static_cast<int>(layer.w.ld()),
                    static_cast<float>(layer.gain),
                    static_cast<float>(layer.leak),
                    layer.f,
                    layer.residual};
  }
  switch (a.x.cols()) {
    case 128:
      return launch<Operand, 128>(net, context);
    case 256:
      return launch<Operand, 256>(net, context);
    case 384:
      return launch<Operand, 384>(net, context);
    default:
      static_assert(FeedforwardArgs::kWidths == 128 && FeedforwardArgs::kWidest == 512);
      return launch<Operand, 512>(net, context);
  }
}

}  // namespace

void feedforward_cuda(const FeedforwardArgs& a, CudaContext& context) {
  PC_CHECK(cu::is_hopper(context), "feedforward", "needs a GPU of compute capability 9.0");
  if (a.x.rows() == 0) return;
  if (a.layers[0].w.dtype == DType::bf16) return feedforward_typed<__nv_bfloat16>(a, context);
  feedforward_typed<__half>(a, context);
}

}  // namespace pc::kernels

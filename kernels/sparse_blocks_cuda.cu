// A block of threads does a patch, whose samples it fetches into shared memory; a warp does the blocks of a group of
// eight rows, or a part of them, by tensor cores. A sample once read serves eight rows, of which about three have the
// entry.
#include <cuda_pipeline.h>

#include "kernels/sparse_blocks.h"
#include "kernels/sparse_patches.cuh"
#include "kernels/squares.cuh"

namespace pc::kernels {
namespace {

using cu::matrix, cu::Matrix;

using Operand = __nv_bfloat16;
constexpr int kWarps = 12, kThreads = kWarps * kWarp, kResident = 3;  // blocks of threads of a multiprocessor
constexpr int kAhead = 6;                                             // blocks of entries that are on their way at once
constexpr int kSamples = 32;
constexpr int kRuns = kSamples * sizeof(Operand) / 16;  // of a source's samples
constexpr int kRows = SparseBlocks::kRows, kCols = SparseBlocks::kCols, kEntries = SparseBlocks::kEntries;
constexpr std::size_t kShared = kPatchSources * kRuns * 16;
// A warp's sums in shared memory, [kSamples, kRows]: neither the rows of a group nor the groups share a bank.
constexpr int kSumStride = kRows + 1, kSums = kSamples * kSumStride + kRows;
static_assert(kPatchRows <= kWarps * kRows && kWarps * kSums * sizeof(float) <= kShared);

struct DeviceBlocks {
  const std::int32_t *groups, *first;
  const std::uint16_t* sources;
  const Operand* values;

  DeviceBlocks(const SparseBlocks& b, const View& of)
      : groups(b.groups.as<std::int32_t>()),
        first(b.first.as<std::int32_t>()),
        sources(b.sources.as<std::uint16_t>()),
        values(of.as<Operand>()) {}
};

/// Where 16 bytes of a source's samples lie, as a byte of shared memory: those of run r, from 8 r on, are the (r ^
/// s)th, s = source / 2 % 4, so that eight sources that differ modulo 8 are in different banks.
__device__ __forceinline__ std::uint32_t place_of(std::uint32_t byte, std::uint32_t source) {
  return (source * 64 + byte) ^ (source / 2 % 4 * 16);
}

/// A patch's samples from `begin` on, to their places in shared memory. What is behind the batch, in whole runs,
/// becomes 0.
__device__ void fetch(const Patch& patch, const DevicePatches& in, Matrix<Operand> x_t, std::int64_t begin,
                      std::int64_t batch, std::byte* to) {
  constexpr int kApart = kThreads / kRuns, kEach = (static_cast<int>(kPatchSources) + kApart - 1) / kApart;
  static_assert(kThreads % kRuns == 0);
  const int run = static_cast<int>(threadIdx.x) % kRuns, mine = static_cast<int>(threadIdx.x) / kRuns;
  const std::int64_t sample = begin + run * static_cast<int>(16 / sizeof(Operand));
  const bool there = sample < batch;
  const Operand* const from = x_t.data + (there ? sample : 0);
  std::int32_t column[kEach];  // all are on their way at once
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    const int i = mine + k * kApart;
    column[k] = i < patch.sources ? __ldg(in.sources + patch.source + i) : 0;
  }
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    const int i = mine + k * kApart;
    if (i >= patch.sources) continue;
    __pipeline_memcpy_async(to + place_of(static_cast<std::uint32_t>(run) * 16, static_cast<std::uint32_t>(i)),
                            from + column[k] * x_t.ld, 16, there ? 0 : 16);
  }
  __pipeline_commit();
}

/// What a lane has of the product of a group: sums of row 2 (lane % 4) + i % 2 and of sample(lane, j, i).
class Group {
 public:
  /// Entries of row lane / 4 and columns 4 (lane % 4) to 4 (lane % 4) + 3; and the source of the column whose samples
  /// this lane brings for all.
  struct Part {
    uint2 entries;
    std::uint32_t source;
  };

  /// Of a square of 16 columns and 16 samples that load_square<true>() reads, lane 8 q + r brings the address of eight
  /// samples, those of run q % 2, of row r + 8 (q / 2). Its rows 2 t, 2 t + 1, 2 t + 8, 2 t + 9 are columns 4 t to
  /// 4 t + 3.
  __device__ Group(const DeviceBlocks& of, std::int64_t block, int lane, std::uint32_t samples)
      : values_(reinterpret_cast<const uint2*>(of.values) + block * kWarp + lane),
        sources_(of.sources + block * kCols + lane % 8 / 2 * 4 + lane % 2 + lane / 16 * 2),
        samples_(samples + static_cast<std::uint32_t>(lane) / 8 % 2 * 16) {}

  static __device__ int sample(int lane, int j, int i) { return lane / 4 + 8 * (i / 2) + 16 * j; }

  __device__ __forceinline__ Part load(int block) const {
    return {__ldcs(values_ + block * kWarp), __ldg(sources_ + block * kCols)};
  }
  __device__ __forceinline__ void go_on(int blocks) { values_ += blocks * kWarp, sources_ += blocks * kCols; }

  __device__ __forceinline__ void add(const Part& part) {
    const std::uint32_t at = place_of(samples_, part.source);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      unsigned a[4];
      cu::load_square<true>(a, at ^ 32 * j);
      cu::multiply_add(sums_[j], a, part.entries.x, part.entries.y, Operand{});
    }
  }
  __device__ float sum(int j, int i) const { return sums_[j][i]; }

 private:
  const uint2* values_;
  const std::uint16_t* sources_;
  std::uint32_t samples_;
  float sums_[2][4] = {};
};

// What becomes of an entry of the product. `reads` is what else it needs, but for a velocity, and load() reads that
// before the entry is there; operator() gives what is left in `y_t`.

struct Store {
  static constexpr int kReads = 1;
  static constexpr bool kLeaves = false;
  Matrix<float> reads[kReads], y;

  explicit Store(const SparseProductArgs& a) : reads{matrix<float>(a.before())}, y(matrix<float>(a.y)) {}
  /// Whether without a product it leaves what was there.
  __device__ bool keeps() const { return reads[0].data == y.data; }
  __device__ __forceinline__ float operator()(std::int64_t sample, std::int64_t row, float product,
                                              const float (&read)[kReads]) const {
    return y(sample, row) = read[0] + product;
  }
};

struct SparseError {
  static constexpr int kReads = 2;
  static constexpr bool kLeaves = true;
  Matrix<Operand> y_t;
  Matrix<float> reads[kReads], y;
  const float* precisions;
  float scale;

  explicit SparseError(const SparseErrorArgs& a)
      : y_t(matrix<Operand>(a.y_t)),
        reads{matrix<float>(a.product.base), matrix<float>(a.value)},
        y(matrix<float>(a.product.y)),
        precisions(a.precisions.as<float>()),
        scale(static_cast<float>(a.precision)) {}
  __device__ bool keeps() const { return false; }
  __device__ __forceinline__ float operator()(std::int64_t sample, std::int64_t row, float product,
                                              const float (&read)[kReads]) const {
    const float error = read[1] - (read[0] + product);
    return y(sample, row) = (precisions == nullptr ? scale : scale * precisions[row]) * error;
  }
};

template <Activation f>
struct SparseMove {
  static constexpr int kReads = 3;
  static constexpr bool kLeaves = true;
  Matrix<Operand> y_t;
  Matrix<float> reads[kReads], y, velocity;
  const double* bound;
  double rate;
  float momentum, leak;

  explicit SparseMove(const SparseMoveArgs& a)
      : y_t(matrix<Operand>(a.y_t)),
        reads{matrix<float>(a.product.base), matrix<float>(a.product.y), matrix<float>(a.own)},
        y(matrix<float>(a.product.y)),
        velocity(matrix<float>(a.velocity)),
        bound(a.bound.as<double>()),
        rate(a.rate),
        momentum(static_cast<float>(a.momentum)),
        leak(static_cast<float>(a.leak)) {}
  __device__ bool keeps() const { return false; }
  __device__ __forceinline__ float operator()(std::int64_t sample, std::int64_t row, float product,
                                              const float (&read)[kReads]) const {
    float step = read[2] - scalar::activate<f>(read[1], leak).slope * (read[0] + product);
    if (velocity) step = velocity(sample, row) = momentum * velocity(sample, row) + step;
    const float value = read[1] - static_cast<float>(rate * (bound != nullptr ? *bound : 1.0)) * step;
    y(sample, row) = value;
    return scalar::activate<f>(value, leak).value;
  }
};

template <class End>
__device__ __forceinline__ void load(const End& end, std::int64_t sample, std::int64_t row,
                                     float (&read)[End::kReads]) {
#pragma unroll
  for (int k = 0; k < End::kReads; ++k) read[k] = end.reads[k] ? end.reads[k](sample, row) : 0.0F;
}

template <class End>
__global__ void __launch_bounds__(kThreads, kResident)
    block_product_kernel(DevicePatches in, DeviceBlocks of, Matrix<Operand> x_t, const __grid_constant__ End end,
                         std::int64_t rows, std::int64_t batch, float alpha) {
  extern __shared__ __align__(128) float4 shared[];  // place_of()
  const int p = static_cast<int>(blockIdx.x);
  const Patch patch(in, p, rows);
  const std::int64_t first = std::int64_t{blockIdx.y} * kSamples;
  const int samples = static_cast<int>(min(batch - first, std::int64_t{kSamples}));
  if (patch.sources == 0) {  // of any number of rows
    if (end.keeps()) return;
    for (int sample = 0; sample < samples; ++sample) {
      for (int row = patch.first + static_cast<int>(threadIdx.x); row < patch.last; row += kThreads) {
        float read[End::kReads];
        load(end, first + sample, row, read);
        const float left = end(first + sample, row, 0, read);
        if constexpr (End::kLeaves) end.y_t(row, first + sample) = __float2bfloat16_rn(left);
      }
    }
    return;
  }
  const int groups_begin = __ldg(of.groups + p), groups = __ldg(of.groups + p + 1) - groups_begin;
  if (threadIdx.x == 0) {  // what warps will read comes as far as the cache, while samples come
    const std::int64_t begin = __ldg(of.first + groups_begin), stop = __ldg(of.first + groups_begin + groups);
    fetch_to_cache(of.values + begin * kEntries, of.values + stop * kEntries);
    fetch_to_cache(of.sources + begin * kCols, of.sources + stop * kCols);
  }
  fetch(patch, in, x_t, first, batch, reinterpret_cast<std::byte*>(shared));

  // What the end will read comes as far as the cache, some lines of each sample.
  constexpr int kLine = 128 / sizeof(float), kLines = kPatchRows / kLine + 1;
  static_assert(End::kReads * kLines * kSamples <= kThreads);
  if (const int sample = static_cast<int>(threadIdx.x) / kLines % kSamples; sample < samples) {
    const int row = min(patch.first + static_cast<int>(threadIdx.x) % kLines * kLine, patch.last - 1);
#pragma unroll
    for (int k = 0; k < End::kReads; ++k) {
      if (static_cast<int>(threadIdx.x) / (kLines * kSamples) != k || !end.reads[k]) continue;
      asm volatile("prefetch.global.L2 [%0];" ::"l"(&end.reads[k](first + sample, row)));
    }
  }

  // A group's blocks are shared out to so many warps, one after the other.
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int share = kWarps / groups, group = warp / share, part = warp % share;
  int begin = 0, left = 0;
  if (group < groups) {
    const int all = __ldg(of.first + groups_begin + group);
    const int count = __ldg(of.first + groups_begin + group + 1) - all;
    begin = all + count * part / share, left = all + count * (part + 1) / share - begin;
  }
  Group product(of, begin, lane, static_cast<std::uint32_t>(__cvta_generic_to_shared(shared)));
  Group::Part parts[kAhead];
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    if (i < left) parts[i] = product.load(i);
  }
  __pipeline_wait_prior(0);
  __syncthreads();
  for (; left > 0; left -= kAhead) {
    product.go_on(kAhead);
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (i < left) product.add(parts[i]);
      if (i + kAhead < left) parts[i] = product.load(i);
    }
  }

  // A thread has one row of the patch, and some samples of it that follow each other.
  static_assert(kThreads % kPatchRows == 0);
  constexpr int kOfThread = kSamples / (kThreads / static_cast<int>(kPatchRows));
  const int row_in_patch = static_cast<int>(threadIdx.x) % kPatchRows, row = patch.first + row_in_patch;
  const int first_sample = static_cast<int>(threadIdx.x) / kPatchRows * kOfThread;
  const int mine = row < patch.last ? min(samples - first_sample, kOfThread) : 0;  // of these samples; or fewer than 0
  float read[kOfThread][End::kReads];
#pragma unroll
  for (int i = 0; i < kOfThread; ++i) {  // (behind the last what the last has)
    load(end, first + min(first_sample + i, samples - 1), min(row, patch.last - 1), read[i]);
  }
  __syncthreads();  // nobody needs samples any more: sums take their place
  auto* const all_sums = reinterpret_cast<float*>(shared);
#pragma unroll
  for (int j = 0; j < 2; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      all_sums[warp * kSums + Group::sample(lane, j, i) * kSumStride + 2 * (lane % 4) + i % 2] = product.sum(j, i);
    }
  }
  __syncthreads();
  const float* sums =
      all_sums + row_in_patch / kRows * share * kSums + first_sample * kSumStride + row_in_patch % kRows;
  std::uint16_t run[kOfThread];
#pragma unroll
  for (int i = 0; i < kOfThread; ++i) {
    if (i >= mine) continue;
    float total = sums[i * kSumStride];
#pragma unroll 1
    for (int k = 1; k < share; ++k) total += sums[k * kSums + i * kSumStride];
    run[i] = __bfloat16_as_ushort(__float2bfloat16_rn(end(first + first_sample + i, row, alpha * total, read[i])));
  }
  if constexpr (End::kLeaves) {
    auto* const to = reinterpret_cast<std::uint16_t*>(&end.y_t(row, first + first_sample));
    if (mine == kOfThread) {  // as one store, which the compiler does not make of a plain one
      static_assert(kOfThread == 8);
      const auto two = [&](int i) { return run[i] | std::uint32_t{run[i + 1]} << 16; };
      __stwb(reinterpret_cast<uint4*>(to), make_uint4(two(0), two(2), two(4), two(6)));
    } else {
#pragma unroll
      for (int i = 0; i < kOfThread; ++i) {
        if (i < mine) to[i] = run[i];
      }
    }
  }
}

template <class End>
void launch(const SparseProductArgs& a, const End& end, CudaContext& context) {
  const std::int64_t rows = a.index.rows(), batch = a.y.rows();
  if (rows == 0 || batch == 0) return;
  PC_CHECK(in_runs(a.x_t) && aligned(a.values), "sparse_product",
           "by blocks, values and samples are in runs of 16 bytes");
  launch_patches(block_product_kernel<End>, kThreads, kShared, (batch + kSamples - 1) / kSamples, a.index, context,
                 DevicePatches(a.index.patches), DeviceBlocks(a.index.blocks, a.values), matrix<Operand>(a.x_t), end,
                 rows, batch, static_cast<float>(a.alpha));
}

}  // namespace

void block_product_cuda(const SparseProductArgs& a, CudaContext& context) { launch(a, Store(a), context); }

void sparse_error_cuda(const SparseErrorArgs& a, CudaContext& context) {
  PC_CHECK(in_runs(a.y_t), "sparse_error", "y^T is in runs of 16 bytes");
  launch(a.product, SparseError(a), context);
}

void sparse_move_cuda(const SparseMoveArgs& a, CudaContext& context) {
  PC_CHECK(in_runs(a.y_t), "sparse_move", "y^T is in runs of 16 bytes");
  scalar::with_activation(a.f, [&]<Activation f>() { launch(a.product, SparseMove<f>(a), context); });
}

}  // namespace pc::kernels

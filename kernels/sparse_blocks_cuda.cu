// A block of threads does a patch, whose samples it fetches into shared memory; a warp does the blocks of a group of
// eight rows, or a part of them, by tensor cores. A sample once read serves eight rows, of which about three have the
// entry.
#include <cuda_pipeline.h>

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
constexpr int kSumStride = kRows + 1;  // of a warp's sums in shared memory, [kSamples, kRows]
static_assert(kPatchRows <= kWarps * kRows && kWarps * kSamples * kSumStride * sizeof(float) <= kShared);

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

__global__ void __launch_bounds__(kThreads, kResident)
    block_product_kernel(DevicePatches in, DeviceBlocks of, Matrix<Operand> x_t, Matrix<float> y, Matrix<float> before,
                         std::int64_t rows, std::int64_t batch, float alpha) {
  extern __shared__ __align__(128) float4 shared[];  // place_of()
  const int p = static_cast<int>(blockIdx.x);
  const Patch patch(in, p, rows);
  const std::int64_t first = std::int64_t{blockIdx.y} * kSamples;
  if (patch.sources == 0) return patch.fill<kThreads>(y, before, first, min(batch, first + kSamples));
  const int groups_begin = __ldg(of.groups + p), groups = __ldg(of.groups + p + 1) - groups_begin;
  if (threadIdx.x == 0) {  // what warps will read comes as far as the cache, while samples come
    const std::int64_t begin = __ldg(of.first + groups_begin), end = __ldg(of.first + groups_begin + groups);
    fetch_to_cache(of.values + begin * kEntries, of.values + end * kEntries);
    fetch_to_cache(of.sources + begin * kCols, of.sources + end * kCols);
  }
  fetch(patch, in, x_t, first, batch, reinterpret_cast<std::byte*>(shared));

  // What will be added to the sums comes as far as the cache, some lines of each sample.
  constexpr int kLine = 128 / sizeof(float), kLines = kPatchRows / kLine + 1;
  static_assert(kLines * kSamples <= kThreads);
  if (const int sample = static_cast<int>(threadIdx.x) / kLines;
      before && sample < min(batch - first, std::int64_t{kSamples})) {
    const int row = min(patch.first + static_cast<int>(threadIdx.x) % kLines * kLine, patch.last - 1);
    asm volatile("prefetch.global.L2 [%0];" ::"l"(&before(first + sample, row)));
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

  // A thread has one row of the patch, and every so many samples of it.
  static_assert(kThreads % kPatchRows == 0);
  constexpr int kEach = kThreads / kPatchRows, kOfThread = kSamples / kEach;
  const int row_in_patch = static_cast<int>(threadIdx.x) % kPatchRows, row = patch.first + row_in_patch;
  const int first_sample = static_cast<int>(threadIdx.x) / kPatchRows;
  const auto there = [&](int i) { return row < patch.last && first + first_sample + i * kEach < batch; };
  float was[kOfThread] = {};
  if (before) {
#pragma unroll
    for (int i = 0; i < kOfThread; ++i) {
      if (there(i)) was[i] = before(first + first_sample + i * kEach, row);
    }
  }
  __syncthreads();  // nobody needs samples any more: sums take their place
  auto* const all_sums = reinterpret_cast<float*>(shared);
  float* const mine = all_sums + warp * kSamples * kSumStride;
#pragma unroll
  for (int j = 0; j < 2; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      mine[Group::sample(lane, j, i) * kSumStride + 2 * (lane % 4) + i % 2] = product.sum(j, i);
    }
  }
  __syncthreads();
  const float* sums =
      all_sums + (row_in_patch / kRows * share * kSamples + first_sample) * kSumStride + row_in_patch % kRows;
#pragma unroll
  for (int i = 0; i < kOfThread; ++i, sums += kEach * kSumStride) {
    if (!there(i)) continue;
    float total = sums[0];
    for (int k = 1; k < share; ++k) total += sums[k * kSamples * kSumStride];
    y(first + first_sample + i * kEach, row) = was[i] + alpha * total;
  }
}

}  // namespace

void block_product(const SparseProductArgs& a, CudaContext& context) {
  const std::int64_t rows = a.index.rows(), batch = a.y.rows();
  if (rows == 0 || batch == 0) return;
  PC_CHECK(in_runs(a.x_t) && aligned(a.values), "sparse_product",
           "by blocks, values and samples are in runs of 16 bytes");
  launch_patches(block_product_kernel, kThreads, kShared, (batch + kSamples - 1) / kSamples, a.index, context,
                 DevicePatches(a.index.patches), DeviceBlocks(a.index.blocks, a.values), matrix<Operand>(a.x_t),
                 matrix<float>(a.y), matrix<float>(a.before()), rows, batch, static_cast<float>(a.alpha));
}

}  // namespace pc::kernels

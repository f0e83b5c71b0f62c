// Sparse matrices and their patches as device code sees them.
#pragma once

#include "kernels/launch.cuh"
#include "kernels/sparse.h"

namespace pc::kernels {
namespace {

constexpr int kWarp = 32;

/// The index and the values as device code sees them. What is used once is read past the caches' better half.
template <class T>
struct Csr {
  const std::int32_t *offsets, *columns;
  T* values;

  Csr(const SparseIndex& index, const View& of)
      : offsets(index.offsets.as<std::int32_t>()), columns(index.columns.as<std::int32_t>()), values(of.as<T>()) {}
  __device__ std::int32_t begin(std::int64_t row) const { return __ldg(offsets + row); }
  __device__ std::int32_t end(std::int64_t row) const { return __ldg(offsets + row + 1); }
  __device__ std::int32_t column(std::int32_t place) const { return __ldcs(columns + place); }
  __device__ T value(std::int32_t place) const { return __ldcs(values + place); }
};

/// Patches as device code sees them.
struct DevicePatches {
  const std::int32_t *first, *source_offsets, *sources;
  const std::uint16_t* local;

  explicit DevicePatches(const SparsePatches& p)
      : first(p.first.as<std::int32_t>()),
        source_offsets(p.source_offsets.as<std::int32_t>()),
        sources(p.sources.as<std::int32_t>()),
        local(p.local.as<std::uint16_t>()) {}
  /// Which of the sources four places have.
  __device__ ushort4 four(std::int32_t four) const { return __ldg(reinterpret_cast<const ushort4*>(local) + four); }
};

/// Asks for memory that will be read later, as far as whole runs of 16 bytes of it go.
__device__ void fetch_to_cache(const void* from, const void* to) {
#if __CUDA_ARCH__ >= 900
  const std::uintptr_t begin = (reinterpret_cast<std::uintptr_t>(from) + 15) / 16 * 16;
  const std::uintptr_t end = reinterpret_cast<std::uintptr_t>(to) / 16 * 16;
  if (begin >= end) return;
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(begin), "r"(static_cast<unsigned>(end - begin))
               : "memory");
#endif
}

/// What a block works on.
struct Patch {
  std::int32_t first, last;  // rows
  std::int32_t source, sources;

  __device__ Patch(const DevicePatches& in, int patch, std::int64_t rows)
      : first(__ldg(in.first + patch)),
        last(static_cast<std::int32_t>(min(rows, std::int64_t{__ldg(in.first + patch + 1)}))),
        source(__ldg(in.source_offsets + patch)),
        sources(__ldg(in.source_offsets + patch + 1) - source) {}

  /// y of a patch without entries, for samples [begin, end): what was there before.
  template <int threads, class T>
  __device__ void fill(cu::Matrix<T> y, cu::Matrix<T> before, std::int64_t begin, std::int64_t end) const {
    if (before.data == y.data) return;
    for (std::int64_t sample = begin; sample < end; ++sample) {
      for (int row = first + static_cast<int>(threadIdx.x); row < last; row += threads) {
        y(sample, row) = before ? before(sample, row) : T(0);
      }
    }
  }
};

/// Starts a block for each patch, `high` times.
template <class Kernel, class... Args>
void launch_patches(Kernel kernel, int threads, std::size_t shared, std::int64_t high, const SparseIndex& index,
                    CudaContext& context, const Args&... args) {
  PC_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)));
  const dim3 grid(static_cast<unsigned>(index.patches.count()), static_cast<unsigned>(high));
  kernel<<<grid, static_cast<unsigned>(threads), shared, context.stream>>>(args...);
  PC_CUDA_CHECK(cudaGetLastError());
}

/// Whether a list, or a matrix, can be read in runs of 16 bytes.
inline bool aligned(const View& v) { return reinterpret_cast<std::uintptr_t>(v.data) % 16 == 0; }
inline bool in_runs(const View& v) {
  return aligned(v) && v.ld() % static_cast<std::int64_t>(16 / size_of(v.dtype)) == 0;
}

}  // namespace
}  // namespace pc::kernels

// A warp does a row. Its lanes form streams of L, each with an entry of its own; a lane holds V neighbouring samples,
// as one 16-byte load brings them where memory is aligned. Per entry that costs 4 bytes of index and 4 (8) of value,
// which are read once and in order, and the samples of one column, which are to come out of the caches.
// Where the index has patches, a block does one of them: samples come out of shared memory, and the index costs 2
// bytes. Products by blocks are in sparse_blocks_cuda.cu.
#include <cuda_pipeline.h>

#include "kernels/narrow.cuh"
#include "kernels/sparse_blocks.h"
#include "kernels/sparse_patches.cuh"

namespace pc::kernels {
namespace {

using cu::matrix, cu::Matrix;

constexpr int kWarps = 8;
constexpr int kRows = 32;     // of the index, by one block of the product
constexpr int kTogether = 4;  // entries of a stream whose samples are on their way at once

template <class T, int V>
struct alignas(V * sizeof(T)) Samples {
  T at[V];
};

template <class T, int V>
__device__ Samples<T, V> load(const T* from) {
  Samples<T, V> s;
  if constexpr (V == 1) {
    s.at[0] = __ldg(from);
  } else if constexpr (V == 2) {
    const double2 two = __ldg(reinterpret_cast<const double2*>(from));
    s.at[0] = two.x, s.at[1] = two.y;
  } else {
    const float4 four = __ldg(reinterpret_cast<const float4*>(from));
    s.at[0] = four.x, s.at[1] = four.y, s.at[2] = four.z, s.at[3] = four.w;
  }
  return s;
}

template <class T, int V, int L>
__global__ void __launch_bounds__(kWarp* kWarps) product_kernel(Csr<T> of, Matrix<T> x_t, Matrix<T> y, Matrix<T> before,
                                                                std::int64_t rows, std::int64_t batch, T alpha) {
  constexpr int kWide = L * V, kStreams = kWarp / L;
  __shared__ T tile[kRows][kWide + 1];
  const int lane = threadIdx.x % kWarp, stream = lane / L, within = lane % L * V;
  const std::int64_t first_row = std::int64_t{blockIdx.x} * kRows, first = std::int64_t{blockIdx.y} * kWide;
  const T* const samples = x_t.data + first + within;
  const auto ld = static_cast<std::int32_t>(x_t.ld);
  for (int r = threadIdx.x / kWarp; r < kRows; r += kWarps) {
    const std::int64_t row = first_row + r;
    T sum[V] = {};
    if (row < rows && first + within < batch) {
      const std::int32_t end = of.end(row);
      for (std::int32_t place = of.begin(row) + stream; place < end; place += kTogether * kStreams) {
        std::int32_t column[kTogether];
        T value[kTogether];
        Samples<T, V> x[kTogether];
        const auto there = [&](int u) { return place + u * kStreams < end; };
#pragma unroll
        for (int u = 0; u < kTogether; ++u) {
          if (there(u)) column[u] = of.column(place + u * kStreams), value[u] = of.value(place + u * kStreams);
        }
#pragma unroll
        for (int u = 0; u < kTogether; ++u) {
          if (there(u)) x[u] = load<T, V>(samples + std::int64_t{column[u]} * ld);
        }
#pragma unroll
        for (int u = 0; u < kTogether; ++u) {
          if (!there(u)) continue;
#pragma unroll
          for (int v = 0; v < V; ++v) sum[v] = fma(value[u], x[u].at[v], sum[v]);
        }
      }
    }
    for (int step = kWarp / 2; step >= L; step /= 2) {
#pragma unroll
      for (int v = 0; v < V; ++v) sum[v] += __shfl_xor_sync(~0U, sum[v], step);
    }
    if (stream > 0) continue;
#pragma unroll
    for (int v = 0; v < V; ++v) tile[r][within + v] = sum[v];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kRows * kWide; i += kWarp * kWarps) {
    const std::int64_t row = first_row + i % kRows, sample = first + i / kRows;
    if (row >= rows || sample >= batch) continue;
    y(sample, row) = (before ? before(sample, row) : T(0)) + alpha * tile[i % kRows][i / kRows];
  }
}

template <class T, int V, int L>
__global__ void __launch_bounds__(kWarp* kWarps)
    gradient_kernel(Csr<T> of, Matrix<T> d_t, Matrix<T> x_t, std::int64_t rows, std::int64_t batch, T alpha, bool add) {
  constexpr int kStreams = kWarp / L;
  const int lane = threadIdx.x % kWarp, stream = lane / L, within = lane % L * V;
  const std::int64_t row = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  if (row >= rows) return;
  const std::int32_t end = of.end(row);
  for (std::int32_t next = of.begin(row); next < end; next += kStreams) {  // all lanes go round as often: they shuffle
    const std::int32_t place = next + stream;
    T sum = 0;
    if (place < end) {
      const T* const column = x_t.data + of.column(place) * x_t.ld;
      for (std::int64_t b = within; b < batch; b += L * V) {
        const Samples<T, V> d = load<T, V>(d_t.data + row * d_t.ld + b), x = load<T, V>(column + b);
#pragma unroll
        for (int v = 0; v < V; ++v) {
          if (V == 1 || b + v < batch) sum += d.at[v] * x.at[v];  // behind the batch lies anything
        }
      }
    }
    for (int step = L / 2; step > 0; step /= 2) sum += __shfl_xor_sync(~0U, sum, step);
    if (within == 0 && place < end) cu::store(of.values[place], alpha * sum, add);
  }
}

/// Calls body(V, L) with what suits the batch and the memory, as types.
template <int n>
struct Number {
  static constexpr int value = n;
};
template <class T, class Body>
void with_lanes(std::int64_t batch, std::initializer_list<View> gathered, Body&& body) {
  constexpr int kFull = 16 / sizeof(T);
  bool aligned = true;
  for (const View& v : gathered) {
    aligned = aligned && reinterpret_cast<std::uintptr_t>(v.data) % 16 == 0 && v.ld() % kFull == 0;
  }
  if (!aligned) return body(Number<1>{}, Number<kWarp>{});
  const std::int64_t lanes = (batch + kFull - 1) / kFull;
  if (lanes <= 1) return body(Number<kFull>{}, Number<1>{});
  if (lanes <= 2) return body(Number<kFull>{}, Number<2>{});
  if (lanes <= 4) return body(Number<kFull>{}, Number<4>{});
  body(Number<kFull>{}, Number<8>{});
}

unsigned blocks(std::int64_t count, std::int64_t each) { return static_cast<unsigned>((count + each - 1) / each); }

// --- patches ---

constexpr int kPatchThreads = 768;
constexpr int kPatchLanes = 8;                          // of a stream
constexpr int kPatchStreams = kWarp / kPatchLanes;      // of a warp
constexpr std::size_t kSampleBytes = 16 * kPatchLanes;  // of a column, in shared memory
template <class T>
constexpr int kPatchSamples = kSampleBytes / sizeof(T);  // that a block does at once
template <class T>
constexpr int kPatchBlocks = sizeof(T) == sizeof(float) ? 2 : 1;  // of a multiprocessor: registers
template <class T>
constexpr std::size_t kTileBytes = kPatchRows*(kPatchSamples<T> + 1) * sizeof(T);
static_assert(kTileBytes<float> % 16 == 0 && kTileBytes<double> % 16 == 0);

/// Has what a block will read beside samples come as far as the cache, while samples come.
template <class T>
__device__ void announce(const Patch& patch, const DevicePatches& in, const Csr<T>& of, bool values) {
  if (threadIdx.x != 0 || patch.sources == 0) return;
  const std::int32_t begin = of.begin(patch.first), end = of.begin(patch.last);
  fetch_to_cache(in.local + begin, in.local + end);
  if (values) fetch_to_cache(of.values + begin, of.values + end);
}

/// A patch's samples from `begin` on, into shared memory. What is behind the batch, in whole runs of 16 bytes, becomes
/// 0.
template <class T>
__device__ void fetch(const Patch& patch, const DevicePatches& in, Matrix<T> x_t, std::int64_t begin,
                      std::int64_t batch, T* to) {
  constexpr int V = 16 / sizeof(T);
  for (int i = threadIdx.x; i < patch.sources * kPatchLanes; i += kPatchThreads) {
    const std::int64_t sample = begin + i % kPatchLanes * V;
    const bool there = sample < batch;
    const std::int64_t source = __ldg(in.sources + patch.source + i / kPatchLanes);
    __pipeline_memcpy_async(to + i * V, x_t.data + source * x_t.ld + (there ? sample : 0), 16, there ? 0 : 16);
  }
  __pipeline_commit();
}

/// Four entries at a time.
template <class T>
struct alignas(16) Four {
  T at[4];
};

template <class T>
__global__ void __launch_bounds__(kPatchThreads, kPatchBlocks<T>)
    patch_product_kernel(Csr<T> of, DevicePatches in, Matrix<T> x_t, Matrix<T> y, Matrix<T> before, std::int64_t rows,
                         std::int64_t batch, T alpha) {
  constexpr int V = 16 / sizeof(T), kWide = kPatchSamples<T>;
  extern __shared__ float4 shared[];
  auto* const tile = reinterpret_cast<T(*)[kWide + 1]>(shared);
  T* const samples = reinterpret_cast<T*>(reinterpret_cast<std::byte*>(shared) + kTileBytes<T>);
  const Patch patch(in, static_cast<int>(blockIdx.x), rows);
  const std::int64_t first = std::int64_t{blockIdx.y} * kWide;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  if (patch.sources == 0) return patch.fill<kPatchThreads>(y, before, first, min(batch, first + kWide));
  announce(patch, in, of, true);
  fetch(patch, in, x_t, first, batch, samples);
  __pipeline_wait_prior(0);
  __syncthreads();

  const int stream = lane / kPatchLanes, within = lane % kPatchLanes * V;
  for (std::int32_t row = patch.first + warp; row < patch.last; row += kPatchThreads / kWarp) {
    T sum[V] = {};
    const auto add_entry = [&](T value, int source) {
      const auto x = *reinterpret_cast<const Samples<T, V>*>(samples + source * kWide + within);
#pragma unroll
      for (int v = 0; v < V; ++v) sum[v] = fma(value, x.at[v], sum[v]);  // half of the instructions of * and +
    };
    const auto add_one = [&](std::int32_t place) { add_entry(of.value(place), __ldg(in.local + place)); };
    const auto add_four = [&](const Four<T>& value, ushort4 source) {
      add_entry(value.at[0], source.x);
      add_entry(value.at[1], source.y);
      add_entry(value.at[2], source.z);
      add_entry(value.at[3], source.w);
    };
    const auto values_of = [&](std::int32_t four) {
      Four<T> value;
      const auto* const from = reinterpret_cast<const float4*>(of.values + 4 * std::int64_t{four});
#pragma unroll
      for (int i = 0; i < static_cast<int>(sizeof(value) / 16); ++i) {
        reinterpret_cast<float4*>(&value)[i] = __ldcs(from + i);
      }
      return value;
    };
    // Whole fours of places, and what is left on either side of them. Of the fours two are on their way at once.
    const std::int32_t begin = of.begin(row), end = of.end(row);
    const std::int32_t four_begin = (begin + 3) / 4, four_end = max(four_begin, end / 4);
    for (std::int32_t four = four_begin + stream; four < four_end; four += 2 * kPatchStreams) {
      const bool two = four + kPatchStreams < four_end;
      const ushort4 source = in.four(four), next_source = two ? in.four(four + kPatchStreams) : ushort4{};
      const Four<T> value = values_of(four), next_value = two ? values_of(four + kPatchStreams) : Four<T>{};
      add_four(value, source);
      if (two) add_four(next_value, next_source);
    }
    const std::int32_t before = begin + stream, after = 4 * four_end + stream;
    if (before < min(end, 4 * four_begin)) add_one(before);
    if (after < end) add_one(after);
    for (int step = kWarp / 2; step >= kPatchLanes; step /= 2) {
#pragma unroll
      for (int v = 0; v < V; ++v) sum[v] += __shfl_xor_sync(~0U, sum[v], step);
    }
    if (stream > 0) continue;
#pragma unroll
    for (int v = 0; v < V; ++v) tile[row - patch.first][within + v] = sum[v];
  }
  __syncthreads();
  for (int sample = warp; sample < kWide && first + sample < batch; sample += kPatchThreads / kWarp) {
    for (std::int32_t row = patch.first + lane; row < patch.last; row += kWarp) {
      y(first + sample, row) = (before ? before(first + sample, row) : T(0)) + alpha * tile[row - patch.first][sample];
    }
  }
}

/// The lanes of a stream have parts of four sums: those of lanes `lane` and `lane` + 1, for even ones, become the whole
/// of sum number lane / 2.
template <class T>
__device__ T gather_sums(const T (&part)[4], int lane) {
  const bool high = (lane & 4) != 0, odd = (lane & 2) != 0;
  const T a = (high ? part[2] : part[0]) + __shfl_xor_sync(~0U, high ? part[0] : part[2], 4);
  const T b = (high ? part[3] : part[1]) + __shfl_xor_sync(~0U, high ? part[1] : part[3], 4);
  const T c = (odd ? b : a) + __shfl_xor_sync(~0U, odd ? a : b, 2);
  return c + __shfl_xor_sync(~0U, c, 1);
}

template <class T>
__global__ void __launch_bounds__(kPatchThreads, kPatchBlocks<T>)
    patch_gradient_kernel(Csr<T> of, DevicePatches in, Matrix<T> d_t, Matrix<T> x_t, std::int64_t rows,
                          std::int64_t batch, T alpha, bool add) {
  constexpr int V = 16 / sizeof(T), kWide = kPatchSamples<T>;
  extern __shared__ float4 shared[];
  T* const samples = reinterpret_cast<T*>(shared);
  const Patch patch(in, static_cast<int>(blockIdx.x), rows);
  if (patch.sources == 0) return;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int stream = lane / kPatchLanes, of_stream = lane % kPatchLanes, within = of_stream * V;
  for (std::int64_t first = 0; first < batch; first += kWide) {
    if (first > 0) __syncthreads();
    if (first == 0) announce(patch, in, of, false);
    fetch(patch, in, x_t, first, batch, samples);
    __pipeline_wait_prior(0);
    __syncthreads();
    for (std::int32_t row = patch.first + warp; row < patch.last; row += kPatchThreads / kWarp) {
      Samples<T, V> d = {};
      if (first + within < batch) d = load<T, V>(d_t.data + row * d_t.ld + first + within);
      const std::int32_t begin = of.begin(row), end = of.end(row);
      for (std::int32_t next = begin / 4; 4 * next < end; next += kPatchStreams) {  // all lanes go round as often
        // Places of the rows before and behind lead to some source of some patch: their sums are left.
        const std::int32_t four = next + stream;
        const ushort4 source = 4 * four < end ? in.four(four) : ushort4{};
        const auto dot = [&](int at) {
          const auto x = *reinterpret_cast<const Samples<T, V>*>(samples + at * kWide + within);
          T sum = 0;
#pragma unroll
          for (int v = 0; v < V; ++v) sum = fma(d.at[v], x.at[v], sum);
          return sum;
        };
        const T part[4] = {dot(source.x), dot(source.y), dot(source.z), dot(source.w)};
        const T sum = gather_sums(part, of_stream);
        const std::int32_t place = 4 * four + of_stream / 2;
        if (of_stream % 2 == 0 && place >= begin && place < end) {
          cu::store(of.values[place], alpha * sum, add || first > 0);
        }
      }
    }
  }
}

/// Whether patches may be used: all samples in whole runs of 16 bytes, and more of them than half a stream holds.
bool by_patches(const SparseIndex& index, const View& values, std::initializer_list<View> gathered,
                std::int64_t batch) {
  const auto whole = static_cast<std::int64_t>(16 / size_of(values.dtype));
  const bool fit = std::all_of(gathered.begin(), gathered.end(), in_runs);
  return !index.patches.empty() && fit && aligned(values) && batch % whole == 0 && batch > whole * kPatchLanes / 2;
}

// --- either way ---

template <class T>
void product_typed(const SparseProductArgs& a, CudaContext& context) {
  const std::int64_t rows = a.index.rows(), batch = a.y.rows();
  if (rows == 0 || batch == 0) return;
  if (by_patches(a.index, a.values, {a.x_t}, batch)) {
    return launch_patches(patch_product_kernel<T>, kPatchThreads, kTileBytes<T> + kPatchSources * kSampleBytes,
                          blocks(batch, kPatchSamples<T>), a.index, context, Csr<T>(a.index, a.values),
                          DevicePatches(a.index.patches), matrix<T>(a.x_t), matrix<T>(a.y), matrix<T>(a.before()), rows,
                          batch, T(a.alpha));
  }
  with_lanes<T>(batch, {a.x_t}, [&]<class Vector, class Lanes>(Vector, Lanes) {
    constexpr int V = Vector::value, L = Lanes::value;
    const dim3 grid(blocks(rows, kRows), blocks(batch, L * V));
    product_kernel<T, V, L><<<grid, kWarp * kWarps, 0, context.stream>>>(
        Csr<T>(a.index, a.values), matrix<T>(a.x_t), matrix<T>(a.y), matrix<T>(a.before()), rows, batch, T(a.alpha));
    PC_CUDA_CHECK(cudaGetLastError());
  });
}

template <class T>
void gradient_typed(const SparseGradientArgs& g, CudaContext& context) {
  const std::int64_t rows = g.index.rows(), batch = g.x_t.cols();
  if (rows == 0 || g.index.entries() == 0) return;
  if (by_patches(g.index, g.dw, {g.d_t, g.x_t}, batch)) {
    return launch_patches(patch_gradient_kernel<T>, kPatchThreads, kPatchSources * kSampleBytes, 1, g.index, context,
                          Csr<T>(g.index, g.dw), DevicePatches(g.index.patches), matrix<T>(g.d_t), matrix<T>(g.x_t),
                          rows, batch, T(g.alpha), g.write == Write::add);
  }
  with_lanes<T>(batch, {g.d_t, g.x_t}, [&]<class Vector, class Lanes>(Vector, Lanes) {
    constexpr int V = Vector::value, L = Lanes::value;
    gradient_kernel<T, V, L><<<blocks(rows, kWarps), kWarp * kWarps, 0, context.stream>>>(
        Csr<T>(g.index, g.dw), matrix<T>(g.d_t), matrix<T>(g.x_t), rows, batch, T(g.alpha), g.write == Write::add);
    PC_CUDA_CHECK(cudaGetLastError());
  });
}

template <class T, class U>
__global__ void __launch_bounds__(kWarp* kWarps)
    transpose_kernel(Matrix<T> x, Matrix<U> y, std::int64_t rows, std::int64_t cols) {
  __shared__ T tile[kWarp][kWarp + 1];
  const int across = threadIdx.x % kWarp, down = threadIdx.x / kWarp;
  const std::int64_t col = std::int64_t{blockIdx.x} * kWarp, row = std::int64_t{blockIdx.y} * kWarp;
  for (int i = down; i < kWarp; i += kWarps) {
    if (row + i < rows && col + across < cols) tile[i][across] = x(row + i, col + across);
  }
  __syncthreads();
  for (int i = down; i < kWarp; i += kWarps) {
    if (col + i < cols && row + across < rows) y(col + i, row + across) = U(tile[across][i]);
  }
}

template <class T, class U>
void transpose_typed(const TransposeArgs& t, CudaContext& context) {
  const std::int64_t rows = t.x.rows(), cols = t.x.cols();
  if (rows == 0 || cols == 0) return;
  const dim3 grid(blocks(cols, kWarp), blocks(rows, kWarp));
  transpose_kernel<<<grid, kWarp * kWarps, 0, context.stream>>>(matrix<T>(t.x), matrix<U>(t.y), rows, cols);
  PC_CUDA_CHECK(cudaGetLastError());
}

template <class T>
struct Permute {
  static constexpr int kEntries = 4;
  const T* x;
  cu::Matrix<std::int32_t> from;
  cu::Matrix<T> y;
  cu::Narrow narrow;  // in place of y

  [[nodiscard]] bool packs() const { return from.packs() && y.packs() && narrow.packs(); }
  template <int n>
  __device__ void operator()(cu::NoScalars::Values, cu::At<n> at) const {
    const cu::Pack<std::int32_t, n> source = from(at);
    cu::Pack<T, n> found;
    for (int i = 0; i < n; ++i) found[i] = source[i] < 0 ? T(0) : __ldg(x + source[i]);
    if (y) y(at) = found;
    narrow(at, found);
  }
};

template <class T>
void permute_typed(const PermuteArgs& p, CudaContext& context) {
  const bool rounds = p.y.dtype == DType::bf16;
  View row = p.y;  // a list, of which Narrow does not know that four may be written at once
  row.shape = {1, p.y.count()};
  cu::each_entry(1, p.y.count(), context.stream, cu::NoScalars{},
                 Permute<T>{p.x.as<T>(),
                            {p.from.as<std::int32_t>(), 0},
                            {rounds ? nullptr : p.y.as<T>(), 0},
                            rounds ? cu::Narrow({.y = row}) : cu::Narrow()});
}

}  // namespace

void transpose_cuda(const TransposeArgs& t, CudaContext& context) {
  if (t.y.dtype == DType::bf16) return transpose_typed<float, __nv_bfloat16>(t, context);
  with_float(t.x.dtype, [&]<class T>(T) { transpose_typed<T, T>(t, context); });
}
void permute_cuda(const PermuteArgs& p, CudaContext& context) {
  with_float(p.x.dtype, [&]<class T>(T) { permute_typed<T>(p, context); });
}
void sparse_product_cuda(const SparseProductArgs& a, CudaContext& context) {
  if (!a.index.blocks.empty()) return block_product_cuda(a, context);
  with_float(a.y.dtype, [&]<class T>(T) { product_typed<T>(a, context); });
}
void sparse_gradient_cuda(const SparseGradientArgs& g, CudaContext& context) {
  with_float(g.dw.dtype, [&]<class T>(T) { gradient_typed<T>(g, context); });
}

}  // namespace pc::kernels

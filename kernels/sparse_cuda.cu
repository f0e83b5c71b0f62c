// A warp does a row. Its lanes form streams of L, each with an entry of its own; a lane holds V neighbouring samples,
// as one 16-byte load brings them where memory is aligned. Per entry that costs 4 bytes of index and 4 (8) of value,
// which are read once and in order, and the samples of one column, which are to come out of the caches.
#include "kernels/launch.cuh"
#include "kernels/sparse.h"

namespace pc::kernels {
namespace {

using cu::matrix, cu::Matrix;

constexpr int kWarp = 32, kWarps = 8;
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

template <class T, int V, int L>
__global__ void __launch_bounds__(kWarp* kWarps)
    product_kernel(Csr<T> of, Matrix<T> x_t, Matrix<T> y, std::int64_t rows, std::int64_t batch, T alpha, bool add) {
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
          for (int v = 0; v < V; ++v) sum[v] += value[u] * x[u].at[v];
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
    if (row < rows && sample < batch) cu::store(y(sample, row), alpha * tile[i % kRows][i / kRows], add);
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

template <class T>
void product_typed(const SparseProductArgs& a, CudaContext& context) {
  const std::int64_t rows = a.index.rows(), batch = a.y.rows();
  if (rows == 0 || batch == 0) return;
  with_lanes<T>(batch, {a.x_t}, [&]<class Vector, class Lanes>(Vector, Lanes) {
    constexpr int V = Vector::value, L = Lanes::value;
    const dim3 grid(blocks(rows, kRows), blocks(batch, L * V));
    product_kernel<T, V, L><<<grid, kWarp * kWarps, 0, context.stream>>>(
        Csr<T>(a.index, a.values), matrix<T>(a.x_t), matrix<T>(a.y), rows, batch, T(a.alpha), a.write == Write::add);
    PC_CUDA_CHECK(cudaGetLastError());
  });
}

template <class T>
void gradient_typed(const SparseGradientArgs& g, CudaContext& context) {
  const std::int64_t rows = g.index.rows(), batch = g.x_t.cols();
  if (rows == 0 || g.index.entries() == 0) return;
  with_lanes<T>(batch, {g.d_t, g.x_t}, [&]<class Vector, class Lanes>(Vector, Lanes) {
    constexpr int V = Vector::value, L = Lanes::value;
    gradient_kernel<T, V, L><<<blocks(rows, kWarps), kWarp * kWarps, 0, context.stream>>>(
        Csr<T>(g.index, g.dw), matrix<T>(g.d_t), matrix<T>(g.x_t), rows, batch, T(g.alpha), g.write == Write::add);
    PC_CUDA_CHECK(cudaGetLastError());
  });
}

template <class T>
__global__ void __launch_bounds__(kWarp* kWarps)
    transpose_kernel(Matrix<T> x, Matrix<T> y, std::int64_t rows, std::int64_t cols) {
  __shared__ T tile[kWarp][kWarp + 1];
  const int across = threadIdx.x % kWarp, down = threadIdx.x / kWarp;
  const std::int64_t col = std::int64_t{blockIdx.x} * kWarp, row = std::int64_t{blockIdx.y} * kWarp;
  for (int i = down; i < kWarp; i += kWarps) {
    if (row + i < rows && col + across < cols) tile[i][across] = x(row + i, col + across);
  }
  __syncthreads();
  for (int i = down; i < kWarp; i += kWarps) {
    if (col + i < cols && row + across < rows) y(col + i, row + across) = tile[across][i];
  }
}

template <class T>
void transpose_typed(const TransposeArgs& t, CudaContext& context) {
  const std::int64_t rows = t.x.rows(), cols = t.x.cols();
  if (rows == 0 || cols == 0) return;
  const dim3 grid(blocks(cols, kWarp), blocks(rows, kWarp));
  transpose_kernel<T><<<grid, kWarp * kWarps, 0, context.stream>>>(matrix<T>(t.x), matrix<T>(t.y), rows, cols);
  PC_CUDA_CHECK(cudaGetLastError());
}

template <class T>
void permute_typed(const PermuteArgs& p, CudaContext& context) {
  const T* x = p.x.as<T>();
  const std::int32_t* from = p.from.as<std::int32_t>();
  T* y = p.y.as<T>();
  cu::each_index(p.y.count(), context.stream, [=] __device__(std::int64_t i) { y[i] = x[from[i]]; });
}

}  // namespace

void transpose_cuda(const TransposeArgs& t, CudaContext& context) {
  with_float(t.x.dtype, [&]<class T>(T) { transpose_typed<T>(t, context); });
}
void permute_cuda(const PermuteArgs& p, CudaContext& context) {
  with_float(p.x.dtype, [&]<class T>(T) { permute_typed<T>(p, context); });
}
void sparse_product_cuda(const SparseProductArgs& a, CudaContext& context) {
  with_float(a.y.dtype, [&]<class T>(T) { product_typed<T>(a, context); });
}
void sparse_gradient_cuda(const SparseGradientArgs& g, CudaContext& context) {
  with_float(g.dw.dtype, [&]<class T>(T) { gradient_typed<T>(g, context); });
}

}  // namespace pc::kernels

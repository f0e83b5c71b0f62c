#include "kernels/arithmetic.h"
#include "kernels/launch.cuh"

namespace pc::kernels {
namespace {

using cu::each_entry, cu::matrix, cu::matrix_or_row;

template <class T>
void fill_typed(const FillArgs& a, CudaContext& context) {
  each_entry(a.out.rows(), a.out.cols(), context.stream,
             [out = matrix<T>(a.out), value = T(a.value)] __device__(std::int64_t row, std::int64_t col) {
               out(row, col) = value;
             });
}

template <class T>
void copy_typed(const CopyArgs& a, CudaContext& context) {
  const auto in = matrix<T>(a.in), out = matrix<T>(a.out), mask = matrix_or_row<T>(a.mask);
  each_entry(a.out.rows(), a.out.cols(), context.stream, [=] __device__(std::int64_t row, std::int64_t col) {
    if (!mask || mask(row, col) != T(0)) out(row, col) = in(row, col);
  });
}

template <class T>
void axpby_typed(const AxpbyArgs& g, CudaContext& context) {
  const auto x = matrix<T>(g.x), y = matrix<T>(g.y);
  const T a = T(g.a), b = T(g.b);
  each_entry(g.y.rows(), g.y.cols(), context.stream, [=] __device__(std::int64_t row, std::int64_t col) {
    y(row, col) = b == T(0) ? a * x(row, col) : a * x(row, col) + b * y(row, col);
  });
}

template <class T>
void multiply_typed(const MultiplyArgs& m, CudaContext& context) {
  const auto a = matrix<T>(m.a), b = matrix<T>(m.b), y = matrix<T>(m.y);
  const bool add = m.write == Write::add;
  each_entry(m.y.rows(), m.y.cols(), context.stream, [=] __device__(std::int64_t row, std::int64_t col) {
    cu::store(y(row, col), a(row, col) * b(row, col), add);
  });
}

template <class T>
void add_row_typed(const AddRowArgs& a, CudaContext& context) {
  const auto y = matrix<T>(a.y);
  const T* from = a.row.as<T>();
  const bool add = a.write == Write::add;
  each_entry(a.y.rows(), a.y.cols(), context.stream,
             [=] __device__(std::int64_t row, std::int64_t col) { cu::store(y(row, col), from[col], add); });
}

constexpr int kTileCols = 32, kTileRows = 32;

/// A block does kTileCols columns: thread (i, j) adds rows j, j + kTileRows, ..., then the parts are added in order.
template <class T>
__global__ void __launch_bounds__(kTileCols* kTileRows)
    sum_rows_kernel(cu::Matrix<T> x, std::int64_t rows, std::int64_t cols, T* out, bool add) {
  __shared__ T parts[kTileRows][kTileCols];
  const std::int64_t col = std::int64_t{blockIdx.x} * kTileCols + threadIdx.x;
  T part = 0;
  if (col < cols) {
#pragma unroll 4
    for (std::int64_t row = threadIdx.y; row < rows; row += kTileRows) part += x(row, col);
  }
  parts[threadIdx.y][threadIdx.x] = part;
  __syncthreads();
  if (threadIdx.y != 0 || col >= cols) return;
  for (int i = 1; i < kTileRows; ++i) part += parts[i][threadIdx.x];
  cu::store(out[col], part, add);
}

template <class T>
void sum_rows_typed(const SumRowsArgs& s, CudaContext& context) {
  const std::int64_t cols = s.x.cols();
  if (cols == 0) return;
  const auto blocks = static_cast<unsigned>((cols + kTileCols - 1) / kTileCols);
  sum_rows_kernel<T><<<blocks, dim3(kTileCols, kTileRows), 0, context.stream>>>(matrix<T>(s.x), s.x.rows(), cols,
                                                                                s.row.as<T>(), s.write == Write::add);
  PC_CUDA_CHECK(cudaGetLastError());
}

template <class T>
void lerp_typed(const LerpArgs& l, CudaContext& context) {
  const auto a = matrix<T>(l.a), b = matrix<T>(l.b), y = matrix<T>(l.y);
  each_entry(l.y.rows(), l.y.cols(), context.stream, cu::OneScalar{l.t.as<double>()},
             [=] __device__(double t, std::int64_t row, std::int64_t col) {
               const T from = a(row, col);
               y(row, col) = from + T(t) * (b(row, col) - from);
             });
}

template <class T>
void scale_by_typed(const ScaleByArgs& s, CudaContext& context) {
  const auto y = matrix<T>(s.y);
  each_entry(s.y.rows(), s.y.cols(), context.stream, cu::OneScalar{s.by.as<double>()},
             [=] __device__(double by, std::int64_t row, std::int64_t col) { y(row, col) *= T(by); });
}

}  // namespace

void fill_cuda(const FillArgs& a, CudaContext& context) {
  with_float(a.out.dtype, [&]<class T>(T) { fill_typed<T>(a, context); });
}
void copy_cuda(const CopyArgs& a, CudaContext& context) {
  with_float(a.out.dtype, [&]<class T>(T) { copy_typed<T>(a, context); });
}
void axpby_cuda(const AxpbyArgs& g, CudaContext& context) {
  with_float(g.y.dtype, [&]<class T>(T) { axpby_typed<T>(g, context); });
}
void multiply_cuda(const MultiplyArgs& m, CudaContext& context) {
  with_float(m.y.dtype, [&]<class T>(T) { multiply_typed<T>(m, context); });
}
void add_row_cuda(const AddRowArgs& a, CudaContext& context) {
  with_float(a.y.dtype, [&]<class T>(T) { add_row_typed<T>(a, context); });
}
void sum_rows_cuda(const SumRowsArgs& s, CudaContext& context) {
  with_float(s.x.dtype, [&]<class T>(T) { sum_rows_typed<T>(s, context); });
}
void lerp_cuda(const LerpArgs& l, CudaContext& context) {
  with_float(l.y.dtype, [&]<class T>(T) { lerp_typed<T>(l, context); });
}
void scale_by_cuda(const ScaleByArgs& s, CudaContext& context) {
  with_float(s.y.dtype, [&]<class T>(T) { scale_by_typed<T>(s, context); });
}

}  // namespace pc::kernels

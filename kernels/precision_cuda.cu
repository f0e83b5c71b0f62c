#include "kernels/launch.cuh"
#include "kernels/precision.h"

namespace pc::kernels {
namespace {

constexpr int kTileCols = 32, kTileRows = 16;

/// A block does kTileCols columns: thread (i, j) adds rows j, j + kTileRows, ..., then the parts are added in order.
template <class T>
__global__ void __launch_bounds__(kTileCols* kTileRows)
    learn_precision_kernel(cu::Matrix<T> delta, std::int64_t rows, std::int64_t cols, T* p, double rate, double least) {
  __shared__ double parts[kTileRows][kTileCols];
  const std::int64_t col = std::int64_t{blockIdx.x} * kTileCols + threadIdx.x;
  double part = 0;
  if (col < cols) {
    for (std::int64_t row = threadIdx.y; row < rows; row += kTileRows) {
      const double d = double(delta(row, col));
      part += d * d;
    }
  }
  parts[threadIdx.y][threadIdx.x] = part;
  __syncthreads();
  if (threadIdx.y != 0 || col >= cols) return;
  for (int i = 1; i < kTileRows; ++i) part += parts[i][threadIdx.x];
  p[col] = T(next_precision(double(p[col]), part / double(rows), rate, least));
}

template <class T>
void learn_precision_typed(const LearnPrecisionArgs& a, CudaContext& context) {
  const std::int64_t cols = a.delta.cols();
  if (cols == 0) return;
  const auto blocks = static_cast<unsigned>((cols + kTileCols - 1) / kTileCols);
  learn_precision_kernel<T><<<blocks, dim3(kTileCols, kTileRows), 0, context.stream>>>(
      cu::matrix<T>(a.delta), a.delta.rows(), cols, a.precisions.as<T>(), a.rate, a.least);
  PC_CUDA_CHECK(cudaGetLastError());
}

}  // namespace

void learn_precision_cuda(const LearnPrecisionArgs& a, CudaContext& context) {
  with_float(a.delta.dtype, [&]<class T>(T) { learn_precision_typed<T>(a, context); });
}

}  // namespace pc::kernels

// Sums over the rows of a matrix, one for each column, in an order that depends on sizes alone.
#pragma once

#include <algorithm>

#include "kernels/launch.cuh"

namespace pc::cu {

constexpr int kTileCols = 32, kTileRows = 32;

/// A block does kTileCols columns of one slice of the rows: thread (i, j) adds rows j, j + kTileRows, ..., then the
/// parts are added in order. out [slices, cols].
template <class T, class Term>
__global__ void __launch_bounds__(kTileCols* kTileRows)
    column_sums_kernel(std::int64_t rows, std::int64_t cols, std::int64_t slice, Term term, T by, T* out, bool add) {
  follow();
  __shared__ T parts[kTileRows][kTileCols];
  const std::int64_t col = std::int64_t{blockIdx.x} * kTileCols + threadIdx.x;
  const std::int64_t first = blockIdx.y * slice, last = first + slice < rows ? first + slice : rows;
  T part = 0;
  if (col < cols) {
#pragma unroll 4
    for (std::int64_t row = first + threadIdx.y; row < last; row += kTileRows) part += term(row, col);
  }
  parts[threadIdx.y][threadIdx.x] = part;
  __syncthreads();
  if (threadIdx.y != 0 || col >= cols) return;
  for (int i = 1; i < kTileRows; ++i) part += parts[i][threadIdx.x];
  store(out[blockIdx.y * cols + col], by * part, add);
}

/// Rows of a slice: fewer of a matrix that has fewer, so that more of a GPU works on it; and no more slices than a grid
/// takes.
constexpr std::int64_t slice_rows(std::int64_t rows) {
  constexpr std::int64_t kTall = std::int64_t{1} << 16, kMostSlices = 32768;
  return rows < kTall ? 128 : std::max<std::int64_t>(1024, (rows + kMostSlices - 1) / kMostSlices);
}

/// Slices that the rows of a tall matrix are cut into.
constexpr std::int64_t slices(std::int64_t rows) {
  return rows <= 256 ? 1 : (rows + slice_rows(rows) - 1) / slice_rows(rows);
}

/// out[col] (=|+=) by * sum over the rows of term(row, col). Takes slices(rows) * cols entries of scratch memory, at
/// `parts`.
template <class T, class Term>
void column_sums(std::int64_t rows, std::int64_t cols, cudaStream_t stream, Term term, T* out, bool add, T* parts,
                 T by = T(1)) {
  if (cols == 0) return;
  const auto across = static_cast<unsigned>((cols + kTileCols - 1) / kTileCols);
  const dim3 block(kTileCols, kTileRows);
  const std::int64_t n = slices(rows);
  if (n == 1) {
    launch(column_sums_kernel<T, Term>, across, block, 0, stream, rows, cols, rows, term, by, out, add);
  } else {
    launch(column_sums_kernel<T, Term>, dim3(across, static_cast<unsigned>(n)), block, 0, stream, rows, cols,
           slice_rows(rows), term, T(1), parts, false);
    launch(column_sums_kernel<T, Matrix<T>>, across, block, 0, stream, n, cols, n, Matrix<T>{parts, cols}, by, out,
           add);
  }
}

}  // namespace pc::cu

#include <Eigen/Core>

#include "kernels/loops.h"
#include "kernels/sparse_blocks.h"

namespace pc::kernels {
namespace {

constexpr std::int64_t kSamples = 32;  // that are added up side by side, in registers
constexpr std::int64_t kAhead = 16;    // entries: gathers jump, and the processor cannot foresee where to

/// Asks for the row of x_t that the entry `kAhead` places on gathers, of this row of the index or the next ones.
template <class T>
void fetch_ahead(const SparseIndex& index, const View& x_t, std::int64_t place, std::int64_t first) {
  if (place + kAhead >= index.entries()) return;
  const T* x = x_t.row<T>(index.columns.as<std::int32_t>()[place + kAhead]) + first;
  __builtin_prefetch(x);
  if constexpr (kSamples * sizeof(T) > 64) __builtin_prefetch(x + 64 / sizeof(T));
}

/// sum[j] = sum over the places of a row of value x_t[column][first + j], j < n.
template <class T>
void sum_row(const SparseProductArgs& a, std::int64_t begin, std::int64_t end, std::int64_t first, std::int64_t n,
             T* sum) {
  const std::int32_t* columns = a.index.columns.as<std::int32_t>();
  const T* values = a.values.as<T>();
  if (n == kSamples) {
    T lanes[kSamples] = {};
    for (std::int64_t place = begin; place < end; ++place) {
      fetch_ahead<T>(a.index, a.x_t, place, first);
      const T value = values[place];
      const T* x = a.x_t.row<T>(columns[place]) + first;
#pragma omp simd
      for (std::int64_t j = 0; j < kSamples; ++j) lanes[j] += value * x[j];
    }
    std::copy_n(lanes, kSamples, sum);
    return;
  }
  std::fill_n(sum, n, T(0));
  for (std::int64_t place = begin; place < end; ++place) {
    const T value = values[place];
    const T* x = a.x_t.row<T>(columns[place]) + first;
    each_entry(n, [=](std::int64_t j) { sum[j] += value * x[j]; });
  }
}

/// Rows of A are dealt out, in tiles of eight whose results are turned into rows of the batch.
template <class T>
void product_typed(const SparseProductArgs& a, Share share) {
  constexpr std::int64_t kRows = 8;
  const std::int32_t* offsets = a.index.offsets.as<std::int32_t>();
  const std::int64_t batch = a.y.rows();
  const T alpha = T(a.alpha);
  const View before = a.before();
  const auto [begin, end] = share.of(a.index.rows());
  T tile[kRows][kSamples];
  for (std::int64_t row = begin; row < end; row += kRows) {
    const std::int64_t rows = std::min(kRows, end - row);
    for (std::int64_t first = 0; first < batch; first += kSamples) {
      const std::int64_t n = std::min(kSamples, batch - first);
      for (std::int64_t r = 0; r < rows; ++r) sum_row(a, offsets[row + r], offsets[row + r + 1], first, n, tile[r]);
      for (std::int64_t j = 0; j < n; ++j) {
        T* y = a.y.row<T>(first + j) + row;
        const T* add = before.empty() ? nullptr : before.row<T>(first + j) + row;
        for (std::int64_t r = 0; r < rows; ++r) y[r] = (add != nullptr ? add[r] : T(0)) + alpha * tile[r][j];
      }
    }
  }
}

/// Calls body(T, U) with the type of what is read and of what is written: may_become().
template <class Body>
void with_written(DType type, Body&& body) {
  if (type == DType::bf16) return body(float{}, Eigen::bfloat16{});
  with_float(type, [&]<class T>(T) { body(T{}, T{}); });
}

/// Over eight fixed lanes.
template <class T>
T dot(const T* a, const T* b, std::int64_t n) {
  constexpr int kLanes = 8;
  T lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
#pragma omp simd
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
  }
  for (int lane = 0; i < n; ++i, ++lane) lanes[lane] += a[i] * b[i];
  return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
}

}  // namespace

void transpose_cpu(const TransposeArgs& t, Share share) {
  constexpr std::int64_t kTile = 16;
  with_written(t.y.dtype, [&]<class T, class U>(T, U) {
    const auto [begin, end] = share.of(t.y.rows());
    for (std::int64_t col = begin; col < end; col += kTile) {
      const std::int64_t last_col = std::min(end, col + kTile);
      for (std::int64_t row = 0; row < t.x.rows(); row += kTile) {
        const std::int64_t last_row = std::min(t.x.rows(), row + kTile);
        for (std::int64_t j = col; j < last_col; ++j) {
          U* y = t.y.row<U>(j);
          for (std::int64_t i = row; i < last_row; ++i) y[i] = U(t.x.row<T>(i)[j]);
        }
      }
    }
  });
}

void permute_cpu(const PermuteArgs& p, Share share) {
  with_written(p.y.dtype, [&]<class T, class U>(T, U) {
    const auto [begin, end] = share.of(p.y.count());
    const T* x = p.x.as<T>();
    const std::int32_t* from = p.from.as<std::int32_t>();
    U* y = p.y.as<U>();
    for (std::int64_t i = begin; i < end; ++i) y[i] = U(from[i] < 0 ? T(0) : x[from[i]]);
  });
}

void sparse_product_cpu(const SparseProductArgs& a, Share share) {
  if (!a.index.blocks.empty()) return block_product_cpu(a, share);
  with_float(a.y.dtype, [&]<class T>(T) { product_typed<T>(a, share); });
}

void sparse_gradient_cpu(const SparseGradientArgs& g, Share share) {
  with_float(g.dw.dtype, [&]<class T>(T) {
    const std::int32_t *offsets = g.index.offsets.as<std::int32_t>(), *columns = g.index.columns.as<std::int32_t>();
    T* dw = g.dw.as<T>();
    const T alpha = T(g.alpha);
    each_row(share, g.index.rows(), [&](std::int64_t row) {
      const T* d = g.d_t.row<T>(row);
      for (std::int64_t place = offsets[row]; place < offsets[row + 1]; ++place) {
        fetch_ahead<T>(g.index, g.x_t, place, 0);
        const T value = alpha * dot(d, g.x_t.row<T>(columns[place]), g.x_t.cols());
        dw[place] = (g.write == Write::add ? dw[place] : T(0)) + value;
      }
    });
  });
}

}  // namespace pc::kernels

// Eigen's blocked product, called below its expressions: those pick another algorithm for few rows, and with it other
// rounding, so that a result would depend on how many threads share the rows.
#include <Eigen/Core>
#include <cmath>
#include <vector>

#include "kernels/gemm.h"
#include "kernels/loops.h"
#include "kernels/narrow.h"

namespace pc::kernels {
namespace {

using Eigen::Index;

/// Rows [begin, begin + rows) of c += alpha op(a) op(b).
template <class T, bool trans_a, bool trans_b>
void add_product(const GemmArgs& g, Index begin, Index rows) {
  // A row-major matrix transposed is a column-major one.
  constexpr int kOrderA = trans_a ? Eigen::ColMajor : Eigen::RowMajor;
  constexpr int kOrderB = trans_b ? Eigen::ColMajor : Eigen::RowMajor;
  using Product =
      Eigen::internal::general_matrix_matrix_product<Index, T, kOrderA, false, T, kOrderB, false, Eigen::RowMajor, 1>;
  using Blocking =
      Eigen::internal::gemm_blocking_space<Eigen::RowMajor, T, T, Eigen::Dynamic, Eigen::Dynamic, Eigen::Dynamic>;
  Blocking blocking(rows, g.n(), g.k(), 1, true);
  const T* a = g.a.as<T>() + begin * (trans_a ? 1 : g.a.ld());
  Product::run(rows, g.n(), g.k(), a, g.a.ld(), g.b.as<T>(), g.b.ld(), g.c.row<T>(begin), 1, g.c.ld(), T(g.alpha),
               blocking);
}

/// c = beta c. With beta 0, c may hold NaN.
template <class T>
void scale(const GemmArgs& g, Share share) {
  const T beta = T(g.beta);
  each_row(share, g.m(), [&](std::int64_t row) {
    T* c = g.c.row<T>(row);
    if (beta == T(0)) {
      std::fill_n(c, g.n(), T(0));
    } else if (beta != T(1)) {
      each_entry(g.n(), [=](std::int64_t i) { c[i] *= beta; });
    }
  });
}

/// A batch of one: a vector times a matrix. Only one thread has that row, whatever their number.
template <class T>
void add_vector_product(const GemmArgs& g) {
  using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using Vector = Eigen::Map<const Eigen::Matrix<T, Eigen::Dynamic, 1>, Eigen::Unaligned, Eigen::InnerStride<>>;
  const Vector a(g.a.as<T>(), g.k(), Eigen::InnerStride<>(g.trans_a == Trans::yes ? g.a.ld() : 1));
  const Eigen::Map<const Matrix, Eigen::Unaligned, Eigen::OuterStride<>> b(g.b.as<T>(), g.b.rows(), g.b.cols(),
                                                                           Eigen::OuterStride<>(g.b.ld()));
  Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, 1>> c(g.c.as<T>(), g.n());
  if (g.trans_b == Trans::yes) {
    c.noalias() += T(g.alpha) * (b * a);
  } else {
    c.noalias() += T(g.alpha) * (b.transpose() * a);
  }
}

/// An operand in packed float32, of which only rows [begin, end) are read and filled in.
View widen(const View& operand, std::vector<float>& memory, std::int64_t begin, std::int64_t end) {
  memory.resize(static_cast<std::size_t>(operand.count()));
  for (std::int64_t row = begin; row < end; ++row) {
    float* out = memory.data() + row * operand.cols();
    for (std::int64_t col = 0; col < operand.cols(); ++col) out[col] = widened(operand, row, col);
  }
  return {memory.data(), {operand.rows(), operand.cols()}, DType::f32, Device::cpu, 0};
}

/// Shows what narrower operands do to a result; it saves nothing here.
void gemm_widened(const GemmArgs& g, Share share) {
  thread_local std::vector<float> a, b;
  const bool whole = g.trans_a == Trans::yes;
  const auto [begin, end] = share.of(g.m());
  GemmArgs wide = g;
  wide.a = widen(g.a, a, whole ? 0 : begin, whole ? g.a.rows() : end);
  wide.b = widen(g.b, b, 0, g.b.rows());
  wide.alpha = std::ldexp(g.alpha, -g.a.exponent - g.b.exponent);
  gemm_cpu(wide, share);
}

}  // namespace

void gemm_cpu(const GemmArgs& g, Share share) {
  if (g.c.dtype == DType::bf16) {
    return round_result(g.c, share, [&](const View& c) {
      GemmArgs whole = g;
      whole.c = c;
      gemm_cpu(whole, share);
    });
  }
  if (g.a.dtype != g.c.dtype) return gemm_widened(g, share);
  const auto [begin, end] = share.of(g.m());
  const std::int64_t rows = end - begin;
  if (rows == 0 || g.n() == 0) return;
  with_float(g.c.dtype, [&, first = begin]<class T>(T) {
    scale<T>(g, share);
    if (g.k() == 0) return;
    if (g.m() == 1) return add_vector_product<T>(g);
    const bool ta = g.trans_a == Trans::yes, tb = g.trans_b == Trans::yes;
    if (!ta && !tb) add_product<T, false, false>(g, first, rows);
    if (!ta && tb) add_product<T, false, true>(g, first, rows);
    if (ta && !tb) add_product<T, true, false>(g, first, rows);
    if (ta && tb) add_product<T, true, true>(g, first, rows);
  });
}

}  // namespace pc::kernels

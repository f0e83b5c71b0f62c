// Eigen's product, sample by sample: a sample has one thread, whatever their number.
#include <Eigen/Core>

#include "kernels/batched_gemm.h"
#include "kernels/loops.h"

namespace pc::kernels {
namespace {

/// A packed row-major matrix [rows, cols], or what is its transpose and has that shape: a column-major one.
template <class T, bool trans>
using Factor = Eigen::Map<
    const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, trans ? int{Eigen::ColMajor} : int{Eigen::RowMajor}>>;

template <class T>
using Result = Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;

/// c += alpha op(a) op(b) for one sample.
template <class T, bool trans_a, bool trans_b>
void add_product(const BatchedGemmArgs& g, std::int64_t sample) {
  const Factor<T, trans_a> a(g.a.row<T>(sample), g.m, g.k);
  const Factor<T, trans_b> b(g.b.row<T>(sample), g.k, g.n);
  Result<T>(g.c.row<T>(sample), g.m, g.n).noalias() += T(g.alpha) * a * b;
}

}  // namespace

void batched_gemm_cpu(const BatchedGemmArgs& g, Share share) {
  if (g.m == 0 || g.n == 0) return;
  with_float(g.c.dtype, [&]<class T>(T) {
    const T beta = T(g.beta);
    const bool ta = g.trans_a == Trans::yes, tb = g.trans_b == Trans::yes;
    each_row(share, g.c.rows(), [&](std::int64_t sample) {
      T* c = g.c.row<T>(sample);
      if (beta == T(0)) {  // c may hold NaN
        std::fill_n(c, g.c.cols(), T(0));
      } else if (beta != T(1)) {
        each_entry(g.c.cols(), [=](std::int64_t i) { c[i] *= beta; });
      }
      if (g.k == 0) return;
      if (!ta && !tb) add_product<T, false, false>(g, sample);
      if (!ta && tb) add_product<T, false, true>(g, sample);
      if (ta && !tb) add_product<T, true, false>(g, sample);
      if (ta && tb) add_product<T, true, true>(g, sample);
    });
  });
}

}  // namespace pc::kernels

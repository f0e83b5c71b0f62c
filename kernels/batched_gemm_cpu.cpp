// gemm's product, sample by sample: a sample has one thread, whatever their number.
#include "kernels/batched_gemm.h"
#include "kernels/gemm.h"
#include "kernels/loops.h"

namespace pc::kernels {
namespace {

/// A packed matrix [rows, cols], or with `trans` [cols, rows], which lies in one row of a view.
View matrix(const View& of, std::int64_t sample, std::int64_t rows, std::int64_t cols, Trans trans = Trans::no) {
  return {.data = static_cast<std::byte*>(of.data) + static_cast<std::size_t>(sample * of.ld()) * size_of(of.dtype),
          .shape = trans == Trans::yes ? Shape{cols, rows} : Shape{rows, cols},
          .dtype = of.dtype};
}

}  // namespace

void batched_gemm_cpu(const BatchedGemmArgs& g, Share share) {
  each_row(share, g.c.rows(), [&](std::int64_t sample) {
    gemm_cpu({.a = matrix(g.a, sample, g.m, g.k, g.trans_a),
              .b = matrix(g.b, sample, g.k, g.n, g.trans_b),
              .c = matrix(g.c, sample, g.m, g.n),
              .trans_a = g.trans_a,
              .trans_b = g.trans_b,
              .alpha = g.alpha,
              .beta = g.beta},
             Share{});
  });
}

}  // namespace pc::kernels

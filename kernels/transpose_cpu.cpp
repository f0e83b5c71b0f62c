#include "kernels/transpose.h"

#include "kernels/loops.h"

namespace pc::kernels {

void transpose_each_cpu(const TransposeEachArgs& t, Share share) {
  with_float(t.y.dtype, [&]<class T>(T) {
    each_row(share, t.x.rows(), [&](std::int64_t row) {
      const T* x = t.x.row<T>(row);
      T* y = t.y.row<T>(row);
      for (std::int64_t j = 0; j < t.n; ++j) {
        for (std::int64_t i = 0; i < t.m; ++i, ++y) *y = (t.write == Write::add ? *y : T(0)) + x[i * t.n + j];
      }
    });
  });
}

}  // namespace pc::kernels

#include "kernels/precision.h"

namespace pc::kernels {

void learn_precision_cpu(const LearnPrecisionArgs& a, Share share) {
  with_float(a.delta.dtype, [&]<class T>(T) {
    const auto [begin, end] = share.of(a.delta.cols());
    T* p = a.precisions.as<T>();
    for (std::int64_t col = begin; col < end; ++col) {
      double square = 0;
      for (std::int64_t row = 0; row < a.delta.rows(); ++row) {
        const double d = double(a.delta.row<T>(row)[col]);
        square += d * d;
      }
      p[col] = T(next_precision(double(p[col]), square / double(a.delta.rows()), a.rate, a.least));
    }
  });
}

}  // namespace pc::kernels

// learn_precision: one step of the precisions of a prediction's entries towards the inverse mean squares of its errors.
#pragma once

#include "kernels/kernel.h"
#include "kernels/scalar_math.h"
#include "kernels/write.h"

namespace pc::kernels {

/// With the variance s = 1 / p of each column:  s <- (1 - rate) s + rate mean over rows of e^2, at least `least`, where
/// e = delta / p is the error that delta was made from. It is the natural form of gradient descent on
/// 1/2 (p e^2 - log p), whose minimum is the inverse mean square.
struct LearnPrecisionArgs {
  View delta, precisions;
  double rate = 0.1, least = 1e-6;

  void check() const {
    PC_CHECK(precisions.count() == delta.cols() && precisions.dtype == delta.dtype, "learn_precision", "precisions ",
             precisions.shape.text(), " must be one per column of ", delta.shape.text());
    PC_CHECK(rate > 0 && rate <= 1 && least > 0, "learn_precision", "rate ", rate, " and least ", least,
             " must be above 0, rate at most 1");
    with_float(delta.dtype, [](auto) {});
  }
  void touches(Touches& t) const { t.read_all(delta).write(precisions); }
  [[nodiscard]] double flops() const { return 2.0 * static_cast<double>(delta.count()); }
};

/// The precision that follows p, given the mean square of delta.
PC_HD double next_precision(double p, double mean_square, double rate, double least) {
  const double variance = (1 - rate) / p + rate * mean_square / (p * p);
  return 1 / (variance < least ? least : variance);  // NaN stays
}

void learn_precision_cpu(const LearnPrecisionArgs&, Share);
void learn_precision_cuda(const LearnPrecisionArgs&, CudaContext&);

inline constexpr Kernel<LearnPrecisionArgs> learn_precision{"learn_precision", learn_precision_cpu,
                                                            PC_CUDA(learn_precision_cuda)};

}  // namespace pc::kernels

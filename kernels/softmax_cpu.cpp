#include "kernels/softmax.h"

#include <cmath>

#include "kernels/loops.h"

namespace pc::kernels {
namespace {

/// Largest entry and sum of e^(x - largest).
template <class T>
std::pair<T, T> top_and_total(const T* x, std::int64_t n) {
  T top = x[0], total = 0;
  for (std::int64_t i = 1; i < n; ++i) top = std::max(top, x[i]);
  for (std::int64_t i = 0; i < n; ++i) total += std::exp(x[i] - top);
  return {top, total};
}

}  // namespace

void softmax_cpu(const SoftmaxArgs& s, Share share) {
  with_float(s.x.dtype, [&]<class T>(T) {
    each_row(share, s.x.rows(), [&](std::int64_t row) {
      const T* x = s.x.row<T>(row);
      T* y = s.y.row<T>(row);
      const auto [top, total] = top_and_total(x, s.x.cols());
      for (std::int64_t i = 0; i < s.x.cols(); ++i) {
        y[i] = (s.write == Write::add ? y[i] : T(0)) + std::exp(x[i] - top) / total;
      }
    });
  });
}

void softmax_pullback_cpu(const SoftmaxPullbackArgs& s, Share share) {
  with_float(s.x.dtype, [&]<class T>(T) {
    each_row(share, s.x.rows(), [&](std::int64_t row) {
      const T *x = s.x.row<T>(row), *dy = s.dy.row<T>(row);
      T* dx = s.dx.row<T>(row);
      const std::int64_t n = s.x.cols();
      const auto [top, total] = top_and_total(x, n);
      T inner = 0;
      for (std::int64_t i = 0; i < n; ++i) inner += std::exp(x[i] - top) / total * dy[i];
      for (std::int64_t i = 0; i < n; ++i) {
        dx[i] = (s.write == Write::add ? dx[i] : T(0)) + std::exp(x[i] - top) / total * (dy[i] - inner);
      }
    });
  });
}

}  // namespace pc::kernels

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
    const std::int64_t width = s.runs.width_in(s.x);
    const bool add = s.write == Write::add;
    each_row(share, s.x.rows(), [&](std::int64_t row) {
      for (std::int64_t run = 0; run * width < s.x.cols(); ++run) {
        const T* x = s.x.row<T>(row) + run * width;
        T* y = s.y.row<T>(row) + run * width;
        const std::int64_t n = s.runs.seen(run, width);
        const auto [top, total] = top_and_total(x, n);
        for (std::int64_t i = 0; i < n; ++i) y[i] = (add ? y[i] : T(0)) + std::exp(x[i] - top) / total;
        for (std::int64_t i = n; i < width && !add; ++i) y[i] = T(0);
      }
    });
  });
}

void softmax_pullback_cpu(const SoftmaxPullbackArgs& s, Share share) {
  with_float(s.x.dtype, [&]<class T>(T) {
    const std::int64_t width = s.runs.width_in(s.x);
    const bool add = s.write == Write::add;
    each_row(share, s.x.rows(), [&](std::int64_t row) {
      for (std::int64_t run = 0; run * width < s.x.cols(); ++run) {
        const T *x = s.x.row<T>(row) + run * width, *dy = s.dy.row<T>(row) + run * width;
        T* dx = s.dx.row<T>(row) + run * width;
        const std::int64_t n = s.runs.seen(run, width);
        const auto [top, total] = top_and_total(x, n);
        T inner = 0;
        for (std::int64_t i = 0; i < n; ++i) inner += std::exp(x[i] - top) / total * dy[i];
        for (std::int64_t i = 0; i < n; ++i) {
          dx[i] = (add ? dx[i] : T(0)) + std::exp(x[i] - top) / total * (dy[i] - inner);
        }
        for (std::int64_t i = n; i < width && !add; ++i) dx[i] = T(0);
      }
    });
  });
}

}  // namespace pc::kernels

#include "kernels/softmax.h"

#include <cmath>

#include "kernels/launch.cuh"
#include "kernels/scalar_math.h"

namespace pc::kernels {
namespace {

using cu::matrix, cu::Team;

template <class T>
struct TopTotal {
  T top, total;
};

/// Largest of the first n entries and sum of e^(x - largest).
template <class T>
__device__ TopTotal<T> top_and_total(const T* x, std::int64_t n, Team team) {
  T top = x[0];
  for (std::int64_t i = team.rank(); i < n; i += team.size()) top = scalar::max(top, x[i]);
  top = team.reduce(top, [](T a, T b) { return scalar::max(a, b); });
  double total = 0;
  for (std::int64_t i = team.rank(); i < n; i += team.size()) total += std::exp(x[i] - top);
  return {top, T(team.reduce(total, cu::Sum{}))};
}

template <class T>
void softmax_typed(const SoftmaxArgs& s, CudaContext& context) {
  const auto from = matrix<T>(s.x), to = matrix<T>(s.y);
  if (s.x.count() == 0) return;
  const std::int64_t width = s.runs.width_in(s.x), runs = s.x.cols() / width;
  const bool add = s.write == Write::add;
  const SoftmaxRuns of = s.runs;
  cu::each_short_row(s.x.rows() * runs, width, context.stream, [=] __device__(std::int64_t number, Team team) {
    const std::int64_t row = number / runs, run = number % runs, n = of.seen(run, width);
    const T* x = &from(row, run * width);
    T* y = &to(row, run * width);
    const TopTotal<T> at = top_and_total(x, n, team);
    for (std::int64_t i = team.rank(); i < width; i += team.size()) {
      cu::store(y[i], i < n ? std::exp(x[i] - at.top) / at.total : T(0), add);
    }
  });
}

template <class T>
void softmax_pullback_typed(const SoftmaxPullbackArgs& s, CudaContext& context) {
  const auto from = matrix<T>(s.x), slope = matrix<T>(s.dy), to = matrix<T>(s.dx);
  if (s.x.count() == 0) return;
  const std::int64_t width = s.runs.width_in(s.x), runs = s.x.cols() / width;
  const bool add = s.write == Write::add;
  const SoftmaxRuns of = s.runs;
  cu::each_short_row(s.x.rows() * runs, width, context.stream, [=] __device__(std::int64_t number, Team team) {
    const std::int64_t row = number / runs, run = number % runs, n = of.seen(run, width);
    const T *x = &from(row, run * width), *dy = &slope(row, run * width);
    T* dx = &to(row, run * width);
    const TopTotal<T> at = top_and_total(x, n, team);
    double part = 0;
    for (std::int64_t i = team.rank(); i < n; i += team.size()) part += std::exp(x[i] - at.top) / at.total * dy[i];
    const T inner = T(team.reduce(part, cu::Sum{}));
    for (std::int64_t i = team.rank(); i < width; i += team.size()) {
      cu::store(dx[i], i < n ? std::exp(x[i] - at.top) / at.total * (dy[i] - inner) : T(0), add);
    }
  });
}

}  // namespace

void softmax_cuda(const SoftmaxArgs& s, CudaContext& context) {
  with_float(s.x.dtype, [&]<class T>(T) { softmax_typed<T>(s, context); });
}
void softmax_pullback_cuda(const SoftmaxPullbackArgs& s, CudaContext& context) {
  with_float(s.x.dtype, [&]<class T>(T) { softmax_pullback_typed<T>(s, context); });
}

}  // namespace pc::kernels

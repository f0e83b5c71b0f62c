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

/// Largest entry of a row and sum of e^(x - largest).
template <class T>
__device__ TopTotal<T> top_and_total(cu::Matrix<T> x, std::int64_t row, std::int64_t n, Team team) {
  T top = x(row, 0);
  for (std::int64_t i = team.rank(); i < n; i += team.size()) top = scalar::max(top, x(row, i));
  top = team.reduce(top, [](T a, T b) { return scalar::max(a, b); });
  double total = 0;
  for (std::int64_t i = team.rank(); i < n; i += team.size()) total += std::exp(x(row, i) - top);
  return {top, T(team.reduce(total, cu::Sum{}))};
}

template <class T>
void softmax_typed(const SoftmaxArgs& s, CudaContext& context) {
  const auto x = matrix<T>(s.x), y = matrix<T>(s.y);
  const std::int64_t n = s.x.cols();
  const bool add = s.write == Write::add;
  cu::each_row(s.x.rows(), n, context.stream, [=] __device__(std::int64_t row, Team team) {
    const TopTotal<T> of = top_and_total(x, row, n, team);
    for (std::int64_t i = team.rank(); i < n; i += team.size()) {
      cu::store(y(row, i), std::exp(x(row, i) - of.top) / of.total, add);
    }
  });
}

template <class T>
void softmax_pullback_typed(const SoftmaxPullbackArgs& s, CudaContext& context) {
  const auto x = matrix<T>(s.x), dy = matrix<T>(s.dy), dx = matrix<T>(s.dx);
  const std::int64_t n = s.x.cols();
  const bool add = s.write == Write::add;
  cu::each_row(s.x.rows(), n, context.stream, [=] __device__(std::int64_t row, Team team) {
    const TopTotal<T> of = top_and_total(x, row, n, team);
    double part = 0;
    for (std::int64_t i = team.rank(); i < n; i += team.size()) {
      part += std::exp(x(row, i) - of.top) / of.total * dy(row, i);
    }
    const T inner = T(team.reduce(part, cu::Sum{}));
    for (std::int64_t i = team.rank(); i < n; i += team.size()) {
      cu::store(dx(row, i), std::exp(x(row, i) - of.top) / of.total * (dy(row, i) - inner), add);
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

#include <cmath>

#include "kernels/energy.h"
#include "kernels/launch.cuh"

namespace pc::kernels {
namespace {

using cu::fold_rows, cu::matrix, cu::Team;

/// Precision of a column, in the order of the CPU's products.
template <class T>
__device__ T column_precision(T scale, const T* precisions, std::int64_t col) {
  return precisions == nullptr ? scale : scale * precisions[col];
}

template <class T>
void gaussian_error_typed(const ErrorArgs& e, CudaContext& context) {
  const auto x = matrix<T>(e.x), mu = matrix<T>(e.mu), delta = matrix<T>(e.delta), own = matrix<T>(e.own);
  const T scale = T(e.precision);
  const T* precisions = e.precisions.as<T>();
  fold_rows(e.x.rows(), e.x.cols(), context.stream, e.energy.as<double>(), cu::Sum{.scale = 0.5},
            [=] __device__(std::int64_t row, std::int64_t col) -> double {
              const T error = x(row, col) - mu(row, col), d = column_precision(scale, precisions, col) * error;
              delta(row, col) = d;
              if (own) own(row, col) = d;
              return d * error;
            });
}

template <class T>
void bernoulli_error_typed(const ErrorArgs& e, CudaContext& context) {
  const auto x = matrix<T>(e.x), mu = matrix<T>(e.mu), delta = matrix<T>(e.delta), own = matrix<T>(e.own);
  const T p = T(e.precision);
  const bool wants_energy = !e.energy.empty();
  fold_rows(e.x.rows(), e.x.cols(), context.stream, e.energy.as<double>(), cu::Sum{.scale = e.precision},
            [=] __device__(std::int64_t row, std::int64_t col) -> double {
              const T value = x(row, col), logit = mu(row, col);
              delta(row, col) = p * (value - scalar::sigmoid(logit));
              if (own) own(row, col) = -p * logit;
              return wants_energy ? scalar::softplus(logit) - value * logit : T(0);
            });
}

/// The whole row of softmax_error; its sums come before its entries.
template <class T>
void softmax_error_typed(const ErrorArgs& e, CudaContext& context) {
  const auto x = matrix<T>(e.x), mu = matrix<T>(e.mu), delta = matrix<T>(e.delta), own = matrix<T>(e.own);
  const T p = T(e.precision);
  const std::int64_t n = e.x.cols();
  double* energy = e.energy.as<double>();
  const cu::Sum sum{.scale = e.precision};
  cu::each_row(e.x.rows(), n, context.stream, [=] __device__(std::int64_t row, Team team) {
    T top = mu(row, 0);
    for (std::int64_t i = team.rank(); i < n; i += team.size()) top = scalar::max(top, mu(row, i));
    top = team.reduce(top, [](T a, T b) { return scalar::max(a, b); });
    double total = 0, mass = 0;
    for (std::int64_t i = team.rank(); i < n; i += team.size()) {
      total += std::exp(mu(row, i) - top);
      mass += x(row, i);
    }
    total = team.reduce(total, sum);
    mass = team.reduce(mass, sum);
    const T log_sum = top + std::log(T(total));
    double terms = 0;
    for (std::int64_t i = team.rank(); i < n; i += team.size()) {
      const T value = x(row, i), logit = mu(row, i);
      delta(row, i) = p * (value - T(mass) * (std::exp(logit - top) / T(total)));
      if (own) own(row, i) = p * (log_sum - logit);
      terms += value * (log_sum - logit);
    }
    if (energy == nullptr) return;
    terms = team.reduce(terms, sum);
    if (team.rank() == 0) sum.store(energy + row, terms);
  });
}

template <class T, Activation f>
void map_error_typed(const MapErrorArgs& e, CudaContext& context) {
  const auto x = matrix<T>(e.x), z = matrix<T>(e.z), delta = matrix<T>(e.delta), dz = matrix<T>(e.dz);
  const T scale = T(e.precision), leak = T(e.leak);
  const T* precisions = e.precisions.as<T>();
  fold_rows(e.x.rows(), e.x.cols(), context.stream, e.energy.as<double>(), cu::Sum{.scale = 0.5},
            [=] __device__(std::int64_t row, std::int64_t col) -> double {
              const scalar::ValueSlope<T> at = scalar::activate<f>(z(row, col), leak);
              const T error = x(row, col) - at.value, d = column_precision(scale, precisions, col) * error;
              delta(row, col) = d;
              dz(row, col) = at.slope * d;
              return d * error;
            });
}

}  // namespace

void gaussian_error_cuda(const ErrorArgs& e, CudaContext& context) {
  with_float(e.x.dtype, [&]<class T>(T) { gaussian_error_typed<T>(e, context); });
}
void softmax_error_cuda(const ErrorArgs& e, CudaContext& context) {
  with_float(e.x.dtype, [&]<class T>(T) { softmax_error_typed<T>(e, context); });
}
void bernoulli_error_cuda(const ErrorArgs& e, CudaContext& context) {
  with_float(e.x.dtype, [&]<class T>(T) { bernoulli_error_typed<T>(e, context); });
}
void map_error_cuda(const MapErrorArgs& e, CudaContext& context) {
  with_float(e.x.dtype, [&]<class T>(T) {
    scalar::with_activation(e.f, [&]<Activation f>() { map_error_typed<T, f>(e, context); });
  });
}

}  // namespace pc::kernels

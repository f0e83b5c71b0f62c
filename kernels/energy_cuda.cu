#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/energy.h"
#include "kernels/launch.cuh"
#include "kernels/narrow.cuh"
#include "kernels/one_row.h"

namespace pc::kernels {
namespace {

using cu::At, cu::fold_rows, cu::kWarp, cu::matrix, cu::Pack, cu::Team;

/// Precision of a column, in the order of the CPU's products.
template <class T>
__device__ T column_precision(T scale, const T* precisions, std::int64_t col) {
  return precisions == nullptr ? scale : scale * precisions[col];
}

template <class T>
struct GaussianError {
  static constexpr int kEntries = cu::kPack<T>;
  cu::Matrix<T> x, mu, base, delta, own;
  cu::Narrow narrow;
  const T* precisions;
  T scale;

  explicit GaussianError(const ErrorArgs& e)
      : x(matrix<T>(e.x)),
        mu(matrix<T>(e.mu)),
        base(matrix<T>(e.base)),
        delta(matrix<T>(e.delta)),
        own(matrix<T>(e.own)),
        narrow(e.narrow),
        precisions(e.precisions.as<T>()),
        scale(T(e.precision)) {}
  GaussianError() = default;
  template <int n>
  [[nodiscard]] bool packs() const {
    return x.template packs<n>() && mu.template packs<n>() && base.template packs<n>() && delta.template packs<n>() &&
           own.template packs<n>() && narrow.packs<n>();
  }
  /// Twice the entries' energy.
  template <int n>
  __device__ double operator()(At<n> at) const {
    Pack<T, n> d = x(at);
    const Pack<T, n> rest = base.or_zero(at), predicted = mu(at);
    double energy = 0;
    for (int i = 0; i < n; ++i) {
      const T error = d[i] - (rest[i] + predicted[i]);
      d[i] = column_precision(scale, precisions, at.col + i) * error;
      energy += d[i] * error;
    }
    delta(at) = d;
    if (own) own(at) = d;
    narrow(at, d);
    return energy;
  }
};

/// A sum for each row, with parts of long rows first: a block for each row would leave most of a GPU idle.
template <class Term>
void sum_rows_in_parts(std::int64_t rows, std::int64_t cols, CudaContext& context, double* out, cu::Sum sum,
                       Term term) {
  constexpr std::int64_t kPart = 16384;
  const std::int64_t parts = std::min(cols / kPart, CudaContext::kPartials / std::max<std::int64_t>(1, rows));
  if (parts < 2) return fold_rows(rows, cols, context.stream, out, sum, cu::NoScalars{}, cu::IgnoreScalars<Term>{term});
  double* const partials = context.partials();
  const std::int64_t length = (cols + parts - 1) / parts;
  fold_rows(rows * parts, length, context.stream, partials, cu::Sum{},
            [=] __device__(std::int64_t part, std::int64_t within) -> double {
              const std::int64_t col = part % parts * length + within;
              return col < cols ? term(At<1>{part / parts, col}) : 0.0;
            });
  fold_rows(rows, parts, context.stream, out, sum,
            [=] __device__(std::int64_t row, std::int64_t part) -> double { return partials[row * parts + part]; });
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

template <class T>
void laplace_error_typed(const ErrorArgs& e, CudaContext& context) {
  const auto x = matrix<T>(e.x), mu = matrix<T>(e.mu), delta = matrix<T>(e.delta), own = matrix<T>(e.own);
  const T scale = T(e.precision);
  const T* precisions = e.precisions.as<T>();
  fold_rows(e.x.rows(), e.x.cols(), context.stream, e.energy.as<double>(), cu::Sum{},
            [=] __device__(std::int64_t row, std::int64_t col) -> double {
              const T error = x(row, col) - mu(row, col);
              const T d = column_precision(scale, precisions, col) * scalar::sign(error);
              delta(row, col) = d;
              if (own) own(row, col) = d;
              return d * error;
            });
}

/// energy[row] = scale * the sum over runs of body(group, row, begin of the run), which every thread of the group
/// returns: the whole team does the only run of a row, or its warps share them out.
template <class Body>
void each_run(const ErrorArgs& e, CudaContext& context, Body body) {
  const std::int64_t n = e.classes(), cols = e.x.cols();
  double* energy = e.energy.as<double>();
  const cu::Sum sum{.scale = e.precision};
  cu::each_row(e.x.rows(), cols, context.stream, [=] __device__(std::int64_t row, Team team) {
    double total = 0;
    if (n == cols) {
      total = body(team, row, std::int64_t{0});
    } else {
      const Team warp(kWarp);
      for (std::int64_t run = team.rank() / kWarp; run * n < cols; run += team.size() / kWarp) {
        const double terms = body(warp, row, run * n);
        if (warp.rank() == 0) total += terms;
      }
      total = team.reduce(total, sum);
    }
    if (energy != nullptr && team.rank() == 0) sum.store(energy + row, total);
  });
}

template <class T>
__device__ T largest_of(const T* x, std::int64_t n, Team group) {
  T top = x[0];
  for (std::int64_t i = group.rank(); i < n; i += group.size()) top = scalar::max(top, x[i]);
  return group.reduce(top, [](T a, T b) { return scalar::max(a, b); });
}

template <class T>
struct SoftmaxRun {
  cu::Matrix<T> x, mu, delta, own;
  T p;
  std::int64_t n;

  __device__ double operator()(Team group, std::int64_t row, std::int64_t begin) const {
    const cu::Sum sum{};
    const T *value = &x(row, begin), *logit = &mu(row, begin);
    const T top = largest_of(logit, n, group);
    double total = 0, mass = 0;
    for (std::int64_t i = group.rank(); i < n; i += group.size()) {
      total += std::exp(logit[i] - top);
      mass += value[i];
    }
    total = group.reduce(total, sum);
    mass = group.reduce(mass, sum);
    const T log_sum = top + std::log(T(total));
    double terms = 0;
    for (std::int64_t i = group.rank(); i < n; i += group.size()) {
      delta(row, begin + i) = p * (value[i] - T(mass) * (std::exp(logit[i] - top) / T(total)));
      if (own) own(row, begin + i) = p * (log_sum - logit[i]);
      terms += value[i] * (log_sum - logit[i]);
    }
    return group.reduce(terms, sum);
  }
};

template <class T>
void softmax_error_typed(const ErrorArgs& e, CudaContext& context) {
  each_run(e, context,
           SoftmaxRun<T>{matrix<T>(e.x), matrix<T>(e.mu), matrix<T>(e.delta), matrix<T>(e.own), T(e.precision),
                         e.classes()});
}

template <class T>
struct CategoricalRun {
  cu::Matrix<T> x, mu, delta, own;
  T p;
  std::int64_t n;

  __device__ T log_sum_exp(const T* of, Team group) const {
    const T top = largest_of(of, n, group);
    double total = 0;
    for (std::int64_t i = group.rank(); i < n; i += group.size()) total += std::exp(of[i] - top);
    return top + std::log(T(group.reduce(total, cu::Sum{})));
  }

  __device__ double operator()(Team group, std::int64_t row, std::int64_t begin) const {
    const T *value = &x(row, begin), *logit = &mu(row, begin);
    const T log_x = log_sum_exp(value, group), log_mu = log_sum_exp(logit, group);
    double terms = 0;
    for (std::int64_t i = group.rank(); i < n; i += group.size()) {
      terms += std::exp(value[i] - log_x) * ((value[i] - log_x) - (logit[i] - log_mu));
    }
    const double divergence = group.reduce(terms, cu::Sum{});
    for (std::int64_t i = group.rank(); i < n; i += group.size()) {
      const T of_x = std::exp(value[i] - log_x), ratio = (value[i] - log_x) - (logit[i] - log_mu);
      delta(row, begin + i) = p * (of_x - std::exp(logit[i] - log_mu));
      if (own) own(row, begin + i) = p * of_x * (ratio - T(divergence));
    }
    return divergence;
  }
};

template <class T>
void categorical_error_typed(const ErrorArgs& e, CudaContext& context) {
  each_run(e, context,
           CategoricalRun<T>{matrix<T>(e.x), matrix<T>(e.mu), matrix<T>(e.delta), matrix<T>(e.own), T(e.precision),
                             e.classes()});
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
  if (e.energy.empty()) return gaussian_error_cuda_together(std::array{&e}, context);
  with_float(e.x.dtype, [&]<class T>(T) {
    sum_rows_in_parts(e.x.rows(), e.x.cols(), context, e.energy.as<double>(), cu::Sum{.scale = 0.5},
                      GaussianError<T>(e));
  });
}
void gaussian_error_cuda_together(std::span<const ErrorArgs* const> calls, CudaContext& context) {
  with_float(calls[0]->x.dtype, [&]<class T>(T) {
    const auto join = [](ErrorArgs& e) {
      if (e.precisions.empty() && e.narrow.y.empty()) join_rows(e.x, e.mu, e.delta, e.own, e.base);
    };
    with_changed(calls, join, [&](std::span<const ErrorArgs* const> all) {
      cu::each_entry_of<GaussianError<T>>(all, context.stream, [](const ErrorArgs& e) -> const View& { return e.x; });
    });
  });
}
void softmax_error_cuda(const ErrorArgs& e, CudaContext& context) {
  with_float(e.x.dtype, [&]<class T>(T) { softmax_error_typed<T>(e, context); });
}
void laplace_error_cuda(const ErrorArgs& e, CudaContext& context) {
  with_float(e.x.dtype, [&]<class T>(T) { laplace_error_typed<T>(e, context); });
}
void categorical_error_cuda(const ErrorArgs& e, CudaContext& context) {
  with_float(e.x.dtype, [&]<class T>(T) { categorical_error_typed<T>(e, context); });
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

#include "kernels/energy.h"
#include "kernels/loops.h"

namespace pc::kernels {
namespace {

/// Sum of term(i) in float64 over eight fixed lanes: vectorises, and its order does not depend on anything.
template <class Term>
double lane_sum(std::int64_t n, Term&& term) {
  constexpr int kLanes = 8;
  double lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += double(term(i + lane));
  }
  for (int lane = 0; i < n; ++i, ++lane) lanes[lane] += double(term(i));
  return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
}

template <class T>
T largest(const T* x, std::int64_t n) {
  T top = x[0];
  for (std::int64_t i = 1; i < n; ++i) top = std::max(top, x[i]);
  return top;
}

}  // namespace

void gaussian_error_cpu(const ErrorArgs& e, Share share) {
  with_float(e.x.dtype, [&]<class T>(T) {
    const T scale = T(e.precision);
    const T* precisions = e.precisions.as<T>();
    const std::int64_t n = e.x.cols();
    each_row(share, e.x.rows(), [&](std::int64_t row) {
      const T *x = e.x.row<T>(row), *mu = e.mu.row<T>(row);
      T* delta = e.delta.row<T>(row);
      if (precisions == nullptr) {
        each_entry(n, [=](std::int64_t i) { delta[i] = scale * (x[i] - mu[i]); });
      } else {
        each_entry(n, [=](std::int64_t i) { delta[i] = scale * precisions[i] * (x[i] - mu[i]); });
      }
      if (!e.own.empty()) {
        T* own = e.own.row<T>(row);
        each_entry(n, [=](std::int64_t i) { own[i] = delta[i]; });
      }
      if (!e.energy.empty()) {
        e.energy.as<double>()[row] = 0.5 * lane_sum(n, [=](std::int64_t i) { return delta[i] * (x[i] - mu[i]); });
      }
    });
  });
}

void softmax_error_cpu(const ErrorArgs& e, Share share) {
  with_float(e.x.dtype, [&]<class T>(T) {
    const std::int64_t n = e.x.cols();
    const T p = T(e.precision);
    each_row(share, e.x.rows(), [&](std::int64_t row) {
      const T *x = e.x.row<T>(row), *mu = e.mu.row<T>(row);
      T* delta = e.delta.row<T>(row);
      const T top = largest(mu, n);
      T total = 0, mass = 0;
      for (std::int64_t i = 0; i < n; ++i) {
        delta[i] = std::exp(mu[i] - top);
        total += delta[i];
        mass += x[i];
      }
      const T log_sum = top + std::log(total);
      for (std::int64_t i = 0; i < n; ++i) delta[i] = p * (x[i] - mass * (delta[i] / total));
      if (!e.own.empty()) {
        for (std::int64_t i = 0; i < n; ++i) e.own.row<T>(row)[i] = p * (log_sum - mu[i]);
      }
      if (!e.energy.empty()) {
        e.energy.as<double>()[row] =
            e.precision * lane_sum(n, [=](std::int64_t i) { return x[i] * (log_sum - mu[i]); });
      }
    });
  });
}

void bernoulli_error_cpu(const ErrorArgs& e, Share share) {
  with_float(e.x.dtype, [&]<class T>(T) {
    const std::int64_t n = e.x.cols();
    const T p = T(e.precision);
    each_row(share, e.x.rows(), [&](std::int64_t row) {
      const T *x = e.x.row<T>(row), *mu = e.mu.row<T>(row);
      T* delta = e.delta.row<T>(row);
      each_entry(n, [=](std::int64_t i) { delta[i] = p * (x[i] - scalar::sigmoid(mu[i])); });
      if (!e.own.empty()) {
        T* own = e.own.row<T>(row);
        each_entry(n, [=](std::int64_t i) { own[i] = -p * mu[i]; });
      }
      if (!e.energy.empty()) {
        e.energy.as<double>()[row] =
            e.precision * lane_sum(n, [=](std::int64_t i) { return scalar::softplus(mu[i]) - x[i] * mu[i]; });
      }
    });
  });
}

void map_error_cpu(const MapErrorArgs& e, Share share) {
  with_float(e.x.dtype, [&]<class T>(T) {
    scalar::with_activation(e.f, [&]<Activation f>() {
      const T scale = T(e.precision), leak = T(e.leak);
      const T* precisions = e.precisions.as<T>();
      const std::int64_t n = e.x.cols();
      each_row(share, e.x.rows(), [&](std::int64_t row) {
        const T *x = e.x.row<T>(row), *z = e.z.row<T>(row);
        T *delta = e.delta.row<T>(row), *dz = e.dz.row<T>(row);
        if (precisions == nullptr) {
          each_entry(n, [=](std::int64_t i) {
            const auto [value, slope] = scalar::activate<f>(z[i], leak);
            const T d = scale * (x[i] - value);
            delta[i] = d;
            dz[i] = slope * d;
          });
        } else {
          each_entry(n, [=](std::int64_t i) {
            const auto [value, slope] = scalar::activate<f>(z[i], leak);
            const T d = scale * precisions[i] * (x[i] - value);
            delta[i] = d;
            dz[i] = slope * d;
          });
        }
        if (!e.energy.empty()) {
          e.energy.as<double>()[row] = 0.5 * lane_sum(n, [=](std::int64_t i) {
                                         return delta[i] * (x[i] - scalar::activate<f>(z[i], leak).value);
                                       });
        }
      });
    });
  });
}

}  // namespace pc::kernels

#include "kernels/energy.h"

#include <cmath>

#include "kernels/loops.h"

namespace pc::kernels {
namespace {

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
      const auto with_error = [&](auto error) {
        if (precisions == nullptr) {
          each_entry(n, [=](std::int64_t i) { delta[i] = scale * error(i); });
        } else {
          each_entry(n, [=](std::int64_t i) { delta[i] = scale * precisions[i] * error(i); });
        }
        if (!e.energy.empty()) {
          e.energy.as<double>()[row] = 0.5 * lane_sum(n, [=](std::int64_t i) { return delta[i] * error(i); });
        }
      };
      if (e.base.empty()) {
        with_error([=](std::int64_t i) { return x[i] - mu[i]; });
      } else {
        with_error([=, base = e.base.row<T>(row)](std::int64_t i) { return x[i] - (base[i] + mu[i]); });
      }
      if (!e.own.empty()) {
        T* own = e.own.row<T>(row);
        each_entry(n, [=](std::int64_t i) { own[i] = delta[i]; });
      }
      narrow_row(e.narrow, row, delta);
    });
  });
}

void laplace_error_cpu(const ErrorArgs& e, Share share) {
  with_float(e.x.dtype, [&]<class T>(T) {
    const T scale = T(e.precision);
    const T* precisions = e.precisions.as<T>();
    const std::int64_t n = e.x.cols();
    each_row(share, e.x.rows(), [&](std::int64_t row) {
      const T *x = e.x.row<T>(row), *mu = e.mu.row<T>(row);
      T* delta = e.delta.row<T>(row);
      for (std::int64_t i = 0; i < n; ++i) {
        delta[i] = scale * (precisions == nullptr ? T(1) : precisions[i]) * scalar::sign(x[i] - mu[i]);
      }
      if (!e.own.empty()) {
        T* own = e.own.row<T>(row);
        each_entry(n, [=](std::int64_t i) { own[i] = delta[i]; });
      }
      if (!e.energy.empty()) {
        e.energy.as<double>()[row] = lane_sum(n, [=](std::int64_t i) { return delta[i] * (x[i] - mu[i]); });
      }
    });
  });
}

namespace {

/// The logarithm of the sum of e^x.
template <class T>
T log_sum_exp(const T* x, std::int64_t n) {
  const T top = largest(x, n);
  T total = 0;
  for (std::int64_t i = 0; i < n; ++i) total += std::exp(x[i] - top);
  return top + std::log(total);
}

}  // namespace

void categorical_error_cpu(const ErrorArgs& e, Share share) {
  with_float(e.x.dtype, [&]<class T>(T) {
    const std::int64_t n = e.classes();
    const T p = T(e.precision);
    each_row(share, e.x.rows(), [&](std::int64_t row) {
      double energy = 0;
      for (std::int64_t begin = 0; begin < e.x.cols(); begin += n) {
        const T *x = e.x.row<T>(row) + begin, *mu = e.mu.row<T>(row) + begin;
        T* delta = e.delta.row<T>(row) + begin;
        const T log_x = log_sum_exp(x, n), log_mu = log_sum_exp(mu, n);
        const auto ratio = [=](std::int64_t i) { return (x[i] - log_x) - (mu[i] - log_mu); };
        const double divergence = lane_sum(n, [=](std::int64_t i) { return std::exp(x[i] - log_x) * ratio(i); });
        energy += divergence;
        for (std::int64_t i = 0; i < n; ++i) delta[i] = p * (std::exp(x[i] - log_x) - std::exp(mu[i] - log_mu));
        if (e.own.empty()) continue;
        T* own = e.own.row<T>(row) + begin;
        for (std::int64_t i = 0; i < n; ++i) own[i] = p * std::exp(x[i] - log_x) * (ratio(i) - T(divergence));
      }
      if (!e.energy.empty()) e.energy.as<double>()[row] = e.precision * energy;
    });
  });
}

void softmax_error_cpu(const ErrorArgs& e, Share share) {
  with_float(e.x.dtype, [&]<class T>(T) {
    const std::int64_t n = e.classes();
    const T p = T(e.precision);
    each_row(share, e.x.rows(), [&](std::int64_t row) {
      double energy = 0;
      for (std::int64_t begin = 0; begin < e.x.cols(); begin += n) {
        const T *x = e.x.row<T>(row) + begin, *mu = e.mu.row<T>(row) + begin;
        T* delta = e.delta.row<T>(row) + begin;
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
          for (std::int64_t i = 0; i < n; ++i) e.own.row<T>(row)[begin + i] = p * (log_sum - mu[i]);
        }
        if (!e.energy.empty()) energy += lane_sum(n, [=](std::int64_t i) { return x[i] * (log_sum - mu[i]); });
      }
      if (!e.energy.empty()) e.energy.as<double>()[row] = e.precision * energy;
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

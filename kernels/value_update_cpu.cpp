#include "kernels/value_update.h"

#include <cmath>
#include <type_traits>
#include <vector>

#include "kernels/loops.h"

namespace pc::kernels {
namespace {

template <class T>
T* row_or_null(const View& v, std::int64_t row) {
  return v.empty() ? nullptr : v.row<T>(v.rows() == 1 ? 0 : row);
}

/// body(i, g) for every free entry of a row, then what else is wanted of it. `room` is for what was rounded.
template <class T, class Body>
void each_gradient(const ValueGradient& v, std::int64_t row, std::vector<T>& room, Body&& body) {
  const T *own = row_or_null<T>(v.own, row), *back = unrounded_row(v.back, row, room);
  const T* free = row_or_null<T>(v.free, row);
  const std::int64_t n = v.x.cols();
  const auto gradient = [=](std::int64_t i) { return (own ? own[i] : T(0)) - (back ? back[i] : T(0)); };
  // One loop for each case, so that the common ones vectorise.
  if (free != nullptr) {
    for (std::int64_t i = 0; i < n; ++i) {
      if (free[i] != T(0)) body(i, gradient(i));
    }
  } else if (own != nullptr && back != nullptr) {
    each_entry(n, [=](std::int64_t i) { body(i, own[i] - back[i]); });
  } else {
    each_entry(n, [=](std::int64_t i) { body(i, gradient(i)); });
  }
  if (!v.whole.empty()) {
    const T *from = v.from.row<T>(row), *x = v.x.row<T>(row);
    T* whole = v.whole.row<T>(row);
    each_entry(n, [=](std::int64_t i) { whole[i] = from[i] + x[i]; });
  }
  if constexpr (std::is_same_v<T, float>) narrow_row(v.narrow, row, v.x.row<T>(row));
  if (v.steepest.empty()) return;
  double steepest = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const double size = free == nullptr || free[i] != T(0) ? std::abs(double(gradient(i))) : 0.0;
    steepest = size > steepest || size != size ? size : steepest;  // a NaN wins and stays
  }
  v.steepest.as<double>()[row] = steepest;
}

}  // namespace

void value_sgd_cpu(const ValueSgdArgs& a, Share share) {
  with_float(a.g.x.dtype, [&]<class T>(T) {
    const double bound = a.bound.empty() ? 1.0 : *a.bound.as<double>();
    const T rate = T(a.rate * bound), momentum = T(a.momentum);
    std::vector<T> room;
    each_row(share, a.g.x.rows(), [&](std::int64_t row) {
      T* x = a.g.x.row<T>(row);
      if (a.velocity.empty()) {
        each_gradient<T>(a.g, row, room, [=](std::int64_t i, T g) { x[i] -= rate * g; });
      } else {
        T* velocity = a.velocity.row<T>(row);
        each_gradient<T>(a.g, row, room, [=](std::int64_t i, T g) {
          velocity[i] = momentum * velocity[i] + g;
          x[i] -= rate * velocity[i];
        });
      }
    });
  });
}

void value_adam_cpu(const ValueAdamArgs& a, Share share) {
  with_float(a.g.x.dtype, [&]<class T>(T) {
    const double step = *a.step.as<double>();
    const T beta1 = T(a.beta1), beta2 = T(a.beta2), epsilon = T(a.epsilon);
    const T rate = T(a.rate / (1 - std::pow(a.beta1, step))), correct2 = T(1 / (1 - std::pow(a.beta2, step)));
    std::vector<T> room;
    each_row(share, a.g.x.rows(), [&](std::int64_t row) {
      T *x = a.g.x.row<T>(row), *m = a.m.row<T>(row), *v = a.v.row<T>(row);
      each_gradient<T>(a.g, row, room, [=](std::int64_t i, T g) {
        m[i] = beta1 * m[i] + (T(1) - beta1) * g;
        v[i] = beta2 * v[i] + (T(1) - beta2) * g * g;
        x[i] -= rate * m[i] / (std::sqrt(v[i] * correct2) + epsilon);
      });
    });
  });
}

}  // namespace pc::kernels

#include "kernels/value_update.h"

#include <cmath>

#include "kernels/launch.cuh"
#include "kernels/narrow.cuh"

namespace pc::kernels {
namespace {

using cu::At, cu::matrix, cu::matrix_or_row, cu::Pack;

/// own - back where an entry is free.
template <class T>
struct Gradient {
  cu::Matrix<T> x, own, free, from, whole;
  cu::Rounded<T> back;
  cu::Narrow narrow;

  Gradient() = default;
  explicit Gradient(const ValueGradient& v)
      : x(matrix<T>(v.x)),
        own(matrix<T>(v.own)),
        free(matrix_or_row<T>(v.free)),
        from(matrix<T>(v.from)),
        whole(matrix<T>(v.whole)),
        back(v.back),
        narrow(v.narrow) {}
  [[nodiscard]] bool packs() const {
    return x.packs() && own.packs() && back.packs() && free.packs() && from.packs() && whole.packs() && narrow.packs();
  }
  /// Where entries move, and the gradient there; elsewhere it is zero.
  template <int n>
  struct Slope {
    Pack<T, n> value;
    bool moves[n];
  };
  template <int n>
  __device__ Slope<n> operator()(At<n> at) const {
    const Pack<T, n> mask = free.or_zero(at), of_own = own.or_zero(at), of_others = back.or_zero(at);
    Slope<n> slope;
    for (int i = 0; i < n; ++i) {
      slope.moves[i] = !free || mask[i] != T(0);
      slope.value[i] = slope.moves[i] ? of_own[i] - of_others[i] : T(0);
    }
    return slope;
  }
  /// x -= step, and what else is wanted of x.
  template <int n>
  __device__ void move(At<n> at, const Pack<T, n>& step) const {
    Pack<T, n> now = x(at);
    for (int i = 0; i < n; ++i) now[i] -= step[i];
    x(at) = now;
    narrow(at, now);
    if (!whole) return;
    Pack<T, n> sum = from(at);
    for (int i = 0; i < n; ++i) sum[i] += now[i];
    whole(at) = sum;
  }
};

template <class T>
struct ValueSgd {
  static constexpr int kEntries = cu::kPack<T>;
  Gradient<T> gradient;
  cu::Matrix<T> velocity;
  const double* bound;
  double rate;
  T momentum;

  explicit ValueSgd(const ValueSgdArgs& a)
      : gradient(a.g),
        velocity(matrix<T>(a.velocity)),
        bound(a.bound.as<double>()),
        rate(a.rate),
        momentum(T(a.momentum)) {}
  ValueSgd() = default;
  [[nodiscard]] bool packs() const { return gradient.packs() && velocity.packs(); }
  /// The gradient's largest size.
  template <int n>
  __device__ double operator()(At<n> at) const {
    const auto g = gradient(at);
    Pack<T, n> step = g.value, speed = velocity.or_zero(at);
    const T length = T(rate * (bound != nullptr ? *bound : 1.0));
    double most = 0;
    for (int i = 0; i < n; ++i) {
      if (velocity && g.moves[i]) step[i] = speed[i] = momentum * speed[i] + g.value[i];
      step[i] *= length;
      most = cu::Largest{}(most, std::abs(double(g.value[i])));
    }
    if (velocity) velocity(at) = speed;
    gradient.move(at, step);
    return most;
  }
};

/// The two bias corrections, from the step number on the device.
template <class T>
struct Corrections {
  const double* step;
  double rate, beta1, beta2;

  struct Values {
    T rate, correct2;
  };
  __device__ Values operator()() const {
    return {T(rate / (1 - std::pow(beta1, *step))), T(1 / (1 - std::pow(beta2, *step)))};
  }
};

template <class T>
void value_adam_typed(const ValueAdamArgs& a, CudaContext& context) {
  const Gradient<T> gradient(a.g);
  const auto m = matrix<T>(a.m), v = matrix<T>(a.v);
  const T beta1 = T(a.beta1), beta2 = T(a.beta2), epsilon = T(a.epsilon);
  using Values = typename Corrections<T>::Values;
  cu::fold_rows(a.g.x.rows(), a.g.x.cols(), context.stream, a.g.steepest.as<double>(), cu::Largest{},
                Corrections<T>{a.step.as<double>(), a.rate, a.beta1, a.beta2},
                [=] __device__(const Values& values, std::int64_t row, std::int64_t col) -> double {
                  const At<1> at{row, col};
                  const auto slope = gradient(at);
                  if (!slope.moves[0]) {
                    gradient.move(at, Pack<T, 1>{T(0)});
                    return 0;
                  }
                  const T g = slope.value[0];
                  const T first = m(row, col) = beta1 * m(row, col) + (T(1) - beta1) * g;
                  const T second = v(row, col) = beta2 * v(row, col) + (T(1) - beta2) * g * g;
                  const T step = values.rate * first / (std::sqrt(second * values.correct2) + epsilon);
                  gradient.move(at, Pack<T, 1>{step});
                  return std::abs(double(g));
                });
}

}  // namespace

void value_sgd_cuda(const ValueSgdArgs& a, CudaContext& context) {
  with_float(a.g.x.dtype, [&]<class T>(T) {
    cu::fold_rows(a.g.x.rows(), a.g.x.cols(), context.stream, a.g.steepest.as<double>(), cu::Largest{}, ValueSgd<T>(a));
  });
}
void value_sgd_cuda_together(std::span<const ValueSgdArgs* const> calls, CudaContext& context) {
  with_float(calls[0]->g.x.dtype, [&]<class T>(T) {
    cu::each_entry_of<ValueSgd<T>>(calls, context.stream, [](const ValueSgdArgs& a) -> const View& { return a.g.x; });
  });
}
void value_adam_cuda(const ValueAdamArgs& a, CudaContext& context) {
  with_float(a.g.x.dtype, [&]<class T>(T) { value_adam_typed<T>(a, context); });
}

}  // namespace pc::kernels

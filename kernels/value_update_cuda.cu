#include "kernels/value_update.h"

#include <cmath>

#include "kernels/launch.cuh"
#include "kernels/narrow.cuh"

namespace pc::kernels {
namespace {

using cu::matrix, cu::matrix_or_row;

/// own - back where an entry is free.
template <class T>
struct Gradient {
  cu::Matrix<T> x, own, back, free, from, whole;
  cu::Narrow narrow;

  Gradient() = default;
  explicit Gradient(const ValueGradient& v)
      : x(matrix<T>(v.x)),
        own(matrix<T>(v.own)),
        back(matrix<T>(v.back)),
        free(matrix_or_row<T>(v.free)),
        from(matrix<T>(v.from)),
        whole(matrix<T>(v.whole)),
        narrow(v.narrow) {}
  __device__ bool moves(std::int64_t row, std::int64_t col) const { return !free || free(row, col) != T(0); }
  __device__ T operator()(std::int64_t row, std::int64_t col) const {
    return (own ? own(row, col) : T(0)) - (back ? back(row, col) : T(0));
  }
  /// x -= step, and what else is wanted of x.
  __device__ void move(std::int64_t row, std::int64_t col, T step) const {
    const T now = x(row, col) - step;
    x(row, col) = now;
    if (whole) whole(row, col) = from(row, col) + now;
    narrow(row, col, now);
  }
};

template <class T>
struct ValueSgd {
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
  /// The gradient's size.
  __device__ double operator()(std::int64_t row, std::int64_t col) const {
    if (!gradient.moves(row, col)) {
      gradient.move(row, col, T(0));
      return 0;
    }
    const T g = gradient(row, col);
    T step = g;
    if (velocity) step = velocity(row, col) = momentum * velocity(row, col) + g;
    gradient.move(row, col, T(rate * (bound != nullptr ? *bound : 1.0)) * step);
    return std::abs(double(g));
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
                  if (!gradient.moves(row, col)) {
                    gradient.move(row, col, T(0));
                    return 0;
                  }
                  const T g = gradient(row, col);
                  const T first = m(row, col) = beta1 * m(row, col) + (T(1) - beta1) * g;
                  const T second = v(row, col) = beta2 * v(row, col) + (T(1) - beta2) * g * g;
                  gradient.move(row, col, values.rate * first / (std::sqrt(second * values.correct2) + epsilon));
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

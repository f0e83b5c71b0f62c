#include "kernels/value_update.h"

#include <cmath>

#include "kernels/launch.cuh"

namespace pc::kernels {
namespace {

using cu::matrix, cu::matrix_or_row;

/// own - back where an entry is free.
template <class T>
struct Gradient {
  cu::Matrix<T> own, back, free;

  explicit Gradient(const ValueGradient& v)
      : own(matrix<T>(v.own)), back(matrix<T>(v.back)), free(matrix_or_row<T>(v.free)) {}
  __device__ bool moves(std::int64_t row, std::int64_t col) const { return !free || free(row, col) != T(0); }
  __device__ T operator()(std::int64_t row, std::int64_t col) const {
    return (own ? own(row, col) : T(0)) - (back ? back(row, col) : T(0));
  }
};

template <class T>
void value_sgd_typed(const ValueSgdArgs& a, CudaContext& context) {
  const Gradient<T> gradient(a.g);
  const auto x = matrix<T>(a.g.x), velocity = matrix<T>(a.velocity);
  const T momentum = T(a.momentum);
  const double plain_rate = a.rate;
  const double* bound = a.bound.as<double>();
  cu::fold_rows(a.g.x.rows(), a.g.x.cols(), context.stream, a.g.steepest.as<double>(), cu::Largest{},
                [=] __device__(std::int64_t row, std::int64_t col) -> double {
                  if (!gradient.moves(row, col)) return 0;
                  const T g = gradient(row, col);
                  T step = g;
                  if (velocity) step = velocity(row, col) = momentum * velocity(row, col) + g;
                  x(row, col) -= T(plain_rate * (bound != nullptr ? *bound : 1.0)) * step;
                  return std::abs(double(g));
                });
}

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
  const auto x = matrix<T>(a.g.x), m = matrix<T>(a.m), v = matrix<T>(a.v);
  const T beta1 = T(a.beta1), beta2 = T(a.beta2), epsilon = T(a.epsilon);
  using Values = typename Corrections<T>::Values;
  cu::fold_rows(a.g.x.rows(), a.g.x.cols(), context.stream, a.g.steepest.as<double>(), cu::Largest{},
                Corrections<T>{a.step.as<double>(), a.rate, a.beta1, a.beta2},
                [=] __device__(const Values& values, std::int64_t row, std::int64_t col) -> double {
                  if (!gradient.moves(row, col)) return 0;
                  const T g = gradient(row, col);
                  const T first = m(row, col) = beta1 * m(row, col) + (T(1) - beta1) * g;
                  const T second = v(row, col) = beta2 * v(row, col) + (T(1) - beta2) * g * g;
                  x(row, col) -= values.rate * first / (std::sqrt(second * values.correct2) + epsilon);
                  return std::abs(double(g));
                });
}

}  // namespace

void value_sgd_cuda(const ValueSgdArgs& a, CudaContext& context) {
  with_float(a.g.x.dtype, [&]<class T>(T) { value_sgd_typed<T>(a, context); });
}
void value_adam_cuda(const ValueAdamArgs& a, CudaContext& context) {
  with_float(a.g.x.dtype, [&]<class T>(T) { value_adam_typed<T>(a, context); });
}

}  // namespace pc::kernels

#include "kernels/weight_update.h"

#include <array>
#include <cmath>

#include "kernels/launch.cuh"

namespace pc::kernels {
namespace {

using cu::each_entry, cu::matrix;

/// What lies on the device: rate, clip, and the step number of Adam.
struct OnDevice {
  const double *rate, *clip;
  double scale;

  explicit OnDevice(const WeightGradient& w) : rate(w.rate.as<double>()), clip(w.clip.as<double>()), scale(w.scale) {}
  __device__ double gradient_scale() const { return scale * (clip == nullptr ? 1.0 : *clip); }
};

template <class T>
struct SgdScalars {
  OnDevice on_device;

  struct Values {
    T rate, scale;
  };
  __device__ Values operator()() const { return {T(*on_device.rate), T(on_device.gradient_scale())}; }
};

template <class T>
void weight_sgd_typed(const WeightSgdArgs& a, CudaContext& context) {
  const auto w = matrix<T>(a.g.w), dw = matrix<T>(a.g.dw), mask = matrix<T>(a.g.mask);
  const auto velocity = matrix<T>(a.velocity);
  const T momentum = T(a.momentum), decay = T(a.decay);
  using Values = typename SgdScalars<T>::Values;
  each_entry(a.g.w.rows(), a.g.w.cols(), context.stream, SgdScalars<T>{OnDevice(a.g)},
             [=] __device__(const Values& values, std::int64_t row, std::int64_t col) {
               if (mask && mask(row, col) == T(0)) return;
               T step = values.scale * dw(row, col) - decay * w(row, col);
               if (velocity) step = velocity(row, col) = momentum * velocity(row, col) + step;
               w(row, col) += values.rate * step;
             });
}

template <class T>
struct AdamScalars {
  OnDevice on_device;
  const double* step;
  double beta1, beta2, decay;  // decay: of the weight itself

  struct Values {
    T rate, correct2, keep, scale;
  };
  __device__ Values operator()() const {
    const double rate = *on_device.rate;
    return {T(rate / (1 - std::pow(beta1, *step))), T(1 / (1 - std::pow(beta2, *step))), T(1 - rate * decay),
            T(on_device.gradient_scale())};
  }
};

template <class T>
struct Adam {
  using Values = typename AdamScalars<T>::Values;
  cu::Matrix<T> w, dw, mask, m, v;
  T beta1, beta2, epsilon, pull;

  explicit Adam(const WeightAdamArgs& a)
      : w(matrix<T>(a.g.w)),
        dw(matrix<T>(a.g.dw)),
        mask(matrix<T>(a.g.mask)),
        m(matrix<T>(a.m)),
        v(matrix<T>(a.v)),
        beta1(T(a.beta1)),
        beta2(T(a.beta2)),
        epsilon(T(a.epsilon)),
        pull(T(a.decoupled ? 0 : a.decay)) {}
  Adam() = default;
  __device__ void operator()(const Values& values, std::int64_t row, std::int64_t col) const {
    if (mask && mask(row, col) == T(0)) return;
    const T g = values.scale * dw(row, col) - pull * w(row, col);
    const T first = m(row, col) = beta1 * m(row, col) + (T(1) - beta1) * g;
    const T second = v(row, col) = beta2 * v(row, col) + (T(1) - beta2) * g * g;
    w(row, col) = values.keep * w(row, col) + values.rate * first / (std::sqrt(second * values.correct2) + epsilon);
  }
};

}  // namespace

void weight_sgd_cuda(const WeightSgdArgs& a, CudaContext& context) {
  with_float(a.g.w.dtype, [&]<class T>(T) { weight_sgd_typed<T>(a, context); });
}
void weight_adam_cuda_together(std::span<const WeightAdamArgs* const> calls, CudaContext& context) {
  const WeightAdamArgs& a = *calls[0];
  with_float(a.g.w.dtype, [&]<class T>(T) {
    std::vector<cu::Job<Adam<T>>> jobs;
    for (const WeightAdamArgs* call : calls) jobs.push_back({call->g.w.rows(), call->g.w.cols(), Adam<T>(*call)});
    cu::each_entry(std::span<const cu::Job<Adam<T>>>(jobs), context.stream,
                   AdamScalars<T>{OnDevice(a.g), a.step.as<double>(), a.beta1, a.beta2, a.decoupled ? a.decay : 0});
  });
}
void weight_adam_cuda(const WeightAdamArgs& a, CudaContext& context) {
  weight_adam_cuda_together(std::array{&a}, context);
}

}  // namespace pc::kernels

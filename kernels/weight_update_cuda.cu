#include "kernels/weight_update.h"

#include <array>
#include <cmath>

#include "kernels/launch.cuh"
#include "kernels/one_row.h"

namespace pc::kernels {
namespace {

using cu::At, cu::each_entry, cu::matrix, cu::Pack;

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
  double log_beta1, log_beta2, decay;  // decay: of the weight itself

  struct Values {
    T rate, correct2, keep, scale;
  };
  __device__ Values operator()() const {
    const double rate = *on_device.rate;
    // 1 - beta^step
    const double left1 = -std::expm1(log_beta1 * *step), left2 = -std::expm1(log_beta2 * *step);
    return {T(rate / left1), T(1 / left2), T(1 - rate * decay), T(on_device.gradient_scale())};
  }
};

template <class T>
struct Adam {
  static constexpr int kEntries = cu::kPack<T>;
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
  [[nodiscard]] bool packs() const { return w.packs() && dw.packs() && mask.packs() && m.packs() && v.packs(); }
  template <int n>
  __device__ void operator()(const Values& values, At<n> at) const {
    Pack<T, n> weight = w(at), first = m(at), second = v(at);
    const Pack<T, n> slope = dw(at), kept = mask.or_zero(at);
    for (int i = 0; i < n; ++i) {
      if (mask && kept[i] == T(0)) continue;
      const T g = values.scale * slope[i] - pull * weight[i];
      first[i] = beta1 * first[i] + (T(1) - beta1) * g;
      second[i] = beta2 * second[i] + (T(1) - beta2) * g * g;
      weight[i] = values.keep * weight[i] + values.rate * first[i] / (std::sqrt(second[i] * values.correct2) + epsilon);
    }
    m(at) = first;
    v(at) = second;
    w(at) = weight;
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
    for (const WeightAdamArgs* call : calls) {
      WeightAdamArgs one = *call;
      join_rows(one.g.w, one.g.dw, one.g.mask, one.m, one.v);
      jobs.push_back({one.g.w.rows(), one.g.w.cols(), Adam<T>(one)});
    }
    cu::each_entry(std::span<const cu::Job<Adam<T>>>(jobs), context.stream,
                   AdamScalars<T>{OnDevice(a.g), a.step.as<double>(), std::log(a.beta1), std::log(a.beta2),
                                  a.decoupled ? a.decay : 0});
  });
}
void weight_adam_cuda(const WeightAdamArgs& a, CudaContext& context) {
  weight_adam_cuda_together(std::array{&a}, context);
}

}  // namespace pc::kernels

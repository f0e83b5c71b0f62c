// One step of Adam on the device: see kernels/weight_update.h.
#pragma once

#include <cmath>

#include "kernels/launch.cuh"
#include "kernels/narrow.cuh"
#include "kernels/weight_update.h"

namespace pc::cu {

/// What lies on the device: rate, clip, and the step number of Adam.
struct OnDevice {
  const double *rate, *clip;
  double scale;

  explicit OnDevice(const kernels::WeightGradient& w)
      : rate(w.rate.as<double>()), clip(w.clip.as<double>()), scale(w.scale) {}
  __device__ double gradient_scale() const { return scale * (clip == nullptr ? 1.0 : *clip); }
};

// To the last digit but one or two: exact ones take most of a step's instructions.
__device__ inline double root(double x) { return std::sqrt(x); }
__device__ inline float root(float x) {
  float y = 0;
  asm("sqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline double quotient(double a, double b) { return a / b; }
__device__ inline float quotient(float a, float b) { return __fdividef(a, b); }

template <class T>
struct AdamScalars {
  OnDevice on_device;
  const double* step;
  double log_beta1, log_beta2, decay;  // decay: of the weight itself

  explicit AdamScalars(const kernels::WeightAdamArgs& a)
      : on_device(a.g),
        step(a.step.as<double>()),
        log_beta1(std::log(a.beta1)),
        log_beta2(std::log(a.beta2)),
        decay(a.decoupled ? a.decay : 0) {}

  struct Values {
    T rate, correct2, keep, scale;
  };
  __device__ Values operator()() const {
    const double rate = *on_device.rate;
    // 1 - beta^step. In T: others wait for it.
    const T left1 = -std::expm1(T(log_beta1 * *step)), left2 = -std::expm1(T(log_beta2 * *step));
    return {quotient(T(rate), left1), quotient(T(1), left2), T(1 - rate * decay), T(on_device.gradient_scale())};
  }
};

/// Where else a weight goes when it has moved: see WeightGradient.
template <class T>
struct Followers {
  Narrow narrow, moved_operand;
  Matrix<T> start, moved;

  explicit Followers(const kernels::WeightGradient& g)
      : narrow(g.narrow), moved_operand(g.moved_operand), start(matrix<T>(g.start)), moved(matrix<T>(g.moved)) {}
  Followers() = default;
  template <int n>
  [[nodiscard]] bool packs() const {
    return narrow.packs<n>() && moved_operand.packs<n>() && start.template packs<n>() && moved.template packs<n>();
  }
  template <int n>
  __device__ void operator()(At<n> at, const Pack<T, n>& weight) const {
    narrow(at, weight);
    if (!start) return;
    Pack<T, n> change = start(at);
    for (int i = 0; i < n; ++i) change[i] = weight[i] - change[i];
    if (moved) moved(at) = change;
    moved_operand(at, change);
  }
};

template <class T>
struct Adam {
  static constexpr int kEntries = kPack<T>;
  using Values = typename AdamScalars<T>::Values;
  Matrix<T> w, dw, mask, m, v;
  Followers<T> followers;
  T beta1, beta2, epsilon, pull;
  bool rests;  // where m and v are zero

  explicit Adam(const kernels::WeightAdamArgs& a)
      : w(matrix<T>(a.g.w)),
        dw(matrix<T>(a.g.dw)),
        mask(matrix<T>(a.g.mask)),
        m(matrix<T>(a.m)),
        v(matrix<T>(a.v)),
        followers(a.g),
        beta1(T(a.beta1)),
        beta2(T(a.beta2)),
        epsilon(T(a.epsilon)),
        pull(T(a.decoupled ? 0 : a.decay)),
        rests(a.rests()) {}
  Adam() = default;
  template <int n = kEntries>
  [[nodiscard]] bool packs() const {
    return w.template packs<n>() && dw.template packs<n>() && mask.template packs<n>() && m.template packs<n>() &&
           v.template packs<n>() && followers.template packs<n>();
  }
  template <int n>
  __device__ void operator()(const Values& values, At<n> at) const {
    const Pack<T, n> first = m(at), second = v(at);
    if (rests && zero(first) && zero(second)) return;
    step(values, at, w(at), first, second, dw.or_zero(at));
  }
  /// Moves `weight` along `slope`, where `first` and `second` are the means of slopes and of their squares, and stores
  /// all three.
  template <int n>
  __device__ void step(const Values& values, At<n> at, Pack<T, n> weight, Pack<T, n> first, Pack<T, n> second,
                       const Pack<T, n>& slope) const {
    const Pack<T, n> kept = mask.or_zero(at);
    for (int i = 0; i < n; ++i) {
      if (mask && kept[i] == T(0)) continue;
      const T g = values.scale * slope[i] - pull * weight[i];
      first[i] = beta1 * first[i] + (T(1) - beta1) * g;
      second[i] = beta2 * second[i] + (T(1) - beta2) * g * g;
      weight[i] =
          values.keep * weight[i] + quotient(values.rate * first[i], root(second[i] * values.correct2) + epsilon);
    }
    m(at) = first;
    v(at) = second;
    w(at) = weight;
    followers(at, weight);
  }

 private:
  template <int n>
  __device__ static bool zero(const Pack<T, n>& entries) {
    bool all = true;
    for (int i = 0; i < n; ++i) all = all && entries[i] == T(0);
    return all;
  }
};

}  // namespace pc::cu

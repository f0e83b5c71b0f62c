// Scalar formulas shared by the CPU and CUDA twins of every kernel, so that the twins differ only in their loops.
// float versions are branch-free and made of plain arithmetic, so that a compiler can vectorise a loop over them;
// double versions call the standard library: they serve as the truth in checks.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define PC_HD __host__ __device__ inline
#else
#define PC_HD [[gnu::always_inline]] inline  // a loop with a call in it is not vectorised
#endif

namespace pc::scalar {

// The second argument wins where one is NaN: bounds go first, so that a NaN is never bounded away.
template <class T>
PC_HD T min(T a, T b) {
  return a < b ? a : b;
}
template <class T>
PC_HD T max(T a, T b) {
  return a > b ? a : b;
}

/// 1, 0 or -1; NaN stays.
template <class T>
PC_HD T sign(T a) {
  return a > T(0) ? T(1) : a < T(0) ? T(-1) : a;
}

/// Reinterprets bits (std::bit_cast is not callable from device code).
PC_HD float float_of_bits(std::int32_t bits) {
  union {
    std::int32_t i;
    float f;
  } u{bits};
  return u.f;
}

PC_HD std::uint32_t bits_of_float(float value) {
  union {
    float f;
    std::uint32_t u;
  } u{value};
  return u.u;
}

/// a / b; on CUDA to 2 units in the last place, for b below 2^126.
template <class T>
PC_HD T divide(T a, T b) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(T) == sizeof(float)) return __fdividef(a, b);
#endif
  return a / b;
}

/// exp for float: 2^n exp(r), |r| <= ln2/2, degree-6 Taylor-Horner in r with the last coefficients fitted by the
/// remainder; relative error under 2e-7. Saturates at exp(+-87) instead of overflowing. On CUDA 2^(x log2 e) by the
/// hardware, with what the product's rounding lost put back: relative error under 3e-7.
PC_HD float exp(float x) {
  x = min(87.0F, max(-87.0F, x));
#if defined(__CUDA_ARCH__)
  const float power = 1.44269504F * x, lost = std::fma(1.92596303e-8F, x, std::fma(1.44269504F, x, -power));
  float e;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(power));
  return std::fma(e, 0.693147181F * lost, e);
#else
  const float shift = 12582912.0F;  // 1.5 * 2^23: adding it rounds to a whole number
  const float rounded = std::fma(x, 1.44269504F, shift);
  const float n = rounded - shift;
  float r = std::fma(n, -0.693359375F, x);  // ln2 in two parts, the first exact in few bits
  r = std::fma(n, 2.12194440e-4F, r);
  float p = 1.0F / 5040.0F;
  p = std::fma(p, r, 1.0F / 720.0F);
  p = std::fma(p, r, 1.0F / 120.0F);
  p = std::fma(p, r, 1.0F / 24.0F);
  p = std::fma(p, r, 1.0F / 6.0F);
  p = std::fma(p, r, 0.5F);
  p = std::fma(p, r, 1.0F);
  p = std::fma(p, r, 1.0F);
  // The low bits of `rounded` are n; the shift drops the others. (A cast of n would be undefined for NaN.)
  return p * float_of_bits(static_cast<std::int32_t>((bits_of_float(rounded) + 127U) << 23));
#endif
}
PC_HD double exp(double x) { return std::exp(x); }

/// e^x - 1 for |x| <= 1/2: a series, to 3e-8 of it.
PC_HD float expm1_near_zero(float x) {
  float p = 1.0F / 5040.0F;
  p = std::fma(p, x, 1.0F / 720.0F);
  p = std::fma(p, x, 1.0F / 120.0F);
  p = std::fma(p, x, 1.0F / 24.0F);
  p = std::fma(p, x, 1.0F / 6.0F);
  p = std::fma(p, x, 0.5F);
  return std::fma(p * x, x, x);
}

/// 1 / (1 + e^-x)
template <class T>
PC_HD T sigmoid(T x) {
  return divide(T(1), T(1) + exp(-x));
}

/// s = sigmoid(x) and 1 - s, neither by subtracting near-equals.
template <class T>
struct SigmoidPair {
  T s, rest;
};
template <class T>
PC_HD SigmoidPair<T> sigmoid_pair(T x) {
  const T e = exp(-x), s = divide(T(1), T(1) + e);
  return {s, x < T(0) ? T(1) - s : e * s};
}

/// tanh: the quotient of exponentials loses digits near zero, where a series takes over.
PC_HD float tanh(float x) {
  const float s = x * x;
  float series = -1382.0F / 155925.0F;
  series = std::fma(series, s, 62.0F / 2835.0F);
  series = std::fma(series, s, -17.0F / 315.0F);
  series = std::fma(series, s, 2.0F / 15.0F);
  series = std::fma(series, s, -1.0F / 3.0F);
  series = std::fma(series * s, x, x);
  const float e = exp(2.0F * x);
  const float quotient = 1.0F - divide(2.0F, e + 1.0F);
  return s < 0.16F ? series : quotient;
}
PC_HD double tanh(double x) { return std::tanh(x); }

/// log(1 + y) for y in [0, 1]: 2 atanh(y / (2 + y)) as a series.
PC_HD float log1p_unit(float y) {
  const float s = divide(y, 2.0F + y), q = s * s;
  float p = 1.0F / 15.0F;
  p = std::fma(p, q, 1.0F / 13.0F);
  p = std::fma(p, q, 1.0F / 11.0F);
  p = std::fma(p, q, 1.0F / 9.0F);
  p = std::fma(p, q, 1.0F / 7.0F);
  p = std::fma(p, q, 1.0F / 5.0F);
  p = std::fma(p, q, 1.0F / 3.0F);
  p = std::fma(p, q, 1.0F);
  return 2.0F * s * p;
}
PC_HD double log1p_unit(double y) { return std::log1p(y); }

/// log(1 + e^x), without overflow.
template <class T>
PC_HD T softplus(T x) {
  const T size = x < T(0) ? -x : x;
  return max(T(0), x) + log1p_unit(exp(-size));
}

/// Normal distribution function Phi(x), and what its tails and its density have in common, exp(-x^2 / 2).
template <class T>
struct Normal {
  T cdf, bell;
};
/// Abramowitz & Stegun 7.1.26, absolute error 1e-7.
PC_HD Normal<float> normal(float x) {
  const float bell = exp(-0.5F * x * x);
  const float t = divide(1.0F, std::fma(0.3275911F * 0.70710678F, x < 0 ? -x : x, 1.0F));
  float p = 1.061405429F;
  p = std::fma(p, t, -1.453152027F);
  p = std::fma(p, t, 1.421413741F);
  p = std::fma(p, t, -0.284496736F);
  p = std::fma(p, t, 0.254829592F);
  const float tail = 0.5F * p * t * bell;  // 1 - Phi(|x|)
  return {x < 0 ? tail : 1.0F - tail, bell};
}
PC_HD Normal<double> normal(double x) { return {0.5 * std::erfc(-x * 0.70710678118654752440), std::exp(-0.5 * x * x)}; }

// --- activations: a value and its slope, for one input ---

enum class Activation : std::uint8_t {
  identity,
  relu,
  leaky_relu,
  gelu,
  gelu_tanh,
  silu,
  tanh,
  hard_tanh,
  sigmoid,
  softplus
};

template <class T>
struct ValueSlope {
  T value, slope;
};

/// f(z) and f'(z) together: they share their expensive parts. `leak` is the slope of leaky_relu below zero. At the
/// kinks of relu, leaky_relu and hard_tanh the slope is the one from below (relu'(0) = 0).
template <Activation kind, class T>
PC_HD ValueSlope<T> activate(T z, T leak) {
  if constexpr (kind == Activation::relu) {
    return {max(T(0), z), z > T(0) ? T(1) : T(0)};
  } else if constexpr (kind == Activation::leaky_relu) {
    return {z > T(0) ? z : leak * z, z > T(0) ? T(1) : leak};
  } else if constexpr (kind == Activation::gelu) {
    const Normal<T> at = normal(z);
    return {z * at.cdf, at.cdf + z * T(0.39894228040143267794) * at.bell};
  } else if constexpr (kind == Activation::gelu_tanh) {
    // z sigmoid(2u) with u = sqrt(2/pi) (z + 0.044715 z^3): the same function, one exponential
    const T cubic = T(0.044715), twice = T(1.59576912160573071176);
    const SigmoidPair<T> at = sigmoid_pair(twice * (z + cubic * z * z * z));
    return {z * at.s, at.s + z * at.s * at.rest * twice * (T(1) + T(3) * cubic * z * z)};
  } else if constexpr (kind == Activation::silu) {
    const SigmoidPair<T> at = sigmoid_pair(z);
    return {z * at.s, at.s + z * at.s * at.rest};
  } else if constexpr (kind == Activation::tanh) {
    const T t = scalar::tanh(z);
    return {t, T(1) - t * t};
  } else if constexpr (kind == Activation::hard_tanh) {
    return {min(T(1), max(T(-1), z)), z > T(-1) && z <= T(1) ? T(1) : T(0)};
  } else if constexpr (kind == Activation::sigmoid) {
    const T s = scalar::sigmoid(z);
    return {s, s * (T(1) - s)};
  } else if constexpr (kind == Activation::softplus) {
    return {scalar::softplus(z), scalar::sigmoid(z)};
  } else {
    return {z, T(1)};
  }
}

/// f(z + dz) - f(z), and f'(z + dz). In float a small change keeps its digits, which the difference of two values would
/// lose: pieces that are straight lines are taken as such, curves by their slope in the middle.
template <Activation kind, class T>
PC_HD ValueSlope<T> change(T z, T dz, T leak) {
  const ValueSlope<T> after = activate<kind>(z + dz, leak);
  const auto difference = [&] { return after.value - activate<kind>(z, leak).value; };
  constexpr bool straight = kind == Activation::relu || kind == Activation::leaky_relu || kind == Activation::hard_tanh;
  if constexpr (kind == Activation::identity) {
    return {dz, T(1)};
  } else if constexpr (straight) {
    const bool same = activate<kind>(z, leak).slope == after.slope;
    return {same ? after.slope * dz : difference(), after.slope};
  } else if constexpr (kind == Activation::tanh && sizeof(T) == sizeof(float)) {
    // With a = exp(2 z) and b = exp(2 (z + dz)), tanh(z + dz) - tanh(z) = 2 (b - a) / ((a + 1) (b + 1)). Beyond kFar
    // tanh is 1 to the last digit.
    constexpr T kFar = 12;
    const T a = exp(T(2) * min(kFar, max(-kFar, z))), b = exp(T(2) * min(kFar, max(-kFar, z + dz)));
    const T apart = dz < T(0.25) && dz > T(-0.25) ? a * expm1_near_zero(T(2) * dz) : b - a;
    const T inverse = divide(T(1), (a + T(1)) * (b + T(1))), of_b = inverse * (a + T(1));
    return {T(2) * apart * inverse, T(4) * b * of_b * of_b};
  } else if constexpr (sizeof(T) == sizeof(float)) {
    // The slope errs by dz^2 / 24 times the third derivative, the difference by the rounding of f: about 1e-5 of the
    // change at the border between them.
    const T near = activate<kind>(z + T(0.5) * dz, leak).slope * dz, far = difference();  // both: no branch, so loops
    return {dz < T(1.0 / 64) && dz > T(-1.0 / 64) ? near : far, after.slope};             // become vectors
  } else {
    return {difference(), after.slope};
  }
}

/// Calls body.template operator()<kind>() for a kind known only at run time. Runs where its body does.
#if defined(__CUDACC__)
#pragma nv_exec_check_disable
#endif
template <class Body>
PC_HD void with_activation(Activation kind, Body&& body) {
  switch (kind) {
    case Activation::identity:
      return body.template operator()<Activation::identity>();
    case Activation::relu:
      return body.template operator()<Activation::relu>();
    case Activation::leaky_relu:
      return body.template operator()<Activation::leaky_relu>();
    case Activation::gelu:
      return body.template operator()<Activation::gelu>();
    case Activation::gelu_tanh:
      return body.template operator()<Activation::gelu_tanh>();
    case Activation::silu:
      return body.template operator()<Activation::silu>();
    case Activation::tanh:
      return body.template operator()<Activation::tanh>();
    case Activation::hard_tanh:
      return body.template operator()<Activation::hard_tanh>();
    case Activation::sigmoid:
      return body.template operator()<Activation::sigmoid>();
    case Activation::softplus:
      return body.template operator()<Activation::softplus>();
  }
}

template <class T>
PC_HD ValueSlope<T> activate(Activation kind, T z, T leak) {
  ValueSlope<T> result{};
  with_activation(kind, [&]<Activation known>() { result = activate<known>(z, leak); });
  return result;
}

template <class T>
PC_HD ValueSlope<T> change(Activation kind, T z, T dz, T leak) {
  ValueSlope<T> result{};
  with_activation(kind, [&]<Activation known>() { result = change<known>(z, dz, leak); });
  return result;
}

}  // namespace pc::scalar

// Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011): counter-based, so
// that entry i of draw n is the same number on every device, for every number of threads, and after a resume.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/scalar_math.h"

namespace pc {

/// What a random stream is for. The number is part of the key: never reuse or renumber.
enum class Purpose : std::uint32_t {
  weights = 1,
  shuffle = 2,
  values = 3,
  noise = 4,
  split = 6,
  test = 7,
  masks = 8,
  check = 9,
  corruption = 10,  // of what a query shows to a network
  text = 12,
  topology = 16,
  augment = 17,
  dropout = 18
};

namespace philox {

struct Words {
  std::uint32_t w[4];
};

PC_HD void multiply_wide(std::uint32_t a, std::uint32_t b, std::uint32_t& high, std::uint32_t& low) {
  const std::uint64_t product = static_cast<std::uint64_t>(a) * b;
  high = static_cast<std::uint32_t>(product >> 32);
  low = static_cast<std::uint32_t>(product);
}

PC_HD Words philox4x32(Words counter, std::uint32_t key0, std::uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    std::uint32_t high0, low0, high1, low1;
    multiply_wide(0xD2511F53U, counter.w[0], high0, low0);
    multiply_wide(0xCD9E8D57U, counter.w[2], high1, low1);
    counter = {{high1 ^ counter.w[1] ^ key0, low1, high0 ^ counter.w[3] ^ key1, low0}};
    key0 += 0x9E3779B9U;
    key1 += 0xBB67AE85U;
  }
  return counter;
}

/// 64 random bits for entry `index` of draw `draw` of the stream (seed, purpose, stream).
PC_HD std::uint64_t bits(std::uint64_t seed, Purpose purpose, std::uint32_t stream, std::uint64_t draw,
                         std::uint64_t index) {
  // The key holds the seed. Purpose and stream share a word, and a draw has one: streams must stay under 2^24 and
  // draws under 2^32, or numbers repeat.
  const Words counter{{static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                       static_cast<std::uint32_t>(draw), (static_cast<std::uint32_t>(purpose) << 24) ^ stream}};
  const Words out = philox4x32(counter, static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32));
  return (static_cast<std::uint64_t>(out.w[1]) << 32) | out.w[0];
}

/// In (0, 1), 52 bits, never 0 or 1.
PC_HD double uniform(std::uint64_t bits) {
  return (static_cast<double>(bits >> 12) + 0.5) * (1.0 / 4503599627370496.0);
}

// Rounded operations that no compiler may contract or reorder: with them, CPU and GPU agree to the last bit.
#if defined(__CUDA_ARCH__)
PC_HD double madd(double a, double b, double c) { return __fma_rn(a, b, c); }
#else
PC_HD double madd(double a, double b, double c) { return std::fma(a, b, c); }
#endif

template <int n>
PC_HD double horner(const double (&c)[n], double x) {
  double p = c[n - 1];
  for (int i = n - 2; i >= 0; --i) p = madd(p, x, c[i]);
  return p;
}

/// Natural logarithm of a normal positive number, by its exponent and an atanh series; error about 1e-16 of |log|.
PC_HD double log(double x) {
  int exponent = 0;
  double mantissa = std::frexp(x, &exponent);  // exact on every device
  if (mantissa < 0.70710678118654752440) {
    mantissa *= 2;
    --exponent;
  }
  const double s = (mantissa - 1) / (mantissa + 1), q = s * s;
  const double c[] = {1.0,        1.0 / 3.0,  1.0 / 5.0,  1.0 / 7.0,  1.0 / 9.0, 1.0 / 11.0,
                      1.0 / 13.0, 1.0 / 15.0, 1.0 / 17.0, 1.0 / 19.0, 1.0 / 21.0};
  return madd(static_cast<double>(exponent), 0.69314718055994530942, 2 * s * horner(c, q));
}

/// Standard normal from a uniform number: Wichura's inverse distribution function (AS 241, PPND16; Applied Statistics
/// 37, 1988), accurate to about 1e-16.
PC_HD double normal(double u) {
  const double a[] = {3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3,
                      1.3731693765509461125e4, 4.5921953931549871457e4, 6.7265770927008700853e4,
                      3.3430575583588128105e4, 2.5090809287301226727e3};
  const double b[] = {1.0,
                      4.2313330701600911252e1,
                      6.8718700749205790830e2,
                      5.3941960214247511077e3,
                      2.1213794301586595867e4,
                      3.9307895800092710610e4,
                      2.8729085735721942674e4,
                      5.2264952788528545610e3};
  const double c[] = {1.42343711074968357734e0,  4.63033784615654529590e0, 5.76949722146069140550e0,
                      3.64784832476320460504e0,  1.27045825245236838258e0, 2.41780725177450611770e-1,
                      2.27238449892691845833e-2, 7.74545014278341407640e-4};
  const double d[] = {1.0,
                      2.05319162663775882187e0,
                      1.67638483018380384940e0,
                      6.89767334985100004550e-1,
                      1.48103976427480074590e-1,
                      1.51986665636164571966e-2,
                      5.47593808499534494600e-4,
                      1.05075007164441684324e-9};
  const double e[] = {6.65790464350110377720e0,  5.46378491116411436990e0,  1.78482653991729133580e0,
                      2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
                      2.71155556874348757815e-5, 2.01033439929228813265e-7};
  const double f[] = {1.0,
                      5.99832206555887937690e-1,
                      1.36929880922735805310e-1,
                      1.48753612908506148525e-2,
                      7.86869131145613259100e-4,
                      1.84631831751005468180e-5,
                      1.42151175831644588870e-7,
                      2.04426310338993978564e-15};
  const double q = u - 0.5;
  if (q >= -0.425 && q <= 0.425) {
    const double r = madd(-q, q, 0.180625);
    return q * horner(a, r) / horner(b, r);
  }
  const double tail = q < 0 ? u : 1 - u;
  double r = std::sqrt(-log(tail));
  double x = 0;
  if (r <= 5) {
    r -= 1.6;
    x = horner(c, r) / horner(d, r);
  } else {
    r -= 5;
    x = horner(e, r) / horner(f, r);
  }
  return q < 0 ? -x : x;
}

}  // namespace philox
}  // namespace pc

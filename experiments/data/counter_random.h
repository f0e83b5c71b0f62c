// Random numbers from a counter: a stream depends on its key alone, never on what was drawn before.
#pragma once

#include <cstdint>

namespace pc::experiments {

class CounterRandom {
 public:
  CounterRandom(std::uint64_t seed, std::uint64_t stream, std::uint64_t index)
      : key_(mix(mix(mix(seed) + stream) + index)) {}

  /// 64 random bits.
  std::uint64_t bits() { return mix(key_ + ++count_); }

  /// [0, 1)
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }

  double uniform(double least, double most) { return least + (most - least) * uniform(); }

  /// Bell-shaped, mean 0, within [-spread, spread]: the mean of three uniform numbers. No libm.
  double bell(double spread) {
    double sum = 0;
    for (int i = 0; i < 3; ++i) sum += uniform();  // not one expression: its order would be the compiler's choice
    return spread * (sum - 1.5) / 1.5;
  }

  /// 0 .. n-1
  std::uint64_t below(std::uint64_t n) { return (bits() >> 32) * n >> 32; }

 private:
  // The output step of splitmix64 (Steele, Lea, Flood 2014), one golden-ratio step ahead so that 0 is no fixed point.
  static std::uint64_t mix(std::uint64_t z) {
    z += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }

  std::uint64_t key_, count_ = 0;
};

}  // namespace pc::experiments

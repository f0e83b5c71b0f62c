// Random numbers one after another, for whatever is made before any device runs.
#pragma once

#include "kernels/philox.h"

namespace pc {

/// The numbers of one stream: the same for the same arguments, everywhere. Streams and draws as in philox::bits.
class Draws {
 public:
  Draws(std::uint64_t seed, Purpose purpose, std::uint32_t stream, std::uint64_t draw)
      : seed_(seed), purpose_(purpose), stream_(stream), draw_(draw) {}

  std::uint64_t bits() { return philox::bits(seed_, purpose_, stream_, draw_, next_++); }
  /// In (0, 1).
  double uniform() { return philox::uniform(bits()); }
  /// A whole number in [0, n), n < 2^31.
  std::int64_t below(std::int64_t n) {
    return static_cast<std::int64_t>((bits() >> 32) * static_cast<std::uint64_t>(n) >> 32);
  }

 private:
  std::uint64_t seed_;
  Purpose purpose_;
  std::uint32_t stream_;
  std::uint64_t draw_, next_ = 0;
};

}  // namespace pc

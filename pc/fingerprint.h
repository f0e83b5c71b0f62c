// Whether something is what it was: a number for it, the same on every little-endian machine.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace pc {

/// Of words in their order: another number for other words, but for a chance of 2^-64. No protection against malice.
class Fingerprint {
 public:
  void add(std::uint64_t word) { hash_ = (hash_ ^ word) * 1099511628211ULL ^ (hash_ >> 29); }

  /// The bytes of numbers without padding, and how many there are.
  template <class T>
  void add_all(std::span<const T> list) {
    add(list.size());
    const auto bytes = std::as_bytes(list);
    for (std::size_t i = 0; i < bytes.size(); i += sizeof(std::uint64_t)) {
      std::uint64_t word = 0;
      std::memcpy(&word, &bytes[i], std::min(sizeof(word), bytes.size() - i));
      add(word);
    }
  }

  [[nodiscard]] std::uint64_t value() const { return hash_; }

 private:
  std::uint64_t hash_ = 14695981039346656037ULL;
};

}  // namespace pc

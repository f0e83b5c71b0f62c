// How CUDA kernels write operands, and read what products have rounded: see kernels/narrow.h.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <type_traits>

#include "kernels/launch.cuh"
#include "kernels/narrow.h"

namespace pc::cu {

/// Stores entries as an operand; nothing where there is nowhere to.
class Narrow {
 public:
  Narrow() = default;
  explicit Narrow(const kernels::Narrowed& to)
      : data_(to.y.data),
        overflow_(to.overflow.as<double>()),
        ld_(to.y.ld()),
        half_(to.y.dtype == DType::f16),
        scale_(std::ldexp(1.0F, to.y.exponent)) {}

  template <class T>
  __device__ void operator()(std::int64_t row, std::int64_t col, T value) const {
    (*this)(At<1>{row, col}, Pack<T, 1>{value});
  }
  template <class T, int n>
  __device__ void operator()(At<n> at, const Pack<T, n>& value) const {
    if constexpr (std::is_same_v<T, float>) {
      if (data_ == nullptr) return;
      std::uint16_t* const to = static_cast<std::uint16_t*>(data_) + at.row * ld_ + at.col;
      Pack<std::uint16_t, n> bits;
      for (int i = 0; i < n; ++i)
        bits[i] = half_ ? half(value[i]) : __bfloat16_as_ushort(__float2bfloat16_rn(scale_ * value[i]));
      if constexpr (n == 4) {  // as one: entry by entry each would be a store of two bytes
        *reinterpret_cast<uint2*>(to) = {bits[0] | std::uint32_t{bits[1]} << 16,
                                         bits[2] | std::uint32_t{bits[3]} << 16};
      } else if constexpr (n == 2) {
        *reinterpret_cast<std::uint32_t*>(to) = bits[0] | std::uint32_t{bits[1]} << 16;
      } else {
        for (int i = 0; i < n; ++i) to[i] = bits[i];
      }
    }
  }
  /// Whether `n` entries may be written at once.
  template <int n = 4>
  [[nodiscard]] bool packs() const {
    return data_ == nullptr ||
           (ld_ % n == 0 && reinterpret_cast<std::uintptr_t>(data_) % (n * sizeof(std::uint16_t)) == 0);
  }

 private:
  __device__ std::uint16_t half(float value) const {
    const __half rounded = __float2half_rn(scale_ * value);
    if (__hisinf(rounded) != 0 && !isinf(value)) *overflow_ = 1.0;  // whoever writes, writes the same
    return __half_as_ushort(rounded);
  }

  void* data_ = nullptr;
  double* overflow_ = nullptr;
  std::int64_t ld_ = 0;
  bool half_ = false;
  float scale_ = 1;
};

/// Entries of T, or float32 ones that a product has rounded to bfloat16. False where there are none.
template <class T>
class Rounded {
 public:
  Rounded() = default;
  explicit Rounded(const View& v) : data_(v.data), ld_(v.ld()), rounded_(v.dtype == DType::bf16) {}

  __device__ explicit operator bool() const { return data_ != nullptr; }
  /// The entries, or zeros where there are none.
  template <int n>
  __device__ Pack<T, n> or_zero(At<n> at) const {
    if (data_ == nullptr) return {};
    const std::int64_t place = at.row * ld_ + at.col;
    if constexpr (std::is_same_v<T, float>) {
      if (rounded_) {
        const auto short_ones =
            *reinterpret_cast<const Pack<__nv_bfloat16, n>*>(static_cast<const __nv_bfloat16*>(data_) + place);
        Pack<T, n> entries;
        for (int i = 0; i < n; ++i) entries[i] = __bfloat162float(short_ones[i]);
        return entries;
      }
    }
    return *reinterpret_cast<const Pack<T, n>*>(static_cast<const T*>(data_) + place);
  }
  /// Whether packs may be read.
  [[nodiscard]] bool packs() const {
    const std::size_t bytes = kPack<T> * (rounded_ ? sizeof(__nv_bfloat16) : sizeof(T));
    return data_ == nullptr || (ld_ % kPack<T> == 0 && reinterpret_cast<std::uintptr_t>(data_) % bytes == 0);
  }

 private:
  const void* data_ = nullptr;
  std::int64_t ld_ = 0;
  bool rounded_ = false;
};

}  // namespace pc::cu

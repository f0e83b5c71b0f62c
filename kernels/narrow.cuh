// How CUDA kernels write operands: see kernels/narrow.h.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <type_traits>

#include "kernels/narrow.h"

namespace pc::cu {

/// Stores an entry as an operand; nothing where there is nowhere to.
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
    if constexpr (std::is_same_v<T, float>) {
      if (data_ == nullptr) return;
      const float scaled = scale_ * value;
      if (!half_) {
        static_cast<__nv_bfloat16*>(data_)[row * ld_ + col] = __float2bfloat16_rn(scaled);
        return;
      }
      const __half rounded = __float2half_rn(scaled);
      static_cast<__half*>(data_)[row * ld_ + col] = rounded;
      if (__hisinf(rounded) != 0 && !isinf(value)) *overflow_ = 1.0;  // whoever writes, writes the same
    }
  }

 private:
  void* data_ = nullptr;
  double* overflow_ = nullptr;
  std::int64_t ld_ = 0;
  bool half_ = false;
  float scale_ = 1;
};

}  // namespace pc::cu

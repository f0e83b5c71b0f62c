#include "kernels/narrow.h"

#include <Eigen/Core>
#include <cmath>

#include "kernels/loops.h"
#include "kernels/scalar_math.h"

namespace pc::kernels {

void narrow_row(const Narrowed& to, std::int64_t row, const float* x) {
  if (to.y.empty()) return;
  const float scale = std::ldexp(1.0F, to.y.exponent);
  const std::int64_t n = to.y.cols();
  if (to.y.dtype == DType::bf16) {
    auto* y = to.y.row<Eigen::bfloat16>(row);
    for (std::int64_t i = 0; i < n; ++i) y[i] = Eigen::bfloat16(scale * x[i]);
    return;
  }
  auto* y = to.y.row<Eigen::half>(row);
  bool overflow = false;
  for (std::int64_t i = 0; i < n; ++i) {
    y[i] = Eigen::half(scale * x[i]);
    overflow = overflow || (Eigen::numext::isinf(y[i]) && !std::isinf(x[i]));
  }
  if (overflow) __atomic_store_n(to.overflow.as<std::uint64_t>(), std::uint64_t{0x3FF0000000000000}, __ATOMIC_RELAXED);
}

void narrow_cpu(const NarrowArgs& args, Share share) {
  each_row(share, args.x.rows(), [&](std::int64_t row) { narrow_row(args.to, row, args.x.row<float>(row)); });
}

void round_result(const View& result, Share share, const std::function<void(const View& y)>& compute) {
  std::vector<float> memory(static_cast<std::size_t>(result.count()));
  const View y{memory.data(), result.shape, DType::f32, Device::cpu, 0};
  compute(y);
  each_row(share, result.rows(), [&](std::int64_t row) { narrow_row({.y = result}, row, y.row<float>(row)); });
}

float widened(const View& operand, std::int64_t row, std::int64_t col) {
  if (operand.dtype == DType::f16) return static_cast<float>(operand.row<Eigen::half>(row)[col]);
  if (operand.dtype == DType::bf16) return static_cast<float>(operand.row<Eigen::bfloat16>(row)[col]);
  const float x = operand.row<float>(row)[col];
  if (operand.dtype != DType::tf32 || !std::isfinite(x)) return x;
  const auto bits = scalar::bits_of_float(x) + 0x1000U;  // to the nearest, ties away from zero
  return scalar::float_of_bits(static_cast<std::int32_t>(bits & 0xFFFFE000U));
}

}  // namespace pc::kernels

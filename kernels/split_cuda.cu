#include "kernels/split.h"

#include "kernels/launch.cuh"
#include "kernels/narrow.cuh"

namespace pc::kernels {
namespace {

/// What a tf32 number holds of x: ten bits, to the nearest, ties away from zero.
__device__ float tf32_of(float x) {
  return isfinite(x) ? __uint_as_float((__float_as_uint(x) + 0x1000U) & 0xFFFFE000U) : x;
}

}  // namespace

void split_cuda(const SplitArgs& s, CudaContext& context) {
  const auto x = cu::matrix<float>(s.x);
  const std::int64_t run = s.run;
  const int rest = s.weights ? 2 : 1;
  if (s.y.dtype == DType::tf32) {
    cu::each_entry(s.x.rows(), s.x.cols(), context.stream,
                   [=, y = cu::matrix<float>(s.y)] __device__(std::int64_t row, std::int64_t col) {
                     const float entry = x(row, col), held = tf32_of(entry);
                     for (int part = 0; part < 3; ++part) {
                       y(row, SplitArgs::place(col, run, part)) = part == rest ? tf32_of(entry - held) : held;
                     }
                   });
    return;
  }
  cu::each_entry(s.x.rows(), s.x.cols(), context.stream,
                 [=, y = cu::Narrow({s.y, s.overflow}), half = s.y.dtype == DType::f16] __device__(std::int64_t row,
                                                                                                   std::int64_t col) {
                   const float entry = x(row, col);
                   const float held =
                       half ? __half2float(__float2half_rn(entry)) : __bfloat162float(__float2bfloat16_rn(entry));
                   for (int part = 0; part < 3; ++part) {
                     y(row, SplitArgs::place(col, run, part), part == rest ? entry - held : entry);
                   }
                 });
}

}  // namespace pc::kernels

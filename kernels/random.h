// Random numbers into a view, the same on every device: entry i depends on (seed, purpose, stream, draw, i) alone.
#pragma once

#include "kernels/kernel.h"
#include "kernels/philox.h"
#include "kernels/write.h"

namespace pc::kernels {

enum class Distribution : std::uint8_t {
  uniform,  // in (a, b)
  normal,   // mean a, standard deviation b
  keep      // b with probability a, else 0
};

/// out (=|+=) random, where `mask` (one entry per column or per entry; empty: everywhere) is not zero. The draw number
/// is `draw` plus the float64 scalar `step`, where one is given.
struct RandomArgs {
  View out;
  Distribution distribution = Distribution::normal;
  double a = 0, b = 1;
  std::uint64_t seed = 0;
  Purpose purpose = Purpose::weights;
  std::uint32_t stream = 0;
  std::uint64_t draw = 0;
  View step = {};
  Write write = Write::set;
  View mask = {};  // [1, cols] or [rows, cols]

  void check() const {
    with_float(out.dtype, [](auto) {});
    PC_CHECK(mask.empty() || (mask.cols() == out.cols() && (mask.rows() == 1 || mask.rows() == out.rows()) &&
                              mask.dtype == out.dtype),
             "random", "mask ", mask.shape.text(), " does not fit ", out.shape.text());
    if (!step.empty()) check_scalar("random", step);
  }
  void touches(Touches& t) const {
    t.write(out).read_all(step);
    if (mask.rows() == 1) {
      t.read_all(mask);
    } else {
      t.read(mask);
    }
  }
  [[nodiscard]] double flops() const { return static_cast<double>(out.count()); }
};

void random_cpu(const RandomArgs&, Share);
void random_cuda(const RandomArgs&, CudaContext&);

inline constexpr Kernel<RandomArgs> random{"random", random_cpu, PC_CUDA(random_cuda)};

/// The number for one entry; `draw` already includes the step.
PC_HD double random_entry(Distribution distribution, double a, double b, std::uint64_t bits) {
  const double u = philox::uniform(bits);
  if (distribution == Distribution::keep) return u < a ? b : 0;
  return distribution == Distribution::uniform ? philox::madd(b - a, u, a) : philox::madd(b, philox::normal(u), a);
}

}  // namespace pc::kernels

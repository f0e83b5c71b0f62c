// rotate: rotary positions (Su et al. 2021, "RoFormer"). A row is a sequence of tokens, a token a run of heads; in each
// head the pair (2i, 2i + 1) is turned by the token's place times base^(-2i / head).
#pragma once

#include <cmath>

#include "kernels/kernel.h"
#include "kernels/scalar_math.h"
#include "kernels/write.h"

namespace pc::kernels {

/// y (=|+=) x turned, token by token of `width` entries, of which the first `count` are heads of `head` entries and the
/// others stay. `back` turns the other way, which is the transpose.
struct RotateArgs {
  View x, y;
  std::int64_t width = 0, head = 0, count = 0;
  double base = 10000;
  bool back = false;
  Write write = Write::set;

  void check() const {
    check_alike("rotate", x, y);
    PC_CHECK(width > 0 && x.cols() % width == 0 && head > 0 && head % 2 == 0 && count <= width && count % head == 0,
             "rotate", "tokens of ", width, " with ", count, " entries in heads of ", head, " do not fit ",
             x.shape.text());
  }
  void touches(Touches& t) const { t.read(x).write(y); }
  [[nodiscard]] double flops() const { return 3.0 * static_cast<double>(x.count()); }
};

/// Cosine and sine of the angle by which a pair of a head is turned at a place.
struct Turn {
  double cosine, sine;
};
PC_HD Turn turn_of(const RotateArgs& r, std::int64_t place, std::int64_t pair) {
  const double angle =
      static_cast<double>(place) * std::pow(r.base, -2.0 * static_cast<double>(pair) / static_cast<double>(r.head));
  return {std::cos(angle), (r.back ? -1.0 : 1.0) * std::sin(angle)};
}

void rotate_cpu(const RotateArgs&, Share);
void rotate_cuda(const RotateArgs&, CudaContext&);

inline constexpr Kernel<RotateArgs> rotate{"rotate", rotate_cpu, PC_CUDA(rotate_cuda)};

}  // namespace pc::kernels

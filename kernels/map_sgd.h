// One step of a node that others read through one activation alone: what came back to the activation is pulled through
// it, the values move, and the activation is made anew, in one pass.
#pragma once

#include "kernels/kernel.h"
#include "kernels/narrow.h"
#include "kernels/scalar_math.h"
#include "kernels/write.h"

namespace pc::kernels {

using scalar::Activation;

/// g = own - f'(x) dy;  velocity <- momentum velocity + g;  x <- x - rate velocity;  y = f(x).   All [rows, cols]. An
/// empty own counts as zero; without momentum the velocity may be empty.
struct MapSgdArgs {
  View x, y, dy;
  View own = {}, velocity = {};
  Activation f = Activation::identity;
  double leak = 0.01;
  double rate = 0.1, momentum = 0;
  View bound = {};       // float64 scalar that multiplies the rate; empty: 1
  Narrowed narrow = {};  // y

  void check() const {
    check_alike("map_sgd", x, y);
    check_alike("map_sgd", x, dy);
    if (!own.empty()) check_alike("map_sgd", x, own);
    if (!velocity.empty()) check_alike("map_sgd", x, velocity);
    PC_CHECK(momentum == 0 || !velocity.empty(), "map_sgd", "momentum needs a velocity");
    if (!bound.empty()) check_scalar("map_sgd", bound);
    narrow.check("map_sgd", y);
  }
  void touches(Touches& t) const {
    t.write(x).write(y).read(dy).read(own).write(velocity).read_all(bound);
    narrow.touches(t);
  }
  [[nodiscard]] double flops() const { return 8.0 * static_cast<double>(x.count()); }
};

void map_sgd_cpu(const MapSgdArgs&, Share);
void map_sgd_cuda(const MapSgdArgs&, CudaContext&);
void map_sgd_cuda_together(std::span<const MapSgdArgs* const>, CudaContext&);

inline constexpr Kernel<MapSgdArgs> map_sgd{"map_sgd", map_sgd_cpu, PC_CUDA(map_sgd_cuda),
                                            [](const MapSgdArgs& a) { return alike_if_same(a.x.dtype, a.f); },
                                            PC_CUDA(map_sgd_cuda_together)};

}  // namespace pc::kernels

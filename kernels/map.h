// map: y = f(x), entry by entry, and its pull-back dx = f'(x) dy.
#pragma once

#include "kernels/kernel.h"
#include "kernels/narrow.h"
#include "kernels/scalar_math.h"
#include "kernels/write.h"

namespace pc::kernels {

using scalar::Activation;

/// y (=|+=) f(x); all [rows, cols].
struct MapArgs {
  View x, y;
  Activation f = Activation::identity;
  double leak = 0.01;  // leaky_relu's slope below zero
  Write write = Write::set;
  Narrowed narrow = {};  // y

  void check() const {
    check_alike("map", x, y);
    narrow.check("map", y);
  }
  void touches(Touches& t) const {
    t.read(x).write(y);
    narrow.touches(t);
  }
  [[nodiscard]] double flops() const { return static_cast<double>(y.count()); }
};

/// dx (=|+=) f'(x) dy; all [rows, cols].
struct MapPullbackArgs {
  View x, dy, dx;
  Activation f = Activation::identity;
  double leak = 0.01;
  Write write = Write::set;

  void check() const {
    check_alike("map_pullback", x, dx);
    check_alike("map_pullback", dy, dx);
  }
  void touches(Touches& t) const { t.read(x).read(dy).write(dx); }
  [[nodiscard]] double flops() const { return static_cast<double>(dx.count()); }
};

void map_cpu(const MapArgs&, Share);
void map_cuda(const MapArgs&, CudaContext&);
void map_cuda_together(std::span<const MapArgs* const>, CudaContext&);
void map_pullback_cpu(const MapPullbackArgs&, Share);
void map_pullback_cuda(const MapPullbackArgs&, CudaContext&);
void map_pullback_cuda_together(std::span<const MapPullbackArgs* const>, CudaContext&);

inline constexpr Kernel<MapArgs> map{"map", map_cpu, PC_CUDA(map_cuda),
                                     [](const MapArgs& m) { return alike_if_same(m.y.dtype, m.f); },
                                     PC_CUDA(map_cuda_together)};
inline constexpr Kernel<MapPullbackArgs> map_pullback{
    "map_pullback", map_pullback_cpu, PC_CUDA(map_pullback_cuda),
    [](const MapPullbackArgs& m) { return alike_if_same(m.dx.dtype, m.f); }, PC_CUDA(map_pullback_cuda_together)};

}  // namespace pc::kernels

// Predictions and errors by how far they are from where a relaxation began. After a feedforward start errors are tiny
// beside the values that they are differences of; computed from changes they keep their digits, and so do products of
// changes with operands of few bits.
#pragma once

#include "kernels/kernel.h"
#include "kernels/narrow.h"
#include "kernels/scalar_math.h"
#include "kernels/write.h"

namespace pc::kernels {

using scalar::Activation;

/// y (=|+=) f(x + dx) - f(x); all [rows, cols].
struct MapChangeArgs {
  View x, dx, y;
  Activation f = Activation::identity;
  double leak = 0.01;
  Write write = Write::set;
  Narrowed narrow = {};  // y

  void check() const {
    check_alike("map_change", x, dx);
    check_alike("map_change", x, y);
    narrow.check("map_change", y);
  }
  void touches(Touches& t) const {
    t.read(x).read(dx).write(y);
    narrow.touches(t);
  }
  [[nodiscard]] double flops() const { return 2.0 * static_cast<double>(y.count()); }
};

/// The error of a Gaussian prediction mu = f(z):
///   e = start + dx - (f(z + change) - f(z));  delta = p e;  dz = p e f'(z + change);  energy = 1/2 sum p e^2
/// All [rows, cols]. Empty views: no error at the start; a value, or a pre-activation, that has not moved; a dz that is
/// wanted as an operand alone. Without an activation z is not needed, and dz is delta: leave both empty. `change` may
/// have been rounded to bfloat16.
struct ChangeErrorArgs {
  View delta;
  View start = {}, dx = {}, z = {}, change = {};
  View dz = {}, energy = {};
  Activation f = Activation::identity;
  double leak = 0.01;
  double precision = 1.0;
  View precisions = {};  // one per column, multiplies `precision`
  Narrowed narrow = {};  // what goes on to the edge: dz, or without an activation delta

  void check() const {
    for (const View* view : {&start, &dx, &z, &dz}) {
      if (!view->empty()) check_alike("change_error", delta, *view);
    }
    if (!change.empty()) check_alike_or_rounded("change_error", delta, change);
    PC_CHECK(f == Activation::identity || !z.empty(), "change_error", "an activation needs what it is applied to");
    PC_CHECK(energy.empty() || (energy.count() == delta.rows() && energy.dtype == DType::f64), "change_error",
             "energy must be float64, one per row");
    PC_CHECK(precisions.empty() || (precisions.count() == delta.cols() && precisions.dtype == delta.dtype),
             "change_error", "precisions must be one per column");
    narrow.check("change_error", delta);
  }
  void touches(Touches& t) const {
    t.read(start).read(dx).read(z).read(change).read_all(precisions).write(delta).write(dz).write(energy);
    narrow.touches(t);
  }
  [[nodiscard]] double flops() const { return 8.0 * static_cast<double>(delta.count()); }
};

/// y = x + dx; all [rows, cols].
struct AddChangeArgs {
  View x, dx, y;
  Narrowed narrow = {};  // y

  void check() const {
    check_alike("add_change", x, dx);
    check_alike("add_change", x, y);
    narrow.check("add_change", y);
  }
  void touches(Touches& t) const {
    t.read(x).read(dx).write(y);
    narrow.touches(t);
  }
  [[nodiscard]] double flops() const { return static_cast<double>(y.count()); }
};

void map_change_cpu(const MapChangeArgs&, Share);
void map_change_cuda(const MapChangeArgs&, CudaContext&);
void map_change_cuda_together(std::span<const MapChangeArgs* const>, CudaContext&);
void change_error_cpu(const ChangeErrorArgs&, Share);
void change_error_cuda(const ChangeErrorArgs&, CudaContext&);
void change_error_cuda_together(std::span<const ChangeErrorArgs* const>, CudaContext&);
void add_change_cpu(const AddChangeArgs&, Share);
void add_change_cuda(const AddChangeArgs&, CudaContext&);
void add_change_cuda_together(std::span<const AddChangeArgs* const>, CudaContext&);

inline constexpr Kernel<MapChangeArgs> map_change{"map_change", map_change_cpu, PC_CUDA(map_change_cuda),
                                                  [](const MapChangeArgs& m) { return alike_if_same(m.y.dtype, m.f); },
                                                  PC_CUDA(map_change_cuda_together)};
inline constexpr Kernel<ChangeErrorArgs> change_error{
    "change_error", change_error_cpu, PC_CUDA(change_error_cuda),
    [](const ChangeErrorArgs& e) { return e.energy.empty() ? alike_if_same(e.delta.dtype, e.f) : 0; },
    PC_CUDA(change_error_cuda_together)};
inline constexpr Kernel<AddChangeArgs> add_change{"add_change", add_change_cpu, PC_CUDA(add_change_cuda),
                                                  [](const AddChangeArgs& a) { return alike_if_same(a.y.dtype); },
                                                  PC_CUDA(add_change_cuda_together)};

}  // namespace pc::kernels

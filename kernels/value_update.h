// Moves the values of a node down the energy: x <- x - step(g), g = dF/dx = own - back.
#pragma once

#include "kernels/kernel.h"
#include "kernels/narrow.h"
#include "kernels/write.h"

namespace pc::kernels {

/// What every stepper needs. All [rows, cols]; an empty own or back counts as zero.
struct ValueGradient {
  View x;
  View own = {};               // pull of the node's own predictions
  View back = {};              // pulled back from the predictions that the node feeds; may be rounded to bfloat16
  View free = {};              // not zero where an entry may move: [1, cols] or [rows, cols]; empty: everywhere
  View steepest = {};          // largest |g| of each row, float64 [rows]; empty: not wanted
  View from = {}, whole = {};  // where x is a change: whole = from + x, of every entry; empty: not wanted
  Narrowed narrow = {};        // x

  void check() const {
    if (!own.empty()) check_alike("value_update", x, own);
    if (!back.empty()) check_alike_or_rounded("value_update", x, back);
    PC_CHECK(free.empty() || (free.cols() == x.cols() && (free.rows() == 1 || free.rows() == x.rows())), "value_update",
             "mask ", free.shape.text(), " does not fit ", x.shape.text());
    PC_CHECK(steepest.empty() || (steepest.count() == x.rows() && steepest.dtype == DType::f64), "value_update",
             "steepest must be float64, one per row");
    PC_CHECK(from.empty() == whole.empty(), "value_update", "from and whole go together");
    if (!from.empty()) check_alike("value_update", x, from);
    if (!whole.empty()) check_alike("value_update", x, whole);
    narrow.check("value_update", x);
  }
  void touches(Touches& t) const {
    t.write(x).read(own).read(back).write(steepest).read(from).write(whole);
    narrow.touches(t);
    if (free.rows() == 1) {
      t.read_all(free);
    } else {
      t.read(free);
    }
  }
};

/// Heavy-ball momentum: velocity <- momentum velocity + g;  x <- x - rate velocity.
/// Without momentum the velocity may be empty.
struct ValueSgdArgs {
  ValueGradient g;
  View velocity = {};
  double rate = 0.1, momentum = 0;
  View bound = {};  // float64 scalar that multiplies the rate; empty: 1

  void check() const {
    g.check();
    PC_CHECK(momentum == 0 || !velocity.empty(), "value_sgd", "momentum needs a velocity");
    if (!velocity.empty()) check_alike("value_sgd", g.x, velocity);
    if (!bound.empty()) check_scalar("value_sgd", bound);
  }
  void touches(Touches& t) const {
    g.touches(t);
    t.write(velocity).read_all(bound);
  }
  [[nodiscard]] double flops() const { return 4.0 * static_cast<double>(g.x.count()); }
};

/// Adam (Kingma & Ba 2015, algorithm 1) on values. `step` is a float64 scalar that counts value steps from 1.
struct ValueAdamArgs {
  ValueGradient g;
  View m, v, step;
  double rate = 0.1, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;

  void check() const {
    g.check();
    check_alike("value_adam", g.x, m);
    check_alike("value_adam", g.x, v);
    check_scalar("value_adam", step);
  }
  void touches(Touches& t) const {
    g.touches(t);
    t.write(m).write(v).read_all(step);
  }
  [[nodiscard]] double flops() const { return 10.0 * static_cast<double>(g.x.count()); }
};

void value_sgd_cpu(const ValueSgdArgs&, Share);
void value_sgd_cuda(const ValueSgdArgs&, CudaContext&);
void value_sgd_cuda_together(std::span<const ValueSgdArgs* const>, CudaContext&);
void value_adam_cpu(const ValueAdamArgs&, Share);
void value_adam_cuda(const ValueAdamArgs&, CudaContext&);

inline constexpr Kernel<ValueSgdArgs> value_sgd{
    "value_sgd", value_sgd_cpu, PC_CUDA(value_sgd_cuda),
    [](const ValueSgdArgs& a) { return a.g.steepest.empty() ? alike_if_same(a.g.x.dtype) : 0; },
    PC_CUDA(value_sgd_cuda_together)};
inline constexpr Kernel<ValueAdamArgs> value_adam{"value_adam", value_adam_cpu, PC_CUDA(value_adam_cuda)};

}  // namespace pc::kernels

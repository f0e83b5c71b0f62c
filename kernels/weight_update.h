// Optimisers: move weights along dw, which is -dF/dw summed over the batch and so already points downhill.
#pragma once

#include "kernels/kernel.h"
#include "kernels/narrow.h"

namespace pc::kernels {

/// What every optimiser needs. w, dw [rows, cols].
struct WeightGradient {
  View w;
  View dw = {};          // empty: zero
  View mask = {};        // [rows, cols]; where it is zero the weight is left as it is; empty: everywhere
  View rate;             // float64 scalar
  View clip = {};        // float64 scalar that multiplies the gradient; empty: 1
  double scale = 1;      // multiplies dw: 1 / batch for the mean
  Narrowed narrow = {};  // an operand of w, which is kept up with it; what does not move is not written again
  // Where `start` is not empty: how far w is from it after the update goes to `moved`, as it is and as an operand.
  View start = {}, moved = {};  // [rows, cols]
  Narrowed moved_operand = {};

  void check() const {
    if (!dw.empty()) check_alike("weight_update", w, dw);
    narrow.check("weight_update", w);
    if (!start.empty()) check_alike("weight_update", w, start);
    if (!moved.empty()) check_alike("weight_update", w, moved);
    moved_operand.check("weight_update", w);
    if (!mask.empty()) check_alike("weight_update", w, mask);
    check_scalar("weight_update", rate);
    if (!clip.empty()) check_scalar("weight_update", clip);
  }
  void touches(Touches& t) const {
    t.write(w).read(dw).read(mask).read_all(rate).read_all(clip).read(start).write(moved);
    narrow.touches(t);
    moved_operand.touches(t);
  }
};

/// velocity <- momentum velocity + g, g = dw - decay w;  w += rate velocity. Without momentum velocity may be empty.
struct WeightSgdArgs {
  WeightGradient g;
  View velocity = {};
  double momentum = 0, decay = 0;

  void check() const {
    g.check();
    PC_CHECK(momentum == 0 || !velocity.empty(), "weight_sgd", "momentum needs a velocity");
    if (!velocity.empty()) check_alike("weight_sgd", g.w, velocity);
  }
  void touches(Touches& t) const {
    g.touches(t);
    t.write(velocity);
  }
  [[nodiscard]] double flops() const { return 5.0 * static_cast<double>(g.w.count()); }
};

/// Adam (Kingma & Ba 2015, algorithm 1). With `decoupled`, decay shrinks the weight itself (AdamW, Loshchilov & Hutter
/// 2019, algorithm 2); else it is added to the gradient. `step` is a float64 scalar that counts updates from 1.
struct WeightAdamArgs {
  WeightGradient g;
  View m, v, step;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, decay = 0;
  bool decoupled = true;

  void check() const {
    g.check();
    check_alike("weight_adam", g.w, m);
    check_alike("weight_adam", g.w, v);
    check_scalar("weight_adam", step);
  }
  void touches(Touches& t) const {
    g.touches(t);
    t.write(m).write(v).read_all(step);
  }
  [[nodiscard]] double flops() const { return 12.0 * static_cast<double>(g.w.count()); }
  /// Whether there is nothing to do where m and v are zero.
  [[nodiscard]] bool rests() const { return g.dw.empty() && g.start.empty() && decay == 0; }
};

void weight_sgd_cpu(const WeightSgdArgs&, Share);
void weight_sgd_cuda(const WeightSgdArgs&, CudaContext&);
void weight_adam_cpu(const WeightAdamArgs&, Share);
void weight_adam_cuda(const WeightAdamArgs&, CudaContext&);
void weight_adam_cuda_together(std::span<const WeightAdamArgs* const>, CudaContext&);

inline constexpr Kernel<WeightSgdArgs> weight_sgd{"weight_sgd", weight_sgd_cpu, PC_CUDA(weight_sgd_cuda)};
inline constexpr Kernel<WeightAdamArgs> weight_adam{"weight_adam", weight_adam_cpu, PC_CUDA(weight_adam_cuda),
                                                    [](const WeightAdamArgs& a) {
                                                      return alike_if_same(a.g.w.dtype, a.g.rate.data, a.g.clip.data,
                                                                           a.g.scale, a.step.data, a.beta1, a.beta2,
                                                                           a.decay, a.decoupled);
                                                    },
                                                    PC_CUDA(weight_adam_cuda_together)};

}  // namespace pc::kernels

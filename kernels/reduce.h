// Sums in a fixed order, into float64 scalars, and the small scalar kernels that a training step needs.
#pragma once

#include <numbers>

#include "kernels/kernel.h"
#include "kernels/write.h"

namespace pc::kernels {

/// out (=|+=) scale * sum of all entries of in (float32 or float64).
struct SumArgs {
  View in, out;
  double scale = 1;
  bool squares = false;  // sum the squares instead
  Write write = Write::set;

  void check() const {
    check_scalar("sum", out);
    PC_CHECK(in.dtype == DType::f32 || in.dtype == DType::f64, "sum", "needs float32 or float64");
  }
  void touches(Touches& t) const { t.read_all(in).write_all(out); }
  [[nodiscard]] double flops() const { return static_cast<double>(in.count()); }
  /// Whether one block of a GPU adds it up.
  [[nodiscard]] bool is_short() const { return in.count() < 16384; }
};

/// out = max(out, largest entry of in); in float64 and not negative. NaN wins and stays.
struct LargestArgs {
  View in, out;
  Write write = Write::set;  // set: forget what out was

  void check() const {
    check_scalar("largest", out);
    PC_CHECK(in.dtype == DType::f64, "largest", "needs float64");
  }
  void touches(Touches& t) const { t.read_all(in).write_all(out); }
  [[nodiscard]] double flops() const { return static_cast<double>(in.count()); }
};

/// clip = min(1, limit / sqrt(square_norm)); scalars.
struct ClipArgs {
  View square_norm, clip;
  double limit = 1;

  void check() const {
    check_scalar("clip", square_norm);
    check_scalar("clip", clip);
  }
  void touches(Touches& t) const { t.read_all(square_norm).write_all(clip); }
  [[nodiscard]] double flops() const { return 1; }
};

/// counter += by; a scalar.
struct TickArgs {
  View counter;
  double by = 1;

  void check() const { check_scalar("tick", counter); }
  void touches(Touches& t) const { t.write_all(counter); }
  [[nodiscard]] double flops() const { return 1; }
};

/// How a learning rate moves with the number of updates done so far.
enum class RateKind : std::uint8_t {
  constant,
  cosine,        // base -> floor over `total` updates, half a cosine
  warmup_cosine  // 0 -> base over `warmup` updates in a line, then the cosine over the rest
};

/// rate = schedule(step - 1), so that the first update (step = 1) is the schedule's start; scalars.
struct RateArgs {
  View step, rate;
  RateKind kind = RateKind::constant;
  double base = 1e-3, floor = 0, warmup = 0, total = 1;

  void check() const {
    check_scalar("rate", step);
    check_scalar("rate", rate);
  }
  void touches(Touches& t) const { t.read_all(step).write_all(rate); }
  [[nodiscard]] double flops() const { return 1; }
};

/// How strongly a target is nudged in this batch, the counter-th: beta and its inverse; scalars.
///   |beta| = min(limit, |base| + growth floor(n / per_epoch)),  n = counter - 1 batches done before.
/// beta has the sign of base, and with `alternate` the other one in every second batch: targets that are pulled at and
/// pushed away by turns (Pinchetti et al. 2025).
struct NudgeStrengthArgs {
  View counter, beta, inverse;
  double base = 1, growth = 0, limit = 1, per_epoch = 1;
  bool alternate = false;

  void check() const {
    check_scalar("nudge_strength", counter);
    check_scalar("nudge_strength", beta);
    check_scalar("nudge_strength", inverse);
    PC_CHECK(base != 0 && growth >= 0 && limit > 0 && per_epoch > 0, "nudge_strength",
             "beta must never be 0: base cannot be 0, growth not below 0, limit and per_epoch must be above 0");
  }
  void touches(Touches& t) const { t.read_all(counter).write_all(beta).write_all(inverse); }
  [[nodiscard]] double flops() const { return 1; }
};

void sum_cpu(const SumArgs&, Share);
void sum_cuda(const SumArgs&, CudaContext&);
void sum_cuda_together(std::span<const SumArgs* const>, CudaContext&);
void largest_cpu(const LargestArgs&, Share);
void largest_cuda(const LargestArgs&, CudaContext&);
void clip_cpu(const ClipArgs&, Share);
void clip_cuda(const ClipArgs&, CudaContext&);
void tick_cpu(const TickArgs&, Share);
void tick_cuda(const TickArgs&, CudaContext&);
void rate_cpu(const RateArgs&, Share);
void rate_cuda(const RateArgs&, CudaContext&);
void nudge_strength_cpu(const NudgeStrengthArgs&, Share);
void nudge_strength_cuda(const NudgeStrengthArgs&, CudaContext&);

inline constexpr Kernel<SumArgs> sum{
    "sum", sum_cpu, PC_CUDA(sum_cuda),
    [](const SumArgs& s) { return s.is_short() ? alike_if_same(s.in.dtype, s.in.count()) : std::size_t{0}; },
    PC_CUDA(sum_cuda_together)};
inline constexpr Kernel<LargestArgs> largest{"largest", largest_cpu, PC_CUDA(largest_cuda)};
inline constexpr Kernel<ClipArgs> clip{"clip", clip_cpu, PC_CUDA(clip_cuda)};
inline constexpr Kernel<TickArgs> tick{"tick", tick_cpu, PC_CUDA(tick_cuda)};
inline constexpr Kernel<RateArgs> rate{"rate", rate_cpu, PC_CUDA(rate_cuda)};
inline constexpr Kernel<NudgeStrengthArgs> nudge_strength{"nudge_strength", nudge_strength_cpu,
                                                          PC_CUDA(nudge_strength_cuda)};

}  // namespace pc::kernels

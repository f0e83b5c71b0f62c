// Explicit Runge-Kutta steps of dx/dt = -k(x), with a step size that adapts: stages, the error of an embedded pair, the
// next step size, and the choice between a step that was accepted and where it began.
#pragma once

#include <array>

#include "kernels/kernel.h"
#include "kernels/write.h"

namespace pc::kernels {

/// How many slopes a stage may add up.
inline constexpr int kMaxSlopes = 4;

/// What a stage and its error estimate share. x, from and the slopes are alike, [rows, cols].
struct Slopes {
  View x, from;
  std::array<View, kMaxSlopes> k;
  int count = 1;   // of slopes
  View h = {};     // float64 scalar; empty: 1
  View free = {};  // not zero where an entry may move: [1, cols] or [rows, cols]; empty: everywhere

  void check(const char* who) const {
    check_alike(who, x, from);
    PC_CHECK(count >= 1 && count <= kMaxSlopes, who, "takes 1 to ", kMaxSlopes, " slopes, not ", count);
    for (int i = 0; i < count; ++i) check_alike(who, x, k[static_cast<std::size_t>(i)]);
    if (!h.empty()) check_scalar(who, h);
    PC_CHECK(free.empty() || (free.cols() == x.cols() && (free.rows() == 1 || free.rows() == x.rows())), who, "mask ",
             free.shape.text(), " does not fit ", x.shape.text());
  }
  void touches(Touches& t) const {
    t.read(from).read_all(h);
    for (int i = 0; i < count; ++i) t.read(k[static_cast<std::size_t>(i)]);
    if (free.rows() == 1) {
      t.read_all(free);
    } else {
      t.read(free);
    }
  }
};

/// x = from - s (a1 k1 + a2 k2 + ...) where free, s = step h; elsewhere x is left as it is. x may be from.
struct RkStageArgs {
  View x, from;
  std::array<View, kMaxSlopes> k;
  std::array<double, kMaxSlopes> a = {};
  int count = 1;
  View h = {};
  double step = 1;
  View free = {};

  [[nodiscard]] Slopes slopes() const { return {x, from, k, count, h, free}; }
  void check() const { slopes().check("rk_stage"); }
  void touches(Touches& t) const {
    slopes().touches(t);
    t.write(x);
  }
  [[nodiscard]] double flops() const { return 2.0 * (count + 1) * static_cast<double>(x.count()); }
};

/// worst[row] = largest |s (e1 k1 + e2 k2 + ...)| / (absolute + relative max(|x|, |from|)) of the row where free, in
/// float64, s = step h. NaN wins.
struct RkErrorArgs {
  View x, from;
  std::array<View, kMaxSlopes> k;
  std::array<double, kMaxSlopes> e = {};
  int count = 1;
  View h = {};
  double step = 1, absolute = 1e-6, relative = 1e-3;
  View worst;      // float64 [rows]
  View free = {};  // an entry that is held has no error, whatever its slopes

  [[nodiscard]] Slopes slopes() const { return {x, from, k, count, h, free}; }
  void check() const {
    slopes().check("rk_error");
    PC_CHECK(worst.count() == x.rows() && worst.dtype == DType::f64, "rk_error", "worst must be float64, one per row");
    PC_CHECK(absolute > 0 && relative >= 0, "rk_error", "tolerances must be above 0 (the relative one may be 0), not ",
             absolute, " and ", relative);
  }
  void touches(Touches& t) const {
    slopes().touches(t);
    t.read(x).write(worst);
  }
  [[nodiscard]] double flops() const { return 2.0 * (count + 2) * static_cast<double>(x.count()); }
};

/// Looks at the error of a step, in units of what is tolerated; float64 scalars:
///   accepted = error <= 1;  time += h if accepted;  h = min(most, h clamp(0.9 error^(-1/order), 0.2, 5)).
/// NaN is not accepted, and makes h shorter.
struct StepControlArgs {
  View error, h, accepted, time;
  double order = 2, most = 1;

  void check() const {
    for (const View* v : {&error, &h, &accepted, &time}) check_scalar("step_control", *v);
    PC_CHECK(order > 0 && most > 0, "step_control", "order and most must be above 0, not ", order, " and ", most);
  }
  void touches(Touches& t) const { t.read_all(error).write_all(h).write_all(accepted).write_all(time); }
  [[nodiscard]] double flops() const { return 1; }
};

/// y = yes where the flag, a float64 scalar, is not 0, else no. y may be either.
struct ChooseArgs {
  View yes, no, y, flag;

  void check() const {
    check_alike("choose", yes, y);
    check_alike("choose", no, y);
    check_scalar("choose", flag);
  }
  void touches(Touches& t) const { t.read(yes).read(no).read_all(flag).write(y); }
  [[nodiscard]] double flops() const { return 0; }
};

void rk_stage_cpu(const RkStageArgs&, Share);
void rk_stage_cuda(const RkStageArgs&, CudaContext&);
void rk_error_cpu(const RkErrorArgs&, Share);
void rk_error_cuda(const RkErrorArgs&, CudaContext&);
void step_control_cpu(const StepControlArgs&, Share);
void step_control_cuda(const StepControlArgs&, CudaContext&);
void choose_cpu(const ChooseArgs&, Share);
void choose_cuda(const ChooseArgs&, CudaContext&);

inline constexpr Kernel<RkStageArgs> rk_stage{"rk_stage", rk_stage_cpu, PC_CUDA(rk_stage_cuda)};
inline constexpr Kernel<RkErrorArgs> rk_error{"rk_error", rk_error_cpu, PC_CUDA(rk_error_cuda)};
inline constexpr Kernel<StepControlArgs> step_control{"step_control", step_control_cpu, PC_CUDA(step_control_cuda)};
inline constexpr Kernel<ChooseArgs> choose{"choose", choose_cpu, PC_CUDA(choose_cuda)};

}  // namespace pc::kernels

// Max-pools of activations, and how far they are from where a relaxation began (kernels/change.h): the difference of
// two largest entries, from differences of entries at one place.
#pragma once

#include "kernels/change.h"
#include "kernels/pool.h"

namespace pc::kernels {

/// y = the largest f(z + bias) in each window; the bias has an entry for each channel, or is empty.
struct PoolMapArgs {
  View z, bias = {}, y;
  Window window;
  Activation f = Activation::identity;
  double leak = 0.01;

  void check() const {
    PoolArgs::check("pool_map", z, y, window, Pooling::max);
    check_bias("pool_map", bias, z, window);
    check_leak("pool_map", leak);
  }
  static void check_leak(const char* who, double leak) {
    PC_CHECK(leak >= 0, who, "with a slope of ", leak, " the largest is not where it is looked for");
  }
  static void check_bias(const char* who, const View& bias, const View& z, const Window& window) {
    PC_CHECK(bias.empty() || (bias.count() == window.channels && bias.dtype == z.dtype), who,
             "the bias must be one number per channel");
  }
  void touches(Touches& t) const { t.read(z).read_all(bias).write(y); }
  [[nodiscard]] double flops() const { return static_cast<double>(z.count()); }
};

/// y (=|+=) the largest entry of x + dx in each window, less the largest of x.
struct PoolChangeArgs {
  View x, dx, y;
  Window window;
  Write write = Write::set;

  void check() const {
    PoolArgs::check("pool_change", x, y, window, Pooling::max);
    check_alike("pool_change", x, dx);
  }
  void touches(Touches& t) const { t.read(x).read(dx).write(y); }
  [[nodiscard]] double flops() const { return 2.0 * static_cast<double>(x.count()); }
};

/// The error of a Gaussian prediction mu = pool(f(z)), over windows that lie side by side:
///   e = start + dx - (pool(f(z + change)) - top);  delta = p e;  energy = 1/2 sum p e^2
///   dz = p e f'(z + change) at the place of the largest of f(z + change), elsewhere 0
/// where `z` is less the bias, if there is one, of each channel.
/// delta, start, dx and top = pool(f(z)) have an entry for each window; z, change and dz are images. Empty views: no
/// error at the start; a value, or a pre-activation, that has not moved; a dz that is wanted as an operand alone.
/// `change` may have been rounded to bfloat16.
struct PoolErrorArgs {
  View delta, top, z, bias = {};
  View start = {}, dx = {}, change = {};
  View dz = {}, energy = {};
  Window window;
  Activation f = Activation::identity;
  double leak = 0.01;
  double precision = 1.0;
  View precisions = {};  // one per column of delta, multiplies `precision`
  Narrowed narrow = {};  // dz

  void check() const {
    PoolArgs::check("pool_error", z, delta, window, Pooling::max);
    PC_CHECK(window.tiles(), "pool_error", "windows of ", window.kernel_h, " x ", window.kernel_w, ", stride ",
             window.stride, ", padding ", window.padding, " do not lie side by side");
    PoolMapArgs::check_bias("pool_error", bias, z, window);
    PoolMapArgs::check_leak("pool_error", leak);
    check_alike("pool_error", delta, top);
    for (const View* view : {&start, &dx}) {
      if (!view->empty()) check_alike("pool_error", delta, *view);
    }
    if (!change.empty()) check_alike_or_rounded("pool_error", z, change);
    if (!dz.empty()) check_alike("pool_error", z, dz);
    PC_CHECK(energy.empty() || (energy.count() == delta.rows() && energy.dtype == DType::f64), "pool_error",
             "energy must be float64, one per row");
    PC_CHECK(precisions.empty() || (precisions.count() == delta.cols() && precisions.dtype == delta.dtype),
             "pool_error", "precisions must be one per column");
    narrow.check("pool_error", z);
  }
  void touches(Touches& t) const {
    t.read(start).read(dx).read(top).read(z).read(change).read_all(bias).read_all(precisions);
    t.write(delta).write(dz).write(energy);
    narrow.touches(t);
  }
  [[nodiscard]] double flops() const { return 8.0 * static_cast<double>(z.count()); }
};

/// Looks for the largest f(z + change) of a window. Activations grow, or have one dip below zero, so that the largest
/// is at one of the two ends of what they are applied to: f is evaluated there alone.
template <Activation f, class T, class Int>
struct LargestOf {
  static constexpr bool kDips = f == Activation::gelu || f == Activation::gelu_tanh || f == Activation::silu;

  struct End {
    Int place = -1;
    T now = 0, z = 0, change = 0;  // now: z + change
  };
  End high, low;  // the first of the largest, where NaN is larger than any; the first of the smallest
  T high_start = 0;

  PC_HD void meet(Int place, T z, T change) {
    const T now = z + change;
    const bool first = high.place < 0;
    if (first || now > high.now || now != now) high = {place, now, z, change};
    if (first || z > high_start) high_start = z;
    if constexpr (kDips) {
      if (first || now < low.now) low = {place, now, z, change};
    }
  }

  struct Found {
    Int place;
    T z, change, value;  // f(z + change)
    bool at_start;       // f(z) was the largest too, as far as is known
  };
  PC_HD Found found(T leak) const {
    const T top = scalar::activate<f>(high.now, leak).value;
    const bool was_high = high.z == high_start;
    if constexpr (kDips) {
      if (high.now < T(0)) {
        const T other = scalar::activate<f>(low.now, leak).value;
        if (other > top) return {low.place, low.z, low.change, other, false};
      }
      return {high.place, high.z, high.change, top, was_high && high_start >= T(0)};
    }
    return {high.place, high.z, high.change, top, was_high};
  }

  /// How far the largest is from `before`, the largest f(z), and the slope of f there.
  PC_HD static scalar::ValueSlope<T> since(const Found& now, T before, T leak) {
    const auto moved = scalar::change<f>(now.z, now.change, leak);
    const T jump = now.at_start ? T(0) : scalar::activate<f>(now.z, leak).value - before;
    return {jump + moved.value, moved.slope};
  }
};

void pool_map_cpu(const PoolMapArgs&, Share);
void pool_map_cuda(const PoolMapArgs&, CudaContext&);
void pool_change_cpu(const PoolChangeArgs&, Share);
void pool_change_cuda(const PoolChangeArgs&, CudaContext&);
void pool_error_cpu(const PoolErrorArgs&, Share);
void pool_error_cuda(const PoolErrorArgs&, CudaContext&);

inline constexpr Kernel<PoolMapArgs> pool_map{"pool_map", pool_map_cpu, PC_CUDA(pool_map_cuda)};
inline constexpr Kernel<PoolChangeArgs> pool_change{"pool_change", pool_change_cpu, PC_CUDA(pool_change_cuda)};
inline constexpr Kernel<PoolErrorArgs> pool_error{"pool_error", pool_error_cpu, PC_CUDA(pool_error_cuda)};

}  // namespace pc::kernels

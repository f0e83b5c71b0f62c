// What a window sees of an image [height, width, channels], channel by channel: its largest entry, or a multiple of the
// sum (the padding counts as zeros), and the adjoints. Sums with other windows are what averaging, upsampling and
// padding are made of.
#pragma once

#include <algorithm>

#include "kernels/kernel.h"
#include "kernels/window.h"
#include "kernels/write.h"

namespace pc::kernels {

enum class Pooling : std::uint8_t { sum, max };

/// y (=|+=) by * sum, or the largest, of x over the window. x [batch, height * width * channels], y [batch, positions *
/// channels]. The padding is never the largest; NaN is.
struct PoolArgs {
  View x, y;
  Window window;
  Pooling pooling = Pooling::sum;
  double by = 1;  // of sums
  Write write = Write::set;

  void check() const { check("pool", x, y, window, pooling); }
  static void check(const char* who, const View& x, const View& y, const Window& w, Pooling pooling) {
    w.check(who);
    PC_CHECK(x.rows() == y.rows() && x.cols() == w.image_count() && y.cols() == w.positions() * w.channels, who,
             "images ", x.shape.text(), " do not fit ", y.shape.text());
    PC_CHECK(x.dtype == y.dtype, who, "dtypes differ");
    const bool sees = w.padding == 0 || (w.dilation == 1 && w.padding < std::min(w.kernel_h, w.kernel_w));
    PC_CHECK(pooling != Pooling::max || sees, who, "with padding ", w.padding, " a window of ", w.kernel_h, " x ",
             w.kernel_w, ", dilation ", w.dilation, ", may see nothing of the image");
    with_float(y.dtype, [](auto) {});
  }
  void touches(Touches& t) const { t.read(x).write(y); }
  [[nodiscard]] double flops() const { return static_cast<double>(y.count() * window.places()); }
};

/// dx (=|+=) the adjoint of PoolArgs at x: each entry of dy goes to the entries that it came from; of a largest entry
/// to the first that is as large. x is read for `max` alone.
struct PoolPullbackArgs {
  View x, dy, dx;
  Window window;
  Pooling pooling = Pooling::sum;
  double by = 1;
  Write write = Write::set;

  void check() const {
    PoolArgs::check("pool_pullback", dx, dy, window, pooling);
    if (pooling == Pooling::max) check_alike("pool_pullback", x, dx);
  }
  void touches(Touches& t) const {
    if (pooling == Pooling::max) t.read(x);
    t.read(dy).write(dx);
  }
  [[nodiscard]] double flops() const { return static_cast<double>(dy.count() * window.places()); }
};

/// body(place) for each place, row * width + column, of the image that the window at (out_y, out_x) sees.
template <class Int, class Body>
PC_HD void each_seen(const BasicWindow<Int>& w, Int out_y, Int out_x, Body&& body) {
  for (Int ky = 0; ky < w.kernel_h; ++ky) {
    for (Int kx = 0; kx < w.kernel_w; ++kx) {
      const Int y = w.at(out_y, ky), x = w.at(out_x, kx);
      if (w.inside(y, x)) body(y * w.width + x);
    }
  }
}

/// The same for windows that lie side by side, and body(place, seen): the last one of a row or column has what lies
/// behind it too, which no window sees.
template <class Int, class Body>
PC_HD void each_own(const BasicWindow<Int>& w, Int out_y, Int out_x, Body&& body) {
  const Int top = w.at(out_y, 0), left = w.at(out_x, 0);
  const Int end_y = top + 2 * w.kernel_h > w.height ? w.height : top + w.kernel_h;
  const Int end_x = left + 2 * w.kernel_w > w.width ? w.width : left + w.kernel_w;
  for (Int y = top; y < end_y; ++y) {
    for (Int x = left; x < end_x; ++x) body(y * w.width + x, y < top + w.kernel_h && x < left + w.kernel_w);
  }
}

/// body(first entry of the window's channels in a row of results, its position) for all windows of an image.
template <class Body>
void each_window(const Window& w, Body&& body) {
  const std::int64_t out_height = w.out_height(), out_width = w.out_width();
  for (std::int64_t out_y = 0; out_y < out_height; ++out_y) {
    for (std::int64_t out_x = 0; out_x < out_width; ++out_x) {
      body((out_y * out_width + out_x) * w.channels, out_y, out_x);
    }
  }
}

/// The first of the largest of several entries; NaN is larger than any.
template <class T, class Int>
struct LargestEntry {
  Int place = -1;
  T at = 0;

  PC_HD void meet(Int where, T entry) {
    if (place >= 0 && !(entry > at) && (entry == entry || at != at)) return;
    place = where;
    at = entry;
  }
};

/// Row * width + column of the largest entry that the window at (out_y, out_x) sees of one channel; `image` points at
/// the first entry of that channel.
template <class T, class Int>
PC_HD Int place_of_largest(const BasicWindow<Int>& w, const T* image, Int out_y, Int out_x) {
  LargestEntry<T, Int> best;
  each_seen(w, out_y, out_x, [&](Int place) { best.meet(place, image[place * w.channels]); });
  return best.place;
}

/// What comes back to the entry at (y, x) of one channel; `image` (null: of sums) and `delta` point at the channel's
/// first entries of x and dy.
template <class T, class Int>
PC_HD T window_back(const BasicWindow<Int>& w, const T* image, const T* delta, Int y, Int x) {
  const Int out_height = w.out_height(), out_width = w.out_width();
  T sum = 0;
  w.each_over(y, w.kernel_h, out_height, [&](Int, Int out_y) {
    w.each_over(x, w.kernel_w, out_width, [&](Int, Int out_x) {
      if (image != nullptr && place_of_largest(w, image, out_y, out_x) != y * w.width + x) return;
      sum += delta[(out_y * out_width + out_x) * w.channels];
    });
  });
  return sum;
}

void pool_cpu(const PoolArgs&, Share);
void pool_cuda(const PoolArgs&, CudaContext&);
void pool_pullback_cpu(const PoolPullbackArgs&, Share);
void pool_pullback_cuda(const PoolPullbackArgs&, CudaContext&);

inline constexpr Kernel<PoolArgs> pool{"pool", pool_cpu, PC_CUDA(pool_cuda)};
inline constexpr Kernel<PoolPullbackArgs> pool_pullback{"pool_pullback", pool_pullback_cpu,
                                                        PC_CUDA(pool_pullback_cuda)};

}  // namespace pc::kernels

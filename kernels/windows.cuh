// What CUDA kernels that look through windows at images have in common: a thread does a few neighbouring channels of a
// window at once.
#pragma once

#include "kernels/launch.cuh"
#include "kernels/window.h"

namespace pc::cu {

/// Window and first channel of the entries from `col` on.
struct Site {
  int y, x, channel;

  __device__ Site(std::int64_t col, int out_width, int channels)
      : y(int(unsigned(col) / unsigned(channels) / unsigned(out_width))),
        x(int(unsigned(col) / unsigned(channels) % unsigned(out_width))),
        channel(int(unsigned(col) % unsigned(channels))) {}
};

/// body(place) for each place, row * width + column, of the image that the window at a site sees.
template <class Body>
__device__ void each_seen(const BasicWindow<int>& w, const Site& at, Body&& body) {
  if (w.kernel_h == 2 && w.kernel_w == 2 && w.padding == 0) {  // the usual ones, with all loads under way at once
#pragma unroll
    for (int k = 0; k < 4; ++k) body(w.at(at.y, k / 2) * w.width + w.at(at.x, k % 2));
    return;
  }
  for (int ky = 0; ky < w.kernel_h; ++ky) {
    for (int kx = 0; kx < w.kernel_w; ++kx) {
      const int y = w.at(at.y, ky), x = w.at(at.x, kx);
      if (w.inside(y, x)) body(y * w.width + x);
    }
  }
}

/// The same for windows that lie side by side, and body(place, seen): the last one of a row or column has what lies
/// behind it too, which no window sees.
template <class Body>
__device__ void each_own(const BasicWindow<int>& w, const Site& at, Body&& body) {
  const int top = w.at(at.y, 0), left = w.at(at.x, 0);
  const int bottom = top + 2 * w.kernel_h > w.height ? w.height : top + w.kernel_h;
  const int right = left + 2 * w.kernel_w > w.width ? w.width : left + w.kernel_w;
  for (int y = top; y < bottom; ++y) {
    for (int x = left; x < right; ++x) body(y * w.width + x, y < top + w.kernel_h && x < left + w.kernel_w);
  }
}

}  // namespace pc::cu

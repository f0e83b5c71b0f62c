// What CUDA kernels that look through windows at images have in common: a thread does a few neighbouring channels of a
// window at once.
#pragma once

#include "kernels/launch.cuh"
#include "kernels/pool.h"

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
  kernels::each_seen(w, at.y, at.x, body);
}

}  // namespace pc::cu

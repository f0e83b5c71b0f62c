#include "kernels/pool.h"

#include "kernels/loops.h"

namespace pc::kernels {

void pool_cpu(const PoolArgs& p, Share share) {
  with_float(p.y.dtype, [&]<class T>(T) {
    const Window& w = p.window;
    const std::int64_t out_height = w.out_height(), out_width = w.out_width();
    const T by = T(p.by);
    each_row(share, p.x.rows(), [&](std::int64_t row) {
      const T* image = p.x.row<T>(row);
      T* y = p.y.row<T>(row);
      for (std::int64_t out_y = 0; out_y < out_height; ++out_y) {
        for (std::int64_t out_x = 0; out_x < out_width; ++out_x) {
          for (std::int64_t c = 0; c < w.channels; ++c, ++y) {
            const T seen = p.pooling == Pooling::max
                               ? image[place_of_largest(w, image + c, out_y, out_x) * w.channels + c]
                               : by * window_sum(w, image + c, out_y, out_x);
            *y = (p.write == Write::add ? *y : T(0)) + seen;
          }
        }
      }
    });
  });
}

void pool_pullback_cpu(const PoolPullbackArgs& p, Share share) {
  with_float(p.dx.dtype, [&]<class T>(T) {
    const Window& w = p.window;
    const T by = p.pooling == Pooling::max ? T(1) : T(p.by);
    each_row(share, p.dx.rows(), [&](std::int64_t row) {
      const T* image = p.pooling == Pooling::max ? p.x.row<T>(row) : nullptr;
      const T* delta = p.dy.row<T>(row);
      T* dx = p.dx.row<T>(row);
      for (std::int64_t y = 0; y < w.height; ++y) {
        for (std::int64_t x = 0; x < w.width; ++x) {
          for (std::int64_t c = 0; c < w.channels; ++c, ++dx) {
            const T back = by * window_back(w, image == nullptr ? nullptr : image + c, delta + c, y, x);
            *dx = (p.write == Write::add ? *dx : T(0)) + back;
          }
        }
      }
    });
  });
}

}  // namespace pc::kernels

#include "kernels/pool_change.h"

#include <vector>

#include "kernels/loops.h"

namespace pc::kernels {
namespace {

/// body(index of the window's entry, its position, channel) for all windows of an image.
template <class Body>
void each_window(const Window& w, Body&& body) {
  const std::int64_t out_height = w.out_height(), out_width = w.out_width();
  std::int64_t i = 0;
  for (std::int64_t out_y = 0; out_y < out_height; ++out_y) {
    for (std::int64_t out_x = 0; out_x < out_width; ++out_x) {
      for (std::int64_t c = 0; c < w.channels; ++c, ++i) body(i, out_y, out_x, c);
    }
  }
}

/// The largest f(z + bias + change) that a window sees of one channel; `change` may be null.
template <Activation f, class T>
LargestOf<f, T, std::int64_t> largest_of(const Window& w, const T* z, T bias, const T* change, std::int64_t out_y,
                                         std::int64_t out_x) {
  LargestOf<f, T, std::int64_t> largest;
  for (std::int64_t ky = 0; ky < w.kernel_h; ++ky) {
    for (std::int64_t kx = 0; kx < w.kernel_w; ++kx) {
      const std::int64_t y = w.at(out_y, ky), x = w.at(out_x, kx), place = y * w.width + x;
      if (!w.inside(y, x)) continue;
      const T at = z[place * w.channels] + bias, moved = change == nullptr ? T(0) : change[place * w.channels];
      largest.meet(place, at, moved);
    }
  }
  return largest;
}

}  // namespace

void pool_map_cpu(const PoolMapArgs& p, Share share) {
  with_float(p.y.dtype, [&]<class T>(T) {
    scalar::with_activation(p.f, [&]<Activation f>() {
      each_row(share, p.y.rows(), [&](std::int64_t row) {
        const T* z = p.z.row<T>(row);
        T* y = p.y.row<T>(row);
        each_window(p.window, [&](std::int64_t i, std::int64_t out_y, std::int64_t out_x, std::int64_t c) {
          const T bias = p.bias.empty() ? T(0) : p.bias.as<T>()[c];
          y[i] = largest_of<f, T>(p.window, z + c, bias, nullptr, out_y, out_x).found(T(p.leak)).value;
        });
      });
    });
  });
}

void pool_change_cpu(const PoolChangeArgs& p, Share share) {
  with_float(p.y.dtype, [&]<class T>(T) {
    each_row(share, p.y.rows(), [&](std::int64_t row) {
      const T *x = p.x.row<T>(row), *dx = p.dx.row<T>(row);
      T* y = p.y.row<T>(row);
      each_window(p.window, [&](std::int64_t i, std::int64_t out_y, std::int64_t out_x, std::int64_t c) {
        const auto now = largest_of<Activation::identity, T>(p.window, x + c, T(0), dx + c, out_y, out_x);
        const T before = x[place_of_largest(p.window, x + c, out_y, out_x) * p.window.channels + c];
        y[i] = (p.write == Write::add ? y[i] : T(0)) + now.since(now.found(T(0)), before, T(0)).value;
      });
    });
  });
}

void pool_error_cpu(const PoolErrorArgs& e, Share share) {
  with_float(e.delta.dtype, [&]<class T>(T) {
    scalar::with_activation(e.f, [&]<Activation f>() {
      const T scale = T(e.precision), leak = T(e.leak);
      const T* precisions = e.precisions.as<T>();
      std::vector<T> own_dz(static_cast<std::size_t>(e.dz.empty() ? e.z.cols() : 0)), room;
      each_row(share, e.delta.rows(), [&](std::int64_t row) {
        const T *z = e.z.row<T>(row), *top = e.top.row<T>(row);
        const T* change = unrounded_row(e.change, row, room);
        T *delta = e.delta.row<T>(row), *dz = e.dz.empty() ? own_dz.data() : e.dz.row<T>(row);
        std::fill_n(dz, e.z.cols(), T(0));
        double energy = 0;
        each_window(e.window, [&](std::int64_t i, std::int64_t out_y, std::int64_t out_x, std::int64_t c) {
          const T bias = e.bias.empty() ? T(0) : e.bias.as<T>()[c];
          const auto largest =
              largest_of<f, T>(e.window, z + c, bias, change == nullptr ? nullptr : change + c, out_y, out_x);
          const auto now = largest.found(leak);
          const auto since = largest.since(now, top[i], leak);
          T error = (e.start.empty() ? T(0) : e.start.row<T>(row)[i]) + (e.dx.empty() ? T(0) : e.dx.row<T>(row)[i]);
          if (change != nullptr) error -= since.value;
          delta[i] = (precisions == nullptr ? scale : scale * precisions[i]) * error;
          dz[now.place * e.window.channels + c] = since.slope * delta[i];
          energy += double(delta[i] * error);
        });
        if (!e.energy.empty()) e.energy.as<double>()[row] = 0.5 * energy;
        narrow_row(e.narrow, row, dz);
      });
    });
  });
}

}  // namespace pc::kernels

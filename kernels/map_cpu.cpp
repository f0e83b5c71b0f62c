#include "kernels/loops.h"
#include "kernels/map.h"

namespace pc::kernels {

void map_cpu(const MapArgs& m, Share share) {
  with_float(m.y.dtype, [&]<class T>(T) {
    scalar::with_activation(m.f, [&]<Activation f>() {
      const T leak = T(m.leak);
      each_row(share, m.y.rows(), [&](std::int64_t row) {
        const T* x = m.x.row<T>(row);
        T* y = m.y.row<T>(row);
        if (m.write == Write::set) {
          each_entry(m.y.cols(), [=](std::int64_t i) { y[i] = scalar::activate<f>(x[i], leak).value; });
        } else {
          each_entry(m.y.cols(), [=](std::int64_t i) { y[i] += scalar::activate<f>(x[i], leak).value; });
        }
        narrow_row(m.narrow, row, y);
      });
    });
  });
}

void map_pullback_cpu(const MapPullbackArgs& m, Share share) {
  with_float(m.dx.dtype, [&]<class T>(T) {
    scalar::with_activation(m.f, [&]<Activation f>() {
      const T leak = T(m.leak);
      each_row(share, m.dx.rows(), [&](std::int64_t row) {
        const T *x = m.x.row<T>(row), *dy = m.dy.row<T>(row);
        T* dx = m.dx.row<T>(row);
        if (m.write == Write::set) {
          each_entry(m.dx.cols(), [=](std::int64_t i) { dx[i] = scalar::activate<f>(x[i], leak).slope * dy[i]; });
        } else {
          each_entry(m.dx.cols(), [=](std::int64_t i) { dx[i] += scalar::activate<f>(x[i], leak).slope * dy[i]; });
        }
      });
    });
  });
}

}  // namespace pc::kernels

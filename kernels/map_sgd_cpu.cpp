#include "kernels/loops.h"
#include "kernels/map_sgd.h"

namespace pc::kernels {

void map_sgd_cpu(const MapSgdArgs& a, Share share) {
  with_float(a.x.dtype, [&]<class T>(T) {
    scalar::with_activation(a.f, [&]<Activation f>() {
      const T rate = T(a.rate * (a.bound.empty() ? 1.0 : *a.bound.as<double>())), momentum = T(a.momentum);
      const T leak = T(a.leak);
      each_row(share, a.x.rows(), [&](std::int64_t row) {
        T *x = a.x.row<T>(row), *y = a.y.row<T>(row);
        const T *dy = a.dy.row<T>(row), *own = a.own.empty() ? nullptr : a.own.row<T>(row);
        T* velocity = a.velocity.empty() ? nullptr : a.velocity.row<T>(row);
        each_entry(a.x.cols(), [=](std::int64_t i) {
          T step = (own ? own[i] : T(0)) - scalar::activate<f>(x[i], leak).slope * dy[i];
          if (velocity) step = velocity[i] = momentum * velocity[i] + step;
          x[i] -= rate * step;
          y[i] = scalar::activate<f>(x[i], leak).value;
        });
        narrow_row(a.narrow, row, y);
      });
    });
  });
}

}  // namespace pc::kernels

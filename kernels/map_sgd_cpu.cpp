#include "kernels/loops.h"
#include "kernels/map_sgd.h"

namespace pc::kernels {

void map_sgd_cpu(const MapSgdArgs& a, Share share) {
  with_float(a.x.dtype, [&]<class T>(T) {
    scalar::with_activation(a.f, [&]<Activation f>() {
      const T rate = T(a.rate * (a.bound.empty() ? 1.0 : *a.bound.as<double>())), momentum = T(a.momentum);
      const T leak = T(a.leak);
      // What is known of all entries is decided before them: a loop with a choice in it is not vectorised.
      const auto move = [&]<bool pulled, bool rolls>() {
        each_row(share, a.x.rows(), [&](std::int64_t row) {
          T *x = a.x.row<T>(row), *y = a.y.row<T>(row);
          const T *dy = a.dy.row<T>(row), *own = pulled ? a.own.row<T>(row) : nullptr;
          T* velocity = rolls ? a.velocity.row<T>(row) : nullptr;
          each_entry(a.x.cols(), [=](std::int64_t i) {
            T step = -scalar::activate<f>(x[i], leak).slope * dy[i];
            if constexpr (pulled) step = own[i] + step;
            if constexpr (rolls) step = velocity[i] = momentum * velocity[i] + step;
            x[i] -= rate * step;
            y[i] = scalar::activate<f>(x[i], leak).value;
          });
          narrow_row(a.narrow, row, y);
        });
      };
      const bool pulled = !a.own.empty();
      if (a.velocity.empty()) {
        pulled ? move.template operator()<true, false>() : move.template operator()<false, false>();
      } else {
        pulled ? move.template operator()<true, true>() : move.template operator()<false, true>();
      }
    });
  });
}

}  // namespace pc::kernels

#include "kernels/change.h"

#include "kernels/loops.h"

namespace pc::kernels {
namespace {

template <class T>
const T* row_or_null(const View& v, std::int64_t row) {
  return v.empty() ? nullptr : v.row<T>(row);
}

}  // namespace

void map_change_cpu(const MapChangeArgs& m, Share share) {
  with_float(m.y.dtype, [&]<class T>(T) {
    scalar::with_activation(m.f, [&]<Activation f>() {
      const T leak = T(m.leak);
      each_row(share, m.y.rows(), [&](std::int64_t row) {
        const T *x = m.x.row<T>(row), *dx = m.dx.row<T>(row);
        T* y = m.y.row<T>(row);
        if (m.write == Write::set) {
          each_entry(m.y.cols(), [=](std::int64_t i) { y[i] = scalar::change<f>(x[i], dx[i], leak).value; });
        } else {
          each_entry(m.y.cols(), [=](std::int64_t i) { y[i] += scalar::change<f>(x[i], dx[i], leak).value; });
        }
        narrow_row(m.narrow, row, y);
      });
    });
  });
}

void change_error_cpu(const ChangeErrorArgs& e, Share share) {
  with_float(e.delta.dtype, [&]<class T>(T) {
    scalar::with_activation(e.f, [&]<Activation f>() {
      const T scale = T(e.precision), leak = T(e.leak);
      const T* precisions = e.precisions.as<T>();
      const std::int64_t n = e.delta.cols();
      each_row(share, e.delta.rows(), [&](std::int64_t row) {
        const T *start = row_or_null<T>(e.start, row), *dx = row_or_null<T>(e.dx, row);
        const T *z = row_or_null<T>(e.z, row), *change = row_or_null<T>(e.change, row);
        T *delta = e.delta.row<T>(row), *dz = e.dz.empty() ? nullptr : e.dz.row<T>(row);
        // First the error itself and the slope; then what they are multiplied by.
        each_entry(n, [=](std::int64_t i) { delta[i] = (start ? start[i] : T(0)) + (dx ? dx[i] : T(0)); });
        if (change != nullptr && z == nullptr) {
          each_entry(n, [=](std::int64_t i) { delta[i] -= change[i]; });
        } else if (change != nullptr) {
          each_entry(n, [=](std::int64_t i) {
            const auto [difference, slope] = scalar::change<f>(z[i], change[i], leak);
            delta[i] -= difference;
            if (dz) dz[i] = slope;
          });
        } else if (dz != nullptr) {
          each_entry(n, [=](std::int64_t i) { dz[i] = z ? scalar::activate<f>(z[i], leak).slope : T(1); });
        }
        if (!e.energy.empty()) {
          double energy = 0;
          for (std::int64_t i = 0; i < n; ++i) {
            energy += double((precisions ? scale * precisions[i] : scale) * delta[i] * delta[i]);
          }
          e.energy.as<double>()[row] = 0.5 * energy;
        }
        each_entry(n, [=](std::int64_t i) {
          delta[i] *= precisions ? scale * precisions[i] : scale;
          if (dz) dz[i] *= delta[i];
        });
        narrow_row(e.narrow, row, dz != nullptr ? dz : delta);
      });
    });
  });
}

}  // namespace pc::kernels

#include "kernels/change.h"

#include <algorithm>
#include <vector>

#include "kernels/loops.h"

namespace pc::kernels {
namespace {

template <class T>
T* row_or_null(const View& v, std::int64_t row) {
  return v.empty() ? nullptr : v.row<T>(row);
}

/// y = a + b; a null pointer counts as zeros.
template <class T>
void add_rows(std::int64_t n, const T* a, const T* b, T* y) {
  if (a != nullptr && b != nullptr) {
    each_entry(n, [=](std::int64_t i) { y[i] = a[i] + b[i]; });
  } else if (a != nullptr || b != nullptr) {
    std::copy_n(a != nullptr ? a : b, n, y);
  } else {
    std::fill_n(y, n, T(0));
  }
}

// Functions of their own: GCC does not vectorise a loop once it has put too much into the function around it.

/// dz = f'(z)
template <Activation f, class T>
[[gnu::noinline]] void slopes(std::int64_t n, const T* z, T leak, T* dz) {
  each_entry(n, [=](std::int64_t i) { dz[i] = scalar::activate<f>(z[i], leak).slope; });
}

/// delta -= f(z + change) - f(z)
template <Activation f, class T>
[[gnu::noinline]] void subtract_change(std::int64_t n, const T* z, const T* change, T leak, T* delta) {
  each_entry(n, [=](std::int64_t i) { delta[i] -= scalar::change<f>(z[i], change[i], leak).value; });
}

/// and dz = f'(z + change)
template <Activation f, class T>
[[gnu::noinline]] void subtract_change(std::int64_t n, const T* z, const T* change, T leak, T* delta, T* dz) {
  each_entry(n, [=](std::int64_t i) {
    const auto [difference, slope] = scalar::change<f>(z[i], change[i], leak);
    delta[i] -= difference;
    dz[i] = slope;
  });
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

void add_change_cpu(const AddChangeArgs& a, Share share) {
  with_float(a.y.dtype, [&]<class T>(T) {
    each_row(share, a.y.rows(), [&](std::int64_t row) {
      const T *x = a.x.row<T>(row), *dx = a.dx.row<T>(row);
      T* y = a.y.row<T>(row);
      each_entry(a.y.cols(), [=](std::int64_t i) { y[i] = x[i] + dx[i]; });
      narrow_row(a.narrow, row, y);
    });
  });
}

void change_error_cpu(const ChangeErrorArgs& e, Share share) {
  with_float(e.delta.dtype, [&]<class T>(T) {
    scalar::with_activation(e.f, [&]<Activation f>() {
      const T scale = T(e.precision), leak = T(e.leak);
      const T* precisions = e.precisions.as<T>();
      const std::int64_t n = e.delta.cols();
      const bool as_operand = e.dz.empty() && !e.z.empty() && !e.narrow.y.empty();
      std::vector<T> own_dz(static_cast<std::size_t>(as_operand ? n : 0)), room;
      // What is missing is asked about outside the loops over entries, which vectorise only so.
      each_row(share, e.delta.rows(), [&](std::int64_t row) {
        const T *z = row_or_null<T>(e.z, row), *change = unrounded_row(e.change, row, room);
        T *delta = e.delta.row<T>(row), *dz = as_operand ? own_dz.data() : row_or_null<T>(e.dz, row);
        // First the error itself and the slope; then what they are multiplied by.
        add_rows(n, row_or_null<T>(e.start, row), row_or_null<T>(e.dx, row), delta);
        if (change != nullptr && z == nullptr) {
          each_entry(n, [=](std::int64_t i) { delta[i] -= change[i]; });
        } else if (change != nullptr && dz != nullptr) {
          subtract_change<f>(n, z, change, leak, delta, dz);
        } else if (change != nullptr) {
          subtract_change<f>(n, z, change, leak, delta);
        } else if (dz != nullptr && z != nullptr) {
          slopes<f>(n, z, leak, dz);
        } else if (dz != nullptr) {
          std::fill_n(dz, n, T(1));
        }
        if (!e.energy.empty()) {
          const auto square = [=](std::int64_t i) { return scale * delta[i] * delta[i]; };
          const auto weighted = [=](std::int64_t i) { return scale * precisions[i] * delta[i] * delta[i]; };
          e.energy.as<double>()[row] = 0.5 * (precisions == nullptr ? lane_sum(n, square) : lane_sum(n, weighted));
        }
        if (precisions == nullptr) {
          each_entry(n, [=](std::int64_t i) { delta[i] *= scale; });
        } else {
          each_entry(n, [=](std::int64_t i) { delta[i] *= scale * precisions[i]; });
        }
        if (dz != nullptr) each_entry(n, [=](std::int64_t i) { dz[i] *= delta[i]; });
        narrow_row(e.narrow, row, dz != nullptr ? dz : delta);
      });
    });
  });
}

}  // namespace pc::kernels

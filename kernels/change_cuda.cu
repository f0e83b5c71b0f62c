#include "kernels/change.h"

#include <array>

#include "kernels/launch.cuh"
#include "kernels/narrow.cuh"

namespace pc::kernels {
namespace {

using cu::matrix;

template <class T, Activation f>
struct MapChange {
  cu::Matrix<T> x, dx, y;
  cu::Narrow narrow;
  T leak;
  bool add;

  explicit MapChange(const MapChangeArgs& m)
      : x(matrix<T>(m.x)),
        dx(matrix<T>(m.dx)),
        y(matrix<T>(m.y)),
        narrow(m.narrow),
        leak(T(m.leak)),
        add(m.write == Write::add) {}
  MapChange() = default;
  __device__ void operator()(std::int64_t row, std::int64_t col) const {
    T value = scalar::change<f>(x(row, col), dx(row, col), leak).value;
    if (add) value += y(row, col);
    y(row, col) = value;
    narrow(row, col, value);
  }
};

template <class T, Activation f>
struct ChangeError {
  cu::Matrix<T> start, dx, z, change, delta, dz;
  cu::Narrow narrow;
  const T* precisions;
  T scale, leak;

  explicit ChangeError(const ChangeErrorArgs& e)
      : start(matrix<T>(e.start)),
        dx(matrix<T>(e.dx)),
        z(matrix<T>(e.z)),
        change(matrix<T>(e.change)),
        delta(matrix<T>(e.delta)),
        dz(matrix<T>(e.dz)),
        narrow(e.narrow),
        precisions(e.precisions.as<T>()),
        scale(T(e.precision)),
        leak(T(e.leak)) {}
  ChangeError() = default;
  /// Twice the entry's energy.
  __device__ double operator()(std::int64_t row, std::int64_t col) const {
    T error = (start ? start(row, col) : T(0)) + (dx ? dx(row, col) : T(0)), slope = T(1);
    if (change && !z) error -= change(row, col);
    if (z) {
      const auto at = change ? scalar::change<f>(z(row, col), change(row, col), leak)
                             : scalar::ValueSlope<T>{T(0), scalar::activate<f>(z(row, col), leak).slope};
      error -= at.value;
      slope = at.slope;
    }
    const T d = (precisions == nullptr ? scale : scale * precisions[col]) * error;
    delta(row, col) = d;
    if (dz) dz(row, col) = slope * d;
    narrow(row, col, slope * d);
    return d * error;
  }
};

}  // namespace

void map_change_cuda_together(std::span<const MapChangeArgs* const> calls, CudaContext& context) {
  with_float(calls[0]->y.dtype, [&]<class T>(T) {
    scalar::with_activation(calls[0]->f, [&]<Activation f>() {
      cu::each_entry_of<MapChange<T, f>>(calls, context.stream,
                                         [](const MapChangeArgs& m) -> const View& { return m.y; });
    });
  });
}
void map_change_cuda(const MapChangeArgs& m, CudaContext& context) {
  map_change_cuda_together(std::array{&m}, context);
}

void change_error_cuda_together(std::span<const ChangeErrorArgs* const> calls, CudaContext& context) {
  with_float(calls[0]->delta.dtype, [&]<class T>(T) {
    scalar::with_activation(calls[0]->f, [&]<Activation f>() {
      cu::each_entry_of<ChangeError<T, f>>(calls, context.stream,
                                           [](const ChangeErrorArgs& e) -> const View& { return e.delta; });
    });
  });
}

void change_error_cuda(const ChangeErrorArgs& e, CudaContext& context) {
  with_float(e.delta.dtype, [&]<class T>(T) {
    scalar::with_activation(e.f, [&]<Activation f>() {
      cu::fold_rows(e.delta.rows(), e.delta.cols(), context.stream, e.energy.as<double>(), cu::Sum{.scale = 0.5},
                    ChangeError<T, f>(e));
    });
  });
}

}  // namespace pc::kernels

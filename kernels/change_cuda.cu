#include "kernels/change.h"

#include <array>

#include "kernels/launch.cuh"
#include "kernels/narrow.cuh"

namespace pc::kernels {
namespace {

using cu::At, cu::matrix, cu::Pack;

template <class T, Activation f>
struct MapChange {
  static constexpr int kEntries = cu::kPack<T>;
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
  [[nodiscard]] bool packs() const { return x.packs() && dx.packs() && y.packs() && narrow.packs(); }
  template <int n>
  __device__ void operator()(At<n> at) const {
    const Pack<T, n> from = x(at), by = dx(at);
    Pack<T, n> value;
    for (int i = 0; i < n; ++i) value[i] = scalar::change<f>(from[i], by[i], leak).value;
    if (add) {
      const Pack<T, n> before = y(at);
      for (int i = 0; i < n; ++i) value[i] += before[i];
    }
    y(at) = value;
    narrow(at, value);
  }
};

template <class T, Activation f>
struct ChangeError {
  static constexpr int kEntries = cu::kPack<T>;
  cu::Matrix<T> start, dx, z, delta, dz;
  cu::Rounded<T> change;
  cu::Narrow narrow;
  const T* precisions;
  T scale, leak;

  explicit ChangeError(const ChangeErrorArgs& e)
      : start(matrix<T>(e.start)),
        dx(matrix<T>(e.dx)),
        z(matrix<T>(e.z)),
        delta(matrix<T>(e.delta)),
        dz(matrix<T>(e.dz)),
        change(e.change),
        narrow(e.narrow),
        precisions(e.precisions.as<T>()),
        scale(T(e.precision)),
        leak(T(e.leak)) {}
  ChangeError() = default;
  [[nodiscard]] bool packs() const {
    return start.packs() && dx.packs() && z.packs() && change.packs() && delta.packs() && dz.packs() && narrow.packs();
  }
  /// Twice the entries' energy.
  template <int n>
  __device__ double operator()(At<n> at) const {
    const Pack<T, n> from = start.or_zero(at), by = dx.or_zero(at), z0 = z.or_zero(at), moved = change.or_zero(at);
    Pack<T, n> d, sent;
    double energy = 0;
    for (int i = 0; i < n; ++i) {
      T error = from[i] + by[i], slope = T(1);
      if (change && !z) error -= moved[i];
      if (z) {
        const auto of = change ? scalar::change<f>(z0[i], moved[i], leak)
                               : scalar::ValueSlope<T>{T(0), scalar::activate<f>(z0[i], leak).slope};
        error -= of.value;
        slope = of.slope;
      }
      d[i] = (precisions == nullptr ? scale : scale * precisions[at.col + i]) * error;
      sent[i] = slope * d[i];
      energy += d[i] * error;
    }
    delta(at) = d;
    if (dz) dz(at) = sent;
    narrow(at, sent);
    return energy;
  }
};

template <class T>
struct AddChange {
  static constexpr int kEntries = cu::kPack<T>;
  cu::Matrix<T> x, dx, y;
  cu::Narrow narrow;

  explicit AddChange(const AddChangeArgs& a)
      : x(matrix<T>(a.x)), dx(matrix<T>(a.dx)), y(matrix<T>(a.y)), narrow(a.narrow) {}
  AddChange() = default;
  [[nodiscard]] bool packs() const { return x.packs() && dx.packs() && y.packs() && narrow.packs(); }
  template <int n>
  __device__ void operator()(At<n> at) const {
    Pack<T, n> sum = x(at);
    const Pack<T, n> by = dx(at);
    for (int i = 0; i < n; ++i) sum[i] += by[i];
    y(at) = sum;
    narrow(at, sum);
  }
};

}  // namespace

void add_change_cuda_together(std::span<const AddChangeArgs* const> calls, CudaContext& context) {
  with_float(calls[0]->y.dtype, [&]<class T>(T) {
    cu::each_entry_of<AddChange<T>>(calls, context.stream, [](const AddChangeArgs& a) -> const View& { return a.y; });
  });
}
void add_change_cuda(const AddChangeArgs& a, CudaContext& context) {
  add_change_cuda_together(std::array{&a}, context);
}

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

#include "kernels/map.h"

#include <array>

#include "kernels/launch.cuh"
#include "kernels/narrow.cuh"

namespace pc::kernels {
namespace {

using cu::At, cu::matrix, cu::Pack;

template <class T, Activation f>
struct Map {
  static constexpr int kEntries = cu::kPack<T>;
  cu::Matrix<T> x, y;
  cu::Narrow narrow;
  T leak;
  bool add;

  explicit Map(const MapArgs& m)
      : x(matrix<T>(m.x)), y(matrix<T>(m.y)), narrow(m.narrow), leak(T(m.leak)), add(m.write == Write::add) {}
  Map() = default;
  [[nodiscard]] bool packs() const { return x.packs() && y.packs() && narrow.packs(); }
  template <int n>
  __device__ void operator()(At<n> at) const {
    Pack<T, n> value = x(at);
    for (int i = 0; i < n; ++i) value[i] = scalar::activate<f>(value[i], leak).value;
    cu::store(y(at), value, add);
    narrow(at, y(at));
  }
};

template <class T, Activation f>
struct MapPullback {
  static constexpr int kEntries = cu::kPack<T>;
  cu::Matrix<T> x, dy, dx;
  T leak;
  bool add;

  explicit MapPullback(const MapPullbackArgs& m)
      : x(matrix<T>(m.x)), dy(matrix<T>(m.dy)), dx(matrix<T>(m.dx)), leak(T(m.leak)), add(m.write == Write::add) {}
  MapPullback() = default;
  [[nodiscard]] bool packs() const { return x.packs() && dy.packs() && dx.packs(); }
  template <int n>
  __device__ void operator()(At<n> at) const {
    Pack<T, n> value = x(at);
    const Pack<T, n> by = dy(at);
    for (int i = 0; i < n; ++i) value[i] = scalar::activate<f>(value[i], leak).slope * by[i];
    cu::store(dx(at), value, add);
  }
};

}  // namespace

void map_cuda_together(std::span<const MapArgs* const> calls, CudaContext& context) {
  with_float(calls[0]->y.dtype, [&]<class T>(T) {
    scalar::with_activation(calls[0]->f, [&]<Activation f>() {
      cu::each_entry_of<Map<T, f>>(calls, context.stream, [](const MapArgs& m) -> const View& { return m.y; });
    });
  });
}
void map_cuda(const MapArgs& m, CudaContext& context) { map_cuda_together(std::array{&m}, context); }

void map_pullback_cuda_together(std::span<const MapPullbackArgs* const> calls, CudaContext& context) {
  with_float(calls[0]->dx.dtype, [&]<class T>(T) {
    scalar::with_activation(calls[0]->f, [&]<Activation f>() {
      cu::each_entry_of<MapPullback<T, f>>(calls, context.stream,
                                           [](const MapPullbackArgs& m) -> const View& { return m.dx; });
    });
  });
}
void map_pullback_cuda(const MapPullbackArgs& m, CudaContext& context) {
  map_pullback_cuda_together(std::array{&m}, context);
}

}  // namespace pc::kernels

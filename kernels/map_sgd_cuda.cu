#include "kernels/map_sgd.h"

#include <array>

#include "kernels/launch.cuh"
#include "kernels/narrow.cuh"
#include "kernels/one_row.h"

namespace pc::kernels {
namespace {

using cu::At, cu::matrix, cu::Pack;

template <class T, Activation f>
struct MapSgd {
  static constexpr int kEntries = cu::kPack<T>;
  cu::Matrix<T> x, y, dy, own, velocity;
  cu::Narrow narrow;
  const double* bound;
  double rate;
  T momentum, leak;

  explicit MapSgd(const MapSgdArgs& a)
      : x(matrix<T>(a.x)),
        y(matrix<T>(a.y)),
        dy(matrix<T>(a.dy)),
        own(matrix<T>(a.own)),
        velocity(matrix<T>(a.velocity)),
        narrow(a.narrow),
        bound(a.bound.as<double>()),
        rate(a.rate),
        momentum(T(a.momentum)),
        leak(T(a.leak)) {}
  MapSgd() = default;
  template <int n>
  [[nodiscard]] bool packs() const {
    return x.template packs<n>() && y.template packs<n>() && dy.template packs<n>() && own.template packs<n>() &&
           velocity.template packs<n>() && narrow.packs<n>();
  }
  template <int n>
  __device__ void operator()(At<n> at) const {
    const Pack<T, n> back = dy(at), pull = own.or_zero(at);
    Pack<T, n> value = x(at), speed = velocity.or_zero(at), mapped;
    const T length = T(rate * (bound != nullptr ? *bound : 1.0));
    for (int i = 0; i < n; ++i) {
      T step = pull[i] - scalar::activate<f>(value[i], leak).slope * back[i];
      if (velocity) step = speed[i] = momentum * speed[i] + step;
      value[i] -= length * step;
      mapped[i] = scalar::activate<f>(value[i], leak).value;
    }
    if (velocity) velocity(at) = speed;
    x(at) = value;
    y(at) = mapped;
    narrow(at, mapped);
  }
};

}  // namespace

void map_sgd_cuda_together(std::span<const MapSgdArgs* const> calls, CudaContext& context) {
  with_float(calls[0]->x.dtype, [&]<class T>(T) {
    scalar::with_activation(calls[0]->f, [&]<Activation f>() {
      const auto join = [](MapSgdArgs& a) {
        if (a.narrow.y.empty()) join_rows(a.x, a.y, a.dy, a.own, a.velocity);
      };
      with_changed(calls, join, [&](std::span<const MapSgdArgs* const> all) {
        cu::each_entry_of<MapSgd<T, f>>(all, context.stream, [](const MapSgdArgs& a) -> const View& { return a.x; });
      });
    });
  });
}
void map_sgd_cuda(const MapSgdArgs& a, CudaContext& context) { map_sgd_cuda_together(std::array{&a}, context); }

}  // namespace pc::kernels

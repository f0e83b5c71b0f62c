#include "kernels/narrow.cuh"
#include "kernels/pool_change.h"
#include "kernels/windows.cuh"

namespace pc::kernels {
namespace {

using cu::At, cu::matrix, cu::Pack, cu::Site, cu::with_packs;

/// Looks at f(z + bias + change) of V channels of a window; bias and change may be null.
template <Activation f, int V, class T>
__device__ void find(const BasicWindow<int>& w, const Site& at, const cu::Matrix<T>& z, const T* bias,
                     const cu::Rounded<T>& change, std::int64_t row, LargestOf<f, T, int> (&largest)[V]) {
  Pack<T, V> own{};
#pragma unroll
  for (int i = 0; i < V && bias != nullptr; ++i) own[i] = bias[at.channel + i];
  cu::each_seen(w, at, [&](int place) {
    const At<V> there{row, std::int64_t{place} * w.channels + at.channel};
    const Pack<T, V> here = z(there), moved = change.or_zero(there);
#pragma unroll
    for (int i = 0; i < V; ++i) largest[i].meet(place, here[i] + own[i], moved[i]);
  });
}

template <class T, Activation f, int V>
struct PoolMap {
  cu::Matrix<T> z, y;
  const T* bias;
  BasicWindow<int> w;
  int out_width;
  T leak;

  __device__ void operator()(std::int64_t row, std::int64_t pack) const {
    const Site at(pack * V, out_width, w.channels);
    LargestOf<f, T, int> largest[V];
    find<f, V>(w, at, z, bias, cu::Rounded<T>{}, row, largest);
    Pack<T, V> out;
#pragma unroll
    for (int i = 0; i < V; ++i) out[i] = largest[i].found(leak).value;
    y(At<V>{row, pack * V}) = out;
  }
};

template <class T, Activation f, int V>
struct PoolError {
  cu::Matrix<T> start, dx, top, z, delta, dz;
  cu::Rounded<T> change;
  cu::Narrow narrow;
  const T *bias, *precisions;
  T scale, leak;
  BasicWindow<int> w;
  int out_width;

  explicit PoolError(const PoolErrorArgs& e)
      : start(matrix<T>(e.start)),
        dx(matrix<T>(e.dx)),
        top(matrix<T>(e.top)),
        z(matrix<T>(e.z)),
        delta(matrix<T>(e.delta)),
        dz(matrix<T>(e.dz)),
        change(e.change),
        narrow(e.narrow),
        bias(e.bias.as<T>()),
        precisions(e.precisions.as<T>()),
        scale(T(e.precision)),
        leak(T(e.leak)),
        w(e.window.narrow()),
        out_width(w.out_width()) {}

  /// dz of V channels: d where the largest is, elsewhere 0.
  __device__ void bring_back(std::int64_t row, const Site& at, const int (&places)[V], const Pack<T, V>& d) const {
    each_own(w, at.y, at.x, [&](int place, bool) {
      Pack<T, V> out;
#pragma unroll
      for (int i = 0; i < V; ++i) out[i] = places[i] == place ? d[i] : T(0);
      const At<V> there{row, std::int64_t{place} * w.channels + at.channel};
      if (dz) dz(there) = out;
      narrow(there, out);
    });
  }

  /// Twice the energy of the entries.
  __device__ double operator()(std::int64_t row, std::int64_t pack) const {
    const std::int64_t col = pack * V;
    const Site at(col, out_width, w.channels);
    LargestOf<f, T, int> largest[V];
    find<f, V>(w, at, z, bias, change, row, largest);
    const At<V> here{row, col};
    const Pack<T, V> from = start.or_zero(here), moved = dx.or_zero(here), before = top(here);
    Pack<T, V> d, back;
    int places[V];
    double energy = 0;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      T error = from[i] + moved[i];
      const auto now = largest[i].found(leak);
      places[i] = now.place;
      const auto since = change ? largest[i].since(now, before[i], leak)
                                : scalar::ValueSlope<T>{T(0), scalar::activate<f>(now.z, leak).slope};
      error -= since.value;
      d[i] = (precisions == nullptr ? scale : scale * precisions[col + i]) * error;
      back[i] = since.slope * d[i];
      energy += double(d[i] * error);
    }
    delta(here) = d;
    bring_back(row, at, places, back);
    return energy;
  }
};

template <class T>
void pool_change_typed(const PoolChangeArgs& p, CudaContext& context) {
  const auto x = matrix<T>(p.x), y = matrix<T>(p.y);
  const cu::Rounded<T> dx(p.dx);
  const bool add = p.write == Write::add;
  cu::each_entry(
      p.y.rows(), p.y.cols(), context.stream,
      [=, w = p.window.narrow(), width = int(p.window.out_width())] __device__(std::int64_t row, std::int64_t col) {
        const Site at(col, width, w.channels);
        LargestOf<Activation::identity, T, int> largest[1];
        find<Activation::identity, 1>(w, at, x, static_cast<const T*>(nullptr), dx, row, largest);
        const T* image = &x(row, at.channel);
        const T before = image[place_of_largest(w, image, at.y, at.x) * w.channels];
        cu::store(y(row, col), largest[0].since(largest[0].found(T(0)), before, T(0)).value, add);
      });
}

}  // namespace

void pool_map_cuda(const PoolMapArgs& p, CudaContext& context) {
  with_float(p.y.dtype, [&]<class T>(T) {
    scalar::with_activation(p.f, [&]<Activation f>() {
      with_packs<T>(p.window.channels, {&p.z, &p.y}, [&]<int V>() {
        cu::each_entry(p.y.rows(), p.y.cols() / V, context.stream,
                       PoolMap<T, f, V>{matrix<T>(p.z), matrix<T>(p.y), p.bias.as<T>(), p.window.narrow(),
                                        int(p.window.out_width()), T(p.leak)});
      });
    });
  });
}

void pool_change_cuda(const PoolChangeArgs& p, CudaContext& context) {
  with_float(p.y.dtype, [&]<class T>(T) { pool_change_typed<T>(p, context); });
}

void pool_error_cuda(const PoolErrorArgs& e, CudaContext& context) {
  with_float(e.delta.dtype, [&]<class T>(T) {
    scalar::with_activation(e.f, [&]<Activation f>() {
      const View* operand = &e.narrow.y;  // of fewer bits, as `change` may be: what is aligned for T is so for it
      with_packs<T>(e.window.channels, {&e.delta, &e.top, &e.z, &e.start, &e.dx, &e.change, &e.dz, operand},
                    [&]<int V>() {
                      cu::fold_rows(e.delta.rows(), e.delta.cols() / V, context.stream, e.energy.as<double>(),
                                    cu::Sum{.scale = 0.5}, PoolError<T, f, V>(e));
                    });
    });
  });
}

}  // namespace pc::kernels

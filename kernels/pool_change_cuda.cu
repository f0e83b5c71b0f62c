// A thread does as many neighbouring channels of a window as one load brings.
#include "kernels/launch.cuh"
#include "kernels/narrow.cuh"
#include "kernels/pool_change.h"

namespace pc::kernels {
namespace {

using cu::matrix, cu::Pack;

template <int V, class T>
__device__ Pack<T, V> load(const cu::Matrix<T>& m, std::int64_t row, std::int64_t col) {
  return *reinterpret_cast<const Pack<T, V>*>(&m(row, col));
}
template <int V, class T>
__device__ void put(const cu::Matrix<T>& m, std::int64_t row, std::int64_t col, const Pack<T, V>& pack) {
  *reinterpret_cast<Pack<T, V>*>(&m(row, col)) = pack;
}

/// Whether entries of all of these can be read V at a time, from the first channel of any place on.
template <class T, int V>
bool wide(const Window& w, std::initializer_list<const View*> views) {
  bool fits = w.channels % V == 0;
  for (const View* view : views) {
    if (view->empty()) continue;
    fits = fits && view->ld() % V == 0 && reinterpret_cast<std::uintptr_t>(view->data) % (sizeof(T) * V) == 0;
  }
  return fits;
}

/// Calls body.operator()<V>() with the number of channels that a thread does.
template <class T, class Body>
void with_width(const Window& w, std::initializer_list<const View*> views, Body&& body) {
  constexpr int kWidest = 16 / sizeof(T);
  if (wide<T, kWidest>(w, views)) return body.template operator()<kWidest>();
  body.template operator()<1>();
}

/// Window and first channel of the entries from `col` on.
struct Site {
  int y, x, channel;

  __device__ Site(std::int64_t col, int out_width, int channels)
      : y(int(unsigned(col) / unsigned(channels) / unsigned(out_width))),
        x(int(unsigned(col) / unsigned(channels) % unsigned(out_width))),
        channel(int(unsigned(col) % unsigned(channels))) {}
};

/// Looks at f(z + bias + change) of V channels of a window; bias and change may be null.
template <Activation f, int V, class T>
__device__ void find(const BasicWindow<int>& w, const Site& at, const cu::Matrix<T>& z, const T* bias,
                     const cu::Rounded<T>& change, std::int64_t row, LargestOf<f, T, int> (&largest)[V]) {
  Pack<T, V> own{};
#pragma unroll
  for (int i = 0; i < V && bias != nullptr; ++i) own[i] = bias[at.channel + i];
  const auto look = [&](int ky, int kx) {
    const int place = w.at(at.y, ky) * w.width + w.at(at.x, kx);
    const std::int64_t col = std::int64_t{place} * w.channels + at.channel;
    const Pack<T, V> here = load<V>(z, row, col);
    const Pack<T, V> moved = change.or_zero(cu::At<V>{row, col});
#pragma unroll
    for (int i = 0; i < V; ++i) largest[i].meet(place, here[i] + own[i], moved[i]);
  };
  if (w.kernel_h == 2 && w.kernel_w == 2 && w.padding == 0) {  // the usual ones, with all loads under way at once
#pragma unroll
    for (int k = 0; k < 4; ++k) look(k / 2, k % 2);
    return;
  }
  for (int ky = 0; ky < w.kernel_h; ++ky) {
    for (int kx = 0; kx < w.kernel_w; ++kx) {
      if (w.inside(w.at(at.y, ky), w.at(at.x, kx))) look(ky, kx);
    }
  }
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
    put<V>(y, row, pack * V, out);
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
  int out_height, out_width;

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
        out_height(w.out_height()),
        out_width(w.out_width()) {}

  /// dz of V channels: d where the largest is, elsewhere 0. The last window of a row or column does what lies behind
  /// it too.
  __device__ void bring_back(std::int64_t row, const Site& at, const int (&places)[V], const Pack<T, V>& d) const {
    const int bottom = at.y + 1 == out_height ? w.height : w.at(at.y + 1, 0);
    const int right = at.x + 1 == out_width ? w.width : w.at(at.x + 1, 0);
    for (int y = w.at(at.y, 0); y < bottom; ++y) {
      for (int x = w.at(at.x, 0); x < right; ++x) {
        const int place = y * w.width + x;
        const std::int64_t col = std::int64_t{place} * w.channels + at.channel;
        Pack<T, V> out;
#pragma unroll
        for (int i = 0; i < V; ++i) out[i] = places[i] == place ? d[i] : T(0);
        if (dz) put<V>(dz, row, col, out);
        narrow(cu::At<V>{row, col}, out);
      }
    }
  }

  /// Twice the energy of the entries.
  __device__ double operator()(std::int64_t row, std::int64_t pack) const {
    const std::int64_t col = pack * V;
    const Site at(col, out_width, w.channels);
    LargestOf<f, T, int> largest[V];
    find<f, V>(w, at, z, bias, change, row, largest);
    const Pack<T, V> from = start ? load<V>(start, row, col) : Pack<T, V>{};
    const Pack<T, V> moved = dx ? load<V>(dx, row, col) : Pack<T, V>{};
    const Pack<T, V> before = load<V>(top, row, col);
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
    put<V>(delta, row, col, d);
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
      with_width<T>(p.window, {&p.z, &p.y}, [&]<int V>() {
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
      with_width<T>(e.window, {&e.delta, &e.top, &e.z, &e.start, &e.dx, &e.change, &e.dz, operand}, [&]<int V>() {
        cu::fold_rows(e.delta.rows(), e.delta.cols() / V, context.stream, e.energy.as<double>(), cu::Sum{.scale = 0.5},
                      PoolError<T, f, V>(e));
      });
    });
  });
}

}  // namespace pc::kernels

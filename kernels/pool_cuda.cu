#include "kernels/pool.h"
#include "kernels/windows.cuh"

namespace pc::kernels {
namespace {

using cu::At, cu::matrix, cu::Pack, cu::Site, cu::with_packs;

/// The largest entry, or the sum, of V channels of a window.
template <bool largest, int V, class T>
struct Pool {
  cu::Matrix<T> x, y;
  BasicWindow<int> w;
  int out_width;
  T by;
  bool add;

  explicit Pool(const PoolArgs& p)
      : x(matrix<T>(p.x)),
        y(matrix<T>(p.y)),
        w(p.window.narrow()),
        out_width(w.out_width()),
        by(T(p.by)),
        add(p.write == Write::add) {}

  __device__ void operator()(std::int64_t row, std::int64_t pack) const {
    const Site at(pack * V, out_width, w.channels);
    LargestEntry<T, int> top[V];
    Pack<T, V> seen{};
    cu::each_seen(w, at, [&](int place) {
      const Pack<T, V> here = x(At<V>{row, std::int64_t{place} * w.channels + at.channel});
#pragma unroll
      for (int i = 0; i < V; ++i) {
        if constexpr (largest) {
          top[i].meet(place, here[i]);
        } else {
          seen[i] += here[i];
        }
      }
    });
#pragma unroll
    for (int i = 0; i < V; ++i) seen[i] = largest ? top[i].at : by * seen[i];
    cu::store(y(At<V>{row, pack * V}), seen, add);
  }
};

/// The adjoint for windows that lie side by side: V channels of all that one of them sees.
template <bool largest, int V, class T>
struct TileBack {
  cu::Matrix<T> x, dy, dx;
  BasicWindow<int> w;
  int out_width;
  T by;
  bool add;

  explicit TileBack(const PoolPullbackArgs& p)
      : x(matrix<T>(p.x)),
        dy(matrix<T>(p.dy)),
        dx(matrix<T>(p.dx)),
        w(p.window.narrow()),
        out_width(w.out_width()),
        by(largest ? T(1) : T(p.by)),
        add(p.write == Write::add) {}

  __device__ void operator()(std::int64_t row, std::int64_t pack) const {
    const Site at(pack * V, out_width, w.channels);
    const auto there = [&](int place) { return At<V>{row, std::int64_t{place} * w.channels + at.channel}; };
    LargestEntry<T, int> top[V];
    if constexpr (largest) {
      cu::each_seen(w, at, [&](int place) {
        const Pack<T, V> here = x(there(place));
#pragma unroll
        for (int i = 0; i < V; ++i) top[i].meet(place, here[i]);
      });
    }
    const Pack<T, V> delta = dy(At<V>{row, pack * V});
    each_own(w, at.y, at.x, [&](int place, bool seen) {
      Pack<T, V> back;
#pragma unroll
      for (int i = 0; i < V; ++i) back[i] = (largest ? top[i].place == place : seen) ? by * delta[i] : T(0);
      cu::store(dx(there(place)), back, add);
    });
  }
};

template <bool largest, class T>
void pool_typed(const PoolArgs& p, CudaContext& context) {
  with_packs<T>(p.window.channels, {&p.x, &p.y},
                [&]<int V>() { cu::each_entry(p.y.rows(), p.y.cols() / V, context.stream, Pool<largest, V, T>(p)); });
}

template <bool largest, class T>
void pool_pullback_typed(const PoolPullbackArgs& p, CudaContext& context) {
  if (p.window.tiles()) {
    return with_packs<T>(p.window.channels, {&p.x, &p.dy, &p.dx}, [&]<int V>() {
      cu::each_entry(p.dy.rows(), p.dy.cols() / V, context.stream, TileBack<largest, V, T>(p));
    });
  }
  const auto x = matrix<T>(p.x), dy = matrix<T>(p.dy), dx = matrix<T>(p.dx);
  const bool add = p.write == Write::add;
  cu::each_entry(
      p.dx.rows(), p.dx.cols(), context.stream,
      [=, w = p.window.narrow(), by = largest ? T(1) : T(p.by)] __device__(std::int64_t row, std::int64_t col) {
        const Site at(col, w.width, w.channels);
        const T* image = largest ? &x(row, at.channel) : nullptr;
        cu::store(dx(row, col), by * window_back(w, image, &dy(row, at.channel), at.y, at.x), add);
      });
}

template <class Body>
void with_pooling(Pooling pooling, Body&& body) {
  if (pooling == Pooling::max) return body.template operator()<true>();
  body.template operator()<false>();
}

}  // namespace

void pool_cuda(const PoolArgs& p, CudaContext& context) {
  with_float(p.y.dtype,
             [&]<class T>(T) { with_pooling(p.pooling, [&]<bool largest>() { pool_typed<largest, T>(p, context); }); });
}
void pool_pullback_cuda(const PoolPullbackArgs& p, CudaContext& context) {
  with_float(p.dx.dtype, [&]<class T>(T) {
    with_pooling(p.pooling, [&]<bool largest>() { pool_pullback_typed<largest, T>(p, context); });
  });
}

}  // namespace pc::kernels

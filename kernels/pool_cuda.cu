#include "kernels/launch.cuh"
#include "kernels/pool.h"

namespace pc::kernels {
namespace {

/// Row, column and channel of an entry of an image.
struct Place {
  int y, x, channel;

  __device__ Place(std::int64_t col, int width, int channels)
      : y(int(unsigned(col) / unsigned(channels) / unsigned(width))),
        x(int(unsigned(col) / unsigned(channels) % unsigned(width))),
        channel(int(unsigned(col) % unsigned(channels))) {}
};

template <class T>
void pool_typed(const PoolArgs& p, CudaContext& context) {
  const auto x = cu::matrix<T>(p.x), y = cu::matrix<T>(p.y);
  const auto width = int(p.window.out_width());
  const bool add = p.write == Write::add, largest = p.pooling == Pooling::max;
  cu::each_entry(p.y.rows(), p.y.cols(), context.stream,
                 [=, w = p.window.narrow(), by = T(p.by)] __device__(std::int64_t row, std::int64_t col) {
                   const Place at(col, width, w.channels);
                   const T* image = &x(row, at.channel);
                   const T seen = largest ? image[place_of_largest(w, image, at.y, at.x) * w.channels]
                                          : by * window_sum(w, image, at.y, at.x);
                   cu::store(y(row, col), seen, add);
                 });
}

template <class T>
void pool_pullback_typed(const PoolPullbackArgs& p, CudaContext& context) {
  const auto x = cu::matrix<T>(p.x), dy = cu::matrix<T>(p.dy), dx = cu::matrix<T>(p.dx);
  const bool add = p.write == Write::add, largest = p.pooling == Pooling::max;
  cu::each_entry(
      p.dx.rows(), p.dx.cols(), context.stream,
      [=, w = p.window.narrow(), by = largest ? T(1) : T(p.by)] __device__(std::int64_t row, std::int64_t col) {
        const Place at(col, w.width, w.channels);
        const T* image = largest ? &x(row, at.channel) : nullptr;
        cu::store(dx(row, col), by * window_back(w, image, &dy(row, at.channel), at.y, at.x), add);
      });
}

}  // namespace

void pool_cuda(const PoolArgs& p, CudaContext& context) {
  with_float(p.y.dtype, [&]<class T>(T) { pool_typed<T>(p, context); });
}
void pool_pullback_cuda(const PoolPullbackArgs& p, CudaContext& context) {
  with_float(p.dx.dtype, [&]<class T>(T) { pool_pullback_typed<T>(p, context); });
}

}  // namespace pc::kernels

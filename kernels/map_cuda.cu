#include "kernels/launch.cuh"
#include "kernels/map.h"

namespace pc::kernels {
namespace {

using cu::each_entry, cu::matrix;

template <class T, Activation f>
void map_typed(const MapArgs& m, CudaContext& context) {
  const auto x = matrix<T>(m.x), y = matrix<T>(m.y);
  const T leak = T(m.leak);
  const bool add = m.write == Write::add;
  each_entry(m.y.rows(), m.y.cols(), context.stream, [=] __device__(std::int64_t row, std::int64_t col) {
    cu::store(y(row, col), scalar::activate<f>(x(row, col), leak).value, add);
  });
}

template <class T, Activation f>
void map_pullback_typed(const MapPullbackArgs& m, CudaContext& context) {
  const auto x = matrix<T>(m.x), dy = matrix<T>(m.dy), dx = matrix<T>(m.dx);
  const T leak = T(m.leak);
  const bool add = m.write == Write::add;
  each_entry(m.dx.rows(), m.dx.cols(), context.stream, [=] __device__(std::int64_t row, std::int64_t col) {
    cu::store(dx(row, col), scalar::activate<f>(x(row, col), leak).slope * dy(row, col), add);
  });
}

}  // namespace

void map_cuda(const MapArgs& m, CudaContext& context) {
  with_float(m.y.dtype,
             [&]<class T>(T) { scalar::with_activation(m.f, [&]<Activation f>() { map_typed<T, f>(m, context); }); });
}

void map_pullback_cuda(const MapPullbackArgs& m, CudaContext& context) {
  with_float(m.dx.dtype, [&]<class T>(T) {
    scalar::with_activation(m.f, [&]<Activation f>() { map_pullback_typed<T, f>(m, context); });
  });
}

}  // namespace pc::kernels

#include "kernels/launch.cuh"
#include "kernels/pick.h"

namespace pc::kernels {
namespace {

using cu::matrix, cu::matrix_or_row;

template <class T>
void pick_typed(const PickArgs& p, CudaContext& context) {
  const auto x = matrix<T>(p.x), places = matrix_or_row<T>(p.places), y = matrix<T>(p.y);
  const std::int64_t n = p.shape.length, inner = p.shape.inner, k = p.places.cols();
  const bool add = p.write == Write::add;
  cu::each_entry(p.y.rows(), p.y.cols(), context.stream, [=] __device__(std::int64_t row, std::int64_t col) {
    const std::int64_t run = col / inner;
    const T place = places(row, run % k);
    const std::int64_t from = embed_row(place, n);
    const T value = from < 0 ? place : x(row, (run / k * n + from) * inner + col % inner);  // the NaN itself
    cu::store(y(row, col), value, add);
  });
}

/// Each entry looks through all places, in order, so that nothing is added by two threads.
template <class T>
void pick_back_typed(const PickBackArgs& p, CudaContext& context) {
  const auto places = matrix_or_row<T>(p.places), dy = matrix<T>(p.dy), dx = matrix<T>(p.dx);
  const std::int64_t n = p.shape.length, inner = p.shape.inner, k = p.places.cols();
  const bool add = p.write == Write::add;
  cu::each_entry(p.dx.rows(), p.dx.cols(), context.stream, [=] __device__(std::int64_t row, std::int64_t col) {
    const std::int64_t run = col / inner, to = run % n, first = run / n * k * inner + col % inner;
    T sum = 0;
    for (std::int64_t j = 0; j < k; ++j) {
      if (embed_row(places(row, j), n) == to) sum += dy(row, first + j * inner);
    }
    cu::store(dx(row, col), sum, add);
  });
}

}  // namespace

void pick_cuda(const PickArgs& p, CudaContext& context) {
  with_float(p.y.dtype, [&]<class T>(T) { pick_typed<T>(p, context); });
}
void pick_back_cuda(const PickBackArgs& p, CudaContext& context) {
  with_float(p.dy.dtype, [&]<class T>(T) { pick_back_typed<T>(p, context); });
}

}  // namespace pc::kernels

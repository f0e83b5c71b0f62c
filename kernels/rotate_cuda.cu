#include "kernels/launch.cuh"
#include "kernels/rotate.h"

namespace pc::kernels {
namespace {

template <class T>
void rotate_typed(const RotateArgs& r, CudaContext& context) {
  const auto x = cu::matrix<T>(r.x), y = cu::matrix<T>(r.y);
  const bool add = r.write == Write::add;
  cu::each_entry(r.x.rows(), r.x.cols(), context.stream, [=] __device__(std::int64_t row, std::int64_t col) {
    const std::int64_t in_token = col % r.width;
    if (in_token >= r.count) return cu::store(y(row, col), x(row, col), add);
    const Turn turn = turn_of(r, col / r.width, in_token % r.head / 2);
    const T c = T(turn.cosine), s = T(turn.sine);
    const T value = in_token % 2 == 0 ? c * x(row, col) - s * x(row, col + 1) : s * x(row, col - 1) + c * x(row, col);
    cu::store(y(row, col), value, add);
  });
}

}  // namespace

void rotate_cuda(const RotateArgs& r, CudaContext& context) {
  with_float(r.x.dtype, [&]<class T>(T) { rotate_typed<T>(r, context); });
}

}  // namespace pc::kernels

#include "kernels/launch.cuh"
#include "kernels/transpose.h"

namespace pc::kernels {
namespace {

template <class T>
void transpose_typed(const TransposeEachArgs& t, CudaContext& context) {
  const auto x = cu::matrix<T>(t.x), y = cu::matrix<T>(t.y);
  const auto m = unsigned(t.m), n = unsigned(t.n);
  const bool add = t.write == Write::add;
  cu::each_entry(t.x.rows(), t.x.cols(), context.stream, [=] __device__(std::int64_t row, std::int64_t col) {
    cu::store(y(row, col), x(row, std::int64_t{unsigned(col) % m} * n + unsigned(col) / m), add);
  });
}

}  // namespace

void transpose_each_cuda(const TransposeEachArgs& t, CudaContext& context) {
  with_float(t.y.dtype, [&]<class T>(T) { transpose_typed<T>(t, context); });
}

}  // namespace pc::kernels

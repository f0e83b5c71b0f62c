// Agrees with the CPU to the last bit: philox.h and random_entry say every fused product themselves, and leave none
// that nvcc could fuse on its own (each other product is exact, or is not added to anything).
#include "kernels/launch.cuh"
#include "kernels/random.h"

namespace pc::kernels {
namespace {

template <class T>
void random_typed(const RandomArgs& r, CudaContext& context) {
  const auto out = cu::matrix<T>(r.out), mask = cu::matrix_or_row<T>(r.mask);
  const double* step = r.step.as<double>();
  const std::int64_t cols = r.out.cols();
  const bool add = r.write == Write::add;
  cu::each_entry(r.out.rows(), cols, context.stream,
                 [=, distribution = r.distribution, a = r.a, b = r.b, seed = r.seed, purpose = r.purpose,
                  stream = r.stream, first = r.draw] __device__(std::int64_t row, std::int64_t col) {
                   if (mask && mask(row, col) == T(0)) return;
                   const std::uint64_t draw = first + (step == nullptr ? 0 : static_cast<std::uint64_t>(*step));
                   const auto index = static_cast<std::uint64_t>(row * cols + col);
                   const std::uint64_t bits = philox::bits(seed, purpose, stream, draw, index);
                   cu::store(out(row, col), T(random_entry(distribution, a, b, bits)), add);
                 });
}

}  // namespace

void random_cuda(const RandomArgs& r, CudaContext& context) {
  with_float(r.out.dtype, [&]<class T>(T) { random_typed<T>(r, context); });
}

}  // namespace pc::kernels

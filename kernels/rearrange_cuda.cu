#include "kernels/launch.cuh"
#include "kernels/rearrange.h"

namespace pc::kernels {
namespace {

struct Place {
  std::int64_t dims[4], from[4], to[4], from_begin, to_begin;
};

template <class T>
void rearrange_typed(const RearrangeArgs& r, CudaContext& context) {
  const auto x = cu::matrix<T>(r.x), y = cu::matrix<T>(r.y);
  Place p{.from_begin = r.from.begin, .to_begin = r.to.begin};
  for (std::size_t k = 0; k < 4; ++k) p.dims[k] = r.dims[k], p.from[k] = r.from.step[k], p.to[k] = r.to.step[k];
  const bool add = r.write == Write::add;
  cu::each_entry(r.x.rows(), r.count(), context.stream, [=] __device__(std::int64_t row, std::int64_t entry) {
    std::int64_t from = p.from_begin, to = p.to_begin;
    for (int k = 3; k >= 0; --k) {
      const std::int64_t i = entry % p.dims[k];
      entry /= p.dims[k];
      from += i * p.from[k];
      to += i * p.to[k];
    }
    cu::store(y(row, to), x(row, from), add);
  });
}

}  // namespace

void rearrange_cuda(const RearrangeArgs& r, CudaContext& context) {
  with_float(r.x.dtype, [&]<class T>(T) { rearrange_typed<T>(r, context); });
}

}  // namespace pc::kernels

#include <array>

#include "kernels/launch.cuh"
#include "kernels/narrow.cuh"

namespace pc::kernels {
namespace {

struct NarrowEntry {
  cu::Matrix<float> x;
  cu::Narrow to;

  explicit NarrowEntry(const NarrowArgs& args) : x(cu::matrix<float>(args.x)), to(args.to) {}
  NarrowEntry() = default;
  __device__ void operator()(std::int64_t row, std::int64_t col) const { to(row, col, x(row, col)); }
};

}  // namespace

void narrow_cuda_together(std::span<const NarrowArgs* const> calls, CudaContext& context) {
  cu::each_entry_of<NarrowEntry>(calls, context.stream, [](const NarrowArgs& a) -> const View& { return a.x; });
}
void narrow_cuda(const NarrowArgs& args, CudaContext& context) { narrow_cuda_together(std::array{&args}, context); }

}  // namespace pc::kernels

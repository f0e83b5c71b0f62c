#include <array>

#include "kernels/launch.cuh"
#include "kernels/narrow.cuh"

namespace pc::kernels {
namespace {

struct NarrowEntries {
  static constexpr int kEntries = cu::kPack<float>;
  cu::Matrix<float> x;
  cu::Narrow to;

  explicit NarrowEntries(const NarrowArgs& args) : x(cu::matrix<float>(args.x)), to(args.to) {}
  NarrowEntries() = default;
  [[nodiscard]] bool packs() const { return x.packs() && to.packs(); }
  template <int n>
  __device__ void operator()(cu::At<n> at) const {
    to(at, x(at));
  }
};

}  // namespace

void narrow_cuda_together(std::span<const NarrowArgs* const> calls, CudaContext& context) {
  cu::each_entry_of<NarrowEntries>(calls, context.stream, [](const NarrowArgs& a) -> const View& { return a.x; });
}
void narrow_cuda(const NarrowArgs& args, CudaContext& context) { narrow_cuda_together(std::array{&args}, context); }

}  // namespace pc::kernels

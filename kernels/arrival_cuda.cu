#include "kernels/arrival.h"
#include "kernels/launch.cuh"

namespace pc::kernels {
namespace {

using cu::matrix, cu::Team;

template <class T>
void first_arrival_typed(const ArrivalArgs& a, CudaContext& context) {
  const auto delta = matrix<T>(a.delta), gated = matrix<T>(a.gated);
  double* fired = a.fired.as<double>();
  const std::int64_t n = a.delta.cols();
  cu::each_row(a.delta.rows(), n, context.stream, [=] __device__(std::int64_t row, Team team) {
    // What fired holds goes into the reduction, so that every thread has read it before one writes it.
    int part = 0;
    if (fired[row] == 0) {
      for (std::int64_t i = team.rank(); i < n; i += team.size()) part |= delta(row, i) != T(0) ? 1 : 0;
    }
    const bool arrives = team.reduce(part, [](int x, int y) { return x | y; }) != 0;
    if (arrives && team.rank() == 0) fired[row] = 1;
    for (std::int64_t i = team.rank(); i < n; i += team.size()) gated(row, i) = arrives ? delta(row, i) : T(0);
  });
}

}  // namespace

void first_arrival_cuda(const ArrivalArgs& a, CudaContext& context) {
  with_float(a.delta.dtype, [&]<class T>(T) { first_arrival_typed<T>(a, context); });
}

}  // namespace pc::kernels

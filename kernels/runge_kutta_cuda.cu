#include "kernels/runge_kutta.h"

#include "kernels/launch.cuh"
#include "kernels/scalar_rate.h"

namespace pc::kernels {
namespace {

using cu::matrix, cu::matrix_or_row, cu::OneScalar;

/// The slopes with their factors, of type F: added up in it, first slope first.
template <class T, class F>
struct WeightedSlopes {
  cu::Matrix<T> k[kMaxSlopes], free;
  F factor[kMaxSlopes];
  int count;

  WeightedSlopes(const Slopes& s, const std::array<double, kMaxSlopes>& factors)
      : free(matrix_or_row<T>(s.free)), count(s.count) {
    for (std::size_t i = 0; i < kMaxSlopes; ++i) {
      k[i] = matrix<T>(s.k[i]);
      factor[i] = F(factors[i]);
    }
  }
  __device__ bool moves(std::int64_t row, std::int64_t col) const { return !free || free(row, col) != T(0); }
  __device__ F total(std::int64_t row, std::int64_t col) const {
    F total = 0;
#pragma unroll
    for (int i = 0; i < kMaxSlopes; ++i) {
      if (i < count) total += factor[i] * F(k[i](row, col));
    }
    return total;
  }
};

template <class T>
void rk_stage_typed(const RkStageArgs& g, CudaContext& context) {
  const WeightedSlopes<T, T> slopes(g.slopes(), g.a);
  const auto x = matrix<T>(g.x), from = matrix<T>(g.from);
  cu::each_entry(g.x.rows(), g.x.cols(), context.stream, OneScalar{g.h.as<double>(), g.step},
                 [=] __device__(double s, std::int64_t row, std::int64_t col) {
                   if (slopes.moves(row, col)) x(row, col) = from(row, col) - T(s) * slopes.total(row, col);
                 });
}

template <class T>
void rk_error_typed(const RkErrorArgs& g, CudaContext& context) {
  const WeightedSlopes<T, double> slopes(g.slopes(), g.e);
  const auto x = matrix<T>(g.x), from = matrix<T>(g.from);
  const double absolute = g.absolute, relative = g.relative;
  cu::fold_rows(
      g.x.rows(), g.x.cols(), context.stream, g.worst.as<double>(), cu::Largest{}, OneScalar{g.h.as<double>(), g.step},
      [=] __device__(double s, std::int64_t row, std::int64_t col) -> double {
        if (!slopes.moves(row, col)) return 0;
        return error_ratio(s * slopes.total(row, col), double(x(row, col)), double(from(row, col)), absolute, relative);
      });
}

template <class T>
void choose_typed(const ChooseArgs& c, CudaContext& context) {
  const auto yes = matrix<T>(c.yes), no = matrix<T>(c.no), y = matrix<T>(c.y);
  cu::each_entry(c.y.rows(), c.y.cols(), context.stream, OneScalar{c.flag.as<double>()},
                 [=] __device__(double flag, std::int64_t row, std::int64_t col) {
                   y(row, col) = flag != 0 ? yes(row, col) : no(row, col);
                 });
}

}  // namespace

void rk_stage_cuda(const RkStageArgs& g, CudaContext& context) {
  with_float(g.x.dtype, [&]<class T>(T) { rk_stage_typed<T>(g, context); });
}
void rk_error_cuda(const RkErrorArgs& g, CudaContext& context) {
  with_float(g.x.dtype, [&]<class T>(T) { rk_error_typed<T>(g, context); });
}
void step_control_cuda(const StepControlArgs& c, CudaContext& context) {
  const double* error = c.error.as<double>();
  double *h = c.h.as<double>(), *accepted = c.accepted.as<double>(), *time = c.time.as<double>();
  cu::each_index(1, context.stream, [=, order = c.order, most = c.most] __device__(std::int64_t) {
    const bool good = *error <= 1;
    *accepted = good ? 1 : 0;
    if (good) *time += *h;
    *h = scalar::min(most, *h * step_growth(*error, order));
  });
}
void choose_cuda(const ChooseArgs& c, CudaContext& context) {
  with_float(c.y.dtype, [&]<class T>(T) { choose_typed<T>(c, context); });
}

}  // namespace pc::kernels

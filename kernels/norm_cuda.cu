#include <cmath>

#include "kernels/column_sums.cuh"
#include "kernels/norm.h"

namespace pc::kernels {
namespace {

using cu::matrix, cu::Team;

/// The runs of a matrix, numbered row by row.
template <class T>
struct Runs {
  cu::Matrix<T> of;
  std::int64_t width, each;  // `each`: runs in a row

  Runs(const View& v, const NormShape& s) : of(matrix<T>(v)), width(s.width), each(v.cols() / s.width) {}
  __device__ T* operator()(std::int64_t run) const { return &of(run / each, run % each * width); }
};

template <class T>
struct Moments {
  T mean, scale;
};

template <class T>
__device__ Moments<T> moments(const NormShape& s, const T* x, Team team) {
  T mean = 0;
  if (s.centred) {
    double sum = 0;
    for (std::int64_t i = team.rank(); i < s.width; i += team.size()) sum += x[i];
    mean = T(team.reduce(sum, cu::Sum{}) / double(s.width));
  }
  double square = 0;
  for (std::int64_t i = team.rank(); i < s.width; i += team.size()) square += (x[i] - mean) * (x[i] - mean);
  return {mean, T(1) / std::sqrt(T(team.reduce(square, cu::Sum{}) / double(s.width)) + T(s.epsilon))};
}

template <class T>
void norm_typed(const NormArgs& a, CudaContext& context) {
  const Runs<T> xs(a.x, a.shape), ys(a.y, a.shape);
  const T *gain = a.gain.as<T>(), *bias = a.bias.as<T>();
  const bool add = a.write == Write::add;
  cu::each_row(a.x.rows() * xs.each, a.shape.width, context.stream,
               [=, s = a.shape] __device__(std::int64_t run, Team team) {
                 const T* x = xs(run);
                 T* y = ys(run);
                 const Moments<T> m = moments(s, x, team);
                 for (std::int64_t i = team.rank(); i < s.width; i += team.size()) {
                   const T n = (x[i] - m.mean) * m.scale;
                   cu::store(y[i], (gain == nullptr ? n : gain[i] * n) + (bias == nullptr ? T(0) : bias[i]), add);
                 }
               });
}

template <class T>
void norm_pullback_typed(const NormPullbackArgs& a, CudaContext& context) {
  const Runs<T> xs(a.x, a.shape), dys(a.dy, a.shape), dxs(a.dx, a.shape);
  const T* gain = a.gain.as<T>();
  const bool add = a.write == Write::add;
  cu::each_row(a.x.rows() * xs.each, a.shape.width, context.stream,
               [=, s = a.shape] __device__(std::int64_t run, Team team) {
                 const T *x = xs(run), *dy = dys(run);
                 T* dx = dxs(run);
                 const Moments<T> m = moments(s, x, team);
                 double sum = 0, along = 0;  // of g, and of g n
                 for (std::int64_t i = team.rank(); i < s.width; i += team.size()) {
                   const T g = gain == nullptr ? dy[i] : gain[i] * dy[i];
                   sum += g;
                   along += g * ((x[i] - m.mean) * m.scale);
                 }
                 const T mean_g = s.centred ? T(team.reduce(sum, cu::Sum{}) / double(s.width)) : T(0);
                 const T mean_along = T(team.reduce(along, cu::Sum{}) / double(s.width));
                 for (std::int64_t i = team.rank(); i < s.width; i += team.size()) {
                   const T g = gain == nullptr ? dy[i] : gain[i] * dy[i], n = (x[i] - m.mean) * m.scale;
                   cu::store(dx[i], m.scale * (g - mean_g - n * mean_along), add);
                 }
               });
}

/// First the moments of all runs, then sums over the runs.
template <class T>
void norm_gain_typed(const NormGainArgs& a, CudaContext& context) {
  const Runs<T> xs(a.x, a.shape), dys(a.dy, a.shape);
  const std::int64_t runs = a.x.rows() * xs.each, parts = cu::slices(runs) * a.shape.width;
  auto* of_run = static_cast<Moments<T>*>(context.scratch(sizeof(Moments<T>) * runs + sizeof(T) * parts));
  cu::each_row(runs, a.shape.width, context.stream, [=, s = a.shape] __device__(std::int64_t run, Team team) {
    const Moments<T> m = moments(s, xs(run), team);
    if (team.rank() == 0) of_run[run] = m;
  });
  const auto term = [=] __device__(std::int64_t run, std::int64_t i) {
    return dys(run)[i] * ((xs(run)[i] - of_run[run].mean) * of_run[run].scale);
  };
  cu::column_sums<T>(runs, a.shape.width, context.stream, term, a.dgain.as<T>(), a.write == Write::add,
                     reinterpret_cast<T*>(of_run + runs));
}

}  // namespace

void norm_cuda(const NormArgs& a, CudaContext& context) {
  with_float(a.x.dtype, [&]<class T>(T) { norm_typed<T>(a, context); });
}
void norm_pullback_cuda(const NormPullbackArgs& a, CudaContext& context) {
  with_float(a.x.dtype, [&]<class T>(T) { norm_pullback_typed<T>(a, context); });
}
void norm_gain_cuda(const NormGainArgs& a, CudaContext& context) {
  with_float(a.x.dtype, [&]<class T>(T) { norm_gain_typed<T>(a, context); });
}

}  // namespace pc::kernels

#include <cmath>

#include "kernels/column_sums.cuh"
#include "kernels/norm.h"

namespace pc::kernels {
namespace {

using cu::matrix, cu::Pack, cu::Team;

/// The runs of a matrix, numbered row by row.
template <class T>
struct Runs {
  cu::Matrix<T> of;
  std::int64_t width, each;  // `each`: runs in a row; 0: rows lie one behind the other

  Runs(const View& v, const NormShape& s)
      : of(matrix<T>(v)), width(s.width), each(v.ld() == v.cols() ? 0 : v.cols() / s.width) {}
  __device__ T* operator()(std::int64_t run) const {
    return each == 0 ? of.data + run * width : &of(run / each, run % each * width);
  }
};

/// Entries i, i + 1, ... of a run, or of a row.
template <int V, class T>
__device__ Pack<T, V>& pack(T* run, std::int64_t i) {
  return *reinterpret_cast<Pack<T, V>*>(run + i);
}
template <int V, class T>
__device__ const Pack<T, V>& pack(const T* run, std::int64_t i) {
  return *reinterpret_cast<const Pack<T, V>*>(run + i);
}

template <class T>
struct Moments {
  T mean, scale;

  __device__ T n(T x) const { return (x - mean) * scale; }
};

template <int V, class T>
__device__ Moments<T> moments(const NormShape& s, const T* x, Team team) {
  T mean = 0;
  if (s.centred) {
    double sum = 0;
    for (std::int64_t i = team.rank() * V; i < s.width; i += team.size() * V) {
      const Pack<T, V> here = pack<V>(x, i);
      for (int k = 0; k < V; ++k) sum += here[k];
    }
    mean = T(team.reduce(sum, cu::Sum{}) / double(s.width));
  }
  double square = 0;
  for (std::int64_t i = team.rank() * V; i < s.width; i += team.size() * V) {
    const Pack<T, V> here = pack<V>(x, i);
    for (int k = 0; k < V; ++k) square += (here[k] - mean) * (here[k] - mean);
  }
  return {mean, T(1) / std::sqrt(T(team.reduce(square, cu::Sum{}) / double(s.width)) + T(s.epsilon))};
}

template <class T, int V>
void norm_typed(const NormArgs& a, CudaContext& context) {
  const Runs<T> xs(a.x, a.shape), ys(a.y, a.shape);
  const T *gain = a.gain.as<T>(), *bias = a.bias.as<T>();
  const bool add = a.write == Write::add;
  cu::each_short_row(a.x.count() / a.shape.width, a.shape.width / V, context.stream,
                     [=, s = a.shape] __device__(std::int64_t run, Team team) {
                       const T* x = xs(run);
                       T* y = ys(run);
                       const Moments<T> m = moments<V>(s, x, team);
                       for (std::int64_t i = team.rank() * V; i < s.width; i += team.size() * V) {
                         Pack<T, V> out = pack<V>(x, i);
                         for (int k = 0; k < V; ++k) {
                           const T n = m.n(out[k]);
                           out[k] = (gain == nullptr ? n : gain[i + k] * n) + (bias == nullptr ? T(0) : bias[i + k]);
                         }
                         cu::store(pack<V>(y, i), out, add);
                       }
                     });
}

template <class T, int V>
void norm_pullback_typed(const NormPullbackArgs& a, CudaContext& context) {
  const Runs<T> xs(a.x, a.shape), dys(a.dy, a.shape), dxs(a.dx, a.shape);
  const T* gain = a.gain.as<T>();
  const bool add = a.write == Write::add;
  cu::each_short_row(a.x.count() / a.shape.width, a.shape.width / V, context.stream,
                     [=, s = a.shape] __device__(std::int64_t run, Team team) {
                       const T *x = xs(run), *dy = dys(run);
                       T* dx = dxs(run);
                       const Moments<T> m = moments<V>(s, x, team);
                       const auto through_gain = [=](std::int64_t i) {
                         Pack<T, V> g = pack<V>(dy, i);
                         for (int k = 0; k < V && gain != nullptr; ++k) g[k] = gain[i + k] * g[k];
                         return g;
                       };
                       double sum = 0, along = 0;  // of g, and of g n
                       for (std::int64_t i = team.rank() * V; i < s.width; i += team.size() * V) {
                         const Pack<T, V> g = through_gain(i), here = pack<V>(x, i);
                         for (int k = 0; k < V; ++k) {
                           sum += g[k];
                           along += g[k] * m.n(here[k]);
                         }
                       }
                       const T mean_g = s.centred ? T(team.reduce(sum, cu::Sum{}) / double(s.width)) : T(0);
                       const T mean_along = T(team.reduce(along, cu::Sum{}) / double(s.width));
                       for (std::int64_t i = team.rank() * V; i < s.width; i += team.size() * V) {
                         Pack<T, V> out = through_gain(i);
                         const Pack<T, V> here = pack<V>(x, i);
                         for (int k = 0; k < V; ++k) out[k] = m.scale * (out[k] - mean_g - m.n(here[k]) * mean_along);
                         cu::store(pack<V>(dx, i), out, add);
                       }
                     });
}

/// First the moments of all runs, then sums over the runs.
template <class T, int V>
void norm_gain_typed(const NormGainArgs& a, CudaContext& context) {
  const Runs<T> xs(a.x, a.shape), dys(a.dy, a.shape);
  const std::int64_t runs = a.x.count() / a.shape.width, parts = cu::slices(runs) * a.shape.width;
  auto* of_run = static_cast<Moments<T>*>(context.scratch(sizeof(Moments<T>) * runs + sizeof(T) * parts));
  cu::each_short_row(runs, a.shape.width / V, context.stream, [=, s = a.shape] __device__(std::int64_t run, Team team) {
    const Moments<T> m = moments<V>(s, xs(run), team);
    if (team.rank() == 0) of_run[run] = m;
  });
  const auto term = [=] __device__(std::int64_t run, std::int64_t i) {
    return dys(run)[i] * of_run[run].n(xs(run)[i]);
  };
  cu::column_sums<T>(runs, a.shape.width, context.stream, term, a.dgain.as<T>(), a.write == Write::add,
                     reinterpret_cast<T*>(of_run + runs));
}

}  // namespace

void norm_cuda(const NormArgs& a, CudaContext& context) {
  with_float(a.x.dtype, [&]<class T>(T) {
    cu::with_packs<T>(a.shape.width, {&a.x, &a.y}, [&]<int V>() { norm_typed<T, V>(a, context); });
  });
}
void norm_pullback_cuda(const NormPullbackArgs& a, CudaContext& context) {
  with_float(a.x.dtype, [&]<class T>(T) {
    cu::with_packs<T>(a.shape.width, {&a.x, &a.dy, &a.dx}, [&]<int V>() { norm_pullback_typed<T, V>(a, context); });
  });
}
void norm_gain_cuda(const NormGainArgs& a, CudaContext& context) {
  with_float(a.x.dtype, [&]<class T>(T) {
    cu::with_packs<T>(a.shape.width, {&a.x, &a.dy}, [&]<int V>() { norm_gain_typed<T, V>(a, context); });
  });
}

}  // namespace pc::kernels

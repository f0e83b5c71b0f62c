#include "kernels/norm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/loops.h"

namespace pc::kernels {
namespace {

/// n = (x - mean) * scale
template <class T>
struct Moments {
  T mean, scale;
};

template <class T>
Moments<T> moments(const NormShape& s, const T* x) {
  const T mean = s.centred ? T(lane_sum(s.width, [=](std::int64_t i) { return x[i]; }) / double(s.width)) : T(0);
  const double square = lane_sum(s.width, [=](std::int64_t i) { return (x[i] - mean) * (x[i] - mean); });
  return {mean, T(1) / std::sqrt(T(square / double(s.width)) + T(s.epsilon))};
}

}  // namespace

void norm_cpu(const NormArgs& a, Share share) {
  with_float(a.x.dtype, [&]<class T>(T) {
    const NormShape& s = a.shape;
    each_row(share, a.x.rows(), [&](std::int64_t row) {
      for (std::int64_t run = 0; run < a.x.cols(); run += s.width) {
        const T* x = a.x.row<T>(row) + run;
        const Moments<T> m = moments(s, x);
        each_entry(s.width, [=, y = a.y.row<T>(row) + run, gain = a.gain.as<T>(), bias = a.bias.as<T>(),
                             add = a.write == Write::add](std::int64_t i) {
          const T n = (x[i] - m.mean) * m.scale;
          const T value = (gain == nullptr ? n : gain[i] * n) + (bias == nullptr ? T(0) : bias[i]);
          y[i] = (add ? y[i] : T(0)) + value;
        });
      }
    });
  });
}

void norm_pullback_cpu(const NormPullbackArgs& a, Share share) {
  with_float(a.x.dtype, [&]<class T>(T) {
    const NormShape& s = a.shape;
    std::vector<T> back(static_cast<std::size_t>(s.width));
    each_row(share, a.x.rows(), [&](std::int64_t row) {
      for (std::int64_t run = 0; run < a.x.cols(); run += s.width) {
        const T *x = a.x.row<T>(row) + run, *dy = a.dy.row<T>(row) + run, *gain = a.gain.as<T>();
        T* g = back.data();
        const Moments<T> m = moments(s, x);
        each_entry(s.width, [=](std::int64_t i) { g[i] = gain == nullptr ? dy[i] : gain[i] * dy[i]; });
        const double sum = s.centred ? lane_sum(s.width, [=](std::int64_t i) { return g[i]; }) : 0;
        const double along = lane_sum(s.width, [=](std::int64_t i) { return g[i] * ((x[i] - m.mean) * m.scale); });
        const T mean_g = T(sum / double(s.width)), mean_along = T(along / double(s.width));
        each_entry(s.width, [=, dx = a.dx.row<T>(row) + run, add = a.write == Write::add](std::int64_t i) {
          const T n = (x[i] - m.mean) * m.scale;
          dx[i] = (add ? dx[i] : T(0)) + m.scale * (g[i] - mean_g - n * mean_along);
        });
      }
    });
  });
}

/// Each thread does some columns, and finds the moments of all runs for itself.
void norm_gain_cpu(const NormGainArgs& a, Share share) {
  with_float(a.x.dtype, [&]<class T>(T) {
    const NormShape& s = a.shape;
    const auto [begin, end] = share.of(s.width);
    if (begin == end) return;
    T* out = a.dgain.as<T>() + begin;
    if (a.write == Write::set) std::fill_n(out, end - begin, T(0));
    for (std::int64_t row = 0; row < a.x.rows(); ++row) {
      for (std::int64_t run = 0; run < a.x.cols(); run += s.width) {
        const T *x = a.x.row<T>(row) + run, *dy = a.dy.row<T>(row) + run + begin;
        const Moments<T> m = moments(s, x);
        each_entry(end - begin,
                   [=, own = x + begin](std::int64_t i) { out[i] += dy[i] * ((own[i] - m.mean) * m.scale); });
      }
    }
  });
}

}  // namespace pc::kernels

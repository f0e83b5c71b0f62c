#include "kernels/norm.h"

#include <algorithm>
#include <cmath>

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
  T mean = 0, square = 0;
  if (s.centred) {
    for (std::int64_t i = 0; i < s.width; ++i) mean += x[i];
    mean /= T(s.width);
  }
  for (std::int64_t i = 0; i < s.width; ++i) square += (x[i] - mean) * (x[i] - mean);
  return {mean, T(1) / std::sqrt(square / T(s.width) + T(s.epsilon))};
}

}  // namespace

void norm_cpu(const NormArgs& a, Share share) {
  with_float(a.x.dtype, [&]<class T>(T) {
    const NormShape& s = a.shape;
    const T *gain = a.gain.as<T>(), *bias = a.bias.as<T>();
    each_row(share, a.x.rows(), [&](std::int64_t row) {
      for (std::int64_t run = 0; run < a.x.cols(); run += s.width) {
        const T* x = a.x.row<T>(row) + run;
        T* y = a.y.row<T>(row) + run;
        const auto [mean, scale] = moments(s, x);
        for (std::int64_t i = 0; i < s.width; ++i) {
          const T n = (x[i] - mean) * scale;
          const T value = (gain == nullptr ? n : gain[i] * n) + (bias == nullptr ? T(0) : bias[i]);
          y[i] = (a.write == Write::add ? y[i] : T(0)) + value;
        }
      }
    });
  });
}

void norm_pullback_cpu(const NormPullbackArgs& a, Share share) {
  with_float(a.x.dtype, [&]<class T>(T) {
    const NormShape& s = a.shape;
    const T* gain = a.gain.as<T>();
    each_row(share, a.x.rows(), [&](std::int64_t row) {
      for (std::int64_t run = 0; run < a.x.cols(); run += s.width) {
        const T *x = a.x.row<T>(row) + run, *dy = a.dy.row<T>(row) + run;
        T* dx = a.dx.row<T>(row) + run;
        const auto [mean, scale] = moments(s, x);
        T sum = 0, along = 0;  // of g, and of g n
        for (std::int64_t i = 0; i < s.width; ++i) {
          const T g = gain == nullptr ? dy[i] : gain[i] * dy[i];
          sum += g;
          along += g * ((x[i] - mean) * scale);
        }
        const T mean_g = s.centred ? sum / T(s.width) : T(0), mean_along = along / T(s.width);
        for (std::int64_t i = 0; i < s.width; ++i) {
          const T g = gain == nullptr ? dy[i] : gain[i] * dy[i], n = (x[i] - mean) * scale;
          dx[i] = (a.write == Write::add ? dx[i] : T(0)) + scale * (g - mean_g - n * mean_along);
        }
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
    T* out = a.dgain.as<T>();
    if (a.write == Write::set) std::fill(out + begin, out + end, T(0));
    for (std::int64_t row = 0; row < a.x.rows(); ++row) {
      for (std::int64_t run = 0; run < a.x.cols(); run += s.width) {
        const T *x = a.x.row<T>(row) + run, *dy = a.dy.row<T>(row) + run;
        const auto [mean, scale] = moments(s, x);
        for (std::int64_t i = begin; i < end; ++i) out[i] += dy[i] * ((x[i] - mean) * scale);
      }
    }
  });
}

}  // namespace pc::kernels

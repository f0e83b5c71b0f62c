#include "kernels/batch_norm.h"

#include <cmath>
#include <vector>

#include "kernels/loops.h"

namespace pc::kernels {
namespace {

/// A thread's channels: body(run) for the entries of those at each place, in order.
template <class T, class Body>
void each_place(const View& x, std::int64_t channels, Body&& body) {
  for (std::int64_t row = 0; row < x.rows(); ++row) {
    for (std::int64_t run = 0; run < x.cols(); run += channels) body(row, run);
  }
}

/// n = (x - mean) * scale, for channels [begin, end); sums in float64, in the order of the places.
template <class T>
struct ChannelMoments {
  std::int64_t begin, end;
  std::vector<double> mean, variance;

  ChannelMoments(const View& x, const BatchNormShape& s, std::int64_t first, std::int64_t last)
      : begin(first), end(last), mean(size()), variance(size()) {
    if (!s.mean.empty()) {
      for (std::int64_t c = begin; c < end; ++c) {
        mean[at(c)] = s.mean.as<T>()[c];
        variance[at(c)] = s.variance.as<T>()[c];
      }
      return;
    }
    const double places = double(x.count() / s.channels);
    each_place<T>(x, s.channels, [&](std::int64_t row, std::int64_t run) {
      const T* entries = x.row<T>(row) + run;
      for (std::int64_t c = begin; c < end; ++c) mean[at(c)] += entries[c];
    });
    for (double& m : mean) m /= places;
    each_place<T>(x, s.channels, [&](std::int64_t row, std::int64_t run) {
      const T* entries = x.row<T>(row) + run;
      for (std::int64_t c = begin; c < end; ++c) {
        const double off = entries[c] - mean[at(c)];
        variance[at(c)] += off * off;
      }
    });
    for (double& v : variance) v /= places;
  }

  [[nodiscard]] std::size_t size() const { return static_cast<std::size_t>(end - begin); }
  [[nodiscard]] std::size_t at(std::int64_t c) const { return static_cast<std::size_t>(c - begin); }
  [[nodiscard]] std::vector<double> scales(double epsilon) const {
    std::vector<double> list;
    for (const double v : variance) list.push_back(1 / std::sqrt(v + epsilon));
    return list;
  }
};

}  // namespace

void batch_norm_cpu(const BatchNormArgs& a, Share share) {
  with_float(a.x.dtype, [&]<class T>(T) {
    const auto [begin, end] = share.of(a.shape.channels);
    if (begin == end) return;
    const ChannelMoments<T> m(a.x, a.shape, begin, end);
    const std::vector<double> scale = m.scales(a.shape.epsilon);
    const T *gain = a.gain.as<T>(), *bias = a.bias.as<T>();
    each_place<T>(a.x, a.shape.channels, [&, begin = begin, end = end](std::int64_t row, std::int64_t run) {
      const T* x = a.x.row<T>(row) + run;
      T* y = a.y.row<T>(row) + run;
      for (std::int64_t c = begin; c < end; ++c) {
        const T n = T((x[c] - m.mean[m.at(c)]) * scale[m.at(c)]);
        const T value = (gain == nullptr ? n : gain[c] * n) + (bias == nullptr ? T(0) : bias[c]);
        y[c] = (a.write == Write::add ? y[c] : T(0)) + value;
      }
    });
  });
}

void batch_norm_pullback_cpu(const BatchNormPullbackArgs& a, Share share) {
  with_float(a.x.dtype, [&]<class T>(T) {
    const BatchNormShape& s = a.shape;
    const auto [begin, end] = share.of(s.channels);
    if (begin == end) return;
    const ChannelMoments<T> m(a.x, s, begin, end);
    const std::vector<double> scale = m.scales(s.epsilon);
    const T* gain = a.gain.as<T>();
    const auto n = [&](const T* x, std::int64_t c) { return (x[c] - m.mean[m.at(c)]) * scale[m.at(c)]; };
    std::vector<double> mean(m.size()), along(m.size());  // of dy, and of dy n
    const bool of_batch = s.mean.empty();
    if (of_batch) {
      const double places = double(a.x.count() / s.channels);
      each_place<T>(a.x, s.channels, [&, begin = begin, end = end](std::int64_t row, std::int64_t run) {
        const T *x = a.x.row<T>(row) + run, *dy = a.dy.row<T>(row) + run;
        for (std::int64_t c = begin; c < end; ++c) {
          mean[m.at(c)] += dy[c] / places;
          along[m.at(c)] += dy[c] * n(x, c) / places;
        }
      });
    }
    each_place<T>(a.x, s.channels, [&, begin = begin, end = end](std::int64_t row, std::int64_t run) {
      const T *x = a.x.row<T>(row) + run, *dy = a.dy.row<T>(row) + run;
      T* dx = a.dx.row<T>(row) + run;
      for (std::int64_t c = begin; c < end; ++c) {
        const double through = of_batch ? mean[m.at(c)] + n(x, c) * along[m.at(c)] : 0;  // the statistics
        const T slope = T(scale[m.at(c)] * (dy[c] - through));
        dx[c] = (a.write == Write::add ? dx[c] : T(0)) + (gain == nullptr ? slope : gain[c] * slope);
      }
    });
  });
}

void batch_norm_gain_cpu(const BatchNormGainArgs& a, Share share) {
  with_float(a.x.dtype, [&]<class T>(T) {
    const auto [begin, end] = share.of(a.shape.channels);
    if (begin == end) return;
    const ChannelMoments<T> m(a.x, a.shape, begin, end);
    const std::vector<double> scale = m.scales(a.shape.epsilon);
    std::vector<double> sum(m.size());
    each_place<T>(a.x, a.shape.channels, [&, begin = begin, end = end](std::int64_t row, std::int64_t run) {
      const T *x = a.x.row<T>(row) + run, *dy = a.dy.row<T>(row) + run;
      for (std::int64_t c = begin; c < end; ++c) sum[m.at(c)] += dy[c] * ((x[c] - m.mean[m.at(c)]) * scale[m.at(c)]);
    });
    T* out = a.dgain.as<T>();
    for (std::int64_t c = begin; c < end; ++c) out[c] = (a.write == Write::add ? out[c] : T(0)) + T(sum[m.at(c)]);
  });
}

void batch_moments_cpu(const BatchMomentsArgs& a, Share share) {
  with_float(a.x.dtype, [&]<class T>(T) {
    const auto [begin, end] = share.of(a.channels);
    if (begin == end) return;
    const ChannelMoments<T> m(a.x, {.channels = a.channels}, begin, end);
    const double places = double(a.x.count() / a.channels), unbiased = places > 1 ? places / (places - 1) : 1;
    T *mean = a.mean.as<T>(), *variance = a.variance.as<T>();
    for (std::int64_t c = begin; c < end; ++c) {
      mean[c] = T(mean[c] + a.part * (m.mean[m.at(c)] - mean[c]));
      variance[c] = T(variance[c] + a.part * (m.variance[m.at(c)] * unbiased - variance[c]));
    }
  });
}

}  // namespace pc::kernels

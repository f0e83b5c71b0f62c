#include <cmath>

#include "kernels/batch_norm.h"
#include "kernels/column_sums.cuh"

namespace pc::kernels {
namespace {

using cu::matrix;

/// A matrix as one of all its places, of `channels` entries each.
template <class T>
struct Places {
  cu::Matrix<T> of;
  std::int64_t channels, each;  // `each`: places in a row

  Places(const View& v, std::int64_t channels) : of(matrix<T>(v)), channels(channels), each(v.cols() / channels) {}
  __device__ T& operator()(std::int64_t place, std::int64_t c) const {
    return of(place / each, place % each * channels + c);
  }
};

/// Sums over all places, in float64: of x and of its squared distance from the mean, then as many as a kernel wants.
template <class T>
struct Moments {
  Places<T> x;
  const T *given_mean, *given_variance;  // null: the batch's own
  const double *sum, *square;
  double places, epsilon;

  __device__ double mean(std::int64_t c) const { return given_mean ? double(given_mean[c]) : sum[c] / places; }
  __device__ double variance(std::int64_t c) const {
    return given_variance ? double(given_variance[c]) : square[c] / places;
  }
  __device__ double scale(std::int64_t c) const { return 1 / std::sqrt(variance(c) + epsilon); }
  __device__ double n(std::int64_t place, std::int64_t c) const { return (x(place, c) - mean(c)) * scale(c); }
};

/// Room for sums over the places of each channel.
class Sums {
 public:
  Sums(const View& x, std::int64_t channels, int count, CudaContext& context)
      : places_(x.count() / channels), channels_(channels), context_(context) {
    const std::int64_t parts = cu::slices(places_) * channels;
    memory_ =
        static_cast<double*>(context.scratch(sizeof(double) * static_cast<std::size_t>(count * channels + parts)));
    parts_ = memory_ + count * channels;
  }
  template <class Term>
  const double* add_up(Term term) {
    double* out = memory_ + made_++ * channels_;
    cu::column_sums<double>(places_, channels_, context_.stream, term, out, false, parts_);
    return out;
  }
  [[nodiscard]] std::int64_t places() const { return places_; }

 private:
  std::int64_t places_, channels_;
  CudaContext& context_;
  double *memory_ = nullptr, *parts_ = nullptr;
  int made_ = 0;
};

template <class T>
Moments<T> moments(const View& x, const BatchNormShape& s, Sums& sums) {
  Moments<T> m{Places<T>(x, s.channels), s.mean.as<T>(), s.variance.as<T>(), nullptr, nullptr,
               double(sums.places()),    s.epsilon};
  if (!s.mean.empty()) return m;
  m.sum = sums.add_up([of = m.x] __device__(std::int64_t place, std::int64_t c) { return double(of(place, c)); });
  m.square = sums.add_up([m] __device__(std::int64_t place, std::int64_t c) {
    const double off = m.x(place, c) - m.mean(c);
    return off * off;
  });
  return m;
}

template <class T>
void batch_norm_typed(const BatchNormArgs& a, CudaContext& context) {
  Sums sums(a.x, a.shape.channels, 2, context);
  const Moments<T> m = moments<T>(a.x, a.shape, sums);
  const Places<T> y(a.y, a.shape.channels);
  const T *gain = a.gain.as<T>(), *bias = a.bias.as<T>();
  const bool add = a.write == Write::add;
  cu::each_entry(sums.places(), a.shape.channels, context.stream, [=] __device__(std::int64_t place, std::int64_t c) {
    const T n = T(m.n(place, c));
    cu::store(y(place, c), (gain == nullptr ? n : gain[c] * n) + (bias == nullptr ? T(0) : bias[c]), add);
  });
}

template <class T>
void batch_norm_pullback_typed(const BatchNormPullbackArgs& a, CudaContext& context) {
  Sums sums(a.x, a.shape.channels, 4, context);
  const Moments<T> m = moments<T>(a.x, a.shape, sums);
  const Places<T> dy(a.dy, a.shape.channels), dx(a.dx, a.shape.channels);
  const double *sum = nullptr, *along = nullptr;
  if (a.shape.mean.empty()) {
    sum = sums.add_up([=] __device__(std::int64_t place, std::int64_t c) { return double(dy(place, c)); });
    along = sums.add_up([=] __device__(std::int64_t place, std::int64_t c) { return dy(place, c) * m.n(place, c); });
  }
  const T* gain = a.gain.as<T>();
  const bool add = a.write == Write::add;
  cu::each_entry(sums.places(), a.shape.channels, context.stream, [=] __device__(std::int64_t place, std::int64_t c) {
    double g = dy(place, c);
    if (sum != nullptr) g -= sum[c] / m.places + m.n(place, c) * (along[c] / m.places);
    const T slope = T(m.scale(c) * g);
    cu::store(dx(place, c), gain == nullptr ? slope : gain[c] * slope, add);
  });
}

template <class T>
void batch_norm_gain_typed(const BatchNormGainArgs& a, CudaContext& context) {
  Sums sums(a.x, a.shape.channels, 3, context);
  const Moments<T> m = moments<T>(a.x, a.shape, sums);
  const Places<T> dy(a.dy, a.shape.channels);
  const double* sum =
      sums.add_up([=] __device__(std::int64_t place, std::int64_t c) { return dy(place, c) * m.n(place, c); });
  T* out = a.dgain.as<T>();
  const bool add = a.write == Write::add;
  cu::each_index(a.shape.channels, context.stream,
                 [=] __device__(std::int64_t c) { cu::store(out[c], T(sum[c]), add); });
}

template <class T>
void batch_moments_typed(const BatchMomentsArgs& a, CudaContext& context) {
  Sums sums(a.x, a.channels, 2, context);
  const Moments<T> m = moments<T>(a.x, {.channels = a.channels}, sums);
  T *mean = a.mean.as<T>(), *variance = a.variance.as<T>();
  cu::each_index(a.channels, context.stream, [=, part = a.part] __device__(std::int64_t c) {
    const double unbiased = m.places > 1 ? m.places / (m.places - 1) : 1;
    mean[c] = T(mean[c] + part * (m.mean(c) - mean[c]));
    variance[c] = T(variance[c] + part * (m.variance(c) * unbiased - variance[c]));
  });
}

}  // namespace

void batch_norm_cuda(const BatchNormArgs& a, CudaContext& context) {
  with_float(a.x.dtype, [&]<class T>(T) { batch_norm_typed<T>(a, context); });
}
void batch_norm_pullback_cuda(const BatchNormPullbackArgs& a, CudaContext& context) {
  with_float(a.x.dtype, [&]<class T>(T) { batch_norm_pullback_typed<T>(a, context); });
}
void batch_norm_gain_cuda(const BatchNormGainArgs& a, CudaContext& context) {
  with_float(a.x.dtype, [&]<class T>(T) { batch_norm_gain_typed<T>(a, context); });
}
void batch_moments_cuda(const BatchMomentsArgs& a, CudaContext& context) {
  with_float(a.x.dtype, [&]<class T>(T) { batch_moments_typed<T>(a, context); });
}

}  // namespace pc::kernels

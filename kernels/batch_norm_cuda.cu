#include <cmath>

#include "kernels/batch_norm.h"
#include "kernels/column_sums.cuh"

namespace pc::kernels {
namespace {

using cu::At, cu::matrix, cu::Pack;

/// A matrix as one of all its places, of `channels` entries each, where something may lie between its rows. (Where
/// nothing does, a Matrix.)
template <class T>
struct Places {
  cu::Matrix<T> of;
  std::int64_t each, channels;  // `each`: places in a row

  __device__ T& operator()(std::int64_t place, std::int64_t c) const {
    return of(place / each, place % each * channels + c);
  }
  template <int n>
  __device__ Pack<T, n>& operator()(At<n> at) const {
    return *reinterpret_cast<Pack<T, n>*>(&(*this)(at.row, at.col));
  }
  [[nodiscard]] static bool packs() { return false; }
};

/// Calls body(places...) with what the views are as matrices of places.
template <class T, class Body, class... Views>
void with_places(std::int64_t channels, Body&& body, const Views&... views) {
  if (((views.ld() == views.cols()) && ...)) return body(cu::Matrix<T>{views.template as<T>(), channels}...);
  body(Places<T>{matrix<T>(views), views.cols() / channels, channels}...);
}

/// Rows of float64 numbers, one for each channel, made one after the other.
class ChannelRows {
 public:
  ChannelRows(const View& x, std::int64_t channels, int count, CudaContext& context)
      : places_(x.count() / channels), channels_(channels), context_(context) {
    const std::int64_t parts = cu::slices(places_) * channels;
    next_ = static_cast<double*>(context.scratch(sizeof(double) * static_cast<std::size_t>(count * channels + parts)));
    parts_ = next_ + count * channels;
  }
  /// Sums over all places of term(place, c), times `by`.
  template <class Term>
  const double* sum_of(Term term, double by = 1) {
    double* out = take();
    cu::column_sums<double>(places_, channels_, context_.stream, term, out, false, parts_, by);
    return out;
  }
  template <class Term>
  const double* mean_of(Term term) {
    return sum_of(term, 1 / double(places_));
  }
  /// number(c) of each channel.
  template <class Number>
  const double* each(Number number) {
    double* out = take();
    cu::each_index(channels_, context_.stream, [=] __device__(std::int64_t c) { out[c] = number(c); });
    return out;
  }
  [[nodiscard]] std::int64_t places() const { return places_; }

 private:
  double* take() {
    double* row = next_;
    next_ += channels_;
    return row;
  }

  std::int64_t places_, channels_;
  CudaContext& context_;
  double *next_ = nullptr, *parts_ = nullptr;
};

/// A channel's mean and variance over all places.
struct Moments {
  const double *mean, *variance;
};
constexpr int kMomentRows = 2, kNormRows = 3;  // of ChannelRows, for Moments and for a Norm

template <class M>
Moments moments(const M& x, ChannelRows& rows) {
  const double* mean = rows.mean_of([=] __device__(std::int64_t place, std::int64_t c) { return double(x(place, c)); });
  return {mean, rows.mean_of([=] __device__(std::int64_t place, std::int64_t c) {
            const double off = x(place, c) - mean[c];
            return off * off;
          })};
}

/// n = (x - mean) * scale
struct Norm {
  const double *mean, *scale;

  template <class T>
  __device__ double operator()(T x, std::int64_t c) const {
    return (x - mean[c]) * scale[c];
  }
};

template <class T, class M>
Norm norm_of(const M& x, const BatchNormShape& s, ChannelRows& rows) {
  const double epsilon = s.epsilon;
  if (s.mean.empty()) {
    const Moments m = moments(x, rows);
    return {m.mean, rows.each([=] __device__(std::int64_t c) { return 1 / std::sqrt(m.variance[c] + epsilon); })};
  }
  const T *mean = s.mean.as<T>(), *variance = s.variance.as<T>();
  return {rows.each([=] __device__(std::int64_t c) { return double(mean[c]); }),
          rows.each([=] __device__(std::int64_t c) { return 1 / std::sqrt(double(variance[c]) + epsilon); })};
}

template <class T, class M>
struct Normalise {
  static constexpr int kEntries = cu::kPack<T>;
  M x, y;
  Norm norm;
  const T *gain, *bias;
  bool add;

  [[nodiscard]] bool packs() const { return x.packs() && y.packs(); }
  template <int n>
  __device__ void operator()(At<n> at) const {
    Pack<T, n> value = x(at);
    for (int i = 0; i < n; ++i) {
      const std::int64_t c = at.col + i;
      const T entry = T(norm(value[i], c));
      value[i] = (gain == nullptr ? entry : gain[c] * entry) + (bias == nullptr ? T(0) : bias[c]);
    }
    cu::store(y(at), value, add);
  }
};

/// dx, where `sum` and `along` are the means of dy and of dy n; null: of given statistics.
template <class T, class M>
struct BringBack {
  static constexpr int kEntries = cu::kPack<T>;
  M x, dy, dx;
  Norm norm;
  const double *sum, *along;
  const T* gain;
  bool add;

  [[nodiscard]] bool packs() const { return x.packs() && dy.packs() && dx.packs(); }
  template <int n>
  __device__ void operator()(At<n> at) const {
    const Pack<T, n> from = x(at), back = dy(at);
    Pack<T, n> slope;
    for (int i = 0; i < n; ++i) {
      const std::int64_t c = at.col + i;
      double g = back[i];
      if (sum != nullptr) g -= sum[c] + norm(from[i], c) * along[c];
      slope[i] = T(norm.scale[c] * g);
      if (gain != nullptr) slope[i] = gain[c] * slope[i];
    }
    cu::store(dx(at), slope, add);
  }
};

template <class T, class M>
void normalise(const BatchNormArgs& a, CudaContext& context, const M& x, const M& y) {
  ChannelRows rows(a.x, a.shape.channels, kNormRows, context);
  const Norm norm = norm_of<T>(x, a.shape, rows);
  cu::each_entry(rows.places(), a.shape.channels, context.stream,
                 Normalise<T, M>{x, y, norm, a.gain.as<T>(), a.bias.as<T>(), a.write == Write::add});
}

/// Sums over all places of dy n, times `by`.
template <class M>
const double* sum_along(const M& x, const M& dy, const Norm& norm, ChannelRows& rows, double by) {
  return rows.sum_of([=] __device__(std::int64_t place, std::int64_t c) { return dy(place, c) * norm(x(place, c), c); },
                     by);
}

template <class T, class M>
void bring_back(const BatchNormPullbackArgs& a, CudaContext& context, const M& x, const M& dy, const M& dx) {
  ChannelRows rows(a.x, a.shape.channels, kNormRows + 2, context);
  const Norm norm = norm_of<T>(x, a.shape, rows);
  const double *sum = nullptr, *along = nullptr;
  if (a.shape.mean.empty()) {
    sum = rows.mean_of([=] __device__(std::int64_t place, std::int64_t c) { return double(dy(place, c)); });
    along = sum_along(x, dy, norm, rows, 1 / double(rows.places()));
  }
  cu::each_entry(rows.places(), a.shape.channels, context.stream,
                 BringBack<T, M>{x, dy, dx, norm, sum, along, a.gain.as<T>(), a.write == Write::add});
}

template <class T, class M>
void add_up_gain(const BatchNormGainArgs& a, CudaContext& context, const M& x, const M& dy) {
  ChannelRows rows(a.x, a.shape.channels, kNormRows + 1, context);
  const double* sum = sum_along(x, dy, norm_of<T>(x, a.shape, rows), rows, 1);
  T* out = a.dgain.as<T>();
  const bool add = a.write == Write::add;
  cu::each_index(a.shape.channels, context.stream,
                 [=] __device__(std::int64_t c) { cu::store(out[c], T(sum[c]), add); });
}

template <class T, class M>
void follow(const BatchMomentsArgs& a, CudaContext& context, const M& x) {
  ChannelRows rows(a.x, a.channels, kMomentRows, context);
  const Moments m = moments(x, rows);
  const double places = double(rows.places()), unbiased = places > 1 ? places / (places - 1) : 1, part = a.part;
  T *mean = a.mean.as<T>(), *variance = a.variance.as<T>();
  cu::each_index(a.channels, context.stream, [=] __device__(std::int64_t c) {
    mean[c] = T(mean[c] + part * (m.mean[c] - mean[c]));
    variance[c] = T(variance[c] + part * (m.variance[c] * unbiased - variance[c]));
  });
}

}  // namespace

void batch_norm_cuda(const BatchNormArgs& a, CudaContext& context) {
  with_float(a.x.dtype, [&]<class T>(T) {
    with_places<T>(
        a.shape.channels, [&](auto... places) { normalise<T>(a, context, places...); }, a.x, a.y);
  });
}
void batch_norm_pullback_cuda(const BatchNormPullbackArgs& a, CudaContext& context) {
  with_float(a.x.dtype, [&]<class T>(T) {
    with_places<T>(
        a.shape.channels, [&](auto... places) { bring_back<T>(a, context, places...); }, a.x, a.dy, a.dx);
  });
}
void batch_norm_gain_cuda(const BatchNormGainArgs& a, CudaContext& context) {
  with_float(a.x.dtype, [&]<class T>(T) {
    with_places<T>(
        a.shape.channels, [&](auto... places) { add_up_gain<T>(a, context, places...); }, a.x, a.dy);
  });
}
void batch_moments_cuda(const BatchMomentsArgs& a, CudaContext& context) {
  with_float(a.x.dtype, [&]<class T>(T) {
    with_places<T>(
        a.channels, [&](auto... places) { follow<T>(a, context, places...); }, a.x);
  });
}

}  // namespace pc::kernels

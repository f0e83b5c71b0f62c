// Normalisation of each channel over a whole batch (Ioffe, Szegedy 2015, "Batch Normalization"). Each row of x is
// cols / channels places of `channels` entries; with m and v a channel's mean and variance over all places of all rows,
//   n = (x - m) / sqrt(v + epsilon),   y = gain n + bias
// Where a mean and a variance [channels] are given, they are constants in the place of the batch's own.
#pragma once

#include "kernels/kernel.h"
#include "kernels/write.h"

namespace pc::kernels {

struct BatchNormShape {
  std::int64_t channels = 1;
  double epsilon = 1e-5;
  View mean = {}, variance = {};

  void check(const char* who, const View& x) const {
    PC_CHECK(channels > 0 && x.cols() % channels == 0, who, x.shape.text(), " holds no places of ", channels,
             " channels");
    PC_CHECK(mean.empty() == variance.empty(), who, "a mean and a variance come together");
    check_row(who, x, mean);
    check_row(who, x, variance);
  }
  /// One entry for each channel; empty: there is none.
  void check_row(const char* who, const View& x, const View& row) const {
    PC_CHECK(row.empty() || (row.count() == channels && row.dtype == x.dtype), who, "a row of ", row.shape.text(),
             " does not fit ", channels, " channels");
  }
};

/// y (=|+=) gain n + bias
struct BatchNormArgs {
  View x, gain, bias, y;
  BatchNormShape shape;
  Write write = Write::set;

  void check() const {
    check_alike("batch_norm", x, y);
    shape.check("batch_norm", x);
    shape.check_row("batch_norm", x, gain);
    shape.check_row("batch_norm", x, bias);
  }
  // Threads share the channels, not the rows.
  void touches(Touches& t) const {
    t.read_all(x).read_all(gain).read_all(bias).read_all(shape.mean).read_all(shape.variance).write_all(y);
  }
  [[nodiscard]] double flops() const { return 7.0 * static_cast<double>(x.count()); }
};

/// dx (=|+=) the adjoint at x: with s the deviation that n was divided by and means over all places of all rows,
/// gain (dy - mean(dy) - n mean(dy n)) / s; of given statistics gain dy / s.
struct BatchNormPullbackArgs {
  View x, gain, dy, dx;
  BatchNormShape shape;
  Write write = Write::set;

  void check() const {
    check_alike("batch_norm_pullback", x, dx);
    check_alike("batch_norm_pullback", dy, dx);
    shape.check("batch_norm_pullback", x);
    shape.check_row("batch_norm_pullback", x, gain);
  }
  void touches(Touches& t) const {
    t.read_all(x).read_all(gain).read_all(shape.mean).read_all(shape.variance).read_all(dy).write_all(dx);
  }
  [[nodiscard]] double flops() const { return 12.0 * static_cast<double>(x.count()); }
};

/// dgain (=|+=) sum over all places of dy n
struct BatchNormGainArgs {
  View x, dy, dgain;
  BatchNormShape shape;
  Write write = Write::set;

  void check() const {
    check_alike("batch_norm_gain", x, dy);
    shape.check("batch_norm_gain", x);
    PC_CHECK(dgain.count() == shape.channels && dgain.dtype == x.dtype, "batch_norm_gain", "a gain of ",
             dgain.shape.text(), " does not fit ", shape.channels, " channels");
  }
  void touches(Touches& t) const {
    t.read_all(x).read_all(shape.mean).read_all(shape.variance).read_all(dy).write_all(dgain);
  }
  [[nodiscard]] double flops() const { return 7.0 * static_cast<double>(x.count()); }
};

/// mean and variance move the part `part` of their way to m and to v N / (N - 1), the variance that a sample of N
/// places lets one expect of all.
struct BatchMomentsArgs {
  View x, mean, variance;
  std::int64_t channels = 1;
  double part = 0.1;

  [[nodiscard]] BatchNormShape shape() const { return {channels, 0, mean, variance}; }
  void check() const {
    shape().check("batch_moments", x);
    PC_CHECK(!mean.empty(), "batch_moments", "needs a mean and a variance");
  }
  void touches(Touches& t) const { t.read_all(x).write_all(mean).write_all(variance); }
  [[nodiscard]] double flops() const { return 4.0 * static_cast<double>(x.count()); }
};

void batch_norm_cpu(const BatchNormArgs&, Share);
void batch_norm_cuda(const BatchNormArgs&, CudaContext&);
void batch_norm_pullback_cpu(const BatchNormPullbackArgs&, Share);
void batch_norm_pullback_cuda(const BatchNormPullbackArgs&, CudaContext&);
void batch_norm_gain_cpu(const BatchNormGainArgs&, Share);
void batch_norm_gain_cuda(const BatchNormGainArgs&, CudaContext&);
void batch_moments_cpu(const BatchMomentsArgs&, Share);
void batch_moments_cuda(const BatchMomentsArgs&, CudaContext&);

inline constexpr Kernel<BatchNormArgs> batch_norm{"batch_norm", batch_norm_cpu, PC_CUDA(batch_norm_cuda)};
inline constexpr Kernel<BatchNormPullbackArgs> batch_norm_pullback{"batch_norm_pullback", batch_norm_pullback_cpu,
                                                                   PC_CUDA(batch_norm_pullback_cuda)};
inline constexpr Kernel<BatchNormGainArgs> batch_norm_gain{"batch_norm_gain", batch_norm_gain_cpu,
                                                           PC_CUDA(batch_norm_gain_cuda)};
inline constexpr Kernel<BatchMomentsArgs> batch_moments{"batch_moments", batch_moments_cpu,
                                                        PC_CUDA(batch_moments_cuda)};

}  // namespace pc::kernels

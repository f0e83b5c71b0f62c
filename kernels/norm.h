// Normalisation of runs of `width` entries (each row of x is cols / width of them): with m and v a run's mean and
// variance,
//   centred:  n = (x - m) / sqrt(v + epsilon)             (layer norm; Ba, Kiros, Hinton 2016)
//   else:     n = x / sqrt(mean of x^2 + epsilon)         (RMS norm; Zhang, Sennrich 2019)
// and y = gain n + bias, gain and bias [width].
#pragma once

#include "kernels/kernel.h"
#include "kernels/write.h"

namespace pc::kernels {

struct NormShape {
  std::int64_t width = 1;
  bool centred = true;
  double epsilon = 1e-5;

  void check(const char* who, const View& x) const {
    PC_CHECK(width > 0 && x.cols() % width == 0, who, x.shape.text(), " holds no runs of ", width);
  }
  /// gain or bias; empty: 1 or 0.
  void check_row(const char* who, const View& x, const View& row) const {
    PC_CHECK(row.empty() || (row.count() == width && row.dtype == x.dtype), who, "a row of ", row.shape.text(),
             " does not fit runs of ", width);
  }
};

/// y (=|+=) gain n + bias
struct NormArgs {
  View x, gain, bias, y;
  NormShape shape;
  Write write = Write::set;

  void check() const {
    check_alike("norm", x, y);
    shape.check("norm", x);
    shape.check_row("norm", x, gain);
    shape.check_row("norm", x, bias);
  }
  void touches(Touches& t) const { t.read(x).read_all(gain).read_all(bias).write(y); }
  [[nodiscard]] double flops() const { return 7.0 * static_cast<double>(x.count()); }
};

/// dx (=|+=) the adjoint at x: with g = gain dy and s the deviation that n was divided by,
/// (g - mean(g) - n mean(g n)) / s, without the first mean where not centred.
struct NormPullbackArgs {
  View x, gain, dy, dx;
  NormShape shape;
  Write write = Write::set;

  void check() const {
    check_alike("norm_pullback", x, dx);
    check_alike("norm_pullback", dy, dx);
    shape.check("norm_pullback", x);
    shape.check_row("norm_pullback", x, gain);
  }
  void touches(Touches& t) const { t.read(x).read_all(gain).read(dy).write(dx); }
  [[nodiscard]] double flops() const { return 12.0 * static_cast<double>(x.count()); }
};

/// dgain (=|+=) sum of dy n over all runs. [width]
struct NormGainArgs {
  View x, dy, dgain;
  NormShape shape;
  Write write = Write::set;

  void check() const {
    check_alike("norm_gain", x, dy);
    shape.check("norm_gain", x);
    PC_CHECK(dgain.count() == shape.width && dgain.dtype == x.dtype, "norm_gain", "gain ", dgain.shape.text(),
             " does not fit runs of ", shape.width);
  }
  void touches(Touches& t) const { t.read_all(x).read_all(dy).write_all(dgain); }
  [[nodiscard]] double flops() const { return 7.0 * static_cast<double>(x.count()); }
};

void norm_cpu(const NormArgs&, Share);
void norm_cuda(const NormArgs&, CudaContext&);
void norm_pullback_cpu(const NormPullbackArgs&, Share);
void norm_pullback_cuda(const NormPullbackArgs&, CudaContext&);
void norm_gain_cpu(const NormGainArgs&, Share);
void norm_gain_cuda(const NormGainArgs&, CudaContext&);

inline constexpr Kernel<NormArgs> norm{"norm", norm_cpu, PC_CUDA(norm_cuda)};
inline constexpr Kernel<NormPullbackArgs> norm_pullback{"norm_pullback", norm_pullback_cpu,
                                                        PC_CUDA(norm_pullback_cuda)};
inline constexpr Kernel<NormGainArgs> norm_gain{"norm_gain", norm_gain_cpu, PC_CUDA(norm_gain_cuda)};

}  // namespace pc::kernels

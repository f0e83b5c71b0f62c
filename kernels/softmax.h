// softmax over runs of columns of each row, and its pull-back from the output.
#pragma once

#include "kernels/kernel.h"
#include "kernels/scalar_math.h"
#include "kernels/write.h"

namespace pc::kernels {

/// Which columns are one distribution: runs of `width` of them, or (0) whole rows. With `causal` the runs of a row are
/// squares of `width` runs, of which the i-th has only its first i + 1 entries; the others are 0.
struct SoftmaxRuns {
  std::int64_t width = 0;
  bool causal = false;

  [[nodiscard]] std::int64_t width_in(const View& x) const { return width == 0 ? x.cols() : width; }
  [[nodiscard]] PC_HD std::int64_t seen(std::int64_t run, std::int64_t all) const {
    return causal ? run % all + 1 : all;
  }
  void check(const char* who, const View& x) const {
    const std::int64_t n = width_in(x);
    PC_CHECK(n == 0 || (x.cols() % n == 0 && (!causal || x.cols() / n % n == 0)), who, causal ? "squares" : "runs",
             " of ", n, " do not divide ", x.shape.text());
  }
};

/// y (=|+=) e^x / sum e^x, run by run.
struct SoftmaxArgs {
  View x, y;
  SoftmaxRuns runs = {};
  Write write = Write::set;

  void check() const {
    check_alike("softmax", x, y);
    runs.check("softmax", x);
  }
  void touches(Touches& t) const { t.read(x).write(y); }
  [[nodiscard]] double flops() const { return 4.0 * static_cast<double>(x.count()); }
};

/// dx (=|+=) s (dy - <s, dy>), s = softmax(x), run by run.
struct SoftmaxPullbackArgs {
  View x, dy, dx;
  SoftmaxRuns runs = {};
  Write write = Write::set;

  void check() const {
    check_alike("softmax_pullback", x, dx);
    check_alike("softmax_pullback", dy, dx);
    runs.check("softmax_pullback", x);
  }
  void touches(Touches& t) const { t.read(x).read(dy).write(dx); }
  [[nodiscard]] double flops() const { return 6.0 * static_cast<double>(x.count()); }
};

void softmax_cpu(const SoftmaxArgs&, Share);
void softmax_cuda(const SoftmaxArgs&, CudaContext&);
void softmax_pullback_cpu(const SoftmaxPullbackArgs&, Share);
void softmax_pullback_cuda(const SoftmaxPullbackArgs&, CudaContext&);

inline constexpr Kernel<SoftmaxArgs> softmax{"softmax", softmax_cpu, PC_CUDA(softmax_cuda)};
inline constexpr Kernel<SoftmaxPullbackArgs> softmax_pullback{"softmax_pullback", softmax_pullback_cpu,
                                                              PC_CUDA(softmax_pullback_cuda)};

}  // namespace pc::kernels

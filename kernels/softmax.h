// softmax over the columns of each row, and its pull-back from the output.
#pragma once

#include "kernels/kernel.h"
#include "kernels/write.h"

namespace pc::kernels {

/// y (=|+=) e^x / sum e^x, row by row.
struct SoftmaxArgs {
  View x, y;
  Write write = Write::set;

  void check() const { check_alike("softmax", x, y); }
  void touches(Touches& t) const { t.read(x).write(y); }
  [[nodiscard]] double flops() const { return 4.0 * static_cast<double>(x.count()); }
};

/// dx (=|+=) s (dy - <s, dy>), s = softmax(x), row by row.
struct SoftmaxPullbackArgs {
  View x, dy, dx;
  Write write = Write::set;

  void check() const {
    check_alike("softmax_pullback", x, dx);
    check_alike("softmax_pullback", dy, dx);
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

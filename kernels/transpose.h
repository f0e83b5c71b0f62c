// transpose_each: y_i (=|+=) x_i^T, for the matrix [m, n] that each row of x holds, row by row.
#pragma once

#include "kernels/kernel.h"
#include "kernels/write.h"

namespace pc::kernels {

struct TransposeEachArgs {
  View x, y;
  std::int64_t m = 1, n = 1;  // of x_i
  Write write = Write::set;

  void check() const {
    check_alike("transpose_each", x, y);
    PC_CHECK(x.cols() == m * n, "transpose_each", x.shape.text(), " holds no matrices of ", m, " x ", n);
  }
  void touches(Touches& t) const { t.read(x).write(y); }
  [[nodiscard]] double flops() const { return 0; }
};

void transpose_each_cpu(const TransposeEachArgs&, Share);
void transpose_each_cuda(const TransposeEachArgs&, CudaContext&);

inline constexpr Kernel<TransposeEachArgs> transpose_each{"transpose_each", transpose_each_cpu,
                                                          PC_CUDA(transpose_each_cuda)};

}  // namespace pc::kernels

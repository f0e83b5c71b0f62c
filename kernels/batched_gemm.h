// batched_gemm: c_i = alpha op(a_i) op(b_i) + beta c_i for every sample i, where op transposes if asked.
#pragma once

#include "kernels/gemm.h"

namespace pc::kernels {

/// Row i of a, b and c holds sample i's matrix, row by row and packed: op(a_i) [m, k], op(b_i) [k, n], c_i [m, n].
/// With beta = 0, c is not read.
struct BatchedGemmArgs {
  View a, b, c;
  std::int64_t m = 0, n = 0, k = 0;
  Trans trans_a = Trans::no, trans_b = Trans::no;
  double alpha = 1.0, beta = 0.0;

  void check() const {
    PC_CHECK(m >= 0 && n >= 0 && k >= 0 && a.rows() == c.rows() && b.rows() == c.rows() && a.cols() == m * k &&
                 b.cols() == k * n && c.cols() == m * n,
             "batched_gemm", "a ", a.shape.text(), ", b ", b.shape.text(), ", c ", c.shape.text(),
             " do not fit a batch of [", m, ", ", k, "] times [", k, ", ", n, ']');
    PC_CHECK(a.dtype == c.dtype && b.dtype == c.dtype, "batched_gemm", "dtypes differ");
  }
  void touches(Touches& t) const { t.read(a).read(b).write(c); }
  [[nodiscard]] double flops() const { return 2.0 * static_cast<double>(c.count()) * static_cast<double>(k); }
};

void batched_gemm_cpu(const BatchedGemmArgs&, Share);
void batched_gemm_cuda(const BatchedGemmArgs&, CudaContext&);

inline constexpr Kernel<BatchedGemmArgs> batched_gemm{"batched_gemm", batched_gemm_cpu, PC_CUDA(batched_gemm_cuda)};

}  // namespace pc::kernels

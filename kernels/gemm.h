// gemm: c = alpha op(a) op(b) + beta c, where op transposes if asked.
#pragma once

#include "kernels/kernel.h"

namespace pc::kernels {

enum class Trans : bool { no, yes };

/// op(a) [m, k], op(b) [k, n], c [m, n]. With beta = 0, c is not read. Operands may be narrower than a float32 c; what
/// is added up is float32 all the same. Of bfloat16 operands c may be too, where beta = 0.
struct GemmArgs {
  View a, b, c;
  Trans trans_a = Trans::no, trans_b = Trans::no;
  double alpha = 1.0, beta = 0.0;

  [[nodiscard]] std::int64_t m() const { return c.rows(); }
  [[nodiscard]] std::int64_t n() const { return c.cols(); }
  [[nodiscard]] std::int64_t k() const { return trans_a == Trans::yes ? a.rows() : a.cols(); }

  void check() const {
    const std::int64_t am = trans_a == Trans::yes ? a.cols() : a.rows();
    const std::int64_t bk = trans_b == Trans::yes ? b.cols() : b.rows(),
                       bn = trans_b == Trans::yes ? b.rows() : b.cols();
    PC_CHECK(am == m() && bn == n() && bk == k(), "gemm", "a ", a.shape.text(), ", b ", b.shape.text(), ", c ",
             c.shape.text(), " do not fit");
    PC_CHECK(a.dtype == b.dtype && multiplies_into(a.dtype, c.dtype), "gemm", "cannot multiply ", name_of(a.dtype),
             " by ", name_of(b.dtype), " into ", name_of(c.dtype));
    PC_CHECK(c.dtype != DType::bf16 || beta == 0, "gemm", "bfloat16 is set, not added to; beta must be 0");
  }
  void touches(Touches& t) const {
    if (trans_a == Trans::yes) {
      t.read_all(a);
    } else {
      t.read(a);
    }
    t.read_all(b).write(c);
  }
  [[nodiscard]] double flops() const {
    return 2.0 * static_cast<double>(m()) * static_cast<double>(n()) * static_cast<double>(k());
  }
};

void gemm_cpu(const GemmArgs&, Share);
void gemm_cuda(const GemmArgs&, CudaContext&);
void gemm_cuda_together(std::span<const GemmArgs* const>, CudaContext&);

/// Products that are too small to fill a device alone.
inline std::size_t gemm_alike(const GemmArgs& g) {
  constexpr double kLarge = 4e9;  // floating-point operations
  if (g.flops() == 0 || g.flops() > kLarge) return 0;
  return alike_if_same(g.m(), g.n(), g.k(), g.trans_a, g.trans_b, g.alpha, g.beta, g.a.dtype, g.c.dtype, g.a.ld(),
                       g.b.ld(), g.c.ld(), g.a.exponent + g.b.exponent);
}

/// Two products with a factor in common whose others are neighbours, in the same matrix or summed into the same place.
std::optional<GemmArgs> join_gemm(const GemmArgs& first, const GemmArgs& second);

inline constexpr Kernel<GemmArgs> gemm{"gemm",   gemm_cpu, PC_CUDA(gemm_cuda), gemm_alike, PC_CUDA(gemm_cuda_together),
                                       join_gemm};

}  // namespace pc::kernels

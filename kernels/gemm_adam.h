// gemm_adam: weights learn by Adam from a product, the gradient of dense weights, which need not be written anywhere.
#pragma once

#include <optional>

#include "kernels/arithmetic.h"
#include "kernels/gemm.h"
#include "kernels/weight_update.h"

namespace pc::kernels {

/// dw = alpha delta^T x, and of a bias the sum of its own delta's rows; then a step of Adam for both. Where `w.g.dw` or
/// `bias.g.dw` are not empty, what they learn from is written there. `bias` and `w` are alike in everything but their
/// views; only w may be masked, and have operands.
struct GemmAdamArgs {
  View delta, x;  // [samples, rows], [samples, cols], of 16 bits
  double alpha = 1;
  WeightAdamArgs w;          // float32 [rows, cols]
  View bias_delta = {};      // [samples, rows], an operand or float32; empty: there is no bias
  WeightAdamArgs bias = {};  // float32 [rows], packed

  [[nodiscard]] std::int64_t samples() const { return delta.rows(); }
  [[nodiscard]] std::int64_t rows() const { return delta.cols(); }
  [[nodiscard]] std::int64_t cols() const { return x.cols(); }

  void check() const {
    w.check();
    PC_CHECK(size_of(delta.dtype) == 2 && delta.dtype == x.dtype, "gemm_adam", "cannot multiply ", name_of(delta.dtype),
             " by ", name_of(x.dtype));
    PC_CHECK(samples() > 0 && x.rows() == samples() && w.g.w.rows() == rows() && w.g.w.cols() == cols() &&
                 w.g.w.dtype == DType::f32,
             "gemm_adam", "delta ", delta.shape.text(), ", x ", x.shape.text(), ", w ", w.g.w.shape.text(),
             " do not fit");
    if (bias_delta.empty()) return;
    bias.check();
    PC_CHECK(bias_delta.rows() == samples() && bias_delta.cols() == rows() &&
                 (bias_delta.dtype == DType::f32 || bias_delta.dtype == delta.dtype),
             "gemm_adam", "a bias cannot learn from ", name_of(bias_delta.dtype), ' ', bias_delta.shape.text());
    PC_CHECK(weight_adam.alike(w) == weight_adam.alike(bias) && w.epsilon == bias.epsilon, "gemm_adam",
             "a bias and weights do not learn alike");
    PC_CHECK(bias.g.mask.empty() && bias.g.narrow.y.empty() && bias.g.moved_operand.y.empty(), "gemm_adam",
             "a bias has neither a mask nor operands");
    PC_CHECK(bias.g.w.count() == rows() && bias.g.w.dtype == DType::f32, "gemm_adam", "a bias ", bias.g.w.shape.text(),
             " for ", rows(), " rows");
  }
  void touches(Touches& t) const {
    t.read_all(delta).read_all(x).read_all(bias_delta);
    for (const WeightAdamArgs* one : {&w, &bias}) {
      one->touches(t);
      t.write(one->g.dw);
    }
  }
  [[nodiscard]] double flops() const {
    const double sums = bias_delta.empty() ? 0 : static_cast<double>(delta.count()) + bias.flops();
    return 2.0 * static_cast<double>(samples()) * static_cast<double>(w.g.w.count()) + w.flops() + sums;
  }
};

/// The two calls as one, where the product is the gradient of w; nothing: they are not of that kind, or are faster
/// apart. Products of few samples are bound by the memory of what they make, those for few weights by the time between
/// kernels; else the library's are faster, as they are for many weights in rows of odd length.
std::optional<GemmAdamArgs> join_gemm_adam(const GemmArgs& gradient, const WeightAdamArgs& w);
/// A bias of as many rows that learns from as many samples goes along; false: it does not.
bool join_bias(GemmAdamArgs& weights, const SumRowsArgs& gradient, const WeightAdamArgs& bias);

void gemm_adam_cpu(const GemmAdamArgs&, Share);
void gemm_adam_cuda(const GemmAdamArgs&, CudaContext&);
void gemm_adam_cuda_together(std::span<const GemmAdamArgs* const>, CudaContext&);

inline constexpr Kernel<GemmAdamArgs> gemm_adam{
    "gemm_adam", gemm_adam_cpu, PC_CUDA(gemm_adam_cuda),
    [](const GemmAdamArgs& a) { return weight_adam.alike(a.w) + static_cast<std::size_t>(a.x.dtype); },
    PC_CUDA(gemm_adam_cuda_together)};

}  // namespace pc::kernels

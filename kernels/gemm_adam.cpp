#include "kernels/gemm_adam.h"

namespace pc::kernels {

std::optional<GemmAdamArgs> join_gemm_adam(const GemmArgs& gradient, const WeightAdamArgs& w) {
  constexpr std::int64_t kFew = 128, kMany = 512, kSmall = std::int64_t{1} << 18;  // samples, and weights
  const std::int64_t samples = gradient.a.rows();
  const bool small = gradient.c.count() <= kSmall, packs = w.g.w.ld() % 2 == 0;  // several weights are read at once
  const bool joins = gradient.trans_a == Trans::yes && gradient.trans_b == Trans::no && gradient.beta == 0 &&
                     size_of(gradient.a.dtype) == 2 && (small ? samples <= kMany : packs && samples <= kFew) &&
                     w.g.w.dtype == DType::f32 && same_entries(gradient.c, w.g.dw);
  if (!joins) return std::nullopt;
  return GemmAdamArgs{.delta = gradient.a, .x = gradient.b, .alpha = gradient.alpha, .w = w};
}

bool join_bias(GemmAdamArgs& weights, const SumRowsArgs& gradient, const WeightAdamArgs& bias) {
  const auto packed = [](const View& v) { return v.empty() || (v.cols() == 1 && v.ld() == 1); };
  if (gradient.write != Write::set || gradient.x.rows() != weights.samples() || gradient.x.cols() != weights.rows() ||
      gradient.x.dtype == DType::tf32 || gradient.row.data != bias.g.dw.data || !bias.g.mask.empty() ||
      !bias.g.narrow.y.empty() || !bias.g.moved_operand.y.empty() ||
      weight_adam.alike(weights.w) != weight_adam.alike(bias) || weights.w.epsilon != bias.epsilon) {
    return false;
  }
  for (const View& v : {bias.g.w, bias.g.dw, bias.m, bias.v, bias.g.start, bias.g.moved}) {
    if (!packed(v)) return false;
  }
  weights.bias_delta = gradient.x;
  weights.bias = bias;
  return true;
}

}  // namespace pc::kernels

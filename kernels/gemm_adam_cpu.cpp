#include <cmath>
#include <vector>

#include "kernels/gemm_adam.h"
#include "kernels/loops.h"

namespace pc::kernels {
namespace {

/// A row as a matrix.
View one_row(const View& v, std::int64_t at, std::int64_t n) {
  if (v.empty()) return {};
  View row = v;
  row.data = v.as<std::byte>() + static_cast<std::size_t>(at * v.ld()) * size_of(v.dtype);
  row.shape = Shape{1, n};
  row.stride = 0;
  return row;
}

/// A step of Adam for one row of weights, along `slope`.
void learn_row(WeightAdamArgs a, std::int64_t row, std::int64_t n, std::vector<float>& slope) {
  for (View* v : {&a.g.w, &a.m, &a.v, &a.g.mask, &a.g.narrow.y, &a.g.dw, &a.g.start, &a.g.moved, &a.g.moved_operand.y})
    *v = one_row(*v, row, n);
  if (!a.g.dw.empty()) std::copy(slope.begin(), slope.end(), a.g.dw.as<float>());
  a.g.dw = View{slope.data(), a.g.w.shape};
  weight_adam_cpu(a, Share{});
}

}  // namespace

void gemm_adam_cpu(const GemmAdamArgs& a, Share share) {
  const auto [begin, end] = share.of(a.rows());
  if (begin == end) return;
  const std::int64_t n = a.cols();
  std::vector<float> x(static_cast<std::size_t>(a.samples() * n)), slope(static_cast<std::size_t>(n)), sum(1);
  for (std::int64_t k = 0; k < a.samples(); ++k) {
    for (std::int64_t col = 0; col < n; ++col) x[static_cast<std::size_t>(k * n + col)] = widened(a.x, k, col);
  }
  const auto by = static_cast<float>(std::ldexp(a.alpha, -a.delta.exponent - a.x.exponent));
  for (std::int64_t row = begin; row < end; ++row) {
    std::fill(slope.begin(), slope.end(), 0.0F);
    for (std::int64_t k = 0; k < a.samples(); ++k) {
      const float delta = widened(a.delta, k, row), *from = x.data() + k * n;
      float* to = slope.data();
      each_entry(n, [=](std::int64_t i) { to[i] += delta * from[i]; });
    }
    for (float& entry : slope) entry *= by;
    learn_row(a.w, row, n, slope);
    if (a.bias_delta.empty()) continue;
    sum[0] = 0;
    for (std::int64_t k = 0; k < a.samples(); ++k) sum[0] += widened(a.bias_delta, k, row);
    sum[0] = std::ldexp(sum[0], -a.bias_delta.exponent);
    learn_row(a.bias, row, 1, sum);
  }
}

}  // namespace pc::kernels

#include <Eigen/Core>

#include "kernels/sparse_blocks.h"

namespace pc::kernels {
namespace {

using Operand = Eigen::bfloat16;
constexpr std::int64_t kSideBySide = 32;  // samples, in registers

/// finish(sample, row, entry) with each entry of alpha x A^T, in the columns of this thread's patches. Zeros are passed
/// over: here they would save nothing.
template <class Finish>
void each_product(const SparseProductArgs& a, Share share, Finish&& finish) {
  using B = SparseBlocks;
  const SparsePatches& patches = a.index.patches;
  const B& blocks = a.index.blocks;
  const auto number = [](const View& list, std::int64_t i) { return std::int64_t{list.as<std::int32_t>()[i]}; };
  const auto alpha = static_cast<float>(a.alpha);
  const std::int64_t batch = a.y.rows();
  std::vector<float> samples;  // of the patch's sources
  const auto [begin, end] = share.of(patches.count());
  for (std::int64_t p = begin; p < end; ++p) {
    const std::int64_t top = number(patches.first, p), bottom = std::min(number(patches.first, p + 1), a.y.cols());
    const std::int64_t source = number(patches.source_offsets, p), sources_end = number(patches.source_offsets, p + 1);
    const std::int64_t groups = number(blocks.groups, p);
    for (std::int64_t first = 0; first < batch; first += kSideBySide) {
      const std::int64_t n = std::min(kSideBySide, batch - first);
      samples.assign(static_cast<std::size_t>((sources_end - source) * kSideBySide), 0.0F);
      for (std::int64_t i = source; i < sources_end; ++i) {
        const auto* x = a.x_t.row<Operand>(number(patches.sources, i)) + first;
        std::copy_n(x, n, samples.begin() + (i - source) * kSideBySide);
      }
      for (std::int64_t row = top; row < bottom; ++row) {
        float sum[kSideBySide] = {};
        const std::int64_t group = groups + (row - top) / B::kRows;
        const bool any = sources_end > source;
        for (std::int64_t b = any ? number(blocks.first, group) : 0; any && b < number(blocks.first, group + 1); ++b) {
          const auto* values = a.values.as<Operand>() + b * B::kEntries + (row - top) % B::kRows * B::kCols;
          const std::uint16_t* columns = blocks.sources.as<std::uint16_t>() + b * B::kCols;
          for (std::int64_t c = 0; c < B::kCols; ++c) {
            const auto value = static_cast<float>(values[c]);
            if (value == 0) continue;
            const float* x = samples.data() + std::int64_t{columns[c]} * kSideBySide;
#pragma omp simd
            for (std::int64_t j = 0; j < kSideBySide; ++j) sum[j] += value * x[j];
          }
        }
        for (std::int64_t j = 0; j < n; ++j) finish(first + j, row, alpha * sum[j]);
      }
    }
  }
}

/// An entry of a view, or 0 where it is empty.
float entry(const View& v, std::int64_t sample, std::int64_t row) {
  return v.empty() ? 0.0F : v.row<float>(sample)[row];
}

}  // namespace

void block_product_cpu(const SparseProductArgs& a, Share share) {
  const View before = a.before();
  each_product(a, share, [&](std::int64_t sample, std::int64_t row, float product) {
    a.y.row<float>(sample)[row] = entry(before, sample, row) + product;
  });
}

void sparse_error_cpu(const SparseErrorArgs& a, Share share) {
  const auto scale = static_cast<float>(a.precision);
  const float* precisions = a.precisions.as<float>();
  each_product(a.product, share, [&](std::int64_t sample, std::int64_t row, float product) {
    const float error = a.value.row<float>(sample)[row] - (entry(a.product.base, sample, row) + product);
    const float delta = (precisions == nullptr ? scale : scale * precisions[row]) * error;
    a.product.y.row<float>(sample)[row] = delta;
    a.y_t.row<Operand>(row)[sample] = Operand(delta);
  });
}

void sparse_move_cpu(const SparseMoveArgs& a, Share share) {
  const auto rate = static_cast<float>(a.rate * (a.bound.empty() ? 1.0 : *a.bound.as<double>()));
  const auto momentum = static_cast<float>(a.momentum), leak = static_cast<float>(a.leak);
  scalar::with_activation(a.f, [&]<Activation f>() {
    each_product(a.product, share, [&](std::int64_t sample, std::int64_t row, float product) {
      float& value = a.product.y.row<float>(sample)[row];
      const float back = entry(a.product.base, sample, row) + product;
      float step = entry(a.own, sample, row) - scalar::activate<f>(value, leak).slope * back;
      if (!a.velocity.empty()) {
        float& velocity = a.velocity.row<float>(sample)[row];
        step = velocity = momentum * velocity + step;
      }
      value -= rate * step;
      a.y_t.row<Operand>(row)[sample] = Operand(scalar::activate<f>(value, leak).value);
    });
  });
}

}  // namespace pc::kernels

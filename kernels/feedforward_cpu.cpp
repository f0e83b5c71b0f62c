#include "kernels/feedforward.h"

#include <Eigen/Core>

#include "kernels/loops.h"
#include "kernels/narrow.h"

namespace pc::kernels {
namespace {

template <class Operand>
using Rows = Eigen::Matrix<Operand, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class Operand>
void feedforward_typed(const FeedforwardArgs& a, Share share) {
  const auto [begin, end] = share.of(a.x.rows());
  const std::int64_t rows = end - begin, n = a.x.cols();
  if (rows == 0) return;
  Rows<Operand> rounded(rows, n);
  const View operand{rounded.data(), {rows, n}, a.layers[0].w.dtype, Device::cpu, 0};
  std::vector<float> mapped(static_cast<std::size_t>(n));
  const View* x = &a.x;
  for (const FeedforwardLayer& layer : a.layers) {
    const auto leak = static_cast<float>(layer.leak), gain = static_cast<float>(layer.gain);
    for (std::int64_t i = 0; i < rows; ++i) {
      const float* in = x->row<float>(begin + i);
      for (std::int64_t j = 0; j < n; ++j) {
        mapped[static_cast<std::size_t>(j)] = scalar::activate(layer.f, in[j], leak).value;
      }
      if (!layer.z.empty()) std::copy_n(mapped.data(), n, layer.z.row<float>(begin + i));
      narrow_row({operand, a.overflow}, i, mapped.data());
    }
    const Eigen::Map<const Rows<Operand>, 0, Eigen::OuterStride<>> w(layer.w.as<Operand>(), n, n,
                                                                     Eigen::OuterStride<>(layer.w.ld()));
    const Rows<float> product = rounded.template cast<float>() * w.template cast<float>().eval().transpose();
    const float* bias = layer.bias.as<float>();
    for (std::int64_t i = 0; i < rows; ++i) {
      const float* in = x->row<float>(begin + i);
      float* out = layer.y.row<float>(begin + i);
      for (std::int64_t j = 0; j < n; ++j) {
        const float fixed = (layer.residual ? in[j] : 0.0F) + (bias == nullptr ? 0.0F : bias[j]);
        out[j] = fixed + gain * product(i, j);
      }
    }
    x = &layer.y;
  }
}

}  // namespace

void feedforward_cpu(const FeedforwardArgs& a, Share share) {
  if (a.layers[0].w.dtype == DType::bf16) return feedforward_typed<Eigen::bfloat16>(a, share);
  feedforward_typed<Eigen::half>(a, share);
}

}  // namespace pc::kernels

// The feedforward pass of a deep narrow network: layers of one width that follow each other, in one call. One by one
// they are small kernels that wait for each other; on CUDA a cluster of blocks takes a few samples through all layers,
// each block with its rows of the weights, and tells the others what the next layer reads through shared memory.
#pragma once

#include <vector>

#include "kernels/kernel.h"
#include "kernels/scalar_math.h"
#include "kernels/write.h"

namespace pc::kernels {

using scalar::Activation;

/// y = gain f(x) W^T + bias, and x where it is residual; x is the y of the layer before. f(x) is rounded to W's type.
struct FeedforwardLayer {
  View w;          // [n, n]: float16 or bfloat16, of all layers alike
  View bias = {};  // [n]; or none
  double gain = 1;
  Activation f = Activation::identity;
  double leak = 0.01;
  bool residual = false;
  View z = {};  // [rows, n]: f(x), not rounded; or not wanted
  View y;       // [rows, n]
};

struct FeedforwardArgs {
  static constexpr int kMost = 128;  // layers
  static constexpr std::int64_t kWidths = 128, kWidest = 512;

  View x;                                // [rows, n], float32; n a multiple of kWidths, at most kWidest
  std::vector<FeedforwardLayer> layers;  // kMost at most
  View overflow;                         // float64 scalar, set to 1 if an f(x) does not fit float16

  /// Whether layers may be of this width.
  static constexpr bool takes(std::int64_t n) { return n > 0 && n <= kWidest && n % kWidths == 0; }

  void check() const {
    const std::int64_t n = x.cols();
    PC_CHECK(takes(n) && x.dtype == DType::f32, "feedforward", "layers of width ", n, ", ", name_of(x.dtype));
    PC_CHECK(!layers.empty() && std::ssize(layers) <= kMost, "feedforward", layers.size(), " layers");
    check_scalar("feedforward", overflow);
    const DType type = layers[0].w.dtype;
    PC_CHECK(type == DType::f16 || type == DType::bf16, "feedforward", "weights of ", name_of(type));
    for (const FeedforwardLayer& layer : layers) {
      PC_CHECK(layer.w.rows() == n && layer.w.cols() == n && layer.w.dtype == type && layer.w.exponent == 0,
               "feedforward", "weights ", layer.w.shape.text(), " are not those of a layer of width ", n);
      PC_CHECK(layer.bias.empty() || (layer.bias.count() == n && layer.bias.dtype == x.dtype), "feedforward",
               "a bias is one number for each entry");
      check_alike("feedforward", x, layer.y);
      if (!layer.z.empty()) check_alike("feedforward", x, layer.z);
    }
  }
  void touches(Touches& t) const {
    t.read(x);
    for (const FeedforwardLayer& layer : layers) t.read_all(layer.w).read_all(layer.bias).write(layer.z).write(layer.y);
  }
  [[nodiscard]] double flops() const {
    const auto n = static_cast<double>(x.cols());
    return static_cast<double>(x.rows()) * static_cast<double>(layers.size()) * (2 * n * n + 3 * n);
  }
};

void feedforward_cpu(const FeedforwardArgs&, Share);
/// Needs is_hopper().
void feedforward_cuda(const FeedforwardArgs&, CudaContext&);

inline constexpr Kernel<FeedforwardArgs> feedforward{"feedforward", feedforward_cpu, PC_CUDA(feedforward_cuda)};

}  // namespace pc::kernels

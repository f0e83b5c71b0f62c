// Convolution of images [height, width, channels], and its two adjoints. As matrices: with `patches` the linear map
// from an image to one row for each position of the window, [positions, places * channels],
//   y = patches(x) w^T,   dx = patches^T(dy w),   dw = dy^T patches(x).
// Products are gemm's, or cuDNN's (conv_cudnn.h), and have gemm's arithmetic: operands may be narrower than a float32
// result, and a result that is set, but for that of the filters, may be rounded to bfloat16. With groups, channels are
// split into as many parts, each with filters of its own.
#pragma once

#include "kernels/kernel.h"
#include "kernels/window.h"
#include "kernels/write.h"

namespace pc::kernels {

/// The sizes of a convolution: x [batch, height * width * channels], w [out_channels, kernel_h * kernel_w * channels /
/// groups], y [batch, positions * out_channels].
struct ConvShape {
  Window window;
  std::int64_t out_channels = 1, groups = 1;

  [[nodiscard]] std::int64_t in_group() const { return window.channels / groups; }
  [[nodiscard]] std::int64_t out_group() const { return out_channels / groups; }
  /// Entries of a patch, of one group.
  [[nodiscard]] std::int64_t depth() const { return window.places() * in_group(); }

  void check(const char* who, const View& x, const View& w, const View& y) const {
    window.check(who);
    PC_CHECK(groups > 0 && window.channels % groups == 0 && out_channels % groups == 0, who, groups,
             " groups do not divide ", window.channels, " and ", out_channels, " channels");
    PC_CHECK(x.rows() == y.rows() && x.cols() == window.image_count() && w.rows() == out_channels &&
                 w.cols() == depth() && y.cols() == window.positions() * out_channels,
             who, "image ", x.shape.text(), ", filters ", w.shape.text(), ", result ", y.shape.text(), " do not fit");
  }
  /// Of the two that are multiplied, and of what comes out.
  static void check_types(const char* who, const View& a, const View& b, const View& result, Write write) {
    PC_CHECK(a.dtype == b.dtype && multiplies_into(a.dtype, result.dtype), who, "cannot multiply ", name_of(a.dtype),
             " by ", name_of(b.dtype), " into ", name_of(result.dtype));
    PC_CHECK(result.dtype != DType::bf16 || write == Write::set, who, "bfloat16 is set, not added to");
  }
  [[nodiscard]] double flops(std::int64_t batch) const {
    return 2.0 * static_cast<double>(batch) * static_cast<double>(window.positions()) *
           static_cast<double>(out_channels) * static_cast<double>(depth());
  }
};

/// y (=|+=) patches(x) w^T
struct ConvArgs {
  View x, w, y;
  ConvShape shape;
  Write write = Write::set;

  void check() const {
    shape.check("conv", x, w, y);
    ConvShape::check_types("conv", x, w, y, write);
  }
  void touches(Touches& t) const { t.read(x).read_all(w).write(y); }
  [[nodiscard]] double flops() const { return shape.flops(x.rows()); }
};

/// dx (=|+=) patches^T(dy w)
struct ConvPullbackArgs {
  View dy, w, dx;
  ConvShape shape;
  Write write = Write::set;

  void check() const {
    shape.check("conv_pullback", dx, w, dy);
    ConvShape::check_types("conv_pullback", dy, w, dx, write);
  }
  void touches(Touches& t) const { t.read(dy).read_all(w).write(dx); }
  [[nodiscard]] double flops() const { return shape.flops(dx.rows()); }
};

/// dw (=|+=) dy^T patches(x), summed over the batch
struct ConvWeightArgs {
  View x, dy, dw;
  ConvShape shape;
  Write write = Write::set;

  void check() const {
    shape.check("conv_weight", x, dw, dy);
    with_float(dw.dtype, [](auto) {});
    ConvShape::check_types("conv_weight", x, dy, dw, write);
  }
  void touches(Touches& t) const { t.read_all(x).read_all(dy).write(dw); }
  [[nodiscard]] double flops() const { return shape.flops(x.rows()); }
};

void conv_cpu(const ConvArgs&, Share);
void conv_cuda(const ConvArgs&, CudaContext&);
void conv_pullback_cpu(const ConvPullbackArgs&, Share);
void conv_pullback_cuda(const ConvPullbackArgs&, CudaContext&);
void conv_weight_cpu(const ConvWeightArgs&, Share);
void conv_weight_cuda(const ConvWeightArgs&, CudaContext&);

inline constexpr Kernel<ConvArgs> conv{"conv", conv_cpu, PC_CUDA(conv_cuda)};
inline constexpr Kernel<ConvPullbackArgs> conv_pullback{"conv_pullback", conv_pullback_cpu,
                                                        PC_CUDA(conv_pullback_cuda)};
inline constexpr Kernel<ConvWeightArgs> conv_weight{"conv_weight", conv_weight_cpu, PC_CUDA(conv_weight_cuda)};

}  // namespace pc::kernels

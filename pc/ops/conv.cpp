// conv2d: mu = patches(x) W^T + b, and conv_transpose2d, which goes the other way: mu = patches^T(x W) + b.
// Images are rows, columns, channels.
//   conv2d             x [batch, height, width, in]   W [out, kernel, kernel, in / groups]   b [out]
//   conv_transpose2d   x [batch, height, width, in]   W [in, kernel, kernel, out / groups]   b [out]
#include "kernels/conv.h"

#include <cmath>
#include <cstddef>

#include "kernels/arithmetic.h"
#include "pc/ops/images.h"
#include "pc/ops/ops.h"

namespace pc::ops {
namespace {

using kernels::ConvShape;

constexpr AttrSpec kAttrs[] = {
    {"channels", 0, "of the result; 0: as the node it predicts"},
    {"kernel", 3, "height and width of the window"},
    {"stride", 1, "places from one position of the window to the next"},
    {"padding", 0, "rows and columns of zeros on each side of the image"},
    {"dilation", 1, "places from one row or column of the window to the next"},
    {"groups", 1, "parts into which the channels are split; each has filters of its own"},
    {"bias", 1, "whether there is a bias, one for each channel", AttrSpec::Kind::flag},
};

constexpr AttrSpec kTransposeAttrs[] = {
    {"channels", 0, "of the result; 0: as the node it predicts"},
    {"kernel", 3, "height and width of the window"},
    {"stride", 1, "places of the result from one entry of x to the next"},
    {"padding", 0, "rows and columns cut off on each side of the result"},
    {"output_padding", 0, "rows and columns more at the bottom and the right of the result"},
    {"dilation", 1, "places from one row or column of the window to the next"},
    {"groups", 1, "parts into which the channels are split; each has filters of its own"},
    {"bias", 1, "whether there is a bias, one for each channel", AttrSpec::Kind::flag},
};

/// The window over images of this shape.
Window window(const char* who, const Attrs& attrs, std::int64_t height, std::int64_t width, std::int64_t channels) {
  const std::int64_t kernel = image_setting(who, attrs, "kernel", 1);
  return {.height = height,
          .width = width,
          .channels = channels,
          .kernel_h = kernel,
          .kernel_w = kernel,
          .stride = image_setting(who, attrs, "stride", 1),
          .padding = image_setting(who, attrs, "padding", 0),
          .dilation = image_setting(who, attrs, "dilation", 1)};
}

/// Channels of the result, once it is known that x holds images and that groups divide both.
std::int64_t channels(const char* who, const OpSite& site) {
  const Shape& x = image_of(who, site);
  const std::int64_t asked = image_setting(who, site.attrs, "channels", 0);
  const bool known = asked > 0 || (site.wanted.has_value() && site.wanted->rank() == 3);
  PC_CHECK(known, who, "its channels are not known here; write {", who, ": {channels: N}}");
  const std::int64_t out = asked > 0 ? asked : (*site.wanted)[2], groups = image_setting(who, site.attrs, "groups", 1);
  PC_CHECK(x[2] % groups == 0 && out % groups == 0, who, groups, " groups do not divide ", x[2], " channels into ", out,
           "; ", axes_of_image(x));
  return out;
}

Shape infer(const OpSite& site) {
  const std::int64_t out = channels("conv2d", site);
  const Shape& x = site.sources[0];
  const Window w = window("conv2d", site.attrs, x[0], x[1], x[2]);
  check_window("conv2d", w, x);
  return {w.out_height(), w.out_width(), out};
}

Shape infer_transpose(const OpSite& site) {
  const std::int64_t out = channels("conv_transpose2d", site);
  const Shape& x = site.sources[0];
  const Window w = window("conv_transpose2d", site.attrs, 1, 1, out);
  const std::int64_t extra = image_setting("conv_transpose2d", site.attrs, "output_padding", 0);
  PC_CHECK(extra < w.stride, "conv_transpose2d", "output_padding ", extra, " must be below the stride ", w.stride);
  const auto extent = [&](std::int64_t in) {
    return (in - 1) * w.stride - 2 * w.padding + w.dilation * (w.kernel_h - 1) + 1 + extra;
  };
  PC_CHECK(extent(x[0]) > 0 && extent(x[1]) > 0, "conv_transpose2d", "padding ", w.padding, " leaves nothing of ",
           x.text(), "; ", axes_of_image(x));
  return {extent(x[0]), extent(x[1]), out};
}

/// Filters from `in` channels to `out`, one for each of the `rows` channels of either, and a bias.
std::vector<ParamSpec> specs(const Attrs& attrs, std::int64_t in, std::int64_t out, std::int64_t rows) {
  const auto kernel = static_cast<std::int64_t>(attrs.at("kernel"));
  const auto groups = static_cast<std::int64_t>(attrs.at("groups"));
  const std::int64_t fan_in = in / groups * kernel * kernel, fan_out = out / groups * kernel * kernel;
  const Shape filters{rows, kernel, kernel, (in + out - rows) / groups};
  std::vector<ParamSpec> list = {{"weight", filters, fan_in, fan_out, ParamRole::weight}};
  if (attrs.at("bias") != 0) list.push_back({"bias", {out}, fan_in, fan_out, ParamRole::bias});
  return list;
}

std::vector<ParamSpec> params(const OpSite& site, const Shape& out) {
  return specs(site.attrs, site.sources[0][2], out[2], out[2]);
}
std::vector<ParamSpec> params_transpose(const OpSite& site, const Shape& out) {
  return specs(site.attrs, site.sources[0][2], out[2], site.sources[0][2]);
}

/// A convolution of images [batch, height, width, channels].
ConvShape shape_of(const char* who, const OpCall& call, const Shape& image, std::int64_t out_channels) {
  return {.window = window(who, call.attrs, image[1], image[2], image[3]),
          .out_channels = out_channels,
          .groups = static_cast<std::int64_t>(call.attrs.at("groups"))};
}

ConvShape shape(const OpCall& call) { return shape_of("conv2d", call, call.x[0].shape, call.w[0].rows()); }

/// conv_transpose2d is the adjoint of a convolution of its result, which has these sizes.
ConvShape shape_transpose(const OpCall& call) {
  const Shape& x = call.x[0].shape;
  const std::int64_t out = call.w[0].shape[3] * static_cast<std::int64_t>(call.attrs.at("groups"));
  const Shape sample{x[1], x[2], x[3]};
  Attrs attrs = call.attrs;
  attrs["channels"] = double(out);
  const Shape result = infer_transpose({std::span(&sample, 1), attrs, {}});
  return shape_of("conv_transpose2d", call, result.batched(1), x[3]);
}

View one_row(View v, std::int64_t row) {
  v.data = static_cast<std::byte*>(v.data) + static_cast<std::size_t>(row * v.ld()) * size_of(v.dtype);
  v.shape = Shape{1, v.cols()};
  v.stride = 0;
  v.padding = 0;
  return v;
}

/// body(images, whether they are the first) for all images at once where they are packed, else one by one.
template <class Body>
void each_packed(const View& images, Body&& body) {
  if (images.ld() == images.cols()) return body(images, true);
  for (std::int64_t row = 0; row < images.rows(); ++row) body(one_row(images, row), row == 0);
}

/// Adds the bias at every place of every image; changes have none.
void add_bias(const OpCall& call, const View& y) {
  if (call.w.size() < 2 || call.changes) return;
  const View& bias = call.w[1];
  each_packed(y, [&](const View& images, bool) {
    kernels::add_row(call.exec, {.row = bias, .y = as_places(images, bias.count())});
  });
}

void bias_grad(const OpCall& call, const View& delta, const View& db, Write write) {
  each_packed(delta, [&](const View& images, bool first) {
    kernels::sum_rows(call.exec, {.x = as_places(images, db.count()), .row = db, .write = first ? write : Write::add});
  });
}

void predict(const OpCall& call, View mu, Write write) {
  kernels::conv(call.exec, {.x = call.x[0], .w = call.w[0], .y = mu, .shape = shape(call), .write = write});
  add_bias(call, mu);
}

void pullback(const OpCall& call, View delta, int, View dx, Write write) {
  kernels::conv_pullback(call.exec, {.dy = delta, .w = call.w[0], .dx = dx, .shape = shape(call), .write = write});
}

void weight_grad(const OpCall& call, View delta, int param, View dw, Write write) {
  if (param == 1) return bias_grad(call, delta, dw, write);
  kernels::conv_weight(call.exec, {.x = call.x[0], .dy = delta, .dw = dw, .shape = shape(call), .write = write});
}

void predict_transpose(const OpCall& call, View mu, Write write) {
  kernels::conv_pullback(call.exec,
                         {.dy = call.x[0], .w = call.w[0], .dx = mu, .shape = shape_transpose(call), .write = write});
  add_bias(call, mu);
}

void pullback_transpose(const OpCall& call, View delta, int, View dx, Write write) {
  kernels::conv(call.exec, {.x = delta, .w = call.w[0], .y = dx, .shape = shape_transpose(call), .write = write});
}

void weight_grad_transpose(const OpCall& call, View delta, int param, View dw, Write write) {
  if (param == 1) return bias_grad(call, delta, dw, write);
  kernels::conv_weight(call.exec,
                       {.x = delta, .dy = call.x[0], .dw = dw, .shape = shape_transpose(call), .write = write});
}

/// An entry of the image is in at most ceil(kernel / stride)^2 patches (with dilation, kernel^2), so patches()
/// stretches by at most the root of that.
double lipschitz(const Attrs& attrs) {
  const double stride = attrs.at("dilation") == 1 ? attrs.at("stride") : 1;
  return std::ceil(attrs.at("kernel") / stride);
}

std::vector<OpExample> examples() {
  return {{{{"kernel", 1}}, {{1, 1, 1}}, Shape{1, 1, 1}},
          {{{"padding", 1}}, {{5, 7, 2}}, Shape{5, 7, 3}},
          {{{"channels", 3}, {"kernel", 3}, {"stride", 2}, {"padding", 1}, {"bias", 0}}, {{5, 4, 2}}, {}},
          {{{"channels", 4}, {"kernel", 2}, {"dilation", 3}, {"groups", 2}}, {{4, 5, 6}}, {}},
          {{{"channels", 5}, {"kernel", 1}}, {{3, 2, 4}}, {}},
          {{{"channels", 4}, {"kernel", 1}, {"groups", 2}, {"bias", 0}}, {{3, 2, 6}}, {}},
          {{{"channels", 4}, {"kernel", 1}, {"stride", 2}}, {{5, 3, 2}}, {}}};
}
std::vector<OpExample> transpose_examples() {
  return {{{{"kernel", 1}}, {{1, 1, 1}}, Shape{1, 1, 1}},
          {{{"channels", 3}, {"kernel", 4}, {"stride", 2}, {"padding", 1}}, {{3, 2, 2}}, {}},
          {{{"channels", 2}, {"kernel", 3}, {"stride", 3}, {"output_padding", 2}, {"bias", 0}}, {{2, 3, 3}}, {}},
          {{{"channels", 6}, {"kernel", 2}, {"dilation", 2}, {"groups", 2}}, {{3, 3, 4}}, {}}};
}

}  // namespace

extern const Op conv2d{.name = "conv2d",
                       .about = "filters that slide over an image [height, width, channels], and a bias",
                       .attrs = kAttrs,
                       .affine = true,
                       .products = true,
                       .channel_bias = true,
                       .infer = infer,
                       .params = params,
                       .predict = predict,
                       .pullback = pullback,
                       .weight_grad = weight_grad,
                       .lipschitz = lipschitz,
                       .examples = examples,
                       .sums_last_axis = true};

extern const Op conv_transpose2d{.name = "conv_transpose2d",
                                 .about = "the transpose of a conv2d, to a larger image, and a bias",
                                 .attrs = kTransposeAttrs,
                                 .affine = true,
                                 .products = true,
                                 .channel_bias = true,
                                 .infer = infer_transpose,
                                 .params = params_transpose,
                                 .predict = predict_transpose,
                                 .pullback = pullback_transpose,
                                 .weight_grad = weight_grad_transpose,
                                 .lipschitz = lipschitz,
                                 .examples = transpose_examples};

}  // namespace pc::ops

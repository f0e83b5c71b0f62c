// What a window sees of images [batch, height, width, channels], channel by channel: max_pool2d and avg_pool2d (zeros
// in the padding count), global_avg_pool, and two that are such sums or their adjoints: upsample (each entry becomes a
// square of as many) and pad (zeros around the image).
// A largest entry is looked for anew on the way back, among the values given there: with frozen predictions those of
// the start, which is the point that they are linearised at.
#include <cmath>

#include "kernels/pool.h"
#include "kernels/pool_change.h"
#include "pc/ops/images.h"
#include "pc/ops/ops.h"

namespace pc::ops {
namespace {

using kernels::Pooling;

constexpr AttrSpec kAttrs[] = {
    {"kernel", 2, "height and width of the window"},
    {"stride", 0, "places from one position of the window to the next; 0: as many as the window has"},
    {"padding", 0, "rows and columns added on each side of the image"},
};
constexpr AttrSpec kUpsample[] = {{"by", 2, "how many rows, and columns, each becomes"}};
constexpr AttrSpec kPad[] = {{"by", 1, "rows and columns of zeros on each side"}};

/// The window of a pool over images whose dimensions begin at `axis` of x.
Window window(const char* who, const Attrs& attrs, const Shape& x, int axis) {
  const std::int64_t kernel = image_setting(who, attrs, "kernel", 1), stride = image_setting(who, attrs, "stride", 0);
  return {.height = x[axis],
          .width = x[axis + 1],
          .channels = x[axis + 2],
          .kernel_h = kernel,
          .kernel_w = kernel,
          .stride = stride == 0 ? kernel : stride,
          .padding = image_setting(who, attrs, "padding", 0)};
}

Window whole_image(const Shape& x, int axis) {
  return {
      .height = x[axis], .width = x[axis + 1], .channels = x[axis + 2], .kernel_h = x[axis], .kernel_w = x[axis + 1]};
}

/// Squares that tile the image that comes out of upsample.
Window squares(const Attrs& attrs, const Shape& x, int axis) {
  const std::int64_t by = image_setting("upsample", attrs, "by", 1);
  return {.height = by * x[axis],
          .width = by * x[axis + 1],
          .channels = x[axis + 2],
          .kernel_h = by,
          .kernel_w = by,
          .stride = by};
}

/// Single places, of an image with padding.
Window frame(const Attrs& attrs, const Shape& x, int axis) {
  return {.height = x[axis],
          .width = x[axis + 1],
          .channels = x[axis + 2],
          .padding = image_setting("pad", attrs, "by", 0)};
}

Shape result(const char* who, const Window& w, const Shape& x) {
  check_window(who, w, x);
  return {w.out_height(), w.out_width(), w.channels};
}

template <Pooling pooling>
constexpr const char* kName = pooling == Pooling::max ? "max_pool2d" : "avg_pool2d";

template <Pooling pooling>
Shape infer(const OpSite& site) {
  const Shape& x = image_of(kName<pooling>, site);
  const Window w = window(kName<pooling>, site.attrs, x, 0);
  PC_CHECK(2 * w.padding <= w.kernel_h, kName<pooling>, "padding ", w.padding, " is more than half of the window's ",
           w.kernel_h);
  return result(kName<pooling>, w, x);
}

template <Pooling pooling>
void predict(const OpCall& call, View mu, Write write) {
  const Window w = window(kName<pooling>, call.attrs, call.x[0].shape, 1);
  kernels::pool(
      call.exec,
      {.x = call.x[0], .y = mu, .window = w, .pooling = pooling, .by = 1 / double(w.places()), .write = write});
}

Window max_window(const Attrs& attrs, const Shape& x) { return window("max_pool2d", attrs, x, 0); }

void change_max(const OpCall& call, View dx, View out, Write write) {
  const Window w = window("max_pool2d", call.attrs, call.x[0].shape, 1);
  kernels::pool_change(call.exec, {.x = call.x[0], .dx = dx, .y = out, .window = w, .write = write});
}

template <Pooling pooling>
void pullback(const OpCall& call, View delta, int, View dx, Write write) {
  const Window w = window(kName<pooling>, call.attrs, call.x[0].shape, 1);
  kernels::pool_pullback(call.exec, {.x = call.x[0],
                                     .dy = delta,
                                     .dx = dx,
                                     .window = w,
                                     .pooling = pooling,
                                     .by = 1 / double(w.places()),
                                     .write = write});
}

Shape infer_global(const OpSite& site) { return {image_of("global_avg_pool", site)[2]}; }

void predict_global(const OpCall& call, View mu, Write write) {
  const Window w = whole_image(call.x[0].shape, 1);
  kernels::pool(call.exec, {.x = call.x[0], .y = mu, .window = w, .by = 1 / double(w.places()), .write = write});
}

void pullback_global(const OpCall& call, View delta, int, View dx, Write write) {
  const Window w = whole_image(call.x[0].shape, 1);
  kernels::pool_pullback(call.exec,
                         {.x = {}, .dy = delta, .dx = dx, .window = w, .by = 1 / double(w.places()), .write = write});
}

Shape infer_upsample(const OpSite& site) {
  const Window w = squares(site.attrs, image_of("upsample", site), 0);
  w.check("upsample");
  return {w.height, w.width, w.channels};
}

void predict_upsample(const OpCall& call, View mu, Write write) {
  kernels::pool_pullback(
      call.exec,
      {.x = {}, .dy = call.x[0], .dx = mu, .window = squares(call.attrs, call.x[0].shape, 1), .write = write});
}

void pullback_upsample(const OpCall& call, View delta, int, View dx, Write write) {
  kernels::pool(call.exec, {.x = delta, .y = dx, .window = squares(call.attrs, call.x[0].shape, 1), .write = write});
}

Shape infer_pad(const OpSite& site) {
  const Shape& x = image_of("pad", site);
  return result("pad", frame(site.attrs, x, 0), x);
}

void predict_pad(const OpCall& call, View mu, Write write) {
  kernels::pool(call.exec, {.x = call.x[0], .y = mu, .window = frame(call.attrs, call.x[0].shape, 1), .write = write});
}

void pullback_pad(const OpCall& call, View delta, int, View dx, Write write) {
  kernels::pool_pullback(
      call.exec, {.x = {}, .dy = delta, .dx = dx, .window = frame(call.attrs, call.x[0].shape, 1), .write = write});
}

/// Windows that a row of the image is in, at most.
double overlap(const Attrs& attrs) {
  const double kernel = attrs.at("kernel"), stride = attrs.at("stride");
  return stride == 0 ? 1 : std::ceil(kernel / stride);
}
double lipschitz_max(const Attrs& attrs) { return overlap(attrs); }
double lipschitz_avg(const Attrs& attrs) { return overlap(attrs) / attrs.at("kernel"); }
double lipschitz_upsample(const Attrs& attrs) { return attrs.at("by"); }
double lipschitz_one(const Attrs&) { return 1; }

std::vector<OpExample> examples() {
  return {{{{"kernel", 1}}, {{1, 1, 1}}, {}},
          {{}, {{4, 7, 3}}, {}},
          {{{"kernel", 3}, {"stride", 2}, {"padding", 1}}, {{5, 4, 2}}, {}}};
}
std::vector<OpExample> global_examples() { return {{{}, {{1, 1, 1}}, {}}, {{}, {{3, 5, 2}}, {}}}; }
std::vector<OpExample> upsample_examples() { return {{{}, {{3, 2, 3}}, {}}, {{{"by", 3}}, {{1, 3, 1}}, {}}}; }
std::vector<OpExample> pad_examples() { return {{{}, {{3, 2, 3}}, {}}, {{{"by", 2}}, {{1, 3, 1}}, {}}}; }

}  // namespace

extern const Op max_pool2d{.name = "max_pool2d",
                           .about = "the largest entry in a window that slides over an image",
                           .attrs = kAttrs,
                           .infer = infer<Pooling::max>,
                           .predict = predict<Pooling::max>,
                           .change = change_max,
                           .pullback = pullback<Pooling::max>,
                           .max_window = max_window,
                           .lipschitz = lipschitz_max,
                           .examples = examples};

extern const Op avg_pool2d{.name = "avg_pool2d",
                           .about = "the mean over a window that slides over an image; padding counts as zeros",
                           .attrs = kAttrs,
                           .affine = true,
                           .infer = infer<Pooling::sum>,
                           .predict = predict<Pooling::sum>,
                           .pullback = pullback<Pooling::sum>,
                           .lipschitz = lipschitz_avg,
                           .examples = examples};

extern const Op global_avg_pool{.name = "global_avg_pool",
                                .about = "the mean of each channel over the whole image",
                                .affine = true,
                                .infer = infer_global,
                                .predict = predict_global,
                                .pullback = pullback_global,
                                .lipschitz = lipschitz_one,
                                .examples = global_examples};

extern const Op upsample{.name = "upsample",
                         .about = "each entry of an image becomes a square of entries",
                         .attrs = kUpsample,
                         .affine = true,
                         .infer = infer_upsample,
                         .predict = predict_upsample,
                         .pullback = pullback_upsample,
                         .lipschitz = lipschitz_upsample,
                         .examples = upsample_examples};

extern const Op pad{.name = "pad",
                    .about = "zeros around an image",
                    .attrs = kPad,
                    .affine = true,
                    .infer = infer_pad,
                    .predict = predict_pad,
                    .pullback = pullback_pad,
                    .lipschitz = lipschitz_one,
                    .examples = pad_examples};

}  // namespace pc::ops

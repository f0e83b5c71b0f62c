// A window that slides over images: what convolutions and pools have in common. An image lies as rows, columns,
// channels, so that the channels of one place are neighbours: a patch is a few long runs, and a batch of patches is one
// matrix.
#pragma once

#include "kernels/scalar_math.h"
#include "kernels/view.h"

namespace pc {

/// Where a window of kernel_h x kernel_w places, `dilation` apart, stands on an image [height, width, channels] with
/// `padding` more rows and columns on each side: at every stride-th place. Int is narrow in device code, where wide
/// integers divide slowly.
template <class Int>
struct BasicWindow {
  Int height = 1, width = 1, channels = 1;
  Int kernel_h = 1, kernel_w = 1, stride = 1, padding = 0, dilation = 1;

  [[nodiscard]] PC_HD Int out_height() const {
    return (height + 2 * padding - dilation * (kernel_h - 1) - 1) / stride + 1;
  }
  [[nodiscard]] PC_HD Int out_width() const {
    return (width + 2 * padding - dilation * (kernel_w - 1) - 1) / stride + 1;
  }
  [[nodiscard]] PC_HD Int positions() const { return out_height() * out_width(); }
  [[nodiscard]] PC_HD Int places() const { return kernel_h * kernel_w; }
  [[nodiscard]] PC_HD Int image_count() const { return height * width * channels; }
  /// It takes each entry of the image once and in order.
  [[nodiscard]] bool is_identity() const { return places() == 1 && stride == 1 && padding == 0; }

  /// Its positions lie side by side: no entry of the image is in two of them, and none between two.
  [[nodiscard]] bool tiles() const {
    return kernel_h == stride && kernel_w == stride && padding == 0 && (dilation == 1 || stride == 1);
  }

  /// The row or column of the image that one of the window's places falls on; may lie in the padding.
  [[nodiscard]] PC_HD Int at(Int out, Int place) const { return out * stride - padding + place * dilation; }
  [[nodiscard]] PC_HD bool inside(Int y, Int x) const { return y >= 0 && y < height && x >= 0 && x < width; }

  /// body(place, position) for each of `places` that falls on the row or column `in` while the window stands at one of
  /// `positions`.
  template <class Body>
  PC_HD void each_over(Int in, Int places, Int positions, Body&& body) const {
    const Int from = in + padding, step = dilation == 1 ? stride : 1;
    for (Int place = dilation == 1 ? from % stride : 0; place < places; place += step) {
      const Int top = from - place * dilation;
      if (top < 0) break;
      if (top % stride == 0 && top / stride < positions) body(place, top / stride);
    }
  }

  [[nodiscard]] BasicWindow<int> narrow() const {
    return {int(height),   int(width),  int(channels), int(kernel_h),
            int(kernel_w), int(stride), int(padding),  int(dilation)};
  }

  void check(const char* who) const {
    PC_CHECK(height > 0 && width > 0 && channels > 0 && kernel_h > 0 && kernel_w > 0 && stride > 0 && padding >= 0 &&
                 dilation > 0,
             who, "a window of ", kernel_h, " x ", kernel_w, ", stride ", stride, ", padding ", padding, ", dilation ",
             dilation, " on an image of ", height, " x ", width, " x ", channels, " is none");
    PC_CHECK(height + 2 * padding > dilation * (kernel_h - 1) && width + 2 * padding > dilation * (kernel_w - 1), who,
             "a window of ", kernel_h, " x ", kernel_w, ", dilation ", dilation, ", is larger than the image of ",
             height, " x ", width, " with padding ", padding);
    PC_CHECK(image_count() < (1 << 30) && positions() * channels < (1 << 30), who, "images of ", height, " x ", width,
             " x ", channels, " are too large");
  }
};

using Window = BasicWindow<std::int64_t>;

/// A batch of images as a matrix [all places, channels]. The rows of the view must be packed.
inline View as_places(const View& images, std::int64_t channels) {
  PC_CHECK(images.ld() == images.cols() && images.cols() % channels == 0, "view", images.shape.text(),
           " cannot be seen as places of ", channels, " channels");
  View view = images;
  view.shape = Shape{images.count() / channels, channels};
  view.stride = 0;
  return view;
}

}  // namespace pc

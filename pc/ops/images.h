// What the operators on images say about the axes.
#pragma once

#include <string>

#include "pc/op.h"
#include "pc/ops/settings.h"

namespace pc::ops {

/// Names of axes are nowhere written, so a shape with its channels first looks like an image of few rows.
inline std::string axes_of_image(const Shape& x) {
  return x.text() + " is taken for " + std::to_string(x[0]) + " x " + std::to_string(x[1]) + " places of " +
         std::to_string(x[2]) +
         " channels, the last axis; write channels_last before the operator where the channels come first (as in data "
         "sets), and only there";
}

/// Of a window or of channels, which are counted.
inline std::int64_t image_setting(const char* who, const Attrs& attrs, std::string_view name, double least) {
  return whole_setting(who, attrs, name, least, 999999);
}

inline const Shape& image_of(const char* who, const OpSite& site) {
  const Shape& x = site.sources[0];
  PC_CHECK(x.rank() == 3, who, "takes images [height, width, channels], not ", x.text());
  return x;
}

/// The window of an operator over the image x fits on it.
inline void check_window(const char* who, const Window& window, const Shape& x) {
  try {
    window.check(who);
  } catch (const Error& e) {
    throw Error(std::string(e.what()) + "; " + axes_of_image(x));
  }
}

}  // namespace pc::ops

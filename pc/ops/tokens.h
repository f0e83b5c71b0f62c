// Operators along the last axis see a sample as tokens: one for each index of the other axes.
#pragma once

#include <array>

#include "kernels/view.h"

namespace pc::ops {

/// Length of the last axis, of a sample's shape or a value's.
inline std::int64_t last(const Shape& shape) { return shape.rank() == 0 ? 1 : shape[shape.rank() - 1]; }

/// The same shape with another last axis.
inline Shape with_last(const Shape& shape, std::int64_t n) {
  Shape out;
  for (int axis = 0; axis + 1 < shape.rank(); ++axis) out.append(shape[axis]);
  out.append(n);
  return out;
}

/// Calls body(views, first) with each value as a matrix whose rows are tokens, `count` of them in a sample: once where
/// all values lie packed, else for one token of every sample at a time.
template <std::size_t n, class Body>
void each_token(std::int64_t count, const std::array<View, n>& values, Body&& body) {
  bool packed = true;
  for (const View& v : values) packed = packed && v.ld() == v.cols();
  std::array<View, n> views = values;
  for (std::int64_t token = 0; token < (packed ? 1 : count); ++token) {
    for (std::size_t i = 0; i < n; ++i) {
      const View& v = values[i];
      if (packed) {
        views[i].shape = Shape{v.rows() * count, v.cols() / count};
        views[i].stride = 0;
      } else {
        views[i] = v.columns(token * (v.cols() / count), v.cols() / count);
      }
    }
    body(views, token == 0);
  }
}

}  // namespace pc::ops

// Operators along one axis see a sample as runs: one for each index of that axis and of those before it.
#pragma once

#include <cmath>

#include "pc/op.h"

namespace pc::ops {

/// The axis of a sample that the settings name, or -1.
inline int axis_of(const char* who, const Attrs& attrs, const Shape& shape) {
  const double axis = attrs.find("axis")->second;
  PC_CHECK(axis == -1 || (axis >= 0 && axis < shape.rank() && axis == std::floor(axis)), who, "axis ", axis,
           " is none of ", shape.text(), "; they count from 0");
  return static_cast<int>(axis);
}

/// The same shape with `n` entries along an axis.
inline Shape with_axis(const Shape& shape, int axis, std::int64_t n) {
  Shape out;
  for (int i = 0; i < shape.rank(); ++i) out.append(i == axis ? n : shape[i]);
  return out;
}

/// A sample cut by an axis, whose dimensions begin at `begin` of the shape: `outer` times `length` runs of `inner`
/// entries that lie side by side. By axis -1 it is one vector.
struct Cut {
  std::int64_t outer = 1, length = 1, inner = 1;

  Cut(const Shape& shape, int begin, int axis) {
    if (axis < 0) {
      for (int i = begin; i < shape.rank(); ++i) length *= shape[i];
      return;
    }
    for (int i = begin; i < begin + axis; ++i) outer *= shape[i];
    length = shape[begin + axis];
    for (int i = begin + axis + 1; i < shape.rank(); ++i) inner *= shape[i];
  }
  [[nodiscard]] std::int64_t run() const { return length * inner; }
};

}  // namespace pc::ops

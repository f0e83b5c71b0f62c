// A node may sum over several edges, so every kernel that produces a contribution is told whether to set or to add.
#pragma once

#include "kernels/view.h"

namespace pc {

enum class Write : bool { set, add };

namespace kernels {

/// a and b are the same matrix shape and dtype.
inline void check_alike(const char* who, const View& a, const View& b) {
  PC_CHECK(a.rows() == b.rows() && a.cols() == b.cols(), who, "shapes ", a.shape.text(), " and ", b.shape.text(),
           " differ");
  PC_CHECK(a.dtype == DType::f32 || a.dtype == DType::f64, who, "needs float32 or float64, not ", name_of(a.dtype));
  PC_CHECK(a.dtype == b.dtype, who, "dtypes ", name_of(a.dtype), " and ", name_of(b.dtype), " differ");
}

/// A float64 scalar, or a slot of an array of them.
inline void check_scalar(const char* who, const View& s) {
  PC_CHECK(s.count() == 1 && s.dtype == DType::f64, who, "needs a float64 scalar, not ", name_of(s.dtype), ' ',
           s.shape.text());
}

}  // namespace kernels
}  // namespace pc

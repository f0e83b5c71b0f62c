// narrow: y = x, rounded to a type that matrix products take as an operand.
#pragma once

#include <functional>
#include <vector>

#include "kernels/kernel.h"
#include "kernels/write.h"

namespace pc::kernels {

/// Where float32 entries go a second time, as operands: `y` is float16 or bfloat16, and holds each entry times
/// 2^y.exponent. `overflow`, a float64 scalar, is set to 1 if an entry does not fit float16. Empty: nowhere.
struct Narrowed {
  View y = {}, overflow = {};

  void check(const char* who, const View& x) const {
    if (y.empty()) return;
    PC_CHECK(x.dtype == DType::f32 && (y.dtype == DType::f16 || y.dtype == DType::bf16), who, "cannot narrow ",
             name_of(x.dtype), " to ", name_of(y.dtype));
    PC_CHECK(x.rows() == y.rows() && x.cols() == y.cols(), who, "shapes ", x.shape.text(), " and ", y.shape.text(),
             " differ");
    PC_CHECK(overflow.count() == 1 && overflow.dtype == DType::f64, who, "overflow must be a float64 scalar");
  }
  /// `overflow` is only ever set to 1, so that calls which may set it need not wait for each other.
  void touches(Touches& t) const { t.write(y); }
};

/// For kernels that read what a product may have rounded to bfloat16: `v` is as `like`, or that.
inline void check_alike_or_rounded(const char* who, const View& like, const View& v) {
  if (v.dtype != DType::bf16) return check_alike(who, like, v);
  PC_CHECK(like.dtype == DType::f32 && v.exponent == 0, who, "only float32 is rounded, and not multiplied");
  PC_CHECK(like.rows() == v.rows() && like.cols() == v.cols(), who, "shapes ", like.shape.text(), " and ",
           v.shape.text(), " differ");
}

/// All [rows, cols].
struct NarrowArgs {
  View x;
  Narrowed to;

  void check() const {
    PC_CHECK(!to.y.empty(), "narrow", "nothing to write to");
    to.check("narrow", x);
  }
  void touches(Touches& t) const {
    t.read(x);
    to.touches(t);
  }
  [[nodiscard]] double flops() const { return 0; }
};

void narrow_cpu(const NarrowArgs&, Share);
void narrow_cuda(const NarrowArgs&, CudaContext&);
void narrow_cuda_together(std::span<const NarrowArgs* const>, CudaContext&);

inline constexpr Kernel<NarrowArgs> narrow{"narrow", narrow_cpu, PC_CUDA(narrow_cuda),
                                           [](const NarrowArgs&) { return alike_if_same(); },
                                           PC_CUDA(narrow_cuda_together)};

/// One row of it, for the CPU twins of kernels that narrow what they have computed. (Of float64 there are no operands.)
void narrow_row(const Narrowed& to, std::int64_t row, const float* x);
inline void narrow_row(const Narrowed&, std::int64_t, const double*) {}
/// compute(y) for a `y` of float32, of which this thread's rows are then rounded to `result`.
void round_result(const View& result, Share share, const std::function<void(const View& y)>& compute);
/// An operand as float32: ten bits of a tf32 number, the others exactly; what is stored, without the exponent.
float widened(const View& operand, std::int64_t row, std::int64_t col);

/// A row of what may have been rounded, in `room` if it was; null where the view is empty.
template <class T>
const T* unrounded_row(const View& v, std::int64_t row, std::vector<T>& room) {
  if (v.empty()) return nullptr;
  if (v.dtype != DType::bf16) return v.row<T>(row);
  room.resize(static_cast<std::size_t>(v.cols()));
  for (std::int64_t col = 0; col < v.cols(); ++col) room[static_cast<std::size_t>(col)] = T(widened(v, row, col));
  return room.data();
}

}  // namespace pc::kernels

// split: operands that lose no digits. With x = h + l, h what an operand of few bits holds of x and l what it leaves,
//   x w = h(x) h(w) + l(x) h(w) + h(x) l(w)
// but for a term that is as small as float32's own rounding: a product with three times as many terms.
#pragma once

#include "kernels/kernel.h"
#include "kernels/narrow.h"
#include "kernels/scalar_math.h"

namespace pc::kernels {

/// Each run of `run` neighbours of x becomes three in y: h, l, h, or of weights h, h, l. y has three times x's columns
/// and is tf32, float16 or bfloat16. `overflow`, a float64 scalar, is set to 1 if an entry does not fit float16.
struct SplitArgs {
  View x, y, overflow;
  std::int64_t run = 1;
  bool weights = false;

  void check() const {
    PC_CHECK(x.dtype == DType::f32 && y.dtype != DType::f32 && is_operand(y.dtype), "split", "cannot split ",
             name_of(x.dtype), " into ", name_of(y.dtype));
    PC_CHECK(run > 0 && x.cols() % run == 0 && y.rows() == x.rows() && y.cols() == 3 * x.cols(), "split", "runs of ",
             run, " of ", x.shape.text(), " do not fit ", y.shape.text());
    PC_CHECK(overflow.count() == 1 && overflow.dtype == DType::f64, "split", "overflow must be a float64 scalar");
  }
  /// `overflow` is only ever set to 1, so that calls which may set it need not wait for each other.
  void touches(Touches& t) const { t.read(x).write(y); }
  [[nodiscard]] double flops() const { return 0; }

  /// The column of y for the part-th of three of column `col`.
  [[nodiscard]] PC_HD static std::int64_t place(std::int64_t col, std::int64_t run, int part) {
    return col / run * 3 * run + part * run + col % run;
  }
};

void split_cpu(const SplitArgs&, Share);
void split_cuda(const SplitArgs&, CudaContext&);

inline constexpr Kernel<SplitArgs> split{"split", split_cpu, PC_CUDA(split_cuda)};

}  // namespace pc::kernels

// Small element-wise kernels: fill, copy, axpby, multiply, lerp, scale_by, and the two that go between a row and a
// matrix.
#pragma once

#include "kernels/kernel.h"
#include "kernels/write.h"

namespace pc::kernels {

/// out = value
struct FillArgs {
  View out;
  double value = 0;

  void check() const {
    with_float(out.dtype, [](auto) {});
  }
  void touches(Touches& t) const { t.write(out); }
  [[nodiscard]] double flops() const { return 0; }
};

/// out = in, where `mask` (one entry per column or per entry; empty: everywhere) is not zero.
struct CopyArgs {
  View in, out;
  View mask = {};  // [1, cols] or [rows, cols]

  void check() const {
    check_alike("copy", in, out);
    PC_CHECK(mask.empty() || (mask.cols() == out.cols() && (mask.rows() == 1 || mask.rows() == out.rows())), "copy",
             "mask ", mask.shape.text(), " does not fit ", out.shape.text());
  }
  void touches(Touches& t) const {
    t.read(in).write(out);
    if (mask.rows() == 1) {
      t.read_all(mask);
    } else {
      t.read(mask);
    }
  }
  [[nodiscard]] double flops() const { return 0; }
};

/// y = a x + b y. With b = 0, y is not read.
struct AxpbyArgs {
  View x, y;
  double a = 1, b = 0;

  void check() const { check_alike("axpby", x, y); }
  void touches(Touches& t) const { t.read(x).write(y); }
  [[nodiscard]] double flops() const { return 2.0 * static_cast<double>(y.count()); }
};

/// y (=|+=) a b, entry by entry.
struct MultiplyArgs {
  View a, b, y;
  Write write = Write::set;

  void check() const {
    check_alike("multiply", a, y);
    check_alike("multiply", b, y);
  }
  void touches(Touches& t) const { t.read(a).read(b).write(y); }
  [[nodiscard]] double flops() const { return static_cast<double>(y.count()); }
};

/// y (=|+=) row, the same row [cols] for every row of y [rows, cols].
struct AddRowArgs {
  View row, y;
  Write write = Write::add;

  void check() const {
    PC_CHECK(row.count() == y.cols() && row.dtype == y.dtype, "add_row", "row ", row.shape.text(), " does not fit ",
             y.shape.text());
  }
  void touches(Touches& t) const { t.read_all(row).write(y); }
  [[nodiscard]] double flops() const { return static_cast<double>(y.count()); }
};

/// row (=|+=) sum over the rows of x [rows, cols], first row first. x may be an operand of fewer bits.
struct SumRowsArgs {
  View x, row;
  Write write = Write::set;

  void check() const {
    PC_CHECK(row.count() == x.cols(), "sum_rows", "row ", row.shape.text(), " does not fit ", x.shape.text());
    PC_CHECK(row.dtype == x.dtype || (row.dtype == DType::f32 && is_operand(x.dtype)), "sum_rows", "cannot add up ",
             name_of(x.dtype), " in ", name_of(row.dtype));
  }
  void touches(Touches& t) const { t.read_all(x).write_all(row); }
  [[nodiscard]] double flops() const { return static_cast<double>(x.count()); }
};

/// y = a + t (b - a): from a at t = 0 to b at t = 1. t is a float64 scalar; y may be a or b.
struct LerpArgs {
  View a, b, t, y;

  void check() const {
    check_alike("lerp", a, y);
    check_alike("lerp", b, y);
    check_scalar("lerp", t);
  }
  void touches(Touches& touched) const { touched.read(a).read(b).read_all(t).write(y); }
  [[nodiscard]] double flops() const { return 3.0 * static_cast<double>(y.count()); }
};

/// y *= by, a float64 scalar.
struct ScaleByArgs {
  View y, by;

  void check() const {
    check_alike("scale_by", y, y);
    check_scalar("scale_by", by);
  }
  void touches(Touches& t) const { t.read_all(by).write(y); }
  [[nodiscard]] double flops() const { return static_cast<double>(y.count()); }
};

void fill_cpu(const FillArgs&, Share);
void fill_cuda(const FillArgs&, CudaContext&);
void fill_cuda_together(std::span<const FillArgs* const>, CudaContext&);
void copy_cpu(const CopyArgs&, Share);
void copy_cuda(const CopyArgs&, CudaContext&);
void copy_cuda_together(std::span<const CopyArgs* const>, CudaContext&);
void axpby_cpu(const AxpbyArgs&, Share);
void axpby_cuda(const AxpbyArgs&, CudaContext&);
void axpby_cuda_together(std::span<const AxpbyArgs* const>, CudaContext&);
void multiply_cpu(const MultiplyArgs&, Share);
void multiply_cuda(const MultiplyArgs&, CudaContext&);
void add_row_cpu(const AddRowArgs&, Share);
void add_row_cuda(const AddRowArgs&, CudaContext&);
void add_row_cuda_together(std::span<const AddRowArgs* const>, CudaContext&);
void sum_rows_cpu(const SumRowsArgs&, Share);
void sum_rows_cuda(const SumRowsArgs&, CudaContext&);
void lerp_cpu(const LerpArgs&, Share);
void lerp_cuda(const LerpArgs&, CudaContext&);
void scale_by_cpu(const ScaleByArgs&, Share);
void scale_by_cuda(const ScaleByArgs&, CudaContext&);

inline constexpr Kernel<FillArgs> fill{"fill", fill_cpu, PC_CUDA(fill_cuda),
                                       [](const FillArgs& a) { return alike_if_same(a.out.dtype); },
                                       PC_CUDA(fill_cuda_together)};
inline constexpr Kernel<CopyArgs> copy{"copy", copy_cpu, PC_CUDA(copy_cuda),
                                       [](const CopyArgs& a) { return alike_if_same(a.out.dtype); },
                                       PC_CUDA(copy_cuda_together)};
inline constexpr Kernel<AxpbyArgs> axpby{"axpby", axpby_cpu, PC_CUDA(axpby_cuda),
                                         [](const AxpbyArgs& a) { return alike_if_same(a.y.dtype); },
                                         PC_CUDA(axpby_cuda_together)};
inline constexpr Kernel<MultiplyArgs> multiply{"multiply", multiply_cpu, PC_CUDA(multiply_cuda)};
inline constexpr Kernel<AddRowArgs> add_row{"add_row", add_row_cpu, PC_CUDA(add_row_cuda),
                                            [](const AddRowArgs& a) { return alike_if_same(a.y.dtype); },
                                            PC_CUDA(add_row_cuda_together)};
inline constexpr Kernel<SumRowsArgs> sum_rows{"sum_rows", sum_rows_cpu, PC_CUDA(sum_rows_cuda)};
inline constexpr Kernel<LerpArgs> lerp{"lerp", lerp_cpu, PC_CUDA(lerp_cuda)};
inline constexpr Kernel<ScaleByArgs> scale_by{"scale_by", scale_by_cpu, PC_CUDA(scale_by_cuda)};

}  // namespace pc::kernels

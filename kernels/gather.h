// From a data set that lies on the device to one batch: rows picked by an order, labels as one-hot rows, and the count
// of right answers. `order` [n] int32 lists examples; row i of the batch is example order[cursor + i], with `cursor` a
// float64 scalar on the device, so that a step needs nothing from the host.
#pragma once

#include "kernels/kernel.h"
#include "kernels/write.h"

namespace pc::kernels {

struct BatchRows {
  View order, cursor;

  void check(const char* who, std::int64_t rows) const {
    PC_CHECK(order.dtype == DType::i32 && order.count() >= rows, who, "order must be int32, at least ", rows, " long");
    check_scalar(who, cursor);
  }
  void touches(Touches& t) const { t.read_all(order).read_all(cursor); }
};

/// out[i] = table[example] * scale[c] + shift[c]. table [n, cols] uint8, float32 or float64; out [rows, cols]; scale
/// and shift: float64 [channels], where channels divides cols and a channel is a run of cols / channels entries.
struct GatherArgs {
  View table, out;
  BatchRows rows;
  View scale, shift;

  void check() const {
    PC_CHECK(table.cols() == out.cols(), "gather", "table ", table.shape.text(), " does not fit ", out.shape.text());
    PC_CHECK(table.dtype == DType::u8 || table.dtype == DType::f32 || table.dtype == DType::f64, "gather",
             "table must be uint8, float32 or float64");
    PC_CHECK(scale.dtype == DType::f64 && shift.dtype == DType::f64 && scale.count() == shift.count() &&
                 scale.count() > 0 && out.cols() % scale.count() == 0,
             "gather", "scale and shift must be float64, one per channel");
    rows.check("gather", out.rows());
  }
  void touches(Touches& t) const {
    rows.touches(t);
    t.read_all(table).read_all(scale).read_all(shift).write(out);
  }
  [[nodiscard]] double flops() const { return 2.0 * static_cast<double>(out.count()); }
};

/// out[i, j] = j == label of the example ? on : off. labels [n] int32; out [rows, classes].
struct OneHotArgs {
  View labels, out;
  BatchRows rows;
  double on = 1, off = 0;

  void check() const {
    PC_CHECK(labels.dtype == DType::i32, "one_hot", "labels must be int32");
    rows.check("one_hot", out.rows());
  }
  void touches(Touches& t) const {
    rows.touches(t);
    t.read_all(labels).write(out);
  }
  [[nodiscard]] double flops() const { return 0; }
};

/// right[i] = 1 if the largest entry of answer[i] (the first, among equals) is the label, else 0; float64 [rows].
struct RightArgs {
  View answer, labels, right;
  BatchRows rows;

  void check() const {
    PC_CHECK(labels.dtype == DType::i32, "right", "labels must be int32");
    PC_CHECK(right.dtype == DType::f64 && right.count() == answer.rows(), "right", "needs float64, one per row");
    rows.check("right", answer.rows());
  }
  void touches(Touches& t) const {
    rows.touches(t);
    t.read(answer).read_all(labels).write(right);
  }
  [[nodiscard]] double flops() const { return static_cast<double>(answer.count()); }
};

void gather_cpu(const GatherArgs&, Share);
void gather_cuda(const GatherArgs&, CudaContext&);
void one_hot_cpu(const OneHotArgs&, Share);
void one_hot_cuda(const OneHotArgs&, CudaContext&);
void right_cpu(const RightArgs&, Share);
void right_cuda(const RightArgs&, CudaContext&);

inline constexpr Kernel<GatherArgs> gather{"gather", gather_cpu, PC_CUDA(gather_cuda)};
inline constexpr Kernel<OneHotArgs> one_hot{"one_hot", one_hot_cpu, PC_CUDA(one_hot_cuda)};
inline constexpr Kernel<RightArgs> right{"right", right_cpu, PC_CUDA(right_cuda)};

}  // namespace pc::kernels

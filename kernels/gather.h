// From a data set that lies on the device to one batch: rows picked by an order, labels as one-hot rows, and the count
// of right answers. `order` [n] int32 lists examples; row i of the batch is example order[cursor + i], with `cursor` a
// float64 scalar on the device, so that a step needs nothing from the host.
#pragma once

#include "kernels/kernel.h"
#include "kernels/philox.h"
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

/// Images [channels, height, width] that are shifted by up to `crop` rows and columns (zeros come in at the edge), and
/// mirrored left to right in one of two cases: a random crop of the padded image. What example k of the order gets
/// depends on seed, epoch and k alone.
struct Augment {
  std::int64_t height = 0, width = 0;  // height 0: nothing is changed
  std::int64_t crop = 0;
  bool flip = false;
  std::uint64_t seed = 0;
  View epoch = {};  // a float64 scalar

  [[nodiscard]] bool any() const { return height > 0; }
};

/// How one image is changed.
struct Jitter {
  std::int64_t down = 0, right = 0;
  bool mirrored = false;

  PC_HD Jitter(std::int64_t crop, bool flip, std::uint64_t seed, double epoch, std::int64_t k) {
    const std::uint64_t bits =
        philox::bits(seed, Purpose::augment, 0, static_cast<std::uint64_t>(epoch), static_cast<std::uint64_t>(k));
    const auto places = static_cast<std::uint64_t>(2 * crop + 1);
    down = static_cast<std::int64_t>((bits & 0xFFFF) * places >> 16) - crop;
    right = static_cast<std::int64_t>((bits >> 16 & 0xFFFF) * places >> 16) - crop;
    mirrored = flip && (bits >> 32 & 1) != 0;
  }
  /// Where the entry at (y, x) of a plane comes from, row by row; -1: from outside.
  [[nodiscard]] PC_HD std::int64_t source(std::int64_t y, std::int64_t x, std::int64_t height,
                                          std::int64_t width) const {
    const std::int64_t row = y + down, col = (mirrored ? width - 1 - x : x) + right;
    return row < 0 || row >= height || col < 0 || col >= width ? -1 : row * width + col;
  }
};

/// out[i] = table[example] * scale[c] + shift[c]. table [n, cols] uint8, float32 or float64; out [rows, cols]; scale
/// and shift: float64 [channels], where channels divides cols and a channel is a run of cols / channels entries. With
/// one channel, out may also take several rows of the table from there on.
struct GatherArgs {
  View table, out;
  BatchRows rows;
  View scale, shift;
  Augment augment = {};

  void check() const {
    PC_CHECK(!augment.any() || (out.cols() % (augment.height * augment.width) == 0 && augment.crop >= 0), "gather",
             "images of ", augment.height, " x ", augment.width, " do not fit ", out.shape.text());
    if (augment.any()) check_scalar("gather", augment.epoch);
    const bool several =
        !augment.any() && scale.count() == 1 && table.ld() == table.cols() && out.cols() % table.cols() == 0;
    PC_CHECK(several || table.cols() == out.cols(), "gather", "table ", table.shape.text(), " does not fit ",
             out.shape.text());
    PC_CHECK(table.dtype == DType::u8 || table.dtype == DType::f32 || table.dtype == DType::f64, "gather",
             "table must be uint8, float32 or float64");
    PC_CHECK(scale.dtype == DType::f64 && shift.dtype == DType::f64 && scale.count() == shift.count() &&
                 scale.count() > 0 && out.cols() % scale.count() == 0,
             "gather", "scale and shift must be float64, one per channel");
    rows.check("gather", out.rows());
  }
  void touches(Touches& t) const {
    rows.touches(t);
    t.read_all(table).read_all(scale).read_all(shift).read_all(augment.epoch).write(out);
  }
  [[nodiscard]] double flops() const { return 2.0 * static_cast<double>(out.count()); }
};

/// out[i, t classes + j] = j == labels[example + t] ? on : off. labels [n] int32; out [rows, times classes].
struct OneHotArgs {
  View labels, out;
  BatchRows rows;
  double on = 1, off = 0;
  std::int64_t times = 1;

  void check() const {
    PC_CHECK(labels.dtype == DType::i32, "one_hot", "labels must be int32");
    PC_CHECK(times > 0 && out.cols() % times == 0, "one_hot", times, " labels do not divide ", out.shape.text());
    rows.check("one_hot", out.rows());
  }
  void touches(Touches& t) const {
    rows.touches(t);
    t.read_all(labels).write(out);
  }
  [[nodiscard]] double flops() const { return 0; }
};

/// right[i] = the part of `times` answers, side by side in answer[i], whose largest entry (the first, among equals) is
/// the label of example + t; float64 [rows].
struct RightArgs {
  View answer, labels, right;
  BatchRows rows;
  std::int64_t times = 1;

  void check() const {
    PC_CHECK(times > 0 && answer.cols() % times == 0, "right", times, " labels do not divide ", answer.shape.text());
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

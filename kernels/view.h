// Views of memory: a pointer, a shape, a type and a device. Nothing here owns anything.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "kernels/check.h"

namespace pc {

/// The last three are operands of matrix products alone: float32 of which a product uses ten bits (tf32, in the same
/// memory), and two types of half the size, with ten bits (f16) and seven (bf16).
enum class DType : std::uint8_t { f32, f64, i32, u8, tf32, f16, bf16 };
enum class Device : std::uint8_t { cpu, cuda };

constexpr std::size_t size_of(DType type) {
  switch (type) {
    case DType::f64:
      return 8;
    case DType::u8:
      return 1;
    case DType::f16:
    case DType::bf16:
      return 2;
    case DType::f32:
    case DType::i32:
    case DType::tf32:
      break;
  }
  return 4;
}

constexpr const char* name_of(DType type) {
  switch (type) {
    case DType::f32:
      return "float32";
    case DType::f64:
      return "float64";
    case DType::i32:
      return "int32";
    case DType::tf32:
      return "tf32";
    case DType::f16:
      return "float16";
    case DType::bf16:
      return "bfloat16";
    case DType::u8:
      break;
  }
  return "uint8";
}

/// Up to five dimensions, outermost first. A shape of rank 0 is a scalar.
class Shape {
 public:
  static constexpr int kMaxRank = 5;

  constexpr Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims) {
    for (const std::int64_t dim : dims) append(dim);
  }

  void append(std::int64_t dim) {
    PC_CHECK(rank_ < kMaxRank, "shape", "at most ", kMaxRank, " dimensions are supported");
    PC_CHECK(dim >= 0, "shape", "a dimension cannot be ", dim);
    constexpr std::int64_t kMost = std::int64_t{1} << 48;  // entries: far more than any memory, far from overflow
    PC_CHECK(dim == 0 || count() <= kMost / dim, "shape", text(), " times ", dim, " entries is too large");
    dims_[static_cast<std::size_t>(rank_++)] = dim;
  }

  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] std::int64_t operator[](int axis) const { return dims_[static_cast<std::size_t>(axis)]; }

  /// Number of entries.
  [[nodiscard]] std::int64_t count() const {
    std::int64_t n = 1;
    for (int axis = 0; axis < rank_; ++axis) n *= (*this)[axis];
    return n;
  }

  /// This shape with one more dimension in front: a batch of it.
  [[nodiscard]] Shape batched(std::int64_t batch) const {
    Shape shape{batch};
    for (int axis = 0; axis < rank_; ++axis) shape.append((*this)[axis]);
    return shape;
  }

  friend bool operator==(const Shape& a, const Shape& b) {
    if (a.rank_ != b.rank_) return false;
    for (int axis = 0; axis < a.rank_; ++axis) {
      if (a[axis] != b[axis]) return false;
    }
    return true;
  }

  /// "[128, 28, 28]"
  [[nodiscard]] std::string text() const {
    std::string out = "[";
    for (int axis = 0; axis < rank_; ++axis) out += (axis ? ", " : "") + std::to_string((*this)[axis]);
    return out + "]";
  }

 private:
  std::array<std::int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

/// Row-major memory. Every kernel sees it as a matrix: rows = the first dimension (the batch, or the outputs of a
/// weight matrix), cols = all the others together. Rows may lie further apart than cols (`stride`, in entries), which
/// lets a view name some columns of a wider one; within a row the entries are contiguous.
struct View {
  void* data = nullptr;
  Shape shape;
  DType dtype = DType::f32;
  Device device = Device::cpu;
  std::int64_t stride = 0;  // 0: rows are packed
  int exponent = 0;         // of an operand: each entry is what is stored times 2^-exponent
  int padding = 0;          // so many entries after each row's last are zero, and stay so

  [[nodiscard]] bool empty() const { return data == nullptr; }
  [[nodiscard]] std::int64_t rows() const { return shape.rank() == 0 ? 1 : shape[0]; }
  [[nodiscard]] std::int64_t cols() const { return rows() == 0 ? 0 : shape.count() / rows(); }
  [[nodiscard]] std::int64_t ld() const { return stride == 0 ? cols() : stride; }
  [[nodiscard]] std::int64_t count() const { return shape.count(); }

  template <class T>
  [[nodiscard]] T* as() const {
    return static_cast<T*>(data);
  }
  /// First entry of row `row`.
  template <class T>
  [[nodiscard]] T* row(std::int64_t row) const {
    return static_cast<T*>(data) + row * ld();
  }

  /// Bytes from the first entry to one past the last.
  [[nodiscard]] std::size_t extent() const {
    if (count() == 0) return 0;
    return static_cast<std::size_t>((rows() - 1) * ld() + cols()) * size_of(dtype);
  }

  /// The first n rows (a smaller batch in the same memory).
  [[nodiscard]] View first_rows(std::int64_t n) const {
    PC_CHECK(n <= rows(), "view", "asked for ", n, " rows of ", rows());
    View view = *this;
    view.shape = Shape{n};
    for (int axis = 1; axis < shape.rank(); ++axis) view.shape.append(shape[axis]);
    view.stride = ld();
    return view;
  }

  /// Columns [begin, begin + n), as a matrix.
  [[nodiscard]] View columns(std::int64_t begin, std::int64_t n) const {
    PC_CHECK(begin >= 0 && begin + n <= cols(), "view", "asked for columns ", begin, "..", begin + n, " of ", cols());
    View view = *this;
    view.data = static_cast<std::byte*>(data) + static_cast<std::size_t>(begin) * size_of(dtype);
    view.shape = Shape{rows(), n};
    view.stride = ld();
    view.padding = begin + n == cols() ? padding : 0;
    return view;
  }
};

/// Whether two views are the same matrix.
inline bool same_entries(const View& a, const View& b) {
  return a.data == b.data && a.rows() == b.rows() && a.cols() == b.cols() && a.ld() == b.ld() && a.dtype == b.dtype &&
         a.exponent == b.exponent;
}

/// Whether two views share memory. Different columns of one matrix do not.
inline bool overlap(const View& a, const View& b) {
  const auto* a0 = static_cast<const std::byte*>(a.data);
  const auto* b0 = static_cast<const std::byte*>(b.data);
  if (a0 >= b0 + b.extent() || b0 >= a0 + a.extent()) return false;
  const auto bytes = [](const View& v, std::int64_t entries) {
    return entries * static_cast<std::int64_t>(size_of(v.dtype));
  };
  const std::int64_t row = bytes(a, a.ld());
  if (row == 0 || bytes(b, b.ld()) != row) return true;
  const std::int64_t begin = ((b0 - a0) % row + row) % row;  // of b's columns, where a's begin at 0
  return begin < bytes(a, a.cols()) || begin + bytes(b, b.cols()) > row;
}

/// Whether a matrix product of float32 takes operands of this type.
constexpr bool is_operand(DType type) {
  return type == DType::f32 || type == DType::tf32 || type == DType::f16 || type == DType::bf16;
}

/// Whether a product of such operands may be written as `result`; those of bfloat16 also rounded to it, which does not
/// overflow.
constexpr bool multiplies_into(DType operands, DType result) {
  if (operands == result) return result == DType::f32 || result == DType::f64 || result == DType::bf16;
  return result == DType::f32 && is_operand(operands);
}

/// Calls body(T{}) with the C++ type of a floating-point dtype.
template <class Body>
decltype(auto) with_float(DType type, Body&& body) {
  PC_CHECK(type == DType::f32 || type == DType::f64, "kernel", "needs float32 or float64, not ", name_of(type));
  if (type == DType::f64) return body(double{});
  return body(float{});
}

}  // namespace pc

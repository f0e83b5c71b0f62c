// What tests share: comparisons that NaN cannot pass, random matrices, and memory with canaries on both sides.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "kernels/cases.h"
#include "kernels/exec.h"
#include "kernels/philox.h"
#include "kernels/scalar_math.h"
#include "kernels/view.h"

namespace pc::test {

/// Largest absolute difference; infinite if sizes differ or anything is NaN, so that NaN never passes.
inline double worst_difference(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return INFINITY;
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(a[i] - b[i]);
    if (!std::isfinite(difference)) return INFINITY;
    worst = std::max(worst, difference);
  }
  return worst;
}

/// The same, relative to the largest entry of b. Inputs of tests are of size one, and rounding errors with them, also
/// where results happen to cancel; so a result is never taken for smaller than `floor`.
inline double relative_error(const std::vector<double>& a, const std::vector<double>& b, double floor = 0.05) {
  double size = floor;
  for (const double entry : b) size = std::max(size, std::abs(entry));
  return worst_difference(a, b) / size;
}

/// Bit for bit, so that NaN equals NaN and -0 is not 0.
inline bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0);
}

/// A float64 matrix on the CPU.
struct Host {
  Shape shape;
  std::vector<double> values;

  explicit Host(Shape s, double value = 0) : shape(s), values(static_cast<std::size_t>(s.count()), value) {}

  /// Standard normal; `stream` tells matrices apart.
  static Host random(Shape shape, std::uint32_t stream) {
    Host host(shape);
    for (std::size_t i = 0; i < host.values.size(); ++i) {
      host.values[i] = philox::normal(philox::uniform(philox::bits(1, Purpose::test, stream, 0, i)));
    }
    return host;
  }

  [[nodiscard]] View view() { return {.data = values.data(), .shape = shape, .dtype = DType::f64}; }
  double& operator()(std::int64_t row, std::int64_t col) {
    return values[static_cast<std::size_t>(row * view().cols() + col)];
  }
  double& operator[](std::size_t i) { return values[i]; }
};

namespace detail {
/// The upper half of a float32, for whole numbers of few digits, which it holds exactly.
struct Bfloat16 {
  std::uint16_t bits = 0;

  Bfloat16() = default;
  explicit Bfloat16(double value) : bits(static_cast<std::uint16_t>(scalar::bits_of_float(float(value)) >> 16U)) {}
  operator double() const {  // NOLINT(google-explicit-constructor): it is a number
    return double(scalar::float_of_bits(static_cast<std::int32_t>(std::uint32_t{bits} << 16U)));
  }
};

template <class Body>
decltype(auto) with_any(DType type, Body&& body) {
  switch (type) {
    case DType::f32:
    case DType::tf32:
      return body(float{});
    case DType::f16:
      return body(_Float16{});
    case DType::bf16:
      return body(Bfloat16{});
    case DType::f64:
      return body(double{});
    case DType::i32:
      return body(std::int32_t{});
    case DType::u8:
      break;
  }
  return body(std::uint8_t{});
}
}  // namespace detail

/// Bytes on a device, owned.
class DeviceBuffer {
 public:
  DeviceBuffer(const Exec& exec, const std::vector<std::byte>& bytes)
      : exec_(exec), size_(bytes.size()), data_(allocate(exec.device, bytes.size())) {
    copy_bytes(exec_, data_, exec_.device, bytes.data(), Device::cpu, size_);
  }
  DeviceBuffer(DeviceBuffer&& other) noexcept
      : exec_(other.exec_), size_(other.size_), data_(std::exchange(other.data_, nullptr)) {}
  DeviceBuffer& operator=(DeviceBuffer&&) = delete;
  ~DeviceBuffer() {
    if (data_ != nullptr) release(exec_.device, data_);
  }

  [[nodiscard]] std::byte* data() const { return static_cast<std::byte*>(data_); }
  [[nodiscard]] std::vector<std::byte> to_host() const {
    std::vector<std::byte> bytes(size_);
    copy_bytes(exec_, bytes.data(), Device::cpu, data_, exec_.device, size_);
    return bytes;
  }

 private:
  Exec exec_;
  std::size_t size_;
  void* data_;
};

/// A view of a kernel case in memory, with canaries before it, after it, and (if it is wide) between its rows.
class Fenced {
 public:
  Fenced(const Exec& exec, const kernels::CaseView& what, std::uint32_t stream)
      : device_(exec.device), what_(what), before_(make(stream)), memory_(exec, before_) {}

  [[nodiscard]] View view() const { return of(memory_.data(), device_); }

  /// What the view holds now, row by row.
  [[nodiscard]] std::vector<double> values() const {
    std::vector<std::byte> now = memory_.to_host();
    const View v = of(now.data(), Device::cpu);
    std::vector<double> list;
    list.reserve(static_cast<std::size_t>(v.count()));
    detail::with_any(v.dtype, [&]<class T>(T) {
      for (std::int64_t row = 0; row < v.rows(); ++row)
        list.insert(list.end(), v.row<T>(row), v.row<T>(row) + v.cols());
    });
    return list;
  }

  /// No byte has changed; for inputs.
  [[nodiscard]] bool untouched() const { return memory_.to_host() == before_; }

  /// No byte outside the view has changed; for outputs.
  [[nodiscard]] bool fence_holds() const {
    std::vector<std::byte> now = memory_.to_host();
    std::vector<std::byte> then = before_;
    for (std::vector<std::byte>* bytes : {&now, &then}) {
      const View v = of(bytes->data(), Device::cpu);
      const std::size_t row_bytes = static_cast<std::size_t>(v.cols()) * size_of(v.dtype);
      for (std::int64_t row = 0; row < v.rows(); ++row) {
        detail::with_any(v.dtype, [&]<class T>(T) { std::memset(static_cast<void*>(v.row<T>(row)), 0, row_bytes); });
      }
    }
    return now == then;
  }

 private:
  static constexpr std::size_t kGuard = 256;
  static constexpr std::int64_t kLeft = 3, kRight = 2;  // columns of the wider memory

  /// The view in memory that starts at `base`.
  [[nodiscard]] View of(std::byte* base, Device device) const {
    View v{.data = base + kGuard, .shape = what_.shape, .dtype = what_.dtype, .device = device};
    if (!what_.wide) return v;
    const std::int64_t cols = v.cols();
    v.shape = Shape{v.rows(), kLeft + cols + kRight};
    return v.columns(kLeft, cols);
  }

  [[nodiscard]] std::vector<std::byte> make(std::uint32_t stream) const {
    const std::int64_t rows = what_.shape.rank() == 0 ? 1 : what_.shape[0];
    const std::int64_t entries = what_.shape.count() + (what_.wide ? rows * (kLeft + kRight) : 0);
    std::vector<std::byte> bytes(2 * kGuard + static_cast<std::size_t>(entries) * size_of(what_.dtype),
                                 std::byte{0xA5});
    const View v = of(bytes.data(), Device::cpu);
    detail::with_any(v.dtype, [&]<class T>(T) {
      for (std::int64_t i = 0; i < v.count(); ++i) {
        v.row<T>(i / v.cols())[i % v.cols()] = static_cast<T>(kernels::case_entry(what_, stream, i));
      }
    });
    return bytes;
  }

  Device device_;
  kernels::CaseView what_;
  std::vector<std::byte> before_;
  DeviceBuffer memory_;
};

/// A kernel case with its memory on a device.
class CaseOnDevice {
 public:
  CaseOnDevice(const Exec& exec, const kernels::KernelCase& of) : case_(of) {
    std::uint32_t stream = 0;
    for (const kernels::CaseView& v : of.in) in_.emplace_back(exec, v, stream++);
    for (const kernels::CaseView& v : of.out) out_.emplace_back(exec, v, stream++);
    for (const Fenced& f : in_) in_views_.push_back(f.view());
    for (const Fenced& f : out_) out_views_.push_back(f.view());
  }

  void run(const Exec& exec) const { case_.run(exec, in_views_, out_views_); }

  /// The outputs, after a look at all canaries.
  [[nodiscard]] std::vector<std::vector<double>> outputs() const {
    for (const Fenced& f : in_) CHECK(f.untouched());
    std::vector<std::vector<double>> all;
    for (const Fenced& f : out_) {
      CHECK(f.fence_holds());
      all.push_back(f.values());
    }
    return all;
  }

 private:
  const kernels::KernelCase& case_;
  std::vector<Fenced> in_, out_;
  std::vector<View> in_views_, out_views_;
};

inline std::vector<std::vector<double>> run_case(const Exec& exec, const kernels::KernelCase& of) {
  const CaseOnDevice placed(exec, of);
  placed.run(exec);
  return placed.outputs();
}

/// Keeps the last call instead of running it.
class KeepCall final : public Recorder {
 public:
  void record(Call call) override { kept = std::move(call); }
  Call kept;
};

}  // namespace pc::test

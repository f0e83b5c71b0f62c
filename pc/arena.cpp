#include "pc/arena.h"

#include <algorithm>
#include <cstring>

namespace pc {
namespace {

constexpr std::size_t kAlign = 256, kBlock = std::size_t{1} << 20;

std::string mebibytes(std::size_t bytes) {
  std::ostringstream text;
  text.precision(1);
  text << std::fixed << double(bytes) / double(1 << 20) << " MiB";
  return text.str();
}

}  // namespace

Arena::~Arena() {
  for (void* block : blocks_) release(exec_.device, block);
}

View Arena::take(const std::string& name, const Shape& shape, DType dtype) {
  if (const auto found = views_.find(name); found != views_.end()) {
    const View& view = found->second;
    PC_CHECK(view.dtype == dtype, "arena", name, " holds ", name_of(view.dtype), ", not ", name_of(dtype));
    if (view.shape == shape) return view;
    View part = view.first_rows(shape.rank() == 0 ? 1 : shape[0]);
    PC_CHECK(part.shape == shape, "arena", name, " is ", view.shape.text(), " and cannot serve as ", shape.text());
    part.stride = 0;
    return part;
  }
  return adopt(name, reserve(name, shape, dtype));
}

View Arena::adopt(const std::string& name, const View& part) { return views_.emplace(name, part).first->second; }

View Arena::reserve(const std::string& what, const Shape& shape, DType dtype) {
  const std::size_t needed = (static_cast<std::size_t>(shape.count()) * size_of(dtype) + kAlign - 1) / kAlign * kAlign;
  if (needed > left_) {
    const std::size_t block = std::max(needed, kBlock);
    try {
      blocks_.push_back(allocate(exec_.device, block));
    } catch (const Error& e) {
      fail("arena", "no memory for ", what, ' ', shape.text(), " (", mebibytes(needed), ") beside the ",
           mebibytes(bytes_), " already held; use a smaller batch or network (", e.what(), ")");
    }
    free_ = static_cast<std::byte*>(blocks_.back());
    left_ = block;
  }
  View view{free_, shape, dtype, exec_.device, 0};
  free_ += needed;
  left_ -= needed;
  bytes_ += needed;
  zero(view);
  return view;
}

/// Calls copy(byte in the view, byte in packed memory, bytes) for the whole view, or row by row where there are gaps.
template <class Copy>
void Arena::each_run(const View& view, Copy copy) const {
  PC_CHECK(view.device == exec_.device, "arena", "the view is of another device");
  const std::size_t size = size_of(view.dtype);
  if (view.rows() <= 1 || view.ld() == view.cols()) return copy(0, 0, static_cast<std::size_t>(view.count()) * size);
  const std::size_t run = static_cast<std::size_t>(view.cols()) * size;
  for (std::size_t row = 0; row < static_cast<std::size_t>(view.rows()); ++row) {
    copy(row * static_cast<std::size_t>(view.ld()) * size, row * run, run);
  }
}

void Arena::upload(const View& to, const void* from) const {
  each_run(to, [&](std::size_t at, std::size_t packed, std::size_t bytes) {
    copy_bytes(exec_, static_cast<std::byte*>(to.data) + at, exec_.device, static_cast<const std::byte*>(from) + packed,
               Device::cpu, bytes);
  });
}

void Arena::download(const View& from, void* to) const {
  each_run(from, [&](std::size_t at, std::size_t packed, std::size_t bytes) {
    copy_bytes(exec_, static_cast<std::byte*>(to) + packed, Device::cpu, static_cast<const std::byte*>(from.data) + at,
               exec_.device, bytes);
  });
}

std::vector<double> Arena::read(const View& view) const {
  return with_float(view.dtype, [&]<class T>(T) {
    std::vector<T> raw(static_cast<std::size_t>(view.count()));
    download(view, raw.data());
    return std::vector<double>(raw.begin(), raw.end());
  });
}

double Arena::read_scalar(const View& view) const {
  PC_CHECK(view.count() == 1 && view.dtype == DType::f64, "arena", "a view of ", view.shape.text(), " is no scalar");
  double value = 0;
  download(view, &value);
  return value;
}

void Arena::write(const View& view, const std::vector<double>& values) const {
  PC_CHECK(static_cast<std::int64_t>(values.size()) == view.count(), "arena", "a view of ", view.shape.text(),
           " cannot take ", values.size(), " values");
  with_float(view.dtype, [&]<class T>(T) {
    const std::vector<T> raw(values.begin(), values.end());
    upload(view, raw.data());
  });
}

void Arena::zero(const View& view) const {
  const std::vector<std::byte> zeros(static_cast<std::size_t>(view.count()) * size_of(view.dtype));
  if (!zeros.empty()) upload(view, zeros.data());
}

}  // namespace pc

// HDF5 files: written whole or not at all, and checked before they are believed. HDF5's own headers stay in h5.cpp.
// For one thread at a time: HDF5 itself is not made for more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/view.h"
#include "pc/replacement.h"

namespace pc {

/// What the entries of a dataset are: those of DType, and i64 for counts.
enum class H5Type : std::uint8_t { f32, f64, i32, i64, u8 };

constexpr H5Type h5_type(DType type) {
  switch (type) {
    case DType::f32:
      return H5Type::f32;
    case DType::f64:
      return H5Type::f64;
    case DType::i32:
      return H5Type::i32;
    case DType::u8:
      return H5Type::u8;
    case DType::tf32:
    case DType::f16:
    case DType::bf16:
      break;
  }
  fail("hdf5", "operands of matrix products are not for files");
}

template <class T>
constexpr H5Type h5_type_of() {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, std::int32_t> ||
                std::is_same_v<T, std::int64_t> || std::is_same_v<T, std::uint8_t>);
  if (std::is_same_v<T, float>) return H5Type::f32;
  if (std::is_same_v<T, double>) return H5Type::f64;
  if (std::is_same_v<T, std::int32_t>) return H5Type::i32;
  return std::is_same_v<T, std::int64_t> ? H5Type::i64 : H5Type::u8;
}

constexpr std::size_t size_of(H5Type type) {
  switch (type) {
    case H5Type::f64:
    case H5Type::i64:
      return 8;
    case H5Type::u8:
      return 1;
    case H5Type::f32:
    case H5Type::i32:
      break;
  }
  return 4;
}

/// As numpy calls it.
constexpr const char* name_of(H5Type type) {
  switch (type) {
    case H5Type::f32:
      return "float32";
    case H5Type::f64:
      return "float64";
    case H5Type::i32:
      return "int32";
    case H5Type::i64:
      return "int64";
    case H5Type::u8:
      break;
  }
  return "uint8";
}

/// Extents, outermost first. Empty: a scalar.
using H5Dims = std::vector<std::int64_t>;

/// Owns one HDF5 identifier. The destructor is quiet; close() tells whether closing worked.
class H5Id {
 public:
  using Close = int (*)(std::int64_t);  // herr_t (hid_t)

  H5Id() = default;
  H5Id(std::int64_t id, Close closer) noexcept : id_(id), close_(closer) {}
  H5Id(H5Id&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  H5Id& operator=(H5Id&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~H5Id() { close(); }

  [[nodiscard]] std::int64_t get() const noexcept { return id_; }
  [[nodiscard]] bool empty() const noexcept { return id_ < 0; }
  bool close() noexcept { return empty() || close_(std::exchange(id_, -1)) >= 0; }

 private:
  std::int64_t id_ = -1;
  Close close_ = nullptr;
};

/// Writes beside `path`; commit() puts it in the place of `path`. Dropped without commit, it leaves nothing behind and
/// the old file whole.
///
/// A file begins with a user block of 512 bytes, which HDF5 skips: the seal, a checksum of all that follows. The reader
/// verifies it before HDF5 sees the file, because HDF5 can crash on damaged ones. A file without a seal (made by h5py)
/// is read too, if it has no user block, or one of zeros. To edit a sealed file with other tools, overwrite its first
/// 512 bytes with zeros.
class H5Writer {
 public:
  explicit H5Writer(std::filesystem::path path);

  /// `name` is a path: "metrics/train/energy" makes the groups it needs. Its parts are neither empty, "." nor "..".
  /// `compress`: gzip, for data over 64 KiB; checkpoints go without, to be fast.
  void write(const std::string& name, H5Type type, const H5Dims& dims, const void* data, const std::string& description,
             bool compress = false);

  /// A vector as an array of these extents, or of one dimension.
  template <class T>
  void write(const std::string& name, const H5Dims& dims, const std::vector<T>& values, const std::string& description,
             bool compress = false) {
    check_count(name, dims, values.size());
    write(name, h5_type_of<T>(), dims, values.data(), description, compress);
  }
  template <class T>
  void write(const std::string& name, const std::vector<T>& values, const std::string& description,
             bool compress = false) {
    write(name, H5Dims{static_cast<std::int64_t>(values.size())}, values, description, compress);
  }
  template <class T>
  void write_scalar(const std::string& name, T value, const std::string& description) {
    write(name, h5_type_of<T>(), {}, &value, description);
  }
  /// UTF-8 without zero bytes, as a scalar string.
  void write_text(const std::string& name, const std::string& text, const std::string& description);

  // Attributes of the file itself.
  void attribute(const std::string& name, double value);
  void attribute(const std::string& name, std::int64_t value);
  void attribute(const std::string& name, const std::string& value);
  void attribute(const std::string& name, const char* value) { attribute(name, std::string(value)); }

  /// Closes the file, waits until it is on disk and renames it. Nothing can be written afterwards.
  void commit();

 private:
  void check_count(const std::string& name, const H5Dims& dims, std::size_t count) const;
  void check_open() const;

  std::filesystem::path path_;
  Replacement replacement_;
  H5Id file_;
};

/// Opens a file for reading. Every error names the path.
class H5Reader {
 public:
  explicit H5Reader(std::filesystem::path path);

  /// Full paths of all datasets, sorted; links to other files are not followed.
  [[nodiscard]] const std::vector<std::string>& names() const { return names_; }
  [[nodiscard]] bool has(const std::string& name) const;
  [[nodiscard]] H5Dims dims(const std::string& name) const;
  [[nodiscard]] H5Type dtype(const std::string& name) const;
  [[nodiscard]] std::string description(const std::string& name) const;  // empty: none

  /// Reads a dataset of exactly this type and these extents into memory that the caller has.
  void read(const std::string& name, H5Type type, const H5Dims& dims, void* data) const;
  /// Allocates only after type, extents and the bytes that the file really holds were found to agree.
  template <class T>
  [[nodiscard]] std::vector<T> read(const std::string& name, const H5Dims& dims) const {
    std::vector<T> values(check(name, h5_type_of<T>(), dims));
    read(name, h5_type_of<T>(), dims, values.data());
    return values;
  }
  template <class T>
  [[nodiscard]] T read_scalar(const std::string& name) const {
    T value{};
    read(name, h5_type_of<T>(), {}, &value);
    return value;
  }
  [[nodiscard]] std::string read_text(const std::string& name) const;

  /// Number of entries; throws unless the dataset is of this type and these extents, and the file holds that much.
  std::size_t check(const std::string& name, H5Type type, const H5Dims& dims) const;

  [[nodiscard]] bool has_attribute(const std::string& name) const;
  [[nodiscard]] double attribute_double(const std::string& name) const;
  [[nodiscard]] std::int64_t attribute_int(const std::string& name) const;
  [[nodiscard]] std::string attribute_text(const std::string& name) const;

 private:
  [[nodiscard]] H5Id open(const std::string& name) const;
  [[nodiscard]] H5Id open_attribute(const std::string& name) const;

  std::filesystem::path path_;
  std::uint64_t length_ = 0;  // of the file, in bytes
  H5Id file_;
  std::vector<std::string> names_;
};

}  // namespace pc

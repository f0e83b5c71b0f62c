#include "experiments/data/bytes.h"

#include <fstream>

#include "experiments/data/unpack.h"
#include "kernels/check.h"

namespace pc::experiments {
namespace {

namespace fs = std::filesystem;

// Packing never makes data longer by more than this, so a longer packed file unpacks to too much anyway.
std::int64_t packed_limit(std::int64_t max_bytes) {
  const std::int64_t slack = max_bytes / 64 + 65536;
  return max_bytes > kNoLimit - slack ? kNoLimit : max_bytes + slack;
}

std::int64_t size_of(const fs::path& file) {
  std::error_code error;
  PC_CHECK(fs::exists(file, error), "data", file.string(), ": no such file");
  PC_CHECK(fs::is_regular_file(file, error), "data", file.string(), ": not a file");
  const std::uintmax_t size = fs::file_size(file, error);
  PC_CHECK(!error, "data", file.string(), ": cannot tell its size: ", error.message());
  return static_cast<std::int64_t>(size);
}

}  // namespace

std::optional<fs::path> find_packed(const fs::path& folder, const std::string& name) {
  for (const char* suffix : {"", ".gz", ".xz"}) {
    const fs::path file = folder / (name + suffix);
    std::error_code ignored;
    if (fs::is_regular_file(file, ignored)) return file;
  }
  return std::nullopt;
}

Bytes read_file(const fs::path& file, std::int64_t max_bytes) {
  const std::int64_t size = size_of(file);
  PC_CHECK(size <= max_bytes, "data", file.string(), ": has ", size, " bytes, more than the ", max_bytes,
           " that such a file can have");
  std::ifstream stream(file, std::ios::binary);
  PC_CHECK(stream.good(), "data", file.string(), ": cannot open it for reading");
  Bytes bytes(static_cast<std::size_t>(size));
  stream.read(reinterpret_cast<char*>(bytes.data()), size);
  PC_CHECK(stream.gcount() == size, "data", file.string(), ": read ", stream.gcount(), " of ", size, " bytes");
  return bytes;
}

Bytes read_unpacked(const fs::path& file, std::int64_t max_bytes) {
  const fs::path suffix = file.extension();
  if (suffix == ".gz") return unpack_gzip(read_file(file, packed_limit(max_bytes)), max_bytes, file.string());
  if (suffix == ".xz") return unpack_xz(read_file(file, packed_limit(max_bytes)), max_bytes, file.string());
  return read_file(file, max_bytes);
}

std::optional<std::int64_t> product(std::span<const std::int64_t> extents) {
  std::int64_t result = 1;
  bool fits = true;
  for (const std::int64_t extent : extents) {
    if (extent == 0) return 0;  // even beside extents whose product would not fit
    fits = fits && !__builtin_mul_overflow(result, extent, &result);
  }
  return fits ? std::optional(result) : std::nullopt;
}

std::string shape_text(std::span<const std::int64_t> extents) {
  std::string text;
  for (const std::int64_t extent : extents) text += (text.empty() ? "" : "x") + std::to_string(extent);
  return text;
}

}  // namespace pc::experiments

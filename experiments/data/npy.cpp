#include "experiments/data/npy.h"

#include <algorithm>
#include <bit>

#include "kernels/check.h"

namespace pc::experiments {
namespace {

static_assert(std::endian::native == std::endian::little, "values are used as the file holds them");

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::size_t kPreamble = 8;  // magic and version

std::int64_t width(NpyType type) {
  switch (type) {
    case NpyType::u1:
      return 1;
    case NpyType::f4:
    case NpyType::i4:
      return 4;
    case NpyType::f8:
    case NpyType::i8:
      return 8;
  }
  fail("npy", "no such type");
}

struct Layout {
  std::size_t header, values;  // where each begins
};

Layout find_layout(const Bytes& bytes, const std::string& file) {
  PC_CHECK(!bytes.empty(), "npy", file, ": is empty");
  PC_CHECK(bytes.size() >= kMagic.size() && std::equal(kMagic.begin(), kMagic.end(), bytes.begin(),
                                                       [](char a, std::uint8_t b) { return std::uint8_t(a) == b; }),
           "npy", file, ": does not start with \\x93NUMPY; save it with numpy.save");
  PC_CHECK(bytes.size() >= kPreamble, "npy", file, ": ends inside its header, after ", bytes.size(), " bytes");
  const int major = bytes[6];
  PC_CHECK(major >= 1 && major <= 3, "npy", file, ": is version ", major, "; this program reads 1, 2 and 3");
  const std::size_t n_length = major == 1 ? 2 : 4, header = kPreamble + n_length;
  PC_CHECK(bytes.size() >= header, "npy", file, ": ends inside its header, after ", bytes.size(), " bytes");
  std::size_t length = 0;
  for (std::size_t i = n_length; i-- > 0;) length = length << 8 | bytes[kPreamble + i];
  PC_CHECK(length <= bytes.size() - header, "npy", file, ": its header claims ", length, " bytes, but only ",
           bytes.size() - header, " follow");
  return {header, header + length};
}

}  // namespace

NpyArray read_npy(const std::filesystem::path& path) {
  const std::string file = path.string();
  Bytes bytes = read_file(path);
  const auto [header, values] = find_layout(bytes, file);
  const std::string text(bytes.begin() + std::ptrdiff_t(header), bytes.begin() + std::ptrdiff_t(values));
  NpyHeader parsed = parse_npy_header(text, file);
  bytes.erase(bytes.begin(), bytes.begin() + std::ptrdiff_t(values));
  std::vector<std::int64_t> extents = parsed.shape;
  extents.push_back(width(parsed.type));
  const std::optional<std::int64_t> claimed = product(extents);
  PC_CHECK(claimed.has_value(), "npy", file, ": its header claims more values than any file can hold");
  PC_CHECK(*claimed == std::ssize(bytes), "npy", file, ": its header claims ", shape_text(extents), " = ", *claimed,
           " bytes of values, but ", bytes.size(), " follow");
  return {file, parsed.type, std::move(parsed.shape), std::move(bytes)};
}

}  // namespace pc::experiments

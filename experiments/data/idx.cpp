#include "experiments/data/idx.h"

#include "experiments/data/bytes.h"
#include "kernels/check.h"

namespace pc::experiments {
namespace {

constexpr std::uint32_t kImageMagic = 2051, kLabelMagic = 2049;

struct Idx {
  std::string file;
  Bytes bytes;
  std::vector<std::int64_t> shape;
  std::size_t header = 0;  // bytes before the values

  [[nodiscard]] std::span<const std::uint8_t> values() const { return std::span(bytes).subspan(header); }
};

std::uint32_t big_endian(std::span<const std::uint8_t> bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value = value << 8 | bytes[at + i];
  return value;
}

// What a wrong magic number tells about how the file came to be here.
std::string guess(std::uint32_t magic) {
  if (magic == kImageMagic) return "; it looks like an image file: are images and labels swapped?";
  if (magic == kLabelMagic) return "; it looks like a label file: are images and labels swapped?";
  if (magic >> 16 == 0x1f8b) return "; it is gzip data: end its name in .gz";
  if (magic == 0xfd377a58) return "; it is xz data: end its name in .xz";
  if (magic >> 24 == '<') return "; it looks like a web page: fetch the file again";
  return "; fetch the file again";
}

void check_length(const Idx& idx) {
  const std::optional<std::int64_t> claimed = product(idx.shape);
  PC_CHECK(claimed.has_value(), "idx", idx.file, ": its header claims ", shape_text(idx.shape),
           " values, which no file can hold");
  const std::int64_t held = std::ssize(idx.values());
  PC_CHECK(*claimed <= held, "idx", idx.file, ": its header claims ", shape_text(idx.shape), " = ", *claimed,
           " values, but only ", held, " follow; fetch the file again");
  PC_CHECK(*claimed >= held, "idx", idx.file, ": its header claims ", shape_text(idx.shape), " = ", *claimed,
           " values, but ", held, " follow: ", held - *claimed, " bytes too many");
  PC_CHECK(*claimed > 0, "idx", idx.file, ": its header claims ", shape_text(idx.shape), ": nothing to learn from");
}

Idx open_idx(const std::filesystem::path& path, std::int64_t max_bytes, std::uint32_t magic) {
  Idx idx{.file = path.string(), .bytes = read_unpacked(path, max_bytes), .shape = {}};
  const std::size_t n_extents = magic & 0xff;  // the magic number's last byte
  idx.header = 4 + 4 * n_extents;
  PC_CHECK(!idx.bytes.empty(), "idx", idx.file, ": is empty; fetch the file again");
  PC_CHECK(idx.bytes.size() >= 4, "idx", idx.file, ": has ", idx.bytes.size(), " bytes, no room for a magic number");
  const std::uint32_t found = big_endian(idx.bytes, 0);
  PC_CHECK(found == magic, "idx", idx.file, ": starts with ", found, ", not with ", magic, guess(found));
  PC_CHECK(idx.bytes.size() >= idx.header, "idx", idx.file, ": has ", idx.bytes.size(), " bytes, but its header alone ",
           "takes ", idx.header, "; fetch the file again");
  for (std::size_t i = 1; i <= n_extents; ++i) idx.shape.push_back(big_endian(idx.bytes, 4 * i));
  check_length(idx);
  return idx;
}

}  // namespace

Examples read_idx(const IdxFiles& files) {
  const Idx images = open_idx(files.images, files.max_image_bytes, kImageMagic);
  const Idx labels = open_idx(files.labels, files.max_label_bytes, kLabelMagic);
  PC_CHECK(images.shape[0] == labels.shape[0], "idx", images.file, " holds ", images.shape[0], " images, but ",
           labels.file, " holds ", labels.shape[0], " labels; they do not belong together");
  Examples examples;
  examples.bytes.assign(images.values().begin(), images.values().end());
  examples.shape.assign(images.shape.begin() + 1, images.shape.end());
  examples.labels.reserve(labels.values().size());
  for (const std::uint8_t label : labels.values()) {
    PC_CHECK(label < files.classes, "idx", labels.file, ": label ", int{label}, " at position ", examples.labels.size(),
             "; labels must be 0 to ", files.classes - 1);
    examples.labels.push_back(label);
  }
  return examples;
}

}  // namespace pc::experiments

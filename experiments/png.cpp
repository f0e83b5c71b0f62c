#include "experiments/png.h"

#include <png.h>

#include <algorithm>
#include <cstring>

#include "kernels/check.h"
#include "pc/replacement.h"

namespace pc::experiments {
namespace {

std::uint32_t format_of(std::int64_t channels) { return channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB; }

}  // namespace

Picture read_png(const std::filesystem::path& file, std::int64_t channels) {
  png_image image;
  std::memset(&image, 0, sizeof image);
  image.version = PNG_IMAGE_VERSION;
  PC_CHECK(png_image_begin_read_from_file(&image, file.c_str()), "png", "cannot read ", file.string(), ": ",
           image.message, "; is it a whole PNG file?");
  constexpr std::uint32_t kMost = 1U << 14;
  const bool sane = image.width <= kMost && image.height <= kMost;
  if (!sane) png_image_free(&image);
  PC_CHECK(sane, "png", file.string(), " is larger than ", kMost, " pixels a side");
  image.format = format_of(channels);
  Picture picture{image.height, image.width, channels, std::vector<std::uint8_t>(PNG_IMAGE_SIZE(image))};
  const png_color black{0, 0, 0};  // behind what is transparent
  PC_CHECK(png_image_finish_read(&image, &black, picture.bytes.data(), 0, nullptr), "png", "cannot read ",
           file.string(), ": ", image.message, "; is it a whole PNG file?");
  return picture;
}

void write_png(const std::filesystem::path& file, const Picture& picture) {
  png_image image;
  std::memset(&image, 0, sizeof image);
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<std::uint32_t>(picture.width);
  image.height = static_cast<std::uint32_t>(picture.height);
  image.format = format_of(picture.channels);
  Replacement replacement(file);
  if (png_image_write_to_file(&image, replacement.path().c_str(), 0, picture.bytes.data(), 0, nullptr) == 0) {
    fail("png", "cannot write ", file.string(), ": ", image.message, "; choose another place with --out");
  }
  replacement.take_place();
}

Picture grid(const std::vector<std::vector<Picture>>& rows, std::int64_t zoom, std::int64_t gap) {
  PC_CHECK(!rows.empty() && !rows[0].empty(), "png", "there are no pictures to draw");
  const Picture& first = rows[0][0];
  std::size_t columns = 0;
  for (const auto& row : rows) columns = std::max(columns, row.size());
  const std::int64_t down = first.height * zoom + gap, across = first.width * zoom + gap;
  Picture all{std::ssize(rows) * down + gap, static_cast<std::int64_t>(columns) * across + gap, first.channels, {}};
  constexpr std::uint8_t kLine = 128;
  all.bytes.assign(static_cast<std::size_t>(all.height * all.width * all.channels), kLine);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    for (std::size_t c = 0; c < rows[r].size(); ++c) {
      const Picture& one = rows[r][c];
      PC_CHECK(one.height == first.height && one.width == first.width && one.channels == first.channels, "png",
               "pictures of a grid must be of one size");
      for (std::int64_t y = 0; y < one.height * zoom; ++y) {
        for (std::int64_t x = 0; x < one.width * zoom; ++x) {
          const std::int64_t to_y = static_cast<std::int64_t>(r) * down + gap + y;
          const std::int64_t to_x = static_cast<std::int64_t>(c) * across + gap + x;
          const auto to = static_cast<std::size_t>((to_y * all.width + to_x) * all.channels);
          const auto from = static_cast<std::size_t>((y / zoom * one.width + x / zoom) * one.channels);
          std::copy_n(one.bytes.begin() + static_cast<std::ptrdiff_t>(from), one.channels,
                      all.bytes.begin() + static_cast<std::ptrdiff_t>(to));
        }
      }
    }
  }
  return all;
}

}  // namespace pc::experiments

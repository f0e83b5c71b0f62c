// PNG files, by libpng: pictures in, and grids of pictures out.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace pc::experiments {

/// 8 bits a channel; [height, width, channels], channels interleaved: 1 is grey, 3 red, green, blue.
struct Picture {
  std::int64_t height = 0, width = 0, channels = 1;
  std::vector<std::uint8_t> bytes;
};

/// Any PNG file, turned into grey (1 channel) or colour (3). Throws where it cannot be read.
Picture read_png(const std::filesystem::path& file, std::int64_t channels);

/// Written beside and renamed.
void write_png(const std::filesystem::path& file, const Picture& picture);

/// Pictures of one size in rows, each pixel `zoom` wide, with lines of `gap` pixels between them. Rows may be of
/// different length.
Picture grid(const std::vector<std::vector<Picture>>& rows, std::int64_t zoom, std::int64_t gap = 2);

}  // namespace pc::experiments

// glyphs: digits that the program draws itself, so that a first run needs no download.
#pragma once

#include <array>

#include "experiments/data/dataset.h"

namespace pc::experiments {

inline constexpr int kGlyphSide = 28;
using GlyphImage = std::array<std::uint8_t, kGlyphSide * kGlyphSide>;  // row by row, 0 = background

enum class GlyphSplit : std::uint64_t { train, test };

/// The digit that image `index` of a split shows. Each block of ten holds every digit once.
int glyph_label(std::uint64_t seed, GlyphSplit split, std::int64_t index);

/// Image `index`: depends on the arguments alone, on any machine.
GlyphImage draw_glyph(std::uint64_t seed, GlyphSplit split, std::int64_t index);

/// The first `count` images of a split. shape {28, 28}.
Examples draw_glyphs(std::uint64_t seed, GlyphSplit split, std::int64_t count);

}  // namespace pc::experiments

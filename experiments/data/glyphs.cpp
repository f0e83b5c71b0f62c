#include "experiments/data/glyphs.h"

#include "kernels/check.h"

namespace pc::experiments {

Examples draw_glyphs(std::uint64_t seed, GlyphSplit split, std::int64_t count) {
  Examples examples{.bytes = {}, .floats = {}, .shape = {kGlyphSide, kGlyphSide}, .labels = {}};
  examples.bytes.reserve(static_cast<std::size_t>(count * examples.size()));
  for (std::int64_t i = 0; i < count; ++i) {
    const GlyphImage image = draw_glyph(seed, split, i);
    examples.bytes.insert(examples.bytes.end(), image.begin(), image.end());
    examples.labels.push_back(glyph_label(seed, split, i));
  }
  return examples;
}

namespace sources {
namespace {

constexpr std::int64_t kMostGlyphs = 1'000'000;  // 784 MB

DataSet load(const DataRequest& request) {
  for (const std::int64_t count : {request.train, request.test}) {
    PC_CHECK(count >= 1 && count <= kMostGlyphs, "data", "glyphs: cannot draw ", count, " images; give 1 to ",
             kMostGlyphs);
  }
  return {.name = "glyphs",
          .train = draw_glyphs(request.seed, GlyphSplit::train, request.train),
          .test = draw_glyphs(request.seed, GlyphSplit::test, request.test),
          .classes = 10,
          .class_names = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"},
          .provenance = "drawn by this program, seed " + std::to_string(request.seed)};
}

}  // namespace

extern constinit const DataSource glyphs{
    "glyphs", "digits that the program draws itself, 28x28; needs no download", {}, {}, load};

}  // namespace sources
}  // namespace pc::experiments

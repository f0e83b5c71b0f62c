#include "experiments/data/glyphs.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <limits>
#include <set>

#include "experiments/data/sha256.h"
#include "kernels/check.h"

namespace {

using pc::experiments::draw_glyphs, pc::experiments::Examples, pc::experiments::GlyphSplit;

std::span<const std::uint8_t> image(const Examples& examples, std::int64_t i) {
  return std::span(examples.bytes).subspan(static_cast<std::size_t>(i) * 784, 784);
}

using Mean = std::array<double, 784>;

std::array<Mean, 10> class_means(const Examples& examples) {
  std::array<Mean, 10> means{};
  for (std::int64_t i = 0; i < examples.count(); ++i) {
    const auto label = static_cast<std::size_t>(examples.labels[static_cast<std::size_t>(i)]);
    for (std::size_t k = 0; k < 784; ++k) means[label][k] += image(examples, i)[k] * 10.0 / double(examples.count());
  }
  return means;
}

int nearest_mean(const std::array<Mean, 10>& means, std::span<const std::uint8_t> pixels) {
  auto distance = [&](const Mean& mean) {
    double sum = 0;
    for (std::size_t k = 0; k < 784; ++k) sum += (pixels[k] - mean[k]) * (pixels[k] - mean[k]);
    return sum;
  };
  return static_cast<int>(std::ranges::min_element(means, {}, distance) - means.begin());
}

}  // namespace

TEST_CASE("glyphs: the first 100 images of seed 0 never change") {
  const Examples examples = draw_glyphs(0, GlyphSplit::train, 100);
  CHECK(pc::experiments::sha256(examples.bytes) == "d2a34cc52096a8077912ccb64a354f347625301d6567f43d97b9520d6f85633c");
  const std::vector<std::uint8_t> labels(examples.labels.begin(), examples.labels.end());
  CHECK(pc::experiments::sha256(labels) == "a3b6b7c92268f23089a90eb8cd0c1c5be8a2881722d2e18c881238e01f906362");
}

TEST_CASE("glyphs: an image does not depend on how many are drawn") {
  const Examples few = draw_glyphs(3, GlyphSplit::test, 17), many = draw_glyphs(3, GlyphSplit::test, 50);
  CHECK(std::ranges::equal(few.bytes, std::span(many.bytes).first(few.bytes.size())));
  CHECK(std::ranges::equal(few.labels, std::span(many.labels).first(few.labels.size())));
  CHECK(std::ranges::equal(pc::experiments::draw_glyph(3, GlyphSplit::test, 42), image(many, 42)));
}

TEST_CASE("glyphs: images, splits and seeds all differ") {
  std::set<std::string> sums;
  for (const std::uint64_t seed : {std::uint64_t{0}, std::uint64_t{1}, std::numeric_limits<std::uint64_t>::max()}) {
    for (const GlyphSplit split : {GlyphSplit::train, GlyphSplit::test}) {
      const Examples examples = draw_glyphs(seed, split, 200);
      for (std::int64_t i = 0; i < 200; ++i) sums.insert(pc::experiments::sha256(image(examples, i)));
    }
  }
  CHECK(sums.size() == 3 * 2 * 200);
  CHECK(draw_glyphs(0, GlyphSplit::train, 200).labels != draw_glyphs(0, GlyphSplit::test, 200).labels);
}

TEST_CASE("glyphs: every block of ten holds every digit once, in varying order") {
  const Examples examples = draw_glyphs(0, GlyphSplit::train, 200);
  std::set<std::vector<std::int32_t>> orders;
  for (auto block = examples.labels.begin(); block != examples.labels.end(); block += 10) {
    std::vector<std::int32_t> digits(block, block + 10);
    orders.insert(digits);
    std::ranges::sort(digits);
    CHECK(digits == std::vector<std::int32_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
  }
  CHECK(orders.size() == 20);
}

TEST_CASE("glyphs: ink on an empty ground, and too hard for the nearest class mean") {
  const Examples train = draw_glyphs(0, GlyphSplit::train, 2000), test = draw_glyphs(0, GlyphSplit::test, 500);
  double sum = 0;
  for (const std::uint8_t byte : train.bytes) sum += byte;
  const double mean = sum / 255 / static_cast<double>(train.bytes.size());
  CHECK(mean > 0.05);
  CHECK(mean < 0.2);
  CHECK(std::ranges::max(train.bytes) == 255);

  const std::array<Mean, 10> means = class_means(train);
  int right = 0;
  for (std::int64_t i = 0; i < test.count(); ++i) {
    right += nearest_mean(means, image(test, i)) == test.labels[static_cast<std::size_t>(i)];
  }
  CHECK(right > 250);  // the digits are there
  CHECK(right < 400);  // a linear view does not get them
}

TEST_CASE("glyphs: the data set, as asked for") {
  pc::experiments::DataRequest request;
  request.set = "glyphs";
  request.seed = 5, request.train = 30, request.test = 20;
  const pc::experiments::DataSet set = pc::experiments::load_data(request);
  CHECK(set.train.count() == 30);
  CHECK(set.test.count() == 20);
  CHECK(set.train.shape == std::vector<std::int64_t>{28, 28});
  CHECK(set.classes == 10);
  CHECK(set.train.bytes == draw_glyphs(5, GlyphSplit::train, 30).bytes);
  for (const std::int64_t count : {std::int64_t{0}, std::int64_t{-1}, std::int64_t{1'000'001}}) {
    request.test = count;
    CHECK_THROWS_WITH_AS(pc::experiments::load_data(request), doctest::Contains("give 1 to 1000000"), pc::Error);
  }
}

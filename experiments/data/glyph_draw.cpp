// One glyph: skeleton -> bent and moved points -> smooth strokes -> ink with soft edges -> blur, noise -> u8.
// Only + - * / and sqrt, which IEEE 754 defines exactly, and a final rounding to u8: the same images everywhere.
#include <algorithm>
#include <cmath>
#include <utility>

#include "experiments/data/counter_random.h"
#include "experiments/data/glyph_font.h"
#include "experiments/data/glyphs.h"

namespace pc::experiments {
namespace {

constexpr int kSide = kGlyphSide;
using Ink = std::array<double, kSide * kSide>;  // 0..1

/// A random smooth map from font coordinates to pixels: bends of second order, then an affine map.
class Placement {
 public:
  explicit Placement(CounterRandom& random) {
    for (double& bend : bend_) bend = random.bell(0.22);
    const double half_angle = random.bell(0.17);  // tangent of half the angle: +-19 degrees
    const double norm = 1 + half_angle * half_angle;
    const double cosine = (1 - half_angle * half_angle) / norm, sine = 2 * half_angle / norm;
    const double wide = random.uniform(6.5, 11.5), high = random.uniform(7.5, 11.0), shear = random.bell(0.35);
    xx_ = wide * cosine, xy_ = high * (shear * cosine - sine);
    yx_ = wide * sine, yy_ = high * (shear * sine + cosine);
    x0_ = 13.5 + random.bell(3.4), y0_ = 13.5 + random.bell(3.0);
  }

  [[nodiscard]] Point operator()(Point p) const {
    const double u = p.x / 50 - 1, v = p.y / 50 - 1;  // -1..1
    const double x = u + bend_[0] * v * v + bend_[1] * u * v, y = v + bend_[2] * u * u + bend_[3] * u * v;
    return {x0_ + xx_ * x + xy_ * y, y0_ + yx_ * x + yy_ * y};
  }

 private:
  std::array<double, 4> bend_;
  double xx_, xy_, yx_, yy_, x0_, y0_;
};

// Catmull-Rom: from b to c, with a before and d after.
Point spline(Point a, Point b, Point c, Point d, double t) {
  auto blend = [t](double p, double q, double r, double s) {
    return q + 0.5 * t * (r - p + t * (2 * p - 5 * q + 4 * r - s + t * (3 * (q - r) + s - p)));
  };
  return {blend(a.x, b.x, c.x, d.x), blend(a.y, b.y, c.y, d.y)};
}

std::vector<Point> flatten(Path path, const std::vector<Point>& points) {
  if (path == Path::corners) return points;
  constexpr int kSteps = 5;  // pieces between two points: about 2 pixels each at most
  const auto n = std::ssize(points);
  auto at = [&](std::ptrdiff_t i) {
    return points[static_cast<std::size_t>(path == Path::loop ? (i + n) % n : std::clamp(i, std::ptrdiff_t{0}, n - 1))];
  };
  std::vector<Point> line{points.front()};
  for (std::ptrdiff_t i = 0; i < (path == Path::loop ? n : n - 1); ++i) {
    for (int k = 1; k <= kSteps; ++k)
      line.push_back(spline(at(i - 1), at(i), at(i + 1), at(i + 2), double(k) / kSteps));
  }
  return line;
}

/// Calls use(pixel, coverage) near the segment a-b: 1 within the radius, falling to 0 over one pixel.
template <class Use>
void cover(Point a, Point b, double radius, Use&& use) {
  const double reach = radius + 0.5, dx = b.x - a.x, dy = b.y - a.y, length2 = dx * dx + dy * dy + 1e-9;
  auto range = [reach](double p, double q) {
    return std::pair{static_cast<int>(std::clamp(std::min(p, q) - reach, 0.0, double(kSide))),
                     static_cast<int>(std::clamp(std::max(p, q) + reach + 1, 0.0, double(kSide)))};
  };
  const auto [left, right] = range(a.x, b.x);
  const auto [top, bottom] = range(a.y, b.y);
  for (int y = top; y < bottom; ++y) {
    for (int x = left; x < right; ++x) {
      const double px = x - a.x, py = y - a.y, t = std::clamp((px * dx + py * dy) / length2, 0.0, 1.0);
      const double ex = px - t * dx, ey = py - t * dy, distance2 = ex * ex + ey * ey;
      if (distance2 >= reach * reach) continue;
      use(static_cast<std::size_t>(y * kSide + x), std::min(1.0, reach - std::sqrt(distance2)));
    }
  }
}

void draw_line(Ink& ink, const std::vector<Point>& line, double radius, double strength) {
  for (std::size_t i = 1; i < line.size(); ++i) {
    cover(line[i - 1], line[i], radius,
          [&](std::size_t at, double coverage) { ink[at] = std::max(ink[at], strength * coverage); });
  }
}

void draw_digit(Ink& ink, const Skeleton& skeleton, CounterRandom& random) {
  const Placement place(random);
  const double radius = random.uniform(0.45, 1.7);
  for (const Stroke& stroke : skeleton) {
    std::vector<Point> points;
    for (const Point& p : stroke.points) points.push_back(place({p.x + random.bell(9), p.y + random.bell(9)}));
    draw_line(ink, flatten(stroke.path, points), radius * random.uniform(0.85, 1.15), 1.0);
  }
}

/// A short line somewhere: a stray stroke on some images, a scratch through the ink on others.
void disturb(Ink& ink, CounterRandom& random) {
  const Point a{random.uniform(0, kSide), random.uniform(0, kSide)};
  const Point b{a.x + random.bell(9), a.y + random.bell(9)};
  const double kind = random.uniform(), radius = random.uniform(0.3, 0.9), strength = random.uniform(0.4, 1.0);
  if (kind < 0.3) draw_line(ink, {a, b}, radius, strength);
  if (kind > 0.7) cover(a, b, radius, [&](std::size_t at, double coverage) { ink[at] *= 1 - strength * coverage; });
}

/// Mixes each value with its two neighbours, `stride` apart. The border has no ink beyond it.
void blur(Ink& ink, double weight, int stride) {
  const Ink old = ink;
  for (int y = 0; y < kSide; ++y) {
    for (int x = 0; x < kSide; ++x) {
      const int at = y * kSide + x, along = stride == 1 ? x : y;
      const double before = along > 0 ? old[static_cast<std::size_t>(at - stride)] : 0;
      const double after = along < kSide - 1 ? old[static_cast<std::size_t>(at + stride)] : 0;
      double& here = ink[static_cast<std::size_t>(at)];
      here += weight * (before + after - 2 * here);
    }
  }
}

GlyphImage develop(const Ink& ink, CounterRandom& random) {
  const double strength = random.uniform(0.55, 1.0), noise = random.uniform(0.02, 0.22);
  GlyphImage image;
  for (std::size_t at = 0; at < image.size(); ++at) {
    const double value = strength * ink[at] + noise * (random.uniform() + random.uniform() - 1);
    image[at] = static_cast<std::uint8_t>(255 * std::clamp(value, 0.0, 1.0) + 0.5);
  }
  return image;
}

}  // namespace

int glyph_label(std::uint64_t seed, GlyphSplit split, std::int64_t index) {
  // A permutation of the ten digits per block; the stream is apart from those of the images.
  CounterRandom random(seed, 2 + static_cast<std::uint64_t>(split), static_cast<std::uint64_t>(index / 10));
  std::array<int, 10> digits = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  for (std::size_t i = 9; i > 0; --i) std::swap(digits[i], digits[random.below(i + 1)]);
  return digits[static_cast<std::size_t>(index % 10)];
}

GlyphImage draw_glyph(std::uint64_t seed, GlyphSplit split, std::int64_t index) {
  CounterRandom random(seed, static_cast<std::uint64_t>(split), static_cast<std::uint64_t>(index));
  const std::vector<Skeleton>& ways = skeletons(glyph_label(seed, split, index));
  Ink ink{};
  draw_digit(ink, ways[random.below(ways.size())], random);
  for (int i = 0; i < 2; ++i) disturb(ink, random);
  const double weight = random.uniform(0, 0.22);
  blur(ink, weight, 1);
  blur(ink, weight, kSide);
  return develop(ink, random);
}

}  // namespace pc::experiments

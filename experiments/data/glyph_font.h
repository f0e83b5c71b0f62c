// Skeletons of the digits: several ways to write each, as strokes through a few points.
#pragma once

#include <vector>

namespace pc::experiments {

struct Point {
  double x, y;  // 0..100 in the font; x to the right, y downwards
};

enum class Path {
  corners,  // straight from point to point
  curve,    // smooth through all points
  loop,     // smooth and closed
};

struct Stroke {
  Path path;
  std::vector<Point> points;
};

using Skeleton = std::vector<Stroke>;

/// The ways to write a digit, 0 to 9.
const std::vector<Skeleton>& skeletons(int digit);

}  // namespace pc::experiments

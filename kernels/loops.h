// Loops of the CPU twins.
#pragma once

#include "kernels/kernel.h"

namespace pc::kernels {

/// body(row) for each row of this thread's share.
template <class Body>
void each_row(Share share, std::int64_t rows, Body&& body) {
  const auto [begin, end] = share.of(rows);
  for (std::int64_t row = begin; row < end; ++row) body(row);
}

/// body(i) for i in [0, n), vectorised: the body must not carry anything from one i to the next.
template <class Body>
void each_entry(std::int64_t n, Body&& body) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) body(i);
}

/// Sum of term(i) in float64 over eight fixed lanes: vectorises, and its order does not depend on anything.
template <class Term>
double lane_sum(std::int64_t n, Term&& term) {
  constexpr int kLanes = 8;
  double lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += double(term(i + lane));
  }
  for (int lane = 0; i < n; ++i, ++lane) lanes[lane] += double(term(i));
  return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
}

}  // namespace pc::kernels

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

}  // namespace pc::kernels

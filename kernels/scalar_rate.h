// The learning-rate formula, shared by the twins.
#pragma once

#include "kernels/reduce.h"
#include "kernels/scalar_math.h"

namespace pc::kernels {

/// The rate after `done` updates.
PC_HD double rate_after(RateKind kind, double done, double base, double floor, double warmup, double total) {
  if (kind == RateKind::constant) return base;
  if (kind == RateKind::cosine) warmup = 0;
  if (done < warmup) return base * (done + 1) / warmup;
  const double span = total > warmup ? total - warmup : 1;
  const double part = scalar::min(1.0, (done - warmup) / span);
  return floor + (base - floor) * 0.5 * (1 + cos(std::numbers::pi * part));
}

}  // namespace pc::kernels

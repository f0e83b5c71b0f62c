// The formulas of rates, strengths and step sizes, shared by the twins.
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

/// The strength of a nudge after `done` batches.
PC_HD double nudge_after(double done, double base, double growth, double limit, double per_epoch, bool alternate) {
  const double size = scalar::min(limit, (base < 0 ? -base : base) + growth * floor(done / per_epoch));
  const bool odd = done - 2 * floor(done / 2) != 0;
  return (base < 0) != (alternate && odd) ? -size : size;
}

/// By how much the next step is longer than one whose error, in units of what is tolerated, was this. A method of
/// this order has an error that grows as h^order. Of an error that is no number, all that is known is that it is large.
PC_HD double step_growth(double error, double order) {
  constexpr double kSafety = 0.9, kLeast = 0.2, kMost = 5;
  const double growth = kSafety * pow(error, -1 / order);
  return growth > kMost ? kMost : growth > kLeast ? growth : kLeast;
}

/// The error of one entry in units of what is tolerated: error / (absolute + relative max(|x|, |from|)). NaN wins.
PC_HD double error_ratio(double error, double x, double from, double absolute, double relative) {
  const double now = x < 0 ? -x : x, before = from < 0 ? -from : from;
  const double size = now > before || now != now ? now : before;
  return (error < 0 ? -error : error) / (absolute + relative * size);
}

}  // namespace pc::kernels

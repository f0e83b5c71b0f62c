#include "kernels/reduce.h"

#include <algorithm>
#include <cmath>

#include "kernels/scalar_rate.h"

namespace pc::kernels {

// These are short and touch everything, so that one thread does them.

void sum_cpu(const SumArgs& s, Share share) {
  if (!share.first()) return;
  with_float(s.in.dtype, [&]<class T>(T) {
    double total = 0;
    for (std::int64_t row = 0; row < s.in.rows(); ++row) {
      const T* in = s.in.row<T>(row);
      double part = 0;
      for (std::int64_t i = 0; i < s.in.cols(); ++i) part += s.squares ? double(in[i]) * double(in[i]) : double(in[i]);
      total += part;
    }
    double& out = *s.out.as<double>();
    out = (s.write == Write::add ? out : 0.0) + s.scale * total;
  });
}

void largest_cpu(const LargestArgs& a, Share share) {
  if (!share.first()) return;
  double top = a.write == Write::add ? *a.out.as<double>() : 0.0;
  for (std::int64_t row = 0; row < a.in.rows(); ++row) {
    for (std::int64_t i = 0; i < a.in.cols(); ++i) {
      const double entry = a.in.row<double>(row)[i];
      top = entry > top || entry != entry ? entry : top;  // a NaN wins and stays
    }
  }
  *a.out.as<double>() = top;
}

void clip_cpu(const ClipArgs& c, Share share) {
  if (!share.first()) return;
  const double norm = std::sqrt(*c.square_norm.as<double>());
  *c.clip.as<double>() = norm > c.limit ? c.limit / norm : 1.0;
}

void tick_cpu(const TickArgs& t, Share share) {
  if (share.first()) *t.counter.as<double>() += t.by;
}

void rate_cpu(const RateArgs& r, Share share) {
  if (!share.first()) return;
  *r.rate.as<double>() = rate_after(r.kind, *r.step.as<double>() - 1, r.base, r.floor, r.warmup, r.total);
}

void nudge_strength_cpu(const NudgeStrengthArgs& n, Share share) {
  if (!share.first()) return;
  const double beta = nudge_after(*n.counter.as<double>() - 1, n.base, n.growth, n.limit, n.per_epoch, n.alternate);
  *n.beta.as<double>() = beta;
  *n.inverse.as<double>() = 1 / beta;
}

}  // namespace pc::kernels

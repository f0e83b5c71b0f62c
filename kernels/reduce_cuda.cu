#include "kernels/reduce.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/launch.cuh"
#include "kernels/scalar_rate.h"

namespace pc::kernels {
namespace {

/// Entry i of a matrix that is read as one long row.
template <class T>
struct Flat {
  const T* data;
  std::int64_t cols, ld;

  explicit Flat(const View& v) : data(v.as<T>()), cols(v.cols()), ld(v.ld()) {}
  __device__ T operator[](std::int64_t i) const { return cols == ld ? data[i] : data[i / cols * ld + i % cols]; }
};

/// Sums of as many entries each, by a block each.
template <class T>
struct ShortSums {
  struct One {
    Flat<T> in{View{}};
    double* out = nullptr;
    cu::Sum sum;
    bool squares = false;
  };
  static constexpr std::size_t kMost = 16;  // so few that each_row's threads have one column each, as in a sum alone
  std::int64_t count = 0;
  One items[kMost];

  __device__ void operator()(std::int64_t item, cu::Team team) const {
    const One& one = items[item];
    double total = 0;
    for (std::int64_t i = team.rank(); i < count; i += team.size()) {
      const auto entry = double(one.in[i]);
      total += one.squares ? entry * entry : entry;
    }
    total = team.reduce(total, one.sum);
    if (team.rank() == 0) one.sum.store(one.out, total);
  }
};

cu::Sum last_of(const SumArgs& s) { return {.scale = s.scale, .add = s.write == Write::add}; }

/// Up to kPartials parts of equal length, each by a block, then the parts by one block.
template <class T>
void long_sum(const SumArgs& s, CudaContext& context) {
  constexpr std::int64_t kShortest = 8192;
  const std::int64_t n = s.in.count();
  const std::int64_t parts = std::min<std::int64_t>(n / kShortest, CudaContext::kPartials);
  const std::int64_t length = (n + parts - 1) / parts;
  const Flat<T> in(s.in);
  double* partials = context.partials();
  const bool squares = s.squares;
  cu::fold_rows(parts, length, context.stream, partials, cu::Sum{},
                [=] __device__(std::int64_t part, std::int64_t i) -> double {
                  const std::int64_t at = part * length + i;
                  const double entry = at < n ? double(in[at]) : 0.0;
                  return squares ? entry * entry : entry;
                });
  cu::fold_rows(1, parts, context.stream, s.out.as<double>(), last_of(s),
                [=] __device__(std::int64_t, std::int64_t i) -> double { return partials[i]; });
}

}  // namespace

void sum_cuda_together(std::span<const SumArgs* const> calls, CudaContext& context) {
  with_float(calls[0]->in.dtype, [&]<class T>(T) {
    ShortSums<T> sums{.count = calls[0]->in.count()};
    for (std::size_t begin = 0; begin < calls.size(); begin += sums.kMost) {
      const auto some = calls.subspan(begin, std::min(sums.kMost, calls.size() - begin));
      for (std::size_t i = 0; i < some.size(); ++i) {
        const SumArgs& s = *some[i];
        sums.items[i] = {Flat<T>(s.in), s.out.as<double>(), last_of(s), s.squares};
      }
      cu::each_row(std::ssize(some), sums.count, context.stream, sums);
    }
  });
}
void sum_cuda(const SumArgs& s, CudaContext& context) {
  if (s.is_short()) return sum_cuda_together(std::array{&s}, context);
  with_float(s.in.dtype, [&]<class T>(T) { long_sum<T>(s, context); });
}

void largest_cuda(const LargestArgs& a, CudaContext& context) {
  const Flat<double> in(a.in);
  cu::fold_rows(1, a.in.count(), context.stream, a.out.as<double>(), cu::Largest{.add = a.write == Write::add},
                [=] __device__(std::int64_t, std::int64_t i) -> double { return in[i]; });
}

void clip_cuda(const ClipArgs& c, CudaContext& context) {
  const double* square_norm = c.square_norm.as<double>();
  double* clip = c.clip.as<double>();
  cu::each_index(1, context.stream, [=, limit = c.limit] __device__(std::int64_t) {
    const double norm = std::sqrt(*square_norm);
    *clip = norm > limit ? limit / norm : 1.0;
  });
}

void tick_cuda(const TickArgs& t, CudaContext& context) {
  double* counter = t.counter.as<double>();
  cu::each_index(1, context.stream, [=, by = t.by] __device__(std::int64_t) { *counter += by; });
}

void rate_cuda(const RateArgs& r, CudaContext& context) {
  const double* step = r.step.as<double>();
  double* rate = r.rate.as<double>();
  cu::each_index(1, context.stream,
                 [=, kind = r.kind, base = r.base, floor = r.floor, warmup = r.warmup, total = r.total] __device__(
                     std::int64_t) { *rate = rate_after(kind, *step - 1, base, floor, warmup, total); });
}

void nudge_strength_cuda(const NudgeStrengthArgs& n, CudaContext& context) {
  const double* counter = n.counter.as<double>();
  double *beta = n.beta.as<double>(), *inverse = n.inverse.as<double>();
  cu::each_index(1, context.stream,
                 [=, base = n.base, growth = n.growth, limit = n.limit, per_epoch = n.per_epoch,
                  alternate = n.alternate] __device__(std::int64_t) {
                   *beta = nudge_after(*counter - 1, base, growth, limit, per_epoch, alternate);
                   *inverse = 1 / *beta;
                 });
}

}  // namespace pc::kernels

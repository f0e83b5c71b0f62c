#include "kernels/gemm.h"

#include <algorithm>

namespace pc::kernels {
namespace {

/// Both as one matrix, where the second's columns, or its rows, follow the first's.
std::optional<View> neighbours(const View& first, const View& second, bool by_column) {
  const bool alike = first.ld() == second.ld() && first.dtype == second.dtype && first.exponent == second.exponent &&
                     (by_column ? first.rows() == second.rows() : first.cols() == second.cols());
  const std::int64_t entries = by_column ? first.cols() : first.rows() * first.ld();
  const auto* next =
      static_cast<const std::byte*>(first.data) + entries * static_cast<std::int64_t>(size_of(first.dtype));
  if (!alike || next != second.data || (by_column && first.cols() + second.cols() > first.ld())) return std::nullopt;
  View both = first;
  both.shape =
      by_column ? Shape{first.rows(), first.cols() + second.cols()} : Shape{first.rows() + second.rows(), first.cols()};
  both.stride = first.ld();
  both.padding = by_column ? second.padding : std::min(first.padding, second.padding);
  return both;
}

}  // namespace

std::optional<GemmArgs> join_gemm(const GemmArgs& first, const GemmArgs& second) {
  if (first.trans_a != second.trans_a || first.trans_b != second.trans_b || first.alpha != second.alpha) {
    return std::nullopt;
  }
  const bool transposed_a = first.trans_a == Trans::yes, transposed_b = first.trans_b == Trans::yes;
  GemmArgs both = first;
  const auto join = [](View& into, const View& other, bool by_column) {
    const auto wide = neighbours(into, other, by_column);
    if (wide) into = *wide;
    return wide.has_value();
  };
  if (same_entries(first.c, second.c)) {  // one sum of both
    const bool sum = second.beta == 1 && join(both.a, second.a, !transposed_a) && join(both.b, second.b, transposed_b);
    return sum ? std::optional(both) : std::nullopt;
  }
  if (first.beta != second.beta) return std::nullopt;
  if (same_entries(first.a, second.a) && join(both.b, second.b, !transposed_b) && join(both.c, second.c, true))
    return both;
  if (same_entries(first.b, second.b) && join(both.a, second.a, transposed_a) && join(both.c, second.c, false))
    return both;
  return std::nullopt;
}

}  // namespace pc::kernels

#include "kernels/split.h"

#include <vector>

#include "kernels/loops.h"
#include "kernels/scalar_math.h"

namespace pc::kernels {
namespace {

/// A row of an operand, and what it holds as float32.
void store(const SplitArgs& s, std::int64_t row, const std::vector<float>& entries, std::vector<float>& held) {
  const std::int64_t n = std::ssize(entries);
  if (s.y.dtype == DType::tf32) {
    View exact = s.y;
    for (std::int64_t i = 0; i < n; ++i) {
      exact.row<float>(row)[i] = entries[static_cast<std::size_t>(i)];
      exact.row<float>(row)[i] = held[static_cast<std::size_t>(i)] = widened(exact, row, i);
    }
    return;
  }
  narrow_row({s.y, s.overflow}, row, entries.data());
  for (std::int64_t i = 0; i < n; ++i) held[static_cast<std::size_t>(i)] = widened(s.y, row, i);
}

}  // namespace

void split_cpu(const SplitArgs& s, Share share) {
  const auto n = static_cast<std::size_t>(s.y.cols());
  std::vector<float> entries(n), held(n);
  each_row(share, s.x.rows(), [&](std::int64_t row) {
    const float* x = s.x.row<float>(row);
    const auto at = [&](std::int64_t col, int part) {
      return static_cast<std::size_t>(SplitArgs::place(col, s.run, part));
    };
    for (std::int64_t col = 0; col < s.x.cols(); ++col) {
      for (const int part : {0, 1, 2}) entries[at(col, part)] = x[col];
    }
    store(s, row, entries, held);
    const int rest = s.weights ? 2 : 1;
    for (std::int64_t col = 0; col < s.x.cols(); ++col) entries[at(col, rest)] = x[col] - held[at(col, rest)];
    store(s, row, entries, held);
  });
}

}  // namespace pc::kernels

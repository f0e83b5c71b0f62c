// Entry-wise kernels do not ask where in a row an entry stands. GPUs take four entries at a time of rows whose lengths
// are multiples of four, and of no others: rows of any other length are better one long row.
#pragma once

#include <span>
#include <vector>

#include "kernels/view.h"

namespace pc::kernels {

/// Whether the rows of a view follow each other without a gap.
inline bool gapless(const View& v) { return v.empty() || v.rows() <= 1 || v.ld() == v.cols(); }

/// Makes one row of the rows of several views of the same shape, those aside that are empty, if none has gaps.
template <class... Views>
void join_rows(Views&... views) {
  if (!(gapless(views) && ...)) return;
  const auto join = [](View& v) {
    if (v.empty()) return;
    v.shape = Shape{1, v.count()};
    v.stride = 0;
  };
  (join(views), ...);
}

/// Several calls' arguments, each as `change` leaves a copy of it.
template <class Args, class Change, class Run>
void with_changed(std::span<const Args* const> calls, Change change, Run run) {
  std::vector<Args> copies;
  std::vector<const Args*> list;
  copies.reserve(calls.size());
  for (const Args* call : calls) {
    copies.push_back(*call);
    change(copies.back());
    list.push_back(&copies.back());
  }
  run(std::span<const Args* const>(list));
}

}  // namespace pc::kernels

// rearrange: entries of a row go to other places of a row: slices and joins along an axis, and permuted axes.
#pragma once

#include <array>

#include "kernels/kernel.h"
#include "kernels/write.h"

namespace pc::kernels {

/// Where entry (i0, i1, i2, i3) of a box lies in a row: begin + sum of i_k step_k.
struct Walk {
  std::int64_t begin = 0;
  std::array<std::int64_t, 4> step{};
};

/// y[row, to(i)] (=|+=) x[row, from(i)] for every i in the box `dims`. Entries of y that the walk does not meet stay;
/// it must meet none twice.
struct RearrangeArgs {
  View x, y;
  std::array<std::int64_t, 4> dims{1, 1, 1, 1};
  Walk from, to;
  Write write = Write::set;

  [[nodiscard]] std::int64_t count() const { return dims[0] * dims[1] * dims[2] * dims[3]; }
  void check() const {
    const auto last = [&](const Walk& walk) {
      std::int64_t at = walk.begin;
      for (std::size_t k = 0; k < dims.size(); ++k) at += (dims[k] - 1) * walk.step[k];
      return at;
    };
    PC_CHECK(x.rows() == y.rows() && x.dtype == y.dtype, "rearrange", "x ", x.shape.text(), " and y ", y.shape.text(),
             " do not fit");
    for (std::size_t k = 0; k < dims.size(); ++k) {
      PC_CHECK(dims[k] > 0 && from.step[k] >= 0 && to.step[k] >= 0, "rearrange", "an empty or backward walk");
    }
    PC_CHECK(from.begin >= 0 && to.begin >= 0 && last(from) < x.cols() && last(to) < y.cols(), "rearrange",
             "the walk leaves its rows");
  }
  void touches(Touches& t) const { t.read(x).write(y); }
  [[nodiscard]] double flops() const { return 0; }
};

void rearrange_cpu(const RearrangeArgs&, Share);
void rearrange_cuda(const RearrangeArgs&, CudaContext&);

inline constexpr Kernel<RearrangeArgs> rearrange{"rearrange", rearrange_cpu, PC_CUDA(rearrange_cuda)};

}  // namespace pc::kernels

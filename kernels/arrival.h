// The gate of fully autonomous Z-IL (Song et al. 2020): an error acts on the weights below once, at the step in which
// it first reaches them, and never again.
#pragma once

#include "kernels/kernel.h"
#include "kernels/write.h"

namespace pc::kernels {

/// For each row: where fired is 0 and some entry of delta is not exactly 0, gated = delta and fired = 1; else gated =
/// 0. NaN is not 0: an error that went wrong arrives too.
struct ArrivalArgs {
  View delta, fired, gated;  // delta, gated [rows, cols]; fired float64 [rows]

  void check() const {
    check_alike("first_arrival", delta, gated);
    PC_CHECK(fired.count() == delta.rows() && fired.dtype == DType::f64, "first_arrival",
             "fired must be float64, one per row, not ", name_of(fired.dtype), ' ', fired.shape.text());
  }
  void touches(Touches& t) const { t.read(delta).write(fired).write(gated); }
  [[nodiscard]] double flops() const { return 0; }
};

void first_arrival_cpu(const ArrivalArgs&, Share);
void first_arrival_cuda(const ArrivalArgs&, CudaContext&);

inline constexpr Kernel<ArrivalArgs> first_arrival{"first_arrival", first_arrival_cpu, PC_CUDA(first_arrival_cuda)};

}  // namespace pc::kernels

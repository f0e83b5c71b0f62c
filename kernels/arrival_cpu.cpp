#include "kernels/arrival.h"

#include <algorithm>

#include "kernels/loops.h"

namespace pc::kernels {

void first_arrival_cpu(const ArrivalArgs& a, Share share) {
  with_float(a.delta.dtype, [&]<class T>(T) {
    each_row(share, a.delta.rows(), [&](std::int64_t row) {
      const T* delta = a.delta.row<T>(row);
      T* gated = a.gated.row<T>(row);
      double& fired = a.fired.as<double>()[row];
      const std::int64_t n = a.delta.cols();
      const bool arrives = fired == 0 && std::any_of(delta, delta + n, [](T entry) { return entry != T(0); });
      if (arrives) fired = 1;
      each_entry(n, [=](std::int64_t i) { gated[i] = arrives ? delta[i] : T(0); });
    });
  });
}

}  // namespace pc::kernels

#include "kernels/rearrange.h"

#include "kernels/loops.h"

namespace pc::kernels {

void rearrange_cpu(const RearrangeArgs& r, Share share) {
  with_float(r.x.dtype, [&]<class T>(T) {
    const auto& f = r.from.step;
    const auto& t = r.to.step;
    const bool add = r.write == Write::add;
    each_row(share, r.x.rows(), [&](std::int64_t row) {
      for (std::int64_t i = 0; i < r.dims[0]; ++i) {
        for (std::int64_t j = 0; j < r.dims[1]; ++j) {
          for (std::int64_t k = 0; k < r.dims[2]; ++k) {
            const T* x = r.x.row<T>(row) + r.from.begin + i * f[0] + j * f[1] + k * f[2];
            T* y = r.y.row<T>(row) + r.to.begin + i * t[0] + j * t[1] + k * t[2];
            for (std::int64_t l = 0; l < r.dims[3]; ++l) {
              y[l * t[3]] = add ? y[l * t[3]] + x[l * f[3]] : x[l * f[3]];
            }
          }
        }
      }
    });
  });
}

}  // namespace pc::kernels

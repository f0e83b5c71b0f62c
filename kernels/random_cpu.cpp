#include "kernels/random.h"

#include "kernels/loops.h"

namespace pc::kernels {

void random_cpu(const RandomArgs& r, Share share) {
  with_float(r.out.dtype, [&]<class T>(T) {
    const std::uint64_t draw = r.draw + (r.step.empty() ? 0 : static_cast<std::uint64_t>(*r.step.as<double>()));
    each_row(share, r.out.rows(), [&](std::int64_t row) {
      T* out = r.out.row<T>(row);
      const T* mask = r.mask.empty() ? nullptr : r.mask.row<T>(r.mask.rows() == 1 ? 0 : row);
      for (std::int64_t i = 0; i < r.out.cols(); ++i) {
        if (mask != nullptr && mask[i] == T(0)) continue;
        const auto index = static_cast<std::uint64_t>(row * r.out.cols() + i);
        const std::uint64_t bits = philox::bits(r.seed, r.purpose, r.stream, draw, index);
        const T value = T(random_entry(r.distribution, r.a, r.b, bits));
        out[i] = (r.write == Write::add ? out[i] : T(0)) + value;
      }
    });
  });
}

}  // namespace pc::kernels

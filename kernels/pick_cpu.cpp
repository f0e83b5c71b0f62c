#include "kernels/pick.h"

#include <algorithm>

#include "kernels/loops.h"

namespace pc::kernels {
namespace {

/// The places of a row of the batch.
template <class T>
const T* places_of(const View& places, std::int64_t row) {
  return places.row<T>(places.rows() == 1 ? 0 : row);
}

}  // namespace

void pick_cpu(const PickArgs& p, Share share) {
  with_float(p.y.dtype, [&]<class T>(T) {
    const std::int64_t n = p.shape.length, inner = p.shape.inner, k = p.places.cols(), outer = p.shape.outer(p.x);
    const bool add = p.write == Write::add;
    each_row(share, p.y.rows(), [&](std::int64_t row) {
      const T* places = places_of<T>(p.places, row);
      for (std::int64_t j = 0; j < k; ++j) {
        const std::int64_t from = embed_row(places[j], n);
        for (std::int64_t o = 0; o < outer; ++o) {
          const T* x = from < 0 ? nullptr : p.x.row<T>(row) + (o * n + from) * inner;
          T* y = p.y.row<T>(row) + (o * k + j) * inner;
          for (std::int64_t i = 0; i < inner; ++i) {
            const T value = x == nullptr ? places[j] : x[i];  // the NaN itself
            y[i] = add ? y[i] + value : value;
          }
        }
      }
    });
  });
}

void pick_back_cpu(const PickBackArgs& p, Share share) {
  with_float(p.dy.dtype, [&]<class T>(T) {
    const std::int64_t n = p.shape.length, inner = p.shape.inner, k = p.places.cols(), outer = p.shape.outer(p.dx);
    each_row(share, p.dx.rows(), [&](std::int64_t row) {
      const T* places = places_of<T>(p.places, row);
      if (p.write == Write::set) std::fill_n(p.dx.row<T>(row), p.dx.cols(), T(0));
      for (std::int64_t j = 0; j < k; ++j) {
        const std::int64_t to = embed_row(places[j], n);
        for (std::int64_t o = 0; o < outer && to >= 0; ++o) {
          const T* dy = p.dy.row<T>(row) + (o * k + j) * inner;
          T* dx = p.dx.row<T>(row) + (o * n + to) * inner;
          each_entry(inner, [=](std::int64_t i) { dx[i] += dy[i]; });
        }
      }
    });
  });
}

}  // namespace pc::kernels

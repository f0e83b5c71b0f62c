#include "kernels/embed.h"

#include <algorithm>
#include <limits>

#include "kernels/loops.h"

namespace pc::kernels {

void embed_cpu(const EmbedArgs& e, Share share) {
  with_float(e.y.dtype, [&]<class T>(T) {
    const std::int64_t n = e.table.rows(), d = e.table.cols();
    const T keep = e.write == Write::add ? T(1) : T(0);
    each_row(share, e.x.rows(), [&](std::int64_t row) {
      for (std::int64_t t = 0; t < e.x.cols(); ++t) {
        const std::int64_t from = embed_row(e.x.row<T>(row)[t], n);
        T* y = e.y.row<T>(row) + t * d;
        const T* entry = from < 0 ? nullptr : e.table.row<T>(from);
        for (std::int64_t j = 0; j < d; ++j) {
          const T value = entry == nullptr ? std::numeric_limits<T>::quiet_NaN() : entry[j];
          y[j] = keep == T(0) ? value : y[j] + value;
        }
      }
    });
  });
}

void embed_grad_cpu(const EmbedGradArgs& e, Share share) {
  with_float(e.dy.dtype, [&]<class T>(T) {
    const std::int64_t n = e.dtable.rows(), d = e.dtable.cols();
    const auto [begin, end] = share.of(n);
    for (std::int64_t v = begin; v < end && e.write == Write::set; ++v) std::fill_n(e.dtable.row<T>(v), d, T(0));
    for (std::int64_t row = 0; row < e.x.rows() && begin < end; ++row) {
      for (std::int64_t t = 0; t < e.x.cols(); ++t) {
        const std::int64_t to = embed_row(e.x.row<T>(row)[t], n);
        if (to < begin || to >= end) continue;
        const T* dy = e.dy.row<T>(row) + t * d;
        T* dtable = e.dtable.row<T>(to);
        each_entry(d, [=](std::int64_t j) { dtable[j] += dy[j]; });
      }
    }
  });
}

}  // namespace pc::kernels

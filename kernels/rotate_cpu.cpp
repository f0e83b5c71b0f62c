#include "kernels/rotate.h"

#include <vector>

#include "kernels/loops.h"

namespace pc::kernels {

void rotate_cpu(const RotateArgs& r, Share share) {
  with_float(r.x.dtype, [&]<class T>(T) {
    const std::int64_t places = r.x.cols() / r.width, pairs = r.head / 2;
    std::vector<Turn> turns;
    for (std::int64_t i = 0; i < places * pairs; ++i) turns.push_back(turn_of(r, i / pairs, i % pairs));
    const T keep = r.write == Write::add ? T(1) : T(0);
    const auto put = [keep](T& y, T value) { y = keep == T(0) ? value : y + value; };
    each_row(share, r.x.rows(), [&](std::int64_t row) {
      for (std::int64_t place = 0; place < places; ++place) {
        const T* x = r.x.row<T>(row) + place * r.width;
        T* y = r.y.row<T>(row) + place * r.width;
        for (std::int64_t i = 0; i < r.count; i += 2) {
          const Turn& turn = turns[static_cast<std::size_t>(place * pairs + i % r.head / 2)];
          const T c = T(turn.cosine), s = T(turn.sine);
          put(y[i], c * x[i] - s * x[i + 1]);
          put(y[i + 1], s * x[i] + c * x[i + 1]);
        }
        for (std::int64_t i = r.count; i < r.width; ++i) put(y[i], x[i]);
      }
    });
  });
}

}  // namespace pc::kernels

// Loops go over the channels of a place, which are neighbours, so that they become vectors.
#include "kernels/pool.h"

#include <cstdint>
#include <vector>

#include "kernels/loops.h"

namespace pc::kernels {
namespace {

/// The first of the largest entries that a window sees, channel by channel, and where it is.
template <class T>
class LargestEntries {
 public:
  explicit LargestEntries(std::int64_t channels)
      : places_(static_cast<std::size_t>(channels)), at_(static_cast<std::size_t>(channels)) {}

  void find(const Window& w, std::int64_t out_y, std::int64_t out_x, const T* image) {
    std::fill(places_.begin(), places_.end(), -1);
    each_seen(w, out_y, out_x, [&](std::int64_t place) {
      each_entry(w.channels,
                 [=, here = image + place * w.channels, places = places_.data(), at = at_.data()](std::int64_t c) {
                   LargestEntry<T, std::int32_t> largest{places[c], at[c]};
                   largest.meet(static_cast<std::int32_t>(place), here[c]);
                   places[c] = largest.place;
                   at[c] = largest.at;
                 });
    });
  }
  [[nodiscard]] const std::int32_t* places() const { return places_.data(); }
  [[nodiscard]] const T* at() const { return at_.data(); }

 private:
  std::vector<std::int32_t> places_;
  std::vector<T> at_;
};

/// What windows that lie side by side bring back, one after the other; the last of a row or column writes what lies
/// behind it too.
template <class T>
void bring_back_tiles(const PoolPullbackArgs& p, Share share) {
  const Window& w = p.window;
  const bool largest = p.pooling == Pooling::max, add = p.write == Write::add;
  const T by = largest ? T(1) : T(p.by);
  LargestEntries<T> found(w.channels);
  each_row(share, p.dx.rows(), [&](std::int64_t row) {
    each_window(w, [&](std::int64_t first, std::int64_t out_y, std::int64_t out_x) {
      if (largest) found.find(w, out_y, out_x, p.x.row<T>(row));
      const T* delta = p.dy.row<T>(row) + first;
      each_own(w, out_y, out_x, [&](std::int64_t place, bool seen) {
        T* dx = p.dx.row<T>(row) + place * w.channels;
        each_entry(w.channels, [=, places = found.places(), here = static_cast<std::int32_t>(place)](std::int64_t c) {
          const bool comes = largest ? places[c] == here : seen;
          dx[c] = (add ? dx[c] : T(0)) + (comes ? by * delta[c] : T(0));
        });
      });
    });
  });
}

}  // namespace

void pool_cpu(const PoolArgs& p, Share share) {
  with_float(p.y.dtype, [&]<class T>(T) {
    const Window& w = p.window;
    LargestEntries<T> found(w.channels);
    std::vector<T> sums(static_cast<std::size_t>(w.channels));
    each_row(share, p.x.rows(), [&](std::int64_t row) {
      const T* image = p.x.row<T>(row);
      each_window(w, [&](std::int64_t first, std::int64_t out_y, std::int64_t out_x) {
        const T* seen = found.at();
        if (p.pooling == Pooling::max) {
          found.find(w, out_y, out_x, image);
        } else {
          T* sum = sums.data();
          seen = sum;
          std::fill(sums.begin(), sums.end(), T(0));
          each_seen(w, out_y, out_x, [&](std::int64_t place) {
            each_entry(w.channels, [=, here = image + place * w.channels](std::int64_t c) { sum[c] += here[c]; });
          });
          each_entry(w.channels, [=, by = T(p.by)](std::int64_t c) { sum[c] = by * sum[c]; });
        }
        each_entry(w.channels, [=, y = p.y.row<T>(row) + first, add = p.write == Write::add](std::int64_t c) {
          y[c] = (add ? y[c] : T(0)) + seen[c];
        });
      });
    });
  });
}

void pool_pullback_cpu(const PoolPullbackArgs& p, Share share) {
  with_float(p.dx.dtype, [&]<class T>(T) {
    const Window& w = p.window;
    if (w.tiles()) return bring_back_tiles<T>(p, share);
    const T by = p.pooling == Pooling::max ? T(1) : T(p.by);
    each_row(share, p.dx.rows(), [&](std::int64_t row) {
      const T* image = p.pooling == Pooling::max ? p.x.row<T>(row) : nullptr;
      const T* delta = p.dy.row<T>(row);
      T* dx = p.dx.row<T>(row);
      for (std::int64_t y = 0; y < w.height; ++y) {
        for (std::int64_t x = 0; x < w.width; ++x) {
          for (std::int64_t c = 0; c < w.channels; ++c, ++dx) {
            const T back = by * window_back(w, image == nullptr ? nullptr : image + c, delta + c, y, x);
            *dx = (p.write == Write::add ? *dx : T(0)) + back;
          }
        }
      }
    });
  });
}

}  // namespace pc::kernels

// Loops go over the channels of a place, which are neighbours, so that they become vectors.
#include "kernels/pool_change.h"

#include <cstdint>
#include <vector>

#include "kernels/loops.h"

namespace pc::kernels {
namespace {

/// LargestOf of each channel, in arrays.
template <Activation f, class T>
class LargestOfEach {
 public:
  using One = LargestOf<f, T, std::int32_t>;

  explicit LargestOfEach(std::int64_t channels)
      : channels_(channels), numbers_(static_cast<std::size_t>(7 * channels)), places_(2 * numbers_.size() / 7) {}

  /// Looks at f(z + bias + change) at all places of an image that a window sees; bias and change may be null.
  void find(const Window& w, std::int64_t out_y, std::int64_t out_x, const T* z, const T* bias, const T* change) {
    std::fill(places_.begin(), places_.end(), -1);
    each_seen(w, out_y, out_x, [&](std::int64_t place) {
      const T* moved = change == nullptr ? nullptr : change + place * channels_;
      meet(static_cast<std::int32_t>(place), z + place * channels_, bias, moved);
    });
  }

  /// One channel of them.
  struct Arrays {
    T *high_now, *high_z, *high_change, *low_now, *low_z, *low_change, *high_start;
    std::int32_t *high_place, *low_place;

    One operator[](std::int64_t c) const {
      One one;
      one.high = {high_place[c], high_now[c], high_z[c], high_change[c]};
      one.low = {low_place[c], low_now[c], low_z[c], low_change[c]};
      one.high_start = high_start[c];
      return one;
    }
    void put(std::int64_t c, const One& one) const {
      high_place[c] = one.high.place, high_now[c] = one.high.now;
      high_z[c] = one.high.z, high_change[c] = one.high.change;
      low_place[c] = one.low.place, low_now[c] = one.low.now;
      low_z[c] = one.low.z, low_change[c] = one.low.change;
      high_start[c] = one.high_start;
    }
  };
  [[nodiscard]] Arrays arrays() {
    T* n = numbers_.data();
    const std::int64_t c = channels_;
    return {n, n + c, n + 2 * c, n + 3 * c, n + 4 * c, n + 5 * c, n + 6 * c, places_.data(), places_.data() + c};
  }

 private:
  void meet(std::int32_t place, const T* z, const T* bias, const T* change) {
    const Arrays all = arrays();
    each_entry(channels_, [=](std::int64_t c) {
      One one = all[c];
      one.meet(place, z[c] + (bias == nullptr ? T(0) : bias[c]), change == nullptr ? T(0) : change[c]);
      all.put(c, one);
    });
  }

  std::int64_t channels_;
  std::vector<T> numbers_;
  std::vector<std::int32_t> places_;
};

}  // namespace

void pool_map_cpu(const PoolMapArgs& p, Share share) {
  with_float(p.y.dtype, [&]<class T>(T) {
    scalar::with_activation(p.f, [&]<Activation f>() {
      LargestOfEach<f, T> largest(p.window.channels);
      const auto found = largest.arrays();
      each_row(share, p.y.rows(), [&](std::int64_t row) {
        each_window(p.window, [&](std::int64_t first, std::int64_t out_y, std::int64_t out_x) {
          largest.find(p.window, out_y, out_x, p.z.row<T>(row), p.bias.as<T>(), nullptr);
          each_entry(p.window.channels, [=, y = p.y.row<T>(row) + first, leak = T(p.leak)](std::int64_t c) {
            y[c] = found[c].found(leak).value;
          });
        });
      });
    });
  });
}

void pool_change_cpu(const PoolChangeArgs& p, Share share) {
  with_float(p.y.dtype, [&]<class T>(T) {
    const Window& w = p.window;
    LargestOfEach<Activation::identity, T> largest(w.channels);
    const auto found = largest.arrays();
    each_row(share, p.y.rows(), [&](std::int64_t row) {
      const T* x = p.x.row<T>(row);
      each_window(w, [&](std::int64_t first, std::int64_t out_y, std::int64_t out_x) {
        largest.find(w, out_y, out_x, x, nullptr, p.dx.row<T>(row));
        T* y = p.y.row<T>(row) + first;
        for (std::int64_t c = 0; c < w.channels; ++c) {
          const T before = x[place_of_largest(w, x + c, out_y, out_x) * w.channels + c];
          y[c] = (p.write == Write::add ? y[c] : T(0)) + found[c].since(found[c].found(T(0)), before, T(0)).value;
        }
      });
    });
  });
}

void pool_error_cpu(const PoolErrorArgs& e, Share share) {
  with_float(e.delta.dtype, [&]<class T>(T) {
    scalar::with_activation(e.f, [&]<Activation f>() {
      const Window& w = e.window;
      const std::int64_t channels = w.channels;
      const T scale = T(e.precision), leak = T(e.leak);
      LargestOfEach<f, T> largest(channels);
      const auto found = largest.arrays();
      std::vector<T> own_dz(static_cast<std::size_t>(e.dz.empty() ? e.z.cols() : 0)), room;
      const std::vector<T> zeros(static_cast<std::size_t>(channels), T(0)),
          ones(static_cast<std::size_t>(channels), T(1));
      std::vector<T> errors(zeros), slopes(zeros);
      std::vector<std::int32_t> places(zeros.size());
      each_row(share, e.delta.rows(), [&](std::int64_t row) {
        const T* change = unrounded_row(e.change, row, room);
        T* dz = e.dz.empty() ? own_dz.data() : e.dz.row<T>(row);
        std::fill_n(dz, e.z.cols(), T(0));
        double energy = 0;
        each_window(w, [&](std::int64_t first, std::int64_t out_y, std::int64_t out_x) {
          largest.find(w, out_y, out_x, e.z.row<T>(row), e.bias.as<T>(), change);
          const auto entries = [&](const View& view) { return view.empty() ? zeros.data() : view.row<T>(row) + first; };
          const T *start = entries(e.start), *dx = entries(e.dx), *top = entries(e.top);
          const T* precisions = e.precisions.empty() ? ones.data() : e.precisions.as<T>() + first;
          T *delta = e.delta.row<T>(row) + first, *error = errors.data(), *slope = slopes.data();
          std::int32_t* place = places.data();
          each_entry(channels, [=, moves = change != nullptr](std::int64_t c) {
            const auto now = found[c].found(leak);
            const auto since = LargestOf<f, T, std::int32_t>::since(now, top[c], leak);
            place[c] = now.place;
            error[c] = start[c] + dx[c] - (moves ? since.value : T(0));
            slope[c] = since.slope;
            delta[c] = scale * precisions[c] * error[c];
          });
          for (std::int64_t c = 0; c < channels; ++c) dz[place[c] * channels + c] = slope[c] * delta[c];
          energy += lane_sum(channels, [=](std::int64_t c) { return delta[c] * error[c]; });
        });
        if (!e.energy.empty()) e.energy.as<double>()[row] = 0.5 * energy;
        narrow_row(e.narrow, row, dz);
      });
    });
  });
}

}  // namespace pc::kernels

#include "kernels/weight_update.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/loops.h"

namespace pc::kernels {
namespace {

/// body(row, n) for every row of this thread's share, with its number of entries; of a column whose entries lie side by
/// side (a bias, the weights of a sparse matrix), for the whole share as if it were one row.
template <class Body>
void each_run(Share share, const WeightGradient& w, std::initializer_list<View> state, Body&& body) {
  const auto packed = [](const View& v) { return v.empty() || v.ld() == 1; };
  const bool column = w.w.cols() == 1 && packed(w.w) && packed(w.dw) && packed(w.mask) && packed(w.start) &&
                      packed(w.moved) && w.narrow.y.empty() && w.moved_operand.y.empty() &&
                      std::all_of(state.begin(), state.end(), packed);
  if (!column) return each_row(share, w.w.rows(), [&](std::int64_t row) { body(row, w.w.cols()); });
  const auto [begin, end] = share.of(w.w.rows());
  if (begin < end) body(begin, end - begin);
}

/// body(i, g) for every entry of a run that the mask lets move.
template <class T, class Body>
void each_gradient(const WeightGradient& w, std::int64_t row, std::int64_t n, T scale, Body&& body) {
  const T *dw = w.dw.empty() ? nullptr : w.dw.row<T>(row), *mask = w.mask.empty() ? nullptr : w.mask.row<T>(row);
  if (mask != nullptr) {
    for (std::int64_t i = 0; i < n; ++i) {
      if (mask[i] != T(0)) body(i, dw == nullptr ? T(0) : scale * dw[i]);
    }
  } else if (dw != nullptr) {
    each_entry(n, [=](std::int64_t i) { body(i, scale * dw[i]); });
  } else {
    each_entry(n, [=](std::int64_t i) { body(i, T(0)); });
  }
  const T* now = w.w.row<T>(row);
  narrow_row(w.narrow, row, now);
  if (w.start.empty()) return;
  std::vector<T> room(static_cast<std::size_t>(w.moved.empty() ? n : 0));
  const T* start = w.start.row<T>(row);
  T* moved = w.moved.empty() ? room.data() : w.moved.row<T>(row);
  each_entry(n, [=](std::int64_t i) { moved[i] = now[i] - start[i]; });
  narrow_row(w.moved_operand, row, moved);
}

template <class T>
T gradient_scale(const WeightGradient& w) {
  return T(w.scale * (w.clip.empty() ? 1.0 : *w.clip.as<double>()));
}

}  // namespace

void weight_sgd_cpu(const WeightSgdArgs& a, Share share) {
  with_float(a.g.w.dtype, [&]<class T>(T) {
    const T rate = T(*a.g.rate.as<double>()), momentum = T(a.momentum), decay = T(a.decay);
    const T scale = gradient_scale<T>(a.g);
    each_run(share, a.g, {a.velocity}, [&](std::int64_t row, std::int64_t n) {
      T* w = a.g.w.row<T>(row);
      if (a.velocity.empty()) {
        each_gradient<T>(a.g, row, n, scale, [=](std::int64_t i, T g) { w[i] += rate * (g - decay * w[i]); });
      } else {
        T* velocity = a.velocity.row<T>(row);
        each_gradient<T>(a.g, row, n, scale, [=](std::int64_t i, T g) {
          velocity[i] = momentum * velocity[i] + (g - decay * w[i]);
          w[i] += rate * velocity[i];
        });
      }
    });
  });
}

void weight_adam_cpu(const WeightAdamArgs& a, Share share) {
  with_float(a.g.w.dtype, [&]<class T>(T) {
    const double step = *a.step.as<double>(), rate = *a.g.rate.as<double>();
    const T beta1 = T(a.beta1), beta2 = T(a.beta2), epsilon = T(a.epsilon);
    const T corrected = T(rate / (1 - std::pow(a.beta1, step))), correct2 = T(1 / (1 - std::pow(a.beta2, step)));
    const T keep = T(a.decoupled ? 1 - rate * a.decay : 1), pull = T(a.decoupled ? 0 : a.decay);
    const T scale = gradient_scale<T>(a.g);
    each_run(share, a.g, {a.m, a.v}, [&](std::int64_t row, std::int64_t n) {
      T *w = a.g.w.row<T>(row), *m = a.m.row<T>(row), *v = a.v.row<T>(row);
      const auto zero = [n](const T* x) { return std::all_of(x, x + n, [](T entry) { return entry == T(0); }); };
      if (a.rests() && zero(m) && zero(v)) return;
      each_gradient<T>(a.g, row, n, scale, [=](std::int64_t i, T dw) {
        const T g = dw - pull * w[i];
        m[i] = beta1 * m[i] + (T(1) - beta1) * g;
        v[i] = beta2 * v[i] + (T(1) - beta2) * g * g;
        w[i] = keep * w[i] + corrected * m[i] / (std::sqrt(v[i] * correct2) + epsilon);
      });
    });
  });
}

}  // namespace pc::kernels

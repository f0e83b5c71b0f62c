#include "kernels/runge_kutta.h"

#include <cmath>

#include "kernels/loops.h"
#include "kernels/scalar_rate.h"

namespace pc::kernels {
namespace {

double scaled(double step, const View& h) { return h.empty() ? step : step * *h.as<double>(); }

/// Row `row` of the slopes, and its mask or null.
template <class T>
struct SlopeRow {
  std::array<const T*, kMaxSlopes> k{};
  const T* free = nullptr;

  SlopeRow(const Slopes& s, std::int64_t row) {
    for (std::size_t i = 0; i < static_cast<std::size_t>(s.count); ++i) k[i] = s.k[i].row<T>(row);
    if (!s.free.empty()) free = s.free.row<T>(s.free.rows() == 1 ? 0 : row);
  }
  [[nodiscard]] bool moves(std::int64_t i) const { return free == nullptr || free[i] != T(0); }
};

/// Calls body with the number of slopes as a constant, so that loops over them vanish and those around them vectorise.
template <class Body>
void with_count(int count, Body&& body) {
  if (count == 1) body.template operator()<1>();
  if (count == 2) body.template operator()<2>();
  if (count == 3) body.template operator()<3>();
  if (count == 4) body.template operator()<4>();
}

}  // namespace

void rk_stage_cpu(const RkStageArgs& g, Share share) {
  with_float(g.x.dtype, [&]<class T>(T) {
    const T s = T(scaled(g.step, g.h));
    std::array<T, kMaxSlopes> a{};
    for (std::size_t j = 0; j < a.size(); ++j) a[j] = T(g.a[j]);
    with_count(g.count, [&]<std::size_t count>() {
      each_row(share, g.x.rows(), [&](std::int64_t row) {
        const SlopeRow<T> slopes(g.slopes(), row);
        const T* from = g.from.row<T>(row);
        T* x = g.x.row<T>(row);
        const auto moved = [=](std::int64_t i) {
          T slope = 0;
          for (std::size_t j = 0; j < count; ++j) slope += a[j] * slopes.k[j][i];
          return from[i] - s * slope;
        };
        if (slopes.free == nullptr) {
          each_entry(g.x.cols(), [=](std::int64_t i) { x[i] = moved(i); });
        } else {
          for (std::int64_t i = 0; i < g.x.cols(); ++i) {
            if (slopes.moves(i)) x[i] = moved(i);
          }
        }
      });
    });
  });
}

void rk_error_cpu(const RkErrorArgs& g, Share share) {
  with_float(g.x.dtype, [&]<class T>(T) {
    const double s = scaled(g.step, g.h);
    each_row(share, g.x.rows(), [&](std::int64_t row) {
      const SlopeRow<T> slopes(g.slopes(), row);
      const T *x = g.x.row<T>(row), *from = g.from.row<T>(row);
      double worst = 0;
      for (std::int64_t i = 0; i < g.x.cols(); ++i) {
        if (!slopes.moves(i)) continue;
        double slope = 0;
        for (std::size_t j = 0; j < static_cast<std::size_t>(g.count); ++j) slope += g.e[j] * double(slopes.k[j][i]);
        const double error = error_ratio(s * slope, double(x[i]), double(from[i]), g.absolute, g.relative);
        worst = error > worst || error != error ? error : worst;  // a NaN wins and stays
      }
      g.worst.as<double>()[row] = worst;
    });
  });
}

void step_control_cpu(const StepControlArgs& c, Share share) {
  if (!share.first()) return;
  const double error = *c.error.as<double>();
  double& h = *c.h.as<double>();
  const bool accepted = error <= 1;
  *c.accepted.as<double>() = accepted ? 1 : 0;
  if (accepted) *c.time.as<double>() += h;
  h = scalar::min(c.most, h * step_growth(error, c.order));
}

void choose_cpu(const ChooseArgs& c, Share share) {
  const View& chosen = *c.flag.as<double>() != 0 ? c.yes : c.no;
  with_float(c.y.dtype, [&]<class T>(T) {
    each_row(share, c.y.rows(), [&](std::int64_t row) {
      const T* from = chosen.row<T>(row);
      T* y = c.y.row<T>(row);
      each_entry(c.y.cols(), [=](std::int64_t i) { y[i] = from[i]; });
    });
  });
}

}  // namespace pc::kernels

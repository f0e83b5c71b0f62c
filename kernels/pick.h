// pick: entries of a row along an axis, by numbers that stand in a matrix; and what flows back to the row.
#pragma once

#include "kernels/embed.h"

namespace pc::kernels {

/// A row of `outer` times `length` runs of `inner` entries, of which places ask for runs, as embed_row says.
struct PickShape {
  std::int64_t length = 1, inner = 1;

  [[nodiscard]] std::int64_t outer(const View& all) const { return all.cols() / (length * inner); }
  void check(const char* who, const View& all, const View& places, const View& picked) const {
    PC_CHECK(length > 0 && inner > 0 && all.cols() % (length * inner) == 0, who, "runs of ", length, " times ", inner,
             " entries do not fill ", all.shape.text());
    PC_CHECK(all.rows() == picked.rows() && picked.cols() == outer(all) * places.cols() * inner &&
                 (places.rows() == all.rows() || places.rows() == 1),
             who, "places ", places.shape.text(), " of ", all.shape.text(), " do not give ", picked.shape.text());
    PC_CHECK(all.dtype == picked.dtype && places.dtype == picked.dtype, who, "dtypes differ");
  }
  /// Places of one row stand for all rows.
  static void touches(Touches& t, const View& places) { places.rows() == 1 ? t.read_all(places) : t.read(places); }
};

/// y[r, o, j, i] (=|+=) x[r, o, p, i], with p the place that places[r, j] asks for. x [rows, outer length inner],
/// places [rows, k] or [1, k], y [rows, outer k inner]. Where a place is NaN, y is NaN.
struct PickArgs {
  View x, places, y;
  PickShape shape;
  Write write = Write::set;

  void check() const { shape.check("pick", x, places, y); }
  void touches(Touches& t) const {
    PickShape::touches(t, places);
    t.read(x).write(y);
  }
  [[nodiscard]] double flops() const { return 0; }
};

/// dx[r, o, p, i] (=|+=) sum of dy[r, o, j, i] over all j whose place is p, in the order of j.
struct PickBackArgs {
  View places, dy, dx;
  PickShape shape;
  Write write = Write::set;

  void check() const { shape.check("pick_back", dx, places, dy); }
  void touches(Touches& t) const {
    PickShape::touches(t, places);
    t.read(dy).write(dx);
  }
  [[nodiscard]] double flops() const { return static_cast<double>(dy.count()); }
};

void pick_cpu(const PickArgs&, Share);
void pick_cuda(const PickArgs&, CudaContext&);
void pick_back_cpu(const PickBackArgs&, Share);
void pick_back_cuda(const PickBackArgs&, CudaContext&);

inline constexpr Kernel<PickArgs> pick{"pick", pick_cpu, PC_CUDA(pick_cuda)};
inline constexpr Kernel<PickBackArgs> pick_back{"pick_back", pick_back_cpu, PC_CUDA(pick_back_cuda)};

}  // namespace pc::kernels

// embed: rows of a table, by numbers that stand in a matrix; and what the table learns from it.
#pragma once

#include <cmath>

#include "kernels/kernel.h"
#include "kernels/scalar_math.h"
#include "kernels/write.h"

namespace pc::kernels {

/// The row of a table of n that the number x asks for: the nearest one. NaN asks for none: -1.
template <class T>
PC_HD std::int64_t embed_row(T x, std::int64_t n) {
  if (!(x == x)) return -1;
  const T top = T(n - 1);
  const T nearest = std::floor(x + T(0.5));
  return nearest <= T(0) ? 0 : nearest >= top ? n - 1 : static_cast<std::int64_t>(nearest);
}

/// y[i, t d + j] (=|+=) table[x[i, t], j]. x [rows, times], table [n, d], y [rows, times d]. Where x is NaN, y is NaN.
struct EmbedArgs {
  View x, table, y;
  Write write = Write::set;

  void check() const {
    PC_CHECK(x.rows() == y.rows() && y.cols() == x.cols() * table.cols() && table.rows() > 0, "embed", "x ",
             x.shape.text(), ", table ", table.shape.text(), " and y ", y.shape.text(), " do not fit");
    PC_CHECK(x.dtype == y.dtype && table.dtype == y.dtype, "embed", "dtypes differ");
  }
  void touches(Touches& t) const { t.read(x).read_all(table).write(y); }
  [[nodiscard]] double flops() const { return static_cast<double>(y.count()); }
};

/// dtable[v, j] (=|+=) sum of dy[i, t d + j] over all places (i, t) that ask for v, in the order of the places.
struct EmbedGradArgs {
  View x, dy, dtable;
  Write write = Write::set;

  void check() const {
    PC_CHECK(x.rows() == dy.rows() && dy.cols() == x.cols() * dtable.cols() && dtable.rows() > 0, "embed_grad", "x ",
             x.shape.text(), ", dy ", dy.shape.text(), " and dtable ", dtable.shape.text(), " do not fit");
    PC_CHECK(x.dtype == dy.dtype && dtable.dtype == dy.dtype, "embed_grad", "dtypes differ");
    PC_CHECK(x.count() < std::int64_t{1} << 32, "embed_grad", x.shape.text(), " are too many places");
  }
  void touches(Touches& t) const { t.read_all(x).read_all(dy).write(dtable); }
  [[nodiscard]] double flops() const { return static_cast<double>(dy.count()); }
};

void embed_cpu(const EmbedArgs&, Share);
void embed_cuda(const EmbedArgs&, CudaContext&);
void embed_grad_cpu(const EmbedGradArgs&, Share);
void embed_grad_cuda(const EmbedGradArgs&, CudaContext&);

inline constexpr Kernel<EmbedArgs> embed{"embed", embed_cpu, PC_CUDA(embed_cuda)};
inline constexpr Kernel<EmbedGradArgs> embed_grad{"embed_grad", embed_grad_cpu, PC_CUDA(embed_grad_cuda)};

}  // namespace pc::kernels

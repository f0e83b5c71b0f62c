// Products with sparse matrices. A batch is dense, and each weight meets all of its samples: operands that are gathered
// lie transposed, [entries, batch], so that what one weight needs is one run of memory. Sums go along the rows of the
// index in its order, whatever the number of threads.
#pragma once

#include "kernels/kernel.h"
#include "kernels/write.h"

namespace pc::kernels {

/// Where the entries of a sparse matrix [rows, cols] stand (CSR): those of row i are at places offsets[i] up to
/// offsets[i + 1], in columns columns[place]. int32, which nobody checks here.
struct SparseIndex {
  View offsets;  // [rows + 1]
  View columns;  // [entries]

  [[nodiscard]] std::int64_t rows() const { return offsets.count() - 1; }
  [[nodiscard]] std::int64_t entries() const { return columns.count(); }

  void check(const char* who, const View& values) const {
    PC_CHECK(offsets.dtype == DType::i32 && columns.dtype == DType::i32 && offsets.count() > 0, who,
             "an index is int32, with an offset for each row and one more");
    PC_CHECK(values.count() == entries() && (entries() == 0 || values.extent() == entries() * size_of(values.dtype)),
             who, "values ", values.shape.text(), " do not fit ", entries(), " entries");
  }
  void touches(Touches& t) const { t.read_all(offsets).read_all(columns); }
};

/// y = x^T.   x [rows, cols]   y [cols, rows]
struct TransposeArgs {
  View x, y;

  void check() const {
    PC_CHECK(x.rows() == y.cols() && x.cols() == y.rows(), "transpose", x.shape.text(), " does not fit ",
             y.shape.text());
    PC_CHECK(x.dtype == y.dtype, "transpose", "dtypes differ");
  }
  void touches(Touches& t) const { t.read_all(x).write(y); }
  [[nodiscard]] double flops() const { return 0; }
};

/// y[i] = x[from[i]]; all of one length, packed.
struct PermuteArgs {
  View x, from, y;

  void check() const {
    PC_CHECK(x.count() == y.count() && from.count() == y.count() && from.dtype == DType::i32, "permute", x.shape.text(),
             " does not fit ", y.shape.text());
    PC_CHECK(x.dtype == y.dtype, "permute", "dtypes differ");
  }
  void touches(Touches& t) const { t.read_all(x).read_all(from).write_all(y); }
  [[nodiscard]] double flops() const { return 0; }
};

/// y (=|+=) alpha x A^T for a sparse A [rows, cols], given x^T.   x_t [cols, batch]   y [batch, rows]
struct SparseProductArgs {
  SparseIndex index;
  View values;  // [entries]
  View x_t, y;
  double alpha = 1;
  Write write = Write::set;

  void check() const {
    index.check("sparse_product", values);
    PC_CHECK(y.cols() == index.rows() && x_t.cols() == y.rows(), "sparse_product", "x^T ", x_t.shape.text(), " and y ",
             y.shape.text(), " do not fit a matrix of ", index.rows(), " rows");
    PC_CHECK(values.dtype == y.dtype && x_t.dtype == y.dtype, "sparse_product", "dtypes differ");
  }
  void touches(Touches& t) const {
    index.touches(t);
    t.read_all(values).read_all(x_t).write_all(y);
  }
  [[nodiscard]] double flops() const {
    return 2.0 * static_cast<double>(index.entries()) * static_cast<double>(y.rows());
  }
};

/// dw (=|+=) alpha d^T x, at the entries of the index alone, given both transposed.
/// d_t [rows, batch]   x_t [cols, batch]   dw [entries]
struct SparseGradientArgs {
  SparseIndex index;
  View d_t, x_t, dw;
  double alpha = 1;
  Write write = Write::set;

  void check() const {
    index.check("sparse_gradient", dw);
    PC_CHECK(d_t.rows() == index.rows() && d_t.cols() == x_t.cols(), "sparse_gradient", "d^T ", d_t.shape.text(),
             " and x^T ", x_t.shape.text(), " do not fit a matrix of ", index.rows(), " rows");
    PC_CHECK(d_t.dtype == dw.dtype && x_t.dtype == dw.dtype, "sparse_gradient", "dtypes differ");
  }
  void touches(Touches& t) const {
    index.touches(t);
    t.read_all(d_t).read_all(x_t).write_all(dw);
  }
  [[nodiscard]] double flops() const {
    return 2.0 * static_cast<double>(index.entries()) * static_cast<double>(x_t.cols());
  }
};

void transpose_cpu(const TransposeArgs&, Share);
void transpose_cuda(const TransposeArgs&, CudaContext&);
void permute_cpu(const PermuteArgs&, Share);
void permute_cuda(const PermuteArgs&, CudaContext&);
void sparse_product_cpu(const SparseProductArgs&, Share);
void sparse_product_cuda(const SparseProductArgs&, CudaContext&);
void sparse_gradient_cpu(const SparseGradientArgs&, Share);
void sparse_gradient_cuda(const SparseGradientArgs&, CudaContext&);

inline constexpr Kernel<TransposeArgs> transpose{"transpose", transpose_cpu, PC_CUDA(transpose_cuda)};
inline constexpr Kernel<PermuteArgs> permute{"permute", permute_cpu, PC_CUDA(permute_cuda)};
inline constexpr Kernel<SparseProductArgs> sparse_product{"sparse_product", sparse_product_cpu,
                                                          PC_CUDA(sparse_product_cuda)};
inline constexpr Kernel<SparseGradientArgs> sparse_gradient{"sparse_gradient", sparse_gradient_cpu,
                                                            PC_CUDA(sparse_gradient_cuda)};

}  // namespace pc::kernels

// Products with sparse matrices. A batch is dense, and each weight meets all of its samples: operands that are gathered
// lie transposed, [entries, batch], so that what one weight needs is one run of memory. Sums go along the rows of the
// index in its order, whatever the number of threads.
#pragma once

#include "kernels/kernel.h"
#include "kernels/write.h"

namespace pc::kernels {

constexpr std::int64_t kPatchRows = 96, kPatchSources = 780;  // at most, of a patch that has entries

/// Rows of a sparse matrix that stand together and read near ones have most of their columns in common. In patches of
/// such rows a GPU fetches each column once, into a block's own memory, and gathers from there; what a place in the
/// index names is one of few columns, in half the memory. int32 but for `local`, and nobody checks here.
struct SparsePatches {
  View first;           // [patches + 1]: patch p has the rows first[p] up to first[p + 1]
  View source_offsets;  // [patches + 1]
  View sources;         // the columns that a patch has, each once, from source_offsets[p] to source_offsets[p + 1]
  View local;           // [entries or more in whole fours, 2], bytes of a uint16: which of its patch's sources it has

  [[nodiscard]] bool empty() const { return first.empty(); }
  [[nodiscard]] std::int64_t count() const { return first.count() - 1; }
};

/// Rows of a patch in groups of 8, and the sources that a group has in sixteens: blocks of 8 x 16 bfloat16 entries for
/// tensor cores. Those that the matrix does not have are stored as zeros; in return no entry needs an index, and what
/// is gathered serves eight rows. int32 but for `sources`.
struct SparseBlocks {
  static constexpr std::int64_t kRows = 8, kCols = 16, kEntries = kRows * kCols;

  View groups;   // [patches + 1]: patch p has the groups groups[p] up to groups[p + 1]
  View first;    // [groups + 1]: group g has the blocks first[g] up to first[g + 1]
  View sources;  // [blocks, 16, 2], bytes of a uint16: which of its patch's sources a column is

  [[nodiscard]] bool empty() const { return groups.empty(); }
  [[nodiscard]] std::int64_t count() const { return sources.empty() ? 0 : sources.shape[0]; }
};

/// Where the entries of a sparse matrix [rows, cols] stand (CSR): those of row i are at places offsets[i] up to
/// offsets[i + 1], in columns columns[place]. int32, which nobody checks here.
struct SparseIndex {
  View offsets;                // [rows + 1]
  View columns;                // [entries]
  SparsePatches patches = {};  // the same in another form, which CUDA takes where it may; or none
  SparseBlocks blocks = {};    // of the patches, or none

  [[nodiscard]] std::int64_t rows() const { return offsets.count() - 1; }
  [[nodiscard]] std::int64_t entries() const { return columns.count(); }

  void check(const char* who, const View& values) const {
    PC_CHECK(offsets.dtype == DType::i32 && columns.dtype == DType::i32 && offsets.count() > 0, who,
             "an index is int32, with an offset for each row and one more");
    PC_CHECK(values.count() == entries() && (entries() == 0 || values.extent() == entries() * size_of(values.dtype)),
             who, "values ", values.shape.text(), " do not fit ", entries(), " entries");
    PC_CHECK(patches.empty() || (patches.local.rows() >= entries() && patches.local.rows() % 4 == 0), who,
             "patches say of ", patches.empty() ? 0 : patches.local.rows(), " places where they lead, not of ",
             entries());
  }
  /// Patches are left out: nobody writes them, and they say nothing that the rest does not.
  void touches(Touches& t) const { t.read_all(offsets).read_all(columns); }
};

/// Whether a kernel may write numbers of one type from those of another: float32 or float64 as it is, or float32
/// rounded.
inline bool may_become(DType from, DType to) {
  return from == DType::f32 ? to == DType::f32 || to == DType::bf16 : from == DType::f64 && to == DType::f64;
}

/// y = x^T.   x [rows, cols]   y [cols, rows], also bfloat16
struct TransposeArgs {
  View x, y;

  void check() const {
    PC_CHECK(x.rows() == y.cols() && x.cols() == y.rows(), "transpose", x.shape.text(), " does not fit ",
             y.shape.text());
    PC_CHECK(may_become(x.dtype, y.dtype), "transpose", name_of(x.dtype), " cannot become ", name_of(y.dtype));
  }
  void touches(Touches& t) const { t.read_all(x).write(y); }
  [[nodiscard]] double flops() const { return 0; }
};

/// y[i] = x[from[i]], or 0 where from[i] is negative; packed.   x of any length   from, y of one length; y also
/// bfloat16
struct PermuteArgs {
  View x, from, y;

  void check() const {
    PC_CHECK(from.count() == y.count() && from.dtype == DType::i32, "permute", from.shape.text(), " does not fit ",
             y.shape.text());
    PC_CHECK(may_become(x.dtype, y.dtype), "permute", name_of(x.dtype), " cannot become ", name_of(y.dtype));
  }
  void touches(Touches& t) const { t.read_all(x).read_all(from).write_all(y); }
  [[nodiscard]] double flops() const { return 0; }
};

/// y (=|+=) alpha x A^T for a sparse A [rows, cols], given x^T.   x_t [cols, batch]   y [batch, rows]
/// With a base y = base + alpha x A^T.   base [batch, rows]
/// By blocks values and x^T are bfloat16, sums and y float32. A NaN or infinity in x may go to all eight rows of a
/// group that has its source.
struct SparseProductArgs {
  SparseIndex index;
  View values;  // [entries]; where the index has blocks, theirs: [blocks, 8, 16]
  View x_t, y;
  double alpha = 1;
  Write write = Write::set;
  View base = {};

  /// What the product is added to; empty: nothing.
  [[nodiscard]] View before() const { return base.empty() && write == Write::add ? y : base; }

  void check() const {
    if (index.blocks.empty()) {
      index.check("sparse_product", values);
    } else {
      PC_CHECK(!index.patches.empty() && index.blocks.groups.count() == index.patches.count() + 1 &&
                   values.dtype == DType::bf16 && y.dtype == DType::f32 &&
                   values.extent() == static_cast<std::size_t>(values.count()) * size_of(values.dtype) &&
                   values.count() == index.blocks.count() * SparseBlocks::kEntries,
               "sparse_product", "values ", values.shape.text(), " do not fit ", index.blocks.count(),
               " blocks of bfloat16 in patches");
    }
    PC_CHECK(y.cols() == index.rows() && x_t.cols() == y.rows(), "sparse_product", "x^T ", x_t.shape.text(), " and y ",
             y.shape.text(), " do not fit a matrix of ", index.rows(), " rows");
    PC_CHECK(values.dtype == x_t.dtype && (x_t.dtype == y.dtype || !index.blocks.empty()), "sparse_product",
             "dtypes differ");
    PC_CHECK(base.empty() ||
                 (base.rows() == y.rows() && base.cols() == y.cols() && base.dtype == y.dtype && write == Write::set),
             "sparse_product", "base ", base.shape.text(), " is to be set in the place of y ", y.shape.text());
  }
  void touches(Touches& t) const {
    index.touches(t);
    t.read_all(values).read_all(x_t).read_all(base).write_all(y);
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

inline constexpr Kernel<TransposeArgs> transpose{
    .name = "transpose", .cpu = transpose_cpu, .cuda = PC_CUDA(transpose_cuda), .idempotent = true};
inline constexpr Kernel<PermuteArgs> permute{"permute", permute_cpu, PC_CUDA(permute_cuda)};
inline constexpr Kernel<SparseProductArgs> sparse_product{"sparse_product", sparse_product_cpu,
                                                          PC_CUDA(sparse_product_cuda)};
inline constexpr Kernel<SparseGradientArgs> sparse_gradient{"sparse_gradient", sparse_gradient_cpu,
                                                            PC_CUDA(sparse_gradient_cuda)};

}  // namespace pc::kernels

// Products by blocks (SparseBlocks) that go on with each entry of their result, which then stands nowhere: with the
// error of a prediction, or with the move of what it has come back to. What the next product gathers they leave
// transposed. All is float32 but for what products by blocks take: values, x^T, and what is left.
#pragma once

#include "kernels/scalar_math.h"
#include "kernels/sparse.h"

namespace pc::kernels {

using scalar::Activation;

/// y_t = y^T as products by blocks take it.   y [batch, rows]   y_t [rows, batch], in runs of 16 bytes
inline void check_left(const char* who, const SparseProductArgs& product, const View& y_t) {
  PC_CHECK(!product.index.blocks.empty() && product.write == Write::set, who, "is for products by blocks that are set");
  PC_CHECK(y_t.dtype == DType::bf16 && y_t.rows() == product.y.cols() && y_t.cols() == product.y.rows(), who, "y^T ",
           y_t.shape.text(), " does not fit y ", product.y.shape.text());
}

/// The Gaussian error of what a product predicts: mu = base + alpha x A^T;  y = p (v - mu).   v, y [batch, rows]
struct SparseErrorArgs {
  SparseProductArgs product;
  View value, y_t;  // v
  double precision = 1;
  View precisions = {};  // one per column, multiplies `precision`

  void check() const {
    product.check();
    check_left("sparse_error", product, y_t);
    check_alike("sparse_error", product.y, value);
    PC_CHECK(precisions.empty() || (precisions.count() == value.cols() && precisions.dtype == value.dtype),
             "sparse_error", "precisions must be one per column");
  }
  void touches(Touches& t) const {
    product.touches(t);
    t.read_all(value).read_all(precisions).write_all(y_t);
  }
  [[nodiscard]] double flops() const { return product.flops() + 4.0 * static_cast<double>(value.count()); }
};

/// map_sgd of what a product has pulled back: dy = base + alpha x A^T;  g = own - f'(y) dy;
/// velocity <- momentum velocity + g;  y <- y - rate velocity. What is left is f(y)^T.
/// own, velocity, y [batch, rows]. An empty own counts as zero; without momentum the velocity may be empty.
struct SparseMoveArgs {
  SparseProductArgs product;
  View y_t;
  View own = {}, velocity = {};
  Activation f = Activation::identity;
  double leak = 0.01;
  double rate = 0.1, momentum = 0;
  View bound = {};  // float64 scalar that multiplies the rate; empty: 1

  void check() const {
    product.check();
    check_left("sparse_move", product, y_t);
    if (!own.empty()) check_alike("sparse_move", product.y, own);
    if (!velocity.empty()) check_alike("sparse_move", product.y, velocity);
    PC_CHECK(momentum == 0 || !velocity.empty(), "sparse_move", "momentum needs a velocity");
    if (!bound.empty()) check_scalar("sparse_move", bound);
  }
  void touches(Touches& t) const {
    product.touches(t);
    t.read_all(own).read_all(velocity).write_all(velocity).read_all(bound).write_all(y_t);
  }
  [[nodiscard]] double flops() const { return product.flops() + 8.0 * static_cast<double>(product.y.count()); }
};

void block_product_cpu(const SparseProductArgs&, Share);
void block_product_cuda(const SparseProductArgs&, CudaContext&);
void sparse_error_cpu(const SparseErrorArgs&, Share);
void sparse_error_cuda(const SparseErrorArgs&, CudaContext&);
void sparse_move_cpu(const SparseMoveArgs&, Share);
void sparse_move_cuda(const SparseMoveArgs&, CudaContext&);

inline constexpr Kernel<SparseErrorArgs> sparse_error{"sparse_error", sparse_error_cpu, PC_CUDA(sparse_error_cuda)};
inline constexpr Kernel<SparseMoveArgs> sparse_move{"sparse_move", sparse_move_cpu, PC_CUDA(sparse_move_cuda)};

}  // namespace pc::kernels

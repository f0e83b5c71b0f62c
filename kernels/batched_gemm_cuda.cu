// As gemm_cuda.cu: c^T = op(b)^T op(a)^T. From sample to sample the factors go on by the leading dimension of their
// view; within a sample they are packed.
#include "kernels/batched_gemm.h"
#include "kernels/launch.cuh"

namespace pc::kernels {
namespace {

cublasOperation_t operation(Trans trans) { return trans == Trans::yes ? CUBLAS_OP_T : CUBLAS_OP_N; }

template <class T, class Blas>
cublasStatus_t run(Blas blas, const BatchedGemmArgs& g, CudaContext& context) {
  const T alpha = T(g.alpha), beta = T(g.beta);
  return blas(context.blas, operation(g.trans_b), operation(g.trans_a), g.n, g.m, g.k, &alpha, g.b.as<T>(),
              g.trans_b == Trans::yes ? g.k : g.n, g.b.ld(), g.a.as<T>(), g.trans_a == Trans::yes ? g.m : g.k, g.a.ld(),
              &beta, g.c.as<T>(), g.n, g.c.ld(), g.c.rows());
}

/// c = beta c: a product over no terms, for which cuBLAS finds the leading dimensions too small.
template <class T>
void scale_only(const BatchedGemmArgs& g, CudaContext& context) {
  const auto c = cu::matrix<T>(g.c);
  const T beta = T(g.beta);
  cu::each_entry(g.c.rows(), g.c.cols(), context.stream, [=] __device__(std::int64_t row, std::int64_t col) {
    c(row, col) = beta == T(0) ? T(0) : beta * c(row, col);
  });
}

}  // namespace

void batched_gemm_cuda(const BatchedGemmArgs& g, CudaContext& context) {
  if (g.c.count() == 0) return;
  if (g.k == 0) return with_float(g.c.dtype, [&]<class T>(T) { scale_only<T>(g, context); });
  if (g.c.dtype == DType::f64) {
    PC_CUBLAS_CHECK(run<double>(cublasDgemmStridedBatched_64, g, context));
  } else {
    PC_CUBLAS_CHECK(run<float>(cublasSgemmStridedBatched_64, g, context));
  }
}

}  // namespace pc::kernels

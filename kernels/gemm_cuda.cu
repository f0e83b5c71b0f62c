// Row-major matrices are column-major ones transposed, and c^T = op(b)^T op(a)^T: cuBLAS gets the two factors swapped.
#include "kernels/gemm.h"
#include "kernels/launch.cuh"

namespace pc::kernels {
namespace {

cublasOperation_t operation(Trans trans) { return trans == Trans::yes ? CUBLAS_OP_T : CUBLAS_OP_N; }

cublasStatus_t gemm_blas(cublasHandle_t blas, cublasOperation_t ta, cublasOperation_t tb, std::int64_t m,
                         std::int64_t n, std::int64_t k, float alpha, const float* a, std::int64_t lda, const float* b,
                         std::int64_t ldb, float beta, float* c, std::int64_t ldc) {
  return cublasSgemm_64(blas, ta, tb, m, n, k, &alpha, a, lda, b, ldb, &beta, c, ldc);
}

cublasStatus_t gemm_blas(cublasHandle_t blas, cublasOperation_t ta, cublasOperation_t tb, std::int64_t m,
                         std::int64_t n, std::int64_t k, double alpha, const double* a, std::int64_t lda,
                         const double* b, std::int64_t ldb, double beta, double* c, std::int64_t ldc) {
  return cublasDgemm_64(blas, ta, tb, m, n, k, &alpha, a, lda, b, ldb, &beta, c, ldc);
}

/// c = beta c: a product over no terms, for which cuBLAS finds the leading dimensions too small.
template <class T>
void scale_only(const GemmArgs& g, CudaContext& context) {
  const auto c = cu::matrix<T>(g.c);
  const T beta = T(g.beta);
  cu::each_entry(g.m(), g.n(), context.stream, [=] __device__(std::int64_t row, std::int64_t col) {
    c(row, col) = beta == T(0) ? T(0) : beta * c(row, col);
  });
}

template <class T>
void gemm_typed(const GemmArgs& g, CudaContext& context) {
  if (g.m() == 0 || g.n() == 0) return;
  if (g.k() == 0) return scale_only<T>(g, context);
  PC_CUBLAS_CHECK(gemm_blas(context.blas, operation(g.trans_b), operation(g.trans_a), g.n(), g.m(), g.k(), T(g.alpha),
                            g.b.as<T>(), g.b.ld(), g.a.as<T>(), g.a.ld(), T(g.beta), g.c.as<T>(), g.c.ld()));
}

}  // namespace

void gemm_cuda(const GemmArgs& g, CudaContext& context) {
  with_float(g.c.dtype, [&]<class T>(T) { gemm_typed<T>(g, context); });
}

}  // namespace pc::kernels

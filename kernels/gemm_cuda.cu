// Row-major matrices are column-major ones transposed, and c^T = op(b)^T op(a)^T: cuBLAS gets the two factors swapped.
#include "kernels/gemm.h"

#include <cuda_bf16.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <optional>
#include <vector>

#include "kernels/launch.cuh"

namespace pc::kernels {
namespace {

cublasOperation_t operation(Trans trans) { return trans == Trans::yes ? CUBLAS_OP_T : CUBLAS_OP_N; }

/// How cuBLAS is told what to multiply.
struct Arithmetic {
  cudaDataType_t operands, result;
  cublasComputeType_t compute;
};

Arithmetic arithmetic(const GemmArgs& g) {
  switch (g.a.dtype) {
    case DType::f64:
      return {CUDA_R_64F, CUDA_R_64F, CUBLAS_COMPUTE_64F};
    case DType::tf32:
      return {CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32};
    case DType::f16:
      return {CUDA_R_16F, CUDA_R_32F, CUBLAS_COMPUTE_32F};
    case DType::bf16:
      return {CUDA_R_16BF, g.c.dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F, CUBLAS_COMPUTE_32F};
    default:
      return {CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F};
  }
}

/// Calls body(T{}) with the type of alpha and beta.
template <class Body>
void with_scale(const GemmArgs& g, Body&& body) {
  with_float(g.c.dtype == DType::bf16 ? DType::f32 : g.c.dtype, body);
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

/// The library's kernels for 16-bit operands want all sizes to be multiples of 8, or they take twice as long: zeros of
/// the padding go along.
GemmArgs widened(GemmArgs g) {
  constexpr std::int64_t kAligned = 8;
  if (size_of(g.a.dtype) != 2) return g;
  const auto widen = [](View& view, std::int64_t by) {
    const std::int64_t stride = view.ld();
    view.shape = Shape{view.rows(), view.cols() + by};
    view.stride = stride;
  };
  const auto missing = [](std::int64_t n) { return (n + kAligned - 1) / kAligned * kAligned - n; };
  const std::int64_t more_k = missing(g.k()), more_n = missing(g.n());
  if (g.trans_a == Trans::no && g.trans_b == Trans::yes && std::min(g.a.padding, g.b.padding) >= more_k) {
    widen(g.a, more_k);
    widen(g.b, more_k);
  }
  if (g.trans_b == Trans::no && std::min(g.b.padding, g.c.padding) >= more_n) {
    widen(g.b, more_n);
    widen(g.c, more_n);
  }
  return g;
}

template <class T>
void gemm_typed(const GemmArgs& args, CudaContext& context) {
  const GemmArgs g = widened(args);
  if (g.m() == 0 || g.n() == 0) return;
  if (g.k() == 0) return g.c.dtype == DType::bf16 ? scale_only<__nv_bfloat16>(g, context) : scale_only<T>(g, context);
  const Arithmetic how = arithmetic(g);
  const T alpha = T(std::ldexp(g.alpha, -g.a.exponent - g.b.exponent)), beta = T(g.beta);
  PC_CUBLAS_CHECK(cublasGemmEx_64(context.blas, operation(g.trans_b), operation(g.trans_a), g.n(), g.m(), g.k(), &alpha,
                                  g.b.data, how.operands, g.b.ld(), g.a.data, how.operands, g.a.ld(), &beta, g.c.data,
                                  how.result, g.c.ld(), how.compute, CUBLAS_GEMM_DEFAULT));
}

/// The distance of each matrix from the one before; nothing if they differ, or lie before each other.
template <class Matrix>
std::optional<std::int64_t> even_distance(const std::vector<const GemmArgs*>& calls, Matrix matrix) {
  const auto at = [&](std::size_t i) { return static_cast<const std::byte*>(matrix(*calls[i]).data); };
  const std::ptrdiff_t bytes = at(1) - at(0);
  for (std::size_t i = 1; i < calls.size(); ++i) {
    if (at(i) - at(i - 1) != bytes || bytes < 0) return std::nullopt;
  }
  return bytes / static_cast<std::ptrdiff_t>(size_of(matrix(*calls[0]).dtype));
}

template <class T>
void gemms_typed(std::vector<const GemmArgs*> calls, CudaContext& context) {
  std::sort(calls.begin(), calls.end(),
            [](const GemmArgs* left, const GemmArgs* right) { return std::less<>{}(left->c.data, right->c.data); });
  const GemmArgs& g = *calls[0];
  const Arithmetic how = arithmetic(g);
  const T alpha = T(std::ldexp(g.alpha, -g.a.exponent - g.b.exponent)), beta = T(g.beta);
  const auto a = [](const GemmArgs& args) { return args.a; };
  const auto b = [](const GemmArgs& args) { return args.b; };
  const auto c = [](const GemmArgs& args) { return args.c; };
  const auto da = even_distance(calls, a), db = even_distance(calls, b), dc = even_distance(calls, c);
  const auto count = static_cast<std::int64_t>(calls.size());
  if (da && db && dc) {
    PC_CUBLAS_CHECK(cublasGemmStridedBatchedEx_64(context.blas, operation(g.trans_b), operation(g.trans_a), g.n(),
                                                  g.m(), g.k(), &alpha, g.b.data, how.operands, g.b.ld(), *db, g.a.data,
                                                  how.operands, g.a.ld(), *da, &beta, g.c.data, how.result, g.c.ld(),
                                                  *dc, count, how.compute, CUBLAS_GEMM_DEFAULT));
    return;
  }
  std::vector<void*> pointers;
  for (const GemmArgs* args : calls) pointers.push_back(args->b.data);
  for (const GemmArgs* args : calls) pointers.push_back(args->a.data);
  for (const GemmArgs* args : calls) pointers.push_back(args->c.data);
  void** table = context.table(pointers);
  PC_CUBLAS_CHECK(cublasGemmBatchedEx_64(context.blas, operation(g.trans_b), operation(g.trans_a), g.n(), g.m(), g.k(),
                                         &alpha, table, how.operands, g.b.ld(), table + count, how.operands, g.a.ld(),
                                         &beta, table + 2 * count, how.result, g.c.ld(), count, how.compute,
                                         CUBLAS_GEMM_DEFAULT));
}

}  // namespace

void gemm_cuda_together(std::span<const GemmArgs* const> calls, CudaContext& context) {
  with_scale(*calls[0], [&]<class T>(T) { gemms_typed<T>({calls.begin(), calls.end()}, context); });
}

void gemm_cuda(const GemmArgs& g, CudaContext& context) {
  with_scale(g, [&]<class T>(T) { gemm_typed<T>(g, context); });
}

}  // namespace pc::kernels

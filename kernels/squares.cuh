// What tensor cores multiply: squares of 16 x 16 operands of 16 bits, from shared memory, by a warp together.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace pc::cu {

/// Memory to shared memory, without waiting for one before the next is asked for.
template <class T>
__device__ inline void fetch(T* to, const T* from) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16);
  const auto at = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(at), "l"(from), "n"(sizeof(T)));
}
__device__ inline void wait_for_fetched() { asm volatile("cp.async.wait_all;" ::: "memory"); }
/// A square of 16 x 16, or its transpose, as a factor of multiply_add: each lane brings the address of 8 entries of a
/// row, in shared memory.
template <bool transposed>
__device__ inline void load_square(unsigned (&a)[4], unsigned row) {
  if constexpr (transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                 : "r"(row));
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                 : "r"(row));
  }
}
template <bool transposed, class Operand>
__device__ inline void load_square(unsigned (&a)[4], const Operand* row) {
  load_square<transposed>(a, static_cast<unsigned>(__cvta_generic_to_shared(row)));
}

/// sum [16, 8] += a [16, 16] b [16, 8], in the parts that each lane of a warp holds (PTX: mma.m16n8k16).
__device__ inline void multiply_add(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, __half) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ inline void multiply_add(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, __nv_bfloat16) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Two numbers, rounded, as a lane holds operands: the first in the low half.
__device__ inline unsigned pair(float low, float high, __half) {
  const __half2 both = __floats2half2_rn(low, high);
  return reinterpret_cast<const unsigned&>(both);
}
__device__ inline unsigned pair(float low, float high, __nv_bfloat16) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const unsigned&>(both);
}
/// The transpose of an 8 x 8 square of which lane i holds entries 2 (i % 4) and 2 (i % 4) + 1 of row i / 4.
__device__ inline unsigned turned(unsigned two) {
  unsigned result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(two));
  return result;
}

/// Two squares' other factors [16, 8], of eight columns that lie beside each other as rows: each lane brings the
/// address of 8 entries, lane i of row i % 8 from entry 8 (i / 8) on. The first two are the first square's.
template <class Operand>
__device__ inline void load_columns(unsigned (&b)[4], const Operand* row) {
  load_square<false>(b, row);
}

}  // namespace pc::cu

// A block makes a square of the gradient (mma.m16n8k16) from all samples, and goes on with Adam. All that it reads
// comes to shared memory by cp.async, the weights and their means while it multiplies. Factors stand there as in global
// memory, sample by sample: ldmatrix turns both round.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "kernels/adam.cuh"
#include "kernels/barrier.cuh"
#include "kernels/gemm_adam.h"

namespace pc::kernels {
namespace {

using cu::At, cu::kWarp, cu::Pack;

constexpr int kChunk = 64, kStages = 4;  // samples that come together, and such chunks under way
constexpr int kPiece = 8;                // entries of 16 bytes
constexpr int kGap = 4;                  // a row of the square keeps off the next one's banks

/// One product. Its blocks have its squares, row by row, and after those the entries of its bias, a warp's lanes each.
struct Product {
  const std::uint16_t *delta, *x;
  std::int64_t delta_ld, x_ld;
  int samples, rows, cols;
  int squares;
  float by, bias_by;       // multiply what is added up
  const void* bias_delta;  // float32, or as delta; null: there is no bias
  std::int64_t bias_ld;
  bool bias_whole;  // it is float32
  bool pieces;      // factors may be read 16 bytes at a time
  cu::Adam<float> w;
  struct Bias {  // packed
    float *w, *m, *v, *dw, *start, *moved;
  } bias;
};

constexpr int kMost = 10;  // products, in 4 KB of arguments
struct Products {
  int count;
  int first[kMost];  // blocks
  Product list[kMost];
};
static_assert(sizeof(Products) < 4000);

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
template <int tile>
constexpr int kSquares = 3 * tile* tile* static_cast<int>(sizeof(float));  // bytes: weights and their means
template <int tile>
constexpr int kChunkBytes = 2 * kChunk* tile* static_cast<int>(sizeof(std::uint16_t));  // of both factors

template <int tile>
constexpr int kMostBytes = kSquares<tile> + kStages* kChunkBytes<tile>;  // of shared memory

/// `bytes` of them from global to shared memory, without waiting; only `there` of them, and zeros.
template <int bytes>
__device__ void copy_later(void* to, const void* from, int there = bytes) {
  if constexpr (bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(cu::shared_address(to)), "l"(from), "r"(there));
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(cu::shared_address(to)), "l"(from), "n"(bytes),
                 "r"(there));
  }
}
__device__ void end_group() { asm volatile("cp.async.commit_group;"); }
template <int pending>
__device__ void wait_for_groups() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

/// Where in shared memory piece `piece` of a chunk's row stands: eight rows' pieces that ldmatrix takes together are in
/// different banks.
template <int tile>
__device__ int place(int row, int piece) {
  constexpr int kPieces = tile / kPiece;
  return row * tile + (piece ^ (kPieces == 8 ? row & 7 : row >> 1 & 3)) * kPiece;
}

/// `tile` columns of one chunk of both factors.
template <int tile>
__device__ void fetch(std::uint16_t* to, const Product& p, int sample, int row0, int col0) {
  constexpr int kPieces = tile / kPiece, kItems = kChunk * kPieces;
#pragma unroll 1  // code that runs once costs more to fetch than to run
  for (int i = static_cast<int>(threadIdx.x); i < 2 * kItems; i += kThreads) {
    const bool second = i >= kItems;
    const int row = i % kItems / kPieces, piece = i % kPieces, k = sample + row;
    const int at = (second ? col0 : row0) + piece * kPiece, cols = second ? p.cols : p.rows;
    std::uint16_t* const there = to + (second ? kChunk * tile : 0) + place<tile>(row, piece);
    const std::uint16_t* const here = second ? p.x + k * p.x_ld + at : p.delta + k * p.delta_ld + at;
    if (p.pieces) {
      const bool inside = k < p.samples && at < cols;
      copy_later<16>(there, inside ? here : p.x, inside ? 16 : 0);
    } else {
#pragma unroll 1
      for (int j = 0; j < kPiece; ++j) there[j] = k < p.samples && at + j < cols ? here[j] : std::uint16_t{0};
    }
  }
}

__device__ void load_turned(unsigned (&to)[4], const std::uint16_t* from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(cu::shared_address(from)));
}

template <class T>
__device__ void multiply(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  if constexpr (std::is_same_v<T, __half>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
        "%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
        "%2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

template <class T>
__device__ float widen(std::uint16_t bits) {
  if constexpr (std::is_same_v<T, __half>) {
    return __half2float(__ushort_as_half(bits));
  } else {
    return __bfloat162float(__ushort_as_bfloat16(bits));
  }
}

/// Each warp sums up some samples of as many entries of a bias as it has lanes.
template <class T>
__device__ void learn_bias(const Product& p, int block, const cu::AdamScalars<float>& scalars) {
  __shared__ cu::AdamScalars<float>::Values values;
  __shared__ float sums[kWarps][kWarp];
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int row = block * kWarp + lane;
  const auto* const whole = static_cast<const float*>(p.bias_delta) + row;
  const auto* const operand = static_cast<const std::uint16_t*>(p.bias_delta) + row;
  float sum = 0;
  if (row < p.rows) {
#pragma unroll 8
    for (int k = warp; k < p.samples; k += kWarps) {
      sum += p.bias_whole ? whole[k * p.bias_ld] : widen<T>(operand[k * p.bias_ld]);
    }
  }
  sums[warp][lane] = sum;
  if (threadIdx.x == kThreads - 1) values = scalars();
  __syncthreads();
  if (warp != 0 || row >= p.rows) return;
  for (int other = 1; other < kWarps; ++other) sum += sums[other][lane];
  const At<1> at{row, 0};
  const Pack<float, 1> slope{p.bias_by * sum};
  cu::Adam<float> bias = p.w;
  bias.w = {p.bias.w, 1};
  bias.m = {p.bias.m, 1};
  bias.v = {p.bias.v, 1};
  bias.mask = {};
  bias.followers = {};
  bias.followers.start = {p.bias.start, 1};
  bias.followers.moved = {p.bias.moved, 1};
  if (p.bias.dw != nullptr) p.bias.dw[row] = slope[0];
  bias.step(values, at, bias.w(at), bias.m(at), bias.v(at), slope);
}

/// `width`: weights that are read and written at once.
template <class T, int tile, int width>
__global__ void __launch_bounds__(kThreads, 2)
    gemm_adam_kernel(cu::AdamScalars<float> scalars, const __grid_constant__ Products products) {
  cu::follow();
  constexpr int kWarpRows = tile / 16, kWarpCols = tile * kWarpRows / kWarps,
                kEights = kWarpCols / 8;                                          // of a warp: 16 x
  constexpr int kPacks = tile * tile / width / kThreads, kAcross = tile / width;  // of weights, a thread; a row
  extern __shared__ __align__(128) std::byte memory[];
  auto* const weights = reinterpret_cast<float*>(memory);  // and their means, a square each
  auto* const factors = reinterpret_cast<std::uint16_t*>(memory + kSquares<tile>);
  __shared__ cu::AdamScalars<float>::Values values;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
  int which = 0;
  while (which + 1 < products.count && static_cast<int>(blockIdx.x) >= products.first[which + 1]) ++which;
  const Product& p = products.list[which];
  const int block = static_cast<int>(blockIdx.x) - products.first[which], across = (p.cols + tile - 1) / tile;
  if (block >= p.squares) return learn_bias<T>(p, block - p.squares, scalars);
  const int row0 = block / across * tile, col0 = block % across * tile;
  const int chunks = (p.samples + kChunk - 1) / kChunk;

  const auto place_of = [&](int i) {
    const int pack = thread + i * kThreads;
    return At<width>{row0 + pack / kAcross, col0 + pack % kAcross * width};
  };
  const auto inside = [&](const At<width>& at) { return at.row < p.rows && at.col < p.cols; };
  const auto entries_of = [&](const At<width>& at) { return min(width, p.cols - static_cast<int>(at.col)); };
  const auto pack_of = [&](int square, int i) -> Pack<float, width>& {
    return reinterpret_cast<Pack<float, width>*>(weights + square * tile * tile)[thread + i * kThreads];
  };
  const auto fetch_weights = [&] {
#pragma unroll 1
    for (int i = 0; i < kPacks; ++i) {
      const At<width> at = place_of(i);
      if (!inside(at)) continue;
      const int bytes = static_cast<int>(sizeof(float)) * entries_of(at);
      copy_later<4 * width>(&pack_of(0, i), &p.w.w(at), bytes);
      copy_later<4 * width>(&pack_of(1, i), &p.w.m(at), bytes);
      copy_later<4 * width>(&pack_of(2, i), &p.w.v(at), bytes);
    }
    end_group();
    if (thread == kThreads - 1) values = scalars();
  };

  const int warp_row = warp % kWarpRows * 16, warp_col = warp / kWarpRows * kWarpCols;
  const auto stage = [&](int chunk) { return factors + chunk % kStages * (kChunkBytes<tile> / 2); };
  float c[kEights][4] = {};
#pragma unroll 1
  for (int chunk = -kStages; chunk < chunks; ++chunk) {
    if (chunk == 0) fetch_weights();
    if (chunk >= 0) {
      if (chunk < kStages) {
        wait_for_groups<kStages>();  // of the later chunks, and the weights
      } else {
        wait_for_groups<kStages - 1>();
      }
      __syncthreads();
      const std::uint16_t *const delta = stage(chunk), *const x = delta + kChunk * tile;
#pragma unroll
      for (int k = 0; k < kChunk; k += 16) {
        unsigned a[4];
        load_turned(a, delta + place<tile>(k + lane / 16 * 8 + lane % 8, (warp_row + lane / 8 % 2 * 8) / kPiece));
#pragma unroll
        for (int i = 0; i < kEights; i += 2) {  // the last eight may stand alone: then the other half is not used
          unsigned b[4];
          const int col = warp_col + i * 8 + (i + 1 < kEights ? lane / 16 * 8 : 0);
          load_turned(b, x + place<tile>(k + lane / 8 % 2 * 8 + lane % 8, col / kPiece));
          multiply<T>(c[i], a, b[0], b[1]);
          if (i + 1 < kEights) multiply<T>(c[i + 1], a, b[2], b[3]);
        }
      }
      __syncthreads();
    }
    if (chunk + kStages < chunks) fetch<tile>(stage(chunk + kStages), p, (chunk + kStages) * kChunk, row0, col0);
    end_group();
  }
  wait_for_groups<0>();

  // From how the tensor cores leave it to rows.
  float* const square = reinterpret_cast<float*>(factors);
  const auto square_at = [&](int row, int col) { return square + row * (tile + kGap) + col; };
#pragma unroll
  for (int i = 0; i < kEights; ++i) {
    const int row = warp_row + lane / 4, col = warp_col + i * 8 + lane % 4 * 2;
    *reinterpret_cast<float2*>(square_at(row, col)) = {p.by * c[i][0], p.by * c[i][1]};
    *reinterpret_cast<float2*>(square_at(row + 8, col)) = {p.by * c[i][2], p.by * c[i][3]};
  }
  __syncthreads();
#pragma unroll 1
  for (int i = 0; i < kPacks; ++i) {
    const At<width> at = place_of(i);
    if (!inside(at)) continue;
    const Pack<float, width>&weight = pack_of(0, i), &first = pack_of(1, i), &second = pack_of(2, i);
    const auto& slope = *reinterpret_cast<const Pack<float, width>*>(square_at(at.row - row0, at.col - col0));
    if (entries_of(at) == width) {
      if (p.w.dw) p.w.dw(at) = slope;
      p.w.step(values, at, weight, first, second, slope);
      continue;
    }
#pragma unroll 1
    for (int j = 0; j < entries_of(at); ++j) {  // the end of a row; what follows may be another's
      const At<1> one{at.row, at.col + j};
      const auto entry = [&](const Pack<float, width>& pack) { return Pack<float, 1>{pack.items[j]}; };
      if (p.w.dw) p.w.dw(one) = entry(slope);
      p.w.step(values, one, entry(weight), entry(first), entry(second), entry(slope));
    }
  }
}

bool pieces(const View& v) { return v.ld() % kPiece == 0 && reinterpret_cast<std::uintptr_t>(v.data) % 16 == 0; }

Product product_of(const GemmAdamArgs& a) {
  Product p{};
  p.delta = a.delta.as<std::uint16_t>();
  p.x = a.x.as<std::uint16_t>();
  p.delta_ld = a.delta.ld();
  p.x_ld = a.x.ld();
  p.samples = static_cast<int>(a.samples());
  p.rows = static_cast<int>(a.rows());
  p.cols = static_cast<int>(a.cols());
  p.by = static_cast<float>(std::ldexp(a.alpha, -a.delta.exponent - a.x.exponent));
  p.pieces = pieces(a.delta) && pieces(a.x);
  p.w = cu::Adam<float>(a.w);
  if (a.bias_delta.empty()) return p;
  p.bias_by = std::ldexp(1.0F, -a.bias_delta.exponent);
  p.bias_delta = a.bias_delta.data;
  p.bias_ld = a.bias_delta.ld();
  p.bias_whole = a.bias_delta.dtype == DType::f32;
  const WeightAdamArgs& bias = a.bias;
  p.bias = {bias.g.w.as<float>(),  bias.m.as<float>(),       bias.v.as<float>(),
            bias.g.dw.as<float>(), bias.g.start.as<float>(), bias.g.moved.as<float>()};
  return p;
}

std::int64_t squares(const GemmAdamArgs& a, int tile) {
  return (a.rows() + tile - 1) / tile * ((a.cols() + tile - 1) / tile);
}

template <class T, int tile, int width>
void launch(std::span<const GemmAdamArgs* const> calls, CudaContext& context) {
  constexpr int kSquare = tile * (tile + kGap) * static_cast<int>(sizeof(float));  // which comes in the factors' place
  const auto kernel = gemm_adam_kernel<T, tile, width>;
  PC_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kMostBytes<tile>));
  const cu::AdamScalars<float> scalars(calls[0]->w);
  while (!calls.empty()) {
    Products products{};
    std::int64_t blocks = 0;
    int chunks = 0;
    for (; products.count < kMost && !calls.empty(); calls = calls.subspan(1)) {
      if (calls[0]->w.g.w.count() == 0) continue;
      products.first[products.count] = static_cast<int>(blocks);
      Product& p = products.list[products.count++] = product_of(*calls[0]);
      p.squares = static_cast<int>(squares(*calls[0], tile));
      blocks += p.squares + (p.bias_delta == nullptr ? 0 : (p.rows + kWarp - 1) / kWarp);
      chunks = std::max(chunks, std::min(kStages, (p.samples + kChunk - 1) / kChunk));
    }
    if (blocks == 0) return;
    const int bytes = kSquares<tile> + std::max(chunks * kChunkBytes<tile>, kSquare);
    cu::launch(kernel, static_cast<unsigned>(blocks), kThreads, bytes, context.stream, scalars, products);
  }
}

}  // namespace

void gemm_adam_cuda_together(std::span<const GemmAdamArgs* const> calls, CudaContext& context) {
  std::int64_t large = 0;
  for (const GemmAdamArgs* call : calls) large += squares(*call, 64);
  constexpr std::int64_t kFull = 264;  // blocks that keep a GPU busy
  const bool wide =
      large >= kFull && cu::block_memory(context) >= std::size_t{kMostBytes<64>};  // smaller GPUs have less
  const auto with_width = [&]<class T, int width>(std::span<const GemmAdamArgs* const> some) {
    if (some.empty()) return;
    if (wide) return launch<T, 64, width>(some, context);
    launch<T, 32, width>(some, context);
  };
  std::vector<const GemmAdamArgs*> sorted(calls.begin(), calls.end());
  const auto with_type = [&]<class T>(T) {
    auto rest = sorted.begin();
    const auto those_that_allow = [&]<int width>() {
      const auto begin = rest;
      rest = std::stable_partition(begin, sorted.end(),
                                   [](const GemmAdamArgs* a) { return cu::Adam<float>(a->w).template packs<width>(); });
      with_width.template operator()<T, width>({begin, rest});
    };
    those_that_allow.template operator()<4>();
    those_that_allow.template operator()<2>();
    those_that_allow.template operator()<1>();
  };
  if (calls[0]->x.dtype == DType::f16) return with_type(__half{});
  with_type(__nv_bfloat16{});
}
void gemm_adam_cuda(const GemmAdamArgs& args, CudaContext& context) {
  gemm_adam_cuda_together(std::array{&args}, context);
}

}  // namespace pc::kernels

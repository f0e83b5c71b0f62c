// A block for each sample and head. First its warps find, for every query, the logarithm of its softmax's sum (and
// <p, dp> on the way back) and leave them in shared memory; then each warp makes whole tokens of the result: its lanes
// compute 32 coefficients, and go through the 32 tokens that these belong to together, each lane at entries of its own.
#include <cmath>

#include "kernels/attention.h"
#include "kernels/launch.cuh"
#include "kernels/scalar_math.h"

namespace pc::kernels {
namespace {

constexpr int kWarp = 32, kWarps = 8;

template <class T>
struct Seq {
  T* data;
  std::int64_t ld, begin, step, width;

  explicit Seq(const Tokens& of)
      : data(of.view.as<T>()), ld(of.view.ld()), begin(of.begin), step(of.step), width(of.width) {}
  __device__ T* token(std::int64_t row, std::int64_t h, std::int64_t t) const {
    return data + row * ld + begin + t * step + h * width;
  }
};

template <class T>
__device__ T dot(const T* a, const T* b, std::int64_t n) {
  T sum = 0;
  for (std::int64_t c = 0; c < n; ++c) sum += a[c] * b[c];
  return sum;
}

template <class T, class Combine>
__device__ T over_warp(T value, Combine combine) {
  for (int step = kWarp / 2; step > 0; step /= 2) value = combine(value, __shfl_xor_sync(~0U, value, step));
  return value;
}

/// What a block knows about one sample and head.
template <class T>
struct Site {
  Seq<T> q, k, v, delta;  // delta lies as the output; not used on the way there
  AttentionShape of;
  std::int64_t row, h;
  T *log_sum, *inner;  // of each query, in shared memory

  __device__ std::int64_t seen(std::int64_t i) const { return of.causal ? i + 1 : of.keys; }
  __device__ T score(std::int64_t i, std::int64_t j) const {
    return T(of.scale) * dot(q.token(row, h, i), k.token(row, h, j), q.width);
  }
  __device__ T p(std::int64_t i, std::int64_t j) const { return std::exp(score(i, j) - log_sum[i]); }
  __device__ T dp(std::int64_t i, std::int64_t j) const {
    return dot(delta.token(row, h, i), v.token(row, h, j), v.width);
  }

  /// One warp: log_sum[i], and inner[i] where wanted.
  __device__ void find(std::int64_t i, int lane, bool wants_inner) const {
    const auto largest = [](T a, T b) { return scalar::max(a, b); };
    const auto sum = [](double a, double b) { return a + b; };
    const std::int64_t n = seen(i);
    T top = score(i, 0);
    for (std::int64_t j = lane; j < n; j += kWarp) top = scalar::max(top, score(i, j));
    top = over_warp(top, largest);
    double total = 0, product = 0;
    for (std::int64_t j = lane; j < n; j += kWarp) {
      const T e = std::exp(score(i, j) - top);
      total += e;
      if (wants_inner) product += double(e) * double(dp(i, j));
    }
    total = over_warp(total, sum);
    if (wants_inner) product = over_warp(product, sum);
    if (lane != 0) return;
    log_sum[i] = top + T(std::log(total));
    if (wants_inner) inner[i] = T(product / total);
  }
};

/// to[c] (=|+=) sum over t in [first, last) of coefficient(t) from(t)[c], by one warp.
template <class T, class Coefficient, class From>
__device__ void combine_tokens(T* to, std::int64_t width, std::int64_t first, std::int64_t last, int lane, bool add,
                               Coefficient coefficient, From from) {
  constexpr int kParts = 4;  // entries of a lane in one pass
  for (std::int64_t base = 0; base < width; base += kParts * kWarp) {
    T sums[kParts] = {};
    for (std::int64_t begin = first; begin < last; begin += kWarp) {
      const T mine = begin + lane < last ? coefficient(begin + lane) : T(0);
      const int count = static_cast<int>(last - begin < kWarp ? last - begin : kWarp);
      for (int t = 0; t < count; ++t) {
        const T by = __shfl_sync(~0U, mine, t);
        const T* token = from(begin + t);
#pragma unroll
        for (int part = 0; part < kParts; ++part) {
          const std::int64_t c = base + part * kWarp + lane;
          if (c < width) sums[part] += by * token[c];
        }
      }
    }
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      const std::int64_t c = base + part * kWarp + lane;
      if (c < width) cu::store(to[c], sums[part], add);
    }
  }
}

enum class Make : std::uint8_t { out, dq, dk, dv };

template <class T, Make make>
__global__ void __launch_bounds__(kWarp* kWarps)
    attention_kernel(Seq<T> q, Seq<T> k, Seq<T> v, Seq<T> delta, Seq<T> to, AttentionShape of, bool add) {
  extern __shared__ double shared[];
  constexpr bool kWantsInner = make == Make::dq || make == Make::dk;
  const std::int64_t row = blockIdx.x / of.heads, h = blockIdx.x % of.heads;
  T* const log_sum = reinterpret_cast<T*>(shared);
  const Site<T> site{q, k, v, delta, of, row, h, log_sum, log_sum + of.queries};
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  for (std::int64_t i = warp; i < of.queries; i += kWarps) site.find(i, lane, kWantsInner);
  __syncthreads();
  const T scale = T(of.scale);
  if constexpr (make == Make::out || make == Make::dq) {
    for (std::int64_t i = warp; i < of.queries; i += kWarps) {
      const auto coefficient = [&](std::int64_t j) {
        if constexpr (make == Make::out) return site.p(i, j);
        return scale * site.p(i, j) * (site.dp(i, j) - site.inner[i]);
      };
      combine_tokens(to.token(row, h, i), to.width, 0, site.seen(i), lane, add, coefficient,
                     [&](std::int64_t j) { return (make == Make::out ? v : k).token(row, h, j); });
    }
  } else {
    for (std::int64_t j = warp; j < of.keys; j += kWarps) {
      const auto coefficient = [&](std::int64_t i) {
        if constexpr (make == Make::dv) return site.p(i, j);
        return scale * site.p(i, j) * (site.dp(i, j) - site.inner[i]);
      };
      combine_tokens(to.token(row, h, j), to.width, of.causal ? j : 0, of.queries, lane, add, coefficient,
                     [&](std::int64_t i) { return (make == Make::dv ? delta : q).token(row, h, i); });
    }
  }
}

template <class T, Make make>
void launch(const Tokens& q, const Tokens& k, const Tokens& v, const Tokens& delta, const Tokens& to,
            const AttentionShape& of, Write write, CudaContext& context) {
  const std::int64_t blocks = to.view.rows() * of.heads;
  if (blocks == 0) return;
  const std::size_t memory = 2 * static_cast<std::size_t>(of.queries) * sizeof(T);
  attention_kernel<T, make><<<static_cast<unsigned>(blocks), kWarp * kWarps, memory, context.stream>>>(
      Seq<T>(q), Seq<T>(k), Seq<T>(v), Seq<T>(delta), Seq<T>(to), of, write == Write::add);
  PC_CUDA_CHECK(cudaGetLastError());
}

}  // namespace

void attention_cuda(const AttentionArgs& a, CudaContext& context) {
  with_float(a.out.view.dtype, [&]<class T>(T) {
    launch<T, Make::out>(a.q, a.k, a.v, a.out, a.out, a.of, a.write, context);  // the delta is not read
  });
}

void attention_pullback_cuda(const AttentionPullbackArgs& a, CudaContext& context) {
  using To = AttentionPullbackArgs::To;
  with_float(a.delta.view.dtype, [&]<class T>(T) {
    if (a.to == To::q) return launch<T, Make::dq>(a.q, a.k, a.v, a.delta, a.dx, a.of, a.write, context);
    if (a.to == To::k) return launch<T, Make::dk>(a.q, a.k, a.v, a.delta, a.dx, a.of, a.write, context);
    launch<T, Make::dv>(a.q, a.k, a.v, a.delta, a.dx, a.of, a.write, context);
  });
}

}  // namespace pc::kernels

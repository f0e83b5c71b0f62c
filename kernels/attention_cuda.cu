// A block for each sample and head, which first fetches the tokens that it needs into shared memory, if they fit. Then
// its warps find, for every query, the logarithm of its softmax's sum (and <p, dp> on the way back); then each warp
// makes whole tokens of the result: its lanes compute 32 coefficients, and go through the 32 tokens that these belong
// to together, each lane at entries of its own.
#include <cmath>

#include "kernels/attention.h"
#include "kernels/launch.cuh"
#include "kernels/scalar_math.h"

namespace pc::kernels {
namespace {

using cu::kWarp;
constexpr int kWarps = 16, kMostShared = 96 << 10;  // bytes of a block

/// Where the tokens of a sample and head stand.
template <class T>
struct Head {
  T* data;
  std::int64_t step;
  int width;

  __device__ T* operator()(std::int64_t t) const { return data + t * step; }
};

template <class T>
struct Seq {
  T* data;
  std::int64_t ld, begin, step;
  int width;

  explicit Seq(const Tokens& of)
      : data(of.view.as<T>()), ld(of.view.ld()), begin(of.begin), step(of.step), width(static_cast<int>(of.width)) {}
  __device__ Head<T> head(std::int64_t row, std::int64_t h) const {
    return {data + row * ld + begin + h * width, step, width};
  }
};

/// Entries from one token to the next in shared memory: lanes at the same entry of neighbouring tokens, V of them read
/// at once, meet in no bank.
template <int V>
__host__ __device__ constexpr int staged_step(int width) {
  if (V > 1) return width % (2 * V) == 0 ? width + V : width;
  return width | 1;
}

/// <a, b>, read V entries at a time.
template <int V, class T>
__device__ T dot(const T* a, const T* b, int n) {
  using Pack = cu::Pack<T, V>;
  T sum = 0;
  for (int c = 0; c < n; c += V) {
    const Pack left = *reinterpret_cast<const Pack*>(a + c), right = *reinterpret_cast<const Pack*>(b + c);
#pragma unroll
    for (int i = 0; i < V; ++i) sum += left[i] * right[i];
  }
  return sum;
}

template <class T, class Combine>
__device__ T over_warp(T value, Combine combine) {
  for (int step = kWarp / 2; step > 0; step /= 2) value = combine(value, __shfl_xor_sync(~0U, value, step));
  return value;
}

/// What a block knows about one sample and head.
template <class T, int V>
struct Site {
  Head<T> q, k, v, delta;  // delta lies as the output; not used on the way there
  AttentionShape of;
  T *log_sum, *inner;  // of each query, in shared memory

  __device__ std::int64_t seen(std::int64_t i) const { return of.causal ? i + 1 : of.keys; }
  __device__ T score(std::int64_t i, std::int64_t j) const { return T(of.scale) * dot<V>(q(i), k(j), q.width); }
  __device__ T p(std::int64_t i, std::int64_t j) const { return std::exp(score(i, j) - log_sum[i]); }
  __device__ T dp(std::int64_t i, std::int64_t j) const { return dot<V>(delta(i), v(j), v.width); }

  /// exp(score - top), also where no score is larger than minus infinity so far.
  __device__ static double relative(T score, T top) { return score == -T(INFINITY) ? T(0) : std::exp(score - top); }

  /// One warp: log_sum[i], and inner[i] where wanted. Sums are kept as multiples of exp(top), where `top` is the
  /// largest score so far.
  __device__ void find(std::int64_t i, int lane, bool wants_inner) const {
    const auto largest = [](T a, T b) { return scalar::max(a, b); };
    const auto sum = [](double a, double b) { return a + b; };
    const std::int64_t n = seen(i);
    T own_top = score(i, 0);
    double total = 0, product = 0;
    for (std::int64_t j = lane; j < n; j += kWarp) {
      const T s = score(i, j), top = scalar::max(own_top, s);
      const double before = relative(own_top, top), e = relative(s, top);
      own_top = top;
      total = before * total + e;
      if (wants_inner) product = before * product + e * double(dp(i, j));
    }
    const T top = over_warp(own_top, largest);
    const double share = relative(own_top, top);
    total = over_warp(share * total, sum);
    if (wants_inner) product = over_warp(share * product, sum);
    if (lane != 0) return;
    log_sum[i] = top + T(std::log(total));
    if (wants_inner) inner[i] = T(product / total);
  }
};

/// to[c] (=|+=) sum over t in [first, last) of coefficient(t) from(t)[c], by one warp.
template <class T, class Coefficient>
__device__ void combine_tokens(T* to, int width, std::int64_t first, std::int64_t last, int lane, bool add,
                               Coefficient coefficient, const Head<T>& from) {
  constexpr int kParts = 4;  // entries of a lane in one pass
  for (int base = 0; base < width; base += kParts * kWarp) {
    T sums[kParts] = {};
    for (std::int64_t begin = first; begin < last; begin += kWarp) {
      const T mine = begin + lane < last ? coefficient(begin + lane) : T(0);
      const int count = static_cast<int>(last - begin < kWarp ? last - begin : kWarp);
#pragma unroll 4
      for (int t = 0; t < count; ++t) {
        const T by = __shfl_sync(~0U, mine, t);
        const T* token = from(begin + t);
#pragma unroll
        for (int part = 0; part < kParts; ++part) {
          const int c = base + part * kWarp + lane;
          if (c < width) sums[part] += by * token[c];
        }
      }
    }
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      const int c = base + part * kWarp + lane;
      if (c < width) cu::store(to[c], sums[part], add);
    }
  }
}

enum class Make : std::uint8_t { out, dq, dk, dv };

/// A copy of the tokens at `room`, which moves on behind it.
template <int V, class T>
__device__ Head<T> staged(const Head<T>& from, std::int64_t count, T*& room) {
  const Head<T> copy{room, staged_step<V>(from.width), from.width};
  for (int at = static_cast<int>(threadIdx.x); at < count * from.width; at += kWarp * kWarps) {
    copy(at / from.width)[at % from.width] = from(at / from.width)[at % from.width];
  }
  room += count * copy.step;
  return copy;
}

/// V: entries read at a time, of tokens in shared memory; 0: tokens stay where they are.
template <class T, Make make, int V>
__global__ void __launch_bounds__(kWarp* kWarps)
    attention_kernel(Seq<T> q, Seq<T> k, Seq<T> v, Seq<T> delta, Seq<T> to, AttentionShape of, bool add) {
  extern __shared__ double2 shared[];
  constexpr bool kWantsInner = make == Make::dq || make == Make::dk;
  constexpr bool kWantsDelta = make != Make::out, kWantsV = make != Make::dv;
  const std::int64_t row = blockIdx.x / of.heads, h = blockIdx.x % of.heads;
  T* room = reinterpret_cast<T*>(shared);
  Site<T, V == 0 ? 1 : V> site{q.head(row, h), k.head(row, h), v.head(row, h), delta.head(row, h), of};
  if constexpr (V != 0) {
    site.q = staged<V>(site.q, of.queries, room);
    site.k = staged<V>(site.k, of.keys, room);
    if (kWantsV) site.v = staged<V>(site.v, of.keys, room);
    if (kWantsDelta) site.delta = staged<V>(site.delta, of.queries, room);
  }
  site.log_sum = room;
  site.inner = room + of.queries;
  __syncthreads();
  const Head<T> out = to.head(row, h);
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
      combine_tokens(out(i), out.width, 0, site.seen(i), lane, add, coefficient, make == Make::out ? site.v : site.k);
    }
  } else {
    for (std::int64_t j = warp; j < of.keys; j += kWarps) {
      const auto coefficient = [&](std::int64_t i) {
        if constexpr (make == Make::dv) return site.p(i, j);
        return scale * site.p(i, j) * (site.dp(i, j) - site.inner[i]);
      };
      combine_tokens(out(j), out.width, of.causal ? j : 0, of.queries, lane, add, coefficient,
                     make == Make::dv ? site.delta : site.q);
    }
  }
}

template <class T, Make make, int V>
void launch(const Tokens& q, const Tokens& k, const Tokens& v, const Tokens& delta, const Tokens& to,
            const AttentionShape& of, Write write, std::size_t memory, CudaContext& context) {
  const std::int64_t blocks = to.view.rows() * of.heads;
  if (blocks == 0) return;
  const auto kernel = attention_kernel<T, make, V>;
  PC_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kMostShared));
  kernel<<<static_cast<unsigned>(blocks), kWarp * kWarps, memory, context.stream>>>(
      Seq<T>(q), Seq<T>(k), Seq<T>(v), Seq<T>(delta), Seq<T>(to), of, write == Write::add);
  PC_CUDA_CHECK(cudaGetLastError());
}

template <class T, Make make>
void make_tokens(const Tokens& q, const Tokens& k, const Tokens& v, const Tokens& delta, const Tokens& to,
                 const AttentionShape& of, Write write, CudaContext& context) {
  constexpr int V = cu::kPack<T>;
  const auto bytes = [&](auto step) {
    const std::int64_t of_queries = step(q) + (make == Make::out ? 0 : step(delta)) + 2;
    const std::int64_t of_keys = step(k) + (make == Make::dv ? 0 : step(v));
    return (of.queries * of_queries + of.keys * of_keys) * static_cast<std::int64_t>(sizeof(T));
  };
  const std::int64_t packed = bytes([](const Tokens& t) { return staged_step<V>(static_cast<int>(t.width)); });
  const std::int64_t single = bytes([](const Tokens& t) { return staged_step<1>(static_cast<int>(t.width)); });
  const auto run = [&]<int width>(std::int64_t memory) {
    launch<T, make, width>(q, k, v, delta, to, of, write, static_cast<std::size_t>(memory), context);
  };
  if (q.width % V == 0 && v.width % V == 0 && packed <= kMostShared) return run.template operator()<V>(packed);
  if (single <= kMostShared) return run.template operator()<1>(single);
  run.template operator()<0>(2 * of.queries * static_cast<std::int64_t>(sizeof(T)));
}

}  // namespace

void attention_cuda(const AttentionArgs& a, CudaContext& context) {
  with_float(a.out.view.dtype, [&]<class T>(T) {
    make_tokens<T, Make::out>(a.q, a.k, a.v, a.out, a.out, a.of, a.write, context);  // the delta is not read
  });
}

void attention_pullback_cuda(const AttentionPullbackArgs& a, CudaContext& context) {
  using To = AttentionPullbackArgs::To;
  with_float(a.delta.view.dtype, [&]<class T>(T) {
    if (a.to == To::q) return make_tokens<T, Make::dq>(a.q, a.k, a.v, a.delta, a.dx, a.of, a.write, context);
    if (a.to == To::k) return make_tokens<T, Make::dk>(a.q, a.k, a.v, a.delta, a.dx, a.of, a.write, context);
    make_tokens<T, Make::dv>(a.q, a.k, a.v, a.delta, a.dx, a.of, a.write, context);
  });
}

}  // namespace pc::kernels

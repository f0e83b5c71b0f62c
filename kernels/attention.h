// Scaled dot-product attention with heads (Vaswani et al. 2017), and its pull-backs. For every sample and head
//   p = softmax(s q k^T), row by row, and out = p v,
// where with `causal` query i sees keys 0 .. i alone. No p is kept: pull-backs compute it again.
#pragma once

#include "kernels/kernel.h"
#include "kernels/write.h"

namespace pc::kernels {

/// A sequence of tokens in each row of a view, token t beginning at column begin + t step; head h takes entries
/// [h width, (h + 1) width) of it.
struct Tokens {
  View view;
  std::int64_t begin = 0, step = 0, width = 0;

  [[nodiscard]] bool fits(std::int64_t rows, std::int64_t count, std::int64_t heads) const {
    return view.rows() == rows && width > 0 && begin >= 0 && begin + (count - 1) * step + heads * width <= view.cols();
  }
};

struct AttentionShape {
  std::int64_t heads = 1, queries = 0, keys = 0;
  double scale = 1;
  bool causal = false;
};

/// Queries that one call can take on a GPU: two numbers of each are kept in shared memory.
inline constexpr std::int64_t kMostQueries = 2048;

/// out (=|+=) p v
struct AttentionArgs {
  Tokens q, k, v, out;
  AttentionShape of;
  Write write = Write::set;

  void check() const;
  void touches(Touches& t) const { t.read(q.view).read(k.view).read(v.view).write(out.view); }
  [[nodiscard]] double flops() const;
};

/// What comes back to q, k or v from `delta`, which lies as out does: with dp = delta v^T and ds = p (dp - <p, dp>),
///   dq = s ds k,   dk = s ds^T q,   dv = p^T delta.
struct AttentionPullbackArgs {
  enum class To : std::uint8_t { q, k, v };
  Tokens q, k, v, delta, dx;
  AttentionShape of;
  To to = To::q;
  Write write = Write::set;

  void check() const;
  void touches(Touches& t) const { t.read(q.view).read(k.view).read(v.view).read(delta.view).write(dx.view); }
  [[nodiscard]] double flops() const;
};

void attention_cpu(const AttentionArgs&, Share);
void attention_cuda(const AttentionArgs&, CudaContext&);
void attention_pullback_cpu(const AttentionPullbackArgs&, Share);
void attention_pullback_cuda(const AttentionPullbackArgs&, CudaContext&);

inline constexpr Kernel<AttentionArgs> attention{"attention", attention_cpu, PC_CUDA(attention_cuda)};
inline constexpr Kernel<AttentionPullbackArgs> attention_pullback{"attention_pullback", attention_pullback_cpu,
                                                                  PC_CUDA(attention_pullback_cuda)};

}  // namespace pc::kernels

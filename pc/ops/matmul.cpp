// matmul: mu = s op(a) op(b), sample by sample, where op transposes if asked.   a, b [batch, rows, cols]
// A vector [n] is a row [1, n] as a, and a column [n, 1] as b.
#include "kernels/batched_gemm.h"
#include "pc/ops/ops.h"

namespace pc::ops {
namespace {

using kernels::Trans;

constexpr double beta(Write write) { return write == Write::add ? 1.0 : 0.0; }

constexpr AttrSpec kAttrs[] = {
    {"trans_a", 0, "whether the first source is transposed"},
    {"trans_b", 0, "whether the second source is transposed"},
    {"by", 1, "a factor"},
};

Trans transposed(const Attrs& attrs, std::string_view name) { return Trans{attrs.find(name)->second != 0}; }
constexpr Trans flipped(Trans trans) { return trans == Trans::yes ? Trans::no : Trans::yes; }

/// Of op(a) [m, k] and op(b) [k, n].
struct Sizes {
  std::int64_t m, k, inner_b, n;
};

/// `axis` is where the dimensions of a sample begin.
Sizes sizes(const Shape& a, const Shape& b, const Attrs& attrs, int axis) {
  const bool row = a.rank() == axis + 1, column = b.rank() == axis + 1;
  std::int64_t m = row ? 1 : a[axis], k = a[row ? axis : axis + 1];
  std::int64_t inner_b = b[axis], n = column ? 1 : b[axis + 1];
  if (transposed(attrs, "trans_a") == Trans::yes) std::swap(m, k);
  if (transposed(attrs, "trans_b") == Trans::yes) std::swap(inner_b, n);
  return {m, k, inner_b, n};
}

Sizes sizes(const OpCall& call) { return sizes(call.x[0].shape, call.x[1].shape, call.attrs, 1); }

/// [m, n], or the shape that is wanted where it has as many entries.
Shape infer(const OpSite& site) {
  const Shape &a = site.sources[0], &b = site.sources[1];
  for (const Shape* shape : {&a, &b}) {
    PC_CHECK(shape->rank() == 1 || shape->rank() == 2, "matmul", "takes vectors and matrices, not ", shape->text());
  }
  const Sizes of = sizes(a, b, site.attrs, 0);
  PC_CHECK(of.k == of.inner_b, "matmul", a.text(), " and ", b.text(), " are [", of.m, ", ", of.k, "] times [",
           of.inner_b, ", ", of.n, "], whose inner dimensions differ");
  return site.as_wanted({of.m, of.n});
}

void predict(const OpCall& call, View mu, Write write) {
  const Sizes of = sizes(call);
  kernels::batched_gemm(call.exec, {.a = call.x[0],
                                    .b = call.x[1],
                                    .c = mu,
                                    .m = of.m,
                                    .n = of.n,
                                    .k = of.k,
                                    .trans_a = transposed(call.attrs, "trans_a"),
                                    .trans_b = transposed(call.attrs, "trans_b"),
                                    .alpha = call.attrs.at("by"),
                                    .beta = beta(write)});
}

/// d op(a) = delta op(b)^T [m, k] and d op(b) = op(a)^T delta [k, n]; where op transposes, the transposes of these.
void pullback(const OpCall& call, View delta, int source, View dx, Write write) {
  const Sizes of = sizes(call);
  const Trans ta = transposed(call.attrs, "trans_a"), tb = transposed(call.attrs, "trans_b");
  kernels::BatchedGemmArgs g{.a = delta, .b = delta, .c = dx, .alpha = call.attrs.at("by"), .beta = beta(write)};
  if (source == 0 && ta == Trans::no) {  // delta op(b)^T
    g.m = of.m, g.k = of.n, g.n = of.k;
    g.b = call.x[1], g.trans_b = flipped(tb);
  } else if (source == 0) {  // op(b) delta^T
    g.m = of.k, g.k = of.n, g.n = of.m;
    g.a = call.x[1], g.trans_a = tb, g.trans_b = Trans::yes;
  } else if (tb == Trans::no) {  // op(a)^T delta
    g.m = of.k, g.k = of.m, g.n = of.n;
    g.a = call.x[0], g.trans_a = flipped(ta);
  } else {  // delta^T op(a)
    g.m = of.n, g.k = of.m, g.n = of.k;
    g.b = call.x[0], g.trans_a = Trans::yes, g.trans_b = ta;
  }
  kernels::batched_gemm(call.exec, g);
}

std::vector<OpExample> examples() {
  return {{{}, {{1}, {1}}, {}},
          {{}, {{3, 5}, {5, 7}}, {}},
          {{{"trans_a", 1}, {"by", -0.3}}, {{5, 3}, {5, 2}}, {}},
          {{{"trans_b", 1}}, {{3, 5}, {7, 5}}, Shape{7, 3}},
          {{{"trans_a", 1}, {"trans_b", 1}, {"by", 2}}, {{5, 3}, {7, 5}}, {}},
          {{}, {{5}, {5, 3}}, Shape{3}},                        // a row times a matrix
          {{{"by", 0.7}}, {{3, 5}, {5}}, Shape{3}},             // a matrix times a column
          {{{"trans_b", 1}}, {{5}, {3, 5}}, Shape{3}},          // a row times a transposed matrix
          {{{"trans_a", 1}, {"trans_b", 1}}, {{3}, {5}}, {}}};  // an outer product
}

}  // namespace

extern const Op matmul{.name = "matmul",
                       .about = "s x1 x2: the product of two matrices, either of them transposed if asked",
                       .min_sources = 2,
                       .max_sources = 2,
                       .attrs = kAttrs,
                       .infer = infer,
                       .predict = predict,
                       .pullback = pullback,
                       .examples = examples};

}  // namespace pc::ops

// matmul: mu = s op(a) op(b), sample by sample, where op transposes if asked.   a, b [batch, rows, cols]
// A vector [n] is a row [1, n] as a, and a column [n, 1] as b. Stacks [batch, depth, rows, cols] are multiplied layer
// by layer.
#include "kernels/batched_gemm.h"
#include "pc/ops/ops.h"
#include "pc/ops/tokens.h"

namespace pc::ops {
namespace {

using kernels::Trans;

constexpr AttrSpec kAttrs[] = {
    {"trans_a", 0, "whether the first source is transposed", AttrSpec::Kind::flag},
    {"trans_b", 0, "whether the second source is transposed", AttrSpec::Kind::flag},
    {"by", 1, "a factor"},
};

Trans transposed(const Attrs& attrs, std::string_view name) { return Trans{attrs.find(name)->second != 0}; }
constexpr Trans flipped(Trans trans) { return trans == Trans::yes ? Trans::no : Trans::yes; }

/// Of op(a) [m, k] and op(b) [k, n], and how many of them a sample has.
struct Sizes {
  std::int64_t m, k, inner_b, n, depth;
};

/// `axis` is where the dimensions of a sample begin.
Sizes sizes(const Shape& a, const Shape& b, const Attrs& attrs, int axis) {
  const std::int64_t depth = a.rank() == axis + 3 ? a[axis++] : 1;
  const bool row = a.rank() == axis + 1, column = b.rank() == axis + 1;
  std::int64_t m = row ? 1 : a[axis], k = a[row ? axis : axis + 1];
  std::int64_t inner_b = b[axis], n = column ? 1 : b[axis + 1];
  if (transposed(attrs, "trans_a") == Trans::yes) std::swap(m, k);
  if (transposed(attrs, "trans_b") == Trans::yes) std::swap(inner_b, n);
  return {m, k, inner_b, n, depth};
}

Sizes sizes(const OpCall& call) { return sizes(call.x[0].shape, call.x[1].shape, call.attrs, 1); }

/// What would make the inner dimensions equal.
std::string mended(const Sizes& of, const Attrs& attrs) {
  const auto turned = [&](const char* name) {
    return std::string("; with ") + name + (attrs.find(name)->second != 0 ? ": false" : ": true") + " they are equal";
  };
  if (of.k == of.n) return turned("trans_b");
  if (of.m == of.inner_b) return turned("trans_a");
  return "; change the shape of a source, or bring it to another one with reshape, permute or linear";
}

/// [m, n] or [depth, m, n], or the shape that is wanted where it has as many entries.
Shape infer(const OpSite& site) {
  const Shape &a = site.sources[0], &b = site.sources[1];
  const bool stacks = a.rank() == 3 && b.rank() == 3;
  for (const Shape* shape : {&a, &b}) {
    PC_CHECK(stacks || shape->rank() == 1 || shape->rank() == 2, "matmul",
             "takes vectors and matrices, or two stacks of matrices, not ", a.text(), " and ", b.text());
  }
  PC_CHECK(!stacks || a[0] == b[0], "matmul", "stacks ", a.text(), " and ", b.text(), " are not equally deep");
  const Sizes of = sizes(a, b, site.attrs, 0);
  PC_CHECK(of.k == of.inner_b, "matmul", a.text(), " and ", b.text(), " are [", of.m, ", ", of.k, "] times [",
           of.inner_b, ", ", of.n, "], whose inner dimensions differ", mended(of, site.attrs));
  return site.as_wanted(stacks ? Shape{of.depth, of.m, of.n} : Shape{of.m, of.n});
}

void predict(const OpCall& call, View mu, Write write) {
  const Sizes of = sizes(call);
  each_token<3>(of.depth, {call.x[0], call.x[1], mu}, [&](const auto& layer, bool) {
    kernels::batched_gemm(call.exec, {.a = layer[0],
                                      .b = layer[1],
                                      .c = layer[2],
                                      .m = of.m,
                                      .n = of.n,
                                      .k = of.k,
                                      .trans_a = transposed(call.attrs, "trans_a"),
                                      .trans_b = transposed(call.attrs, "trans_b"),
                                      .alpha = call.attrs.at("by"),
                                      .beta = beta(write)});
  });
}

/// d op(a) = delta op(b)^T [m, k] and d op(b) = op(a)^T delta [k, n]; where op transposes, the transposes of these.
void pull_layer(const OpCall& call, const Sizes& of, int source, const View& other, const View& delta, const View& dx,
                Write write) {
  const Trans ta = transposed(call.attrs, "trans_a"), tb = transposed(call.attrs, "trans_b");
  kernels::BatchedGemmArgs g{.a = delta, .b = delta, .c = dx, .alpha = call.attrs.at("by"), .beta = beta(write)};
  if (source == 0 && ta == Trans::no) {  // delta op(b)^T
    g.m = of.m, g.k = of.n, g.n = of.k;
    g.b = other, g.trans_b = flipped(tb);
  } else if (source == 0) {  // op(b) delta^T
    g.m = of.k, g.k = of.n, g.n = of.m;
    g.a = other, g.trans_a = tb, g.trans_b = Trans::yes;
  } else if (tb == Trans::no) {  // op(a)^T delta
    g.m = of.k, g.k = of.m, g.n = of.n;
    g.a = other, g.trans_a = flipped(ta);
  } else {  // delta^T op(a)
    g.m = of.n, g.k = of.m, g.n = of.k;
    g.b = other, g.trans_a = Trans::yes, g.trans_b = ta;
  }
  kernels::batched_gemm(call.exec, g);
}

void pullback(const OpCall& call, View delta, int source, View dx, Write write) {
  const Sizes of = sizes(call);
  const View& other = call.x[static_cast<std::size_t>(1 - source)];
  each_token<3>(of.depth, {other, delta, dx},
                [&](const auto& layer, bool) { pull_layer(call, of, source, layer[0], layer[1], layer[2], write); });
}

std::vector<OpExample> examples() {
  return {{{}, {{1}, {1}}, {}},
          {{}, {{3, 5}, {5, 7}}, {}},
          {{{"trans_a", 1}, {"by", -0.3}}, {{5, 3}, {5, 2}}, {}},
          {{{"trans_b", 1}}, {{3, 5}, {7, 5}}, Shape{7, 3}},
          {{{"trans_a", 1}, {"trans_b", 1}, {"by", 2}}, {{5, 3}, {7, 5}}, {}},
          {{}, {{5}, {5, 3}}, Shape{3}},                       // a row times a matrix
          {{{"by", 0.7}}, {{3, 5}, {5}}, Shape{3}},            // a matrix times a column
          {{{"trans_b", 1}}, {{5}, {3, 5}}, Shape{3}},         // a row times a transposed matrix
          {{{"trans_a", 1}, {"trans_b", 1}}, {{3}, {5}}, {}},  // an outer product
          {{{"by", 0.5}}, {{2, 3, 5}, {2, 5, 4}}, {}},
          {{{"trans_b", 1}}, {{3, 2, 5}, {3, 4, 5}}, Shape{3, 2, 4}}};
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

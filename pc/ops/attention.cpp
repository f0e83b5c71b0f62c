// attention: mu = softmax(q k^T / sqrt(n)) v, head by head; rotary: positions as rotations.
//   q [batch, times, heads n]   k, v [batch, keys, heads n]   mu [batch, times, heads n]
// or one source [batch, times, 3 heads n] that holds q, k and v of each token side by side.
#include "kernels/attention.h"

#include <cmath>

#include "kernels/rotate.h"
#include "pc/ops/ops.h"
#include "pc/ops/settings.h"
#include "pc/ops/tokens.h"

namespace pc::ops {
namespace {

constexpr AttrSpec kAttrs[] = {
    {"heads", 1, "how many heads the entries of a token are dealt to"},
    {"causal", 0, "whether a token sees itself and those before it alone", AttrSpec::Kind::flag},
};

std::int64_t whole(const char* who, const Attrs& attrs, std::string_view name, double least) {
  return whole_setting(who, attrs, name, least, 999999999);
}

Shape infer(const OpSite& site) {
  const std::int64_t heads = whole("attention", site.attrs, "heads", 1);
  for (const Shape& shape : site.sources) {
    PC_CHECK(shape.rank() == 2, "attention", "takes sequences [times, entries], not ", shape.text());
  }
  PC_CHECK(site.sources.size() != 2, "attention", "takes q, k and v, or one source with all three side by side");
  const Shape& q = site.sources[0];
  PC_CHECK(q[0] <= kernels::kMostQueries, "attention", "takes up to ", kernels::kMostQueries, " tokens, not ", q[0]);
  if (site.sources.size() == 1) {
    PC_CHECK(q[1] % (3 * heads) == 0, "attention", "a token of ", q[1], " entries holds no q, k and v of ", heads,
             " heads each");
    return {q[0], q[1] / 3};
  }
  const Shape &k = site.sources[1], &v = site.sources[2];
  PC_CHECK(q[1] == k[1] && k[0] == v[0], "attention", "q ", q.text(), ", k ", k.text(), " and v ", v.text(),
           " do not fit");
  PC_CHECK(q[1] % heads == 0 && v[1] % heads == 0, "attention", heads, " heads do not divide q ", q.text(), " and v ",
           v.text());
  PC_CHECK(site.attrs.at("causal") == 0 || q[0] == k[0], "attention", "causal, but q ", q.text(), " and k ", k.text(),
           " are not equally long");
  return {q[0], v[1]};
}

/// Part `part` (0: q, 1: k, 2: v) of the sources, or of a buffer that lies as its source does.
kernels::Tokens tokens(const OpCall& call, int part, const View* in_place_of = nullptr) {
  const auto heads = static_cast<std::int64_t>(call.attrs.at("heads"));
  const bool together = call.x.size() == 1;
  const View& x = call.x[together ? 0 : static_cast<std::size_t>(part)];
  const std::int64_t step = last(x.shape), width = step / (together ? 3 : 1);
  return {.view = in_place_of == nullptr ? x : *in_place_of,
          .begin = together ? part * width : 0,
          .step = step,
          .width = width / heads};
}

kernels::AttentionShape shape_of(const OpCall& call) {
  const std::int64_t queries = call.x[0].shape[1], keys = call.x[call.x.size() == 1 ? 0 : 1].shape[1];
  return {.heads = static_cast<std::int64_t>(call.attrs.at("heads")),
          .queries = queries,
          .keys = keys,
          .scale = 1 / std::sqrt(double(tokens(call, 0).width)),
          .causal = call.attrs.at("causal") != 0};
}

kernels::Tokens result(const OpCall& call, const View& mu) {
  const std::int64_t width = tokens(call, 2).width, heads = shape_of(call).heads;
  return {.view = mu, .begin = 0, .step = heads * width, .width = width};
}

void predict(const OpCall& call, View mu, Write write) {
  kernels::attention(call.exec, {.q = tokens(call, 0),
                                 .k = tokens(call, 1),
                                 .v = tokens(call, 2),
                                 .out = result(call, mu),
                                 .of = shape_of(call),
                                 .write = write});
}

void pullback(const OpCall& call, View delta, int source, View dx, Write write) {
  using To = kernels::AttentionPullbackArgs::To;
  for (const To to : {To::q, To::k, To::v}) {
    if (call.x.size() > 1 && static_cast<int>(to) != source) continue;
    kernels::attention_pullback(call.exec, {.q = tokens(call, 0),
                                            .k = tokens(call, 1),
                                            .v = tokens(call, 2),
                                            .delta = result(call, delta),
                                            .dx = tokens(call, static_cast<int>(to), &dx),
                                            .of = shape_of(call),
                                            .to = to,
                                            .write = write});
  }
}

std::vector<OpExample> examples() {
  return {{{}, {{1, 1}, {1, 1}, {1, 1}}, {}},
          {{{"heads", 2}}, {{3, 4}, {5, 4}, {5, 6}}, {}},
          {{{"causal", 1}}, {{5, 3}, {5, 3}, {5, 3}}, {}},
          {{{"heads", 2}, {"causal", 1}}, {{5, 12}}, {}}};
}

constexpr AttrSpec kRotaryAttrs[] = {
    {"head", 0, "entries of a head, an even number; 0: all that are turned are one"},
    {"count", 0, "how many entries of a token are turned, from its first; 0: all"},
    {"base", 10000, "the slowest pair of a head turns about this much slower than the fastest"},
};

kernels::RotateArgs rotation(const Attrs& attrs, std::int64_t width) {
  const std::int64_t count = whole("rotary", attrs, "count", 0), head = whole("rotary", attrs, "head", 0);
  kernels::RotateArgs r{.width = width, .count = count > 0 ? count : width, .base = attrs.find("base")->second};
  r.head = head > 0 ? head : r.count;
  return r;
}

Shape infer_rotary(const OpSite& site) {
  const Shape& x = site.sources[0];
  PC_CHECK(x.rank() == 2, "rotary", "takes a sequence [times, entries], not ", x.text());
  const kernels::RotateArgs r = rotation(site.attrs, x[1]);
  PC_CHECK(r.base > 0, "rotary", "base: ", r.base, " must be above 0");
  PC_CHECK(r.count <= x[1], "rotary", "count: ", r.count, " is more than tokens ", x.text(), " have entries");
  PC_CHECK(r.head % 2 == 0 && r.count % r.head == 0, "rotary", "heads of ", r.head,
           " entries, which must be even, do not divide the first ", r.count, " of tokens ", x.text());
  return x;
}

void turn(const OpCall& call, const View& from, const View& to, bool back, Write write) {
  kernels::RotateArgs r = rotation(call.attrs, last(call.x[0].shape));
  r.x = from;
  r.y = to;
  r.back = back;
  r.write = write;
  kernels::rotate(call.exec, r);
}

void predict_rotary(const OpCall& call, View mu, Write write) { turn(call, call.x[0], mu, false, write); }
void pullback_rotary(const OpCall& call, View delta, int, View dx, Write write) { turn(call, delta, dx, true, write); }

double lipschitz_one(const Attrs&) { return 1; }

std::vector<OpExample> rotary_examples() {
  return {{{}, {{3, 2}}, {}}, {{{"head", 4}, {"base", 10}}, {{5, 8}}, {}}, {{{"head", 2}, {"count", 4}}, {{3, 7}}, {}}};
}

}  // namespace

extern const Op attention{.name = "attention",
                          .about = "softmax(q k^T / sqrt(n)) v with heads, of sequences q, k, v",
                          .min_sources = 1,
                          .max_sources = 3,
                          .attrs = kAttrs,
                          .infer = infer,
                          .predict = predict,
                          .pullback = pullback,
                          .examples = examples};

extern const Op rotary{.name = "rotary",
                       .about = "pairs of entries turned by an angle that grows with the token's place",
                       .attrs = kRotaryAttrs,
                       .keeps_shape = true,
                       .infer = infer_rotary,
                       .predict = predict_rotary,
                       .pullback = pullback_rotary,
                       .lipschitz = lipschitz_one,
                       .examples = rotary_examples};

}  // namespace pc::ops

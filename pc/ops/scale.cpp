// scale: mu = s x, and identity: mu = x.   x, mu [batch, shape]
#include <cmath>

#include "kernels/arithmetic.h"
#include "pc/ops/ops.h"

namespace pc::ops {
namespace {

constexpr AttrSpec kAttrs[] = {{"by", 1, "the factor"}};

double factor(const Attrs& attrs) {
  const auto found = attrs.find("by");
  return found == attrs.end() ? 1.0 : found->second;
}

Shape infer(const OpSite& site) { return site.sources[0]; }

void apply(const OpCall& call, const View& from, const View& to, Write write) {
  kernels::axpby(call.exec, {.x = from, .y = to, .a = factor(call.attrs), .b = write == Write::add ? 1.0 : 0.0});
}

void predict(const OpCall& call, View mu, Write write) { apply(call, call.x[0], mu, write); }
void pullback(const OpCall& call, View delta, int, View dx, Write write) { apply(call, delta, dx, write); }

double lipschitz(const Attrs& attrs) { return std::abs(factor(attrs)); }

std::vector<OpExample> scale_examples() { return {{{{"by", 0.7}}, {{1}}, {}}, {{{"by", -1.3}}, {{3, 5}}, {}}}; }
std::vector<OpExample> identity_examples() { return {{{}, {{7}}, {}}}; }

}  // namespace

extern const Op scale{.name = "scale",
                      .about = "s x, with a fixed factor s",
                      .attrs = kAttrs,
                      .keeps_shape = true,
                      .affine = true,
                      .infer = infer,
                      .predict = predict,
                      .pullback = pullback,
                      .lipschitz = lipschitz,
                      .examples = scale_examples};

extern const Op identity{.name = "identity",
                         .about = "x",
                         .keeps_shape = true,
                         .affine = true,
                         .infer = infer,
                         .predict = predict,
                         .pullback = pullback,
                         .lipschitz = lipschitz,
                         .examples = identity_examples};

}  // namespace pc::ops

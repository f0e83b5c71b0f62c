// dropout: mu = x mask / (1 - rate), with a mask that keeps each entry with probability 1 - rate (Srivastava et al.
// 2014, section 10, scaled while learning). It is drawn once for each batch that is learned from, for each sample its
// own, and stays for as long as the batch relaxes; in all other plans mu = x.   x, mu, mask [batch, shape]
#include "kernels/arithmetic.h"
#include "kernels/random.h"
#include "pc/ops/ops.h"

namespace pc::ops {
namespace {

constexpr AttrSpec kAttrs[] = {{"rate", 0.5, "the part of the entries that is left out"}};

Shape infer(const OpSite& site) {
  const double rate = site.attrs.at("rate");
  PC_CHECK(rate >= 0 && rate < 1, "dropout", "rate must be at least 0 and below 1, not ", rate);
  return site.sources[0];
}

std::vector<StateSpec> state(const Attrs&, const Shape& out) {
  return {{.name = "mask", .shape = out, .each_sample = true}};
}

void draw(const OpCall& call, const StateDraw& from) {
  const double kept = 1 - call.attrs.at("rate");
  kernels::random(call.exec, {.out = call.state[0],
                              .distribution = kernels::Distribution::keep,
                              .a = kept,
                              .b = 1 / kept,
                              .seed = from.seed,
                              .purpose = Purpose::dropout,
                              .stream = from.stream,
                              .step = from.number});
}

void masked(const OpCall& call, const View& in, const View& out, Write write) {
  if (call.state.empty()) return kernels::axpby(call.exec, {.x = in, .y = out, .a = 1, .b = beta(write)});
  kernels::multiply(call.exec, {.a = in, .b = call.state[0], .y = out, .write = write});
}

void predict(const OpCall& call, View mu, Write write) { masked(call, call.x[0], mu, write); }
void pullback(const OpCall& call, View delta, int, View dx, Write write) { masked(call, delta, dx, write); }

double lipschitz(const Attrs& attrs) { return 1 / (1 - attrs.at("rate")); }

std::vector<OpExample> examples() { return {{{}, {{1}}, {}}, {{{"rate", 0.3}}, {{2, 3, 5}}, {}}}; }

}  // namespace

extern const Op dropout = {.name = "dropout",
                           .about = "while learning, leaves entries out by chance and makes the others larger",
                           .attrs = kAttrs,
                           .keeps_shape = true,
                           .affine = true,
                           .infer = infer,
                           .predict = predict,
                           .pullback = pullback,
                           .state = state,
                           .draw = draw,
                           .lipschitz = lipschitz,
                           .examples = examples};

}  // namespace pc::ops

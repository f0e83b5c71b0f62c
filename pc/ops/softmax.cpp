// softmax: mu_i = e^x_i / sum_j e^x_j, over the last axis.   x, mu [batch, ..., n]
// With causal, x holds squares [batch, ..., n, n], and row i of each has only its first i + 1 entries; the others are
// 0.
#include "kernels/softmax.h"

#include "pc/ops/ops.h"
#include "pc/ops/tokens.h"

namespace pc::ops {
namespace {

constexpr AttrSpec kAttrs[] = {
    {"causal", 0, "whether row i of a square matrix has its first i + 1 entries alone", AttrSpec::Kind::flag}};

kernels::SoftmaxRuns runs(const OpCall& call) {
  return {.width = last(call.x[0].shape), .causal = call.attrs.at("causal") != 0};
}

Shape infer(const OpSite& site) {
  const Shape& x = site.sources[0];
  PC_CHECK(site.attrs.at("causal") == 0 || (x.rank() >= 2 && x[x.rank() - 2] == last(x)), "softmax",
           "causal, but the last two axes of ", x.text(), " are no square");
  return x;
}

void predict(const OpCall& call, View mu, Write write) {
  kernels::softmax(call.exec, {.x = call.x[0], .y = mu, .runs = runs(call), .write = write});
}

void pullback(const OpCall& call, View delta, int, View dx, Write write) {
  kernels::softmax_pullback(call.exec, {.x = call.x[0], .dy = delta, .dx = dx, .runs = runs(call), .write = write});
}

/// Its Jacobian is the covariance matrix of a draw from mu: along a direction of length 1, whose entries lie no further
/// than sqrt 2 apart, the variance is at most (sqrt 2 / 2)^2.
double lipschitz(const Attrs&) { return 0.5; }

std::vector<OpExample> examples() {
  return {{{}, {{1}}, {}}, {{}, {{7}}, {}}, {{}, {{3, 5}}, {}}, {{{"causal", 1}}, {{2, 3, 3}}, {}}};
}

}  // namespace

extern const Op softmax{.name = "softmax",
                        .about = "e^x / sum e^x along the last axis",
                        .attrs = kAttrs,
                        .keeps_shape = true,
                        .infer = infer,
                        .predict = predict,
                        .pullback = pullback,
                        .lipschitz = lipschitz,
                        .examples = examples};

}  // namespace pc::ops

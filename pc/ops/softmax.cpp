// softmax: mu_i = e^x_i / sum_j e^x_j, over all entries of a sample.   x, mu [batch, shape]
#include "kernels/softmax.h"

#include "pc/ops/ops.h"

namespace pc::ops {
namespace {

Shape infer(const OpSite& site) { return site.sources[0]; }

void predict(const OpCall& call, View mu, Write write) {
  kernels::softmax(call.exec, {.x = call.x[0], .y = mu, .write = write});
}

void pullback(const OpCall& call, View delta, int, View dx, Write write) {
  kernels::softmax_pullback(call.exec, {.x = call.x[0], .dy = delta, .dx = dx, .write = write});
}

/// Its Jacobian is the covariance matrix of a draw from mu: along a direction of length 1, whose entries lie no further
/// than sqrt 2 apart, the variance is at most (sqrt 2 / 2)^2.
double lipschitz(const Attrs&) { return 0.5; }

std::vector<OpExample> examples() { return {{{}, {{1}}, {}}, {{}, {{7}}, {}}}; }

}  // namespace

extern const Op softmax{.name = "softmax",
                        .about = "e^x / sum e^x",
                        .keeps_shape = true,
                        .infer = infer,
                        .predict = predict,
                        .pullback = pullback,
                        .lipschitz = lipschitz,
                        .examples = examples};

}  // namespace pc::ops

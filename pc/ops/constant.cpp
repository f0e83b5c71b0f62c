// constant: mu = b for every sample; no source. A trainable prior.   b [shape]   mu [batch, shape]
#include "kernels/arithmetic.h"
#include "pc/ops/ops.h"

namespace pc::ops {
namespace {

Shape infer(const OpSite& site) {
  PC_CHECK(site.wanted.has_value(), "constant", "its shape is not known here");
  return *site.wanted;
}

std::vector<ParamSpec> params(const OpSite&, const Shape& out) {
  return {{"bias", {out.count()}, out.count(), out.count(), ParamRole::bias}};
}

void predict(const OpCall& call, View mu, Write write) {
  kernels::add_row(call.exec, {.row = call.w[0], .y = mu, .write = write});
}

void weight_grad(const OpCall& call, View delta, int, View dw, Write write) {
  kernels::sum_rows(call.exec, {.x = delta, .row = dw, .write = write});
}

double lipschitz(const Attrs&) { return 0; }  // it has no source

std::vector<OpExample> examples() { return {{{}, {}, Shape{1}}, {{}, {}, Shape{3, 5}}}; }

}  // namespace

extern const Op constant{.name = "constant",
                         .about = "a trainable constant, of an edge without from: {to: x, op: constant}",
                         .min_sources = 0,
                         .max_sources = 0,
                         .infer = infer,
                         .params = params,
                         .predict = predict,
                         .weight_grad = weight_grad,
                         .lipschitz = lipschitz,
                         .examples = examples};

}  // namespace pc::ops

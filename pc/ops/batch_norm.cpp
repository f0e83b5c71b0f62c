// batch_norm: mu = gain (x - mean) / sqrt(variance + epsilon) + bias, channel by channel, the last axis of a sample.
// Plans that learn take mean and variance over the whole batch, from the values that are given, whenever these change:
// the energy is then one of the batch, and its slopes go through the statistics too, as in torch's training mode. All
// other plans take the running statistics, as its evaluation mode does, and leave each sample by itself. The running
// ones move once for each batch that updates weights, by the values of the feedforward pass.
//   x, mu [batch, shape]   gain, bias, mean, variance [channels]
#include "kernels/batch_norm.h"
#include "kernels/arithmetic.h"
#include "kernels/window.h"
#include "pc/ops/ops.h"

namespace pc::ops {
namespace {

constexpr AttrSpec kAttrs[] = {
    {"epsilon", 1e-5, "added to the variance"},
    {"momentum", 0.1, "how far the running statistics go to those of a batch"},
    {"affine", 1, "whether there are a gain and a bias; without, they are 1 and 0", AttrSpec::Kind::flag},
};

std::int64_t channels(const Shape& shape) { return shape[shape.rank() - 1]; }

Shape infer(const OpSite& site) {
  const double epsilon = site.attrs.at("epsilon"), momentum = site.attrs.at("momentum");
  PC_CHECK(epsilon > 0, "batch_norm", "epsilon must be above 0, not ", epsilon);
  PC_CHECK(momentum >= 0 && momentum <= 1, "batch_norm", "momentum must be from 0 to 1, not ", momentum);
  return site.sources[0];
}

std::vector<ParamSpec> params(const OpSite& site, const Shape& out) {
  if (site.attrs.at("affine") == 0) return {};
  const Shape row = {channels(out)};
  return {{"gain", row, 1, 1, ParamRole::gain}, {"bias", row, 1, 1, ParamRole::offset}};
}

std::vector<StateSpec> state(const Attrs&, const Shape& out) {
  const Shape row = {channels(out)};
  return {{.name = "mean", .shape = row}, {.name = "variance", .shape = row, .start = 1}};
}

kernels::BatchNormShape shape(const OpCall& call) {
  kernels::BatchNormShape shape{.channels = channels(call.x[0].shape), .epsilon = call.attrs.at("epsilon")};
  if (!call.state.empty()) {
    shape.mean = call.state[0];
    shape.variance = call.state[1];
  }
  return shape;
}

View param(const OpCall& call, std::size_t i) { return i < call.w.size() ? call.w[i] : View{}; }

void predict(const OpCall& call, View mu, Write write) {
  kernels::batch_norm(
      call.exec,
      {.x = call.x[0], .gain = param(call, 0), .bias = param(call, 1), .y = mu, .shape = shape(call), .write = write});
}

void pullback(const OpCall& call, View delta, int, View dx, Write write) {
  kernels::batch_norm_pullback(
      call.exec, {.x = call.x[0], .gain = param(call, 0), .dy = delta, .dx = dx, .shape = shape(call), .write = write});
}

void weight_grad(const OpCall& call, View delta, int param, View dw, Write write) {
  if (param == 1) {
    return kernels::sum_rows(call.exec, {.x = as_places(delta, dw.count()), .row = dw, .write = write});
  }
  kernels::batch_norm_gain(call.exec, {.x = call.x[0], .dy = delta, .dgain = dw, .shape = shape(call), .write = write});
}

void observe(const OpCall& call) {
  kernels::batch_moments(call.exec, {.x = call.x[0],
                                     .mean = call.state[0],
                                     .variance = call.state[1],
                                     .channels = channels(call.x[0].shape),
                                     .part = call.attrs.at("momentum")});
}

std::vector<OpExample> examples() {
  return {{{{"epsilon", 0.5}}, {{1}}, {}},
          {{}, {{7}}, {}},
          {{{"epsilon", 0.1}}, {{2, 3, 5}}, {}},
          {{{"affine", 0}}, {{3, 11}}, {}}};
}

}  // namespace

extern const Op batch_norm = {.name = "batch_norm",
                              .about = "x with mean 0 and deviation 1 over the batch, times a gain, and a bias",
                              .attrs = kAttrs,
                              .keeps_shape = true,
                              .mixes_samples = true,
                              .infer = infer,
                              .params = params,
                              .predict = predict,
                              .pullback = pullback,
                              .weight_grad = weight_grad,
                              .state_serves = Op::Serves::looking,
                              .state = state,
                              .observe = observe,
                              .examples = examples};

}  // namespace pc::ops

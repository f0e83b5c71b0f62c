// Activations: mu = f(x), entry by entry.   x, mu [batch, shape]
#include <algorithm>
#include <cmath>

#include "kernels/map.h"
#include "pc/ops/ops.h"

namespace pc::ops {
namespace {

using scalar::Activation;

constexpr AttrSpec kLeak[] = {{"slope", 0.01, "slope below zero"}};

double leak(const Attrs& attrs) {
  const auto found = attrs.find("slope");
  return found == attrs.end() ? 0.0 : found->second;
}

Shape infer(const OpSite& site) { return site.sources[0]; }

template <Activation f>
void predict(const OpCall& call, View mu, Write write) {
  kernels::map(call.exec, {.x = call.x[0], .y = mu, .f = f, .leak = leak(call.attrs), .write = write});
}

template <Activation f>
void pullback(const OpCall& call, View delta, int, View dx, Write write) {
  kernels::map_pullback(call.exec,
                        {.x = call.x[0], .dy = delta, .dx = dx, .f = f, .leak = leak(call.attrs), .write = write});
}

/// sup |f'|. Those of gelu (at sqrt 2), gelu_tanh and silu come from mpmath, 10 digits after the point, rounded up.
template <Activation f>
double lipschitz(const Attrs& attrs) {
  if (f == Activation::leaky_relu) return std::max(1.0, std::abs(leak(attrs)));
  if (f == Activation::gelu) return 1.1289041452;
  if (f == Activation::gelu_tanh) return 1.1289930687;
  if (f == Activation::silu) return 1.0998393202;
  if (f == Activation::sigmoid) return 0.25;
  return 1;
}

std::vector<OpExample> examples() { return {{{}, {{1}}, {}}, {{}, {{3, 7}}, {}}}; }
std::vector<OpExample> leaky_examples() {
  return {{{}, {{1}}, {}}, {{}, {{3, 7}}, {}}, {{{"slope", -1.5}}, {{5}}, {}}};
}

template <Activation f>
constexpr Op activation(std::string_view name, std::string_view about, std::span<const AttrSpec> attrs = {}) {
  return {.name = name,
          .about = about,
          .attrs = attrs,
          .keeps_shape = true,
          .infer = infer,
          .predict = predict<f>,
          .pullback = pullback<f>,
          .activation = f,
          .lipschitz = lipschitz<f>,
          .examples = f == Activation::leaky_relu ? leaky_examples : examples};
}

}  // namespace

extern const Op relu = activation<Activation::relu>("relu", "max(x, 0)");
extern const Op leaky_relu = activation<Activation::leaky_relu>("leaky_relu", "x above zero, slope x below", kLeak);
extern const Op gelu = activation<Activation::gelu>("gelu", "x Phi(x), exact");
extern const Op gelu_tanh = activation<Activation::gelu_tanh>("gelu_tanh", "gelu's tanh form");
extern const Op silu = activation<Activation::silu>("silu", "x sigmoid(x)");
extern const Op tanh = activation<Activation::tanh>("tanh", "hyperbolic tangent");
extern const Op hard_tanh = activation<Activation::hard_tanh>("hard_tanh", "x clipped to [-1, 1]");
extern const Op sigmoid = activation<Activation::sigmoid>("sigmoid", "1 / (1 + e^-x)");
extern const Op softplus = activation<Activation::softplus>("softplus", "log(1 + e^x)");

}  // namespace pc::ops

// layer_norm: mu = gain (x - mean) / sqrt(variance + epsilon) + bias, and rms_norm: mu = gain x / sqrt(mean x^2 +
// epsilon), each over runs of the last entries of a sample.   x, mu [batch, shape]   gain, bias [width of a run]
#include "kernels/norm.h"

#include "kernels/arithmetic.h"
#include "kernels/window.h"
#include "pc/ops/ops.h"

namespace pc::ops {
namespace {

constexpr AttrSpec kLayer[] = {
    {"axes", 1, "how many of the last dimensions are normalised together; 1: each place's channels"},
    {"epsilon", 1e-5, "added to the variance"},
    {"affine", 1, "whether there are a gain and a bias; without a gain it is 1", AttrSpec::Kind::flag},
};
constexpr AttrSpec kRms[] = {
    {"axes", 1, "how many of the last dimensions are normalised together; 1: each place's channels"},
    {"epsilon", 1e-5, "added to the mean square"},
    {"affine", 1, "whether there is a gain; without, it is 1", AttrSpec::Kind::flag},
};

Shape infer(const OpSite& site) {
  const Shape& x = site.sources[0];
  const double axes = site.attrs.at("axes");
  PC_CHECK(axes >= 1 && axes <= x.rank() && axes == static_cast<int>(axes), "norm", "axes must be 1 to ", x.rank(),
           " for ", x.text(), ", not ", axes);
  PC_CHECK(site.attrs.at("epsilon") > 0, "norm", "epsilon must be above 0, not ", site.attrs.at("epsilon"));
  return x;
}

/// Entries of a run, of samples whose dimensions begin at `axis`.
std::int64_t width(const Shape& x, const Attrs& attrs) {
  std::int64_t n = 1;
  for (int i = 1; i <= static_cast<int>(attrs.at("axes")); ++i) n *= x[x.rank() - i];
  return n;
}

template <bool centred>
std::vector<ParamSpec> params(const OpSite& site, const Shape& out) {
  const std::int64_t n = width(out, site.attrs);
  if (site.attrs.at("affine") == 0) return {};
  std::vector<ParamSpec> list = {{"gain", {n}, 1, 1, ParamRole::gain}};
  if (centred) list.push_back({"bias", {n}, 1, 1, ParamRole::offset});
  return list;
}

template <bool centred>
kernels::NormShape shape(const OpCall& call) {
  return {.width = width(call.x[0].shape, call.attrs), .centred = centred, .epsilon = call.attrs.at("epsilon")};
}

View param(const OpCall& call, std::size_t i) { return i < call.w.size() ? call.w[i] : View{}; }

template <bool centred>
void predict(const OpCall& call, View mu, Write write) {
  kernels::norm(call.exec, {.x = call.x[0],
                            .gain = param(call, 0),
                            .bias = param(call, 1),
                            .y = mu,
                            .shape = shape<centred>(call),
                            .write = write});
}

template <bool centred>
void pullback(const OpCall& call, View delta, int, View dx, Write write) {
  kernels::norm_pullback(
      call.exec,
      {.x = call.x[0], .gain = param(call, 0), .dy = delta, .dx = dx, .shape = shape<centred>(call), .write = write});
}

template <bool centred>
void weight_grad(const OpCall& call, View delta, int param, View dw, Write write) {
  if (param == 1) {
    return kernels::sum_rows(call.exec, {.x = as_places(delta, dw.count()), .row = dw, .write = write});
  }
  kernels::norm_gain(call.exec,
                     {.x = call.x[0], .dy = delta, .dgain = dw, .shape = shape<centred>(call), .write = write});
}

std::vector<OpExample> examples() {
  return {{{{"epsilon", 0.5}}, {{1}}, {}},
          {{}, {{7}}, {}},
          {{}, {{2, 3, 5}}, {}},
          {{{"axes", 2}, {"epsilon", 0.1}}, {{2, 3, 2}}, {}},
          {{{"axes", 2}, {"affine", 0}}, {{3, 5}}, {}}};
}

template <bool centred>
constexpr Op norm(std::string_view name, std::string_view about, std::span<const AttrSpec> attrs) {
  return {.name = name,
          .about = about,
          .attrs = attrs,
          .keeps_shape = true,
          .infer = infer,
          .params = params<centred>,
          .predict = predict<centred>,
          .pullback = pullback<centred>,
          .weight_grad = weight_grad<centred>,
          .examples = examples};
}

}  // namespace

extern const Op layer_norm =
    norm<true>("layer_norm", "x with mean 0 and deviation 1, times a gain, and a bias", kLayer);
extern const Op rms_norm = norm<false>("rms_norm", "x with mean square 1, times a gain", kRms);

}  // namespace pc::ops

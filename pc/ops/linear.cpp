// linear: mu = g x W^T + b.   x [batch, in]   W [out, in]   b [out]   mu [batch, out]
#include <cmath>

#include "kernels/arithmetic.h"
#include "kernels/gemm.h"
#include "pc/ops/ops.h"

namespace pc::ops {
namespace {

using kernels::Trans;

constexpr double beta(Write write) { return write == Write::add ? 1.0 : 0.0; }

constexpr AttrSpec kAttrs[] = {
    {"units", 0, "width of the result; 0: as the node it predicts"},
    {"bias", 1, "whether there is a bias"},
    {"gain", 1, "a factor of the product; the bias is not multiplied"},
};

double gain(const OpCall& call) { return call.attrs.at("gain"); }

Shape infer(const OpSite& site) {
  const double asked = site.attrs.at("units");
  PC_CHECK(asked >= 0 && asked < 1e12 && asked == std::floor(asked), "linear",
           "units must be a whole number of outputs, not ", asked);
  const auto units = static_cast<std::int64_t>(asked);
  if (units > 0) return {units};
  PC_CHECK(site.wanted.has_value(), "linear", "its width is not known here; write {linear: {units: N}}");
  return *site.wanted;
}

std::vector<ParamSpec> params(const OpSite& site, const Shape& out) {
  const std::int64_t in = site.sources[0].count(), n = out.count();
  std::vector<ParamSpec> specs = {{"weight", {n, in}, in, n, ParamRole::weight}};
  if (site.attrs.at("bias") != 0) specs.push_back({"bias", {n}, in, n, ParamRole::bias});
  return specs;
}

void predict(const OpCall& call, View mu, Write write) {
  if (call.w.size() > 1) {
    kernels::add_row(call.exec, {.row = call.w[1], .y = mu, .write = write});
    write = Write::add;
  }
  kernels::gemm(
      call.exec,
      {.a = call.x[0], .b = call.w[0], .c = mu, .trans_b = Trans::yes, .alpha = gain(call), .beta = beta(write)});
}

void pullback(const OpCall& call, View delta, int, View dx, Write write) {  // g delta W
  kernels::gemm(call.exec, {.a = delta, .b = call.w[0], .c = dx, .alpha = gain(call), .beta = beta(write)});
}

void weight_grad(const OpCall& call, View delta, int param, View dw, Write write) {
  if (param == 1) return kernels::sum_rows(call.exec, {.x = delta, .row = dw, .write = write});
  // g delta^T x
  kernels::gemm(call.exec,
                {.a = delta, .b = call.x[0], .c = dw, .trans_a = Trans::yes, .alpha = gain(call), .beta = beta(write)});
}

double lipschitz(const Attrs& attrs) { return std::abs(attrs.at("gain")); }

std::vector<OpExample> examples() {
  return {{{}, {{1}}, Shape{1}},
          {{}, {{7}}, Shape{3}},
          {{{"bias", 0}}, {{5, 3}}, Shape{2, 2}},
          {{{"units", 4}}, {{3}}, {}},
          {{{"gain", -0.4}}, {{5}}, Shape{3}}};
}

}  // namespace

extern const Op linear{.name = "linear",
                       .about = "g x W^T + b",
                       .attrs = kAttrs,
                       .infer = infer,
                       .params = params,
                       .predict = predict,
                       .pullback = pullback,
                       .weight_grad = weight_grad,
                       .lipschitz = lipschitz,
                       .examples = examples};

}  // namespace pc::ops

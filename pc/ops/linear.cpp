// linear: mu = g x W^T + b.   x [batch, in]   W [out, in]   b [out]   mu [batch, out]
// With last_axis the same for every token: x [batch, ..., in]   mu [batch, ..., out]
#include <cmath>

#include "kernels/arithmetic.h"
#include "kernels/gemm.h"
#include "pc/ops/ops.h"
#include "pc/ops/settings.h"
#include "pc/ops/tokens.h"

namespace pc::ops {
namespace {

using kernels::Trans;

constexpr AttrSpec kAttrs[] = {
    {"units", 0, "width of the result; 0: as the node it predicts"},
    {"bias", 1, "whether there is a bias", AttrSpec::Kind::flag},
    {"gain", 1, "a factor of the product; the bias is not multiplied"},
    {"last_axis", 0, "whether it works along the last axis, for each index of the others alike", AttrSpec::Kind::flag},
};

double gain(const OpCall& call) { return call.attrs.at("gain"); }
bool by_token(const Attrs& attrs) { return attrs.at("last_axis") != 0; }

/// How many times a sample has what the weights apply to.
std::int64_t tokens(const OpCall& call) {
  const View& x = call.x[0];
  return by_token(call.attrs) ? x.cols() / last(x.shape) : 1;
}

Shape infer(const OpSite& site) {
  const std::int64_t units = whole_setting("linear", site.attrs, "units", 0, 999999999999);
  PC_CHECK(units > 0 || site.wanted.has_value(), "linear", "its width is not known here; write {linear: {units: N}}");
  if (by_token(site.attrs)) return with_last(site.sources[0], units > 0 ? units : last(*site.wanted));
  return units > 0 ? Shape{units} : *site.wanted;
}

std::vector<ParamSpec> params(const OpSite& site, const Shape& out) {
  const bool all = !by_token(site.attrs);
  const std::int64_t in = all ? site.sources[0].count() : last(site.sources[0]), n = all ? out.count() : last(out);
  std::vector<ParamSpec> specs = {{"weight", {n, in}, in, n, ParamRole::weight}};
  if (site.attrs.at("bias") != 0) specs.push_back({"bias", {n}, in, n, ParamRole::bias});
  return specs;
}

void predict(const OpCall& call, View mu, Write write) {
  each_token<2>(tokens(call), {call.x[0], mu}, [&](const auto& of, bool) {
    Write next = write;
    if (call.w.size() > 1 && !call.changes) {
      kernels::add_row(call.exec, {.row = call.w[1], .y = of[1], .write = write});
      next = Write::add;
    }
    kernels::gemm(
        call.exec,
        {.a = of[0], .b = call.w[0], .c = of[1], .trans_b = Trans::yes, .alpha = gain(call), .beta = beta(next)});
  });
}

void pullback(const OpCall& call, View delta, int, View dx, Write write) {  // g delta W
  each_token<2>(tokens(call), {delta, dx}, [&](const auto& of, bool) {
    kernels::gemm(call.exec, {.a = of[0], .b = call.w[0], .c = of[1], .alpha = gain(call), .beta = beta(write)});
  });
}

void weight_grad(const OpCall& call, View delta, int param, View dw, Write write) {
  each_token<2>(tokens(call), {delta, call.x[0]}, [&](const auto& of, bool first) {
    const Write next = first ? write : Write::add;
    if (param == 1) return kernels::sum_rows(call.exec, {.x = of[0], .row = dw, .write = next});
    // g delta^T x
    kernels::gemm(call.exec,
                  {.a = of[0], .b = of[1], .c = dw, .trans_a = Trans::yes, .alpha = gain(call), .beta = beta(next)});
  });
}

double lipschitz(const Attrs& attrs) { return std::abs(attrs.at("gain")); }

std::vector<OpExample> examples() {
  return {{{}, {{1}}, Shape{1}},
          {{}, {{7}}, Shape{3}},
          {{{"bias", 0}}, {{5, 3}}, Shape{2, 2}},
          {{{"units", 4}}, {{3}}, {}},
          {{{"gain", -0.4}}, {{5}}, Shape{3}},
          {{{"last_axis", 1}, {"gain", 0.7}}, {{3, 5}}, Shape{3, 2}},
          {{{"last_axis", 1}, {"bias", 0}, {"units", 4}}, {{2, 1, 3}}, {}}};
}

}  // namespace

extern const Op linear{.name = "linear",
                       .about = "g x W^T + b",
                       .attrs = kAttrs,
                       .affine = true,
                       .products = true,
                       .infer = infer,
                       .params = params,
                       .predict = predict,
                       .pullback = pullback,
                       .weight_grad = weight_grad,
                       .lipschitz = lipschitz,
                       .examples = examples,
                       .sums_last_axis = true};

}  // namespace pc::ops

// embedding: mu = rows of a table, by the numbers that x holds.   x [batch, ...]   W [entries, n]   mu [batch, ..., n]
// A number stands for the nearest entry, so that every x has a prediction; its slope with respect to x is 0, and
// nothing flows back to x. Clamp it.

#include "kernels/arithmetic.h"
#include "kernels/embed.h"
#include "pc/ops/ops.h"
#include "pc/ops/settings.h"
#include "pc/ops/tokens.h"

namespace pc::ops {
namespace {

constexpr AttrSpec kAttrs[] = {
    {"entries", 0, "how many different things there are: x holds 0 to entries - 1"},
    {"units", 0, "width of an entry; 0: as the last axis of the node it predicts"},
};

std::int64_t whole(const Attrs& attrs, std::string_view name) {
  return whole_setting("embedding", attrs, name, 0, 999999999);
}

Shape infer(const OpSite& site) {
  PC_CHECK(whole(site.attrs, "entries") > 0, "embedding", "write {embedding: {entries: N}}, the number of entries");
  const std::int64_t units = whole(site.attrs, "units");
  PC_CHECK(units > 0 || site.wanted.has_value(), "embedding",
           "its width is not known here; write {embedding: {units: N}}");
  Shape out = site.sources[0];
  out.append(units > 0 ? units : last(*site.wanted));
  return out;
}

std::vector<ParamSpec> params(const OpSite& site, const Shape& out) {
  return {{"weight", {whole(site.attrs, "entries"), last(out)}, last(out), last(out), ParamRole::weight}};
}

void predict(const OpCall& call, View mu, Write write) {
  kernels::embed(call.exec, {.x = call.x[0], .table = call.w[0], .y = mu, .write = write});
}

void pullback(const OpCall& call, View, int, View dx, Write write) {
  if (write == Write::set) kernels::fill(call.exec, {.out = dx, .value = 0});
}

void weight_grad(const OpCall& call, View delta, int, View dw, Write write) {
  kernels::embed_grad(call.exec, {.x = call.x[0], .dy = delta, .dtable = dw, .write = write});
}

std::vector<OpExample> examples() {
  return {{{{"entries", 1}, {"units", 1}}, {{1}}, {}},
          {{{"entries", 3}}, {{5}}, Shape{5, 2}},
          {{{"entries", 2}, {"units", 3}}, {{2, 3}}, {}}};
}

}  // namespace

extern const Op embedding{.name = "embedding",
                          .about = "rows of a trainable table, by their numbers",
                          .attrs = kAttrs,
                          .infer = infer,
                          .params = params,
                          .predict = predict,
                          .pullback = pullback,
                          .weight_grad = weight_grad,
                          .examples = examples};

}  // namespace pc::ops

// sparse_linear: mu = g x W^T + b, where W has weights at the entries of the edge's pattern alone, in its order.
//   x [batch, in]   W [out, in]   weight [entries]   b [out]   mu [batch, out]
// Both ways along the edge are products with an index (kernels/sparse.h); that of the transposed matrix has its own
// copy of the weights, in its own order, which `prepare` makes once for all the products until they change. So has the
// other, where products go by blocks.
#include <cmath>

#include "kernels/arithmetic.h"
#include "pc/ops/ops.h"

namespace pc::ops {
namespace {

constexpr AttrSpec kAttrs[] = {
    {"bias", 1, "whether there is a bias", AttrSpec::Kind::flag},
    {"gain", 1, "a factor of the product; the bias is not multiplied"},
};

double gain(const OpCall& call) { return call.attrs.at("gain"); }

Shape infer(const OpSite& site) {
  PC_CHECK(site.wanted.has_value(), "sparse_linear", "its width is not known here; it must lead to a node");
  return *site.wanted;
}

/// Fans are those of the mean neuron.
std::vector<ParamSpec> params(const OpSite& site, const Shape& out) {
  const Pattern& pattern = *site.pattern;
  const auto mean = [&](std::int64_t n) {
    return std::max<std::int64_t>(1, std::llround(double(pattern.count()) / double(n)));
  };
  const std::int64_t in = mean(pattern.rows), fan_out = mean(pattern.cols);
  std::vector<ParamSpec> specs = {{"weight", {pattern.count()}, in, fan_out, ParamRole::weight}};
  if (site.attrs.at("bias") != 0) specs.push_back({"bias", {out.count()}, in, fan_out, ParamRole::bias});
  return specs;
}

/// x^T, in the room that the network has for it.
View turn(const OpCall& call, const View& x, const View& room) {
  const View x_t = room.first_rows(x.cols()).columns(0, x.rows());
  kernels::transpose(call.exec, {.x = x, .y = x_t});
  return x_t;
}

/// g x W^T, to be written to y.
kernels::SparseProductArgs forward(const OpCall& call, const View& y, Write write) {
  const SparseViews& at = *call.sparse;
  return {.index = at.by_row,
          .values = call.copies_by_row() ? at.values_by_row : call.w[0],
          .x_t = at.predicts_by_blocks() ? call.turned : turn(call, call.x[0], at.source_room),
          .y = y,
          .alpha = gain(call),
          .write = write,
          .base = call.base};
}

/// g delta W, to be written to y.
kernels::SparseProductArgs backward(const OpCall& call, const View& delta, const View& y, Write write) {
  const SparseViews& at = *call.sparse;
  return {.index = at.by_column,
          .values = at.values_by_column,
          .x_t = at.pulls_by_blocks() ? call.turned : turn(call, delta, at.target_room),
          .y = y,
          .alpha = gain(call),
          .write = write,
          .base = call.base};
}

void predict(const OpCall& call, View mu, Write write) {
  if (call.w.size() > 1 && !call.changes) {
    kernels::add_row(call.exec, {.row = call.w[1], .y = mu, .write = write});
    write = Write::add;
  }
  kernels::sparse_product(call.exec, forward(call, mu, write));
}

void predict_error(const OpCall& call, kernels::SparseErrorArgs args) {
  args.product = forward(call, args.product.y, Write::set);
  kernels::sparse_error(call.exec, args);
}

void prepare(const OpCall& call) {
  const SparseViews& at = *call.sparse;
  kernels::permute(call.exec, {.x = call.w[0], .from = at.place_by_column, .y = at.values_by_column});
  if (!call.copies_by_row()) return;
  kernels::permute(call.exec, {.x = call.w[0], .from = at.place_by_row, .y = at.values_by_row});
}

void pullback(const OpCall& call, View delta, int, View dx, Write write) {
  kernels::sparse_product(call.exec, backward(call, delta, dx, write));
}

void pullback_move(const OpCall& call, kernels::SparseMoveArgs args) {
  args.product = backward(call, {}, args.product.y, Write::set);
  kernels::sparse_move(call.exec, args);
}

void weight_grad(const OpCall& call, View delta, int param, View dw, Write write) {
  if (param == 1) return kernels::sum_rows(call.exec, {.x = delta, .row = dw, .write = write});
  const SparseViews& at = *call.sparse;
  kernels::sparse_gradient(call.exec, {.index = at.by_row,
                                       .d_t = turn(call, delta, at.target_room),
                                       .x_t = turn(call, call.x[0], at.source_room),
                                       .dw = dw,
                                       .alpha = gain(call),
                                       .write = write});
}

double lipschitz(const Attrs& attrs) { return std::abs(attrs.at("gain")); }

std::vector<OpExample> examples() {
  const auto pattern = [](std::int64_t rows, std::int64_t cols, std::vector<std::uint8_t> mask) {
    return std::make_shared<const Pattern>(pattern_of(mask, rows, cols));
  };
  return {{{}, {{1}}, Shape{1}, pattern(1, 1, {1})},
          {{}, {{7}}, Shape{3}, pattern(3, 7, {1, 0, 1, 1, 0, 0, 0,  //
                                               0, 0, 0, 0, 0, 0, 0,  //
                                               0, 1, 1, 0, 0, 0, 1})},
          {{{"bias", 0}, {"gain", -0.4}}, {{5, 1}}, Shape{2, 2}, pattern(4, 5, {0, 1, 0, 0, 0,  //
                                                                                1, 1, 1, 1, 1,  //
                                                                                0, 0, 0, 1, 0,  //
                                                                                1, 0, 0, 0, 0})}};
}

}  // namespace

extern const Op sparse_linear{.name = "sparse_linear",
                              .about = "g x W^T + b, with weights where the edge's mask has them alone",
                              .attrs = kAttrs,
                              .affine = true,
                              .sparse = true,
                              .infer = infer,
                              .params = params,
                              .predict = predict,
                              .prepare = prepare,
                              .pullback = pullback,
                              .weight_grad = weight_grad,
                              .predict_error = predict_error,
                              .pullback_move = pullback_move,
                              .lipschitz = lipschitz,
                              .examples = examples};

}  // namespace pc::ops

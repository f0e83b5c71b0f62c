// permute: mu = x with its axes in another order.   x, mu [batch, shape]
#include <cmath>

#include "kernels/rearrange.h"
#include "pc/ops/ops.h"

namespace pc::ops {
namespace {

constexpr int kAxes = Shape::kMaxRank - 1;  // of a sample

constexpr AttrSpec kPermuteAttrs[] = {
    {"order", 10, "which axis of x each axis of the result is, one digit each: 102 exchanges the first two of three"},
};

/// Axis k of the result is axis order[k] of x.
std::array<int, kAxes> order_of(const Attrs& attrs, int rank) {
  const double asked = attrs.find("order")->second;
  std::array<int, kAxes> order{};
  std::array<bool, kAxes> used{};
  bool right = rank <= kAxes && asked >= 0 && asked == std::floor(asked) && asked < std::pow(10, rank);
  auto digits = static_cast<std::int64_t>(right ? asked : 0);
  for (int k = rank - 1; k >= 0 && right; --k, digits /= 10) {
    const auto axis = static_cast<std::size_t>(digits % 10);
    right = axis < static_cast<std::size_t>(rank) && !used[axis];
    if (!right) break;
    used[axis] = true;
    order[static_cast<std::size_t>(k)] = static_cast<int>(axis);
  }
  PC_CHECK(right, "permute", "order ", asked, " does not name each of ", rank,
           " axes once; 10 transposes a matrix, 102 exchanges the first two axes of three");
  return order;
}

/// `x` is a sample's shape. Steps in the source for a walk through the result, axis by axis.
kernels::RearrangeArgs walk_of(const Shape& x, const Attrs& attrs) {
  const int rank = x.rank();
  const auto order = order_of(attrs, rank);
  std::array<std::int64_t, kAxes> step{};
  std::int64_t run = 1;
  for (int axis = rank - 1; axis >= 0; --axis) {
    step[static_cast<std::size_t>(axis)] = run;
    run *= x[axis];
  }
  kernels::RearrangeArgs walk;
  run = 1;
  for (int k = rank - 1; k >= 0; --k) {
    const auto at = static_cast<std::size_t>(kAxes - rank + k);  // the innermost axis last
    const auto from = static_cast<std::size_t>(order[static_cast<std::size_t>(k)]);
    walk.dims[at] = x[static_cast<int>(from)];
    walk.from.step[at] = step[from];
    walk.to.step[at] = run;
    run *= walk.dims[at];
  }
  return walk;
}

Shape sample_of(const View& value) {
  Shape shape;
  for (int axis = 1; axis < value.shape.rank(); ++axis) shape.append(value.shape[axis]);
  return shape;
}

Shape infer_permute(const OpSite& site) {
  const Shape& x = site.sources[0];
  const auto order = order_of(site.attrs, x.rank());
  Shape out;
  for (int k = 0; k < x.rank(); ++k) out.append(x[order[static_cast<std::size_t>(k)]]);
  return out;
}

void predict_permute(const OpCall& call, View mu, Write write) {
  kernels::RearrangeArgs walk = walk_of(sample_of(call.x[0]), call.attrs);
  walk.x = call.x[0];
  walk.y = mu;
  walk.write = write;
  kernels::rearrange(call.exec, walk);
}

void pullback_permute(const OpCall& call, View delta, int, View dx, Write write) {
  kernels::RearrangeArgs walk = walk_of(sample_of(call.x[0]), call.attrs);
  std::swap(walk.from, walk.to);
  walk.x = delta;
  walk.y = dx;
  walk.write = write;
  kernels::rearrange(call.exec, walk);
}

std::vector<OpExample> permute_examples() {
  return {{{}, {{3, 5}}, {}},
          {{{"order", 102}}, {{2, 3, 5}}, {}},
          {{{"order", 120}}, {{2, 3, 5}}, {}},
          {{{"order", 3021}}, {{2, 1, 3, 2}}, {}}};
}

double lipschitz_one(const Attrs&) { return 1; }

}  // namespace

extern const Op permute{.name = "permute",
                        .about = "the axes of x in another order",
                        .attrs = kPermuteAttrs,
                        .affine = true,
                        .infer = infer_permute,
                        .predict = predict_permute,
                        .pullback = pullback_permute,
                        .lipschitz = lipschitz_one,
                        .examples = permute_examples};

}  // namespace pc::ops

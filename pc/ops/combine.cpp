// Operators that put values together: add (x1 + x2 + ...), subtract (x1 - x2), multiply (x1 x2, entry by entry) and
// concat (side by side, or along an axis); and slice, which takes a part of one.

#include "kernels/arithmetic.h"
#include "kernels/rearrange.h"
#include "pc/ops/axes.h"
#include "pc/ops/ops.h"
#include "pc/ops/settings.h"

namespace pc::ops {
namespace {

Shape same_shape(const char* who, const OpSite& site) {
  for (const Shape& shape : site.sources) {
    PC_CHECK(shape == site.sources[0], who, "sources of shapes ", site.sources[0].text(), " and ", shape.text(),
             " differ");
  }
  return site.sources[0];
}

void accumulate(const OpCall& call, const View& from, const View& to, Write write, double by = 1) {
  kernels::axpby(call.exec, {.x = from, .y = to, .a = by, .b = write == Write::add ? 1.0 : 0.0});
}

Shape infer_add(const OpSite& site) { return same_shape("add", site); }

void predict_add(const OpCall& call, View mu, Write write) {
  for (const View& x : call.x) {
    accumulate(call, x, mu, write);
    write = Write::add;
  }
}

void pullback_add(const OpCall& call, View delta, int, View dx, Write write) { accumulate(call, delta, dx, write); }

Shape infer_subtract(const OpSite& site) { return same_shape("subtract", site); }

void predict_subtract(const OpCall& call, View mu, Write write) {
  accumulate(call, call.x[0], mu, write);
  accumulate(call, call.x[1], mu, Write::add, -1);
}

void pullback_subtract(const OpCall& call, View delta, int source, View dx, Write write) {
  accumulate(call, delta, dx, write, source == 0 ? 1 : -1);
}

Shape infer_multiply(const OpSite& site) { return same_shape("multiply", site); }

void predict_multiply(const OpCall& call, View mu, Write write) {
  kernels::multiply(call.exec, {.a = call.x[0], .b = call.x[1], .y = mu, .write = write});
}

void pullback_multiply(const OpCall& call, View delta, int source, View dx, Write write) {
  const View& other = call.x[static_cast<std::size_t>(1 - source)];
  kernels::multiply(call.exec, {.a = delta, .b = other, .y = dx, .write = write});
}

constexpr AttrSpec kConcatAttrs[] = {
    {"axis", -1, "the axis along which sources are joined; -1: each is laid out as one vector"},
};

std::int64_t whole(const char* who, const Attrs& attrs, std::string_view name) {
  return whole_setting(who, attrs, name, 0, 999999999999);
}

/// `part` is entries [begin, begin + its length) along the axis of `all`; copies the one to the other.
void move_part(const OpCall& call, const View& from, const View& to, const Cut& part, const Cut& all,
               std::int64_t begin, bool into_all, Write write) {
  const kernels::Walk in_part{0, {0, 0, part.run(), 1}}, in_all{begin * all.inner, {0, 0, all.run(), 1}};
  kernels::rearrange(call.exec, {.x = from,
                                 .y = to,
                                 .dims = {1, 1, part.outer, part.run()},
                                 .from = into_all ? in_part : in_all,
                                 .to = into_all ? in_all : in_part,
                                 .write = write});
}

/// Joined along an axis, or a vector as long as all sources together, or of the shape that is wanted where it has as
/// many entries.
Shape infer_concat(const OpSite& site) {
  const Shape& first = site.sources[0];
  const int axis = axis_of("concat", site.attrs, first);
  std::int64_t total = 0;
  if (axis < 0) {
    for (const Shape& shape : site.sources) total += shape.count();
    return site.as_wanted({total});
  }
  for (const Shape& shape : site.sources) {
    bool fits = shape.rank() == first.rank();
    for (int i = 0; i < first.rank() && fits; ++i) fits = i == axis || shape[i] == first[i];
    PC_CHECK(fits, "concat", first.text(), " and ", shape.text(), " cannot be joined along axis ", axis);
    total += shape[axis];
  }
  return with_axis(first, axis, total);
}

/// Where a source's part of a joined value lies. The axis of a value is one further than that of a sample.
struct Joint {
  Cut part, all;
  std::int64_t begin = 0;

  Joint(const OpCall& call, int source)
      : part(call.x[static_cast<std::size_t>(source)].shape, 1, axis(call)), all(call.x[0].shape, 1, axis(call)) {
    all.length = 0;
    for (int i = 0; i < static_cast<int>(call.x.size()); ++i) {
      if (i == source) begin = all.length;
      all.length += Cut(call.x[static_cast<std::size_t>(i)].shape, 1, axis(call)).length;
    }
  }
  static int axis(const OpCall& call) { return static_cast<int>(call.attrs.find("axis")->second); }
};

void predict_concat(const OpCall& call, View mu, Write write) {
  for (int i = 0; i < static_cast<int>(call.x.size()); ++i) {
    const Joint at(call, i);
    move_part(call, call.x[static_cast<std::size_t>(i)], mu, at.part, at.all, at.begin, true, write);
  }
}

void pullback_concat(const OpCall& call, View delta, int source, View dx, Write write) {
  const Joint at(call, source);
  move_part(call, delta, dx, at.part, at.all, at.begin, false, write);
}

constexpr AttrSpec kSliceAttrs[] = {
    {"begin", 0, "the first entry"},
    {"count", 0, "how many entries; 0: as many as the node it predicts has"},
    {"axis", -1, "the axis that is cut; -1: the source is laid out as one vector"},
};

/// A vector of `count` entries, or of the shape that is wanted where it has as many; along an axis, the source's shape
/// with that axis shorter.
Shape infer_slice(const OpSite& site) {
  const Shape& x = site.sources[0];
  const std::int64_t begin = whole("slice", site.attrs, "begin"), asked = whole("slice", site.attrs, "count");
  const int axis = axis_of("slice", site.attrs, x);
  const bool known = axis < 0 || (site.wanted.has_value() && site.wanted->rank() == x.rank());
  PC_CHECK(asked > 0 || (known && site.wanted.has_value()), "slice",
           "its length is not known here; write {slice: {count: N}}");
  const std::int64_t total = axis < 0 ? x.count() : x[axis];
  const std::int64_t count = asked > 0 ? asked : axis < 0 ? site.wanted->count() : (*site.wanted)[axis];
  PC_CHECK(begin + count <= total, "slice", "entries ", begin, " to ", begin + count - 1, " of a source of shape ",
           x.text(), ", which has ", total);
  return axis < 0 ? site.as_wanted({count}) : with_axis(x, axis, count);
}

/// `y` is the slice, in whichever shape.
Cut part_of(const Cut& all, const View& y) {
  Cut part = all;
  part.length = y.cols() / (all.outer * all.inner);
  return part;
}

void predict_slice(const OpCall& call, View mu, Write write) {
  const Cut all(call.x[0].shape, 1, static_cast<int>(call.attrs.find("axis")->second));
  move_part(call, call.x[0], mu, part_of(all, mu), all, whole("slice", call.attrs, "begin"), false, write);
}

void pullback_slice(const OpCall& call, View delta, int, View dx, Write write) {
  const Cut all(call.x[0].shape, 1, static_cast<int>(call.attrs.find("axis")->second));
  if (write == Write::set) kernels::fill(call.exec, {.out = dx, .value = 0});
  move_part(call, delta, dx, part_of(all, delta), all, whole("slice", call.attrs, "begin"), true, Write::add);
}

double lipschitz_one(const Attrs&) { return 1; }

std::vector<OpExample> add_examples() { return {{{}, {{1}}, {}}, {{}, {{3, 5}, {3, 5}, {3, 5}}, {}}}; }
std::vector<OpExample> multiply_examples() { return {{{}, {{1}, {1}}, {}}, {{}, {{3, 5}, {3, 5}}, {}}}; }
std::vector<OpExample> subtract_examples() { return {{{}, {{1}, {1}}, {}}, {{}, {{3, 5}, {3, 5}}, {}}}; }
std::vector<OpExample> concat_examples() {
  return {{{}, {{3}}, {}},
          {{}, {{1}, {2, 3}, {5}}, {}},
          {{}, {{5}, {5}, {5}}, Shape{3, 5}},
          {{{"axis", 1}}, {{2, 3, 5}, {2, 1, 5}}, {}},
          {{{"axis", 1}}, {{3, 2}, {3, 2}, {3, 1}}, Shape{3, 5}}};
}
std::vector<OpExample> slice_examples() {
  return {{{}, {{1}}, Shape{1}},
          {{{"begin", 2}, {"count", 3}}, {{7}}, {}},
          {{{"begin", 1}}, {{3, 5}}, Shape{2, 3}},
          {{{"begin", 1}, {"count", 2}, {"axis", 1}}, {{3, 5, 2}}, {}},
          {{{"begin", 2}, {"axis", 0}}, {{3, 5}}, Shape{1, 5}}};
}

}  // namespace

extern const Op add{.name = "add",
                    .about = "x1 + x2 + ...",
                    .max_sources = -1,
                    .affine = true,
                    .infer = infer_add,
                    .predict = predict_add,
                    .pullback = pullback_add,
                    .lipschitz = lipschitz_one,
                    .examples = add_examples};

extern const Op subtract{.name = "subtract",
                         .about = "x1 - x2",
                         .min_sources = 2,
                         .max_sources = 2,
                         .affine = true,
                         .infer = infer_subtract,
                         .predict = predict_subtract,
                         .pullback = pullback_subtract,
                         .lipschitz = lipschitz_one,
                         .examples = subtract_examples};

extern const Op multiply{.name = "multiply",
                         .about = "x1 x2, entry by entry",
                         .min_sources = 2,
                         .max_sources = 2,
                         .infer = infer_multiply,
                         .predict = predict_multiply,
                         .pullback = pullback_multiply,
                         .examples = multiply_examples};

extern const Op concat{.name = "concat",
                       .about = "x1, x2, ... side by side",
                       .max_sources = -1,
                       .attrs = kConcatAttrs,
                       .affine = true,
                       .infer = infer_concat,
                       .predict = predict_concat,
                       .pullback = pullback_concat,
                       .lipschitz = lipschitz_one,
                       .examples = concat_examples};

extern const Op slice{.name = "slice",
                      .about = "some entries of x, one after another",
                      .attrs = kSliceAttrs,
                      .affine = true,
                      .infer = infer_slice,
                      .predict = predict_slice,
                      .pullback = pullback_slice,
                      .lipschitz = lipschitz_one,
                      .examples = slice_examples};

}  // namespace pc::ops

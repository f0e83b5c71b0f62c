// Operators that put values together: add (x1 + x2 + ...), subtract (x1 - x2), multiply (x1 x2, entry by entry) and
// concat (side by side); and slice, which takes a part of one.
#include <cmath>

#include "kernels/arithmetic.h"
#include "pc/ops/ops.h"

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

/// A vector as long as all sources together, or of the shape that is wanted where it has as many entries.
Shape infer_concat(const OpSite& site) {
  std::int64_t total = 0;
  for (const Shape& shape : site.sources) total += shape.count();
  return site.as_wanted({total});
}

std::int64_t offset(const OpCall& call, int source) {
  std::int64_t begin = 0;
  for (int i = 0; i < source; ++i) begin += call.x[static_cast<std::size_t>(i)].cols();
  return begin;
}

void predict_concat(const OpCall& call, View mu, Write write) {
  for (std::size_t i = 0; i < call.x.size(); ++i) {
    accumulate(call, call.x[i], mu.columns(offset(call, static_cast<int>(i)), call.x[i].cols()), write);
  }
}

void pullback_concat(const OpCall& call, View delta, int source, View dx, Write write) {
  accumulate(call, delta.columns(offset(call, source), dx.cols()), dx, write);
}

constexpr AttrSpec kSliceAttrs[] = {
    {"begin", 0, "the first entry, of the source laid out as one vector"},
    {"count", 0, "how many entries; 0: as many as the node it predicts has"},
};

std::int64_t whole(const Attrs& attrs, std::string_view name) {
  const double value = attrs.find(name)->second;
  PC_CHECK(value >= 0 && value < 1e12 && value == std::floor(value), "slice", name,
           " must be a whole number of entries, not ", value);
  return static_cast<std::int64_t>(value);
}

/// A vector of `count` entries, or of the shape that is wanted where it has as many.
Shape infer_slice(const OpSite& site) {
  const std::int64_t begin = whole(site.attrs, "begin"), asked = whole(site.attrs, "count");
  const std::int64_t total = site.sources[0].count();
  PC_CHECK(asked > 0 || site.wanted.has_value(), "slice", "its length is not known here; write {slice: {count: N}}");
  const std::int64_t count = asked > 0 ? asked : site.wanted->count();
  PC_CHECK(begin + count <= total, "slice", "entries ", begin, " to ", begin + count - 1, " of a source of shape ",
           site.sources[0].text(), ", which has ", total);
  return site.as_wanted({count});
}

void predict_slice(const OpCall& call, View mu, Write write) {
  accumulate(call, call.x[0].columns(whole(call.attrs, "begin"), mu.cols()), mu, write);
}

void pullback_slice(const OpCall& call, View delta, int, View dx, Write write) {
  if (write == Write::set) kernels::fill(call.exec, {.out = dx, .value = 0});
  accumulate(call, delta, dx.columns(whole(call.attrs, "begin"), delta.cols()), Write::add);
}

double lipschitz_one(const Attrs&) { return 1; }

std::vector<OpExample> add_examples() { return {{{}, {{1}}, {}}, {{}, {{3, 5}, {3, 5}, {3, 5}}, {}}}; }
std::vector<OpExample> multiply_examples() { return {{{}, {{1}, {1}}, {}}, {{}, {{3, 5}, {3, 5}}, {}}}; }
std::vector<OpExample> subtract_examples() { return {{{}, {{1}, {1}}, {}}, {{}, {{3, 5}, {3, 5}}, {}}}; }
std::vector<OpExample> concat_examples() {
  return {{{}, {{3}}, {}}, {{}, {{1}, {2, 3}, {5}}, {}}, {{}, {{5}, {5}, {5}}, Shape{3, 5}}};
}
std::vector<OpExample> slice_examples() {
  return {{{}, {{1}}, Shape{1}}, {{{"begin", 2}, {"count", 3}}, {{7}}, {}}, {{{"begin", 1}}, {{3, 5}}, Shape{2, 3}}};
}

}  // namespace

extern const Op add{.name = "add",
                    .about = "x1 + x2 + ...",
                    .max_sources = -1,
                    .infer = infer_add,
                    .predict = predict_add,
                    .pullback = pullback_add,
                    .lipschitz = lipschitz_one,
                    .examples = add_examples};

extern const Op subtract{.name = "subtract",
                         .about = "x1 - x2",
                         .min_sources = 2,
                         .max_sources = 2,
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
                       .infer = infer_concat,
                       .predict = predict_concat,
                       .pullback = pullback_concat,
                       .lipschitz = lipschitz_one,
                       .examples = concat_examples};

extern const Op slice{.name = "slice",
                      .about = "some entries of x, one after another",
                      .attrs = kSliceAttrs,
                      .infer = infer_slice,
                      .predict = predict_slice,
                      .pullback = pullback_slice,
                      .lipschitz = lipschitz_one,
                      .examples = slice_examples};

}  // namespace pc::ops

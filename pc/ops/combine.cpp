// Operators of several sources: add (x1 + x2 + ...), multiply (x1 x2, entry by entry) and concat (side by side).
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

void accumulate(const OpCall& call, const View& from, const View& to, Write write) {
  kernels::axpby(call.exec, {.x = from, .y = to, .a = 1, .b = write == Write::add ? 1.0 : 0.0});
}

Shape infer_add(const OpSite& site) { return same_shape("add", site); }

void predict_add(const OpCall& call, View mu, Write write) {
  for (const View& x : call.x) {
    accumulate(call, x, mu, write);
    write = Write::add;
  }
}

void pullback_add(const OpCall& call, View delta, int, View dx, Write write) { accumulate(call, delta, dx, write); }

Shape infer_multiply(const OpSite& site) { return same_shape("multiply", site); }

void predict_multiply(const OpCall& call, View mu, Write write) {
  kernels::multiply(call.exec, {.a = call.x[0], .b = call.x[1], .y = mu, .write = write});
}

void pullback_multiply(const OpCall& call, View delta, int source, View dx, Write write) {
  const View& other = call.x[static_cast<std::size_t>(1 - source)];
  kernels::multiply(call.exec, {.a = delta, .b = other, .y = dx, .write = write});
}

/// A vector as long as all sources together.
Shape infer_concat(const OpSite& site) {
  std::int64_t total = 0;
  for (const Shape& shape : site.sources) total += shape.count();
  return {total};
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

std::vector<OpExample> add_examples() { return {{{}, {{1}}, {}}, {{}, {{3, 5}, {3, 5}, {3, 5}}, {}}}; }
std::vector<OpExample> multiply_examples() { return {{{}, {{1}, {1}}, {}}, {{}, {{3, 5}, {3, 5}}, {}}}; }
std::vector<OpExample> concat_examples() { return {{{}, {{3}}, {}}, {{}, {{1}, {2, 3}, {5}}, {}}}; }

}  // namespace

extern const Op add{.name = "add",
                    .about = "x1 + x2 + ...",
                    .max_sources = -1,
                    .infer = infer_add,
                    .predict = predict_add,
                    .pullback = pullback_add,
                    .examples = add_examples};

extern const Op multiply{.name = "multiply",
                         .about = "x1 x2, entry by entry",
                         .min_sources = 2,
                         .max_sources = 2,
                         .infer = infer_multiply,
                         .predict = predict_multiply,
                         .pullback = pullback_multiply,
                         .examples = multiply_examples};

extern const Op concat{.name = "concat",
                       .about = "x1, x2, ... side by side, as one vector",
                       .max_sources = -1,
                       .infer = infer_concat,
                       .predict = predict_concat,
                       .pullback = pullback_concat,
                       .examples = concat_examples};

}  // namespace pc::ops

// The same entries in another shape: flatten and reshape keep their order; channels_last takes an image as data sets
// have it, [channels, height, width], to one as conv2d takes it, [height, width, channels]; channels_first goes back.

#include "kernels/arithmetic.h"
#include "kernels/transpose.h"
#include "pc/ops/ops.h"
#include "pc/ops/settings.h"

namespace pc::ops {
namespace {

void copy(const OpCall& call, const View& from, const View& to, Write write) {
  kernels::axpby(call.exec, {.x = from, .y = to, .a = 1, .b = write == Write::add ? 1.0 : 0.0});
}
void predict_copy(const OpCall& call, View mu, Write write) { copy(call, call.x[0], mu, write); }
void pullback_copy(const OpCall& call, View delta, int, View dx, Write write) { copy(call, delta, dx, write); }

Shape infer_flatten(const OpSite& site) { return {site.sources[0].count()}; }

constexpr AttrSpec kReshape[] = {
    {"height", 0, "of an image; 0: the shape of the node it predicts"},
    {"width", 0, "of the image; 0: as the height"},
    {"channels", 1, "of the image"},
};

/// [height, width, channels], or the shape that is wanted.
Shape infer_reshape(const OpSite& site) {
  const Shape& x = site.sources[0];
  const auto whole = [&](std::string_view name, double least) {
    return whole_setting("reshape", site.attrs, name, least, 999999999);
  };
  const std::int64_t height = whole("height", 0), width = whole("width", 0), channels = whole("channels", 1);
  PC_CHECK(height > 0 || site.wanted.has_value(), "reshape",
           "its shape is not known here; write {reshape: {height: N, channels: N}}");
  const Shape out = height > 0 ? Shape{height, width > 0 ? width : height, channels} : *site.wanted;
  PC_CHECK(out.count() == x.count(), "reshape", x.text(), " has ", x.count(), " entries, but ", out.text(), " has ",
           out.count());
  return out;
}

const Shape& image(const char* who, const OpSite& site) {
  const Shape& x = site.sources[0];
  PC_CHECK(x.rank() == 3, who, "takes images of three dimensions, not ", x.text());
  return x;
}

Shape infer_last(const OpSite& site) {
  const Shape& x = image("channels_last", site);
  return {x[1], x[2], x[0]};
}
Shape infer_first(const OpSite& site) {
  const Shape& x = image("channels_first", site);
  return {x[2], x[0], x[1]};
}

/// From [m, n] to [n, m].
void transpose(const OpCall& call, const View& from, const View& to, std::int64_t m, Write write) {
  kernels::transpose_each(call.exec, {.x = from, .y = to, .m = m, .n = from.cols() / m, .write = write});
}

void predict_last(const OpCall& call, View mu, Write write) {
  transpose(call, call.x[0], mu, call.x[0].shape[1], write);
}
void pullback_last(const OpCall& call, View delta, int, View dx, Write write) {
  transpose(call, delta, dx, dx.cols() / call.x[0].shape[1], write);
}
void predict_first(const OpCall& call, View mu, Write write) {
  transpose(call, call.x[0], mu, mu.cols() / call.x[0].shape[3], write);
}
void pullback_first(const OpCall& call, View delta, int, View dx, Write write) {
  transpose(call, delta, dx, call.x[0].shape[3], write);
}

double lipschitz(const Attrs&) { return 1; }

std::vector<OpExample> flatten_examples() { return {{{}, {{1}}, {}}, {{}, {{3, 5, 2}}, {}}}; }
std::vector<OpExample> reshape_examples() {
  return {{{}, {{6}}, Shape{2, 3}},
          {{{"height", 3}, {"channels", 2}}, {{18}}, {}},
          {{{"height", 1}, {"width", 5}}, {{5}}, {}}};
}
std::vector<OpExample> image_examples() { return {{{}, {{1, 1, 1}}, {}}, {{}, {{3, 4, 5}}, {}}}; }

}  // namespace

extern const Op flatten{.name = "flatten",
                        .about = "x as one vector",
                        .infer = infer_flatten,
                        .predict = predict_copy,
                        .pullback = pullback_copy,
                        .lipschitz = lipschitz,
                        .examples = flatten_examples};

extern const Op reshape{.name = "reshape",
                        .about = "the entries of x in another shape",
                        .attrs = kReshape,
                        .infer = infer_reshape,
                        .predict = predict_copy,
                        .pullback = pullback_copy,
                        .lipschitz = lipschitz,
                        .examples = reshape_examples};

extern const Op channels_last{.name = "channels_last",
                              .about = "an image [channels, height, width] as [height, width, channels]",
                              .infer = infer_last,
                              .predict = predict_last,
                              .pullback = pullback_last,
                              .lipschitz = lipschitz,
                              .examples = image_examples};

extern const Op channels_first{.name = "channels_first",
                               .about = "an image [height, width, channels] as [channels, height, width]",
                               .infer = infer_first,
                               .predict = predict_first,
                               .pullback = pullback_first,
                               .lipschitz = lipschitz,
                               .examples = image_examples};

}  // namespace pc::ops

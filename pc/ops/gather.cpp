// gather: mu = entries of x along an axis, by a list of places: those of the settings, the same for every sample, or
// the numbers of a second source.   x [batch, ..., n, ...]   places [batch, k]   mu [batch, ..., k, ...]
// A number stands for the nearest place, so that every second source has a prediction; the slope with respect to it is
// 0, and nothing flows back to it. Clamp it.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "kernels/arithmetic.h"
#include "kernels/pick.h"
#include "pc/ops/axes.h"
#include "pc/ops/ops.h"

namespace pc::ops {
namespace {

constexpr AttrSpec kAttrs[] = {
    {"places", 0, "which entries, counted from 0, in which order; none: a second source holds them",
     AttrSpec::Kind::list},
    {"axis", -1, "the axis along which they are taken; -1: the source is laid out as one vector"},
};

std::vector<double> places_of(const Attrs& attrs) { return list_of(attrs, "places"); }

/// How many entries are taken.
std::int64_t count_places(const OpSite& site, std::int64_t n) {
  const std::vector<double> list = places_of(site.attrs);
  if (site.sources.size() == 2) {
    const Shape& places = site.sources[1];
    PC_CHECK(list.empty(), "gather", "has places from its settings and from a second source; leave one of them out");
    PC_CHECK(places.rank() == 1, "gather", "its second source is one list of places, [k], not ", places.text());
    return places[0];
  }
  PC_CHECK(!list.empty(), "gather",
           "which entries? Write {gather: {places: [3, 1, 4]}}, or give a second source that holds the places");
  for (const double place : list) {
    PC_CHECK(place >= 0 && place < double(n) && place == std::floor(place), "gather", "place ", place, " is none of ",
             site.sources[0].text(), ", which has 0 to ", n - 1, " there");
  }
  return std::ssize(list);
}

/// Along an axis the source's shape with that axis as long as the list; else a vector, or of the shape that is wanted
/// where it has as many entries.
Shape infer(const OpSite& site) {
  const Shape& x = site.sources[0];
  const int axis = axis_of("gather", site.attrs, x);
  const std::int64_t count = count_places(site, Cut(x, 0, axis).length);
  return axis < 0 ? site.as_wanted({count}) : with_axis(x, axis, count);
}

bool affine(const Attrs& attrs) { return !places_of(attrs).empty(); }

std::vector<StateSpec> state(const Attrs& attrs, const Shape&) {
  std::vector<double> list = places_of(attrs);
  if (list.empty()) return {};
  return {{.name = "places", .shape = {1, std::ssize(list)}, .fixed = std::move(list)}};
}

const View& places(const OpCall& call) { return call.x.size() == 2 ? call.x[1] : call.state[0]; }

kernels::PickShape shape_of(const OpCall& call) {
  const Cut cut(call.x[0].shape, 1, static_cast<int>(call.attrs.find("axis")->second));
  return {.length = cut.length, .inner = cut.inner};
}

void predict(const OpCall& call, View mu, Write write) {
  kernels::pick(call.exec, {.x = call.x[0], .places = places(call), .y = mu, .shape = shape_of(call), .write = write});
}

void pullback(const OpCall& call, View delta, int source, View dx, Write write) {
  if (source == 0) {
    return kernels::pick_back(call.exec,
                              {.places = places(call), .dy = delta, .dx = dx, .shape = shape_of(call), .write = write});
  }
  if (write == Write::set) kernels::fill(call.exec, {.out = dx, .value = 0});
}

/// An entry that is taken m times moves m others, by as much. Of places that a source holds nothing is known.
double lipschitz(const Attrs& attrs) {
  std::map<double, int> times;
  int most = 0;
  for (const double place : places_of(attrs)) most = std::max(most, ++times[place]);
  return most > 0 ? std::sqrt(most) : std::numeric_limits<double>::infinity();
}

Attrs at(const std::vector<double>& list, double axis = -1) {
  Attrs attrs{{"axis", axis}};
  set_list(attrs, "places", list);
  return attrs;
}

std::vector<OpExample> examples() {
  return {{at({0}), {{1}}, {}},
          {at({6, 0, 6, 2}), {{7}}, Shape{2, 2}},
          {at({2, 1, 1, 0, 2}, 1), {{2, 3, 5}}, {}},
          {at({4, 3}, 1), {{3, 5}}, Shape{3, 2}},
          {{}, {{1}, {1}}, {}},
          {{}, {{2, 3}, {5}}, {}},
          {{{"axis", 0}}, {{3, 5}, {4}}, {}},
          {{{"axis", 1}}, {{2, 3, 2}, {7}}, {}}};
}

}  // namespace

extern const Op gather{.name = "gather",
                       .about = "entries of x by a list of places, or by the numbers that a second source holds",
                       .max_sources = 2,
                       .attrs = kAttrs,
                       .affine_with = affine,
                       .infer = infer,
                       .predict = predict,
                       .pullback = pullback,
                       .state_serves = Op::Serves::all,
                       .state = state,
                       .lipschitz = lipschitz,
                       .examples = examples};

}  // namespace pc::ops

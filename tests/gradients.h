// Gradients of whole networks, and random networks to compare them on.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "tests/networks.h"

namespace pc::test {

using Gradients = std::vector<Values>;

inline Gradients gradients_of(Run& run) {
  run.step();
  Gradients list;
  for (ParamId p = 0; p < run.network.graph().param_count(); ++p) {
    list.push_back(read(run.network, run.network.gradient(p)));
  }
  return list;
}

inline PlanSpec spec_for(const Problem& problem, const std::string& schedule, ScheduleSettings settings = {},
                         bool optimize = true) {
  PlanSpec spec;
  spec.schedule = &find_schedule(schedule);
  spec.settings = settings;
  spec.clamps = problem.clamps;
  spec.gradients = true;
  spec.optimize = optimize;
  return spec;
}

inline Gradients gradients(const Problem& problem, const PlanSpec& spec, DType dtype = DType::f64) {
  Run run(problem, spec, dtype);
  return gradients_of(run);
}

/// |a - b| / |b| over all parameters together.
inline double distance(const Gradients& a, const Gradients& b) {
  REQUIRE(a.size() == b.size());
  double off = 0, size = 0;
  for (std::size_t p = 0; p < a.size(); ++p) {
    REQUIRE(a[p].size() == b[p].size());
    for (std::size_t i = 0; i < a[p].size(); ++i) {
      off += (a[p][i] - b[p][i]) * (a[p][i] - b[p][i]);
      size += b[p][i] * b[p][i];
    }
  }
  return size == 0 && off == 0 ? 0 : std::sqrt(off / size);
}

inline bool runs(const Problem& problem, const std::string& schedule, const ScheduleSettings& settings = {}) {
  return error_of([&] { check_schedule(find_schedule(schedule), settings, {}, problem.graph(), problem.clamps); })
      .empty();
}

constexpr int kGraphs = 200;

/// Random acyclic graphs that a schedule can run on and that suit the test, each with its seed.
template <class Suits, class Body>
void each_graph(const std::string& schedule, Wild wild, Suits&& suits, Body&& body) {
  wild.cycles = false;
  wild.backprop = true;
  int done = 0;
  for (std::uint64_t seed = 1; done < kGraphs; ++seed) {
    REQUIRE(seed < 20 * kGraphs);
    const Problem problem = wild_problem(seed, wild);
    if (!runs(problem, schedule) || !suits(problem)) continue;
    CAPTURE(seed);
    body(problem);
    ++done;
  }
}
template <class Body>
void each_graph(const std::string& schedule, Wild wild, Body&& body) {
  each_graph(
      schedule, wild, [](const Problem&) { return true; }, body);
}

}  // namespace pc::test

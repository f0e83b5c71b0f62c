#include "pc/plan.h"

#include <algorithm>
#include <cmath>

#include "pc/backprop.h"
#include "pc/plan_builder.h"
#include "pc/states.h"

namespace pc {

std::string energy_start_name(const Graph& graph, PredictionId id) {
  return "metric/energy_start/" + graph.prediction(id).name;
}
std::string energy_end_name(const Graph& graph, PredictionId id) {
  return "metric/energy_end/" + graph.prediction(id).name;
}
std::string trace_name(int step) { return "metric/trace/" + std::to_string(step); }

Plan::Plan(Network& network, const PlanSpec& asked) : network_(&network) {
  PC_CHECK(asked.schedule != nullptr, "plan", "it has no schedule");
  PC_CHECK(asked.batch > 0 && asked.batch <= network.max_batch(), "plan", "a batch of ", asked.batch,
           " does not fit a network made for ", network.max_batch());
  PC_CHECK(asked.relax.steps >= 1, "plan", "relaxation needs at least one step, not ", asked.relax.steps);
  check_schedule(*asked.schedule, asked.settings, asked.relax, network.graph(), asked.clamps);
  const std::string unobserved = unobservable(asked, network.graph());
  PC_CHECK(unobserved.empty(), "plan", unobserved);
  const bool settles = asked.schedule->engine != Engine::reverse && !asked.schedule->exact &&
                       !asked.schedule->free_output && !asked.settings.nudge;
  for (const Prediction& p : network.graph().predictions()) {
    PC_CHECK(!asked.learn || settles || p.spec.learn_precision == 0, "plan", "the precisions of prediction ", p.name,
             " are learned from settled errors, which ", asked.schedule->name,
             " does not have; use pc, ipc or epc without nudging, or give precisions that stay");
    PC_CHECK(!asked.learn || asked.schedule->learn != Learn::every_step || p.spec.learn_precision == 0 ||
                 asked.relax.precision.kind == PrecisionSchedule::Kind::constant,
             "plan", "the precisions of prediction ", p.name, " are learned at every step of ", asked.schedule->name,
             " from errors that relax.precision multiplies; use pc, or leave relax.precision out");
  }
  if (asked.schedule->engine == Engine::reverse) {
    phases_.resize(1);
    record_backprop(phases_[0].start, network, asked);
    finish_programs(asked);
    return;
  }
  const PlanSpec spec = own_pace(asked, network.graph());
  max_steps_ = spec.relax.steps;
  stop_ = spec.relax.stop;
  watch_ = spec.watch;
  const bool fixed = std::holds_alternative<FixedSteps>(stop_);
  PC_CHECK(fixed || !spec.trace, "plan", "a trace needs a fixed number of steps");
  // The stop rule looks at gradients, so the energy comes in the scalar of a trace, which such a plan has not.
  if (spec.watch && std::holds_alternative<GradientNorm>(stop_)) {
    watch_ = [watch = spec.watch, &network](int step, double) {
      watch(step, network.arena().read_scalar(network.scalar(trace_name(0))));
    };
  }
  PlanBuilder(network, spec, *this).build();
  finish_programs(spec);
  if (fixed) return;
  // Until the steps repeat, the signal has not reached every node, and standing still means nothing. How long that is
  // depends on the graph, not on what this plan leaves out.
  first_look_ = static_cast<int>(phases_[0].steps.size()) - 1;
  if (!spec.optimize) {
    PlanSpec lean = spec;
    lean.optimize = true;
    first_look_ = Plan(network, lean).first_look_;
  }
}

/// Weights learn at once where they can. On CUDA, products that can be one are. A batch that is smaller than the
/// network was made for is a set's last.
void Plan::finish_programs(const PlanSpec& spec) {
  const bool joins = spec.optimize && network_->exec().device == Device::cuda;
  const auto finish = [&](Program& program) {
    if (spec.optimize && spec.learn) learn_at_once(program, spec.gradients);
    if (joins) program.join();
    if (spec.batch < network_->max_batch()) program.seldom();
  };
  for (Phase& phase : phases_) {
    finish(phase.start);
    for (Program& step : phase.steps) finish(step);
  }
  finish(finish_);
}

namespace {

bool done(const FixedSteps&, double, double) { return false; }
bool done(const EnergyPlateau& rule, double now, double before) {
  return std::abs(before - now) <= rule.relative * std::abs(before);
}
bool done(const GradientNorm& rule, double now, double) { return now <= rule.tolerance; }

}  // namespace

/// True if the stop rule ended it.
bool Plan::relax(const Phase& phase, int threads, int& steps) const {
  const Exec& exec = network_->exec();
  phase.start.run(exec, threads);
  const bool watched = watch_ || !std::holds_alternative<FixedSteps>(stop_);
  double before = 0;
  for (int t = 0; t < max_steps_ && !phase.steps.empty(); ++t) {
    phase.steps[std::min(static_cast<std::size_t>(t), phase.steps.size() - 1)].run(exec, threads);
    ++steps;
    if (!watched) continue;
    const double now = network_->arena().read(progress_)[0];
    if (watch_) watch_(t, now);
    const bool looks = t >= std::max(first_look_, 1);
    if (looks && std::visit([&](const auto& rule) { return done(rule, now, before); }, stop_)) return true;
    before = now;
  }
  return false;
}

Plan::Outcome Plan::run(int threads, int times) const {
  const Exec& exec = network_->exec();
  if (phases_.size() == 1 && phases_[0].steps.empty()) {  // everything is one program
    phases_[0].start.run(exec, threads, times);
    return {.steps = times * relaxations_ * max_steps_};
  }
  Outcome outcome{.converged = true};
  for (int time = 0; time < times; ++time) {
    for (const Phase& phase : phases_) {
      if (!relax(phase, threads, outcome.steps)) outcome.converged = false;
    }
    finish_.run(exec, threads);
  }
  return outcome;
}

std::vector<const Program*> Plan::programs() const {
  std::vector<const Program*> list;
  for (const Phase& phase : phases_) {
    list.push_back(&phase.start);
    for (const Program& step : phase.steps) list.push_back(&step);
  }
  if (!finish_.calls().empty()) list.push_back(&finish_);
  return list;
}

double Plan::flops() const {
  double sum = finish_.flops();
  for (const Phase& phase : phases_) {
    sum += phase.start.flops();
    for (int t = 0; !phase.steps.empty() && t < max_steps_; ++t) {
      sum += phase.steps[std::min(static_cast<std::size_t>(t), phase.steps.size() - 1)].flops();
    }
  }
  return sum;
}

}  // namespace pc

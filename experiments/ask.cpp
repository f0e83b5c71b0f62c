#include "experiments/ask.h"

#include <cmath>

#include "pc/plan.h"
#include "pc/step_bound.h"
#include "pc/trainer.h"

namespace pc::experiments {
namespace {

constexpr const char* kDraws = "query/draws";

bool in_part(const Given& given) { return !given.known.empty(); }

/// Values before relaxation: those that are only starts are held while the others take their places.
void begin(Network& network, const Question& question, PlanSpec spec) {
  spec.watch = nullptr;
  spec.relax.steps = 1;
  spec.relax.stepper = ValueSgd{.rate = 0};
  spec.relax.stop = FixedSteps{};
  spec.clamps.clear();
  for (const Given& given : question.given) {
    spec.clamps.push_back({given.node, in_part(given)});
  }
  Trainer(network, spec, question.threads).step(question.count);
}

}  // namespace

Answer ask(Network& network, const Question& question) {
  PlanSpec spec;
  spec.schedule = question.schedule;
  spec.relax = question.relax;
  spec.regime = Regime::library;
  spec.draws = kDraws;
  bool starts = false;
  for (const Given& given : question.given) {
    if (in_part(given)) {
      network.arena().write(network.node_buffer("data", given.node, question.count), given.values);
      network.arena().write(network.node_buffer("clamped", given.node, question.count), given.known);
    } else {
      network.arena().write(network.value(given.node, question.count), given.values);
    }
    if (given.clamped) spec.clamps.push_back({given.node, in_part(given)});
    starts = starts || !given.clamped;
  }
  for (NodeId v = 0; v < network.graph().node_count(); ++v) spec.observed.push_back(v);
  if (auto* sgd = std::get_if<ValueSgd>(&spec.relax.stepper); sgd != nullptr && sgd->automatic) {
    sgd->rate *= step_bound(network, *spec.schedule, spec.clamps);
    sgd->automatic = false;
  }
  if (starts) {
    begin(network, question, spec);
    spec.relax.init = {.kind = ValueInit::Kind::previous};
  }
  // A relaxation by changes has the values themselves at its end alone.
  if (question.watch) spec.form = Form::values;
  Answer answer;
  spec.watch = [&](int step, double energy) {
    answer.energy.push_back(energy / double(question.count));
    if (question.watch) question.watch(step);
    if (question.tick) question.tick();
  };
  Trainer trainer(network, spec, question.threads);
  const Plan::Outcome outcome = trainer.step(question.count);
  const double end = trainer.energies().total_end() / double(question.count);
  PC_CHECK(std::isfinite(end), "query", "the energy is ", end, " after ", outcome.steps,
           " steps; choose a smaller rate, as --rate auto does");
  answer.energy.push_back(end);
  answer.energies.assign(static_cast<std::size_t>(question.count), 0.0);
  for (PredictionId p = 0; p < network.graph().prediction_count(); ++p) {
    const std::vector<double> rows =
        network.arena().read(network.row_buffer("energy/" + network.graph().prediction(p).name, question.count));
    for (std::size_t i = 0; i < rows.size(); ++i) answer.energies[i] += rows[i];
  }
  answer.steps = outcome.steps;
  answer.converged = outcome.converged;
  return answer;
}

}  // namespace pc::experiments

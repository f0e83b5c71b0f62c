#include "pc/trainer.h"

#include <cmath>
#include <numeric>

namespace pc {

namespace {

constexpr const char* kAdvice =
    "; lower relax's rate or momentum, lower learn's rate, or set learn.clip_norm. The last checkpoint is untouched";

}  // namespace

double EnergySums::total_start() const { return std::accumulate(start.begin(), start.end(), 0.0); }
double EnergySums::total_end() const { return std::accumulate(end.begin(), end.end(), 0.0); }

Trainer::Trainer(Network& network, PlanSpec spec, int threads)
    : network_(network), spec_(std::move(spec)), threads_(threads) {
  reset_energies();  // makes the buffers, so that they can be read before the first step
}

const Plan& Trainer::plan(std::int64_t batch) {
  std::unique_ptr<Plan>& plan = plans_[batch];
  if (plan == nullptr) {
    PlanSpec spec = spec_;
    spec.batch = batch;
    plan = std::make_unique<Plan>(network_, spec);
  }
  return *plan;
}

EnergySums Trainer::energies() const {
  EnergySums sums;
  for (PredictionId p = 0; p < network_.graph().prediction_count(); ++p) {
    const auto& graph = network_.graph();
    sums.start.push_back(network_.arena().read(network_.scalar(energy_start_name(graph, p)))[0]);
    sums.end.push_back(network_.arena().read(network_.scalar(energy_end_name(graph, p)))[0]);
  }
  return sums;
}

void Trainer::reset_energies() {
  for (PredictionId p = 0; p < network_.graph().prediction_count(); ++p) {
    network_.arena().zero(network_.scalar(energy_start_name(network_.graph(), p)));
    network_.arena().zero(network_.scalar(energy_end_name(network_.graph(), p)));
  }
}

void Trainer::check_weights(const std::string& where) const {
  const View norm = network_.scalar("look/square_norm");
  for (ParamId id = 0; id < network_.graph().param_count(); ++id) {
    kernels::sum(network_.exec(), {.in = network_.weight(id), .out = norm, .squares = true});
    constexpr double kMost = 1e30;  // of the squared norm: far beyond any use, and the next product would overflow
    if (network_.arena().read(norm)[0] < kMost) continue;
    fail_run("diverged", where, ": the weights ", network_.graph().param(id).name, " have left all bounds", kAdvice);
  }
}

void Trainer::check_energies(const std::string& where, double growth) const {
  const EnergySums sums = energies();
  // The starts first: relaxation spreads a NaN over the network, and the start still shows where it came from.
  for (const std::vector<double>* list : {&sums.start, &sums.end}) {
    for (std::size_t p = 0; p < list->size(); ++p) {
      if (std::isfinite((*list)[p])) continue;
      fail_run("diverged", where, ": the energy of node ", network_.graph().predictions()[p].name, " is ", (*list)[p],
               kAdvice);
    }
  }
  const double before = sums.total_start(), after = sums.total_end();
  if (after <= growth * before || before <= 0) return;
  std::size_t worst = 0;
  for (std::size_t p = 0; p < sums.end.size(); ++p) {
    if (sums.end[p] - sums.start[p] > sums.end[worst] - sums.start[worst]) worst = p;
  }
  fail_run("diverged", where, ": relaxation raised the energy from ", before, " to ", after, ", most of all at node ",
           network_.graph().predictions()[worst].name, kAdvice);
}

}  // namespace pc

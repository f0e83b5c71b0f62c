#include "pc/trainer.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace pc {

namespace {

constexpr const char* kAdvice =
    "; lower relax's rate or momentum, lower learn's rate, or set learn.clip_norm. What was saved before is untouched";

/// Whether an operand of a matrix product did not fit its type.
bool overflowed(Network& network) {
  const View flag = network.overflow();
  return network.arena().read_scalar(flag) != 0;
}

}  // namespace

double EnergySums::total_start() const { return std::accumulate(start.begin(), start.end(), 0.0); }
double EnergySums::total_end() const { return std::accumulate(end.begin(), end.end(), 0.0); }

Trainer::Trainer(Network& network, PlanSpec spec, int threads)
    : network_(network), spec_(std::move(spec)), threads_(threads) {
  const Graph& graph = network_.graph();
  for (PredictionId p = 0; p < graph.prediction_count(); ++p) {
    starts_.push_back(network_.scalar(energy_start_name(graph, p)));
    ends_.push_back(network_.scalar(energy_end_name(graph, p)));
  }
  reset_energies();
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
  for (const View& view : starts_) sums.start.push_back(network_.arena().read_scalar(view));
  for (const View& view : ends_) sums.end.push_back(network_.arena().read_scalar(view));
  return sums;
}

void Trainer::reset_energies() {
  for (const View& view : starts_) network_.arena().zero(view);
  for (const View& view : ends_) network_.arena().zero(view);
}

bool Trainer::sound(double growth) const {
  double before = 0, after = 0;
  for (const View& view : starts_) before += network_.arena().read_scalar(view);
  for (const View& view : ends_) after += network_.arena().read_scalar(view);
  if (overflowed(network_)) return false;
  return std::isfinite(before) && std::isfinite(after) && (after <= growth * before || before <= 0);
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
  if (sound(growth)) return;
  if (overflowed(network_)) {
    fail_run("overflow", where, ": a value, weight or error does not fit float16; use gemm: bf16 or tf32", kAdvice);
  }
  const EnergySums sums = energies();
  // The starts first: relaxation spreads a NaN over the network, and the start still shows where it came from.
  for (const std::vector<double>* list : {&sums.start, &sums.end}) {
    for (std::size_t p = 0; p < list->size(); ++p) {
      if (std::isfinite((*list)[p])) continue;
      fail_run("diverged", where, ": the energy of node ", network_.graph().predictions()[p].name, " is ", (*list)[p],
               kAdvice);
    }
  }
  std::size_t worst = 0;
  for (std::size_t p = 0; p < sums.end.size(); ++p) {
    if (sums.end[p] - sums.start[p] > sums.end[worst] - sums.start[worst]) worst = p;
  }
  const auto& predictions = network_.graph().predictions();
  const bool learned = std::any_of(predictions.begin(), predictions.end(), [](const Prediction& p) {
    return p.spec.learn_precision > 0 && p.spec.most_precision == 0;
  });
  fail_run("diverged", where, ": relaxation raised the energy of the epoch's batches so far from ", sums.total_start(),
           " to ", sums.total_end(), ", most of all at node ", predictions[worst].name,
           learned ? "; precisions that are learned grow where errors are small: give them a most" : "", kAdvice);
}

}  // namespace pc

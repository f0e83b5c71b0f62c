#include "pc/schedule.h"

#include <algorithm>

#include "pc/levels.h"
#include "pc/plan.h"

namespace pc {

std::span<const Schedule> all_schedules() {
  static constexpr Schedule list[] = {
      {.name = "pc",
       .about = "relax, then learn from the settled state (Whittington & Bogacz 2017)",
       .heeds = kStop | kSweep | kPrecision | kForwardUpdate | kGrowth},
      {.name = "ipc",
       .about = "values and weights move at every step (Salvatori et al. 2024)",
       .learn = Learn::every_step,
       .heeds = kStop | kSweep | kPrecision | kGrowth},
      {.name = "zil",
       .about = "equals backprop: one step per level, each level learns at its own (Song et al. 2020)",
       .learn = Learn::by_level,
       .moves = Moves::front,
       .frozen = true,
       .exact = true,
       .acyclic = true},
      {.name = "fa_zil",
       .about = "as zil, without a clock: a node learns when its first error arrives (Song et al. 2020)",
       .learn = Learn::first_arrival,
       .moves = Moves::front,
       .frozen = true,
       .exact = true,
       .acyclic = true},
      {.name = "fixed_prediction",
       .about = "predictions and Jacobians of the start; equals backprop in the limit (Millidge et al. 2020)",
       .frozen = true,
       .exact = true},
      {.name = "ep",
       .about = "free output, nudged towards and away from the target (Scellier & Bengio 2017)",
       .free_output = true,
       .heeds = kStop | kSweep | kPrecision | kGrowth},
      {.name = "epc",
       .about = "errors as variables: the minimum of pc, sooner (Goemaere et al. 2025)",
       .engine = Engine::errors,
       .acyclic = true,
       .heeds = kStop | kGrowth},
      {.name = "backprop",
       .about = "reverse-mode differentiation: the reference",
       .engine = Engine::reverse,
       .acyclic = true},
  };
  return list;
}

std::span<const RelaxPart> all_relax_parts() {
  static constexpr RelaxPart list[] = {
      {"stop", kStop, [](const RelaxSpec& r) { return !std::holds_alternative<FixedSteps>(r.stop); }},
      {"sweep", kSweep, [](const RelaxSpec& r) { return r.sweep != Sweep::synchronous; }},
      {"precision", kPrecision,
       [](const RelaxSpec& r) { return r.precision.kind != PrecisionSchedule::Kind::constant; }},
      {"forward_update", kForwardUpdate, [](const RelaxSpec& r) { return r.forward_update; }},
      {"growth", kGrowth, [](const RelaxSpec& r) { return r.growth != RelaxSpec{}.growth; }},
  };
  return list;
}

std::string no_effect(const Schedule& schedule, const RelaxPart& part) {
  std::string others;
  for (const Schedule& other : all_schedules()) {
    if ((other.heeds & part.bit) != 0) others += std::string(others.empty() ? "" : ", ").append(other.name);
  }
  return std::string(part.name)
      .append(" has no effect on ")
      .append(schedule.name)
      .append("; leave it out, or use a schedule that heeds it: ")
      .append(others);
}

const Schedule& find_schedule(std::string_view name) {
  std::string known;
  for (const Schedule& schedule : all_schedules()) {
    if (schedule.name == name) return schedule;
    known += std::string(known.empty() ? "" : ", ").append(schedule.name);
  }
  fail("schedule", "no schedule named \"", name, "\"; there are: ", known);
}

std::vector<NodeId> loss_nodes(const Graph& graph, const std::vector<Clamp>& clamps) {
  std::vector<NodeId> nodes;
  for (const Clamp& clamp : clamps) {
    if (!graph.node(clamp.node).predictions.empty()) nodes.push_back(clamp.node);
  }
  return nodes;
}

std::vector<int> levels_to_loss(const Graph& graph, const std::vector<Clamp>& clamps) {
  const auto order = topological_order(graph);
  PC_CHECK(order.has_value(), "levels", "the graph has a cycle: ", cycle_text(graph, find_cycle(graph)));
  std::vector<int> level(static_cast<std::size_t>(graph.node_count()), -1);
  std::vector<bool> clamped(level.size(), false);
  for (const Clamp& clamp : clamps) clamped[static_cast<std::size_t>(clamp.node)] = true;
  for (const NodeId v : loss_nodes(graph, clamps)) level[static_cast<std::size_t>(v)] = 0;
  for (auto v = order->rbegin(); v != order->rend(); ++v) {
    const auto here = static_cast<std::size_t>(*v);
    if (clamped[here]) continue;
    for (const EdgeId e : graph.node(*v).out) {
      const int next = level[static_cast<std::size_t>(graph.prediction(graph.edge(e).prediction).node)];
      if (next >= 0) level[here] = std::max(level[here], next + 1);
    }
  }
  return level;
}

namespace {

/// Throws if the graph has a cycle.
void need_acyclic(const Graph& graph, std::string_view who, const char* instead) {
  const auto cycle = find_cycle(graph);
  PC_CHECK(cycle.empty(), "schedule", who, " needs a graph without cycles, but there is ", cycle_text(graph, cycle),
           "; ", instead);
}

void need_whole_clamps(const Graph& graph, const std::vector<Clamp>& clamps, std::string_view who) {
  for (const Clamp& clamp : clamps) {
    PC_CHECK(!clamp.masked, "schedule", who, " needs whole nodes clamped, but node ", graph.node(clamp.node).name,
             " is clamped by a mask; pc and ipc take masks");
  }
}

void need_one_prediction(const Graph& graph, std::string_view who) {
  for (const Node& node : graph.nodes()) {
    PC_CHECK(node.predictions.size() <= 1, "schedule", who, " needs one prediction for each node, but node ", node.name,
             " has ", node.predictions.size(), "; pc and ipc take any number");
  }
}

void need_loss(const Graph& graph, const std::vector<Clamp>& clamps, std::string_view who) {
  PC_CHECK(!loss_nodes(graph, clamps).empty(), "schedule", who,
           " needs a loss: clamp a node that has predictions, as the target of the task");
}

/// Z-IL's errors start at the outputs alone: a clamped node inside would send its own from the first step. ep would
/// have to let it go.
void need_free_inside(const Graph& graph, const std::vector<Clamp>& clamps, std::string_view who) {
  for (const NodeId v : loss_nodes(graph, clamps)) {
    const Node& node = graph.node(v);
    PC_CHECK(node.out.empty(), "schedule", who, " cannot have node ", node.name,
             " clamped: it has predictions and feeds edge ", graph.edge(node.out[0]).name,
             "; pc, ipc and fixed_prediction can, and backprop where there is no cycle");
  }
}

void need_levelled(const Graph& graph, const std::vector<Clamp>& clamps, std::string_view who) {
  const std::vector<int> level = levels_to_loss(graph, clamps);
  for (const Edge& edge : graph.edges()) {
    const int to = level[static_cast<std::size_t>(graph.prediction(edge.prediction).node)];
    for (const NodeId from : edge.from) {
      const int at = level[static_cast<std::size_t>(from)];
      PC_CHECK(at < 0 || to < 0 || at == to + 1, "schedule", who,
               " with paths: pad needs every way to the loss equally long, but edge ", edge.name, " skips ",
               at - to - 1, " level(s); pad the graph, or use paths: latch");
    }
  }
}

void check_nudge(const Schedule& schedule, const ScheduleSettings& settings, const Graph& graph,
                 const std::vector<Clamp>& clamps) {
  const bool possible = schedule.engine == Engine::relax && !schedule.exact;
  if (schedule.free_output || settings.nudge) {
    PC_CHECK(possible, "schedule", schedule.name, " cannot nudge its targets; ep, pc and ipc can");
    need_loss(graph, clamps, schedule.name);
    need_whole_clamps(graph, clamps, schedule.name);
    for (const NodeId v : loss_nodes(graph, clamps)) {
      PC_CHECK(graph.node(v).predictions.size() == 1, "schedule", "a nudged target needs one prediction, but node ",
               graph.node(v).name, " has ", graph.node(v).predictions.size());
    }
    const double beta = settings.nudge.value_or(Nudge{}).beta;
    PC_CHECK(beta > 0, "schedule", schedule.name, "'s beta must be greater than 0, not ", beta);
  }
  if (!settings.nudge || schedule.free_output) return;
  for (const NodeId v : loss_nodes(graph, clamps)) {
    const Node& node = graph.node(v);
    const Energy& energy = *graph.prediction(node.predictions[0]).spec.energy;
    PC_CHECK(energy.zero_at_prediction, "schedule", "nudged targets of ", schedule.name,
             " need a Gaussian energy, but node ", node.name, " has ", energy.name, "; ep takes any");
  }
}

void check_relax(const Schedule& schedule, const RelaxSpec& relax, const Graph& graph) {
  if (schedule.exact || schedule.engine == Engine::reverse) return;  // they bring their own
  for (const RelaxPart& part : all_relax_parts()) {
    PC_CHECK((schedule.heeds & part.bit) != 0 || !part.asked(relax), "schedule", no_effect(schedule, part));
  }
  constexpr const char* kInstead = "relax without it, or unroll the graph";
  const bool flow = std::holds_alternative<ValueFlow>(relax.stepper);
  if (relax.precision.kind != PrecisionSchedule::Kind::constant) need_acyclic(graph, "a precision schedule", kInstead);
  if (relax.sweep == Sweep::even_odd) {
    need_acyclic(graph, "sweep: even_odd", "sweep: synchronous runs on any graph");
    PC_CHECK(!flow, "schedule", "sweep: even_odd goes with sgd and adam on values");
  }
  const auto* by_flow = std::get_if<ValueFlow>(&relax.stepper);
  const bool adaptive = by_flow != nullptr && by_flow->method == ValueFlow::Method::adaptive;
  PC_CHECK(!adaptive || !std::holds_alternative<EnergyPlateau>(relax.stop), "schedule",
           "stop: plateau cannot tell a step that the adaptive stepper takes again from rest; use stop: gradient");
  const auto* sgd = std::get_if<ValueSgd>(&relax.stepper);
  if (sgd != nullptr && sgd->temperature > 0) {
    PC_CHECK(schedule.engine == Engine::relax && !schedule.free_output, "schedule", schedule.name,
             " has no temperature; pc and ipc have");
    PC_CHECK(sgd->momentum == 0 && !sgd->automatic && relax.sweep == Sweep::synchronous, "schedule",
             "a temperature needs sgd with a rate of its own, without momentum, and sweep: synchronous: else it would "
             "not sample exp(-F / temperature)");
  }
  PC_CHECK(schedule.engine == Engine::relax || relax.init.kind == ValueInit::Kind::feedforward, "schedule",
           schedule.name, " starts feedforward, where all errors are zero; leave relax.init out");
  PC_CHECK(!flow || schedule.engine == Engine::relax, "schedule", schedule.name,
           " moves errors by sgd or adam; euler, heun, rk4 and adaptive move values");
}

}  // namespace

void check_schedule(const Schedule& schedule, const ScheduleSettings& settings, const RelaxSpec& relax,
                    const Graph& graph, const std::vector<Clamp>& clamps) {
  check_relax(schedule, relax, graph);
  check_nudge(schedule, settings, graph, clamps);
  if (schedule.acyclic) {
    need_acyclic(graph, schedule.name,
                 schedule.exact || schedule.engine == Engine::reverse
                     ? "unroll it (graph.unroll: k), or use pc, ipc, ep or fixed_prediction"
                     : "pc and ipc run on any graph");
  }
  if (schedule.exact || schedule.engine == Engine::errors) {
    need_whole_clamps(graph, clamps, schedule.name);
  }
  if (schedule.exact || schedule.engine == Engine::errors) need_one_prediction(graph, schedule.name);
  if (schedule.exact) need_loss(graph, clamps, schedule.name);
  if (schedule.sweeps() || schedule.free_output) need_free_inside(graph, clamps, schedule.name);
  if (schedule.moves == Moves::front && settings.paths == ScheduleSettings::Paths::pad) {
    need_levelled(graph, clamps, schedule.name);
  }
  if (schedule.exact && !schedule.sweeps() && settings.steps == 0) {
    need_acyclic(graph, std::string(schedule.name) + " without a number of steps", "give it steps");
  }
  PC_CHECK(settings.eta < 2, "schedule", schedule.name, ": eta must be below 2, not ", settings.eta,
           ": each step multiplies errors by 1 - eta");
  PC_CHECK(settings.gamma > 0 && settings.eta > 0 && settings.steps >= 0, "schedule", schedule.name,
           ": gamma and eta must be greater than 0, steps not negative");
}

PlanSpec own_pace(PlanSpec spec, const Graph& graph) {
  if (!spec.schedule->exact) return spec;
  const int sweeps = spec.relax.init.sweeps;
  spec.relax = RelaxSpec{};
  spec.relax.init.sweeps = sweeps;
  const auto depth = [&] {
    const std::vector<int> level = levels_to_loss(graph, spec.clamps);
    return *std::max_element(level.begin(), level.end());
  };
  if (!spec.schedule->sweeps()) {
    spec.relax.stepper = ValueSgd{.rate = spec.settings.eta};
    spec.relax.steps = spec.settings.steps > 0 ? spec.settings.steps : std::max(1, depth());
    return spec;
  }
  spec.relax.stepper = ValueSgd{.rate = spec.settings.gamma};
  spec.relax.steps = depth() + 1;
  // Z-IL as it was published: everything is live, and every value moves at every step.
  static const Schedule live{.name = "zil", .learn = Learn::by_level, .exact = true, .acyclic = true};
  const bool pads = spec.settings.paths == ScheduleSettings::Paths::pad;
  if (pads && spec.schedule->learn == Learn::by_level) spec.schedule = &live;
  return spec;
}

}  // namespace pc

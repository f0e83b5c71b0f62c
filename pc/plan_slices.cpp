#include <algorithm>
#include <utility>

#include "kernels/arithmetic.h"
#include "kernels/reduce.h"
#include "kernels/settle_tiles.h"
#include "pc/levels.h"
#include "pc/plan_builder.h"
#include "pc/states.h"

namespace pc {

/// Why the relaxation cannot be one call; empty: it can, as far as the schedule goes.
std::string PlanBuilder::not_sliced() const {
  const auto* sgd = std::get_if<ValueSgd>(&spec_.relax.stepper);
  const bool plain = schedule().engine == Engine::relax && schedule().learn == Learn::at_end && !schedule().frozen &&
                     !schedule().free_output;
  if (!plain) return "relax.schedule is not pc";
  if (!spec_.optimize) return "plan.optimize is false";
  if (sgd == nullptr || sgd->automatic) return "relax.optimizer is not sgd with a rate that is written";
  if (!std::holds_alternative<FixedSteps>(spec_.relax.stop)) return "relax.stop is not steps";
  if (spec_.form == Form::values) return "plan.form is values";
  if (sgd->temperature != 0) return "relax.optimizer.sgd.temperature is not 0";
  if (spec_.trace || spec_.watch) return "the energy of each step is looked at";
  if (spec_.relax.sweep != Sweep::synchronous) return "relax.sweep is not synchronous";
  if (spec_.relax.precision.kind != PrecisionSchedule::Kind::constant) return "relax.precision is not constant";
  return {};
}

namespace {

kernels::SettleArgs without_constant(kernels::SettleArgs args) {
  const auto edges = std::exchange(args.edges, {});
  for (const kernels::SettleEdge& e : edges) {
    if (!e.constant()) args.edges.add(e);
  }
  return args;
}

/// A chain of at most one activation, one linear operator, and one activation; or a bare identity.
std::optional<kernels::SettleEdge> dense(const Edge& edge) {
  kernels::SettleEdge result;
  if (edge.from.size() != 1) return std::nullopt;
  if (edge.chain.size() == 1 && edge.chain[0].op->name == "identity") return result;
  bool multiplied = false;
  for (const Link& link : edge.chain) {
    const auto f = link.op->activation;
    if (link.op->name == "linear" && link.attrs.at("last_axis") == 0 && !multiplied) {
      multiplied = true;
      result.gain = link.attrs.at("gain");
    } else if (f && !multiplied && result.before == scalar::Activation::identity) {
      result.before = *f;
      result.leak = leak_of(link);
    } else if (f && multiplied && result.before == scalar::Activation::identity &&
               result.after == scalar::Activation::identity) {
      result.after = *f;
      result.leak = leak_of(link);
    } else {
      return std::nullopt;
    }
  }
  return multiplied ? std::optional(result) : std::nullopt;
}

}  // namespace

/// The relaxation as one call, where the graph allows it and the device gains by it. Throws where it is demanded and
/// cannot be.
std::optional<kernels::SettleArgs> PlanBuilder::slices() {
  const Regime asked = spec_.regime;
  const bool demanded = asked != Regime::library && asked != Regime::automatic;
  if (asked == Regime::library || (!demanded && exec_.device == Device::cpu)) return std::nullopt;
  const auto refuse = [&](const std::string& why) -> std::optional<kernels::SettleArgs> {
    PC_CHECK(!demanded, "plan", "plan.regime: ", name_of(asked), " cannot be had: ", why,
             "; plan.regime: auto takes what can be had");
    return std::nullopt;
  };
  if (const std::string why = not_sliced(); !why.empty()) return refuse(why);
  const auto& sgd = std::get<ValueSgd>(spec_.relax.stepper);
  kernels::SettleArgs args{.steps = spec_.relax.steps, .rate = sgd.rate, .momentum = sgd.momentum};
  args.exponent = operands_.exponent(Magnitude::change);
  args.overflow = network_.overflow();
  for (NodeId v = 0; v < graph_.node_count(); ++v) {
    if (node(v).free == Free::part) return refuse("node " + graph_.node(v).name + " is clamped by a mask");
    args.nodes.add({value(v), node(v).free == Free::all ? change(v) : View{}});
  }
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) {
    const Prediction& prediction = graph_.prediction(p);
    const Terms t = terms(p);
    if (t.energy != &gaussian || !t.precisions.empty()) {
      return refuse("prediction " + prediction.name + " is not Gaussian with one precision");
    }
    kernels::SettlePrediction small{.node = prediction.node, .precision = t.precision};
    args.predictions.add(small);
  }
  for (EdgeId e = 0; e < graph_.edge_count(); ++e) {
    if (constant_edge(e)) {
      const PredictionId p = graph_.edge(e).prediction;
      if (!state(p).fused) continue;
      const Link& last = link_of(e, last_link(e));
      args.edges.add({.source = -1,
                      .prediction = p,
                      .z = network_.link_buffer("z", e, last_link(e) - 1, spec_.batch),
                      .after = *last.op->activation,
                      .leak = leak_of(last)});
      continue;
    }
    auto small = dense(graph_.edge(e));
    if (!small) return refuse("edge " + graph_.edge(e).name + " is more than one linear operator and an activation");
    small->source = graph_.edge(e).from[0];
    small->prediction = graph_.edge(e).prediction;
    for (int link = 0; link <= last_link(e); ++link) {
      const std::vector<View> weights = network_.link_weights(e, link);
      if (weights.empty()) continue;
      small->w = operands_.narrower() ? network_.operand(weights[0], spec_.operands, 0) : weights[0];
    }
    if (small->after != scalar::Activation::identity) {
      small->z = network_.link_buffer("z", e, last_link(e) - 1, spec_.batch);
    }
    args.edges.add(*small);
  }
  const kernels::SettleArgs moving = without_constant(args);
  if (asked == Regime::tiled) {
    if (const std::string why = not_tiled(moving); !why.empty()) return refuse(why);
    regime_ = Regime::tiled;
    return moving;
  }
  if (!kernels::settle_fits(exec_, moving)) {
    if (!demanded && gains_by_tiles(moving)) {
      regime_ = Regime::tiled;
      return moving;
    }
    return refuse("the graph has more than " + std::to_string(kernels::kSettleMost) +
                  " nodes, predictions or edges, or the weights do not fit the shared memory of one block");
  }
  regime_ = Regime::warps;
  if (!settles_errors()) args = moving;
  args.warps = asked != Regime::sliced;
  if (kernels::SettleArgs whole = args; args.warps && begin_inside(whole) && kernels::settle_by_warps(exec_, whole)) {
    begins_inside_ = true;
    return whole;
  }
  if (!args.warps || !kernels::settle_by_warps(exec_, with_starts(args))) {
    if (asked == Regime::warps) {
      return refuse("products are not of float16 or bfloat16, or edges are of kinds that warps do not do");
    }
    regime_ = Regime::sliced;
    return moving;
  }
  return args;
}

/// With errors at the start, of which it is not known yet which are zero: those of a feedforward start are.
kernels::SettleArgs PlanBuilder::with_starts(kernels::SettleArgs args) {
  const bool feedforward =
      spec_.relax.init.kind == ValueInit::Kind::feedforward && topological_order(graph_) && !spec_.settings.nudge;
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) {
    const NodeId v = graph_.prediction(p).node;
    const bool exact = feedforward && node(v).free == Free::all && graph_.node(v).predictions[0] == p;
    if (!exact) args.predictions[p].start = value(v);
  }
  return args;
}

/// What tiles will do.
kernels::SettleArgs PlanBuilder::as_tiled(kernels::SettleArgs args) {
  args = with_starts(std::move(args));
  leave_out_resting(args);
  return args;
}

/// Why the relaxation cannot be cut into tiles.
std::string PlanBuilder::not_tiled(const kernels::SettleArgs& args) {
  if (!is_hopper(exec_)) return "it needs a GPU of compute capability 9.0, and a build for it";
  return kernels::why_not_tiled(as_tiled(args), kernels::tiles::machine(exec_));
}

/// Whether tiles are faster than call by call: where many layers move. With 21 of width 512 a step took 0.86 ms in the
/// place of 1.25, with 3 of width 1024 0.57 in the place of 0.54 (docs/benchmarks.md).
bool PlanBuilder::gains_by_tiles(const kernels::SettleArgs& args) {
  constexpr std::ptrdiff_t kMany = 12;
  if (!operands_.narrower() || !not_tiled(args).empty()) return false;
  const kernels::SettleArgs tiled = as_tiled(args);
  return std::count_if(tiled.nodes.begin(), tiled.nodes.end(), [](const auto& n) { return !n.dx.empty(); }) >= kMany;
}

/// Whether a prediction cannot change while this plan relaxes.
bool PlanBuilder::constant_prediction(PredictionId p) const {
  const auto& edges = graph_.prediction(p).edges;
  return !edges.empty() && std::all_of(edges.begin(), edges.end(), [&](EdgeId e) { return constant_edge(e); });
}

/// Leaves the start to the call as well; false where others have a hand in it, or look at it.
bool PlanBuilder::begin_inside(kernels::SettleArgs& args) {
  const auto order = topological_order(graph_);
  const bool feedforward = spec_.relax.init.kind == ValueInit::Kind::feedforward && order;
  if (!feedforward || !settles_errors() || spec_.measure_start || spec_.settings.nudge) return false;
  for (NodeId v = 0; v < graph_.node_count(); ++v) {  // the call takes the one of the lowest number for the first
    const auto& predictions = graph_.node(v).predictions;
    if (!predictions.empty() && predictions[0] != *std::min_element(predictions.begin(), predictions.end()))
      return false;
  }
  int listed = 0;
  for (EdgeId e = 0; e < graph_.edge_count(); ++e) {
    const PredictionId p = graph_.edge(e).prediction;
    if (constant_edge(e) != constant_prediction(p)) return false;
    for (int link = 0; link <= last_link(e); ++link) {
      if (observes(spec_, link_of(e, link))) return false;
    }
    if (constant_edge(e) && !state(p).fused) continue;
    const std::vector<View> weights = network_.link_weights(e, 0);
    kernels::SettleEdge& small = args.edges[listed++];
    if (!small.constant() && weights.size() > 1) small.bias = weights[1];
  }
  std::vector<int> stage(static_cast<std::size_t>(graph_.node_count()), 0);  // at which a node's value is there
  const auto stage_of = [&](PredictionId p) {
    int latest = 0;
    for (const EdgeId e : graph_.prediction(p).edges) {
      for (const NodeId from : graph_.edge(e).from) latest = std::max(latest, stage[static_cast<std::size_t>(from)]);
    }
    return latest + 1;
  };
  for (const NodeId v : *order) {
    if (node(v).free == Free::none || graph_.node(v).predictions.empty()) continue;
    stage[static_cast<std::size_t>(v)] = stage_of(graph_.node(v).predictions[0]);
  }
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) {
    kernels::SettlePrediction& made = args.predictions[p];
    made.stage = std::max(stage_of(p), stage[static_cast<std::size_t>(made.node)]);  // its error wants the value
    if (constant_prediction(p) && !state(p).fused) args.edges.add({.source = -1, .prediction = p, .z = mu(p)});
  }
  return true;
}

/// What start_values would have left, but for the values.
void PlanBuilder::have_start() {
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) {
    if (constant_prediction(p)) {
      predict(p);
      continue;
    }
    PredictionState& s = state(p);
    static_cast<void>(same(s.mu, prediction_key(p)));
    s.mu_version = fresh();
  }
}

/// Nodes that nothing reaches in so few steps stay where they are.
void PlanBuilder::leave_out_resting(kernels::SettleArgs& args) {
  const std::vector<int> first = kernels::settle_first(args).nodes;
  const auto rests = [&](int v) { return first[static_cast<std::size_t>(v)] >= args.steps; };
  const auto edges = std::exchange(args.edges, {});
  for (const kernels::SettleEdge& e : edges) {
    if (!rests(e.source)) args.edges.add(e);
  }
  for (int v = 0; v < args.nodes.count; ++v) {
    if (rests(v)) args.nodes[v].dx = {};
  }
}

/// What happens before the first move happens as ever; then all moves at once.
void PlanBuilder::settle(kernels::SettleArgs args) {
  const auto energy_start = [&](PredictionId p) {
    return network_.row_buffer("energy_start/" + graph_.prediction(p).name, spec_.batch);
  };
  const bool kept = keeps_start_ || begins_inside_;
  if (begins_inside_) {
    by_changes_ = true;
  } else {
    look(0);
  }
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) {
    if (!begins_inside_) {
      args.predictions[p].start = start_error(p);
    } else if (spec_.energies && !args.makes(p)) {
      args.predictions[p].energy_start = energy_start(p);
    }
  }
  if (regime_ == Regime::tiled) leave_out_resting(args);
  part("start");
  for (NodeId v = 0; v < graph_.node_count() && !kept; ++v) {
    if (!args.nodes[v].dx.empty()) kernels::copy(exec_, {.in = value(v), .out = buffer("x0", v)});
  }
  part("settle");
  for (EdgeId e = 0; e < graph_.edge_count(); ++e) {
    for (int link = 0; link <= last_link(e) && !constant_edge(e); ++link) {
      static_cast<void>(operands_.weights(e, link));  // they are there when it begins
    }
  }
  for (NodeId v = 0; v < graph_.node_count(); ++v) {
    kernels::SettleNode& moving = args.nodes[v];
    if (moving.dx.empty()) continue;
    moving.whole = value(v);
    if (!feeds_products(v)) continue;
    if (!settles_errors()) moving.narrow = operands_.beside(change(v), Magnitude::change);
    moving.narrow_whole = operands_.beside(value(v), Magnitude::value);
  }
  if (regime_ == Regime::tiled) {
    const auto bytes = static_cast<std::int64_t>(kernels::settle_scratch(args));
    args.scratch = network_.arena().take("settle/" + std::to_string(bytes), {bytes}, DType::u8);
  }
  if (settles_errors()) ask_errors(args);
  kernels::settle(exec_, args);
  plan_.regime_ = regime_;
  for (NodeId v = 0; v < graph_.node_count(); ++v) {
    if (!args.nodes[v].dx.empty()) node(v).version = node(v).whole_version = fresh();
  }
  if (settles_errors()) have_errors();
  part("metrics");
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) {
    if (args.predictions[p].energy_start.empty()) continue;
    kernels::sum(exec_,
                 {.in = energy_start(p), .out = network_.scalar(energy_start_name(graph_, p)), .write = Write::add});
  }
}

/// Whether the same call may leave the errors that follow, because nobody asks for more of what leads to them: neither
/// for predictions themselves nor for what products of an edge that moves have multiplied, but values.
bool PlanBuilder::settles_errors() const {
  if (regime_ != Regime::warps || !learning() || spec_.measure_end || !spec_.observed.empty() ||
      spec_.relax.forward_update)
    return false;
  for (EdgeId e = 0; e < graph_.edge_count(); ++e) {
    const Edge& edge = graph_.edge(e);
    const std::size_t most = state(edge.prediction).fused ? 2 : 1;
    if (!constant_edge(e) && (edge.chain.size() > most || !edge.chain[0].op->products)) return false;
  }
  return true;
}

void PlanBuilder::ask_errors(kernels::SettleArgs& args) {
  const auto product = [&](EdgeId e, int link) { return link_of(e, link).op->products; };
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) {
    const auto& edges = graph_.prediction(p).edges;
    kernels::SettlePrediction& wanted = args.predictions[p];
    wanted.delta = delta(p);
    if (spec_.energies) wanted.energy = energy_rows(p);
    if (!state(p).fused) {
      if (std::any_of(edges.begin(), edges.end(), [&](EdgeId e) { return product(e, last_link(e)); })) {
        wanted.narrow = operands_.beside(wanted.delta, Magnitude::change);
      }
      continue;
    }
    const EdgeId e = edges[0];
    wanted.dz = network_.link_buffer("dz", e, last_link(e) - 1, spec_.batch);
    if (product(e, last_link(e) - 1)) wanted.narrow = operands_.beside(wanted.dz, Magnitude::change);
  }
}

void PlanBuilder::have_errors() {
  teaching_ = true;
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) {
    PredictionState& s = state(p);
    const auto& edges = graph_.prediction(p).edges;
    if (!same(s.mu, prediction_key(p))) {
      s.mu_version = fresh();
      s.changed = std::any_of(edges.begin(), edges.end(), [&](EdgeId e) { return moves(e); });
    }
    static_cast<void>(same(s.error, {node(graph_.prediction(p).node).version, s.mu_version, 1}));
    s.delta_version = fresh();
    s.zero = s.delta_is_change = false;
    s.factor = 1;
    s.has_energy = spec_.energies;
  }
}

}  // namespace pc

#include <algorithm>
#include <utility>

#include "kernels/settle_tiles.h"
#include "pc/plan_builder.h"

namespace pc {

/// Why the relaxation cannot be one call; empty: it can, as far as the schedule goes.
std::string PlanBuilder::not_sliced() const {
  const auto* sgd = std::get_if<ValueSgd>(&spec_.relax.stepper);
  const bool plain = schedule().engine == Engine::relax && schedule().learn == Learn::at_end && !schedule().frozen &&
                     !schedule().free_output;
  if (!plain) return "the schedule is not pc";
  if (!spec_.optimize) return "plan.optimize is false";
  if (sgd == nullptr || sgd->automatic) return "values move by another stepper than sgd with a rate of its own";
  if (!std::holds_alternative<FixedSteps>(spec_.relax.stop)) return "somebody looks when to stop";
  if (spec_.form == Form::values) return "plan.form is values";
  if (sgd->temperature != 0) return "values move by chance too";
  if (spec_.trace || spec_.watch) return "somebody looks at each step";
  if (spec_.relax.sweep != Sweep::synchronous) return "values move in turns";
  if (spec_.relax.precision.kind != PrecisionSchedule::Kind::constant) return "precisions change from step to step";
  return {};
}

namespace {

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
  const bool demanded = asked == Regime::sliced || asked == Regime::tiled;
  if (asked == Regime::library || (!demanded && exec_.device == Device::cpu)) return std::nullopt;
  const auto refuse = [&](const std::string& why) -> std::optional<kernels::SettleArgs> {
    PC_CHECK(!demanded, "plan", "regime: ", name_of(asked), " cannot be had: ", why, "; use regime: auto");
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
    if (constant_edge(e)) continue;
    auto small = dense(graph_.edge(e));
    if (!small) return refuse("edge " + graph_.edge(e).name + " is more than one linear operator and an activation");
    small->source = graph_.edge(e).from[0];
    small->prediction = graph_.edge(e).prediction;
    for (int link = 0; link <= last_link(e); ++link) {
      const std::vector<View> weights = network_.link_weights(e, link);
      if (weights.empty()) continue;
      small->w = operands_.copies() ? network_.operand(weights[0], spec_.operands, 0) : weights[0];
    }
    if (small->after != scalar::Activation::identity) {
      small->z = network_.link_buffer("z", e, last_link(e) - 1, spec_.batch);
    }
    args.edges.add(*small);
  }
  if (asked != Regime::tiled) {
    if (kernels::settle_fits(exec_, args)) return args;
    return refuse("the graph has more than " + std::to_string(kernels::kSettleMost) +
                  " nodes, predictions or edges, or the weights do not fit the shared memory of one block");
  }
  if (!is_hopper(exec_)) return refuse("it needs a GPU of compute capability 9.0, and a build for it");
  if (const std::string why = kernels::why_not_tiled(args); !why.empty()) return refuse(why);
  tiled_ = true;
  return args;
}

/// What happens before the first move happens as ever; then all moves at once. Nodes that nothing reaches in so few
/// steps stay where they are.
void PlanBuilder::settle(kernels::SettleArgs args) {
  look(0);
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) args.predictions[p].start = start_error(p);
  const std::vector<int> first = kernels::settle_first(args).nodes;
  const auto moves = [&](NodeId v) { return first[static_cast<std::size_t>(v)] < spec_.relax.steps; };
  const auto edges = std::exchange(args.edges, {});
  for (const kernels::SettleEdge& e : edges) {
    if (moves(e.source)) args.edges.add(e);
  }
  part("settle");
  for (EdgeId e = 0; e < graph_.edge_count(); ++e) {
    for (int link = 0; link <= last_link(e) && !constant_edge(e); ++link) {
      static_cast<void>(operands_.weights(e, link));  // they are there when it begins
    }
  }
  for (NodeId v = 0; v < graph_.node_count(); ++v) {
    kernels::SettleNode& moving = args.nodes[v];
    if (!moves(v)) moving.dx = {};
    if (moving.dx.empty()) continue;
    moving.whole = value(v);
    if (!feeds_products(v)) continue;
    moving.narrow = operands_.beside(change(v), Magnitude::change);
    moving.narrow_whole = operands_.beside(value(v), Magnitude::value);
  }
  if (tiled_) {
    const auto bytes = static_cast<std::int64_t>(kernels::settle_scratch(args));
    args.scratch = network_.arena().take("settle/" + std::to_string(bytes), {bytes}, DType::u8);
  }
  kernels::settle(exec_, args);
  plan_.regime_ = tiled_ ? Regime::tiled : Regime::sliced;
  for (NodeId v = 0; v < graph_.node_count(); ++v) {
    if (!args.nodes[v].dx.empty()) node(v).version = node(v).whole_version = fresh();
  }
}

}  // namespace pc

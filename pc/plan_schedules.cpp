#include <algorithm>
#include <cmath>

#include "kernels/arithmetic.h"
#include "kernels/arrival.h"
#include "kernels/feedforward.h"
#include "kernels/precision.h"
#include "kernels/random.h"
#include "kernels/reduce.h"
#include "pc/levels.h"
#include "pc/optimizer.h"
#include "pc/plan_builder.h"

namespace pc {

// --- the start ---

/// Whether a node's first prediction may be made in the place of its value: where changes are counted from it, and
/// nobody looks at the prediction itself.
bool PlanBuilder::starts_directly(NodeId v) const {
  const PredictionId p = graph_.node(v).predictions[0];
  const bool observed = std::find(spec_.observed.begin(), spec_.observed.end(), v) != spec_.observed.end();
  return spec_.optimize && node(v).free == Free::all && !node(v).nudged && !observed && !state(p).fused &&
         !state(p).pooled && graph_.prediction(p).spec.energy == &gaussian && can_use_changes();
}

/// x <- mu, where x is free.
void PlanBuilder::set_to_prediction(NodeId v) {
  if (graph_.node(v).predictions.empty() || node(v).free == Free::none) return;
  const PredictionId p = graph_.node(v).predictions[0];
  PredictionState& s = state(p);
  const bool lacks_end = s.fused || s.pooled;
  if (lacks_end && node(v).free == Free::all) {
    predict_end(graph_.prediction(p).edges[0], value(v));
  } else {
    if (lacks_end) predict_end(graph_.prediction(p).edges[0], mu(p));
    if (p != direct_) kernels::copy(exec_, {.in = mu(p), .out = value(v), .mask = free_mask(v)});
  }
  node(v).version = fresh();
  if (node(v).free == Free::all && terms(p).energy->zero_at_prediction) {
    s.settled_value = node(v).version;
    s.settled_mu = s.mu;
  }
}

/// The layer that makes a node's first value from the value of another, `from`, which moves as well, where a chain of
/// such layers is one call (kernels/feedforward.h). Nothing: it is not of that kind.
std::optional<kernels::FeedforwardLayer> PlanBuilder::layer_of(NodeId v, NodeId& from) {
  if (!operands_.narrower() || starts_changes_ || node(v).free == Free::none || graph_.node(v).predictions.empty() ||
      !starts_directly(v)) {
    return std::nullopt;
  }
  const auto& edges = graph_.prediction(graph_.node(v).predictions[0]).edges;
  if (edges.empty() || graph_.edge(edges[0]).from.empty()) return std::nullopt;
  kernels::FeedforwardLayer layer{.y = value(v)};
  from = graph_.edge(edges[0]).from[0];
  for (const EdgeId e : edges) {
    const Edge& edge = graph_.edge(e);
    const Link &first = edge.chain.front(), &last = edge.chain.back();
    if (edge.from.size() != 1 || edge.from[0] != from || node(from).free != Free::all) return std::nullopt;
    if (edge.chain.size() == 1 && last.op->name == "identity" && !layer.residual) {
      layer.residual = true;
      continue;
    }
    const bool mapped = edge.chain.size() == 2 && first.op->activation;
    const bool linear = last.op->name == "linear" && last.attrs.at("last_axis") == 0;
    if (!linear || (edge.chain.size() > 1 && !mapped) || !layer.w.empty()) return std::nullopt;
    const View whole = network_.link_weights(e, last_link(e))[0];
    if (whole.rows() != whole.cols() || !kernels::FeedforwardArgs::takes(whole.cols())) return std::nullopt;
    const std::vector<View> weights = operands_.weights(e, last_link(e));
    layer.w = weights[0];
    if (weights.size() > 1) layer.bias = weights[1];
    layer.gain = last.attrs.at("gain");
    if (!mapped) continue;
    layer.f = *first.op->activation;
    layer.leak = leak_of(first);
    layer.z = network_.link_buffer("z", e, 0, spec_.batch);
  }
  return layer.w.empty() ? std::nullopt : std::optional(layer);
}

/// The values of a chain of layers that begins at node `v`, in one call, if it is long enough.
std::vector<NodeId> PlanBuilder::start_chain(NodeId v, const std::vector<NodeId>& order) {
  constexpr std::size_t kFew = 4;
  if (!is_hopper(exec_)) return {};
  part("predict");
  NodeId first = -1;
  std::vector<NodeId> chain;
  kernels::FeedforwardArgs args{.overflow = network_.overflow()};
  for (auto next = std::find(order.begin(), order.end(), v); next != order.end(); ++next) {
    NodeId from = -1;
    const auto layer = layer_of(*next, from);
    const bool follows =
        layer && (chain.empty() ? *next == v : from == chain.back() && layer->w.cols() == args.layers[0].w.cols());
    if (!follows) {
      if (chain.empty()) return {};
      continue;
    }
    if (chain.empty()) first = from;
    chain.push_back(*next);
    args.layers.push_back(*layer);
    if (std::ssize(chain) == kernels::FeedforwardArgs::kMost) break;
  }
  if (chain.size() < kFew) return {};
  args.x = value(first);
  kernels::feedforward(exec_, args);
  for (const NodeId made : chain) {
    const PredictionId p = graph_.node(made).predictions[0];
    for (const EdgeId e : graph_.prediction(p).edges) static_cast<void>(mapped(e, false));  // it has been
    PredictionState& s = state(p);
    static_cast<void>(same(s.mu, prediction_key(p)));
    s.mu_version = fresh();
    direct_ = p;
    set_to_prediction(made);
  }
  direct_ = -1;
  return chain;
}

void PlanBuilder::clamp_part(NodeId v) {
  const View clamped = buffer("clamped", v), free = free_mask(v);
  kernels::fill(exec_, {.out = free, .value = 1});
  kernels::axpby(exec_, {.x = clamped, .y = free, .a = -1, .b = 1});
  kernels::copy(exec_, {.in = buffer("data", v), .out = value(v), .mask = clamped});
}

/// One synchronous sweep x <- mu over all free nodes.
void PlanBuilder::sweep() {
  for (NodeId v = 0; v < graph_.node_count(); ++v) {
    if (!graph_.node(v).predictions.empty() && node(v).free != Free::none) predict(graph_.node(v).predictions[0]);
  }
  for (NodeId v = 0; v < graph_.node_count(); ++v) set_to_prediction(v);
}

void PlanBuilder::start_values() {
  part("start");
  const ValueInit& init = spec_.relax.init;
  const bool feedforward = init.kind == ValueInit::Kind::feedforward;
  const auto order = feedforward ? topological_order(graph_) : std::nullopt;
  const auto overwritten = [&](NodeId v) {
    return spec_.optimize && order && node(v).free == Free::all && !graph_.node(v).predictions.empty();
  };
  for (NodeId v = 0; v < graph_.node_count(); ++v) {
    if (node(v).nudged) kernels::copy(exec_, {.in = value(v), .out = buffer("target", v)});
    if (node(v).free == Free::none || init.kind == ValueInit::Kind::previous) continue;
    if (init.kind == ValueInit::Kind::normal) {
      kernels::random(exec_, {.out = value(v),
                              .a = 0,
                              .b = init.sigma,
                              .seed = network_.seed(),
                              .purpose = Purpose::values,
                              .stream = static_cast<std::uint32_t>(v),
                              .step = network_.scalar(spec_.draws)});
    } else if (!overwritten(v)) {
      kernels::fill(exec_, {.out = value(v)});
    }
  }
  if (init.kind == ValueInit::Kind::normal) kernels::tick(exec_, {.counter = network_.scalar(spec_.draws)});
  for (NodeId v = 0; v < graph_.node_count(); ++v) {
    if (node(v).free == Free::part) clamp_part(v);
    node(v).version = fresh();
  }
  if (!feedforward) return;
  if (order) {
    std::set<NodeId> started;
    for (const NodeId v : *order) {
      if (graph_.node(v).predictions.empty() || node(v).free == Free::none || started.contains(v)) continue;
      if (begins_inside_) {
        node(v).version = fresh();
        continue;
      }
      const std::vector<NodeId> chain = start_chain(v, *order);
      started.insert(chain.begin(), chain.end());
      if (!chain.empty()) continue;
      if (starts_directly(v)) direct_ = graph_.node(v).predictions[0];
      predict(graph_.node(v).predictions[0]);
      set_to_prediction(v);
      direct_ = -1;
    }
    if (begins_inside_) have_start();
  } else {
    for (int i = 0; i < init.sweeps; ++i) sweep();
  }
}

/// Clamps targets to mu + beta (target - mu) instead (Pinchetti et al. 2025, "Benchmarking Predictive Coding Networks",
/// section 3).
void PlanBuilder::nudge_targets() {
  if (!spec_.settings.nudge || schedule().free_output) return;
  const Nudge& nudge = *spec_.settings.nudge;
  const View batches = network_.scalar("clock/batches"), beta = network_.scalar("clock/beta");
  part("start");
  kernels::tick(exec_, {.counter = batches});
  kernels::nudge_strength(exec_, {.counter = batches,
                                  .beta = beta,
                                  .inverse = network_.scalar("clock/inverse_beta"),
                                  .base = nudge.side == Nudge::Side::negative ? -nudge.beta : nudge.beta,
                                  .growth = nudge.growth,
                                  .limit = 1,
                                  .per_epoch = spec_.settings.batches,
                                  .alternate = nudge.side == Nudge::Side::centered});
  for (const NodeId v : loss_nodes(graph_, spec_.clamps)) {
    const PredictionId p = graph_.node(v).predictions[0];
    predict(p);
    part("start");
    kernels::lerp(exec_, {.a = mu(p), .b = value(v), .t = beta, .y = value(v)});
    node(v).version = fresh();
  }
}

void PlanBuilder::reset_stepper() {
  part("start");
  const bool adam = std::holds_alternative<ValueAdam>(spec_.relax.stepper);
  for (NodeId v = 0; v < graph_.node_count(); ++v) {
    if (node(v).free == Free::none) continue;
    if (by_errors()) kernels::fill(exec_, {.out = buffer("e", v)});
    if (const auto* sgd = std::get_if<ValueSgd>(&spec_.relax.stepper)) {
      if (sgd->momentum != 0 && !sliced_) kernels::fill(exec_, {.out = buffer("value_velocity", v)});
    } else if (adam) {
      kernels::fill(exec_, {.out = buffer("value_m", v)});
      kernels::fill(exec_, {.out = buffer("value_v", v)});
    }
  }
  if (adam) {
    const View clock = network_.scalar("clock/value_step");
    kernels::fill(exec_, {.out = clock});
  }
  if (const auto* flow = std::get_if<ValueFlow>(&spec_.relax.stepper)) {
    const View length = network_.scalar("clock/flow_step"), time = network_.scalar("clock/flow_time");
    kernels::fill(exec_, {.out = length, .value = flow->rate});
    kernels::fill(exec_, {.out = time});
  }
  if (schedule().learn != Learn::first_arrival) return;
  for (const Prediction& prediction : graph_.predictions()) {
    const View fired = network_.row_buffer("fired/" + prediction.name, spec_.batch);
    kernels::fill(exec_, {.out = fired});
  }
}

void PlanBuilder::keep_start() {
  part("start");
  for (NodeId v = 0; v < graph_.node_count(); ++v) {
    node(v).start_version = node(v).version;
    node(v).whole_version = node(v).version;
    if (keeps_start_ && node(v).free != Free::none) {
      kernels::copy(exec_, {.in = value(v), .out = buffer("x0", v)});
    }
  }
}

/// What operators take down of a batch is taken from the feedforward pass: that is what evaluation will see too.
void PlanBuilder::observe_start() {
  for (EdgeId e = 0; e < graph_.edge_count(); ++e) {
    for (int link = 0; link <= last_link(e); ++link) {
      const Link& l = link_of(e, link);
      if (!observes(spec_, l)) continue;
      predict(graph_.edge(e).prediction);
      part("start");
      const std::vector<View> x = inputs(e, link), state = network_.link_state(e, link, spec_.batch);
      l.op->observe({.exec = exec_, .x = x, .w = {}, .attrs = l.attrs, .state = state});
    }
  }
}

/// Values as they were when the first relaxation began.
void PlanBuilder::restart() {
  part("start");
  for (NodeId v = 0; v < graph_.node_count(); ++v) {
    if (node(v).free == Free::none) continue;
    kernels::copy(exec_, {.in = buffer("x0", v), .out = value(v)});
    if (by_changes_) kernels::fill(exec_, {.out = change(v)});
    node(v).version = node(v).whole_version = node(v).start_version;
  }
}

void PlanBuilder::start() {
  if (phase_ > 0) {
    if (!one_sided()) restart();  // else it goes on from the free state
    reset_stepper();
    return;
  }
  part("load");
  if (spec_.load) spec_.load(exec_, spec_.batch);
  part("start");
  draw_states(exec_, network_, spec_);
  starts_changes_ = can_use_changes() && has_pools();
  start_values();
  nudge_targets();
  reset_stepper();
  keep_start();
  observe_start();
  frozen_ = schedule().frozen;
  if (by_front()) begin_front();
}

// --- one step ---

void PlanBuilder::evaluate(int t, bool want_energy) {
  predict_all();
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) compare(p, want_energy, factor(t, p));
}

/// What is evaluated and measured at step t, before anything moves.
void PlanBuilder::look(int t) {
  const bool watch_energy = spec_.watch || std::holds_alternative<EnergyPlateau>(spec_.relax.stop);
  // Where weights move in the loop, the last step's energies are the final ones. With a stop rule any may be the last.
  const bool fixed = std::holds_alternative<FixedSteps>(spec_.relax.stop);
  const bool final_in_loop = updates_in_loop() && spec_.energies;
  const bool measured = spec_.energies && phase_ == 0;
  const bool first = t == 0 && measured, last = final_in_loop && fixed && t == spec_.relax.steps - 1;
  const bool want_energy = first || last || (final_in_loop && !fixed) || watch_energy || spec_.trace ||
                           (schedule().sweeps() && spec_.energies);
  if (by_errors() && t > 0) follow_errors();
  // The first look may be what changes are counted from; and even nodes leave predictions that odd ones still need.
  errors_next_ = !want_energy && t > 0 && spec_.relax.sweep == Sweep::synchronous;
  predict_all();
  // Where predictions stay those of the start, an error is how far its value has moved.
  if (t == 0 && phase_ == 0 && !by_changes_ && (frozen_ || can_use_changes())) begin_changes();
  if (t == 0 && phase_ == 0 && spec_.measure_start) {
    part("metrics");
    spec_.measure_start(exec_, spec_.batch);
  }
  // Energies are those of the graph's own precisions, whatever the errors of this step are multiplied by.
  const bool apart = want_energy && precisions_change();
  // An error that comes to rest is not computed again at the end, so its energy is asked for now.
  const bool early = goes_whole_way() && spec_.energies;
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) {
    compare(p, want_energy || early, apart ? 1 : factor(t, p));
  }
  errors_next_ = false;
  if (want_energy) find_costs();
  if (first) add_energies(energy_start_name);
  if (last) add_energies(energy_end_name);
  if (watch_energy) {
    const bool gradients = std::holds_alternative<GradientNorm>(spec_.relax.stop);
    add_total_energy(gradients ? network_.scalar(trace_name(0)) : plan_.progress_, Write::set);
  }
  if (spec_.trace) add_total_energy(network_.scalar(trace_name(t)), Write::add);
  for (PredictionId p = 0; p < graph_.prediction_count() && apart; ++p) compare(p, false, factor(t, p));
}

/// Step t of a relaxation: what is measured, what learns, what moves.
void PlanBuilder::step(int t) {
  look(t);
  learn_in_loop(t);
  if (schedule().moves == Moves::front) {
    front_step(t);
  } else if (!schedule().sweeps() || t + 1 < spec_.relax.steps) {  // nobody would look at a sweep's last move
    descend(t);
  }
  if (updates_in_loop()) update();
}

/// Every free value (or error) moves down the energy.
void PlanBuilder::descend(int t) {
  if (std::holds_alternative<ValueFlow>(spec_.relax.stepper)) return flow_step(t);
  if (std::holds_alternative<ValueAdam>(spec_.relax.stepper)) {
    kernels::tick(exec_, {.counter = network_.scalar("clock/value_step")});
  }
  if (by_errors()) return error_step();
  if (spec_.relax.sweep == Sweep::synchronous) return move_values(pull(Parity::both), Write::set);
  const std::vector<Pull> even = pull(Parity::even);
  move_values(even, Write::set);
  evaluate(t, false);
  move_values(pull(Parity::odd), even.empty() ? Write::set : Write::add);
}

/// x = mu + e, in topological order.
void PlanBuilder::follow_errors() {
  const std::vector<NodeId> order = topological_order(graph_).value();
  for (const NodeId v : order) {
    if (graph_.node(v).predictions.empty() || node(v).free == Free::none) continue;
    predict(graph_.node(v).predictions[0]);
    set_to_prediction(v);
    kernels::axpby(exec_, {.x = buffer("e", v), .y = value(v), .a = 1, .b = 1});
    node(v).version = fresh();
  }
}

/// Errors as variables (Goemaere et al. 2025, "Error Optimization"): with x = mu + e, the slope of the whole energy
/// with respect to e is the error's own pull less what a reverse pass brings back.
void PlanBuilder::error_step() {
  const std::vector<NodeId> order = topological_order(graph_).value();
  std::vector<Pull> pulls;
  backward_ = true;
  for (auto v = order.rbegin(); v != order.rend(); ++v) {
    if (node(*v).free == Free::none) continue;
    const bool pulled = pull_back(*v);
    const View own = own_gradient(*v);
    if (own.empty() && !pulled) continue;
    pulls.push_back({*v, own, pulled ? buffer("back", *v) : View{}});
  }
  backward_ = false;
  move_values(pulls, Write::set);
}

/// Each node moves once, from where it holds its own prediction, by gamma times what has arrived. So that is its change
/// and its error, to the last digit; read off as the difference of its value and the prediction it would have lost as
/// many as it is smaller than the value.
void PlanBuilder::begin_front() {
  by_changes_ = true;
  for (PredictionState& s : predictions_) s.exact_start = true;
}

/// What the nodes of level t send arrives, and the nodes of level t + 1, for which nothing more can come, move. Between
/// levels an error waits; each step of waiting costs it a factor of gamma, as an identity vertex would.
void PlanBuilder::front_step(int t) {
  const auto weaken = [&](NodeId v) {
    const double gamma = spec_.settings.gamma;
    if (gamma != 1) kernels::axpby(exec_, {.x = change(v), .y = change(v), .a = gamma, .b = 0});
  };
  part("move");
  for (NodeId v = 0; v < graph_.node_count(); ++v) {
    if (node(v).level > t && node(v).arrived) weaken(v);
  }
  gated_ = schedule().learn == Learn::first_arrival;
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) {
    const int level = node(graph_.prediction(p).node).level;
    // By level the clock says which errors go; by themselves they go when they arrive, and the gate knows.
    if (gated_ ? level >= 0 : level == t) deliver(p);
  }
  gated_ = false;
  part("move");
  for (NodeId v = 0; v < graph_.node_count(); ++v) {
    if (node(v).level != t + 1 || !node(v).arrived || node(v).free == Free::none) continue;
    weaken(v);
    node(v).version = fresh();
  }
}

/// Lets the first error of each sample through, whenever it comes (Song et al. 2020, the gate of Fa-Z-IL).
void PlanBuilder::gate(PredictionId p) {
  part("error");
  state(p).gated_version = state(p).delta_version;
  kernels::first_arrival(exec_, {.delta = delta(p),
                                 .fired = network_.row_buffer("fired/" + graph_.prediction(p).name, spec_.batch),
                                 .gated = network_.prediction_buffer("gated", p, spec_.batch)});
}

/// An error reaches the weights and the sources of its prediction.
void PlanBuilder::deliver(PredictionId p) {
  if (state(p).zero) return;
  if (gated_) {
    if (spec_.optimize && state(p).gated_version == state(p).delta_version) return;  // it has gone through
    gate(p);
  }
  for (const EdgeId e : graph_.prediction(p).edges) {
    part("pullback");
    edge_backward(e);
    if (learning()) gradients_of(e);
    const Edge& edge = graph_.edge(e);
    for (std::size_t source = 0; source < edge.from.size(); ++source) {
      NodeState& from = node(edge.from[source]);
      if (from.free == Free::none || graph_.node(edge.from[source]).predictions.empty()) continue;
      part("pullback");
      pull_edge(e, static_cast<int>(source), change(edge.from[source]), from.arrived ? Write::add : Write::set);
      from.arrived = true;
    }
  }
}

// --- learning ---

void PlanBuilder::begin_gradients() { written_.clear(); }

/// Makes what a link has made as an operand alone.
void PlanBuilder::have_link(EdgeId e, int link) {
  if (link < 0) return;
  const View z = network_.link_buffer("z", e, link, spec_.batch);
  if (operands_.alone(z)) predict_link(e, link, z, Write::set);
}

/// Adds what one edge's weights learn from what its prediction sends.
void PlanBuilder::gradients_of(EdgeId e) {
  part("pullback");
  edge_backward(e);
  part("weight gradient");
  for (int link = 0; link <= last_link(e); ++link) {
    const Link& l = link_of(e, link);
    if (l.params.empty()) continue;
    have_link(e, link - 1);
    const std::vector<View> x = operands(e, link), w = operands_.weights(e, link), state = state_of(e, link);
    for (std::size_t i = 0; i < l.params.size(); ++i) {
      const Write write = written_.insert(l.params[i]).second ? Write::set : Write::add;
      const View delta = operands_.teaching(l, i, arriving(e, link));
      l.op->weight_grad({exec_, x, w, l.attrs, operands_.sparse(e, link), false, state}, delta, static_cast<int>(i),
                        network_.gradient(l.params[i]), write);
    }
  }
}

void PlanBuilder::gradients_of_all() {
  for (EdgeId e = 0; e < graph_.edge_count(); ++e) {
    if (!state(graph_.edge(e).prediction).zero) gradients_of(e);
  }
}

void PlanBuilder::end_gradients() {
  part("weight gradient");
  for (ParamId id = 0; id < graph_.param_count(); ++id) {
    const View dw = network_.gradient(id);
    if (!written_.contains(id)) {
      if (spec_.optimize && !spec_.gradients) continue;  // an update knows
      kernels::fill(exec_, {.out = dw});
      written_.insert(id);
    } else if (spec_.settings.nudge && !schedule().free_output) {
      kernels::scale_by(exec_, {.y = dw, .by = network_.scalar("clock/inverse_beta")});
    }
  }
}

void PlanBuilder::learn_in_loop(int t) {
  if (!learning() || schedule().moves == Moves::front) return;
  if (updates_in_loop()) {
    begin_gradients();
    gradients_of_all();
    return end_gradients();
  }
  if (schedule().learn != Learn::by_level) return;
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) {
    if (state(p).zero || node(graph_.prediction(p).node).level != t) continue;
    for (const EdgeId e : graph_.prediction(p).edges) gradients_of(e);
  }
}

void PlanBuilder::update() {
  const bool changes = spec_.optimize && by_changes_ && updates_in_loop();
  record_update(*program_, network_, operands_, *spec_.learn, spec_.batch, written_, changes);
  for (std::size_t i = 0; i < weight_version_.size(); ++i) {
    weight_version_[i] = fresh();
    if (changes) static_cast<void>(same(weight_changes_[i], {weight_version_[i]}));  // they have been made
  }
  learn_precisions();
}

void PlanBuilder::learn_precisions() {
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) {
    const EnergySpec& spec = graph_.prediction(p).spec;
    if (spec.learn_precision == 0 || state(p).zero) continue;
    kernels::LearnPrecisionArgs args{
        .delta = delta(p), .precisions = network_.precisions(p), .rate = spec.learn_precision};
    if (spec.most_precision > 0) args.least = 1 / spec.most_precision;
    kernels::learn_precision(exec_, args);
    state(p).error.clear();  // it was made with the old ones
  }
}

// --- energies ---

/// The rows of targets' costs.
void PlanBuilder::find_costs() {
  for (NodeId v = 0; v < graph_.node_count(); ++v) {
    if (node(v).nudged) nudge_pull(v);
  }
}

void PlanBuilder::add_energies(std::string (*name)(const Graph&, PredictionId)) {
  part("metrics");
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) {
    const NodeId v = graph_.prediction(p).node;
    const View out = network_.scalar(name(graph_, p));
    if (node(v).nudged) {  // its energy is the cost that backprop knows
      const View cost = network_.row_buffer("cost/" + graph_.node(v).name, spec_.batch);
      kernels::sum(exec_, {.in = cost, .out = out, .scale = -1 / nudge_beta(), .write = Write::add});
    } else if (!state(p).zero) {
      kernels::sum(exec_, {.in = energy_rows(p), .out = out, .write = Write::add});
    }
  }
}

void PlanBuilder::add_total_energy(const View& out, Write write) {
  part("metrics");
  const auto add = [&](const View& rows, double scale) {
    kernels::sum(exec_, {.in = rows, .out = out, .scale = scale, .write = write});
    write = Write::add;
  };
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) {
    const NodeId v = graph_.prediction(p).node;
    if (!state(p).zero) add(energy_rows(p), 1);
    if (node(v).nudged && pulls_) add(network_.row_buffer("cost/" + graph_.node(v).name, spec_.batch), -1);
  }
  if (write == Write::set) kernels::fill(exec_, {.out = out});
}

// --- the end ---

/// ep: adds one side's part of the gradient, the difference of the energies' slopes over the difference of the
/// strengths (Scellier & Bengio 2017; Kerjan et al. 2026 for predictive coding). Errors are divided before they are
/// used.
void PlanBuilder::add_side(double share) {
  if (!schedule().free_output || !learning()) return;
  predict_all();
  teaching_ = true;
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) compare(p, false, share);
  gradients_of_all();
  teaching_ = false;
}

/// Puts values where they have moved, for those who look. After an update nobody does: a sweep's values say nothing
/// about the weights that it leaves behind.
void PlanBuilder::show_values() {
  if (frozen_ && spec_.learn && !spec_.measure_end) return;
  if (!by_front()) return show_observed();
  for (NodeId v = 0; v < graph_.node_count(); ++v) {
    if (moved(v)) kernels::axpby(exec_, {.x = change(v), .y = value(v), .a = 1, .b = 1});
  }
}

void PlanBuilder::finish() {
  const bool fixed = std::holds_alternative<FixedSteps>(spec_.relax.stop);
  if (updates_in_loop() && spec_.energies && !fixed) add_energies(energy_end_name);
  if (updates_in_loop() && !spec_.measure_end) {
    for (NodeId v = 0; v < graph_.node_count() && by_changes_; ++v) whole(v);
    return;
  }
  if (by_errors()) follow_errors();
  predict_all();
  if (by_changes_) show_values();
  if (spec_.measure_end) {
    part("metrics");
    spec_.measure_end(exec_, spec_.batch);
  }
  const bool measured = spec_.energies || spec_.trace;
  if (updates_in_loop() || !(learning() || measured)) return;
  teaching_ = learning();
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) compare(p, measured, 1);
  if (measured) find_costs();
  if (spec_.energies) add_energies(energy_end_name);
  if (spec_.trace) add_total_energy(network_.scalar(trace_name(spec_.relax.steps)), Write::add);
  if (learning()) learn_at_end();
}

void PlanBuilder::learn_at_end() {
  if (spec_.relax.forward_update) {
    frozen_ = true;
    predict_all();
    for (PredictionId p = 0; p < graph_.prediction_count(); ++p) compare(p, false, 1);
  }
  if (!schedule().sweeps() && !schedule().free_output) gradients_of_all();
  end_gradients();
  if (spec_.learn) update();
}

// --- all of it ---

namespace {

/// Two steps that do the same things to the same buffers. Constants are not looked at: where they differ from step to
/// step, nobody may ask.
bool alike(const Program& a, const Program& b) {
  if (a.calls().size() != b.calls().size()) return false;
  for (std::size_t i = 0; i < a.calls().size(); ++i) {
    const Call &x = a.calls()[i], &y = b.calls()[i];
    if (x.kernel != y.kernel || x.touches.size() != y.touches.size()) return false;
    for (std::size_t j = 0; j < x.touches.size(); ++j) {
      if (x.touches[j].view.data != y.touches[j].view.data) return false;
    }
  }
  return true;
}

}  // namespace

/// Whether every step is written out: where all are one call, or their number is known and they are few, or no two are
/// the same.
bool PlanBuilder::unrolled() const {
  if (sliced_) return true;
  if (spec_.watch || !std::holds_alternative<FixedSteps>(spec_.relax.stop)) return false;
  constexpr int kFew = 64;
  const bool differ = spec_.trace || updates_in_loop() || schedule().sweeps() || precisions_change();
  return differ || spec_.relax.steps <= kFew;
}

void PlanBuilder::relax(std::vector<Program>& steps) {
  if (sliced_) return settle(*sliced_);
  for (int t = 0; t < spec_.relax.steps; ++t) {
    if (unrolled()) {
      step(t);
      continue;
    }
    steps.emplace_back();
    record_into(steps.back());
    step(t);
    if (t > 0 && !precisions_change() && alike(steps[steps.size() - 2], steps.back())) return;
  }
}

void PlanBuilder::build() {
  plan_.progress_ = network_.scalar("clock/progress");
  sliced_ = slices();
  find_pooled();
  // ep relaxes once on each side; or, on one side, without the target first, unless the start is that state already.
  const bool starts_free = spec_.relax.init.kind == ValueInit::Kind::feedforward && topological_order(graph_);
  const int phases = schedule().free_output && !(one_sided() && starts_free) ? 2 : 1;
  plan_.relaxations_ = phases;
  plan_.phases_.resize(unrolled() ? 1 : static_cast<std::size_t>(phases));
  record_into(plan_.phases_[0].start);
  if (spec_.optimize && spec_.learn && unrolled()) operands_.prepare_weights();
  begin_gradients();
  for (phase_ = 0; phase_ < phases; ++phase_) {
    start();
    if (one_sided() && phase_ + 1 == phases) add_side(-1 / nudge_beta());
    pulls_ = !one_sided() || phase_ + 1 == phases;
    auto& here = plan_.phases_[std::min(plan_.phases_.size() - 1, static_cast<std::size_t>(phase_))];
    relax(here.steps);
    if (!unrolled()) {
      record_into(phase_ + 1 < phases ? plan_.phases_[static_cast<std::size_t>(phase_) + 1].start : plan_.finish_);
    }
    if (pulls_) add_side(1 / ((one_sided() ? 1 : 2) * nudge_beta()));
  }
  phase_ = phases - 1;
  finish();
}

}  // namespace pc

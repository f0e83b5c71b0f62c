#include "pc/plan_builder.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <utility>

#include "kernels/arithmetic.h"
#include "kernels/map.h"
#include "kernels/map_sgd.h"
#include "kernels/random.h"
#include "kernels/reduce.h"
#include "kernels/runge_kutta.h"
#include "kernels/value_update.h"
#include "pc/step_bound.h"

namespace pc {

double leak_of(const Link& link) {
  const auto slope = link.attrs.find("slope");
  return slope == link.attrs.end() ? 0.0 : slope->second;
}

PlanBuilder::PlanBuilder(Network& network, const PlanSpec& spec, Plan& plan)
    : network_(network),
      graph_(network.graph()),
      spec_(spec),
      plan_(plan),
      exec_(network.exec()),
      operands_(network, spec.operands),
      nodes_(static_cast<std::size_t>(graph_.node_count())),
      predictions_(static_cast<std::size_t>(graph_.prediction_count())),
      edge_back_(static_cast<std::size_t>(graph_.edge_count())),
      mapped_(static_cast<std::size_t>(graph_.edge_count())),
      prepared_(static_cast<std::size_t>(graph_.param_count())),
      weight_version_(static_cast<std::size_t>(graph_.param_count()), 0),
      weight_start_(weight_version_),
      weight_changes_(static_cast<std::size_t>(graph_.param_count())) {
  for (const Clamp& clamp : spec_.clamps) {
    NodeState& clamped = node(clamp.node);
    const bool has_predictions = !graph_.node(clamp.node).predictions.empty();
    clamped.nudged = schedule().free_output && has_predictions;
    clamped.free = clamp.masked ? Free::part : clamped.nudged ? Free::all : Free::none;
  }
  const bool wants_levels = schedule().sweeps() || precisions_change() || spec_.relax.sweep == Sweep::even_odd;
  if (wants_levels) {
    const std::vector<int> level = levels_to_loss(graph_, spec_.clamps);
    for (NodeId v = 0; v < graph_.node_count(); ++v) node(v).level = level[static_cast<std::size_t>(v)];
  }
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) {
    if (!can_fuse(p)) continue;
    const auto& chain = graph_.edge(graph_.prediction(p).edges[0]).chain;
    state(p).fused = chain.size() >= 2 && chain.back().op->activation.has_value();
  }
  keeps_start_ = (schedule().frozen && !by_front()) || spec_.relax.forward_update || schedule().free_output;
}

// --- questions ---

/// Whether the end of the edge may be evaluated with the error.
bool PlanBuilder::can_fuse(PredictionId p) {
  const Prediction& prediction = graph_.prediction(p);
  const bool observed =
      std::find(spec_.observed.begin(), spec_.observed.end(), prediction.node) != spec_.observed.end();
  const bool softened = spec_.settings.nudge && node(prediction.node).free == Free::none;
  // Fusing spares "mu" and brings the error itself past the activation; some need the one, some bring something else.
  const bool apart = observed || softened || by_errors() || schedule().learn == Learn::first_arrival;
  return spec_.optimize && !apart && prediction.edges.size() == 1 && terms(p).energy == &gaussian;
}

/// An edge whose contribution cannot change while this plan relaxes.
bool PlanBuilder::constant_edge(EdgeId e) const {
  const Edge& edge = graph_.edge(e);
  for (const NodeId from : edge.from) {
    if (node(from).free != Free::none) return false;
  }
  if (!updates_in_loop()) return true;
  return std::all_of(edge.chain.begin(), edge.chain.end(), [](const Link& link) { return link.params.empty(); });
}

Key PlanBuilder::edge_key(EdgeId e) const {
  Key key;
  for (const NodeId from : graph_.edge(e).from) key.push_back(source_version(from));
  for (const Link& link : graph_.edge(e).chain) {
    for (const ParamId id : link.params) key.push_back(weight_version_[static_cast<std::size_t>(id)]);
  }
  return key;
}

bool PlanBuilder::known(const Key& last, Key now) const {
  now.push_back(1);  // never equal to an empty key
  return spec_.optimize && last == now;
}

bool PlanBuilder::same(Key& last, Key now) const {
  const bool equal = known(last, now);
  now.push_back(1);
  last = std::move(now);
  return equal;
}

PlanBuilder::Terms PlanBuilder::terms(PredictionId p) {
  const NodeState& owner = node(graph_.prediction(p).node);
  if (owner.nudged || (schedule().exact && owner.free != Free::none)) return {&gaussian, 1.0, {}};
  return {graph_.prediction(p).spec.energy, network_.precision_scale(p), network_.precisions(p)};
}

/// What the precision schedule makes of a prediction's error at step t.
double PlanBuilder::factor(int t, PredictionId p) const {
  using Kind = PrecisionSchedule::Kind;
  const PrecisionSchedule& precision = spec_.relax.precision;
  const int level = node(graph_.prediction(p).node).level;
  if (precision.kind == Kind::constant || level < 0) return 1;
  if (precision.kind == Kind::spiking) return t == level ? 1 : precision.floor;
  return t < level ? 0 : std::exp(-precision.decay * (t - level));
}

/// The signed strength of the targets' pull in this phase.
double PlanBuilder::nudge_beta() const {
  const Nudge nudge = spec_.settings.nudge.value_or(Nudge{});
  const bool negative = nudge.side == Nudge::Side::negative || (!one_sided() && phase_ == 1);
  return negative ? -nudge.beta : nudge.beta;
}

View PlanBuilder::source(NodeId v) {
  if (!frozen_ || node(v).free == Free::none) return whole(v);
  return by_front() ? value(v) : buffer("x0", v);
}

std::vector<View> PlanBuilder::inputs(EdgeId e, int link) {
  if (link > 0) return {whole_link(e, link - 1)};
  std::vector<View> views;
  for (const NodeId from : graph_.edge(e).from) views.push_back(source(from));
  return views;
}

std::vector<View> PlanBuilder::operands(EdgeId e, int link) {
  return operands_.of(*link_of(e, link).op, inputs(e, link), Magnitude::value);
}

bool PlanBuilder::passes_on(PredictionId p) const {
  return backward_ && node(graph_.prediction(p).node).free != Free::none;
}

View PlanBuilder::arriving(EdgeId e, int link) {
  const PredictionId p = graph_.edge(e).prediction;
  if (link != last_link(e)) return network_.link_buffer("dz", e, link, spec_.batch);
  if (passes_on(p)) return buffer("back", graph_.prediction(p).node);
  return gated_ ? network_.prediction_buffer("gated", p, spec_.batch) : delta(p);
}

// --- predictions ---

void PlanBuilder::predict_link(EdgeId e, int link, View out, Write write, const View& base) {
  const Link& l = link_of(e, link);
  const NodeId to = graph_.prediction(graph_.edge(e).prediction).node;
  const bool inside = link < last_link(e), is_value = !inside && out.data == value(to).data;
  if (l.op->activation && (inside ? link_of(e, link + 1).op->products : is_value && feeds_products(to))) {
    return kernels::map(exec_, {.x = inputs(e, link)[0],
                                .y = out,
                                .f = *l.op->activation,
                                .leak = leak_of(l),
                                .write = write,
                                .narrow = operands_.beside(out, Magnitude::value)});
  }
  // Changes are counted from here. Of two entries of a window that are nearly as large, which one is the largest must
  // not be decided by lost digits: all that is pulled back would go to the other.
  const bool exactly = starts_changes_ && operands_.lossy();
  const std::vector<View> x = exactly ? operands_.split_inputs(e, link, inputs(e, link)) : operands(e, link);
  const std::vector<View> w = exactly ? operands_.split_weights(e, link) : operands_.weights(e, link);
  const bool without_bias = link == last_made(e) && !pooled_bias(e).empty();
  const std::vector<View> state = state_of(e, link);
  const SparseViews* sparse = exactly ? network_.sparse(e, link) : operands_.sparse(e, link);
  const OpCall call{exec_, x, w, l.attrs, sparse, without_bias, state, base, operands_.turned(sparse, x)};
  if (call.copies_by_row()) prepare(l, call);
  l.op->predict(call, out, write);
}

/// What stands behind last_made.
void PlanBuilder::predict_end(EdgeId e, const View& mu) {
  if (state(graph_.edge(e).prediction).pooled) return predict_pooled(e, mu);
  predict_link(e, last_link(e), mu, Write::set);
}

/// Whether an edge's first link, which it shares with others, or that link's change, has been made for one of them.
bool PlanBuilder::mapped(EdgeId e, bool change) {
  if (!network_.shares_map(e)) return false;
  return same(mapped_[static_cast<std::size_t>(network_.first_map(e))],
              {source_version(graph_.edge(e).from[0]), change ? 1 : 0});
}

/// The first links of an edge, so many.
void PlanBuilder::predict_inner(EdgeId e, int links) {
  for (int link = 0; link < links; ++link) {
    if (link == 0 && mapped(e, false)) continue;
    predict_link(e, link, network_.link_buffer("z", e, link, spec_.batch), Write::set);
  }
}

void PlanBuilder::predict_edge(EdgeId e, View mu, Write write, const View& base) {
  predict_inner(e, last_link(e));
  predict_link(e, last_link(e), mu, write, base);
}

/// With a base: mu = base + what the edges make. A sparse product begins with the base itself, without a copy of it.
void PlanBuilder::predict_edges(PredictionId p, bool constant_ones, View mu, Write write, View base) {
  for (const EdgeId e : graph_.prediction(p).edges) {
    if (constant_edge(e) != constant_ones) continue;
    const Link& last = link_of(e, last_link(e));
    if (!base.empty() && !(last.op->sparse && last.params.size() == 1)) {
      kernels::copy(exec_, {.in = base, .out = mu});
      base = {};
      write = Write::add;
    }
    predict_edge(e, mu, write, base);
    base = {};
    write = Write::add;
  }
}

/// What a prediction is made from.
Key PlanBuilder::prediction_key(PredictionId p) const {
  Key key;
  for (const EdgeId e : graph_.prediction(p).edges) {
    const Key edge = edge_key(e);
    key.insert(key.end(), edge.begin(), edge.end());
  }
  return key;
}

void PlanBuilder::predict(PredictionId p) {
  const Prediction& prediction = graph_.prediction(p);
  PredictionState& s = state(p);
  const View out = p == direct_ ? value(prediction.node) : mu(p);
  Key constant;
  bool any_constant = false, any_moving = false;
  for (const EdgeId e : prediction.edges) {
    const Key edge = edge_key(e);
    if (constant_edge(e)) constant.insert(constant.end(), edge.begin(), edge.end());
    (constant_edge(e) ? any_constant : any_moving) = true;
  }
  const bool there = same(s.mu, prediction_key(p));
  if (there && ((s.unmade < 0 && !s.parts) || errors_next_)) return;
  s.mu_version = fresh();
  part("predict");
  s.changed = by_changes_ && !frozen_ && predict_change(p);
  if (s.changed) return;
  if (s.fused || s.pooled) {
    const EdgeId e = prediction.edges[0];
    return predict_inner(e, last_made(e) + 1);
  }
  if (prediction.edges.empty()) return kernels::fill(exec_, {.out = out});
  const bool only_errs = errors_next_ && errs_alone(p);
  s.unmade = only_errs ? errs_at_once(p) : -1;
  s.parts = false;
  if (s.unmade >= 0 && !any_constant) return;
  if (!any_constant || !any_moving) {
    Write write = Write::set;
    for (const EdgeId e : prediction.edges) {
      predict_edge(e, out, write);
      write = Write::add;
    }
    return;
  }
  // Some of the edges never change: their sum is kept in "base". (Without `optimize` it is added up again each time,
  // but in the same order, so that the numbers are the same, to rounding where a sparse product begins with it.)
  const View base = network_.prediction_buffer("base", p, spec_.batch);
  if (!same(s.base, constant)) predict_edges(p, true, base, Write::set);
  if (s.unmade >= 0) return;
  s.parts = only_errs && only_product(p) >= 0;
  predict_edges(p, false, out, Write::set, s.parts ? View{} : base);
}

void PlanBuilder::predict_all() {
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) predict(p);
}

/// Whether nobody wants a prediction in the course of relaxation but its own Gaussian error.
bool PlanBuilder::errs_alone(PredictionId p) {
  const auto& observed = spec_.observed;
  return spec_.optimize && !by_changes_ && !by_errors() && !frozen_ && terms(p).energy == &gaussian &&
         std::find(observed.begin(), observed.end(), graph_.prediction(p).node) == observed.end();
}

/// The edge whose product, without a bias, is all that moves of a prediction; -1: there is none.
EdgeId PlanBuilder::only_product(PredictionId p) const {
  EdgeId moving = -1;
  for (const EdgeId e : graph_.prediction(p).edges) {
    if (constant_edge(e)) continue;
    const Link& last = link_of(e, last_link(e));
    if (moving >= 0 || (!last.op->products && !last.op->sparse) || last.params.size() > 1) return -1;
    moving = e;
  }
  return moving;
}

/// The one that may go on with the error of the prediction, by itself; -1: none may.
EdgeId PlanBuilder::errs_at_once(PredictionId p) {
  const EdgeId e = only_product(p);
  if (e < 0 || link_of(e, last_link(e)).op->predict_error == nullptr) return -1;
  return operands_.sparse(e, last_link(e))->predicts_by_blocks() ? e : -1;
}

void PlanBuilder::compare_at_once(PredictionId p, const Terms& t, double factor) {
  const Prediction& prediction = graph_.prediction(p);
  const EdgeId e = state(p).unmade;
  const int link = last_link(e);
  part("predict");
  predict_inner(e, link);
  const Link& l = link_of(e, link);
  const std::vector<View> x = inputs(e, link), w = network_.link_weights(e, link);
  const SparseViews* sparse = operands_.sparse(e, link);
  const bool all = std::none_of(prediction.edges.begin(), prediction.edges.end(),
                                [&](EdgeId other) { return constant_edge(other); });
  const OpCall call{.exec = exec_,
                    .x = x,
                    .w = w,
                    .attrs = l.attrs,
                    .sparse = sparse,
                    .base = all ? View{} : network_.prediction_buffer("base", p, spec_.batch),
                    .turned = operands_.turned(sparse, x)};
  prepare(l, call);
  part("error");
  l.op->predict_error(call, {.product = {.y = delta(p)},
                             .value = value(prediction.node),
                             .y_t = operands_.turned_beside(delta(p)),
                             .precision = factor * t.precision,
                             .precisions = t.precisions});
}

/// The error of a prediction, multiplied by `factor`.
void PlanBuilder::compare(PredictionId p, bool want_energy, double factor) {
  const Prediction& prediction = graph_.prediction(p);
  PredictionState& s = state(p);
  const Terms t = terms(p);
  const int value_version = node(prediction.node).version;
  // A distribution that nobody observes has no energy: cross-entropies of free nodes are left out.
  const bool unobserved = !t.energy->zero_at_prediction && node(prediction.node).free == Free::all;
  // Nor has one from which there is no way to a loss, in schedules that count the steps from there: backprop does not
  // see it, and its error would be early at the levels before.
  const bool apart = schedule().sweeps() && node(prediction.node).level < 0;
  const bool settled = spec_.optimize && s.settled_value == value_version && s.settled_mu == s.mu;
  s.zero = unobserved || apart || settled || factor == 0;
  if (s.zero) {
    s.delta_version = 0;
    s.error.clear();
    return;
  }
  const bool again = !same(s.error, {value_version, s.mu_version, passes_back(p) ? 1 : 0}) || s.factor != factor;
  if (!again && (s.has_energy || !want_energy)) return;
  s.factor = factor;
  part("error");
  const View energy = want_energy ? energy_rows(p) : View{};
  const bool stays = by_front() && node(prediction.node).free == Free::none;
  if (by_changes_ && !stays && t.energy == &gaussian) {
    compare_changes(p, t, energy, factor);
  } else if (s.unmade >= 0) {
    compare_at_once(p, t, factor);
  } else if (s.fused) {
    const EdgeId e = prediction.edges[0];
    const Link& last = link_of(e, last_link(e));
    kernels::map_error(exec_, {.x = value(prediction.node),
                               .z = network_.link_buffer("z", e, last_link(e) - 1, spec_.batch),
                               .delta = delta(p),
                               .dz = network_.link_buffer("dz", e, last_link(e) - 1, spec_.batch),
                               .energy = energy,
                               .f = *last.op->activation,
                               .leak = leak_of(last),
                               .precision = factor * t.precision,
                               .precisions = t.precisions});
  } else {
    const bool own = !t.energy->own_is_delta && node(prediction.node).free != Free::none;
    const bool product = std::any_of(prediction.edges.begin(), prediction.edges.end(),
                                     [&](EdgeId e) { return link_of(e, last_link(e)).op->products; });
    const bool narrow = product && t.energy == &gaussian;
    (*t.energy->error)(exec_, {.x = whole(prediction.node),
                               .mu = whole_mu(p),
                               .delta = delta(p),
                               .own = own ? network_.prediction_buffer("own", p, spec_.batch) : View{},
                               .energy = energy,
                               .precision = factor * t.precision,
                               .precisions = t.precisions,
                               .narrow = narrow ? operands_.beside(delta(p), Magnitude::change) : kernels::Narrowed{},
                               .base = s.parts ? network_.prediction_buffer("base", p, spec_.batch) : View{}});
  }
  if (again) s.delta_version = fresh();
  s.has_energy = want_energy;
}

/// beta dC/dx for the cost C = E(target, x), the node's own energy with its value in the place of the prediction; the
/// cost's rows are multiplied by -beta.
void PlanBuilder::nudge_pull(NodeId v) {
  part("error");
  const PredictionId p = graph_.node(v).predictions[0];
  const EnergySpec& cost = graph_.prediction(p).spec;
  // delta = -precision dC/dmu, so a negative precision gives the slope itself.
  (*cost.energy->error)(exec_, {.x = buffer("target", v),
                                .mu = whole(v),
                                .delta = buffer("nudge", v),
                                .own = {},
                                .energy = network_.row_buffer("cost/" + graph_.node(v).name, spec_.batch),
                                .precision = -nudge_beta() * network_.precision_scale(p),
                                .precisions = network_.precisions(p)});
}

// --- the way back ---

/// Brings what an edge's prediction sends to the output of each of its links ("dz"); but of a first link that it shares
/// with others, whose buffers are theirs too.
void PlanBuilder::edge_backward(EdgeId e) {
  const PredictionId p = graph_.edge(e).prediction;
  Key key = edge_key(e);
  key.push_back(sent_version(p));
  key.push_back(gated_ ? 1 : 0);
  Key& last = edge_back_[static_cast<std::size_t>(e)];
  // Below the lowest parameter only sources listen, if they can move, and while they do.
  const Edge& edge = graph_.edge(e);
  const bool listened =
      !spec_.optimize || (!teaching_ && std::any_of(edge.from.begin(), edge.from.end(),
                                                    [&](NodeId v) { return node(v).free != Free::none; }));
  if (known(last, key)) return;
  if (teaching_) key.push_back(0);  // not all the way
  if (same(last, key)) return;
  const auto learns = [](const Link& link) { return !link.params.empty(); };
  const auto lowest = std::find_if(edge.chain.begin(), edge.chain.end(), learns) - edge.chain.begin();
  const int least = std::max(listened ? 0 : static_cast<int>(lowest), network_.shares_map(e) ? 1 : 0);
  for (int link = last_made(e); link > least; --link) {
    pull_link(e, link, 0, network_.link_buffer("dz", e, link - 1, spec_.batch), Write::set);
  }
}

/// What an operator has to do once for its weights as they are now.
void PlanBuilder::prepare(const Link& link, const OpCall& call) {
  if (link.op->prepare == nullptr) return;
  const auto weight = static_cast<std::size_t>(link.params[0]);
  if (!same(prepared_[weight], {weight_version_[weight]})) link.op->prepare(call);
}

/// Pulls back through one link what has arrived at its output.
void PlanBuilder::pull_link(EdgeId e, int link, int source, View dx, Write write) {
  const Link& l = link_of(e, link);
  const std::vector<View> x = l.affine() ? network_.link_inputs(e, link, spec_.batch) : inputs(e, link);
  const std::vector<View> w = operands_.weights(e, link);
  const std::vector<View> state = state_of(e, link);
  const SparseViews* sparse = operands_.sparse(e, link);
  const OpCall call{.exec = exec_,
                    .x = x,
                    .w = w,
                    .attrs = l.attrs,
                    .sparse = sparse,
                    .state = state,
                    .turned = operands_.turned_back(sparse, arriving(e, link))};
  prepare(l, call);
  l.op->pullback(call, operands_.of(*l.op, arriving(e, link), Magnitude::change), source, dx, write);
}

/// Adds what arrives at the beginning of an edge to one of its sources' "back".
void PlanBuilder::pull_edge(EdgeId e, int source, View back, Write write) {
  if (network_.shares_map(e)) return pull_edges({e}, back, write);
  pull_link(e, 0, source, back, write);
}

/// The same for edges that share their first link: what arrives at its output is added up before it goes through.
void PlanBuilder::pull_edges(const std::vector<EdgeId>& edges, View back, Write write) {
  pull_to_map(largest_first(edges));
  pull_link(edges[0], 0, 0, back, write);
}

/// The sparse edge with the most entries comes first: it writes all of dz, and others then add where they have entries.
std::vector<EdgeId> PlanBuilder::largest_first(std::vector<EdgeId> edges) const {
  const auto entries = [&](EdgeId e) {
    const auto& pattern = link_of(e, 1).pattern;
    return pattern == nullptr ? 0 : pattern->count();
  };
  std::stable_sort(edges.begin(), edges.end(), [&](EdgeId a, EdgeId b) { return entries(a) > entries(b); });
  return edges;
}

void PlanBuilder::pull_to_map(const std::vector<EdgeId>& edges) {
  Write write = Write::set;
  for (const EdgeId e : edges) {
    pull_link(e, 1, 0, network_.link_buffer("dz", e, 0, spec_.batch), write);
    write = Write::add;
  }
}

/// Whether a node may go through its map, move, and be mapped again, in one call: where it moves by itself, in one
/// place, and by gradient descent.
bool PlanBuilder::moves_with_map(NodeId v) const {
  const auto* sgd = std::get_if<ValueSgd>(&spec_.relax.stepper);
  return spec_.optimize && sgd != nullptr && sgd->temperature == 0 && node(v).free == Free::all && !by_changes_ &&
         !by_errors() && !frozen_ && !std::holds_alternative<GradientNorm>(spec_.relax.stop);
}

/// Whether the product that brings what comes back by edge `e` may go on with all that, where the map's readers take
/// what it makes from an operand, and only gradients want it as it is.
bool PlanBuilder::moves_at_once(NodeId v, EdgeId e) {
  if (link_of(e, 1).op->pullback_move == nullptr || !operands_.sparse(e, 1)->pulls_by_blocks()) return false;
  const auto& readers = graph_.node(v).out;
  return std::all_of(readers.begin(), readers.end(), [&](EdgeId reader) {
    const SparseViews* sparse = last_link(reader) > 0 ? operands_.sparse(reader, 1) : nullptr;
    return network_.first_map(reader) == network_.first_map(e) && sparse != nullptr && sparse->predicts_by_blocks();
  });
}

/// back = sum over the edges out of v of (d op/dx_v)^T of what they send. False if it is known to be zero. `with_map`:
/// if all of it goes through one map, that is left to the move.
bool PlanBuilder::pull_back(NodeId v, bool with_map) {
  struct Contribution {
    EdgeId edge;
    int source;
  };
  std::vector<Contribution> contributions;
  Key key;
  for (const EdgeId e : graph_.node(v).out) {
    const Edge& edge = graph_.edge(e);
    if (sends_nothing(edge.prediction)) continue;
    for (std::size_t source = 0; source < edge.from.size(); ++source) {
      if (edge.from[source] == v) contributions.push_back({e, static_cast<int>(source)});
    }
    const Key versions = edge_key(e);
    key.insert(key.end(), versions.begin(), versions.end());
    key.push_back(sent_version(edge.prediction));
  }
  if (contributions.empty()) {
    node(v).back_version = 0;
    node(v).back.clear();
    return false;
  }
  if (same(node(v).back, key)) return true;
  node(v).back_version = fresh();
  part("pullback");
  const View back = back_of(v);
  Write write = Write::set;
  for (const auto& [e, source] : contributions) edge_backward(e);
  std::map<EdgeId, std::vector<EdgeId>> by_map;
  for (const auto& [e, source] : contributions) {
    if (network_.shares_map(e)) by_map[network_.first_map(e)].push_back(e);
  }
  const bool one_map = by_map.size() == 1 && by_map.begin()->second.size() == contributions.size();
  node(v).map = with_map && one_map ? by_map.begin()->second[0] : -1;
  node(v).rest = -1;
  if (node(v).map >= 0) {
    std::vector<EdgeId> edges = largest_first(by_map.begin()->second);
    if (moves_at_once(v, edges[0])) {
      node(v).rest = edges[0];
      edges.erase(edges.begin());
    }
    node(v).has_back = !edges.empty();
    pull_to_map(edges);
    return true;
  }
  for (const auto& [e, source] : contributions) {
    if (!network_.shares_map(e)) {
      pull_edge(e, source, back, write);
    } else if (const auto& edges = by_map[network_.first_map(e)]; edges[0] == e) {
      pull_edges(edges, back, write);
    } else {
      continue;
    }
    write = Write::add;
  }
  return true;
}

/// Sum of dE/dx over the node's own predictions, and of a target's pull; an empty view if it is known to be zero.
View PlanBuilder::own_gradient(NodeId v) {
  std::vector<View> list;
  for (const PredictionId p : graph_.node(v).predictions) {
    if (state(p).zero) continue;
    const bool plain = terms(p).energy->own_is_delta;
    list.push_back(state(p).delta_is_change ? change(v)
                   : plain                  ? delta(p)
                                            : network_.prediction_buffer("own", p, spec_.batch));
  }
  if (node(v).nudged && pulls_) list.push_back(buffer("nudge", v));
  if (list.size() <= 1) return list.empty() ? View{} : list[0];
  part("move");
  const View sum = buffer("own_sum", v);
  for (std::size_t i = 0; i < list.size(); ++i) {
    kernels::axpby(exec_, {.x = list[i], .y = sum, .a = 1, .b = i == 0 ? 0.0 : 1.0});
  }
  return sum;
}

/// With predictions as they were, a value that moves at rate 1 goes all the way at once.
bool PlanBuilder::goes_whole_way() const {
  const auto* sgd = std::get_if<ValueSgd>(&spec_.relax.stepper);
  return spec_.optimize && frozen_ && by_changes_ && sgd != nullptr && sgd->rate == 1 && sgd->momentum == 0 &&
         !sgd->automatic && sgd->temperature == 0;
}

/// Whether a value goes all the way from where it has no error, to where its error is what has come back, to the bit.
bool PlanBuilder::leaps(NodeId v) {
  const auto& predictions = graph_.node(v).predictions;
  if (!goes_whole_way() || node(v).free != Free::all || node(v).nudged) return false;
  if (predictions.size() != 1 || !state(predictions[0]).exact_start) return false;
  const Terms t = terms(predictions[0]);
  return t.energy == &gaussian && t.precision == 1 && t.precisions.empty();
}

/// Whether what comes back goes to the value's change at once, so that nothing has to be moved. (Schedules that go so
/// heed no precision schedule, which would make an error more or less than the change.)
bool PlanBuilder::lands(NodeId v) { return leaps(v) && !moved(v); }

/// Whether a value has leapt, until something else comes back.
bool PlanBuilder::rests(NodeId v) {
  const NodeState& n = node(v);
  return leaps(v) && n.rests_by != 0 && n.rests_by == n.back_version;
}

/// The gradients of free nodes, all from one snapshot; nodes whose gradient is known to be zero are left out.
std::vector<PlanBuilder::Pull> PlanBuilder::pull(Parity parity) {
  std::vector<Pull> pulls;
  for (NodeId v = 0; v < graph_.node_count(); ++v) {
    if (node(v).free == Free::none) continue;
    const bool odd = node(v).level > 0 && node(v).level % 2 == 1;
    if (parity != Parity::both && odd != (parity == Parity::odd)) continue;
    if (node(v).nudged && pulls_) nudge_pull(v);
    const View own = own_gradient(v);
    const bool pulled = pull_back(v, moves_with_map(v));
    if ((own.empty() && !pulled) || rests(v)) continue;
    node(v).rests_by = own.empty() ? node(v).back_version : 0;
    const EdgeId map = pulled ? node(v).map : -1;
    const View back = map >= 0 ? network_.link_buffer("dz", map, 0, spec_.batch) : back_of(v);
    const bool any = pulled && (map < 0 || node(v).has_back);
    pulls.push_back({v, own, any ? back : View{}, map, map >= 0 ? node(v).rest : -1});
  }
  return pulls;
}

// --- moving ---

/// What comes by the last edge, the map's pull-back, the move and the map, in one call.
void PlanBuilder::move_at_once(const Pull& pull) {
  const NodeId v = pull.node;
  const Link &map = link_of(pull.map, 0), &l = link_of(pull.rest, 1);
  const auto& sgd = std::get<ValueSgd>(spec_.relax.stepper);
  const std::vector<View> w = network_.link_weights(pull.rest, 1);
  const SparseViews* sparse = operands_.sparse(pull.rest, 1);
  const OpCall call{.exec = exec_,
                    .x = {},
                    .w = w,
                    .attrs = l.attrs,
                    .sparse = sparse,
                    .base = pull.back,
                    .turned = operands_.turned_back(sparse, arriving(pull.rest, 1))};
  prepare(l, call);
  l.op->pullback_move(call, {.product = {.y = value(v)},
                             .y_t = operands_.turned_instead_of(network_.link_buffer("z", pull.map, 0, spec_.batch)),
                             .own = pull.own,
                             .velocity = sgd.momentum != 0 ? buffer("value_velocity", v) : View{},
                             .f = *map.op->activation,
                             .leak = leak_of(map),
                             .rate = sgd.rate,
                             .momentum = sgd.momentum,
                             .bound = sgd.automatic ? network_.scalar(kStepBound) : View{}});
  node(v).version = fresh();
  static_cast<void>(mapped(pull.map, false));  // it has been
}

void PlanBuilder::move_with_map(const Pull& pull) {
  if (pull.rest >= 0) return move_at_once(pull);
  const NodeId v = pull.node;
  const Link& map = link_of(pull.map, 0);
  const auto& sgd = std::get<ValueSgd>(spec_.relax.stepper);
  const View out = network_.link_buffer("z", pull.map, 0, spec_.batch);
  const auto& readers = graph_.node(v).out;
  const bool products = std::any_of(readers.begin(), readers.end(), [&](EdgeId e) {
    return network_.first_map(e) == pull.map && last_link(e) > 0 && link_of(e, 1).op->products;
  });
  kernels::map_sgd(exec_, {.x = value(v),
                           .y = out,
                           .dy = pull.back,
                           .own = pull.own,
                           .velocity = sgd.momentum != 0 ? buffer("value_velocity", v) : View{},
                           .f = *map.op->activation,
                           .leak = leak_of(map),
                           .rate = sgd.rate,
                           .momentum = sgd.momentum,
                           .bound = sgd.automatic ? network_.scalar(kStepBound) : View{},
                           .narrow = products ? operands_.beside(out, Magnitude::value) : kernels::Narrowed{}});
  node(v).version = fresh();
  static_cast<void>(mapped(pull.map, false));  // it has been
}

/// Moves `variable`, the value of a node or its error, by one step of gradient descent or Adam.
void PlanBuilder::move(const Pull& pull, const View& variable) {
  const NodeId v = pull.node;
  if (lands(v)) {
    node(v).version = fresh();
    return;
  }
  const bool steepest = std::holds_alternative<GradientNorm>(spec_.relax.stop);
  kernels::ValueGradient g{
      .x = variable,
      .own = pull.own,
      .back = pull.back,
      .free = free_mask(v),
      .steepest = steepest ? network_.row_buffer("steepest/" + graph_.node(v).name, spec_.batch) : View{}};
  const int now = fresh();
  if (by_changes_ && !frozen_ && wants_whole(v)) {
    g.from = buffer("x0", v);
    g.whole = value(v);
  }
  if (by_changes_ && !frozen_ && feeds_products(v)) g.narrow = operands_.beside(variable, Magnitude::change);
  if (const auto* sgd = std::get_if<ValueSgd>(&spec_.relax.stepper)) {
    kernels::value_sgd(exec_, {.g = g,
                               .velocity = sgd->momentum != 0 ? buffer("value_velocity", v) : View{},
                               .rate = sgd->rate,
                               .momentum = sgd->momentum,
                               .bound = sgd->automatic ? network_.scalar(kStepBound) : View{}});
  } else {
    const auto& adam = std::get<ValueAdam>(spec_.relax.stepper);
    kernels::value_adam(exec_, {.g = g,
                                .m = buffer("value_m", v),
                                .v = buffer("value_v", v),
                                .step = network_.scalar("clock/value_step"),
                                .rate = adam.rate,
                                .beta1 = adam.beta1,
                                .beta2 = adam.beta2,
                                .epsilon = adam.epsilon});
  }
  node(v).version = now;
  if (!g.whole.empty()) node(v).whole_version = now;
}

/// progress = the largest of it and of these rows.
void PlanBuilder::find_steepest(const View& rows, Write& write) {
  kernels::largest(exec_, {.in = rows, .out = plan_.progress_, .write = write});
  write = Write::add;
}

void PlanBuilder::move_values(const std::vector<Pull>& pulls, Write steepest) {
  part("move");
  const bool wanted = std::holds_alternative<GradientNorm>(spec_.relax.stop);
  for (const Pull& pull : pulls) {
    if (pull.map >= 0) {
      move_with_map(pull);
      continue;
    }
    const bool by_error = by_errors() && !graph_.node(pull.node).predictions.empty();
    move(pull, by_error ? buffer("e", pull.node) : by_changes_ ? change(pull.node) : value(pull.node));
    if (wanted) find_steepest(network_.row_buffer("steepest/" + graph_.node(pull.node).name, spec_.batch), steepest);
  }
  if (wanted && steepest == Write::set) kernels::fill(exec_, {.out = plan_.progress_});
  const auto* sgd = std::get_if<ValueSgd>(&spec_.relax.stepper);
  if (sgd != nullptr && sgd->temperature > 0) shake(std::sqrt(2 * sgd->rate * sgd->temperature));
}

/// Adds noise to every free value, those without a gradient too. The draws are the next after those of random starts.
void PlanBuilder::shake(double deviation) {
  const View draws = network_.scalar(spec_.draws);
  for (NodeId v = 0; v < graph_.node_count(); ++v) {
    if (node(v).free == Free::none) continue;
    kernels::random(exec_, {.out = value(v),
                            .a = 0,
                            .b = deviation,
                            .seed = network_.seed(),
                            .purpose = Purpose::noise,
                            .stream = static_cast<std::uint32_t>(v),
                            .step = draws,
                            .write = Write::add,
                            .mask = free_mask(v)});
    node(v).version = fresh();
  }
  kernels::tick(exec_, {.counter = draws});
}

namespace {

/// An explicit Runge-Kutta method. Row s of `at` says where stage s looks, from the slopes of the stages before.
struct Tableau {
  int stages = 1;
  std::array<std::array<double, 4>, 4> at{};
  std::array<double, 4> result{};
  std::array<double, 4> error{};  // result minus that of the embedded method
};

const Tableau& tableau(ValueFlow::Method method) {
  static const Tableau euler{1, {}, {1}, {}};
  static const Tableau heun{2, {{{}, {1}}}, {0.5, 0.5}, {}};
  static const Tableau rk4{4, {{{}, {0.5}, {0, 0.5}, {0, 0, 1}}}, {1.0 / 6, 1.0 / 3, 1.0 / 3, 1.0 / 6}, {}};
  // Bogacki & Shampine 1989. The fourth stage looks at the result itself and serves the error alone.
  static const Tableau adaptive{4,
                                {{{}, {0.5}, {0, 0.75}, {2.0 / 9, 1.0 / 3, 4.0 / 9}}},
                                {2.0 / 9, 1.0 / 3, 4.0 / 9},
                                {-5.0 / 72, 1.0 / 12, 1.0 / 9, -1.0 / 8}};
  switch (method) {
    case ValueFlow::Method::euler:
      return euler;
    case ValueFlow::Method::heun:
      return heun;
    case ValueFlow::Method::rk4:
      return rk4;
    case ValueFlow::Method::adaptive:
      break;
  }
  return adaptive;
}

}  // namespace

/// One step of the gradient flow. The gradients at the present values have been evaluated.
void PlanBuilder::flow_step(int t) {
  const auto& flow = std::get<ValueFlow>(spec_.relax.stepper);
  const Tableau& method = tableau(flow.method);
  const bool adaptive = flow.method == ValueFlow::Method::adaptive;
  const View length = adaptive ? network_.scalar("clock/flow_step") : View{};
  const double scale = adaptive ? 1.0 : flow.rate;
  std::vector<std::vector<int>> slopes(nodes_.size());  // the stages at which a node had a gradient
  const auto weighted = [&](NodeId v, const std::array<double, 4>& weights, auto& args, auto& target) {
    args.count = 0;
    for (const int s : slopes[static_cast<std::size_t>(v)]) {
      const auto i = static_cast<std::size_t>(args.count++);
      args.k[i] = buffer("slope" + std::to_string(s), v);
      target[i] = weights[static_cast<std::size_t>(s)];
    }
  };
  Write steepest = Write::set;
  for (int s = 0; s < method.stages; ++s) {
    if (s > 0) evaluate(t, false);
    const std::vector<Pull> pulls = pull(Parity::both);
    part("move");
    for (const Pull& p : pulls) {
      auto& known = slopes[static_cast<std::size_t>(p.node)];
      if (known.empty()) kernels::copy(exec_, {.in = value(p.node), .out = buffer("flow_from", p.node)});
      known.push_back(s);
      const View slope = buffer("slope" + std::to_string(s), p.node);
      if (p.own.empty()) {
        kernels::fill(exec_, {.out = slope});
      } else {
        kernels::copy(exec_, {.in = p.own, .out = slope});
      }
      if (!p.back.empty()) kernels::axpby(exec_, {.x = p.back, .y = slope, .a = -1, .b = 1});
      if (s == 0 && std::holds_alternative<GradientNorm>(spec_.relax.stop)) {
        const View rows = network_.row_buffer("steepest/" + graph_.node(p.node).name, spec_.batch);
        kernels::RkErrorArgs largest{
            .x = slope, .from = slope, .absolute = 1, .relative = 0, .worst = rows, .free = free_mask(p.node)};
        weighted(p.node, {1}, largest, largest.e);
        kernels::rk_error(exec_, largest);
        find_steepest(rows, steepest);
      }
    }
    if (adaptive && s + 1 == method.stages) break;
    const auto& weights = s + 1 == method.stages ? method.result : method.at[static_cast<std::size_t>(s) + 1];
    for (NodeId v = 0; v < graph_.node_count(); ++v) {
      if (slopes[static_cast<std::size_t>(v)].empty()) continue;
      kernels::RkStageArgs stage{
          .x = value(v), .from = buffer("flow_from", v), .h = length, .step = scale, .free = free_mask(v)};
      weighted(v, weights, stage, stage.a);
      kernels::rk_stage(exec_, stage);
      node(v).version = fresh();
    }
  }
  if (std::holds_alternative<GradientNorm>(spec_.relax.stop) && steepest == Write::set) {
    kernels::fill(exec_, {.out = plan_.progress_});
  }
  if (!adaptive) return;
  const View error = network_.scalar("clock/flow_error"), accepted = network_.scalar("clock/flow_accepted");
  Write write = Write::set;
  for (NodeId v = 0; v < graph_.node_count(); ++v) {
    if (slopes[static_cast<std::size_t>(v)].empty()) continue;
    const View rows = network_.row_buffer("flow_error/" + graph_.node(v).name, spec_.batch);
    kernels::RkErrorArgs worst{.x = value(v),
                               .from = buffer("flow_from", v),
                               .h = length,
                               .absolute = flow.absolute,
                               .relative = flow.relative,
                               .worst = rows,
                               .free = free_mask(v)};
    weighted(v, method.error, worst, worst.e);
    kernels::rk_error(exec_, worst);
    kernels::largest(exec_, {.in = rows, .out = error, .write = write});
    write = Write::add;
  }
  if (write == Write::set) return;  // nothing moves
  kernels::step_control(exec_, {.error = error,
                                .h = length,
                                .accepted = accepted,
                                .time = network_.scalar("clock/flow_time"),
                                .order = 3,
                                .most = flow.most});
  for (NodeId v = 0; v < graph_.node_count(); ++v) {
    if (slopes[static_cast<std::size_t>(v)].empty()) continue;
    kernels::choose(exec_, {.yes = value(v), .no = buffer("flow_from", v), .y = value(v), .flag = accepted});
    node(v).version = fresh();
  }
}

}  // namespace pc

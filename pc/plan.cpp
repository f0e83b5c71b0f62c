// The one loop that runs every schedule, executed symbolically: each buffer carries the number of its last change, so
// that a result is recorded again only when something that it depends on has changed, and errors that are known to be
// exactly zero (a node that still holds its own prediction) cost nothing. Hoisting of predictions from clamped nodes
// and the light cone of a feedforward start both follow from these two rules.
#include "pc/plan.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "kernels/arithmetic.h"
#include "kernels/random.h"
#include "kernels/value_update.h"
#include "pc/backprop.h"
#include "pc/levels.h"

namespace pc {

std::string energy_start_name(const Graph& graph, PredictionId id) {
  return "metric/energy_start/" + graph.prediction(id).name;
}
std::string energy_end_name(const Graph& graph, PredictionId id) {
  return "metric/energy_end/" + graph.prediction(id).name;
}
std::string trace_name(int step) { return "metric/trace/" + std::to_string(step); }

using Key = std::vector<int>;  // the versions of everything that a result was made from

class PlanBuilder {
 public:
  PlanBuilder(Network& network, const PlanSpec& spec, Plan& plan);
  void build();

 private:
  enum class Free : std::uint8_t { all, part, none };

  struct NodeState {
    Free free = Free::all;
    int version = 0;
    Key back;  // what the "back" buffer was made from
  };
  struct PredictionState {
    bool fused = false;  // its last link is an activation that is evaluated with the error
    Key mu, base, error;
    int mu_version = 0, delta_version = 0;
    int settled_value = -1, settled_mu = -1;  // versions at which x = mu, entry by entry
    bool zero = false;                        // the current error is known to be zero
    bool has_energy = false;
  };

  // --- the parts of a step ---
  void start();
  void step(int t);
  void finish();
  void start_values();
  void sweep();
  void set_to_prediction(NodeId v);
  void clamp_part(NodeId v);
  void predict(PredictionId p);
  void predict_edges(PredictionId p, bool constant_ones, View mu, Write write);
  void predict_edge(EdgeId e, View mu, Write write);
  void predict_link(EdgeId e, int link, View out, Write write);
  void compare(PredictionId p, bool want_energy);
  void edge_backward(EdgeId e);
  bool pull_back(NodeId v);
  View own_gradient(NodeId v);
  void move(NodeId v, const View& own, const View& back);
  void move_values(bool want_steepest);
  void weight_gradients();
  void learn();
  void add_energies(std::string (*name)(const Graph&, PredictionId));
  void add_total_energy(const View& out, Write write);

  // --- small questions ---
  [[nodiscard]] int fresh() { return ++versions_; }
  [[nodiscard]] bool learns_in_loop() const { return spec_.learn && spec_.schedule->learn == Learn::every_step; }
  [[nodiscard]] bool constant_edge(EdgeId e) const;
  [[nodiscard]] Key edge_key(EdgeId e) const;
  [[nodiscard]] bool same(Key& last, Key now) const;
  [[nodiscard]] const Link& link_of(EdgeId e, int link) const {
    return graph_.edge(e).chain[static_cast<std::size_t>(link)];
  }
  [[nodiscard]] int last_link(EdgeId e) const { return static_cast<int>(graph_.edge(e).chain.size()) - 1; }
  [[nodiscard]] NodeState& node(NodeId v) { return nodes_[static_cast<std::size_t>(v)]; }
  [[nodiscard]] PredictionState& state(PredictionId p) { return predictions_[static_cast<std::size_t>(p)]; }
  [[nodiscard]] const NodeState& node(NodeId v) const { return nodes_[static_cast<std::size_t>(v)]; }
  [[nodiscard]] View value(NodeId v) { return network_.value(v, spec_.batch); }
  [[nodiscard]] View mu(PredictionId p) { return network_.prediction_buffer("mu", p, spec_.batch); }
  [[nodiscard]] View delta(PredictionId p) { return network_.prediction_buffer("delta", p, spec_.batch); }
  [[nodiscard]] View free_mask(NodeId v) {
    return node(v).free == Free::part ? network_.node_buffer("free", v, spec_.batch) : View{};
  }
  [[nodiscard]] View energy_rows(PredictionId p) {
    return network_.row_buffer("energy/" + graph_.prediction(p).name, spec_.batch);
  }
  /// What arrives at the output of a link on the way back.
  [[nodiscard]] View arriving(EdgeId e, int link) {
    return link == last_link(e) ? delta(graph_.edge(e).prediction) : network_.link_buffer("dz", e, link, spec_.batch);
  }
  void record_into(Program& program) { exec_.recorder = program_ = &program; }
  void part(std::string_view name) { program_->part(name); }

  Network& network_;
  const Graph& graph_;
  const PlanSpec& spec_;
  Plan& plan_;
  Exec exec_;
  Program* program_ = nullptr;
  int versions_ = 0;
  std::vector<NodeState> nodes_;
  std::vector<PredictionState> predictions_;
  std::vector<Key> edge_back_;  // what an edge's "dz" buffers were made from
  std::vector<int> weight_version_;
};

PlanBuilder::PlanBuilder(Network& network, const PlanSpec& spec, Plan& plan)
    : network_(network),
      graph_(network.graph()),
      spec_(spec),
      plan_(plan),
      exec_(network.exec()),
      nodes_(static_cast<std::size_t>(graph_.node_count())),
      predictions_(static_cast<std::size_t>(graph_.prediction_count())),
      edge_back_(static_cast<std::size_t>(graph_.edge_count())),
      weight_version_(static_cast<std::size_t>(graph_.param_count()), 0) {
  for (const Clamp& clamp : spec_.clamps) node(clamp.node).free = clamp.masked ? Free::part : Free::none;
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) {
    const Prediction& prediction = graph_.prediction(p);
    const bool observed =
        std::find(spec_.observed.begin(), spec_.observed.end(), prediction.node) != spec_.observed.end();
    if (!spec_.optimize || observed || prediction.edges.size() != 1 || prediction.spec.energy != &gaussian) continue;
    const auto& chain = graph_.edge(prediction.edges[0]).chain;
    state(p).fused = chain.size() >= 2 && chain.back().op->activation.has_value();
  }
}

// --- questions ---

/// An edge whose contribution cannot change while this plan relaxes.
bool PlanBuilder::constant_edge(EdgeId e) const {
  const Edge& edge = graph_.edge(e);
  for (const NodeId from : edge.from) {
    if (node(from).free != Free::none) return false;
  }
  if (!learns_in_loop()) return true;
  return std::all_of(edge.chain.begin(), edge.chain.end(), [](const Link& link) { return link.params.empty(); });
}

Key PlanBuilder::edge_key(EdgeId e) const {
  Key key;
  for (const NodeId from : graph_.edge(e).from) key.push_back(node(from).version);
  for (const Link& link : graph_.edge(e).chain) {
    for (const ParamId id : link.params) key.push_back(weight_version_[static_cast<std::size_t>(id)]);
  }
  return key;
}

/// Whether a result is already there; remembers the key either way.
bool PlanBuilder::same(Key& last, Key now) const {
  now.push_back(1);  // never equal to an empty key
  const bool equal = spec_.optimize && last == now;
  last = std::move(now);
  return equal;
}

// --- predictions ---

void PlanBuilder::predict_link(EdgeId e, int link, View out, Write write) {
  const std::vector<View> x = network_.link_inputs(e, link, spec_.batch), w = network_.link_weights(e, link);
  const Link& l = link_of(e, link);
  l.op->predict({exec_, x, w, l.attrs}, out, write);
}

void PlanBuilder::predict_edge(EdgeId e, View mu, Write write) {
  for (int link = 0; link < last_link(e); ++link) {
    predict_link(e, link, network_.link_buffer("z", e, link, spec_.batch), Write::set);
  }
  predict_link(e, last_link(e), mu, write);
}

void PlanBuilder::predict_edges(PredictionId p, bool constant_ones, View mu, Write write) {
  for (const EdgeId e : graph_.prediction(p).edges) {
    if (constant_edge(e) != constant_ones) continue;
    predict_edge(e, mu, write);
    write = Write::add;
  }
}

void PlanBuilder::predict(PredictionId p) {
  const Prediction& prediction = graph_.prediction(p);
  PredictionState& s = state(p);
  Key key, constant;
  bool any_constant = false, any_moving = false;
  for (const EdgeId e : prediction.edges) {
    const Key edge = edge_key(e);
    key.insert(key.end(), edge.begin(), edge.end());
    if (constant_edge(e)) constant.insert(constant.end(), edge.begin(), edge.end());
    (constant_edge(e) ? any_constant : any_moving) = true;
  }
  if (same(s.mu, key)) return;
  s.mu_version = fresh();
  part("predict");
  if (s.fused) {
    const EdgeId e = prediction.edges[0];
    for (int link = 0; link < last_link(e); ++link) {
      predict_link(e, link, network_.link_buffer("z", e, link, spec_.batch), Write::set);
    }
    return;
  }
  if (prediction.edges.empty()) return kernels::fill(exec_, {.out = mu(p)});
  if (!any_constant || !any_moving) {
    Write write = Write::set;
    for (const EdgeId e : prediction.edges) {
      predict_edge(e, mu(p), write);
      write = Write::add;
    }
    return;
  }
  // Some of the edges never change: their sum is kept in "base". (Without `optimize` it is added up again each time,
  // but in the same order, so that the numbers are the same.)
  const View base = network_.prediction_buffer("base", p, spec_.batch);
  if (!same(s.base, constant)) predict_edges(p, true, base, Write::set);
  kernels::copy(exec_, {.in = base, .out = mu(p)});
  predict_edges(p, false, mu(p), Write::add);
}

void PlanBuilder::compare(PredictionId p, bool want_energy) {
  const Prediction& prediction = graph_.prediction(p);
  PredictionState& s = state(p);
  const int value_version = node(prediction.node).version;
  // A distribution that nobody observes has no energy: cross-entropies of free nodes are left out.
  const bool unobserved = !prediction.spec.energy->zero_at_prediction && node(prediction.node).free == Free::all;
  s.zero = unobserved || (spec_.optimize && s.settled_value == value_version && s.settled_mu == s.mu_version);
  if (s.zero) {
    s.delta_version = 0;
    return;
  }
  const bool again = !same(s.error, {value_version, s.mu_version});
  if (!again && (s.has_energy || !want_energy)) return;
  part("error");
  const View energy = want_energy ? energy_rows(p) : View{};
  const View precisions = network_.precisions(p);
  const double scale = network_.precision_scale(p);
  if (s.fused) {
    const EdgeId e = prediction.edges[0];
    const Link& last = link_of(e, last_link(e));
    const auto slope = last.attrs.find("slope");
    kernels::map_error(exec_, {.x = value(prediction.node),
                               .z = network_.link_buffer("z", e, last_link(e) - 1, spec_.batch),
                               .delta = delta(p),
                               .dz = network_.link_buffer("dz", e, last_link(e) - 1, spec_.batch),
                               .energy = energy,
                               .f = *last.op->activation,
                               .leak = slope == last.attrs.end() ? 0.0 : slope->second,
                               .precision = scale,
                               .precisions = precisions});
  } else {
    const bool own = !prediction.spec.energy->own_is_delta && node(prediction.node).free != Free::none;
    (*prediction.spec.energy->error)(exec_, {.x = value(prediction.node),
                                             .mu = mu(p),
                                             .delta = delta(p),
                                             .own = own ? network_.prediction_buffer("own", p, spec_.batch) : View{},
                                             .energy = energy,
                                             .precision = scale,
                                             .precisions = precisions});
  }
  if (again) s.delta_version = fresh();
  s.has_energy = want_energy;
}

// --- the way back ---

/// Brings the error of an edge's prediction to the output of each of its links ("dz").
void PlanBuilder::edge_backward(EdgeId e) {
  const PredictionId p = graph_.edge(e).prediction;
  Key key = edge_key(e);
  key.push_back(state(p).delta_version);
  if (same(edge_back_[static_cast<std::size_t>(e)], key)) return;
  const int from = state(p).fused ? last_link(e) - 1 : last_link(e);
  for (int link = from; link > 0; --link) {
    const std::vector<View> x = network_.link_inputs(e, link, spec_.batch), w = network_.link_weights(e, link);
    const Link& l = link_of(e, link);
    l.op->pullback({exec_, x, w, l.attrs}, arriving(e, link), 0, network_.link_buffer("dz", e, link - 1, spec_.batch),
                   Write::set);
  }
}

/// back = sum over the edges out of v of (d op/dx_v)^T delta. False if it is known to be zero.
bool PlanBuilder::pull_back(NodeId v) {
  struct Contribution {
    EdgeId edge;
    int source;
  };
  std::vector<Contribution> contributions;
  Key key;
  for (const EdgeId e : graph_.node(v).out) {
    const Edge& edge = graph_.edge(e);
    if (state(edge.prediction).zero) continue;
    for (std::size_t source = 0; source < edge.from.size(); ++source) {
      if (edge.from[source] == v) contributions.push_back({e, static_cast<int>(source)});
    }
    const Key versions = edge_key(e);
    key.insert(key.end(), versions.begin(), versions.end());
    key.push_back(state(edge.prediction).delta_version);
  }
  if (contributions.empty()) return false;
  if (same(node(v).back, key)) return true;
  part("pullback");
  const View back = network_.node_buffer("back", v, spec_.batch);
  Write write = Write::set;
  for (const auto& [e, source] : contributions) {
    edge_backward(e);
    const std::vector<View> x = network_.link_inputs(e, 0, spec_.batch), w = network_.link_weights(e, 0);
    const Link& first = link_of(e, 0);
    first.op->pullback({exec_, x, w, first.attrs}, arriving(e, 0), source, back, write);
    write = Write::add;
  }
  return true;
}

/// Sum of dE/dx over the node's own predictions; an empty view if it is known to be zero.
View PlanBuilder::own_gradient(NodeId v) {
  std::vector<View> terms;
  for (const PredictionId p : graph_.node(v).predictions) {
    if (state(p).zero) continue;
    terms.push_back(graph_.prediction(p).spec.energy->own_is_delta ? delta(p)
                                                                   : network_.prediction_buffer("own", p, spec_.batch));
  }
  if (terms.size() <= 1) return terms.empty() ? View{} : terms[0];
  part("move");
  const View sum = network_.node_buffer("own_sum", v, spec_.batch);
  for (std::size_t i = 0; i < terms.size(); ++i) {
    kernels::axpby(exec_, {.x = terms[i], .y = sum, .a = 1, .b = i == 0 ? 0.0 : 1.0});
  }
  return sum;
}

void PlanBuilder::move(NodeId v, const View& own, const View& back) {
  const bool steepest = std::holds_alternative<GradientNorm>(spec_.relax.stop);
  const kernels::ValueGradient g{
      .x = value(v),
      .own = own,
      .back = back,
      .free = free_mask(v),
      .steepest = steepest ? network_.row_buffer("steepest/" + graph_.node(v).name, spec_.batch) : View{}};
  if (const auto* sgd = std::get_if<ValueSgd>(&spec_.relax.stepper)) {
    kernels::value_sgd(
        exec_, {.g = g,
                .velocity = sgd->momentum != 0 ? network_.node_buffer("value_velocity", v, spec_.batch) : View{},
                .rate = sgd->rate,
                .momentum = sgd->momentum});
  } else {
    const auto& adam = std::get<ValueAdam>(spec_.relax.stepper);
    kernels::value_adam(exec_, {.g = g,
                                .m = network_.node_buffer("value_m", v, spec_.batch),
                                .v = network_.node_buffer("value_v", v, spec_.batch),
                                .step = network_.scalar("clock/value_step"),
                                .rate = adam.rate,
                                .beta1 = adam.beta1,
                                .beta2 = adam.beta2,
                                .epsilon = adam.epsilon});
  }
  node(v).version = fresh();
}

void PlanBuilder::move_values(bool want_steepest) {
  // Everything is pulled back from one snapshot before anything moves.
  struct Pull {
    NodeId node;
    View own, back;
  };
  std::vector<Pull> pulls;
  for (NodeId v = 0; v < graph_.node_count(); ++v) {
    if (node(v).free == Free::none) continue;
    const View own = own_gradient(v);
    const bool pulled = pull_back(v);
    if (own.empty() && !pulled) continue;
    pulls.push_back({v, own, pulled ? network_.node_buffer("back", v, spec_.batch) : View{}});
  }
  part("move");
  if (std::holds_alternative<ValueAdam>(spec_.relax.stepper)) {
    kernels::tick(exec_, {.counter = network_.scalar("clock/value_step")});
  }
  Write write = Write::set;
  for (const Pull& pull : pulls) {
    move(pull.node, pull.own, pull.back);
    if (!want_steepest) continue;
    kernels::largest(exec_, {.in = network_.row_buffer("steepest/" + graph_.node(pull.node).name, spec_.batch),
                             .out = plan_.progress_,
                             .write = write});
    write = Write::add;
  }
  if (want_steepest && pulls.empty()) kernels::fill(exec_, {.out = plan_.progress_});
}

// --- learning ---

void PlanBuilder::weight_gradients() {
  std::set<ParamId> written;
  for (EdgeId e = 0; e < graph_.edge_count(); ++e) {
    const Edge& edge = graph_.edge(e);
    if (state(edge.prediction).zero) continue;
    part("pullback");
    edge_backward(e);
    part("weight gradient");
    for (int link = 0; link <= last_link(e); ++link) {
      const Link& l = link_of(e, link);
      const std::vector<View> x = network_.link_inputs(e, link, spec_.batch), w = network_.link_weights(e, link);
      for (std::size_t i = 0; i < l.params.size(); ++i) {
        const Write write = written.insert(l.params[i]).second ? Write::set : Write::add;
        l.op->weight_grad({exec_, x, w, l.attrs}, arriving(e, link), static_cast<int>(i),
                          network_.gradient(l.params[i]), write);
      }
    }
  }
  part("weight gradient");
  for (ParamId id = 0; id < graph_.param_count(); ++id) {
    if (!written.contains(id)) kernels::fill(exec_, {.out = network_.gradient(id)});
  }
}

void PlanBuilder::learn() {
  if (!spec_.gradients && !spec_.learn) return;
  weight_gradients();
  if (!spec_.learn) return;
  record_update(*program_, network_, *spec_.learn, spec_.batch);
  for (int& version : weight_version_) version = fresh();
}

// --- energies ---

void PlanBuilder::add_energies(std::string (*name)(const Graph&, PredictionId)) {
  part("metrics");
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) {
    if (state(p).zero) continue;
    kernels::sum(exec_, {.in = energy_rows(p), .out = network_.scalar(name(graph_, p)), .write = Write::add});
  }
}

void PlanBuilder::add_total_energy(const View& out, Write write) {
  part("metrics");
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) {
    if (state(p).zero) continue;
    kernels::sum(exec_, {.in = energy_rows(p), .out = out, .write = write});
    write = Write::add;
  }
  if (write == Write::set) kernels::fill(exec_, {.out = out});
}

// --- the start ---

/// x <- mu, where x is free.
void PlanBuilder::set_to_prediction(NodeId v) {
  if (graph_.node(v).predictions.empty() || node(v).free == Free::none) return;
  const PredictionId p = graph_.node(v).predictions[0];
  PredictionState& s = state(p);
  if (s.fused && node(v).free == Free::all) {
    const EdgeId e = graph_.prediction(p).edges[0];
    predict_link(e, last_link(e), value(v), Write::set);
  } else {
    if (s.fused)
      predict_link(graph_.prediction(p).edges[0], last_link(graph_.prediction(p).edges[0]), mu(p), Write::set);
    kernels::copy(exec_, {.in = mu(p), .out = value(v), .mask = free_mask(v)});
  }
  node(v).version = fresh();
  if (node(v).free == Free::all && graph_.prediction(p).spec.energy->zero_at_prediction) {
    s.settled_value = node(v).version;
    s.settled_mu = s.mu_version;
  }
}

void PlanBuilder::clamp_part(NodeId v) {
  const View clamped = network_.node_buffer("clamped", v, spec_.batch), free = free_mask(v);
  kernels::fill(exec_, {.out = free, .value = 1});
  kernels::axpby(exec_, {.x = clamped, .y = free, .a = -1, .b = 1});
  kernels::copy(exec_, {.in = network_.node_buffer("data", v, spec_.batch), .out = value(v), .mask = clamped});
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
  for (NodeId v = 0; v < graph_.node_count(); ++v) {
    if (node(v).free == Free::none || init.kind == ValueInit::Kind::previous) continue;
    if (init.kind == ValueInit::Kind::normal) {
      kernels::random(exec_, {.out = value(v),
                              .a = 0,
                              .b = init.sigma,
                              .seed = network_.seed(),
                              .purpose = Purpose::values,
                              .stream = static_cast<std::uint32_t>(v),
                              .step = network_.scalar(spec_.draws)});
    } else {
      kernels::fill(exec_, {.out = value(v)});
    }
  }
  if (init.kind == ValueInit::Kind::normal) kernels::tick(exec_, {.counter = network_.scalar(spec_.draws)});
  for (NodeId v = 0; v < graph_.node_count(); ++v) {
    if (node(v).free == Free::part) clamp_part(v);
    node(v).version = fresh();
  }
  if (init.kind != ValueInit::Kind::feedforward) return;
  if (const auto order = topological_order(graph_)) {
    for (const NodeId v : *order) {
      if (graph_.node(v).predictions.empty() || node(v).free == Free::none) continue;
      predict(graph_.node(v).predictions[0]);
      set_to_prediction(v);
    }
  } else {
    for (int i = 0; i < init.sweeps; ++i) sweep();
  }
}

void PlanBuilder::start() {
  record_into(plan_.start_);
  part("load");
  if (spec_.load) spec_.load(exec_, spec_.batch);
  start_values();
  part("start");
  for (NodeId v = 0; v < graph_.node_count(); ++v) {
    if (node(v).free == Free::none) continue;
    if (const auto* sgd = std::get_if<ValueSgd>(&spec_.relax.stepper)) {
      if (sgd->momentum != 0) kernels::fill(exec_, {.out = network_.node_buffer("value_velocity", v, spec_.batch)});
    } else {
      kernels::fill(exec_, {.out = network_.node_buffer("value_m", v, spec_.batch)});
      kernels::fill(exec_, {.out = network_.node_buffer("value_v", v, spec_.batch)});
    }
  }
  if (std::holds_alternative<ValueAdam>(spec_.relax.stepper)) {
    const View clock = network_.scalar("clock/value_step");
    kernels::fill(exec_, {.out = clock});
  }
}

// --- the loop ---

void PlanBuilder::step(int t) {
  const bool watch_energy = std::holds_alternative<EnergyPlateau>(spec_.relax.stop);
  const bool watch_gradient = std::holds_alternative<GradientNorm>(spec_.relax.stop);
  // Where weights move in the loop, the last step's energies are the final ones. With a stop rule any may be the last.
  const bool fixed = std::holds_alternative<FixedSteps>(spec_.relax.stop);
  const bool final_in_loop = learns_in_loop() && spec_.energies;
  const bool first = t == 0 && spec_.energies, last = final_in_loop && fixed && t == spec_.relax.steps - 1;
  const bool want_energy = first || last || (final_in_loop && !fixed) || watch_energy || spec_.trace;
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) predict(p);
  if (t == 0 && spec_.measure_start) {
    part("metrics");
    spec_.measure_start(exec_, spec_.batch);
  }
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) compare(p, want_energy);
  if (first) add_energies(energy_start_name);
  if (last) add_energies(energy_end_name);
  if (watch_energy) add_total_energy(plan_.progress_, Write::set);
  if (spec_.trace) add_total_energy(network_.scalar(trace_name(t)), Write::add);

  if (learns_in_loop()) weight_gradients();
  move_values(watch_gradient);
  if (learns_in_loop()) {
    record_update(*program_, network_, *spec_.learn, spec_.batch);
    for (int& version : weight_version_) version = fresh();
  }
}

void PlanBuilder::finish() {
  const bool fixed = std::holds_alternative<FixedSteps>(spec_.relax.stop);
  if (learns_in_loop() && spec_.energies && !fixed) add_energies(energy_end_name);
  if (learns_in_loop() && !spec_.measure_end) return;
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) predict(p);
  if (spec_.measure_end) {
    part("metrics");
    spec_.measure_end(exec_, spec_.batch);
  }
  const bool wanted = spec_.gradients || spec_.learn || spec_.energies || spec_.trace;
  if (learns_in_loop() || !wanted) return;
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) compare(p, spec_.energies || spec_.trace);
  if (spec_.energies) add_energies(energy_end_name);
  if (spec_.trace) add_total_energy(network_.scalar(trace_name(spec_.relax.steps)), Write::add);
  learn();
}

namespace {

/// Two steps that do the same things to the same buffers.
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

void PlanBuilder::build() {
  plan_.progress_ = network_.scalar("clock/progress");
  start();
  if (std::holds_alternative<FixedSteps>(spec_.relax.stop)) {
    for (int t = 0; t < spec_.relax.steps; ++t) step(t);
    finish();
    return;
  }
  // With a stop rule steps are programs of their own, unrolled until they repeat.
  for (int t = 0; t < spec_.relax.steps; ++t) {
    auto& steps = plan_.steps_;
    steps.emplace_back();
    record_into(steps.back());
    step(t);
    if (t > 0 && alike(steps[steps.size() - 2], steps.back())) break;
  }
  record_into(plan_.finish_);
  finish();
}

Plan::Plan(Network& network, const PlanSpec& spec)
    : network_(&network), max_steps_(spec.relax.steps), stop_(spec.relax.stop) {
  PC_CHECK(spec.schedule != nullptr, "plan", "it has no schedule");
  PC_CHECK(spec.batch > 0 && spec.batch <= network.max_batch(), "plan", "a batch of ", spec.batch,
           " does not fit a network made for ", network.max_batch());
  PC_CHECK(spec.relax.steps >= 1, "plan", "relaxation needs at least one step, not ", spec.relax.steps);
  check_schedule(*spec.schedule, network.graph());
  if (spec.schedule->reverse_mode) {
    max_steps_ = 0;
    stop_ = FixedSteps{};
    record_backprop(start_, network, spec);
    return;
  }
  const bool fixed = std::holds_alternative<FixedSteps>(stop_);
  PC_CHECK(fixed || !spec.trace, "plan", "a trace needs a fixed number of steps");
  PlanBuilder(network, spec, *this).build();
  if (fixed) return;
  // Until the steps repeat, the signal has not reached every node, and standing still means nothing. How long that is
  // depends on the graph, not on what this plan leaves out.
  first_look_ = static_cast<int>(steps_.size()) - 1;
  if (!spec.optimize) {
    PlanSpec lean = spec;
    lean.optimize = true;
    first_look_ = Plan(network, lean).first_look_;
  }
}

namespace {

bool done(const FixedSteps&, double, double) { return false; }
bool done(const EnergyPlateau& rule, double now, double before) {
  return std::abs(before - now) <= rule.relative * before;  // an energy that climbs is no plateau
}
bool done(const GradientNorm& rule, double now, double) { return now <= rule.tolerance; }

}  // namespace

Plan::Outcome Plan::run(int threads) const {
  const Exec& exec = network_->exec();
  Outcome outcome;
  start_.run(exec, threads);
  if (std::holds_alternative<FixedSteps>(stop_)) {
    outcome.steps = max_steps_;
    return outcome;
  }
  double before = 0;
  while (outcome.steps < max_steps_ && !outcome.converged) {
    const auto last = static_cast<int>(steps_.size()) - 1;
    steps_[static_cast<std::size_t>(std::min(outcome.steps, last))].run(exec, threads);
    const double now = network_->arena().read(progress_)[0];
    if (outcome.steps >= std::max(first_look_, 1)) {
      outcome.converged = std::visit([&](const auto& rule) { return done(rule, now, before); }, stop_);
    }
    before = now;
    ++outcome.steps;
  }
  finish_.run(exec, threads);
  return outcome;
}

std::vector<const Program*> Plan::programs() const {
  std::vector<const Program*> list = {&start_};
  for (const Program& step : steps_) list.push_back(&step);
  if (!steps_.empty()) list.push_back(&finish_);
  return list;
}

double Plan::flops() const {
  double sum = start_.flops() + finish_.flops();
  for (int t = 0; !steps_.empty() && t < max_steps_; ++t) {
    sum += steps_[std::min(static_cast<std::size_t>(t), steps_.size() - 1)].flops();
  }
  return sum;
}

}  // namespace pc

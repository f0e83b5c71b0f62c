#include <algorithm>

#include "kernels/arithmetic.h"
#include "kernels/change.h"
#include "kernels/pool_change.h"
#include "pc/plan_builder.h"

namespace pc {

/// Whether this relaxation goes by changes: values descend freely, and every edge that may change is made of affine
/// operators and activations; where weights move as well, of such as are linear in them.
bool PlanBuilder::can_use_changes() const {
  const bool starts_small = network_.dtype() == DType::f32 && spec_.relax.init.kind == ValueInit::Kind::feedforward;
  if (sliced_) return true;
  if (spec_.form == Form::values || (spec_.form == Form::automatic && !starts_small)) return false;
  const Schedule& s = schedule();
  if (s.engine != Engine::relax || s.moves != Moves::all || s.frozen) return false;
  if (s.learn != Learn::at_end && s.learn != Learn::every_step) return false;
  if (spec_.relax.forward_update || std::holds_alternative<ValueFlow>(spec_.relax.stepper)) return false;
  const auto* sgd = std::get_if<ValueSgd>(&spec_.relax.stepper);
  if (sgd != nullptr && sgd->temperature != 0) return false;  // noise goes to the values themselves
  for (EdgeId e = 0; e < graph_.edge_count(); ++e) {
    if (constant_edge(e)) continue;
    for (const Link& link : graph_.edge(e).chain) {
      if (!link.affine() && !link.op->activation && link.op->change == nullptr) return false;
      const bool bilinear = link.affine() && link.op->products && !link.op->sparse;
      if (updates_in_loop() && !link.params.empty() && !bilinear) return false;
    }
  }
  return true;
}

/// Whether the graph asks which of several values is the largest.
bool PlanBuilder::has_pools() const {
  for (const Edge& edge : graph_.edges()) {
    for (const Link& link : edge.chain) {
      if (link.op->max_window != nullptr) return true;
    }
  }
  return false;
}

/// Which predictions end in a max-pool of an activation that can be evaluated with the error.
void PlanBuilder::find_pooled() {
  if (!can_use_changes() || sliced_ || schedule().free_output || updates_in_loop()) return;
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) {
    if (!can_fuse(p)) continue;
    const EdgeId e = graph_.prediction(p).edges[0];
    const int last = last_link(e);
    if (last < 2 || link_of(e, last).op->max_window == nullptr) continue;
    const Link& before = link_of(e, last - 1);
    state(p).pooled = before.op->activation && leak_of(before) >= 0 && pool_window(e).tiles();
  }
}

Window PlanBuilder::pool_window(EdgeId e) const {
  const Link& pool = link_of(e, last_link(e));
  return pool.op->max_window(pool.attrs, link_of(e, last_link(e) - 1).out);
}

/// Of a pooled prediction, what its z are less: a bias, which is then added with the activation.
View PlanBuilder::pooled_bias(EdgeId e) const {
  if (!state(graph_.edge(e).prediction).pooled) return {};
  const Link& made = link_of(e, last_made(e));
  return made.op->channel_bias && made.params.size() > 1 ? network_.weight(made.params[1]) : View{};
}

/// mu = pool(f(z)), of a pooled prediction.
void PlanBuilder::predict_pooled(EdgeId e, const View& mu) {
  const Link& f = link_of(e, last_made(e) + 1);
  kernels::pool_map(exec_, {.z = network_.link_buffer("z", e, last_made(e), spec_.batch),
                            .bias = pooled_bias(e),
                            .y = mu,
                            .window = pool_window(e),
                            .f = *f.op->activation,
                            .leak = leak_of(f)});
}

/// At the start, with all predictions made: keeps the values and the errors from which changes are counted.
void PlanBuilder::begin_changes() {
  part("start");
  by_changes_ = true;
  starts_changes_ = false;
  for (NodeId v = 0; v < graph_.node_count(); ++v) {
    if (node(v).free == Free::none) continue;
    // Of all steps in one call it is known what will move: `settle` keeps that alone.
    if (!keeps_start_ && !sliced_) kernels::copy(exec_, {.in = value(v), .out = buffer("x0", v)});
  }
  keeps_start_ = true;
  weight_start_ = weight_version_;
  for (ParamId id = 0; id < graph_.param_count() && updates_in_loop(); ++id) {
    kernels::copy(exec_, {.in = network_.weight(id), .out = network_.param_buffer("w0", id)});
  }
  for (PredictionId p = 0; p < graph_.prediction_count(); ++p) {
    const Prediction& prediction = graph_.prediction(p);
    PredictionState& s = state(p);
    s.exact_start = s.settled_value == node(prediction.node).version && s.settled_mu == s.mu;
    if (s.exact_start || terms(p).energy != &gaussian) continue;
    View mu_start = mu(p);
    if (s.fused || s.pooled) {
      mu_start = buffer("mu_start", prediction.node);
      predict_end(prediction.edges[0], mu_start);
    }
    const View error = start_error(p);
    kernels::copy(exec_, {.in = value(prediction.node), .out = error});
    kernels::axpby(exec_, {.x = mu_start, .y = error, .a = -1, .b = 1});
  }
  for (NodeId v = 0; v < graph_.node_count(); ++v) {
    if (node(v).free != Free::none && !sliced_ && !lands(v)) kernels::fill(exec_, {.out = change(v)});
  }
}

/// x - mu at the start; empty: it was zero.
View PlanBuilder::start_error(PredictionId p) {
  return state(p).exact_start ? View{} : network_.prediction_buffer("e0", p, spec_.batch);
}

/// x - x(0), of a clamped node zero.
View PlanBuilder::change(NodeId v) { return buffer("dx", v); }

bool PlanBuilder::wants_whole(NodeId v) const {
  const auto needs_x = [&](EdgeId e) { return !link_of(e, 0).affine(); };
  return node(v).nudged || std::any_of(graph_.node(v).out.begin(), graph_.node(v).out.end(), needs_x);
}

bool PlanBuilder::feeds_products(NodeId v) const {
  const auto product = [&](EdgeId e) { return link_of(e, 0).op->products; };
  return std::any_of(graph_.node(v).out.begin(), graph_.node(v).out.end(), product);
}

/// The value itself.
View PlanBuilder::whole(NodeId v) {
  NodeState& n = node(v);
  if (by_changes_ && n.free != Free::none && n.whole_version != n.version) {
    kernels::add_change(
        exec_, {.x = buffer("x0", v),
                .dx = change(v),
                .y = value(v),
                .narrow = feeds_products(v) ? operands_.beside(value(v), Magnitude::value) : kernels::Narrowed{}});
    n.whole_version = n.version;
  }
  return value(v);
}

/// A prediction itself, of one that is not fused.
View PlanBuilder::whole_mu(PredictionId p) {
  PredictionState& s = state(p);
  if (!s.changed) return mu(p);
  const View now = network_.prediction_buffer("mu_now", p, spec_.batch);
  if (s.whole_mu != s.mu) {
    kernels::add_change(exec_, {.x = mu(p), .dx = mu_change(p), .y = now});
    s.whole_mu = s.mu;
  }
  return now;
}

/// What a link that is not the last has made.
View PlanBuilder::whole_link(EdgeId e, int link) {
  const View start = network_.link_buffer("z", e, link, spec_.batch);
  if (!state(graph_.edge(e).prediction).changed || !moves(e, link)) return start;
  const View now = network_.link_buffer("z_now", e, link, spec_.batch);
  const bool product_next = link < last_link(e) && link_of(e, link + 1).op->products;
  kernels::add_change(exec_, {.x = start,
                              .dx = link_change(e, link),
                              .y = now,
                              .narrow = product_next ? operands_.beside(now, Magnitude::value) : kernels::Narrowed{}});
  return now;
}

/// Whether a product leaves bfloat16 where its result goes nowhere else than into an error or a move. Those are bound
/// by memory, and what is a change, or has been pulled back, loses no more digits so than what was multiplied had lost.
bool PlanBuilder::rounds_products() const {
  return spec_.optimize && spec_.operands == DType::bf16 && by_changes_ && !by_front() && !sliced_ &&
         !updates_in_loop() && !std::holds_alternative<ValueFlow>(spec_.relax.stepper);
}

/// How far a prediction is from that of the start, of one that is not fused.
View PlanBuilder::mu_change(PredictionId p) {
  const Prediction& prediction = graph_.prediction(p);
  const View change = network_.prediction_buffer("dmu", p, spec_.batch);
  if (!rounds_products() || terms(p).energy != &gaussian) return change;
  if (std::find(spec_.observed.begin(), spec_.observed.end(), prediction.node) != spec_.observed.end()) return change;
  int moving = 0, products = 0;
  for (const EdgeId e : prediction.edges) {
    if (constant_edge(e)) continue;
    ++moving;
    products += link_of(e, last_link(e)).op->products ? 1 : 0;
  }
  return moving == 1 && products == 1 ? network_.operand(change, DType::bf16, 0) : change;
}

/// How far what a link makes is.
View PlanBuilder::link_change(EdgeId e, int link) {
  if (link == last_link(e)) return mu_change(graph_.edge(e).prediction);
  const View change = network_.link_buffer("change", e, link, spec_.batch);
  const bool alone = link == last_made(e) && link_of(e, link).op->products;
  return alone && rounds_products() ? network_.operand(change, DType::bf16, 0) : change;
}

/// What has been pulled back to a node.
View PlanBuilder::back_of(NodeId v) {
  if (lands(v)) return change(v);
  const View back = buffer("back", v);
  const auto& out = graph_.node(v).out;
  const bool alone = out.size() == 1 && link_of(out[0], 0).op->products;
  return alone && rounds_products() ? network_.operand(back, DType::bf16, 0) : back;
}

/// Whether a link's parameters are no longer what they were at the start.
bool PlanBuilder::learned(EdgeId e, int link) const {
  const auto& params = link_of(e, link).params;
  return updates_in_loop() && std::any_of(params.begin(), params.end(), [&](ParamId id) {
           return weight_version_[static_cast<std::size_t>(id)] != weight_start_[static_cast<std::size_t>(id)];
         });
}

/// Whether what a link makes is no longer what it was at the start.
bool PlanBuilder::moves(EdgeId e, int link) const {
  const auto& from = graph_.edge(e).from;
  bool any = std::any_of(from.begin(), from.end(), [&](NodeId v) { return moved(v); });
  for (int i = 0; i <= link; ++i) any = any || learned(e, i);
  return any;
}

/// How far a link's parameters are from where they started.
std::vector<View> PlanBuilder::weight_changes(EdgeId e, int link) {
  std::vector<View> changes;
  for (const ParamId id : link_of(e, link).params) {
    const auto i = static_cast<std::size_t>(id);
    const View change = network_.param_buffer("dw0", id);
    if (!same(weight_changes_[i], {weight_version_[i]})) {
      kernels::copy(exec_, {.in = network_.weight(id), .out = change});
      kernels::axpby(exec_, {.x = network_.param_buffer("w0", id), .y = change, .a = -1, .b = 1});
    }
    const bool product = graph_.param(id).spec.role == ParamRole::weight;
    changes.push_back(product ? operands_.of(*link_of(e, link).op, change, Magnitude::change) : change);
  }
  return changes;
}

/// What a link with one source, an activation, was applied to at the start.
View PlanBuilder::start_input(EdgeId e, int link) {
  if (link > 0) return network_.link_buffer("z", e, link - 1, spec_.batch);
  const NodeId from = graph_.edge(e).from[0];
  return node(from).free == Free::none ? value(from) : buffer("x0", from);
}

/// How far a prediction is from that of the start. False: it is that of the start. Where weights have changed too,
///   W(t) x(t) - W(0) x(0) = W(t) (x(t) - x(0)) + (W(t) - W(0)) x(0)
bool PlanBuilder::predict_change(PredictionId p) {
  bool any = false;
  for (const EdgeId e : graph_.prediction(p).edges) {
    if (!moves(e)) continue;
    for (int i = 0; i <= last_made(e); ++i) {
      if (!moves(e, i) || (i == 0 && mapped(e, true))) continue;
      const Link& link = link_of(e, i);
      const View out = link_change(e, i);
      const Write write = i == last_link(e) && any ? Write::add : Write::set;
      std::vector<View> dx;
      if (i > 0) {
        dx.push_back(link_change(e, i - 1));
      } else {
        for (const NodeId from : graph_.edge(e).from) dx.push_back(change(from));
      }
      if (link.op->activation) {
        const bool product_next = i < last_link(e) && link_of(e, i + 1).op->products;
        kernels::map_change(exec_,
                            {.x = start_input(e, i),
                             .dx = dx[0],
                             .y = out,
                             .f = *link.op->activation,
                             .leak = leak_of(link),
                             .write = write,
                             .narrow = product_next ? operands_.beside(out, Magnitude::change) : kernels::Narrowed{}});
        continue;
      }
      if (link.op->change != nullptr) {
        const View start = start_input(e, i);
        link.op->change({exec_, {&start, 1}, {}, link.attrs}, dx[0], out, write);
        continue;
      }
      Write next = write;
      const auto& from = graph_.edge(e).from;
      if (i > 0 ? moves(e, i - 1) : std::any_of(from.begin(), from.end(), [&](NodeId v) { return moved(v); })) {
        dx = operands_.of(*link.op, dx, Magnitude::change);
        const std::vector<View> w = operands_.weights(e, i), state = state_of(e, i);
        const SparseViews* sparse = operands_.sparse(e, i);
        const OpCall call{.exec = exec_,
                          .x = dx,
                          .w = w,
                          .attrs = link.attrs,
                          .sparse = sparse,
                          .changes = true,
                          .state = state,
                          .turned = operands_.turned(sparse, dx)};
        if (call.copies_by_row()) prepare(link, call);
        link.op->predict(call, out, next);
        next = Write::add;
      }
      if (learned(e, i)) {
        const std::vector<View> x = {operands_.of(*link.op, start_input(e, i), Magnitude::value)};
        const std::vector<View> w = weight_changes(e, i);
        link.op->predict({exec_, x, w, link.attrs}, out, next);
      }
    }
    any = true;
  }
  return any;
}

/// Where an error's kernel puts what goes on to an edge, at the output of a link. What products take as an operand of
/// fewer bits nobody wants as float32: a bias too learns from the operand.
template <class Args>
void PlanBuilder::send_on(Args& args, EdgeId e, int link) {
  const View dz = network_.link_buffer("dz", e, link, spec_.batch);
  if (link_of(e, link).op->products && operands_.narrower()) {
    args.narrow = operands_.instead_of(dz, Magnitude::change);
  } else {
    args.dz = dz;
  }
}

void PlanBuilder::compare_pooled(PredictionId p, const Terms& t, const View& energy, double factor) {
  const Prediction& prediction = graph_.prediction(p);
  const EdgeId e = prediction.edges[0];
  const int last = last_made(e);
  const Link& f = link_of(e, last + 1);
  kernels::PoolErrorArgs args{
      .delta = delta(p),
      .top = state(p).exact_start ? buffer("x0", prediction.node) : buffer("mu_start", prediction.node),
      .z = network_.link_buffer("z", e, last, spec_.batch),
      .bias = pooled_bias(e),
      .start = start_error(p),
      .energy = energy,
      .window = pool_window(e),
      .f = *f.op->activation,
      .leak = leak_of(f),
      .precision = factor * t.precision,
      .precisions = t.precisions};
  if (node(prediction.node).free != Free::none && moved(prediction.node)) args.dx = change(prediction.node);
  if (state(p).changed) args.change = link_change(e, last);
  send_on(args, e, last);
  kernels::pool_error(exec_, args);
}

/// Whether somebody wants to know what a prediction's error is to its edges.
bool PlanBuilder::passes_back(PredictionId p) const {
  if (!by_changes_ || by_front() || teaching_ || updates_in_loop() || !spec_.optimize) return true;
  const auto& edges = graph_.prediction(p).edges;
  return std::any_of(edges.begin(), edges.end(), [&](EdgeId e) {
    const auto& from = graph_.edge(e).from;
    return std::any_of(from.begin(), from.end(), [&](NodeId v) { return node(v).free != Free::none; });
  });
}

void PlanBuilder::compare_changes(PredictionId p, const Terms& t, const View& energy, double factor) {
  const Prediction& prediction = graph_.prediction(p);
  PredictionState& s = state(p);
  const bool stays = !s.changed && !passes_back(p);  // then the error is that of the value
  s.delta_is_change = stays && s.exact_start && energy.empty() && t.precisions.empty() && factor * t.precision == 1;
  if (s.delta_is_change) return;
  if (s.pooled && !stays) return compare_pooled(p, t, energy, factor);
  kernels::ChangeErrorArgs args{
      .delta = delta(p), .energy = energy, .precision = factor * t.precision, .precisions = t.precisions};
  args.start = start_error(p);
  if (node(prediction.node).free != Free::none && moved(prediction.node)) args.dx = change(prediction.node);
  if (s.fused && !stays) {
    const EdgeId e = prediction.edges[0];
    const Link& last = link_of(e, last_link(e));
    args.f = *last.op->activation;
    args.leak = leak_of(last);
    args.z = network_.link_buffer("z", e, last_link(e) - 1, spec_.batch);
    if (s.changed) args.change = link_change(e, last_link(e) - 1);
    send_on(args, e, last_link(e) - 1);
  } else {
    if (s.changed) args.change = mu_change(p);
    const auto product = [&](EdgeId e) { return link_of(e, last_link(e)).op->products; };
    if (!stays && std::any_of(prediction.edges.begin(), prediction.edges.end(), product)) {
      args.narrow = operands_.beside(args.delta, Magnitude::change);
    }
  }
  kernels::change_error(exec_, args);
}

/// At the end: what others read holds values and predictions themselves.
void PlanBuilder::show_observed() {
  part("metrics");
  for (NodeId v = 0; v < graph_.node_count(); ++v) whole(v);
  for (const NodeId v : spec_.observed) {
    for (const PredictionId p : graph_.node(v).predictions) {
      if (state(p).changed) kernels::copy(exec_, {.in = whole_mu(p), .out = mu(p)});
    }
  }
}

}  // namespace pc

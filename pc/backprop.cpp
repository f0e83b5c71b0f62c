#include "pc/backprop.h"

#include <algorithm>
#include <set>

#include "kernels/arithmetic.h"
#include "pc/levels.h"
#include "pc/operands.h"
#include "pc/states.h"

namespace pc {
namespace {

/// One reverse-mode pass. "grad/<node>" is minus the loss's slope with respect to what the node's prediction gives.
class ReverseMode {
 public:
  ReverseMode(Program& program, Network& network, const PlanSpec& spec)
      : program_(program),
        network_(network),
        graph_(network.graph()),
        spec_(spec),
        exec_(network.exec()),
        operands_(network, spec.operands) {
    exec_.recorder = &program;
    operands_.record_into(program);
    const auto nodes = static_cast<std::size_t>(graph_.node_count());
    clamped_.assign(nodes, false);
    has_gradient_.assign(nodes, false);
    for (const Clamp& clamp : spec.clamps) {
      PC_CHECK(!clamp.masked, "backprop", "node ", graph_.node(clamp.node).name,
               " is clamped by a mask; backprop needs whole nodes");
      clamped_[static_cast<std::size_t>(clamp.node)] = true;
    }
    for (const Node& node : graph_.nodes()) {
      PC_CHECK(node.predictions.size() <= 1, "backprop", "node ", node.name,
               " has several predictions; backprop needs one value for each node, from one prediction");
    }
  }

  void record() {
    const std::vector<NodeId> order = topological_order(graph_).value();
    if (spec_.optimize && spec_.learn) operands_.prepare_weights();
    program_.part("load");
    if (spec_.load) spec_.load(exec_, spec_.batch);
    draw_states(exec_, network_, spec_);
    for (const NodeId v : order) forward(v);
    program_.part("metrics");
    if (spec_.measure_start) spec_.measure_start(exec_, spec_.batch);
    if (spec_.measure_end) spec_.measure_end(exec_, spec_.batch);
    for (auto v = order.rbegin(); v != order.rend(); ++v) backward(*v);
    if (!spec_.gradients && !spec_.learn) return;
    for (ParamId id = 0; id < graph_.param_count(); ++id) {
      if (written_.contains(id) || (spec_.optimize && !spec_.gradients)) continue;  // an update knows
      kernels::fill(exec_, {.out = network_.gradient(id)});
      written_.insert(id);
    }
    if (spec_.learn) record_update(program_, network_, operands_, *spec_.learn, spec_.batch, written_);
  }

 private:
  [[nodiscard]] bool clamped(NodeId v) const { return clamped_[static_cast<std::size_t>(v)]; }

  /// Whether something behind a node may learn.
  [[nodiscard]] bool listens(NodeId v) const { return !clamped(v) && !graph_.node(v).predictions.empty(); }

  void prepare(const Link& link, const OpCall& call) {
    if (link.op->prepare != nullptr && prepared_.insert(link.params[0]).second) link.op->prepare(call);
  }

  void forward(NodeId v) {
    program_.part("forward");
    const View x = network_.value(v, spec_.batch);
    if (graph_.node(v).predictions.empty()) {
      if (!clamped(v)) kernels::fill(exec_, {.out = x});
      return;
    }
    const PredictionId p = graph_.node(v).predictions[0];
    const View out = clamped(v) ? network_.prediction_buffer("mu", p, spec_.batch) : x;
    Write write = Write::set;
    for (const EdgeId e : graph_.prediction(p).edges) {
      const auto& chain = graph_.edge(e).chain;
      for (int i = 0; i < static_cast<int>(chain.size()); ++i) {
        const bool last = i + 1 == static_cast<int>(chain.size());
        const Link& link = chain[static_cast<std::size_t>(i)];
        const auto inputs = operands_.of(*link.op, network_.link_inputs(e, i, spec_.batch), Magnitude::value);
        const auto weights = operands_.weights(e, i);
        const auto state = given_state(network_, spec_, e, i);
        const SparseViews* sparse = operands_.sparse(e, i);
        const OpCall call{.exec = exec_,
                          .x = inputs,
                          .w = weights,
                          .attrs = link.attrs,
                          .sparse = sparse,
                          .state = state,
                          .turned = operands_.turned(sparse, inputs)};
        if (call.copies_by_row()) prepare(link, call);
        link.op->predict(call, last ? out : network_.link_buffer("z", e, i, spec_.batch), last ? write : Write::set);
        if (!observes(spec_, link)) continue;
        const auto kept = network_.link_state(e, i, spec_.batch);
        link.op->observe({.exec = exec_, .x = inputs, .w = {}, .attrs = link.attrs, .state = kept});
      }
      write = Write::add;
    }
    // Metrics read the prediction of an observed node, clamped or not, from "mu".
    if (!clamped(v) && std::find(spec_.observed.begin(), spec_.observed.end(), v) != spec_.observed.end()) {
      kernels::copy(exec_, {.in = x, .out = network_.prediction_buffer("mu", p, spec_.batch)});
    }
  }

  /// The loss at a clamped node: its energy, and minus the slope with respect to the prediction.
  void loss(PredictionId p, const View& gradient) {
    program_.part("loss");
    const Prediction& prediction = graph_.prediction(p);
    const View rows = network_.row_buffer("energy/" + prediction.name, spec_.batch);
    (*prediction.spec.energy->error)(exec_, {.x = network_.value(prediction.node, spec_.batch),
                                             .mu = network_.prediction_buffer("mu", p, spec_.batch),
                                             .delta = gradient,
                                             .own = {},
                                             .energy = rows,
                                             .precision = network_.precision_scale(p),
                                             .precisions = network_.precisions(p)});
    if (!spec_.energies) return;
    for (const std::string& name : {energy_start_name(graph_, p), energy_end_name(graph_, p)}) {
      kernels::sum(exec_, {.in = rows, .out = network_.scalar(name), .write = Write::add});
    }
  }

  void backward(NodeId v) {
    if (graph_.node(v).predictions.empty()) return;
    const PredictionId p = graph_.node(v).predictions[0];
    const View gradient = network_.node_buffer("grad", v, spec_.batch);
    if (clamped(v)) {
      loss(p, gradient);
      has_gradient_[static_cast<std::size_t>(v)] = true;
    }
    if (!has_gradient_[static_cast<std::size_t>(v)] || (!spec_.gradients && !spec_.learn)) return;
    for (const EdgeId e : graph_.prediction(p).edges) backward_edge(e, gradient);
  }

  void backward_edge(EdgeId e, View gradient) {
    program_.part("backward");
    const Edge& edge = graph_.edge(e);
    const auto learns = [](const Link& link) { return !link.params.empty(); };
    const auto lowest = std::find_if(edge.chain.begin(), edge.chain.end(), learns) - edge.chain.begin();
    const bool ends = std::none_of(edge.from.begin(), edge.from.end(), [&](NodeId v) { return listens(v); });
    for (int i = static_cast<int>(edge.chain.size()) - 1; i >= (ends ? static_cast<int>(lowest) : 0); --i) {
      const Link& link = edge.chain[static_cast<std::size_t>(i)];
      const auto inputs = operands_.of(*link.op, network_.link_inputs(e, i, spec_.batch), Magnitude::value);
      const auto weights = operands_.weights(e, i);
      const auto state = given_state(network_, spec_, e, i);
      const SparseViews* sparse = operands_.sparse(e, i);
      const OpCall call{.exec = exec_,
                        .x = inputs,
                        .w = weights,
                        .attrs = link.attrs,
                        .sparse = sparse,
                        .state = state,
                        .turned = ends && i == lowest ? View{} : operands_.turned_back(sparse, gradient)};
      prepare(link, call);
      for (std::size_t k = 0; k < link.params.size(); ++k) {
        const Write write = written_.insert(link.params[k]).second ? Write::set : Write::add;
        link.op->weight_grad(call, operands_.teaching(link, k, gradient), static_cast<int>(k),
                             network_.gradient(link.params[k]), write);
      }
      if (ends && i == lowest) return;
      if (i > 0) {
        const View next = network_.link_buffer("grad", e, i - 1, spec_.batch);
        link.op->pullback(call, operands_.of(*link.op, gradient, Magnitude::change), 0, next, Write::set);
        gradient = next;
        continue;
      }
      for (std::size_t source = 0; source < edge.from.size(); ++source) {
        const NodeId from = edge.from[source];
        if (!listens(from)) continue;
        const bool first = !has_gradient_[static_cast<std::size_t>(from)];
        link.op->pullback(call, operands_.of(*link.op, gradient, Magnitude::change), static_cast<int>(source),
                          network_.node_buffer("grad", from, spec_.batch), first ? Write::set : Write::add);
        has_gradient_[static_cast<std::size_t>(from)] = true;
      }
    }
  }

  Program& program_;
  Network& network_;
  const Graph& graph_;
  const PlanSpec& spec_;
  Exec exec_;
  Operands operands_;
  std::vector<bool> clamped_, has_gradient_;
  std::set<ParamId> written_, prepared_;
};

}  // namespace

void record_backprop(Program& program, Network& network, const PlanSpec& spec) {
  ReverseMode(program, network, spec).record();
}

}  // namespace pc

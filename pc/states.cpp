#include "pc/states.h"

#include "kernels/reduce.h"
#include "pc/levels.h"

namespace pc {
namespace {

bool learns(const PlanSpec& spec) { return spec.gradients || spec.learn.has_value(); }

/// Every link with its place.
template <class Body>
void each_link(const Graph& graph, Body&& body) {
  for (EdgeId e = 0; e < graph.edge_count(); ++e) {
    for (std::size_t i = 0; i < graph.edge(e).chain.size(); ++i) body(e, static_cast<int>(i), graph.edge(e).chain[i]);
  }
}

}  // namespace

std::vector<View> given_state(Network& network, const PlanSpec& spec, EdgeId edge, int link) {
  const Op& op = *network.graph().edge(edge).chain[static_cast<std::size_t>(link)].op;
  const auto serves = learns(spec) ? Op::Serves::learning : Op::Serves::looking;
  if (op.state == nullptr || (op.state_serves != serves && op.state_serves != Op::Serves::all)) return {};
  return network.link_state(edge, link, spec.batch);
}

/// Streams are numbered in the order of the edges, which padded paths leave as it is: other schedules draw the same.
void draw_states(const Exec& exec, Network& network, const PlanSpec& spec) {
  if (!learns(spec)) return;
  const View number = network.scalar("clock/drawn");
  std::uint32_t stream = 0;
  each_link(network.graph(), [&](EdgeId e, int i, const Link& link) {
    if (link.op->draw == nullptr) return;
    const std::vector<View> state = network.link_state(e, i, spec.batch);
    link.op->draw({.exec = exec, .x = {}, .w = {}, .attrs = link.attrs, .state = state},
                  {network.seed(), stream++, number});
  });
  if (stream > 0) kernels::tick(exec, {.counter = number});
}

bool observes(const PlanSpec& spec, const Link& link) { return spec.learn && link.op->observe != nullptr; }

std::string unobservable(const PlanSpec& spec, const Graph& graph) {
  const bool reverse = spec.schedule->engine == Engine::reverse;
  const bool starts_there =
      reverse || (spec.relax.init.kind == ValueInit::Kind::feedforward && topological_order(graph));
  std::string why;
  each_link(graph, [&](EdgeId e, int, const Link& link) {
    if (spec.learn && link.op->mixes_samples && spec.batch * link.out.count() == link.out[link.out.rank() - 1]) {
      why = std::string(link.op->name) + " in edge " + graph.edge(e).name +
            " would normalise single values, each by itself, in a batch of one sample; choose a data.batch that leaves "
            "no single one";
    }
    if (starts_there || !observes(spec, link)) return;
    why = std::string(link.op->name) + " in edge " + graph.edge(e).name +
          " keeps for evaluation the statistics of a feedforward pass; use init: feedforward, and no cycle";
  });
  return why;
}

}  // namespace pc

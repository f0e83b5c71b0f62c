#include "pc/step_bound.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "kernels/arithmetic.h"
#include "kernels/random.h"
#include "kernels/reduce.h"
#include "pc/levels.h"
#include "pc/ops/ops.h"

namespace pc {
namespace {

/// Power iteration has come this close when a round changes the norm by no more, and may still be this much too low.
constexpr double kClose = 1e-4;
constexpr int kRounds = 200;

/// What leads from a source of the edge to its prediction, at most.
double stretch(Network& network, const Edge& edge, std::map<ParamId, double>& known) {
  double product = 1;
  for (const Link& link : edge.chain) {
    const double most = link.op->lipschitz == nullptr ? INFINITY : link.op->lipschitz(link.attrs);
    PC_CHECK(std::isfinite(most), "step_bound", "edge ", edge.name, ": there is no bound on how ", link.op->name,
             " stretches its sources; give a rate instead of auto");
    product *= most;
    if (link.params.empty()) continue;
    const ParamId weight = link.params[0];
    if (!known.contains(weight)) known[weight] = spectral_norm(network, weight);
    product *= known[weight];
  }
  return product;
}

/// Largest singular value of a small matrix with entries of at least 0, rows by columns.
double norm_of(const std::vector<std::vector<double>>& m) {
  if (m.empty() || m[0].empty()) return 0;
  std::vector<double> v(m[0].size(), 1.0), u(m.size());
  double norm = 0;
  for (int round = 0; round < 10 * kRounds; ++round) {
    double square = 0;
    for (std::size_t i = 0; i < m.size(); ++i) {
      u[i] = 0;
      for (std::size_t j = 0; j < v.size(); ++j) u[i] += m[i][j] * v[j];
    }
    for (std::size_t j = 0; j < v.size(); ++j) {
      v[j] = 0;
      for (std::size_t i = 0; i < m.size(); ++i) v[j] += m[i][j] * u[i];
      square += v[j] * v[j];
    }
    const double next = std::sqrt(std::sqrt(square));
    if (next == 0) return 0;
    for (double& entry : v) entry /= next * next;
    if (std::abs(next - norm) <= 0.01 * kClose * next) return next;
    norm = next;
  }
  return norm;
}

}  // namespace

double spectral_norm(Network& network, ParamId id) {
  const View w = network.weight(id);
  const Exec exec = network.exec();
  const std::string& name = network.graph().param(id).name;
  Arena& arena = network.arena();
  const SparseViews* sparse = network.sparse(id);
  const std::int64_t in = sparse == nullptr ? w.cols() : sparse->by_column.rows();
  const std::int64_t out = sparse == nullptr ? w.rows() : sparse->by_row.rows();
  const View v = arena.take("bound/in/" + name, {1, in}, network.dtype());
  const View u = arena.take("bound/out/" + name, {1, out}, network.dtype());
  const View square = network.scalar("bound/square");
  kernels::random(exec, {.out = v, .a = 0, .b = 1, .seed = 1, .purpose = Purpose::weights});
  const Op& op = sparse == nullptr ? ops::linear : ops::sparse_linear;
  const Attrs attrs = complete_attrs(op, {});
  const OpCall call{exec, {&v, 1}, {&w, 1}, attrs, sparse};
  if (op.prepare != nullptr) op.prepare(call);
  double norm = 0;
  for (int round = 0; round < kRounds; ++round) {
    kernels::sum(exec, {.in = v, .out = square, .squares = true});
    const double length = std::sqrt(arena.read(square)[0]);
    if (length == 0) return 0;
    kernels::axpby(exec, {.x = v, .y = v, .a = 1 / length, .b = 0});
    op.predict(call, u, Write::set);
    kernels::sum(exec, {.in = u, .out = square, .squares = true});
    const double next = std::sqrt(arena.read(square)[0]);
    if (std::abs(next - norm) <= kClose * next) return next;
    norm = next;
    op.pullback(call, u, 0, v, Write::set);
  }
  return norm;
}

double step_bound(Network& network, const Schedule& schedule, const std::vector<Clamp>& clamps) {
  const Graph& graph = network.graph();
  std::vector<bool> clamped(static_cast<std::size_t>(graph.node_count()), false);
  for (const Clamp& clamp : clamps) clamped[static_cast<std::size_t>(clamp.node)] = !clamp.masked;
  if (schedule.free_output) {
    for (const NodeId v : loss_nodes(graph, clamps)) clamped[static_cast<std::size_t>(v)] = false;
  }
  std::vector<std::vector<double>> norms(static_cast<std::size_t>(graph.prediction_count()),
                                         std::vector<double>(clamped.size(), 0.0));
  std::map<ParamId, double> known;
  for (const Edge& edge : graph.edges()) {
    for (const NodeId from : edge.from) {
      if (clamped[static_cast<std::size_t>(from)]) continue;
      norms[static_cast<std::size_t>(edge.prediction)][static_cast<std::size_t>(from)] += stretch(network, edge, known);
    }
  }
  const auto is_free = [&](NodeId node) { return !clamped[static_cast<std::size_t>(node)]; };
  // Errors as variables: a value moves with its own error and with all that its prediction is made of.
  const bool by_errors = schedule.engine == Engine::errors;
  std::vector<std::vector<double>> reached(clamped.size(), std::vector<double>(clamped.size(), 0.0));
  const auto through_values = [&](const std::vector<double>& row) {
    std::vector<double> sum(clamped.size(), 0.0);
    for (std::size_t from = 0; from < sum.size(); ++from) {
      for (std::size_t v = 0; v < sum.size(); ++v) sum[v] += row[from] * reached[from][v];
    }
    return sum;
  };
  const std::vector<NodeId> none;  // also where there is a cycle, which the schedule itself refuses
  for (const NodeId v : by_errors ? topological_order(graph).value_or(none) : none) {
    const auto& predictions = graph.node(v).predictions;
    std::vector<double>& row = reached[static_cast<std::size_t>(v)];
    if (is_free(v) && !predictions.empty()) row = through_values(norms[static_cast<std::size_t>(predictions[0])]);
    if (is_free(v)) row[static_cast<std::size_t>(v)] += 1;
  }
  // How far the error of each prediction moves with each variable, in units of its own deviation.
  for (PredictionId p = 0; p < graph.prediction_count(); ++p) {
    const EnergySpec& spec = graph.prediction(p).spec;
    PC_CHECK(spec.energy == &gaussian || !spec.energy->zero_at_prediction, "step_bound", "prediction ",
             graph.prediction(p).name, ": there is no bound on the curvature of energy ", spec.energy->name,
             "; give a rate instead of auto");
    const std::vector<double> now =
        spec.learn_precision > 0 ? network.arena().read(network.precisions(p)) : spec.precision;
    // They grow until the bound is looked for again.
    double precision = std::max(spec.most_precision, *std::max_element(now.begin(), now.end()));
    if (schedule.free_output) precision += std::max(precision, 1.0);
    std::vector<double>& row = norms[static_cast<std::size_t>(p)];
    const NodeId node = graph.prediction(p).node;
    const bool variable = by_errors && is_free(node) && graph.node(node).predictions[0] == p;
    if (variable) row.assign(row.size(), 0.0);
    if (is_free(node)) row[static_cast<std::size_t>(node)] += 1;
    if (by_errors && !variable) row = through_values(row);
    for (double& entry : row) entry *= std::sqrt(precision);
  }
  const double reach = norm_of(norms);
  return reach > 0 ? 1 / (reach * reach * (1 + 2 * kClose)) : 1;
}

void set_step_bound(Network& network, const Schedule& schedule, const std::vector<Clamp>& clamps) {
  network.arena().write(network.scalar(kStepBound), {step_bound(network, schedule, clamps)});
}

}  // namespace pc

// The schedules that equal backprop, and the laws of those that approximate it. Numbers O22 to O35 are the project's
// oracles: statements that hold exactly, or slopes that theory gives.
#include <doctest/doctest.h>

#include <Eigen/Dense>
#include <cmath>

#include "pc/step_bound.h"
#include "tests/gradients.h"

namespace pc::test {
namespace {

/// Relaxation until nothing moves.
RelaxSpec settling(double rate = 0.1, int steps = 20000) {
  return {.steps = steps, .stepper = ValueSgd{rate, 0}, .stop = GradientNorm{1e-14}};
}

/// Slope of log(error) against log(value), by least squares.
double slope(const Values& values, const Values& errors) {
  double sx = 0, sy = 0, sxx = 0, sxy = 0;
  const double n = double(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double x = std::log(values[i]), y = std::log(errors[i]);
    sx += x, sy += y, sxx += x * x, sxy += x * y;
  }
  return (n * sxy - sx * sy) / (n * sxx - sx * sx);
}

/// The node that a parameter's edge predicts; parameters of several edges have none.
NodeId predicted_by(const Graph& graph, ParamId id) {
  NodeId found = -1;
  for (const Edge& edge : graph.edges()) {
    for (const Link& link : edge.chain) {
      if (std::find(link.params.begin(), link.params.end(), id) == link.params.end()) continue;
      if (found >= 0) return -1;
      found = graph.prediction(edge.prediction).node;
    }
  }
  return found;
}

/// Largest difference of a from `times` b, over b's largest entry.
double off_by(const Values& a, const Values& b, double times) {
  double worst = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    worst = std::max(worst, std::abs(a[i] - times * b[i]));
    size = std::max(size, std::abs(b[i]));
  }
  return size == 0 ? worst : worst / size;
}

}  // namespace

TEST_CASE("O22: exact schedules equal backprop on random graphs") {
  for (const std::string schedule : {"zil", "fa_zil", "fixed_prediction"}) {
    CAPTURE(schedule);
    double worst = 0, single = 0;
    each_graph(schedule, {}, [&](const Problem& problem) {
      const Gradients truth = gradients(problem, spec_for(problem, "backprop"));
      const double off = distance(gradients(problem, spec_for(problem, schedule)), truth);
      CHECK(off < 1e-10);
      worst = std::max(worst, off);
      const Gradients rough = gradients(problem, spec_for(problem, "backprop"), DType::f32);
      single = std::max(single, distance(gradients(problem, spec_for(problem, schedule), DType::f32), rough));
      CHECK(distance(gradients(problem, spec_for(problem, schedule, {}, false)),
                     gradients(problem, spec_for(problem, schedule))) <= rounding(DType::f64));
    });
    CHECK(single < 1e-4);
    CHECK(single > 1e6 * worst);  // a true identity gains all the digits that float64 has more; a mistake gains none
    MESSAGE(schedule, ": worst relative error ", worst, " in float64, ", single, " in float32");
  }
}

TEST_CASE("O23: with another gamma Z-IL gives gamma^level times backprop, whatever ways lead to a node") {
  for (const std::string schedule : {"zil", "fa_zil"}) {
    double worst = 0;
    each_graph(schedule, {}, [&](const Problem& problem) {
      const Graph graph = problem.graph();
      const std::vector<int> level = levels_to_loss(graph, problem.clamps);
      const Gradients truth = gradients(problem, spec_for(problem, "backprop"));
      const Gradients slow = gradients(problem, spec_for(problem, schedule, {.gamma = 0.5}));
      for (ParamId p = 0; p < graph.param_count(); ++p) {
        const NodeId v = predicted_by(graph, p);
        if (v < 0 || level[index(v)] < 0) continue;
        worst = std::max(worst, off_by(slow[index(p)], truth[index(p)], std::pow(0.5, level[index(v)])));
      }
      const Gradients plain = gradients(problem, spec_for(problem, schedule, {.gamma = 0.5}, false));
      CHECK(distance(plain, slow) <= rounding(DType::f64));
    });
    CHECK(worst < 1e-12);
    MESSAGE(schedule, ": worst ", worst);
  }
}

TEST_CASE("O24: no error is other than exactly zero before the signal can have come") {
  const Problem problem = clamped_mlp({5, 7, 6, 4, 3}, 3, 11);
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (int steps = 1; steps <= 3; ++steps) {
      PlanSpec spec = spec_for(problem, "pc", {}, false);
      spec.relax.steps = steps;
      spec.relax.stepper = ValueSgd{1.0, 0};
      Run run(problem, spec, dtype);
      run.step();
      for (NodeId v = 1; v <= 4; ++v) {
        const Values delta =
            read(run.network, run.network.prediction_buffer("delta", run.network.graph().node(v).predictions[0], 3));
        const bool zero = std::all_of(delta.begin(), delta.end(), [](double d) { return d == 0; });
        CAPTURE(steps);
        CAPTURE(v);
        CHECK(zero == (4 - v > steps));
      }
    }
  }
}

TEST_CASE("O25: fixed predictions give backprop times a binomial law") {
  const Problem problem = clamped_mlp({4, 6, 5, 6, 3}, 4, 12);
  const Gradients truth = gradients(problem, spec_for(problem, "backprop"));
  const Graph graph = problem.graph();
  const std::vector<int> level = levels_to_loss(graph, problem.clamps);
  for (const double eta : {0.3, 0.8}) {
    for (const int steps : {1, 2, 5, 9}) {
      const Gradients some = gradients(problem, spec_for(problem, "fixed_prediction", {.eta = eta, .steps = steps}));
      for (ParamId p = 0; p < graph.param_count(); ++p) {
        const int k = level[index(predicted_by(graph, p))];
        double at_least = 0;  // P(Bin(steps, eta) >= k)
        for (int n = k; n <= steps; ++n) {
          at_least += std::exp(std::lgamma(steps + 1) - std::lgamma(n + 1) - std::lgamma(steps - n + 1)) *
                      std::pow(eta, n) * std::pow(1 - eta, steps - n);
        }
        CHECK(off_by(some[index(p)], truth[index(p)], at_least) < 1e-13);
      }
    }
  }
  const Gradients long_run = gradients(problem, spec_for(problem, "fixed_prediction", {.eta = 0.3, .steps = 300}));
  CHECK(distance(long_run, truth) < 1e-13);
}

TEST_CASE("O26: fixed predictions need as many updates as the graph is deep, and not one fewer") {
  int deep = 0;
  each_graph("fixed_prediction", {.smooth = true}, [&](const Problem& problem) {
    const std::vector<int> level = levels_to_loss(problem.graph(), problem.clamps);
    const int depth = *std::max_element(level.begin(), level.end());
    if (depth < 2) return;
    const Gradients truth = gradients(problem, spec_for(problem, "backprop"));
    CHECK(distance(gradients(problem, spec_for(problem, "fixed_prediction", {.steps = depth})), truth) < 1e-12);
    const double short_by_one =
        distance(gradients(problem, spec_for(problem, "fixed_prediction", {.steps = depth - 1})), truth);
    deep += short_by_one > 1e-9 ? 1 : 0;  // not where nothing learns at the deepest level
  });
  CHECK(deep > kGraphs / 10);
}

namespace {

/// x -> a, and a, b, c with cycles and self-loops, read out by y. Weights small enough to contract.
Problem looped(std::uint64_t seed) {
  Problem problem;
  for (const auto& [name, n] :
       std::vector<std::pair<std::string, std::int64_t>>{{"x", 3}, {"a", 4}, {"b", 3}, {"c", 2}, {"y", 2}}) {
    problem.nodes.push_back({.name = name, .shape = {n}});
  }
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
           {"x", "a"}, {"a", "b"}, {"b", "c"}, {"c", "a"}, {"b", "b"}, {"b", "a"}}) {
    problem.edges.push_back({.from = {from}, .to = to, .chain = {linear(), op("tanh")}});
  }
  problem.edges.push_back({.from = {"c"}, .to = "y", .chain = {linear()}});
  Dice dice(seed);
  problem.batch = 3;
  problem.clamp(0, dice.normals(9));
  problem.clamp(4, dice.normals(6));
  return problem;
}

WeightInit contracting() { return {.kind = WeightInit::Kind::fan_in, .scale = 0.7}; }

/// What is left of the recurrent network after training by hand: mu of every node from x by dual numbers.
struct Loop {
  const Graph& graph;
  std::vector<Values> w;
  std::vector<Values> x;  // of one sample
  std::vector<NodeId> free;
  std::vector<std::size_t> begin;
  std::size_t n = 0;

  /// Column j of the Jacobian of all mu with respect to entry j of the free values.
  Eigen::MatrixXd jacobian(const std::vector<NodeId>& of) const {
    std::size_t rows = 0;
    for (const NodeId v : of) rows += x[index(v)].size();
    Eigen::MatrixXd j(rows, n);
    std::vector<Numbers<Dual>> values, params;
    for (const Values& node : x) values.emplace_back(node.begin(), node.end());
    for (const Values& param : w) params.emplace_back(param.begin(), param.end());
    std::size_t col = 0;
    for (const NodeId v : free) {
      for (Dual& entry : values[index(v)]) {
        entry.d = 1;
        std::size_t row = 0;
        for (const NodeId to : of) {
          for (const Dual& out : naive_mu<Dual>(graph, graph.node(to).predictions[0], values, params)) {
            j(static_cast<Eigen::Index>(row++), static_cast<Eigen::Index>(col)) = out.d;
          }
        }
        entry.d = 0;
        ++col;
      }
    }
    return j;
  }
};

/// -d loss/dw at the fixed point x = mu(x), from (I - J^T) lambda = J_y^T (y - mu_y) (Almeida 1987, Pineda 1987);
/// with `terms`, the Neumann sum of so many terms in the place of the solution.
Gradients implicit_gradient(Network& network, const Problem& problem, int terms = 0) {
  const Graph& graph = network.graph();
  Gradients total;
  std::vector<Values> w;
  for (ParamId p = 0; p < graph.param_count(); ++p) {
    w.push_back(read(network, network.weight(p)));
    total.emplace_back(w.back().size(), 0.0);
  }
  for (std::int64_t b = 0; b < problem.batch; ++b) {
    Loop loop{graph, w, {}, {1, 2, 3}, {}, 9};
    for (NodeId v = 0; v < graph.node_count(); ++v) {
      Values value(index(graph.node(v).shape.count()), 0.0);
      if (!problem.data[index(v)].empty()) value = rows_of(problem.data[index(v)], problem.batch, b, 1);
      loop.x.push_back(value);
    }
    for (int sweep = 0; sweep < 2000; ++sweep) {
      auto next = loop.x;
      for (const NodeId v : loop.free)
        next[index(v)] = naive_mu<double>(graph, graph.node(v).predictions[0], loop.x, w);
      loop.x = next;
    }
    const Values y = naive_mu<double>(graph, graph.node(4).predictions[0], loop.x, w);
    Eigen::VectorXd error(2);
    for (std::size_t i = 0; i < 2; ++i) error(static_cast<Eigen::Index>(i)) = loop.x[4][i] - y[i];
    const Eigen::MatrixXd jt = loop.jacobian(loop.free).transpose();
    const Eigen::VectorXd source = loop.jacobian({4}).transpose() * error;
    Eigen::VectorXd lambda = Eigen::VectorXd::Zero(9);
    if (terms == 0) lambda = (Eigen::MatrixXd::Identity(9, 9) - jt).partialPivLu().solve(source);
    for (int k = 0; k < terms; ++k) lambda = source + jt * lambda;
    // The local rule at each node, from lambda; at the output from its own error.
    std::vector<Numbers<Dual>> values, params;
    for (const Values& node : loop.x) values.emplace_back(node.begin(), node.end());
    for (const Values& param : w) params.emplace_back(param.begin(), param.end());
    for (std::size_t p = 0; p < params.size(); ++p) {
      for (std::size_t i = 0; i < params[p].size(); ++i) {
        params[p][i].d = 1;
        std::size_t row = 0;
        for (const NodeId v : {1, 2, 3, 4}) {
          const auto mu = naive_mu<Dual>(graph, graph.node(v).predictions[0], values, params);
          for (std::size_t k = 0; k < mu.size(); ++k) {
            total[p][i] +=
                mu[k].d * (v == 4 ? error(static_cast<Eigen::Index>(k)) : lambda(static_cast<Eigen::Index>(row + k)));
          }
          row += v == 4 ? 0 : mu.size();
        }
        params[p][i].d = 0;
      }
    }
  }
  return total;
}

}  // namespace

TEST_CASE("O29: on a cycle, at a fixed point, fixed predictions give the implicit gradient") {
  const Problem problem = looped(3);
  CHECK(contains(error_of([&] { Run(problem, spec_for(problem, "fixed_prediction")).step(); }), "give it steps"));
  const auto run_with = [&](const ScheduleSettings& settings) {
    PlanSpec spec = spec_for(problem, "fixed_prediction", settings);
    spec.relax.init.sweeps = 400;
    Run run(problem, spec, DType::f64, 1, contracting());
    const Gradients found = gradients_of(run);
    return std::pair{found, implicit_gradient(run.network, problem, settings.eta == 1 ? settings.steps : 0)};
  };
  for (const int steps : {1, 2, 3, 7}) {
    const auto [found, neumann] = run_with({.eta = 1, .steps = steps});
    CAPTURE(steps);
    CHECK(distance(found, neumann) < 1e-12);
  }
  const auto [found, exact] = run_with({.eta = 0.8, .steps = 1000});
  CHECK(distance(found, exact) < 1e-12);
  MESSAGE("off the implicit gradient by ", distance(found, exact));
}

TEST_CASE("O30: equilibrium propagation errs by beta on one side, by beta^2 on both") {
  const auto law = [](const Problem& problem, const Gradients& truth, Nudge::Side side, const RelaxSpec& relax,
                      WeightInit init) {
    Values errors;
    const Values betas = {0.04, 0.02, 0.01, 0.005};
    for (const double beta : betas) {
      PlanSpec spec = spec_for(problem, "ep", {.nudge = Nudge{.side = side, .beta = beta}});
      spec.relax = relax;
      Run run(problem, spec, DType::f64, 1, init);
      errors.push_back(distance(gradients_of(run), truth));
    }
    return slope(betas, errors);
  };
  const Problem chain = clamped_mlp({4, 6, 5, 3}, 3, 21);
  Problem diamond = clamped_mlp({4, 5, 5, 3}, 3, 22);
  diamond.edges.push_back({.from = {"x1"}, .to = "x3", .chain = {linear(), op("tanh")}});
  Problem classes = clamped_mlp({4, 6, 5, 3}, 3, 23);
  classes.nodes.back().energy = {&softmax_cross_entropy, {1.5}};
  classes.data[3] = {1, 0, 0, 0, 0.5, 0.5, 0, 1, 0};
  for (const Problem& problem : {chain, diamond, classes}) {
    const Gradients truth = gradients(problem, spec_for(problem, "backprop"));
    CHECK(law(problem, truth, Nudge::Side::positive, settling(), {}) == doctest::Approx(1).epsilon(0.1));
    CHECK(law(problem, truth, Nudge::Side::negative, settling(), {}) == doctest::Approx(1).epsilon(0.1));
    CHECK(law(problem, truth, Nudge::Side::centered, settling(), {}) == doctest::Approx(2).epsilon(0.05));
  }
  Problem loop = looped(5);
  Network network(loop.graph(), test_exec(), DType::f64, loop.batch, 5, contracting());
  const Gradients truth = implicit_gradient(network, loop);
  // On one side the free state is found first, wherever the start is; both sides need no such state.
  RelaxSpec relax = settling();
  relax.init = {.kind = ValueInit::Kind::zeros};
  CHECK(law(loop, truth, Nudge::Side::positive, relax, contracting()) == doctest::Approx(1).epsilon(0.1));
  CHECK(law(loop, truth, Nudge::Side::centered, relax, contracting()) == doctest::Approx(2).epsilon(0.05));
}

TEST_CASE("even and odd levels in turn reach what all at once reach, at a rate of 1") {
  const Problem problem = clamped_mlp({4, 6, 5, 3}, 3, 24);
  const ScheduleSettings settings{.nudge = Nudge{.beta = 0.02}};
  PlanSpec spec = spec_for(problem, "ep", settings);
  spec.relax = settling();
  const Gradients all = gradients(problem, spec);
  spec.relax = settling(1.0);
  spec.relax.sweep = Sweep::even_odd;
  Run turns(problem, spec);
  CHECK(distance(gradients_of(turns), all) < 1e-9);
  CHECK(turns.step().converged);
  const Problem loop = looped(3);
  PlanSpec wrong = spec_for(loop, "ep", settings);
  wrong.relax.sweep = Sweep::even_odd;
  CHECK(contains(error_of([&] { Run(loop, wrong).step(); }), "a -> b -> a"));
}

TEST_CASE("O31: a clamped nudge does not become backprop; its error tends to a constant") {
  const Problem problem = clamped_mlp({4, 6, 6, 3}, 3, 25);
  const Gradients truth = gradients(problem, spec_for(problem, "backprop"));
  Values errors;
  for (const double beta : {0.1, 0.01, 0.001}) {
    for (const Nudge::Side side : {Nudge::Side::positive, Nudge::Side::negative}) {
      PlanSpec spec = spec_for(problem, "pc", {.nudge = Nudge{.side = side, .beta = beta}});
      spec.relax = settling();
      errors.push_back(distance(gradients(problem, spec), truth));
    }
  }
  CHECK(errors[4] > 0.05);
  CHECK(errors[5] == doctest::Approx(errors[4]).epsilon(0.01));
  CHECK(errors[2] == doctest::Approx(errors[4]).epsilon(0.1));
}

TEST_CASE("nudged targets: the side takes turns, and beta grows by the epoch") {
  const Problem problem = clamped_mlp({3, 4, 2}, 2, 26);
  ScheduleSettings settings{.nudge = Nudge{.beta = 0.5, .growth = 0.4}, .batches = 2};
  PlanSpec spec = spec_for(problem, "pc", settings);
  spec.relax.steps = 1;
  Run run(problem, spec);
  const PredictionId p = run.network.graph().node(2).predictions[0];
  for (const double beta : {0.5, -0.5, 0.9, -0.9, 1.0, -1.0, 1.0}) {
    load(run.network, run.problem);
    run.step();
    // The feedforward prediction, from the values that were settled with free ends... is what backprop predicts.
    Run plain(problem, spec_for(problem, "backprop"));
    plain.step();
    const Values mu = read(plain.network, plain.network.prediction_buffer("mu", p, 2));
    const Values x = read_value(run.network, 2, 2);
    for (std::size_t i = 0; i < x.size(); ++i) {
      CHECK(x[i] == doctest::Approx(mu[i] + beta * (problem.data[2][i] - mu[i])).epsilon(1e-12));
    }
  }
}

TEST_CASE("O32: with a weak output, settled errors are backprop's, up to the output's precision") {
  Problem problem = clamped_mlp({4, 6, 5, 3}, 3, 27);
  const Values precisions = {0.01, 0.005, 0.0025, 0.00125};
  Values errors;
  const Gradients truth = gradients(problem, spec_for(problem, "backprop"));
  for (const double precision : precisions) {
    problem.nodes.back().energy.precision = {precision};
    PlanSpec spec = spec_for(problem, "pc");
    spec.relax = settling();
    Gradients found = gradients(problem, spec);
    for (Values& list : found) {
      for (double& entry : list) entry /= precision;
    }
    errors.push_back(distance(found, truth));
  }
  CHECK(slope(precisions, errors) == doctest::Approx(1).epsilon(0.05));
}

TEST_CASE("O33: errors as variables step along backprop's gradient first, and reach the minimum of pc") {
  double worst_state = 0, worst_gradient = 0;
  // A step of so small a network takes a GPU a hundred times as long, and there are many thousand.
  const bool cpu = test_exec().device == Device::cpu;
  const int wanted = cpu ? 40 : 12, most = cpu ? 200000 : 20000;
  int done = 0, settled = 0;
  for (std::uint64_t seed = 1; done < wanted; ++seed) {
    const Problem problem = wild_problem(seed, {.cycles = false, .smooth = true, .backprop = true});
    if (!runs(problem, "zil")) continue;
    CAPTURE(seed);
    ++done;
    // A free node that nothing predicts may take any of many values at the minimum.
    const Graph graph = problem.graph();
    bool determined = true;
    for (NodeId v = 0; v < graph.node_count(); ++v) {
      if (graph.node(v).predictions.empty() && problem.data[index(v)].empty()) determined = false;
    }
    PlanSpec first = spec_for(problem, "epc");
    first.relax = {.steps = 1, .stepper = ValueSgd{0.25, 0}};
    Run one(problem, first), truth(problem, spec_for(problem, "backprop"));
    one.step();
    truth.step();
    for (NodeId v = 0; v < one.network.graph().node_count(); ++v) {
      const std::string& name = one.network.graph().node(v).name;
      if (!one.network.arena().has("e/" + name) || !truth.network.arena().has("grad/" + name)) continue;
      const Values e = read(one.network, one.network.node_buffer("e", v, problem.batch));
      const Values g = read(truth.network, truth.network.node_buffer("grad", v, problem.batch));
      CHECK(off_by(e, g, 0.25) < 1e-14);
    }
    PlanSpec by_values = spec_for(problem, "pc"), by_errors = spec_for(problem, "epc");
    by_values.relax = settling(0.05, most);
    by_errors.relax = settling(0.02, most);
    by_values.relax.stop = by_errors.relax.stop = GradientNorm{1e-13};
    Run values(problem, by_values), errors(problem, by_errors);
    if (!values.step().converged || !errors.step().converged) continue;
    ++settled;
    for (NodeId v = 0; v < values.network.graph().node_count(); ++v) {
      const Node& node = values.network.graph().node(v);
      if (!determined || node.predictions.empty()) continue;
      // Where an entry has next to no precision the minimum is flat, and any state will do.
      const auto& precision = values.network.graph().prediction(node.predictions[0]).spec.precision;
      if (*std::min_element(precision.begin(), precision.end()) < 0.1) continue;
      worst_state = std::max(worst_state, worst_difference(read_value(values.network, v, problem.batch),
                                                           read_value(errors.network, v, problem.batch)));
    }
    for (ParamId p = 0; p < values.network.graph().param_count(); ++p) {
      worst_gradient = std::max(worst_gradient, worst_difference(read(values.network, values.network.gradient(p)),
                                                                 read(errors.network, errors.network.gradient(p))));
    }
  }
  MESSAGE("of ", done, " networks ", settled, " settled; states differ by ", worst_state, ", gradients by ",
          worst_gradient);
  CHECK(settled >= done / 4);
  CHECK(worst_state < 1e-9);
  CHECK(worst_gradient < 1e-9);
}

TEST_CASE("O35: five thousand Adam steps with an exact schedule and with backprop end at the same weights") {
  const Problem problem = clamped_mlp({5, 8, 8, 3}, 4, 28);
  const auto trained = [&](const std::string& schedule) {
    PlanSpec spec = spec_for(problem, schedule);
    spec.learn = LearnSpec{.optimizer = WeightAdam{}, .rate = {.base = 1e-3}};
    Run run(problem, spec);
    for (int i = 0; i < 5000; ++i) run.step();
    Gradients weights;
    for (ParamId p = 0; p < run.network.graph().param_count(); ++p) {
      weights.push_back(read(run.network, run.network.weight(p)));
    }
    return weights;
  };
  const Gradients truth = trained("backprop");
  for (const std::string schedule : {"zil", "fa_zil", "fixed_prediction"}) {
    const Gradients weights = trained(schedule);
    double worst = 0;
    for (std::size_t p = 0; p < truth.size(); ++p) worst = std::max(worst, worst_difference(weights[p], truth[p]));
    MESSAGE(schedule, ": weights differ by ", worst);
    CHECK(worst < 1e-10);
  }
}

// --- steppers ---

namespace {

/// x0 (1) -> x1 -> x2 (-2), one number each, mu = w x: dx1/dt = -(1 + w2^2) x1 + w1 x0 + w2 x2.
struct Line {
  Problem problem = chain({1, 1, 1}, [](std::size_t) { return std::vector{linear(false)}; });
  Line() {
    problem.clamp(0, {1});
    problem.clamp(2, {-2});
  }
  /// x1 after `time`, from 0.
  static double exact(double w1, double w2, double time) {
    const double curvature = 1 + w2 * w2, rest = (w1 - 2 * w2) / curvature;
    return rest * (1 - std::exp(-curvature * time));
  }
};

double after_flow(ValueFlow flow, int steps, double* w1 = nullptr, double* w2 = nullptr, double* time = nullptr) {
  const Line line;
  PlanSpec spec = spec_for(line.problem, "pc");
  spec.relax.steps = steps;
  spec.relax.stepper = flow;
  spec.relax.init.kind = ValueInit::Kind::zeros;
  Run run(line.problem, spec);
  run.step();
  if (w1 != nullptr) *w1 = read(run.network, run.network.weight(0))[0];
  if (w2 != nullptr) *w2 = read(run.network, run.network.weight(1))[0];
  if (time != nullptr) *time = run.network.arena().read_scalar(run.network.scalar("clock/flow_time"));
  return read_value(run.network, 1, 1)[0];
}

}  // namespace

TEST_CASE("the steppers of the gradient flow have their orders") {
  const std::vector<std::pair<ValueFlow::Method, double>> orders = {
      {ValueFlow::Method::euler, 1}, {ValueFlow::Method::heun, 2}, {ValueFlow::Method::rk4, 4}};
  for (const auto& [method, order] : orders) {
    Values lengths, errors;
    for (const int steps : {8, 16, 32}) {
      double w1 = 0, w2 = 0;
      const double x = after_flow({.method = method, .rate = 1.0 / steps}, steps, &w1, &w2);
      lengths.push_back(1.0 / steps);
      errors.push_back(std::abs(x - Line::exact(w1, w2, 1)));
    }
    CHECK(slope(lengths, errors) == doctest::Approx(order).epsilon(0.1));
  }
}

TEST_CASE("the adaptive stepper keeps its error, and takes a step that errs too much again") {
  double w1 = 0, w2 = 0, time = 0;
  const ValueFlow fine{.method = ValueFlow::Method::adaptive, .rate = 0.1, .absolute = 1e-7, .relative = 1e-7};
  const double x = after_flow(fine, 40, &w1, &w2, &time);
  CHECK(time > 0.2);
  CHECK(std::abs(x - Line::exact(w1, w2, time)) < 1e-5);
  ValueFlow coarse = fine;
  coarse.rate = coarse.most = 50;
  CHECK(after_flow(coarse, 1, nullptr, nullptr, &time) == 0);
  CHECK(time == 0);
  const double later = after_flow(coarse, 60, &w1, &w2, &time);
  CHECK(time > 0);
  CHECK(later == doctest::Approx(Line::exact(w1, w2, time)).epsilon(1e-5));
}

TEST_CASE("every stepper ends at the same values") {
  const Problem problem = clamped_mlp({4, 6, 5, 3}, 3, 29);
  PlanSpec spec = spec_for(problem, "pc");
  spec.relax = settling();
  const Gradients truth = gradients(problem, spec);
  using Method = ValueFlow::Method;
  for (const Stepper& stepper :
       std::vector<Stepper>{ValueFlow{Method::euler, 0.1}, ValueFlow{Method::heun, 0.2}, ValueFlow{Method::rk4, 0.2},
                            ValueFlow{Method::adaptive, 0.1, 1e-12, 1e-12}, ValueSgd{1.0, 0, true}}) {
    spec.relax.stepper = stepper;
    spec.relax.stop = GradientNorm{1e-12};
    Run run(problem, spec);
    set_step_bound(run.network, *spec.schedule, problem.clamps);
    const Plan::Outcome outcome = run.step();
    CAPTURE(stepper.index());
    CHECK(outcome.converged);
    Gradients found;
    for (ParamId p = 0; p < run.network.graph().param_count(); ++p) {
      found.push_back(read(run.network, run.network.gradient(p)));
    }
    CHECK(distance(found, truth) < 1e-9);
  }
}

// --- precisions along the relaxation, forward update ---

TEST_CASE("precision schedules multiply the errors of their level, step by step") {
  const Problem problem = clamped_mlp({4, 5, 6, 3}, 2, 30);
  using Kind = PrecisionSchedule::Kind;
  for (const PrecisionSchedule precision : {PrecisionSchedule{Kind::spiking, 0.1}, {Kind::decaying, 0, 0.7}}) {
    PlanSpec spec = spec_for(problem, "pc");
    spec.relax = {.steps = 5, .stepper = ValueSgd{0.3, 0}, .precision = precision};
    Run run(problem, spec);
    run.step();
    // By hand: x_v <- x_v - 0.3 dF/dx_v with each node's energy multiplied by what its level has at that step.
    Reference reference(run.network, problem, plan_for(problem, 1));
    PlanSpec start = plan_for(problem, 1, 1e-300);
    Reference hand(run.network, problem, start);
    hand.step();  // the feedforward start
    Problem weighted = problem;
    for (int t = 0; t < 5; ++t) {
      for (NodeId v = 1; v <= 3; ++v) {
        const int level = 3 - v;
        const double factor = precision.kind == Kind::spiking ? (t == level ? 1 : 0.1)
                              : t < level                     ? 0
                                                              : std::exp(-0.7 * (t - level));
        weighted.nodes[index(v)].energy.precision = {factor};
      }
      Network network(weighted.graph(), test_exec(), DType::f64, 2, 5, {});
      Reference step(network, weighted, plan_for(weighted, 1));
      step.x = hand.x;
      const auto g = step.value_gradient();
      for (NodeId v = 1; v <= 2; ++v) {
        for (std::size_t b = 0; b < 2; ++b) {
          for (std::size_t i = 0; i < g[index(v)][b].size(); ++i) hand.x[index(v)][b][i] -= 0.3 * g[index(v)][b][i];
        }
      }
    }
    for (NodeId v = 1; v <= 2; ++v) CHECK(worst_difference(read_value(run.network, v, 2), hand.flat(v)) < 1e-12);
  }
  PlanSpec wrong = spec_for(looped(1), "pc");
  wrong.relax.precision.kind = Kind::spiking;
  CHECK(contains(error_of([&] { Run(looped(1), wrong).step(); }), "a -> b -> a"));
}

TEST_CASE("a forward update learns from settled values and the inputs of the start") {
  const Problem problem = clamped_mlp({4, 5, 6, 3}, 2, 31);
  PlanSpec spec = spec_for(problem, "pc");
  spec.relax = {.steps = 6, .stepper = ValueSgd{0.2, 0}, .forward_update = true};
  Run run(problem, spec);
  run.step();
  // Settled values as data of clamped nodes, one layer at a time, its input as the feedforward start has it.
  Run start(problem, spec_for(problem, "backprop"));
  start.step();
  for (NodeId v = 1; v <= 3; ++v) {
    const std::vector<OpSpec> layer = problem.edges[index(v - 1)].chain;
    Problem one = chain({problem.nodes[index(v - 1)].shape.count(), problem.nodes[index(v)].shape.count()},
                        [&](std::size_t) { return layer; });
    one.batch = 2;
    one.clamp(0, read_value(start.network, v - 1, 2));
    one.clamp(1, read_value(run.network, v, 2));
    Run local(one, spec_for(one, "backprop"));
    for (ParamId p = 0; p < 2; ++p) {
      local.network.arena().write(local.network.weight(p), read(run.network, run.network.weight(2 * (v - 1) + p)));
    }
    local.step();
    for (ParamId p = 0; p < 2; ++p) {
      CHECK(worst_difference(read(local.network, local.network.gradient(p)),
                             read(run.network, run.network.gradient(2 * (v - 1) + p))) < 1e-13);
    }
  }
}

// --- the bound on the rate ---

TEST_CASE("O11: the bound on the rate is never above the curvature's, cycles included") {
  double tightest = 0;
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    Dice dice(seed);
    Problem problem;
    const int n = 3 + dice.below(4);
    for (int v = 0; v < n; ++v) {
      problem.nodes.push_back({.name = "n" + std::to_string(v), .shape = {1 + dice.below(4)}});
      problem.nodes.back().energy.precision = {dice.uniform(0.3, 2)};
    }
    for (int e = 0; e < 2 * n; ++e) {
      problem.edges.push_back({.from = {problem.nodes[index(dice.below(n))].name},
                               .to = problem.nodes[index(dice.below(n))].name,
                               .chain = {linear(false)}});
    }
    problem.clamp(0, dice.normals(problem.nodes[0].shape.count()));
    Network network(problem.graph(), test_exec(), DType::f64, 1, seed, {});
    const double bound = step_bound(network, find_schedule("pc"), problem.clamps);
    // The Hessian, column by column: gradients of the quadratic energy are linear in x.
    PlanSpec spec = plan_for(problem, 1);
    Reference reference(network, problem, spec);
    std::vector<std::pair<NodeId, std::size_t>> entries;
    for (NodeId v = 1; v < n; ++v) {
      for (std::size_t i = 0; i < reference.x[index(v)][0].size(); ++i) entries.emplace_back(v, i);
    }
    const auto m = static_cast<Eigen::Index>(entries.size());
    Eigen::MatrixXd hessian(m, m);
    const auto zero = reference.value_gradient();
    for (Eigen::Index col = 0; col < m; ++col) {
      double& at = reference.x[index(entries[index(col)].first)][0][entries[index(col)].second];
      at = 1;
      const auto g = reference.value_gradient();
      at = 0;
      for (Eigen::Index row = 0; row < m; ++row) {
        const auto& [v, i] = entries[index(row)];
        hessian(row, col) = g[index(v)][0][i] - zero[index(v)][0][i];
      }
    }
    const double largest = Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>(hessian).eigenvalues().maxCoeff();
    CHECK(bound * largest <= 1);
    tightest = std::max(tightest, bound * largest);
  }
  CHECK(tightest > 0.9);
  MESSAGE("at best ", tightest, " of the largest safe rate over 2");
}

TEST_CASE("O11: the bound on the rate of errors as variables is that of all that is on the way") {
  Problem problem;
  problem.nodes = {{.name = "a", .shape = {1}}, {.name = "b", .shape = {1}}, {.name = "c", .shape = {1}}};
  problem.nodes[1].energy.precision = {2};
  problem.nodes[2].energy.precision = {3};
  problem.edges = {{.from = {"a"}, .to = "b", .chain = {linear(false)}},
                   {.from = {"b"}, .to = "c", .chain = {linear(false)}}};
  problem.clamp(2, {1});
  Network network(problem.graph(), test_exec(), DType::f64, 1, 5, {});
  const double first = read(network, network.weight(0))[0], second = read(network, network.weight(1))[0];
  // The variables: the value of a, and the error of b. The error of c moves with both.
  const Eigen::Vector2d way(second * first, second);
  const Eigen::Matrix2d hessian = 3 * way * way.transpose() + Eigen::Vector2d(0, 2).asDiagonal().toDenseMatrix();
  const double largest = Eigen::SelfAdjointEigenSolver<Eigen::Matrix2d>(hessian).eigenvalues().maxCoeff();
  CHECK(step_bound(network, find_schedule("epc"), problem.clamps) * largest == doctest::Approx(1).epsilon(1e-3));
  CHECK(step_bound(network, find_schedule("epc"), problem.clamps) * largest <= 1);
}

// --- the plan changes nothing ---

TEST_CASE("a plan that skips nothing gives the same numbers, whatever the schedule") {
  std::map<std::string, int> ran;
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    CAPTURE(seed);
    Dice dice(seed + 1000);
    const Schedule& schedule = find_schedule(dice.pick(
        std::vector<std::string>{"pc", "ep", "epc", "ipc", "pc", "zil", "fa_zil", "fixed_prediction", "ep", "epc"}));
    const bool simple = schedule.exact || schedule.acyclic;
    const bool cycles = !simple && dice.chance(0.4);
    const Problem problem = wild_problem(seed, {.cycles = cycles, .backprop = simple || dice.chance(0.7)});
    PlanSpec spec = wild_plan(seed, problem);
    spec.schedule = &schedule;
    if (simple) spec.relax.init = {};
    if (dice.chance(0.3)) spec.settings = {.gamma = 0.7, .eta = 0.6, .steps = 3};
    if (dice.chance(0.2)) spec.relax.stop = GradientNorm{1e-3};
    if (dice.chance(0.2)) spec.relax.stop = EnergyPlateau{1e-3};
    using Side = Nudge::Side;
    if (!simple && dice.chance(0.4)) {
      spec.settings.nudge = Nudge{dice.pick(std::vector{Side::positive, Side::negative, Side::centered}), 0.1};
    }
    if (dice.chance(0.3)) spec.relax.sweep = Sweep::even_odd;
    if (dice.chance(0.3)) spec.relax.forward_update = true;
    using Method = ValueFlow::Method;
    if (dice.chance(0.4)) {
      spec.relax.stepper =
          ValueFlow{dice.pick(std::vector{Method::euler, Method::heun, Method::rk4, Method::adaptive}), 0.1};
    }
    using Kind = PrecisionSchedule::Kind;
    if (dice.chance(0.3)) spec.relax.precision = {dice.pick(std::vector{Kind::spiking, Kind::decaying}), 0.1, 0.5};
    if (!error_of([&] {
           check_schedule(*spec.schedule, spec.settings, spec.relax, problem.graph(), problem.clamps);
         }).empty()) {
      continue;
    }
    ++ran[std::string(spec.schedule->name)];
    Run lean(problem, spec);
    spec.optimize = false;
    Run full(problem, spec);
    for (int i = 0; i < 2; ++i) {
      load(lean.network, lean.problem);
      load(full.network, full.problem);
      lean.step();
      full.step();
    }
    check_same_numbers(lean, full);
  }
  for (const Schedule& schedule : all_schedules()) {
    CAPTURE(schedule.name);
    CHECK((schedule.engine == Engine::reverse || ran[std::string(schedule.name)] >= 5));
  }
}

TEST_CASE("precision schedules go on changing under a stop rule") {
  const Problem problem = clamped_mlp({4, 5, 6, 3}, 2, 33);
  using Kind = PrecisionSchedule::Kind;
  for (const Kind kind : {Kind::spiking, Kind::decaying}) {
    PlanSpec spec = spec_for(problem, "pc");
    spec.relax = {.steps = 6, .stepper = ValueSgd{0.2, 0}, .precision = {kind, 0.1, 0.5}};
    const Gradients fixed = gradients(problem, spec);
    spec.relax.stop = GradientNorm{1e-300};
    CHECK(distance(gradients(problem, spec), fixed) == 0);
  }
}

TEST_CASE("ep counts the steps of both its relaxations, written out or not") {
  const Problem problem = clamped_mlp({4, 5, 3}, 2, 34);
  for (const int steps : {10, 64, 65}) {
    PlanSpec spec = spec_for(problem, "ep");
    spec.relax.steps = steps;
    Run run(problem, spec);
    CHECK(run.step().steps == 2 * steps);
  }
  PlanSpec spec = spec_for(problem, "ep");  // the energy of the negative side is negative
  spec.relax = {.steps = 5000, .stepper = ValueSgd{0.1, 0}, .stop = EnergyPlateau{1e-6}};
  Run run(problem, spec);
  const Plan::Outcome outcome = run.step();
  CHECK(outcome.converged);
  CHECK(outcome.steps < 2000);
}

TEST_CASE("long relaxations are not written out, and are the same") {
  const Problem problem = clamped_mlp({4, 5, 3}, 2, 32);
  PlanSpec spec = plan_for(problem, 500, 0.05);
  spec.gradients = true;
  Run looped(problem, spec);
  spec.trace = true;
  Run written_out(problem, spec);
  CHECK(looped.step().steps == 500);
  CHECK(written_out.step().steps == 500);
  check_same_numbers(looped, written_out);
  CHECK(written_out.trainer.plan(2).programs().size() == 1);
  CHECK(looped.trainer.plan(2).programs().size() < 10);
  CHECK(looped.trainer.plan(2).flops() == doctest::Approx(written_out.trainer.plan(2).flops()).epsilon(0.2));
}

TEST_CASE("combinations that make no sense stop before any work") {
  const Problem loop = looped(1), plain = clamped_mlp({3, 4, 4, 2}, 1, 1);
  const auto refusal = [](const Problem& problem, const std::string& schedule, const ScheduleSettings& settings = {},
                          const RelaxSpec& relax = {}) {
    return error_of([&] { check_schedule(find_schedule(schedule), settings, relax, problem.graph(), problem.clamps); });
  };
  for (const std::string schedule : {"zil", "fa_zil", "epc", "backprop"}) {
    CHECK(contains(refusal(loop, schedule), "a -> b -> a"));
    CHECK(refusal(plain, schedule).empty());
  }
  Problem inside = plain;
  inside.clamp(2, {1, 2, 3, 4});
  CHECK(contains(refusal(inside, "zil"), "node x2"));
  CHECK(contains(refusal(inside, "zil"), "x2->x3"));
  CHECK(refusal(inside, "fixed_prediction").empty());
  Problem masked = plain;
  masked.clamps.pop_back();
  masked.clamp(3, {1, 2}, {1, 0});
  CHECK(contains(refusal(inside, "ep"), "node x2"));
  CHECK(contains(refusal(plain, "fixed_prediction", {.eta = 2}), "eta must be below 2"));
  for (const std::string schedule : {"zil", "fixed_prediction", "ep", "epc"}) {
    CHECK(contains(refusal(masked, schedule), "node x3"));
  }
  Problem twice = plain;
  twice.nodes[1].predictions.emplace_back("side", EnergySpec{});
  twice.edges.push_back({.from = {"x0"}, .to = "x1", .prediction = "side", .chain = {linear()}});
  CHECK(contains(refusal(twice, "zil"), "node x1"));
  Problem aimless = plain;
  aimless.clamps.pop_back();
  CHECK(contains(refusal(aimless, "zil"), "needs a loss"));
  CHECK(contains(refusal(aimless, "ep"), "needs a loss"));
  Problem skipping = plain;
  skipping.edges.push_back({.from = {"x1"}, .to = "x3", .chain = {linear()}});
  CHECK(contains(refusal(skipping, "zil", {.paths = ScheduleSettings::Paths::pad}), "x1->x3"));
  CHECK(contains(refusal(plain, "zil", {.nudge = Nudge{}}), "cannot nudge"));
  CHECK(contains(refusal(plain, "ep", {.nudge = Nudge{.beta = 0}}), "beta"));
  Problem classes = plain;
  classes.nodes.back().energy.energy = &softmax_cross_entropy;
  CHECK(contains(refusal(classes, "pc", {.nudge = Nudge{}}), "node x3"));
  CHECK(contains(refusal(plain, "epc", {}, {.stepper = ValueFlow{}}), "sgd or adam"));
  CHECK(contains(refusal(plain, "epc", {}, {.init = {.kind = ValueInit::Kind::zeros}}), "feedforward"));
  CHECK(contains(refusal(plain, "epc", {}, {.sweep = Sweep::even_odd}), "sweep has no effect on epc"));
  CHECK(contains(refusal(plain, "ipc", {}, {.forward_update = true}), "forward_update has no effect on ipc"));
  CHECK(refusal(plain, "zil", {}, {.sweep = Sweep::even_odd}).empty());  // it brings its own relaxation
  RelaxSpec hasty{.stepper = ValueFlow{.method = ValueFlow::Method::adaptive}};
  hasty.stop = EnergyPlateau{};
  CHECK(contains(refusal(plain, "pc", {}, hasty), "adaptive"));
  CHECK(contains(refusal(masked, "pc", {.nudge = Nudge{}}), "node x3"));
  Problem doubled = plain;
  doubled.nodes[3].predictions.emplace_back("side", EnergySpec{});
  doubled.edges.push_back({.from = {"x1"}, .to = "x3", .prediction = "side", .chain = {linear()}});
  CHECK(contains(refusal(doubled, "ep"), "one prediction"));
}

}  // namespace pc::test

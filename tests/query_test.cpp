// Questions to networks, held to closed forms of linear graphs: conditional means, interventions, Langevin dynamics,
// Kalman updates, covariance learning, sequence memory (oracles O9, O17 to O19 and O21). And what the program answers.
#include <Eigen/Dense>
#include <chrono>
#include <csignal>
#include <nlohmann/json.hpp>
#include <thread>

#include "experiments/ask.h"
#include "experiments/hopfield.h"
#include "experiments/png.h"
#include "graphs/transform.h"
#include "pc/h5.h"
#include "pc/levels.h"
#include "tests/networks.h"
#include "tests/program.h"

namespace pc::test {
namespace {

using experiments::Answer;
using experiments::Given;
using experiments::Question;
using experiments::Rows;
using Matrix = Eigen::MatrixXd;
using Vector = Eigen::VectorXd;

constexpr WeightInit kSmall{.kind = WeightInit::Kind::fan_in, .scale = 0.6};

Rows rows_of(const Values& values, std::int64_t rows) {
  return Eigen::Map<const Rows>(values.data(), rows, length(values) / rows);
}
Values values_of(const Matrix& m) {
  const Rows rows = m;
  return {rows.data(), rows.data() + rows.size()};
}

/// Nodes of three entries; edges between random pairs, self-loops among them; every node has energy, and there is a
/// cycle.
graphs::Description random_cyclic(std::uint64_t seed, int nodes) {
  Dice dice(seed);
  graphs::Description graph;
  for (int i = 0; i < nodes; ++i) {
    graph.nodes.push_back({.name = "n" + std::to_string(i), .shape = {3}});
    graph.nodes.back().energy.precision = {dice.uniform(0.5, 2)};
  }
  for (int to = 0; to < nodes; ++to) {
    for (int from = 0; from < nodes; ++from) {
      const bool ring = from == (to + 1) % nodes;  // there is always one cycle
      if (!ring && !dice.chance(0.3)) continue;
      graph.edges.push_back(
          {.from = {graph.nodes[index(from)].name}, .to = graph.nodes[index(to)].name, .chain = {linear()}});
    }
  }
  return graph;
}

/// All nodes as one vector: mu = w x + b, with these precisions.
struct Affine {
  Matrix w;
  Vector b, precision;

  explicit Affine(Network& network) {
    const Graph& graph = network.graph();
    std::vector<std::int64_t> begin = {0};
    for (const Node& node : graph.nodes()) begin.push_back(begin.back() + node.shape.count());
    w = Matrix::Zero(begin.back(), begin.back());
    b = Vector::Zero(begin.back());
    precision = Vector::Zero(begin.back());
    for (const Edge& edge : graph.edges()) {
      const Prediction& prediction = graph.prediction(edge.prediction);
      const NodeId to = prediction.node;
      const std::int64_t rows = graph.node(to).shape.count(), cols = graph.node(edge.from[0]).shape.count();
      const auto& params = edge.chain[0].params;
      w.block(begin[index(to)], begin[index(edge.from[0])], rows, cols) +=
          rows_of(read(network, network.weight(params[0])), rows);
      if (params.size() > 1)
        b.segment(begin[index(to)], rows) += rows_of(read(network, network.weight(params[1])), rows);
      precision.segment(begin[index(to)], rows).setConstant(prediction.spec.precision[0]);
    }
  }
  [[nodiscard]] Matrix a() const { return Matrix::Identity(w.rows(), w.cols()) - w; }
  [[nodiscard]] Matrix h() const { return a().transpose() * precision.asDiagonal() * a(); }
};

std::vector<Eigen::Index> indices(const std::vector<bool>& held, bool value) {
  std::vector<Eigen::Index> list;
  for (std::size_t i = 0; i < held.size(); ++i) {
    if (held[i] == value) list.push_back(static_cast<Eigen::Index>(i));
  }
  return list;
}

Vector state(Network& network) {
  Values all;
  for (NodeId v = 0; v < network.graph().node_count(); ++v) {
    const Values x = read_value(network, v, 1);
    all.insert(all.end(), x.begin(), x.end());
  }
  return Eigen::Map<const Vector>(all.data(), length(all));
}

double distance(const Matrix& a, const Matrix& b) {
  REQUIRE(a.rows() == b.rows());
  REQUIRE(a.cols() == b.cols());
  return (a - b).allFinite() ? (a - b).cwiseAbs().maxCoeff() : INFINITY;
}

Question question(std::vector<Given> given, int steps, const Matrix& curvature) {
  // The best heavy ball for a quadratic (Polyak 1964).
  const Vector s = Eigen::SelfAdjointEigenSolver<Matrix>(curvature, Eigen::EigenvaluesOnly).eigenvalues();
  REQUIRE(s.minCoeff() > 0);
  const double low = std::sqrt(s.minCoeff()), high = std::sqrt(s.maxCoeff()), q = (high - low) / (high + low);
  Question asked{.count = 1, .given = std::move(given), .schedule = &find_schedule("pc")};
  asked.relax = {.steps = steps, .stepper = ValueSgd{.rate = std::pow(2 / (high + low), 2), .momentum = q * q}};
  return asked;
}

}  // namespace

TEST_CASE("O9: a part of a node clamped, everything else settles in the conditional mean, on 50 cyclic graphs") {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    CAPTURE(seed);
    const graphs::Description graph = random_cyclic(seed, 4);
    Network network(Graph(graph.nodes, graph.edges), test_exec(), DType::f64, 1, seed, kSmall);
    REQUIRE(!find_cycle(network.graph()).empty());
    const Affine affine(network);
    Dice dice(seed + 1000);
    std::vector<bool> held(index(affine.b.size()), false);
    for (std::size_t i = 0; i < 3; ++i) held[i] = true;  // the first node
    held[4] = held[11] = true;                           // entries of others
    const Values first = dice.normals(3), second = dice.normals(3), last = dice.normals(3);
    const auto u = indices(held, false), c = indices(held, true);
    const Matrix huu = affine.h()(u, u);
    const Answer answer = ask(network, question({{.node = 0, .values = first},
                                                 {.node = 1, .values = second, .known = {0, 1, 0}},
                                                 {.node = 3, .values = last, .known = {0, 0, 1}},
                                                 {.node = 2, .values = {9, 9, 9}, .clamped = false}},
                                                3000, huu));
    CHECK(answer.energy.size() == 3001);
    CHECK(answer.energies.size() == 1);
    CHECK(std::abs(answer.energies[0] - answer.energy.back()) < 1e-12);
    const Matrix inverse = affine.a().inverse();
    const Vector mean = inverse * affine.b;
    const Matrix covariance = inverse * affine.precision.cwiseInverse().asDiagonal() * inverse.transpose();
    Vector known(5);
    known << first[0], first[1], first[2], second[1], last[2];
    const Vector x = state(network);
    CHECK(distance(x(c), known) == 0);
    const Matrix cc = covariance(c, c);
    const Vector weighed = cc.llt().solve(known - mean(c));
    CHECK(distance(x(u), mean(u) + covariance(u, c) * weighed) < 1e-8);
    CHECK(std::abs(answer.energy.back() - 0.5 * (known - mean(c)).dot(weighed)) < 1e-9);
  }
}

TEST_CASE("a start is where values begin, and the first energy is that of the start") {
  const graphs::Description graph = random_cyclic(3, 3);
  Network network(Graph(graph.nodes, graph.edges), test_exec(), DType::f64, 1, 3, kSmall);
  const Affine affine(network);
  const Values start = {0.3, -1.2, 2};
  Question asked{.given = {{.node = 1, .values = start, .clamped = false}}, .schedule = &find_schedule("pc")};
  asked.relax = {.steps = 1, .stepper = ValueSgd{.rate = 0}, .init = {.kind = ValueInit::Kind::zeros}};
  const Answer answer = ask(network, asked);
  Vector x = Vector::Zero(9);
  x.segment(3, 3) = Eigen::Map<const Vector>(start.data(), 3);
  CHECK(distance(state(network), x) == 0);
  const Vector error = affine.a() * x - affine.b;
  CHECK(std::abs(answer.energy[0] - 0.5 * error.dot(affine.precision.asDiagonal() * error)) < 1e-12);
}

TEST_CASE("intervening is the do-operator: on linear graphs, the solution without the node's own equation") {
  int differ = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    CAPTURE(seed);
    const graphs::Description graph = random_cyclic(seed, 4);
    const std::vector<std::string> nodes = {"n1"};
    const graphs::Description done = graphs::intervene(graph, nodes);
    Network seen(Graph(graph.nodes, graph.edges), test_exec(), DType::f64, 1, seed, kSmall);
    Network network(Graph(done.nodes, done.edges), test_exec(), DType::f64, 1, seed, kSmall);
    const Affine affine(seen);
    for (ParamId p = 0; p < seen.graph().param_count(); ++p) {
      REQUIRE(seen.graph().param(p).name == network.graph().param(p).name);
      CHECK(same_bits(read(seen, seen.weight(p)), read(network, network.weight(p))));
    }
    std::vector<bool> held(12, false);
    held[3] = held[4] = held[5] = true;
    const auto u = indices(held, false), c = indices(held, true);
    Vector given(3);
    given << 1.5, -0.7, 0.4;
    // do(n1 = given): the other equations x = w x + b, and nothing else.
    const Matrix auu = affine.a()(u, u), wuc = affine.w(u, c);
    const Vector wanted = auu.partialPivLu().solve(Vector(wuc * given + affine.b(u)));
    const Values values = values_of(given);
    const Matrix cut = auu.transpose() * Vector(affine.precision(u)).asDiagonal() * auu;
    const Answer answer = ask(network, question({{.node = 1, .values = values}}, 3000, cut));
    CHECK(distance(state(network)(u), wanted) < 1e-8);
    CHECK(answer.energy.back() < 1e-14);  // every equation that is left holds
    ask(seen, question({{.node = 1, .values = values}}, 3000, affine.h()(u, u)));
    differ += distance(state(seen)(u), wanted) > 1e-2 ? 1 : 0;
  }
  CHECK(differ == 20);  // conditioning is something else
}

TEST_CASE("intervening spares no prior, and parameters keep their names") {
  std::vector<NodeSpec> nodes = {{.name = "a", .shape = {2}, .prior = true}, {.name = "b", .shape = {2}}};
  const std::vector<EdgeSpec> edges = {{.from = {"a"}, .to = "b", .chain = {linear()}}};
  const std::vector<std::string> cut = {"a"};
  for (const bool listed : {false, true}) {
    if (listed) nodes[0].predictions = {{"prior", {&gaussian, {0.5}}}};
    const graphs::Description done = graphs::intervene({nodes, edges}, cut);
    const Graph before(nodes, edges), after(done.nodes, done.edges);
    REQUIRE(before.param_count() == after.param_count());
    for (ParamId p = 0; p < before.param_count(); ++p) CHECK(before.param(p).name == after.param(p).name);
    for (const PredictionId p : after.node(0).predictions) CHECK(after.prediction(p).spec.precision[0] == 0);
  }
}

TEST_CASE("a node seen through noise is weighed by its precision") {
  // a is predicted as 0 with precision 1 (no bias, weights times 0); seen as y with precision p: a = p y / (1 + p).
  graphs::Description graph;
  graph.nodes = {{.name = "zero", .shape = {2}}, {.name = "a", .shape = {2}}};
  graph.edges = {{.from = {"zero"}, .to = "a", .chain = {linear(false)}}};
  const graphs::Description seen = graphs::observe(graph, "a", 3);
  Network network(Graph(seen.nodes, seen.edges), test_exec(), DType::f64, 1, 1, {});
  Question asked{.given = {{.node = 0, .values = {0, 0}}, {.node = 2, .values = {4, -8}}},
                 .schedule = &find_schedule("pc")};
  asked.relax = {.steps = 200, .stepper = ValueSgd{.rate = 0.2}};
  ask(network, asked);
  CHECK(worst_difference(read_value(network, "a", 1), {3, -6}) < 1e-12);
}

// --- O17 ---

TEST_CASE("O17: Langevin dynamics have the covariance T [H (I - rate H / 2)]^-1") {
  constexpr std::int64_t kSamples = 20000;
  const graphs::Description graph = random_cyclic(7, 2);
  Network network(Graph(graph.nodes, graph.edges), test_exec(), DType::f64, kSamples, 7, kSmall);
  const Affine affine(network);
  std::vector<bool> held(6, false);
  held[0] = true;  // one entry is clamped
  const auto u = indices(held, false), c = indices(held, true);
  const Matrix h = affine.h(), huu = h(u, u);
  const Vector curvature = Eigen::SelfAdjointEigenSolver<Matrix>(huu, Eigen::EigenvaluesOnly).eigenvalues();
  const double temperature = 0.7, rate = 1.2 / curvature.maxCoeff();  // large, so that the bias shows
  Values values, known;
  for (std::int64_t i = 0; i < kSamples; ++i) {
    for (const double v : {0.5, 0.0, 0.0}) values.push_back(v);
    for (const double k : {1.0, 0.0, 0.0}) known.push_back(k);
  }
  Question asked{
      .count = kSamples, .given = {{.node = 0, .values = values, .known = known}}, .schedule = &find_schedule("pc")};
  // The slowest direction forgets its start by (1 - rate low)^steps.
  const int steps = static_cast<int>(std::ceil(std::log(1e-4) / std::log(1 - rate * curvature.minCoeff())));
  CAPTURE(steps);
  REQUIRE(steps < 400);
  asked.relax = {.steps = steps, .stepper = ValueSgd{.rate = rate, .temperature = temperature}};
  ask(network, asked);
  Rows x(kSamples, 6);
  x << rows_of(read_value(network, NodeId{0}, kSamples), kSamples),
      rows_of(read_value(network, NodeId{1}, kSamples), kSamples);
  CHECK((x.col(0).array() == 0.5).all());
  const Matrix free = Matrix(x)(Eigen::all, u);
  const Vector pull = affine.a().transpose() * affine.precision.asDiagonal() * affine.b;
  const Vector half = Vector::Constant(1, 0.5);
  const Vector mean = huu.llt().solve(Vector(pull(u) - h(u, c) * half));
  const Eigen::Index n = static_cast<Eigen::Index>(u.size());
  const Matrix identity = Matrix::Identity(n, n);
  const Matrix wanted = temperature * (huu * (identity - 0.5 * rate * huu)).inverse();
  const Matrix off = free.rowwise() - mean.transpose();
  const Matrix covariance = off.transpose() * off / double(kSamples);
  const Matrix unbiased = temperature * huu.inverse();
  // Samples are independent: a covariance has deviation sqrt((s_ii s_jj + s_ij^2) / n), a mean sqrt(s_ii / n). The seed
  // is fixed, so the test cannot flicker; of its 20 numbers the largest is expected near 2.5 deviations.
  double worst = 0, worst_mean = 0, bias = 0;
  for (Eigen::Index i = 0; i < n; ++i) {
    worst_mean = std::max(worst_mean, std::abs(off.col(i).mean()) / std::sqrt(wanted(i, i) / double(kSamples)));
    for (Eigen::Index j = 0; j <= i; ++j) {
      const double deviation =
          std::sqrt((wanted(i, i) * wanted(j, j) + wanted(i, j) * wanted(i, j)) / double(kSamples));
      worst = std::max(worst, std::abs(covariance(i, j) - wanted(i, j)) / deviation);
      bias = std::max(bias, std::abs(covariance(i, j) - unbiased(i, j)) / deviation);
    }
  }
  CAPTURE(worst);
  CAPTURE(worst_mean);
  CHECK(std::isfinite(worst + worst_mean));
  CHECK(worst < 4);
  CHECK(worst_mean < 4);
  CHECK(bias > 20);  // the test could tell it from T H^-1
}

TEST_CASE("a temperature goes with plain gradient descent alone") {
  const Problem problem = clamped_mlp({3, 4, 2}, 2, 1);
  const auto refusal = [&](const char* schedule, ValueSgd sgd) {
    PlanSpec spec = plan_for(problem, 3);
    spec.schedule = &find_schedule(schedule);
    spec.relax.stepper = sgd;
    return error_of([&] { Run(problem, spec).step(); });
  };
  CHECK(contains(refusal("pc", {.rate = 0.1, .momentum = 0.5, .temperature = 1}), "without momentum"));
  CHECK(contains(refusal("pc", {.rate = 0.1, .automatic = true, .temperature = 1}), "rate of its own"));
  CHECK(contains(refusal("epc", {.rate = 0.1, .temperature = 1}), "no temperature"));
  CHECK(refusal("pc", {.rate = 0.1, .temperature = 1}).empty());
}

// --- O18, O19, O21 ---

TEST_CASE("O18: linear temporal predictive coding settles in the Kalman update with prior covariance Q") {
  Dice dice(18);
  const std::vector<NodeSpec> nodes = {{.name = "before", .shape = {4}},
                                       {.name = "input", .shape = {2}},
                                       {.name = "z", .shape = {4}, .energy = {&gaussian, {0.5, 1, 2, 1.5}}},
                                       {.name = "x", .shape = {3}, .energy = {&gaussian, {3, 1, 0.4}}}};
  const std::vector<EdgeSpec> edges = {{.from = {"before"}, .to = "z", .chain = {linear(false)}},
                                       {.from = {"input"}, .to = "z", .chain = {linear(false)}},
                                       {.from = {"z"}, .to = "x", .chain = {linear(false)}}};
  Network network(Graph(nodes, edges), test_exec(), DType::f64, 1, 3, {});
  const Matrix a = rows_of(read(network, network.weight(0)), 4), b = rows_of(read(network, network.weight(1)), 4),
               c = rows_of(read(network, network.weight(2)), 3);
  const Values before = dice.normals(4), input = dice.normals(2), seen = dice.normals(3);
  const auto vector = [](const Values& v) { return Vector(Eigen::Map<const Vector>(v.data(), length(v))); };
  const Vector precision_z = vector({0.5, 1, 2, 1.5}), precision_x = vector({3, 1, 0.4});
  const Matrix curvature = Matrix(precision_z.asDiagonal()) + c.transpose() * precision_x.asDiagonal() * c;
  ask(network, question({{.node = 0, .values = before}, {.node = 1, .values = input}, {.node = 3, .values = seen}}, 500,
                        curvature));
  const Vector predicted = a * vector(before) + b * vector(input);
  const Matrix q = precision_z.cwiseInverse().asDiagonal(), r = precision_x.cwiseInverse().asDiagonal();
  const Matrix gain = q * c.transpose() * (c * q * c.transpose() + r).inverse();
  const Vector wanted = predicted + gain * (vector(seen) - c * predicted);
  CHECK(distance(vector(read_value(network, "z", 1)), wanted) < 1e-12);
}

TEST_CASE("O19: implicit covariance learning rests at I - D^-1 P, and its predictions settle in conditional means") {
  constexpr std::int64_t kWidth = 5, kSamples = 40;
  Dice dice(19);
  Matrix data = rows_of(dice.normals(kSamples * kWidth), kSamples) * Matrix(rows_of(dice.normals(25), 5));
  data.rowwise() -= data.colwise().mean().eval();
  const Matrix covariance = data.transpose() * data / double(kSamples), p = covariance.inverse();
  const Matrix w = Matrix::Identity(kWidth, kWidth) - p.diagonal().cwiseInverse().asDiagonal() * p;
  EdgeSpec edge{.from = {"x"}, .to = "x", .chain = {linear(false)}};
  edge.mask = [](const Shape& shape) {
    std::vector<std::uint8_t> mask;
    for (std::int64_t i = 0; i < shape.count(); ++i) mask.push_back(i / shape[1] != i % shape[1]);
    return mask;
  };
  Problem problem;
  problem.nodes = {{.name = "x", .shape = {kWidth}}};
  problem.edges = {edge};
  problem.batch = kSamples;
  problem.clamp(0, values_of(data));
  PlanSpec spec = plan_for(problem, 1);
  spec.gradients = true;
  Run run(problem, spec);
  run.network.arena().write(run.network.weight(0), values_of(w));
  run.step();
  // dW = sum eps x^T = n (I - W) Sigma, which is diagonal here; the diagonal is masked.
  Matrix gradient = rows_of(read(run.network, run.network.gradient(0)), kWidth);
  const double size = double(kSamples) * covariance.cwiseAbs().maxCoeff();
  gradient.diagonal().setZero();
  CHECK(gradient.cwiseAbs().maxCoeff() / size < 1e-13);

  // Missing entries that follow their predictions: x <- mu until it stands.
  Network network(Graph(problem.nodes, problem.edges), test_exec(), DType::f64, 1, 1, {});
  network.arena().write(network.weight(0), values_of(w));
  const std::vector<bool> held = {true, false, true, false, true};
  const auto u = indices(held, false), c = indices(held, true);
  const Matrix wuu = w(u, u);
  REQUIRE(wuu.eigenvalues().cwiseAbs().maxCoeff() < 0.993);  // else so many sweeps would not settle
  const Values sample = values_of(data.row(3));
  Question asked{.given = {{.node = 0, .values = sample, .known = {1, 0, 1, 0, 1}}}, .schedule = &find_schedule("pc")};
  asked.relax = {.steps = 1, .stepper = ValueSgd{.rate = 0}, .init = {.sweeps = 5000}};
  ask(network, asked);
  const Vector x = state(network), row = data.row(3).transpose();
  const Matrix scc = covariance(c, c);
  const Vector conditional = covariance(u, c) * scc.llt().solve(Vector(row(c)));
  CHECK(distance(x(u), conditional) < 1e-10);

  // Missing entries that descend the energy settle in another state: its own direct solution.
  const Matrix a = Matrix::Identity(kWidth, kWidth) - w, h = a.transpose() * a, huu = h(u, u);
  Question implicit = question(asked.given, 12000, huu);
  ask(network, implicit);
  const Vector direct = huu.llt().solve(Vector(-h(u, c) * row(c)));
  CHECK(distance(state(network)(u), direct) < 1e-8);
  CHECK(distance(direct, conditional) > 1e-3);
}

TEST_CASE("O21: linear temporal predictive coding learns the normal equations, and replays from the first picture") {
  constexpr std::int64_t kWidth = 9, kLength = 6;
  Dice dice(21);
  const Matrix sequence = rows_of(dice.normals(kLength * kWidth), kLength);
  Problem problem;
  problem.nodes = {{.name = "previous", .shape = {kWidth}}, {.name = "next", .shape = {kWidth}}};
  problem.edges = {{.from = {"previous"}, .to = "next", .chain = {linear(false)}}};
  problem.batch = kLength - 1;
  const Matrix from = sequence.topRows(kLength - 1), to = sequence.bottomRows(kLength - 1);
  problem.clamp(0, values_of(from));
  problem.clamp(1, values_of(to));
  PlanSpec spec = plan_for(problem, 1);
  const Vector curvature =
      Eigen::SelfAdjointEigenSolver<Matrix>(Matrix(from * from.transpose()), Eigen::EigenvaluesOnly).eigenvalues();
  spec.learn = LearnSpec{WeightSgd{}, Rate{.base = double(kLength - 1) / curvature.maxCoeff()}, 0};
  Run run(problem, spec, DType::f64, 1, {.kind = WeightInit::Kind::zeros});
  const int updates = static_cast<int>(40 * curvature.maxCoeff() / curvature.minCoeff());
  REQUIRE(updates < 30000);
  for (int i = 0; i < updates; ++i) run.step();
  const Matrix learned = rows_of(read(run.network, run.network.weight(0)), kWidth);
  const Matrix closed = experiments::least_squares_transition(Rows(from), Rows(to));
  CHECK(distance(learned, closed) < 1e-9);
  // The normal equations themselves, apart from the solver: W X^T X = X_next^T X.
  CHECK(distance(closed * from.transpose() * from, to.transpose() * from) < 1e-11);
  Vector x = sequence.row(0).transpose();
  for (std::int64_t t = 1; t < kLength; ++t) {
    x = learned * x;
    CHECK(distance(x, sequence.row(t).transpose()) < 1e-8);
  }
}

TEST_CASE("Hopfield networks: stored patterns rest, damaged ones come back, and the next one follows") {
  constexpr std::int64_t kPatterns = 5, kWidth = 100;
  Dice dice(4);
  Rows signs(kPatterns, kWidth);
  for (std::int64_t i = 0; i < signs.size(); ++i) signs.data()[i] = dice.chance(0.5) ? 1 : -1;
  const Rows none;
  CHECK(experiments::hopfield_recall(signs, signs, none, 1) == signs);
  Rows damaged = signs;
  for (std::int64_t i = 0; i < kPatterns; ++i) damaged.row(i).head(15) *= -1;
  CHECK(experiments::hopfield_recall(signs, damaged, none, 20) == signs);
  // One sweep of the classical network against its definition.
  Matrix w = signs.transpose() * signs / double(kPatterns);
  w.diagonal().setZero();
  const Rows half = (Rows(kPatterns, kWidth) << damaged).finished();
  const Rows once = experiments::hopfield_recall(signs, half, none, 1), defined = half * w.transpose();
  CHECK(((once.array() > 0) == (defined.array() >= 0)).all());
  CHECK((experiments::modern_hopfield_recall(signs, damaged, none, 1.0, 5) - signs).cwiseAbs().maxCoeff() < 1e-6);
  Rows next(kPatterns, kWidth);
  next << signs.bottomRows(kPatterns - 1), signs.topRows(1);
  CHECK(experiments::asymmetric_hopfield_next(signs, next, signs) == next);
  CHECK((experiments::modern_asymmetric_next(signs, next, damaged, 1.0) - next).cwiseAbs().maxCoeff() < 1e-6);
}

// --- pictures ---

TEST_CASE("png: what is written is read, and a grid puts each picture in its place") {
  const Scratch scratch;
  experiments::Picture grey{2, 3, 1, {0, 50, 100, 150, 200, 255}};
  experiments::write_png(scratch / "grey.png", grey);
  CHECK(experiments::read_png(scratch / "grey.png", 1).bytes == grey.bytes);
  experiments::Picture colour{1, 2, 3, {255, 0, 0, 10, 20, 30}};
  experiments::write_png(scratch / "colour.png", colour);
  const experiments::Picture back = experiments::read_png(scratch / "colour.png", 3);
  CHECK(back.height == 1);
  CHECK(back.width == 2);
  CHECK(back.bytes == colour.bytes);
  const experiments::Picture all = experiments::grid({{grey, grey}, {grey}}, 2, 1);
  CHECK(all.height == 2 * (2 * 2 + 1) + 1);
  CHECK(all.width == 2 * (3 * 2 + 1) + 1);
  // Row 1, column 0 begins below the first row; its pixel (1, 2) is 255.
  const std::int64_t y = 1 + 5 + 2, x = 1 + 4;
  CHECK(all.bytes[index(y * all.width + x)] == 255);
  CHECK(all.bytes[index((y + 1) * all.width + x + 1)] == 255);
  std::ofstream(scratch / "no.png") << "this is no picture";
  CHECK(contains(error_of([&] { experiments::read_png(scratch / "no.png", 1); }), "no.png"));
  CHECK(contains(error_of([&] { experiments::write_png(scratch / "none" / "x.png", grey); }), "cannot write"));
}

// --- the program ---

TEST_CASE("pc query: one trained graph is asked everything") {
  const Scratch scratch;
  const fs::path config = scratch / "small.yaml", run = scratch / "run";
  std::ofstream(config) << "name: small\n"
                           "device: cpu\nthreads: 1\n"
                           "data: {set: glyphs, train: 600, test: 60, batch: 50}\n"
                           "graph:\n"
                           "  nodes:\n"
                           "    label:  {shape: [10]}\n"
                           "    hidden: {shape: [40]}\n"
                           "    image:  {shape: [784]}\n"
                           "  edges:\n"
                           "    - {from: label,  to: hidden, op: [linear, tanh]}\n"
                           "    - {from: hidden, to: image,  op: linear}\n"
                           "relax: {schedule: pc, steps: 8, optimizer: {sgd: {rate: 0.1}}}\n"
                           "learn: {epochs: 15, optimizer: {adam: {rate: 5.0e-3}}}\n";
  REQUIRE(run_program(scratch, {"run", config, "--out", run, "--quiet"}).status == 0);
  const Result no_text = run_program(scratch, {"write", run});
  CHECK(no_text.status == 2);
  CHECK(has(no_text.err, "has learned no text (task: next_token); pc query asks it"));
  using Json = nlohmann::json;
  const auto query = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"query", run.string()});
    arguments.emplace_back("--json");
    const Result result = run_program(scratch, arguments);
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
    const Json out = Json::parse(result.out);
    CHECK(fs::file_size(out["arrays"].get<std::string>()) > 0);
    CHECK(experiments::read_png(out["picture"].get<std::string>(), 1).bytes.size() > 0);
    return out;
  };
  {  // generate: classes look like their means
    const Json out = query({"generate", "--steps", "50", "--rate", "auto"});
    CHECK(out["measured"]["nearest_class_mean_is_the_label"].get<double>() > 0.8);
  }
  {  // complete: better than the mean image
    const Json out =
        query({"complete", "--with-label", "--keep", "top", "--steps", "300", "--rate", "auto", "--momentum", "0.9"});
    CHECK(out["energy"]["end"].get<double>() < out["energy"]["start"].get<double>());
    CHECK(out["measured"]["error"].get<double>() < out["measured"]["error_of_mean_image"].get<double>());
    // The error is seen along the steps, to the last one.
    const H5Reader file(out["arrays"].get<std::string>());
    const auto error = file.read<double>("steps/error", {50});
    CHECK(std::abs(error.front() - error.back()) > 1e-4);
    CHECK(error.back() == doctest::Approx(file.read_scalar<double>("measured/error")).epsilon(1e-6));
    // So are the question and what answered it, and each number says what it is.
    CHECK(file.read_text("command") == "pc query " + run.string() +
                                           " complete --with-label --keep top --steps 300 --rate auto --momentum 0.9 "
                                           "--json");
    CHECK(file.read_text("checkpoint") == (run / "best.h5").string());
    CHECK(file.description("measured/error") == "mean squared difference of an entry, in units of 0..1");
  }
  {  // denoise: better than what was shown
    const Json out = query(
        {"denoise", "--by", "precision", "--precision", "0.5", "--noise", "0.3", "--steps", "200", "--rate", "auto"});
    CHECK(out["measured"]["error"].get<double>() < 0.5 * out["measured"]["error_of_query"].get<double>());
  }
  {  // ask: clamp and intervene
    const Json out = query({"--clamp", "image=index:0-4", "--steps", "20"});
    CHECK(out["values"]["label"].size() == 5);
    CHECK(out["values"]["label"][0].size() == 10);
    const Json done = query({"--intervene", "hidden=value:0.1", "--steps", "20"});
    CHECK(done["task"] == "ask");
  }
  {  // and what hidden values settle at
    const fs::path arrays = scratch / "free.h5";
    query({"--clamp", "image=index:0-4", "--free", "hidden", "--free", "label", "--out", (scratch / "free").string()});
    const H5Reader file(arrays);
    const H5Dims dims = file.dims("values/hidden");
    CHECK(dims[0] == 5);
    CHECK(file.dims("values/label") == H5Dims{5, 10});
    const auto hidden = file.read<float>("values/hidden", dims);
    float largest = 0;
    for (const float value : hidden) largest = std::max(largest, std::abs(value));
    CHECK((largest > 1e-3F && largest < 1e3F));
    CHECK(hidden[0] != hidden[hidden.size() / 5]);  // each sample has its own
  }
  {  // sample: the noise moves, and the seed decides
    const std::vector<std::string> ask = {"sample", "--temperature", "0.001", "--rate", "0.02", "--count", "4"};
    CHECK(query(ask)["energy"] == query(ask)["energy"]);
    std::vector<std::string> other = ask;
    other.insert(other.end(), {"--seed", "3"});
    CHECK(query(other)["energy"] != query(ask)["energy"]);
  }
  {  // more pairs than settle at once
    const Result result = run_program(scratch, {"query", run, "interpolate", "--latent", "hidden", "--count", "520",
                                                "--steps", "1", "--set", "data.test=1040"});
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
    const H5Reader file(run / "query-interpolate.h5");
    CHECK(file.read<float>("pictures/pair 519", {11, 784}).size() == 11 * 784);
  }
  {  // files are named by the task in a folder; rows of one name are counted
    const Result result = run_program(
        scratch, {"query", run, "generate", "--count", "3", "--steps", "1", "--out", (scratch / "").string()});
    CHECK(has(result.out, (scratch / "query-generate.png").string() + "  (rows: answer x 3, class means)"));
  }
  {  // or as --out begins, to which the endings are added; .png may be there
    const Json out = query({"--clamp", "label=class:3", "--steps", "1", "--out", (scratch / "a.b.png").string()});
    CHECK(out["picture"] == (scratch / "a.b.png").string());
    CHECK(out["arrays"] == (scratch / "a.b.h5").string());
    CHECK(query({"--clamp", "label=class:3", "--steps", "1", "--out", (scratch / "a.b").string()})["picture"] ==
          (scratch / "a.b.png").string());
  }
  {  // nothing is replaced but earlier answers: no file of a run, also one that is not there yet, and nobody's own
    const auto refused = [&](const fs::path& out, const std::string& part) {
      const Result result = run_program(scratch, {"query", run, "--clamp", "label=class:3", "--out", out});
      CHECK(result.status == 2);
      CHECK(has(result.err, part));
    };
    const std::string best = read(run / "best.h5");
    refused(run / "best", "best.h5 is a file of the run itself; choose another name with --out");
    CHECK(read(run / "best.h5") == best);
    fs::remove(run / "run.h5");
    refused(run / "run", "run.h5 is a file of the run itself");
    fs::copy_file(run / "best.h5", scratch / "kept.h5");
    refused(scratch / "kept", "kept.h5 is there, and is no answer to an earlier question");
    std::ofstream(scratch / "photo.png") << "mine";
    refused(scratch / "photo", "photo.png is there");
    CHECK(read(scratch / "photo.png") == "mine");
    for (int time = 0; time < 2; ++time) query({"--clamp", "label=class:3", "--out", scratch / "mine"});
  }
  {  // what cannot be answered is said
    const auto fails = [&](std::vector<std::string> arguments, const std::string& part) {
      arguments.insert(arguments.begin(), {"query", run.string()});
      const Result result = run_program(scratch, arguments);
      CHECK(result.status == 2);
      CHECK(has(result.err, part));
    };
    fails({"complet"}, "did you mean \"complete\"");
    fails({}, "nothing is said");
    fails({"complete", "--keep", "middle"}, "there is no part \"middle\"");
    fails({"--clamp", "label=class:10"}, "there is no class 10");
    fails({"--clamp", "label=class:0-999999999999999"}, "there is no class 999999999999999; there are 10, from 0 on");
    fails({"--clamp", "lable=class:1"}, "--clamp: there is no node \"lable\"; did you mean \"label\"?");
    fails({"--intervene", "lable=class:1"}, "--intervene: there is no node \"lable\"; did you mean \"label\"?");
    fails({"interpolate", "--latent", "hiden"}, "--latent: there is no node \"hiden\"; did you mean \"hidden\"?");
    fails({"--clamp", "label"}, "--clamp: \"label\" should be NODE=WHAT");
    fails({"--clamp", "label=class:1", "--free", "label"}, "the node label is given and free; take out one of the two");
    fails({"--clamp", "label=class:1", "--free", "lable"}, "--free: there is no node \"lable\"");
    fails({"generate", "--free", "hidden"}, "does not heed --free");
    fails({"--clamp", "image=index:60"},
          "image=index:60: there is no index 60 of the part test; there are 60, from 0 on");
    fails({"--clamp", "image=value:1e300"}, "image=value:1e300 is too large for a run in float32");
    fails({"--clamp", "image=none.png"}, "none.png");
    fails({"replay"}, "task sequence");
    fails({"sample"}, "temperature");
    fails({"interpolate"}, "--latent");
    // So is what a task does not heed.
    fails({"recall", "--hide", "top"}, "the task recall does not heed --hide, which goes with complete");
    fails({"recall", "--hide", "top"}, "recall has --keep");
    fails({"generate", "--keep", "top"}, "--keep, which goes with complete, recall; take it out, or name a task");
    fails({"--clamp", "label=class:1", "--count", "3"}, "the task ask does not heed --count");
    fails({"interpolate", "--latent", "hidden", "--clamp", "label=class:1"}, "does not heed --clamp");
    fails({"generate", "--part", "train"}, "does not heed --part");
    fails({"generate", "--seed", "3"}, "draw nothing without --temperature");
    fails({"classify", "--by", "precision"}, "which goes with denoise");
    fails({"denoise", "--precision", "2"}, "add --by precision");
    fails({"complete", "--starts", "2"}, "which goes with recall");
    fails({"complet", "--starts", "2"}, "did you mean \"complete\"");
    fails({"complete", "--rate", "1000", "--steps", "100"}, "choose a smaller rate");
    fails({"classify", "--schedule", "zil"}, "--schedule cannot be \"zil\"; known: pc, epc");
    // Numbers are in range, and are numbers.
    fails({"classify", "--rate", "0"}, "--rate is auto or a number above 0, not 0");
    fails({"classify", "--rate", "-1"}, "--rate is auto or a number above 0, not -1");
    fails({"recall", "--threshold", "-1"}, "--threshold: it must be a number of at least 0");
    fails({"recall", "--threshold", "nan"}, "--threshold: it must be a number of at least 0");
    fails({"classify", "--momentum", "nan"}, "--momentum: it must be a number from 0 to 0.999999");
    fails({"complete", "--seed", "-1"}, "--seed: it must be a number from 0 to");
    fails({"sample", "--temperature", "0.01", "--momentum", "0.5"}, "write --momentum 0");
    // What the run has learned from stays as it was, and what a question does not heed is no part of it.
    for (const char* key :
         {"seed=2", "data.train=100", "data={limit: 20}", "data.normalize=centered", "data.validation=0.5"}) {
      fails({"recall", "--set", key}, "decides what the run has learned from; it cannot be changed afterwards");
      CHECK(has(run_program(scratch, {"eval", run, "--set", key}).err, "decides what the run has learned from"));
    }
    // What is written out and is so anyway is no change, nor is where the data lies.
    for (const char* key : {"data.limit=0", "data.normalize=unit", "data.root=."}) {
      CHECK(run_program(scratch, {"eval", run, "--set", key}).status == 0);
    }
    fails({"classify", "--out", "nowhere/answer"}, "there is no folder nowhere");
    fails({"classify", "--set", "learn.epochs=2"}, "learn.epochs has no effect here");
    fails({"classify", "--set", "relax={schedule: zil, steps: ~, optimizer: ~}"}, "values settle by pc");
    fails({"classify", "--set", "relax.schedule=epc"}, "epc with --schedule epc");
    fails({"classify", "--set", "evaluate.steps=9", "--set", "relax.steps=3"}, "write --steps N in its place");
    fails({"classify", "--steps", "9", "--set", "relax.steps=3"}, "take one of them out");
    fails({"classify", "--set", "task.classify.input=hidden"}, "the task's node hidden has shape [40], but an example");
    fails({"classify", "--set", "graph.nodes.hiden.precision=2"},
          "there is no node \"hiden\"; did you mean \"hidden\"?");
    fails({"--clamp", "label=class:-1"}, "class takes N or N-M, whole numbers from 0 on, not \"-1\"");
    fails({"--clamp", "image=index:1.5"}, "index takes N or N-M");
    for (const char* task : {"classify", "complete", "denoise", "recall"}) {
      fails({task, "--first", "10000000"}, "--first 10000000: the part has ");
    }
    fails({"recall", "--keep", "half", "--repeat", "3"}, "--repeat has no effect on --keep");
    CHECK(has(run_program(scratch, {"query", run, "recall", "--count", "2", "--repeat", "1"}).out,
              "parts settle in one go"));
    CHECK(query({"--task", "classify", "--count", "5"})["task"] == "classify");
    // Parts lie within the image, and are neither nothing nor all of it.
    fails({"complete", "--keep", "rectangle:7,7,40,40"}, "rectangle:7,7,40,40 is not within an image of 28 x 28");
    fails({"complete", "--hide", "rectangle:40,40,3,3"}, "is not within an image");
    fails({"complete", "--keep", "rectangle:-1,0,3,3"}, "is not within an image");
    fails({"complete", "--keep", "rectangle:0,0,0,3"}, "is not within an image");
    fails({"complete", "--keep", "rectangle:0.5,0,3,3"}, "whole numbers");
    fails({"complete", "--keep", "rectangle:0,0,28,28"}, "is all of them");
    fails({"complete", "--keep", "random:1.5"}, "a share between 0 and 1, not 1.5");
    fails({"complete", "--hide", "random:0"}, "a share between 0 and 1, not 0");
    query({"complete", "--hide", "rectangle:7,7,21,21", "--count", "2"});
    // A node is given once: by the task, which is the question, or by an option.
    fails({"classify", "--clamp", "image=value:0"}, "the task classify sets the node image itself; take out what");
    fails({"classify", "--intervene", "image=value:0"}, "sets the node image itself");
    fails({"complete", "--intervene", "image=value:0"}, "sets the node image itself");
    fails({"recall", "--intervene", "image=value:0"}, "sets the node image itself");
    fails({"classify", "--clamp", "label=class:1"}, "the task classify reads the node label, which must be free");
    fails({"generate", "--clamp", "label=class:3"}, "the task generate sets the node label itself");
    fails({"complete", "--start", "image=value:0"}, "the task complete sets the node image itself");
    fails({"complete", "--with-label", "--clamp", "label=class:3"}, "sets the node label itself");
    fails({"denoise", "--clamp", "image=value:0"}, "the task denoise sets the node image itself");
    fails({"denoise", "--by", "precision", "--clamp", "image=value:0"}, "reads the node image");
    fails({"recall", "--clamp", "image=value:0"}, "the task recall sets the node image itself");
    fails({"--clamp", "label=class:3", "--clamp", "label=class:4"}, "the node label is given twice");
    fails({"--clamp", "label=class:3", "--start", "label=class:4"}, "the node label is given twice");
    fails({"--start", "hidden=value:0", "--intervene", "hidden=value:1"}, "the node hidden is given twice");
    // Beside them the options hold: what says the label is not asked for it.
    CHECK(query({"complete"})["measured"].contains("label_accuracy"));
    CHECK(!query({"complete", "--clamp", "label=class:3"})["measured"].contains("label_accuracy"));
  }
}

TEST_CASE("pc query: where nothing predicts the image it is not asked for, and the label answers") {
  const Scratch scratch;
  const fs::path config = scratch / "one-way.yaml", run = scratch / "run";
  std::ofstream(config) << "name: one-way\ndevice: cpu\nthreads: 1\n"
                           "data: {set: glyphs, train: 200, test: 20, batch: 50}\n"
                           "graph: {mlp: {widths: [784, 16, 10]}}\n"
                           "relax: {schedule: zil}\nlearn: {epochs: 1}\nsave: {trace: false}\n";
  REQUIRE(run_program(scratch, {"run", config, "--out", run, "--quiet"}).status == 0);
  for (const std::vector<std::string>& task :
       {std::vector<std::string>{"complete"}, {"denoise"}, {"denoise", "--by", "precision"}, {"recall"}}) {
    std::vector<std::string> arguments = {"query", run.string()};
    arguments.insert(arguments.end(), task.begin(), task.end());
    const Result result = run_program(scratch, arguments);
    CHECK(result.status == 2);
    CHECK(has(result.err, "nothing predicts image, so that there is nothing to " + task[0] + " it by"));
    // The label may be what tells.
    if (task[0] != "recall") {
      arguments.insert(arguments.end(), {"--clamp", "label=class:3"});
      CHECK(run_program(scratch, arguments).status == 0);
    }
  }
  // A picture is made by what predicts it alone.
  for (const std::vector<std::string>& task : {std::vector<std::string>{"generate"},
                                               {"generate", "--clamp", "hidden1=value:0"},
                                               {"interpolate", "--latent", "hidden1"},
                                               {"sample", "--temperature", "0.01", "--rate", "0.01"}}) {
    std::vector<std::string> arguments = {"query", run.string()};
    arguments.insert(arguments.end(), task.begin(), task.end());
    const Result result = run_program(scratch, arguments);
    CHECK(result.status == 2);
    CHECK(has(result.err, "nothing predicts image, so that there is nothing to " + task[0] + " it by"));
    CHECK(has(result.err, "docs/one-graph.md"));
  }
  CHECK(!fs::exists(run / "query-generate.h5"));
  const Result result = run_program(scratch, {"query", run, "--clamp", "image=index:0-2", "--json"});
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  CHECK(nlohmann::json::parse(result.out)["values"]["label"].size() == 3);
}

TEST_CASE("pc query: samples are asked in chunks; where a rule ends one before the other, its energy stays") {
  const Scratch scratch;
  const fs::path config = scratch / "many.yaml", run = scratch / "run";
  std::ofstream(config) << "name: many\n"
                           "device: cpu\n"
                           "data: {set: glyphs, train: 1100, test: 20, validation: 0}\n"
                           "graph:\n"
                           "  nodes: {hidden: {shape: [12], prior: true}, image: {shape: [784]}}\n"
                           "  edges: [{from: hidden, to: image, op: linear}]\n"
                           "task: {reconstruct: {node: image}}\n"
                           "relax: {schedule: pc, steps: 8, optimizer: {sgd: {rate: 0.005}}}\n"
                           "learn: {epochs: 1}\n";
  REQUIRE(run_program(scratch, {"run", config, "--out", run, "--quiet"}).status == 0);
  const auto ask = [&](const std::string& which) {
    const Result result =
        run_program(scratch, {"query", run, "--clamp", "image=index:" + which, "--part", "train", "--steps", "2000",
                              "--set", "relax.stop={gradient: {tolerance: 1e-3}}", "--json"});
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
    const auto json = nlohmann::json::parse(result.out);
    return std::pair{json["energy"]["end"].get<double>(), json["steps"].get<int>()};
  };
  const auto [all, steps] = ask("0-1099");
  const auto [most, steps_of_most] = ask("0-1023");
  const auto [rest, steps_of_rest] = ask("1024-1099");
  CHECK(steps_of_most != steps_of_rest);
  CHECK(steps == std::max(steps_of_most, steps_of_rest));
  CHECK(all == doctest::Approx((1024 * most + 76 * rest) / 1100).epsilon(1e-6));
  // Bytes are pixels, as those of the data are; other numbers are the network's own.
  const auto start_of = [&](const fs::path& image) {
    const Result result = run_program(scratch, {"query", run, "--clamp", "image=" + image.string(), "--json"});
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
    return nlohmann::json::parse(result.out)["energy"]["start"].get<double>();
  };
  const auto write_npy = [&](const char* file, const char* type, const auto& values) {
    std::string header = std::string("{'descr': '") + type + "', 'fortran_order': False, 'shape': (1, 784), }";
    header.append(128 - 10 - header.size() - 1, ' ') += '\n';
    std::ofstream out(scratch / file, std::ios::binary);
    out << "\x93NUMPY\x01" << '\0' << char(118) << '\0' << header;
    out.write(reinterpret_cast<const char*>(values.data()), std::streamsize(values.size() * sizeof(values[0])));
  };
  write_npy("bytes.npy", "|u1", std::vector<std::uint8_t>(784, 51));
  write_npy("floats.npy", "<f4", std::vector<float>(784, 0.2F));
  CHECK(start_of(scratch / "bytes.npy") == doctest::Approx(start_of(scratch / "floats.npy")).epsilon(1e-6));
  // A rate at which the energy rises gives an answer, but not without a word.
  const auto warned = [&](const char* rate) {
    const Result result =
        run_program(scratch, {"query", run, "--clamp", "image=index:0", "--rate", rate, "--steps", "3"});
    return has(result.err, "the energy has risen");
  };
  CHECK(warned("2.5"));  // above 2 / (its prior's precision)
  CHECK(!warned("auto"));
}

TEST_CASE("pc query: a text is asked what follows, and nothing else") {
  const Scratch scratch;
  const fs::path config = scratch / "text.yaml", run = scratch / "run", text = scratch / "text.txt";
  {
    std::ofstream file(text);
    for (int line = 0; line < 60; ++line) file << "abcdefghijklmnopqrstuvwxyz\n";
  }
  std::ofstream(config) << "name: text\ndevice: cpu\nthreads: 1\n"
                        << "data: {set: text, file: " << text.string() << ", batch: 20, validation: 0.1}\n"
                        << "graph: {transformer: {context: 8, entries: 27, width: 16, heads: 2, layers: 1}}\n"
                           "task: {next_token: {sample: 30}}\nrelax: {schedule: zil}\n"
                           "learn: {epochs: 20, optimizer: {adam: {rate: 0.01}}}\nsave: {trace: false}\n";
  REQUIRE(run_program(scratch, {"run", config, "--out", run, "--quiet"}).status == 0);
  const Result few = run_program(scratch, {"run", config, "--out", scratch / "few", "--set",
                                           "graph={rnn: {shape: [8, 4], entries: 26, outputs: 27, sequence: true, "
                                           "output: softmax_cross_entropy, input: tokens, target: next}}"});
  CHECK(few.status == 2);
  CHECK(has(few.err, "an embedding of 26 entries, but text has 27 different characters"));
  for (const char* task :
       {"classify", "generate", "complete", "denoise", "recall", "replay", "interpolate", "sample"}) {
    CAPTURE(task);
    const Result result = run_program(scratch, {"query", run, task});
    CHECK(result.status == 2);
    CHECK(has(result.err, "makes no sense for a run that has learned a text"));
    CHECK(has(result.err, "--clamp tokens=index:0, where next answers"));
  }
  // Characters are numbered in the order of their bytes: the end of the line is 0, a is 1.
  const Result result = run_program(scratch, {"query", run, "--clamp", "tokens=value:3,4,5,6,7,8,9,10", "--json"});
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  const H5Reader file(nlohmann::json::parse(result.out)["arrays"].get<std::string>());
  const auto logits = file.read<float>("pictures/answer", {1, 8 * 27});
  CHECK(std::max_element(logits.end() - 27, logits.end()) - (logits.end() - 27) == 11);
  const auto texts = nlohmann::json::parse(result.out)["texts"];
  REQUIRE(texts.size() == 1);
  CHECK(texts[0]["given"] == "cdefghij");
  CHECK(texts[0]["next"].get<std::string>().ends_with("hijk"));  // of the first characters less is known
  // Numbers that name no character are the nearest one's, as the embedding takes them.
  for (const auto& [numbers, given] : std::vector<std::pair<std::string, std::string>>{
           {"value:1000000000", "zzzzzzzz"}, {"value:-1", "\n\n\n\n\n\n\n\n"}, {"value:3.6", "dddddddd"}}) {
    const Result strange = run_program(scratch, {"query", run, "--clamp", "tokens=" + numbers, "--json"});
    CAPTURE(strange.err);
    REQUIRE(strange.status == 0);
    CHECK(nlohmann::json::parse(strange.out)["texts"][0]["given"] == given);
  }
  const Result shown = run_program(scratch, {"query", run, "--clamp", "tokens=index:0-2"});
  CHECK(shown.status == 0);
  CHECK(has(shown.out, "  after  \""));
  CHECK(has(shown.out, "  comes  \""));
  CHECK(run_program(scratch, {"query", run, "--clamp", "next=class:3"}).status == 2);
  // No characters are found for others: where they are not clamped nothing is answered.
  for (const std::vector<std::string>& asked : std::vector<std::vector<std::string>>{
           {"--clamp", "next=index:0"}, {"--start", "tokens=index:0"}, {"--clamp", "x0=value:0"}}) {
    const Result refused = run_program(scratch, {"query", run, asked[0], asked[1]});
    CHECK(refused.status == 2);
    CHECK(has(refused.err, "the characters of tokens"));
    CHECK(has(refused.err, "add --clamp tokens=index:0"));
  }
  CHECK(run_program(scratch, {"query", run, "--clamp", "next=index:0", "--clamp", "tokens=index:0"}).status == 0);
  // What a finished run writes, and what follows a prompt: shorter than the context, as long, and longer.
  const auto written = [&](std::vector<std::string> more) {
    std::vector<std::string> args = {"write", run, "--json"};
    args.insert(args.end(), more.begin(), more.end());
    const Result wrote = run_program(scratch, args);
    CAPTURE(wrote.err);
    REQUIRE(wrote.status == 0);
    return nlohmann::json::parse(wrote.out)["text"].get<std::string>();
  };
  std::ifstream result_file(run / "result.json");
  CHECK(written({}) == nlohmann::json::parse(result_file)["sample"].get<std::string>());
  CHECK(written({"--seed", "1", "--temperature", "5"}) != written({"--seed", "2", "--temperature", "5"}));
  for (const char* prompt : {"bc", "vwxyz\nabc", "wxyz\nabc", "uvwxyz\nabc"}) {
    CAPTURE(prompt);
    for (const char* temperature : {"0.01", "0"}) {
      CHECK(written({"--prompt", prompt, "--count", "30", "--temperature", temperature}) ==
            "defghijklmnopqrstuvwxyz\nabcdef");
    }
  }
  const Result strange = run_program(scratch, {"write", run, "--prompt", "abC"});
  CHECK(strange.status == 2);
  CHECK(has(strange.err, "the prompt's character 3, C, is none that the run has learned; these are: \\n a b c"));
  // What cannot be printed is no success, and what has been written when a signal comes stands there.
  const fs::path out = scratch / "written", err = scratch / "said";
  CHECK(wait_for(start({"write", run}, "/dev/full", err)) == 1);
  CHECK(has(read(err), "cannot write to standard output"));
  const pid_t writer = start({"write", run, "--prompt", "abc", "--count", "100000000"}, out, err);
  const auto begun = [&] { return fs::exists(out) && fs::file_size(out) > 100; };
  for (int wait = 0; wait < 600 && !begun(); ++wait) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  kill(writer, SIGINT);
  CHECK(wait_for(writer) == 1);
  CHECK(read(err) == "\npc: stopped by a signal\n");
  CHECK(read(out).starts_with("abcdefg"));
  // The same characters as often, in another order, are another text.
  std::string reversed = read(text);
  std::reverse(reversed.begin(), reversed.end());
  std::ofstream(text, std::ios::binary) << reversed;
  for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{
           {"write", run}, {"eval", run}, {"query", run, "--clamp", "tokens=index:0"}}) {
    CAPTURE(command[0]);
    const Result refused = run_program(scratch, command);
    CHECK(refused.status == 2);
    CHECK(has(refused.err, "was learned from other training examples than its data set has now"));
  }
  // What is wrong whatever the data is, is said before it is looked for.
  fs::remove(text);
  const auto message = [&](const char* option, const char* value) {
    return run_program(scratch, {"query", run, "--clamp", "tokens=index:0", option, value}).err;
  };
  CHECK(has(message("--rate", "0.1"), text.string()));
  CHECK(has(message("--rate", "fast"), "\"fast\" is no number"));
  CHECK(has(message("--part", "tset"), "--part cannot be \"tset\"; did you mean \"test\"?"));
}

TEST_CASE("pc query: stored pictures and sequences come back") {
  const Scratch scratch;
  using Json = nlohmann::json;
  const auto train = [&](const std::string& text) {
    std::ofstream(scratch / "c.yaml") << text;
    const Result result =
        run_program(scratch, {"run", scratch / "c.yaml", "--out", scratch / "r", "--json", "--quiet"});
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
    return Json::parse(result.out);
  };
  const auto ask = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"query", (scratch / "r").string()});
    arguments.emplace_back("--json");
    const Result result = run_program(scratch, arguments);
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
    return Json::parse(result.out)["measured"];
  };
  SUBCASE("a memory") {
    const Json result = train(
        "name: memory\ndevice: cpu\nthreads: 1\ndata: {set: glyphs, train: 40, test: 20, limit: 8, batch: 8, repeat: "
        "20, "
        "validation: 0}\n"
        "graph:\n  nodes:\n    hidden: {shape: [32]}\n    image: {shape: [784]}\n"
        "  edges:\n    - {from: hidden, to: image, op: linear}\n"
        "task: {reconstruct: {node: image}}\n"
        "relax: {steps: 16, init: previous, optimizer: {sgd: {rate: auto}}}\n"
        "learn: {epochs: 15, optimizer: {adam: {rate: 3.0e-3}}, rate: {cosine: {}}, select: last}\n"
        "save: {trace: false}\n");
    CHECK(result["test"]["error"].get<double>() > 0);
    CHECK(!result["test"].contains("accuracy"));
    const Json measured =
        ask({"recall", "--keep", "half", "--steps", "2000", "--rate", "auto", "--momentum", "0.95", "--baselines"});
    CHECK(measured["half/recalled"].get<double>() >= 0.9);
    CHECK(measured["half/error"].get<double>() < 1e-3);
    CHECK(measured.contains("half/modern_hopfield/recalled"));
    const H5Reader file(scratch / "r" / "query-recall.h5");
    CHECK(file.description("measured/half/recalled") == "share of the samples, 0..1");
    CHECK(file.description("measured/half/modern_hopfield/beta") == "inverse temperature, of six the best");
    // The median of two is their mean.
    const Json two = ask({"recall", "--keep", "half", "--count", "2"});
    CHECK(two["half/median_error"].get<double>() == doctest::Approx(two["half/error"].get<double>()));
    // Of some random starts the one of least energy: never one that is further off in the part that is known.
    const std::vector<std::string> some = {
        "recall",  "--keep", "half", "--steps", "300", "--rate", "auto", "--set", "relax.init={normal: {sigma: 0.5}}",
        "--starts"};
    const auto from = [&](const char* starts) {
      std::vector<std::string> arguments = some;
      arguments.emplace_back(starts);
      return ask(arguments)["half/recalled"].get<double>();
    };
    CHECK(from("3") >= from("1"));
    const auto said = [&](const char* repeat) {
      return run_program(scratch,
                         {"query", scratch / "r", "recall", "--noise", "0.2", "--steps", "1", "--repeat", repeat})
          .out;
    };
    CHECK(has(said("3"), "\nshown 3 times, 3 steps in all, energy "));
    CHECK(has(said("1"), "\n1 step, energy "));
  }
  SUBCASE("an autoencoder: nothing has to settle, so there is no energy") {
    train(
        "name: autoencoder\ndevice: cpu\nthreads: 1\n"
        "data: {set: glyphs, train: 40, test: 20, limit: 8, batch: 8, validation: 0}\n"
        "graph:\n  nodes:\n    image: {shape: [784]}\n    hidden: {shape: [16]}\n    copy: {shape: [784]}\n"
        "  edges:\n    - {from: image, to: hidden, op: [linear, tanh]}\n    - {from: hidden, to: copy, op: linear}\n"
        "task: {reconstruct: {node: image, copy: copy}}\n"
        "relax: {schedule: backprop}\nlearn: {epochs: 1, select: last}\nsave: {trace: false}\n");
    const Result asked = run_program(scratch, {"query", scratch / "r", "recall", "--keep", "half", "--steps", "1"});
    CAPTURE(asked.err);
    CHECK(has(asked.out, "\nshown 30 times, 30 steps in all\n"));
    CHECK(!has(asked.out, "energy"));
  }
  SUBCASE("a sequence") {
    train(
        "name: sequence\ndevice: cpu\nthreads: 1\ndtype: float64\n"
        "data: {set: glyphs, train: 40, test: 20, limit: 6, batch: 6, repeat: 50, validation: 0}\n"
        "graph:\n  nodes:\n    previous: {shape: [784]}\n    next: {shape: [784]}\n"
        "  edges:\n    - {from: previous, to: next, op: {linear: {bias: false}}}\n"
        "task: {sequence: {from: previous, to: next}}\ninit: zeros\n"
        "relax: {steps: 1}\n"
        "learn: {epochs: 30, optimizer: {adam: {rate: 1.0e-3}}, rate: {cosine: {}}, select: last}\n"
        "save: {trace: false}\n");
    const Json measured = ask({"replay", "--baselines"});
    CHECK(measured["replay/recalled"].get<double>() == 1);
    CHECK(measured["least_squares/recalled"].get<double>() == 1);
    CHECK(measured["least_squares/error"].get<double>() < 1e-12);
    // What is asked of the picture is what comes next.
    const Result asked = run_program(scratch, {"query", scratch / "r", "--clamp", "previous=index:0-2"});
    CHECK(has(asked.out, "(rows: clamped, answer)"));
    CHECK(has(run_program(scratch, {"query", scratch / "r", "replay", "--part", "validation"}).err,
              "the run has held out no examples for validation"));
  }
}

}  // namespace pc::test

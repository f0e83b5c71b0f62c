// What the tests of the algorithm share: where they run, small and random networks, and the whole algorithm once more,
// written as plainly as possible (one number at a time, derivatives by dual numbers), to compare with.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <numbers>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/arithmetic.h"
#include "kernels/philox.h"
#include "pc/levels.h"
#include "pc/ops/ops.h"
#include "pc/plan.h"
#include "pc/trainer.h"
#include "tests/support.h"

namespace pc::test {

using Values = std::vector<double>;

inline std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }
template <class T>
std::int64_t length(const T& list) {
  return static_cast<std::int64_t>(list.size());
}

/// Where the tests run: the device that PC_TEST_DEVICE names, or the CPU.
inline Exec test_exec() {
  static const ExecContext context([] {
    const char* where = std::getenv("PC_TEST_DEVICE");
    return std::string(where == nullptr ? "cpu" : where);
  }());
  return context.exec();
}

/// The text of the Error that body throws; empty if it throws none.
template <class Body>
std::string error_of(Body&& body) {
  try {
    body();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// Numbers that are the same with every standard library.
class Dice {
 public:
  explicit Dice(std::uint64_t seed) : bits_(seed * 0x9E3779B97F4A7C15ULL + 1) {}
  double uniform(double low = 0, double high = 1) {
    return low + (high - low) * double(bits_() >> 11) / 9007199254740992.0;
  }
  int below(int n) { return static_cast<int>(uniform(0, n)); }
  bool chance(double p) { return uniform() < p; }
  double normal() { return philox::normal((double(bits_() >> 12) + 0.5) / 4503599627370496.0); }
  Values normals(std::int64_t n, double deviation = 1) {
    Values list(index(n));
    for (double& entry : list) entry = deviation * normal();
    return list;
  }
  template <class T>
  const T& pick(const std::vector<T>& list) {
    return list[index(below(static_cast<int>(list.size())))];
  }

 private:
  std::mt19937_64 bits_;
};

inline OpSpec op(std::string_view name, Attrs attrs = {}) { return {&find_op(name), std::move(attrs)}; }
inline OpSpec linear(bool bias = true) { return op("linear", {{"bias", bias ? 1.0 : 0.0}}); }

// --- problems: a graph, what is clamped, and to what ---

struct Problem {
  std::vector<NodeSpec> nodes;
  std::vector<EdgeSpec> edges;
  std::vector<Clamp> clamps;
  std::int64_t batch = 1;
  std::vector<Values> data;  // one for each node: what it is clamped to, [batch, n]; empty where it is free
  std::vector<Values> mask;  // one for each node: where that holds; empty where all of it, or none

  [[nodiscard]] Graph graph() const { return {nodes, edges}; }

  void clamp(NodeId v, Values values) {
    data.resize(nodes.size());
    mask.resize(nodes.size());
    data[index(v)] = std::move(values);
    clamps.push_back({v, false});
  }
  void clamp(NodeId v, Values values, Values where) {
    clamp(v, std::move(values));
    clamps.back().masked = true;
    mask[index(v)] = std::move(where);
  }
};

/// Rows [begin, begin + n) of a matrix of `rows` rows.
inline Values rows_of(const Values& all, std::int64_t rows, std::int64_t begin, std::int64_t n) {
  const std::int64_t cols = length(all) / rows;
  return {all.begin() + begin * cols, all.begin() + (begin + n) * cols};
}

/// Writes samples [begin, begin + n) of the problem's clamps into the network.
inline void load(Network& network, const Problem& problem, std::int64_t begin, std::int64_t n) {
  for (const Clamp& clamp : problem.clamps) {
    const auto part = [&](const Values& all) { return rows_of(all, problem.batch, begin, n); };
    const Values& data = problem.data[index(clamp.node)];
    network.arena().write(clamp.masked ? network.node_buffer("data", clamp.node, n) : network.value(clamp.node, n),
                          part(data));
    if (clamp.masked) {
      network.arena().write(network.node_buffer("clamped", clamp.node, n), part(problem.mask[index(clamp.node)]));
    }
  }
}
inline void load(Network& network, const Problem& problem) { load(network, problem, 0, problem.batch); }

inline Values read(Network& network, const View& view) { return network.arena().read(view); }
inline Values read_value(Network& network, NodeId v, std::int64_t batch) {
  return read(network, network.value(v, batch));
}
inline Values read_value(Network& network, const std::string& name, std::int64_t batch) {
  return read_value(network, network.graph().find(name), batch);
}

/// Everything that training leaves behind, by name: values, weights, gradients, optimiser state, energies.
inline std::vector<std::pair<std::string, Values>> state_of(Network& network, std::int64_t batch) {
  std::vector<std::pair<std::string, Values>> state;
  const Graph& graph = network.graph();
  for (NodeId v = 0; v < graph.node_count(); ++v) {
    state.emplace_back("x/" + graph.node(v).name, read_value(network, v, batch));
  }
  for (ParamId p = 0; p < graph.param_count(); ++p) {
    const std::string& name = graph.param(p).name;
    state.emplace_back("w/" + name, read(network, network.weight(p)));
    state.emplace_back("dw/" + name, read(network, network.gradient(p)));
    for (const char* kind : {"m", "v", "velocity"}) {
      if (network.arena().has(std::string(kind) + "/" + name)) {
        state.emplace_back(kind + ("/" + name), read(network, network.param_buffer(kind, p)));
      }
    }
  }
  for (PredictionId p = 0; p < graph.prediction_count(); ++p) {
    for (const std::string& name : {energy_start_name(graph, p), energy_end_name(graph, p)}) {
      state.emplace_back(name, read(network, network.scalar(name)));
    }
  }
  return state;
}

// --- networks by hand ---

/// A chain of nodes x0 -> x1 -> ... with these widths; `layer` gives the operators of each edge.
inline Problem chain(const std::vector<std::int64_t>& widths,
                     const std::function<std::vector<OpSpec>(std::size_t)>& layer) {
  Problem problem;
  for (std::size_t i = 0; i < widths.size(); ++i) {
    problem.nodes.push_back({.name = "x" + std::to_string(i), .shape = {widths[i]}});
    if (i == 0) continue;
    problem.edges.push_back({.from = {problem.nodes[i - 1].name}, .to = problem.nodes[i].name, .chain = layer(i)});
  }
  return problem;
}

/// A chain of linear layers with an activation (not after the last one), both ends clamped to noise.
inline Problem clamped_mlp(const std::vector<std::int64_t>& widths, std::int64_t batch, std::uint64_t seed,
                           const std::string& activation = "tanh") {
  Problem problem = chain(widths, [&](std::size_t i) {
    return i + 1 == widths.size() ? std::vector{linear()} : std::vector{linear(), op(activation)};
  });
  Dice dice(seed);
  problem.batch = batch;
  problem.clamp(0, dice.normals(batch * widths.front()));
  problem.clamp(static_cast<NodeId>(widths.size()) - 1, dice.normals(batch * widths.back()));
  return problem;
}

// --- training ---

/// A network in training, with everything that it needs alive.
struct Run {
  Problem problem;
  Network network;
  Trainer trainer;

  Run(const Problem& p, const PlanSpec& spec, DType dtype = DType::f64, int threads = 1, WeightInit init = {},
      Exec exec = test_exec())
      : problem(p), network(p.graph(), exec, dtype, p.batch, 5, init), trainer(network, spec, threads) {
    problem.data.resize(problem.nodes.size());
    problem.mask.resize(problem.nodes.size());
    load(network, problem);
  }
  Plan::Outcome step() { return trainer.step(problem.batch); }
};

/// By how much the same sums may differ: on the CPU not at all. On a GPU products that run side by side go to the
/// library together, and it adds up in another order than for one alone; training carries that on.
inline double rounding(DType dtype) {
  if (test_exec().device == Device::cpu) return 0;
  return dtype == DType::f64 ? 1e-11 : 1e-4;
}

/// The same numbers, reached in another way: relative errors, of buffers whose entries are `floor` at least.
inline void check_near_numbers(Run& run, Run& exact, double most, double floor = 1e-3) {
  const auto left = state_of(run.network, run.problem.batch), right = state_of(exact.network, exact.problem.batch);
  REQUIRE(left.size() == right.size());
  for (std::size_t i = 0; i < left.size(); ++i) {
    const std::string& name = left[i].first;
    CAPTURE(name);
    REQUIRE(name == right[i].first);
    CHECK(relative_error(left[i].second, right[i].second, floor) <= most);
  }
}

inline void check_same_numbers(Run& a, Run& b) { check_near_numbers(a, b, rounding(a.network.dtype()), 0.05); }

/// Relaxation from a feedforward start by plain gradient descent, and no learning.
inline PlanSpec plan_for(const Problem& problem, int steps, double rate = 0.1) {
  PlanSpec spec;
  spec.schedule = &find_schedule("pc");
  spec.clamps = problem.clamps;
  spec.batch = problem.batch;
  spec.regime = Regime::library;  // the other one has tests of its own
  spec.relax = {.steps = steps, .stepper = ValueSgd{rate, 0}};
  return spec;
}

// --- random networks ---

struct Wild {
  bool cycles = true;         // self-loops among them
  bool smooth = false;        // no activation with a kink
  bool backprop = false;      // what backprop can run: one prediction a node, no mask clamps
  bool energies = true;       // cross-entropy and Bernoulli on clamped nodes
  bool free_energies = true;  // and on free ones, where they do not count
  bool products = false;      // matmul, subtract, slice and linear's gain among the operators
};

/// A random graph of 3 to 7 nodes with some of everything that a graph can have.
class WildProblem {
 public:
  WildProblem(std::uint64_t seed, Wild wild) : dice_(seed), wild_(wild) {}

  Problem make() {
    p_.batch = 1 + dice_.below(4);
    const int n = 3 + dice_.below(5);
    for (int v = 0; v < n; ++v) add_node(v);
    const int edges = n + dice_.below(n);
    for (int e = 0; e < edges; ++e) add_edge();
    choose_clamps();
    return std::move(p_);
  }

 private:
  int count() const { return static_cast<int>(p_.nodes.size()); }

  EnergySpec gaussian_energy(std::int64_t n) {
    EnergySpec spec;
    const int kind = dice_.below(3);
    if (kind == 1) spec.precision = {dice_.uniform(0.3, 2)};
    if (kind == 2) {
      spec.precision.clear();
      for (std::int64_t i = 0; i < n; ++i) spec.precision.push_back(dice_.uniform(0, 2));
    }
    return spec;
  }

  void add_node(int v) {
    const std::vector<Shape> shapes = {{1}, {2}, {3}, {5}, {6}, {2, 3}, {2, 3}, {3}};
    NodeSpec node{.name = "n" + std::to_string(v), .shape = dice_.pick(shapes)};
    node.energy = gaussian_energy(node.shape.count());
    if (!wild_.backprop) {
      node.prior = dice_.chance(0.2);
      if (dice_.chance(0.25)) node.predictions.emplace_back("side", gaussian_energy(node.shape.count()));
    }
    p_.nodes.push_back(node);
  }

  OpSpec activation() {
    static const std::vector<std::string> smooth = {"gelu", "gelu_tanh", "silu", "tanh", "sigmoid", "softplus"};
    static const std::vector<std::string> all = {"gelu",     "gelu_tanh", "silu",       "tanh",     "sigmoid",
                                                 "softplus", "relu",      "leaky_relu", "hard_tanh"};
    const std::string name = dice_.pick(wild_.smooth ? smooth : all);
    return op(name, name == "leaky_relu" && dice_.chance(0.5) ? Attrs{{"slope", 0.2}} : Attrs{});
  }

  /// A source for an edge into `to`: an earlier node, or any (itself too) where cycles are allowed.
  int source(int to) { return wild_.cycles ? dice_.below(count()) : dice_.below(to); }

  void add_edge() {
    const int to = wild_.cycles ? dice_.below(count()) : 1 + dice_.below(count() - 1);
    const NodeSpec& target = p_.nodes[index(to)];
    EdgeSpec edge{.to = target.name};
    const int a = source(to), b = source(to);
    const Shape sa = p_.nodes[index(a)].shape, sb = p_.nodes[index(b)].shape;
    edge.from = {p_.nodes[index(a)].name};
    const auto two = [&](const char* first) {
      edge.from.push_back(p_.nodes[index(b)].name);
      edge.chain = {op(first)};
      if (dice_.chance(0.5)) edge.chain.push_back(activation());
    };
    switch (dice_.below(wild_.products ? 13 : 9)) {
      case 0:
        edge.chain = {linear()};
        break;
      case 1:
        edge.chain = {linear(dice_.chance(0.5)), activation()};
        break;
      case 2:
        edge.chain = {activation(), linear()};
        break;
      case 3:
        edge.chain = {op("linear", {{"units", 4}}), activation(), linear()};
        break;
      case 4:
        edge.chain = {linear(), op("scale", {{"by", 0.7}}), activation()};
        break;
      case 5:
        edge.chain = {op("linear", {{"units", double(target.shape.count())}, {"bias", 0}}), op("softmax")};
        break;
      case 6:
        two("concat");
        edge.chain.push_back(linear());
        break;
      case 7:
        if (sa == sb) {
          two(dice_.chance(0.5) ? "multiply" : "add");
          if (!(sa == target.shape) || dice_.chance(0.5)) edge.chain.push_back(linear());
        } else {
          edge.chain = {linear(), activation()};
        }
        break;
      case 9:
        matmul(edge, sa, p_.nodes[index(b)].name, sb, target.shape);
        break;
      case 10:
        if (sa == sb) two("subtract");
        edge.chain.push_back(linear());
        break;
      case 11:
        edge.chain = {linear()};
        if (const std::int64_t spare = sa.count() - target.shape.count(); spare >= 0) {
          edge.chain = {op("slice", {{"begin", dice_.below(int(spare) + 1)}}), activation()};
        }
        break;
      case 12:
        edge.chain = {op("linear", {{"gain", dice_.uniform(-1, 1)}}), activation()};
        break;
      default:
        edge.chain = sa == target.shape ? std::vector{dice_.chance(0.5) ? op("identity") : op("scale", {{"by", -0.6}})}
                                        : std::vector{linear()};
    }
    const bool weights = std::any_of(edge.chain.begin(), edge.chain.end(),
                                     [](const OpSpec& spec) { return spec.op->params != nullptr; });
    if (weights && dice_.chance(0.2)) {
      edge.mask = [seed = dice_.below(1000)](const Shape& shape) {
        Dice dice(static_cast<std::uint64_t>(seed));
        std::vector<std::uint8_t> mask(index(shape.count()));
        for (auto& entry : mask) entry = dice.chance(0.6) ? 1 : 0;
        return mask;
      };
    }
    if (!wild_.backprop) {
      if (!target.predictions.empty() && dice_.chance(0.4)) edge.prediction = "side";
      if (dice_.chance(0.1)) edge.prediction = "unlisted";
    }
    p_.edges.push_back(edge);
    if (weights && dice_.chance(0.2)) share(edge, to);
  }

  /// A product with b if there is one, in whichever way the shapes allow.
  void matmul(EdgeSpec& edge, const Shape& sa, const std::string& b, const Shape& sb, const Shape& target) {
    edge.chain = {linear()};
    const int first = dice_.below(4);
    for (int i = 0; i < 4; ++i) {
      const double ta = (first + i) % 2, tb = (first + i) / 2 % 2;
      const OpSpec product = op("matmul", {{"trans_a", ta}, {"trans_b", tb}, {"by", 0.5}});
      const Attrs attrs = complete_attrs(*product.op, product.attrs);
      const std::vector<Shape> shapes = {sa, sb};
      Shape out;
      if (!error_of([&] { out = product.op->infer({shapes, attrs, {}}); }).empty()) continue;
      edge.from.push_back(b);
      edge.chain.insert(edge.chain.begin(), product);
      if (out.count() == target.count() && dice_.chance(0.7)) edge.chain.back() = activation();
      return;
    }
  }

  /// Another edge with the same parameters, from the same place to a node of the same shape.
  void share(const EdgeSpec& edge, int to) {
    EdgeSpec twin = edge;
    twin.mask = nullptr;
    for (int v = wild_.cycles ? 0 : to; v < count(); ++v) {
      if (v == to || !(p_.nodes[index(v)].shape == p_.nodes[index(to)].shape)) continue;
      twin.to = p_.nodes[index(v)].name;
      if (twin.prediction == "side" && p_.nodes[index(v)].predictions.empty()) twin.prediction.clear();
      p_.edges.back().share = twin.share = "tied" + std::to_string(p_.edges.size());
      p_.edges.push_back(twin);
      return;
    }
  }

  void choose_clamps() {
    for (int v = 0; v < count(); ++v) {
      const std::int64_t n = p_.nodes[index(v)].shape.count();
      const bool ends = v == 0 || v + 1 == count();
      const Energy* energy =
          wild_.energies && dice_.chance(0.3) ? (dice_.chance(0.5) ? &softmax_cross_entropy : &bernoulli) : nullptr;
      if (dice_.chance(ends ? 0.9 : 0.2)) {
        Values values = dice_.normals(p_.batch * n);
        if (energy != nullptr) {
          p_.nodes[index(v)].energy = {energy, {dice_.uniform(0.3, 2)}};
          for (double& entry : values) entry = dice_.uniform(0.05, 0.9);
        }
        p_.clamp(v, values);
      } else if (!wild_.backprop && dice_.chance(0.25)) {
        Values values = dice_.normals(p_.batch * n), where(values.size());
        for (double& entry : where) entry = dice_.chance(0.5) ? 1 : 0;
        p_.clamp(v, values, where);
      } else if (energy != nullptr && wild_.free_energies && dice_.chance(0.5)) {
        p_.nodes[index(v)].energy = {energy, {1}};
      }
    }
    p_.data.resize(p_.nodes.size());
    p_.mask.resize(p_.nodes.size());
  }

  Dice dice_;
  Wild wild_;
  Problem p_;
};

inline Problem wild_problem(std::uint64_t seed, Wild wild = {}) { return WildProblem(seed, wild).make(); }

/// Random choices of everything else that a plan can be told.
inline PlanSpec wild_plan(std::uint64_t seed, const Problem& problem) {
  Dice dice(seed + 77);
  PlanSpec spec;
  spec.schedule = &find_schedule(dice.chance(0.5) ? "pc" : "ipc");
  spec.clamps = problem.clamps;
  spec.batch = problem.batch;
  spec.regime = Regime::library;
  spec.gradients = true;
  spec.relax.steps = 1 + dice.below(6);
  const double momentum = dice.pick(std::vector<double>{0, 0.6});
  spec.relax.stepper = ValueSgd{0.05, momentum};
  if (dice.chance(0.3)) spec.relax.stepper = ValueAdam{.rate = 0.02, .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3};
  using Kind = ValueInit::Kind;
  spec.relax.init = {.kind = dice.pick(std::vector{Kind::feedforward, Kind::feedforward, Kind::feedforward, Kind::zeros,
                                                   Kind::normal, Kind::previous}),
                     .sigma = 0.3,
                     .sweeps = dice.below(4)};
  LearnSpec learn;
  const int optimizer = dice.below(4);
  if (optimizer == 0) learn.optimizer = WeightSgd{};
  if (optimizer == 1) learn.optimizer = WeightSgd{.momentum = 0.7, .weight_decay = 0.1};
  if (optimizer >= 2) {
    learn.optimizer =
        WeightAdam{.beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3, .weight_decay = 0.1, .decoupled = optimizer == 3};
  }
  learn.rate = {.kind = dice.pick(std::vector{kernels::RateKind::constant, kernels::RateKind::cosine,
                                              kernels::RateKind::warmup_cosine}),
                .base = 0.02,
                .floor = 0.005,
                .warmup = 2,
                .total = 7};
  if (dice.chance(0.5)) learn.clip_norm = 0.05;
  if (dice.chance(0.9)) spec.learn = learn;
  return spec;
}

// --- the reference: dual numbers ---

/// A number and its derivative with respect to whatever was seeded with 1.
struct Dual {
  double v = 0, d = 0;
  Dual() = default;
  Dual(double value, double slope = 0) : v(value), d(slope) {}  // NOLINT(google-explicit-constructor)
};
inline Dual operator+(Dual a, Dual b) { return {a.v + b.v, a.d + b.d}; }
inline Dual operator-(Dual a, Dual b) { return {a.v - b.v, a.d - b.d}; }
inline Dual operator*(Dual a, Dual b) { return {a.v * b.v, a.d * b.v + a.v * b.d}; }
inline Dual operator/(Dual a, Dual b) { return {a.v / b.v, (a.d * b.v - a.v * b.d) / (b.v * b.v)}; }
inline Dual exp(Dual a) { return {std::exp(a.v), std::exp(a.v) * a.d}; }
inline Dual log(Dual a) { return {std::log(a.v), a.d / a.v}; }
inline Dual tanh(Dual a) { return {std::tanh(a.v), (1 - std::tanh(a.v) * std::tanh(a.v)) * a.d}; }
inline Dual erf(Dual a) { return {std::erf(a.v), 2 / std::sqrt(std::numbers::pi) * std::exp(-a.v * a.v) * a.d}; }
inline double plain(double a) { return a; }
inline double plain(Dual a) { return a.v; }

template <class S>
using Numbers = std::vector<S>;

template <class S>
S naive_activation(std::string_view name, S z, double slope) {
  using std::erf, std::exp, std::log, std::tanh;
  const double at = plain(z);
  const auto sigmoid = [](S a) { return S(1.0) / (S(1.0) + exp(S(0.0) - a)); };
  if (name == "relu") return at > 0 ? z : S(0.0);
  if (name == "leaky_relu") return at > 0 ? z : S(slope) * z;
  if (name == "hard_tanh") return at <= -1 ? S(-1.0) : at <= 1 ? z : S(1.0);
  if (name == "gelu") return S(0.5) * z * (S(1.0) + erf(z / S(std::numbers::sqrt2)));
  if (name == "gelu_tanh") {
    return S(0.5) * z * (S(1.0) + tanh(S(std::sqrt(2 / std::numbers::pi)) * (z + S(0.044715) * z * z * z)));
  }
  if (name == "silu") return z * sigmoid(z);
  if (name == "tanh") return tanh(z);
  if (name == "sigmoid") return sigmoid(z);
  if (name == "softplus") return log(S(1.0) + exp(z));
  fail("reference", "no operator ", name);
}

/// Operators on images [height, width, channels], entry by entry, and normalisations. False: it is none of these.
template <class S>
bool naive_image_op(const Link& link, const std::vector<const Numbers<S>*>& x, const std::vector<Numbers<S>>& w,
                    const std::vector<Shape>& shapes, Numbers<S>& out) {
  const std::string_view name = link.op->name;
  const auto attr = [&](std::string_view key, std::int64_t fallback) {
    const auto found = link.attrs.find(key);
    return found == link.attrs.end() ? fallback : std::llround(found->second);
  };
  if (name.ends_with("_norm")) {
    std::int64_t width = 1;
    for (int i = 1; i <= attr("axes", 1); ++i) width *= shapes[0][shapes[0].rank() - i];
    for (std::int64_t i = 0; i < length(out); ++i) {
      const std::int64_t run = i / width * width;
      S mean(0.0), square(0.0);
      for (std::int64_t j = run; j < run + width; ++j) mean = mean + (*x[0])[index(j)] / S(double(width));
      if (name == "rms_norm") mean = S(0.0);
      for (std::int64_t j = run; j < run + width; ++j) {
        const S off = (*x[0])[index(j)] - mean;
        square = square + off * off / S(double(width));
      }
      using std::exp, std::log;
      S& entry = out[index(i)];
      entry = ((*x[0])[index(i)] - mean) * exp(S(-0.5) * log(square + S(link.attrs.at("epsilon"))));
      if (!link.params.empty()) entry = w[index(link.params[0])][index(i - run)] * entry;
      if (link.params.size() > 1) entry = entry + w[index(link.params[1])][index(i - run)];
    }
    return true;
  }
  if (name == "flatten" || name == "reshape") {
    out = *x[0];
    return true;
  }
  static const std::vector<std::string_view> kOthers = {"conv2d",     "conv_transpose2d", "max_pool2d",
                                                        "avg_pool2d", "global_avg_pool",  "upsample",
                                                        "pad",        "channels_last",    "channels_first"};
  if (std::find(kOthers.begin(), kOthers.end(), name) == kOthers.end()) return false;
  const Shape& in = shapes[0];
  const auto source = [&](std::int64_t row, std::int64_t col, std::int64_t channel) {
    return (*x[0])[index((row * in[1] + col) * in[2] + channel)];
  };
  if (name == "global_avg_pool") {
    for (std::int64_t i = 0; i < in.count(); ++i) {
      S& entry = out[index(i % in[2])];
      entry = entry + (*x[0])[index(i)] / S(double(in[0] * in[1]));
    }
    return true;
  }
  const Shape& to = link.out;
  const std::int64_t kernel = attr("kernel", 1), dilation = attr("dilation", 1), groups = attr("groups", 1);
  const std::int64_t stride = attr("stride", 1) == 0 ? kernel : attr("stride", 1), padding = attr("padding", 0);
  const bool conv = name == "conv2d", transposed = name == "conv_transpose2d";
  for (std::int64_t i = 0; i < to[0]; ++i) {
    for (std::int64_t j = 0; j < to[1]; ++j) {
      for (std::int64_t c = 0; c < to[2]; ++c) {
        S& entry = out[index((i * to[1] + j) * to[2] + c)];
        if (name == "upsample") entry = source(i / attr("by", 2), j / attr("by", 2), c);
        if (name == "channels_last") entry = source(c, i, j);
        if (name == "channels_first") entry = source(j, c, i);
        const std::int64_t by = attr("by", 1), up = i - by, left = j - by;
        if (name == "pad" && up >= 0 && left >= 0 && up < in[0] && left < in[1]) entry = source(up, left, c);
        if (kernel == 0 || !(conv || transposed || name.ends_with("pool2d"))) continue;
        bool first = true;
        for (std::int64_t ky = 0; ky < kernel; ++ky) {
          for (std::int64_t kx = 0; kx < kernel; ++kx) {
            if (transposed) {
              const std::int64_t y = i + padding - ky * dilation, z = j + padding - kx * dilation;
              if (y < 0 || z < 0 || y % stride != 0 || z % stride != 0 || y / stride >= in[0] || z / stride >= in[1])
                continue;
              const std::int64_t own = to[2] / groups, theirs = in[2] / groups;  // channels of a group
              for (std::int64_t a = c / own * theirs; a < (c / own + 1) * theirs; ++a) {
                const S& weight = w[index(link.params[0])][index(((a * kernel + ky) * kernel + kx) * own + c % own)];
                entry = entry + weight * source(y / stride, z / stride, a);
              }
              continue;
            }
            const std::int64_t y = i * stride - padding + ky * dilation, z = j * stride - padding + kx * dilation;
            if (y < 0 || z < 0 || y >= in[0] || z >= in[1]) continue;
            if (conv) {
              const std::int64_t own = to[2] / groups, theirs = in[2] / groups;
              for (std::int64_t a = 0; a < theirs; ++a) {
                const S& weight = w[index(link.params[0])][index(((c * kernel + ky) * kernel + kx) * theirs + a)];
                entry = entry + weight * source(y, z, c / own * theirs + a);
              }
            } else if (name == "avg_pool2d") {
              entry = entry + source(y, z, c) / S(double(kernel * kernel));
            } else if (first || plain(source(y, z, c)) > plain(entry)) {
              entry = source(y, z, c);
              first = false;
            }
          }
        }
        if (link.params.size() > 1) entry = entry + w[index(link.params[1])][index(c)];
      }
    }
  }
  return true;
}

inline std::size_t last_of(const Shape& shape) { return index(shape[shape.rank() - 1]); }

/// One operator on one sample; `shapes` are those of its sources.
template <class S>
Numbers<S> naive_op(const Link& link, const std::vector<const Numbers<S>*>& x, const std::vector<Numbers<S>>& w,
                    const std::vector<Shape>& shapes) {
  using std::exp;
  const std::string_view name = link.op->name;
  Numbers<S> out(index(link.out.count()), S(0.0));
  const auto attr = [&](const char* key) { return index(std::llround(link.attrs.at(key))); };
  if (naive_image_op(link, x, w, shapes, out)) return out;
  if (name == "linear" && link.attrs.at("last_axis") != 0) {
    const std::size_t in = last_of(shapes[0]), units = last_of(link.out);
    for (std::size_t i = 0; i < out.size(); ++i) {
      for (std::size_t j = 0; j < in; ++j) {
        out[i] = out[i] + w[index(link.params[0])][i % units * in + j] * (*x[0])[i / units * in + j];
      }
      out[i] = S(link.attrs.at("gain")) * out[i];
      if (link.params.size() > 1) out[i] = out[i] + w[index(link.params[1])][i % units];
    }
  } else if (name == "linear") {
    const Numbers<S>&in = *x[0], &weight = w[index(link.params[0])];
    for (std::size_t i = 0; i < out.size(); ++i) {
      for (std::size_t j = 0; j < in.size(); ++j) out[i] = out[i] + weight[i * in.size() + j] * in[j];
      out[i] = S(link.attrs.at("gain")) * out[i];
      if (link.params.size() > 1) out[i] = out[i] + w[index(link.params[1])][i];
    }
  } else if (name == "sparse_linear") {
    const Pattern& pattern = *link.pattern;
    for (std::size_t i = 0; i < out.size(); ++i) {
      for (std::size_t k = index(pattern.offsets[i]); k < index(pattern.offsets[i + 1]); ++k) {
        out[i] = out[i] + w[index(link.params[0])][k] * (*x[0])[index(pattern.columns[k])];
      }
      out[i] = S(link.attrs.at("gain")) * out[i];
      if (link.params.size() > 1) out[i] = out[i] + w[index(link.params[1])][i];
    }
  } else if (name == "matmul") {
    const Numbers<S>&a = *x[0], &b = *x[1];
    const bool ta = link.attrs.at("trans_a") != 0, tb = link.attrs.at("trans_b") != 0;
    const std::size_t depth = shapes[0].rank() == 3 ? index(shapes[0][0]) : 1;
    // From sizes mk, kn and mn follow m^2 = mk mn / kn, and so on.
    const double mk = double(a.size() / depth), kn = double(b.size() / depth), mn = double(out.size() / depth);
    const std::size_t m = index(std::llround(std::sqrt(mk * mn / kn)));
    const std::size_t k = a.size() / depth / m, n = b.size() / depth / k;
    for (std::size_t e = 0; e < out.size(); ++e) {
      const std::size_t d = e / (m * n), i = e / n % m, j = e % n;
      for (std::size_t l = 0; l < k; ++l) {
        out[e] = out[e] + a[d * m * k + (ta ? l * m + i : i * k + l)] * b[d * k * n + (tb ? j * k + l : l * n + j)];
      }
      out[e] = S(link.attrs.at("by")) * out[e];
    }
  } else if ((name == "slice" || name == "concat") && link.attrs.at("axis") >= 0) {
    // Places of the longer side, in the order of the shorter one.
    const bool cut = name == "slice";
    const int axis = static_cast<int>(attr("axis"));
    std::size_t inner = 1, begin = cut ? attr("begin") : 0;
    for (int i = axis + 1; i < link.out.rank(); ++i) inner *= index(link.out[i]);
    const std::size_t all = index((cut ? shapes[0] : link.out)[axis]);
    for (std::size_t source = 0; source < x.size(); ++source) {
      const std::size_t part = index((cut ? link.out : shapes[source])[axis]);
      const std::size_t count = cut ? out.size() : x[source]->size();
      for (std::size_t i = 0; i < count; ++i) {
        const std::size_t at = (i / (part * inner) * all + begin + i / inner % part) * inner + i % inner;
        (cut ? out[i] : out[at]) = cut ? (*x[0])[at] : (*x[source])[i];
      }
      begin += part;
    }
  } else if (name == "slice") {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = (*x[0])[attr("begin") + i];
  } else if (name == "permute") {
    const int rank = link.out.rank();
    std::string digits = std::to_string(attr("order"));
    digits.insert(0, index(rank) - digits.size(), '0');
    for (std::size_t i = 0; i < out.size(); ++i) {
      std::vector<std::size_t> place(index(rank));
      std::size_t rest = i, at = 0;
      for (int k = rank - 1; k >= 0; --k) {
        place[index(digits[index(k)] - '0')] = rest % index(link.out[k]);
        rest /= index(link.out[k]);
      }
      for (int k = 0; k < rank; ++k) at = at * index(shapes[0][k]) + place[index(k)];
      out[i] = (*x[0])[at];
    }
  } else if (name == "gather") {
    const std::vector<double> fixed = list_of(link.attrs, "places");
    const int axis = static_cast<int>(link.attrs.at("axis"));
    std::size_t inner = 1;
    for (int i = axis + 1; i < shapes[0].rank() && axis >= 0; ++i) inner *= index(shapes[0][i]);
    const std::size_t n = axis < 0 ? x[0]->size() : index(shapes[0][axis]),
                      k = fixed.empty() ? x[1]->size() : fixed.size();
    for (std::size_t i = 0; i < out.size(); ++i) {
      const std::size_t j = i / inner % k;
      const double place = std::round(fixed.empty() ? plain((*x[1])[j]) : fixed[j]);
      const std::size_t from = index(std::llround(std::clamp(place, 0.0, double(n) - 1)));
      out[i] = (*x[0])[(i / (inner * k) * n + from) * inner + i % inner];
    }
  } else if (name == "embedding") {
    const Numbers<S>& table = w[index(link.params[0])];
    const std::size_t n = last_of(link.out), entries = attr("entries");
    for (std::size_t i = 0; i < out.size(); ++i) {
      const double nearest = std::round(plain((*x[0])[i / n]));
      out[i] = table[index(std::llround(std::clamp(nearest, 0.0, double(entries) - 1))) * n + i % n];
    }
  } else if (name == "attention") {
    const std::size_t heads = attr("heads"), parts = x.size() == 1 ? 3 : 1;
    const Numbers<S>&q = *x[0], &k = *x[x.size() == 1 ? 0 : 1], &v = *x[x.size() == 1 ? 0 : 2];
    const std::size_t queries = index(shapes[0][0]), keys = index(shapes[x.size() == 1 ? 0 : 1][0]);
    const std::size_t q_step = q.size() / queries, v_step = v.size() / keys;
    const std::size_t d = q_step / parts / heads, e = v_step / parts / heads;
    for (std::size_t i = 0; i < queries; ++i) {
      for (std::size_t h = 0; h < heads; ++h) {
        const std::size_t n = link.attrs.at("causal") != 0 ? i + 1 : keys;
        Numbers<S> weight(n, S(0.0));
        S total(0.0);
        for (std::size_t j = 0; j < n; ++j) {
          for (std::size_t c = 0; c < d; ++c) {
            const std::size_t in_k = parts == 3 ? heads * d : 0;
            weight[j] = weight[j] + q[i * q_step + h * d + c] * k[j * q_step + in_k + h * d + c];
          }
          weight[j] = exp(weight[j] / S(std::sqrt(double(d))));
          total = total + weight[j];
        }
        for (std::size_t j = 0; j < n; ++j) {
          for (std::size_t c = 0; c < e; ++c) {
            S& entry = out[i * heads * e + h * e + c];
            entry = entry + weight[j] / total * v[j * v_step + (parts == 3 ? 2 * heads * d : 0) + h * e + c];
          }
        }
      }
    }
  } else if (name == "rotary") {
    const std::size_t width = last_of(link.out), count = attr("count") == 0 ? width : attr("count");
    const std::size_t head = attr("head") == 0 ? count : attr("head");
    for (std::size_t i = 0; i < out.size(); ++i) {
      const std::size_t in = i % width, pair = in % head / 2;
      out[i] = (*x[0])[i];
      if (in >= count) continue;
      const double angle = double(i / width) / std::pow(link.attrs.at("base"), 2.0 * double(pair) / double(head));
      const S& other = (*x[0])[in % 2 == 0 ? i + 1 : i - 1];
      out[i] = S(std::cos(angle)) * out[i] + S((in % 2 == 0 ? -1 : 1) * std::sin(angle)) * other;
    }
  } else if (name == "subtract") {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = (*x[0])[i] - (*x[1])[i];
  } else if (name == "constant") {
    out = w[index(link.params[0])];
  } else if (name == "concat") {
    out.clear();
    for (const Numbers<S>* part : x) out.insert(out.end(), part->begin(), part->end());
  } else if (name == "multiply") {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = (*x[0])[i] * (*x[1])[i];
  } else if (name == "add") {
    for (const Numbers<S>* part : x) {
      for (std::size_t i = 0; i < out.size(); ++i) out[i] = out[i] + (*part)[i];
    }
  } else if (name == "softmax") {
    const std::size_t n = last_of(shapes[0]);
    for (std::size_t begin = 0; begin < out.size(); begin += n) {
      const std::size_t seen = link.attrs.at("causal") != 0 ? begin / n % n + 1 : n;
      S total(0.0);
      for (std::size_t i = 0; i < seen; ++i) total = total + exp((*x[0])[begin + i]);
      for (std::size_t i = 0; i < seen; ++i) out[begin + i] = exp((*x[0])[begin + i]) / total;
    }
  } else if (name == "identity" || name == "scale" || name == "dropout") {
    const double by = name == "scale" ? link.attrs.at("by") : 1.0;
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = S(by) * (*x[0])[i];
  } else {
    const auto slope = link.attrs.find("slope");
    for (std::size_t i = 0; i < out.size(); ++i) {
      out[i] = naive_activation(name, (*x[0])[i], slope == link.attrs.end() ? 0.0 : slope->second);
    }
  }
  return out;
}

/// mu of one prediction for one sample; x holds every node's value, w every parameter.
template <class S>
Numbers<S> naive_mu(const Graph& graph, PredictionId p, const std::vector<Numbers<S>>& x,
                    const std::vector<Numbers<S>>& w) {
  Numbers<S> mu(index(graph.node(graph.prediction(p).node).shape.count()), S(0.0));
  for (const EdgeId e : graph.prediction(p).edges) {
    std::vector<const Numbers<S>*> in;
    std::vector<Shape> shapes;
    for (const NodeId from : graph.edge(e).from) {
      in.push_back(&x[index(from)]);
      shapes.push_back(graph.node(from).shape);
    }
    Numbers<S> z;
    for (const Link& link : graph.edge(e).chain) {
      Numbers<S> next = naive_op<S>(link, in, w, shapes);
      z = std::move(next);
      in = {&z};
      shapes = {link.out};
    }
    for (std::size_t i = 0; i < mu.size(); ++i) mu[i] = mu[i] + z[i];
  }
  return mu;
}

/// `n` entries along the last axis are one distribution.
template <class S>
S naive_energy(const EnergySpec& spec, const Numbers<S>& x, const Numbers<S>& mu, std::size_t n) {
  using std::exp, std::log;
  S energy(0.0);
  const auto log_sum = [&](const Numbers<S>& of, std::size_t i) {
    S total(0.0);
    for (std::size_t j = i / n * n; j < i / n * n + n; ++j) total = total + exp(of[j]);
    return log(total);
  };
  for (std::size_t i = 0; i < x.size(); ++i) {
    const S precision(spec.precision.size() == 1 ? spec.precision[0] : spec.precision[i]);
    if (spec.energy == &gaussian) {
      energy = energy + S(0.5) * precision * (x[i] - mu[i]) * (x[i] - mu[i]);
    } else if (spec.energy == &laplace) {
      energy = energy + precision * (plain(x[i]) < plain(mu[i]) ? mu[i] - x[i] : x[i] - mu[i]);
    } else if (spec.energy == &categorical_kl) {
      const S log_p = x[i] - log_sum(x, i), log_q = mu[i] - log_sum(mu, i);
      energy = energy + precision * exp(log_p) * (log_p - log_q);
    } else if (spec.energy == &softmax_cross_entropy) {
      energy = energy + precision * x[i] * (log_sum(mu, i) - mu[i]);
    } else {
      const S s = S(1.0) / (S(1.0) + exp(S(0.0) - mu[i]));
      energy = energy - precision * (x[i] * log(s) + (S(1.0) - x[i]) * log(S(1.0) - s));
    }
  }
  return energy;
}

/// A whole network and its training, one number at a time. It shares with the library the description of the graph and
/// the random numbers, and nothing else.
class Reference {
 public:
  Reference(Network& network, const Problem& problem, PlanSpec spec)
      : graph(network.graph()), problem_(problem), spec_(std::move(spec)), seed_(network.seed()) {
    problem_.data.resize(index(graph.node_count()));
    problem_.mask.resize(index(graph.node_count()));
    for (NodeId v = 0; v < graph.node_count(); ++v) {
      x.emplace_back(index(problem_.batch), Values(index(graph.node(v).shape.count()), 0.0));
    }
    for (ParamId p = 0; p < graph.param_count(); ++p) {
      w.push_back(network.arena().read(network.weight(p)));
      dw.emplace_back(w.back().size(), 0.0);
    }
    m_ = v_ = velocity_ = dw;
    start.assign(index(graph.prediction_count()), 0);
    end = start;
    load_clamps();
  }

  const Graph& graph;
  std::vector<std::vector<Values>> x;  // [node][sample]
  std::vector<Values> w, dw;           // dw: -dF/dw, summed over the batch
  std::vector<double> start, end;      // energies of the predictions, added up

  [[nodiscard]] bool is_free(NodeId v, std::int64_t sample, std::size_t i) const {
    for (const Clamp& clamp : problem_.clamps) {
      if (clamp.node != v) continue;
      if (!clamp.masked) return false;
      const Values& mask = problem_.mask[index(v)];
      return mask[index(sample) * (mask.size() / index(problem_.batch)) + i] == 0;
    }
    return true;
  }

  /// Cross-entropies of nodes that nobody observes do not count.
  [[nodiscard]] bool counts(PredictionId p) const {
    const Prediction& prediction = graph.prediction(p);
    return prediction.spec.energy->zero_at_prediction ||
           std::any_of(problem_.clamps.begin(), problem_.clamps.end(),
                       [&](const Clamp& c) { return c.node == prediction.node; });
  }

  template <class S>
  [[nodiscard]] std::vector<Numbers<S>> sample(std::int64_t b) const {
    std::vector<Numbers<S>> one;
    for (const auto& node : x) one.emplace_back(node[index(b)].begin(), node[index(b)].end());
    return one;
  }
  template <class S>
  [[nodiscard]] std::vector<Numbers<S>> weights() const {
    std::vector<Numbers<S>> all;
    for (const Values& param : w) all.emplace_back(param.begin(), param.end());
    return all;
  }
  template <class S>
  [[nodiscard]] S sample_energy(const std::vector<Numbers<S>>& values, const std::vector<Numbers<S>>& params) const {
    S total(0.0);
    for (PredictionId p = 0; p < graph.prediction_count(); ++p) {
      if (!counts(p)) continue;
      const Numbers<S> mu = naive_mu<S>(graph, p, values, params);
      const NodeId v = graph.prediction(p).node;
      total = total + naive_energy<S>(graph.prediction(p).spec, values[index(v)], mu, last_of(graph.node(v).shape));
    }
    return total;
  }
  /// F, summed over the batch.
  [[nodiscard]] double energy() const {
    double total = 0;
    for (std::int64_t b = 0; b < problem_.batch; ++b)
      total += sample_energy<double>(sample<double>(b), weights<double>());
    return total;
  }

  /// dF/dx of every free entry, [node][sample][entry]; 0 at clamped ones.
  [[nodiscard]] std::vector<std::vector<Values>> value_gradient() const {
    std::vector<std::vector<Values>> g = x;
    const auto params = weights<Dual>();
    for (std::int64_t b = 0; b < problem_.batch; ++b) {
      auto values = sample<Dual>(b);
      for (NodeId v = 0; v < graph.node_count(); ++v) {
        for (std::size_t i = 0; i < values[index(v)].size(); ++i) {
          double& slope = g[index(v)][index(b)][i];
          slope = 0;
          if (!is_free(v, b, i)) continue;
          values[index(v)][i].d = 1;
          slope = sample_energy<Dual>(values, params).d;
          values[index(v)][i].d = 0;
        }
      }
    }
    return g;
  }

  void find_weight_gradient() {
    auto params = weights<Dual>();
    for (Values& param : dw) std::fill(param.begin(), param.end(), 0.0);
    for (std::int64_t b = 0; b < problem_.batch; ++b) {
      const auto values = sample<Dual>(b);
      for (std::size_t p = 0; p < params.size(); ++p) {
        for (std::size_t i = 0; i < params[p].size(); ++i) {
          params[p][i].d = 1;
          dw[p][i] -= sample_energy<Dual>(values, params).d;
          params[p][i].d = 0;
        }
      }
    }
  }

  /// One training step.
  void step() {
    begin();
    const bool every = spec_.schedule->learn == Learn::every_step && spec_.learn;
    auto velocity = x, first = x, second = x;
    for (auto* state : {&velocity, &first, &second}) {
      for (auto& node : *state) {
        for (Values& values : node) std::fill(values.begin(), values.end(), 0.0);
      }
    }
    for (int t = 0; t < spec_.relax.steps; ++t) {
      if (t == 0) add_energies(start);
      if (every && t + 1 == spec_.relax.steps) add_energies(end);
      const auto g = value_gradient();
      if (every) find_weight_gradient();
      for (std::size_t v = 0; v < x.size(); ++v) {
        for (std::size_t b = 0; b < x[v].size(); ++b) {
          for (std::size_t i = 0; i < x[v][b].size(); ++i) {
            if (!is_free(static_cast<NodeId>(v), static_cast<std::int64_t>(b), i)) continue;
            move(x[v][b][i], g[v][b][i], velocity[v][b][i], first[v][b][i], second[v][b][i], t + 1);
          }
        }
      }
      if (every) update();
    }
    if (every) return;
    add_energies(end);
    find_weight_gradient();
    if (spec_.learn) update();
  }

  [[nodiscard]] Values flat(NodeId v) const {
    Values all;
    for (const Values& values : x[index(v)]) all.insert(all.end(), values.begin(), values.end());
    return all;
  }

 private:
  void load_clamps() {
    for (const Clamp& clamp : problem_.clamps) {
      for (std::int64_t b = 0; b < problem_.batch; ++b) {
        Values& values = x[index(clamp.node)][index(b)];
        const Values row = rows_of(problem_.data[index(clamp.node)], problem_.batch, b, 1);
        for (std::size_t i = 0; i < values.size(); ++i) {
          if (!is_free(clamp.node, b, i)) values[i] = row[i];
        }
      }
    }
  }

  void begin() {
    const ValueInit& init = spec_.relax.init;
    const std::int64_t batch = problem_.batch;
    const auto each_free = [&](NodeId v, auto&& body) {
      for (std::int64_t b = 0; b < batch; ++b) {
        for (std::size_t i = 0; i < x[index(v)][index(b)].size(); ++i) {
          if (is_free(v, b, i)) body(x[index(v)][index(b)][i], b, i);
        }
      }
    };
    for (NodeId v = 0; v < graph.node_count(); ++v) {
      each_free(v, [&](double& value, std::int64_t b, std::size_t i) {
        const auto entry = static_cast<std::uint64_t>(b * graph.node(v).shape.count()) + i;
        const auto bits = philox::bits(seed_, Purpose::values, static_cast<std::uint32_t>(v), batches_, entry);
        if (init.kind == ValueInit::Kind::normal) value = init.sigma * philox::normal(philox::uniform(bits));
        if (init.kind == ValueInit::Kind::zeros || init.kind == ValueInit::Kind::feedforward) value = 0;
      });
    }
    ++batches_;
    load_clamps();
    if (init.kind != ValueInit::Kind::feedforward) return;
    // Node by node in order; or all at once, some times, where there is no order.
    const auto order = topological_order(graph);
    const auto predictions = [&](NodeId v) {
      std::vector<Values> mu;
      for (std::int64_t b = 0; b < batch; ++b) {
        mu.push_back(graph.node(v).predictions.empty()
                         ? sample<double>(b)[index(v)]
                         : naive_mu<double>(graph, graph.node(v).predictions[0], sample<double>(b), w));
      }
      return mu;
    };
    const auto set = [&](NodeId v, const std::vector<Values>& mu) {
      each_free(v, [&](double& value, std::int64_t b, std::size_t i) { value = mu[index(b)][i]; });
    };
    if (order) {
      for (const NodeId v : *order) set(v, predictions(v));
      return;
    }
    for (int k = 0; k < init.sweeps; ++k) {
      std::vector<std::vector<Values>> all;
      for (NodeId v = 0; v < graph.node_count(); ++v) all.push_back(predictions(v));
      for (NodeId v = 0; v < graph.node_count(); ++v) set(v, all[index(v)]);
    }
  }

  void move(double& value, double g, double& velocity, double& first, double& second, int t) const {
    if (const auto* sgd = std::get_if<ValueSgd>(&spec_.relax.stepper)) {
      velocity = sgd->momentum * velocity + g;
      value -= sgd->rate * velocity;
      return;
    }
    const auto& adam = std::get<ValueAdam>(spec_.relax.stepper);
    first = adam.beta1 * first + (1 - adam.beta1) * g;
    second = adam.beta2 * second + (1 - adam.beta2) * g * g;
    value -= adam.rate * (first / (1 - std::pow(adam.beta1, t))) /
             (std::sqrt(second / (1 - std::pow(adam.beta2, t))) + adam.epsilon);
  }

  [[nodiscard]] double rate(double done) const {
    const Rate& r = spec_.learn->rate;
    const double warmup = r.kind == kernels::RateKind::warmup_cosine ? r.warmup : 0;
    if (r.kind == kernels::RateKind::constant) return r.base;
    if (done < warmup) return r.base * (done + 1) / warmup;
    const double part = std::min(1.0, (done - warmup) / (r.total - warmup));
    return r.floor + 0.5 * (r.base - r.floor) * (1 + std::cos(std::numbers::pi * part));
  }

  void update() {
    const LearnSpec& learn = *spec_.learn;
    const double now = rate(updates_++), t = updates_, batch = double(problem_.batch);
    const auto kept = [&](std::size_t p, std::size_t i) {
      const auto& mask = graph.params()[p].mask;
      return mask.empty() || mask[i] != 0;
    };
    double square = 0;
    for (std::size_t p = 0; p < w.size(); ++p) {
      for (std::size_t i = 0; i < w[p].size(); ++i) square += kept(p, i) ? dw[p][i] * dw[p][i] / (batch * batch) : 0;
    }
    const double norm = std::sqrt(square);
    const double clip = learn.clip_norm > 0 && norm > learn.clip_norm ? learn.clip_norm / norm : 1.0;
    for (std::size_t p = 0; p < w.size(); ++p) {
      for (std::size_t i = 0; i < w[p].size(); ++i) {
        if (!kept(p, i)) continue;
        double& weight = w[p][i];
        const double g = clip * dw[p][i] / batch;
        if (const auto* sgd = std::get_if<WeightSgd>(&learn.optimizer)) {
          velocity_[p][i] = sgd->momentum * velocity_[p][i] + g - sgd->weight_decay * weight;
          weight += now * velocity_[p][i];
          continue;
        }
        const auto& adam = std::get<WeightAdam>(learn.optimizer);
        const double pulled = adam.decoupled ? g : g - adam.weight_decay * weight;
        m_[p][i] = adam.beta1 * m_[p][i] + (1 - adam.beta1) * pulled;
        v_[p][i] = adam.beta2 * v_[p][i] + (1 - adam.beta2) * pulled * pulled;
        if (adam.decoupled) weight -= now * adam.weight_decay * weight;
        weight += now * (m_[p][i] / (1 - std::pow(adam.beta1, t))) /
                  (std::sqrt(v_[p][i] / (1 - std::pow(adam.beta2, t))) + adam.epsilon);
      }
    }
  }

  void add_energies(std::vector<double>& to) const {
    for (PredictionId p = 0; p < graph.prediction_count(); ++p) {
      if (!counts(p)) continue;
      for (std::int64_t b = 0; b < problem_.batch; ++b) {
        const auto values = sample<double>(b);
        const NodeId v = graph.prediction(p).node;
        to[index(p)] += naive_energy<double>(graph.prediction(p).spec, values[index(v)],
                                             naive_mu<double>(graph, p, values, w), last_of(graph.node(v).shape));
      }
    }
  }

  Problem problem_;
  PlanSpec spec_;
  std::uint64_t seed_;
  std::vector<Values> m_, v_, velocity_;
  int updates_ = 0;
  std::uint64_t batches_ = 0;
};

}  // namespace pc::test

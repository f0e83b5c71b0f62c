// Topologies against their definitions, and networks made of them against what is known of such networks.
#include <Eigen/Dense>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <numeric>
#include <set>

#include "experiments/config.h"
#include "experiments/edge_file.h"
#include "graphs/networks.h"
#include "graphs/neurons.h"
#include "graphs/topology.h"
#include "tests/networks.h"
#include "tests/program.h"

namespace pc::test {
namespace {

using graphs::Parts, graphs::Wanted;

/// Settings by hand.
class Given final : public graphs::Settings {
 public:
  std::map<std::string, double, std::less<>> numbers;
  std::map<std::string, std::string, std::less<>> texts;
  std::vector<std::int64_t> layers;
  graphs::EdgeList list;
  std::unique_ptr<Given> topology;
  std::uint64_t number_of_seed = 3;

  std::vector<std::int64_t> integers(std::string_view) override { return layers; }
  std::vector<std::int64_t> integers_or(std::string_view, std::vector<std::int64_t>) override { return layers; }
  std::string text(std::string_view key, std::string_view fallback) override {
    const auto found = texts.find(key);
    return found == texts.end() ? std::string(fallback) : found->second;
  }
  double number(std::string_view key, double fallback) override {
    const auto found = numbers.find(key);
    return found == numbers.end() ? fallback : found->second;
  }
  bool flag(std::string_view key, bool fallback) override { return number(key, fallback ? 1 : 0) != 0; }
  OpSpec op(std::string_view key, std::string_view fallback) override { return {&find_op(text(key, fallback)), {}}; }
  Choice choice(std::string_view key, std::span<const std::string>, std::string_view fallback) override {
    if (!topology) topology = std::make_unique<Given>();
    return {text(key, fallback), topology.get()};
  }
  graphs::EdgeList edge_list(std::string_view) override { return list; }
  [[nodiscard]] std::uint64_t seed() const override { return number_of_seed; }
  [[nodiscard]] std::string place() const override { return {}; }

 private:
  [[noreturn]] void refuse(std::string_view key, const std::string& text) override { fail("test", key, text); }
};

using Numbers1 = std::map<std::string, double, std::less<>>;

Pattern make(const std::string& name, const Numbers1& numbers, const Wanted& wanted,
             std::vector<std::int64_t> layers = {}) {
  Given given;
  given.numbers = numbers;
  given.layers = std::move(layers);
  for (const graphs::Topology* topology : graphs::all_topologies()) {
    if (topology->name != name) continue;
    Pattern pattern = topology->make(given, wanted);
    pattern.check();
    CHECK(pattern.rows == wanted.parts.total());
    CHECK(pattern.cols == wanted.parts.total());
    return pattern;
  }
  FAIL("no topology " << name);
  return {};
}

Wanted of(std::int64_t inputs, std::int64_t hidden, std::int64_t outputs, std::uint64_t seed = 1) {
  return {.parts = {inputs, hidden, outputs}, .seed = seed};
}

bool has(const Pattern& pattern, std::int64_t row, std::int64_t col) {
  const auto first = pattern.columns.begin() + pattern.begin(row), last = pattern.columns.begin() + pattern.end(row);
  return std::binary_search(first, last, static_cast<std::int32_t>(col));
}

/// The share of pairs (row, col) that suit and are edges; and it lies within five deviations of p.
template <class Suits>
void check_density(const Pattern& pattern, double p, Suits&& suits) {
  double pairs = 0, edges = 0;
  for (std::int64_t i = 0; i < pattern.rows; ++i) {
    for (std::int64_t j = 0; j < pattern.cols; ++j) {
      if (i == j || !suits(i, j)) continue;
      pairs += 1;
      edges += has(pattern, i, j) ? 1 : 0;
    }
  }
  REQUIRE(pairs > 0);
  CHECK(std::abs(edges / pairs - p) <= 5 * std::sqrt(p * (1 - p) / pairs));
}

template <class Wants>
void check_exactly(const Pattern& pattern, Wants&& wants) {
  bool same = true;
  for (std::int64_t i = 0; i < pattern.rows; ++i) {
    for (std::int64_t j = 0; j < pattern.cols; ++j) same = same && has(pattern, i, j) == wants(i, j);
  }
  CHECK(same);
}

const Numbers1 kFew = {{"degree", 5}, {"neighbours", 6}, {"links", 3}, {"regions", 3}, {"layers", 2}};

}  // namespace

TEST_CASE("topologies: the seed decides, self-loops and sensory edges only where they are wanted") {
  for (const graphs::Topology* topology : graphs::all_topologies()) {
    const std::string name(topology->name);
    CAPTURE(name);
    CHECK(!topology->about.empty());
    if (name == "edges") continue;
    for (const bool loops : {false, true}) {
      for (const bool sensory : {false, true}) {
        Wanted wanted = of(20, 35, 9);
        wanted.self_loops = loops;
        wanted.sensory_edges = sensory;
        const Pattern a = make(name, kFew, wanted);
        CHECK(a == make(name, kFew, wanted));
        REQUIRE(a.count() > 0);
        for (std::int64_t i = 0; i < a.rows; ++i) {
          if (!loops) CHECK(!has(a, i, i));
          for (std::int64_t j = 0; j < a.rows && !sensory; ++j) {
            if (wanted.parts.sensory(i) && wanted.parts.sensory(j)) CHECK(!has(a, i, j));
          }
        }
        Wanted other = wanted;
        other.seed = 2;
        const bool random =
            std::set<std::string>{"assembly",       "stochastic_block", "erdos_renyi", "fixed_in_degree",
                                  "watts_strogatz", "barabasi_albert",  "grid"}
                .contains(name);
        CHECK((make(name, kFew, other) == a) == !random);
      }
    }
  }
}

TEST_CASE("topologies: full and layered ones are exactly what they say") {
  Wanted wanted = of(4, 7, 2);
  check_exactly(make("full", {}, wanted), [](auto i, auto j) { return i != j; });
  wanted.self_loops = true;
  wanted.sensory_edges = false;
  check_exactly(make("full", {}, wanted), [](auto i, auto j) {
    const auto sensory = [](auto k) { return k < 4 || k >= 11; };
    return !(sensory(i) && sensory(j));
  });
  wanted = of(4, 7, 2);
  const auto layer = [](std::int64_t i) { return i < 4 ? 0 : i < 9 ? 1 : i < 11 ? 2 : 3; };
  const std::vector<std::int64_t> widths = {5, 2};
  const auto check = [&](const char* name, auto&& wants) {
    CAPTURE(name);
    check_exactly(make(name, {}, wanted, widths), [&](auto i, auto j) { return wants(layer(i), layer(j)); });
  };
  check("discriminative", [](int i, int j) { return j == i - 1; });
  check("generative", [](int i, int j) { return j == i + 1; });
  check("bidirectional", [](int i, int j) { return j == i - 1 || j == i + 1; });
  check("hierarchical", [](int i, int j) { return j < i; });
  CHECK(contains(error_of([&] {
                   make("generative", {}, wanted, {5, 3});
                 }),
                 "layers add up to 8 neurons, but there are 7"));
}

TEST_CASE("topologies: too many edges are refused before they are made") {
  for (const char* name : {"full", "stochastic_block", "erdos_renyi"}) {
    CAPTURE(name);
    CHECK(contains(error_of([&] {
                     make(name, {{"density", 0.5}, {"inside", 1}, {"between", 1}}, of(300, 200'000, 0));
                   }),
                   "take fewer neurons"));
  }
  CHECK(contains(error_of([&] {
                   make("barabasi_albert", {{"links", 100'000}}, of(300, 200'000, 0));
                 }),
                 "take fewer neurons"));
}

TEST_CASE("topologies: random ones have the densities and degrees that they are to have") {
  check_density(make("erdos_renyi", {{"density", 0.07}}, of(100, 150, 50)), 0.07, [](auto, auto) { return true; });
  check_density(make("erdos_renyi", {{"degree", 12}}, of(100, 190, 10)), 12.0 / 299, [](auto, auto) { return true; });
  for (const std::int64_t degree : {0, 1, 17, 250, 299}) {
    const Pattern pattern = make("fixed_in_degree", {{"degree", double(degree)}}, of(100, 190, 10));
    for (std::int64_t i = 0; i < pattern.rows; ++i) CHECK(pattern.end(i) - pattern.begin(i) == degree);
    if (degree > 1) check_density(pattern, double(degree) / 299, [](auto, auto j) { return j % 3 == 0; });
  }
  const Pattern blocks = make("stochastic_block", {{"blocks", 4}, {"inside", 0.6}, {"between", 0.03}}, of(40, 150, 10));
  const auto same = [](auto i, auto j) { return i / 50 == j / 50; };
  check_density(blocks, 0.6, same);
  check_density(blocks, 0.03, [&](auto i, auto j) { return !same(i, j); });
  const Pattern regions = make("assembly", {{"regions", 3}, {"between", 0.1}}, of(40, 150, 10));
  const auto region = [](std::int64_t i) { return i < 40 ? 0 : i < 190 ? 1 + (i - 40) / 50 : 4; };
  check_density(regions, 1, [&](auto i, auto j) { return region(i) == region(j); });
  check_density(regions, 0.1, [&](auto i, auto j) { return region(i) != region(j); });
}

TEST_CASE("topologies: small worlds, hubs and planes") {
  const Pattern ring = make("watts_strogatz", {{"neighbours", 6}, {"rewire", 0}}, of(10, 40, 0));
  check_exactly(ring, [](std::int64_t i, std::int64_t j) {
    const std::int64_t apart = std::min((i - j + 50) % 50, (j - i + 50) % 50);
    return apart >= 1 && apart <= 3;
  });
  const Pattern small = make("watts_strogatz", {{"neighbours", 8}, {"rewire", 0.25}}, of(100, 300, 0));
  for (std::int64_t i = 0; i < small.rows; ++i) CHECK(small.end(i) - small.begin(i) == 8);
  const auto near = [](std::int64_t i, std::int64_t j) {
    return std::min((i - j + 400) % 400, (j - i + 400) % 400) <= 4;
  };
  // Few of the replaced edges fall among the neighbours again.
  check_density(small, 0.75, near);

  const Pattern hubs = make("barabasi_albert", {{"links", 3}}, of(100, 400, 0));
  CHECK(hubs == transposed(hubs).pattern);
  CHECK(hubs.count() == 2 * (1 + 2 + 3 * 497));
  const graphs::NeuronStatistics s = graphs::statistics_of(hubs);
  CHECK(s.components == 1);
  CHECK(s.in.least == 3);
  CHECK(s.in.most > 6 * s.in.mean);  // a random graph of this size would stay under 3 times

  for (const int tile : {1, 5}) {
    CAPTURE(tile);
    const Pattern plane =
        make("grid", {{"width", 20}, {"sigma", 1.5}, {"radius", 3}, {"tile", double(tile)}}, of(100, 300, 0));
    const auto place = [&](std::int64_t i) {  // tiles of tile x tile, 20 / tile of them in a row
      const std::int64_t t = i / (tile * tile), w = i % (tile * tile), across = 20 / tile;
      return std::pair{t % across * tile + w % tile, t / across * tile + w / tile};
    };
    const auto square = [&](std::int64_t i, std::int64_t j) {
      const auto [x, y] = place(i);
      const auto [u, v] = place(j);
      return (x - u) * (x - u) + (y - v) * (y - v);
    };
    for (const std::int64_t d : {1, 2, 4, 5, 8, 9}) {
      check_density(plane, std::exp(-double(d) / 4.5), [&](auto i, auto j) { return square(i, j) == d; });
    }
    check_density(plane, 0, [&](auto i, auto j) { return square(i, j) > 9; });
  }
}

TEST_CASE("neurons: counted one by one") {
  // Two nodes: a [2] feeds b [3] by a mask, b itself by an identity, and b feeds a whole.
  std::vector<NodeSpec> nodes = {{.name = "a", .shape = {2}}, {.name = "b", .shape = {3}}};
  std::vector<EdgeSpec> edges = {{.from = {"a"}, .to = "b", .chain = {op("tanh"), linear()}},
                                 {.from = {"b"}, .to = "b", .chain = {op("identity")}},
                                 {.from = {"b"}, .to = "a", .chain = {linear(), op("gelu")}}};
  edges[0].mask = [](const Shape&) { return std::vector<std::uint8_t>{1, 0, 0, 0, 1, 1}; };
  const auto neurons = graphs::neurons_of(Graph(nodes, edges));
  REQUIRE(neurons.has_value());
  const Pattern want = pattern_of({0, 0, 1, 1, 1,   //
                                   0, 0, 1, 1, 1,   //
                                   1, 0, 1, 0, 0,   //
                                   0, 0, 0, 1, 0,   //
                                   1, 1, 0, 0, 1},  //
                                  5, 5);
  CHECK(*neurons == want);
  CHECK(graphs::neuron_edges(Graph(nodes, edges)) == 12);
  const graphs::NeuronStatistics s = graphs::statistics_of(want);
  CHECK(s.neurons == 5);
  CHECK(s.edges == 12);
  CHECK(s.self_loops == 3);
  CHECK(s.in.least == 1);
  CHECK(s.in.most == 3);
  CHECK(s.in.mean == doctest::Approx(2.4));
  CHECK(s.out.least == 1);
  CHECK(s.out.most == 3);
  CHECK(s.reciprocity == doctest::Approx(6.0 / 9));
  CHECK(s.components == 2);  // neuron 3 feeds a and itself, and reads nothing else
  CHECK(s.largest == 4);
  CHECK(s.on_cycles == 5);
  edges.push_back({.from = {"a"}, .to = "b", .chain = {op("softmax"), linear()}});
  CHECK(!graphs::neuron_edges(Graph(nodes, edges)).has_value());
  CHECK(!graphs::neurons_of(Graph(nodes, edges)).has_value());
}

namespace {

/// A pc_graph with whole inputs and outputs clamped to noise.
Problem pc_problem(const std::string& topology, const std::string& form, std::uint64_t seed, const Parts& parts,
                   const std::string& activation, const Numbers1& numbers, bool bias, std::int64_t batch,
                   std::vector<std::int64_t> layers = {}) {
  Given given;
  given.number_of_seed = seed;
  given.numbers = {{"inputs", double(parts.inputs)},
                   {"hidden", double(parts.hidden)},
                   {"outputs", double(parts.outputs)},
                   {"bias", bias ? 1 : 0}};
  given.texts = {{"topology", topology}, {"edges", form}, {"activation", activation}};
  given.topology = std::make_unique<Given>();
  given.topology->numbers = numbers;
  given.topology->layers = std::move(layers);
  const graphs::Description graph = graphs::pc_graph.make(given);
  Problem problem;
  problem.nodes = graph.nodes;
  problem.edges = graph.edges;
  problem.batch = batch;
  Dice dice(seed + 1);
  problem.clamp(0, dice.normals(batch * parts.inputs));
  problem.clamp(2, dice.normals(batch * parts.outputs));
  return problem;
}

}  // namespace

TEST_CASE("pc_graph: full is the written-out graph, and dense and sparse blocks have the same edges") {
  const Problem full = pc_problem("full", "auto", 1, {5, 4, 2}, "tanh", {}, false, 1);
  REQUIRE(full.edges.size() == 9);
  const Graph graph = full.graph();
  const char* names[] = {"image->image",  "hidden->image", "label->image",  "image->hidden", "hidden->hidden",
                         "label->hidden", "image->label",  "hidden->label", "label->label"};
  for (std::size_t e = 0; e < 9; ++e) {
    CHECK(graph.edges()[e].name == names[e]);
    CHECK(graph.edges()[e].chain.size() == 2);
    const Param& weight = graph.param(graph.edges()[e].chain[1].params[0]);
    const std::int64_t rows = weight.spec.shape[0];
    CHECK(weight.mask.empty() == (e % 4 != 0));  // the diagonal blocks
    for (std::size_t i = 0; i < weight.mask.size(); ++i) {
      CHECK((weight.mask[i] == 0) == (i % index(rows + 1) == 0));
    }
  }
  const Parts parts{30, 60, 10};
  const Graph dense = pc_problem("erdos_renyi", "dense", 1, parts, "tanh", {{"density", 0.1}}, true, 1).graph();
  const Graph sparse = pc_problem("erdos_renyi", "sparse", 1, parts, "tanh", {{"density", 0.1}}, true, 1).graph();
  const auto a = graphs::neurons_of(dense), b = graphs::neurons_of(sparse);
  REQUIRE(a.has_value());
  CHECK(*a == make("erdos_renyi", {{"density", 0.1}}, of(30, 60, 10)));
  CHECK(a == b);
  CHECK(dense.weight_count() == sparse.weight_count());
  CHECK(sparse.weight_count() == a->count() + 100);  // one bias for each neuron
}

// The same, neuron by neuron: a graph whose layers read the one before them, with no edges into the inputs, is the
// layered network. Weights of layers inside "hidden" lie in one matrix, so the layered ones are copied into it.
TEST_CASE("O6: a pc_graph with discriminative edges relaxes as the layered network, step by step") {
  const std::vector<std::int64_t> widths = {4, 5, 3, 2}, begin = {0, 4, 9, 12};
  Problem layered = chain(widths, [](std::size_t) { return std::vector{op("tanh"), linear(false)}; });
  for (const char* form : {"dense", "sparse"}) {
    CAPTURE(form);
    const Problem graph = pc_problem("discriminative", form, 4, {4, 8, 2}, "tanh", {}, false, 3, {5, 3});
    layered.batch = 3;
    layered.clamps.clear();
    layered.clamp(0, graph.data[0]);
    layered.clamp(3, graph.data[2]);
    const auto spec_for = [](const Problem& problem) {
      PlanSpec spec = plan_for(problem, 1, 0.15);
      spec.relax.init.kind = ValueInit::Kind::previous;
      spec.learn = LearnSpec{.optimizer = WeightAdam{}, .rate = {.base = 0.02}};
      return spec;
    };
    Run a(layered, spec_for(layered)), b(graph, spec_for(graph));
    for (EdgeId e = 0; e < b.network.graph().edge_count(); ++e) {
      const Edge& edge = b.network.graph().edge(e);
      const NodeId to = b.network.graph().prediction(edge.prediction).node;
      const std::int64_t row0 = to == 0   ? 0
                                : to == 1 ? 4
                                          : 12,
                         col0 = edge.from[0] == 0   ? 0
                                : edge.from[0] == 1 ? 4
                                                    : 12;
      const Link& link = edge.chain.back();
      const std::int64_t rows = link.out.count(), cols = b.network.graph().node(edge.from[0]).shape.count();
      Values w;
      for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t j = 0; j < cols; ++j) {
          if (link.pattern && !has(*link.pattern, i, j)) continue;
          double weight = 0;
          for (std::size_t l = 1; l < 4; ++l) {
            const std::int64_t r = row0 + i - begin[l], c = col0 + j - begin[l - 1];
            if (r < 0 || r >= widths[l] || c < 0 || c >= widths[l - 1]) continue;
            weight = read(a.network, a.network.weight(static_cast<ParamId>(l - 1)))[index(r * widths[l - 1] + c)];
          }
          w.push_back(weight);
        }
      }
      b.network.arena().write(b.network.weight(link.params[0]), w);
    }
    for (int t = 0; t < 30; ++t) {
      a.step();
      b.step();
      Values hidden;
      const Values one = read_value(a.network, 1, 3), two = read_value(a.network, 2, 3);
      for (std::int64_t row = 0; row < 3; ++row) {
        hidden.insert(hidden.end(), one.begin() + row * 5, one.begin() + row * 5 + 5);
        hidden.insert(hidden.end(), two.begin() + row * 3, two.begin() + row * 3 + 3);
      }
      CHECK(worst_difference(read_value(b.network, "hidden", 3), hidden) < 1e-13);
    }
    CHECK(std::abs(a.trainer.energies().total_end() - b.trainer.energies().total_end()) < 1e-11);
  }
}

// x = W x + b + noise of unit precision is a Gaussian with mean A^-1 b and covariance A^-1 A^-T, A = I - W. With some
// of it clamped, the rest settles in its conditional mean, and the energy left is that of what is clamped.
TEST_CASE("O9: random cyclic pc_graphs settle in conditional means, dense and sparse") {
  using Matrix = Eigen::MatrixXd;
  using Vector = Eigen::VectorXd;
  const Parts parts{4, 9, 3};
  const std::int64_t n = parts.total();
  int cyclic = 0;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    CAPTURE(seed);
    for (const char* form : {"dense", "sparse"}) {
      CAPTURE(form);
      const Problem problem = pc_problem("erdos_renyi", form, seed, parts, "identity", {{"degree", 4}}, true, 1);
      PlanSpec spec = plan_for(problem, 20000);
      const WeightInit init{.kind = WeightInit::Kind::fan_in, .scale = 0.6};
      Run run(problem, spec, DType::f64, 1, init);
      const Graph& graph = run.network.graph();
      Matrix w = Matrix::Zero(n, n);
      Vector b = Vector::Zero(n);
      const std::int64_t begin[] = {0, 4, 13};
      for (const Edge& edge : graph.edges()) {
        const std::int64_t row = begin[graph.prediction(edge.prediction).node], col = begin[edge.from[0]];
        const Link& link = edge.chain.back();
        const Values values = read(run.network, run.network.weight(link.params[0]));
        const std::int64_t rows = link.out.count(), cols = graph.node(edge.from[0]).shape.count();
        std::size_t k = 0;
        for (std::int64_t i = 0; i < rows; ++i) {
          for (std::int64_t j = 0; j < cols; ++j) {
            if (!link.pattern || has(*link.pattern, i, j)) w(row + i, col + j) = values[k++];
          }
        }
        if (link.params.size() < 2) continue;
        const Values bias = read(run.network, run.network.weight(link.params[1]));
        for (std::int64_t i = 0; i < rows; ++i) b(row + i) += bias[index(i)];
      }
      for (NodeId v = 0; v < 3; ++v) REQUIRE(graph.node(v).predictions.size() == 1);
      const auto neurons = graphs::neurons_of(graph);
      REQUIRE(neurons.has_value());
      cyclic += graphs::statistics_of(*neurons).largest > 8 ? 1 : 0;

      const Matrix a = Matrix::Identity(n, n) - w, inverse = a.inverse(), covariance = inverse * inverse.transpose();
      const Vector mean = inverse * b;
      std::vector<Eigen::Index> u(9), c = {0, 1, 2, 3, 13, 14, 15};
      std::iota(u.begin(), u.end(), 4);
      Vector clamped(7);
      for (std::size_t i = 0; i < 7; ++i)
        clamped(std::int64_t(i)) = i < 4 ? problem.data[0][i] : problem.data[2][i - 4];
      const Vector off = clamped - mean(c), weighed = Matrix(covariance(c, c)).llt().solve(off);
      const Vector want = mean(u) + covariance(u, c) * weighed;

      const Matrix h = a.transpose() * a;
      const Eigen::SelfAdjointEigenSolver<Matrix> eigen(Matrix(h(u, u)), Eigen::EigenvaluesOnly);
      spec.relax.stepper = ValueSgd{2 / (eigen.eigenvalues().minCoeff() + eigen.eigenvalues().maxCoeff()), 0};
      spec.relax.stop = GradientNorm{1e-13};
      Run settled(problem, spec, DType::f64, 1, init);
      settled.step();
      const Values x = read_value(settled.network, "hidden", 1);
      CHECK(worst_difference(x, Values(want.data(), want.data() + want.size())) < 1e-10);
      CHECK(std::abs(settled.trainer.energies().total_end() - 0.5 * off.dot(weighed)) < 1e-10);
    }
  }
  CHECK(cyclic > 80);
}

// --- files ---

namespace {

std::string written(const Scratch& folder, const std::string& name, const std::string& text) {
  const std::string path = (folder / name).string();
  std::ofstream(path) << text;
  return path;
}

std::vector<std::pair<int, int>> edges_of(const std::string& path, std::int64_t nodes) {
  const graphs::EdgeList list = experiments::read_edge_list(path);
  CHECK(list.nodes == nodes);
  std::vector<std::pair<int, int>> edges;
  for (std::size_t i = 0; i < list.from.size(); ++i) edges.emplace_back(list.from[i], list.to[i]);
  return edges;
}

const char* const kGraphMl = R"(<?xml version="1.0" encoding="UTF-8"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
  <graph id="G" edgedefault="%s">
    <node id="a"/><node id="&lt;b&gt;"><data key="d0">1</data></node>
    <edge source="c" target="a"/>
    <node id="c"/>
    <edge source="a" target="&lt;b&gt;" directed="%s"/>
  </graph>
</graphml>)";

std::string graphml(const char* fallback, const char* own) {
  char text[1000];
  std::snprintf(text, sizeof text, kGraphMl, fallback, own);
  return text;
}

}  // namespace

TEST_CASE("graph files: csv, Matrix Market and GraphML") {
  using Edges = std::vector<std::pair<int, int>>;
  const Scratch folder;
  CHECK(edges_of(written(folder, "a.csv", "source,target\n0,1\n# no\n2;0\r\n\n 3 \t 3\n"), 4) ==
        Edges{{0, 1}, {2, 0}, {3, 3}});
  CHECK(
      edges_of(written(folder, "a.mtx", "%%MatrixMarket matrix coordinate real general\n% c\n4 4 2\n1 2 0.5\n4 4 1\n"),
               4) == Edges{{0, 1}, {3, 3}});
  CHECK(edges_of(written(folder, "b.mtx", "%%MatrixMarket matrix coordinate pattern symmetric\n3 3 2\n2 1\n3 3\n"),
                 3) == Edges{{1, 0}, {0, 1}, {2, 2}});
  CHECK(edges_of(written(folder, "c.mtx", "%%matrixmarket MATRIX coordinate real skew-symmetric\n3 3 1\n2 1 5\n"), 3) ==
        Edges{{1, 0}, {0, 1}});
  CHECK(edges_of(written(folder, "b.csv",
                         "\xef\xbb\xbf"
                         "0,1\n"),
                 2) == Edges{{0, 1}});
  CHECK(edges_of(written(folder, "a.graphml", graphml("directed", "true")), 3) == Edges{{2, 0}, {0, 1}});
  CHECK(edges_of(written(folder, "b.graphml", graphml("undirected", "true")), 3) == Edges{{2, 0}, {0, 2}, {0, 1}});
  CHECK(edges_of(written(folder, "c.graphml", graphml("directed", "false")), 3) == Edges{{2, 0}, {0, 1}, {1, 0}});
}

TEST_CASE("graph files: what is wrong is said, with the line") {
  const Scratch folder;
  const auto wrong = [&](const char* name, const std::string& text) {
    const std::string path = written(folder, name, text);
    return error_of([&] { experiments::read_edge_list(path); });
  };
  CHECK(contains(wrong("a.csv", "0,1\n1,2,0.5\n"), "a.csv:2: an edge is two numbers"));
  CHECK(contains(wrong("a.csv", "0,1\n1,x\n"), "a.csv:2: \"x\" is not a whole number"));
  CHECK(contains(wrong("a.csv", "0,1\n-1,0\n"), "a.csv:2: \"-1\""));
  CHECK(contains(wrong("a.csv", "# nothing\n"), "has no edges"));
  CHECK(contains(wrong("a.txt", "0,1\n"), ".csv, .mtx or .graphml"));
  CHECK(contains(wrong("a.mtx", "1 2\n"), "%%MatrixMarket"));
  CHECK(contains(wrong("a.mtx", "%%MatrixMarket matrix array real general\n2 2\n"), "matrix coordinate"));
  CHECK(contains(wrong("a.mtx", "%%MatrixMarket matrix coordinate real general\n2 3 1\n1 1 1\n"), "square"));
  CHECK(contains(wrong("a.mtx", "%%MatrixMarket matrix coordinate real general\n2 2 1\n3 1 1\n"), "a.mtx:3: \"3\""));
  CHECK(contains(wrong("a.mtx", "%%MatrixMarket matrix coordinate real general\n2 2 2\n1 1 1\n"), "holds 1 entries"));
  CHECK(contains(wrong("a.graphml", "<graphml><graph><node id='a'/></graph>"), "a.graphml:1: "));
  CHECK(contains(wrong("a.graphml", "<graphml><graph><node id='a'/>\n<node id='a'/></graph></graphml>"),
                 "a.graphml:2: two nodes"));
  CHECK(contains(wrong("a.graphml", "<graphml><graph><node id='a'/>\n<edge source='a' target='b'/></graph></graphml>"),
                 "a.graphml:2: an edge names the node \"b\""));
  CHECK(contains(wrong("a.graphml", "<graphml/>"), "has 0 graphs"));
  for (const char* banner : {"real", "real none"}) {
    CHECK(contains(wrong("a.mtx", "%%MatrixMarket matrix coordinate " + std::string(banner) + "\n2 2 1\n1 1 1\n"),
                   "general, symmetric, skew-symmetric or hermitian"));
  }
  CHECK(contains(wrong("a.mtx", "%%MatrixMarket matrix coordinate real general\n% 2 2 1\n"),
                 "without the line of its size"));
  CHECK(contains(wrong("a.graphml", graphml("maybe", "true")), "edgedefault is directed or undirected, not \"maybe\""));
  CHECK(contains(wrong("a.graphml", graphml("directed", "perhaps")), "directed is true or false, not \"perhaps\""));
  CHECK(contains(wrong("a.graphml", "<graphml><graph><node id='a'/>\n<edge source='a'/></graph></graphml>"),
                 "a.graphml:2: an edge without a source or a target"));
  CHECK(contains(wrong("a.graphml", "<g:graphml><g:graph/></g:graphml>"), "write the names without it"));
  CHECK(contains(error_of([&] { experiments::read_edge_list(folder / "none.csv"); }), "no such file"));
}

TEST_CASE("pc_graph in a config: topologies, their settings, and files") {
  const Scratch folder;
  const std::string head = "name: t\ntask: {check: {clamp: [image, label]}}\n";
  const auto config_of = [&](const std::string& graph) {
    return experiments::read_config(
        written(folder, "c.yaml", head + "graph: {pc_graph: {inputs: 3, hidden: 4, outputs: 2, " + graph + "}}\n"), {});
  };
  const auto count = [&](const std::string& graph) {
    const experiments::Config config = config_of(graph);
    return Graph(config.graph.nodes, config.graph.edges).weight_count();
  };
  const auto wrong = [&](const std::string& graph) { return error_of([&] { config_of(graph); }); };
  CHECK(count("self_loops: true") == 81);
  CHECK(count("topology: {fixed_in_degree: {degree: 2}}") == 18);
  CHECK(count("topology: {discriminative: {layers: [2, 2]}}") == 3 * 2 + 2 * 2 + 2 * 2);
  const std::string file = written(folder, "g.csv", "0,1\n3,8\n8,3\n");
  CHECK(count("topology: {edges: {file: " + file + "}}") == 3);
  CHECK(contains(wrong("topology: {fixed_in_degre: {degree: 2}}"), "did you mean \"fixed_in_degree\""));
  CHECK(contains(wrong("topology: {fixed_in_degree: {degre: 2}}"), "did you mean \"degree\""));
  CHECK(contains(wrong("topology: {fixed_in_degree: {degree: 9}}"), "whole number from 0 to 8"));
  CHECK(contains(wrong("topology: {erdos_renyi: {density: 2}}"), "probability"));
  const std::string small = "%%MatrixMarket matrix coordinate real general\n2 2 1\n1 2 1\n";
  CHECK(contains(wrong("topology: {edges: {file: " + written(folder, "h.mtx", small) + "}}"), "2 nodes, but inputs"));
  CHECK(
      contains(wrong("topology: {edges: {file: " + written(folder, "h.csv", "0,9\n") + "}}"), "10 nodes, but inputs"));
  CHECK(count("topology: {edges: {file: " + written(folder, "i.csv", "0,3\n3,7\n") + "}}") == 2);  // the last has none
  CHECK(contains(wrong("topology: {erdos_renyi: {degree: -1}}"), "mean number of neurons that one reads, 0 to 8"));
  CHECK(contains(wrong("topology: {erdos_renyi: {density: 0.1, degree: 5}}"), "one of them, not both"));
  CHECK(contains(wrong("topology: {assembly: {regions: 0}}"), "whole number from 1 to 4"));
  CHECK(contains(wrong("topology: {edges: {file: none.csv}}"),
                 "none.csv: no such file in " + fs::current_path().string()));
  const std::string under =
      written(folder, "d.yaml",
              head + "data: {set: glyphs, root: " + (folder / "").string() +
                  "}\ngraph: {pc_graph: {inputs: 3, hidden: 4, outputs: 2, " + "topology: {edges: {file: g.csv}}}}\n");
  CHECK(experiments::read_config(under, {}).graph.edges.size() == 3);
  CHECK(contains(wrong("edges: thin"), "auto, dense or sparse"));

  // Of several overrides the one that is wrong is named; what is wrong with no key, at the section's own.
  const std::string grid = "graph.pc_graph.topology={grid: {width: 3, sigma: 0}}", hidden = "graph.pc_graph.hidden=5";
  const auto set = [&](const std::vector<std::string>& overrides) {
    return error_of([&] { experiments::read_config(folder / "c.yaml", overrides); });
  };
  config_of("topology: full");
  CHECK(contains(set({grid, hidden}), "--set " + grid + ": graph.pc_graph.topology.grid.sigma is the reach"));
  CHECK(contains(set({"graph.pc_graph.topology={erdos_renyi: {degree: 0}}", hidden}),
                 "c.yaml:3:9: graph.pc_graph: the topology has no edges"));
}

}  // namespace pc::test

// Graphs made from graphs. O22, O27 and O28 are the project's oracles: statements that hold exactly.
#include "graphs/transform.h"

#include <doctest/doctest.h>

#include <cmath>
#include <map>

#include "tests/gradients.h"

namespace pc::test {
namespace {

using graphs::Description;
using Paths = ScheduleSettings::Paths;

/// The problem with another graph, in which all of its nodes keep their numbers.
Problem with_graph(const Problem& problem, const Description& graph) {
  Problem changed = problem;
  changed.nodes = graph.nodes;
  changed.edges = graph.edges;
  changed.data.resize(graph.nodes.size());
  changed.mask.resize(graph.nodes.size());
  return changed;
}

std::vector<std::string> clamped_names(const Problem& problem) {
  std::vector<std::string> names;
  for (const Clamp& clamp : problem.clamps) names.push_back(problem.nodes[index(clamp.node)].name);
  return names;
}

Problem padded(const Problem& problem) {
  return with_graph(problem, graphs::pad_paths({problem.nodes, problem.edges}, clamped_names(problem)));
}

std::vector<std::string> param_names(const Graph& graph) {
  std::vector<std::string> names;
  for (const Param& param : graph.params()) names.push_back(param.name);
  return names;
}

std::vector<std::string> node_names(const Graph& graph) {
  std::vector<std::string> names;
  for (const Node& node : graph.nodes()) names.push_back(node.name);
  return names;
}

std::vector<std::string> edge_texts(const Graph& graph) {
  std::vector<std::string> texts;
  for (const Edge& edge : graph.edges()) {
    std::string text = edge.name + ":";
    for (const NodeId from : edge.from) text += " " + graph.node(from).name;
    texts.push_back(text + " -> " + graph.prediction(edge.prediction).name);
  }
  return texts;
}

/// Edges whose source, were it to move, would be seen too early: that lie more than one level apart.
int uneven_edges(const Graph& graph, const std::vector<Clamp>& clamps) {
  const std::vector<int> level = levels_to_loss(graph, clamps);
  int uneven = 0;
  for (const Edge& edge : graph.edges()) {
    const int to = level[index(graph.prediction(edge.prediction).node)];
    for (const NodeId from : edge.from) {
      const bool clamped =
          std::any_of(clamps.begin(), clamps.end(), [&](const Clamp& clamp) { return clamp.node == from; });
      if (clamped || to < 0) continue;
      uneven += level[index(from)] == to + 1 ? 0 : 1;
    }
  }
  return uneven;
}

/// Z-IL as it was published, whatever the graph: all values move live, and a level learns at its own step.
constexpr Schedule kLiteral{.name = "literal", .learn = Learn::by_level, .exact = true, .acyclic = true};

void check_same_params(const Graph& a, const Graph& b) {
  REQUIRE(param_names(a) == param_names(b));
  for (ParamId p = 0; p < a.param_count(); ++p) {
    CHECK(a.param(p).spec.shape == b.param(p).spec.shape);
    CHECK(a.param(p).mask == b.param(p).mask);
  }
}

}  // namespace

// --- pad_paths ---

TEST_CASE("pad: one chain for each source, by hand") {
  // x -> a -> b -> c -> y with a -> y (2 levels too far), a+b -> c (1 and 0) and x -> y (x does not move).
  const auto nodes = [](const std::vector<std::string>& names) {
    std::vector<NodeSpec> list;
    for (const std::string& name : names) list.push_back({.name = name, .shape = {2}});
    return list;
  };
  const std::vector<EdgeSpec> edges = {{.from = {"x"}, .to = "a", .chain = {linear()}},
                                       {.from = {"a"}, .to = "b", .chain = {linear(), op("tanh")}, .share = "W"},
                                       {.from = {"a", "b"}, .to = "c", .chain = {op("add"), linear()}},
                                       {.from = {"a"}, .to = "y", .chain = {linear()}, .share = "V"},
                                       {.from = {"a"}, .to = "y", .chain = {linear()}},
                                       {.from = {"x"}, .to = "y", .chain = {linear()}, .share = "V"},
                                       {.from = {"c"}, .to = "y", .chain = {linear()}},
                                       {.name = "lost", .from = {"b"}, .to = "z", .chain = {linear()}}};
  const Description before{nodes({"x", "a", "b", "c", "y", "z"}), edges};
  const Description after = graphs::pad_paths(before, {"x", "y"});
  const Graph graph(after.nodes, after.edges);
  CHECK(node_names(graph) == std::vector<std::string>{"x", "a", "b", "c", "y", "z", "a.pad1", "a.pad2"});
  CHECK(edge_texts(graph) == std::vector<std::string>{"x->a: x -> a", "a->b: a -> b", "a+b->c: a.pad1 b -> c",
                                                      "a->y: a.pad2 -> y", "a->y#2: a.pad2 -> y", "x->y: x -> y",
                                                      "c->y: c -> y", "lost: b -> z", "a->a.pad1: a -> a.pad1",
                                                      "a.pad1->a.pad2: a.pad1 -> a.pad2"});
  check_same_params(graph, Graph(before.nodes, before.edges));
  CHECK(graph.param(graph.edge(5).chain[0].params[0]).uses == 2);
}

TEST_CASE("pad: nothing to do, and what cannot be done") {
  const Problem even = clamped_mlp({3, 4, 4, 2}, 2, 1);
  CHECK(padded(even).nodes.size() == 4);
  CHECK(padded(even).edges.size() == 3);
  Problem odd = even;
  odd.edges.push_back({.from = {"x2"}, .to = "x1", .chain = {linear()}});
  CHECK(contains(error_of([&] { padded(odd); }), "[pad] the graph has a cycle: x1 -> x2 -> x1"));
  CHECK(contains(error_of([&] { graphs::pad_paths({even.nodes, even.edges}, {"x9"}); }), "no node named \"x9\""));
  odd = even;
  odd.edges.push_back({.from = {"x1"}, .to = "x3", .chain = {linear()}});
  odd.nodes.push_back({.name = "x1.pad1", .shape = {1}});
  odd.data.resize(5);
  CHECK(contains(error_of([&] { static_cast<void>(padded(odd).graph()); }), "there are two nodes named x1.pad1"));
}

TEST_CASE("pad: levelled, with the same parameters, on random graphs") {
  int needed = 0;
  each_graph("backprop", {}, [&](const Problem& problem) {
    const Graph before = problem.graph(), after = padded(problem).graph();
    CHECK(uneven_edges(after, problem.clamps) == 0);
    CHECK((after.node_count() > before.node_count()) == (uneven_edges(before, problem.clamps) > 0));
    needed += after.node_count() > before.node_count() ? 1 : 0;
    check_same_params(before, after);
    for (NodeId v = 0; v < before.node_count(); ++v) CHECK(before.node(v).name == after.node(v).name);
    for (EdgeId e = 0; e < before.edge_count(); ++e) CHECK(before.edge(e).name == after.edge(e).name);
    const std::vector<int> level = levels_to_loss(before, problem.clamps), now = levels_to_loss(after, problem.clamps);
    for (std::size_t v = 0; v < level.size(); ++v) CHECK(level[v] == now[v]);
  });
  MESSAGE("pad: ", needed, " of ", kGraphs, " graphs had unequal paths");
  CHECK(needed > kGraphs / 8);
}

TEST_CASE("O22, O27: schedules as published, on padded graphs, equal backprop on the graph") {
  for (const std::string schedule : {"zil", "fa_zil"}) {
    CAPTURE(schedule);
    double worst = 0, apart = 0;
    int needed = 0;
    each_graph(schedule, {}, [&](const Problem& problem) {
      const Problem even = padded(problem);
      needed += even.nodes.size() > problem.nodes.size() ? 1 : 0;
      const Gradients truth = gradients(problem, spec_for(problem, "backprop"));
      const Gradients found = gradients(even, spec_for(even, schedule, {.paths = Paths::pad}));
      CHECK(distance(found, truth) < 1e-10);
      worst = std::max(worst, distance(found, truth));
      CHECK(distance(gradients(even, spec_for(even, schedule, {.paths = Paths::pad}, false)), found) <=
            rounding(DType::f64));
      CHECK(distance(gradients(even, spec_for(even, "backprop")), truth) < 1e-12);
      // Values that move half the way only are exact no more, but waiting is still the same as walking through pads.
      const Gradients half = gradients(even, spec_for(even, schedule, {.paths = Paths::pad, .gamma = 0.5}));
      const Gradients latched = gradients(problem, spec_for(problem, schedule, {.paths = Paths::latch, .gamma = 0.5}));
      CHECK(distance(half, latched) < 1e-12);
      apart = std::max(apart, distance(half, latched));
    });
    MESSAGE(schedule, ": worst relative error ", worst, "; padded against latched at gamma 0.5: ", apart, "; ", needed,
            " graphs with pads");
    CHECK(needed > kGraphs / 8);
  }
}

TEST_CASE("O28: unequal paths need pads") {
  int uneven = 0, wrong = 0;
  double worst = 0;
  each_graph("zil", {}, [&](const Problem& problem) {
    const Gradients truth = gradients(problem, spec_for(problem, "backprop"));
    const Problem even = padded(problem);
    PlanSpec spec = spec_for(even, "zil");
    spec.schedule = &kLiteral;
    const double off = distance(gradients(even, spec), truth);
    CHECK(off < 1e-10);
    worst = std::max(worst, off);
    if (uneven_edges(problem.graph(), problem.clamps) == 0) return;
    ++uneven;
    wrong += distance(gradients(problem, spec), truth) > 1e-3 ? 1 : 0;
  });
  MESSAGE("O28: literal Z-IL is wrong on ", wrong, " of ", uneven, " uneven graphs; worst error with pads ", worst);
  // Here and there an early error does no harm: its path ends in a constant, or nothing before it learns.
  CHECK(wrong > uneven / 2);

  // A residual network: the way around each block is shorter than the way through it.
  Problem residual;
  for (const std::string name : {"x", "a", "b", "c", "y"}) residual.nodes.push_back({.name = name, .shape = {4}});
  for (const auto& [from, to] : {std::pair{"x", "a"}, {"a", "b"}, {"b", "c"}, {"c", "y"}}) {
    residual.edges.push_back({.from = {from}, .to = to, .chain = {op("tanh"), linear()}});
  }
  residual.edges.push_back({.from = {"a"}, .to = "c", .chain = {op("identity")}});
  Dice dice(3);
  residual.batch = 3;
  residual.clamp(0, dice.normals(12));
  residual.clamp(4, dice.normals(12));
  const Gradients truth = gradients(residual, spec_for(residual, "backprop"));
  PlanSpec spec = spec_for(residual, "zil");
  spec.schedule = &kLiteral;
  const double off = distance(gradients(residual, spec), truth);
  MESSAGE("O28: literal Z-IL on a residual network errs by ", off);
  CHECK(off > 1e-3);
  CHECK(distance(gradients(padded(residual), spec), truth) < 1e-12);
  CHECK(contains(error_of([&] { gradients(residual, spec_for(residual, "zil", {.paths = Paths::pad})); }),
                 "edge a->c skips 1 level(s); pad the graph"));
}

// --- unroll ---

namespace {

/// x -> h -> y; h feeds itself, y feeds h.
Description settling() {
  return {{{.name = "x", .shape = {3}}, {.name = "h", .shape = {4}}, {.name = "y", .shape = {2}}},
          {{.from = {"x"}, .to = "h", .chain = {linear()}},
           {.from = {"h"}, .to = "h", .chain = {linear(), op("tanh")}},
           {.from = {"h"}, .to = "y", .chain = {linear()}},
           {.from = {"y"}, .to = "h", .chain = {linear(false)}}}};
}

/// Random graphs with cycles. One of the clamped nodes becomes a target where it can.
template <class Body>
void each_cycle(int count, bool with_target, Body&& body) {
  int done = 0;
  for (std::uint64_t seed = 2000; done < count; ++seed) {
    REQUIRE(seed < 2000 + 40 * static_cast<std::uint64_t>(count));
    Problem problem = wild_problem(seed, {.backprop = true, .free_energies = true});
    const Graph graph = problem.graph();
    if (find_cycle(graph).empty()) continue;
    std::optional<Clamp> target;
    for (std::size_t i = problem.clamps.size(); with_target && i-- > 1 && !target;) {
      if (graph.node(problem.clamps[i].node).predictions.empty()) continue;
      target = problem.clamps[i];
      problem.clamps.erase(problem.clamps.begin() + static_cast<std::ptrdiff_t>(i));
    }
    if (with_target && !target) continue;
    CAPTURE(seed);
    body(problem, target, 1 + static_cast<int>(seed % 4));
    ++done;
  }
}

Problem unrolled(const Problem& problem, int sweeps) {
  return with_graph(problem, graphs::unroll({problem.nodes, problem.edges}, sweeps, clamped_names(problem)));
}

}  // namespace

TEST_CASE("unroll: what stands once and what has copies, by hand") {
  const Description after = graphs::unroll(settling(), 2, {"x"});
  const Graph graph(after.nodes, after.edges);
  CHECK(node_names(graph) == std::vector<std::string>{"x", "h", "y", "h@0", "y@0", "h@1", "y@1"});
  CHECK(edge_texts(graph) == std::vector<std::string>{"x->h: x -> h", "h->h: h@1 -> h", "h->y: h@1 -> y",
                                                      "y->h: y@1 -> h", "x->h@1: x -> h@1", "h->h@1: h@0 -> h@1",
                                                      "h->y@1: h@0 -> y@1", "y->h@1: y@0 -> h@1"});
  const Description before = settling();
  check_same_params(graph, Graph(before.nodes, before.edges));
  for (const Param& param : graph.params()) CHECK(param.uses == 2);
  // One sweep reads nothing but inputs and zeros. Where y does not feed back, no copy of it leads anywhere.
  Description ahead = settling();
  ahead.edges.pop_back();
  const Description one = graphs::unroll(ahead, 1, {"x"}), three = graphs::unroll(ahead, 3, {"x"});
  CHECK(node_names({one.nodes, one.edges}) == std::vector<std::string>{"x", "h", "y", "h@0"});
  CHECK(node_names({three.nodes, three.edges}) == std::vector<std::string>{"x", "h", "y", "h@0", "h@1", "h@2"});
  // As an input y stands once, and nothing predicts it any more.
  const Description held = graphs::unroll(settling(), 3, {"x", "y"});
  CHECK(node_names({held.nodes, held.edges}) == std::vector<std::string>{"x", "h", "y", "h@0", "h@1", "h@2"});
  CHECK(param_names({held.nodes, held.edges}) == std::vector<std::string>{"x->h/linear.weight", "x->h/linear.bias",
                                                                          "h->h/linear.weight", "h->h/linear.bias",
                                                                          "y->h/linear.weight"});
}

TEST_CASE("unroll: parameters that were shared, masked or priors before") {
  Description before = settling();
  before.nodes.push_back({.name = "p", .shape = {4}, .prior = true});
  before.edges.push_back({.from = {"p"}, .to = "h", .chain = {linear()}, .share = "W"});
  before.edges.push_back({.from = {"h"}, .to = "z", .chain = {linear()}, .share = "W"});
  before.nodes.push_back({.name = "z", .shape = {4}});
  before.edges[5].mask = [](const Shape& shape) {
    std::vector<std::uint8_t> mask(index(shape.count()), 1);
    mask[3] = 0;
    return mask;
  };
  const Description after = graphs::unroll(before, 3, {"x"});
  const Graph old(before.nodes, before.edges), graph(after.nodes, after.edges);
  check_same_params(old, graph);
  CHECK(graph.params().back().name == "p.prior/constant.bias");
  CHECK(graph.params().back().uses == 3);
  // A lost edge that named the parameters of another.
  Description lost = before;
  std::swap(lost.edges[4].from, lost.edges[5].from);
  std::swap(lost.edges[4].to, lost.edges[5].to);
  const Description rest = graphs::unroll(lost, 2, {"x", "z"});
  const Graph kept(rest.nodes, rest.edges), all(lost.nodes, lost.edges);
  check_same_params(kept, all);
  CHECK(all.edge(4).name == "h->z");
  CHECK(kept.edge(4).name == "h->z");
  CHECK(kept.node(kept.prediction(kept.edge(4).prediction).node).name == "h");
}

TEST_CASE("unroll: a sparse operator keeps its pattern in every copy") {
  Description before = settling();
  before.edges[1].chain = {op("sparse_linear", {{"bias", 0}})};
  before.edges[1].mask = [](const Shape& shape) {
    std::vector<std::uint8_t> mask(index(shape.count()), 0);
    for (std::size_t i = 0; i < mask.size(); i += 3) mask[i] = 1;
    return mask;
  };
  const Graph old(before.nodes, before.edges);
  const Description after = graphs::unroll(before, 3, {"x"});
  const Graph graph(after.nodes, after.edges);
  check_same_params(old, graph);
  const auto pattern = old.edge(1).chain[0].pattern;
  REQUIRE(pattern != nullptr);
  int copies = 0;
  for (const Edge& edge : graph.edges()) {
    if (edge.chain[0].pattern == nullptr) continue;
    CHECK(*edge.chain[0].pattern == *pattern);
    ++copies;
  }
  CHECK(copies == 3);
}

TEST_CASE("unroll: what cannot be unrolled") {
  CHECK(
      contains(error_of([] { graphs::unroll(settling(), 0, {"x"}); }), "[unroll] it takes at least one sweep, not 0"));
  CHECK(contains(error_of([] { graphs::unroll(settling(), 2, {"q"}); }), "no node named \"q\"; there are: x, h, y"));
  Description many = settling();
  many.nodes[1].prior = true;
  CHECK(contains(error_of([&] { graphs::unroll(many, 2, {"x"}); }), "node h has 2 predictions"));
  CHECK(error_of([&] { graphs::unroll(many, 2, {"x", "h"}); }).empty());
  many = settling();
  many.edges[3].prediction = "top_down";
  CHECK(contains(error_of([&] { graphs::unroll(many, 2, {"x"}); }), "node h has 2 predictions"));
}

TEST_CASE("unroll: the last copies hold what sweeps of the cyclic graph give, to the last bit") {
  int same_draws = 0;
  each_cycle(kGraphs, false, [&](const Problem& problem, const auto&, int sweeps) {
    CAPTURE(sweeps);
    const Problem open = unrolled(problem, sweeps);
    CHECK_FALSE(find_cycle(problem.graph()).empty());
    CHECK(find_cycle(open.graph()).empty());
    for (const bool optimize : {false, true}) {
      PlanSpec spec = plan_for(problem, 1, 0.0);  // at rate 0 the values stay where they start
      spec.optimize = optimize;
      spec.relax.init.sweeps = sweeps;
      Run cyclic(problem, spec), flat(open, spec);
      // Where no input lost its predictions, both drew the same weights.
      if (cyclic.network.graph().param_count() == flat.network.graph().param_count()) {
        check_same_params(cyclic.network.graph(), flat.network.graph());
        ++same_draws;
      } else {
        std::map<std::string, ParamId> by_name;
        for (ParamId p = 0; p < cyclic.network.graph().param_count(); ++p) {
          by_name[cyclic.network.graph().param(p).name] = p;
        }
        for (ParamId p = 0; p < flat.network.graph().param_count(); ++p) {
          const std::string& name = flat.network.graph().param(p).name;
          CAPTURE(name);
          REQUIRE(by_name.contains(name));
          flat.network.arena().write(flat.network.weight(p),
                                     read(cyclic.network, cyclic.network.weight(by_name[name])));
        }
      }
      cyclic.step();
      flat.step();
      for (NodeId v = 0; v < cyclic.network.graph().node_count(); ++v) {
        CHECK(worst_difference(read_value(cyclic.network, v, problem.batch),
                               read_value(flat.network, v, problem.batch)) <= rounding(DType::f64));
      }
    }
  });
  CHECK(same_draws >= 10);
}

TEST_CASE("unroll: exact schedules equal backprop through time") {
  std::map<std::string, double> worst;
  each_cycle(kGraphs, true, [&](const Problem& problem, const std::optional<Clamp>& target, int sweeps) {
    CAPTURE(sweeps);
    Problem open = unrolled(problem, sweeps);
    open.clamps.push_back(*target);
    const Gradients truth = gradients(open, spec_for(open, "backprop"));
    for (const std::string schedule : {"zil", "fa_zil", "fixed_prediction"}) {
      CAPTURE(schedule);
      const double off = distance(gradients(open, spec_for(open, schedule)), truth);
      CHECK(off < 1e-10);
      worst[schedule] = std::max(worst[schedule], off);
    }
    const Problem even = padded(open);
    const double off = distance(gradients(even, spec_for(even, "zil", {.paths = Paths::pad})), truth);
    CHECK(off < 1e-10);
    worst["zil, padded"] = std::max(worst["zil, padded"], off);
  });
  for (const auto& [schedule, error] : worst) MESSAGE("unrolled, ", schedule, ": worst relative error ", error);
}

TEST_CASE("unroll: the gradient is that of the last copy's loss, by finite differences") {
  const Description cyclic = settling();
  Problem problem;
  problem.nodes = cyclic.nodes;
  problem.edges = cyclic.edges;
  problem.batch = 3;
  Dice dice(11);
  problem.clamp(0, dice.normals(9));
  Problem open = unrolled(problem, 3);
  open.clamp(2, dice.normals(6));
  for (const std::string schedule : {"backprop", "zil", "fixed_prediction"}) {
    CAPTURE(schedule);
    Run run(open, spec_for(open, schedule));
    run.step();
    for (ParamId p = 0; p < run.network.graph().param_count(); ++p) {
      CAPTURE(run.network.graph().param(p).name);
      const Values gradient = read(run.network, run.network.gradient(p)), w = read(run.network, run.network.weight(p));
      // The loss, from the cyclic graph: three sweeps, then half the square of what is missing.
      const auto loss = [&](const Values& weights) {
        PlanSpec spec = plan_for(problem, 1, 0.0);
        spec.relax.init.sweeps = 3;
        Run start(problem, spec);
        start.network.arena().write(start.network.weight(p), weights);
        start.step();
        const Values y = read_value(start.network, "y", 3);
        double sum = 0;
        for (std::size_t i = 0; i < y.size(); ++i) sum += 0.5 * (y[i] - open.data[2][i]) * (y[i] - open.data[2][i]);
        return sum;
      };
      for (std::size_t i = 0; i < w.size(); ++i) {
        constexpr double kStep = 1e-5;
        Values up = w, down = w;
        up[i] += kStep;
        down[i] -= kStep;
        // Truncation errs by kStep^2, rounding by 1e-16 / kStep.
        CHECK(std::abs((loss(down) - loss(up)) / (2 * kStep) - gradient[i]) < 1e-8);
      }
    }
  }
}

// --- mupc ---

namespace {

double gain_of(const Description& graph, std::size_t edge, std::size_t link = 0) {
  return graph.edges[edge].chain[link].attrs.at("gain");
}

/// image -> h1 -> ... -> label with `layers` linear layers and a skip past each but the first and the last.
Description residual(std::int64_t in, std::int64_t width, std::int64_t out, int layers, const std::string& activation) {
  Description graph;
  graph.nodes.push_back({.name = "image", .shape = {in}});
  for (int l = 1; l < layers; ++l) graph.nodes.push_back({.name = "h" + std::to_string(l), .shape = {width}});
  graph.nodes.push_back({.name = "label", .shape = {out}});
  for (std::size_t l = 1; l < graph.nodes.size(); ++l) {
    const std::string from = graph.nodes[l - 1].name, to = graph.nodes[l].name;
    graph.edges.push_back({.from = {from}, .to = to, .chain = {linear(false)}});
    if (l > 1) graph.edges.back().chain.insert(graph.edges.back().chain.begin(), op(activation));
    if (l > 1 && l + 1 < graph.nodes.size()) {
      graph.edges.push_back({.from = {from}, .to = to, .chain = {op("identity")}});
    }
  }
  return graph;
}

}  // namespace

TEST_CASE("mupc: the scalings of the paper") {
  const Description graph = graphs::mupc(residual(6, 9, 4, 5, "relu"));
  // Edges: image->h1, then (h->h, skip) three times, then h4->label.
  CHECK(gain_of(graph, 0) == doctest::Approx(1 / std::sqrt(6.0)).epsilon(1e-15));
  for (const std::size_t e : {1, 3, 5}) {
    CHECK(gain_of(graph, e, 1) == doctest::Approx(1 / std::sqrt(9.0 * 5)).epsilon(1e-15));
    CHECK(graph.edges[e + 1].chain[0].attrs.empty());
  }
  CHECK(gain_of(graph, 7, 1) == doctest::Approx(1 / 9.0).epsilon(1e-15));
  // Without skips depth does not matter.
  Description chain = residual(6, 9, 4, 5, "relu");
  std::erase_if(chain.edges, [](const EdgeSpec& edge) { return edge.chain[0].op == &find_op("identity"); });
  chain = graphs::mupc(chain);
  for (const std::size_t e : {1, 2, 3}) CHECK(gain_of(chain, e, 1) == doctest::Approx(1 / 3.0).epsilon(1e-15));
  CHECK(gain_of(chain, 4, 1) == doctest::Approx(1 / 9.0).epsilon(1e-15));
}

TEST_CASE("mupc: sums, blocks of two layers, masks, gains that are there, inputs that lead to outputs") {
  Description graph;
  for (const auto& [name, width] : {std::pair{"x", 4}, {"a", 9}, {"b", 16}, {"c", 16}, {"y", 2}}) {
    graph.nodes.push_back({.name = name, .shape = {width}});
  }
  OpSpec doubled = linear();
  doubled.attrs["gain"] = 2;
  const OpSpec inner = op("linear", {{"units", 25}});
  graph.edges = {{.from = {"x"}, .to = "a", .chain = {linear(), op("tanh")}},
                 {.from = {"a"}, .to = "b", .chain = {linear()}},
                 {.from = {"x"}, .to = "b", .chain = {linear()}},
                 {.from = {"b"}, .to = "c", .chain = {inner, op("relu"), linear()}},
                 {.from = {"b"}, .to = "c", .chain = {op("identity")}},
                 {.from = {"c"}, .to = "y", .chain = {doubled}},
                 {.from = {"x"}, .to = "y", .chain = {linear()}},
                 {.from = {"x", "a"}, .to = "y", .chain = {op("concat"), inner, linear()}}};
  graph.edges[1].mask = [](const Shape& shape) {
    std::vector<std::uint8_t> mask(index(shape.count()), 0);
    for (std::size_t i = 0; i < mask.size(); i += 3) mask[i] = 1;
    return mask;
  };
  const Description scaled = graphs::mupc(graph);
  // The longest way is x -> a -> b => c -> y: five layers.
  CHECK(gain_of(scaled, 0) == doctest::Approx(1 / std::sqrt(4.0)));
  CHECK(gain_of(scaled, 1) == doctest::Approx(1 / std::sqrt(2 * 3.0)));  // a third of nine, one of two
  CHECK(gain_of(scaled, 2) == doctest::Approx(1 / std::sqrt(2 * 4.0)));
  CHECK(gain_of(scaled, 3, 0) == doctest::Approx(1 / std::sqrt(16.0)));
  CHECK(gain_of(scaled, 3, 2) == doctest::Approx(1 / std::sqrt(25.0 * 5)));
  CHECK(gain_of(scaled, 5) == doctest::Approx(2 / (16 * std::sqrt(3.0))));
  CHECK(gain_of(scaled, 6) == doctest::Approx(1 / std::sqrt(3 * 4.0)));
  CHECK(gain_of(scaled, 7, 1) == doctest::Approx(1 / std::sqrt(13.0)));
  CHECK(gain_of(scaled, 7, 2) == doctest::Approx(1 / (25 * std::sqrt(3.0))));
  CHECK(param_names({scaled.nodes, scaled.edges}) == param_names({graph.nodes, graph.edges}));
  CHECK(contains(error_of([] { graphs::mupc(settling()); }), "[mupc] the graph has a cycle: h -> h"));
}

TEST_CASE("mupc: hidden activations are of size one, however deep the network") {
  // Linear blocks multiply the variance by 1 + 1/L, all of them by at most e; relu halves that. Width 256 and 8 samples
  // leave some ten per cent of noise.
  for (const std::string activation : {"identity", "relu"}) {
    for (const int layers : {4, 16, 64}) {
      CAPTURE(activation);
      CAPTURE(layers);
      const Description graph = graphs::mupc(residual(32, 256, 10, layers, activation));
      Problem problem;
      problem.nodes = graph.nodes;
      problem.edges = graph.edges;
      problem.batch = 8;
      Dice dice(4);
      problem.clamp(0, dice.normals(8 * 32));
      Run run(problem, spec_for(problem, "pc"), DType::f64, 1, {.kind = WeightInit::Kind::normal});
      run.step();
      const auto deviation = [&](NodeId v) {
        double square = 0;
        const Values x = read_value(run.network, v, 8);
        for (const double entry : x) square += entry * entry;
        return std::sqrt(square / double(x.size()));
      };
      double least = INFINITY, most = 0;
      for (NodeId v = 1; v < layers; ++v) {
        least = std::min(least, deviation(v));
        most = std::max(most, deviation(v));
      }
      const double growth = std::pow(1 + (activation == "relu" ? 0.5 : 1.0) / layers, layers - 2);
      MESSAGE("mupc, ", activation, ", ", layers, " layers: hidden deviations ", least, " to ", most);
      CHECK(least > 0.8);
      CHECK(deviation(layers - 1) < 1.25 * std::sqrt(growth));
      CHECK(deviation(layers - 1) > 0.8 * std::sqrt(growth));
      CHECK(deviation(layers) < 2 * most / std::sqrt(256.0));  // muP: an output begins near zero
    }
  }
}

}  // namespace pc::test

// Networks over sequences: what single operators promise, what the named networks are made of, and that exact schedules
// train them as backprop does. (Their gradients are held to PyTorch's in fixtures_test.)
#include "graphs/graphs.h"
#include "kernels/precision.h"
#include "pc/step_bound.h"
#include "tests/networks.h"

namespace pc::test {
namespace {

/// Settings of a network, as a test writes them.
class TestSettings final : public graphs::Settings {
 public:
  std::map<std::string, double, std::less<>> numbers;
  std::map<std::string, std::string, std::less<>> words;
  std::vector<std::int64_t> shape;

  std::vector<std::int64_t> integers(std::string_view) override { return shape; }
  std::string text(std::string_view key, std::string_view fallback) override {
    const auto found = words.find(key);
    return found == words.end() ? std::string(fallback) : found->second;
  }
  double number(std::string_view key, double fallback) override {
    const auto found = numbers.find(key);
    return found == numbers.end() ? fallback : found->second;
  }
  bool flag(std::string_view key, bool fallback) override { return number(key, fallback ? 1 : 0) != 0; }
  OpSpec op(std::string_view key, std::string_view fallback) override { return {&find_op(text(key, fallback)), {}}; }
  std::vector<std::int64_t> integers_or(std::string_view, std::vector<std::int64_t> fallback) override {
    return fallback;
  }
  Choice choice(std::string_view, std::span<const std::string>, std::string_view) override {
    fail("test", "these networks have no choices");
  }
  graphs::EdgeList edge_list(std::string_view) override { return {}; }
  [[nodiscard]] std::uint64_t seed() const override { return 0; }
  [[nodiscard]] std::string place() const override { return "test"; }

 private:
  [[noreturn]] void refuse(std::string_view key, const std::string& text) override { fail("test", key, text); }
};

graphs::Description make(std::string_view name, TestSettings settings) {
  for (const graphs::Network* network : graphs::all_networks()) {
    if (network->name == name) return network->make(settings);
  }
  fail("test", "no network ", name);
}

TestSettings small_transformer() {
  TestSettings settings;
  settings.numbers = {{"context", 6}, {"entries", 5}, {"width", 8}, {"heads", 2}, {"layers", 2}, {"hidden", 12}};
  return settings;
}

/// Settings of a gather along an axis.
Attrs places(const Values& list, double axis = -1) {
  Attrs attrs{{"axis", axis}};
  set_list(attrs, "places", list);
  return attrs;
}

/// Tokens at the first node, and which comes next at the last one.
Problem text_problem(const graphs::Description& graph, std::int64_t batch, std::uint64_t seed) {
  Problem problem{.nodes = graph.nodes, .edges = graph.edges, .batch = batch};
  const Shape target = graph.nodes.back().shape;
  const std::int64_t steps = target[0], entries = target[1];
  Dice dice(seed);
  Values tokens, next(index(batch * steps * entries));
  for (std::int64_t i = 0; i < batch * steps; ++i) {
    tokens.push_back(dice.below(int(entries)));
    next[index(i * entries + dice.below(int(entries)))] = 1;
  }
  problem.clamp(0, tokens);
  problem.clamp(static_cast<NodeId>(graph.nodes.size()) - 1, next);
  return problem;
}

/// The loss before each of `steps` updates by Adam.
Values losses(const Problem& problem, const char* schedule, int steps) {
  PlanSpec spec = plan_for(problem, 1);
  spec.schedule = &find_schedule(schedule);
  spec.learn = LearnSpec{.rate = {.base = 0.01}};
  Run run(problem, spec);
  Values curve;
  for (int step = 0; step < steps; ++step) {
    run.trainer.reset_energies();
    run.step();
    curve.push_back(run.trainer.energies().total_start());
  }
  return curve;
}

}  // namespace

TEST_CASE("transformer, lstm: exact schedules and backprop give the same loss, step by step") {
  TestSettings lstm;
  lstm.shape = {5, 3};
  lstm.numbers = {{"units", 4}, {"outputs", 5}, {"entries", 5}, {"sequence", 1}};
  lstm.words = {{"output", "softmax_cross_entropy"}};
  for (const graphs::Description& graph : {make("transformer", small_transformer()), make("lstm", lstm)}) {
    const Problem problem = text_problem(graph, 3, 1);
    constexpr int kSteps = 12;
    const Values want = losses(problem, "backprop", kSteps);
    CHECK(want.back() < 0.97 * want.front());  // it learns, so that later steps compare something
    for (const char* schedule : {"zil", "fa_zil", "fixed_prediction"}) {
      CAPTURE(schedule);
      CHECK(relative_error(losses(problem, schedule, kSteps), want) < 1e-12);
    }
  }
}

TEST_CASE("transformer: no token sees a later one") {
  for (const char* positions : {"learned", "rotary"}) {
    TestSettings settings = small_transformer();
    settings.words = {{"positions", positions}};
    Problem problem = text_problem(make("transformer", settings), 1, 2);
    problem.clamps.pop_back();
    const auto answer = [&](int changed) {
      if (changed >= 0) problem.data[0][index(changed)] = std::fmod(problem.data[0][index(changed)] + 1, 5);
      Run run(problem, plan_for(problem, 1));
      run.step();
      return read_value(run.network, "next", 1);
    };
    const Values before = answer(-1), after = answer(3);
    for (std::size_t i = 0; i < before.size(); ++i) {
      const bool past = i < 3 * 5;
      CHECK((before[i] == after[i]) == past);
    }
  }
}

TEST_CASE("recurrent networks: nodes of every step, parameters of one") {
  TestSettings settings;
  settings.shape = {28, 28};
  settings.numbers = {{"units", 16}};
  struct Want {
    const char* name;
    int nodes;
    std::int64_t weights;
  };
  // lstm: 8 nodes a step, 7 at the first; 4 u (features + u + 1), and the label's 10 (u + 1).
  for (const Want& want : {Want{"rnn", 28 + 2, 16 * (28 + 16 + 1) + 170},
                           {"gru", 28 * 8 - 2 + 2, 48 * (28 + 16 + 1) + 170},
                           {"lstm", 28 * 8 - 1 + 2, 64 * (28 + 16 + 1) + 170}}) {
    CAPTURE(want.name);
    const graphs::Description made = make(want.name, settings);
    const Graph graph(made.nodes, made.edges);
    CHECK(graph.node_count() == want.nodes);
    CHECK(graph.weight_count() == want.weights);
  }
}

TEST_CASE("networks of sequences: wrong settings are named") {
  TestSettings settings = small_transformer();
  settings.numbers["heads"] = 3;
  CHECK(contains(error_of([&] { make("transformer", settings); }), "3 heads do not divide width 8"));
  settings = small_transformer();
  settings.words = {{"nodes", "all"}};
  CHECK(contains(error_of([&] { make("transformer", settings); }), "sublayers or inner"));
  settings = small_transformer();
  settings.numbers["layers"] = 1.5;
  CHECK(contains(error_of([&] { make("transformer", settings); }), "layers must be a whole number"));
  TestSettings lstm;
  lstm.shape = {28};
  CHECK(contains(error_of([&] { make("lstm", lstm); }), "[steps, features]"));
}

TEST_CASE("ops along axes: shapes that do not fit") {
  const auto infer = [](const Op& op, std::vector<Shape> sources, Attrs attrs, std::optional<Shape> wanted = {}) {
    const Attrs all = complete_attrs(op, attrs);
    return error_of([&] { op.infer({sources, all, wanted}); });
  };
  CHECK(contains(infer(ops::attention, {{3, 4}, {5, 4}}, {}), "q, k and v, or one source"));
  CHECK(contains(infer(ops::attention, {{3, 4}, {5, 4}, {5, 4}}, {{"causal", 1}}), "not equally long"));
  CHECK(contains(infer(ops::attention, {{3, 4}, {5, 4}, {5, 4}}, {{"heads", 3}}), "do not divide"));
  CHECK(contains(infer(ops::attention, {{3, 8}}, {}), "holds no q, k and v"));
  CHECK(contains(infer(ops::softmax, {{3, 4}}, {{"causal", 1}}), "no square"));
  CHECK(contains(infer(ops::embedding, {{3}}, {}, Shape{3, 2}), "entries"));
  CHECK(contains(infer(ops::rotary, {{3, 5}}, {}), "must be even"));
  CHECK(contains(infer(ops::rotary, {{3, 4}}, {{"base", 0}}), "base: 0 must be above 0"));
  CHECK(contains(infer(ops::rotary, {{3, 4}}, {{"count", 6}}), "count: 6 is more"));
  CHECK(contains(infer(ops::permute, {{3, 5, 2}}, {{"order", 112}}), "does not name each"));
  CHECK(contains(infer(ops::permute, {{3, 5}}, {{"order", 102}}), "does not name each"));
  CHECK(contains(infer(ops::concat, {{3, 5}, {3, 4}}, {{"axis", 0}}), "cannot be joined along axis 0"));
  CHECK(contains(infer(ops::slice, {{3, 5}}, {{"axis", 2}, {"count", 1}}), "axis 2 is none of [3, 5]"));
  CHECK(contains(infer(ops::matmul, {{2, 3, 4}, {3, 4, 3}}, {}), "not equally deep"));
  CHECK(contains(infer(ops::gather, {{3, 5}}, {}), "which entries? Write {gather: {places:"));
  CHECK(contains(infer(ops::gather, {{3, 5}, {2}}, places({1})), "leave one of them out"));
  CHECK(contains(infer(ops::gather, {{3, 5}, {2, 2}}, {}), "one list of places, [k], not [2, 2]"));
  CHECK(contains(infer(ops::gather, {{3, 5}, {2}}, {{"axis", 2}}), "axis 2 is none of [3, 5]"));
  CHECK(contains(infer(ops::gather, {{3, 5}}, places({4, 5}, 1)), "place 5 is none of [3, 5], which has 0 to 4"));
  CHECK(contains(infer(ops::gather, {{3, 5}}, places({15})), "0 to 14"));
  CHECK(contains(infer(ops::gather, {{3, 5}}, places({1, -1})), "place -1 is none"));
  CHECK(contains(infer(ops::gather, {{3, 5}}, places({0.5})), "place 0.5 is none"));
}

TEST_CASE("embedding: the nearest entry, and NaN for no number at all") {
  const auto row = [](double x) {
    Problem problem{.nodes = {{.name = "x0", .shape = {1}}, {.name = "x1", .shape = {1, 2}}},
                    .edges = {{.from = {"x0"}, .to = "x1", .chain = {op("embedding", {{"entries", 3}})}}}};
    problem.clamp(0, {x});
    Run run(problem, plan_for(problem, 1));
    run.network.arena().write(run.network.weight(0), {0, 1, 10, 11, 20, 21});
    run.step();
    return read_value(run.network, "x1", 1);
  };
  CHECK(row(1) == Values{10, 11});
  CHECK(row(1.4) == Values{10, 11});
  CHECK(row(-7) == Values{0, 1});
  CHECK(row(99) == Values{20, 21});
  CHECK(std::isnan(row(NAN)[0]));
}

TEST_CASE("gather: the nearest place of a second source, and NaN for no number at all") {
  const auto entry = [](double place) {
    Problem problem{.nodes = {{.name = "x", .shape = {3}}, {.name = "at", .shape = {1}}, {.name = "y", .shape = {1}}},
                    .edges = {{.from = {"x", "at"}, .to = "y", .chain = {op("gather")}}}};
    problem.clamp(0, {10, 20, 30});
    problem.clamp(1, {place});
    Run run(problem, plan_for(problem, 1));
    run.step();
    return read_value(run.network, "y", 1)[0];
  };
  CHECK(entry(1) == 20);
  CHECK(entry(1.4) == 20);
  CHECK(entry(1.5) == 30);
  CHECK(entry(-7) == 10);
  CHECK(entry(99) == 30);
  CHECK(std::isnan(entry(NAN)));
}

TEST_CASE("gather: as slices at these places, joined, by exact schedules") {
  const Values list = {3, 1, 4, 1};
  Problem by_gather{.nodes = {{.name = "image", .shape = {4}}, {.name = "x", .shape = {2, 5, 3}}},
                    .edges = {{.from = {"image"}, .to = "x", .chain = {linear(), op("tanh")}}},
                    .batch = 3};
  Problem by_slices = by_gather, by_source = by_gather;
  const NodeSpec y{.name = "y", .shape = {2, 4, 3}}, label{.name = "label", .shape = {2}};
  const EdgeSpec last{.from = {"y"}, .to = "label", .chain = {linear()}};
  by_gather.nodes.insert(by_gather.nodes.end(), {label, y});
  by_gather.edges.push_back({.from = {"x"}, .to = "y", .chain = {op("gather", places(list, 1)), op("tanh")}});
  by_source.nodes.insert(by_source.nodes.end(), {label, y, {.name = "at", .shape = {4}}});
  by_source.edges.push_back({.from = {"x", "at"}, .to = "y", .chain = {op("gather", {{"axis", 1}}), op("tanh")}});
  by_slices.nodes.insert(by_slices.nodes.end(), {label, y});
  EdgeSpec join{.to = "y", .chain = {op("concat", {{"axis", 1}}), op("tanh")}};
  for (std::size_t i = 0; i < list.size(); ++i) {
    join.from.push_back("part" + std::to_string(i));
    by_slices.nodes.push_back({.name = join.from.back(), .shape = {2, 1, 3}});
    by_slices.edges.push_back({.from = {"x"},
                               .to = join.from.back(),
                               .chain = {op("slice", {{"axis", 1}, {"begin", list[i]}, {"count", 1}})}});
  }
  by_slices.edges.push_back(join);

  Dice dice(8);
  const Values image = dice.normals(3 * 4), wanted = dice.normals(3 * 2);
  const auto gradients = [&](Problem problem, const char* schedule) {
    problem.edges.push_back(last);
    problem.clamp(0, image);
    problem.clamp(2, wanted);
    if (problem.nodes.back().name == "at") problem.clamp(4, {3, 1, 4, 1, 3, 1, 4, 1, 3, 1, 4, 1});
    PlanSpec spec = plan_for(problem, 1);
    spec.schedule = &find_schedule(schedule);
    spec.gradients = true;
    Run run(problem, spec);
    run.step();
    Values all;
    for (ParamId p = 0; p < run.network.graph().param_count(); ++p) {
      const Values one = read(run.network, run.network.gradient(p));
      all.insert(all.end(), one.begin(), one.end());
    }
    return all;
  };
  const Values want = gradients(by_slices, "backprop");
  CHECK(want.size() == 30 * 4 + 30 + 2 * 24 + 2);
  for (const char* schedule : {"backprop", "zil", "fa_zil", "fixed_prediction"}) {
    CAPTURE(schedule);
    CHECK(relative_error(gradients(by_gather, schedule), want) < 1e-12);
    CHECK(relative_error(gradients(by_source, schedule), want) < 1e-12);
  }
}

TEST_CASE("gather: relaxation and learning are those of the reference, and go by changes where places are listed") {
  for (const bool listed : {true, false}) {
    CAPTURE(listed);
    Problem problem{.nodes = {{.name = "image", .shape = {4}},
                              {.name = "at", .shape = {4}},
                              {.name = "x", .shape = {3, 2}},
                              {.name = "y", .shape = {4, 2}},
                              {.name = "label", .shape = {2}}},
                    .edges = {{.from = {"image"}, .to = "x", .chain = {linear(), op("tanh")}},
                              {.from = {"x"}, .to = "y", .chain = {op("gather", places({2, 0, 2, 1}, 0))}},
                              {.from = {"y"}, .to = "label", .chain = {op("gather", places({7, 7, 3})), linear()}}},
                    .batch = 2};
    if (!listed) problem.edges[1] = {.from = {"x", "at"}, .to = "y", .chain = {op("gather", {{"axis", 0}})}};
    Dice dice(9);
    problem.clamp(0, dice.normals(8));
    problem.clamp(1, {0, 0, 1, 2, 2, 0, 2, 1});
    problem.clamp(4, dice.normals(4));
    for (const Form form : {Form::values, Form::changes}) {
      for (const bool optimize : {true, false}) {
        CAPTURE(optimize);
        PlanSpec spec = plan_for(problem, 5, 0.2);
        spec.gradients = true;
        spec.form = form;
        spec.optimize = optimize;
        Run run(problem, spec);
        Reference reference(run.network, problem, spec);
        run.step();
        reference.step();
        CHECK(run.network.arena().has("dx/x") == (listed && form == Form::changes));
        for (const NodeId v : {2, 3}) {
          CHECK(worst_difference(read_value(run.network, v, 2), reference.flat(v)) < 1e-12);
        }
        for (ParamId p = 0; p < run.network.graph().param_count(); ++p) {
          CHECK(worst_difference(read(run.network, run.network.gradient(p)), reference.dw[index(p)]) < 1e-12);
        }
      }
    }
  }
}

TEST_CASE("gather: how far it stretches a change is known of a list") {
  CHECK(ops::gather.lipschitz(places({4, 0, 2})) == 1);
  CHECK(ops::gather.lipschitz(places({1, 0, 1, 0, 1})) == std::sqrt(3));
  Problem problem{.nodes = {{.name = "x", .shape = {3}}, {.name = "at", .shape = {2}}, {.name = "y", .shape = {2}}},
                  .edges = {{.from = {"x", "at"}, .to = "y", .chain = {op("gather")}}}};
  problem.clamp(2, {1, 2});
  Network network(problem.graph(), test_exec(), DType::f64, 1, 0, {});
  CHECK(contains(error_of([&] { step_bound(network, find_schedule("pc"), problem.clamps); }),
                 "no bound on how gather stretches its sources"));
}

// --- energies ---

TEST_CASE("categorical_kl, laplace: relaxation and learning are those of the reference") {
  for (const Energy* energy : {&categorical_kl, &laplace}) {
    CAPTURE(energy->name);
    Problem problem{.nodes = {{.name = "in", .shape = {3}},
                              {.name = "code", .shape = {2, 3}, .energy = {energy, {0.7}}},
                              {.name = "out", .shape = {4}}},
                    .edges = {{.from = {"in"}, .to = "code", .chain = {op("linear", {{"units", 6}}), op("reshape")}},
                              {.from = {"code"}, .to = "out", .chain = {op("softmax"), linear()}}},
                    .batch = 2};
    Dice dice(4);
    problem.clamp(0, dice.normals(6));
    problem.clamp(2, dice.normals(8));
    PlanSpec spec = plan_for(problem, 5, 0.2);
    spec.relax.init = {.kind = ValueInit::Kind::normal, .sigma = 0.5};  // where mu differs from x: |x - mu| has a kink
    spec.gradients = true;
    Run run(problem, spec);
    Reference reference(run.network, problem, spec);
    run.step();
    reference.step();
    for (std::int64_t b = 0; b < 2; ++b) {
      CHECK(worst_difference(rows_of(read_value(run.network, "code", 2), 2, b, 1), reference.x[1][index(b)]) < 1e-12);
    }
    for (ParamId p = 0; p < run.network.graph().param_count(); ++p) {
      CHECK(worst_difference(read(run.network, run.network.gradient(p)), reference.dw[index(p)]) < 1e-12);
    }
  }
}

TEST_CASE("laplace: a constant is pulled by how many values lie on each side, and rests at the median") {
  Problem problem{.nodes = {{.name = "x", .shape = {1}, .energy = {&laplace, {1}}}},
                  .edges = {{.to = "x", .chain = {op("constant")}}},
                  .batch = 5};
  problem.clamp(0, {-3, 0.5, 1, 2, 100});
  PlanSpec spec = plan_for(problem, 1);
  spec.gradients = true;
  Run run(problem, spec);
  for (const auto& [at, pull] : {std::pair{0.0, 3.0}, {0.75, 1.0}, {1.0, 0.0}, {1.5, -1.0}, {50.0, -3.0}}) {
    run.network.arena().write(run.network.weight(0), {at});
    run.step();
    CHECK(read(run.network, run.network.gradient(0)) == Values{pull});
  }
}

TEST_CASE("learned precisions: they go to the inverse mean squares of the errors, at their rate") {
  constexpr std::int64_t kBatch = 64;
  Problem problem{
      .nodes = {{.name = "x", .shape = {3}}}, .edges = {{.to = "x", .chain = {op("constant")}}}, .batch = kBatch};
  problem.nodes[0].energy = {&gaussian, {2.0}, 0.3};
  Dice dice(5);
  const Values scales = {0.1, 1, 7};
  Values data(3 * kBatch), mean_square(3);
  for (std::size_t i = 0; i < data.size(); ++i) {
    data[i] = scales[i % 3] * dice.normal();
    mean_square[i % 3] += data[i] * data[i] / double(kBatch);
  }
  problem.clamp(0, data);
  PlanSpec spec = plan_for(problem, 1);
  spec.learn = LearnSpec{.optimizer = WeightSgd{}, .rate = {.base = 0}};  // the prediction stays
  Run run(problem, spec, DType::f64, 1, {WeightInit::Kind::zeros});
  Values variance(3, 0.5);
  for (int step = 0; step < 80; ++step) {
    run.step();
    for (std::size_t i = 0; i < 3; ++i) variance[i] = 0.7 * variance[i] + 0.3 * mean_square[i];
    if (step != 0 && step != 5 && step != 79) continue;
    const Values now = read(run.network, run.network.precisions(0));
    for (std::size_t i = 0; i < 3; ++i) CHECK(now[i] * variance[i] == doctest::Approx(1).epsilon(1e-12));
  }
  const Values settled = read(run.network, run.network.precisions(0));
  for (std::size_t i = 0; i < 3; ++i) CHECK(settled[i] * mean_square[i] == doctest::Approx(1).epsilon(1e-10));

  problem.nodes[0].energy.precision = {0.5};
  problem.nodes[0].energy.most_precision = 3;
  Run bounded(problem, spec, DType::f64, 1, {WeightInit::Kind::zeros});
  for (int step = 0; step < 80; ++step) bounded.step();
  const Values below = read(bounded.network, bounded.network.precisions(0));
  CHECK(below[0] == doctest::Approx(3));  // its errors ask for about 100
  for (std::size_t i = 1; i < 3; ++i) CHECK(below[i] == doctest::Approx(settled[i]));
  problem.nodes[0].energy.precision = {4};
  CHECK(contains(error_of([&] { static_cast<void>(problem.graph()); }), "at most as large as it may become"));

  spec.schedule = &find_schedule("zil");
  problem.nodes[0].energy = {&gaussian, {2.0}, 0.3};
  CHECK(contains(error_of([&] { Run(problem, spec).step(); }), "learned from settled errors, which zil does not have"));
  spec.schedule = &find_schedule("ipc");
  spec.relax.precision.kind = PrecisionSchedule::Kind::spiking;
  CHECK(contains(error_of([&] { Run(problem, spec).step(); }), "from errors that relax.precision multiplies"));
  spec.relax.precision = {};
  problem.nodes[0].energy.energy = &laplace;
  CHECK(contains(error_of([&] { static_cast<void>(problem.graph()); }), "only a gaussian's precision"));
  problem.nodes[0].energy = {&gaussian, {0.0}, 0.3};
  CHECK(contains(error_of([&] { static_cast<void>(problem.graph()); }), "begins above 0"));
}

TEST_CASE("learned precisions: a relaxation sees them at its next step") {
  // mu = 0 and mu = 4 pull at one value: it settles at the mean, weighted by their precisions.
  Problem problem{
      .nodes = {{.name = "x", .shape = {1}, .energy = {&gaussian, {1}, 1.0}, .predictions = {{"b", {&gaussian, {1}}}}}},
      .edges = {{.to = "x", .chain = {op("constant")}}, {.to = "x", .prediction = "b", .chain = {op("constant")}}},
      .batch = 1};
  PlanSpec spec = plan_for(problem, 60, 0.2);
  spec.learn = LearnSpec{.optimizer = WeightSgd{}, .rate = {.base = 0}};
  Run run(problem, spec);
  run.network.arena().write(run.network.weight(0), {0});
  run.network.arena().write(run.network.weight(1), {4});
  run.step();
  CHECK(read_value(run.network, "x", 1)[0] == doctest::Approx(2));  // equal precisions
  const PredictionId p = run.network.graph().node(0).predictions[0];
  const double learned = read(run.network, run.network.precisions(p))[0];
  CHECK(learned == doctest::Approx(0.25));  // its error was 2
  run.step();
  CHECK(read_value(run.network, "x", 1)[0] == doctest::Approx(4 / (1 + learned)));
}

}  // namespace pc::test

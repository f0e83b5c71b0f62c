// pc check: its arithmetic against hand computations, its measurements against closed forms, and the program.
#include "experiments/check.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "pc/h5.h"
#include "tests/networks.h"
#include "tests/program.h"

namespace {

using namespace pc;
using namespace pc::test;
using namespace pc::experiments;
using Json = nlohmann::json;
using doctest::Approx;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// A chain and a way past one of its nodes.
const std::string kGraph = R"(name: tiny
seed: 5
device: cpu
graph:
  nodes:
    image: {shape: [4]}
    low:   {shape: [5]}
    high:  {shape: [3]}
    label: {shape: [2]}
  edges:
    - {from: image, to: low, op: [linear, tanh]}
    - {from: low, to: high, op: [linear, gelu]}
    - {from: low, to: label, op: linear}
    - {from: high, to: label, op: linear}
task: {check: {clamp: [image, label]}}
check: {batch: 6}
)";

const std::string kCycle = R"(name: round
device: cpu
graph:
  nodes: {image: {shape: [4]}, low: {shape: [5]}, label: {shape: [2]}}
  edges:
    - {from: image, to: low, op: [linear, tanh]}
    - {from: low, to: low, op: [linear, {scale: {by: 0.2}}]}
    - {from: low, to: label, op: linear}
task: {check: {clamp: [image, label]}}
)";

Config config_of(const std::string& yaml) { return read_config(parse_config(yaml, "t.yaml")); }

Difference of(const Measured& measured, const std::string& parameter) {
  for (const Compared& compared : measured.parameters) {
    if (compared.parameter == parameter) return compared.difference;
  }
  FAIL("no such parameter");
  return {};
}

}  // namespace

TEST_CASE("difference: numbers computed by hand") {
  const Difference d = difference({3, 4}, {3, 0});
  CHECK(d.relative == Approx(4.0 / 3));
  CHECK(d.cosine == Approx(0.6));
  CHECK(d.entry == Approx(4.0 / 3));
  const Difference e = difference({1, -2, 2}, {2, -4, 4});
  CHECK(e.relative == Approx(0.5));
  CHECK(e.cosine == Approx(1));
  CHECK(e.entry == Approx(0.5));
  CHECK(difference({1, 2}, {-1, -2}).cosine == Approx(-1));
  CHECK(difference({0.5}, {0.5}).relative == 0);
  const Difference tiny = difference({3e-200, 4e-200}, {3e-200, 0}), huge = difference({3e200, 4e200}, {3e200, 0});
  CHECK(tiny.relative == Approx(4.0 / 3));
  CHECK(huge.cosine == Approx(0.6));
}

TEST_CASE("difference: nothing, zeros, and numbers that are none") {
  CHECK(difference({}, {}).relative == 0);
  CHECK(difference({0, 0}, {0, 0}).relative == 0);
  CHECK(difference({0, 0}, {0, 0}).cosine == 1);
  CHECK(difference({0, 1e-300}, {0, 0}).relative == kInfinity);
  CHECK(difference({0, 0}, {0, 2}).relative == 1);
  CHECK(difference({0, 0}, {0, 2}).cosine == 0);
  for (const double broken : {kNaN, kInfinity, -kInfinity}) {
    for (const auto& [g, r] : {std::pair{broken, 1.0}, {1.0, broken}, {broken, broken}}) {
      const Difference d = difference({1, g}, {1, r});
      CHECK_FALSE(d.within(1e300));
      CHECK(d.relative == kInfinity);
      CHECK(std::isnan(d.cosine));
    }
  }
  CHECK_THROWS_AS(difference({1}, {1, 2}), pc::Error);
  CHECK_FALSE(Difference{.relative = kNaN}.within(1));
}

TEST_CASE("compare: keeps the worst of each number, and a wrong gradient fails") {
  const Tensors reference = {{"a", {1, 0}}, {"b", {0, 10}}, {"c", {0}}};
  Measured same{.exact = true, .tolerance = 1e-10};
  compare(same, reference, reference);
  CHECK(same.passed());
  CHECK_FALSE(same.failed());
  CHECK(same.where == "a");
  CHECK(same.parameters.size() == 3);

  Measured off{.exact = true, .tolerance = 1e-10};
  compare(off, {{"a", {1, 1}}, {"b", {0, 30}}, {"c", {0}}}, reference);
  CHECK(off.failed());
  CHECK(off.worst.relative == Approx(2));
  CHECK(off.worst.entry == Approx(2));
  CHECK(off.worst.cosine == Approx(std::sqrt(0.5)));  // of a, while b is the farthest
  CHECK(off.where == "b");
  CHECK(of(off, "a").relative == Approx(1));

  for (const Tensors& wrong :
       {Tensors{{"a", {1, 1e-9}}, {"b", {0, 10}}, {"c", {0}}}, Tensors{{"a", {1, 0}}, {"b", {0, -10}}, {"c", {0}}},
        Tensors{{"a", {1, 0}}, {"b", {0, 10}}, {"c", {1e-8}}}, Tensors{{"a", {1, kNaN}}, {"b", {0, 10}}, {"c", {0}}},
        Tensors{{"a", {0, 0}}, {"b", {0, 0}}, {"c", {0}}}}) {
    Measured measured{.exact = true, .tolerance = 1e-10};
    compare(measured, wrong, reference);
    CHECK(measured.failed());
    measured.exact = false;
    CHECK_FALSE(measured.failed());
    CHECK_FALSE(measured.passed());
  }
  // Where the reference is zero, errors are in units of the whole gradient: |r| = sqrt(101), largest entry 10.
  Measured beside_zero{.exact = true, .tolerance = 1e-10};
  compare(beside_zero, {{"a", {1, 0}}, {"b", {0, 10}}, {"c", {-5}}}, reference);
  CHECK(beside_zero.where == "c");
  CHECK(beside_zero.worst.relative == Approx(5 / std::sqrt(101.0)));
  CHECK(beside_zero.worst.entry == Approx(0.5));
  CHECK(beside_zero.worst.cosine == 1);
  CHECK(beside_zero.parameters[2].zero);
  CHECK_FALSE(beside_zero.parameters[1].zero);
  // So they are where there is nothing but rounding, seen in float64; what is merely small is measured by itself.
  Measured beside_noise{.exact = true, .tolerance = 1e-10}, beside_small = beside_noise;
  const Tensors noise = {{"a", {1, 0}}, {"b", {0, 10}}, {"c", {1e-14}}},
                in_float = {{"a", {1, 0}}, {"b", {0, 10}}, {"c", {3e-7}}},
                small = {{"a", {1, 0}}, {"b", {0, 10}}, {"c", {1e-12}}};
  compare(beside_noise, {{"a", {1, 0}}, {"b", {0, 10}}, {"c", {-2e-7}}}, in_float, noise);
  CHECK(beside_noise.parameters[2].zero);
  CHECK(beside_noise.worst.relative == Approx(2e-7 / std::sqrt(101.0)).epsilon(1e-6));
  compare(beside_small, {{"a", {1, 0}}, {"b", {0, 10}}, {"c", {2e-12}}}, small);
  CHECK_FALSE(beside_small.parameters[2].zero);
  CHECK(beside_small.worst.relative == Approx(1));
  for (const double broken : {kNaN, kInfinity}) {
    Measured none{.exact = true, .tolerance = 1e-10};
    compare(none, {{"a", {1, 0}}, {"b", {0, 0}}}, {{"a", {1, 0}}, {"b", {broken, broken}}});
    CHECK(none.failed());
    Measured nowhere{.exact = true, .tolerance = 1e-10};
    compare(nowhere, {{"a", {0}}}, {{"a", {broken}}});
    CHECK(nowhere.failed());
  }
  Measured nothing{.exact = true, .tolerance = 1e-10};
  compare(nothing, {{"a", {1e-30}}}, {{"a", {0}}});
  CHECK(nothing.failed());

  Measured measured;
  CHECK_THROWS_AS(compare(measured, {{"a", {1, 0}}}, reference), pc::Error);
  CHECK_THROWS_AS(compare(measured, {{"a", {1, 0}}, {"b", {0, 10}}, {"d", {0}}}, reference), pc::Error);
}

TEST_CASE("weights after training: the largest difference, and NaN never passes") {
  const Tensors reference = {{"a", {1, 4}}, {"b", {100, 0}}};
  Trained trained{.tolerance = 1e-3};
  compare_weights(trained, {{"a", {1, 4.002}}, {"b", {100, 0.01}}}, reference);
  CHECK(trained.absolute == Approx(0.01));
  CHECK(trained.relative == Approx(0.0005));
  CHECK(trained.where == "a");
  CHECK_FALSE(trained.failed());
  Trained broken{.tolerance = 1e-3};
  compare_weights(broken, {{"a", {1, kNaN}}, {"b", {100, 0}}}, reference);
  CHECK(broken.failed());
  // What rounding alone has moved is left out, but not what is no number.
  const std::set<std::string> moved = {"a"};
  Trained rounded{.tolerance = 1e-3};
  compare_weights(rounded, {{"a", {1, 9}}, {"b", {100, 0.01}}}, reference, moved);
  CHECK(rounded.left_out == std::vector<std::string>{"a"});
  CHECK(rounded.left_out_absolute == 5);
  CHECK(rounded.absolute == Approx(0.01));
  CHECK(rounded.where == "b");
  CHECK_FALSE(rounded.failed());
  Trained lost{.tolerance = 1e-3};
  compare_weights(lost, {{"a", {1, kNaN}}, {"b", {100, 0}}}, reference, moved);
  CHECK(lost.failed());
}

TEST_CASE("gradients that are zero but for rounding: in units of the whole") {
  const Tensors gradient = {{"a", {3, 4}}, {"b", {1e-16, -1e-15}}, {"c", {0}}, {"d", {1e-12}}};
  CHECK(zero_gradients(gradient, 5) == std::set<std::string>{"b", "c"});
  CHECK(zero_gradients(gradient, 500) == std::set<std::string>{"b", "c", "d"});
  CHECK(zero_gradients(gradient, kNaN).empty());
}

TEST_CASE("losses on the way: the largest difference and where it is, and NaN never passes") {
  Trained trained{.tolerance = 1e-3};
  compare_losses(trained, {4, 2.0002, 1}, {4, 2, 1.0001});
  CHECK(trained.loss_relative == Approx(1e-4));
  CHECK(trained.losses.size() == 3);
  CHECK_FALSE(trained.failed());
  compare_losses(trained, {4, 2, 1}, {4, 2.1, 1});
  CHECK(trained.loss_step == 1);
  CHECK(trained.failed());
  Trained broken{.tolerance = 1e-3};
  compare_losses(broken, {4, kNaN}, {4, 2});
  CHECK(broken.failed());
  CHECK_THROWS_AS(compare_losses(broken, {4}, {4, 2}), pc::Error);
}

TEST_CASE("slopes and binomials") {
  const auto points = [](double power) {
    std::vector<LawPoint> list;
    for (const double value : {0.1, 0.03, 0.01}) list.push_back({.value = value, .error = 3 * std::pow(value, power)});
    return list;
  };
  CHECK(fitted_slope(points(2)).value() == Approx(2));
  CHECK(fitted_slope(points(1)).value() == Approx(1));
  CHECK_FALSE(fitted_slope({{.value = 0.1, .error = 1}}).has_value());
  CHECK_FALSE(fitted_slope({{.value = 0.1, .error = 0}, {.value = 0.2, .error = 1}}).has_value());
  CHECK(at_least_successes(2, 0.5, 0) == 1);
  CHECK(at_least_successes(2, 0.5, 1) == Approx(0.75));
  CHECK(at_least_successes(2, 0.5, 2) == Approx(0.25));
  CHECK(at_least_successes(2, 0.5, 3) == 0);
  CHECK(at_least_successes(3, 0.3, 2) == Approx(3 * 0.09 * 0.7 + 0.027));
  CHECK(at_least_successes(7, 1, 7) == 1);
  CHECK(at_least_successes(6, 1, 7) == 0);
}

TEST_CASE("levels of parameters: only those with ways of one length") {
  const Config config = config_of(kGraph);
  const Graph graph(config.graph.nodes, config.graph.edges);
  const auto levels = parameter_levels(graph, {{graph.find("image")}, {graph.find("label")}});
  CHECK(levels.at("low->label/linear.weight") == 0);
  CHECK(levels.at("high->label/linear.bias") == 0);
  CHECK(levels.at("low->high/linear.weight") == 1);
  CHECK_FALSE(levels.contains("image->low/linear.weight"));  // one way of 1 and one of 2
}

TEST_CASE("random batches: the same numbers each time, of the right kind") {
  std::vector<NodeSpec> nodes = {{.name = "in", .shape = {3}},
                                 {.name = "classes", .shape = {2, 2}, .energy = {&softmax_cross_entropy, {1}}},
                                 {.name = "bits", .shape = {5}, .energy = {&bernoulli, {1}}}};
  std::vector<EdgeSpec> edges;
  for (const char* to : {"classes", "bits"}) edges.push_back({.from = {"in"}, .to = to, .chain = {linear()}});
  edges[0].chain = {op("linear", {{"units", 4}})};
  nodes[1].shape = {4};
  const Graph graph(nodes, edges);
  const std::vector<std::string> names = {"in", "classes", "bits"};
  const CheckBatch batch = random_batch(graph, names, 50, 1, 0);
  CHECK(batch.values == random_batch(graph, names, 50, 1, 0).values);
  CHECK(batch.values != random_batch(graph, names, 50, 1, 1).values);
  CHECK(batch.values != random_batch(graph, names, 50, 2, 0).values);
  double in = 0, square = 0;
  for (const double x : batch.values.at("in")) in += x, square += x * x;
  CHECK(std::abs(in / 150) < 0.4);
  CHECK(square / 150 == Approx(1).epsilon(0.4));
  std::vector<int> seen(4, 0);
  for (std::size_t row = 0; row < 50; ++row) {
    double sum = 0;
    for (std::size_t i = 0; i < 4; ++i) {
      const double x = batch.values.at("classes")[row * 4 + i];
      CHECK((x == 0 || x == 1));
      seen[i] += x == 1 ? 1 : 0;
      sum += x;
    }
    CHECK(sum == 1);
  }
  for (const int count : seen) CHECK(count > 0);
  for (const double x : batch.values.at("bits")) CHECK((x > 0 && x < 1));
}

TEST_CASE("random batches: places along the axis, for a gather that looks them up") {
  const Graph graph(
      {{.name = "x", .shape = {2, 3}}, {.name = "places", .shape = {40}}, {.name = "y", .shape = {2, 40}}},
      {{.from = {"x", "places"}, .to = "y", .chain = {op("gather", {{"axis", 1}})}}});
  const CheckBatch batch = random_batch(graph, {"x", "places"}, 2, 1, 0);
  const Values& places = batch.values.at("places");
  CHECK(std::set<double>(places.begin(), places.end()) == std::set<double>{0, 1, 2});
  CHECK(batch.values.at("x")[0] != std::floor(batch.values.at("x")[0]));
}

TEST_CASE("check: one linear layer, whose gradient is known") {
  const Config config = config_of(
      "name: t\nseed: 2\ngraph: {nodes: {x: {shape: [3]}, y: {shape: [2]}}, edges: [{from: x, to: y, op: {linear: "
      "{bias: false}}}]}\ntask: {check: {clamp: [x, y]}}\n");
  const BatchSource source(config, 7, true);
  const CheckBatch batch = source.batch(0);
  const Check check(config, Exec{}, batch);
  REQUIRE(check.reference_about() == "backprop");
  const Values &x = batch.values.at("x"), &y = batch.values.at("y");
  const Values& w = check.weights().at("x->y/linear.weight");
  Values wanted(6, 0);  // sum over the batch of (y - W x) x^T
  for (std::size_t row = 0; row < 7; ++row) {
    for (std::size_t i = 0; i < 2; ++i) {
      double error = y[row * 2 + i];
      for (std::size_t j = 0; j < 3; ++j) error -= w[i * 3 + j] * x[row * 3 + j];
      for (std::size_t j = 0; j < 3; ++j) wanted[i * 3 + j] += error * x[row * 3 + j];
    }
  }
  for (const char* name : {"pc", "zil", "fixed_prediction"}) {
    CAPTURE(name);
    CHECK(relative_error(check.gradients(check.subject(name), DType::f64).at("x->y/linear.weight"), wanted) < 1e-14);
  }
}

TEST_CASE("check: which schedules must be equal, and are") {
  const Config config = config_of(kGraph);
  const BatchSource source(config, 6, true);
  const CheckBatch batch = source.batch(0);
  Check check(config, Exec{}, batch);
  int exact = 0;
  for (const Subject& subject : check.subjects()) {
    CAPTURE(subject.name());
    const Measured measured = check.measure(subject, DType::f64);
    CHECK(measured.exact == check.must_equal(subject));
    CHECK_FALSE(measured.failed());
    exact += measured.exact ? 1 : 0;
    if (subject.schedule->name == "pc") CHECK_FALSE(measured.passed());
  }
  CHECK(exact >= 3);
  Subject slow = check.subject("fixed_prediction");
  slow.settings.eta = 0.5;
  CHECK_FALSE(check.must_equal(slow));
  Subject few = check.subject("fixed_prediction");
  few.settings.steps = 1;
  CHECK_FALSE(check.must_equal(few));
  CHECK_FALSE(check.measure(few, DType::f64).passed());
  few.settings.steps = 2;
  CHECK(check.must_equal(few));
  CHECK(check.measure(few, DType::f64).passed());
  CHECK_THROWS_AS(static_cast<void>(check.subject("backprop")), pc::Error);
  CHECK_THROWS_AS(static_cast<void>(check.subject("zill")), pc::Error);
}

TEST_CASE("check: a cycle is compared with many sweeps over it, and with its unrolled graph") {
  const Config config = config_of(kCycle);
  const BatchSource source(config, 6, true);
  const CheckBatch batch = source.batch(0);
  Check check(config, Exec{}, batch);
  CHECK(check.cycle() == "low -> low");
  CHECK_FALSE(check.no_backprop().empty());
  CHECK(check.no_unrolled() == "");
  CHECK(contains(check.reference_about(), "sweeps"));
  const Measured fixed = check.measure(check.subject("fixed_prediction"), DType::f64);
  CHECK(fixed.obstacle == "");
  CHECK(fixed.passed());
  CHECK_FALSE(fixed.exact);
  const Measured ep = check.measure(check.subject("ep"), DType::f64);
  CHECK(ep.obstacle == "");
  CHECK(ep.worst.relative < 0.05);
  CHECK(contains(check.measure(check.subject("zil"), DType::f64).obstacle, "low -> low"));

  ConfigTree tree = parse_config(kCycle, "t.yaml");
  set_override(tree, "graph.unroll=3");
  const Config unrolled = read_config(tree);
  CHECK(unrolled.zeros == std::vector<std::string>{"low@0"});
  const CheckBatch same = BatchSource(unrolled, 6, true).batch(0);
  CHECK(same.values.size() == 2);
  Check of_unrolled(unrolled, Exec{}, same);
  CHECK(of_unrolled.cycle() == "");
  for (const char* name : {"zil", "zil-pad", "fixed_prediction"}) {
    CAPTURE(name);
    CHECK(of_unrolled.must_equal(of_unrolled.subject(name)));
    CHECK(of_unrolled.measure(of_unrolled.subject(name), DType::f64).passed());
  }
}

TEST_CASE("check: laws come out as theory says") {
  const Config config = config_of(kGraph);
  const BatchSource source(config, 6, true);
  const CheckBatch batch = source.batch(0);
  Check check(config, Exec{}, batch);
  const std::vector<Law> laws = check.laws(check.subjects());
  REQUIRE(laws.size() == 4);
  for (const Law& law : laws) {
    CAPTURE(law.schedule);
    CHECK(law.obstacle == "");
    CHECK_FALSE(law.failed());
    // Powers hold in the limit; over these values they are this near.
    if (law.expected_slope) CHECK(law.slope.value() == Approx(*law.expected_slope).epsilon(0.1));
    if (law.tolerance) CHECK(law.parameters == 6);
  }
  for (const LawPoint& point : laws[0].points) {
    CHECK(point.settling.asked);
    CHECK(point.settling.reached);
  }
  CHECK_FALSE(laws[2].points[0].settling.asked);  // zil has nothing to settle
  Law wrong{.points = {{.value = 1, .error = 1e-3}}, .tolerance = 1e-10};
  CHECK(wrong.failed());
  wrong.points[0].error = kNaN;
  CHECK(wrong.failed());
}

TEST_CASE("pc check: exit statuses and messages") {
  const Scratch scratch;
  const fs::path config = scratch / "tiny.yaml", cycle = scratch / "round.yaml";
  std::ofstream(config) << kGraph;
  std::ofstream(cycle) << kCycle;
  const auto check = [&](const fs::path& file, std::vector<std::string> more) {
    more.insert(more.begin(), {"check", file.string()});
    return run_program(scratch, more);
  };
  SUBCASE("all is well") {
    const Result result = check(config, {});
    CAPTURE(result.err);
    CHECK(result.status == 0);
    CHECK(has(result.out, "equal"));
    CHECK(has(result.out, "approximate"));
    CHECK_FALSE(result.out.find("FAILED") != std::string::npos);
  }
  SUBCASE("rounding is more than nothing: without tolerance it fails, and every parameter is shown") {
    // zil-pad adds errors to values and takes them off again; zil does as backprop does, to the bit
    const Result result = check(config, {"--tolerance", "0", "--dtype", "float32", "--schedule", "zil-pad"});
    CHECK(result.status == 1);
    CHECK(has(result.out, "FAILED"));
    CHECK(has(result.out, "high->label/linear.bias"));
  }
  SUBCASE("a parameter that backprop leaves alone is said to be one") {
    const fs::path aside = scratch / "aside.yaml";
    std::ofstream(aside) << kGraph << "init: zeros\n";
    const Result result = check(aside, {});
    CHECK(result.status == 0);
    CHECK(has(result.out, "backprop's is zero for high->label/linear.weight"));
    CHECK_FALSE(result.out.find("nan") != std::string::npos);
    CHECK_FALSE(result.out.find("inf ") != std::string::npos);
  }
  SUBCASE("--laws of one schedule; of one that has none") {
    const Result result = check(config, {"--laws", "--schedule", "zil", "--json"});
    REQUIRE(result.status == 0);
    const Json laws = Json::parse(result.out)["laws"];
    REQUIRE(laws.size() == 1);
    CHECK(laws[0]["schedule"] == "zil");
    const Result none = check(config, {"--laws", "--schedule", "fa_zil"});
    CHECK(none.status == 2);
    CHECK(has(none.err, "ep, pc, zil and fixed_prediction"));
  }
  SUBCASE("--laws say which of their states did not settle") {
    const fs::path steep = scratch / "steep.yaml";
    // Large weights: a gradient that 20000 steps do not bring down to 1e-13.
    std::ofstream(steep) << "name: steep\ndevice: cpu\n"
                            "graph: {mlp: {widths: [4, 16, 16, 2], activation: gelu}}\n"
                            "init: {fan_in: {scale: 12}}\n"
                            "task: {check: {clamp: [image, label]}}\n"
                            "check: {batch: 2, laws: {ep: {beta: [0.1, 0.05]}}}\n";
    const Result result = check(steep, {"--laws", "--schedule", "ep", "--dtype", "float64"});
    CHECK(result.status == 1);  // by its power
    CHECK(has(result.out, "theory says 2  FAILED"));
    CHECK(has(result.out, "  not settled\n"));
    CHECK(has(result.out, "2 of 2 not settled: after 20000 steps a slope above 1e-13 was left"));
    const Json law =
        Json::parse(check(steep, {"--laws", "--schedule", "ep", "--dtype", "float64", "--json"}).out)["laws"][0];
    CHECK(law["points"][0]["settled"] == false);
    CHECK(law["passed"] == false);
  }
  SUBCASE("what approximates cannot fail") {
    CHECK(check(config, {"--tolerance", "0", "--schedule", "pc"}).status == 0);
  }
  SUBCASE("what did not settle is said, with what to do about it") {
    const auto ep = [&](const std::string& chain, const std::string& relax) {
      std::string graph = kGraph;
      graph.replace(graph.find("[linear, gelu]"), 14, chain);
      const fs::path file = scratch / "ep.yaml";
      std::ofstream(file) << graph << "relax: {optimizer: {sgd: {rate: 1.0e-6}}" << relax << "}\n";
      return std::pair{check(file, {"--schedule", "ep", "--dtype", "float64"}),
                       Json::parse(check(file, {"--schedule", "ep", "--dtype", "float64", "--json"}).out)};
    };
    // Its slope has no bound, so no rate is found, and the config's is too small.
    const auto [text, json] = ep("[linear, layer_norm]", "");
    CHECK(text.status == 0);
    CHECK(has(text.out, "not settled: ep still moved after 1000 steps"));
    CHECK(has(text.out, "no bound on how layer_norm"));
    CHECK(has(text.out, "--set relax.schedule=ep"));
    CHECK_FALSE(text.out.find("approximate") != std::string::npos);
    CHECK(json["schedules"][0]["settled"] == false);
    CHECK(json["schedules"][0]["settling"]["steps"] == 1000);
    CHECK(has(json["schedules"][0]["settling"]["no_rate"], "layer_norm"));
    CHECK(has(json["schedules"][0]["settling"]["advice"], "relax.schedule=ep"));
    const auto [own, own_json] =
        ep("[linear, gelu]", ", schedule: ep, steps: 7, stop: {gradient: {tolerance: 1.0e-9}}");
    CHECK(has(own.out, "not settled: ep still moved after 7 steps"));
    CHECK(has(own.out, "more relax.steps"));
    CHECK_FALSE(own_json["schedules"][0]["settling"].contains("no_rate"));
    const auto [fixed, fixed_json] = ep("[linear, gelu]", ", schedule: ep, steps: 7");
    CHECK(has(fixed.out, "approximate"));
    CHECK_FALSE(fixed_json["schedules"][0].contains("settled"));
    const auto [settled, settled_json] = ep("[linear, gelu]", "");
    CHECK(has(settled.out, "approximate"));
    CHECK(settled_json["schedules"][0]["settled"] == true);
  }
  SUBCASE("wrong names") {
    const Result schedule = check(config, {"--schedule", "zill"});
    CHECK(schedule.status == 2);
    CHECK(has(schedule.err, "did you mean \"zil\"?"));
    const Result dtype = check(config, {"--dtype", "float46"});
    CHECK(dtype.status == 2);
    CHECK(has(dtype.err, "float"));
    CHECK(check(config, {"--batch", "0"}).status == 2);
  }
  SUBCASE("a graph with a cycle: the cycle is named; what is asked for must apply") {
    const Result result = check(cycle, {});
    CAPTURE(result.err);
    CHECK(result.status == 0);
    CHECK(has(result.out, "low -> low"));
    CHECK(has(result.out, "graph.unroll"));
    CHECK(check(cycle, {"--schedule", "zil"}).status == 2);
    CHECK(check(cycle, {"--laws"}).status == 2);
  }
  SUBCASE("--after compares weights") {
    const Result result = check(config, {"--after", "5"});
    CHECK(result.status == 0);
    CHECK(has(result.out, "after 5 updates"));
    CHECK(has(result.out, "Losses before each"));
    const Result precise = check(config, {"--after", "2", "--set", "graph.nodes.low.precision={learn: 0.05}"});
    CHECK(precise.status == 2);
    CHECK(has(precise.err, "backprop, which does not learn the precisions of prediction low"));
  }
  SUBCASE("--after leaves out what rounding alone moves, and says so") {
    std::string graph = kGraph;
    graph.replace(graph.find("[linear, tanh]"), 14, "[linear, batch_norm, tanh]");
    const fs::path file = scratch / "norm.yaml";
    // An Adam whose epsilon is smaller than what rounding leaves makes whole steps of it.
    std::ofstream(file) << graph << "learn: {optimizer: {adam: {epsilon: 1.0e-20}}}\n";
    const std::vector<std::string> options = {"--after", "20", "--dtype", "float64", "--schedule", "zil-pad"};
    const Result result = check(file, options);
    CHECK(result.status == 0);
    CHECK(has(result.out, "left out: image->low/linear.bias, at most"));
    std::vector<std::string> json = options;
    json.emplace_back("--json");
    const Json trained = Json::parse(check(file, json).out)["after"]["schedules"][0];
    CHECK(trained["left_out"] == Json{"image->low/linear.bias"});
    CHECK(trained["passed"] == true);
    CHECK(check(config, {"--after", "20"}).out.find("left out: image") == std::string::npos);
  }
  SUBCASE("--after 1: the only loss is the one that backprop starts from, whatever the schedule does with it") {
    const Result result = check(config, {"--after", "1", "--json", "--schedule", "pc", "--schedule", "zil"});
    REQUIRE(result.status == 0);
    const Json schedules = Json::parse(result.out)["after"]["schedules"];
    REQUIRE(schedules.size() == 2);
    for (const Json& schedule : schedules) CHECK(schedule["loss"]["relative"] < 1e-14);
    const Json later = Json::parse(check(config, {"--after", "8", "--json", "--schedule", "pc"}).out);
    CHECK(later["after"]["schedules"][0]["loss"]["relative"] > 1e-6);  // pc learns otherwise
    CHECK(later["after"]["schedules"][0]["loss"]["losses"].size() == 8);
  }
  SUBCASE("pc run has nothing to learn from") {
    const Result result = run_program(scratch, {"run", config.string()});
    CHECK(result.status == 2);
    CHECK(has(result.err, "task: check"));
  }
}

TEST_CASE("pc check --json and --dump: one object, and arrays that agree with it") {
  const Scratch scratch;
  const fs::path config = scratch / "tiny.yaml", file = scratch / "dump.h5";
  std::ofstream(config) << kGraph;
  const Result result = run_program(
      scratch, {"check", config.string(), "--json", "--laws", "--after", "3", "--dump", file.string(), "--batch", "4"});
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  const Json out = Json::parse(result.out);
  CHECK(out["name"] == "tiny");
  CHECK(out["device"] == "cpu");
  CHECK(out["batch"]["size"] == 4);
  CHECK(out["cycle"].is_null());
  CHECK(out["passed"] == true);
  CHECK(out["laws"].size() == 4);
  CHECK(out["after"]["steps"] == 3);
  CHECK(out["after"]["schedules"].size() >= 3);

  const H5Reader dump(file);
  CHECK(dump.dims("batch/image") == H5Dims{4, 4});
  CHECK(dump.dims("weights/image->low/linear.weight") == H5Dims{5, 4});
  int compared = 0;
  for (const Json& entry : out["schedules"]) {
    if (!entry["applies"].get<bool>()) continue;
    const bool pad = entry.value("paths", "") == "pad";
    const std::string name = entry["name"].get<std::string>() + (pad ? "-pad" : "");
    const std::string dtype = entry["dtype"].get<std::string>();
    CAPTURE(name);
    CHECK(dump.has(name + "/" + dtype + "/values/low"));
    CHECK(dump.has(name + "/" + dtype + "/errors/label"));
    for (const Json& parameter : entry["parameters"]) {
      const std::string path = "/gradients/" + parameter["name"].get<std::string>();
      const std::string mine = name + "/" + dtype + path, reference = "backprop/" + dtype + path;
      CHECK(dump.description(mine).find("minus the slope") != std::string::npos);
      const auto dims = dump.dims(mine);
      const Difference d = difference(dump.read<double>(mine, dims), dump.read<double>(reference, dims));
      CHECK(d.relative == Approx(parameter["relative"].get<double>()));
      CHECK(d.cosine == Approx(parameter["cosine"].get<double>()));
      CHECK(d.entry == Approx(parameter["entry"].get<double>()));
      ++compared;
    }
  }
  CHECK(compared > 30);
}

// Operators that keep something: batch_norm its running statistics, dropout the mask of a batch.
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "pc/h5.h"
#include "tests/gradients.h"
#include "tests/program.h"

namespace pc::test {
namespace {

using Json = nlohmann::json;

const std::vector<std::string> kAll = {"pc", "ipc", "zil", "fa_zil", "fixed_prediction", "ep", "epc", "backprop"};
const std::vector<std::string> kExact = {"zil", "fa_zil", "fixed_prediction"};

/// image -> a -> label, with these operators from a to the label.
Problem two_layers(std::vector<OpSpec> second, std::int64_t batch = 5) {
  Problem problem = chain({4, 6, 3}, [&](std::size_t i) { return i == 1 ? std::vector{linear()} : second; });
  Dice dice(21);
  problem.batch = batch;
  problem.clamp(0, dice.normals(batch * 4, 2));
  problem.clamp(2, dice.normals(batch * 3));
  return problem;
}

Problem normed() { return two_layers({op("batch_norm", {{"epsilon", 0.1}}), op("tanh"), linear()}); }
Problem dropped() {
  Problem problem = two_layers({op("dropout", {{"rate", 0.4}}), linear()});
  problem.edges[0].chain.push_back(op("tanh"));
  return problem;
}

PlanSpec learning(const Problem& problem, const std::string& schedule, int steps = 6) {
  PlanSpec spec = spec_for(problem, schedule);
  spec.relax = {.steps = steps, .stepper = ValueSgd{0.1, 0}};
  if (schedule == "ep") spec.settings.nudge = Nudge{.side = Nudge::Side::centered, .beta = 0.1};
  spec.learn = LearnSpec{.optimizer = WeightSgd{}, .rate = {.base = 0.05}};
  return spec;
}

Values buffer(Run& run, const std::string& name) {
  return run.network.arena().read(run.network.arena().views().at(name));
}
const std::string kMean = "running/x1->x2/0/mean", kVariance = "running/x1->x2/0/variance";
const std::string kMask = "drawn/x1->x2/0/mask";

/// Means and variances of the columns of a matrix of `n` columns.
std::pair<Values, Values> columns(const Values& x, std::size_t n) {
  Values mean(n), variance(n);
  const double rows = double(x.size() / n);
  for (std::size_t i = 0; i < x.size(); ++i) mean[i % n] += x[i] / rows;
  for (std::size_t i = 0; i < x.size(); ++i) variance[i % n] += (x[i] - mean[i % n]) * (x[i] - mean[i % n]) / rows;
  return {mean, variance};
}

Values affine(const Values& x, const Values& w, const Values& bias) {
  const std::size_t out = bias.size(), in = w.size() / out;
  Values y;
  for (std::size_t row = 0; row < x.size() / in; ++row) {
    for (std::size_t i = 0; i < out; ++i) {
      double sum = bias[i];
      for (std::size_t j = 0; j < in; ++j) sum += w[i * in + j] * x[row * in + j];
      y.push_back(sum);
    }
  }
  return y;
}

/// What `normed` predicts for its last node, written out.
Values predicted(Run& run, const Values& a, const Values& mean, const Values& variance) {
  const auto param = [&](const std::string& name) { return buffer(run, "w/x1->x2/" + name); };
  const Values gain = param("batch_norm.gain"), bias = param("batch_norm.bias");
  Values z;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const std::size_t c = i % mean.size();
    z.push_back(std::tanh(gain[c] * (a[i] - mean[c]) / std::sqrt(variance[c] + 0.1) + bias[c]));
  }
  return affine(z, param("linear.weight"), param("linear.bias"));
}

double half_square(const Values& a, const Values& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += 0.5 * (a[i] - b[i]) * (a[i] - b[i]);
  return sum;
}

}  // namespace

TEST_CASE("batch_norm: values descend the energy of the whole batch") {
  const Problem problem = normed();
  PlanSpec spec = plan_for(problem, 1, 0.25);
  spec.gradients = true;
  Run start(problem, spec_for(problem, "backprop")), run(problem, spec);
  start.step();
  run.step();
  const Values from = read_value(start.network, 1, problem.batch), to = read_value(run.network, 1, problem.batch);
  const auto energy = [&](const Values& a) {
    const auto [mean, variance] = columns(a, 6);
    return half_square(problem.data[2], predicted(run, a, mean, variance)) + half_square(a, from);
  };
  Values slope, at = from;
  for (double& entry : at) {
    const double keep = entry;
    entry = keep + 1e-5;
    const double plus = energy(at);
    entry = keep - 1e-5;
    slope.push_back((plus - energy(at)) / 2e-5);
    entry = keep;
  }
  Values moved;
  for (std::size_t i = 0; i < to.size(); ++i) moved.push_back((from[i] - to[i]) / 0.25);
  CHECK(worst_difference(moved, slope) < 1e-8);
  CHECK(worst_difference(slope, Values(slope.size())) > 0.01);
  // Each sample pulls at the values of the others too.
  Problem other = problem;
  other.data[2][0] += 1;
  Run changed(other, spec);
  changed.step();
  const Values last = rows_of(read_value(changed.network, 1, problem.batch), problem.batch, 4, 1);
  CHECK(worst_difference(last, rows_of(to, problem.batch, 4, 1)) > 1e-4);
}

TEST_CASE("batch_norm: running statistics move once a batch that is learned from, by the feedforward pass") {
  const Problem problem = normed();
  Run start(problem, spec_for(problem, "backprop"));
  start.step();
  const auto [mean, variance] = columns(read_value(start.network, 1, problem.batch), 6);
  for (const std::string& schedule : kAll) {
    for (const bool optimize : {true, false}) {
      CAPTURE(schedule);
      CAPTURE(optimize);
      PlanSpec spec = learning(problem, schedule);
      spec.optimize = optimize;
      Run run(problem, spec);
      run.step();
      Values want_mean, want_variance;
      for (std::size_t c = 0; c < 6; ++c) {
        want_mean.push_back(0.1 * mean[c]);
        want_variance.push_back(0.9 + 0.1 * variance[c] * 5 / 4);  // unbiased, as torch keeps it
      }
      CHECK(worst_difference(buffer(run, kMean), want_mean) < 1e-14);
      CHECK(worst_difference(buffer(run, kVariance), want_variance) < 1e-14);
      // Looking moves nothing.
      const Values before = buffer(run, kMean);
      Trainer look(run.network, plan_for(problem, 5), 1);
      look.step(problem.batch);
      Trainer gradient(run.network, spec_for(problem, schedule, spec.settings), 1);
      gradient.step(problem.batch);
      CHECK(buffer(run, kMean) == before);
    }
  }
}

TEST_CASE("batch_norm: plans that only look take the running statistics, and see each sample alone") {
  Problem problem = normed();
  Run run(problem, learning(problem, "pc"));
  for (int i = 0; i < 3; ++i) run.step();
  PlanSpec spec = plan_for(problem, 4);
  spec.clamps.pop_back();
  spec.observed = {2};
  load(run.network, problem);
  Trainer look(run.network, spec, 1);
  look.step(problem.batch);
  const Values a = read_value(run.network, 1, problem.batch), mu = read_value(run.network, 2, problem.batch);
  CHECK(worst_difference(mu, predicted(run, a, buffer(run, kMean), buffer(run, kVariance))) < 1e-13);
  load(run.network, problem, 3, 1);
  look.step(1);
  CHECK(worst_difference(read_value(run.network, 2, 1), rows_of(mu, problem.batch, 3, 1)) < 1e-14);
}

TEST_CASE("batch_norm: exact schedules equal backprop, the relaxation's gradient does not") {
  const Problem problem = normed();
  const Gradients reference = gradients(problem, spec_for(problem, "backprop"));
  for (const std::string& schedule : kExact) {
    CAPTURE(schedule);
    CHECK(distance(gradients(problem, spec_for(problem, schedule)), reference) < 1e-14);
  }
  PlanSpec relaxed = spec_for(problem, "pc");
  relaxed.relax = {.steps = 10, .stepper = ValueSgd{0.1, 0}};
  CHECK(distance(gradients(problem, relaxed), reference) > 1e-3);
}

TEST_CASE("batch_norm: what it keeps for evaluation needs a feedforward start") {
  const Problem problem = normed();
  PlanSpec spec = learning(problem, "pc");
  spec.relax.init = {.kind = ValueInit::Kind::zeros};
  CHECK(contains(error_of([&] { Run(problem, spec).step(); }), "batch_norm in edge x1->x2"));
  spec.learn.reset();
  CHECK(error_of([&] { Run(problem, spec).step(); }).empty());
}

TEST_CASE("batch_norm: a batch of one value a channel is refused where it would be learned from") {
  Problem problem = normed();
  PlanSpec spec = learning(problem, "pc");
  spec.batch = 1;
  Run run(problem, spec);
  CHECK(contains(error_of([&] { run.trainer.step(1); }), "in a batch of one sample"));
  spec.learn.reset();
  Run looking(problem, spec);
  CHECK(error_of([&] { looking.trainer.step(1); }).empty());
}

TEST_CASE("dropout: a relaxation sees one mask, as if a node were clamped to it") {
  const Problem problem = dropped();
  for (const std::string& schedule : kAll) {
    CAPTURE(schedule);
    Run run(problem, learning(problem, schedule));
    std::set<Values> masks;
    for (int batch = 0; batch < 3; ++batch) {
      CAPTURE(batch);
      load(run.network, problem);
      Problem plain = problem;
      plain.nodes.push_back({.name = "mask", .shape = {6}});
      plain.edges[1] = {.name = "x1->x2", .from = {"x1", "mask"}, .to = "x2", .chain = {op("multiply"), linear()}};
      std::vector<Values> weights;
      for (ParamId p = 0; p < run.network.graph().param_count(); ++p) {
        weights.push_back(read(run.network, run.network.weight(p)));
      }
      run.step();
      const Values mask = buffer(run, kMask);
      CHECK(masks.insert(mask).second);  // each batch has one of its own
      plain.clamp(3, mask);
      Run other(plain, learning(plain, schedule));
      for (ParamId p = 0; p < other.network.graph().param_count(); ++p) {
        other.network.arena().write(other.network.weight(p), weights[index(p)]);
      }
      other.step();
      CHECK(worst_difference(read_value(run.network, 1, problem.batch), read_value(other.network, 1, problem.batch)) <
            1e-13);
      for (ParamId p = 0; p < other.network.graph().param_count(); ++p) {
        const Values after = read(run.network, run.network.weight(p));
        CHECK(worst_difference(after, read(other.network, other.network.weight(p))) < 1e-13);
        CHECK(worst_difference(after, weights[index(p)]) > 1e-4);
      }
    }
  }
}

TEST_CASE("dropout: keeps each entry with its probability, scaled so that the mean stays") {
  Problem problem = chain({50, 50, 2}, [](std::size_t i) {
    return i == 1 ? std::vector{op("dropout", {{"rate", 0.3}})} : std::vector{op("dropout", {{"rate", 0.3}}), linear()};
  });
  problem.batch = 200;
  Dice dice(4);
  problem.clamp(0, dice.normals(200 * 50));
  problem.clamp(2, dice.normals(200 * 2));
  Run run(problem, learning(problem, "backprop")), single(problem, learning(problem, "backprop"), DType::f32);
  run.step();
  single.step();
  const Values first = buffer(run, "drawn/x0->x1/0/mask"), second = buffer(run, "drawn/x1->x2/0/mask");
  double kept = 0, both = 0;
  for (std::size_t i = 0; i < first.size(); ++i) {
    CHECK((first[i] == 0 || first[i] == 1 / 0.7));
    kept += first[i] != 0 ? 1 : 0;
    both += first[i] != 0 && second[i] != 0 ? 1 : 0;
  }
  // Five deviations of 10000 throws.
  CHECK(std::abs(kept / 10000 - 0.7) < 5 * std::sqrt(0.7 * 0.3 / 10000));
  CHECK(std::abs(both / 10000 - 0.49) < 5 * std::sqrt(0.49 * 0.51 / 10000));  // independent of each other
  const Values narrow = buffer(single, "drawn/x0->x1/0/mask");
  for (std::size_t i = 0; i < first.size(); ++i) CHECK((first[i] == 0) == (narrow[i] == 0));
}

TEST_CASE("dropout: exact schedules equal backprop with the same mask") {
  Problem problem = dropped();
  problem.edges.push_back({.from = {"x0"}, .to = "x2", .chain = {op("dropout"), linear()}});
  const Gradients reference = gradients(problem, spec_for(problem, "backprop"));
  for (const std::string& schedule : kExact) {
    CAPTURE(schedule);
    CHECK(distance(gradients(problem, spec_for(problem, schedule)), reference) < 1e-14);
  }
  Problem without = problem;
  without.edges[1].chain = {linear()};
  CHECK(distance(gradients(without, spec_for(without, "backprop")), reference) > 0.01);
}

TEST_CASE("dropout: plans that only look leave everything in") {
  const Problem problem = dropped();
  Problem without = problem;
  without.edges[1].chain = {op("identity"), linear()};
  for (const bool clamped : {true, false}) {
    PlanSpec spec = plan_for(problem, 5);
    if (!clamped) spec.clamps.pop_back();
    spec.observed = {2};
    Run run(problem, spec), plain(without, spec);
    run.step();
    plain.step();
    for (NodeId v = 0; v < 3; ++v) {
      CHECK(read_value(run.network, v, problem.batch) == read_value(plain.network, v, problem.batch));
    }
    CHECK(run.trainer.energies().end == plain.trainer.energies().end);
  }
}

TEST_CASE("a run that was stopped goes on with the same masks and running statistics") {
  const Scratch scratch;
  const fs::path config = scratch / "small.yaml";
  std::ofstream(config) << "name: small\n"
                           "device: cpu\n"
                           "data: {set: glyphs, train: 300, test: 100, batch: 30}\n"
                           "graph:\n"
                           "  nodes: {image: {shape: [784]}, hidden: {shape: [16]}, label: {shape: [10]}}\n"
                           "  edges:\n"
                           "    - {from: image, to: hidden, op: [linear, batch_norm, tanh]}\n"
                           "    - {from: hidden, to: label, op: [{dropout: {rate: 0.3}}, linear]}\n"
                           "relax: {schedule: pc, steps: 4, optimizer: {sgd: {rate: 0.05}}}\n"
                           "learn: {epochs: 3, optimizer: {adamw: {rate: 2.0e-3}}}\n";
  const auto run = [&](const std::string& folder, const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"run", config, "--out", scratch / folder, "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Result result = run_program(scratch, arguments);
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
    return Json::parse(result.out);
  };
  const Json whole = run("whole", {});
  run("parts", {"--set", "learn.epochs=1"});
  run("parts", {"--set", "learn.epochs=2", "--resume"});
  const Json parts = run("parts", {"--resume"});
  CHECK(parts["signature"] == whole["signature"]);
  CHECK(parts["test"] == whole["test"]);
  CHECK(double(whole["test"]["accuracy"]) > 0.3);  // a tenth by chance
  for (const char* file : {"checkpoint.h5", "best.h5"}) {
    const H5Reader a((scratch / "whole") / file), b((scratch / "parts") / file);
    for (const std::string name : {"mean", "variance"}) {
      const std::string place = "buffers/running/image->hidden/1/" + name;
      CHECK((a.read<float>(place, {16}) == b.read<float>(place, {16})));
      CHECK(a.read<float>(place, {16})[3] != (name == "mean" ? 0.0F : 1.0F));
    }
  }
  CHECK(H5Reader(scratch / "whole" / "checkpoint.h5").read_scalar<double>("buffers/clock/drawn") ==
        27);  // 3 epochs of 270 examples, which validation leaves, 30 a batch
  // What eval measures is what the run has measured: it has the running statistics too.
  const Result eval = run_program(scratch, {"eval", scratch / "whole", "--json"});
  REQUIRE(eval.status == 0);
  CHECK(has(eval.out, whole["test"]["accuracy"].dump()));
  // A checkpoint of the same weights without statistics is of another network.
  run("plain", {"--set", "learn.epochs=1", "--set",
                "graph.edges=[{from: image, to: hidden, op: [linear, tanh]}, {from: hidden, to: label, op: linear}]"});
  const Result other = run_program(
      scratch, {"eval", scratch / "plain", "--set",
                "graph.edges=[{from: image, to: hidden, op: [linear, {batch_norm: {affine: false}}, tanh]}, "
                "{from: hidden, to: label, op: linear}]"});
  CHECK(other.status == 2);
  CHECK(has(other.err, "has no running/image->hidden/1/mean"));
}

}  // namespace pc::test

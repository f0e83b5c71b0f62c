// Backprop, the reference that schedules are held to, and what goes with training: incremental learning by hand,
// optimisers, rates and clipping through the whole Trainer, and the watch over energies.
#include "pc/backprop.h"

#include "tests/networks.h"

namespace pc::test {
namespace {

/// The loss of a network with these weights, sample by sample and number by number: free nodes take their predictions,
/// clamped ones pay their energy.
double naive_loss(const Reference& reference, const Problem& problem) {
  const Graph& graph = reference.graph;
  double loss = 0;
  for (std::int64_t b = 0; b < problem.batch; ++b) {
    auto x = reference.sample<double>(b);
    const auto order = topological_order(graph);
    REQUIRE(order.has_value());
    for (const NodeId v : *order) {
      const bool clamped = !problem.data[index(v)].empty();
      if (graph.node(v).predictions.empty()) {
        if (!clamped) std::fill(x[index(v)].begin(), x[index(v)].end(), 0.0);
        continue;
      }
      const PredictionId p = graph.node(v).predictions[0];
      const Values mu = naive_mu<double>(graph, p, x, reference.w);
      if (clamped)
        loss += naive_energy<double>(graph.prediction(p).spec, x[index(v)], mu, last_of(graph.node(v).shape));
      if (!clamped) x[index(v)] = mu;
    }
  }
  return loss;
}

PlanSpec backprop_plan(const Problem& problem) {
  PlanSpec spec = plan_for(problem, 1);
  spec.schedule = &find_schedule("backprop");
  spec.gradients = true;
  return spec;
}

void check_gradients(const Problem& problem) {
  Run run(problem, backprop_plan(problem));
  run.step();
  Reference reference(run.network, problem, {});
  for (ParamId p = 0; p < run.network.graph().param_count(); ++p) {
    const std::string& name = run.network.graph().param(p).name;
    CAPTURE(name);
    Values want;
    for (double& entry : reference.w[index(p)]) {
      const double keep = entry, h = 1e-5;
      entry = keep + h;
      const double above = naive_loss(reference, problem);
      entry = keep - h;
      want.push_back(-(above - naive_loss(reference, problem)) / (2 * h));
      entry = keep;
    }
    CHECK(worst_difference(read(run.network, run.network.gradient(p)), want) < 1e-7);
  }
  const double loss = naive_loss(reference, problem);
  CHECK(std::abs(run.trainer.energies().total_start() - loss) < 1e-11 * (1 + loss));
  CHECK(run.trainer.energies().total_end() == run.trainer.energies().total_start());
}

}  // namespace

TEST_CASE("backprop: gradients on random graphs agree with finite differences of the loss") {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    CAPTURE(seed);
    check_gradients(wild_problem(seed, {.cycles = false, .smooth = true, .backprop = true, .free_energies = false}));
  }
}

TEST_CASE("backprop: shared weights, skips, products, concat and a clamped node on the way") {
  Dice dice(31);
  Problem problem;
  for (const char* name : {"image", "a", "b", "c", "d", "label"}) problem.nodes.push_back({.name = name, .shape = {3}});
  EdgeSpec tied{.from = {"image"}, .to = "a", .chain = {linear(), op("tanh")}, .share = "w"}, again = tied;
  again.from = {"a"};
  again.to = "b";
  problem.edges = {tied,
                   again,
                   {.from = {"a", "b"}, .to = "c", .chain = {op("multiply"), op("sigmoid")}},
                   {.from = {"image", "c"}, .to = "d", .chain = {op("concat"), linear(), op("gelu")}},
                   {.from = {"d"}, .to = "label", .chain = {linear()}},
                   {.from = {"a"}, .to = "label", .chain = {op("identity")}},
                   {.from = {"b", "b"}, .to = "label", .chain = {op("multiply"), op("scale", {{"by", 0.3}})}}};
  problem.batch = 4;
  problem.clamp(0, dice.normals(12));
  problem.clamp(5, dice.normals(12));
  SUBCASE("free on the way") { check_gradients(problem); }
  SUBCASE("a hidden node has a target of its own") {
    problem.nodes[3].energy.precision = {0.5, 2, 1};
    problem.clamp(3, dice.normals(12));
    check_gradients(problem);
  }
  SUBCASE("cross-entropy") {
    problem.nodes[5].energy = {&softmax_cross_entropy, {1.5}};
    for (double& entry : problem.data[5]) entry = dice.uniform();
    check_gradients(problem);
  }
  SUBCASE("no target: no gradient") {
    problem.clamps.pop_back();
    problem.data[5].clear();
    check_gradients(problem);
  }
}

TEST_CASE("backprop: nothing is pulled back into a clamped node") {
  for (const bool clamped : {true, false}) {
    Problem problem = clamped_mlp({3, 3, 3, 3}, 2, 1);
    if (clamped) problem.clamp(1, Values(6, 0.5));
    Run run(problem, backprop_plan(problem));
    const Program& program = *run.trainer.plan(2).programs()[0];
    const View gradient = run.network.node_buffer("grad", 1, 2);
    const auto pulls = std::count_if(program.calls().begin(), program.calls().end(), [&](const Call& call) {
      return call.part == "backward" && std::any_of(call.touches.begin(), call.touches.end(), [&](const Touch& touch) {
               return touch.write && touch.view.data == gradient.data;
             });
    });
    CHECK((pulls > 0) == !clamped);
  }
}

TEST_CASE("backprop: what it cannot run") {
  const auto error = [](const Problem& problem) {
    return error_of([&] { static_cast<void>(Run(problem, backprop_plan(problem)).trainer.plan(problem.batch)); });
  };
  Problem problem = clamped_mlp({3, 3, 3}, 2, 1);
  SUBCASE("a cycle is named") {
    problem.edges.push_back({.from = {"x2"}, .to = "x1", .chain = {linear()}});
    const std::string text = error(problem);
    CHECK(contains(text, "backprop needs a graph without cycles"));
    CHECK((contains(text, "x1 -> x2 -> x1") || contains(text, "x2 -> x1 -> x2")));
    CHECK(contains(text, "unroll it"));
  }
  SUBCASE("a self-loop is a cycle") {
    problem.edges.push_back({.from = {"x1"}, .to = "x1", .chain = {linear()}});
    CHECK(contains(error(problem), "x1 -> x1"));
  }
  SUBCASE("a clamp by mask") {
    problem.clamps[1].masked = true;
    problem.mask[2] = Values(6, 1.0);
    CHECK(contains(error(problem), "node x2 is clamped by a mask"));
  }
  SUBCASE("several predictions") {
    problem.nodes[1].prior = true;
    CHECK(contains(error(problem), "node x1 has several predictions"));
  }
  SUBCASE("nothing wrong") { CHECK(error(problem).empty()); }
}

TEST_CASE("schedules: by name") {
  CHECK(contains(error_of([] { find_schedule("bp"); }), "pc, ipc, zil"));
  for (const Schedule& schedule : all_schedules()) {
    CHECK(&find_schedule(schedule.name) == &schedule);
    CHECK(!schedule.about.empty());
  }
  CHECK(contains(error_of([] { find_energy("gauss"); }),
                 "gaussian, softmax_cross_entropy, bernoulli, laplace, categorical_kl"));
}

// --- incremental predictive coding, by hand ---

// x0 -> x1 -> x2, mu = w x + b, single numbers, two samples: both values and weights step from the same errors.
TEST_CASE("ipc: one step, written out") {
  Problem problem = chain({1, 1, 1}, [](std::size_t) { return std::vector{linear()}; });
  const double in[] = {0.7, -1.1}, target[] = {0.4, 2.0};
  problem.batch = 2;
  problem.clamp(0, {in[0], in[1]});
  problem.clamp(2, {target[0], target[1]});
  PlanSpec spec = plan_for(problem, 1, 0.3);
  spec.schedule = &find_schedule("ipc");
  spec.learn = LearnSpec{.optimizer = WeightSgd{}, .rate = {.base = 0.2}};
  Run run(problem, spec);
  const double w1 = 0.9, b1 = 0.2, w2 = -1.3, b2 = 0.5;
  const double start[] = {w1, b1, w2, b2};
  for (ParamId p = 0; p < 4; ++p) run.network.arena().write(run.network.weight(p), {start[p]});
  for (int steps = 1; steps <= 2; ++steps) {
    CAPTURE(steps);
    double w[] = {w1, b1, w2, b2}, x[2], energy[2] = {};
    for (int b = 0; b < 2; ++b) x[b] = w1 * in[b] + b1;
    for (int t = 0; t < steps; ++t) {
      double dw[4] = {}, moved[2];
      energy[0] = energy[1] = 0;
      for (int b = 0; b < 2; ++b) {
        const double e1 = x[b] - (w[0] * in[b] + w[1]), e2 = target[b] - (w[2] * x[b] + w[3]);
        energy[0] += 0.5 * e1 * e1;
        energy[1] += 0.5 * e2 * e2;
        moved[b] = x[b] - 0.3 * (e1 - w[2] * e2);
        dw[0] += e1 * in[b];
        dw[1] += e1;
        dw[2] += e2 * x[b];
        dw[3] += e2;
      }
      for (int p = 0; p < 4; ++p) w[p] += 0.2 * dw[p] / 2;
      x[0] = moved[0];
      x[1] = moved[1];
    }
    spec.relax.steps = steps;
    Run now(problem, spec);
    for (ParamId p = 0; p < 4; ++p) now.network.arena().write(now.network.weight(p), {start[p]});
    now.step();
    CHECK(worst_difference(read_value(now.network, 1, 2), {x[0], x[1]}) < 1e-15);
    for (ParamId p = 0; p < 4; ++p) CHECK(worst_difference(read(now.network, now.network.weight(p)), {w[p]}) < 1e-15);
    CHECK(worst_difference(now.trainer.energies().end, {energy[0], energy[1]}) < 1e-15);
  }
}

// --- optimisers, through the whole Trainer ---

namespace {

/// One linear layer by backprop: the gradient is known, so that only the optimiser is in question.
struct Layer {
  Problem problem;
  Run run;
  Values w, m, v, velocity;  // our own

  explicit Layer(const LearnSpec& learn)
      : problem(make()), run(problem, spec(learn)), w(weights()), m(w.size()), v(w.size()), velocity(w.size()) {}

  static Problem make() {
    Problem problem = chain({3, 2}, [](std::size_t) { return std::vector{linear()}; });
    Dice dice(8);
    problem.batch = 4;
    problem.clamp(0, dice.normals(12));
    problem.clamp(1, dice.normals(8, 3.0));
    return problem;
  }
  PlanSpec spec(const LearnSpec& learn) const {
    PlanSpec plan = backprop_plan(problem);
    plan.learn = learn;
    return plan;
  }
  /// All weights of the network in one list: 2x3 and 2.
  Values weights() {
    Values all = read(run.network, run.network.weight(0));
    const Values bias = read(run.network, run.network.weight(1));
    all.insert(all.end(), bias.begin(), bias.end());
    return all;
  }
  /// Mean downhill direction at our own weights.
  [[nodiscard]] Values gradient() const {
    Values g(8, 0.0);
    for (std::size_t b = 0; b < 4; ++b) {
      const double* x = problem.data[0].data() + 3 * b;
      for (std::size_t i = 0; i < 2; ++i) {
        const double e =
            problem.data[1][2 * b + i] - (w[3 * i] * x[0] + w[3 * i + 1] * x[1] + w[3 * i + 2] * x[2] + w[6 + i]);
        for (std::size_t j = 0; j < 3; ++j) g[3 * i + j] += e * x[j] / 4;
        g[6 + i] += e / 4;
      }
    }
    return g;
  }
};

double norm(const Values& values) {
  double sum = 0;
  for (const double entry : values) sum += entry * entry;
  return std::sqrt(sum);
}

}  // namespace

TEST_CASE("optimisers: SGD, with momentum and decay") {
  for (const double momentum : {0.0, 0.8}) {
    for (const double decay : {0.0, 0.05}) {
      Layer layer({.optimizer = WeightSgd{momentum, decay}, .rate = {.base = 0.1}});
      for (int t = 1; t <= 6; ++t) {
        CAPTURE(t);
        const Values g = layer.gradient();
        for (std::size_t i = 0; i < 8; ++i) {
          layer.velocity[i] = momentum * layer.velocity[i] + g[i] - decay * layer.w[i];
          layer.w[i] += 0.1 * layer.velocity[i];
        }
        layer.run.step();
        CHECK(worst_difference(layer.weights(), layer.w) < 1e-13);
      }
    }
  }
}

TEST_CASE("optimisers: Adam and AdamW") {
  for (const bool decoupled : {false, true}) {
    CAPTURE(decoupled);
    Layer layer(
        {.optimizer =
             WeightAdam{.beta1 = 0.7, .beta2 = 0.9, .epsilon = 1e-6, .weight_decay = 0.2, .decoupled = decoupled},
         .rate = {.base = 0.05}});
    for (int t = 1; t <= 8; ++t) {
      CAPTURE(t);
      const Values g = layer.gradient();
      for (std::size_t i = 0; i < 8; ++i) {
        const double pulled = decoupled ? g[i] : g[i] - 0.2 * layer.w[i];
        layer.m[i] = 0.7 * layer.m[i] + 0.3 * pulled;
        layer.v[i] = 0.9 * layer.v[i] + 0.1 * pulled * pulled;
        const double step =
            layer.m[i] / (1 - std::pow(0.7, t)) / (std::sqrt(layer.v[i] / (1 - std::pow(0.9, t))) + 1e-6);
        layer.w[i] += 0.05 * step - (decoupled ? 0.05 * 0.2 * layer.w[i] : 0.0);
      }
      layer.run.step();
      CHECK(worst_difference(layer.weights(), layer.w) < 1e-13);
    }
  }
}

TEST_CASE("optimisers: the norm of the mean gradient over all parameters is clipped") {
  for (const double limit : {0.5, 1e9}) {
    CAPTURE(limit);
    Layer layer({.optimizer = WeightSgd{}, .rate = {.base = 0.1}, .clip_norm = limit});
    for (int t = 1; t <= 5; ++t) {
      const Values g = layer.gradient();
      CHECK(norm(g) > 0.5);
      const double clip = std::min(1.0, limit / norm(g));
      for (std::size_t i = 0; i < 8; ++i) layer.w[i] += 0.1 * clip * g[i];
      layer.run.step();
      CHECK(worst_difference(layer.weights(), layer.w) < 1e-13);
    }
  }
}

TEST_CASE("optimisers: rates follow their schedule, update by update") {
  using kernels::RateKind;
  const auto used = [](const Rate& rate) {
    Layer layer({.optimizer = WeightSgd{}, .rate = rate});
    Values rates;
    for (int t = 0; t < 12; ++t) {
      const Values before = layer.weights();
      layer.w = before;
      const Values g = layer.gradient();
      layer.run.step();
      const Values after = layer.weights();
      rates.push_back((after[0] - before[0]) / g[0]);
      CHECK(std::abs(read(layer.run.network, layer.run.network.scalar(kRate))[0] - rates.back()) < 1e-9);
      CHECK(read(layer.run.network, layer.run.network.scalar(kUpdates))[0] == t + 1);
    }
    return rates;
  };
  const double pi = std::numbers::pi;
  Values constant(12, 0.01), cosine, warm;
  for (int t = 0; t < 12; ++t) {
    cosine.push_back(0.002 + 0.008 * (1 + std::cos(pi * std::min(1.0, t / 8.0))) / 2);
    warm.push_back(t < 3 ? 0.01 * (t + 1) / 3 : 0.002 + 0.008 * (1 + std::cos(pi * std::min(1.0, (t - 3) / 7.0))) / 2);
  }
  CHECK(worst_difference(used({.kind = RateKind::constant, .base = 0.01}), constant) < 1e-9);
  CHECK(worst_difference(used({.kind = RateKind::cosine, .base = 0.01, .floor = 0.002, .total = 8}), cosine) < 1e-9);
  CHECK(worst_difference(
            used({.kind = RateKind::warmup_cosine, .base = 0.01, .floor = 0.002, .warmup = 3, .total = 10}), warm) <
        1e-9);
}

TEST_CASE("training lowers the loss, with every schedule") {
  for (const std::string schedule : {"pc", "ipc", "backprop"}) {
    CAPTURE(schedule);
    const Problem problem = clamped_mlp({4, 8, 3}, 5, 6);
    PlanSpec spec = plan_for(problem, 10);
    spec.schedule = &find_schedule(schedule);
    spec.learn = LearnSpec{.rate = {.base = 0.02}};
    Run run(problem, spec);
    const auto loss = [&] { return naive_loss(Reference(run.network, problem, spec), problem); };
    const double before = loss();
    for (int i = 0; i < 60; ++i) run.step();
    CHECK(loss() < 0.2 * before);
  }
}

// --- the watch over energies ---

TEST_CASE("trainer: a NaN in the data is an error that names the node") {
  for (const std::string schedule : {"pc", "ipc", "backprop"}) {
    CAPTURE(schedule);
    Problem problem = clamped_mlp({4, 3, 2}, 2, 6);
    problem.data[2][1] = NAN;
    PlanSpec spec = plan_for(problem, 4);
    spec.schedule = &find_schedule(schedule);
    Run run(problem, spec);
    run.step();
    const std::string text = error_of([&] { run.trainer.check_energies("epoch 3, batch 7", 10); });
    CHECK(contains(text, "diverged"));
    CHECK(contains(text, "epoch 3, batch 7"));
    CHECK(contains(text, "node x2"));
    CHECK(contains(text, "nan"));
    try {
      run.trainer.check_energies("here", 10);
      CHECK(false);
    } catch (const Error& e) {
      CHECK(e.status() == ExitStatus::failed);
    }
  }
}

TEST_CASE("trainer: a NaN on the way in is noticed too, and forgotten after a reset") {
  Problem problem = clamped_mlp({4, 3, 2}, 2, 6);
  Problem spoiled = problem;
  spoiled.data[0][1] = NAN;
  PlanSpec spec = plan_for(problem, 4);
  Run run(problem, spec);
  load(run.network, spoiled);
  run.step();
  CHECK(contains(error_of([&] { run.trainer.check_energies("here", 10); }), "diverged"));
  load(run.network, problem);
  run.trainer.reset_energies();
  run.step();
  CHECK(error_of([&] { run.trainer.check_energies("here", 10); }).empty());
}

TEST_CASE("trainer: a rate that is too large is an error that says so") {
  const Problem problem = clamped_mlp({4, 3, 3, 2}, 2, 6);
  for (const double rate : {0.1, 2.5}) {
    CAPTURE(rate);
    Run run(problem, plan_for(problem, 40, rate));
    run.step();
    const std::string text = error_of([&] { run.trainer.check_energies("here", 10); });
    CHECK(text.empty() == (rate < 1));
    if (rate < 1) continue;
    CHECK(contains(text, "diverged"));
    CHECK(contains(text, "relaxation raised the energy of the epoch's batches so far"));
    CHECK(contains(text, "lower relax's rate"));
  }
}

TEST_CASE("trainer: energies add up over batches until they are reset") {
  const Problem problem = clamped_mlp({4, 3, 2}, 3, 6);
  Run run(problem, plan_for(problem, 5));
  CHECK(run.trainer.energies().total_end() == 0);
  run.step();
  const EnergySums once = run.trainer.energies();
  run.step();
  const EnergySums twice = run.trainer.energies();
  CHECK(twice.total_start() == doctest::Approx(2 * once.total_start()).epsilon(1e-14));
  CHECK(twice.total_end() == doctest::Approx(2 * once.total_end()).epsilon(1e-14));
  run.trainer.reset_energies();
  CHECK(run.trainer.energies().total_start() == 0);
}

}  // namespace pc::test

// The plan: what it saves must not change a number, and it must save what it promises.
#include <array>
#include <set>

#include "kernels/arithmetic.h"
#include "kernels/gemm.h"
#include "tests/networks.h"

namespace pc::test {
namespace {

int count_calls(const Plan& plan, const std::function<bool(const Call&)>& wanted) {
  int count = 0;
  for (const Program* program : plan.programs()) {
    count += static_cast<int>(std::count_if(program->calls().begin(), program->calls().end(), wanted));
  }
  return count;
}

bool touches(const Call& call, const View& view, bool write) {
  return std::any_of(call.touches.begin(), call.touches.end(),
                     [&](const Touch& t) { return t.write == write && t.view.data == view.data; });
}

}  // namespace

TEST_CASE("plan: with its savings and without them, the same numbers") {
  int pc_runs = 0, ipc_runs = 0, cyclic = 0, acyclic = 0;
  for (std::uint64_t seed = 0; seed < 160; ++seed) {
    CAPTURE(seed);
    const Problem problem = wild_problem(seed, {.cycles = seed % 2 == 0});
    for (const DType dtype : {DType::f64, DType::f32}) {
      CAPTURE(dtype);
      PlanSpec spec = wild_plan(seed, problem);
      spec.trace = seed % 4 == 0;
      Run quick(problem, spec, dtype);
      spec.optimize = false;
      Run slow(problem, spec, dtype);
      for (int i = 0; i < 3; ++i) {
        quick.step();
        slow.step();
      }
      check_same_numbers(quick, slow);
      for (int t = 0; spec.trace && t <= spec.relax.steps; ++t) {
        CHECK(relative_error(read(quick.network, quick.network.scalar(trace_name(t))),
                             read(slow.network, slow.network.scalar(trace_name(t)))) <= rounding(dtype));
      }
      (spec.schedule->learn == Learn::every_step ? ipc_runs : pc_runs) += 1;
      (topological_order(quick.network.graph()) ? acyclic : cyclic) += 1;
    }
  }
  CHECK(std::min({pc_runs, ipc_runs, cyclic, acyclic}) > 50);  // the sweep covers what it should
}

TEST_CASE("plan: with a stop rule, the savings change no number either") {
  for (std::uint64_t seed = 300; seed < 340; ++seed) {
    CAPTURE(seed);
    const Problem problem = wild_problem(seed, {.cycles = seed % 2 == 0});
    PlanSpec spec = wild_plan(seed, problem);
    spec.schedule = &find_schedule("pc");
    spec.relax.steps = 60;
    if (seed % 4 < 2) {
      spec.relax.stop = EnergyPlateau{1e-3};
    } else {
      spec.relax.stop = GradientNorm{0.1};
    }
    Run quick(problem, spec);
    spec.optimize = false;
    Run slow(problem, spec);
    for (int i = 0; i < 2; ++i) {
      const Plan::Outcome a = quick.step(), b = slow.step();
      CHECK(a.steps == b.steps);
      CHECK(a.converged == b.converged);
    }
    check_same_numbers(quick, slow);
  }
}

TEST_CASE("plan: one, two and three threads give the same bits") {
  for (std::uint64_t seed = 400; seed < 406; ++seed) {
    CAPTURE(seed);
    const Problem problem = wild_problem(seed, {.cycles = seed % 2 == 0});
    const PlanSpec spec = wild_plan(seed, problem);
    Run one(problem, spec), several(problem, spec, DType::f64, 2 + static_cast<int>(seed % 2));
    one.step();
    several.step();
    check_same_numbers(one, several);
  }
  // Batches around the groups of eight rows that are dealt out.
  for (const std::int64_t batch : {1, 8, 9, 17, 33}) {
    CAPTURE(batch);
    const Problem problem = clamped_mlp({17, 9, 33, 3}, batch, 6);
    PlanSpec spec = plan_for(problem, 2);
    spec.learn = LearnSpec{.rate = {.base = 0.01}, .clip_norm = 0.1};
    for (const DType dtype : {DType::f64, DType::f32}) {
      CAPTURE(dtype);
      Run one(problem, spec, dtype), two(problem, spec, dtype, 2), three(problem, spec, dtype, 3);
      for (Run* run : {&one, &two, &three}) {
        run->step();
        run->step();
      }
      check_same_numbers(one, two);
      check_same_numbers(one, three);
    }
  }
}

TEST_CASE("plan: nothing is pulled back into a clamped node") {
  const auto pulls_into_image = [](bool clamped) {
    Problem problem = clamped_mlp({5, 4, 4, 3}, 2, 1);
    if (!clamped) problem.clamps.erase(problem.clamps.begin());
    PlanSpec spec = plan_for(problem, 6);
    spec.learn = LearnSpec{};
    Run run(problem, spec);
    const Plan& plan = run.trainer.plan(2);
    const bool has = run.network.arena().has("back/x0");
    const int pulls = count_calls(plan, [&](const Call& call) {
      return call.part == "pullback" && touches(call, run.network.node_buffer("back", 0, 2), true);
    });
    CHECK(has == (pulls > 0));
    CHECK(count_calls(plan, [](const Call& call) { return call.part == "pullback"; }) > 0);
    return pulls;
  };
  CHECK(pulls_into_image(true) == 0);
  CHECK(pulls_into_image(false) > 0);  // the question is not an idle one
}

TEST_CASE("plan: a prediction from a clamped node is computed once a batch") {
  for (const std::string schedule : {"pc", "ipc"}) {
    CAPTURE(schedule);
    const Problem problem = clamped_mlp({5, 4, 4, 3}, 2, 1);
    PlanSpec spec = plan_for(problem, 6);
    spec.schedule = &find_schedule(schedule);
    spec.learn = LearnSpec{};
    Run run(problem, spec);
    const Plan& plan = run.trainer.plan(2);
    const int products = count_calls(plan, [&](const Call& call) {
      return call.kernel == "gemm" && touches(call, run.network.value(0, 2), false) &&
             touches(call, run.network.weight(0), false);
    });
    // The weights of ipc move at every step: at the start, and after each of the first five updates.
    CHECK(products == (schedule == "pc" ? 1 : 6));
  }
}

TEST_CASE("plan: also where it shares the prediction with an edge that moves") {
  Problem problem;
  problem.nodes = {{.name = "image", .shape = {5}}, {.name = "h", .shape = {4}}, {.name = "y", .shape = {4}}};
  problem.edges = {{.from = {"image"}, .to = "h", .chain = {linear(), op("tanh")}},
                   {.from = {"h"}, .to = "y", .chain = {linear()}},
                   {.from = {"image"}, .to = "y", .chain = {linear(), op("tanh")}}};
  Dice dice(3);
  problem.batch = 2;
  problem.clamp(0, dice.normals(10));
  problem.clamp(2, dice.normals(8));
  PlanSpec spec = plan_for(problem, 7);
  spec.gradients = true;
  Run run(problem, spec);
  const Plan& plan = run.trainer.plan(2);
  for (const ParamId weight : {0, 4}) {
    CHECK(count_calls(plan, [&](const Call& call) {
            return call.kernel == "gemm" && touches(call, run.network.value(0, 2), false) &&
                   touches(call, run.network.weight(weight), false);
          }) == 1);
  }
}

// A chain x0 -> ... -> xL of L layers, both ends clamped, started feedforward. Node l first moves at step L - 1 - l,
// so:
//   layer l's prediction is needed once at the start, again at step t if node l - 1 moved at t - 1 (t >= L - l + 1,
//   l >= 2), and once more at the end if node l - 1 moved at the last step (T - 1 >= L - l);
//   its error is there from step L - l on, and is pulled back (into a node that is not clamped, l >= 2) at those steps;
//   its weight gradient is formed at the end, if its error has arrived (T >= L - l).
// A single layer between clamped ends has nothing that moves: its error is formed once.
TEST_CASE("plan: the number of matrix products, and of errors, is the light cone's") {
  for (int layers = 1; layers <= 5; ++layers) {
    for (int steps = 1; steps <= 8; ++steps) {
      for (const bool gradients : {false, true}) {
        CAPTURE(layers);
        CAPTURE(steps);
        CAPTURE(gradients);
        int forward = layers, back = 0, gradient = 0, errors = 0;
        for (int l = 1; l <= layers; ++l) {
          for (int t = 0; t <= steps; ++t) errors += t >= layers - l ? 1 : 0;
          if (gradients && steps >= layers - l) ++gradient;
          if (l == 1) continue;
          for (int t = 0; t < steps; ++t) {
            if (t >= layers - l + 1) ++forward;
            if (t >= layers - l) ++back;
          }
          if (steps - 1 >= layers - l) ++forward;
        }
        const Problem problem = clamped_mlp(std::vector<std::int64_t>(index(layers + 1), 3), 2, 1);
        PlanSpec spec = plan_for(problem, steps);
        spec.gradients = gradients;
        Run run(problem, spec);
        const auto gemms = [&](std::string_view part) {
          return count_calls(run.trainer.plan(2), [&](const Call& call) {
            return call.kernel == "gemm" && (part.empty() || call.part == part);
          });
        };
        CHECK(gemms("") == forward + back + gradient);
        CHECK(gemms("pullback") == back);
        CHECK(gemms("weight gradient") == gradient);
        const auto of_errors = [](const Call& call) { return call.part == "error"; };
        CHECK(count_calls(run.trainer.plan(2), of_errors) == (layers == 1 ? 1 : errors));
      }
    }
  }
}

TEST_CASE("plan: with the start's predictions and rate 1 what comes back is a value's change, and nothing is moved") {
  for (const double rate : {1.0, 0.5}) {
    CAPTURE(rate);
    const Problem problem = clamped_mlp({4, 5, 6, 5, 3}, 3, 8);
    PlanSpec spec = plan_for(problem, 6);
    spec.schedule = &find_schedule("fixed_prediction");
    spec.settings.eta = rate;
    spec.gradients = true;
    Run run(problem, spec);
    spec.optimize = false;
    Run plain(problem, spec);
    run.step();
    plain.step();
    const auto moves = [](const Call& call) { return call.kernel == "value_sgd" && call.part == "move"; };
    CHECK((count_calls(run.trainer.plan(3), moves) == 0) == (rate == 1));
    CHECK(count_calls(plain.trainer.plan(3), moves) > 0);
    for (ParamId p = 0; p < run.network.graph().param_count(); ++p) {
      const Values want = read(plain.network, plain.network.gradient(p));
      CHECK(std::any_of(want.begin(), want.end(), [](double g) { return g != 0; }));
      CHECK(relative_error(read(run.network, run.network.gradient(p)), want) < 1e-12);
    }
  }
}

/// Three populations, each of which predicts all three through a tanh.
Problem populations(std::uint64_t seed) {
  Problem problem;
  const std::vector<std::pair<std::string, std::int64_t>> sizes = {{"image", 6}, {"hidden", 5}, {"label", 3}};
  for (const auto& [name, n] : sizes) problem.nodes.push_back({.name = name, .shape = {n}});
  for (const auto& [from, m] : sizes) {
    for (const auto& [to, n] : sizes) {
      problem.edges.push_back({.from = {from}, .to = to, .chain = {op("tanh"), linear(false)}});
    }
  }
  problem.batch = 4;
  Dice dice(seed);
  problem.clamp(0, dice.normals(4 * 6));
  problem.clamp(2, dice.normals(4 * 3));
  return problem;
}

TEST_CASE("plan: populations that predict each other share their maps, and products can be joined") {
  const Problem problem = populations(5);
  PlanSpec spec = plan_for(problem, 4);
  spec.relax.init.kind = ValueInit::Kind::zeros;
  // On the CPU, whose plans are not joined.
  Network apart(problem.graph(), {}, DType::f64, 4, 5, {}), together(problem.graph(), {}, DType::f64, 4, 5, {});
  load(apart, problem);
  load(together, problem);
  spec.gradients = true;
  const Plan plan(apart, spec), other(together, spec);
  REQUIRE(plan.programs().size() == 1);
  Program joined = *other.programs()[0];
  joined.join();
  const auto count = [](const Program& program, std::string_view kernel) {
    return std::count_if(program.calls().begin(), program.calls().end(),
                         [&](const Call& call) { return call.kernel == kernel; });
  };
  const Program& calls = *plan.programs()[0];
  // From each of the clamped ones to all three at the start; then in four steps and at the end from what moves to all
  // three, and in four steps the way back from all three; at the end the weights of nine edges, by three factors.
  CHECK(count(calls, "gemm") == 6 + 5 * 3 + 4 * 3 + 9);
  CHECK(count(joined, "gemm") == 2 + 5 + 4 + 3);
  CHECK(count(calls, "map") == 2 + 1);  // of the start; later each move makes its own
  CHECK(count(calls, "map_sgd") == 4);
  CHECK(count(calls, "map_pullback") == 0);
  plan.run(1);
  joined.run({}, 2);
  const auto left = state_of(apart, 4), right = state_of(together, 4);
  REQUIRE(left.size() == right.size());
  for (std::size_t i = 0; i < left.size(); ++i) {
    CAPTURE(left[i].first);
    CHECK(relative_error(left[i].second, right[i].second) < 1e-13);  // the same sums in another order
  }
}

TEST_CASE("plan: populations that move and are mapped in one call do as they do in three") {
  for (const double momentum : {0.0, 0.6}) {
    for (const DType dtype : {DType::f64, DType::f32}) {
      CAPTURE(momentum);
      CAPTURE(dtype);
      const Problem problem = populations(7);
      PlanSpec spec = plan_for(problem, 5);
      spec.relax.init.kind = ValueInit::Kind::zeros;
      spec.relax.stepper = ValueSgd{.rate = 0.1, .momentum = momentum};
      spec.gradients = true;
      Run quick(problem, spec, dtype);
      spec.optimize = false;
      Run slow(problem, spec, dtype);
      for (int i = 0; i < 2; ++i) {
        quick.step();
        slow.step();
      }
      check_same_numbers(quick, slow);
    }
  }
}

TEST_CASE("plan: populations learn the same with operands of fewer bits, whatever their sizes") {
  const Problem problem = populations(6);
  PlanSpec spec = plan_for(problem, 4);
  spec.relax.init.kind = ValueInit::Kind::zeros;
  spec.gradients = true;
  Run exact(problem, spec);
  exact.step();
  for (const auto& [operands, most] : {std::pair{DType::f32, 1e-6}, {DType::f16, 2e-3}, {DType::bf16, 1.5e-2}}) {
    CAPTURE(name_of(operands));
    spec.operands = operands;
    Run run(problem, spec, DType::f32);
    run.step();
    for (ParamId id = 0; id < run.network.graph().param_count(); ++id) {
      CHECK(relative_error(read(run.network, run.network.gradient(id)),
                           read(exact.network, exact.network.gradient(id))) < most);
    }
  }
}

TEST_CASE("plan: what is between two products may keep them apart") {
  // c1 = a b1, then perhaps something that writes a, or reads c1, then c2 = a b2, which may come before the latter.
  Values a(4, 1), b(8, 2), c(8, 0), other(4, 0);
  const auto view = [](Values& of, std::int64_t rows, std::int64_t cols, std::int64_t from, std::int64_t stride) {
    return View{of.data() + from, {rows, cols}, DType::f64, Device::cpu, stride};
  };
  for (const int between : {0, 1, 2}) {
    CAPTURE(between);
    Program program;
    Exec exec;
    exec.recorder = &program;
    const View in = view(a, 2, 2, 0, 2);
    kernels::gemm(exec, {.a = in, .b = view(b, 2, 2, 0, 4), .c = view(c, 2, 2, 0, 4)});
    if (between == 1) kernels::fill(exec, {.out = in, .value = 3});
    if (between == 2) kernels::copy(exec, {.in = view(c, 2, 2, 0, 4), .out = view(other, 2, 2, 0, 2)});
    kernels::gemm(exec, {.a = in, .b = view(b, 2, 2, 2, 4), .c = view(c, 2, 2, 2, 4)});
    program.join();
    CHECK(program.calls().size() == std::array{1, 3, 2}[index(between)]);
  }
}

TEST_CASE("plan: a chain of layers of one width begins in one call, as it does layer by layer") {
  const auto calls = [](Run& run, std::string_view kernel) {
    std::ptrdiff_t count = 0;
    for (const Program* program : run.trainer.plan(run.problem.batch).programs()) {
      count += std::count_if(program->calls().begin(), program->calls().end(),
                             [&](const Call& call) { return call.kernel == kernel; });
    }
    return count;
  };
  // x1 to x6 are of one width, x3 to x6 residual; x4 has a second reader.
  Problem problem = chain({20, 128, 128, 128, 128, 128, 128, 7}, [](std::size_t i) {
    return i == 1 ? std::vector{linear()} : std::vector{op(i % 2 == 0 ? "gelu" : "tanh"), linear(i % 3 != 0)};
  });
  for (const int to : {3, 4, 5, 6}) {
    problem.edges.push_back(
        {.from = {"x" + std::to_string(to - 1)}, .to = "x" + std::to_string(to), .chain = {op("identity")}});
  }
  problem.nodes.push_back({.name = "side", .shape = {9}});
  problem.edges.push_back({.from = {"x4"}, .to = "side", .chain = {linear()}});
  Dice dice(3);
  problem.batch = 11;
  problem.clamp(0, dice.normals(problem.batch * 20));
  problem.clamp(7, dice.normals(problem.batch * 7));
  PlanSpec spec = plan_for(problem, 7);
  spec.learn = LearnSpec{.optimizer = WeightSgd{}, .rate = {.base = 0.05}};
  for (const DType operands : {DType::f16, DType::bf16}) {
    CAPTURE(name_of(operands));
    spec.operands = operands;
    spec.optimize = true;
    Run at_once(problem, spec, DType::f32);
    spec.optimize = false;
    Run apart(problem, spec, DType::f32);
    spec.operands = DType::f32;
    Run whole(problem, spec, DType::f32);
    CHECK(calls(at_once, "feedforward") == (is_hopper(test_exec()) ? 1 : 0));
    CHECK(calls(apart, "feedforward") == 0);
    for (int step = 0; step < 3; ++step) {
      for (Run* run : {&at_once, &apart, &whole}) run->step();
      for (NodeId v = 1; v < 7; ++v) {
        CAPTURE(v);
        const auto value = [&](Run& run) { return read_value(run.network, v, problem.batch); };
        const double lost = relative_error(value(apart), value(whole));
        CHECK(lost > 1e-5);
        // Sums in another order move a few operands to the other side.
        CHECK(relative_error(value(at_once), value(apart)) < 0.2 * lost);
      }
      check_near_numbers(at_once, apart, operands == DType::f16 ? 1e-3 : 1e-2, 0.05);
    }
  }
  spec.operands = DType::bf16;
  spec.optimize = true;
  spec.observed = {3};  // its prediction itself is wanted: the chain is too short then
  Run looked_at(problem, spec, DType::f32);
  CHECK(calls(looked_at, "feedforward") == 0);
  spec.observed = {};
  problem.edges.push_back({.from = {}, .to = "x5", .chain = {op("constant")}});  // its first edge begins nowhere
  Run with_prior(problem, spec, DType::f32);
  with_prior.step();
  CHECK(calls(with_prior, "feedforward") == 0);
}

TEST_CASE("plan: no weight gradient unless somebody wants it") {
  const Problem problem = clamped_mlp({5, 4, 3}, 2, 1);
  for (const std::string schedule : {"pc", "ipc", "backprop"}) {
    CAPTURE(schedule);
    PlanSpec spec = plan_for(problem, 3);
    spec.schedule = &find_schedule(schedule);
    Run run(problem, spec);
    static_cast<void>(run.trainer.plan(2));
    CHECK_FALSE(run.network.arena().has("dw/" + run.network.graph().param(0).name));
    CHECK(count_calls(run.trainer.plan(2),
                      [](const Call& call) { return call.part == "weight gradient" || call.part == "update"; }) == 0);
  }
}

TEST_CASE("plan: a feedforward start leaves no error in a hidden node, to the last bit") {
  for (std::uint64_t seed = 500; seed < 540; ++seed) {
    CAPTURE(seed);
    Problem problem = wild_problem(seed, {.cycles = false, .backprop = true});
    PlanSpec spec = plan_for(problem, 1, 0.0);  // at rate 0 the values stay where they start
    spec.optimize = false;
    for (const DType dtype : {DType::f64, DType::f32}) {
      Run run(problem, spec, dtype);
      run.step();
      const Graph& graph = run.network.graph();
      for (PredictionId p = 0; p < graph.prediction_count(); ++p) {
        const NodeId v = graph.prediction(p).node;
        const bool clamped =
            std::any_of(problem.clamps.begin(), problem.clamps.end(), [&](const Clamp& c) { return c.node == v; });
        if (clamped || graph.prediction(p).spec.energy != &gaussian) continue;
        const Values delta = read(run.network, run.network.prediction_buffer("delta", p, problem.batch));
        CHECK(worst_difference(delta, Values(delta.size(), 0)) <= rounding(run.network.dtype()));
        CHECK(run.trainer.energies().start[index(p)] <= rounding(run.network.dtype()));
      }
    }
  }
}

TEST_CASE("plan: an error travels one edge a step; before, it is exactly zero") {
  constexpr int kLayers = 6;
  const Problem problem = clamped_mlp(std::vector<std::int64_t>(kLayers + 1, 4), 3, 2);
  for (int steps = 1; steps <= kLayers + 1; ++steps) {
    CAPTURE(steps);
    PlanSpec spec = plan_for(problem, steps);
    spec.optimize = false;
    Run run(problem, spec);
    run.step();  // leaves the errors of time `steps`
    for (PredictionId p = 0; p < kLayers; ++p) {
      const int distance = kLayers - run.network.graph().prediction(p).node;
      CAPTURE(distance);
      const Values delta = read(run.network, run.network.prediction_buffer("delta", p, 3));
      CHECK((worst_difference(delta, Values(delta.size(), 0)) == 0) == (steps < distance));
    }
  }
}

TEST_CASE("plan: without a target, a feedforward start does not move") {
  Problem problem = clamped_mlp({5, 4, 3}, 2, 1);
  problem.clamps.pop_back();
  PlanSpec spec = plan_for(problem, 20);
  spec.optimize = false;
  Run moved(problem, spec);
  moved.step();
  spec.relax.steps = 1;
  Run still(problem, spec);
  still.step();
  for (NodeId v = 0; v < 3; ++v) {
    CHECK(same_bits(read_value(moved.network, v, 2), read_value(still.network, v, 2)));
  }
}

// --- stop rules ---

TEST_CASE("stop: fixed steps, always") {
  const Problem problem = clamped_mlp({5, 4, 3}, 2, 1);
  Run run(problem, plan_for(problem, 17));
  const Plan::Outcome outcome = run.step();
  CHECK(outcome.steps == 17);
  CHECK_FALSE(outcome.converged);
}

namespace {

/// Energy before each step and after the last one, of one batch.
Values energies_of(const Problem& problem, int steps) {
  PlanSpec spec = plan_for(problem, steps);
  spec.trace = true;
  Run run(problem, spec);
  run.step();
  Values trace;
  for (int t = 0; t <= steps; ++t) trace.push_back(read(run.network, run.network.scalar(trace_name(t)))[0]);
  return trace;
}

double steepest(const std::vector<std::vector<Values>>& gradient) {
  double most = 0;
  for (const auto& node : gradient) {
    for (const Values& values : node) {
      for (const double g : values) most = std::max(most, std::abs(g));
    }
  }
  return most;
}

/// max |dF/dx| of the network's present state, by the reference.
double steepest_now(Run& run, const PlanSpec& spec) {
  Reference reference(run.network, run.problem, spec);
  for (NodeId v = 0; v < run.network.graph().node_count(); ++v) {
    const Values all = read_value(run.network, v, run.problem.batch);
    for (std::int64_t b = 0; b < run.problem.batch; ++b) {
      reference.x[index(v)][index(b)] = rows_of(all, run.problem.batch, b, 1);
    }
  }
  return steepest(reference.value_gradient());
}

}  // namespace

TEST_CASE("stop: a plateau is where a step lowers the energy by no more than the given part of it") {
  const Problem problem = clamped_mlp({5, 4, 4, 3}, 3, 8);
  const Values energy = energies_of(problem, 200);
  for (const double relative : {1e-2, 1e-3, 1e-4, 1e-5}) {
    CAPTURE(relative);
    // The signal needs some steps to reach every node; until then nothing is settled, however flat.
    int first = 4;
    while (energy[index(first - 1)] - energy[index(first)] > relative * energy[index(first - 1)]) ++first;
    PlanSpec spec = plan_for(problem, 200);
    spec.relax.stop = EnergyPlateau{relative};
    Run run(problem, spec);
    const Plan::Outcome outcome = run.step();
    CHECK(outcome.converged);
    // It sees the energy of x(first) at the start of the next step, which is taken too.
    CHECK(outcome.steps == first + 1);
    CHECK(run.trainer.energies().total_end() == doctest::Approx(energy[index(first + 1)]).epsilon(1e-12));
  }
  PlanSpec spec = plan_for(problem, 9);
  spec.relax.stop = EnergyPlateau{1e-9};
  Run run(problem, spec);
  const Plan::Outcome outcome = run.step();
  CHECK(outcome.steps == 9);
  CHECK_FALSE(outcome.converged);
}

TEST_CASE("stop: an energy that climbs has not settled") {
  const Problem problem = clamped_mlp({3, 3, 3, 3}, 2, 3);
  PlanSpec spec = plan_for(problem, 40, 2.5);
  spec.relax.stop = EnergyPlateau{1e-6};
  Run run(problem, spec);
  const Plan::Outcome outcome = run.step();
  CHECK(run.trainer.energies().total_end() > run.trainer.energies().total_start());
  CHECK(outcome.steps == 40);
  CHECK_FALSE(outcome.converged);
}

TEST_CASE("stop: the gradient rule leaves no gradient above the tolerance") {
  for (std::uint64_t seed = 600; seed < 612; ++seed) {
    CAPTURE(seed);
    const Problem problem =
        seed == 600 ? clamped_mlp({5, 4, 4, 3}, 3, 8) : wild_problem(seed, {.cycles = seed % 2 == 0, .smooth = true});
    for (const double tolerance : {1e-2, 1e-4}) {
      PlanSpec spec = plan_for(problem, 1500, 0.05);
      spec.relax.stop = GradientNorm{tolerance};
      Run run(problem, spec);
      const Plan::Outcome outcome = run.step();
      if (!outcome.converged) {
        CHECK(outcome.steps == 1500);
        continue;
      }
      CHECK(steepest_now(run, spec) <= tolerance * (1 + 1e-9));
      if (outcome.steps < 6) continue;
      // And it did not go on for longer than it had to: two steps before, some gradient was above.
      spec.relax.stop = FixedSteps{};
      spec.relax.steps = outcome.steps - 2;
      Run before(problem, spec);
      before.step();
      CHECK(steepest_now(before, spec) > tolerance);
    }
  }
}

TEST_CASE("stop: where nothing can move, it stops, whatever an earlier run left") {
  Problem problem = clamped_mlp({5, 4, 3}, 2, 1);
  PlanSpec spec = plan_for(problem, 3);
  spec.relax.stop = GradientNorm{1e-9};
  Run run(problem, spec);
  CHECK_FALSE(run.step().converged);
  PlanSpec open = spec;
  open.clamps.pop_back();  // no target: a feedforward start is settled
  open.relax.steps = 50;
  const Plan plan(run.network, open);
  const Plan::Outcome outcome = plan.run(1);
  CHECK(outcome.converged);
  CHECK(outcome.steps < 5);
  open.relax.stop = EnergyPlateau{1e-9};
  run.network.arena().write(run.network.scalar("clock/progress"), {NAN});
  const Plan::Outcome flat = Plan(run.network, open).run(1);
  CHECK(flat.converged);
}

// --- batches ---

TEST_CASE("plan: a small batch after a large one is a small batch") {
  for (std::uint64_t seed = 700; seed < 740; ++seed) {
    CAPTURE(seed);
    Problem problem = wild_problem(seed, {.cycles = seed % 2 == 0});
    problem.batch = std::max<std::int64_t>(problem.batch, 1);
    PlanSpec spec = wild_plan(seed, problem);
    if (spec.relax.init.kind == ValueInit::Kind::previous || spec.relax.init.kind == ValueInit::Kind::normal) {
      spec.relax.init.kind = ValueInit::Kind::feedforward;
    }
    spec.learn.reset();
    const std::int64_t part = 1 + (problem.batch - 1) / 2;
    Run large(problem, spec);
    large.step();
    load(large.network, problem, problem.batch - part, part);
    large.trainer.reset_energies();
    large.trainer.step(part);

    Network small(problem.graph(), test_exec(), DType::f64, part, 5, WeightInit{});
    Trainer trainer(small, spec, 1);
    load(small, problem, problem.batch - part, part);
    trainer.step(part);
    const auto left = state_of(large.network, part), right = state_of(small, part);
    REQUIRE(left.size() == right.size());
    for (std::size_t i = 0; i < left.size(); ++i) {
      const std::string& name = left[i].first;
      CAPTURE(name);
      CHECK(worst_difference(left[i].second, right[i].second) == 0);
    }
  }
}

TEST_CASE("plan: the reverse order of batches, and plans that are kept") {
  const Problem problem = clamped_mlp({5, 4, 3}, 4, 1);
  PlanSpec spec = plan_for(problem, 4);
  spec.learn = LearnSpec{};
  Run run(problem, spec);
  const Plan* large = &run.trainer.plan(4);
  const Plan* small = &run.trainer.plan(3);
  CHECK(large != small);
  CHECK(large == &run.trainer.plan(4));
  CHECK(large->flops() > small->flops());
}

TEST_CASE("plan: what cannot be planned is said") {
  const Problem problem = clamped_mlp({5, 4, 3}, 4, 1);
  Network network(problem.graph(), test_exec(), DType::f64, 4, 5, WeightInit{});
  const auto error = [&](const std::function<void(PlanSpec&)>& change) {
    PlanSpec spec = plan_for(problem, 3);
    change(spec);
    return error_of([&] { static_cast<void>(Plan(network, spec)); });
  };
  CHECK(contains(error([](PlanSpec& s) { s.schedule = nullptr; }), "no schedule"));
  CHECK(contains(error([](PlanSpec& s) { s.batch = 5; }), "a batch of 5 does not fit a network made for 4"));
  CHECK(contains(error([](PlanSpec& s) { s.batch = 0; }), "a batch of 0"));
  CHECK(contains(error([](PlanSpec& s) { s.relax.steps = 0; }), "at least one step, not 0"));
  CHECK(error([](PlanSpec&) {}).empty());
}

TEST_CASE("plan: measures see the predictions of the nodes that they observe") {
  for (const std::string schedule : {"pc", "ipc", "backprop"}) {
    CAPTURE(schedule);
    const Problem problem = clamped_mlp({5, 4, 3}, 2, 1);
    PlanSpec spec = plan_for(problem, 6);
    spec.schedule = &find_schedule(schedule);
    Network network(problem.graph(), test_exec(), DType::f64, 2, 5, WeightInit{});
    load(network, problem);
    Reference reference(network, problem, spec);
    spec.observed = {1, 2};
    const auto keep = [&](const char* what) {
      return [&network, what](const Exec& exec, std::int64_t) {
        for (PredictionId p = 0; p < 2; ++p) {
          kernels::copy(exec,
                        {.in = network.prediction_buffer("mu", p, 2), .out = network.prediction_buffer(what, p, 2)});
        }
      };
    };
    spec.measure_start = keep("first");
    spec.measure_end = keep("last");
    Trainer trainer(network, spec, 1);
    trainer.step(2);
    reference.step();
    // At the start both are what a plain forward pass gives; at the end, what the settled values give.
    Reference fresh(network, problem, spec);
    for (PredictionId p = 0; p < 2; ++p) {
      CAPTURE(p);
      for (std::int64_t b = 0; b < 2; ++b) {
        auto x = fresh.sample<double>(b);
        x[1] = naive_mu<double>(fresh.graph, 0, x, fresh.w);
        CHECK(worst_difference(rows_of(read(network, network.prediction_buffer("first", p, 2)), 2, b, 1),
                               naive_mu<double>(fresh.graph, p, x, fresh.w)) < 1e-12);
        const auto& settled = schedule == "backprop" ? x : reference.sample<double>(b);
        CHECK(worst_difference(rows_of(read(network, network.prediction_buffer("last", p, 2)), 2, b, 1),
                               naive_mu<double>(fresh.graph, p, settled, fresh.w)) < 1e-12);
      }
    }
  }
}

namespace {

/// Some of them wide, some with two predictions; returns how many.
int add_nodes(Problem& problem, Dice& dice, int widest) {
  const int n = 3 + dice.below(4);
  for (int v = 0; v < n; ++v) {
    const std::int64_t width = dice.chance(0.3) ? 40 + dice.below(widest - 40) : 1 + dice.below(9);
    problem.nodes.push_back({.name = "n" + std::to_string(v), .shape = {width}});
    problem.nodes.back().energy.precision = {dice.uniform(0.3, 1.5)};
    if (dice.chance(0.2)) problem.nodes.back().predictions.emplace_back("side", EnergySpec{});
  }
  return n;
}

/// Two of n nodes; `forward`: the second comes after the first, so that such edges make no cycle.
std::pair<std::size_t, std::size_t> ends_of_edge(Dice& dice, int n, bool forward) {
  if (!forward) return {index(dice.below(n)), index(dice.below(n))};
  const int from = dice.below(n - 1);
  return {index(from), index(from + 1 + dice.below(n - 1 - from))};
}

/// The first node is clamped, and at times the last; some steps of gradient descent.
PlanSpec clamped_plan(Problem& problem, Dice& dice) {
  const auto clamp = [&](std::size_t v) {
    problem.clamp(static_cast<int>(v), dice.normals(problem.batch * problem.nodes[v].shape.count()));
  };
  clamp(0);
  if (dice.chance(0.7)) clamp(problem.nodes.size() - 1);
  PlanSpec spec = plan_for(problem, 1 + dice.below(9), 0.03);
  spec.relax.stepper = ValueSgd{0.03, dice.chance(0.5) ? 0.6 : 0.0};
  spec.relax.init.sweeps = dice.below(3);
  spec.gradients = true;
  return spec;
}

/// Both ends of a chain are clamped; some steps, whose gradients are wanted, of operands of 16 bits.
PlanSpec half_plan(Problem& problem, std::int64_t batch, int steps) {
  Dice dice(7);
  problem.batch = batch;
  for (const std::size_t end : {std::size_t{0}, problem.nodes.size() - 1}) {
    problem.clamp(static_cast<NodeId>(end), dice.normals(batch * problem.nodes[end].shape.count()));
  }
  PlanSpec spec = plan_for(problem, steps, 0.05);
  spec.gradients = true;
  spec.operands = DType::f16;
  return spec;
}

void check_near_gradients(Run& run, Run& exact, double most) {
  for (ParamId p = 0; p < run.network.graph().param_count(); ++p) {
    const Values gradient = read(exact.network, exact.network.gradient(p));
    CHECK(relative_error(read(run.network, run.network.gradient(p)), gradient, 1e-3) < most);
  }
}

}  // namespace

TEST_CASE("regimes sliced and warps: all steps in one call give what call by call gives") {
  double worst = 0;
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    CAPTURE(seed);
    Dice dice(seed);
    Problem problem;
    problem.batch = 1 + dice.below(5);
    const int n = add_nodes(problem, dice, 90);
    for (int e = 0; e < 2 * n; ++e) {
      const auto [source, target] = ends_of_edge(dice, n, seed % 3 == 0);
      const NodeSpec &from = problem.nodes[source], &to = problem.nodes[target];
      EdgeSpec edge{.from = {from.name}, .to = to.name};
      const OpSpec f = op(dice.pick(std::vector<std::string>{"tanh", "gelu", "relu", "silu"}));
      const OpSpec w = op("linear", {{"bias", double(dice.below(2))}, {"gain", dice.uniform(0.3, 1)}});
      const int kind = dice.below(4);
      edge.chain = kind == 0 ? std::vector{w} : kind == 1 ? std::vector{w, f} : std::vector{f, w};
      if (kind == 3 && from.shape == to.shape) edge.chain = {op("identity")};
      if (!to.predictions.empty() && dice.chance(0.5)) edge.prediction = "side";
      problem.edges.push_back(edge);
    }
    PlanSpec spec = clamped_plan(problem, dice);
    for (const DType dtype : {DType::f64, DType::f32}) {
      spec.regime = Regime::library;
      Run plain(problem, spec, dtype);
      spec.regime = Regime::sliced;
      Run sliced(problem, spec, dtype);
      plain.step();
      sliced.step();
      CHECK(plain.trainer.plan(problem.batch).regime() == Regime::library);
      CHECK(sliced.trainer.plan(problem.batch).regime() == Regime::sliced);
      const auto left = state_of(plain.network, problem.batch), right = state_of(sliced.network, problem.batch);
      for (std::size_t i = 0; i < left.size(); ++i) {
        CAPTURE(left[i].first);
        const double off = relative_error(right[i].second, left[i].second, 1e-3);
        CHECK(off < (dtype == DType::f64 ? 1e-12 : 1e-4));
        if (dtype == DType::f64) worst = std::max(worst, off);
      }
      if (test_exec().device == Device::cuda) continue;  // there warps want operands of 16 bits
      spec.regime = Regime::warps;
      Run warps(problem, spec, dtype);
      warps.step();
      CHECK(warps.trainer.plan(problem.batch).regime() == Regime::warps);
      check_near_gradients(warps, plain, dtype == DType::f64 ? 1e-12 : 1e-4);
    }
  }
  MESSAGE("worst relative difference ", worst);
}

TEST_CASE(
    "regimes tiled and warps, operands of 16 bits: all steps in one call give what call by call gives with the same "
    "operands") {
  int cut = 0, by_warps = 0;
  double worst = 0;
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    CAPTURE(seed);
    Dice dice(seed);
    Problem problem;
    problem.batch = dice.chance(0.3) ? 60 + dice.below(90) : 1 + dice.below(5);
    const int n = add_nodes(problem, dice, 200);
    std::vector<int> before;  // whether a node's values go through an activation first: so they go into all products
    for (int v = 0; v < n; ++v) before.push_back(dice.below(2));
    const double gain = dice.uniform(0.3, 1);
    for (int e = 0; e < 2 * n; ++e) {
      const auto [source, target] = ends_of_edge(dice, n, seed % 3 == 0);
      const NodeSpec &from = problem.nodes[source], &to = problem.nodes[target];
      EdgeSpec edge{.from = {from.name}, .to = to.name};
      const OpSpec w = op("linear", {{"bias", double(dice.below(2))}, {"gain", gain}});
      edge.chain = before[source] != 0 ? std::vector{op("tanh"), w} : std::vector{w};
      if (before[source] == 0 && dice.chance(0.2)) edge.chain.push_back(op("gelu"));
      if (from.shape == to.shape && dice.chance(0.3)) edge.chain = {op("identity")};
      if (!to.predictions.empty() && dice.chance(0.5)) edge.prediction = "side";
      problem.edges.push_back(edge);
    }
    PlanSpec spec = clamped_plan(problem, dice);
    spec.operands = dice.chance(0.5) ? DType::f16 : DType::bf16;
    spec.form = Form::changes;
    spec.regime = Regime::tiled;
    std::optional<Run> tiled;
    if (const std::string why = error_of([&] { tiled.emplace(problem, spec, DType::f32).step(); }); !why.empty()) {
      CHECK(contains(why, "regime: tiled cannot be had"));
      continue;
    }
    ++cut;
    spec.regime = Regime::library;
    Run plain(problem, spec, DType::f32);
    plain.step();
    CHECK(tiled->trainer.plan(problem.batch).regime() == Regime::tiled);
    spec.regime = Regime::warps;
    std::optional<Run> warps;
    if (const std::string why = error_of([&] { warps.emplace(problem, spec, DType::f32).step(); }); !why.empty()) {
      CHECK(contains(why, "regime: warps cannot be had"));
    } else {
      ++by_warps;
      check_near_gradients(*warps, plain, spec.operands == DType::f16 ? 2e-3 : 1e-2);
    }
    const auto left = state_of(plain.network, problem.batch), right = state_of(tiled->network, problem.batch);
    for (std::size_t i = 0; i < left.size(); ++i) {
      CAPTURE(left[i].first);
      // What is rounded the other way differs by a unit in the last place of an operand, 1e-3 or 8e-3.
      const double off = relative_error(right[i].second, left[i].second, 1e-3);
      CHECK(off < (spec.operands == DType::f16 ? 2e-3 : 1e-2));
      worst = std::max(worst, off);
    }
  }
  CHECK(cut >= 30);
  CHECK(by_warps >= 10);
  MESSAGE("worst relative difference ", worst, ", of ", cut, " networks");
}

TEST_CASE("regime warps: a node's value is there before the error of a prediction that could have been made earlier") {
  for (const bool side_first : {false, true}) {
    Problem problem = chain({6, 5, 4, 3}, [](std::size_t) { return std::vector{linear(), op("tanh")}; });
    problem.edges.push_back({.from = {"x0"}, .to = "x2", .prediction = "side", .chain = {linear(), op("tanh")}});
    if (side_first)
      problem.nodes[2].predictions = {{"side", {}}};  // and gets the lower number
    else
      problem.nodes[2].predictions = {{"", {}}, {"side", {}}};
    PlanSpec spec = half_plan(problem, 2, 4);
    Run plain(problem, spec, DType::f32);
    spec.regime = Regime::warps;
    Run warps(problem, spec, DType::f32);
    plain.step();
    warps.step();
    check_near_gradients(warps, plain, 2e-3);
  }
}

TEST_CASE("regime auto: what warps could do but for the errors at its start goes another way") {
  // As large as fits a block of an H200 while no prediction has an error at the start.
  Problem problem = chain({5, 160, 160, 160, 10}, [](std::size_t) { return std::vector{op("tanh"), linear()}; });
  PlanSpec spec = half_plan(problem, 9, 3);
  spec.relax.init.kind = ValueInit::Kind::zeros;
  Run plain(problem, spec, DType::f32);
  spec.regime = Regime::automatic;
  Run chosen(problem, spec, DType::f32);
  plain.step();
  chosen.step();
  check_near_numbers(chosen, plain, 2e-3);
}

TEST_CASE("regime auto: on a GPU a small network goes by warps or slices, a large one call by call") {
  const bool gpu = test_exec().device != Device::cpu;
  if (!gpu) MESSAGE("skipped: without a GPU all go call by call");
  int steps = 3;
  const auto chosen = [&](const std::vector<std::int64_t>& widths, DType operands) {
    const Problem problem = clamped_mlp(widths, 70, 5, "tanh");
    PlanSpec spec = plan_for(problem, steps);
    spec.regime = Regime::automatic;
    spec.operands = operands;
    Run run(problem, spec, DType::f32);
    return run.trainer.plan(problem.batch).regime();
  };
  CHECK(chosen({8, 16, 16, 4}, DType::f16) == (gpu ? Regime::warps : Regime::library));
  CHECK(chosen({8, 16, 16, 4}, DType::f32) == (gpu ? Regime::sliced : Regime::library));
  CHECK(chosen({8, 600, 600, 4}, DType::f16) == Regime::library);
  std::vector<std::int64_t> deep(24, 64);  // three steps reach the last few layers, which are too few
  CHECK(chosen(deep, DType::f16) == Regime::library);
  steps = 20;
  CHECK(chosen(deep, DType::f16) == (gpu && is_hopper(test_exec()) ? Regime::tiled : Regime::library));
}

TEST_CASE("regime sliced is refused with a reason, and chosen nowhere by itself on the CPU") {
  Problem problem = clamped_mlp({3, 4, 2}, 2, 1);
  PlanSpec spec = plan_for(problem, 3);
  Run run(problem, spec);
  if (test_exec().device == Device::cpu) CHECK(run.trainer.plan(2).regime() == Regime::library);
  spec.regime = Regime::sliced;
  spec.schedule = &find_schedule("ipc");
  CHECK(contains(error_of([&] { Run(problem, spec).step(); }), "relax.schedule is not pc"));
  spec.schedule = &find_schedule("pc");
  spec.relax.stop = GradientNorm{};
  const std::string stop = error_of([&] { Run(problem, spec).step(); });
  CHECK(contains(stop, "plan.regime: sliced cannot be had: relax.stop is not steps"));
  CHECK(contains(stop, "plan.regime: auto"));
  spec.relax.stop = FixedSteps{};
  problem.nodes[2].energy.energy = &bernoulli;
  CHECK(contains(error_of([&] { Run(problem, spec).step(); }), "prediction x2"));
  const Problem wide = clamped_mlp({3, 300, 300, 2}, 2, 1);
  PlanSpec large = plan_for(wide, 3);
  large.regime = Regime::sliced;
  CHECK(contains(error_of([&] { Run(wide, large).step(); }), "shared memory"));
  large.regime = Regime::tiled;
  CHECK(contains(error_of([&] { Run(wide, large, DType::f32).step(); }), "fp16, bf16"));
}

}  // namespace pc::test

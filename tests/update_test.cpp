// How weights learn: products that Adam takes at once (kernels/gemm_adam.h), operands that are kept up with weights,
// and weights that have no gradient.
#include "kernels/gemm_adam.h"
#include "tests/networks.h"

namespace pc::test {
namespace {

std::vector<Values> weights_of(Run& run) {
  std::vector<Values> list;
  for (ParamId p = 0; p < run.network.graph().param_count(); ++p)
    list.push_back(read(run.network, run.network.weight(p)));
  return list;
}

/// By how much two runs that began alike differ in where they took a weight, as a share of how far it went.
double apart(const Values& a, const Values& b, const Values& start) {
  double difference = 0, way = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    way += (b[i] - start[i]) * (b[i] - start[i]);
  }
  return way == 0 ? std::sqrt(difference) : std::sqrt(difference / way);
}

int calls_of(const Plan& plan, std::string_view kernel, std::string_view part = {}) {
  int count = 0;
  for (const Program* program : plan.programs()) {
    for (const Call& call : program->calls()) {
      count += call.kernel == kernel && (part.empty() || call.part == part) ? 1 : 0;
    }
  }
  return count;
}

Problem cycle() {
  Problem problem = clamped_mlp({6, 9, 8, 3}, 5, 31);
  problem.edges.push_back({.from = {"x2"}, .to = "x1", .chain = {linear(), op("tanh")}});
  problem.edges.push_back({.from = {"x1"},
                           .to = "x1",
                           .chain = {op("tanh"), linear(false)},
                           .mask = [](const Shape& shape) {  // not from itself
                             std::vector<std::uint8_t> kept(static_cast<std::size_t>(shape.count()), 1);
                             for (std::int64_t i = 0; i < shape[0]; ++i)
                               kept[static_cast<std::size_t>(i * (shape[1] + 1))] = 0;
                             return kept;
                           }});
  return problem;
}

LearnSpec adam() { return {.optimizer = WeightAdam{.epsilon = 1e-2, .weight_decay = 0.01}, .rate = {.base = 0.02}}; }

}  // namespace

TEST_CASE("update: weights that learn from a product at once end where they end one call after another") {
  for (const std::string schedule : {"pc", "ipc", "zil", "fixed_prediction", "epc", "ep", "backprop"}) {
    for (const bool cyclic : {false, true}) {
      if (cyclic && schedule != "pc" && schedule != "ipc") continue;
      for (const DType type : {DType::f16, DType::bf16}) {
        CAPTURE(schedule);
        CAPTURE(cyclic);
        CAPTURE(type);
        const Problem problem = cyclic ? cycle() : clamped_mlp({9, 13, 8, 3}, 5, 30, "gelu");
        PlanSpec spec = plan_for(problem, 4);
        spec.schedule = &find_schedule(schedule);
        if (schedule == "ep") spec.settings.nudge = Nudge{};
        spec.operands = type;
        spec.learn = adam();
        Run quick(problem, spec, DType::f32);
        spec.optimize = false;
        Run slow(problem, spec, DType::f32);
        const std::vector<Values> start = weights_of(slow);
        for (int step = 0; step < 3; ++step) {
          quick.step();
          slow.step();
        }
        // Of ep two sides add up to a gradient: those updates are left as they are.
        const int at_once = calls_of(quick.trainer.plan(problem.batch), "gemm_adam");
        CHECK((at_once > 0) == (schedule != "ep"));
        CHECK(calls_of(slow.trainer.plan(problem.batch), "gemm_adam") == 0);
        const auto here = weights_of(quick), there = weights_of(slow);
        for (std::size_t p = 0; p < start.size(); ++p) {
          CAPTURE(p);
          // Sums in another order may round an operand to its neighbour.
          CHECK(apart(here[p], there[p], start[p]) < (type == DType::f16 ? 2e-3 : 1.5e-2));
        }
      }
    }
  }
}

TEST_CASE("update: a gradient that is asked for is there, and as it is without learning at once") {
  const Problem problem = clamped_mlp({9, 13, 8, 3}, 5, 30, "gelu");
  PlanSpec spec = plan_for(problem, 4);
  spec.operands = DType::f16;
  spec.gradients = true;
  spec.learn = adam();
  Run quick(problem, spec, DType::f32);
  spec.optimize = false;
  Run slow(problem, spec, DType::f32);
  quick.step();
  slow.step();
  CHECK(calls_of(quick.trainer.plan(problem.batch), "gemm_adam") > 0);
  for (ParamId p = 0; p < quick.network.graph().param_count(); ++p) {
    CHECK(relative_error(read(quick.network, quick.network.gradient(p)), read(slow.network, slow.network.gradient(p))) <
          2e-3);
  }
}

TEST_CASE("update: steps in a row make the operands of weights once, and each row of them anew") {
  const Problem problem = clamped_mlp({9, 13, 8, 3}, 5, 32);
  for (const std::string schedule : {"pc", "ipc", "backprop"}) {
    for (const bool by_adam : {false, true}) {
      CAPTURE(schedule);
      CAPTURE(by_adam);
      PlanSpec spec = plan_for(problem, 3);
      spec.schedule = &find_schedule(schedule);
      spec.operands = DType::bf16;
      spec.learn = adam();
      if (!by_adam) spec.learn->optimizer = WeightSgd{.momentum = 0.5};
      Run together(problem, spec, DType::f32), apart(problem, spec, DType::f32);
      const Plan& plan = together.trainer.plan(problem.batch);
      CHECK(calls_of(plan, "narrow", "operands") == 3);  // one a layer
      const Program& program = *plan.programs()[0];
      CHECK(program.in_a_row(4).size() == 4 * program.calls().size() - std::size_t{3} * 3);
      for (int row = 0; row < 2; ++row) {
        together.trainer.step(problem.batch, 4);
        for (int step = 0; step < 4; ++step) apart.step();
        check_same_numbers(together, apart);
        for (Run* run : {&together, &apart}) {  // as a checkpoint would
          Values other = read(run->network, run->network.weight(0));
          for (double& entry : other) entry = -0.5 * entry;
          run->network.arena().write(run->network.weight(0), other);
        }
      }
    }
  }
}

TEST_CASE("update: weights that no error reaches go on as their means say, and rest where those are zero") {
  const Problem problem = clamped_mlp({6, 7, 5, 4, 3}, 4, 33);
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const bool decays : {false, true}) {
      PlanSpec spec = plan_for(problem, 1);  // in one step the error of the target gets no farther than x3
      spec.learn = LearnSpec{.optimizer = WeightAdam{.weight_decay = decays ? 0.1 : 0.0, .decoupled = true},
                             .rate = {.base = 0.01}};
      Run quick(problem, spec, dtype);
      spec.optimize = false;
      Run slow(problem, spec, dtype);
      const std::vector<Values> start = weights_of(slow);
      const auto compare = [&] {
        for (Run* run : {&quick, &slow}) run->step();
        const auto here = weights_of(quick), there = weights_of(slow);
        for (std::size_t p = 0; p < start.size(); ++p) CHECK(relative_error(here[p], there[p]) < 1e-5);
      };
      compare();
      compare();
      CHECK((weights_of(quick)[0] == start[0]) == !decays);
      CHECK(weights_of(quick).back() != start.back());
      for (Run* run : {&quick, &slow}) {
        const View m = run->network.param_buffer("m", 0);
        Values some = read(run->network, m);
        some[3] = 0.25;
        run->network.arena().write(m, some);
      }
      const double before = weights_of(quick)[0][3];
      compare();
      CHECK(std::abs(weights_of(quick)[0][3] - before) > 0.1);  // by a mean of slopes, where that of squares is zero
    }
  }
}

}  // namespace pc::test

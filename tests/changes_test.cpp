// Errors from changes, and products of fewer bits.
#include "kernels/change.h"
#include "kernels/gemm.h"
#include "kernels/narrow.h"
#include "tests/networks.h"

namespace pc::test {
namespace {

using scalar::Activation;

constexpr Activation kCurves[] = {Activation::gelu, Activation::gelu_tanh, Activation::silu,
                                  Activation::tanh, Activation::sigmoid,   Activation::softplus};
constexpr Activation kAll[] = {
    Activation::identity,  Activation::relu, Activation::leaky_relu, Activation::hard_tanh, Activation::gelu,
    Activation::gelu_tanh, Activation::silu, Activation::tanh,       Activation::sigmoid,   Activation::softplus};

template <Activation f>
double worst_change() {
  double worst = 0;
  for (double z = -3; z <= 3; z += 0.0937) {
    for (double size = 1e-9; size < 2; size *= 3.1) {
      for (const double dz : {size, -size}) {
        const float zf = float(z), df = float(dz);
        // A straight line of slopes: the exact difference of a smooth function, for steps too short to subtract.
        const double from = double(zf), to = from + double(df);
        const double middle = scalar::activate<f>(0.5 * (from + to), 0.1).slope;
        const double ends = scalar::activate<f>(from, 0.1).slope + scalar::activate<f>(to, 0.1).slope;
        const double simpson = double(df) * (4 * middle + ends) / 6;
        const double direct = scalar::activate<f>(to, 0.1).value - scalar::activate<f>(from, 0.1).value;
        const double exact = std::abs(df) < 1e-3 ? simpson : direct;
        const double got = double(scalar::change<f>(zf, df, 0.1F).value);
        // relative to a change at slope 0.1: where the slope is nearly zero, so is the change
        worst = std::max(worst, std::abs(got - exact) / std::max(std::abs(exact), 0.1 * std::abs(double(df))));
      }
    }
  }
  return worst;
}

/// The gradients of a run, relative to those of another, by parameter: the worst.
double worst_gradient(Run& run, Run& exact) {
  double worst = 0;
  for (ParamId id = 0; id < run.network.graph().param_count(); ++id) {
    const Values got = read(run.network, run.network.gradient(id));
    const Values want = read(exact.network, exact.network.gradient(id));
    double error = 0, size = 0;
    for (std::size_t i = 0; i < want.size(); ++i) {
      error += (got[i] - want[i]) * (got[i] - want[i]);
      size += want[i] * want[i];
    }
    const double relative = std::sqrt(error / size);
    worst = relative > worst || std::isnan(relative) ? relative : worst;
    if (std::isnan(worst)) return worst;
  }
  return worst;
}

/// Weights of float32 in both.
void copy_weights(Run& from, Run& to) {
  for (ParamId id = 0; id < from.network.graph().param_count(); ++id) {
    to.network.arena().write(to.network.weight(id), read(from.network, from.network.weight(id)));
  }
}

}  // namespace

TEST_CASE("change: float keeps the digits of small changes") {
  // About 1e-5 of dz (scalar_math.h), of a change that is counted as 0.1 dz at least.
  for (const Activation f : kAll) {
    CAPTURE(static_cast<int>(f));
    scalar::with_activation(f, [&]<Activation kind>() { CHECK(worst_change<kind>() < 1.2e-4); });
  }
}

TEST_CASE("change: what a difference of two values would have lost") {
  for (const Activation f : kCurves) {
    CAPTURE(static_cast<int>(f));
    scalar::with_activation(f, [&]<Activation kind>() {
      const float z = 0.7F, dz = 1e-6F;
      const double exact = double(dz) * scalar::activate<kind>(0.7 + 0.5e-6, 0.1).slope;
      const float difference = scalar::activate<kind>(z + dz, 0.1F).value - scalar::activate<kind>(z, 0.1F).value;
      CHECK(std::abs(double(scalar::change<kind>(z, dz, 0.1F).value) - exact) < 1e-6 * exact);
      CHECK(std::abs(double(difference) - exact) > 1e-3 * exact);
    });
  }
}

TEST_CASE("narrow: what does not fit float16 is told; bfloat16 takes it") {
  Host flag({});
  for (const double x : {65504.0, 65536.0, -1e6}) {
    std::vector<float> in(1, float(x));
    std::vector<std::uint16_t> out(1, 0);
    flag.values[0] = 0;
    const auto to = [&](DType type) {
      return kernels::Narrowed{{.data = out.data(), .shape = {1, 1}, .dtype = type}, flag.view()};
    };
    const View from{.data = in.data(), .shape = {1, 1}};
    kernels::narrow({}, {.x = from, .to = to(DType::bf16)});
    CHECK(flag.values[0] == 0);
    kernels::narrow({}, {.x = from, .to = to(DType::f16)});
    CHECK(flag.values[0] == (std::abs(x) > 65504 ? 1 : 0));
  }
}

TEST_CASE("narrow: training that leaves float16's range stops and says so") {
  Problem problem = clamped_mlp({4, 3, 2}, 2, 9);
  for (double& x : problem.data[0]) x *= 1e6;
  PlanSpec spec = plan_for(problem, 2);
  spec.operands = DType::f16;
  Run run(problem, spec, DType::f32);
  run.step();
  CHECK_FALSE(run.trainer.sound(1e9));
  CHECK(contains(error_of([&] { run.trainer.check_energies("batch 1", 1e9); }), "use gemm: bf16 or tf32"));
}

TEST_CASE("form changes: the same numbers as form values, on any graph") {
  int used = 0;
  for (std::uint64_t seed = 0; seed < 120; ++seed) {
    CAPTURE(seed);
    const Problem problem = wild_problem(seed, {.cycles = seed % 2 == 0});
    PlanSpec spec = wild_plan(seed, problem);
    spec.schedule = &find_schedule("pc");
    spec.form = Form::values;
    Run values(problem, spec);
    spec.form = Form::changes;
    spec.optimize = seed % 3 != 0;
    Run changes(problem, spec);
    for (int i = 0; i < 3; ++i) {
      values.step();
      changes.step();
    }
    check_near_numbers(changes, values, 1e-9);
    for (const auto& [name, view] : changes.network.arena().views()) used += name.rfind("dx/", 0) == 0 ? 1 : 0;
  }
  CHECK(used > 100);  // most graphs allow it
}

TEST_CASE("form changes: weights that move at every step are followed") {
  int used = 0;
  for (std::uint64_t seed = 400; seed < 460; ++seed) {
    CAPTURE(seed);
    const Problem problem = wild_problem(seed, {.cycles = seed % 2 == 0});
    PlanSpec spec = wild_plan(seed, problem);
    spec.schedule = &find_schedule("ipc");
    if (!spec.learn) continue;
    spec.learn->optimizer = WeightSgd{};  // Adam would divide rounding by gradients that are nearly zero
    spec.form = Form::values;
    Run values(problem, spec);
    spec.form = Form::changes;
    spec.optimize = seed % 3 != 0;
    Run changes(problem, spec);
    for (int i = 0; i < 2; ++i) {
      values.step();
      changes.step();
    }
    check_near_numbers(changes, values, 1e-9);
    for (const auto& [name, view] : changes.network.arena().views()) used += name.rfind("dw0/", 0) == 0 ? 1 : 0;
  }
  CHECK(used > 50);
}

TEST_CASE("form changes: ipc keeps the digits of low layers") {
  const Problem problem = clamped_mlp({30, 24, 24, 24, 8}, 16, 5);
  PlanSpec spec = plan_for(problem, 8);
  spec.schedule = &find_schedule("ipc");
  spec.relax.stepper = ValueSgd{0.05, 0.5};
  spec.learn = LearnSpec{};
  const auto error_of_form = [&](Form form) {
    spec.form = form;
    Run run(problem, spec, DType::f32);
    Run truth(problem, spec, DType::f64);
    copy_weights(run, truth);
    truth.step();
    run.step();
    return worst_gradient(run, truth);
  };
  // That of the last of eight updates.
  const double by_changes = error_of_form(Form::automatic), by_values = error_of_form(Form::values);
  MESSAGE("by changes ", by_changes, ", by values ", by_values);
  CHECK(by_changes < 1e-3);
  CHECK(by_values > 10 * by_changes);
}

TEST_CASE("operands: gradients err by their bits, and not by more, in every layer") {
  const Problem problem = clamped_mlp({30, 24, 24, 24, 8}, 16, 5);
  PlanSpec spec = plan_for(problem, 8);
  spec.relax.stepper = ValueSgd{0.05, 0.5};
  spec.gradients = true;
  Run exact(problem, spec, DType::f64);
  const auto error_of_form = [&](Form form, DType operands) {
    spec.form = form;
    spec.operands = operands;
    Run run(problem, spec, DType::f32);
    copy_weights(run, exact);
    exact.step();
    run.step();
    CHECK(read(run.network, run.network.overflow())[0] == 0);
    return worst_gradient(run, exact);
  };
  // The bits of an operand (tf32 and float16: 2^-11, bfloat16: 2^-8), over sums of two dozen terms and four layers.
  CHECK(error_of_form(Form::automatic, DType::f32) < 2e-6);
  CHECK(error_of_form(Form::automatic, DType::tf32) < 1.5e-3);
  CHECK(error_of_form(Form::automatic, DType::f16) < 1.5e-3);
  CHECK(error_of_form(Form::automatic, DType::bf16) < 8e-3);
  // What it is for: differences of values lose the low layers.
  CHECK(error_of_form(Form::values, DType::f32) > 1e-5);
  CHECK(error_of_form(Form::values, DType::tf32) > 5e-3);
}

TEST_CASE("operands: products of bfloat16 leave bfloat16 where an error or a move alone reads it") {
  const Problem problem = clamped_mlp({6, 5, 7, 4, 3}, 4, 11);
  PlanSpec spec = plan_for(problem, 5);
  spec.operands = DType::bf16;
  struct Count {
    int rounded = 0, all = 0;
  };
  const auto products = [&](std::string_view part) {
    Run run(problem, spec, DType::f32);
    Count count;
    for (const Program* program : run.trainer.plan(problem.batch).programs()) {
      for (const Call& call : program->calls()) {
        if (call.kernel != "gemm" || call.part != part) continue;
        ++count.all;
        for (const Touch& touch : call.touches) count.rounded += touch.write && touch.view.dtype == DType::bf16 ? 1 : 0;
      }
    }
    return count;
  };
  // The first prediction of each of four layers is whole.
  CHECK(products("predict").rounded == products("predict").all - 4);
  CHECK(products("predict").rounded > 0);
  CHECK(products("pullback").rounded == products("pullback").all);
  spec.observed = {4};  // somebody wants the last prediction itself
  CHECK(products("predict").rounded > 0);
  CHECK(products("predict").rounded < products("predict").all - 4);
  spec.observed = {};
  spec.operands = DType::f16;  // might overflow
  CHECK(products("predict").rounded + products("pullback").rounded == 0);
  spec.operands = DType::bf16;
  spec.form = Form::values;
  CHECK(products("predict").rounded + products("pullback").rounded == 0);
  spec.form = Form::automatic;
  spec.schedule = &find_schedule("ipc");
  spec.learn = LearnSpec{};
  CHECK(products("predict").rounded + products("pullback").rounded == 0);
}

TEST_CASE("operands: what a step leaves nobody reads in the next") {
  // Errors that go on as operands alone leave their float32 unwritten: who read it would find NaN.
  int poisoned = 0;
  const auto check = [&](const Problem& problem, const PlanSpec& spec) {
    Run clean(problem, spec, DType::f32), run(problem, spec, DType::f32);
    clean.step();
    run.step();
    for (const auto& [name, view] : run.network.arena().views()) {
      for (const char* kind : {"dz/", "change/", "dmu/", "back/"}) {
        if (!name.starts_with(kind)) continue;
        run.network.arena().write(view, Values(static_cast<std::size_t>(view.count()), NAN));
        ++poisoned;
      }
    }
    clean.step();
    run.step();
    check_same_numbers(run, clean);
  };
  constexpr int kLong = 70;  // steps, of which not each is written out
  for (std::uint64_t seed = 500; seed < 580; ++seed) {
    CAPTURE(seed);
    const Problem problem = wild_problem(seed, {.cycles = seed % 2 == 0});
    PlanSpec spec = wild_plan(seed, problem);
    if (seed % 4 == 0) spec.relax.steps = kLong;
    if (spec.schedule->learn == Learn::at_end && seed % 3 != 0) spec.form = Form::changes;
    spec.operands = seed % 5 == 0 ? DType::f16 : DType::bf16;
    check(problem, spec);
  }
  const Problem chain = clamped_mlp({6, 5, 7, 4, 3}, 4, 11);
  for (const char* schedule : {"pc", "ipc", "fixed_prediction", "zil", "fa_zil", "epc", "ep", "backprop"}) {
    CAPTURE(schedule);
    for (const int steps : {4, kLong}) {
      CAPTURE(steps);
      PlanSpec spec = plan_for(chain, steps);
      spec.schedule = &find_schedule(schedule);
      spec.learn = LearnSpec{};
      spec.operands = DType::bf16;
      check(chain, spec);
    }
  }
  CHECK(poisoned > 100);
}

TEST_CASE("exact schedules in float32 keep their digits where errors fade from layer to layer") {
  // Weights of a tenth of the usual size: each layer's error is a tenth of the one above, and the lowest a
  // ten-thousandth of the values that it moves.
  const Problem problem = clamped_mlp({6, 8, 8, 8, 8, 8, 3}, 4, 3);
  const WeightInit small{WeightInit::Kind::fan_in, 0.1};
  PlanSpec spec = plan_for(problem, 1);
  spec.gradients = true;
  spec.schedule = &find_schedule("backprop");
  Run truth(problem, spec, DType::f64, 1, small);
  for (const char* schedule : {"backprop", "zil", "fa_zil", "fixed_prediction"}) {
    for (const bool optimize : {true, false}) {
      CAPTURE(schedule);
      CAPTURE(optimize);
      spec.schedule = &find_schedule(schedule);
      spec.optimize = optimize;
      Run run(problem, spec, DType::f32, 1, small);
      copy_weights(run, truth);
      truth.step();
      run.step();
      CHECK(worst_gradient(run, truth) < 2e-6);  // of sums of eight terms over six layers; read off as x - mu: 1e-3
    }
  }
}

TEST_CASE("operands: exact schedules, backprop and ipc run with them") {
  const Problem problem = clamped_mlp({12, 10, 10, 4}, 8, 7);
  for (const char* schedule : {"backprop", "zil", "fa_zil", "fixed_prediction", "epc", "ipc", "ep"}) {
    CAPTURE(schedule);
    PlanSpec spec = plan_for(problem, 3);
    spec.schedule = &find_schedule(schedule);
    spec.relax.stepper = ValueSgd{0.05, 0};
    spec.gradients = true;
    // Adam would make a step of any gradient, however small; and ep divides by beta.
    if (spec.schedule->learn == Learn::every_step) spec.learn = LearnSpec{.optimizer = WeightSgd{}};
    if (spec.schedule->free_output) spec.settings.nudge = Nudge{.beta = 0.5};
    Run exact(problem, spec, DType::f64);
    exact.step();
    for (const DType operands : {DType::tf32, DType::f16, DType::bf16}) {
      CAPTURE(name_of(operands));
      spec.operands = operands;
      Run run(problem, spec, DType::f32);
      run.step();
      CHECK(worst_gradient(run, exact) < (operands == DType::bf16 ? 2e-2 : 3e-3));
      spec.operands = DType::f32;
    }
  }
}

}  // namespace pc::test

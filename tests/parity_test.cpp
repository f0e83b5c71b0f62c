// Every kernel case on both devices. The CPU is the truth.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "kernels/program.h"
#include "tests/networks.h"
#include "tests/support.h"

namespace {

using pc::DType;
using pc::kernels::KernelCase;
using namespace pc::test;

/// A GPU to test on, or null after having said so.
std::unique_ptr<pc::ExecContext> gpu() {
  std::string why;
  if (pc::devices(&why).size() > 1) return std::make_unique<pc::ExecContext>("cuda");
  REQUIRE_MESSAGE(std::getenv("PC_REQUIRE_CUDA") == nullptr, "PC_REQUIRE_CUDA is set: ", why);
  MESSAGE("skipped: ", why);
  return nullptr;
}

/// Kernels that only move numbers, or promise the same bits everywhere.
bool exact(const KernelCase& k) {
  for (const char* name : {"fill", "copy", "one_hot", "right", "random", "tick", "narrow", "split", "first_arrival",
                           "choose", "transpose", "transpose_each", "permute"}) {
    if (k.kernel == name) return true;
  }
  return false;
}

/// PC_TEST_KERNEL names one kernel whose cases alone are run.
bool left_out(const KernelCase& k) {
  const char* only = std::getenv("PC_TEST_KERNEL");
  return only != nullptr && k.kernel != only;
}

/// By how much an output may differ because an entry was rounded to the other side.
double unit(DType type) { return type == DType::f16 ? 1e-3 : type == DType::bf16 ? 8e-3 : 0; }

void compare(pc::ExecContext& context, DType dtype, double tolerance) {
  for (const KernelCase& k : pc::kernels::all_cases(dtype)) {
    if (left_out(k)) continue;
    CAPTURE(k.name);
    const auto truth = run_case({}, k), got = run_case(context.exec(), k), again = run_case(context.exec(), k);
    REQUIRE(got.size() == truth.size());
    for (std::size_t i = 0; i < truth.size(); ++i) {
      CAPTURE(i);
      CHECK(relative_error(got[i], truth[i]) < tolerance + std::max(k.rounding, unit(k.out[i].dtype)));
      if (exact(k)) CHECK(same_bits(got[i], truth[i]));
      CHECK(same_bits(got[i], again[i]));
    }
  }
}

}  // namespace

TEST_CASE("parity: every kernel, float64") {
  if (const auto context = gpu()) compare(*context, DType::f64, 1e-11);
}

// The longest sums have about 2000 terms, which the two devices add in different orders: on the CPU the rounding errors
// (6e-8 each) of a plain sum grow with about the root of its length, to 3e-6 of the largest entry; and expf differs by
// a unit or two in the last place. A formula that is wrong in one twin shows at 1e-2 or more.
TEST_CASE("parity: every kernel, float32") {
  if (const auto context = gpu()) compare(*context, DType::f32, 2e-5);
}

TEST_CASE("parity: a hundred training steps on CUDA end at the weights that they end at on the CPU, float64") {
  const auto context = gpu();
  if (!context) return;
  Problem cyclic = clamped_mlp({6, 9, 8, 3}, 5, 31);
  cyclic.edges.push_back({.from = {"x2"}, .to = "x1", .chain = {linear(), op("tanh")}});
  cyclic.edges.push_back({.from = {"x1"}, .to = "x1", .chain = {linear(false)}});
  const Problem problems[] = {clamped_mlp({6, 9, 8, 3}, 5, 30, "gelu"), cyclic};
  for (const std::string schedule : {"pc", "ipc", "epc", "zil", "fa_zil", "backprop"}) {
    for (const Problem& problem : problems) {
      const bool in_layers = schedule != "pc" && schedule != "ipc";
      if (in_layers && &problem != &problems[0]) continue;
      CAPTURE(schedule);
      pc::PlanSpec spec = plan_for(problem, 6);
      spec.schedule = &pc::find_schedule(schedule);
      spec.regime = pc::Regime::automatic;
      spec.learn = pc::LearnSpec{.optimizer = pc::WeightAdam{}, .rate = {.base = 1e-3}};
      Run here(problem, spec, DType::f64, 1, {}, {}), there(problem, spec, DType::f64, 1, {}, context->exec());
      Run untrained(problem, spec, DType::f64, 1, {}, {});
      for (int step = 0; step < 100; ++step) {
        here.step();
        there.step();
      }
      for (pc::ParamId p = 0; p < here.network.graph().param_count(); ++p) {
        const Values weights = read(here.network, here.network.weight(p));
        CHECK(relative_error(read(there.network, there.network.weight(p)), weights) < 1e-10);
        CHECK(relative_error(read(untrained.network, untrained.network.weight(p)), weights) > 1e-3);
      }
    }
  }
}

TEST_CASE("parity: alike calls, done by one launch, give what each gives alone") {
  const auto context = gpu();
  if (!context) return;
  std::set<std::string_view> done_together;
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const KernelCase& k : pc::kernels::cases_of_size(dtype, 9, 37)) {
      if (left_out(k)) continue;
      CAPTURE(k.name);
      std::vector<std::unique_ptr<CaseOnDevice>> copies;
      pc::Program program;
      pc::Exec exec = context->exec();
      exec.recorder = &program;
      const int times = k.kernel == "gemm_adam" ? 11 : 3;  // more than a launch has room for
      for (int i = 0; i < times; ++i) {
        copies.push_back(std::make_unique<CaseOnDevice>(context->exec(), k));
        copies.back()->run(exec);
      }
      if (program.calls()[0].alike == 0) continue;
      done_together.insert(k.kernel);
      program.run(context->exec(), 1);
      const auto truth = run_case({}, k);
      for (const auto& copy : copies) {
        const auto got = copy->outputs();
        for (std::size_t i = 0; i < truth.size(); ++i) {
          CHECK(relative_error(got[i], truth[i]) < (dtype == DType::f64 ? 1e-11 : 2e-5) + unit(k.out[i].dtype));
        }
      }
    }
  }
  CHECK((done_together.size() >= 12 || std::getenv("PC_TEST_KERNEL") != nullptr));
}

TEST_CASE("parity: NaN ends up in the same places") {
  const auto context = gpu();
  if (!context) return;
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (KernelCase k : pc::kernels::cases_of_size(dtype, 9, 37)) {
      // gemm: NaN times a zero of alpha or beta is the libraries' own affair; so it is with zeros of the padding, and
      // of what a mask leaves out, and of the zeros of a sparse matrix's blocks
      if (k.kernel == "gemm" || k.kernel == "batched_gemm" || k.kernel.starts_with("conv")) continue;
      if (k.kernel.starts_with("attention") || left_out(k) || k.name.find("blocks") != std::string::npos) continue;
      for (std::size_t poisoned = 0; poisoned < k.in.size(); ++poisoned) {
        const pc::kernels::CaseView whole = k.in[poisoned];
        if (whole.dtype == DType::i32 || whole.dtype == DType::u8 || whole.content == pc::kernels::Content::constant) {
          continue;
        }
        k.in[poisoned].content = pc::kernels::Content::holes;
        CAPTURE(k.name);
        CAPTURE(poisoned);
        const auto truth = run_case({}, k), got = run_case(context->exec(), k);
        for (std::size_t i = 0; i < truth.size(); ++i) {
          REQUIRE(truth[i].size() == got[i].size());
          bool alike = true;
          for (std::size_t j = 0; j < truth[i].size(); ++j) {
            alike = alike && std::isnan(truth[i][j]) == std::isnan(got[i][j]);
          }
          CHECK(alike);
        }
        k.in[poisoned] = whole;
      }
    }
  }
}

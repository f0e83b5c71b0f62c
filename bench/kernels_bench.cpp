// Every kernel on one CPU thread, at the size of a small layer: pc_bench [--benchmark_filter=gemm]. The cases are those
// of the parity tests; FLOP/s and bytes/s are those that the kernel itself declares.
#include <benchmark/benchmark.h>

#include "kernels/cases.h"
#include "kernels/exec.h"
#include "kernels/narrow.h"
#include "kernels/program.h"

namespace {

using namespace pc;
using kernels::CaseView, kernels::KernelCase;

/// A view of a case in CPU memory, filled as the case says.
class Filled {
 public:
  Filled(const CaseView& spec, std::uint32_t stream)
      : bytes_(static_cast<std::size_t>(spec.shape.count()) * size_of(spec.dtype) + 64) {
    view_ = {bytes_.data(), spec.shape, spec.dtype, Device::cpu, 0};
    for (std::int64_t i = 0; i < spec.shape.count(); ++i) {
      const double value = kernels::case_entry(spec, stream, i);
      switch (spec.dtype) {
        case DType::f32:
        case DType::tf32:
          view_.as<float>()[i] = float(value);
          break;
        case DType::f64:
          view_.as<double>()[i] = value;
          break;
        case DType::i32:
          view_.as<std::int32_t>()[i] = std::int32_t(value);
          break;
        case DType::u8:
          view_.as<std::uint8_t>()[i] = std::uint8_t(value);
          break;
        case DType::f16:
        case DType::bf16: {
          const float entry = float(value);
          const View place{view_.as<std::uint16_t>() + i, {1, 1}, spec.dtype};
          kernels::narrow_row({place, overflow()}, 0, &entry);
          break;
        }
      }
    }
  }
  [[nodiscard]] const View& view() const { return view_; }

 private:
  static View overflow() {
    static double flag = 0;
    return {&flag, {}, DType::f64};
  }

  std::vector<std::byte> bytes_;
  View view_;
};

void run_case(benchmark::State& state, const KernelCase& c) {
  std::vector<Filled> memory;
  memory.reserve(c.in.size() + c.out.size());
  KernelCase::Views in, out;
  for (const CaseView& v : c.in) in.push_back(memory.emplace_back(v, std::uint32_t(memory.size())).view());
  for (const CaseView& v : c.out) out.push_back(memory.emplace_back(v, std::uint32_t(memory.size())).view());
  Program program;
  c.run({.recorder = &program}, in, out);
  for ([[maybe_unused]] auto _ : state) program.run({}, 1);
  const auto rate = [](double amount) {
    return benchmark::Counter(amount, benchmark::Counter::kIsIterationInvariantRate);
  };
  state.counters["FLOP/s"] = rate(program.flops());
  state.counters["B/s"] = rate(program.bytes());
}

}  // namespace

int main(int argc, char** argv) {
  static const std::vector<KernelCase> cases = kernels::cases_of_size(DType::f32, 128, 128);
  for (const KernelCase& c : cases) {
    benchmark::RegisterBenchmark(c.name.c_str(), [&c](benchmark::State& state) { run_case(state, c); });
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

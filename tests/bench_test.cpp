// pc bench: every number is there and means what it says.
#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/program.h"

using namespace pc::test;
using Json = nlohmann::json;

namespace {

fs::path write_config(const Scratch& scratch) {
  const fs::path path = scratch / "tiny.yaml";
  std::ofstream(path) << "name: tiny\n"
                         "task: {check: {clamp: [image, label]}}\n"
                         "check: {batch: 6}\n"
                         "graph: {mlp: {widths: [7, 9, 5, 3], activation: tanh, output: softmax_cross_entropy}}\n"
                         "relax: {schedule: pc, steps: 4, optimizer: {sgd: {rate: 0.05, momentum: 0.5}}}\n";
  return path;
}

constexpr std::int64_t kParameters = 7 * 9 + 9 + 9 * 5 + 5 + 5 * 3 + 3;

std::string device() {
  const char* where = std::getenv("PC_TEST_DEVICE");
  return where == nullptr ? "cpu" : where;
}

Json bench_json(const Scratch& scratch, const fs::path& config, const std::vector<std::string>& more) {
  std::vector<std::string> arguments = {"bench", config, "--device", device(), "--json", "--steps", "3"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  const Result result = run_program(scratch, arguments);
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  return Json::parse(result.out);
}

void check_positive(const Json& out, const std::vector<std::string>& keys) {
  for (const std::string& key : keys) {
    CAPTURE(key);
    REQUIRE(out.contains(key));
    REQUIRE(out[key].is_number());
    CHECK(std::isfinite(out[key].get<double>()));
    CHECK(out[key].get<double>() > 0);
  }
}

}  // namespace

TEST_CASE("pc bench --json: all keys, and numbers that agree with each other") {
  const Scratch scratch;
  const fs::path config = write_config(scratch);
  const Json out = bench_json(scratch, config, {"--parts", "--accuracy"});
  check_positive(out, {"batch",
                       "relax_steps",
                       "ms_per_step",
                       "ms_pipelined",
                       "gflop_per_step",
                       "least_mb_per_step",
                       "touched_mb_per_step",
                       "calls",
                       "floor_ms",
                       "share_of_floor",
                       "gemm_tflops",
                       "copy_gbs",
                       "examples_per_second",
                       "arena_bytes",
                       "parameters",
                       "threads",
                       "ms_median",
                       "ms_min",
                       "ms_max",
                       "timed_steps"});
  CHECK(out["config"] == config.string());
  CHECK(out["name"] == "tiny");
  CHECK(out["device"].get<std::string>().starts_with(device()));
  CHECK(out["dtype"] == "float32");
  CHECK(out["gemm"] == "fp32");
  CHECK(out["regime"] == "library");
  CHECK(out["schedule"] == "pc");
  CHECK(out["batch"] == 6);
  CHECK(out["relax_steps"] == 4);
  CHECK(out["parameters"] == kParameters);
  CHECK(out["sound"] == true);
  CHECK(out["timed_steps"] == 3);
  CHECK(out["ms_min"] <= out["ms_median"]);
  CHECK(out["ms_median"] <= out["ms_max"]);
  CHECK(out["ms_batched"].is_number() == (device() != "cpu"));
  double fastest = std::min(out["ms_median"].get<double>(), out["ms_pipelined"].get<double>());
  if (out["ms_batched"].is_number()) fastest = std::min(fastest, out["ms_batched"].get<double>());
  CHECK(out["ms_per_step"].get<double>() == fastest);
  CHECK(out["examples_per_second"].get<double>() == doctest::Approx(6e3 / fastest));
  CHECK(out["share_of_floor"].get<double>() == doctest::Approx(out["floor_ms"].get<double>() / fastest));
  // Adam: the weight and both moments, read and written; and one batch of 7 inputs and 3 targets. All float32.
  CHECK(out["least_mb_per_step"].get<double>() == doctest::Approx(1e-6 * (24 * kParameters + 6 * (7 + 3) * 4)));

  double shares = 0, ms = 0;
  std::int64_t calls = 0;
  REQUIRE(!out["parts"].empty());
  for (const Json& row : out["parts"]) {
    CAPTURE(row.dump());
    check_positive(row, {"calls", "ms", "share", "gbs"});
    CHECK(std::isfinite(row["gflops"].get<double>()));
    if (ms > 0) CHECK(row["ms"].get<double>() <= ms);  // the slowest first
    ms = row["ms"].get<double>();
    shares += row["share"].get<double>();
    calls += row["calls"].get<std::int64_t>();
  }
  CHECK(shares == doctest::Approx(1).epsilon(1e-9));
  CHECK(calls == out["calls"].get<std::int64_t>());

  double last = 0;
  REQUIRE(out["accuracy"].size() == 6);
  for (const Json& row : out["accuracy"]) {
    CAPTURE(row.dump());
    const double relative = row["relative"].get<double>();
    CHECK(relative >= last);  // the worst last
    last = relative;
  }
  CHECK(last > 0);
  CHECK(last < 1e-3);  // float32 with errors that are small beside the values
}

TEST_CASE("pc bench: float64 against itself differs by nothing, also where weights move at every step") {
  const Scratch scratch;
  const fs::path config = write_config(scratch);
  for (const char* schedule : {"pc", "ipc", "backprop"}) {
    CAPTURE(schedule);
    const Json out =
        bench_json(scratch, config,
                   {"--accuracy", "--set", "dtype=float64", "--set", std::string("relax.schedule=") + schedule, "--set",
                    "learn.optimizer={sgd: {momentum: 0.9}}"});
    CHECK(out["gemm"] == "fp64");
    REQUIRE(out["accuracy"].size() == 6);
    for (const Json& row : out["accuracy"]) CHECK(row["relative"] == 0);
    // The weight and its velocity, read and written.
    const int updates = schedule == std::string("ipc") ? 4 : 1;
    CHECK(out["least_mb_per_step"].get<double>() ==
          doctest::Approx(1e-6 * (32 * kParameters * updates + 6 * (7 + 3) * 8)));
  }
}

TEST_CASE("pc bench: the task classify needs no data here, and the text says what the numbers are") {
  const Scratch scratch;
  const fs::path config = scratch / "classify.yaml";
  std::ofstream(config) << "name: no-data\n"
                           "data: {set: mnist, root: /nowhere, batch: 4}\n"
                           "graph: {mlp: {widths: [784, 8, 10]}}\n"
                           "relax: {stop: {gradient: {tolerance: 1.0e-3}}, steps: 3}\n";
  const Result result = run_program(
      scratch, {"bench", config, "--device", device(), "--steps", "2", "--batch", "5", "--parts", "--accuracy", "-q"});
  CAPTURE(result.err);
  CHECK(result.status == 0);
  CHECK(result.err.empty());
  for (const char* part : {"no-data: pc", "batch 5", "float32", "synchronised", "pipelined", "examples/s", "floor",
                           "copy of", "6,370 parameters", "hidden1->label/linear.weight", "weight_adam"}) {
    CHECK(has(result.out, part));
  }
}

TEST_CASE("pc bench: wrong use ends with status 2, divergence is told") {
  const Scratch scratch;
  const fs::path config = write_config(scratch);
  const auto fails = [&](std::vector<std::string> arguments, const std::string& part) {
    arguments.insert(arguments.begin(), "bench");
    const Result result = run_program(scratch, arguments);
    CHECK(result.status == 2);
    CHECK(has(result.err, part));
    CHECK(!has(result.err, "unexpected"));
  };
  fails({}, "CONFIG");
  fails({config, "--set", "relax.step=3"}, "did you mean \"steps\"?");
  fails({config, "--set", "task.check.clamp=[imag]"}, "imag");
  fails({config, "--steps", "0"}, "--steps: it must be a number from 1 to 1000000000");
  fails({config, "--batch", "-1"}, "--batch: it must be a number from 1 to 1000000000");
  fails({config, "--device", "tpu"}, "tpu");
  fails({config, "--partz"}, "--partz");
  CHECK(bench_json(scratch, config, {"--set", "relax.optimizer.sgd.rate=1.0e+30"})["sound"] == false);
}

TEST_CASE("bench/compare: a table of our own rows, where Python has what it needs") {
  if (std::system("python3 -c 'import numpy, yaml' > /dev/null 2>&1") != 0) {
    MESSAGE("skipped: python3 has no NumPy or no PyYAML");
    return;
  }
  const Scratch scratch;
  const std::string command = std::string(PC_SOURCE_DIR) +
                              "/bench/compare --rows mlp128 --device cpu --with pc --steps 5 --pc " + PC_PROGRAM +
                              " > " + (scratch / "out").string() + " 2> " + (scratch / "err").string();
  const int status = std::system(command.c_str());
  CAPTURE(read(scratch / "err"));
  CHECK(status == 0);
  const std::string table = read(scratch / "out");
  for (const char* part : {"mlp128  pc        pc", "mlp128  backprop  pc", "worst gradient"}) CHECK(has(table, part));
  CHECK(table.find("not sound") == std::string::npos);
}

// pc bench: shows how fast a config's training step is, and how far that is from what the device could do.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>

#include "experiments/bench.h"
#include "experiments/commands.h"

namespace pc::experiments {
namespace {

using Json = nlohmann::ordered_json;

Config read(const BenchOptions& options) {
  Config config = read_config(options.config, options.overrides);
  if (!options.device.empty()) config.device = options.device;
  return config;
}

std::string model_of(const std::string& device) {
  for (const DeviceInfo& info : devices()) {
    if (info.name == device) return info.model;
  }
  return device;
}

/// "12,345,678"
std::string grouped(std::int64_t number) {
  std::string text = std::to_string(number);
  for (auto at = std::ssize(text) - 3; at > 0; at -= 3) text.insert(static_cast<std::size_t>(at), 1, ',');
  return text;
}

/// Three figures or more: 0.0131, 4.31, 1250
std::string figures(double number) {
  const int decimals = number >= 100 ? 0 : number >= 10 ? 1 : number >= 1 ? 2 : number >= 0.1 ? 3 : 4;
  return fmt::format("{:.{}f}", number, decimals);
}

std::string ms(double seconds) { return figures(1e3 * seconds) + " ms"; }

std::string scaled(double number, const std::string& unit) {
  struct Prefix {
    double from;
    const char* name;
  };
  for (const auto& [from, name] : {Prefix{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}}) {
    if (number >= from) return figures(number / from) + ' ' + name + unit;
  }
  return figures(number) + ' ' + unit;
}

class BenchRun {
 public:
  BenchRun(const BenchOptions& options, const Config& config, const ExecContext& where)
      : options_(options),
        config_(config),
        where_(where),
        batch_(options.batch.value_or(config.check_task ? config.check.batch : config.data.batch)),
        bench_(config, where, batch_) {}

  void measure() {
    work_ = bench_.work();
    spdlog::info("measuring what {} reaches", where_.name());
    ceilings_ = bench_.ceilings();
    spdlog::info("timing steps of {} in {} calls", scaled(work_.flops, "FLOP"), work_.calls);
    speed_ = bench_.speed(options_.steps);
    ceilings_.improve(bench_.ceilings());  // once more: other work may have slowed it
    if (options_.accuracy) {
      spdlog::info("comparing gradients with float64");
      accuracy_ = bench_.accuracy();
    }
    if (options_.parts) {
      spdlog::info("running each kind of call alone");
      parts_ = bench_.parts();
    }
  }

  [[nodiscard]] Json json() const {
    const double seconds = speed_.seconds();
    Json out;
    out["config"] = options_.config.string();
    out["name"] = config_.name;
    out["device"] = where_.name();
    out["model"] = model_of(where_.name());
    out["threads"] = bench_.threads();
    out["dtype"] = name_of(config_.dtype);
    out["gemm"] = arithmetic();
    out["regime"] = name_of(bench_.regime());
    out["schedule"] = config_.relax.schedule->name;
    out["batch"] = batch_;
    out["relax_steps"] = speed_.relax_steps;
    out["ms_per_step"] = 1e3 * seconds;
    out["examples_per_second"] = double(batch_) / seconds;
    const Synchronised& each = speed_.synchronised;
    out["ms_median"] = 1e3 * each.median;
    out["ms_min"] = 1e3 * each.minimum;
    out["ms_max"] = 1e3 * each.maximum;
    out["timed_steps"] = each.steps;
    out["ms_pipelined"] = 1e3 * speed_.pipelined.seconds;
    out["ms_batched"] = speed_.batched ? Json(1e3 * speed_.batched->seconds) : Json();
    out["batched_steps"] = speed_.batched ? Json(speed_.batched->times) : Json();
    out["gflop_per_step"] = 1e-9 * work_.flops;
    out["least_mb_per_step"] = 1e-6 * work_.least_bytes;
    out["touched_mb_per_step"] = 1e-6 * work_.touched_bytes;
    out["calls"] = work_.calls;
    out["gemm_tflops"] = 1e-12 * ceilings_.gemm;
    out["copy_gbs"] = 1e-9 * ceilings_.copy;
    out["floor_ms"] = 1e3 * ceilings_.floor_seconds(work_);
    out["share_of_floor"] = ceilings_.floor_seconds(work_) / seconds;
    out["arena_bytes"] = bench_.network().arena().bytes();
    out["parameters"] = bench_.network().graph().weight_count();
    const bool relaxes = lowers_energy(*config_.relax.schedule);
    out["energy"] = {{"start", speed_.energy_start}, {"end", relaxes ? Json(speed_.energy_end) : Json()}};
    out["sound"] = speed_.sound;
    out["parts"] = Json::array();
    for (const PartTime& row : parts_) {
      out["parts"].push_back({{"part", row.part},
                              {"kernel", row.kernel},
                              {"calls", row.calls},
                              {"ms", 1e3 * row.seconds},
                              {"share", row.share},
                              {"gflops", 1e-9 * row.flops / row.seconds},
                              {"gbs", 1e-9 * row.bytes / row.seconds}});
    }
    out["accuracy"] = Json::array();
    for (const GradientError& error : accuracy_) {
      out["accuracy"].push_back({{"parameter", error.parameter}, {"relative", error.relative}});
    }
    return out;
  }

  void print() const {
    const double seconds = speed_.seconds(), floor = ceilings_.floor_seconds(work_);
    const Graph& graph = bench_.network().graph();
    const bool cpu = where_.exec().device == Device::cpu;
    fmt::print("{}: {}, {:g} steps of relaxation, batch {}, {} on {} ({}{})\n", config_.name,
               config_.relax.schedule->name, speed_.relax_steps, batch_, name_of(config_.dtype), where_.name(),
               model_of(where_.name()), cpu ? fmt::format(", {} threads", bench_.threads()) : "");
    line("network", "{} nodes, {} edges, {} parameters; {:.1f} MiB", graph.node_count(), graph.edge_count(),
         grouped(graph.weight_count()), double(bench_.network().arena().bytes()) / 1048576.0);
    const Synchronised& each = speed_.synchronised;
    line("synchronised", "{} median, {} minimum, {} maximum of {} steps", ms(each.median), ms(each.minimum),
         ms(each.maximum), each.steps);
    const Block& row = speed_.pipelined;
    line("pipelined", "{}, median of {} rows of {} steps", ms(row.seconds), row.blocks, row.steps);
    if (speed_.batched) {
      line("batched", "{}, median of {} rows of {} steps, {} in one graph", ms(speed_.batched->seconds),
           speed_.batched->blocks, speed_.batched->steps, speed_.batched->times);
    }
    line("a step", "{}: {} examples/s, {}", ms(seconds), grouped(std::int64_t(double(batch_) / seconds)),
         scaled(work_.flops / seconds, "FLOP/s"));
    line("work", "{}; at least {}, while {} calls touch {}", scaled(work_.flops, "FLOP"),
         scaled(work_.least_bytes, "B"), grouped(work_.calls), scaled(work_.touched_bytes, "B"));
    line("rates here", "gemm of width {} in {} {}, copy of {} MiB {}", ceilings_.gemm_width, arithmetic(),
         scaled(ceilings_.gemm, "FLOP/s"), ceilings_.copy_bytes >> 20, scaled(ceilings_.copy, "B/s"));
    line("floor", "{} (by {}); this step takes {:.2f} times as long, the floor is {:.1f} % of it", ms(floor),
         work_.flops / ceilings_.gemm > work_.least_bytes / ceilings_.copy ? "FLOPs" : "bytes", seconds / floor,
         100 * floor / seconds);
    const char* unsound = speed_.sound ? "" : "; NOT SOUND: it diverged, lower relax's or learn's rate";
    if (lowers_energy(*config_.relax.schedule)) {
      line("energy", "{:.4g} -> {:.4g} a sample in relaxation{}", speed_.energy_start, speed_.energy_end, unsound);
    } else {
      line("loss", "{:.4g} a sample{}", speed_.energy_start, unsound);
    }
    print_accuracy();
    print_parts();
  }

 private:
  [[nodiscard]] std::string_view arithmetic() const {
    return config_.dtype == DType::f32 ? name_of_gemm(config_.gemm) : "fp64";
  }

  template <class... Args>
  static void line(const char* label, fmt::format_string<Args...> text, Args&&... args) {
    fmt::print("  {:<13} {}\n", label, fmt::format(text, std::forward<Args>(args)...));
  }

  void print_accuracy() const {
    if (accuracy_.empty()) return;
    constexpr std::size_t kMost = 24;
    fmt::print("\nGradients against float64, |g - g64| / |g64|\n");
    const std::size_t skipped = accuracy_.size() > kMost ? accuracy_.size() - kMost : 0;
    if (skipped > 0) fmt::print("  {} parameters with smaller errors\n", skipped);
    for (std::size_t i = skipped; i < accuracy_.size(); ++i) {
      fmt::print("  {:<34} {:.2e}\n", accuracy_[i].parameter, accuracy_[i].relative);
    }
  }

  void print_parts() const {
    if (parts_.empty()) return;
    double sum = 0;
    for (const PartTime& row : parts_) sum += row.seconds;
    fmt::print("\nEach call alone, again and again: {} in all\n", ms(sum));
    fmt::print("  {:<18} {:<16} {:>7} {:>10} {:>7} {:>10} {:>8}\n", "part", "kernel", "calls", "ms", "share", "GFLOP/s",
               "GB/s");
    for (const PartTime& row : parts_) {
      fmt::print("  {:<18} {:<16} {:>7} {:>10} {:>5.1f} % {:>10} {:>8}\n", row.part, row.kernel, row.calls,
                 figures(1e3 * row.seconds), 100 * row.share, figures(1e-9 * row.flops / row.seconds),
                 figures(1e-9 * row.bytes / row.seconds));
    }
  }

  const BenchOptions& options_;
  const Config& config_;
  const ExecContext& where_;
  std::int64_t batch_;
  Bench bench_;
  Work work_;
  Speed speed_;
  Ceilings ceilings_;
  std::vector<GradientError> accuracy_;
  std::vector<PartTime> parts_;
};

}  // namespace

int bench_command(const BenchOptions& options, const Common& common) {
  const Config config = read(options);
  const ExecContext where(config.device);
  BenchRun run(options, config, where);
  run.measure();
  if (common.json) {
    fmt::print("{}\n", run.json().dump());
  } else {
    run.print();
  }
  return static_cast<int>(ExitStatus::done);
}

}  // namespace pc::experiments

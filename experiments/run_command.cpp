// pc run: trains, and leaves a run folder behind.
#include <fmt/format.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <nlohmann/json.hpp>

#include "experiments/classify.h"
#include "experiments/commands.h"
#include "experiments/names.h"
#include "experiments/output.h"
#include "experiments/progress_line.h"
#include "pc/checkpoint.h"

namespace pc::experiments {
namespace {

using Json = nlohmann::ordered_json;

volatile std::sig_atomic_t stop_requested = 0;

/// Asks the run to end after the batch under way. A second signal ends the program the usual way.
void request_stop(int signal) {
  stop_requested = 1;
  std::signal(signal, SIG_DFL);
}

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// One training run, from its folder's state to the end.
class Run {
 public:
  /// `start`: when the command began, reading of the data included.
  Run(const Config& config, Classifier& task, RunFolder& folder, const Common& common, Clock::time_point start)
      : config_(config), common_(common), folder_(folder), task_(task), progress_(common.quiet), start_(start) {
    if (folder.resumes()) resume();
    at_.data = task.feed().fingerprint();
  }

  int train() {
    describe();
    while (at_.epoch < config_.learn.epochs) {
      if (!epoch()) return interrupted();
    }
    return report();
  }

 private:
  void resume() {
    at_ = load_trained(folder_.checkpoint(), false, task_.network(), task_.feed());
    PC_CHECK(std::ssize(folder_.metrics()) >= at_.epoch, "run", folder_.path().string(), " has metrics of ",
             folder_.metrics().size(), " epochs, but its checkpoint stands at epoch ", at_.epoch,
             "; start afresh with --force");
    folder_.keep_metrics(static_cast<std::size_t>(at_.epoch));
    seconds_before_ = at_.seconds;
    best_epoch_ = std::strtoll(at_.extra.c_str(), nullptr, 10);
    std::error_code ignored;
    if (!chooses()) {  // of a program that wrote it always
      std::filesystem::remove(folder_.best(), ignored);
      best_epoch_ = 0;
    }
    PC_CHECK(best_epoch_ == 0 || std::filesystem::exists(folder_.best()), "run", folder_.best().string(),
             " is gone, which holds the weights of epoch ", best_epoch_,
             ", the best so far; bring it back, or start "
             "afresh with --force");
    spdlog::info("resumed from {} at epoch {}, batch {}", folder_.checkpoint().string(), at_.epoch + 1, at_.batch);
  }

  [[nodiscard]] bool validates() const { return task_.feed().validation().count > 0; }
  /// Whether validation says which epoch is tested; else it is the last one.
  [[nodiscard]] bool chooses() const { return config_.learn.select_best && validates(); }

  void describe() {
    const Graph& graph = task_.network().graph();
    spdlog::info("{}: {} nodes, {} edges, {} parameters; {} with {} on {} ({})", config_.name, graph.node_count(),
                 graph.edge_count(), graph.weight_count(), config_.relax.schedule->name,
                 config_.dtype == DType::f32 ? "float32" : "float64", task_.device(), config_.data.request.set);
    const Plan& plan = task_.training_plan();
    spdlog::info(
        "{} training, {} validation, {} test examples; {:.1f} MFLOP a step; {:.1f} MiB for the network, "
        "{:.1f} MiB for the data",
        task_.feed().train().count, task_.feed().validation().count, task_.feed().test().count, plan.flops() * 1e-6,
        double(task_.network().arena().bytes()) / 1048576.0, double(task_.feed().bytes()) / 1048576.0);
  }

  void save() {
    const auto start = Clock::now();
    at_.seconds = seconds_before_ + seconds_since(start_);
    at_.extra = std::to_string(best_epoch_);
    const std::vector<std::string> kept = task_.kept_buffers();
    save_checkpoint(folder_.checkpoint(), task_.network(), kept, at_, to_yaml(config_.tree));
    saved_ = Clock::now();
    saving_ = std::chrono::duration<double>(saved_ - start).count();
  }

  /// After an epoch: so that of short epochs, which may be done again as quickly, most time is not spent on saving.
  [[nodiscard]] bool save_is_due() const {
    constexpr double kMostOfTheTime = 0.1;
    return seconds_since(saved_) * kMostOfTheTime >= saving_;
  }

  /// False: a signal ended it.
  bool epoch() {
    const auto start = Clock::now();
    progress_.begin(fmt::format("epoch {}/{}", at_.epoch + 1, config_.learn.epochs), task_.batches(), at_.batch,
                    double(config_.data.batch));
    bool finished = false;
    const EpochResult result = task_.train_epoch(
        at_.epoch, at_.batch,
        [&](std::int64_t done) {
          progress_.update(done, note_);
          const bool due = config_.save.every_batches > 0 && done % config_.save.every_batches == 0;
          const bool stop = stop_requested != 0;  // once: a signal may come at any time, and what ends here is saved
          if (due || stop) {
            at_.batch = done;
            task_.prepare_to_save();
            save();
          }
          return !stop;
        },
        finished);
    if (!finished) return false;
    const double training = seconds_since(start);
    const bool best = finish_epoch(result, training, start);
    const bool last = at_.epoch == config_.learn.epochs, stop = stop_requested != 0;
    if (last || stop || best || save_is_due()) save();  // best.h5 is of no epoch that a resumed run has yet to do
    return last || !stop;
  }

  /// Returns whether validation found it the best so far.
  bool finish_epoch(const EpochResult& result, double training, Clock::time_point start) {
    const double validation = validates() ? task_.evaluate(task_.feed().validation()) : NAN;
    at_.epoch += 1;
    at_.batch = 0;
    const bool best = chooses() && task_.score(validation) > at_.best;
    if (best) {
      at_.best = task_.score(validation);
      best_epoch_ = at_.epoch;
    }
    Json line;
    line["epoch"] = at_.epoch;
    line["train"]["energy_start"] = result.energy_start;
    line["train"]["energy"] = result.energy_end;
    if (result.accuracy >= 0) line["train"]["accuracy"] = result.accuracy;
    line["train"]["steps"] = result.mean_steps;
    if (validates()) line["validation"][task_.measure()] = validation;
    line["rate"] = task_.rate();
    const double seconds = seconds_since(start);  // the trace is no part of the epoch
    line["seconds"] = seconds;
    line["examples_per_second"] = double(result.examples) / training;
    if (const auto trace = config_.save.trace ? task_.trace() : std::vector<double>{}; !trace.empty()) {
      line["trace"] = trace;
    }
    folder_.add_metrics(line);
    if (best) {
      const std::vector<std::string> weights = {"w/", "running/"};  // what evaluation needs
      save_checkpoint(folder_.best(), task_.network(), weights, at_, to_yaml(config_.tree));
    }
    progress_.clear();
    const bool relaxes = lowers_energy(*config_.relax.schedule);
    note_ = relaxes ? fmt::format("energy {:.4g}", result.energy_end) : fmt::format("loss {:.4g}", result.energy_start);
    if (validates()) note_ += ", validation " + task_.shown(validation);
    spdlog::info("epoch {}/{}: {}{}{} ({:.2f} s, {:.0f} examples/s)", at_.epoch, config_.learn.epochs,
                 relaxes ? fmt::format("energy {:.5g} -> {:.5g}", result.energy_start, result.energy_end)
                         : fmt::format("loss {:.5g}", result.energy_start),
                 result.accuracy >= 0 ? fmt::format(", training {:.2f}%", 100 * result.accuracy) : "",
                 validates() ? ", validation " + task_.shown(validation) : "", seconds,
                 double(result.examples) / training);
    return best;
  }

  /// What there is to go on from was saved where the signal was seen, or at the end of the epoch.
  int interrupted() {
    progress_.clear();
    spdlog::warn("stopped by a signal at epoch {}, batch {}; go on with --resume", at_.epoch + 1, at_.batch);
    if (common_.json) {
      Json result;
      result["name"] = config_.name;
      result["run"] = folder_.path().string();
      result["interrupted"] = true;
      result["epochs"] = at_.epoch;
      fmt::print("{}\n", result.dump());
    }
    return static_cast<int>(ExitStatus::failed);
  }

  /// The epoch that validation chose is tested, once, on the whole test set.
  int report() {
    const std::string signature = task_.signature();
    folder_.write_h5();
    const bool chosen_one = chooses() && best_epoch_ > 0;
    if (chooses() && best_epoch_ == 0 && config_.learn.epochs > 0) {
      spdlog::warn("validation gave no number in any epoch: the last one is tested");
    }
    const std::int64_t chosen =
        chosen_one ? load_checkpoint(folder_.best(), task_.network()).epoch : config_.learn.epochs;
    const double test = task_.evaluate(task_.feed().test());
    const double seconds = seconds_before_ + seconds_since(start_);
    const Json last = folder_.metrics().empty() ? Json::object() : folder_.metrics().back();

    Json result;
    result["name"] = config_.name;
    result["run"] = folder_.path().string();
    result["schedule"] = config_.relax.schedule->name;
    result["device"] = task_.device();
    result["dtype"] = name_of(config_.dtype);
    result["epochs"] = config_.learn.epochs;
    result["seconds"] = seconds;
    result["train"] = last.value("train", Json::object());
    const bool measured = chosen >= 1 && chosen <= std::ssize(folder_.metrics());
    const Json line = measured ? folder_.metrics()[static_cast<std::size_t>(chosen - 1)] : Json::object();
    result["validation"] = line.value("validation", Json{{task_.measure(), nullptr}});
    result["validation"]["epoch"] = chosen;  // the one that is tested
    result["test"][task_.measure()] = test;
    if (config_.next_token) {
      result["test"]["perplexity"] = std::exp2(test);
      const NextTokenConfig& next = *config_.next_token;
      const Writing how{.count = next.sample, .temperature = next.temperature, .seed = config_.seed};
      if (next.sample > 0) result["sample"] = printable(task_.write_text(how));
    }
    result["examples_per_second"] = last.value("examples_per_second", Json());
    result["parameters"] = task_.network().graph().weight_count();
    result["arena_bytes"] = task_.network().arena().bytes();
    result["data_bytes"] = task_.feed().bytes();
    result["signature"] = signature;
    write_whole(folder_.path() / "result.json", result.dump(2) + "\n");
    if (result.contains("sample")) spdlog::info("it writes: {}", result["sample"].get<std::string>());
    spdlog::info("test {} {} (epoch {}), {} in all; run folder {}", task_.measure(), task_.shown(test), chosen,
                 duration_text(seconds), folder_.path().string());
    if (common_.json) fmt::print("{}\n", result.dump());
    return static_cast<int>(ExitStatus::done);
  }

  const Config& config_;
  const Common& common_;
  RunFolder& folder_;
  Classifier& task_;
  ProgressLine progress_;
  Progress at_;
  double seconds_before_ = 0;
  std::int64_t best_epoch_ = 0;
  std::string note_;
  Clock::time_point start_, saved_ = start_;
  double saving_ = 0;  // seconds that the last checkpoint took
};

}  // namespace

int run_command(const RunOptions& options, const Common& common) {
  const auto start = Clock::now();
  const Config config = read_config(options.config, options.overrides);
  require_data_task(config, "run");
  RunFolder folder(options.out.empty() ? std::filesystem::path("runs") / config.name : options.out, config,
                   options.start);
  // Whatever is wrong with the config, the device or the data is found before the folder is touched.
  const ExecContext where(config.device);
  Classifier task(config, where);
  static_cast<void>(task.training_plan());
  folder.begin(config);
  spdlog::default_logger()->sinks().push_back(
      std::make_shared<spdlog::sinks::basic_file_sink_mt>(folder.log().string(), !folder.resumes()));
  if (options.start == Start::resume && !folder.resumes()) {
    spdlog::info("there is no checkpoint in {} yet: starting from the beginning", folder.path().string());
  }
  std::signal(SIGINT, request_stop);
  std::signal(SIGTERM, request_stop);
  if (std::signal(SIGHUP, request_stop) == SIG_IGN) std::signal(SIGHUP, SIG_IGN);  // nohup
  try {
    return Run(config, task, folder, common, start).train();
  } catch (const Error& e) {
    // To the run's log alone: main tells the user.
    spdlog::default_logger()->sinks().back()->log(spdlog::details::log_msg("pc", spdlog::level::err, e.what()));
    throw;
  }
}

}  // namespace pc::experiments

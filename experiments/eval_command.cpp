// pc eval: loads a run and measures it again.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "experiments/classify.h"
#include "experiments/commands.h"

namespace pc::experiments {

int eval_command(const std::filesystem::path& run, const std::vector<std::string>& overrides, bool last,
                 const Common& common) {
  const Config config = asked_config(run, overrides, "eval");
  require_data_task(config, "eval");
  const std::filesystem::path from = trained_weights(run, !last && config.learn.select_best);
  const ExecContext where(config.device);
  Classifier task(config, where);
  const Progress at = load_trained(from, !last && config.learn.select_best, task.network(), task.feed());

  nlohmann::ordered_json result;
  result["name"] = config.name;
  result["run"] = run.string();
  result["checkpoint"] = from.string();
  result["epoch"] = at.epoch;
  result["device"] = task.device();
  result["dtype"] = name_of(config.dtype);
  if (task.feed().validation().count > 0) {
    result["validation"][task.measure()] = task.evaluate(task.feed().validation());
  }
  result["test"][task.measure()] = task.evaluate(task.feed().test());
  if (config.next_token) result["test"]["perplexity"] = std::exp2(result["test"][task.measure()].get<double>());
  result["parameters"] = task.network().graph().weight_count();
  if (common.json) {
    fmt::print("{}\n", result.dump());
    return 0;
  }
  fmt::print("{}, epoch {}, from {}\n", config.name, at.epoch, from.string());
  for (const char* part : {"validation", "test"}) {
    if (!result.contains(part)) continue;
    fmt::print("{:<19} {}\n", fmt::format("{} {}", part, task.measure()),
               task.shown(result[part][task.measure()].get<double>()));
  }
  return 0;
}

}  // namespace pc::experiments

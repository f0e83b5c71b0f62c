// pc write: goes on with a text.
#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "experiments/classify.h"
#include "experiments/commands.h"
#include "experiments/names.h"

namespace pc::experiments {

int write_command(const WriteOptions& options, const Common& common) {
  const Config config = asked_config(options.run, options.overrides, "write");
  PC_CHECK(config.next_token, "write", options.run.string(),
           " has learned no text (task: next_token); pc query asks it");
  const std::filesystem::path from = trained_weights(options.run, !options.last && config.learn.select_best);
  const ExecContext where(config.device);
  Classifier task(config, where);
  load_trained(from, !options.last && config.learn.select_best, task.network(), task.feed());

  const NextTokenConfig& next = *config.next_token;
  Writing how{.prompt = options.prompt,
              .count = options.count.value_or(next.sample > 0 ? next.sample : NextTokenConfig{}.sample),
              .temperature = options.temperature.value_or(next.temperature),
              .seed = options.seed.value_or(config.seed)};
  bool begun = false;
  if (!common.json) {
    how.tell = [&](char c) {
      fmt::print("{}{}", begun ? "" : how.prompt, c);
      std::fflush(stdout);
      begun = true;
    };
  }
  const std::string text = task.write_text(how);
  if (common.json) {
    nlohmann::ordered_json result;
    result["run"] = options.run.string();
    result["checkpoint"] = from.string();
    result["prompt"] = printable(options.prompt);
    result["text"] = printable(text);
    fmt::print("{}\n", result.dump());
  } else {
    fmt::print("\n");
  }
  return 0;
}

}  // namespace pc::experiments

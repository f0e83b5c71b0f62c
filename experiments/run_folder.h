// A run's folder: config.yaml (resolved), log.txt, metrics.jsonl, run.h5, checkpoint.h5, best.h5.
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "experiments/config.h"
#include "experiments/feed.h"
#include "pc/checkpoint.h"

namespace pc::experiments {

enum class Start : std::uint8_t {
  fresh,  // the folder must not hold a run yet
  force,  // the run that it holds is removed, with the answers that pc query put there; other files stay
  resume  // go on with what it holds, if it holds something
};

class RunFolder {
 public:
  /// Looks, and touches nothing. Throws if the folder holds a run that nobody asked to touch, or one that was started
  /// with another config.
  RunFolder(std::filesystem::path folder, const Config& config, Start start);

  /// Makes the folder, keeps others out of it, looks again, and saves the resolved config in it. Throws if that cannot
  /// be done.
  void begin(const Config& config);

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] std::filesystem::path checkpoint() const { return path_ / "checkpoint.h5"; }
  [[nodiscard]] std::filesystem::path best() const { return path_ / "best.h5"; }
  [[nodiscard]] std::filesystem::path log() const { return path_ / "log.txt"; }
  [[nodiscard]] bool resumes() const { return resumes_; }

  /// Metrics of finished epochs, in order, one object each.
  [[nodiscard]] const std::vector<nlohmann::ordered_json>& metrics() const { return *metrics_; }
  void add_metrics(nlohmann::ordered_json line);
  /// Forgets the lines after the first n: a resumed run repeats those epochs.
  void keep_metrics(std::size_t n);
  /// Writes metrics and traces as named arrays to run.h5.
  void write_h5() const;

 private:
  void look(const Config& config);

  std::filesystem::path path_;
  class Lock;
  std::shared_ptr<Lock> lock_;  // nobody else works in the folder
  Start start_;
  bool resumes_ = false;
  std::shared_ptr<std::vector<nlohmann::ordered_json>> metrics_;
};

/// The config of a run's folder with overrides, for a command that asks what the run has learned. Throws, in the name
/// of `who`, where there is no such run, where they change what it has learned from, and where they change a key that
/// says how it learned, or one of `unheeded`, which the command has no use for.
Config asked_config(const std::filesystem::path& run, const std::vector<std::string>& overrides, const char* who,
                    std::span<const char* const> unheeded = {});

/// Metrics of a run's finished epochs, in order, one object each; lines that a crash has cut short are left out.
std::vector<nlohmann::ordered_json> read_metrics(const std::filesystem::path& run);

/// Whether a run keeps, or would keep, something of its own in this file: it lies in a run's folder and has such a
/// name.
bool is_run_file(const std::filesystem::path& file);

/// The weights that a run is judged by: those that validation chose, or, where there are none or `best` is false, the
/// last ones.
std::filesystem::path trained_weights(const std::filesystem::path& run, bool best);

/// Loads such weights, and all else that is in the checkpoint (load_checkpoint). Throws, too, if the training examples
/// are not those that they were learned from, and if these are the last weights but the `best` were asked for and have
/// been there.
Progress load_trained(const std::filesystem::path& checkpoint, bool best, Network& network, const Feed& feed);

}  // namespace pc::experiments

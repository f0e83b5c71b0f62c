// What each command of the program does, apart from reading the command line.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "experiments/run_folder.h"

namespace pc::experiments {

/// What most commands take.
struct Common {
  bool json = false;   // one JSON object on standard output
  bool quiet = false;  // no log and no progress on standard error
};

struct RunOptions {
  std::filesystem::path config;
  std::vector<std::string> overrides;
  std::filesystem::path out;  // empty: runs/NAME
  Start start = Start::fresh;
};

struct CheckOptions {
  std::filesystem::path config;
  std::vector<std::string> overrides, schedules, dtypes;
  std::optional<double> tolerance;
  std::string device;  // empty: the config's
  std::optional<std::int64_t> batch;
  bool random = false, laws = false, gemm = false, verbose = false;
  std::filesystem::path plot;  // empty: none
  int after = 0;
  std::filesystem::path dump;
};

struct BenchOptions {
  std::filesystem::path config;
  std::vector<std::string> overrides;
  std::string device;  // empty: the config's
  std::optional<int> steps;
  std::optional<std::int64_t> batch;
  bool parts = false, accuracy = false;
};

struct WriteOptions {
  std::filesystem::path run;
  std::vector<std::string> overrides;
  std::string prompt;
  std::optional<std::int64_t> count;
  std::optional<double> temperature;
  std::optional<std::uint64_t> seed;
  bool last = false;
};

struct QueryOptions {
  std::filesystem::path run;
  std::string task = "ask";
  std::vector<std::string> overrides, clamp, start, intervene, free;
  std::string part;  // train, validation or test; empty: what suits the task
  std::string keep, hide;
  std::optional<double> noise, precision, momentum, temperature, threshold;
  std::string by = "start";
  std::string rate, schedule, latent;
  std::optional<int> steps;
  int repeat = 0, starts = 1;
  std::int64_t count = 0, first = 0;
  bool with_label = false, baselines = false;
  std::optional<std::uint64_t> seed;
  std::filesystem::path out;  // beginning of the files' names; empty: RUN/query-TASK
  std::string command;        // all of this as it was written
};

// Each returns the program's exit status, or throws an Error.
int run_command(const RunOptions& options, const Common& common);
int eval_command(const std::filesystem::path& run, const std::vector<std::string>& overrides, bool last,
                 const Common& common);
/// Draws the metrics of runs over their epochs, beside each other. `out` empty: curves.svg in the first run's folder.
int plot_command(const std::vector<std::filesystem::path>& runs, const std::filesystem::path& out,
                 const Common& common);
int write_command(const WriteOptions& options, const Common& common);
int graph_command(const std::filesystem::path& config, const std::vector<std::string>& overrides,
                  const std::filesystem::path& svg, const Common& common);
int check_command(const CheckOptions& options, const Common& common);
int bench_command(const BenchOptions& options, const Common& common);
int list_command(const std::string& name, const Common& common);  // empty: everything
int devices_command(const Common& common);
int data_list_command(const Common& common);
int data_verify_command(const std::string& set, const std::filesystem::path& root, const Common& common);
int query_command(const QueryOptions& options, const Common& common);
int signature_command(const Common& common);

}  // namespace pc::experiments

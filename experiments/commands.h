// What each command of the program does, apart from reading the command line.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
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

// Each returns the program's exit status, or throws an Error.
int run_command(const RunOptions& options, const Common& common);
int eval_command(const std::filesystem::path& run, const std::vector<std::string>& overrides, bool last,
                 const Common& common);
int graph_command(const std::filesystem::path& config, const std::vector<std::string>& overrides,
                  const std::filesystem::path& svg, const Common& common);
int devices_command(const Common& common);
int data_list_command(const Common& common);
int data_verify_command(const std::string& set, const std::filesystem::path& root, const Common& common);
int signature_command(const Common& common);

}  // namespace pc::experiments

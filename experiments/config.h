// A config as structs. The member initialisers are the defaults; configs/base.yaml documents every key.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "experiments/config_tree.h"
#include "experiments/data/dataset.h"
#include "graphs/graphs.h"
#include "pc/network.h"
#include "pc/optimizer.h"
#include "pc/relax.h"
#include "pc/schedule.h"

namespace pc::experiments {

enum class Normalize : std::uint8_t {
  none,      // values as they are: 0..255 for images
  unit,      // bytes to [0, 1]
  centered,  // bytes to [-1, 1]
  standard   // mean 0 and deviation 1 of each channel over the training part
};

struct DataConfig {
  DataRequest request;
  std::int64_t batch = 128;
  std::int64_t validation = 0;  // examples held out of the training part; set from a number or a fraction
  double validation_part = 0.1;
  std::int64_t limit = 0;  // use only so many training examples; 0: all
  Normalize normalize = Normalize::unit;
};

struct ClassifyConfig {
  std::string input = "image", target = "label";
  double on = 1.0, off = 0.0;  // the target's entries: of the class, and of the others
};

struct RelaxConfig {
  const Schedule* schedule = nullptr;
  RelaxSpec relax;
  double growth = 10;  // energy after a relaxation over energy before it: more is called divergence
};

/// Rates are written in epochs or parts of the run, and become updates when the number of batches is known.
struct LearnConfig {
  Optimizer optimizer = WeightAdam{};
  Rate rate;
  double warmup = 0.1;  // of all updates
  double clip_norm = 0;
  std::int64_t epochs = 10;
  bool select_best = true;  // test the epoch that did best on the validation part, else the last one
};

struct SaveConfig {
  std::int64_t every_batches = 0;  // checkpoint within epochs too; 0: after each epoch only
  bool trace = true;               // energy along the relaxation of one fixed batch, after each epoch
};

struct Config {
  std::string name;
  std::uint64_t seed = 0;
  std::string device = "auto";
  DType dtype = DType::f32;
  int threads = 0;  // CPU threads; 0: as many as there are
  DataConfig data;
  graphs::Description graph;
  WeightInit init;
  ClassifyConfig classify;
  RelaxConfig relax;
  std::optional<int> evaluate_steps;  // relaxation steps in evaluation; none: as in training
  LearnConfig learn;
  SaveConfig save;
  bool optimize = true;  // plan.optimize

  ConfigTree tree;  // what all this was read from
};

/// Reads the file with its parents, lays `overrides` ("a.b=value") over it, and checks everything that can be checked
/// without data. Throws with file:line:column.
Config read_config(const std::filesystem::path& file, const std::vector<std::string>& overrides);
Config read_config(ConfigTree tree);

}  // namespace pc::experiments

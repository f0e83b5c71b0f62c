// A config as structs. The member initialisers are the defaults; configs/base.yaml documents every key.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "experiments/config_tree.h"
#include "experiments/data/dataset.h"
#include "experiments/relax_config.h"
#include "graphs/graphs.h"
#include "pc/network.h"
#include "pc/optimizer.h"
#include "pc/plan.h"

namespace pc::experiments {

enum class Normalize : std::uint8_t {
  none,      // values as they are: 0..255 for images
  unit,      // bytes to [0, 1]
  centered,  // bytes to [-1, 1]
  standard   // mean 0 and deviation 1 of each channel over all training examples, also those held out
};

struct DataConfig {
  DataRequest request;
  std::int64_t batch = 128;
  std::int64_t validation = 0;  // examples held out of the training part; set from a number or a fraction
  double validation_part = 0.1;
  Place validation_place;   // for messages
  std::int64_t limit = 0;   // use only so many training examples; 0: all
  std::int64_t repeat = 1;  // an epoch goes so many times over them
  Normalize normalize = Normalize::unit;
  std::int64_t crop = 0;  // training images are shifted by up to so many rows and columns
  bool flip = false;      // and every other one is mirrored
};

struct ClassifyConfig {
  std::string input = "image", target = "label";
  double on = 1.0, off = 0.0;  // the target's entries: of the class, and of the others
  double smoothing = 0.0;      // how far training takes them towards their mean
};

/// The tasks `reconstruct` and `sequence`: examples without their labels.
struct ExamplesConfig {
  std::string input = "image", target;  // target empty: the input is all that is clamped
  bool next = false;                    // the target is the example after the input, else the same one
};

/// The task `next_token`: the input is a sequence of characters of a text, the target's rows say which comes next. It
/// runs as classify does, with these nodes.
struct NextTokenConfig {
  std::int64_t sample = 200;  // characters that a finished run writes, drawn from what it predicts
  double temperature = 1;     // logits are divided by it
};

/// The task `check`: a graph without data, to be measured by pc check alone. These nodes are clamped, to random values.
struct CheckTask {
  std::vector<std::string> clamp;
};

/// At which values pc check --laws measures; an empty list leaves the law out.
struct LawConfig {
  std::vector<double> ep_beta = {0.1, 0.05, 0.02, 0.01};
  Nudge::Side ep_side = Nudge::Side::centered;
  std::vector<double> pc_output_precision = {1e-1, 1e-2, 1e-3};
  std::vector<double> zil_gamma = {0.5, 0.9, 1};
  std::vector<double> fixed_prediction_eta = {0.5};
  std::vector<int> fixed_prediction_steps = {4, 8, 16};
};

struct CheckConfig {
  std::int64_t batch = 32;
  std::uint64_t seed = 0;  // of random batches
  double tolerance_f64 = 1e-10, tolerance_f32 = 1e-4;
  LawConfig laws;

  [[nodiscard]] double tolerance(DType dtype) const { return dtype == DType::f64 ? tolerance_f64 : tolerance_f32; }
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
  std::int64_t every_batches = 0;  // checkpoint within epochs too; 0: after epochs only
  bool trace = true;               // energy along the relaxation of one fixed batch, after each epoch
};

struct Config {
  std::string name;
  std::uint64_t seed = 0;
  std::string device = "auto";
  DType dtype = DType::f32;
  DType gemm = DType::f32;  // operands of matrix products
  int threads = 0;          // CPU threads; 0: as many as there are
  DataConfig data;
  graphs::Description graph;       // what is built, with everything that the config lays over what is written
  graphs::Description unpadded;    // the same before paths were made equally long for relax.schedule
  std::vector<std::string> zeros;  // nodes that stay zero: where the sweeps of an unrolled graph begin
  WeightInit init;
  ClassifyConfig classify;
  std::optional<ExamplesConfig> examples;     // in place of classify
  std::optional<NextTokenConfig> next_token;  // classify for sequences of a text
  std::optional<CheckTask> check_task;        // in place of classify; there may be no data then
  RelaxConfig relax;
  CheckConfig check;
  std::optional<int> evaluate_steps;  // relaxation steps in evaluation; none: as in training
  LearnConfig learn;
  SaveConfig save;
  bool optimize = true;  // plan.optimize
  Regime regime = Regime::automatic;
  Form form = Form::automatic;

  ConfigTree tree;  // what all this was read from
};

/// Reads the file with its parents, lays `overrides` ("a.b=value") over it, and checks everything that can be checked
/// without data. Throws with file:line:column.
Config read_config(const std::filesystem::path& file, const std::vector<std::string>& overrides);
Config read_config(ConfigTree tree);

/// The arithmetic of matrix products by the names that configs use.
inline constexpr std::pair<std::string_view, DType> kGemms[] = {
    {"fp32", DType::f32}, {"tf32", DType::tf32}, {"fp16", DType::f16}, {"bf16", DType::bf16}};

std::string_view name_of_gemm(DType operands);

/// False of zil, backprop and others that relax nothing: the energy of their start is the loss, and there is no other.
bool lowers_energy(const Schedule& schedule);

/// What the config's `plan` and `gemm` say.
void choose_plan(const Config& config, PlanSpec& spec);

/// How values relax where nothing is learned, whatever the weights were learned by: as in training, but from one
/// snapshot, with the nodes' own precisions and no values of another batch, and for as many steps as `evaluate` says.
RelaxSpec relax_of_answers(const Config& config);

/// Throws, with the place of the schedule in the config, if it cannot run on the graph like this.
void check_relax(const Config& config, const PlanSpec& spec, const Graph& graph);

/// The nodes that the task clamps (in training, for classify), and all that are clamped.
std::vector<std::string> task_names(const Config& config);
std::vector<std::string> clamped_names(const Config& config);
/// Those of them that nothing reads an answer from.
std::vector<std::string> input_names(const Config& config, const graphs::Description& graph);

/// Examples that are taken together: those of a sequence in the task next_token, which its input node holds; else 1.
std::int64_t sequence_length(const Config& config);

/// CPU threads to run with.
int thread_count(const Config& config);

/// Throws where the task is none that a network can be trained on. `who` is the command that wants to.
void require_data_task(const Config& config, const char* who);

}  // namespace pc::experiments

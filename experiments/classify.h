// The tasks that learn from a data set. In training the input is clamped to an example, and the target to
//   classify      its label, as a one-hot row
//   next_token    the characters that follow those of the input, as one-hot rows
//   reconstruct   the example once more; there may be no target at all
//   sequence      the example that follows
// In evaluation the target is free.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "experiments/config.h"
#include "experiments/feed.h"
#include "pc/trainer.h"

namespace pc::experiments {

/// One pass over the training part.
struct EpochResult {
  double energy_start = 0, energy_end = 0;  // per sample: before and after relaxation
  double accuracy = -1;                     // of the feedforward start; -1 where there is none (cyclic graphs)
  double mean_steps = 0;                    // of relaxation
  std::int64_t examples = 0;                // trained by this call: fewer when it went on in mid-epoch
};

/// How a text is gone on with.
struct Writing {
  std::string prompt;      // of characters that the run has learned; empty: the beginning of the test part
  std::int64_t count = 0;  // characters to write
  double temperature = 1;  // logits are divided by it; 0: always the likeliest
  std::uint64_t seed = 0;
  std::function<void(char)> tell = {};  // each character as it is drawn
};

/// A network, its data and its plans.
class Classifier {
 public:
  Classifier(const Config& config, const ExecContext& where);
  Classifier(const Classifier&) = delete;  // recorded calls refer to it
  Classifier& operator=(const Classifier&) = delete;

  /// Called after each batch with how many are done; false stops the epoch there.
  using AfterBatch = std::function<bool(std::int64_t done)>;

  /// Goes on with `epoch` (from 0) at batch `first`; results cover the whole epoch. Returns after the last batch, or
  /// earlier when after_batch says so: `finished` tells which.
  EpochResult train_epoch(std::int64_t epoch, std::int64_t first, const AfterBatch& after_batch, bool& finished);

  /// To be called before a checkpoint within an epoch: throws if the run has diverged, so that what is saved is sound.
  void prepare_to_save();

  /// What evaluation gives: "accuracy", the part of the examples that are classified rightly; "bits_per_character", the
  /// mean cross-entropy; or "error", the mean squared difference of an entry of the target from what it should be
  /// (without a target: of the input's prediction from the input).
  [[nodiscard]] const char* measure() const {
    return config_.next_token ? "bits_per_character" : config_.examples ? "error" : "accuracy";
  }
  /// The measure over a part. Throws when the part is empty.
  double evaluate(const Part& part);
  /// Larger is better.
  [[nodiscard]] double score(double measured) const {
    return config_.next_token || config_.examples ? -measured : measured;
  }
  /// The measure as text: "97.10%", "0.00123", "2.134 (perplexity 4.39)".
  [[nodiscard]] std::string shown(double measured) const;
  /// What the network writes behind a prompt, one character after another, each drawn from what is predicted to follow
  /// those before. For next_token only.
  std::string write_text(const Writing& how);
  /// Energy per sample before and after each step of a relaxation of the sample part, which ends where relax.stop says;
  /// empty for backprop. To be called between epochs.
  std::vector<double> trace();

  [[nodiscard]] Network& network() { return *network_; }
  [[nodiscard]] const Feed& feed() const { return feed_; }
  [[nodiscard]] std::int64_t batches() const;  // of one epoch
  [[nodiscard]] std::string device() const { return device_; }
  /// Of a whole batch. That of an epoch's last one, which may be smaller, is made too: an error comes before any work.
  [[nodiscard]] const Plan& training_plan() {
    static_cast<void>(train_->plan(batch_size(batches() - 1)));
    return train_->plan(batch_size(0));
  }
  /// The last rate that weights were updated with.
  [[nodiscard]] double rate();
  /// Hash of the exact bits of all weights.
  [[nodiscard]] std::string signature();

  /// Buffers that a run must keep to go on with the same bits.
  [[nodiscard]] std::vector<std::string> kept_buffers() const;

 private:
  Classifier(const Config& config, const ExecContext& where, Graph graph);

  /// Looking must not change learning: where values carry over from batch to batch, who looks keeps them meanwhile. By
  /// node; empty unless they carry over.
  using Values = std::vector<std::vector<double>>;
  [[nodiscard]] Values keep_values();
  void give_back(const Values& values);

  [[nodiscard]] std::int64_t batch_size(std::int64_t batch) const;
  /// Whether the task's nodes hold what the data has.
  void check_nodes(const Graph& graph) const;
  [[nodiscard]] PlanSpec base_spec() const;
  std::unique_ptr<Trainer> make_trainer();
  [[nodiscard]] PlanSpec evaluation_spec() const;
  std::unique_ptr<Trainer> make_evaluator(const Part& part);
  [[nodiscard]] int steps_in_a_row(std::int64_t done);
  void check_sound() const;
  void find_step_bound() const;
  [[nodiscard]] bool has_target() const { return target_ >= 0; }
  void record_target(const Exec& exec, const Part& part, const View& target) const;
  void record_score(const Exec& exec, const Part& part, const View& answer);
  void record_bits(const Exec& exec, const Part& part, const View& answer);
  void record_error(const Exec& exec, const Part& part, const View& answer);
  EpochResult read_result(std::int64_t epoch_examples, double steps);

  const Config& config_;
  std::string device_;
  int threads_;
  Feed feed_;
  std::unique_ptr<Network> network_;
  NodeId input_ = 0, target_ = -1;  // -1: none
  bool scores_training_;
  double step_count_ = 0;  // of relaxation, this epoch
  struct {
    std::int64_t epoch = 0, batch = 0;
  } at_;               // the batch under way, for messages
  double growth_ = 0;  // of the energy, at most
  std::unique_ptr<Trainer> train_, trace_;
  std::vector<double> traced_;  // what trace_ has seen
  std::map<const Part*, std::unique_ptr<Trainer>> evaluators_;
};

}  // namespace pc::experiments

// Measures the speed of training steps, on random data: what `pc bench` shows (bench_command.cpp).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "experiments/config.h"
#include "kernels/exec.h"
#include "pc/trainer.h"

namespace pc::experiments {

/// Seconds a step; each step waited for.
struct Synchronised {
  double median = 0, minimum = 0, maximum = 0;
  int steps = 0;
};

/// Seconds a step: the median of some blocks of steps, with one wait at the end of each.
struct Block {
  double seconds = 0;
  int blocks = 0, steps = 0;  // of each block
  int times = 1;              // steps that are one piece of work for the device
};

struct Speed {
  Synchronised synchronised;
  Block pipelined;
  std::optional<Block> batched;             // on CUDA, several steps as one graph
  double relax_steps = 0;                   // of one training step, in the mean
  double energy_start = 0, energy_end = 0;  // per sample, over the last steps
  bool sound = true;                        // neither NaN nor diverging

  /// The fastest of the medians.
  [[nodiscard]] double seconds() const;
};

/// What a training step must at least do, and what its calls do.
struct Work {
  double flops = 0;
  // Weights and their optimiser's state, read and written at each update, and the batch; and for each product with a
  // sparse matrix that fits no cache, its index, its values and both dense sides, each once.
  double least_bytes = 0;
  double touched_bytes = 0;  // of all views of all calls; steps that a stop rule repeats count once
  std::int64_t calls = 0;
};

/// What this device reaches in this program.
struct Ceilings {
  double gemm = 0;              // FLOP/s, in the config's dtype
  double copy = 0;              // bytes/s, read and written
  std::int64_t gemm_width = 0;  // of the square matrices
  std::int64_t copy_bytes = 0;  // of the copied matrix

  /// The larger of both: no training step is faster.
  [[nodiscard]] double floor_seconds(const Work& work) const;
  /// Keeps the better of each.
  void improve(const Ceilings& other);
};

/// All calls of one kernel in one part of the plan, each run alone again and again.
struct PartTime {
  std::string part, kernel;
  std::int64_t calls = 0;
  double seconds = 0, flops = 0, bytes = 0;  // of all of them
  double share = 0;                          // of the time of all parts
};

/// |g - g64| / |g64| of one parameter.
struct GradientError {
  std::string parameter;
  double relative = 0;
};

/// The network of a config, random batches in rotation, and the plan that trains it.
class Bench {
 public:
  Bench(const Config& config, const ExecContext& where, std::int64_t batch);
  ~Bench();
  Bench(const Bench&) = delete;  // recorded calls refer to it
  Bench& operator=(const Bench&) = delete;

  [[nodiscard]] const Network& network() const { return *network_; }
  [[nodiscard]] int threads() const { return threads_; }
  [[nodiscard]] Work work();
  /// `steps` to be timed one by one, after as many (at most 8) that are not; none: as many as tell something.
  Speed speed(std::optional<int> steps);
  [[nodiscard]] Ceilings ceilings() const;
  /// Of new networks with the config's first weights, the worst last. ipc: after its last update.
  [[nodiscard]] std::vector<GradientError> accuracy() const;
  /// The slowest first. Whatever was learned is lost: it runs updates again and again.
  std::vector<PartTime> parts();

  /// How the relaxation runs.
  [[nodiscard]] Regime regime() const { return plan().regime(); }

 private:
  class Rotation;

  [[nodiscard]] std::vector<Clamp> clamps() const;
  [[nodiscard]] PlanSpec base_spec() const;
  [[nodiscard]] const Plan& plan() const { return trainer_->plan(batch_); }
  [[nodiscard]] bool automatic_rate() const;
  void find_rate(Network& network) const;
  [[nodiscard]] std::vector<std::vector<double>> gradients(Network& network) const;
  void step(int times);
  double timed(int steps, int times);
  Block blocks(int count, int steps, int times);
  void finish(Speed& speed);

  const Config& config_;
  const ExecContext& where_;
  std::int64_t batch_;
  int threads_;
  std::unique_ptr<Network> network_;
  std::unique_ptr<Rotation> rotation_;
  std::unique_ptr<Trainer> trainer_;
  double relax_steps_ = 0, steps_ = 0;  // since the energies were last zeroed
  bool sound_ = true;
};

}  // namespace pc::experiments

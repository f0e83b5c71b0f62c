// The plan: (graph, batch, clamps, schedule, optimiser) compiled into the flat list of kernel calls of one training
// step. Everything that can be decided ahead is decided here: what is constant is computed once, what is known to be
// zero is not computed at all, and nothing is pulled back into a clamped node.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "kernels/program.h"
#include "pc/network.h"
#include "pc/optimizer.h"
#include "pc/relax.h"
#include "pc/schedule.h"

namespace pc {

/// Fixes a node. Whole: its value buffer ("x") holds what it is fixed to. Masked: its "data" buffer holds the values
/// and its "clamped" buffer is not zero where they hold; the other entries are free.
struct Clamp {
  NodeId node = 0;
  bool masked = false;
};

struct PlanSpec {
  const Schedule* schedule = nullptr;
  RelaxSpec relax;
  std::vector<Clamp> clamps;
  std::int64_t batch = 1;
  bool gradients = false;             // leave -dF/dw in the gradient buffers
  std::optional<LearnSpec> learn;     // and update the weights with them
  bool optimize = true;               // false: skip nothing, fuse nothing; the same numbers
  bool energies = true;               // add up the energy of each prediction, at the start and at the end
  bool trace = false;                 // add up the energy after each step too
  std::string draws = "clock/draws";  // the scalar that counts random starts, and so says which numbers come next

  /// Record, for the plan's batch, what fills the clamped buffers, what looks at the initial state, and what looks at
  /// the settled one.
  std::function<void(const Exec&, std::int64_t batch)> load, measure_start, measure_end;
  std::vector<NodeId> observed;  // nodes whose "mu" buffer the measures read
};

/// Scalars in which energies, summed over samples, add up until somebody zeroes them.
std::string energy_start_name(const Graph& graph, PredictionId id);
std::string energy_end_name(const Graph& graph, PredictionId id);
std::string trace_name(int step);

class Plan {
 public:
  /// What ended a relaxation.
  struct Outcome {
    int steps = 0;
    bool converged = false;  // by the stop rule; with FixedSteps always false
  };

  Plan(Network& network, const PlanSpec& spec);

  /// One training step (or one settling, without learning). Waits for the device only if the stop rule must look.
  Outcome run(int threads) const;

  /// The calls in order; with a stop rule, the repeated step stands once.
  [[nodiscard]] std::vector<const Program*> programs() const;
  [[nodiscard]] double flops() const;

 private:
  friend class PlanBuilder;
  Network* network_;
  int max_steps_ = 0;
  int first_look_ = 0;  // the first step after which the stop rule is asked
  StopRule stop_;
  Program start_;               // with FixedSteps: everything
  std::vector<Program> steps_;  // with a stop rule: the last one repeats
  Program finish_;
  View progress_;  // energy, or steepest gradient, of the last step
};

}  // namespace pc

// The plan: (graph, batch, clamps, schedule, optimiser) compiled into the flat list of kernel calls of one training
// step. Everything that can be decided ahead is decided here: what is constant is computed once, what is known to be
// zero is not computed at all, and nothing is pulled back into a clamped node.
#pragma once

#include <cstdint>
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

/// How a relaxation runs. The numbers agree to rounding.
enum class Regime : std::uint8_t {
  automatic,  // whichever should be faster
  library,    // call by call, products by the library
  sliced,     // all steps in one kernel, a few samples a block: small graphs of dense edges (kernels/settle.h)
  tiled,      // all steps in one kernel, cut into tiles that blocks hand over: larger ones (kernels/settle_tiles.h).
              // Where many nodes move, or where it is asked for
  warps       // as sliced, by warps that own their values, with the start and the last errors in the same kernel where
              // nobody looks at them (kernels/settle_warps.h)
};

constexpr const char* name_of(Regime regime) {
  switch (regime) {
    case Regime::automatic:
      return "auto";
    case Regime::sliced:
      return "sliced";
    case Regime::tiled:
      return "tiled";
    case Regime::warps:
      return "warps";
    case Regime::library:
      break;
  }
  return "library";
}

/// In what a relaxation by values computes. The numbers agree to rounding.
enum class Form : std::uint8_t {
  automatic,  // changes, where float32 starts from predictions: errors are tiny there
  values,     // errors are differences of values
  changes     // errors are differences of changes since the start (kernels/change.h), where the schedule and the
              // operators allow it
};

struct PlanSpec {
  const Schedule* schedule = nullptr;
  ScheduleSettings settings;
  RelaxSpec relax;  // exact schedules replace it by their own
  std::vector<Clamp> clamps;
  std::int64_t batch = 1;
  bool gradients = false;          // leave -dF/dw in the gradient buffers
  std::optional<LearnSpec> learn;  // and update the weights with them
  bool optimize = true;            // false: skip nothing, fuse nothing; the same numbers
  Regime regime = Regime::automatic;
  Form form = Form::automatic;
  DType operands = DType::f32;  // of matrix products: float32, tf32, float16 or bfloat16
  bool energies = true;         // add up the energy of each prediction, at the start and at the end
  bool trace = false;           // add up the energy after each step too
  /// Called after step t (from 0) with the energy, summed over the batch, that the values had before it. Waits for the
  /// device after every step.
  std::function<void(int step, double energy)> watch;
  std::string draws = "clock/draws";  // the scalar that counts random starts, and so says which numbers come next

  /// Record, for the plan's batch, what fills the clamped buffers, what looks at the initial state, and what looks at
  /// the settled one.
  std::function<void(const Exec&, std::int64_t batch)> load, measure_start, measure_end;
  std::vector<NodeId> observed;  // nodes whose "mu" buffer the measures read
};

/// The spec with an exact schedule's own start, steps and rate in the place of RelaxSpec.
PlanSpec own_pace(PlanSpec spec, const Graph& graph);

/// Scalars in which energies, summed over samples, add up until somebody zeroes them.
std::string energy_start_name(const Graph& graph, PredictionId id);
std::string energy_end_name(const Graph& graph, PredictionId id);
std::string trace_name(int step);

class Plan {
 public:
  /// What ended the relaxations.
  struct Outcome {
    int steps = 0;           // of all relaxations
    bool converged = false;  // each by the stop rule; with FixedSteps always false
  };

  Plan(Network& network, const PlanSpec& spec);

  /// One training step (or one settling, without learning), or `times` of them in a row. Waits for the device only if
  /// the stop rule must look.
  Outcome run(int threads, int times = 1) const;

  /// The calls in order; with a stop rule, the repeated step stands once.
  [[nodiscard]] std::vector<const Program*> programs() const;
  [[nodiscard]] double flops() const;
  /// What was chosen; never `automatic`.
  [[nodiscard]] Regime regime() const { return regime_; }

 private:
  friend class PlanBuilder;

  /// One relaxation. Steps that cannot be told apart stand once, as the last of `steps`, and repeat.
  struct Phase {
    Program start;  // and, where steps are few and their number is fixed, all of them
    std::vector<Program> steps;
  };
  void finish_programs(const PlanSpec& spec);
  [[nodiscard]] bool relax(const Phase& phase, int threads, int& steps) const;

  Network* network_;
  int max_steps_ = 0;  // of one relaxation
  int relaxations_ = 1;
  int first_look_ = 0;  // the first step after which the stop rule is asked
  StopRule stop_;
  std::function<void(int, double)> watch_;
  Regime regime_ = Regime::library;
  std::vector<Phase> phases_;
  Program finish_;
  View progress_;  // energy, or steepest gradient, of the last step
};

}  // namespace pc

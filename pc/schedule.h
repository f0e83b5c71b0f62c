// Schedules are data: which values move at each step of one loop (plan_builder.cpp), what is frozen, and when weights
// learn. backprop alone is an engine of its own (backprop.h).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pc/graph.h"
#include "pc/relax.h"

namespace pc {

/// Fixes a node. Whole: its value buffer ("x") holds what it is fixed to. Masked: its "data" buffer holds the values
/// and its "clamped" buffer is not zero where they hold; the other entries are free.
struct Clamp {
  NodeId node = 0;
  bool masked = false;
};

enum class Engine : std::uint8_t {
  relax,    // values descend the energy
  errors,   // the errors are the variables, x = mu + e
  reverse,  // no relaxation at all: reverse-mode differentiation
};

enum class Learn : std::uint8_t {
  at_end,        // all weights, once, from the settled state
  every_step,    // all weights, at every step of the relaxation
  by_level,      // at step t those that predict the nodes of level t; applied together at the end of the sweep
  first_arrival  // those of a node at the step at which its error first is not zero; applied at the end of the sweep
};

enum class Moves : std::uint8_t {
  all,   // every free node, at every step
  front  // each node once: level t + 1 at step t, by what has arrived from the levels before
};

/// Parts of RelaxSpec that not every schedule heeds.
enum Heeds : std::uint8_t { kStop = 1, kSweep = 2, kPrecision = 4, kForwardUpdate = 8, kGrowth = 16 };

struct RelaxPart {
  std::string_view name;  // as configs write it
  Heeds bit;
  bool (*asked)(const RelaxSpec& relax);  // for anything but the default
};

std::span<const RelaxPart> all_relax_parts();

struct Schedule {
  std::string_view name;
  std::string_view about;
  Engine engine = Engine::relax;
  Learn learn = Learn::at_end;
  Moves moves = Moves::all;
  bool frozen = false;       // predictions and Jacobians stay those of the start
  bool exact = false;        // equals backprop: free nodes are Gaussian with unit precision whatever the graph says,
                             // and start, steps and rate are the schedule's own
  bool free_output = false;  // targets are not clamped but pull at their nodes
  bool acyclic = false;      // needs a graph without cycles
  std::uint8_t heeds = 0;    // what of all_relax_parts()

  /// Whether weights learn on the way, each at its own step, and all are applied at the end.
  [[nodiscard]] constexpr bool sweeps() const { return learn == Learn::by_level || learn == Learn::first_arrival; }
};

/// How targets are softened.
struct Nudge {
  enum class Side : std::uint8_t {
    positive,
    negative,  // away from the target
    centered   // ep: half the difference of both sides; pc and ipc: the sides take turns, batch by batch
  };
  Side side = Side::centered;
  double beta = 0.01;
  double growth = 0;  // pc and ipc: added to beta after each epoch, up to 1
};

/// What single schedules are told beside RelaxSpec.
struct ScheduleSettings {
  enum class Paths : std::uint8_t {
    latch,  // a node waits until all of its errors have arrived; predictions stay those of the start
    pad  // the graph is levelled (graphs::pad_paths), so that nothing has to wait. zil then runs as it was published:
         // everything is live, and all values move at every step
  };
  Paths paths = Paths::latch;  // zil, fa_zil
  double gamma = 1;            // zil, fa_zil: the rate of values; exact at 1
  double eta = 1;              // fixed_prediction: the rate of values
  int steps = 0;               // fixed_prediction; 0: as many as the graph is deep
  std::optional<Nudge> nudge;  // ep (without: Nudge{}); pc and ipc, whose targets it moves towards the prediction
  double batches = 1;          // of an epoch, for Nudge::growth
};

std::span<const Schedule> all_schedules();
const Schedule& find_schedule(std::string_view name);

/// What is wrong with asking a schedule for a part that it does not heed.
std::string no_effect(const Schedule& schedule, const RelaxPart& part);

/// Throws, naming the cycle, node or energy in the way, if the schedule cannot run like this, and says what would work.
void check_schedule(const Schedule& schedule, const ScheduleSettings& settings, const RelaxSpec& relax,
                    const Graph& graph, const std::vector<Clamp>& clamps);

/// Nodes that a clamp fixes and that have predictions: their energies are the loss.
std::vector<NodeId> loss_nodes(const Graph& graph, const std::vector<Clamp>& clamps);

/// For each node the longest way, in edges, to a loss node that does not pass through a clamped node; -1: there is
/// none. Salvatori et al. 2022, "Reverse Differentiation via Predictive Coding". Acyclic graphs only.
std::vector<int> levels_to_loss(const Graph& graph, const std::vector<Clamp>& clamps);

}  // namespace pc

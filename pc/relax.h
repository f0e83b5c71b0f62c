// Relaxation, as separate choices: where values start, how they step, in what order, when they stop.
#pragma once

#include <cstdint>
#include <variant>

namespace pc {

struct ValueInit {
  enum class Kind : std::uint8_t {
    feedforward,  // x = mu in topological order; on a cyclic graph `sweeps` synchronous sweeps x <- mu from zeros
    zeros,
    normal,   // normal with deviation `sigma`
    previous  // as the last batch left them
  };
  Kind kind = Kind::feedforward;
  double sigma = 0.05;
  int sweeps = 1;
};

/// Gradient descent with heavy-ball momentum.
struct ValueSgd {
  double rate = 0.1, momentum = 0;
  bool automatic = false;  // multiply the rate by the bound that step_bound.h finds: 1 / largest curvature
  /// Above 0 it is the unadjusted Langevin algorithm, x <- x - rate dF/dx + sqrt(2 rate temperature) xi, which samples
  /// exp(-F / temperature) up to an error of order rate (Oliviers et al. 2024, "Learning probability distributions of
  /// sensory inputs with Monte Carlo predictive coding").
  double temperature = 0;
};

struct ValueAdam {
  double rate = 0.01, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
};

/// The gradient flow dx/dt = -dF/dx by an explicit Runge-Kutta method.
struct ValueFlow {
  enum class Method : std::uint8_t {
    euler,
    heun,     // order 2
    rk4,      // the classical one, order 4
    adaptive  // Bogacki & Shampine 1989, orders 3 and 2: a step that errs too much is taken again, shorter
  };
  Method method = Method::heun;
  double rate = 0.1;                        // the time of one step; adaptive: of the first
  double absolute = 1e-3, relative = 1e-3;  // adaptive: errors that a step may make
  double most = 10;                         // adaptive: the longest step
};

using Stepper = std::variant<ValueSgd, ValueAdam, ValueFlow>;

/// After `steps` steps, always.
struct FixedSteps {};

/// When a step changes the energy by no more than `relative` of it.
struct EnergyPlateau {
  double relative = 1e-6;
};

/// When the largest |dF/dx| of any free entry is at most `tolerance`, measured before each move: the last move is made
/// from there.
struct GradientNorm {
  double tolerance = 1e-6;
};

using StopRule = std::variant<FixedSteps, EnergyPlateau, GradientNorm>;

/// Precisions that change along the relaxation (Qi et al. 2025, "Training Deep Predictive Coding Networks"): what the
/// errors of a node of level d (levels_to_loss) are multiplied by at step t. Learning uses the node's own
/// precision, but for `ipc`, which learns from the errors of each step.
struct PrecisionSchedule {
  enum class Kind : std::uint8_t {
    constant,
    spiking,  // 1 at t = d, else `floor`
    decaying  // 0 before t = d, then exp(-decay (t - d))
  };
  Kind kind = Kind::constant;
  double floor = 1e-3, decay = 1;
};

enum class Sweep : std::uint8_t {
  synchronous,  // all values move from one snapshot
  even_odd      // nodes of even level first, then those of odd level from what that made
};

struct RelaxSpec {
  int steps = 8;  // at most, whatever the rule
  Stepper stepper = ValueSgd{};
  ValueInit init;
  StopRule stop = FixedSteps{};
  Sweep sweep = Sweep::synchronous;
  PrecisionSchedule precision;
  bool forward_update = false;  // learn from the settled values and the inputs of the start (Qi et al. 2025)
  double growth = 10;  // energy after a relaxation over energy before it: more is called divergence (trainer.h)
};

}  // namespace pc

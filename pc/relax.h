// Relaxation, as three separate choices: where values start, how they step, when they stop.
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
};

struct ValueAdam {
  double rate = 0.01, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
};

using Stepper = std::variant<ValueSgd, ValueAdam>;

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

struct RelaxSpec {
  int steps = 8;  // at most, whatever the rule
  Stepper stepper = ValueSgd{};
  ValueInit init;
  StopRule stop = FixedSteps{};
};

}  // namespace pc

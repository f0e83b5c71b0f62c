// The largest rate at which gradient descent on values is safe, from the norms of the weights.
#pragma once

#include <vector>

#include "pc/network.h"
#include "pc/schedule.h"

namespace pc {

/// The scalar that ValueSgd::automatic multiplies its rate by.
inline constexpr const char* kStepBound = "clock/step_bound";

/// 1 / (P (s + ||N||_2)^2), at most 1 / (largest curvature of the energy over the free values) where activations are
/// piecewise linear: gradient descent then falls monotonically at rates below twice that. P is the largest precision,
/// s^2 the most predictions that a node has, and N the matrix of the norms of what leads from each free node to each
/// prediction (a matrix of blocks is no larger than the matrix of its blocks' norms). Smooth activations add a term of
/// their own curvature, which is not bounded here. Throws where an operator's slope has no bound, naming its edge.
/// With a free output (ep), targets are free nodes of unit precision, and their costs add to it, for beta up to 1.
double step_bound(Network& network, const Schedule& schedule, const std::vector<Clamp>& clamps);

/// Finds the bound and writes it where plans read it. Waits for the device.
void set_step_bound(Network& network, const Schedule& schedule, const std::vector<Clamp>& clamps);

/// Largest singular value of a parameter, by power iteration to about 1e-4. Waits for the device.
double spectral_norm(Network& network, ParamId id);

}  // namespace pc

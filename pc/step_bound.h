// The largest rate at which gradient descent on values is safe, from the norms of the weights.
#pragma once

#include <vector>

#include "pc/network.h"
#include "pc/schedule.h"

namespace pc {

/// The scalar that ValueSgd::automatic multiplies its rate by.
inline constexpr const char* kStepBound = "clock/step_bound";

/// 1 / ||M||_2^2, at most 1 / (largest curvature of the energy over the free values) where activations are
/// piecewise linear: gradient descent then falls monotonically at rates below twice that. M has a row for each
/// prediction and a column for each free node: the norm of what leads from the node to the prediction, and 1 more where
/// the node is the one predicted, times the root of the prediction's precision, so that a precise hidden layer does not
/// slow the image. With errors as variables (epc), M says so of them: its rows for clamped nodes go through all values
/// on the way. (A matrix of blocks is no larger than the matrix of its blocks' norms.) Smooth activations add a term of
/// their own curvature, which is not bounded here. Throws where an operator's slope has no bound, naming its edge.
/// With a free output (ep), targets are free nodes of unit precision, and their costs add to it, for beta up to 1.
double step_bound(Network& network, const Schedule& schedule, const std::vector<Clamp>& clamps);

/// Finds the bound and writes it where plans read it. Waits for the device.
void set_step_bound(Network& network, const Schedule& schedule, const std::vector<Clamp>& clamps);

/// Largest singular value of a parameter, by power iteration to about 1e-4. Waits for the device.
double spectral_norm(Network& network, ParamId id);

}  // namespace pc

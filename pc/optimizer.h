// How weights step: the optimiser, its rate and the clipping of gradients, recorded as kernel calls.
#pragma once

#include <set>
#include <variant>

#include "kernels/program.h"
#include "kernels/reduce.h"
#include "pc/network.h"
#include "pc/operands.h"

namespace pc {

struct WeightSgd {
  double momentum = 0, weight_decay = 0;  // decay is added to the gradient
};

/// With `decoupled`, AdamW.
struct WeightAdam {
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0;
  bool decoupled = false;
};

using Optimizer = std::variant<WeightSgd, WeightAdam>;

/// Rates over the updates of a run; see kernels::RateKind. Lengths are in updates.
struct Rate {
  kernels::RateKind kind = kernels::RateKind::constant;
  double base = 1e-3, floor = 0, warmup = 0, total = 1;
};

struct LearnSpec {
  Optimizer optimizer = WeightAdam{};
  Rate rate;
  double clip_norm = 0;  // largest norm of the mean gradient over all parameters; 0: no clipping
};

/// Names of the scalars that a run must keep to go on with the same bits.
inline constexpr const char* kUpdates = "clock/updates";
inline constexpr const char* kRate = "clock/rate";

/// Records one update of every parameter: of those in `learned` from the gradient buffer, which holds the sum over
/// `batch` samples; the gradient of the others is zero. Operands of weights are kept up with them. `changes`: how far
/// each is from buffer "w0" goes to "dw0", of weights as an operand in its place where products take operands of 16
/// bits.
void record_update(Program& program, Network& network, Operands& operands, const LearnSpec& learn, std::int64_t batch,
                   const std::set<ParamId>& learned, bool changes = false);

/// Puts one call in the place of a product that is a gradient, of the sum over the same errors for a bias, and of the
/// updates by Adam that follow, where kernels/gemm_adam.h has one and nothing between them minds. `keep`: somebody
/// reads the gradients as well.
void learn_at_once(Program& program, bool keep);

}  // namespace pc

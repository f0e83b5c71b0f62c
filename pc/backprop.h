// Reverse-mode differentiation of the energy of the clamped nodes: the reference that schedules are held to. It shares
// with them only the operators' own functions; the order of things is its own.
#pragma once

#include "pc/plan.h"

namespace pc {

/// Records: free nodes take their predictions in topological order; the loss is the energy of the clamped nodes that
/// have predictions; -d loss/dw, summed over the batch, is left in the gradient buffers; weights are updated if asked.
void record_backprop(Program& program, Network& network, const PlanSpec& spec);

}  // namespace pc

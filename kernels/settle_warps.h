// The relaxation of kernels/settle.h by tensor cores with little else to wait for: where a network is small enough that
// each warp owns its values, tiles of 16 entries of a node for eight samples. These are shared out over a cluster of
// four or two blocks, or, where there are more samples than room for clusters, over the warps of one block.
#pragma once

#include "kernels/settle.h"

namespace pc::kernels {

/// False where it cannot be done: operands are not of 16 bits, there is an identity edge, activations
/// differ or are seldom ones, or there is too much of something.
bool settle_warps_fit(const SettleArgs&, CudaContext&);
/// Does it, where it can be done.
void settle_warps_cuda(const SettleArgs&, CudaContext&);

}  // namespace pc::kernels

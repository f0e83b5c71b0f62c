// Products of convolutions by cuDNN, which writes the patches nowhere. Only for narrower operands (tensor cores); a
// build without cuDNN has none.
#pragma once

#include "kernels/conv.h"

namespace pc::cu {

/// Which of x, w and y is computed from the other two: y = patches(x) w^T, and its adjoints.
enum class ConvProduct : std::uint8_t { result, image, filters };

#if defined(PC_WITH_CUDNN)
/// False: cuDNN has no such product, and nothing was done.
bool conv_cudnn(ConvProduct product, const kernels::ConvShape& shape, const View& x, const View& w, const View& y,
                Write write, CudaContext& context);
#else
inline bool conv_cudnn(ConvProduct, const kernels::ConvShape&, const View&, const View&, const View&, Write,
                       CudaContext&) {
  return false;
}
#endif

}  // namespace pc::cu

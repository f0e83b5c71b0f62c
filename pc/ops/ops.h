// Every operator by name: the list in ops.cpp refers to these. And what operators share.
#pragma once

#include "pc/op.h"

namespace pc::ops {

extern const Op linear, sparse_linear, matmul, constant, scale, identity, add, subtract, multiply, concat, slice,
    gather, softmax;
extern const Op conv2d, conv_transpose2d, max_pool2d, avg_pool2d, global_avg_pool, upsample, pad;
extern const Op flatten, reshape, channels_last, channels_first, layer_norm, rms_norm, batch_norm, dropout;
extern const Op permute, embedding, attention, rotary;
extern const Op relu, leaky_relu, gelu, gelu_tanh, silu, tanh, hard_tanh, sigmoid, softplus;

/// The beta of a gemm, c = alpha a b + beta c, that writes so.
constexpr double beta(Write write) { return write == Write::add ? 1.0 : 0.0; }

}  // namespace pc::ops

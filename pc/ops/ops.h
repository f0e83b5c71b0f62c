// Every operator by name: the list in ops.cpp refers to these.
#pragma once

#include "pc/op.h"

namespace pc::ops {

extern const Op linear, matmul, constant, scale, identity, add, subtract, multiply, concat, slice, softmax;
extern const Op relu, leaky_relu, gelu, gelu_tanh, silu, tanh, hard_tanh, sigmoid, softplus;

}  // namespace pc::ops

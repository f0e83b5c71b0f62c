// Every network by name: the list in graphs.cpp refers to these.
#pragma once

#include "graphs/graphs.h"

namespace pc::graphs {

extern const Network mlp;

}  // namespace pc::graphs

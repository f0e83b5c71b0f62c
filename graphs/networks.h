// Every network by name: the list in graphs.cpp refers to these.
#pragma once

#include "graphs/graphs.h"

namespace pc::graphs {

extern const Network mlp, autoencoder, vgg5, vgg7, vgg9, resnet18, decoder, pc_graph;
extern const Network rnn, gru, lstm, transformer;

}  // namespace pc::graphs

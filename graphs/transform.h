// Graphs made from graphs. Each takes what a network is made of and gives the same in another form; all parameters keep
// their names, so weights can go from one to the other.
#pragma once

#include <string>
#include <vector>

#include "graphs/graphs.h"

namespace pc::graphs {

/// Makes all ways to the loss equally long, for schedules that count steps (Salvatori et al. 2022, "Reverse
/// Differentiation via Predictive Coding"): an edge whose source v lies more than one level above what it predicts
/// (levels_to_loss, with these nodes clamped) reads v at the end of a chain of identity nodes v.pad1, v.pad2, ...
/// instead; v's edges share the chain. Clamped sources do not move and are read directly, as are those from which there
/// is no way to the loss. (Free nodes without predictions do move in these schedules, if only from zero.) Nodes keep
/// their numbers, edges and parameters their names and their order: the same seed gives the same weights. Needs a graph
/// without cycles.
Description pad_paths(const Description& graph, const std::vector<std::string>& clamped);

/// `sweeps` synchronous sweeps x <- mu(x) from zeros (the start ValueInit::feedforward of a cyclic graph) as a graph
/// without cycles: backpropagation through time for networks that settle. Nodes of `inputs`, which are clamped, lose
/// their predictions; they and nodes without predictions stand once. Any other node v has a copy for each sweep: v
/// itself for the last one, v@i for sweep i before it where something comes of it, and, where sweep 1 reads it, v@0,
/// which has no predictions and is zero. (Exact schedules and backprop leave its zeros alone; a schedule that relaxes
/// moves it like any node unless it is clamped too.) The copies of an edge share its parameters.
///
/// Nodes keep their numbers, parameters their names and their order; only parameters that nothing but inputs' lost
/// predictions used are gone, and seeds draw other weights for those behind them. A cross-entropy stays with the last
/// copy; the others, which nobody observes, are Gaussian, since otherwise nothing would tie them to their predictions.
/// Needs one prediction for each node that is no input: sweeps follow the default one and would lose the others.
Description unroll(const Description& graph, int sweeps, const std::vector<std::string>& inputs);

/// The scalings of muPC (Innocenti et al. 2025, table 1: depth-muP), with the weights drawn from N(0, 1), which is the
/// caller's part (WeightInit{normal}): the `gain` of each `linear` of fan-in N is multiplied by
///   1/sqrt(N)    as a rule,
///   1/sqrt(N L)  if an edge of nothing but `identity` leads into the same prediction: a residual branch,
///   1/N          into a node that feeds nothing: an output,
///   1/sqrt(N)    from nodes without predictions: an input, also where it leads to an output. (Inputs do not grow.)
/// L is the number of linear operators on the longest way through the graph. What goes beyond chains with skips: where
/// K edges with linear operators add up in one prediction, each is divided by sqrt(K) (so does FabricPC); of several
/// linear operators in one edge, only the last is part of a sum, a residual branch or an output, and only the first
/// reads an input; a mask leaves the fan-in that initialisers see. The paper has no biases: they are kept where they
/// are asked for, and not scaled. Needs a graph without cycles.
Description mupc(const Description& graph);

/// The graph after do(x = ...) at these nodes, which are then to be clamped: what predicts them costs nothing any more,
/// so that they tell nothing about their causes (Salvatori et al. 2024, "Predictive Coding beyond Correlations").
Description intervene(const Description& graph, const std::vector<std::string>& nodes);

/// Adds the node NODE.seen, which NODE predicts as it is with this precision: clamped, it is NODE seen through Gaussian
/// noise of variance 1 / precision.
Description observe(const Description& graph, const std::string& node, double precision);

}  // namespace pc::graphs

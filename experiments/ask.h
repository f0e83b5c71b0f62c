// One question to a trained network: some nodes are given, the others settle.
#pragma once

#include <functional>
#include <vector>

#include "pc/network.h"
#include "pc/relax.h"
#include "pc/schedule.h"

namespace pc::experiments {

/// What is said of a node.
struct Given {
  NodeId node = 0;
  std::vector<double> values;  // [count, node]
  std::vector<double> known;  // [count, node]: not 0 where the values hold, the other entries are free; empty: all hold
  bool clamped = true;        // false: the values are where the node starts, and it is free
};

struct Question {
  std::int64_t count = 1;  // samples, at most the network's max_batch
  std::vector<Given> given;
  RelaxSpec relax;
  const Schedule* schedule = nullptr;  // pc or epc
  int threads = 1;
  std::function<void(int step)> watch;  // after each step; the values can then be read
  std::function<void()> tick;           // after each step too; they cannot
};

struct Answer {
  std::vector<double> energy;    // per sample: before each step, and at the end
  std::vector<double> energies;  // of each sample, at the end
  int steps = 0;
  bool converged = false;
};

/// Puts the question and leaves the settled values in the network ("x"; what predicts them in "mu"). A rate that is
/// `automatic` becomes a share of this question's own bound. Throws when the energy is not finite at the end.
Answer ask(Network& network, const Question& question);

}  // namespace pc::experiments

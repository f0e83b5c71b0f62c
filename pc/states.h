// What operators keep beside their parameters (Op::state), as a plan deals with it.
#pragma once

#include <string>
#include <vector>

#include "pc/plan.h"

namespace pc {

/// The state that a link's operator is given in such a plan; none: it has none, or serves the other kind.
std::vector<View> given_state(Network& network, const PlanSpec& spec, EdgeId edge, int link);

/// Records, where the plan learns, what operators draw for the batch.
void draw_states(const Exec& exec, Network& network, const PlanSpec& spec);

/// Whether a link's operator looks at what such a plan starts from.
bool observes(const PlanSpec& spec, const Link& link);

/// Why operators with statistics cannot learn by such a plan; empty: they can.
std::string unobservable(const PlanSpec& spec, const Graph& graph);

}  // namespace pc

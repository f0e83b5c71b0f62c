// The `relax:` part of a config: the schedule with its settings, and how values relax.
#pragma once

#include "experiments/config_tree.h"
#include "pc/relax.h"
#include "pc/schedule.h"

namespace pc::experiments {

struct RelaxConfig {
  const Schedule* schedule = nullptr;
  ScheduleSettings settings;
  RelaxSpec relax;
  double growth = 10;  // energy after a relaxation over energy before it: more is called divergence
};

RelaxConfig read_relax(const ConfigTree& node);

/// centered, positive or negative; also asked for by `check.laws`.
Nudge::Side read_side(const ConfigTree& node, const std::string& name);

}  // namespace pc::experiments

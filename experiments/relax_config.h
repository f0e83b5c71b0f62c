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
  Place place;  // where the schedule is named
};

RelaxConfig read_relax(const ConfigTree& node);

/// centered, positive or negative; also asked for by `check.laws`.
Nudge::Side read_side(const ConfigTree& node, const std::string& name);

}  // namespace pc::experiments

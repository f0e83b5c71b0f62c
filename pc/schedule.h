// Schedules are data: what one loop (plan.cpp) does at each step. backprop alone is an engine of its own (backprop.h).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "pc/graph.h"

namespace pc {

enum class Learn : std::uint8_t {
  at_end,     // all weights, once, from the settled state
  every_step  // all weights, at every step of the relaxation
};

struct Schedule {
  std::string_view name;
  std::string_view about;
  Learn learn = Learn::at_end;
  bool reverse_mode = false;  // no relaxation at all: the reference
  bool needs_acyclic = false;
};

std::span<const Schedule> all_schedules();
const Schedule& find_schedule(std::string_view name);

/// Throws, naming the cycle, if the schedule cannot run on the graph, and says what would.
void check_schedule(const Schedule& schedule, const Graph& graph);

}  // namespace pc

#include "pc/schedule.h"

#include "pc/levels.h"

namespace pc {

std::span<const Schedule> all_schedules() {
  static constexpr Schedule list[] = {
      {.name = "pc", .about = "relax, then learn from the settled state (Whittington & Bogacz 2017)"},
      {.name = "ipc",
       .about = "values and weights move at every step (Salvatori et al. 2024)",
       .learn = Learn::every_step},
      {.name = "backprop",
       .about = "reverse-mode differentiation: the reference",
       .reverse_mode = true,
       .needs_acyclic = true},
  };
  return list;
}

const Schedule& find_schedule(std::string_view name) {
  std::string known;
  for (const Schedule& schedule : all_schedules()) {
    if (schedule.name == name) return schedule;
    known += std::string(known.empty() ? "" : ", ").append(schedule.name);
  }
  fail("schedule", "no schedule named \"", name, "\"; there are: ", known);
}

void check_schedule(const Schedule& schedule, const Graph& graph) {
  if (!schedule.needs_acyclic) return;
  const auto cycle = find_cycle(graph);
  PC_CHECK(cycle.empty(), "schedule", schedule.name, " needs a graph without cycles, but there is ",
           cycle_text(graph, cycle), "; pc and ipc run on any graph");
}

}  // namespace pc

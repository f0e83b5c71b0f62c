// pc plot: the metrics of runs over their epochs.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>

#include "experiments/commands.h"
#include "experiments/plot.h"

namespace pc::experiments {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct Drawn {
  fs::path run;
  int colour;
  std::string title;  // the folder's name; where several have it, the whole path
  bool relaxes;       // it lowers an energy
  std::vector<Json> epochs;
};

/// The name of a run's folder.
std::string title_of(const fs::path& run) {
  const fs::path whole = fs::absolute(run).lexically_normal();
  return (whole.has_filename() ? whole : whole.parent_path()).filename().string();
}

/// Whether a logarithm can be taken.
bool above_zero(const Panel& panel) {
  for (const Series& series : panel.series) {
    for (const double y : series.y) {
      if (!(y > 0)) return false;
    }
  }
  return true;
}

/// The number at `pointer` over the epochs, a line for each run that has it.
Panel over_epochs(const std::vector<Drawn>& runs, const std::string& title, const std::string& label,
                  const std::string& pointer) {
  Panel panel{.title = title, .x_label = "epoch", .y_label = label, .key_right = true};
  for (const Drawn& run : runs) {
    Series series{.title = run.title,
                  .mark = run.epochs.size() > 1 ? Series::Mark::line : Series::Mark::dots,
                  .colour = run.colour};
    for (const Json& epoch : run.epochs) {
      const Json::json_pointer at(pointer);
      if (!epoch.contains(at) || !epoch[at].is_number()) continue;
      series.x.push_back(epoch["epoch"].get<double>());
      series.y.push_back(epoch[at].get<double>());
    }
    if (!series.x.empty()) panel.series.push_back(series);
  }
  return panel;
}

/// The energy along the relaxation of a fixed batch, after the last epoch.
Panel relaxations(const std::vector<Drawn>& runs) {
  Panel panel{.title = "relaxation after the last epoch",
              .x_label = "step",
              .y_label = "energy of an example",
              .key_right = true};
  for (const Drawn& run : runs) {
    const Json trace = run.epochs.back().value("trace", Json::array());
    Series series{.title = run.title, .mark = Series::Mark::line, .colour = run.colour};
    for (const Json& energy : trace) {
      if (!energy.is_number()) continue;
      series.x.push_back(double(series.x.size()));
      series.y.push_back(energy.get<double>());
    }
    if (!series.x.empty()) panel.series.push_back(series);
  }
  panel.log_y = above_zero(panel);
  return panel;
}

}  // namespace

int plot_command(const std::vector<fs::path>& folders, const fs::path& out, const Common& common) {
  const fs::path file = out.empty() ? folders[0] / "curves.svg" : out;
  std::vector<Drawn> runs;
  std::set<std::string> measures;
  for (const fs::path& folder : folders) {
    const Config config = asked_config(folder, {}, "plot");
    std::vector<Json> epochs = read_metrics(folder);
    std::erase_if(epochs, [](const Json& line) { return !line.contains("epoch") || !line["epoch"].is_number(); });
    runs.push_back({folder, int(runs.size()) + 1, title_of(folder), lowers_energy(*config.relax.schedule), epochs});
    PC_CHECK(!runs.back().epochs.empty(), "plot", folder.string(), " has not finished an epoch yet");
    const Json validation = runs.back().epochs.back().value("validation", Json::object());
    for (const auto& [measure, value] : validation.items()) measures.insert(measure);
  }
  for (Drawn& run : runs) {
    const auto same = [&](const fs::path& other) { return title_of(other) == title_of(run.run); };
    if (std::count_if(folders.begin(), folders.end(), same) > 1) run.title = run.run.string();
  }
  check_plot(file);

  std::vector<Drawn> relaxing;
  std::copy_if(runs.begin(), runs.end(), std::back_inserter(relaxing), [](const Drawn& run) { return run.relaxes; });
  std::vector<Panel> panels = {
      over_epochs(runs, relaxing.empty() ? "training" : "training, before relaxation",
                  relaxing.empty() ? "loss of an example" : "energy of an example", "/train/energy_start"),
      over_epochs(relaxing, "training, after relaxation", "energy of an example", "/train/energy")};
  for (Panel& panel : panels) panel.log_y = above_zero(panel);
  for (const std::string& measure : measures) {
    panels.push_back(over_epochs(runs, "validation", measure, "/validation/" + measure));
  }
  panels.push_back(relaxations(relaxing));
  std::erase_if(panels, [](const Panel& panel) { return panel.series.empty(); });
  write_plot(file, panels);

  if (common.json) {
    Json result;
    result["plot"] = file.string();
    for (const Drawn& run : runs) {
      result["runs"].push_back({{"run", run.run.string()}, {"epochs", run.epochs.size()}});
    }
    fmt::print("{}\n", result.dump());
  } else {
    fmt::print("{}\n", file.string());
  }
  return 0;
}

}  // namespace pc::experiments

// pc list, pc devices, pc data list, pc data verify: what configs can name, and what there is to run on and with.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "experiments/commands.h"
#include "experiments/data/bytes.h"
#include "experiments/data/locate.h"
#include "experiments/names.h"
#include "graphs/topology.h"
#include "kernels/exec.h"
#include "pc/energy.h"
#include "pc/op.h"
#include "pc/schedule.h"

namespace pc::experiments {

using Json = nlohmann::ordered_json;

int devices_command(const Common& common) {
  std::string why_no_cuda;
  const std::vector<DeviceInfo> list = devices(&why_no_cuda);
  if (common.json) {
    Json out;
    out["devices"] = Json::array();
    for (const DeviceInfo& d : list) {
      out["devices"].push_back({{"name", d.name}, {"model", d.model}, {"memory", d.memory}, {"detail", d.detail}});
    }
    if (!why_no_cuda.empty()) out["no_cuda"] = why_no_cuda;
    fmt::print("{}\n", out.dump());
    return 0;
  }
  for (const DeviceInfo& d : list) {
    fmt::print("{:<8} {} ({}, {:.1f} GiB)\n", d.name, d.model, d.detail, double(d.memory) / (1024.0 * 1024 * 1024));
  }
  if (!why_no_cuda.empty()) fmt::print("no CUDA device: {}\n", why_no_cuda);
  return 0;
}

int data_list_command(const Common& common) {
  const auto root = data_root({});
  Json out;
  out["root"] = root ? Json(root->string()) : Json();
  if (!common.json) {
    fmt::print("data root: {}\n\n", root ? root->string() : "not set (set PC_DATA_DIR, or data.root in the config)");
  }
  for (const DataSource* source : all_data_sources()) {
    std::string state = source->files.empty() ? "built in" : "no data root";
    if (source->name == "npy") state = "your own arrays";
    if (source->name == "text") state = "your own file";
    if (root && !source->files.empty()) {
      int missing = 0;
      for (const KnownFile& file : source->files) {
        missing += find_packed(data_folder(*source, *root), std::string(file.name)) ? 0 : 1;
      }
      state = missing == 0 ? "here" : fmt::format("{} of {} files missing", missing, source->files.size());
    }
    out["sets"].push_back({{"name", source->name}, {"about", source->about}, {"state", state}});
    if (!common.json) fmt::print("{:<14} {:<22} {}\n", source->name, state, source->about);
  }
  if (common.json) fmt::print("{}\n", out.dump());
  return 0;
}

int data_verify_command(const std::string& set, const std::filesystem::path& given, const Common& common) {
  const DataSource& source = find_data_source(set);
  PC_CHECK(!source.files.empty(), "data", set, " has no files to verify");
  const auto root = data_root({.set = set, .root = given});
  PC_CHECK(root.has_value(), "data", "where is the data? Set PC_DATA_DIR or give --root");
  Json out = {{"set", set}, {"root", root->string()}, {"files", Json::array()}};
  bool fine = true;
  for (const FileReport& report : verify(source, *root)) {
    fine = fine && (report.state == FileState::ok || report.state == FileState::unknown);
    out["files"].push_back({{"file", report.file},
                            {"path", report.path.string()},
                            {"state", state_name(report.state)},
                            {"detail", report.detail}});
    if (!common.json) {
      fmt::print("{:<8} {}  {}\n", state_name(report.state), report.path.empty() ? report.file : report.path.string(),
                 report.detail);
    }
  }
  out["fine"] = fine;
  if (common.json) fmt::print("{}\n", out.dump());
  return static_cast<int>(fine ? ExitStatus::done : ExitStatus::failed);
}

namespace {

/// Something that a config can name.
struct Listed {
  std::string_view kind, name, about;
  std::string settings;  // as people read them
  Json json;             // of an operator
};

Json default_of(const AttrSpec& attr) {
  if (attr.kind == AttrSpec::Kind::list) return Json::array();
  if (attr.kind == AttrSpec::Kind::flag) return attr.fallback != 0;
  return attr.fallback;
}

/// From the operator's own table.
Listed listed(const Op& op) {
  Listed part{.kind = "operator", .name = op.name, .about = op.about, .settings = {}, .json = Json::array()};
  for (const AttrSpec& attr : op.attrs) {
    const Json fallback = default_of(attr);
    const std::string text = fallback.is_number() ? fmt::format("{}", attr.fallback) : fallback.dump();
    part.settings += fmt::format("  {:<14} {:<8} {}\n", attr.name, text, attr.about);
    part.json.push_back({{"name", attr.name}, {"default", fallback}, {"about", attr.about}});
  }
  return part;
}

std::vector<Listed> everything_listed() {
  std::vector<Listed> all;
  for (const Op* op : all_ops()) all.push_back(listed(*op));
  const auto list = [&](std::string_view kind, const auto& named) {
    Listed part{.kind = kind, .name = named.name, .about = named.about, .settings = {}, .json = {}};
    std::istringstream lines{std::string(named.keys)};
    for (std::string line; std::getline(lines, line);) part.settings += "  " + line + "\n";
    all.push_back(std::move(part));
  };
  for (const graphs::Network* network : graphs::all_networks()) list("network", *network);
  for (const graphs::Topology* topology : graphs::all_topologies()) list("topology", *topology);
  for (const Energy* energy : all_energies()) all.push_back({"energy", energy->name, energy->about, {}, {}});
  for (const Schedule& schedule : all_schedules()) {
    all.push_back(
        {"schedule", schedule.name, schedule.about, "  its settings: configs/base.yaml, relax.schedule\n", {}});
  }
  return all;
}

}  // namespace

int list_command(const std::string& name, const Common& common) {
  std::vector<Listed> parts = everything_listed();
  if (!name.empty()) {
    std::vector<std::string> known;
    for (const Listed& part : parts) known.insert(known.end(), {std::string(part.name), std::string(part.kind)});
    std::sort(known.begin(), known.end());
    known.erase(std::unique(known.begin(), known.end()), known.end());
    std::erase_if(parts, [&](const Listed& part) { return part.name != name && part.kind != name; });
    PC_CHECK(!parts.empty(), "list", "there is no operator, network, topology, energy or schedule \"", name, "\"",
             did_you_mean(name, known));
  }
  if (common.json) {
    Json out = Json::array();
    for (const Listed& part : parts) {
      out.push_back({{"kind", part.kind}, {"name", part.name}, {"about", part.about}});
      if (part.kind == "operator") out.back()["settings"] = part.json;
      if (part.kind == "network" || part.kind == "topology") out.back()["settings"] = part.settings;
    }
    fmt::print("{}\n", out.dump());
    return 0;
  }
  std::string_view kind;
  for (const Listed& part : parts) {
    if (!name.empty()) {
      fmt::print("{} {}: {}\n{}", part.kind, part.name, part.about, part.settings);
      continue;
    }
    if (part.kind != kind) fmt::print("{}{}\n", kind.empty() ? "" : "\n", part.kind);
    kind = part.kind;
    fmt::print("  {:<22} {}\n", part.name, part.about);
  }
  if (name.empty()) fmt::print("\npc list NAME shows the settings of one, pc list topology those of its kind.\n");
  return 0;
}

}  // namespace pc::experiments

// pc: the command line.
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <iostream>
#include <memory>

#include "experiments/commands.h"
#include "experiments/names.h"

namespace {

using namespace pc::experiments;

constexpr const char* kAbout =
    "Predictive-coding networks on any graph, on the CPU and on CUDA.\n\n"
    "  pc run configs/quickstart.yaml                  train on digits that the program draws itself\n"
    "  pc run configs/mnist.yaml --set seed=3          change any key of a config\n"
    "  pc graph configs/cycle.yaml --svg cycle.svg     look at a network\n"
    "  pc eval runs/quickstart                         measure a run again\n\n"
    "Configs are explained key by key in configs/base.yaml. Data is looked for under PC_DATA_DIR.";

constexpr const char* kFooter =
    "Exit status: 0 done; 1 the run or check failed, or was stopped by a signal; 2 wrong usage, config or data.";

void add_common(CLI::App& command, Common& common) {
  command.add_flag("--json", common.json, "One JSON object on standard output; logs stay on standard error");
  command.add_flag("-q,--quiet", common.quiet, "No log and no progress on standard error; errors only");
  command.footer(kFooter);
}

void add_set(CLI::App& command, std::vector<std::string>& overrides) {
  command.add_option("--set", overrides, "Override a key: --set learn.epochs=5 --set graph.mlp.widths=[784,64,10]")
      ->take_all()
      ->allow_extra_args(false)
      ->type_name("KEY=VALUE");
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{kAbout, "pc"};
  app.footer(kFooter);
  app.require_subcommand(1);
  app.set_version_flag("--version", "pc " PC_VERSION);

  Common common;
  std::function<int()> action;

  RunOptions options;
  CLI::App* run = app.add_subcommand("run", "Train a network as a config says");
  run->add_option("CONFIG", options.config, "A YAML file, such as configs/quickstart.yaml")->required();
  add_set(*run, options.overrides);
  run->add_option("--out", options.out, "The run's folder (runs/NAME)")->type_name("DIR");
  CLI::Option* resume = run->add_flag_callback(
      "--resume", [&] { options.start = Start::resume; }, "Go on with the run in that folder, with the same bits");
  run->add_flag_callback(
         "--force", [&] { options.start = Start::force; }, "Replace the run in that folder")
      ->excludes(resume);
  add_common(*run, common);
  run->callback([&] { action = [&] { return run_command(options, common); }; });

  std::filesystem::path folder;
  std::vector<std::string> overrides;
  bool last = false;
  CLI::App* eval = app.add_subcommand("eval", "Evaluate a finished or stopped run");
  eval->add_option("RUN", folder, "A run's folder")->required();
  eval->add_flag("--last", last, "The last checkpoint rather than the one that validation chose");
  add_set(*eval, overrides);
  add_common(*eval, common);
  eval->callback([&] { action = [&] { return eval_command(folder, overrides, last, common); }; });

  std::filesystem::path config, svg;
  CLI::App* graph = app.add_subcommand("graph", "Show nodes, edges, levels, cycles and parameters of a config");
  graph->add_option("CONFIG", config, "A YAML file")->required();
  graph->add_option("--svg", svg, "Draw the graph too (needs Graphviz)")->type_name("FILE");
  add_set(*graph, overrides);
  add_common(*graph, common);
  graph->callback([&] { action = [&] { return graph_command(config, overrides, svg, common); }; });

  CLI::App* devices = app.add_subcommand("devices", "Show what this program can run on here");
  add_common(*devices, common);
  devices->callback([&] { action = [&] { return devices_command(common); }; });

  CLI::App* data = app.add_subcommand("data", "Show and check data sets");
  data->require_subcommand(1);
  CLI::App* list = data->add_subcommand("list", "Known data sets, and which of them are here");
  add_common(*list, common);
  list->callback([&] { action = [&] { return data_list_command(common); }; });
  std::string set;
  std::filesystem::path root;
  CLI::App* verify = data->add_subcommand("verify", "Check a set's files against their SHA-256");
  verify->add_option("SET", set, "mnist, fashion-mnist or cifar10")->required();
  verify->add_option("--root", root, "Where the data lies (PC_DATA_DIR)")->type_name("DIR");
  add_common(*verify, common);
  verify->callback([&] { action = [&] { return data_verify_command(set, root, common); }; });

  CLI::App* signature = app.add_subcommand("signature", "A fixed short run's fingerprint, for commit messages");
  add_common(*signature, common);
  signature->callback([&] { action = [&] { return signature_command(common); }; });

  constexpr int kBadInput = static_cast<int>(pc::ExitStatus::bad_input);
  std::vector<std::string> known;
  for (const CLI::App* command : app.get_subcommands(nullptr)) known.push_back(command->get_name());
  if (argc > 1 && argv[1][0] != '-' && std::find(known.begin(), known.end(), argv[1]) == known.end()) {
    std::cerr << "pc: there is no command \"" << argv[1] << '"' << did_you_mean(argv[1], known) << '\n';
    return kBadInput;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : kBadInput;
  }

  const auto console = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
  if (common.quiet) console->set_level(spdlog::level::off);
  spdlog::set_default_logger(std::make_shared<spdlog::logger>("pc", console));
  spdlog::set_pattern("%v");
  spdlog::flush_on(spdlog::level::info);
  try {
    return action();
  } catch (const pc::Error& e) {
    std::cerr << "pc: " << e.what() << '\n';
    return static_cast<int>(e.status());
  } catch (const std::exception& e) {
    std::cerr << "pc: unexpected: " << e.what() << '\n';
    return static_cast<int>(pc::ExitStatus::failed);
  }
}

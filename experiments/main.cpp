// pc: the command line.
#include <fmt/format.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <functional>
#include <iostream>
#include <limits>
#include <memory>
#include <new>

#include "experiments/commands.h"
#include "experiments/names.h"
#include "pc/replacement.h"

namespace {

using namespace pc::experiments;

constexpr const char* kAbout =
    "Predictive-coding networks on any graph, on the CPU and on CUDA.\n\n"
    "  pc run configs/quickstart.yaml                  train on digits that the program draws itself\n"
    "  pc run configs/mnist.yaml --set seed=3          change any key of a config\n"
    "  pc graph configs/cycle.yaml --svg cycle.svg     look at a network\n"
    "  pc check configs/mnist.yaml                     compare every schedule's gradients with backprop's\n"
    "  pc bench configs/bench/mlp128.yaml --parts      how fast is a training step, and where does the time go\n"
    "  pc eval runs/quickstart                         measure a run again\n"
    "  pc query runs/quickstart --clamp image=index:0  ask a trained network anything\n"
    "  pc write runs/shakespeare --prompt ROMEO:       go on with a text\n"
    "  pc list conv2d                                  see what an operator or a network can be told\n\n"
    "Configs are explained key by key in configs/base.yaml. Data is looked for under PC_DATA_DIR.";

constexpr double kLargest = std::numeric_limits<double>::max();
constexpr double kMost = 1e9;                         // of what is counted: more would fit no machine
constexpr double kMostSeed = 18446744073709549568.0;  // the largest number below 2^64

/// Ends a command that a signal interrupts: nothing half written stays behind.
void stop_at_once(int) {
  pc::Replacement::drop_all();
  constexpr std::string_view kSaid = "\npc: stopped by a signal\n";
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, kSaid.data(), kSaid.size());
  ::_exit(static_cast<int>(pc::ExitStatus::failed));
}

constexpr const char* kFooter =
    "Exit status: 0 done; 1 the run or check failed, or was stopped by a signal; 2 wrong usage, config or data.";

/// CLI11's own words for this name the largest of all numbers, and let NaN pass.
CLI::Validator between(double least, double most) {
  return {[=](const std::string& text) {
            double value = 0;
            if (CLI::detail::lexical_cast(text, value) && value >= least && value <= most) return std::string();
            return most == kLargest ? fmt::format("it must be a number of at least {:g}", least)
                                    : fmt::format("it must be a number from {:.15g} to {:.15g}", least, most);
          },
          ""};
}

CLI::Validator at_least(double least) { return between(least, kLargest); }

/// `status`, where all that was printed has gone out.
int once_written(int status) {
  if (std::cout.flush() && std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return status;
  std::cerr << "pc: cannot write to standard output: " << std::strerror(errno) << '\n';
  return static_cast<int>(pc::ExitStatus::failed);
}

void add_common(CLI::App& command, Common& common) {
  command.add_flag("--json", common.json, "One JSON object on standard output; logs stay on standard error");
  command.add_flag("-q,--quiet", common.quiet, "No log and no progress on standard error; errors only");
  command.footer(kFooter);
}

constexpr const char* kAboutCheck =
    "Compare gradients with backprop's, for any config's graph\n\n"
    "The same weights and the same batch go through each schedule, in float64 and in float32. Shown are the worst of\n"
    "all parameters: the relative error |g - g_bp| / |g_bp|, the cosine, and the largest difference of an entry over\n"
    "the largest entry. Schedules that should equal backprop pass or fail; the others only approximate it: pc and epc\n"
    "with the steps and the optimizer of the config's relax section, ep relaxed until it settles.\n\n"
    "  pc check configs/quickstart.yaml\n"
    "  pc check my.yaml --random --laws                without data; and how errors fall as theory says\n"
    "  pc check my.yaml --schedule zil --after 100     are the weights the same after 100 updates?\n"
    "  pc check my.yaml --schedule pc --set relax.steps=500 --dump gradients.h5\n\n"
    "A graph needs no data and no training part: task: {check: {clamp: [input, target]}} clamps these nodes to random\n"
    "values. On a graph with cycles backprop does not apply; see graph.unroll in configs/base.yaml.";

void add_check(CLI::App& command, CheckOptions& options) {
  command.add_option("CONFIG", options.config, "A YAML file")->required();
  const auto list = [&](const char* name, std::vector<std::string>& values, const char* about, const char* type) {
    command.add_option(name, values, about)->take_all()->allow_extra_args(false)->type_name(type);
  };
  list("--schedule", options.schedules, "Only this one, such as zil, zil-pad or ep; may be given again", "NAME");
  list("--dtype", options.dtypes, "Only float64 or float32; may be given again", "NAME");
  command.add_option("--tolerance", options.tolerance, "For equality, in place of check.tolerance")
      ->type_name("RELATIVE")
      ->check(at_least(0));
  command.add_option("--device", options.device, "In place of the config's: cpu, cuda or cuda:1")->type_name("NAME");
  command.add_option("--batch", options.batch, "Samples, in place of check.batch")
      ->type_name("N")
      ->check(between(1, kMost));
  command.add_flag("--random", options.random, "A random batch; data is not looked for");
  command.add_option("--after", options.after, "Compare the weights too, after N updates by each")
      ->type_name("N")
      ->check(between(1, kMost));
  command.add_flag(
      "--gemm", options.gemm,
      "How far gradients in float32 are from those of the same schedule in float64, for each arithmetic of "
      "matrix products (--schedule; else the config's)");
  command.add_flag("--laws", options.laws, "Measure what check.laws lists, and the powers by which errors fall");
  command.add_option("--plot", options.plot, "Draw what --laws measures (.svg or .png; needs gnuplot)")
      ->type_name("FILE");
  command.add_option("--dump", options.dump, "Write batch, weights, values, errors and gradients as arrays")
      ->type_name("FILE.h5");
  command.add_flag("--verbose", options.verbose, "Every parameter, not only the worst");
}

constexpr const char* kAboutBench =
    "Measure the speed of one training step of any config, on random data\n\n"
    "A step is what pc run does with one batch: clamp, relax, learn. After a warm-up it is timed in two ways, with a\n"
    "wait for the device after every step and with one wait after many; on CUDA also with many steps as one graph.\n"
    "The floor is the least time that this device could take: the step's FLOPs at the rate of a large matrix\n"
    "product, or the bytes of weights and optimiser at the rate of a copy, both measured here and now.\n\n"
    "  pc bench configs/bench/mlp128.yaml\n"
    "  pc bench configs/mnist.yaml --batch 256 --device cuda --parts      which kernels take the time\n"
    "  pc bench my.yaml --set relax.schedule=backprop --json              the same step by backpropagation\n"
    "  pc bench my.yaml --accuracy                    how exact are the gradients, against float64\n"
    "  pc bench configs/bench/mlp4096x6.yaml --steps 1     a step that takes long\n\n"
    "No data set is read: clamped nodes get random values. docs/benchmarks.md explains every number.";

void add_bench(CLI::App& command, BenchOptions& options) {
  command.add_option("CONFIG", options.config, "A YAML file, such as those in configs/bench")->required();
  command.add_option("--device", options.device, "In place of the config's: cpu, cuda or cuda:1")->type_name("NAME");
  command.add_option("--steps", options.steps, "Time so many steps one by one (60 and more; slow steps: at least 5)")
      ->type_name("N")
      ->check(between(1, kMost));
  command.add_option("--batch", options.batch, "Samples, in place of data.batch (task check: check.batch)")
      ->type_name("N")
      ->check(between(1, kMost));
  command.add_flag("--parts", options.parts, "Run the calls alone: time by part and kernel");
  command.add_flag("--accuracy", options.accuracy, "Compare each parameter's gradient with float64's");
}

constexpr const char* kAboutQuery =
    "Ask a trained run: clamp what is known, let everything else settle, read the answer\n\n"
    "The same network answers every question; nothing is trained for it. TASK is\n"
    "  classify     clamp the image, read the label (pc eval measures the whole test set)\n"
    "  generate     clamp the label, read the image (--count N a class, alike unless relax.init=normal)\n"
    "  complete     clamp a part of the image (--keep or --hide PART), read the rest, and the label\n"
    "  denoise      --by start: begin at a noisy image, all free; --by precision: the image is seen through noise\n"
    "  recall       stored examples from noise and from parts of them; --baselines adds Hopfield networks\n"
    "  replay       a stored sequence from its first picture (runs of the task sequence)\n"
    "  interpolate  between two examples along --latent NODE\n"
    "  sample       Langevin dynamics at --temperature T\n"
    "  ask          whatever --clamp, --start and --intervene say (the default)\n\n"
    "  pc query runs/pc-graph complete --keep top --steps 200 --rate auto\n"
    "  pc query runs/pc-graph generate\n"
    "  pc query runs/pc-graph --clamp label=class:3 --start image=index:7\n"
    "  pc query runs/pc-graph --clamp image=index:0-9 --free hidden --free label    values/hidden in query-ask.h5\n"
    "  pc query runs/pc-graph --intervene label=class:3 --clamp image=seven.png    do(label = 3): the image is no "
    "cause\n"
    "  pc query runs/memory recall --steps 2000 --rate auto --momentum 0.9 --baselines\n\n"
    "WHAT is index:N or index:N-M (examples of --part), class:N, class:N-M or class:all (labels), value:V or\n"
    "value:V,V,... (entries), or a .png or .npy file. PART is half, quarter or eighth (from the top), top, bottom,\n"
    "left, right, random:SHARE or rectangle:TOP,LEFT,HEIGHT,WIDTH. Errors are mean squared differences of pixels in\n"
    "0..1. Pictures go to RUN/query-TASK.png, one row original, query and answer each; everything, with the energy "
    "and\n"
    "the error along the steps, to RUN/query-TASK.h5. How values relax is the config's, changed by the options below\n"
    "or by --set relax.KEY=VALUE.";

void add_query(CLI::App& command, QueryOptions& options) {
  command.add_option("RUN", options.run, "A run's folder")->required();
  command.add_option("TASK,--task", options.task, "See above")->capture_default_str();
  const auto list = [&](const char* name, std::vector<std::string>& values, const char* about) {
    command.add_option(name, values, about)->take_all()->allow_extra_args(false)->type_name("NODE=WHAT");
  };
  list("--clamp", options.clamp, "The node has these values; may be given again");
  list("--start", options.start, "The node begins with these values and is free");
  list("--intervene", options.intervene, "The node is set to these values, and tells nothing about its causes");
  command
      .add_option("--free", options.free,
                  "What the node settles at is wanted too, however large (task ask); may be given again")
      ->take_all()
      ->allow_extra_args(false)
      ->type_name("NODE");
  command.add_option("--part", options.part, "Examples of train, validation or test")->type_name("PART");
  command
      .add_option("--count", options.count,
                  "How many examples (classify: 1024, complete and denoise: 100, recall: all of them), "
                  "pairs of them, samples, or images a class")
      ->check(between(1, kMost));
  command.add_option("--first", options.first, "The first example's number")->check(between(0, kMost));
  auto* keep = command.add_option("--keep", options.keep, "The part of the image that is known")->type_name("PART");
  command.add_option("--hide", options.hide, "The part that is not known")->type_name("PART")->excludes(keep);
  command.add_flag("--with-label", options.with_label, "complete: clamp the label too");
  command.add_option("--noise", options.noise, "Variance of the noise (denoise: 0.1, recall: 0.2)")->check(at_least(0));
  command.add_option("--by", options.by, "denoise: start or precision");
  command.add_option("--precision", options.precision, "denoise --by precision: 1 / variance of what is seen (1)")
      ->check(at_least(0));
  command.add_option("--repeat", options.repeat, "recall from noise: how often an answer is shown again (30)")
      ->check(between(1, kMost));
  command.add_option("--starts", options.starts, "recall: from so many random starts, keeping the least energy")
      ->check(between(1, kMost));
  command.add_option("--threshold", options.threshold, "Success below this error (noise: 0.005, parts: 0.001)")
      ->check(at_least(0));
  command.add_flag("--baselines", options.baselines, "recall and replay: Hopfield networks on the same data");
  command.add_option("--latent", options.latent, "interpolate: the node to move along")->type_name("NODE");
  command.add_option("--steps", options.steps, "Of relaxation")->check(between(1, kMost));
  command.add_option("--rate", options.rate, "Of relaxation by gradient descent: a number or auto");
  command.add_option("--momentum", options.momentum, "Of relaxation")->check(between(0, 0.999999));
  command.add_option("--temperature", options.temperature, "Above 0: Langevin dynamics")->check(at_least(0));
  command.add_option("--schedule", options.schedule, "pc, or epc (errors as variables; graphs without cycles)");
  command.add_option("--seed", options.seed, "Of noise, random parts and random starts")->check(between(0, kMostSeed));
  command
      .add_option("--out", options.out,
                  "Beginning of the files' names, with or without .png, or a folder and / (RUN/); only earlier "
                  "answers are replaced")
      ->type_name("PATH");
}

constexpr const char* kAboutWrite =
    "Go on with a text, by a run that has learned one (task: next_token)\n\n"
    "  pc write runs/shakespeare --prompt \"ROMEO:\" --count 500 --temperature 0.7\n\n"
    "Each character is drawn from what the network predicts behind those before, as many as its context holds. "
    "Without\n"
    "a prompt it goes on where the test part of the text begins, as a finished run does.";

void add_write(CLI::App& command, WriteOptions& options) {
  command.add_option("RUN", options.run, "A run's folder")->required();
  command.add_option("--prompt", options.prompt, "What the text begins with")->type_name("TEXT");
  command.add_option("--count", options.count, "Characters to write (task.next_token.sample)")
      ->check(between(1, kMost));
  command
      .add_option("--temperature", options.temperature,
                  "Below 1: more of what is likely, 0: always the likeliest; above: more surprises "
                  "(task.next_token.temperature)")
      ->check(at_least(0));
  command.add_option("--seed", options.seed, "Another one writes another text (seed)")->check(between(0, kMostSeed));
  command.add_flag("--last", options.last, "The last checkpoint rather than the one that validation chose");
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
  app.failure_message(
      [](const CLI::App* command, const CLI::Error& e) { return "pc: " + CLI::FailureMessage::simple(command, e); });

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
         "--force", [&] { options.start = Start::force; },
         "Replace the run in that folder, and pc query's answers there")
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

  std::vector<std::filesystem::path> runs;
  std::filesystem::path curves;
  CLI::App* plot = app.add_subcommand("plot", "Draw what runs have learned over their epochs (needs gnuplot)");
  plot->add_option("RUN", runs, "Runs' folders; several are drawn beside each other")->required();
  plot->add_option("--out", curves, "An .svg or .png file (curves.svg in the first run's folder)")->type_name("FILE");
  add_common(*plot, common);
  plot->callback([&] { action = [&] { return plot_command(runs, curves, common); }; });

  WriteOptions write_options;
  CLI::App* write = app.add_subcommand("write", kAboutWrite);
  add_write(*write, write_options);
  add_set(*write, write_options.overrides);
  add_common(*write, common);
  write->callback([&] { action = [&] { return write_command(write_options, common); }; });

  QueryOptions query_options;
  CLI::App* query = app.add_subcommand("query", kAboutQuery);
  add_query(*query, query_options);
  add_set(*query, query_options.overrides);
  add_common(*query, common);
  query->callback([&] {
    query_options.command = "pc";
    for (int i = 1; i < argc; ++i) query_options.command += " " + shell_word(argv[i]);
    action = [&] { return query_command(query_options, common); };
  });

  std::filesystem::path config, svg;
  CLI::App* graph = app.add_subcommand("graph", "Show nodes, edges, levels, cycles and parameters of a config");
  graph->add_option("CONFIG", config, "A YAML file")->required();
  graph->add_option("--svg", svg, "Draw the graph too (needs Graphviz)")->type_name("FILE");
  add_set(*graph, overrides);
  add_common(*graph, common);
  graph->callback([&] { action = [&] { return graph_command(config, overrides, svg, common); }; });

  CheckOptions check_options;
  CLI::App* check = app.add_subcommand("check", kAboutCheck);
  add_check(*check, check_options);
  add_set(*check, check_options.overrides);
  add_common(*check, common);
  check->callback([&] { action = [&] { return check_command(check_options, common); }; });

  BenchOptions bench_options;
  CLI::App* bench = app.add_subcommand("bench", kAboutBench);
  add_bench(*bench, bench_options);
  add_set(*bench, bench_options.overrides);
  add_common(*bench, common);
  bench->callback([&] { action = [&] { return bench_command(bench_options, common); }; });

  std::string name;
  CLI::App* list_parts =
      app.add_subcommand("list", "Operators, networks, topologies, energies and schedules, and their settings");
  list_parts->add_option("NAME", name,
                         "One of them, or a kind, as topology: what can be set, and what it is if it is not");
  add_common(*list_parts, common);
  list_parts->callback([&] { action = [&] { return list_command(name, common); }; });

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
    return app.exit(e) == 0 ? once_written(0) : kBadInput;
  }

  const auto console = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
  if (common.quiet) console->set_level(spdlog::level::off);
  spdlog::set_default_logger(std::make_shared<spdlog::logger>("pc", console));
  spdlog::set_pattern("%v");
  spdlog::flush_on(spdlog::level::info);
  std::signal(SIGINT, stop_at_once);  // pc run has ways of its own, once it has something to save
  std::signal(SIGTERM, stop_at_once);
  if (std::signal(SIGHUP, stop_at_once) == SIG_IGN) std::signal(SIGHUP, SIG_IGN);  // nohup
  try {
    return once_written(action());
  } catch (const pc::Error& e) {
    std::cerr << "pc: " << e.what() << '\n';
    return static_cast<int>(e.status());
  } catch (const std::bad_alloc&) {
    std::cerr << "pc: out of memory: the network, its batch or its data is too large for this machine\n";
    return static_cast<int>(pc::ExitStatus::failed);
  } catch (const std::exception& e) {
    std::cerr << "pc: unexpected: " << e.what() << '\n';
    return static_cast<int>(pc::ExitStatus::failed);
  }
}

// The program as its users meet it: commands, exit statuses, messages, run folders, stopping and resuming.
#include <pty.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "experiments/config.h"
#include "experiments/output.h"
#include "experiments/run_folder.h"
#include "pc/h5.h"
#include "pc/op.h"
#include "pc/replacement.h"
#include "pc/schedule.h"
#include "tests/program.h"
#include "tests/small_disk.h"

using namespace pc::test;
using Json = nlohmann::json;

namespace {

/// A run small enough for a test: few drawn digits, a narrow network.
fs::path write_config(const Scratch& scratch, const std::string& extra = "") {
  const fs::path path = scratch / "small.yaml";
  std::ofstream(path) << "name: small\n"
                         "seed: 3\n"
                         "device: cpu\n"
                         "data: {set: glyphs, train: 400, test: 100, batch: 30}\n"
                         "graph: {mlp: {widths: [784, 24, 10], activation: tanh}}\n"
                         "relax: {schedule: pc, steps: 4, optimizer: {sgd: {rate: 0.05, momentum: 0.5}}}\n"
                         "learn: {epochs: 3, optimizer: {adamw: {rate: 2.0e-3}}, rate: {cosine: {floor: 1.0e-4}}}\n"
                      << extra;
  return path;
}

Json run_json(const Scratch& scratch, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "run");
  arguments.emplace_back("--json");
  const Result result = run_program(scratch, arguments);
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  return Json::parse(result.out);
}

/// Batches done of the epoch that the checkpoint stands in; 0 where there is none, or another takes its place just now.
std::int64_t saved_batch(const fs::path& run) {
  try {
    return pc::H5Reader(run / "checkpoint.h5").read_scalar<std::int64_t>("progress/batch");
  } catch (const pc::Error&) {
    return 0;
  }
}

}  // namespace

TEST_CASE("pc run: trains, reports, and leaves a whole folder") {
  const Scratch scratch;
  const fs::path config = write_config(scratch), run = scratch / "run";
  const Json result = run_json(scratch, {config, "--out", run});
  CHECK(result["name"] == "small");
  CHECK(result["run"] == run.string());
  CHECK(result["device"] == "cpu");
  CHECK(result["dtype"] == "float32");
  CHECK(result["epochs"] == 3);
  CHECK(result["seconds"].get<double>() > 0);
  CHECK(result["train"]["energy"].get<double>() > 0);
  CHECK(result["train"]["energy"].get<double>() < result["train"]["energy_start"].get<double>());
  CHECK(result["validation"]["accuracy"].get<double>() > 0.2);
  CHECK(result["test"]["accuracy"].get<double>() > 0.2);  // chance is 0.1
  CHECK(result["examples_per_second"].get<double>() > 0);
  CHECK(result["parameters"] == 784 * 24 + 24 + 24 * 10 + 10);
  for (const char* name : {"config.yaml", "log.txt", "metrics.jsonl", "run.h5", "checkpoint.h5", "best.h5"}) {
    CAPTURE(name);
    CHECK(fs::file_size(run / name) > 0);
  }
  std::istringstream lines(read(run / "metrics.jsonl"));
  std::string line;
  int epoch = 0;
  while (std::getline(lines, line)) {
    const Json metrics = Json::parse(line);
    CHECK(metrics["epoch"] == ++epoch);
    CHECK(metrics["trace"].size() == 5);
  }
  CHECK(epoch == 3);

  SUBCASE("the same config and seed give the same bits; another seed does not") {
    CHECK(run_json(scratch, {config, "--out", scratch / "again"})["signature"] == result["signature"]);
    CHECK(run_json(scratch, {config, "--out", scratch / "one", "--set", "threads=1"})["signature"] ==
          result["signature"]);
    CHECK(run_json(scratch, {config, "--out", scratch / "other", "--set", "seed=4"})["signature"] !=
          result["signature"]);
  }
  SUBCASE("the saved config gives the same run") {
    CHECK(run_json(scratch, {run / "config.yaml", "--out", scratch / "copy"})["signature"] == result["signature"]);
  }
  SUBCASE("pc eval measures the same accuracy") {
    const Result eval = run_program(scratch, {"eval", run, "--json"});
    CHECK(eval.status == 0);
    CHECK(Json::parse(eval.out)["test"]["accuracy"] == result["test"]["accuracy"]);
    CHECK(Json::parse(eval.out)["validation"]["accuracy"] == result["validation"]["accuracy"]);
  }
  SUBCASE("a run is not overwritten unless asked") {
    const Result again = run_program(scratch, {"run", config, "--out", run});
    CHECK(again.status == 2);
    CHECK(has(again.err, "already holds a run"));
    // Answers of the old weights do not stay beside new ones; what is no part of the run does.
    CHECK(run_program(scratch, {"query", run, "classify"}).status == 0);
    REQUIRE(fs::exists(run / "query-classify.h5"));
    REQUIRE(fs::exists(run / "query-classify.png"));
    std::ofstream(run / "query-notes.png") << "mine";
    CHECK(run_json(scratch, {config, "--out", run, "--force"})["signature"] == result["signature"]);
    CHECK(!fs::exists(run / "query-classify.h5"));
    CHECK(!fs::exists(run / "query-classify.png"));
    CHECK(fs::exists(run / "query-notes.png"));
  }
  SUBCASE("a finished run that is resumed says the same and learns nothing") {
    CHECK(run_json(scratch, {config, "--out", run, "--resume"})["signature"] == result["signature"]);
  }
  SUBCASE("resuming for fewer epochs than there were is refused, and changes nothing") {
    const fs::path other = scratch / "constant";
    const std::string rate = "learn.rate=constant";
    CHECK(run_program(scratch, {"run", config, "--out", other, "--set", rate}).status == 0);
    const Result fewer =
        run_program(scratch, {"run", config, "--out", other, "--resume", "--set", rate, "--set", "learn.epochs=1"});
    CHECK(fewer.status == 2);
    CHECK(has(fewer.err, "epochs, more than learn.epochs = 1"));
    CHECK(run_program(scratch, {"run", other / "config.yaml", "--out", other, "--resume"}).status == 0);
  }
  SUBCASE("resuming with another config is refused") {
    const Result other = run_program(scratch, {"run", config, "--out", run, "--resume", "--set", "relax.steps=5"});
    CHECK(other.status == 2);
    CHECK(has(other.err, "was started with another config: relax.steps: 4 -> 5; resume"));
    const Result more = run_program(scratch, {"run", config, "--out", run, "--resume", "--set", "relax.schedule=zil",
                                              "--set", "init=he", "--set", "learn.rate=~"});
    CHECK(has(more.err,
              "relax.schedule: pc -> zil, learn.rate: {cosine: {floor: 1.0e-4}} -> not given, "
              "init: not given -> he; resume"));
    const Result longer = run_program(scratch, {"run", config, "--out", run, "--resume", "--set", "learn.epochs=9"});
    CHECK(longer.status == 2);
    CHECK(has(longer.err, "-> 9 (its learn.rate depends on how long the run is); resume"));
  }
}

TEST_CASE("a run removes what a killed one was writing, and no file of somebody else") {
  const Scratch scratch;
  const fs::path run = scratch / "run";
  fs::create_directory(run);
  const std::vector<std::string> others = {"page.tmpl", "notes.tmp.txt", "notes.tmp", "notes.tmp-12"};
  for (const std::string& name : others) std::ofstream(run / name) << "mine";
  const fs::path left = run / "checkpoint.h5.tmp-4711";
  std::ofstream(left) << "half";
  run_json(scratch, {write_config(scratch), "--out", run, "--set", "learn.epochs=0"});
  CHECK(!fs::exists(left));
  for (const std::string& name : others) {
    CAPTURE(name);
    CHECK(read(run / name) == "mine");
  }
}

TEST_CASE("a program that a signal ends removes what would have taken a file's place, and nothing else") {
  const Scratch scratch;
  std::ofstream(scratch / "a") << "old";
  pc::Replacement first(scratch / "a"), second(scratch / "b"), third(scratch / "c");
  for (const auto* each : {&first, &second, &third}) std::ofstream(each->path()) << "new";
  second.take_place();
  pc::Replacement::drop_all();
  CHECK(!fs::exists(first.path()));
  CHECK(!fs::exists(third.path()));
  CHECK(read(scratch / "a") == "old");
  CHECK(read(scratch / "b") == "new");
}

TEST_CASE("a text that the disk has no room for: the run has failed, and the old file is whole") {
  const Scratch scratch;
  const fs::path path = scratch / "result.json";
  pc::experiments::write_whole(path, "old");
  for (const bool whole : {true, false}) {
    try {
      const SmallDisk limit(100);
      (whole ? pc::experiments::write_whole : pc::experiments::append)(path, std::string(1000, 'x'));
      FAIL("it was written");
    } catch (const pc::Error& e) {
      CHECK(e.status() == pc::ExitStatus::failed);
      CHECK(has(e.what(), "cannot write " + path.string() + ": File too large; is there room left"));
    }
    if (whole) CHECK(read(path) == "old");
  }
  CHECK(std::distance(fs::directory_iterator(scratch / ""), {}) == 1);
}

TEST_CASE("a run killed in the middle of an epoch goes on with the same bits") {
  const Scratch scratch;
  const fs::path config = write_config(scratch, "save: {every_batches: 2}\n");
  const std::vector<std::string> longer = {"--set", "learn.epochs=40"};
  std::vector<std::string> whole = {config, "--out", scratch / "whole"};
  whole.insert(whole.end(), longer.begin(), longer.end());
  const Json unbroken = run_json(scratch, whole);

  int kills = 0, mid_epoch = 0;  // the latter: those that left an epoch half done
  const fs::path run = scratch / "broken";
  for (const int signal : {SIGKILL, SIGTERM, SIGHUP, SIGINT, SIGKILL}) {
    std::vector<std::string> arguments = {"run", config, "--out", run, kills == 0 ? "--force" : "--resume", "--quiet"};
    arguments.insert(arguments.end(), longer.begin(), longer.end());
    const auto lines_before = read(run / "metrics.jsonl").size();
    const pid_t child = start(arguments, scratch / "o", scratch / "e");
    // Wait until it has done at least one more epoch, and is in the middle of the next, then strike.
    for (int i = 0; i < 5000 && (read(run / "metrics.jsonl").size() <= lines_before || saved_batch(run) == 0); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    kill(child, signal);
    const int status = wait_for(child);
    if (status == 0) break;  // it was quicker than we
    ++kills;
    CHECK(status == (signal == SIGKILL ? 128 + SIGKILL : 1));
    if (signal != SIGKILL) CHECK(fs::exists(run / "checkpoint.h5"));
    mid_epoch += saved_batch(run) > 0 ? 1 : 0;
  }
  CHECK(kills >= 1);
  CHECK(mid_epoch >= 1);
  std::vector<std::string> rest = {config, "--out", run, "--resume"};
  rest.insert(rest.end(), longer.begin(), longer.end());
  const Json resumed = run_json(scratch, rest);
  CHECK(resumed["signature"] == unbroken["signature"]);
  CHECK(resumed["test"]["accuracy"] == unbroken["test"]["accuracy"]);
  // The record is whole too: the same epochs with the same energies, bit for bit.
  std::istringstream a(read(scratch / "whole" / "metrics.jsonl")), b(read(run / "metrics.jsonl"));
  std::string x, y;
  int lines = 0;
  while (std::getline(a, x)) {
    REQUIRE(std::getline(b, y));
    CHECK(Json::parse(x)["train"] == Json::parse(y)["train"]);
    CHECK(Json::parse(x)["validation"] == Json::parse(y)["validation"]);
    CHECK(Json::parse(x)["trace"] == Json::parse(y)["trace"]);
    ++lines;
  }
  CHECK(lines == 40);
}

TEST_CASE("a run killed while it saved its first epoch begins anew; files of others stay; a lost best.h5 is missed") {
  const Scratch scratch;
  const fs::path config = write_config(scratch), run = scratch / "run", other = scratch / "other";
  const Json whole = run_json(scratch, {config, "--out", run});
  const std::string lines = read(run / "metrics.jsonl");
  fs::remove(run / "checkpoint.h5");
  const Result finished = run_program(scratch, {"run", config, "--out", run, "--resume"});
  CHECK(finished.status == 2);
  CHECK(has(finished.err, "holds finished epochs, but no checkpoint.h5 to go on from"));
  CHECK(read(run / "metrics.jsonl") == lines);
  std::ofstream(run / "metrics.jsonl") << lines.substr(0, lines.find('\n') + 1);
  CHECK(run_json(scratch, {config, "--out", run, "--resume"})["signature"] == whole["signature"]);
  CHECK(std::count(lines.begin(), lines.end(), '\n') == 3);

  fs::create_directory(other);
  std::ofstream(other / "result.json") << "precious";
  const Result refused = run_program(scratch, {"run", config, "--out", other});
  CHECK(refused.status == 2);
  CHECK(has(refused.err, " holds result.json, but no config.yaml, so it is no run's folder"));
  CHECK(read(other / "result.json") == "precious");

  const fs::path part = scratch / "part";
  const std::string constant = "learn.rate=constant";
  run_json(scratch, {config, "--out", part, "--set", constant});
  fs::remove(part / "best.h5");
  const Result lost =
      run_program(scratch, {"run", config, "--out", part, "--set", constant, "--set", "learn.epochs=4", "--resume"});
  CHECK(lost.status == 2);
  CHECK(has(lost.err, "best.h5 is gone, which holds the weights of epoch"));
  const Result other_weights = run_program(scratch, {"eval", part});
  CHECK(other_weights.status == 2);
  CHECK(has(other_weights.err, "best.h5 is gone, which holds the weights of epoch"));
  CHECK(run_program(scratch, {"eval", part, "--last"}).status == 0);
  CHECK(run_program(scratch, {"query", part, "classify", "--set", "learn.select=last"}).status == 0);
}

TEST_CASE("pc plot: runs beside each other, over their epochs") {
  const Scratch scratch;
  const fs::path config = write_config(scratch), one = scratch / "first-run", two = scratch / "second-run";
  run_json(scratch, {config, "--out", one});
  run_json(scratch, {config, "--out", two, "--set", "relax.schedule=backprop"});
  const fs::path file = scratch / "both.svg";
  const Result result = run_program(scratch, {"plot", one, two, "--out", file, "--json"});
  if (std::system("command -v gnuplot >/dev/null 2>&1") != 0) {
    MESSAGE("skipped: there is no gnuplot to draw with");
    CHECK(result.status == 2);
    CHECK(has(result.err, "needs gnuplot; on Debian: apt-get install gnuplot-nox"));
    return;
  }
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  CHECK(Json::parse(result.out)["runs"][1]["epochs"] == 3);
  const std::string drawing = read(file);
  for (const char* text : {"training, before relaxation", "validation", "accuracy", "first-run", "second-run",
                           "relaxation after the last epoch"}) {
    CAPTURE(text);
    CHECK(has(drawing, text));
  }
  const Result alone = run_program(scratch, {"plot", one});
  CHECK(alone.status == 0);
  CHECK(alone.out == (one / "curves.svg").string() + "\n");
  CHECK(fs::file_size(one / "curves.svg") > 1000);
  CHECK(run_program(scratch, {"plot", scratch / "none"}).status == 2);
  std::ofstream(two / "metrics.jsonl") << "{}\n";
  const Result empty = run_program(scratch, {"plot", two});
  CHECK(empty.status == 2);
  CHECK(has(empty.err, "has not finished an epoch yet"));
  CHECK(has(run_program(scratch, {"plot", one, "--out", scratch / "x.pdf"}).err, "a plot is an .svg or a .png file"));
}

TEST_CASE("a folder is looked at again when nobody else can be at work there any more") {
  const Scratch scratch;
  const fs::path path = write_config(scratch), run = scratch / "run";
  const pc::experiments::Config config = pc::experiments::read_config(path, {});
  pc::experiments::RunFolder folder(run, config, pc::experiments::Start::fresh);
  run_json(scratch, {path, "--out", run});  // another process, meanwhile
  const std::string lines = read(run / "metrics.jsonl");
  CHECK_THROWS_WITH_AS(folder.begin(config), doctest::Contains("already holds a run"), pc::Error);
  CHECK(read(run / "metrics.jsonl") == lines);
}

TEST_CASE("a run whose terminal hangs up saves where it is") {
  const Scratch scratch;
  const std::string config = write_config(scratch).string(), run = (scratch / "run").string();
  int terminal = -1;
  const pid_t child = forkpty(&terminal, nullptr, nullptr, nullptr);
  REQUIRE(child >= 0);
  if (child == 0) {
    execl(PC_PROGRAM, "pc", "run", config.c_str(), "--out", run.c_str(), "--set", "learn.epochs=100000", nullptr);
    _exit(127);
  }
  // What it says is read, as a terminal would, until it has done some epochs.
  char text[4096];
  std::size_t said = 0;
  while (said < 2000) {
    const ssize_t n = ::read(terminal, text, sizeof text);
    REQUIRE(n > 0);
    said += static_cast<std::size_t>(n);
  }
  close(terminal);
  CHECK(wait_for(child) == 1);
  CHECK(has(read(fs::path(run) / "log.txt"), "stopped by a signal"));
  CHECK(pc::H5Reader(fs::path(run) / "checkpoint.h5").read_scalar<std::int64_t>("progress/epoch") > 2);
}

TEST_CASE("epochs that a killed run has done since its checkpoint are done again, with the same bits") {
  const Scratch scratch;
  const fs::path config = write_config(scratch), run = scratch / "run";
  const std::string constant = "learn.rate=constant";
  run_json(scratch, {config, "--out", run, "--set", constant, "--set", "learn.epochs=1"});
  fs::copy_file(run / "checkpoint.h5", scratch / "early.h5");
  const Json whole = run_json(scratch, {config, "--out", run, "--set", constant, "--resume"});
  const std::string lines = read(run / "metrics.jsonl");
  fs::copy_file(scratch / "early.h5", run / "checkpoint.h5", fs::copy_options::overwrite_existing);
  const Json again = run_json(scratch, {config, "--out", run, "--set", constant, "--resume"});
  CHECK(again["signature"] == whole["signature"]);
  CHECK(again["test"] == whole["test"]);
  CHECK(again["validation"] == whole["validation"]);
  std::istringstream a(lines), b(read(run / "metrics.jsonl"));
  std::string x, y;
  for (int epoch = 0; epoch < 3; ++epoch) {
    REQUIRE(std::getline(a, x));
    REQUIRE(std::getline(b, y));
    CHECK(Json::parse(x)["train"] == Json::parse(y)["train"]);
  }
  CHECK(!std::getline(b, y));
}

TEST_CASE("schedules and the plan: backprop, ipc, and a plan without savings") {
  const Scratch scratch;
  const fs::path config = write_config(scratch);
  const Json pc_run = run_json(scratch, {config, "--out", scratch / "a"});
  const Json plain = run_json(scratch, {config, "--out", scratch / "b", "--set", "plan.optimize=false"});
  CHECK(plain["signature"] == pc_run["signature"]);
  const Json bp = run_json(scratch, {config, "--out", scratch / "c", "--set", "relax.schedule=backprop"});
  CHECK(bp["signature"] != pc_run["signature"]);
  CHECK(bp["test"]["accuracy"].get<double>() > 0.2);
  const Json ipc = run_json(scratch, {config, "--out", scratch / "d", "--set", "relax.schedule=ipc"});
  CHECK(ipc["test"]["accuracy"].get<double>() > 0.2);
}

TEST_CASE("an epoch's line shows the energy that is lowered, or the loss of schedules that lower none") {
  const Scratch scratch;
  const fs::path config = write_config(scratch);
  for (const char* schedule : {"pc", "epc", "backprop", "zil", "fa_zil", "fixed_prediction"}) {
    CAPTURE(schedule);
    const fs::path folder = scratch / schedule;
    run_json(scratch,
             {config, "--out", folder, "--set", "learn.epochs=1", "--set", "relax.schedule=" + std::string(schedule),
              "--set", "relax.steps=~", "--set", "relax.optimizer=~"});
    const std::string log = read(folder / "log.txt");
    const bool lowers = std::string(schedule) == "pc" || std::string(schedule) == "epc";
    CHECK(has(log, lowers ? "epoch 1/1: energy " : "epoch 1/1: loss "));
    CHECK((log.find(" -> ") != std::string::npos) == lowers);
    const Json train = Json::parse(read(folder / "metrics.jsonl"))["train"];  // has both, whatever they mean
    CHECK(train["energy_start"].get<double>() > 0);
    CHECK(train["energy"].get<double>() > 0);
  }
}

TEST_CASE("divergence stops the run with status 1, and the last checkpoint stays") {
  const Scratch scratch;
  const fs::path config = write_config(scratch), run = scratch / "run";
  run_json(scratch, {config, "--out", run, "--set", "learn.epochs=1"});
  const std::string before = read(run / "checkpoint.h5");
  const Result wild = run_program(scratch, {"run", config, "--out", scratch / "wild", "--set",
                                            "relax.optimizer.sgd.rate=50", "--set", "relax.steps=30"});
  CHECK(wild.status == 1);
  CHECK(has(wild.err, "diverged"));
  CHECK(has(wild.err, "epoch 1, batch"));
  CHECK(has(wild.err, "hidden1"));
  const Result learn = run_program(scratch, {"run", config, "--out", scratch / "wild2", "--set",
                                             "learn.optimizer={sgd: {rate: 1e30}}", "--set", "learn.rate=constant"});
  CHECK(learn.status == 1);
  CHECK(has(learn.err, "lower relax's rate"));
  CHECK(read(run / "checkpoint.h5") == before);
}

TEST_CASE("wrong use ends with status 2 and a message that names the place and the fix") {
  const Scratch scratch;
  const fs::path config = write_config(scratch);
  const auto fails = [&](const std::vector<std::string>& arguments, const std::string& part) {
    const Result result = run_program(scratch, arguments);
    CAPTURE(part);
    CHECK(result.status == 2);
    CHECK(has(result.err, part));
    CHECK(!has(result.err, "unexpected"));
  };
  fails({}, "subcommand");
  fails({"rnu"}, "there is no command \"rnu\"; did you mean \"run\"?");
  fails({"run"}, "CONFIG");
  fails({"run", scratch / "none.yaml"}, "none.yaml");
  fails({"run", config, "--set", "relax.step=3"}, "did you mean \"steps\"?");
  fails({"run", config, "--set", "nonsense"}, "nonsense");
  fails({"run", config, "--out", scratch / "x", "--set", "device=tpu"}, "tpu");
  fails({"run", config, "--out", "/proc/none/here"}, "--out");
  fails({"run", config, "--resume", "--force"}, "--force");
  fails({"run", config, "--out", scratch / "x", "--set", "data.set=mnist", "--set", "data.root=/nowhere"}, "/nowhere");
  fails({"run", config, "--out", scratch / "x", "--set", "graph.mlp.widths=[783,10]"}, "small.yaml:5:");
  fails({"run", config, "--out", scratch / "x", "--set", "graph.mlp.widths=[783,10]"}, "784");
  fails({"run", config, "--out", scratch / "x", "--set", "graph.mlp.widths=[784,9]"}, "10 classes");
  fails({"run", config, "--out", scratch / "x", "--set", "task.classify.target=lable"}, "lable");
  fails({"run", config, "--out", scratch / "x", "--set", "graph.unroll=1"},
        "in 1 sweeps nothing comes from image to label");
  fails(
      {"run", config, "--out", scratch / "x", "--set",
       "graph={nodes: {image: {shape: [784]}, a: {shape: [4]}, b: {shape: [4]}, label: {shape: [10]}}, edges: [{from: "
       "image, to: a, op: linear}, {from: b, to: label, op: linear}]}"},
      "is joined to node image by no edges");
  for (const char* given : {"on=-1", "off=1.5"}) {
    fails({"run", config, "--out", scratch / "x", "--set", "graph.mlp.output=softmax_cross_entropy", "--set",
           std::string("task.classify.") + given},
          "must be probabilities");
  }
  fails({"run", config, "--out", scratch / "x", "--set", "data.validation=400"},
        "--set data.validation=400: data.validation holds out 400 of 400");
  fails({"eval", scratch / "none"}, "no run folder");
  fails({"data", "verify", "nothing"}, "nothing");
  for (const std::vector<std::string>& options :
       std::vector<std::vector<std::string>>{{}, {"run"}, {"run", "--nonsense"}, {"check", config, "--batch", "0"}}) {
    CHECK(run_program(scratch, options).err.starts_with("pc: "));
  }
}

TEST_CASE("what is wrong with graph, task or schedule is found before the data is read") {
  const Scratch scratch;
  const fs::path config = write_config(scratch);
  const auto fails = [&](const std::vector<std::string>& changes, const std::string& part) {
    std::vector<std::string> arguments = {"run", config, "--set", "data.set=mnist", "--set", "data.root=/nowhere"};
    for (const std::string& change : changes) arguments.insert(arguments.end(), {"--set", change});
    const Result result = run_program(scratch, arguments);
    CHECK(result.status == 2);
    CHECK(has(result.err, part));
  };
  const std::string nodes =
      "graph={nodes: {image: {shape: [4]}, a: {shape: [3], energy: bernoulli}, label: {shape: [2]}}, ";
  fails({}, "/nowhere");
  const std::string into_a = "edges: [{from: image, to: a, op: linear}, ";
  fails({nodes + "edges: [{from: image, to: label, op: linear}]}"}, "node a has no edges");
  fails({nodes + into_a + "{from: image, to: label, op: tanh}]}"}, "gives shape [4], but node label has shape [2]");
  fails({"task.classify.target=lable"}, "\"lable\" is not in the graph");
  fails({"task.classify.target=image"}, "both nodes of the task are image");
  fails({"task={reconstruct: {node: image}}"}, "nothing predicts node image");
  fails({"task={reconstruct: {node: img}}"}, "name its nodes as in task: {reconstruct: {node: NODE}}");
  fails({"task={sequence: {from: prev}}"}, "name its nodes as in task: {sequence: {from: NODE, to: NODE}}");
  fails({nodes + "edges: [{from: image, to: a, op: linear}]}"}, "no edge touches the target node label");
  fails({nodes + "edges: [{from: image, to: a, op: linear}, {from: a, to: label, op: linear}]}"},
        "node a has energy bernoulli");
  fails({"graph={nodes: {image: {shape: [4]}, label: {shape: [2]}}, edges: [{from: image, to: label, op: linear}, "
         "{from: label, to: label, op: linear}]}",
         "relax.schedule=zil"},
        "cycle");
}

TEST_CASE("a corrupt checkpoint is refused, and nothing is lost") {
  const Scratch scratch;
  const fs::path config = write_config(scratch), run = scratch / "run";
  run_json(scratch, {config, "--out", run});
  const std::string good = read(run / "checkpoint.h5");
  std::ofstream(run / "checkpoint.h5", std::ios::binary) << good.substr(0, good.size() / 2);
  const Result result = run_program(scratch, {"run", config, "--out", run, "--resume"});
  CHECK(result.status == 2);
  CHECK(has(result.err, "checkpoint.h5"));
  CHECK(fs::exists(run / "best.h5"));
  CHECK(fs::file_size(run / "metrics.jsonl") > 0);
}

TEST_CASE("pc graph, devices and data list") {
  const Scratch scratch;
  const fs::path cycle = fs::path(PC_SOURCE_DIR) / "configs" / "cycle.yaml";
  const Result text = run_program(scratch, {"graph", cycle});
  CHECK(text.status == 0);
  CHECK(has(text.out, "a cycle: low -> high -> low"));
  const Result json = run_program(scratch, {"graph", cycle, "--json"});
  const Json graph = Json::parse(json.out);
  CHECK(graph["acyclic"] == false);
  CHECK(graph["nodes"].size() == 4);
  const Result chain = run_program(scratch, {"graph", write_config(scratch), "--json"});
  CHECK(Json::parse(chain.out)["nodes"][0]["level"] == 2);

  std::ofstream(scratch / "large.yaml")
      << "name: t\ntask: {check: {clamp: [a, b]}}\ngraph: {nodes: {a: {shape: [30000]}, "
      << "b: {shape: [30000]}}, edges: [{from: a, to: b, op: linear}]}\n";
  CHECK(has(run_program(scratch, {"graph", scratch / "large.yaml"}).out, "900000000 edges between neurons; up to "));

  const bool dot = std::system("dot -V >/dev/null 2>&1") == 0;
  const Result drawn = run_program(scratch, {"graph", cycle, "--svg", scratch / "g.svg"});
  CHECK(drawn.status == (dot ? 0 : 2));
  const Result longest = run_program(scratch, {"graph", cycle, "--svg", scratch / (std::string(300, 'x') + ".svg")});
  CHECK(longest.status == 2);
  CHECK(!has(longest.err, "unexpected"));
  if (dot) {
    CHECK(has(read(scratch / "g.svg"), "<svg"));
  } else {
    CHECK(has(drawn.err, "Graphviz"));
  }

  CHECK_NOTHROW(pc::experiments::check_output(scratch / std::string(300, 'x'), cycle, {".svg"}));

  const Json parts = Json::parse(run_program(scratch, {"list", "--json"}).out);
  std::map<std::string, int> kinds;
  for (const Json& part : parts) ++kinds[part["kind"]];
  CHECK(kinds["operator"] == std::ssize(pc::all_ops()));
  CHECK(kinds["schedule"] == std::ssize(pc::all_schedules()));
  const Json conv = Json::parse(run_program(scratch, {"list", "conv2d", "--json"}).out);
  REQUIRE(conv.size() == 1);
  CHECK(conv[0]["settings"].size() == pc::find_op("conv2d").attrs.size());
  CHECK(conv[0]["settings"].back()["default"] == true);
  CHECK(has(run_program(scratch, {"list", "linear"}).out, "bias           true"));
  CHECK(has(run_program(scratch, {"list"}).out, "{to: x, op: constant}"));
  CHECK(has(run_program(scratch, {"list", "decoder"}).out, "a trainable constant predicts the code"));
  CHECK(has(run_program(scratch, {"list", "watts_strogatz"}).out, "neighbours: 10"));
  CHECK(has(run_program(scratch, {"list", "topology"}).out, "links: 5"));
  CHECK(has(run_program(scratch, {"list", "topologies"}).err, "did you mean \"topology\"?"));
  const Result none = run_program(scratch, {"list", "conv3d"});
  CHECK(none.status == 2);
  CHECK(has(none.err, "did you mean \"conv2d\"?"));

  const Result devices = run_program(scratch, {"devices", "--json"});
  CHECK(devices.status == 0);
  CHECK(Json::parse(devices.out)["devices"][0]["name"] == "cpu");
  const Result data = run_program(scratch, {"data", "list", "--json"});
  CHECK(data.status == 0);
  CHECK(has(data.out, "\"glyphs\""));
  CHECK(run_program(scratch, {"--help"}).status == 0);
  CHECK(run_program(scratch, {"run", "--help"}).status == 0);
}

TEST_CASE("the README's commands and its config run") {
  const Scratch scratch;
  std::istringstream readme(read(fs::path(PC_SOURCE_DIR) / "README.md"));
  const char* data = std::getenv("PC_DATA_DIR");
  const std::string prompt = "    build/release/bin/pc ";
  std::string yaml;
  bool in_yaml = false;
  int commands = 0, skipped = 0;
  for (std::string line; std::getline(readme, line);) {
    if (line.starts_with("```")) in_yaml = line == "```yaml";
    if (in_yaml && !line.starts_with("```")) yaml += line + "\n";
    if (!line.starts_with(prompt)) continue;
    CAPTURE(line);
    const bool needs_data = line.find("mnist") != std::string::npos;
    if (needs_data && data == nullptr) {
      ++skipped;
      continue;
    }
    std::istringstream words(line.substr(prompt.size()));
    std::vector<std::string> arguments;
    for (std::string word; words >> word;) {
      if (word == "--out") {
        words >> word;  // this test's own folder instead
      } else {
        arguments.push_back(word.starts_with("configs/") ? (fs::path(PC_SOURCE_DIR) / word).string() : word);
      }
    }
    if (arguments[0] == "run") {
      for (const std::string& more :
           {std::string("--out"), (scratch / ("run" + std::to_string(commands))).string(), std::string("--set"),
            std::string("learn.epochs=1"), std::string("--set"), std::string("data.limit=500")}) {
        arguments.push_back(more);
      }
    }
    const Result result = run_program(scratch, arguments);
    CAPTURE(result.err);
    CHECK(result.status == 0);
    ++commands;
  }
  if (skipped > 0) MESSAGE("skipped: PC_DATA_DIR is not set, and README commands need MNIST");
  CHECK(commands + skipped >= 5);
  std::ofstream(scratch / "readme.yaml") << yaml;
  CHECK(run_json(scratch, {scratch / "readme.yaml", "--out", scratch / "readme"})["test"]["accuracy"] > 0.7);
}

TEST_CASE("looking changes nothing: traces and validation leave the bits of training alone") {
  const Scratch scratch;
  const fs::path config = write_config(scratch);
  int run = 0;
  for (const std::string& init : std::vector<std::string>{"feedforward", "zeros", "normal", "previous"}) {
    CAPTURE(init);
    std::vector<std::string> signatures;
    for (const std::string& trace : std::vector<std::string>{"true", "false"}) {
      signatures.push_back(run_json(scratch, {config, "--out", scratch / std::to_string(run++), "--set",
                                              "relax.init=" + init, "--set", "save.trace=" + trace})["signature"]);
    }
    CHECK(signatures[0] == signatures[1]);
  }
}

TEST_CASE("a trace ends where the relaxation ends") {
  const Scratch scratch;
  const fs::path config = write_config(scratch);
  int run = 0;
  for (const std::string& stop : std::vector<std::string>{"{gradient: {tolerance: 1.0e-4}}", "plateau", "steps"}) {
    CAPTURE(stop);
    const fs::path folder = scratch / std::to_string(run++);
    // All examples are one batch and nothing is learned, so the trace relaxes what training did; in float64, where
    // another order of the examples does not move the end by a step.
    run_json(scratch, {config, "--out", folder, "--set", "relax.steps=3000", "--set", "relax.stop=" + stop, "--set",
                       "data.limit=30", "--set", "learn.optimizer={sgd: {rate: 0}}", "--set", "learn.epochs=1", "--set",
                       "dtype=float64"});
    const Json metrics = Json::parse(read(folder / "metrics.jsonl"));
    const auto trace = metrics["trace"].get<std::vector<double>>();
    CHECK((trace.size() < 3001) == (stop != "steps"));
    CHECK(double(trace.size()) - 1 == metrics["train"]["steps"].get<double>());
    CHECK(trace.front() == doctest::Approx(metrics["train"]["energy_start"].get<double>()).epsilon(1e-9));
    CHECK(trace.back() == doctest::Approx(metrics["train"]["energy"].get<double>()).epsilon(1e-9));
  }
}

TEST_CASE("a regime that is asked for trains; what looks at each step goes call by call") {
  const Scratch scratch;
  const fs::path config = write_config(scratch);
  const Json plain = run_json(scratch, {config, "--out", scratch / "plain"});
  const Json sliced = run_json(scratch, {config, "--out", scratch / "sliced", "--set", "plan.regime=sliced"});
  CHECK(sliced["train"]["energy"].get<double>() ==
        doctest::Approx(plain["train"]["energy"].get<double>()).epsilon(1e-4));
}

TEST_CASE("errors as variables train at a rate that is found") {
  const Scratch scratch;
  const Json result = run_json(scratch, {write_config(scratch), "--out", scratch / "run", "--set", "relax.schedule=epc",
                                         "--set", "relax.optimizer={sgd: {rate: auto}}"});
  CHECK(result["train"]["energy"].get<double>() < result["train"]["energy_start"].get<double>());
  CHECK(result["test"]["accuracy"].get<double>() > 0.2);
}

TEST_CASE("ipc with a stop rule reports energies, and its divergence is seen") {
  const Scratch scratch;
  const fs::path config = write_config(scratch);
  const std::vector<std::string> ipc = {config, "--set", "relax.schedule=ipc", "--set", "relax.stop=plateau"};
  std::vector<std::string> good = ipc, bad = ipc;
  for (const std::string& word : std::vector<std::string>{std::string("--out"), (scratch / "good").string()})
    good.push_back(word);
  CHECK(run_json(scratch, good)["train"]["energy"].get<double>() > 0);
  bad.insert(bad.begin(), "run");
  for (const std::string& word :
       std::vector<std::string>{std::string("--out"), (scratch / "bad").string(), std::string("--set"),
                                std::string("relax.optimizer.sgd.rate=100")}) {
    bad.push_back(word);
  }
  CHECK(run_program(scratch, bad).status == 1);
}

TEST_CASE("a divergence in the last update is no success, and is not saved") {
  const Scratch scratch;
  const fs::path config = write_config(scratch);
  const Result result =
      run_program(scratch, {"run", config, "--out", scratch / "r", "--set",
                            "learn={epochs: 1, optimizer: {sgd: {rate: 1e38}}}", "--set", "data.batch=1000"});
  CHECK(result.status == 1);
  CHECK(has(result.err, "have left all bounds"));
  CHECK(!fs::exists(scratch / "r" / "checkpoint.h5"));
}

TEST_CASE("without a validation part nothing is reported as its accuracy") {
  const Scratch scratch;
  const Json result = run_json(scratch, {write_config(scratch), "--out", scratch / "r", "--set", "data.validation=0"});
  CHECK(result["validation"]["accuracy"].is_null());
}

TEST_CASE("a schedule that does not suit the graph: where it is named, and the cycle") {
  const Scratch scratch;
  const fs::path config = write_config(scratch);
  std::ofstream(config, std::ios::app) << "check: {batch: 4}\n";
  const std::vector<std::string> cyclic = {
      "--set",
      "graph={nodes: {image: {shape: [784]}, low: {shape: [6]}, label: {shape: [10]}}, edges: [{from: image, to: "
      "low, op: linear}, {from: low, to: low, op: linear}, {from: low, to: label, op: linear}]}"};
  const auto error = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), cyclic.begin(), cyclic.end());
    const Result result = run_program(scratch, arguments);
    CHECK(result.status == 2);
    return result.err;
  };
  std::ofstream(scratch / "zil.yaml") << "parent: small.yaml\nrelax:\n  schedule: zil\n";
  const std::string zil = scratch / "zil.yaml", run = scratch / "r";
  CHECK(has(error({"run", zil, "--out", run}),
            "zil.yaml:3:13: zil needs a graph without cycles, but there is low -> low"));
  CHECK(has(error({"bench", zil}), "zil.yaml:3:13: zil needs"));
  CHECK(
      has(error({"run", config, "--out", run, "--set", "relax.schedule=epc"}), "--set relax.schedule=epc: epc needs"));
  CHECK(has(error({"run", config, "--out", run, "--set", "relax.schedule={zil: {paths: pad}}"}), "low -> low"));
  CHECK_FALSE(fs::exists(run));
}

TEST_CASE("resuming: what may change and what may not") {
  const Scratch scratch;
  const fs::path config = write_config(scratch), run = scratch / "run";
  const auto status = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = {"run", config, "--out", run, "--resume"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_program(scratch, arguments).status;
  };
  CHECK(status({"--set", "learn.rate=constant"}) == 0);  // nothing there yet: it starts
  CHECK(status({"--set", "learn.rate=constant", "--set", "save.every_batches=5"}) == 0);
  CHECK(status({"--set", "learn.rate=constant", "--set", "learn.epochs=4"}) == 0);
  CHECK(status({"--set", "learn.rate=constant", "--set", "learn.epochs=2"}) == 2);  // four are done
  CHECK(status({"--set", "learn.epochs=4"}) == 2);                                  // another rate
  fs::remove(run / "checkpoint.h5");
  CHECK(status({"--set", "learn.rate=constant", "--set", "learn.epochs=4"}) == 2);  // nothing to go on from
}

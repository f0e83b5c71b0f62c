// Configs as structs: every file in configs/ loads and fits together; each mistake gets its message.
#include "experiments/config.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <string>

#include "kernels/check.h"
#include "pc/levels.h"

namespace fs = std::filesystem;
using namespace pc::experiments;

namespace {

const std::string kNodes = "graph: {nodes: {image: {shape: [4]}, label: {shape: [2]}}, edges: ";

std::string config_with(const std::string& graph, const std::string& more = "") {
  return "name: t\ndata: {set: glyphs}\n" + graph + "\n" + more;
}

/// Reads a config and makes its graph; the message of the error that stops it.
std::string message(const std::string& yaml) {
  try {
    const Config config = read_config(parse_config(yaml, "t.yaml"));
    const pc::Graph graph(config.graph.nodes, config.graph.edges);
    return "";
  } catch (const pc::Error& e) {
    CHECK(e.status() == pc::ExitStatus::bad_input);
    return e.what();
  }
}

bool has(const std::string& text, const std::string& part) {
  CAPTURE(text);
  CAPTURE(part);
  return text.find(part) != std::string::npos;
}

const std::string kMlp = "graph: {mlp: {widths: [784, 8, 10]}}";

}  // namespace

TEST_CASE("every file in configs/ loads and its graph fits together") {
  int seen = 0;
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(PC_SOURCE_DIR) / "configs")) {
    if (entry.path().extension() != ".yaml") continue;
    CAPTURE(entry.path().string());
    // The largest graphs take long to draw and are as good when they are smaller.
    const bool large = entry.path().filename().string().starts_with("sparse_");
    const Config config = read_config(
        entry.path(), large ? std::vector<std::string>{"graph.pc_graph.hidden=31206"} : std::vector<std::string>{});
    const pc::Graph graph(config.graph.nodes, config.graph.edges);
    std::vector<pc::Clamp> clamps;
    for (const std::string& name : clamped_names(config)) clamps.push_back({graph.find(name)});
    CHECK_NOTHROW(pc::check_schedule(*config.relax.schedule, config.relax.settings, config.relax.relax, graph, clamps));
    ++seen;
  }
  CHECK(seen >= 5);
}

TEST_CASE("base.yaml states the defaults: a config that says nothing means the same") {
  const Config base = read_config(fs::path(PC_SOURCE_DIR) / "configs" / "base.yaml", {});
  const Config bare = read_config(
      parse_config("name: base\ndata: {set: glyphs}\ngraph: {mlp: {widths: [784, 128, 128, 10]}}\n", "t.yaml"));
  CHECK(base.seed == bare.seed);
  CHECK(base.device == bare.device);
  CHECK(base.dtype == bare.dtype);
  CHECK(base.threads == bare.threads);
  CHECK(base.data.batch == bare.data.batch);
  CHECK(base.data.validation == bare.data.validation);
  CHECK(base.data.validation_part == bare.data.validation_part);
  CHECK(base.data.limit == bare.data.limit);
  CHECK(base.data.normalize == bare.data.normalize);
  CHECK(base.data.request.train == bare.data.request.train);
  CHECK(base.data.request.test == bare.data.request.test);
  CHECK(base.init.kind == bare.init.kind);
  CHECK(base.init.scale == bare.init.scale);
  CHECK(base.classify.input == bare.classify.input);
  CHECK(base.classify.target == bare.classify.target);
  CHECK(base.classify.on == bare.classify.on);
  CHECK(base.classify.off == bare.classify.off);
  CHECK(base.relax.schedule->name == bare.relax.schedule->name);
  CHECK(base.relax.relax.growth == bare.relax.relax.growth);
  CHECK(base.relax.relax.steps == bare.relax.relax.steps);
  CHECK(base.relax.relax.stepper.index() == bare.relax.relax.stepper.index());
  CHECK(std::get<pc::ValueSgd>(base.relax.relax.stepper).rate == std::get<pc::ValueSgd>(bare.relax.relax.stepper).rate);
  CHECK(std::get<pc::ValueSgd>(base.relax.relax.stepper).momentum ==
        std::get<pc::ValueSgd>(bare.relax.relax.stepper).momentum);
  CHECK(base.relax.relax.init.kind == bare.relax.relax.init.kind);
  CHECK(base.relax.relax.init.sweeps == bare.relax.relax.init.sweeps);
  CHECK(base.relax.relax.stop.index() == bare.relax.relax.stop.index());
  CHECK(base.evaluate_steps == bare.evaluate_steps);
  CHECK(base.learn.epochs == bare.learn.epochs);
  const auto &a = std::get<pc::WeightAdam>(base.learn.optimizer), &b = std::get<pc::WeightAdam>(bare.learn.optimizer);
  CHECK(a.beta1 == b.beta1);
  CHECK(a.beta2 == b.beta2);
  CHECK(a.epsilon == b.epsilon);
  CHECK(a.weight_decay == b.weight_decay);
  CHECK(a.decoupled == b.decoupled);
  CHECK(base.learn.rate.base == bare.learn.rate.base);
  CHECK(base.learn.rate.kind == bare.learn.rate.kind);
  CHECK(base.learn.rate.floor == bare.learn.rate.floor);
  CHECK(base.learn.warmup == bare.learn.warmup);
  CHECK(base.learn.clip_norm == bare.learn.clip_norm);
  CHECK(base.learn.select_best == bare.learn.select_best);
  CHECK(base.save.every_batches == bare.save.every_batches);
  CHECK(base.save.trace == bare.save.trace);
  CHECK(base.optimize == bare.optimize);
  CHECK(base.relax.settings.nudge.has_value() == bare.relax.settings.nudge.has_value());
  CHECK(base.relax.relax.sweep == bare.relax.relax.sweep);
  CHECK(base.relax.relax.precision.kind == bare.relax.relax.precision.kind);
  CHECK(base.relax.relax.forward_update == bare.relax.relax.forward_update);
  CHECK(base.check.batch == bare.check.batch);
  CHECK(base.check.seed == bare.check.seed);
  CHECK(base.check.tolerance_f64 == bare.check.tolerance_f64);
  CHECK(base.check.tolerance_f32 == bare.check.tolerance_f32);
  CHECK(base.check.laws.ep_beta == bare.check.laws.ep_beta);
  CHECK(base.check.laws.ep_side == bare.check.laws.ep_side);
  CHECK(base.check.laws.pc_output_precision == bare.check.laws.pc_output_precision);
  CHECK(base.check.laws.zil_gamma == bare.check.laws.zil_gamma);
  CHECK(base.check.laws.fixed_prediction_eta == bare.check.laws.fixed_prediction_eta);
  CHECK(base.check.laws.fixed_prediction_steps == bare.check.laws.fixed_prediction_steps);
  const pc::Graph x(base.graph.nodes, base.graph.edges), y(bare.graph.nodes, bare.graph.edges);
  CHECK(x.weight_count() == y.weight_count());
}

TEST_CASE("a config's values arrive") {
  const Config config = read_config(parse_config(
      "name: t\nseed: 7\ndtype: float64\ndata: {set: glyphs, batch: 32, validation: 500, normalize: centered}\n"
      "graph: {mlp: {widths: [784, 8, 10], activation: {leaky_relu: {slope: 0.2}}, order: before}}\n"
      "relax: {schedule: ipc, steps: 3, optimizer: {adam: {rate: 0.2}}, init: {normal: {sigma: 0.3}}, stop: {plateau: "
      "{relative: 1e-3}}}\n"
      "learn: {epochs: 2, optimizer: {sgd: {rate: 0.5, momentum: 0.25}}, rate: {cosine: {floor: 0.01}}, clip_norm: "
      "3}\n",
      "t.yaml"));
  CHECK(config.seed == 7);
  CHECK(config.dtype == pc::DType::f64);
  CHECK(config.data.batch == 32);
  CHECK(config.data.validation == 500);
  CHECK(config.data.normalize == Normalize::centered);
  CHECK(config.relax.schedule->name == "ipc");
  CHECK(std::get<pc::ValueAdam>(config.relax.relax.stepper).rate == 0.2);
  CHECK(config.relax.relax.init.kind == pc::ValueInit::Kind::normal);
  CHECK(config.relax.relax.init.sigma == 0.3);
  CHECK(std::get<pc::EnergyPlateau>(config.relax.relax.stop).relative == 1e-3);
  CHECK(std::get<pc::WeightSgd>(config.learn.optimizer).momentum == 0.25);
  CHECK(config.learn.rate.base == 0.5);
  CHECK(config.learn.rate.floor == 0.01);
  CHECK(config.learn.clip_norm == 3);
  const pc::Graph graph(config.graph.nodes, config.graph.edges);
  CHECK(graph.edge(1).chain[0].op->name == "leaky_relu");
  CHECK(graph.edge(1).chain[0].attrs.at("slope") == 0.2);
}

TEST_CASE("relax: schedules and their settings arrive") {
  const auto relax = [](const std::string& yaml) {
    return read_config(parse_config(config_with(kMlp, "relax: {" + yaml + "}\n"), "t.yaml")).relax;
  };
  using Paths = pc::ScheduleSettings::Paths;
  using Side = pc::Nudge::Side;
  CHECK(relax("schedule: zil").settings.paths == Paths::latch);
  CHECK(relax("schedule: {zil: {paths: pad, gamma: 0.5}}").settings.paths == Paths::pad);
  CHECK(relax("schedule: {fa_zil: {paths: pad, gamma: 0.5}}").settings.gamma == 0.5);
  CHECK(relax("schedule: {fixed_prediction: {eta: 0.25, steps: 9}}").settings.eta == 0.25);
  CHECK(relax("schedule: {fixed_prediction: {eta: 0.25, steps: 9}}").settings.steps == 9);
  CHECK(relax("schedule: ep").settings.nudge->beta == 0.01);
  CHECK(relax("schedule: {ep: {beta: 0.1, side: negative}}").settings.nudge->side == Side::negative);
  CHECK(relax("schedule: epc").schedule->name == "epc");
  CHECK_FALSE(relax("schedule: pc").settings.nudge.has_value());
  CHECK(relax("schedule: {pc: {nudge: positive}}").settings.nudge->beta == 0.2);
  CHECK(relax("schedule: {ipc: {nudge: centered, beta: 0.5, growth: 0.1}}").settings.nudge->growth == 0.1);
  CHECK(std::get<pc::ValueSgd>(relax("optimizer: {sgd: {rate: auto}}").relax.stepper).automatic);
  CHECK(std::get<pc::ValueSgd>(relax("optimizer: {sgd: {rate: auto, safety: 0.5}}").relax.stepper).rate == 0.5);
  CHECK(std::get<pc::ValueFlow>(relax("optimizer: {rk4: {rate: 0.5}}").relax.stepper).method ==
        pc::ValueFlow::Method::rk4);
  const auto flow = std::get<pc::ValueFlow>(relax("optimizer: {adaptive: {absolute: 1e-5, most: 3}}").relax.stepper);
  CHECK(flow.method == pc::ValueFlow::Method::adaptive);
  CHECK(flow.absolute == 1e-5);
  CHECK(flow.relative == 1e-3);
  CHECK(flow.most == 3);
  CHECK(relax("sweep: even_odd").relax.sweep == pc::Sweep::even_odd);
  CHECK(relax("precision: {spiking: {floor: 0.5}}").relax.precision.floor == 0.5);
  CHECK(relax("precision: {decaying: {decay: 2}}").relax.precision.kind == pc::PrecisionSchedule::Kind::decaying);
  CHECK(relax("forward_update: true").relax.forward_update);
}

TEST_CASE("task check: clamped nodes by name, no data needed; the check section arrives") {
  const std::string yaml =
      "name: t\n" + kNodes + "[{from: image, to: label, op: linear}]}\ntask: {check: {clamp: [image, label]}}\n";
  const Config config = read_config(parse_config(
      yaml + "check: {batch: 3, seed: 4, tolerance: {float32: 0.5}, laws: {ep: {beta: [0.3], side: positive}, zil: "
             "{gamma: [0.1, 0.2]}}}\n",
      "t.yaml"));
  CHECK(config.data.request.set.empty());
  CHECK(clamped_names(config) == std::vector<std::string>{"image", "label"});
  CHECK(input_names(config, config.graph) == std::vector<std::string>{"image"});
  CHECK(config.check.batch == 3);
  CHECK(config.check.seed == 4);
  CHECK(config.check.tolerance(pc::DType::f32) == 0.5);
  CHECK(config.check.tolerance(pc::DType::f64) == 1e-10);
  CHECK(config.check.laws.ep_beta == std::vector{0.3});
  CHECK(config.check.laws.ep_side == pc::Nudge::Side::positive);
  CHECK(config.check.laws.zil_gamma == std::vector{0.1, 0.2});
  CHECK(config.check.laws.pc_output_precision.empty());
  CHECK_THROWS_AS(require_data_task(config, "run"), pc::Error);
}

TEST_CASE("unroll and parameterization stand beside the graph") {
  const auto config = [](const std::string& more, const std::string& override_ = "") {
    ConfigTree tree = parse_config(config_with("graph: {mlp: {widths: [784, 8, 10]}, unroll: 2}", more), "t.yaml");
    if (!override_.empty()) set_override(tree, override_);
    return read_config(std::move(tree));
  };
  CHECK_FALSE(config("").graph.nodes.empty());
  CHECK_FALSE(config("", "graph.unroll=3").graph.nodes.empty());  // the network stays
  const Config mupc = config("parameterization: mupc\n", "graph.unroll=~");
  CHECK(mupc.init.kind == pc::WeightInit::Kind::normal);
  CHECK(mupc.init.scale == 1);
}

TEST_CASE("mlp: with residual, hidden nodes pass themselves on to the next one of the same width") {
  const auto edges = [](const std::string& widths, const std::string& more) {
    const Config config = read_config(
        parse_config(config_with("graph: {mlp: {widths: " + widths + ", activation: tanh" + more + "}}"), "t.yaml"));
    std::string text;
    const pc::Graph graph(config.graph.nodes, config.graph.edges);
    for (pc::EdgeId e = 0; e < graph.edge_count(); ++e) {
      const pc::Edge& edge = graph.edge(e);
      text += graph.node(edge.from[0]).name + ">" + graph.node(graph.prediction(edge.prediction).node).name + ":";
      for (const pc::Link& link : edge.chain) text += std::string(link.op->name).substr(0, 1);
      text += ' ';
    }
    return text;
  };
  const std::string plain = "image>hidden1:lt hidden1>hidden2:lt hidden2>hidden3:lt hidden3>label:l ";
  CHECK(edges("[784, 8, 8, 8, 10]", "") == plain);
  CHECK(edges("[784, 8, 8, 8, 10]", ", residual: false") == plain);
  CHECK(edges("[784, 8, 8, 8, 10]", ", residual: true") ==
        "image>hidden1:lt hidden1>hidden2:i hidden1>hidden2:lt hidden2>hidden3:i hidden2>hidden3:lt hidden3>label:l ");
  CHECK(edges("[784, 8, 8, 6, 10]", ", residual: true") ==
        "image>hidden1:lt hidden1>hidden2:i hidden1>hidden2:lt hidden2>hidden3:lt hidden3>label:l ");
  // Parameters have the names that they have without it, by which checkpoints know them.
  const Config residual =
      read_config(parse_config(config_with("graph: {mlp: {widths: [784, 8, 8, 10], residual: true}}"), "t.yaml"));
  CHECK(pc::Graph(residual.graph.nodes, residual.graph.edges).param(2).name == "hidden1->hidden2/linear.weight");
  // neither the first layer nor the last, whatever their widths
  CHECK(edges("[784, 784, 10, 10]", ", residual: true") == "image>hidden1:lt hidden1>hidden2:lt hidden2>label:l ");
  CHECK(edges("[784, 8, 8, 10]", ", residual: true, order: before") ==
        "image>hidden1:l hidden1>hidden2:i hidden1>hidden2:tl hidden2>label:tl ");
}

TEST_CASE("relax: what a schedule does not heed is refused, at its place; a default does no harm") {
  const auto relax = [](const std::string& schedule, const std::string& more) {
    return message(config_with(kMlp, "relax: {schedule: " + schedule + ", " + more + "}\n"));
  };
  const std::string asked[] = {"stop: plateau", "sweep: even_odd", "precision: spiking", "forward_update: true",
                               "growth: 3"};
  for (const std::string& more : asked) {
    const std::string key = more.substr(0, more.find(':'));
    for (const std::string schedule : {"zil", "fa_zil", "fixed_prediction", "backprop"}) {
      const std::string column =
          std::to_string(std::string("relax: {schedule: , ").size() + schedule.size() + key.size() + 3);
      CHECK(has(relax(schedule, more), "t.yaml:4:" + column + ": relax." + key + " has no effect on " + schedule));
    }
    CHECK(relax("pc", more).empty());
  }
  CHECK(has(relax("epc", "sweep: even_odd"), "heeds it: pc, ipc, ep"));
  CHECK(has(relax("ep", "forward_update: true"), "heeds it: pc"));
  CHECK(relax("epc", "stop: plateau").empty());
  CHECK(relax("zil",
              "stop: steps, sweep: synchronous, precision: constant, forward_update: false, growth: 10, "
              "steps: 3, optimizer: {sgd: {rate: 0.2}}, init: zeros")
            .empty());
}

TEST_CASE("mistakes in a config: each has its place and its message") {
  CHECK(has(message(config_with(kMlp, "relax: {step: 5}\n")),
            "t.yaml:4:9: unknown key relax.step; did you mean \"steps\"?"));
  CHECK(has(message(config_with(kMlp, "relax: {steps: many}\n")), "t.yaml:4:16: relax.steps must be a whole number"));
  CHECK(has(message(config_with(kMlp, "relax: {steps: 0}\n")), "relax.steps must be at least 1"));
  CHECK(has(message(config_with(kMlp, "relax: {schedule: pcc}\n")), "did you mean \"pc\"?"));
  CHECK(has(message(config_with(kMlp, "relax: {optimizer: {sdg: {rate: 0.1}}}\n")), "did you mean \"sgd\"?"));
  CHECK(has(message(config_with(kMlp, "relax: {optimizer: {sgd: {rate: -1}}}\n")), "must be greater than 0"));
  CHECK(has(message(config_with(kMlp, "relax: {schedule: {zil: {path: pad}}}\n")), "did you mean \"paths\"?"));
  CHECK(has(message(config_with(kMlp, "relax: {schedule: {zil: {paths: pda}}}\n")), "did you mean \"pad\"?"));
  CHECK(has(message(config_with(kMlp, "relax: {schedule: {pc: {beta: 0.1}}}\n")), "t.yaml:4:31: "));
  CHECK(has(message(config_with(kMlp, "relax: {schedule: {pc: {beta: 0.1}}}\n")), "add nudge: centered"));
  CHECK(has(message(config_with(kMlp, "relax: {schedule: {ep: {side: center}}}\n")), "did you mean \"centered\"?"));
  CHECK(has(message(config_with(kMlp, "relax: {schedule: {epc: {beta: 1}}}\n")), "no keys belong here"));
  CHECK(has(message(config_with(kMlp, "relax: {optimizer: {sgd: {safety: 1}}}\n")), "rate: auto; add that"));
  CHECK(has(message(config_with(kMlp, "relax: {optimizer: {sgd: {rate: 0.1, safety: 1}}}\n")),
            "take it out (safety: ~)"));
  CHECK(has(message(config_with(kMlp, "relax: {optimizer: {heun: {most: 1}}}\n")), "unknown key"));
  CHECK(has(message(config_with(kMlp, "relax: {sweep: odd_even}\n")), "even_odd"));
  CHECK(has(message(config_with(kMlp, "relax: {precision: spikin}\n")), "did you mean \"spiking\"?"));
  CHECK(has(message(config_with(kMlp, "check: {laws: {zil: {gama: [1]}}}\n")), "check.laws.zil.gamma is missing"));
  CHECK(has(message(config_with(kMlp, "check: {batch: 0}\n")), "check.batch must be at least 1"));
  CHECK(has(message(config_with(kMlp, "task: {check: {}}\n")), "task.check.clamp is missing"));
  CHECK(has(message(config_with(kMlp, "task: {check: {clamp: [image, lable]}}\n")), "t.yaml:4:31: "));
  CHECK(has(message(config_with(kMlp, "task: {check: {clamp: [image, lable]}}\n")), "did you mean \"label\"?"));
  CHECK(has(message(config_with(kMlp, "parameterization: mupc\ninit: he\n")), "{normal: {scale: 1.0}}"));
  CHECK(has(message(config_with("graph: {mlp: {widths: [784, 10]}, unroll: 0}")), "at least 1"));
  const std::string chain =
      "graph:\n  nodes: {image: {shape: [784]}, a: {shape: [4]}, b: {shape: [4]}, label: {shape: [10]}}\n"
      "  edges: [{from: image, to: a, op: linear}, {from: a, to: b, op: linear}, {from: b, to: label, op: linear}, "
      "{from: b, to: a, op: linear}]\n  unroll: ";
  CHECK(has(message(config_with(chain + "2")), "in 2 sweeps nothing comes from image to label"));
  CHECK(message(config_with(chain + "3")).empty());
  CHECK(has(message(config_with(kMlp, "learn: {epochs: 1.5}\n")), "learn.epochs must be a whole number"));
  CHECK(has(message(config_with(kMlp, "learn: {rate: {cosin: {}}}\n")), "did you mean \"cosine\"?"));
  CHECK(has(message(config_with(kMlp, "dtype: float16\n")), "dtype"));
  CHECK(has(message(config_with(kMlp, "nmae: x\n")), "unknown key nmae; did you mean \"name\"?"));
  CHECK(has(message("data: {set: glyphs}\n" + kMlp + "\n"), "name"));
  CHECK(has(message("name: t\n" + kMlp + "\n"), "t.yaml:1:1: data is missing; add it here"));
  CHECK(has(message("name: t\n" + kMlp + "\n"), "task: {check: {clamp: [INPUT, TARGET]}}"));
  CHECK(has(message("name: a/b\ndata: {set: glyphs}\n" + kMlp + "\n"), "cannot be \"a/b\""));
  CHECK(has(message("name: t\ndata: {set: mnst}\n" + kMlp + "\n"), "t.yaml:2:13: "));
  CHECK(has(message("name: t\ndata: {set: mnst}\n" + kMlp + "\n"), "mnist"));
  CHECK(has(message(config_with("graph: {mpl: {widths: [784, 10]}}")), "did you mean \"mlp\"?"));
  CHECK(has(message(config_with("graph: {mlp: {width: [784, 10]}}")), "widths"));
  CHECK(has(message(config_with("graph: {mlp: {widths: [784]}}")), "an input and an output width"));
  CHECK(has(message(config_with("graph: {mlp: {widths: [784, 10], activation: rleu}}")), "did you mean \"relu\"?"));
  CHECK(has(message(config_with("graph: {mlp: {widths: [784, 10], output: gausian}}")), "gaussian"));
}

TEST_CASE("mistakes in a written-out graph name the node or edge, and its place") {
  CHECK(has(message(config_with("graph: {nodes: {image: {shape: [4]}}, pc_graph: {inputs: 4}}")),
            "graph has two choices, nodes at t.yaml:3:9 and pc_graph; keep one"));
  CHECK(has(message(config_with(kNodes + "[{from: image, to: lable, op: linear}]}")), "edge image->lable"));
  CHECK(has(message(config_with(kNodes + "[{from: image, to: lable, op: linear}]}")), "no node named \"lable\""));
  CHECK(has(message(config_with(kNodes + "[{from: image, to: label, op: identity}]}")),
            "gives shape [4], but node label has shape [2]"));
  CHECK(has(message(config_with(kNodes + "[{from: image, to: label, op: identity}]}")), "t.yaml:3:"));
  CHECK(
      has(message(config_with(kNodes + "[{from: image, to: label, op: [linear, tnah]}]}")), "did you mean \"tanh\"?"));
  CHECK(has(message(config_with(kNodes + "[{from: image, to: label, op: {linear: {unit: 2}}}]}")), "units"));
  CHECK(has(message(config_with(kNodes + "[{from: image, to: label, op: [linear, linear]}]}")), "units: N"));
  CHECK(has(message(config_with(kNodes + "[{from: [image, image], to: label, op: linear}]}")), "begin the chain with"));
  CHECK(has(message(config_with(kNodes + "[{from: image, to: label, op: linear, mask: no_diagnal}]}")),
            "did you mean \"no_diagonal\"?"));
  CHECK(has(message(config_with(kNodes + "[{from: image, to: label, op: linear, mask: no_diagonal}]}")),
            "not for [2, 4]; take it out"));
  CHECK(has(message(config_with("graph: {nodes: {a: {shape: [0]}}, edges: []}")), "has the dimension 0"));
  CHECK(has(message(config_with("graph: {nodes: {a: {shape: [1, 1, 1, 1, 1]}}, edges: []}")), "at most 4"));
  CHECK(has(message(config_with("graph: {nodes: {a: {shape: [2], precision: [1, 2, 3]}, b: {shape: [2]}}, edges: "
                                "[{from: b, to: a, op: linear}]}")),
            "has 3 precisions; give 1 or 2"));
  CHECK(has(message(config_with("graph: {nodes: {a: {}}, edges: []}")), "shape"));
  const std::string two =
      "graph: {nodes: {a: {shape: [2], predictions: {down: {}}}, b: {shape: [2]}}, edges: [{from: b, to: a, op: linear";
  CHECK(has(message(config_with(two + ", prediction: dwon}]}")), "did you mean \"down\"?"));
  CHECK(has(message(config_with(two + "}]}")), "no edge makes the prediction \"down\" of node a"));
  const auto prior = [](const std::string& more) {
    return message(config_with("graph: {nodes: {a: {shape: [2]}, b: {shape: [2], prior: true, " + more +
                               "}}, edges: [{from: b, to: a, op: linear}]}"));
  };
  CHECK(has(prior("precision: 0.1"), "only its prior predicts it; write predictions: {prior: {...}}"));
  CHECK(prior("predictions: {prior: {precision: 0.1}}").empty());
  const auto aside = [](const std::string& node, const std::string& edge, const std::string& more = "") {
    return message(config_with("graph:\n  nodes:\n    image: {shape: [4]}\n    label: {shape: [2]}\n    aside: {" +
                                   node + "}\n  edges:\n    - {from: image, to: label, op: linear}\n" + edge,
                               more));
  };
  CHECK(has(aside("shape: [3]", ""), "t.yaml:7:12: node aside has no edges"));
  CHECK(aside("shape: [3], prior: true", "").empty());
  CHECK(aside("shape: [3]", "", "task: {check: {clamp: [image, label, aside]}}\n").empty());
  CHECK(has(aside("shape: [3]", "    - {from: image, to: asdie, op: linear}\n"), "no node named \"asdie\""));
  CHECK(has(aside("shape: [3], prior: true", "    - {from: image, to: label, op: []}\n"), "no operator"));
  // Numbers of entries have no slope: who is read by them alone must be given.
  const std::string embedded = "    - {from: aside, to: label, op: [{embedding: {entries: 5, units: 1}}, linear]}\n";
  CHECK(has(aside("shape: [2]", embedded), "t.yaml:7:12: node aside is read by numbers of entries alone"));
  CHECK(has(aside("shape: [2], prior: true", embedded), "it could not learn; let the task clamp it"));
  CHECK(has(aside("shape: [2]", embedded + "    - {from: image, to: aside, op: linear}\n"), "it could not learn"));
  CHECK(aside("shape: [2]", embedded + "    - {from: image, to: aside, op: {slice: {count: 2}}}\n").empty());
  CHECK(aside("shape: [2]", embedded + "    - {from: aside, to: label, op: linear}\n").empty());
  CHECK(aside("shape: [2]", embedded, "task: {check: {clamp: [aside, image, label]}}\n").empty());
  const std::string places = "    - {from: [image, aside], to: label, op: gather}\n";
  CHECK(has(aside("shape: [2]", places), "node aside is read by numbers of entries alone"));
  CHECK(has(message(config_with("graph: {mlp: {widths: [784, 4611686018427387904, 10]}}")), "too large"));
  CHECK(has(message(config_with(kNodes + "[{from: image, to: label, op: {linear: {units: -9}}}]}")), "whole number"));
  const auto linear = [](const std::string& settings) {
    return message(config_with(kNodes + "[{from: image, to: label, op: {linear: {" + settings + "}}}]}"));
  };
  for (const char* flag : {"true", "false", "yes", "no", "0", "1"}) CHECK(linear("bias: " + std::string(flag)).empty());
  for (const char* none : {"7", "-1", "0.5", "maybe", "[1]"}) {
    CHECK(has(linear("bias: " + std::string(none)), "t.yaml:3:"));
    CHECK(has(linear("bias: " + std::string(none)), "linear.bias must be true or false, not"));
  }
  CHECK(has(linear("units: 99999999999999"), "of at least 0 and at most 999999999999, not 99999999999999"));
  CHECK(has(linear("gain: true"), "linear.gain must be a number"));
  CHECK(has(linear("units: -9"), "edge image->label: linear: units must"));  // the operator is named once
  CHECK(has(message(config_with("graph: {vgg5: {blocks: 5}}")),
            "t.yaml:3:9: graph.vgg5: blocks is how many layers lie between value nodes, at most the 4"));
  CHECK(has(message(config_with("graph: {vgg5: {width: 0.5}}")), "t.yaml:3:9: graph.vgg5: width must be a whole"));
  const auto gathered = [](const std::string& from, const std::string& settings) {
    return message(config_with(kNodes + "[{from: " + from + ", to: label, op: {gather: {" + settings + "}}}]}"));
  };
  CHECK(gathered("image", "places: [3, 0]").empty());
  CHECK(gathered("image", "axis: 0, places: [3, 3]").empty());
  CHECK(has(gathered("image", "places: [3, 4]"), "place 4 is none of [4], which has 0 to 3 there"));
  CHECK(has(gathered("image", "places: [3, 4]"), "t.yaml:3:"));
  CHECK(has(gathered("image", "places: 3"), "places"));
  CHECK(has(gathered("image", "places: [a, b]"), "places"));
  CHECK(has(gathered("image", "place: [3, 0]"), "did you mean \"places\"?"));
  CHECK(has(gathered("image", "places: []"), "which entries?"));
  CHECK(has(gathered("[image, image, image]", "places: [3, 0]"), "takes 1 to 2 source(s), not 3"));
  CHECK(has(message(config_with(kMlp, "task: {classify: {on: 1, off: 1}}\n")), "are the same"));
  CHECK(has(message(config_with(kMlp, "threads: 100000\n")), "must be in [0, 1024]"));
}

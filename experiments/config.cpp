#include "experiments/config.h"

#include <omp.h>

#include <algorithm>
#include <set>

#include "experiments/fields.h"
#include "experiments/graph_config.h"
#include "experiments/names.h"
#include "graphs/transform.h"
#include "pc/message.h"

namespace pc::experiments {
namespace {

using Names = std::vector<std::string>;

DType read_dtype(Fields& fields) {
  static constexpr std::pair<std::string_view, DType> kNames[] = {{"float32", DType::f32}, {"float64", DType::f64}};
  DType dtype = DType::f32;
  fields.read_enum("dtype", dtype, kNames);
  return dtype;
}

/// The operands of matrix products; values, errors and sums are of `dtype` whatever they are.
DType read_gemm(Fields& fields, DType dtype) {
  DType gemm = DType::f32;
  fields.read_enum("gemm", gemm, kGemms);
  if (gemm != DType::f32 && dtype != DType::f32) {
    fail_at(fields.required_child("gemm").place(), "gemm is for float32: with dtype: float64 leave it out");
  }
  return gemm;
}

DataConfig read_data(const ConfigTree& node, std::uint64_t seed) {
  DataConfig data;
  Fields fields(node, "data");
  data.request.seed = seed;
  fields.require("set", data.request.set)
      .read("root", data.request.root)
      .read_at_least("batch", data.batch, 1)
      .read_at_least("limit", data.limit, 0)
      .read_at_least("repeat", data.repeat, 1)
      .read_positive("train", data.request.train)
      .read_positive("test", data.request.test)
      .read("train_images", data.request.train_images)
      .read("train_labels", data.request.train_labels)
      .read("test_images", data.request.test_images)
      .read("test_labels", data.request.test_labels)
      .read("file", data.request.file);
  if (const ConfigTree* part = fields.child("validation")) {
    double amount = 0;
    read_value(*part, fields.name_of("validation"), amount);
    if (amount < 0)
      fail_at(part->place(), "data.validation is a part of the training set, as 0.1, or a number of examples");
    data.validation_place = part->place();
    data.validation_part = amount < 1 ? amount : 0;
    if (amount >= 1) read_value(*part, fields.name_of("validation"), data.validation);
  }
  static constexpr std::pair<std::string_view, Normalize> kNormalize[] = {{"none", Normalize::none},
                                                                          {"unit", Normalize::unit},
                                                                          {"centered", Normalize::centered},
                                                                          {"standard", Normalize::standard}};
  fields.read_enum("normalize", data.normalize, kNormalize);
  if (const ConfigTree* child = fields.child("augment")) {
    Fields augment(*child, "data.augment");
    augment.read_at_least("crop", data.crop, 0).read("flip", data.flip).done();
  }
  fields.done();
  try {
    static_cast<void>(find_data_source(data.request.set));
  } catch (const Error& e) {
    fail_at(fields.required_child("set").place(), bare(e.what()));
  }
  return data;
}

WeightInit read_init(const ConfigTree& node) {
  static const Names kKinds = {"fan_in", "xavier", "he", "normal", "zeros"};
  const Choice choice = read_choice(node, "init", kKinds);
  WeightInit init;
  for (std::size_t i = 0; i < kKinds.size(); ++i) {
    if (kKinds[i] == choice.name) init.kind = static_cast<WeightInit::Kind>(i);
  }
  if (init.kind == WeightInit::Kind::normal) init.scale = 0.05;
  Fields fields(choice, "init." + choice.name);
  fields.read_positive("scale", init.scale);
  fields.done();
  return init;
}

Optimizer read_optimizer(const ConfigTree& node, Rate& rate) {
  const Choice choice = read_choice(node, "learn.optimizer", Names{"sgd", "adam", "adamw"});
  Fields fields(choice, "learn.optimizer." + choice.name);
  fields.read_at_least("rate", rate.base, 0);
  if (choice.name == "sgd") {
    WeightSgd sgd;
    fields.read_in("momentum", sgd.momentum, 0, 0.999999).read_at_least("weight_decay", sgd.weight_decay, 0).done();
    return sgd;
  }
  WeightAdam adam;
  adam.decoupled = choice.name == "adamw";
  fields.read_in("beta1", adam.beta1, 0, 0.999999)
      .read_in("beta2", adam.beta2, 0, 0.999999)
      .read_positive("epsilon", adam.epsilon)
      .read_at_least("weight_decay", adam.weight_decay, 0)
      .done();
  return adam;
}

LearnConfig read_learn(const ConfigTree& node) {
  LearnConfig config;
  Fields fields(node, "learn");
  fields.read_at_least("epochs", config.epochs, 0).read_at_least("clip_norm", config.clip_norm, 0);
  if (const ConfigTree* optimizer = fields.child("optimizer")) {
    config.optimizer = read_optimizer(*optimizer, config.rate);
  }
  if (const ConfigTree* node_rate = fields.child("rate")) {
    const Choice choice = read_choice(*node_rate, "learn.rate", Names{"constant", "cosine", "warmup_cosine"});
    Fields rate(choice, "learn.rate." + choice.name);
    if (choice.name == "cosine") config.rate.kind = kernels::RateKind::cosine;
    if (choice.name == "warmup_cosine") config.rate.kind = kernels::RateKind::warmup_cosine;
    if (choice.name != "constant") rate.read_at_least("floor", config.rate.floor, 0);
    if (choice.name == "warmup_cosine") rate.read_in("warmup", config.warmup, 0, 1);
    rate.done();
  }
  static constexpr std::pair<std::string_view, bool> kSelect[] = {{"best", true}, {"last", false}};
  fields.read_enum("select", config.select_best, kSelect);
  fields.done();
  return config;
}

ClassifyConfig read_classify(const Choice& choice) {
  ClassifyConfig config;
  Fields fields(choice, "task.classify");
  fields.read("input", config.input).read("target", config.target).read("on", config.on).read("off", config.off);
  fields.read_in("smoothing", config.smoothing, 0, 0.999);  // at 1 all classes would be alike
  if (config.on == config.off)
    fail_at(fields.place(), "task.classify.on and off are the same, so the target tells nothing");
  fields.done();
  return config;
}

/// Sets the nodes where classify has its own.
NextTokenConfig read_next_token(const Choice& choice, ClassifyConfig& nodes) {
  NextTokenConfig config;
  nodes = {.input = "tokens", .target = "next"};
  Fields fields(choice, "task.next_token");
  fields.read("input", nodes.input)
      .read("target", nodes.target)
      .read_at_least("sample", config.sample, 0)
      .read_at_least("temperature", config.temperature, 0)
      .done();
  return config;
}

ExamplesConfig read_reconstruct(const Choice& choice) {
  ExamplesConfig config;
  Fields fields(choice, "task.reconstruct");
  fields.read("node", config.input).read("copy", config.target).done();
  return config;
}

ExamplesConfig read_sequence(const Choice& choice) {
  ExamplesConfig config{.input = "previous", .target = "next", .next = true};
  Fields fields(choice, "task.sequence");
  fields.read("from", config.input).read("to", config.target).done();
  return config;
}

CheckTask read_check_task(const Choice& choice) {
  CheckTask task;
  Fields fields(choice, "task.check");
  fields.require("clamp", task.clamp);
  if (task.clamp.empty()) fail_at(fields.place(), "task.check.clamp names no node; nothing would be computed");
  fields.done();
  return task;
}

void read_task(const ConfigTree& node, Config& config) {
  const Choice choice = read_choice(node, "task", Names{"classify", "reconstruct", "sequence", "next_token", "check"});
  if (choice.name == "classify") config.classify = read_classify(choice);
  if (choice.name == "reconstruct") config.examples = read_reconstruct(choice);
  if (choice.name == "sequence") config.examples = read_sequence(choice);
  if (choice.name == "next_token") config.next_token = read_next_token(choice, config.classify);
  if (choice.name == "check") config.check_task = read_check_task(choice);
}

LawConfig read_laws(const ConfigTree& node) {
  LawConfig laws{.ep_beta = {},
                 .pc_output_precision = {},
                 .zil_gamma = {},
                 .fixed_prediction_eta = {},
                 .fixed_prediction_steps = {}};
  Fields fields(node, "check.laws");
  if (const ConfigTree* body = fields.child("ep")) {
    Fields ep(*body, "check.laws.ep");
    ep.require("beta", laws.ep_beta).read_positive("beta", laws.ep_beta);
    if (const ConfigTree* side = ep.child("side")) laws.ep_side = read_side(*side, ep.name_of("side"));
    ep.done();
  }
  if (const ConfigTree* body = fields.child("pc")) {
    Fields pc(*body, "check.laws.pc");
    pc.require("output_precision", laws.pc_output_precision)
        .read_positive("output_precision", laws.pc_output_precision)
        .done();
  }
  if (const ConfigTree* body = fields.child("zil")) {
    Fields zil(*body, "check.laws.zil");
    zil.require("gamma", laws.zil_gamma).read_positive("gamma", laws.zil_gamma).done();
  }
  if (const ConfigTree* body = fields.child("fixed_prediction")) {
    Fields fixed(*body, "check.laws.fixed_prediction");
    fixed.require("eta", laws.fixed_prediction_eta)
        .read_in("eta", laws.fixed_prediction_eta, 1e-12, 1)
        .require("steps", laws.fixed_prediction_steps)
        .read_at_least("steps", laws.fixed_prediction_steps, 1)
        .done();
  }
  fields.done();
  return laws;
}

CheckConfig read_check(const ConfigTree& node) {
  CheckConfig check;
  Fields fields(node, "check");
  fields.read_at_least("batch", check.batch, 1).read("seed", check.seed);
  if (const ConfigTree* body = fields.child("tolerance")) {
    Fields tolerance(*body, "check.tolerance");
    tolerance.read_at_least("float64", check.tolerance_f64, 0).read_at_least("float32", check.tolerance_f32, 0).done();
  }
  if (const ConfigTree* laws = fields.child("laws")) check.laws = read_laws(*laws);
  fields.done();
  return check;
}

const NodeSpec& node_named(const graphs::Description& graph, const std::string& name, const Place& place) {
  Names known;
  for (const NodeSpec& node : graph.nodes) {
    if (node.name == name) return node;
    known.push_back(node.name);
  }
  fail_at(place, "task.check.clamp: there is no node \"", name, "\"", did_you_mean(name, known));
}

/// The names can be looked up only when the graph is there.
void check_clamped_nodes(const Config& config) {
  if (!config.check_task) return;
  const ConfigTree& list = *config.tree.find("task")->find("check")->find("clamp");
  for (std::size_t i = 0; i < config.check_task->clamp.size(); ++i) {
    static_cast<void>(node_named(config.graph, config.check_task->clamp[i], list.items()[i].place()));
  }
}

bool predicted(const graphs::Description& graph, const std::string& name) {
  const auto is_it = [&](const NodeSpec& node) { return node.name == name && node.prior; };
  const auto leads_to_it = [&](const EdgeSpec& edge) { return edge.to == name; };
  return std::any_of(graph.nodes.begin(), graph.nodes.end(), is_it) ||
         std::any_of(graph.edges.begin(), graph.edges.end(), leads_to_it);
}

/// Whether an edge reads the node by numbers of entries or of places, to which nothing flows back.
bool reads_numbers(const EdgeSpec& edge, const std::string& name) {
  const auto embeds = [](const OpSpec& link) { return link.op->name == "embedding"; };
  const bool looks_up =
      edge.from.size() == 2 && edge.from[0] != name && !edge.chain.empty() && edge.chain[0].op->name == "gather";
  return looks_up || std::any_of(edge.chain.begin(), edge.chain.end(), embeds);
}

/// A node that the task leaves free has to do with others, and what predicts it can learn something. Of nodes that
/// are named but not there others tell.
void check_free_nodes(const Config& config, const Place& graph) {
  const Names clamped = task_names(config);
  const auto& [nodes, edges] = config.graph;
  const auto known = [&nodes = nodes](const std::string& name) {
    return std::any_of(nodes.begin(), nodes.end(), [&](const NodeSpec& node) { return node.name == name; });
  };
  if (!std::all_of(clamped.begin(), clamped.end(), known)) return;
  for (const EdgeSpec& edge : edges) {
    if (!known(edge.to) || !std::all_of(edge.from.begin(), edge.from.end(), known)) return;
  }
  const auto learns = [](const OpSpec& link) { return link.op->params != nullptr; };
  for (const NodeSpec& node : nodes) {
    if (std::find(clamped.begin(), clamped.end(), node.name) != clamped.end()) continue;
    const Place place = node.place.empty() ? graph : Place{node.place};
    bool fixed = !node.prior && predicted(config.graph, node.name), moves = false;
    const EdgeSpec* reader = nullptr;
    for (const EdgeSpec& edge : edges) {
      if (edge.to == node.name) fixed = fixed && std::none_of(edge.chain.begin(), edge.chain.end(), learns);
      if (std::find(edge.from.begin(), edge.from.end(), node.name) == edge.from.end()) continue;
      reader = &edge;
      moves = moves || !reads_numbers(edge, node.name);
    }
    if (reader == nullptr && !predicted(config.graph, node.name)) {
      fail_at(place, "node ", node.name,
              " has no edges: it predicts nothing, and nothing predicts it; add an edge, or ", "take it out");
    }
    if (reader == nullptr || moves || fixed) continue;
    fail_at(place, "node ", node.name, " is read by numbers of entries alone (embedding, or the places of gather), to ",
            "which nothing flows back: it could not learn; let the task clamp it, or predict it by operators without ",
            "parameters, as slice");
  }
}

/// mupc's gains stand for the scale of the weights, which must then be 1.
void check_mupc_init(const ConfigTree* node, WeightInit& init) {
  constexpr WeightInit kUnit{WeightInit::Kind::normal, 1.0};
  if (node == nullptr) init = kUnit;
  if (init.kind == kUnit.kind && init.scale == kUnit.scale) return;
  fail_at(node->place(), "with parameterization: mupc weights start normal with deviation 1; write init: ",
          "{normal: {scale: 1.0}}, or leave init out");
}

/// Whether what some nodes hold finds a way to another, along edges.
bool reached(const graphs::Description& graph, const Names& from, const std::string& to) {
  std::set<std::string> seen(from.begin(), from.end());
  for (std::size_t before = 0; before != seen.size();) {
    before = seen.size();
    for (const EdgeSpec& edge : graph.edges) {
      const auto is_seen = [&](const std::string& name) { return seen.contains(name); };
      if (std::any_of(edge.from.begin(), edge.from.end(), is_seen)) seen.insert(edge.to);
    }
  }
  return seen.contains(to);
}

/// Unrolling adds nodes, of which those without predictions are the zeros that the sweeps begin with.
void unroll_graph(Config& config, int sweeps, const Place& place) {
  const graphs::Description rolled = std::move(config.graph);
  config.graph = graphs::unroll(rolled, sweeps, input_names(config, rolled));
  for (const NodeSpec& node : config.graph.nodes) {
    const auto same = [&](const NodeSpec& old) { return old.name == node.name; };
    if (std::any_of(rolled.nodes.begin(), rolled.nodes.end(), same) || predicted(config.graph, node.name)) continue;
    config.zeros.push_back(node.name);
  }
  if (config.check_task) return;
  const Names inputs = input_names(config, rolled);
  for (const std::string& name : task_names(config)) {
    if (!reached(rolled, inputs, name) || reached(config.graph, inputs, name)) continue;
    fail_at(place, "graph.unroll: in ", sweeps, " sweeps nothing comes from ", joined(inputs), " to ", name,
            "; make as many as there are edges on the way");
  }
}

/// Lays over the graph what the config asks for beside nodes and edges.
void transform_graph(Config& config, Fields& fields, const ConfigTree& graph) {
  if (const ConfigTree* unroll = graph.find("unroll")) {
    int sweeps = 0;
    read_value(*unroll, "graph.unroll", sweeps);
    if (sweeps < 1) fail_at(unroll->place(), "graph.unroll is a number of sweeps, at least 1, not ", sweeps);
    unroll_graph(config, sweeps, unroll->place());
  }
  bool mupc = false;
  static constexpr std::pair<std::string_view, bool> kKinds[] = {{"standard", false}, {"mupc", true}};
  fields.read_enum("parameterization", mupc, kKinds);
  if (mupc) {
    check_mupc_init(fields.child("init"), config.init);
    config.graph = graphs::mupc(config.graph);
  }
  config.unpadded = config.graph;
  const bool zil = config.relax.schedule->name == "zil" || config.relax.schedule->name == "fa_zil";
  if (zil && config.relax.settings.paths == ScheduleSettings::Paths::pad) {
    try {
      config.graph = graphs::pad_paths(config.graph, clamped_names(config));
    } catch (const Error& e) {
      fail_at(config.relax.place, bare(e.what()));
    }
  }
}

void check_name(const ConfigTree& node, const std::string& name) {
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos) {
    fail_at(node.place(), "name is the name of the run's folder: it cannot be \"", name, "\"");
  }
}

}  // namespace

Config read_config(const std::filesystem::path& file, const std::vector<std::string>& overrides) {
  ConfigTree tree = load_config(file);
  for (const std::string& assignment : overrides) set_override(tree, assignment);
  return read_config(std::move(tree));
}

Config read_config(ConfigTree tree) {
  Config config;
  config.tree = std::move(tree);
  Fields fields(config.tree, "");
  fields.require("name", config.name);
  check_name(fields.required_child("name"), config.name);
  fields.read("seed", config.seed).read("device", config.device).read_in("threads", config.threads, 0, 1024);
  config.dtype = read_dtype(fields);
  config.gemm = read_gemm(fields, config.dtype);
  if (const ConfigTree* task = fields.child("task")) read_task(*task, config);
  const ConfigTree* data =
      config.check_task ? fields.child("data")
                        : &fields.required_child(
                              "data",
                              "add it here. Without data a network cannot be trained, but pc graph, check and bench "
                              "take one with task: {check: {clamp: [INPUT, TARGET]}}, which names its nodes");
  if (data != nullptr) config.data = read_data(*data, config.seed);
  const bool text = data != nullptr && config.data.request.set == "text";
  if (text != config.next_token.has_value()) {
    const Place place = text ? data->place() : fields.required_child("task").place();
    fail_at(place, "data.set: text and task: next_token go together; write both, or neither");
  }
  if (text && (config.data.crop > 0 || config.data.flip)) {
    fail_at(data->place(), "data.augment is for images, and a text has none; take it out (augment: ~)");
  }
  const ConfigTree& graph = fields.required_child("graph");
  config.graph = read_graph(graph, config.seed, config.data.request);
  check_clamped_nodes(config);
  if (const ConfigTree* init = fields.child("init")) config.init = read_init(*init);
  config.relax.schedule = &find_schedule("pc");
  config.relax.place = config.tree.place();
  if (const ConfigTree* relax = fields.child("relax")) config.relax = read_relax(*relax);
  check_free_nodes(config, graph.place());
  transform_graph(config, fields, graph);
  if (const ConfigTree* check = fields.child("check")) config.check = read_check(*check);
  if (const ConfigTree* learn = fields.child("learn")) config.learn = read_learn(*learn);
  if (const ConfigTree* node = fields.child("evaluate")) {
    Fields evaluate(*node, "evaluate");
    evaluate.read("steps", config.evaluate_steps).read_at_least("steps", config.evaluate_steps, 1).done();
  }
  if (const ConfigTree* node = fields.child("save")) {
    Fields save(*node, "save");
    save.read_at_least("every_batches", config.save.every_batches, 0).read("trace", config.save.trace).done();
  }
  if (const ConfigTree* node = fields.child("plan")) {
    Fields plan(*node, "plan");
    static constexpr std::pair<std::string_view, Regime> kRegimes[] = {{"auto", Regime::automatic},
                                                                       {"library", Regime::library},
                                                                       {"sliced", Regime::sliced},
                                                                       {"tiled", Regime::tiled},
                                                                       {"warps", Regime::warps}};
    static constexpr std::pair<std::string_view, Form> kForms[] = {
        {"auto", Form::automatic}, {"values", Form::values}, {"changes", Form::changes}};
    plan.read("optimize", config.optimize)
        .read_enum("regime", config.regime, kRegimes)
        .read_enum("form", config.form, kForms)
        .done();
  }
  fields.done();
  return config;
}

std::string_view name_of_gemm(DType operands) {
  for (const auto& [name, type] : kGemms) {
    if (type == operands) return name;
  }
  return "fp64";
}

bool lowers_energy(const Schedule& schedule) { return !schedule.exact && schedule.engine != Engine::reverse; }

void choose_plan(const Config& config, PlanSpec& spec) {
  spec.optimize = config.optimize;
  spec.regime = config.regime;
  spec.form = config.form;
  spec.operands = config.gemm;
}

RelaxSpec relax_of_answers(const Config& config) {
  RelaxSpec relax = config.relax.relax;
  relax.sweep = Sweep::synchronous;
  relax.precision = {};
  relax.forward_update = false;
  if (relax.init.kind == ValueInit::Kind::previous) relax.init.kind = ValueInit::Kind::feedforward;
  if (config.evaluate_steps) relax.steps = *config.evaluate_steps;
  return relax;
}

void check_relax(const Config& config, const PlanSpec& spec, const Graph& graph) {
  try {
    check_schedule(*spec.schedule, spec.settings, spec.relax, graph, spec.clamps);
  } catch (const Error& e) {
    fail_at(config.relax.place, bare(e.what()));
  }
}

std::vector<std::string> task_names(const Config& config) {
  if (config.check_task) return config.check_task->clamp;
  if (!config.examples) return {config.classify.input, config.classify.target};
  Names names = {config.examples->input};
  if (!config.examples->target.empty()) names.push_back(config.examples->target);
  return names;
}

std::vector<std::string> clamped_names(const Config& config) {
  Names names = task_names(config);
  names.insert(names.end(), config.zeros.begin(), config.zeros.end());
  return names;
}

std::vector<std::string> input_names(const Config& config, const graphs::Description& graph) {
  if (config.examples) return {config.examples->input};
  if (!config.check_task) return {config.classify.input};
  Names inputs = config.check_task->clamp;
  std::erase_if(inputs, [&](const std::string& name) { return predicted(graph, name); });
  return inputs;
}

std::int64_t sequence_length(const Config& config) {
  if (!config.next_token) return 1;
  for (const NodeSpec& node : config.graph.nodes) {
    if (node.name == config.classify.input) return node.shape.count();
  }
  fail_at(config.tree.find("task")->place(), "task.next_token.input is \"", config.classify.input,
          "\", but the graph has no such node");
}

int thread_count(const Config& config) {
  // More threads than processors would only wait for each other.
  return std::min(config.threads > 0 ? config.threads : omp_get_max_threads(), omp_get_num_procs());
}

void require_data_task(const Config& config, const char* who) {
  PC_CHECK(!config.check_task, who, config.tree.find("task")->place().text(), ": task: check has no data to learn ",
           "from and is for pc check alone; write task: {classify: {input: NODE, target: NODE}} and data");
}

}  // namespace pc::experiments

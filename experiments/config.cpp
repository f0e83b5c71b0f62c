#include "experiments/config.h"

#include "experiments/fields.h"
#include "experiments/graph_config.h"
#include "experiments/names.h"

namespace pc::experiments {
namespace {

using Names = std::vector<std::string>;

DType read_dtype(Fields& fields) {
  static constexpr std::pair<std::string_view, DType> kNames[] = {{"float32", DType::f32}, {"float64", DType::f64}};
  DType dtype = DType::f32;
  fields.read_enum("dtype", dtype, kNames);
  return dtype;
}

DataConfig read_data(const ConfigTree& node, std::uint64_t seed) {
  DataConfig data;
  Fields fields(node, "data");
  data.request.seed = seed;
  fields.require("set", data.request.set)
      .read("root", data.request.root)
      .read_at_least("batch", data.batch, 1)
      .read_at_least("limit", data.limit, 0)
      .read_positive("train", data.request.train)
      .read_positive("test", data.request.test)
      .read("train_images", data.request.train_images)
      .read("train_labels", data.request.train_labels)
      .read("test_images", data.request.test_images)
      .read("test_labels", data.request.test_labels);
  if (const ConfigTree* part = fields.child("validation")) {
    double amount = 0;
    read_value(*part, fields.name_of("validation"), amount);
    if (amount < 0)
      fail_at(part->place(), "data.validation is a part of the training set, as 0.1, or a number of examples");
    data.validation_part = amount < 1 ? amount : 0;
    if (amount >= 1) read_value(*part, fields.name_of("validation"), data.validation);
  }
  static constexpr std::pair<std::string_view, Normalize> kNormalize[] = {{"none", Normalize::none},
                                                                          {"unit", Normalize::unit},
                                                                          {"centered", Normalize::centered},
                                                                          {"standard", Normalize::standard}};
  fields.read_enum("normalize", data.normalize, kNormalize);
  fields.done();
  try {
    static_cast<void>(find_data_source(data.request.set));
  } catch (const Error& e) {
    fail_at(fields.required_child("set").place(), e.what());
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

Stepper read_stepper(const ConfigTree& node) {
  const Choice choice = read_choice(node, "relax.optimizer", Names{"sgd", "adam"});
  Fields fields(choice, "relax.optimizer." + choice.name);
  if (choice.name == "sgd") {
    ValueSgd sgd;
    fields.read_positive("rate", sgd.rate).read_in("momentum", sgd.momentum, 0, 0.999999).done();
    return sgd;
  }
  ValueAdam adam;
  fields.read_positive("rate", adam.rate)
      .read_in("beta1", adam.beta1, 0, 0.999999)
      .read_in("beta2", adam.beta2, 0, 0.999999)
      .read_positive("epsilon", adam.epsilon)
      .done();
  return adam;
}

ValueInit read_value_init(const ConfigTree& node) {
  static const Names kKinds = {"feedforward", "zeros", "normal", "previous"};
  const Choice choice = read_choice(node, "relax.init", kKinds);
  ValueInit init;
  for (std::size_t i = 0; i < kKinds.size(); ++i) {
    if (kKinds[i] == choice.name) init.kind = static_cast<ValueInit::Kind>(i);
  }
  Fields fields(choice, "relax.init." + choice.name);
  if (init.kind == ValueInit::Kind::feedforward) fields.read_at_least("sweeps", init.sweeps, 0);
  if (init.kind == ValueInit::Kind::normal) fields.read_at_least("sigma", init.sigma, 0);
  fields.done();
  return init;
}

StopRule read_stop(const ConfigTree& node) {
  const Choice choice = read_choice(node, "relax.stop", Names{"steps", "plateau", "gradient"});
  Fields fields(choice, "relax.stop." + choice.name);
  StopRule rule = FixedSteps{};
  if (choice.name == "plateau") {
    EnergyPlateau plateau;
    fields.read_at_least("relative", plateau.relative, 0);
    rule = plateau;
  } else if (choice.name == "gradient") {
    GradientNorm norm;
    fields.read_at_least("tolerance", norm.tolerance, 0);
    rule = norm;
  }
  fields.done();
  return rule;
}

RelaxConfig read_relax(const ConfigTree& node) {
  RelaxConfig config;
  Fields fields(node, "relax");
  config.schedule = &find_schedule("pc");
  if (const ConfigTree* name = fields.child("schedule")) {
    Names known;
    for (const Schedule& schedule : all_schedules()) known.emplace_back(schedule.name);
    config.schedule = &find_schedule(read_choice(*name, "relax.schedule", known).name);
  }
  fields.read_at_least("steps", config.relax.steps, 1).read_positive("growth", config.growth);
  if (const ConfigTree* stepper = fields.child("optimizer")) config.relax.stepper = read_stepper(*stepper);
  if (const ConfigTree* init = fields.child("init")) config.relax.init = read_value_init(*init);
  if (const ConfigTree* stop = fields.child("stop")) config.relax.stop = read_stop(*stop);
  fields.done();
  return config;
}

Optimizer read_optimizer(const ConfigTree& node, Rate& rate) {
  const Choice choice = read_choice(node, "learn.optimizer", Names{"sgd", "adam", "adamw"});
  Fields fields(choice, "learn.optimizer." + choice.name);
  fields.read_at_least("rate", rate.base, 0);
  if (choice.name == "sgd") {
    WeightSgd sgd;
    fields.read_in("momentum", sgd.momentum, 0, 1).read_at_least("weight_decay", sgd.weight_decay, 0).done();
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

ClassifyConfig read_task(const ConfigTree& node) {
  const Choice choice = read_choice(node, "task", Names{"classify"});
  ClassifyConfig config;
  Fields fields(choice, "task.classify");
  fields.read("input", config.input).read("target", config.target).read("on", config.on).read("off", config.off);
  if (config.on == config.off)
    fail_at(fields.place(), "task.classify.on and off are the same, so the target tells nothing");
  fields.done();
  return config;
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
  config.data = read_data(fields.required_child("data"), config.seed);
  config.graph = read_graph(fields.required_child("graph"), config.seed);
  if (const ConfigTree* init = fields.child("init")) config.init = read_init(*init);
  if (const ConfigTree* task = fields.child("task")) config.classify = read_task(*task);
  config.relax.schedule = &find_schedule("pc");
  if (const ConfigTree* relax = fields.child("relax")) config.relax = read_relax(*relax);
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
    plan.read("optimize", config.optimize).done();
  }
  fields.done();
  return config;
}

}  // namespace pc::experiments

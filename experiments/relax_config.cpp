#include "experiments/relax_config.h"

#include "experiments/fields.h"

namespace pc::experiments {
namespace {

using Names = std::vector<std::string>;

/// The targets of pc and ipc are softened only where `nudge` says so; what belongs to it has no meaning alone.
void read_target_nudge(Fields& fields, ScheduleSettings& settings) {
  Nudge nudge{.beta = 0.2};
  const ConfigTree* side = fields.child("nudge");
  fields.read_in("beta", nudge.beta, 1e-12, 1).read_at_least("growth", nudge.growth, 0);
  for (const char* key : {"beta", "growth"}) {
    const ConfigTree* alone = fields.child(key);
    if (alone == nullptr || side != nullptr) continue;
    fail_at(alone->place(), fields.name_of(key), " says how far targets are nudged; add nudge: centered");
  }
  if (side == nullptr) return;
  nudge.side = read_side(*side, fields.name_of("nudge"));
  settings.nudge = nudge;
}

void read_schedule_settings(Fields& fields, const std::string& schedule, ScheduleSettings& settings) {
  if (schedule == "zil" || schedule == "fa_zil") {
    using Paths = ScheduleSettings::Paths;
    static constexpr std::pair<std::string_view, Paths> kPaths[] = {{"latch", Paths::latch}, {"pad", Paths::pad}};
    fields.read_enum("paths", settings.paths, kPaths);
    fields.read_positive("gamma", settings.gamma);
  } else if (schedule == "fixed_prediction") {
    fields.read_positive("eta", settings.eta).read_at_least("steps", settings.steps, 0);
  } else if (schedule == "ep") {
    Nudge nudge;
    fields.read_positive("beta", nudge.beta);
    if (const ConfigTree* side = fields.child("side")) nudge.side = read_side(*side, fields.name_of("side"));
    settings.nudge = nudge;
  } else if (schedule == "pc" || schedule == "ipc") {
    read_target_nudge(fields, settings);
  }
}

void read_schedule(const ConfigTree& node, RelaxConfig& config) {
  Names known;
  for (const Schedule& schedule : all_schedules()) known.emplace_back(schedule.name);
  const Choice choice = read_choice(node, "relax.schedule", known);
  config.schedule = &find_schedule(choice.name);
  config.place = choice.place;
  Fields fields(choice, "relax.schedule." + choice.name);
  read_schedule_settings(fields, choice.name, config.settings);
  fields.done();
}

Stepper read_sgd(Fields& fields) {
  ValueSgd sgd;
  fields.read_in("momentum", sgd.momentum, 0, 0.999999).read_at_least("temperature", sgd.temperature, 0);
  const ConfigTree* rate = fields.child("rate");
  const ConfigTree* safety = fields.child("safety");
  sgd.automatic = rate != nullptr && rate->is_scalar() && rate->scalar() == "auto";
  if (sgd.automatic) {
    sgd.rate = 1;
    fields.read_positive("safety", sgd.rate);
  } else if (safety != nullptr) {
    fail_at(safety->place(), fields.name_of("safety"), " multiplies the rate that is found with rate: auto; ",
            rate == nullptr ? "add that, or write the rate itself"
                            : "with a rate that is written, take it out (safety: ~)");
  } else {
    fields.read_positive("rate", sgd.rate);
  }
  return sgd;
}

Stepper read_flow(Fields& fields, const std::string& method) {
  using Method = ValueFlow::Method;
  ValueFlow flow;
  flow.method = method == "euler"  ? Method::euler
                : method == "heun" ? Method::heun
                : method == "rk4"  ? Method::rk4
                                   : Method::adaptive;
  fields.read_positive("rate", flow.rate);
  if (flow.method == Method::adaptive) {
    fields.read_positive("absolute", flow.absolute)
        .read_at_least("relative", flow.relative, 0)
        .read_positive("most", flow.most);
  }
  return flow;
}

Stepper read_adam(Fields& fields) {
  ValueAdam adam;
  fields.read_positive("rate", adam.rate)
      .read_in("beta1", adam.beta1, 0, 0.999999)
      .read_in("beta2", adam.beta2, 0, 0.999999)
      .read_positive("epsilon", adam.epsilon);
  return adam;
}

Stepper read_stepper(const ConfigTree& node) {
  const Choice choice = read_choice(node, "relax.optimizer", Names{"sgd", "adam", "euler", "heun", "rk4", "adaptive"});
  Fields fields(choice, "relax.optimizer." + choice.name);
  Stepper stepper = choice.name == "sgd"    ? read_sgd(fields)
                    : choice.name == "adam" ? read_adam(fields)
                                            : read_flow(fields, choice.name);
  fields.done();
  return stepper;
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

PrecisionSchedule read_precision(const ConfigTree& node) {
  using Kind = PrecisionSchedule::Kind;
  const Choice choice = read_choice(node, "relax.precision", Names{"constant", "spiking", "decaying"});
  Fields fields(choice, "relax.precision." + choice.name);
  PrecisionSchedule precision;
  if (choice.name == "spiking") {
    precision.kind = Kind::spiking;
    fields.read_at_least("floor", precision.floor, 0);
  } else if (choice.name == "decaying") {
    precision.kind = Kind::decaying;
    fields.read_at_least("decay", precision.decay, 0);
  }
  fields.done();
  return precision;
}

}  // namespace

Nudge::Side read_side(const ConfigTree& node, const std::string& name) {
  using Side = Nudge::Side;
  static const Names kSides = {"positive", "negative", "centered"};
  static constexpr Side kMeanings[] = {Side::positive, Side::negative, Side::centered};
  return kMeanings[detail::find_name(node, name, kSides)];
}

RelaxConfig read_relax(const ConfigTree& node) {
  static constexpr std::pair<std::string_view, Sweep> kSweeps[] = {{"synchronous", Sweep::synchronous},
                                                                   {"even_odd", Sweep::even_odd}};
  RelaxConfig config;
  Fields fields(node, "relax");
  config.schedule = &find_schedule("pc");
  config.place = node.place();
  if (const ConfigTree* schedule = fields.child("schedule")) read_schedule(*schedule, config);
  fields.read_at_least("steps", config.relax.steps, 1).read_positive("growth", config.relax.growth);
  if (const ConfigTree* stepper = fields.child("optimizer")) config.relax.stepper = read_stepper(*stepper);
  if (const ConfigTree* init = fields.child("init")) config.relax.init = read_value_init(*init);
  if (const ConfigTree* stop = fields.child("stop")) config.relax.stop = read_stop(*stop);
  if (const ConfigTree* precision = fields.child("precision")) config.relax.precision = read_precision(*precision);
  fields.read_enum("sweep", config.relax.sweep, kSweeps).read("forward_update", config.relax.forward_update);
  fields.done();
  for (const RelaxPart& part : all_relax_parts()) {
    if ((config.schedule->heeds & part.bit) != 0 || !part.asked(config.relax)) continue;
    fail_at(fields.required_child(part.name).place(), "relax.", no_effect(*config.schedule, part));
  }
  return config;
}

}  // namespace pc::experiments

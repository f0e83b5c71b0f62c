#include "experiments/classify.h"

#include <algorithm>
#include <bit>
#include <cinttypes>
#include <cstdio>
#include <limits>

#include "pc/levels.h"
#include "pc/step_bound.h"

namespace pc::experiments {
namespace {

constexpr const char* kRight = "metric/right";
constexpr const char* kSteps = "metric/steps";
constexpr const char* kLookDraws = "look/draws";  // evaluation and traces draw numbers of their own

Shape data_shape(std::int64_t size) { return {size}; }

}  // namespace

Classifier::Classifier(const Config& config, const ExecContext& where)
    : config_(config),
      device_(where.name()),
      threads_(thread_count(config)),
      feed_(where.exec(), load_data(config.data.request), config.data, config.seed) {
  const std::int64_t largest =
      std::max({std::min(config.data.batch, feed_.train().count), std::min(config.data.batch, feed_.validation().count),
                std::min(config.data.batch, feed_.test().count)});
  network_ = std::make_unique<Network>(Graph(config.graph.nodes, config.graph.edges), where.exec(), config.dtype,
                                       largest, config.seed, config.init);
  const Graph& graph = network_->graph();
  const auto find = [&](const char* key, const std::string& name) {
    for (NodeId v = 0; v < graph.node_count(); ++v) {
      if (graph.node(v).name == name) return v;
    }
    fail("classify", "task.classify.", key, " is \"", name,
         "\", but the graph has no such node; write task: {classify: {", key, ": NODE}}");
  };
  input_ = find("input", config.classify.input);
  target_ = find("target", config.classify.target);
  const Node &input = graph.node(input_), &target = graph.node(target_);
  PC_CHECK(input.shape.count() == feed_.size(), "classify", "node ", input.name, " has shape ", input.shape.text(),
           ", but examples of ", config.data.request.set, " have ", data_shape(feed_.size()).text(), " values");
  PC_CHECK(target.shape.count() == feed_.classes(), "classify", "node ", target.name, " has shape ",
           target.shape.text(), ", but ", config.data.request.set, " has ", feed_.classes(), " classes");
  PC_CHECK(input_ != target_, "classify", "input and target are the same node");
  PC_CHECK(!target.predictions.empty() || !target.out.empty(), "classify", "no edge touches the target node ",
           target.name, "; nothing can be learned about it");
  for (const Prediction& p : graph.predictions()) {
    PC_CHECK(p.spec.energy->zero_at_prediction || p.node == input_ || p.node == target_, "classify", "node ",
             graph.node(p.node).name, " has energy ", p.spec.energy->name,
             ", which says something only about a node that is clamped; use gaussian for hidden nodes");
  }
  scores_training_ = !target.predictions.empty() && topological_order(graph).has_value() &&
                     config.relax.relax.init.kind == ValueInit::Kind::feedforward;
  // An exact schedule lowers nothing: its errors are what backprop's happen to be.
  const Schedule& schedule = *config.relax.schedule;
  growth_ = !schedule.exact ? config.relax.growth : std::numeric_limits<double>::infinity();
  find_step_bound();  // or say now that there is none
  train_ = make_trainer();
}

std::int64_t Classifier::batches() const {
  return (feed_.train().count + network_->max_batch() - 1) / network_->max_batch();
}

std::int64_t Classifier::batch_size(std::int64_t batch) const {
  const std::int64_t full = std::min(config_.data.batch, feed_.train().count);
  return std::min(full, feed_.train().count - batch * full);
}

PlanSpec Classifier::base_spec() const {
  PlanSpec spec;
  spec.schedule = config_.relax.schedule;
  spec.settings = config_.relax.settings;
  spec.settings.batches = double(batches());
  spec.relax = config_.relax.relax;
  spec.clamps = {{input_}};
  for (const std::string& name : config_.zeros) spec.clamps.push_back({network_->graph().find(name)});
  spec.optimize = config_.optimize;
  spec.regime = config_.regime;
  spec.observed = {target_};
  return spec;
}

void Classifier::record_score(const Exec& exec, const Part& part, const View& answer) {
  const View right = network_->row_buffer("right", answer.rows());
  feed_.record_right(exec, part, answer, right);
  kernels::sum(exec, {.in = right, .out = network_->scalar(kRight), .write = Write::add});
}

std::unique_ptr<Trainer> Classifier::make_trainer() {
  PlanSpec spec = base_spec();
  spec.clamps.push_back({target_});
  spec.learn = LearnSpec{config_.learn.optimizer, config_.learn.rate, config_.learn.clip_norm};
  Rate& rate = spec.learn->rate;
  const int updates_a_batch = config_.relax.schedule->learn == Learn::every_step ? config_.relax.relax.steps : 1;
  rate.total = double(config_.learn.epochs) * double(batches()) * updates_a_batch;
  rate.warmup = config_.learn.warmup * rate.total;
  const PredictionId prediction =
      network_->graph().node(target_).predictions.empty() ? -1 : network_->graph().node(target_).predictions[0];
  // Hooks are recorded once for each batch size; the batch is that of the recording plan.
  spec.load = [this](const Exec& exec, std::int64_t batch) {
    feed_.record_input(exec, feed_.train(), network_->value(input_, batch));
    feed_.record_target(exec, feed_.train(), network_->value(target_, batch), config_.classify.on,
                        config_.classify.off);
  };
  if (scores_training_) {
    spec.measure_start = [this, prediction](const Exec& exec, std::int64_t batch) {
      record_score(exec, feed_.train(), network_->prediction_buffer("mu", prediction, batch));
    };
  }
  return std::make_unique<Trainer>(*network_, std::move(spec), threads_);
}

std::unique_ptr<Trainer> Classifier::make_evaluator(const Part& part) {
  PlanSpec spec = base_spec();
  // Whatever the weights were learned by: the target is free, and the network settles.
  spec.schedule = &find_schedule("pc");
  spec.settings = {};
  spec.relax.sweep = Sweep::synchronous;
  spec.relax.precision = {};
  spec.relax.forward_update = false;
  if (config_.evaluate_steps) spec.relax.steps = *config_.evaluate_steps;
  if (spec.relax.init.kind == ValueInit::Kind::previous) spec.relax.init.kind = ValueInit::Kind::feedforward;
  spec.energies = false;
  spec.draws = kLookDraws;
  const auto& predictions = network_->graph().node(target_).predictions;
  const bool from_value =
      predictions.empty() || network_->graph().prediction(predictions[0]).spec.energy->zero_at_prediction;
  spec.load = [this, &part](const Exec& exec, std::int64_t batch) {
    feed_.record_input(exec, part, network_->value(input_, batch));
  };
  spec.measure_end = [this, &part, from_value, predictions](const Exec& exec, std::int64_t batch) {
    record_score(
        exec, part,
        from_value ? network_->value(target_, batch) : network_->prediction_buffer("mu", predictions[0], batch));
  };
  return std::make_unique<Trainer>(*network_, std::move(spec), threads_);
}

EpochResult Classifier::train_epoch(std::int64_t epoch, std::int64_t first, const AfterBatch& after_batch,
                                    bool& finished) {
  const Arena& arena = network_->arena();
  feed_.shuffle(epoch);
  feed_.rewind(feed_.train(), first * batch_size(0));
  const View right = network_->scalar(kRight), steps = network_->scalar(kSteps);
  if (first == 0) {
    // From the weights that the epoch begins with; a bound of the other nodes' curvature holds with the target free
    // too.
    find_step_bound();
    train_->reset_energies();
    arena.zero(right);
    arena.zero(steps);
  }
  // On a device, looking at the energies waits for it: there it is done now and then.
  const std::int64_t look_every = network_->exec().device == Device::cpu ? 1 : 64;
  std::int64_t done = first;
  finished = false;
  step_count_ = arena.read(steps)[0];
  while (done < batches()) {
    const int times = steps_in_a_row(done);
    step_count_ += train_->step(batch_size(done), times).steps;
    done += times;
    at_ = {epoch + 1, done};
    if (done / look_every != (done - times) / look_every && !train_->sound(growth_)) check_sound();
    if (done < batches() && after_batch != nullptr && !after_batch(done)) return {};
  }
  prepare_to_save();
  finished = true;
  EpochResult result = read_result(feed_.train().count, step_count_ / double(done));
  result.examples = feed_.train().count - first * batch_size(0);
  return result;
}

/// On a device several steps are one piece of work, which ends where somebody must look.
int Classifier::steps_in_a_row(std::int64_t done) {
  constexpr int kMany = 16;
  if (network_->exec().device == Device::cpu) return 1;
  const std::int64_t every = config_.save.every_batches;
  const std::int64_t until_save = every > 0 ? every - done % every : kMany;
  constexpr std::size_t kMostCalls = 20000;  // a graph of more takes longer to make than it saves
  const std::size_t calls = train_->plan(batch_size(done)).programs()[0]->calls().size();
  const bool alike = done + kMany <= batches() && batch_size(done + kMany - 1) == batch_size(done);
  return alike && until_save >= kMany && calls * kMany <= kMostCalls ? kMany : 1;
}

void Classifier::check_sound() const {
  const std::string where = "epoch " + std::to_string(at_.epoch) + ", batch " + std::to_string(at_.batch);
  train_->check_energies(where, growth_);
  train_->check_weights(where);
}

void Classifier::prepare_to_save() {
  check_sound();
  network_->arena().write(network_->scalar(kSteps), {step_count_});
}

EpochResult Classifier::read_result(std::int64_t epoch_examples, double steps) {
  const EnergySums sums = train_->energies();
  const double n = double(epoch_examples);
  EpochResult result{.energy_start = sums.total_start() / n, .energy_end = sums.total_end() / n, .mean_steps = steps};
  if (scores_training_) result.accuracy = network_->arena().read(network_->scalar(kRight))[0] / n;
  return result;
}

Classifier::ValueKeeper::ValueKeeper(Classifier& task) : task_(task) {
  if (task.config_.relax.relax.init.kind != ValueInit::Kind::previous) return;
  Network& network = *task.network_;
  for (NodeId v = 0; v < network.graph().node_count(); ++v) {
    values_.push_back(network.arena().read(network.value(v, network.max_batch())));
  }
}

Classifier::ValueKeeper::~ValueKeeper() {
  Network& network = *task_.network_;
  for (std::size_t v = 0; v < values_.size(); ++v) {
    network.arena().write(network.value(static_cast<NodeId>(v), network.max_batch()), values_[v]);
  }
}

double Classifier::accuracy(const Part& part) {
  PC_CHECK(part.count > 0, "classify", "there are no examples to evaluate on; see data.validation");
  const ValueKeeper kept(*this);
  std::unique_ptr<Trainer>& evaluator = evaluators_[&part];
  if (evaluator == nullptr) evaluator = make_evaluator(part);
  const View right = network_->scalar(kRight), bound = network_->scalar(kStepBound);
  network_->arena().zero(right);
  network_->arena().zero(network_->scalar(kLookDraws));
  feed_.rewind(part);
  // Of these weights, whoever asks; training goes on with that of its epoch.
  const double bound_in_training = network_->arena().read_scalar(bound);
  find_step_bound();
  for (std::int64_t done = 0; done < part.count;) {
    const std::int64_t batch = std::min(network_->max_batch(), part.count - done);
    evaluator->step(batch);
    done += batch;
  }
  network_->arena().write(bound, {bound_in_training});
  return network_->arena().read_scalar(right) / double(part.count);
}

std::vector<double> Classifier::trace() {
  const Schedule& schedule = *config_.relax.schedule;
  if (schedule.engine == Engine::reverse || schedule.exact || schedule.free_output) return {};
  const Part& part = feed_.sample();
  if (trace_ == nullptr) {
    PlanSpec spec = base_spec();
    spec.clamps.push_back({target_});
    spec.relax.stop = FixedSteps{};
    spec.settings.nudge.reset();  // whose turn it is must not depend on who looks
    spec.energies = false;
    spec.trace = true;
    spec.draws = kLookDraws;
    spec.load = [this, &part](const Exec& exec, std::int64_t batch) {
      feed_.record_input(exec, part, network_->value(input_, batch));
      feed_.record_target(exec, part, network_->value(target_, batch), config_.classify.on, config_.classify.off);
    };
    trace_ = std::make_unique<Trainer>(*network_, std::move(spec), threads_);
  }
  const ValueKeeper kept(*this);
  const Arena& arena = network_->arena();
  arena.zero(network_->scalar(kLookDraws));
  std::vector<double> energies;
  for (int t = 0; t <= config_.relax.relax.steps; ++t) arena.zero(network_->scalar(trace_name(t)));
  feed_.rewind(part);
  trace_->step(part.count);
  for (int t = 0; t <= config_.relax.relax.steps; ++t) {
    energies.push_back(arena.read(network_->scalar(trace_name(t)))[0] / double(part.count));
  }
  return energies;
}

void Classifier::find_step_bound() const {
  const auto* sgd = std::get_if<ValueSgd>(&config_.relax.relax.stepper);
  if (sgd != nullptr && sgd->automatic) set_step_bound(*network_, *config_.relax.schedule, {{input_}});
}

double Classifier::rate() { return network_->arena().read(network_->scalar(kRate))[0]; }

std::string Classifier::signature() {
  std::uint64_t hash = 14695981039346656037ULL;  // FNV-1a, over the bits of each weight as a float64
  for (ParamId id = 0; id < network_->graph().param_count(); ++id) {
    for (const double value : network_->arena().read(network_->weight(id))) {
      const auto bits = std::bit_cast<std::uint64_t>(value);
      for (int shift = 0; shift < 64; shift += 8) hash = (hash ^ ((bits >> shift) & 0xFF)) * 1099511628211ULL;
    }
  }
  char text[17];
  std::snprintf(text, sizeof text, "%016" PRIx64, hash);
  return text;
}

std::vector<std::string> Classifier::kept_buffers() const {
  std::vector<std::string> kept = {"w/", "m/", "v/", "velocity/", "clock/", "metric/"};
  if (config_.relax.relax.init.kind == ValueInit::Kind::previous) kept.emplace_back("x/");
  return kept;
}

}  // namespace pc::experiments

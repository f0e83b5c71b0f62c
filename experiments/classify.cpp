#include "experiments/classify.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <limits>
#include <numbers>
#include <span>

#include "experiments/names.h"
#include "kernels/arithmetic.h"
#include "kernels/philox.h"
#include "pc/components.h"
#include "pc/levels.h"
#include "pc/ops/ops.h"
#include "pc/step_bound.h"

namespace pc::experiments {
namespace {

constexpr const char* kRight = "metric/right";  // right answers, squared errors or bits, added up
constexpr const char* kSteps = "metric/steps";
constexpr const char* kLookDraws = "look/draws";  // evaluation and traces draw numbers of their own

Shape data_shape(std::int64_t size) { return {size}; }

/// Where the config has the node, or the network that it belongs to.
Place place_of(const Config& config, const std::string& node) {
  for (const NodeSpec& spec : config.graph.nodes) {
    if (spec.name == node && !spec.place.empty()) return {spec.place};
  }
  return config.tree.find("graph")->place();
}

/// The config's graph. Whatever can be wrong with it, the task or the schedule without knowing the data is found here,
/// since data may take long to read.
Graph checked_graph(const Config& config) {
  Graph graph(config.graph.nodes, config.graph.edges);
  const ConfigTree* task = config.tree.find("task");
  const Place place = task != nullptr ? task->place() : config.tree.place();
  const std::vector<std::string> names = task_names(config);
  PlanSpec spec;
  spec.schedule = config.relax.schedule;
  spec.settings = config.relax.settings;
  spec.relax = config.relax.relax;
  for (const std::string& name : clamped_names(config)) {
    const auto& nodes = graph.nodes();
    const auto found = std::find_if(nodes.begin(), nodes.end(), [&](const Node& node) { return node.name == name; });
    if (found == nodes.end()) {
      fail_at(place, "the task's node \"", name, "\" is not in the graph; name its nodes as in task: ",
              config.next_token       ? "{next_token: {input: NODE, target: NODE}}"
              : !config.examples      ? "{classify: {input: NODE, target: NODE}}"
              : config.examples->next ? "{sequence: {from: NODE, to: NODE}}"
                                      : "{reconstruct: {node: NODE}}");
    }
    spec.clamps.push_back({static_cast<NodeId>(found - nodes.begin())});
  }
  const NodeId input = graph.find(names[0]), target = graph.find(names.back());
  if (names.size() > 1) {
    if (input == target) fail_at(place, "both nodes of the task are ", names[0]);
    if (graph.node(target).predictions.empty() && graph.node(target).out.empty()) {
      fail_at(place_of(config, names[1]), "no edge touches the target node ", names[1],
              "; nothing can be learned about it");
    }
  } else if (graph.node(input).predictions.empty()) {
    fail_at(place_of(config, names[0]), "reconstruct has no copy, and nothing predicts node ", names[0],
            "; add an edge into it, or name the node that answers with copy: NODE");
  }
  for (const Prediction& p : graph.predictions()) {
    if (p.spec.energy->zero_at_prediction || p.node == input || p.node == target) continue;
    fail_at(place_of(config, graph.node(p.node).name), "node ", graph.node(p.node).name, " has energy ",
            p.spec.energy->name,
            ", which says something only about a node that is clamped; use gaussian for hidden nodes");
  }
  check_relax(config, spec, graph);
  return graph;
}

}  // namespace

Classifier::Classifier(const Config& config, const ExecContext& where)
    : Classifier(config, where, checked_graph(config)) {}

Classifier::Classifier(const Config& config, const ExecContext& where, Graph graph)
    : config_(config),
      device_(where.name()),
      threads_(thread_count(config)),
      feed_(where.exec(), load_data(config.data.request), config.data, config.seed, sequence_length(config)) {
  const std::int64_t largest =
      std::max({std::min(config.data.batch, feed_.train().count), std::min(config.data.batch, feed_.validation().count),
                std::min(config.data.batch, feed_.test().count)});
  const std::vector<std::string> names = task_names(config);
  input_ = graph.find(names[0]);
  if (names.size() > 1) target_ = graph.find(names[1]);
  check_nodes(graph);
  const bool answers = !graph.node(has_target() ? target_ : input_).predictions.empty();
  scores_training_ = !config.examples && answers && topological_order(graph).has_value() &&
                     config.relax.relax.init.kind == ValueInit::Kind::feedforward;
  network_ = std::make_unique<Network>(std::move(graph), where.exec(), config.dtype, largest, config.seed, config.init);
  // Schedules that do not heed it lower nothing: an exact one's errors are what backprop's happen to be.
  const bool lowers = (config.relax.schedule->heeds & kGrowth) != 0;
  growth_ = lowers ? config.relax.relax.growth : std::numeric_limits<double>::infinity();
  find_step_bound();  // or say now that there is none
  train_ = make_trainer();
}

namespace {

/// Whether edges, whichever way they point, lead from one node to the other.
bool connected(const Graph& graph, NodeId from, NodeId to) {
  std::vector<std::vector<NodeId>> next(static_cast<std::size_t>(graph.node_count()));
  for (const Edge& edge : graph.edges()) {
    const NodeId target = graph.prediction(edge.prediction).node;
    for (const NodeId source : edge.from) {
      next[static_cast<std::size_t>(source)].push_back(target);
      next[static_cast<std::size_t>(target)].push_back(source);
    }
  }
  const auto components = strongly_connected_components(
      next.size(), [&](std::size_t v) { return std::span<const NodeId>(next[v]); });  // both ways: connected ones
  return std::any_of(components.begin(), components.end(), [&](const std::vector<int>& component) {
    return std::count(component.begin(), component.end(), from) > 0 &&
           std::count(component.begin(), component.end(), to) > 0;
  });
}

}  // namespace

void Classifier::check_nodes(const Graph& graph) const {
  const std::string& set = config_.data.request.set;
  const auto check = [&](bool fits, const Node& node, const auto&... parts) {
    if (!fits) fail_at(place_of(config_, node.name), "node ", node.name, parts...);
  };
  const Node& input = graph.node(input_);
  check(input.shape.count() == feed_.size(), input, " has shape ", input.shape.text(), ", but examples of ", set,
        " have ", data_shape(feed_.size()).text(), " values");
  if (!has_target()) return;
  const Node& target = graph.node(target_);
  const std::int64_t width = config_.examples ? feed_.size() : feed_.label_size();
  check(target.shape.count() == width, target, " has shape ", target.shape.text(), ", but ", set, " has ",
        config_.examples ? width : feed_.classes(), config_.examples ? " values an example" : " classes",
        config_.next_token ? " for each of " + std::to_string(feed_.times()) +
                                 " characters; the network's `entries`, and `outputs` if it has them, must be as many"
                           : "");
  check(connected(graph, input_, target_), target, " is joined to node ", input.name,
        " by no edges, in either direction, so nothing can be learned of it; add edges between them");
  const Energy* energy = target.predictions.empty() ? nullptr : graph.prediction(target.predictions[0]).spec.energy;
  if (!config_.examples && (energy == &softmax_cross_entropy || energy == &bernoulli || energy == &categorical_kl)) {
    const auto probability = [](double p) { return p >= 0 && p <= 1; };
    check(probability(config_.classify.on) && probability(config_.classify.off), target, " has energy ", energy->name,
          ", to which task.classify.on and off, ", config_.classify.on, " and ", config_.classify.off,
          ", must be probabilities");
  }
  if (!config_.next_token) return;
  for (const EdgeId e : input.out) {
    const Link& first = graph.edge(e).chain[0];
    if (first.op != &ops::embedding) continue;
    check(static_cast<std::int64_t>(first.attrs.at("entries")) >= feed_.classes(), input,
          " goes through an embedding of ", first.attrs.at("entries"), " entries, but ", set, " has ", feed_.classes(),
          " different characters");
  }
  const bool distribution = !target.predictions.empty() &&
                            graph.prediction(target.predictions[0]).spec.energy == &softmax_cross_entropy &&
                            target.shape[target.shape.rank() - 1] == feed_.classes();
  check(distribution, target, " must predict ", feed_.classes(),
        " characters along its last axis, with energy: softmax_cross_entropy");
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
  choose_plan(config_, spec);
  spec.observed = {has_target() ? target_ : input_};
  return spec;
}

void Classifier::record_target(const Exec& exec, const Part& part, const View& target) const {
  if (config_.examples) return feed_.record_copy(exec, part, target, config_.examples->next);
  // Label smoothing: of the target's row, that part is spread evenly (Szegedy et al. 2016, section 7).
  const ClassifyConfig& row = config_.classify;
  const double mean = row.off + (row.on - row.off) / feed_.classes();
  feed_.record_target(exec, part, target, std::lerp(row.on, mean, row.smoothing),
                      std::lerp(row.off, mean, row.smoothing));
}

void Classifier::record_score(const Exec& exec, const Part& part, const View& answer) {
  if (config_.examples) return record_error(exec, part, answer);
  const View right = network_->row_buffer("right", answer.rows());
  feed_.record_right(exec, part, answer, right);
  kernels::sum(exec, {.in = right, .out = network_->scalar(kRight), .write = Write::add});
}

/// What the characters that follow cost, coded by the answers: bits, of each sequence the mean.
void Classifier::record_bits(const Exec& exec, const Part& part, const View& answer) {
  const std::int64_t batch = answer.rows();
  const View wanted = network_->node_buffer("wanted", target_, batch), rows = network_->row_buffer("bits", batch);
  feed_.record_target(exec, part, wanted, 1, 0);
  kernels::softmax_error(
      exec, {.x = wanted, .mu = answer, .delta = network_->node_buffer("unused", target_, batch), .energy = rows});
  kernels::sum(exec, {.in = rows,
                      .out = network_->scalar(kRight),
                      .scale = 1 / (double(feed_.times()) * std::numbers::ln2),
                      .write = Write::add});
}

void Classifier::record_error(const Exec& exec, const Part& part, const View& answer) {
  const View wanted = network_->node_buffer("wanted", has_target() ? target_ : input_, answer.rows());
  if (has_target()) {
    record_target(exec, part, wanted);
  } else {
    feed_.record_copy(exec, part, wanted, false);
  }
  kernels::axpby(exec, {.x = answer, .y = wanted, .a = -1, .b = 1});
  kernels::sum(exec, {.in = wanted,
                      .out = network_->scalar(kRight),
                      .scale = 1 / double(feed_.size()),
                      .squares = true,
                      .write = Write::add});
}

std::unique_ptr<Trainer> Classifier::make_trainer() {
  PlanSpec spec = base_spec();
  if (has_target()) spec.clamps.push_back({target_});
  spec.learn = LearnSpec{config_.learn.optimizer, config_.learn.rate, config_.learn.clip_norm};
  Rate& rate = spec.learn->rate;
  const int updates_a_batch = config_.relax.schedule->learn == Learn::every_step ? config_.relax.relax.steps : 1;
  rate.total = double(config_.learn.epochs) * double(batches()) * updates_a_batch;
  rate.warmup = config_.learn.warmup * rate.total;
  // Hooks are recorded once for each batch size; the batch is that of the recording plan.
  spec.load = [this](const Exec& exec, std::int64_t batch) {
    feed_.record_input(exec, feed_.train(), network_->value(input_, batch));
    if (has_target()) record_target(exec, feed_.train(), network_->value(target_, batch));
  };
  if (scores_training_) {
    const PredictionId prediction = network_->graph().node(target_).predictions[0];
    spec.measure_start = [this, prediction](const Exec& exec, std::int64_t batch) {
      record_score(exec, feed_.train(), network_->prediction_buffer("mu", prediction, batch));
    };
  }
  return std::make_unique<Trainer>(*network_, std::move(spec), threads_);
}

/// The target is free, and the network settles; without noise, which a question may have.
PlanSpec Classifier::evaluation_spec() const {
  PlanSpec spec = base_spec();
  spec.schedule = &find_schedule("pc");
  spec.settings = {};
  spec.relax = relax_of_answers(config_);
  if (auto* sgd = std::get_if<ValueSgd>(&spec.relax.stepper)) sgd->temperature = 0;
  spec.energies = false;
  spec.draws = kLookDraws;
  return spec;
}

std::unique_ptr<Trainer> Classifier::make_evaluator(const Part& part) {
  PlanSpec spec = evaluation_spec();
  const NodeId answers = has_target() ? target_ : input_;
  const auto& predictions = network_->graph().node(answers).predictions;
  const bool from_value =
      has_target() &&
      (predictions.empty() || network_->graph().prediction(predictions[0]).spec.energy->zero_at_prediction);
  spec.load = [this, &part](const Exec& exec, std::int64_t batch) {
    feed_.record_input(exec, part, network_->value(input_, batch));
  };
  spec.measure_end = [this, &part, from_value, answers, predictions](const Exec& exec, std::int64_t batch) {
    const View answer =
        from_value ? network_->value(answers, batch) : network_->prediction_buffer("mu", predictions[0], batch);
    config_.next_token ? record_bits(exec, part, answer) : record_score(exec, part, answer);
  };
  return std::make_unique<Trainer>(*network_, std::move(spec), threads_);
}

EpochResult Classifier::train_epoch(std::int64_t epoch, std::int64_t first, const AfterBatch& after_batch,
                                    bool& finished) {
  const Arena& arena = network_->arena();
  // Where values carry over and every batch is all examples, each row stays with its example.
  const bool keeps_rows = config_.relax.relax.init.kind == ValueInit::Kind::previous &&
                          feed_.train().count == batch_size(0) * config_.data.repeat;
  if (!keeps_rows) feed_.shuffle(epoch);
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

Classifier::Values Classifier::keep_values() {
  Values values;
  if (config_.relax.relax.init.kind != ValueInit::Kind::previous) return values;
  for (NodeId v = 0; v < network_->graph().node_count(); ++v) {
    values.push_back(network_->arena().read(network_->value(v, network_->max_batch())));
  }
  return values;
}

void Classifier::give_back(const Values& values) {
  for (std::size_t v = 0; v < values.size(); ++v) {
    network_->arena().write(network_->value(static_cast<NodeId>(v), network_->max_batch()), values[v]);
  }
}

double Classifier::evaluate(const Part& part) {
  PC_CHECK(part.count > 0, "task", "there are no examples to evaluate on; see data.validation");
  const Values kept = keep_values();
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
  give_back(kept);
  return network_->arena().read_scalar(right) / double(part.count);
}

std::string Classifier::shown(double measured) const {
  if (config_.examples) return fmt::format("{:.4g}", measured);
  if (!config_.next_token) return fmt::format("{:.2f}%", 100 * measured);
  return fmt::format("{:.3f} (perplexity {:.2f})", measured, std::exp2(measured));
}

std::string Classifier::write_text(const Writing& how) {
  const Arena& arena = network_->arena();
  const std::int64_t times = feed_.times(), classes = feed_.classes();
  const std::string& characters = feed_.characters();
  const View input = network_->value(input_, 1);
  const View next = network_->prediction_buffer("mu", network_->graph().node(target_).predictions[0], 1);
  feed_.rewind(feed_.test());
  feed_.record_input(network_->exec(), feed_.test(), input);
  std::vector<double> tokens = arena.read(input);
  if (!how.prompt.empty()) tokens.clear();
  for (std::size_t i = 0; i < how.prompt.size(); ++i) {
    const std::size_t number = characters.find(how.prompt[i]);
    if (number == std::string::npos) {
      std::string known;
      for (const char c : characters) known += (known.empty() ? "" : " ") + character_name(c);
      fail("write", "the prompt's character ", i + 1, ", ", character_name(how.prompt[i]),
           ", is none that the run has learned; these are: ", known);
    }
    tokens.push_back(double(number));
  }
  if (std::ssize(tokens) > times) tokens.erase(tokens.begin(), tokens.end() - times);
  Trainer writer(*network_, evaluation_spec(), threads_);
  std::string text;
  for (std::int64_t i = 0; i < how.count; ++i) {
    const std::size_t known = tokens.size();
    tokens.resize(static_cast<std::size_t>(times));  // nothing behind the last one is seen from there
    arena.write(input, tokens);
    writer.step(1);
    const std::vector<double> all = arena.read(next);
    const auto* logits = &all[(known - 1) * static_cast<std::size_t>(classes)];
    const auto likeliest = std::max_element(logits, logits + classes);
    std::int64_t drawn = how.temperature == 0 ? likeliest - logits : 0;
    if (how.temperature > 0) {
      double total = 0;
      const auto weight = [&](std::int64_t k) { return std::exp((logits[k] - *likeliest) / how.temperature); };
      for (std::int64_t k = 0; k < classes; ++k) total += weight(k);
      double left = total * philox::uniform(philox::bits(how.seed, Purpose::text, 0, 0, static_cast<std::uint64_t>(i)));
      while (drawn + 1 < classes && (left -= weight(drawn)) >= 0) ++drawn;
    }
    text.push_back(characters[static_cast<std::size_t>(drawn)]);
    if (how.tell) how.tell(text.back());
    tokens.resize(known);
    if (std::ssize(tokens) == times) tokens.erase(tokens.begin());
    tokens.push_back(double(drawn));
  }
  return text;
}

std::vector<double> Classifier::trace() {
  const Schedule& schedule = *config_.relax.schedule;
  if (!lowers_energy(schedule) || schedule.free_output) return {};
  const Part& part = feed_.sample();
  if (trace_ == nullptr) {
    PlanSpec spec = base_spec();
    if (has_target()) spec.clamps.push_back({target_});
    spec.settings.nudge.reset();  // whose turn it is must not depend on who looks
    spec.watch = [this](int, double energy) { traced_.push_back(energy); };
    spec.regime = Regime::library;  // where all steps are one call, nobody can look at each
    spec.draws = kLookDraws;
    spec.load = [this, &part](const Exec& exec, std::int64_t batch) {
      feed_.record_input(exec, part, network_->value(input_, batch));
      if (has_target()) record_target(exec, part, network_->value(target_, batch));
    };
    trace_ = std::make_unique<Trainer>(*network_, std::move(spec), threads_);
  }
  const Values kept = keep_values();
  const Arena& arena = network_->arena();
  arena.zero(network_->scalar(kLookDraws));
  trace_->reset_energies();  // these are training's too, which has read them by the end of its epoch
  traced_.clear();
  feed_.rewind(part);
  trace_->step(part.count);
  traced_.push_back(trace_->energies().total_end());
  for (double& energy : traced_) energy /= double(part.count);
  give_back(kept);
  return traced_;
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
  std::vector<std::string> kept = {"w/", "m/", "v/", "velocity/", "clock/", "metric/", "precision/", "running/"};
  if (config_.relax.relax.init.kind == ValueInit::Kind::previous) kept.emplace_back("x/");
  return kept;
}

}  // namespace pc::experiments

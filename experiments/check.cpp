#include "experiments/check.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>

#include "experiments/names.h"
#include "graphs/transform.h"
#include "pc/levels.h"
#include "pc/step_bound.h"
#include "pc/trainer.h"

namespace pc::experiments {
namespace {

constexpr int kFirstSweeps = 64, kMostSweeps = 1024;
constexpr double kSettled = 1e-13;          // change of the unrolled gradient, relative
constexpr double kTrainedTolerance = 1e-9;  // rounding errors of many updates, which optimisers magnify

const Schedule& backprop() { return find_schedule("backprop"); }

std::vector<Clamp> clamps_of(const Graph& graph, const std::vector<std::string>& names) {
  std::vector<Clamp> clamps;
  for (const std::string& name : names) clamps.push_back({graph.find(name)});
  return clamps;
}

Graph graph_of(const graphs::Description& description) { return {description.nodes, description.edges}; }

void write_weights(Network& network, const Tensors& weights) {
  for (ParamId id = 0; id < network.graph().param_count(); ++id) {
    const std::string& name = network.graph().param(id).name;
    const auto found = weights.find(name);
    PC_CHECK(found != weights.end(), "check", "a transformed graph has the parameter ", name,
             ", which the graph itself has not");
    network.arena().write(network.weight(id), found->second);
  }
}

template <class Which>
Tensors read_tensors(Network& network, const Which& which) {
  Tensors tensors;
  for (ParamId id = 0; id < network.graph().param_count(); ++id) {
    const Param& param = network.graph().param(id);
    std::vector<double>& values = tensors[param.name] = network.arena().read(which(id));
    // Entries that a mask leaves out are no parameters, whatever a buffer holds there.
    for (std::size_t i = 0; i < param.mask.size(); ++i) {
      if (param.mask[i] == 0) values[i] = 0;
    }
  }
  return tensors;
}

void load(Network& network, const CheckBatch& batch) {
  for (const auto& [name, values] : batch.values) {
    network.arena().write(network.value(network.graph().find(name), batch.size), values);
  }
}

const std::vector<double>& same_in(const Tensors& tensors, const std::string& name, std::size_t size) {
  const auto found = tensors.find(name);
  PC_CHECK(found != tensors.end() && found->second.size() == size, "check", "parameter ", name,
           " is not the same on both sides of a comparison");
  return found->second;
}

/// Every prediction of a clamped node is part of the loss.
graphs::Description with_loss_scaled(graphs::Description graph, const std::vector<std::string>& clamped, double by) {
  for (NodeSpec& node : graph.nodes) {
    if (std::find(clamped.begin(), clamped.end(), node.name) == clamped.end()) continue;
    for (double& precision : node.energy.precision) precision *= by;
    for (auto& [name, energy] : node.predictions) {
      for (double& precision : energy.precision) precision *= by;
    }
  }
  return graph;
}

Tensors scaled(Tensors tensors, double by) {
  for (auto& [name, values] : tensors) {
    for (double& value : values) value *= by;
  }
  return tensors;
}

/// Steps until the steepest slope is at most `tolerance`, but no more than `steps`.
RelaxSpec settled(double tolerance, int steps, const ValueInit& init) {
  RelaxSpec relax;
  relax.stepper = ValueSgd{.rate = 1, .automatic = true};
  relax.init = init;
  relax.stop = GradientNorm{tolerance};
  relax.steps = steps;
  return relax;
}

/// For laws: as far as a relaxation can go.
RelaxSpec fully_settled(const ValueInit& init) { return settled(1e-13, 20000, init); }

bool finds_rate(const RelaxSpec& relax) {
  const auto* sgd = std::get_if<ValueSgd>(&relax.stepper);
  return sgd != nullptr && sgd->automatic;
}

/// For a rate that is found from the weights. Where an operator's slope has no bound, the config's own way of relaxing
/// must do; says why.
std::string find_rate(Network& network, PlanSpec& spec, const Stepper& configured) {
  if (!finds_rate(spec.relax) || spec.schedule->exact || spec.schedule->engine == Engine::reverse) return {};
  try {
    set_step_bound(network, *spec.schedule, spec.clamps);
  } catch (const Error& e) {
    spec.relax.stepper = configured;
    if (finds_rate(spec.relax)) throw;
    return e.what();
  }
  return {};
}

/// The largest relative error of those parameters that have a level, against factor(level) times the reference; and how
/// much of the reference each level gets.
template <class Factor>
LawPoint point_against(const Tensors& gradients, const Tensors& reference, const std::map<std::string, int>& levels,
                       const Factor& factor) {
  Difference worst;
  struct Products {
    double both = 0, square = 0;  // of the gradient with the reference, of the reference with itself
  };
  std::map<int, Products> products;
  for (const auto& [name, level] : levels) {
    std::vector<double> wanted = reference.at(name);
    const std::vector<double>& found = gradients.at(name);
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      products[level].both += found[i] * wanted[i];
      products[level].square += wanted[i] * wanted[i];
      wanted[i] *= factor(level);
    }
    worst.worsen(difference(found, wanted));
  }
  LawPoint point{.error = worst.relative};
  for (const auto& [level, sums] : products) {
    if (sums.square > 0) point.shares.push_back({level, sums.both / sums.square, factor(level)});
  }
  return point;
}

}  // namespace

// ---- differences

bool Difference::worsen(const Difference& other) {
  if (!(other.cosine >= cosine)) cosine = std::isnan(cosine) ? cosine : other.cosine;
  entry = std::max(entry, other.entry);
  if (!(other.relative > relative)) return false;
  relative = other.relative;
  return true;
}

Difference difference(const std::vector<double>& gradient, const std::vector<double>& reference) {
  PC_CHECK(gradient.size() == reference.size(), "check", "gradients of ", gradient.size(), " and ", reference.size(),
           " entries cannot be compared");
  constexpr double kInfinite = std::numeric_limits<double>::infinity();
  double most = 0, largest_gradient = 0, largest = 0, sum = 0;
  for (std::size_t i = 0; i < reference.size(); ++i) {
    const double apart = std::abs(gradient[i] - reference[i]);
    most = std::max(most, apart);
    largest_gradient = std::max(largest_gradient, std::abs(gradient[i]));
    largest = std::max(largest, std::abs(reference[i]));
    sum += apart;  // keeps a NaN, which max() may drop
  }
  if (!std::isfinite(sum)) return {kInfinite, std::numeric_limits<double>::quiet_NaN(), kInfinite};
  if (largest == 0) return largest_gradient == 0 ? Difference{} : Difference{kInfinite, 0, kInfinite};
  // Each in its own unit, so that no square is lost or overflows.
  double gradient_square = 0, reference_square = 0, square = 0, product = 0;
  for (std::size_t i = 0; i < reference.size(); ++i) {
    const double g = largest_gradient == 0 ? 0 : gradient[i] / largest_gradient, r = reference[i] / largest;
    const double apart = most == 0 ? 0 : (gradient[i] - reference[i]) / most;
    gradient_square += g * g;
    reference_square += r * r;
    square += apart * apart;
    product += g * r;
  }
  const double norms = std::sqrt(gradient_square) * std::sqrt(reference_square);
  return {most / largest * std::sqrt(square / reference_square),
          norms == 0 ? 0 : std::clamp(product / norms, -1.0, 1.0), most / largest};
}

Difference difference_from_zero(const std::vector<double>& gradient, const Tensors& whole) {
  const std::vector<double> zero(gradient.size(), 0.0);
  const Difference alone = difference(gradient, zero);
  if (alone.relative == 0 || std::isnan(alone.cosine)) return alone;
  std::vector<double> all, off;
  for (const auto& [name, values] : whole) all.insert(all.end(), values.begin(), values.end());
  off = all;
  all.insert(all.end(), zero.begin(), zero.end());
  off.insert(off.end(), gradient.begin(), gradient.end());
  Difference found = difference(off, all);
  if (std::isfinite(found.relative)) found.cosine = 1;
  return found;
}

Difference total_difference(const Tensors& gradients, const Tensors& reference) {
  std::vector<double> all, wanted;
  for (const auto& [name, values] : reference) {
    const std::vector<double>& same = same_in(gradients, name, values.size());
    all.insert(all.end(), same.begin(), same.end());
    wanted.insert(wanted.end(), values.begin(), values.end());
  }
  return difference(all, wanted);
}

namespace {

/// By hypot, which neither loses small numbers nor drops a NaN.
double norm(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0, [](double sum, double v) { return std::hypot(sum, v); });
}

double norm(const Tensors& gradient) {
  double whole = 0;
  for (const auto& [name, values] : gradient) whole = std::hypot(whole, norm(values));
  return whole;
}

}  // namespace

std::set<std::string> zero_gradients(const Tensors& exact, double norm_of_all) {
  // Sums of which nothing should be left leave some units in the last place of their terms.
  const double rounding = 64 * std::numeric_limits<double>::epsilon() * norm_of_all;
  std::set<std::string> zeros;
  for (const auto& [name, values] : exact) {
    if (std::isfinite(rounding) && norm(values) <= rounding) zeros.insert(name);
  }
  return zeros;
}

void compare(Measured& measured, const Tensors& gradients, const Tensors& reference, const Tensors& exact) {
  PC_CHECK(gradients.size() == reference.size(), "check", gradients.size(), " parameters cannot be compared with ",
           reference.size());
  measured.compared = true;
  const std::set<std::string> zeros = zero_gradients(exact, norm(exact));
  for (const auto& [name, values] : reference) {
    const std::vector<double>& found = same_in(gradients, name, values.size());
    static_cast<void>(same_in(exact, name, values.size()));
    const bool zero = zeros.contains(name);
    const Difference here = zero ? difference_from_zero(found, reference) : difference(found, values);
    measured.parameters.push_back({name, here, zero});
    if (measured.worst.worsen(here) || measured.where.empty()) measured.where = name;
  }
}

void compare_weights(Trained& trained, const Tensors& weights, const Tensors& reference,
                     const std::set<std::string>& left_out) {
  for (const auto& [name, values] : reference) {
    const std::vector<double>& same = same_in(weights, name, values.size());
    double largest = 0, most = 0, sum = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      most = std::max(most, std::abs(same[i] - values[i]));
      largest = std::max(largest, std::abs(values[i]));
      sum += same[i] - values[i];
    }
    if (!std::isfinite(sum)) most = std::numeric_limits<double>::infinity();
    if (left_out.contains(name) && std::isfinite(most)) {
      trained.left_out.push_back(name);
      trained.left_out_absolute = std::max(trained.left_out_absolute, most);
      continue;
    }
    const double relative = most == 0 ? 0 : most / largest;
    trained.absolute = std::max(trained.absolute, most);
    if (!(relative > trained.relative) && !trained.where.empty()) continue;
    trained.relative = relative;
    trained.where = name;
  }
}

void compare_losses(Trained& trained, std::vector<double> losses, const std::vector<double>& reference) {
  PC_CHECK(losses.size() == reference.size(), "check", losses.size(), " losses cannot be compared with ",
           reference.size());
  for (std::size_t i = 0; i < losses.size(); ++i) {
    const double apart = std::abs(losses[i] - reference[i]);
    double relative = apart == 0 ? 0 : apart / std::abs(reference[i]);
    if (!std::isfinite(relative)) relative = std::numeric_limits<double>::infinity();
    if (!(relative > trained.loss_relative)) continue;
    trained.loss_relative = relative;
    trained.loss_step = static_cast<int>(i);
  }
  trained.losses = std::move(losses);
}

// ---- subjects

bool Subject::pads() const {
  const bool chooses = schedule->name == "zil" || schedule->name == "fa_zil";
  return chooses && settings.paths == ScheduleSettings::Paths::pad;
}

std::string Subject::name() const { return std::string(schedule->name) + (pads() ? "-pad" : ""); }

Subject Check::with_config_settings(const Schedule& schedule) const {
  Subject subject{&schedule, {}};
  if (config_.relax.schedule == &schedule) subject.settings = config_.relax.settings;
  subject.settings.paths = ScheduleSettings::Paths::latch;
  return subject;
}

std::vector<Subject> Check::subjects() const {
  std::vector<Subject> list;
  for (const Schedule& schedule : all_schedules()) {
    if (schedule.engine == Engine::reverse || schedule.learn == Learn::every_step) continue;
    list.push_back(with_config_settings(schedule));
    Subject padded = list.back();
    padded.settings.paths = ScheduleSettings::Paths::pad;
    if (padded.pads()) list.push_back(padded);
  }
  return list;
}

Subject Check::subject(const std::string& name) const {
  std::vector<Subject> list = subjects();
  for (const Schedule& schedule : all_schedules()) {
    PC_CHECK(name != schedule.name || schedule.learn != Learn::every_step, "check", name,
             " has no single gradient to compare: its weights move at every step");
  }
  std::vector<std::string> known;
  for (const Subject& subject : list) {
    if (subject.name() == name) return subject;
    known.push_back(subject.name());
  }
  fail("check", "no schedule \"", name, "\" to compare with backprop", did_you_mean(name, known));
}

bool Check::must_equal(const Subject& subject) const {
  if (!subject.schedule->exact || !cycle_.empty()) return false;
  if (subject.settings.gamma != 1 || subject.settings.eta != 1) return false;
  const std::vector<int> levels = levels_to_loss(graph_, clamps_of(graph_, clamped_));
  return subject.settings.steps == 0 || subject.settings.steps >= *std::max_element(levels.begin(), levels.end());
}

// ---- running

namespace {

/// Anything is equal to nothing.
void need_some(const Tensors& gradients) {
  const bool some = std::any_of(gradients.begin(), gradients.end(), [](const auto& named) {
    return std::any_of(named.second.begin(), named.second.end(), [](double g) { return g != 0; });
  });
  PC_CHECK(some, "check",
           "backprop's gradient is zero for every parameter, so that anything would seem equal: nothing that is given "
           "reaches a node that is clamped and predicted, or the weights on the way are zero (init)");
}

}  // namespace

Check::Check(const Config& config, const Exec& exec, const CheckBatch& batch)
    : config_(config),
      exec_(exec),
      threads_(thread_count(config)),
      batch_(batch),
      clamped_(clamped_names(config)),
      graph_(graph_of(config.unpadded)) {
  const std::vector<Clamp> clamps = clamps_of(graph_, clamped_);
  PC_CHECK(!loss_nodes(graph_, clamps).empty(), "check",
           "there is nothing to learn from: no clamped node has predictions; clamp a target too");
  for (const Prediction& p : graph_.predictions()) {
    const bool clamped =
        std::any_of(clamps.begin(), clamps.end(), [&](const Clamp& clamp) { return clamp.node == p.node; });
    PC_CHECK(clamped || p.spec.energy->zero_at_prediction, "check", "node ", graph_.node(p.node).name, " has energy ",
             p.spec.energy->name,
             ", which says something only about a node that is clamped; use gaussian, or clamp it");
  }
  Network drawn(graph_, Exec{}, DType::f64, 1, config.seed, config.init);
  weights_ = read_tensors(drawn, [&](ParamId id) { return drawn.weight(id); });
  if (const std::vector<NodeId> cycle = find_cycle(graph_); !cycle.empty()) cycle_ = cycle_text(graph_, cycle);
  try {
    static_cast<void>(reference(DType::f64));
    reference_about_ = "backprop";
  } catch (const Error& e) {
    if (e.status() != ExitStatus::bad_input) throw;
    no_backprop_ = e.what();
  }
  if (!reference_about_.empty()) need_some(reference(DType::f64));
  if (!cycle_.empty()) find_unrolled_reference();
}

/// The config's relaxation is for pc and epc, and for the schedule that the config names; others settle.
Check::Form Check::form_of(const Subject& subject, DType dtype) const {
  Form form{config_.unpadded, config_.relax.relax};
  if (subject.pads()) form.graph = graphs::pad_paths(form.graph, clamped_);
  if (subject.schedule->free_output && subject.schedule != config_.relax.schedule) {
    form.relax = settled(dtype == DType::f64 ? 1e-8 : 1e-6, 1000, config_.relax.relax.init);
  }
  if (sweeps_ > 0) form.relax.init = {.kind = ValueInit::Kind::feedforward, .sweeps = sweeps_};
  return form;
}

PlanSpec Check::plan_spec(const Subject& subject, const Form& form, const Graph& graph) const {
  PlanSpec spec;
  spec.schedule = subject.schedule;
  spec.settings = subject.settings;
  if (sweeps_ > 0 && spec.settings.steps == 0) spec.settings.steps = sweeps_;
  spec.relax = form.relax;
  spec.clamps = clamps_of(graph, clamped_);
  choose_plan(config_, spec);
  spec.operands = DType::f32;  // exactness is what is asked here; gemm_error() asks for the rest
  if (spec.regime != Regime::library) spec.regime = Regime::automatic;  // most schedules have no choice
  spec.energies = false;
  check_schedule(*spec.schedule, spec.settings, spec.relax, graph, spec.clamps);
  return spec;
}

/// What is asked of a relaxation; it has not run.
Settling Check::settling(const PlanSpec& spec, const Graph& graph) const {
  Settling settling{.own = !spec.schedule->free_output || spec.schedule == config_.relax.schedule};
  if (spec.schedule->engine == Engine::reverse) return settling;
  const RelaxSpec relax = own_pace(spec, graph).relax;
  settling.asked = !std::holds_alternative<FixedSteps>(relax.stop);
  if (const auto* norm = std::get_if<GradientNorm>(&relax.stop)) settling.slope = norm->tolerance;
  settling.most = relax.steps;
  return settling;
}

Check::Ran Check::run(const Subject& subject, const Form& form, DType dtype, const Look& look, DType operands,
                      const Tensors& weights) const {
  Network network(graph_of(form.graph), exec_, dtype, batch_.size, config_.seed, config_.init);
  write_weights(network, weights);
  PlanSpec spec = plan_spec(subject, form, network.graph());
  spec.batch = batch_.size;
  spec.gradients = true;
  spec.operands = operands;
  Ran ran{.gradients = {}, .settling = settling(spec, network.graph())};
  ran.settling.no_rate = find_rate(network, spec, config_.relax.relax.stepper);
  const Plan plan(network, spec);
  load(network, batch_);
  ran.settling.reached = plan.run(threads_).converged;
  if (look) look(network, batch_.size);
  ran.gradients = read_tensors(network, [&](ParamId id) { return network.gradient(id); });
  return ran;
}

Check::Ran Check::run(const Subject& subject, const Form& form, DType dtype, const Look& look, DType operands) const {
  return run(subject, form, dtype, look, operands, weights_);
}

Tensors Check::gradients(const Subject& subject, DType dtype, const Look& look) const {
  return run(subject, form_of(subject, dtype), dtype, look).gradients;
}

const Tensors& Check::reference(DType dtype) {
  const auto found = references_.find(sweeps_ > 0 ? DType::f64 : dtype);
  if (found != references_.end()) return found->second;
  return references_[dtype] = gradients({&backprop(), {}}, dtype);
}

/// Sweeps over a graph with cycles settle where the graph is a contraction; its gradient then is that of the settled
/// state.
void Check::find_unrolled_reference() {
  for (const std::string& name : input_names(config_, config_.unpadded)) {
    const Node& node = graph_.node(graph_.find(name));
    if (node.predictions.empty()) continue;
    no_unrolled_ = "edges lead into node " + name + ", which is given, and unrolling leaves them out";
    return;
  }
  const auto unrolled = [&](int sweeps) {
    const Form form{graphs::unroll(config_.unpadded, sweeps, input_names(config_, config_.unpadded)), {}};
    return run({&backprop(), {}}, form, DType::f64, nullptr).gradients;
  };
  try {
    Tensors last = unrolled(kFirstSweeps / 2);
    for (int sweeps = kFirstSweeps; sweeps <= kMostSweeps; sweeps *= 2) {
      Tensors now = unrolled(sweeps);
      if (total_difference(now, last).within(kSettled)) {
        need_some(now);
        sweeps_ = sweeps;
        references_[DType::f64] = std::move(now);
        reference_about_ = "backprop through " + std::to_string(sweeps) + " sweeps over the cycle, which settle";
        return;
      }
      last = std::move(now);
    }
    no_unrolled_ = "its gradient does not settle within " + std::to_string(kMostSweeps) + " sweeps";
  } catch (const Error& e) {
    if (e.status() != ExitStatus::bad_input) throw;
    no_unrolled_ = e.what();
  }
}

Measured Check::measure(const Subject& subject, DType dtype, const Look& look) {
  Measured measured{
      .subject = subject, .dtype = dtype, .exact = must_equal(subject), .tolerance = config_.check.tolerance(dtype)};
  try {
    const Ran ran = run(subject, form_of(subject, dtype), dtype, look);
    measured.settling = ran.settling;
    if (!reference_about_.empty()) compare(measured, ran.gradients, reference(dtype), reference(DType::f64));
  } catch (const Error& e) {
    if (e.status() != ExitStatus::bad_input) throw;
    measured.obstacle = e.what();
  }
  return measured;
}

Measured Check::gemm_error(const Subject& subject, DType operands) const {
  Measured measured{.subject = subject, .dtype = DType::f32};
  const Form form = form_of(subject, DType::f32);  // the same steps in both
  try {
    const Ran ran = run(subject, form, DType::f32, nullptr, operands);
    measured.settling = ran.settling;
    compare(measured, ran.gradients, run(subject, form, DType::f64, nullptr).gradients);
  } catch (const Error& e) {
    if (e.status() != ExitStatus::bad_input) throw;
    measured.obstacle = e.what();
  }
  return measured;
}

// ---- training

Check::Training Check::training(const Subject& subject, DType dtype, int steps, const BatchSource& source) const {
  const Form form = form_of(subject, dtype);
  Network network(graph_of(form.graph), exec_, dtype, source.size(), config_.seed, config_.init);
  write_weights(network, weights_);
  PlanSpec spec = plan_spec(subject, form, network.graph());
  spec.batch = source.size();
  spec.learn = LearnSpec{config_.learn.optimizer, config_.learn.rate, config_.learn.clip_norm};
  spec.learn->rate.total = steps;
  spec.learn->rate.warmup = config_.learn.warmup * steps;
  spec.energies = true;
  Training done{.weights = {}, .losses = {}, .settling = settling(spec, network.graph())};
  done.settling.no_rate = find_rate(network, spec, config_.relax.relax.stepper);
  Trainer trainer(network, spec, threads_);
  // Before anything has moved, hidden nodes hold their predictions, and what is left is the loss: after a feedforward
  // start, and with the targets themselves.
  const bool tells =
      spec.schedule->engine == Engine::reverse || spec.schedule->exact ||
      (spec.relax.init.kind == ValueInit::Kind::feedforward && (!spec.settings.nudge || spec.schedule->free_output));
  for (int step = 0; step < steps; ++step) {
    // From the weights as they are now.
    if (step > 0) static_cast<void>(find_rate(network, spec, config_.relax.relax.stepper));
    load(network, source.batch(step));
    trainer.reset_energies();
    if (!trainer.step(source.size()).converged) done.settling.reached = false;
    if (tells) done.losses.push_back(trainer.energies().total_start() / double(source.size()));
  }
  done.weights = read_tensors(network, [&](ParamId id) { return network.weight(id); });
  return done;
}

/// Parameters without a gradient, as a bias before a batch_norm: Adam makes steps out of what rounding leaves there.
/// They have none at the first weights nor, by backprop, at the last.
std::set<std::string> Check::moved_by_rounding(const Tensors& trained) const {
  const Subject subject{&backprop(), {}};
  const auto gradients_at = [&](const Tensors& weights) {
    return run(subject, form_of(subject, DType::f64), DType::f64, nullptr, DType::f32, weights).gradients;
  };
  const Tensors first = gradients_at(weights_), last = gradients_at(trained);
  const double whole = std::max(norm(first), norm(last));  // of a fitted network little is left but the rounding
  std::set<std::string> both;
  const std::set<std::string> then = zero_gradients(first, norm(first)), now = zero_gradients(last, whole);
  std::set_intersection(then.begin(), then.end(), now.begin(), now.end(), std::inserter(both, both.end()));
  return both;
}

std::vector<Trained> Check::train(const std::vector<Subject>& subjects, DType dtype, int steps,
                                  const BatchSource& source) const {
  const Training wanted = training({&backprop(), {}}, dtype, steps, source);
  const std::set<std::string> left_out = moved_by_rounding(wanted.weights);
  std::vector<Trained> list;
  for (const Subject& subject : subjects) {
    Trained trained{.subject = subject, .dtype = dtype, .steps = steps};
    if (dtype == DType::f64 && must_equal(subject)) trained.tolerance = kTrainedTolerance;
    try {
      const Training done = training(subject, dtype, steps, source);
      trained.settling = done.settling;
      compare_weights(trained, done.weights, wanted.weights, left_out);
      if (!done.losses.empty()) compare_losses(trained, done.losses, wanted.losses);
    } catch (const Error& e) {
      if (e.status() != ExitStatus::bad_input) throw;
      trained.obstacle = e.what();
    }
    list.push_back(trained);
  }
  return list;
}

// ---- laws

bool Law::failed() const {
  if (!obstacle.empty()) return false;
  constexpr double kOff = 0.2;  // of the power: what few points, none of them at the limit, may err
  if (expected_slope) return !slope || !(std::abs(*slope - *expected_slope) <= kOff);
  return !std::all_of(points.begin(), points.end(), [&](const LawPoint& p) { return p.error <= *tolerance; });
}

std::optional<double> fitted_slope(const std::vector<LawPoint>& points) {
  double n = 0, x = 0, y = 0, xx = 0, xy = 0;
  for (const LawPoint& point : points) {
    if (!(point.error > 0) || !std::isfinite(point.error)) continue;
    const double a = std::log(point.value), b = std::log(point.error);
    n += 1;
    x += a;
    y += b;
    xx += a * a;
    xy += a * b;
  }
  const double spread = n * xx - x * x;
  if (n < 2 || !(spread > 0)) return std::nullopt;
  return (n * xy - x * y) / spread;
}

double at_least_successes(int t, double p, int k) {
  if (k <= 0) return 1;
  // Success number k falls on throw s with probability C(s-1, k-1) p^k (1-p)^(s-k).
  double sum = 0, here = std::pow(p, k);
  for (int s = k; s <= t; ++s) {
    sum += here;
    here *= double(s) / double(s - k + 1) * (1 - p);
  }
  return sum;
}

namespace {

/// The shortest way from each node to the loss, as levels_to_loss gives the longest; -1: none.
std::vector<int> shortest_to_loss(const Graph& graph, const std::vector<Clamp>& clamps) {
  const auto clamped = [&](NodeId v) {
    return std::any_of(clamps.begin(), clamps.end(), [&](const Clamp& clamp) { return clamp.node == v; });
  };
  std::vector<int> shortest(static_cast<std::size_t>(graph.node_count()), -1);
  for (const NodeId v : loss_nodes(graph, clamps)) shortest[static_cast<std::size_t>(v)] = 0;
  const std::vector<NodeId> order = topological_order(graph).value();
  for (auto v = order.rbegin(); v != order.rend(); ++v) {
    if (clamped(*v)) continue;
    int& here = shortest[static_cast<std::size_t>(*v)];
    for (const EdgeId e : graph.node(*v).out) {
      const int next = shortest[static_cast<std::size_t>(graph.prediction(graph.edge(e).prediction).node)];
      if (next >= 0 && (here < 0 || next + 1 < here)) here = next + 1;
    }
  }
  return shortest;
}

}  // namespace

std::map<std::string, int> parameter_levels(const Graph& graph, const std::vector<Clamp>& clamps) {
  const std::vector<int> longest = levels_to_loss(graph, clamps), shortest = shortest_to_loss(graph, clamps);
  std::map<std::string, int> levels;
  std::vector<std::string> mixed;
  for (const Edge& edge : graph.edges()) {
    const auto node = static_cast<std::size_t>(graph.prediction(edge.prediction).node);
    const int level = longest[node];
    for (const Link& link : edge.chain) {
      for (const ParamId id : link.params) {
        const std::string& name = graph.param(id).name;
        const auto [entry, added] = levels.emplace(name, level);
        if (level < 0 || level != shortest[node] || entry->second != level) mixed.push_back(name);
      }
    }
  }
  for (const std::string& name : mixed) levels.erase(name);
  return levels;
}

Law Check::ep_law() {
  const bool centered = config_.check.laws.ep_side == Nudge::Side::centered;
  Law law{.schedule = "ep",
          .varies = "beta",
          .says = centered ? "the error falls as beta^2" : "the error falls as beta",
          .expected_slope = centered ? 2 : 1};
  for (const double beta : config_.check.laws.ep_beta) {
    Subject subject{&find_schedule("ep"), {}};
    subject.settings.nudge = Nudge{.side = config_.check.laws.ep_side, .beta = beta};
    const Form form{config_.unpadded, fully_settled(config_.relax.relax.init)};
    const Ran ran = run(subject, form, DType::f64, nullptr);
    law.points.push_back({.value = beta,
                          .error = total_difference(ran.gradients, reference(DType::f64)).relative,
                          .settling = ran.settling});
  }
  law.slope = fitted_slope(law.points);
  return law;
}

/// Whittington & Bogacz 2017: the weaker the pull of the output, the nearer the errors are to backprop's.
Law Check::output_precision_law() {
  Law law{
      .schedule = "pc", .varies = "output precision", .says = "the error falls as the precision", .expected_slope = 1};
  for (const double precision : config_.check.laws.pc_output_precision) {
    const Form form{with_loss_scaled(config_.unpadded, clamped_, precision), fully_settled(config_.relax.relax.init)};
    const Ran ran = run({&find_schedule("pc"), {}}, form, DType::f64, nullptr);
    const Tensors found = scaled(ran.gradients, 1 / precision);
    law.points.push_back({.value = precision,
                          .error = total_difference(found, reference(DType::f64)).relative,
                          .settling = ran.settling});
  }
  law.slope = fitted_slope(law.points);
  return law;
}

namespace {

void need_levels(const std::map<std::string, int>& levels) {
  PC_CHECK(!levels.empty(), "check", "no parameter has ways of one length to the loss, so the law says nothing here");
}

}  // namespace

Law Check::gamma_law() {
  const auto levels = parameter_levels(graph_, clamps_of(graph_, clamped_));
  Law law{.schedule = "zil",
          .varies = "gamma",
          .says = "each gradient is gamma^level times backprop's",
          .tolerance = config_.check.tolerance_f64,
          .parameters = static_cast<int>(levels.size()),
          .left_out = graph_.param_count() - static_cast<int>(levels.size())};
  need_levels(levels);
  for (const double gamma : config_.check.laws.zil_gamma) {
    Subject subject{&find_schedule("zil"), {}};
    subject.settings.gamma = gamma;
    const Tensors found = gradients(subject, DType::f64);
    const auto factor = [&](int level) { return std::pow(gamma, level); };
    law.points.push_back(point_against(found, reference(DType::f64), levels, factor));
    law.points.back().value = gamma;
  }
  return law;
}

Law Check::fixed_prediction_law() {
  const auto levels = parameter_levels(graph_, clamps_of(graph_, clamped_));
  Law law{.schedule = "fixed_prediction",
          .varies = "eta",
          .says = "each gradient is P(at least level of steps throws succeed, each with eta) times backprop's",
          .tolerance = config_.check.tolerance_f64,
          .parameters = static_cast<int>(levels.size()),
          .left_out = graph_.param_count() - static_cast<int>(levels.size())};
  need_levels(levels);
  for (const double eta : config_.check.laws.fixed_prediction_eta) {
    for (const int steps : config_.check.laws.fixed_prediction_steps) {
      Subject subject{&find_schedule("fixed_prediction"), {}};
      subject.settings.eta = eta;
      subject.settings.steps = steps;
      const Tensors found = gradients(subject, DType::f64);
      const auto factor = [&](int level) { return at_least_successes(steps, eta, level); };
      law.points.push_back(point_against(found, reference(DType::f64), levels, factor));
      law.points.back().value = eta;
      law.points.back().steps = steps;
    }
  }
  return law;
}

std::vector<Law> Check::laws(const std::vector<Subject>& subjects) {
  const LawConfig& laws = config_.check.laws;
  const struct {
    const char* schedule;
    bool wanted;
    Law (Check::*measure)();
  } known[] = {{"ep", !laws.ep_beta.empty(), &Check::ep_law},
               {"pc", !laws.pc_output_precision.empty(), &Check::output_precision_law},
               {"zil", !laws.zil_gamma.empty(), &Check::gamma_law},
               {"fixed_prediction", !laws.fixed_prediction_eta.empty(), &Check::fixed_prediction_law}};
  std::vector<Law> list;
  for (const auto& law : known) {
    const auto its = [&](const Subject& subject) { return subject.schedule->name == law.schedule; };
    if (!law.wanted || std::none_of(subjects.begin(), subjects.end(), its)) continue;
    try {
      list.push_back((this->*law.measure)());
    } catch (const Error& e) {
      if (e.status() != ExitStatus::bad_input) throw;
      list.push_back({.schedule = law.schedule, .obstacle = e.what()});
    }
  }
  PC_CHECK(!list.empty(), "check", "--laws: none to measure; ep, pc, zil and fixed_prediction have one each, where ",
           "check.laws says at which values");
  return list;
}

}  // namespace pc::experiments

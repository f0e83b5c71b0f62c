#include "experiments/bench.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <span>

#include "experiments/check.h"
#include "experiments/check_batch.h"
#include "kernels/arithmetic.h"
#include "kernels/gather.h"
#include "kernels/gemm.h"
#include "kernels/narrow.h"
#include "kernels/random.h"
#include "kernels/reduce.h"
#include "kernels/sparse_blocks.h"
#include "pc/step_bound.h"

namespace pc::experiments {
namespace {

constexpr int kWarmUp = 8;
constexpr double kStays = 64 << 20;  // bytes: what is larger comes from memory again each time that it is needed
constexpr double kSlow = 0.2;        // seconds: of slower steps fewer are timed

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : 0.5 * (values[half - 1] + values[half]);
}

/// Runs the program `times` times in a row and waits.
double seconds_of(const Program& program, const ExecContext& where, int threads, int times) {
  const auto start = Clock::now();
  program.run(where.exec(), threads, times);
  where.wait();
  return since(start);
}

/// The best of several, for ceilings.
double best_seconds(const Program& program, const ExecContext& where, int threads) {
  constexpr int kTries = 12;
  constexpr double kEnough = 0.6;  // seconds
  const int times = where.exec().device == Device::cuda ? 8 : 1;
  // The first run of a device launches call by call, the second makes a graph.
  for (int i = 0; i < 2; ++i) seconds_of(program, where, threads, times);
  double best = std::numeric_limits<double>::infinity();
  const auto start = Clock::now();
  for (int i = 0; i < kTries && (i < 2 || since(start) < kEnough); ++i) {
    best = std::min(best, seconds_of(program, where, threads, times) / times);
  }
  return best;
}

/// One call, run again and again.
class Alone {
 public:
  explicit Alone(const Call& call) { program_.record(call); }

  /// Runs a row of it. The best row counts: it is a short time, in which other work may come between.
  void measure(const ExecContext& where, int threads) {
    constexpr double kRow = 3e-3;
    constexpr int kMost = 128;
    if (times_ == 0) {
      best_ = seconds_of(program_, where, threads, 1);
      if (best_ < kSlow) best_ = std::min(best_, seconds_of(program_, where, threads, 1));
      times_ = static_cast<int>(std::clamp(kRow / best_, 1.0, double(kMost)));
      if (times_ > 1) seconds_of(program_, where, threads, times_);  // a device makes a graph of them now
    }
    if (best_ < kSlow) best_ = std::min(best_, seconds_of(program_, where, threads, times_) / times_);
  }

  [[nodiscard]] double seconds() const { return best_; }

 private:
  Program program_;
  int times_ = 0;
  double best_ = 0;
};

/// Calls with the same key take the same time: the same kernel for the same purpose on matrices of the same shapes.
std::string key_of(const Call& call) {
  std::string key(call.kernel);
  key.append(1, '|').append(call.part).append(1, '|').append(std::to_string(call.flops));
  for (const Touch& touch : call.touches) {
    key +=
        '|' + touch.view.shape.text() + name_of(touch.view.dtype) + (touch.all ? "a" : "") + (touch.write ? "w" : "");
  }
  return key;
}

/// How often the weight, or what has its shape, is read or written by one update.
double passes_of(const Optimizer& optimizer) {
  if (const auto* sgd = std::get_if<WeightSgd>(&optimizer)) return sgd->momentum != 0 ? 4 : 2;
  return 6;
}

}  // namespace

// ---- data

/// A few random batches that follow each other on the device, as examples of a data set do.
class Bench::Rotation {
 public:
  static constexpr int kSteps = 256;  // until it must be rewound

  Rotation(const Config& config, const Network& network, std::int64_t batch) : arena_(network.exec()) {
    const Graph& graph = network.graph();
    const std::vector<std::string> names = task_names(config);
    std::map<std::string, std::vector<double>> tables;
    for (std::uint64_t number = 0; number < kBatches; ++number) {
      for (auto& [name, values] : random_batch(graph, names, batch, config.check.seed, number).values) {
        tables[name].insert(tables[name].end(), values.begin(), values.end());
      }
    }
    for (const std::string& name : names) {
      const NodeId id = graph.find(name);
      const View table = arena_.take("table/" + name, {kBatches * batch, graph.node(id).shape.count()}, config.dtype);
      arena_.write(table, tables[name]);
      tables_.push_back({id, table});
    }
    std::vector<std::int32_t> order(static_cast<std::size_t>(kSteps * batch));
    for (std::size_t i = 0; i < order.size(); ++i) {
      order[i] = static_cast<std::int32_t>(i % static_cast<std::size_t>(kBatches * batch));
    }
    order_ = arena_.take("order", {std::ssize(order)}, DType::i32);
    arena_.upload(order_, order.data());
    cursor_ = arena_.take("cursor", {}, DType::f64);
    next_ = arena_.take("next", {}, DType::f64);
    scale_ = arena_.take("scale", {1}, DType::f64);
    shift_ = arena_.take("shift", {1}, DType::f64);
    arena_.write(scale_, {1});
    for (ParamId id = 0; id < graph.param_count(); ++id) {
      const View weight = network.weight(id);
      first_weights_.push_back(arena_.take("w/" + std::to_string(id), weight.shape, weight.dtype));
      kernels::copy(network.exec(), {.in = weight, .out = first_weights_.back()});
    }
  }

  /// Records: the next batch becomes the current one, and goes to the clamped nodes.
  void record(const Exec& exec, Network& network, std::int64_t batch) const {
    kernels::copy(exec, {.in = next_, .out = cursor_});
    kernels::tick(exec, {.counter = next_, .by = double(batch)});
    for (const auto& [node, table] : tables_) {
      View out = network.value(node, batch);
      out.shape = {batch, table.cols()};
      kernels::gather(exec, {.table = table, .out = out, .rows = {order_, cursor_}, .scale = scale_, .shift = shift_});
    }
  }

  /// Makes room for so many steps. Now and then the network begins again with its first weights: one that has learned
  /// these few batches by heart has errors so small that a processor may take longer over them. Waits for the device.
  void make_room(int steps, const Network& network) {
    PC_CHECK(steps <= kSteps, "bench", "at most ", kSteps, " steps in a row, not ", steps);
    if (done_ + steps > kSteps) {
      arena_.zero(next_);
      for (ParamId id = 0; id < network.graph().param_count(); ++id) {
        kernels::copy(network.exec(), {.in = first_weights_[static_cast<std::size_t>(id)], .out = network.weight(id)});
      }
      done_ = 0;
    }
    done_ += steps;
  }

  [[nodiscard]] double bytes_of_batch() const {
    double sum = 0;
    for (const auto& [node, table] : tables_) sum += double(table.extent()) / kBatches;
    return sum;
  }

 private:
  static constexpr int kBatches = 4;
  struct Table {
    NodeId node;
    View view;
  };
  Arena arena_;
  std::vector<Table> tables_;
  View order_, cursor_, next_, scale_, shift_;
  std::vector<View> first_weights_;
  int done_ = 0;
};

// ---- the plan

Bench::Bench(const Config& config, const ExecContext& where, std::int64_t batch)
    : config_(config), where_(where), batch_(batch), threads_(thread_count(config)) {
  network_ = std::make_unique<Network>(Graph(config.graph.nodes, config.graph.edges), where.exec(), config.dtype, batch,
                                       config.seed, config.init);
  rotation_ = std::make_unique<Rotation>(config, *network_, batch);
  if (automatic_rate()) find_rate(*network_);
  PlanSpec spec = base_spec();
  spec.learn = LearnSpec{config.learn.optimizer, config.learn.rate, config.learn.clip_norm};
  spec.learn->rate.kind = kernels::RateKind::constant;  // the length of a run is not known here
  spec.load = [this](const Exec& recording, std::int64_t rows) { rotation_->record(recording, *network_, rows); };
  check_relax(config, spec, network_->graph());
  trainer_ = std::make_unique<Trainer>(*network_, std::move(spec), threads_);
  static_cast<void>(plan());
}

Bench::~Bench() = default;

std::vector<Clamp> Bench::clamps() const {
  std::vector<Clamp> list;
  for (const std::string& name : clamped_names(config_)) list.push_back({network_->graph().find(name)});
  return list;
}

PlanSpec Bench::base_spec() const {
  PlanSpec spec;
  spec.schedule = config_.relax.schedule;
  spec.settings = config_.relax.settings;
  spec.relax = config_.relax.relax;
  spec.clamps = clamps();
  spec.batch = batch_;
  choose_plan(config_, spec);
  return spec;
}

bool Bench::automatic_rate() const {
  const auto* sgd = std::get_if<ValueSgd>(&config_.relax.relax.stepper);
  return sgd != nullptr && sgd->automatic && !config_.relax.schedule->exact;
}

void Bench::find_rate(Network& network) const {
  std::vector<Clamp> fixed;
  for (const std::string& name : input_names(config_, config_.graph)) fixed.push_back({network.graph().find(name)});
  set_step_bound(network, *config_.relax.schedule, fixed);
}

// ---- time

double Speed::seconds() const {
  const double fastest = std::min(synchronised.median, pipelined.seconds);
  return batched ? std::min(fastest, batched->seconds) : fastest;
}

void Bench::step(int times) {
  relax_steps_ += trainer_->step(batch_, times).steps;
  steps_ += times;
}

/// Seconds of so many steps, `times` at once, with a wait at the end.
double Bench::timed(int steps, int times) {
  rotation_->make_room(steps, *network_);
  where_.wait();
  const auto start = Clock::now();
  for (int done = 0; done < steps; done += times) step(times);
  where_.wait();
  return since(start);
}

Block Bench::blocks(int count, int steps, int times) {
  std::vector<double> seconds;
  for (int i = 0; i < count; ++i) seconds.push_back(timed(steps, times) / steps);
  return {.seconds = median(seconds), .blocks = count, .steps = steps, .times = times};
}

Speed Bench::speed(std::optional<int> asked) {
  constexpr int kFewest = 60, kFewestSlow = 5, kMany = 1000;
  double last = 0, spent = 0;
  for (int i = 0; i < (asked ? std::min(*asked, kWarmUp) : kWarmUp); ++i) {
    last = timed(1, 1);
    spent += last;
    if (!asked && i > 0 && spent > 60 * kSlow) break;
  }
  const int enough = last > kSlow ? static_cast<int>(std::clamp(12 / last, double(kFewestSlow), double(kFewest)))
                                  : static_cast<int>(std::clamp(2 / last, double(kFewest), double(kMany)));
  const int count = asked.value_or(enough);
  const int wanted = asked ? std::max(1, count / 3) : static_cast<int>(std::clamp(1 / last, 2.0, 1e6));
  const int in_block = std::min(wanted, Rotation::kSteps), block_count = std::min(3, count);

  Speed speed;
  relax_steps_ = steps_ = 0;
  std::vector<double> seconds;
  for (int i = 0; i < count; ++i) seconds.push_back(timed(1, 1));
  const auto [least, most] = std::minmax_element(seconds.begin(), seconds.end());
  speed.synchronised = {.median = median(seconds), .minimum = *least, .maximum = *most, .steps = count};
  trainer_->reset_energies();
  relax_steps_ = steps_ = 0;
  speed.pipelined = blocks(block_count, in_block, 1);

  // A graph of many more calls would take longer to make than it could save.
  constexpr std::int64_t kMostCalls = 40000;
  const std::int64_t calls = work().calls;
  int times = 16;
  while (times > 1 && calls * times > kMostCalls) times /= 2;
  if (where_.exec().device == Device::cuda && plan().programs().size() == 1 && times > 1) {
    blocks(2, times, times);
    speed.batched = blocks(block_count, std::max(in_block / times, 1) * times, times);
  }
  finish(speed);
  return speed;
}

void Bench::finish(Speed& speed) {
  speed.relax_steps = relax_steps_ / steps_;
  const EnergySums sums = trainer_->energies();
  speed.energy_start = sums.total_start() / (steps_ * double(batch_));
  speed.energy_end = sums.total_end() / (steps_ * double(batch_));
  const Schedule& schedule = *config_.relax.schedule;
  const bool descends = (schedule.heeds & kGrowth) != 0 && !schedule.free_output;
  speed.sound = trainer_->sound(descends ? config_.relax.relax.growth : std::numeric_limits<double>::infinity());
}

// ---- work

Work Bench::work() {
  const int updates = config_.relax.schedule->learn == Learn::every_step ? config_.relax.relax.steps : 1;
  Work work;
  work.flops = plan().flops();
  work.least_bytes = double(network_->graph().weight_count()) * passes_of(config_.learn.optimizer) *
                         double(size_of(config_.dtype)) * updates +
                     rotation_->bytes_of_batch();
  for (const Program* program : plan().programs()) {
    work.touched_bytes += program->bytes();
    work.calls += std::ssize(program->calls());
    for (const Call& call : program->calls()) {
      const bool product = call.kernel == kernels::sparse_product.name || call.kernel == kernels::sparse_error.name ||
                           call.kernel == kernels::sparse_move.name;
      if (!product) continue;
      // What a product touches, up to its result; some go on with that. Each view but a base, which has the shape of
      // the result: what never changes need not be a matrix. Of the weights, which are a list, those that are there:
      // blocks have zeros beside them.
      const auto result =
          std::find_if(call.touches.begin(), call.touches.end(), [](const Touch& t) { return t.write; });
      const std::int64_t entries = call.touches[1].view.count();  // of the index: offsets, columns
      double touched = 0, least = 0;
      for (auto touch = call.touches.begin(); touch <= result; ++touch) {
        const auto size = double(size_of(touch->view.dtype));
        const bool weights = touch->view.shape.rank() == 1 && touch->view.dtype != DType::i32;
        touched += double(touch->view.count()) * size;
        if (!touch->write && touch->view.shape == result->view.shape) continue;
        least += double(weights ? entries : touch->view.count()) * size;
      }
      if (touched > kStays) work.least_bytes += least;
    }
  }
  return work;
}

double Ceilings::floor_seconds(const Work& work) const { return std::max(work.flops / gemm, work.least_bytes / copy); }

void Ceilings::improve(const Ceilings& other) {
  gemm = std::max(gemm, other.gemm);
  copy = std::max(copy, other.copy);
}

Ceilings Bench::ceilings() const {
  const Exec exec = where_.exec();
  const bool cuda = exec.device == Device::cuda;
  Exec recording = exec;
  Ceilings found{.gemm_width = cuda ? 4096 : 1024, .copy_bytes = (cuda ? 1024 : 256) * (std::int64_t{1} << 20)};
  {
    Arena memory(exec);
    Program program;
    recording.recorder = &program;
    const Shape square{found.gemm_width, found.gemm_width};
    std::array<View, 2> factors;
    for (std::uint32_t i = 0; i < 2; ++i) {
      // Of random numbers: a GPU that multiplies zeros needs less power, and so runs faster.
      View& factor = factors[i] = memory.take("factor" + std::to_string(i), square, config_.dtype);
      kernels::random(exec, {.out = factor, .purpose = Purpose::check, .stream = i});
      if (config_.gemm == DType::tf32) factor.dtype = DType::tf32;
      if (size_of(config_.gemm) == size_of(DType::f32)) continue;
      const View narrow = memory.take("narrow" + std::to_string(i), square, config_.gemm);
      kernels::narrow(exec, {.x = factor, .to = {narrow, memory.take("overflow", {}, DType::f64)}});
      factor = narrow;
    }
    kernels::gemm(recording, {.a = factors[0], .b = factors[1], .c = memory.take("c", square, config_.dtype)});
    found.gemm = program.flops() / best_seconds(program, where_, threads_);
  }
  Arena memory(exec);
  Program program;
  recording.recorder = &program;
  constexpr std::int64_t kWidth = 8192;
  const Shape shape{found.copy_bytes / 4 / kWidth, kWidth};
  const View from = memory.take("from", shape, DType::f32);
  kernels::fill(exec, {.out = from, .value = 1});
  kernels::copy(recording, {.in = from, .out = memory.take("to", shape, DType::f32)});
  found.copy = program.bytes() / best_seconds(program, where_, threads_);
  return found;
}

// ---- accuracy

/// By parameter, summed over one batch. Entries that a mask leaves out are zero.
std::vector<std::vector<double>> Bench::gradients(Network& network) const {
  PlanSpec spec = base_spec();
  spec.energies = false;
  spec.gradients = true;
  // What is compared is what runs; the float64 that it is compared with need not fit where float32 does.
  if (network.dtype() != config_.dtype) {
    spec.regime = Regime::library;
    spec.operands = DType::f32;
  }
  if (spec.schedule->learn == Learn::every_step) {
    spec.learn = LearnSpec{config_.learn.optimizer, config_.learn.rate, config_.learn.clip_norm};
    spec.learn->rate.kind = kernels::RateKind::constant;
  }
  const Plan plan(network, spec);
  plan.run(threads_);
  std::vector<std::vector<double>> list;
  for (ParamId id = 0; id < network.graph().param_count(); ++id) {
    list.push_back(network.arena().read(network.gradient(id)));
    const auto& mask = network.graph().param(id).mask;
    for (std::size_t i = 0; i < mask.size(); ++i) {
      if (mask[i] == 0) list.back()[i] = 0;
    }
  }
  return list;
}

std::vector<GradientError> Bench::accuracy() const {
  const auto make = [&](DType dtype) {
    return std::make_unique<Network>(Graph(config_.graph.nodes, config_.graph.edges), where_.exec(), dtype, batch_,
                                     config_.seed, config_.init);
  };
  const auto here = make(config_.dtype), exact = make(DType::f64);
  const auto copy = [](const Network& from_network, const View& from, const Network& to_network, const View& to) {
    to_network.arena().write(to, from_network.arena().read(from));
  };
  for (ParamId id = 0; id < here->graph().param_count(); ++id) copy(*here, here->weight(id), *exact, exact->weight(id));
  const CheckBatch batch =
      random_batch(here->graph(), task_names(config_), batch_, config_.check.seed, std::uint64_t{0});
  for (const auto& [name, values] : batch.values) {
    const NodeId node = here->graph().find(name);
    here->arena().write(here->value(node, batch_), values);
    copy(*here, here->value(node, batch_), *exact, exact->value(node, batch_));  // rounded, if it was rounded here
  }
  if (automatic_rate()) {
    find_rate(*here);
    copy(*here, here->scalar(kStepBound), *exact, exact->scalar(kStepBound));
  }
  const auto found = gradients(*here), wanted = gradients(*exact);
  std::vector<GradientError> errors;
  for (ParamId id = 0; id < here->graph().param_count(); ++id) {
    const auto i = static_cast<std::size_t>(id);
    errors.push_back({here->graph().param(id).name, difference(found[i], wanted[i]).relative});
  }
  std::stable_sort(errors.begin(), errors.end(),
                   [](const GradientError& a, const GradientError& b) { return a.relative < b.relative; });
  return errors;
}

// ---- parts

std::vector<PartTime> Bench::parts() {
  struct Group {
    const Call* call;
    Alone alone;
    std::int64_t count = 0;
  };
  std::map<std::string, Group> groups;
  for (const Program* program : plan().programs()) {
    for (const Call& call : program->calls())
      ++groups.try_emplace(key_of(call), &call, Alone(call)).first->second.count;
  }
  // All of them several times over, so that a while of other work does not hit one alone.
  constexpr int kRounds = 8;
  constexpr double kEnough = 3;  // seconds
  const auto start = Clock::now();
  for (int round = 0; round < kRounds && (round < 2 || since(start) < kEnough); ++round) {
    // Those that load a batch are among them, in the order of their names: batches are gathered before the cursor moves
    // on.
    rotation_->make_room(Rotation::kSteps, *network_);
    for (auto& [key, group] : groups) group.alone.measure(where_, threads_);
  }
  std::map<std::pair<std::string_view, std::string_view>, PartTime> rows;
  double total = 0;
  for (const auto& [key, group] : groups) {
    const Call& call = *group.call;
    const auto count = double(group.count), seconds = count * group.alone.seconds();
    PartTime& row = rows[{call.part, call.kernel}];
    row.part = call.part;
    row.kernel = call.kernel;
    row.calls += group.count;
    row.seconds += seconds;
    row.flops += count * call.flops;
    row.bytes += count * call.bytes();
    total += seconds;
  }
  std::vector<PartTime> list;
  for (auto& [name, row] : rows) {
    row.share = row.seconds / total;
    list.push_back(row);
  }
  std::stable_sort(list.begin(), list.end(),
                   [](const PartTime& a, const PartTime& b) { return a.seconds > b.seconds; });
  return list;
}

}  // namespace pc::experiments

// pc check: shows how far each schedule's gradients are from backpropagation's, and writes them down.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "experiments/check.h"
#include "experiments/commands.h"
#include "experiments/names.h"
#include "experiments/output.h"
#include "experiments/plot.h"
#include "experiments/progress_line.h"
#include "pc/h5.h"
#include "pc/message.h"

namespace pc::experiments {
namespace {

using Json = nlohmann::ordered_json;

// ---- what was asked for

std::vector<DType> dtypes_of(const std::vector<std::string>& names, std::vector<DType> otherwise) {
  static const std::vector<std::string> known = {"float64", "float32"};
  if (names.empty()) return otherwise;
  std::vector<DType> list;
  for (const std::string& name : names) {
    PC_CHECK(name == known[0] || name == known[1], "check", "--dtype cannot be \"", name, "\"",
             did_you_mean(name, known));
    list.push_back(name == known[0] ? DType::f64 : DType::f32);
  }
  return list;
}

Config read(const CheckOptions& options) {
  Config config = read_config(options.config, options.overrides);
  if (!options.device.empty()) config.device = options.device;
  if (options.batch) config.check.batch = *options.batch;
  if (options.tolerance) config.check.tolerance_f64 = config.check.tolerance_f32 = *options.tolerance;
  return config;
}

std::vector<Subject> subjects_of(const Check& check, const std::vector<std::string>& names) {
  if (names.empty()) return check.subjects();
  std::vector<Subject> list;
  for (const std::string& name : names) list.push_back(check.subject(name));
  return list;
}

// ---- the dump

H5Dims dims_of(const Shape& shape) {
  H5Dims dims;
  for (int axis = 0; axis < shape.rank(); ++axis) dims.push_back(shape[axis]);
  return dims;
}

class Dump {
 public:
  explicit Dump(const std::filesystem::path& path) : file_(path) {
    file_.attribute("format", "pc-check");
    file_.attribute("version", std::int64_t{1});
  }

  void inputs(const Check& check, const CheckBatch& batch) {
    const Graph& graph = check.graph();
    for (const auto& [name, values] : batch.values) {
      file_.write("batch/" + name, dims_of(graph.node(graph.find(name)).shape.batched(batch.size)), values,
                  "what node " + name + " is clamped to, [batch, shape]");
    }
    for (const Param& param : graph.params()) {
      file_.write("weights/" + param.name, dims_of(param.spec.shape), check.weights().at(param.name),
                  "parameter " + param.name + ", with which all schedules begin");
    }
  }

  void network(const std::string& group, Network& network, std::int64_t batch) {
    const Graph& graph = network.graph();
    const Arena& arena = network.arena();
    for (NodeId v = 0; v < graph.node_count(); ++v) {
      const View view = network.value(v, batch);
      file_.write(group + "/values/" + graph.node(v).name, dims_of(view.shape), arena.read(view),
                  "value of node " + graph.node(v).name + " at the end, [batch, shape]");
    }
    for (PredictionId p = 0; p < graph.prediction_count(); ++p) {
      const std::string& name = graph.prediction(p).name;
      if (!arena.has("delta/" + name)) continue;
      const View view = network.prediction_buffer("delta", p, batch);
      file_.write(group + "/errors/" + name, dims_of(view.shape), arena.read(view),
                  "minus the slope of the energy of prediction " + name +
                      " with respect to the prediction (for a "
                      "Gaussian: precision times value minus prediction) at the end, [batch, shape]");
    }
    for (ParamId id = 0; id < graph.param_count(); ++id) {
      const Param& param = graph.param(id);
      file_.write(group + "/gradients/" + param.name, dims_of(param.spec.shape), arena.read(network.gradient(id)),
                  "minus the slope of the energy with respect to " + param.name +
                      ", summed over the batch: the direction in which it learns");
    }
  }

  void commit() { file_.commit(); }

 private:
  H5Writer file_;
};

// ---- as JSON

const char* paths_name(const Subject& subject) {
  if (subject.schedule->name != "zil" && subject.schedule->name != "fa_zil") return nullptr;
  return subject.pads() ? "pad" : "latch";
}

Json json_of(const Subject& subject, DType dtype, const std::string& obstacle) {
  Json out;
  out["name"] = subject.schedule->name;
  if (const char* paths = paths_name(subject)) out["paths"] = paths;
  out["dtype"] = name_of(dtype);
  out["applies"] = obstacle.empty();
  if (!obstacle.empty()) out["why"] = obstacle;
  return out;
}

Json json_of(const Difference& difference) {
  return {{"relative", difference.relative}, {"cosine", difference.cosine}, {"entry", difference.entry}};
}

/// What the config can say where a relaxation did not settle.
std::string settling_advice(const Settling& settling, const std::string& schedule) {
  if (settling.own) return "give it more relax.steps, a smaller rate in relax.optimizer, or a looser relax.stop";
  return fmt::format(
      "let the config say how it relaxes, and for how long: --set relax.schedule={} --set relax.steps=20000 "
      "--set \"relax.stop={{gradient: {{tolerance: 1e-6}}}}\", and if need be a smaller rate in relax.optimizer",
      schedule);
}

/// Says nothing of a relaxation of so many steps.
void add_settling(Json& out, const Settling& settling, const Subject& subject) {
  if (!settling.asked) return;
  out["settled"] = settling.reached;
  if (settling.reached) return;
  out["settling"] = {{"steps", settling.most}, {"advice", settling_advice(settling, subject.name())}};
  if (!settling.no_rate.empty()) out["settling"]["no_rate"] = settling.no_rate;
}

Json json_of(const Measured& measured) {
  Json out = json_of(measured.subject, measured.dtype, measured.obstacle);
  add_settling(out, measured.settling, measured.subject);
  if (!measured.compared) return out;
  out["exact"] = measured.exact;
  out["tolerance"] = measured.tolerance;
  out["passed"] = measured.passed();
  out["worst"] = json_of(measured.worst);
  out["worst"]["parameter"] = measured.where;
  out["parameters"] = Json::array();
  for (const Compared& compared : measured.parameters) {
    Json entry = {{"name", compared.parameter}};
    entry.update(json_of(compared.difference));
    if (compared.zero) entry["zero"] = true;
    out["parameters"].push_back(entry);
  }
  return out;
}

Json json_of(const Law& law) {
  Json out = {{"schedule", law.schedule}, {"applies", law.obstacle.empty()}};
  if (!law.obstacle.empty()) {
    out["why"] = law.obstacle;
    return out;
  }
  out["varies"] = law.varies;
  out["says"] = law.says;
  out["points"] = Json::array();
  for (const LawPoint& point : law.points) {
    Json entry = {{"value", point.value}};
    if (point.steps > 0) entry["steps"] = point.steps;
    entry["error"] = point.error;
    if (point.settling.asked) entry["settled"] = point.settling.reached;
    for (const LevelShare& share : point.shares) {
      entry["levels"].push_back({{"level", share.level}, {"measured", share.measured}, {"predicted", share.predicted}});
    }
    out["points"].push_back(entry);
  }
  if (law.expected_slope) {
    out["slope"] = law.slope ? Json(*law.slope) : Json();
    out["expected_slope"] = *law.expected_slope;
  }
  if (law.tolerance) {
    out["parameters"] = law.parameters;
    out["left_out"] = law.left_out;
    out["tolerance"] = *law.tolerance;
  }
  out["passed"] = !law.failed();
  return out;
}

Json json_of(const Trained& trained) {
  Json out = json_of(trained.subject, trained.dtype, trained.obstacle);
  if (!trained.obstacle.empty()) return out;
  add_settling(out, trained.settling, trained.subject);
  out["absolute"] = trained.absolute;
  out["relative"] = trained.relative;
  out["parameter"] = trained.where;
  for (const std::string& name : trained.left_out) out["left_out"].push_back(name);
  if (!trained.losses.empty()) {
    out["loss"] = {{"relative", trained.loss_relative}, {"step", trained.loss_step}, {"losses", trained.losses}};
  }
  out["passed"] = trained.tolerance ? Json(!trained.failed()) : Json();
  return out;
}

// ---- as a plot

/// Errors over what is varied, with the power that theory gives through the last point.
Panel power_panel(const Law& law) {
  Panel panel{.title = fmt::format("{}: {}", law.schedule, law.says),
              .x_label = law.varies,
              .y_label = "error relative to backprop",
              .log_x = true,
              .log_y = true,
              .series = {{.title = "measured"},
                         {.title = fmt::format("power {:g}", *law.expected_slope), .mark = Series::Mark::theory}}};
  const LawPoint& last = law.points.back();
  for (const LawPoint& point : law.points) {
    for (Series& series : panel.series) series.x.push_back(point.value);
    panel.series[0].y.push_back(point.error);
    panel.series[1].y.push_back(last.error * std::pow(point.value / last.value, *law.expected_slope));
  }
  return panel;
}

/// What each level gets, over the levels, one pair of series for each value.
Panel share_panel(const Law& law) {
  Panel panel{.title = fmt::format("{}: share of backprop's gradient by level", law.schedule),
              .x_label = "level (distance to the loss)",
              .y_label = "share",
              .counts = true};
  for (const LawPoint& point : law.points) {
    std::string title = fmt::format("{} = {:g}", law.varies, point.value);
    if (point.steps > 0) title += fmt::format(", {} steps", point.steps);
    Series measured{.title = title}, predicted{.mark = Series::Mark::theory};
    for (const LevelShare& share : point.shares) {
      measured.x.push_back(share.level);
      measured.y.push_back(share.measured);
      predicted.x.push_back(share.level);
      predicted.y.push_back(share.predicted);
    }
    panel.series.push_back(measured);
    panel.series.push_back(predicted);
  }
  return panel;
}

Panel panel_of(const Law& law) { return law.expected_slope ? power_panel(law) : share_panel(law); }

// ---- as tables

constexpr const char* kColumns = "{:<18} {:<8} {:>14} {:>15} {:>13}  {:<34} {}\n";

/// Of a parameter that backprop leaves alone: its error is measured in units of the whole gradient.
constexpr const char* kZero = "backprop's is zero";  // or would be but for rounding

std::string text_of(double error) { return fmt::format("{:.2e}", error); }
/// Enough digits to tell a cosine from 1.
std::string cosine_text(double cosine) { return fmt::format("{:.12f}", cosine); }

const char* verdict_of(const Measured& measured) {
  if (measured.failed()) return "FAILED";
  if (measured.settling.failed()) return "not settled";
  return measured.passed() ? "equal" : "approximate";
}

void print_obstacle_of(const std::string& name, const std::string& obstacle) {
  fmt::print("{:<18} does not apply: {}\n", name, bare(obstacle));
}

void print(const Measured& measured, bool verbose) {
  const std::string name = measured.subject.name();
  const char* dtype = name_of(measured.dtype);
  if (!measured.applies()) {
    print_obstacle_of(name, measured.obstacle);
    return;
  }
  if (!measured.compared) {
    fmt::print("{:<18} {:<8} runs; there is nothing to compare it with\n", name, dtype);
    return;
  }
  const auto row = [&](const std::string& first, const char* second, const Difference& difference,
                       const std::string& where, const char* verdict) {
    fmt::print(kColumns, first, second, text_of(difference.relative), cosine_text(difference.cosine),
               text_of(difference.entry), where, verdict);
  };
  row(name, dtype, measured.worst, measured.where, verdict_of(measured));
  if (!verbose && !measured.failed()) return;
  for (const Compared& compared : measured.parameters) {
    row("", "", compared.difference, compared.parameter, compared.zero ? kZero : "");
  }
}

/// A law is one of settled states: of others its power says little.
void print_unsettled(const Law& law) {
  const auto failed = [](const LawPoint& point) { return point.settling.failed(); };
  const auto first = std::find_if(law.points.begin(), law.points.end(), failed);
  if (first == law.points.end()) return;
  fmt::print(
      "  {} of {} not settled: after {} steps a slope above {:g} was left, so these errors, and the power, may "
      "not be those of settled states\n",
      std::count_if(law.points.begin(), law.points.end(), failed), law.points.size(), first->settling.most,
      first->settling.slope);
  if (!first->settling.no_rate.empty()) {
    fmt::print("  it moved as relax.optimizer says: no safe rate is known, {}\n", bare(first->settling.no_rate));
  }
}

void print(const Law& law) {
  fmt::print("\n{}{}\n", law.schedule, law.says.empty() ? "" : ": " + law.says);
  if (!law.obstacle.empty()) {
    fmt::print("  does not apply: {}\n", bare(law.obstacle));
    return;
  }
  for (const LawPoint& point : law.points) {
    const std::string steps = point.steps > 0 ? fmt::format(", {} steps", point.steps) : "";
    const bool off = law.tolerance && !(point.error <= *law.tolerance);
    fmt::print("  {:<32} error {}{}\n", fmt::format("{} {:g}{}", law.varies, point.value, steps), text_of(point.error),
               off                       ? "  FAILED"
               : point.settling.failed() ? "  not settled"
                                         : "");
  }
  if (law.expected_slope) {
    fmt::print("  the error falls with the power {}; theory says {:g}{}\n",
               law.slope ? fmt::format("{:.3f}", *law.slope) : "unknown", *law.expected_slope,
               law.failed() ? "  FAILED" : "");
  }
  print_unsettled(law);
  if (law.left_out > 0) {
    fmt::print("  for {} parameters; {} have ways of unequal lengths to the loss and are left out\n", law.parameters,
               law.left_out);
  }
}

void print(const Trained& trained) {
  const std::string name = trained.subject.name();
  if (!trained.obstacle.empty()) {
    print_obstacle_of(name, trained.obstacle);
    return;
  }
  fmt::print("{:<18} {:<8} {:>14} {:>15}  {:<34} {}\n", name, name_of(trained.dtype), text_of(trained.absolute),
             text_of(trained.relative), trained.where,
             !trained.tolerance ? ""
             : trained.failed() ? "FAILED"
                                : "equal");
}

/// Once for each schedule, whatever the dtype.
template <class List>
void print_settling(const List& list) {
  std::string last;
  for (const auto& one : list) {
    const std::string name = one.subject.name();
    if (!one.settling.failed() || name == last) continue;
    last = name;
    fmt::print("not settled: {} still moved after {} steps, so its gradients are not those that it stands for\n", name,
               one.settling.most);
    if (!one.settling.no_rate.empty()) {
      fmt::print("  it moved as relax.optimizer says: no safe rate is known, {}\n", bare(one.settling.no_rate));
    }
    fmt::print("  {}\n", settling_advice(one.settling, name));
  }
}

/// Why there is no backprop here, and what can be done all the same.
void print_obstacle(const Check& check) {
  if (check.no_backprop().empty()) return;
  if (check.cycle().empty()) {
    fmt::print("backprop does not apply: {}\n", bare(check.no_backprop()));
    return;
  }
  fmt::print("The graph has a cycle: {}\nso backprop does not apply to it as it is.\n", check.cycle());
  if (!check.no_unrolled().empty()) {
    fmt::print("Nor is there a gradient of the graph unrolled over many sweeps to compare with: {}\n",
               bare(check.no_unrolled()));
  }
  fmt::print(
      "pc and ipc run on it all the same, ep where no clamped node both is predicted and predicts, fixed_prediction "
      "where its sweeps settle.\n");
  if (check.no_unrolled().empty()) {
    fmt::print("To compare every schedule with backprop, put an unrolled graph in its place: --set graph.unroll=8\n");
  }
}

// ---- the command

class CheckRun {
 public:
  CheckRun(const CheckOptions& options, const Common& common, const Config& config, const ExecContext& where)
      : options_(options),
        config_(config),
        progress_(common.quiet),
        source_(config, config.check.batch, options.random),
        batch_(source_.batch(0)),
        check_(config, where.exec(), batch_),
        subjects_(subjects_of(check_, options.schedules)) {
    // What cannot be done is said before anything is measured.
    const bool laws = options.laws || !options.plot.empty();
    PC_CHECK(!laws || check_.reference_about() == "backprop", "check",
             "--laws compares with backprop: ", bare(check_.no_backprop()));
    PC_CHECK(options.after == 0 || check_.no_backprop().empty(), "check",
             "--after compares with backprop: ", bare(check_.no_backprop()));
    for (const Prediction& p : check_.graph().predictions()) {
      PC_CHECK(options.after == 0 || p.spec.learn_precision == 0, "check",
               "--after compares with backprop, which does not learn the precisions of prediction ", p.name,
               "; give precisions that stay");
    }
    if (!options.plot.empty()) check_output(options.plot, options.config, {".svg", ".png"});
    if (!options.plot.empty()) check_plot(options.plot);
    if (!options.dump.empty()) check_output(options.dump, options.config, {".h5", ".hdf5"});
    out_["config"] = options.config.string();
    out_["name"] = config.name;
    out_["device"] = where.name();
    out_["seed"] = config.seed;
    out_["batch"] = {{"size", source_.size()}, {"about", source_.about()}};
    out_["parameters"] = check_.graph().weight_count();
    out_["cycle"] = check_.cycle().empty() ? Json() : Json(check_.cycle());
    out_["reference"] = check_.reference_about().empty() ? Json() : Json(check_.reference_about());
    if (!check_.no_backprop().empty()) out_["no_backprop"] = check_.no_backprop();
    if (!check_.no_unrolled().empty()) out_["no_unrolled"] = check_.no_unrolled();
  }

  void measure() {
    std::optional<Dump> dump;
    if (!options_.dump.empty()) dump.emplace(options_.dump).inputs(check_, batch_);
    const std::vector<DType> dtypes = dtypes_of(options_.dtypes, {DType::f64, DType::f32});
    progress_.begin("checking", std::ssize(subjects_) * std::ssize(dtypes), 0, 0);
    if (dump && check_.no_backprop().empty()) measure_one({&find_schedule("backprop"), {}}, dtypes, dump, false);
    for (const Subject& subject : subjects_) measure_one(subject, dtypes, dump, true);
    progress_.clear();
    if (!dump) return;
    dump->commit();
    spdlog::info("wrote {}", options_.dump.string());
  }

  void gemm() {
    if (!options_.gemm) return;
    std::vector<Subject> subjects = subjects_;
    if (options_.schedules.empty()) {
      std::erase_if(subjects, [&](const Subject& s) { return s.schedule != config_.relax.schedule; });
    }
    PC_CHECK(!subjects.empty(), "check", "--gemm: ", config_.relax.schedule->name,
             " has no single gradient; name other schedules with --schedule");
    for (const Subject& subject : subjects) {
      for (const auto& [name, operands] : kGemms) {
        const Measured measured = check_.gemm_error(subject, operands);
        require_asked(measured.obstacle);
        Json out = json_of(measured);
        out["gemm"] = name;
        out_["gemm"].push_back(out);
        gemms_.push_back(measured);
      }
    }
  }

  void laws() {
    if (!options_.laws && options_.plot.empty()) return;
    laws_ = check_.laws(subjects_);
    for (const Law& law : laws_) out_["laws"].push_back(json_of(law));
    if (options_.plot.empty()) return;
    std::vector<Panel> panels;
    for (const Law& law : laws_) {
      if (law.obstacle.empty() && !law.points.empty()) panels.push_back(panel_of(law));
    }
    write_plot(options_.plot, panels);
  }

  void train() {
    if (options_.after == 0) return;
    std::vector<Subject> subjects = subjects_;
    if (options_.schedules.empty()) std::erase_if(subjects, [&](const Subject& s) { return !check_.must_equal(s); });
    out_["after"] = {{"steps", options_.after}, {"schedules", Json::array()}};
    for (const DType dtype : dtypes_of(options_.dtypes, {DType::f64})) {
      for (const Trained& trained : check_.train(subjects, dtype, options_.after, source_)) {
        require_asked(trained.obstacle);
        trained_.push_back(trained);
        out_["after"]["schedules"].push_back(json_of(trained));
      }
    }
  }

  [[nodiscard]] const Json& json() {
    out_["passed"] = !failed();
    return out_;
  }

  void print_tables() const {
    fmt::print("{}: {} parameters, {}, weights of seed {}, on {}\n", config_.name, check_.graph().weight_count(),
               source_.about(), config_.seed, out_["device"].get<std::string>());
    print_obstacle(check_);
    if (!check_.reference_about().empty()) {
      fmt::print("{}Gradients against those of {}; the worst parameter of each schedule\n\n",
                 check_.no_backprop().empty() ? "" : "\n", check_.reference_about());
      fmt::print(kColumns, "schedule", "dtype", "relative error", "lowest cosine", "worst entry", "where", "verdict");
    } else {
      fmt::print("\n");
    }
    // What does not apply does so in every dtype.
    std::string last;
    for (const Measured& measured : measured_) {
      const std::string name = measured.subject.name();
      if (measured.applies() || name != last) print(measured, options_.verbose);
      last = name;
    }
    print_notes();
    print_settling(measured_);
    print_gemms();
    print_settling(gemms_);
    for (const Law& law : laws_) print(law);
    if (trained_.empty()) return;
    fmt::print("\nWeights after {} updates, against those that backprop has trained\n\n", options_.after);
    fmt::print("{:<18} {:<8} {:>14} {:>15}  {:<34} {}\n", "schedule", "dtype", "absolute", "relative", "where",
               "verdict");
    for (const Trained& trained : trained_) print(trained);
    print_left_out();
    print_settling(trained_);
    print_losses();
  }

  [[nodiscard]] bool failed() const {
    const auto any = [](const auto& list) {
      return std::any_of(list.begin(), list.end(), [](const auto& item) { return item.failed(); });
    };
    return any(measured_) || any(laws_) || any(trained_);
  }

 private:
  /// What was asked for by name must run.
  void require_asked(const std::string& obstacle) const {
    if (!options_.schedules.empty() && !obstacle.empty()) throw Error(obstacle);
  }

  void measure_one(const Subject& subject, const std::vector<DType>& dtypes, std::optional<Dump>& dump, bool show) {
    for (const DType dtype : dtypes) {
      Check::Look look;
      if (dump) {
        look = [&](Network& network, std::int64_t batch) {
          dump->network(subject.name() + "/" + name_of(dtype), network, batch);
        };
      }
      progress_.update(std::ssize(measured_), subject.name() + " in " + name_of(dtype));
      const Measured measured = check_.measure(subject, dtype, look);
      require_asked(measured.obstacle);
      if (!show) continue;
      PC_CHECK(options_.schedules.empty() || measured.compared || dump, "check", subject.name(),
               " runs, but there is nothing to compare it with: ", bare(check_.no_backprop()));
      measured_.push_back(measured);
      out_["schedules"].push_back(json_of(measured));
    }
  }

  void print_gemms() const {
    constexpr std::size_t kColumnCount = std::size(kGemms);
    for (std::size_t first = 0; first < gemms_.size(); first += kColumnCount) {
      fmt::print(
          "\n{}: relative errors of gradients in float32, against float64, by the arithmetic of matrix products\n\n",
          gemms_[first].subject.name());
      if (!gemms_[first].applies()) {
        print_obstacle_of(gemms_[first].subject.name(), gemms_[first].obstacle);
        continue;
      }
      fmt::print("{:<44}", "parameter");
      for (const auto& [name, operands] : kGemms) fmt::print(" {:>10}", name);
      fmt::print("\n");
      for (std::size_t i = 0; i < gemms_[first].parameters.size(); ++i) {
        fmt::print("{:<44}", gemms_[first].parameters[i].parameter);
        for (std::size_t g = 0; g < kColumnCount; ++g) {
          fmt::print(" {:>10}", text_of(gemms_[first + g].parameters[i].difference.relative));
        }
        fmt::print("\n");
      }
    }
  }

  void print_losses() const {
    fmt::print("\nLosses before each of these updates, of a sample, against those of backprop\n\n");
    fmt::print("{:<18} {:<8} {:>14} {:>15}  {:<10} {}\n", "schedule", "dtype", "most apart", "before update", "first",
               "last");
    for (const Trained& trained : trained_) {
      if (trained.losses.empty()) continue;
      fmt::print("{:<18} {:<8} {:>14} {:>15}  {:<10.5g} {:.5g}\n", trained.subject.name(), name_of(trained.dtype),
                 text_of(trained.loss_relative), trained.loss_step + 1, trained.losses.front(), trained.losses.back());
    }
  }

  void print_left_out() const {
    double most = 0;
    const std::vector<std::string>* names = nullptr;  // the same of all
    for (const Trained& trained : trained_) {
      if (!trained.left_out.empty()) names = &trained.left_out;
      most = std::max(most, trained.left_out_absolute);
    }
    if (names == nullptr) return;
    fmt::print(
        "left out: {}, at most {} apart: backprop's gradients there are zero but for rounding, which is all that "
        "moves them\n",
        joined(*names), text_of(most));
  }

  void print_zeros() const {
    const auto compared = [](const Measured& m) { return m.compared; };
    const auto first = std::find_if(measured_.begin(), measured_.end(), compared);
    if (first == measured_.end()) return;
    std::vector<std::string> zeros;
    for (const Compared& c : first->parameters) {
      if (c.zero) zeros.push_back(c.parameter);
    }
    if (zeros.empty()) return;
    fmt::print("{} for {}: there errors are relative to the whole gradient\n", kZero, joined(zeros));
  }

  void print_notes() const {
    if (check_.reference_about().empty()) return;
    fmt::print("\nequal: a relative error of at most {:g} in float64 and {:g} in float32\n",
               config_.check.tolerance_f64, config_.check.tolerance_f32);
    print_zeros();
    if (options_.schedules.empty()) {
      fmt::print("ipc is left out: its weights move at every step, so it has no single gradient\n");
    }
  }

  const CheckOptions& options_;
  const Config& config_;
  ProgressLine progress_;
  BatchSource source_;
  CheckBatch batch_;
  Check check_;
  std::vector<Subject> subjects_;
  std::vector<Measured> measured_;
  std::vector<Measured> gemms_;
  std::vector<Law> laws_;
  std::vector<Trained> trained_;
  Json out_;
};

}  // namespace

int check_command(const CheckOptions& options, const Common& common) {
  const Config config = read(options);
  static_cast<void>(dtypes_of(options.dtypes, {}));
  const ExecContext where(config.device);
  CheckRun run(options, common, config, where);
  run.measure();
  run.gemm();
  run.laws();
  run.train();
  if (common.json) {
    fmt::print("{}\n", run.json().dump());
  } else {
    run.print_tables();
  }
  return static_cast<int>(run.failed() ? ExitStatus::failed : ExitStatus::done);
}

}  // namespace pc::experiments

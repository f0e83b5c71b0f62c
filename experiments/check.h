// Measures how far the gradients of a schedule are from backpropagation's, on any graph: the same weights, the same
// batch, one plan for each schedule. `pc check` shows what comes out (check_command.cpp).
#pragma once

#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "experiments/check_batch.h"
#include "pc/plan.h"

namespace pc::experiments {

/// Parameters, or what has their shapes, by name.
using Tensors = std::map<std::string, std::vector<double>>;

/// How far one gradient is from another. What is not finite is infinitely far, and has no cosine.
struct Difference {
  double relative = 0;  // |g - r| / |r|, both norms over all entries; 0 where both are zero
  double cosine = 1;    // of the angle between them; 1 where both are zero, 0 where one is
  double entry = 0;     // max |g - r| / max |r|

  /// False for NaN.
  [[nodiscard]] bool within(double tolerance) const { return relative <= tolerance; }
  /// Keeps the worse of each; true if the relative error was.
  bool worsen(const Difference& other);
};

Difference difference(const std::vector<double>& gradient, const std::vector<double>& reference);
/// The same of a parameter whose reference is taken for zero, which has no size of its own: in units of a whole
/// gradient's norm and largest entry. There is no angle; the cosine is 1.
Difference difference_from_zero(const std::vector<double>& gradient, const Tensors& whole);
/// Over all parameters together, as one long vector.
Difference total_difference(const Tensors& gradients, const Tensors& reference);

/// A schedule as it is measured.
struct Subject {
  const Schedule* schedule = nullptr;
  ScheduleSettings settings;

  /// "pc", "zil", "zil-pad"
  [[nodiscard]] std::string name() const;
  [[nodiscard]] bool pads() const;  // whether it runs on the padded graph
};

/// How a relaxation ended that should go on until it settles.
struct Settling {
  bool asked = false;   // there was a rule to end it
  bool reached = true;  // which did, within `most` steps
  int most = 0;
  double slope = 0;     // of a gradient rule: the steepest that it lets pass
  bool own = false;     // the config says how it relaxes
  std::string no_rate;  // why no rate could be found from the weights, so that the config's way of moving had to do

  [[nodiscard]] bool failed() const { return asked && !reached; }
};

struct Compared {
  std::string parameter;
  Difference difference;
  bool zero = false;  // the reference is zero, or would be but for rounding
};

struct Measured {
  Subject subject;
  DType dtype = DType::f64;
  std::string obstacle;   // why the schedule does not apply; the rest is then empty
  bool compared = false;  // false: it runs, but there is nothing to compare it with
  bool exact = false;     // it must equal the reference
  double tolerance = 0;
  std::vector<Compared> parameters;
  Difference worst;   // each of its numbers over all parameters
  std::string where;  // the parameter with the worst relative error
  Settling settling = {};

  [[nodiscard]] bool applies() const { return obstacle.empty(); }
  [[nodiscard]] bool passed() const { return compared && worst.within(tolerance); }
  [[nodiscard]] bool failed() const { return compared && exact && !passed(); }
};

/// Fills in the parameters and the worst of them. What is zero but for rounding (of a bias before a batch_norm, say) is
/// seen in `exact`, the reference in float64. Throws where a parameter is missing on one side.
void compare(Measured& measured, const Tensors& gradients, const Tensors& reference, const Tensors& exact);
inline void compare(Measured& measured, const Tensors& gradients, const Tensors& reference) {
  compare(measured, gradients, reference, reference);
}

/// How much of backprop's gradient the parameters of one level get.
struct LevelShare {
  int level = 0;
  double measured = 0, predicted = 0;
};

struct LawPoint {
  double value = 0;                     // of what is varied
  int steps = 0;                        // fixed_prediction
  double error = 0;                     // relative; laws of all parameters: of the worst
  std::vector<LevelShare> shares = {};  // laws that hold level by level
  Settling settling = {};               // of a relaxation that should have settled
};

/// What theory says of one setting, and what is measured.
struct Law {
  std::string schedule, varies, says;
  std::vector<LawPoint> points;
  std::optional<double> slope, expected_slope;  // of log error over log value
  std::optional<double> tolerance;              // of laws that hold exactly
  int parameters = 0, left_out = 0;             // which of them the law says something about
  std::string obstacle;

  [[nodiscard]] bool failed() const;
};

/// Least squares through (log value, log error); nothing with fewer than two errors above zero.
std::optional<double> fitted_slope(const std::vector<LawPoint>& points);

struct Trained {
  Subject subject;
  DType dtype = DType::f64;
  std::string obstacle;
  int steps = 0;
  double absolute = 0, relative = 0;  // largest difference of any weight; relative to the largest of its parameter
  std::string where;
  std::vector<std::string> left_out;  // parameters that are moved by rounding alone
  double left_out_absolute = 0;       // their largest difference
  std::vector<double> losses;         // before each update, of a sample; none where they cannot be told
  double loss_relative = 0;           // largest difference of the loss before any update
  int loss_step = 0;                  // that update, from 0
  std::optional<double> tolerance;    // of both; none in float32
  Settling settling = {};             // reached: before every update

  [[nodiscard]] bool failed() const {
    return obstacle.empty() && tolerance && !(relative <= *tolerance && loss_relative <= *tolerance);
  }
};

/// The parameters whose gradient (in float64) is zero, or would be but for rounding, where a gradient of this norm is
/// summed up; none where that is not finite.
std::set<std::string> zero_gradients(const Tensors& exact, double norm_of_all);

/// The largest difference of weights, into a result, but of those in `left_out`.
void compare_weights(Trained& trained, const Tensors& weights, const Tensors& reference,
                     const std::set<std::string>& left_out = {});
/// The same of the losses on the way there.
void compare_losses(Trained& trained, std::vector<double> losses, const std::vector<double>& reference);

class Check {
 public:
  /// Looks at a network after it has run: for dumps.
  using Look = std::function<void(Network&, std::int64_t batch)>;

  /// The config and the batch must outlive it.
  Check(const Config& config, const Exec& exec, const CheckBatch& batch);

  [[nodiscard]] const Graph& graph() const { return graph_; }
  [[nodiscard]] const Tensors& weights() const { return weights_; }
  /// "a -> b -> a"; empty on an acyclic graph.
  [[nodiscard]] const std::string& cycle() const { return cycle_; }
  /// Why backprop cannot run on the graph; empty: it can.
  [[nodiscard]] const std::string& no_backprop() const { return no_backprop_; }
  /// The same of the graph unrolled over its cycles; empty: it can, or there is no cycle.
  [[nodiscard]] const std::string& no_unrolled() const { return no_unrolled_; }
  /// What gradients are compared with, in words; empty: there is nothing to compare with.
  [[nodiscard]] const std::string& reference_about() const { return reference_about_; }

  /// Every schedule that has one gradient; zil and fa_zil both ways.
  [[nodiscard]] std::vector<Subject> subjects() const;
  /// By the name that Subject::name gives. Throws with the known ones.
  [[nodiscard]] Subject subject(const std::string& name) const;
  /// Whether it should equal backprop up to rounding.
  [[nodiscard]] bool must_equal(const Subject& subject) const;

  /// -dF/dw, summed over the batch. Throws an Error if the schedule cannot run.
  [[nodiscard]] Tensors gradients(const Subject& subject, DType dtype, const Look& look = nullptr) const;
  /// An obstacle is part of the result.
  [[nodiscard]] Measured measure(const Subject& subject, DType dtype, const Look& look = nullptr);
  /// Of the schedule in float32 with these operands of matrix products, against the same schedule in float64.
  [[nodiscard]] Measured gemm_error(const Subject& subject, DType operands) const;
  /// Those of these schedules; throws where there is none.
  [[nodiscard]] std::vector<Law> laws(const std::vector<Subject>& subjects);
  /// Trains from the same weights with backprop and with each of the schedules.
  [[nodiscard]] std::vector<Trained> train(const std::vector<Subject>& subjects, DType dtype, int steps,
                                           const BatchSource& source) const;

 private:
  struct Form {  // what a schedule runs on, and how
    graphs::Description graph;
    RelaxSpec relax;
  };
  [[nodiscard]] Form form_of(const Subject& subject, DType dtype) const;
  [[nodiscard]] PlanSpec plan_spec(const Subject& subject, const Form& form, const Graph& graph) const;
  struct Ran {
    Tensors gradients;
    Settling settling;
  };
  [[nodiscard]] Ran run(const Subject& subject, const Form& form, DType dtype, const Look& look,
                        DType operands = DType::f32) const;
  [[nodiscard]] Ran run(const Subject& subject, const Form& form, DType dtype, const Look& look, DType operands,
                        const Tensors& weights) const;
  [[nodiscard]] Settling settling(const PlanSpec& spec, const Graph& graph) const;
  struct Training {
    Tensors weights;
    std::vector<double> losses;
    Settling settling;
  };
  [[nodiscard]] std::set<std::string> moved_by_rounding(const Tensors& trained) const;
  [[nodiscard]] Training training(const Subject& subject, DType dtype, int steps, const BatchSource& source) const;
  [[nodiscard]] Subject with_config_settings(const Schedule& schedule) const;
  [[nodiscard]] const Tensors& reference(DType dtype);
  void find_unrolled_reference();

  [[nodiscard]] Law ep_law();
  [[nodiscard]] Law output_precision_law();
  [[nodiscard]] Law gamma_law();
  [[nodiscard]] Law fixed_prediction_law();

  const Config& config_;
  Exec exec_;
  int threads_;
  const CheckBatch& batch_;
  std::vector<std::string> clamped_;
  Graph graph_;
  Tensors weights_;
  std::string cycle_, no_backprop_, no_unrolled_, reference_about_;
  int sweeps_ = 0;  // after which the unrolled graph's gradient has settled; 0: not unrolled
  std::map<DType, Tensors> references_;
};

/// The distance to the loss of the node that each parameter helps to predict, for parameters that have one distance:
/// all ways to the loss are equally long, whichever edge uses the parameter.
std::map<std::string, int> parameter_levels(const Graph& graph, const std::vector<Clamp>& clamps);

/// That at least k of t throws of a coin succeed, each with probability p: the part of an error that has come k nodes
/// far after t steps at rate p while predictions are fixed.
double at_least_successes(int t, double p, int k);

}  // namespace pc::experiments

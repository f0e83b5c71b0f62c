// What an edge of a predictive-coding graph can do. An operator is a value: no state, no inheritance. It is written
// once, for every device, in terms of kernels.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/kernel.h"
#include "kernels/scalar_math.h"
#include "kernels/sparse.h"
#include "kernels/sparse_blocks.h"
#include "kernels/window.h"
#include "kernels/write.h"
#include "pc/pattern.h"

namespace pc {

/// One setting of an operator, as its table lists it.
struct AttrSpec {
  enum class Kind : std::uint8_t {
    number,
    flag,  // 0 or 1
    list   // of numbers, of any length; by default empty. See set_list
  };
  std::string_view name;
  double fallback;
  std::string_view about;
  Kind kind = Kind::number;
};

/// The settings of one use of an operator; every name that its table lists has a value, a list one for each entry.
using Attrs = std::map<std::string, double, std::less<>>;

/// A setting that is a list.
void set_list(Attrs& attrs, std::string_view name, std::span<const double> list);
std::vector<double> list_of(const Attrs& attrs, std::string_view name);

/// What an operator knows when shapes are inferred. Shapes are per sample: the batch is not in them.
struct OpSite {
  std::span<const Shape> sources;
  const Attrs& attrs;
  std::optional<Shape> wanted;       // the shape that must come out, where the graph says so
  const Pattern* pattern = nullptr;  // of a sparse operator's weights

  /// For operators whose entries are what matters: the wanted shape where it has as many entries, else this one.
  [[nodiscard]] Shape as_wanted(const Shape& shape) const {
    return wanted.has_value() && wanted->count() == shape.count() ? *wanted : shape;
  }
};

/// How a parameter starts: weights and biases as the initialiser says, a gain at 1, an offset at 0.
enum class ParamRole : std::uint8_t { weight, bias, gain, offset };

/// A parameter that an operator needs, with the fans that initialisers ask for.
struct ParamSpec {
  std::string name;
  Shape shape;
  std::int64_t fan_in = 1, fan_out = 1;
  ParamRole role = ParamRole::weight;
};

/// What a network keeps for a sparse operator beside its parameters: a fixed property of the edge, in both directions,
/// and room for what products gather from.
struct SparseViews {
  kernels::SparseIndex by_row, by_column;  // of W, and of its transpose
  View place_by_row, place_by_column;      // of each value, where in the weights it stands; -1: nowhere, it is 0
  View values_by_row, values_by_column;  // the weights as products take them, as `prepare` left them, in the type that
                                         // products take samples in. Both views by row empty: the weights themselves
  View source_room, target_room;         // [in or more, batch or more] and [out or more, batch or more]

  /// Whether products go by blocks: those of predictions, or of what is pulled back.
  [[nodiscard]] bool predicts_by_blocks() const { return !by_row.blocks.empty(); }
  [[nodiscard]] bool pulls_by_blocks() const { return !by_column.blocks.empty(); }
};

/// What a network keeps for one use of an operator that is no parameter.
struct StateSpec {
  std::string_view name;
  Shape shape;
  bool each_sample = false;        // one for each sample of a batch; else one for all, which goes from batch to batch
  double start = 0;                // what is in it first
  std::vector<double> fixed = {};  // or what is always in it
};

/// The random numbers that a state is drawn from, one draw a batch.
struct StateDraw {
  std::uint64_t seed = 0;
  std::uint32_t stream = 0;
  View number;  // of the draw; a float64 scalar
};

/// One use of an operator on data: mu = op(x...; w...). Views of values are [batch, shape...].
struct OpCall {
  Exec exec;
  std::span<const View> x;
  std::span<const View> w;
  const Attrs& attrs;
  const SparseViews* sparse = nullptr;  // of a sparse operator
  bool changes = false;                 // x are changes of values: what does not depend on x is left out
  std::span<const View> state = {};     // of an operator that has one, in the plans that Op::state_serves
  View base = {};    // what a sparse operator without a bias adds its product to, in place of what is there
  View turned = {};  // where products go by blocks: x^T, or what is pulled back ^T, as they take it

  /// Whether `predict` takes weights that `prepare` has left.
  [[nodiscard]] bool copies_by_row() const { return sparse != nullptr && !sparse->values_by_row.empty(); }
};

/// Settings and shapes that the test sweeps run an operator with; at least one is odd-sized.
struct OpExample {
  Attrs attrs;
  std::vector<Shape> sources;
  std::optional<Shape> wanted;
  std::shared_ptr<const Pattern> pattern = nullptr;  // of a sparse operator's weights
};

struct Op {
  std::string_view name;
  std::string_view about;
  int min_sources = 1, max_sources = 1;  // max_sources -1: any number
  std::span<const AttrSpec> attrs = {};
  bool keeps_shape = false;    // one source, and the result has its shape
  bool affine = false;         // linear in its sources but for a constant; its pullback needs no x. See OpCall::changes
  bool products = false;       // x, the weight and delta go into matrix products, and may be operands of fewer bits
  bool channel_bias = false;   // w[1], where it is, is added to the result by its last axis, and left out of changes
  bool sparse = false;         // the first parameter has one entry for each of the edge's pattern, in its order
  bool mixes_samples = false;  // without a state, what comes out for one sample depends on all of the batch
  /// In place of `affine`, where that depends on the settings.
  bool (*affine_with)(const Attrs&) = nullptr;

  Shape (*infer)(const OpSite&) = nullptr;
  std::vector<ParamSpec> (*params)(const OpSite&, const Shape& out) = nullptr;  // null: none

  void (*predict)(const OpCall&, View mu, Write) = nullptr;  // op(x; w)
  /// op(x + dx) - op(x), of one source, without losing the digits of a small dx. Null: it follows from `affine`.
  void (*change)(const OpCall&, View dx, View out, Write) = nullptr;
  /// What comes before `pullback`, and before a `predict` that takes copies (SparseViews::values_by_row), whenever the
  /// weights have changed; or null.
  void (*prepare)(const OpCall&) = nullptr;
  void (*pullback)(const OpCall&, View delta, int source, View dx, Write) = nullptr;    // (d op/dx)^T delta
  void (*weight_grad)(const OpCall&, View delta, int param, View dw, Write) = nullptr;  // (d op/dw)^T delta
  /// Of a sparse operator, where its products go by blocks: `predict`, of one without a bias, and the error that
  /// follows; and `pullback` and the move that follows. The operator says what the product is of; where it goes has
  /// been said.
  void (*predict_error)(const OpCall&, kernels::SparseErrorArgs) = nullptr;
  void (*pullback_move)(const OpCall&, kernels::SparseMoveArgs) = nullptr;

  /// Plans that learn, or leave gradients, are one kind; all others, which only look, are the other. The operator is
  /// given its state in one of them, or in both.
  enum class Serves : std::uint8_t { learning, looking, all };
  Serves state_serves = Serves::learning;
  std::vector<StateSpec> (*state)(const Attrs&, const Shape& out) = nullptr;  // null: none
  void (*draw)(const OpCall&, const StateDraw&) = nullptr;  // when a batch to learn from begins; no x yet
  void (*observe)(const OpCall&) = nullptr;  // once a batch that updates weights, with x as relaxation will find it

  /// For activations: which one, so that a plan may fuse it with the error that follows.
  std::optional<scalar::Activation> activation = std::nullopt;
  /// For max-pools: the window over a sample of this shape, likewise.
  Window (*max_window)(const Attrs&, const Shape& x) = nullptr;

  /// The largest factor by which the operator can stretch a change of one source, in the 2-norm of a sample, weights
  /// aside (for linear: |gain|). Null, or infinite: no bound exists.
  double (*lipschitz)(const Attrs&) = nullptr;

  std::vector<OpExample> (*examples)() = nullptr;

  bool sums_last_axis =
      false;  // of `products`: predict adds up over the last axis of the first weight, see kernels/split.h
};

std::span<const Op* const> all_ops();
/// Throws with the known names when there is none.
const Op& find_op(std::string_view name);
/// The given settings with defaults for the rest; throws on a name that the operator does not have, and on a flag that
/// is neither 0 nor 1.
Attrs complete_attrs(const Op& op, const Attrs& given);

}  // namespace pc

// A graph with its parameters and all its buffers on a device.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "pc/arena.h"
#include "pc/graph.h"
#include "pc/neighbours.h"

namespace pc {

/// How weights start. Every draw is keyed by (seed, parameter, entry), so it is the same on every device.
struct WeightInit {
  enum class Kind : std::uint8_t {
    fan_in,  // uniform in +-1/sqrt(fan_in), biases too (as torch and equinox do for linear layers)
    xavier,  // uniform in +-sqrt(6 / (fan_in + fan_out)), biases 0 (Glorot & Bengio 2010)
    he,      // normal with deviation sqrt(2 / fan_in), biases 0 (He et al. 2015)
    normal,  // normal with deviation 1, biases 0
    zeros
  };
  Kind kind = Kind::fan_in;
  double scale = 1.0;  // multiplies what the kind gives
};

/// Buffers are named "kind/owner" in the arena and made at first use, for `max_batch` rows; the accessors give the
/// first `batch` rows.
class Network {
 public:
  Network(Graph graph, const Exec& exec, DType dtype, std::int64_t max_batch, std::uint64_t seed, WeightInit init);

  [[nodiscard]] const Graph& graph() const { return graph_; }
  [[nodiscard]] Arena& arena() { return arena_; }
  [[nodiscard]] const Arena& arena() const { return arena_; }
  [[nodiscard]] const Exec& exec() const { return arena_.exec(); }
  [[nodiscard]] DType dtype() const { return dtype_; }
  [[nodiscard]] std::int64_t max_batch() const { return max_batch_; }
  [[nodiscard]] std::uint64_t seed() const { return seed_; }

  // Parameters, as matrices [first dimension, the others].
  [[nodiscard]] View weight(ParamId id) const { return weights_[static_cast<std::size_t>(id)]; }
  [[nodiscard]] View mask(ParamId id) const { return masks_[static_cast<std::size_t>(id)]; }  // empty: none
  /// What learning adds up: -dF/dw, summed over the batch.
  [[nodiscard]] View gradient(ParamId id) { return param_buffer("dw", id); }
  /// A buffer shaped like a parameter: optimiser state.
  [[nodiscard]] View param_buffer(const std::string& kind, ParamId id);

  // Values and errors, [batch, shape].
  [[nodiscard]] View node_buffer(const std::string& kind, NodeId id, std::int64_t batch);
  [[nodiscard]] View prediction_buffer(const std::string& kind, PredictionId id, std::int64_t batch);
  /// Belongs to link `link` of an edge and has the shape that the link gives. That of a first link which is an
  /// activation belongs to all edges that begin with it (first_maps).
  [[nodiscard]] View link_buffer(const std::string& kind, EdgeId edge, int link, std::int64_t batch);
  [[nodiscard]] View value(NodeId id, std::int64_t batch) { return node_buffer("x", id, batch); }
  /// Precisions of a prediction, one per entry; empty where there is one for all, which `precision_scale` then is.
  [[nodiscard]] View precisions(PredictionId id);
  [[nodiscard]] double precision_scale(PredictionId id) const;
  /// One float64 per row of the batch.
  [[nodiscard]] View row_buffer(const std::string& name, std::int64_t batch);
  /// A float64 on the device.
  [[nodiscard]] View scalar(const std::string& name) { return arena_.take(name, {}, DType::f64); }

  /// Memory for another view's entries as operands of type `type` (DType), times 2^exponent; the same at each call. Of
  /// tf32: the view's own.
  [[nodiscard]] View operand(const View& of, DType type, int exponent);
  /// Memory for another view's entries in three parts, of which each run is `run` long (kernels/split.h).
  [[nodiscard]] View split_operand(const View& of, DType type, std::int64_t run);
  /// Memory for another view's entries transposed, as sparse products by blocks take them: bfloat16 [cols, rows].
  [[nodiscard]] View turned_operand(const View& of);
  /// Set to 1 by whatever does not fit a float16 operand.
  [[nodiscard]] View overflow() { return scalar("flag/overflow"); }

  /// The edge whose buffers hold what an edge's first link, an activation, makes, and whether others' do too.
  [[nodiscard]] EdgeId first_map(EdgeId edge) const { return first_maps_[static_cast<std::size_t>(edge)]; }
  [[nodiscard]] bool shares_map(EdgeId edge) const {
    return std::count(first_maps_.begin(), first_maps_.end(), first_map(edge)) > 1;
  }

  /// What an operator call needs, for link `link` of an edge, given the value buffers of this batch.
  [[nodiscard]] std::vector<View> link_inputs(EdgeId edge, int link, std::int64_t batch);
  [[nodiscard]] std::vector<View> link_weights(EdgeId edge, int link) const;
  /// What the network keeps for the sparse operator that has this parameter as its weight, or for that link; null: it
  /// is not one.
  [[nodiscard]] const SparseViews* sparse(ParamId weight) const;
  [[nodiscard]] const SparseViews* sparse(EdgeId edge, int link) const;
  /// The same with bfloat16 weights in blocks (kernels/sparse.h), of directions that have them; made when first asked
  /// for.
  [[nodiscard]] const SparseViews* sparse_by_blocks(EdgeId edge, int link);
  /// The state of a link whose operator has one: buffers "drawn/..." of those for each sample, "fixed/..." of
  /// what never changes, "running/..." else.
  [[nodiscard]] std::vector<View> link_state(EdgeId edge, int link, std::int64_t batch);

 private:
  View aligned_operand(std::int64_t rows, std::int64_t cols, DType type);
  void init_weight(ParamId id, WeightInit init);
  View shared(const std::string& name, const Shape& shape);
  [[nodiscard]] const View* whole_of(const View& of) const;
  [[nodiscard]] bool only_products(EdgeId map) const;
  void place_patterns();

  Graph graph_;
  Arena arena_;
  DType dtype_;
  std::int64_t max_batch_;
  std::uint64_t seed_;
  std::vector<EdgeId> first_maps_;
  Neighbours neighbours_;
  std::map<std::string, View> shared_;  // what neighbours are parts of
  std::vector<View> weights_, masks_;
  std::map<std::tuple<void*, std::int64_t, std::int64_t, DType, int>, View> operands_;
  std::map<ParamId, std::shared_ptr<const Pattern>> patterns_;
  std::map<ParamId, SparseViews> sparse_, by_blocks_;
};

}  // namespace pc

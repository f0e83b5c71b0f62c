// The graph: nodes with values, their predictions, and the edges into those. A description without memory: shapes are
// inferred and checked once, when it is made.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "pc/energy.h"
#include "pc/op.h"

namespace pc {

using NodeId = int;
using PredictionId = int;
using EdgeId = int;
using ParamId = int;

// --- what the maker of a graph writes down ---

/// The energy of one prediction.
struct EnergySpec {
  const Energy* energy = &gaussian;
  std::vector<double> precision = {1.0};  // one for all entries, or one each
  /// Above 0: precisions are learned, one for each entry, beginning with these. After each update of the weights the
  /// variances 1 / precision go this part of the way to the mean squares of the settled errors (natural gradient
  /// descent on 1/2 sum (p e^2 - log p); Friston 2005, "A theory of cortical responses", has the same optimum).
  /// Energies leave the logarithms out. Gaussian only, and only where a relaxation settles.
  double learn_precision = 0;
  /// Those that are learned stay below; 0: below 1e6. Settled errors of hidden nodes are small, so their precisions
  /// grow, and relaxation needs ever smaller steps: rate: auto finds them for precisions as large as this.
  double most_precision = 0;
};

struct NodeSpec {
  std::string name;
  Shape shape;                                                  // per sample
  EnergySpec energy;                                            // of the default prediction
  std::vector<std::pair<std::string, EnergySpec>> predictions;  // of further ones, by name
  bool prior = false;  // a trainable constant prediction of its own, named "prior"; `predictions` may list its energy
  std::string place;   // where it was written, for messages
};

struct OpSpec {
  const Op* op = nullptr;
  Attrs attrs;
};

struct EdgeSpec {
  std::string name;  // empty: made from its ends
  std::vector<std::string> from;
  std::string to;
  std::string prediction;     // empty: the default one
  std::vector<OpSpec> chain;  // the first takes the sources, the last gives the contribution to mu
  std::string share;          // edges with one name here share their parameters
  /// Entries to keep (not 0) of the chain's first weight matrix, row by row, given its shape; empty: all.
  std::function<std::vector<std::uint8_t>(const Shape&)> mask;
  std::shared_ptr<const Pattern> pattern;  // the same as a list, in place of a mask
  std::string place;
};

// --- what the graph makes of it ---

struct Node {
  std::string name;
  Shape shape;
  std::vector<PredictionId> predictions;
  std::vector<EdgeId> out;  // edges that read it; once each, even when they read it twice
};

struct Prediction {
  std::string name;
  NodeId node = 0;
  EnergySpec spec;
  std::vector<EdgeId> edges;
};

/// One operator of an edge, with its parameters and the shape that it gives.
struct Link {
  const Op* op = nullptr;
  Attrs attrs;
  std::vector<ParamId> params;
  Shape out;
  std::shared_ptr<const Pattern> pattern = nullptr;  // of a sparse operator's weights

  /// Of this use of the operator: Op::affine.
  [[nodiscard]] bool affine() const { return op->affine_with == nullptr ? op->affine : op->affine_with(attrs); }
};

struct Edge {
  std::string name;
  std::vector<NodeId> from;
  PredictionId prediction = 0;
  std::vector<Link> chain;
};

struct Param {
  std::string name;
  ParamSpec spec;
  std::vector<std::uint8_t> mask;  // empty: none
  int uses = 0;                    // links that share it
};

struct Fans {
  double in, out;
};
/// How many inputs an output of these weights has in the mean, and outputs an input: those that a mask, or a sparse
/// operator's pattern (null: it has none), leaves; at least 1.
Fans fans_of(const Param& param, const Pattern* pattern);

class Graph {
 public:
  /// Infers and checks every shape. Errors name the node or edge, with its place where it has one.
  Graph(const std::vector<NodeSpec>& nodes, const std::vector<EdgeSpec>& edges);

  [[nodiscard]] const std::vector<Node>& nodes() const { return nodes_; }
  [[nodiscard]] const std::vector<Prediction>& predictions() const { return predictions_; }
  [[nodiscard]] const std::vector<Edge>& edges() const { return edges_; }
  [[nodiscard]] const std::vector<Param>& params() const { return params_; }

  [[nodiscard]] const Node& node(NodeId id) const { return nodes_[static_cast<std::size_t>(id)]; }
  [[nodiscard]] const Prediction& prediction(PredictionId id) const {
    return predictions_[static_cast<std::size_t>(id)];
  }
  [[nodiscard]] const Edge& edge(EdgeId id) const { return edges_[static_cast<std::size_t>(id)]; }
  [[nodiscard]] const Param& param(ParamId id) const { return params_[static_cast<std::size_t>(id)]; }

  /// Throws with the known names when there is no such node.
  [[nodiscard]] NodeId find(std::string_view name) const;
  [[nodiscard]] int node_count() const { return static_cast<int>(nodes_.size()); }
  [[nodiscard]] int prediction_count() const { return static_cast<int>(predictions_.size()); }
  [[nodiscard]] int edge_count() const { return static_cast<int>(edges_.size()); }
  [[nodiscard]] int param_count() const { return static_cast<int>(params_.size()); }
  /// Trainable numbers; masked ones and further uses of shared ones are not counted.
  [[nodiscard]] std::int64_t weight_count() const;

 private:
  void add_node(const NodeSpec& spec);
  void add_edge(const EdgeSpec& spec, std::vector<std::pair<std::string, EdgeId>>& shared);
  PredictionId add_prediction(NodeId node, const std::string& name, const EnergySpec& energy, const std::string& place);
  PredictionId prediction_for(NodeId node, const EdgeSpec& spec);
  void add_params(Edge& edge, Link& link, const OpSite& site, const Link* sharer);
  void add_mask(const EdgeSpec& spec, const Edge& edge);

  std::vector<Node> nodes_;
  std::vector<Prediction> predictions_;
  std::vector<Edge> edges_;
  std::vector<Param> params_;
  std::vector<EnergySpec> default_energy_;  // per node, until an edge asks for the default prediction
  std::vector<std::string> place_;          // per node
};

}  // namespace pc

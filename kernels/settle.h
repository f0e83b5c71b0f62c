// A whole relaxation of a dense network in one kernel, by changes since its start (kernels/change.h). On CUDA, where
// one block's shared memory holds all weights, each block takes a few samples and goes through every step by itself,
// without a word to the others; with weights of 16 bits tensor cores multiply, up to eight samples at a time, and a few
// blocks may share these (settle_warps.h). Larger networks with weights of 16 bits are cut into tiles, which the blocks
// share and hand over to each other (settle_tiles.h).
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "kernels/kernel.h"
#include "kernels/narrow.h"
#include "kernels/scalar_math.h"
#include "kernels/write.h"

namespace pc::kernels {

using scalar::Activation;

/// z = gain before(x_source) W^T and whatever is constant, and its prediction gets after(z). Without W: z = x_source.
/// Without a source z stays what it is at the start: such an edge is listed where its slope is asked for.
struct SettleEdge {
  int source = 0, prediction = 0;  // places in the lists; no source: -1
  View w = {};                     // [out, in]; all of one type, perhaps of fewer bits than the values
  View z = {};                     // [rows, out]: at the start; needed where there is an activation after
  double gain = 1;
  Activation before = Activation::identity, after = Activation::identity;
  double leak = 0;  // of both
  View bias = {};   // [out]; of z, where the call makes it

  [[nodiscard]] bool constant() const { return source < 0; }
};

/// E = 1/2 p |x - mu|^2 of one node.
struct SettlePrediction {
  int node = 0;
  View start = {};  // [rows, n]: x - mu at the start; empty: zero
  double precision = 1;
  // From 1 on: it is made at the start by the call itself, from the values and, of edges that stay, z, after those of
  // lower stages; the first of a node that moves is where the node begins. And [rows] the energy there, in float64.
  int stage = 0;
  View energy_start = {};
  // What the last move leads to, where it is wanted: delta = p (x - mu); dz = delta after'(z) of its edge, if that is
  // its only one; the last of these that is wanted as an operand; and [rows] the energy, in float64.
  View delta = {}, dz = {}, energy = {};
  Narrowed narrow = {};
};

struct SettleNode {
  View x;        // [rows, n]: at the start; written, if it begins at a prediction
  View dx = {};  // [rows, n]: how far it moves; empty: it is clamped
  // Not empty: x + dx, perhaps in the place of x; and both as operands.
  View whole = {};
  Narrowed narrow = {}, narrow_whole = {};
};

/// `steps` times, for all free nodes at once: velocity <- momentum velocity + dF/dx;  dx <- dx - rate velocity, from
/// zero. Only edges whose source may move are listed.
struct SettleArgs {
  template <class T>
  struct List {
    std::vector<T> items = {};
    int count = 0;

    void add(const T& item) {
      items.push_back(item);
      ++count;
    }
    [[nodiscard]] auto begin() const { return items.begin(); }
    [[nodiscard]] auto end() const { return items.end(); }
    [[nodiscard]] T& operator[](int i) { return items[static_cast<std::size_t>(i)]; }
    [[nodiscard]] const T& operator[](int i) const { return items[static_cast<std::size_t>(i)]; }
  };
  List<SettleNode> nodes;
  List<SettlePrediction> predictions;
  List<SettleEdge> edges;
  int steps = 1;
  double rate = 0.1, momentum = 0;
  int exponent = 0;    // with weights of 16 bits: what they multiply is rounded as well, times 2^exponent
  View overflow = {};  // and this float64 scalar set to 1 where that does not fit float16
  View scratch =
      {};  // settle_scratch(args) bytes: the network is cut into tiles. Empty: a block does its samples alone
  bool warps = false;  // and there its warps own the values that they move (settle_warps.h)

  [[nodiscard]] std::int64_t rows() const { return nodes[0].x.rows(); }
  [[nodiscard]] DType dtype() const { return nodes[0].x.dtype; }
  /// Of what is multiplied.
  [[nodiscard]] DType operands() const {
    for (const SettleEdge& e : edges) {
      if (!e.w.empty()) return e.w.dtype;
    }
    return dtype();
  }
  [[nodiscard]] std::int64_t width(const SettlePrediction& p) const { return nodes[p.node].x.cols(); }
  /// Whether a prediction, by its number, is where its node begins.
  [[nodiscard]] bool makes(int i) const {
    const int node = predictions[i].node;
    const auto first =
        std::find_if(predictions.begin(), predictions.end(), [&](const auto& p) { return p.node == node; });
    return predictions[i].stage > 0 && !nodes[node].dx.empty() && first == predictions.begin() + i;
  }
  [[nodiscard]] int stages() const {
    int last = 0;
    for (const SettlePrediction& p : predictions) last = std::max(last, p.stage);
    return last;
  }

  void check() const {
    PC_CHECK(nodes.count > 0 && steps > 0, "settle", "there is nothing to do");
    for (const SettleNode& node : nodes) {
      PC_CHECK(node.x.rows() == rows() && node.x.dtype == dtype(), "settle", "nodes differ in rows or types");
      if (node.dx.empty()) continue;
      check_alike("settle", node.x, node.dx);
      if (!node.whole.empty()) check_alike("settle", node.x, node.whole);
      node.narrow.check("settle", node.x);
      node.narrow_whole.check("settle", node.x);
    }
    for (int i = 0; i < predictions.count; ++i) {
      const SettlePrediction& p = predictions[i];
      for (const View* view : {&p.start, &p.delta, &p.dz}) {
        if (!view->empty()) check_alike("settle", nodes[p.node].x, *view);
      }
      const bool first = !p.dz.empty() || !p.energy.empty() || !p.narrow.y.empty();
      PC_CHECK(!first || !p.delta.empty(), "settle", "what else is wanted of an error goes with the error");
      for (const View* view : {&p.energy, &p.energy_start}) {
        PC_CHECK(view->empty() || (view->count() == rows() && view->dtype == DType::f64), "settle",
                 "energy must be float64, one per row");
      }
      PC_CHECK(p.energy_start.empty() || p.stage > 0, "settle", "where it does not begin there is no energy");
      const auto of_this = std::count_if(edges.begin(), edges.end(), [&](const auto& e) { return e.prediction == i; });
      PC_CHECK(p.dz.empty() || of_this == 1, "settle", "dz is that of an only edge");
      p.narrow.check("settle", nodes[p.node].x);
    }
    const bool tensor = operands() != dtype();
    PC_CHECK(!tensor || (dtype() == DType::f32 && size_of(operands()) == 2 && overflow.dtype == DType::f64 &&
                         overflow.count() == 1),
             "settle", "weights of ", name_of(operands()), " do not go with values of ", name_of(dtype()));
    for (const SettleEdge& e : edges) {
      const bool made = predictions[e.prediction].stage > 0 && !e.constant();
      PC_CHECK(made || e.after == Activation::identity || !e.z.empty(), "settle",
               "an activation needs what it began with");
      PC_CHECK(
          e.bias.empty() || (made && e.bias.count() == width(predictions[e.prediction]) && e.bias.dtype == dtype()),
          "settle", "a bias is for a prediction that is made here, one for each of its entries");
      if (!e.z.empty()) check_alike("settle", nodes[predictions[e.prediction].node].x, e.z);
      if (e.constant()) continue;
      const std::int64_t in = nodes[e.source].x.cols(), out = width(predictions[e.prediction]);
      const bool fits = e.w.empty() ? in == out : e.w.rows() == out && e.w.cols() == in && e.w.dtype == operands();
      PC_CHECK(fits, "settle", "weights do not fit their nodes");
      PC_CHECK(!nodes[e.source].dx.empty(), "settle", "an edge begins at a node that cannot move");
    }
  }
  void touches(Touches& t) const {
    for (const SettleNode& node : nodes) {
      t.read(node.x).write(node.dx).write(node.whole);
      node.narrow.touches(t);
      node.narrow_whole.touches(t);
    }
    for (int i = 0; i < predictions.count; ++i) {
      const SettlePrediction& p = predictions[i];
      t.read(p.start).write(p.energy_start).write(p.delta).write(p.dz).write(p.energy);
      if (makes(i)) t.write(nodes[p.node].x);
      p.narrow.touches(t);
    }
    for (const SettleEdge& e : edges) t.read_all(e.w).read(e.z).read_all(e.bias);  // `overflow` is only ever set to 1
    t.write_all(scratch);
  }
  [[nodiscard]] double flops() const;
};

void settle_cpu(const SettleArgs&, Share);
void settle_cuda(const SettleArgs&, CudaContext&);
bool settle_by_warps_cuda(const SettleArgs&, CudaContext&);

/// Nodes, predictions and edges that a block can do alone, at most of each.
inline constexpr int kSettleMost = 16;

/// Where everything lies in a block's shared memory, in entries (of dtype(), also where two operands share one): the
/// weights once, the state for each sample.
struct SettleLayout {
  struct NodeAt {
    int dx, velocity;
  };
  struct PredictionAt {
    int start, delta;
  };
  struct EdgeAt {
    // x at the start, the change of before(x) and its slope; z at the start, and what is sent back through it; and
    // operands of 16 bits, what is multiplied by W and by its transpose
    int w, x, a, slope, z, dz, forward, back;
  };
  std::array<NodeAt, kSettleMost> nodes = {};
  std::array<PredictionAt, kSettleMost> predictions = {};
  std::array<EdgeAt, kSettleMost> edges = {};
  int weights = 0, state = 0;
};

/// Bytes of a block's memory for what it must do.
inline constexpr std::size_t kSettleDescription = 8192;
/// Tensor cores take squares of so many entries, of a matrix whose rows are 16 bytes further apart than they are long:
/// then those of a square lie in different memory banks.
inline constexpr int kSettleTile = 16, kSettleGap = 8;
constexpr int settle_tiled(std::int64_t n) {
  return static_cast<int>((n + kSettleTile - 1) / kSettleTile) * kSettleTile;
}

[[nodiscard]] SettleLayout settle_layout(const SettleArgs& args);
/// Whether warps can do the call there (settle_warps.h), and its start, if it is to begin by itself.
[[nodiscard]] bool settle_by_warps(const Exec& exec, const SettleArgs& args);
/// Whether a block of the device has memory enough for the weights and one sample.
[[nodiscard]] bool settle_fits(const Exec& exec, const SettleArgs& args);

/// The steps at which predictions' errors may first differ from zero, and nodes may first move; args.steps or more: not
/// in this relaxation. An error moves the sources of its prediction, and its own node, and so travels one edge a step.
struct SettleFirst {
  std::vector<int> predictions, nodes;
};
[[nodiscard]] SettleFirst settle_first(const SettleArgs& args);

inline constexpr Kernel<SettleArgs> settle{"settle", settle_cpu, PC_CUDA(settle_cuda)};

}  // namespace pc::kernels

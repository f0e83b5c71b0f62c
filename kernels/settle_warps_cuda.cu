#include "kernels/settle_warps.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <type_traits>
#include <vector>

#include "kernels/launch.cuh"
#include "kernels/narrow.cuh"
#include "kernels/squares.cuh"

namespace pc::kernels {
namespace {

constexpr int kWarp = 32, kWarps = 16, kThreads = kWarp * kWarps;
constexpr int kSamples = 8;  // of a block
constexpr int kTile = kSettleTile;
constexpr int kSlots = 2;        // tiles of a warp, at most
constexpr int kMostTiles = 64;   // of all predictions
constexpr int kHeld = 2;         // products of a warp whose weights stay in registers,
constexpr int kHeldSquares = 8;  // of so many squares each, at most
constexpr int kMostOf = 16;      // nodes, predictions, edges

/// SettleArgs as device code reads it, with places in a block's memory: operands in entries of 16 bits; the state in
/// sets of four entries, a set for each lane of a tile's warp.
struct Network {
  struct Node {
    float* x;
    float *dx, *whole;
    std::int64_t x_ld, dx_ld, whole_ld;
    int n, moves, begins;  // begins: at the stage at which its value is there
    int predictions_begin, predictions_end, leaving_begin, leaving_end;  // leaving: into the list
    cu::Narrow narrow, narrow_whole;
  };
  struct Prediction {
    const float* start;
    float *delta, *dz;
    double *energy, *energy_start;
    std::int64_t start_ld, delta_ld, dz_ld;
    cu::Narrow narrow;
    float precision;
    int node, stage, makes;
    int edges_begin, moving_end, edges_end;  // those that may change, then the others
    int start_at;                            // -1: zero
    int tile_at;                             // its tiles among those of all predictions
  };
  struct Edge {
    const void* w;
    const float *z, *bias;
    std::int64_t w_ld, z_ld;
    int source, in, out;
    Activation before, after;
    float gain, leak;
    int w_at, w_stride, forward_at, back_at;
    int before_at, after_at;  // where it began, its function and slope there; and the slope now
    int squares_in, squares_out;
  };
  struct Slot {
    int node = -1, first = 0;
  };
  Node nodes[kMostOf];
  Prediction predictions[kMostOf];
  Edge edges[kMostOf];
  int leaving[kMostOf];
  Slot slots[kWarps][kSlots];
  int held[kWarps][kHeld];  // products: see product_key
  int node_count, prediction_count, edge_count, steps, stages, operand_count, state_count, stride;
  std::int64_t rows;
  float rate, momentum, up, down;
  double* overflow;
  Activation f;  // of every edge that has one
};

constexpr int kNoProduct = -1;
constexpr int product_key(int edge, bool back, int slot) { return (edge * 2 + (back ? 1 : 0)) * kSlots + slot; }
constexpr int squares_of(int n) { return (n + kTile - 1) / kTile; }
constexpr int kSets = 4;  // of an activation's state
/// Rows of operands end with zeros up to a pair of squares, and up to what registers hold the other factor of; each
/// begins 16 bytes further in the memory banks.
constexpr int operand_stride(int n) {
  constexpr int kPair = 2 * kTile;
  return std::max((n + kPair - 1) / kPair * kPair, kHeldSquares * kTile) + kSettleGap;
}

/// Deals tiles out to warps, those with the longest products first, each to the warp that has least to do.
bool deal_out(Network& net) {
  struct Tile {
    int node, first, work;
  };
  std::vector<Tile> tiles;
  for (int v = 0; v < net.node_count; ++v) {
    const Network::Node& node = net.nodes[v];
    if (node.moves == 0 && node.predictions_begin == node.predictions_end) continue;  // nothing is to be done
    int work = 1;
    for (int p = node.predictions_begin; p < node.predictions_end; ++p) {
      for (int e = net.predictions[p].edges_begin; e < net.predictions[p].moving_end; ++e) {
        work += squares_of(net.edges[e].in);
      }
    }
    for (int i = node.leaving_begin; i < node.leaving_end; ++i) work += squares_of(net.edges[net.leaving[i]].out);
    for (int first = 0; first < node.n; first += kTile) tiles.push_back({v, first, work});
  }
  if (tiles.size() > std::size_t{kWarps} * kSlots) return false;
  std::stable_sort(tiles.begin(), tiles.end(), [](const Tile& a, const Tile& b) { return a.work > b.work; });
  std::array<int, kWarps> load{}, count{};
  for (const Tile& tile : tiles) {
    int least = -1;
    for (int w = 0; w < kWarps; ++w) {
      if (count[w] < kSlots && (least < 0 || load[w] < load[least])) least = w;
    }
    net.slots[least][count[least]++] = {tile.node, tile.first};
    load[least] += tile.work;
  }
  return true;
}

/// The longest products of each warp that registers take.
void hold(Network& net) {
  for (int w = 0; w < kWarps; ++w) {
    struct Product {
      int key, squares;
    };
    std::vector<Product> products;
    const auto add = [&](int edge, bool back, int slot) {
      const int squares = squares_of(back ? net.edges[edge].out : net.edges[edge].in);
      if (squares > 1 && squares <= kHeldSquares) products.push_back({product_key(edge, back, slot), squares});
    };
    for (int s = 0; s < kSlots; ++s) {
      if (net.slots[w][s].node < 0) continue;
      const Network::Node& node = net.nodes[net.slots[w][s].node];
      for (int p = node.predictions_begin; p < node.predictions_end; ++p) {
        for (int e = net.predictions[p].edges_begin; e < net.predictions[p].moving_end; ++e) add(e, false, s);
      }
      for (int i = node.leaving_begin; i < node.leaving_end; ++i) add(net.leaving[i], true, s);
    }
    std::stable_sort(products.begin(), products.end(),
                     [](const Product& a, const Product& b) { return a.squares > b.squares; });
    for (int i = 0; i < kHeld; ++i) {
      net.held[w][i] = i < static_cast<int>(products.size()) ? products[static_cast<std::size_t>(i)].key : kNoProduct;
    }
  }
}

/// Nothing where it is not for this kernel.
std::optional<Network> network_of(const SettleArgs& args) {
  if (std::max({args.nodes.count, args.predictions.count, args.edges.count}) > kMostOf) return std::nullopt;
  Network net{.f = Activation::identity};
  for (const SettleEdge& e : args.edges) {
    for (const Activation f : {e.before, e.after}) {
      if (f == Activation::identity) continue;
      if (net.f != Activation::identity && net.f != f) return std::nullopt;
      net.f = f;
    }
    if (!e.constant()) {
      net.stride = std::max({net.stride, operand_stride(static_cast<int>(args.nodes[e.source].x.cols())),
                             operand_stride(static_cast<int>(args.width(args.predictions[e.prediction])))});
    }
  }
  const auto take = [](int& end, int n) {
    const int at = end;
    end += n;
    return at;
  };
  const auto state_of = [&](int n, int sets) { return take(net.state_count, squares_of(n) * kWarp * sets); };
  std::array<int, kMostOf> prediction_at{}, order{};
  // A node's predictions stand beside each other, and so do a prediction's edges.
  for (int v = 0; v < args.nodes.count; ++v) {
    const SettleNode& n = args.nodes[v];
    Network::Node& node = net.nodes[net.node_count++];
    node = {.x = n.x.as<float>(),
            .dx = n.dx.as<float>(),
            .whole = n.whole.as<float>(),
            .x_ld = n.x.ld(),
            .dx_ld = n.dx.empty() ? 0 : n.dx.ld(),
            .whole_ld = n.whole.empty() ? 0 : n.whole.ld(),
            .n = static_cast<int>(n.x.cols()),
            .moves = n.dx.empty() ? 0 : 1,
            .predictions_begin = net.prediction_count,
            .narrow = cu::Narrow(n.narrow),
            .narrow_whole = cu::Narrow(n.narrow_whole)};
    for (int p = 0; p < args.predictions.count; ++p) {
      const SettlePrediction& from = args.predictions[p];
      if (from.node != v) continue;
      prediction_at[p] = net.prediction_count;
      order[net.prediction_count] = p;
      Network::Prediction& prediction = net.predictions[net.prediction_count++];
      prediction = {.start = from.start.as<float>(),
                    .delta = from.delta.as<float>(),
                    .dz = from.dz.as<float>(),
                    .energy = from.energy.as<double>(),
                    .energy_start = from.energy_start.as<double>(),
                    .start_ld = from.start.empty() ? 0 : from.start.ld(),
                    .delta_ld = from.delta.empty() ? 0 : from.delta.ld(),
                    .dz_ld = from.dz.empty() ? 0 : from.dz.ld(),
                    .narrow = cu::Narrow(from.narrow),
                    .precision = static_cast<float>(from.precision),
                    .node = v,
                    .stage = from.stage,
                    .makes = args.makes(p) ? 1 : 0};
      const bool apart = !from.start.empty() || (from.stage > 0 && prediction.makes == 0);
      prediction.start_at = apart ? state_of(node.n, 1) : -1;
      if (prediction.makes != 0) node.begins = from.stage;
    }
    node.predictions_end = net.prediction_count;
  }
  for (int p = 0; p < net.prediction_count; ++p) {
    Network::Prediction& prediction = net.predictions[p];
    prediction.edges_begin = net.edge_count;
    for (const bool moving : {true, false}) {
      for (int k = 0; k < args.edges.count; ++k) {
        const SettleEdge& e = args.edges[k];
        if (e.prediction != order[p] || e.constant() == moving) continue;
        if (moving && e.w.empty()) return std::nullopt;
        const int out = net.nodes[prediction.node].n, in = moving ? net.nodes[e.source].n : 0;
        Network::Edge& edge = net.edges[net.edge_count++];
        edge = {.w = e.w.data,
                .z = e.z.as<float>(),
                .bias = e.bias.as<float>(),
                .w_ld = moving ? e.w.ld() : 0,
                .z_ld = e.z.empty() ? 0 : e.z.ld(),
                .source = e.source,
                .in = in,
                .out = out,
                .before = e.before,
                .after = e.after,
                .gain = static_cast<float>(e.gain),
                .leak = static_cast<float>(e.leak),
                .w_stride = settle_tiled(in) + kSettleGap,
                .squares_in = squares_of(in),
                .squares_out = squares_of(out)};
        if (e.after != Activation::identity) edge.after_at = state_of(out, kSets);
        if (!moving) continue;
        edge.w_at = take(net.operand_count, settle_tiled(out) * edge.w_stride);
        edge.forward_at = take(net.operand_count, kSamples * net.stride);
        edge.back_at = take(net.operand_count, kSamples * net.stride);
        if (e.before != Activation::identity) edge.before_at = state_of(in, kSets);
      }
      if (moving) prediction.moving_end = net.edge_count;
    }
    prediction.edges_end = net.edge_count;
  }
  int leaving = 0;
  for (int v = 0; v < net.node_count; ++v) {
    net.nodes[v].leaving_begin = leaving;
    for (int e = 0; e < net.edge_count; ++e) {
      if (net.edges[e].source == v && net.edges[e].w != nullptr) net.leaving[leaving++] = e;
    }
    net.nodes[v].leaving_end = leaving;
  }
  net.steps = args.steps;
  net.stages = args.stages();
  net.rows = args.rows();
  net.rate = static_cast<float>(args.rate);
  net.momentum = static_cast<float>(args.momentum);
  net.up = std::ldexp(1.0F, args.exponent);
  net.down = std::ldexp(1.0F, -args.exponent);
  net.overflow = args.overflow.as<double>();
  net.operand_count = (net.operand_count + 7) / 8 * 8;
  int tiles = 0;
  for (int p = 0; p < net.prediction_count; ++p) {
    net.predictions[p].tile_at = take(tiles, squares_of(net.nodes[net.predictions[p].node].n));
  }
  if (tiles > kMostTiles || !deal_out(net)) return std::nullopt;
  hold(net);
  return net;
}

__device__ float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ float inverse(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// An activation and its slope, as in scalar_math.h with fewer instructions: of gelu both from one exponential.
template <Activation kind>
__device__ scalar::ValueSlope<float> activate(float z) {
  if constexpr (kind == Activation::gelu) {
    const float density = exp2_of(-0.72134752F * z * z);
    const float t = inverse(fmaf(0.3275911F * 0.70710678F, fabsf(z), 1.0F));
    float p = fmaf(0.5F * 1.061405429F, t, 0.5F * -1.453152027F);
    p = fmaf(p, t, 0.5F * 1.421413741F);
    p = fmaf(p, t, 0.5F * -0.284496736F);
    p = fmaf(p, t, 0.5F * 0.254829592F);
    const float tail = p * t * density, cdf = z < 0 ? tail : 1.0F - tail;
    return {z * cdf, fmaf(z * 0.39894228F, density, cdf)};
  } else {
    return scalar::activate<kind>(z, 0.0F);
  }
}

/// f(z + dz) - f(z) and f'(z + dz) from what is known of z, `before`; a small change of a curve by the mean of the
/// slopes at both ends, which errs by dz^2 / 12 times the third derivative.
template <Activation kind>
__device__ scalar::ValueSlope<float> change_since(scalar::ValueSlope<float> before, float z, float dz) {
  if constexpr (kind == Activation::identity) return {dz, 1.0F};
  const scalar::ValueSlope<float> after = activate<kind>(z + dz);
  const bool by_slope = kind == Activation::relu ? before.slope == after.slope : fabsf(dz) < 1.0F / 64;
  return {by_slope ? 0.5F * (before.slope + after.slope) * dz : after.value - before.value, after.slope};
}

/// What a thread has of a tile for eight samples: entries r and r + 8 of two samples each.
struct Four {
  float items[4];

  __device__ float& operator[](int i) { return items[i]; }
  __device__ float operator[](int i) const { return items[i]; }
};

/// A block's eight samples. Rows past the last are computed with, as copies of it, and never stored. What is done once
/// is written short: code that is seldom run has to be fetched.
template <class Operand, Activation f>
class Slice {
 public:
  /// `args`: of what is asked for in every step the numbers that are the same for all.
  __device__ Slice(const Network& net, const Network& args, float4* memory, double* energies)
      : net_(net),
        args_(args),
        state_(memory),
        operands_(reinterpret_cast<Operand*>(memory + args.state_count)),
        energies_(energies),
        lane_(static_cast<int>(threadIdx.x) % kWarp),
        column_(lane_ % 8 * args.stride + lane_ / 8 * 8),
        entry_(lane_ % 4 * 2 * args.stride + lane_ / 4) {
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      slots_[s] = net.slots[warp][s];
      dx_[s] = velocity_[s] = {};
    }
#pragma unroll
    for (int h = 0; h < kHeld; ++h) held_key_[h] = net.held[warp][h];
  }

  __device__ void load() {
    clear_operands();
    for (int e = 0; e < args_.edge_count; ++e) {
      if (net_.edges[e].w != nullptr) load_weights(net_.edges[e]);
    }
    __syncthreads();  // before zeros are written over
    each_slot_once([this](int, Network::Slot at) { load_state(at); });
    cu::wait_for_fetched();
    __syncthreads();
  }

  /// All predictions at the start, stage by stage, where they are not there yet.
  __device__ void begin() {
#pragma unroll 1
    for (int stage = 1; stage <= args_.stages; ++stage) {
      each_slot_once([this, stage](int, Network::Slot at) {
        const Network::Node& node = net_.nodes[at.node];
#pragma unroll 1
        for (int p = node.predictions_begin; p < node.predictions_end; ++p) {
          if (net_.predictions[p].stage == stage) begin(at, p);
        }
      });
      __syncthreads();
    }
#pragma unroll
    for (int h = 0; h < kHeld; ++h) {  // not earlier, so that registers are free for what comes before
      if (held_key_[h] != kNoProduct) load_held(h);
    }
  }

  /// In the first nothing has moved yet.
  template <bool first>
  __device__ void step() {
    each_slot([this](int s) { compare<first>(s); });
    __syncthreads();
    each_slot([this](int s) { move(s); });
    __syncthreads();
  }

  /// What the last move has led to: values, and, where they are wanted, errors.
  __device__ void store() {
    each_slot_once([this](int s, Network::Slot at) {
      const Network::Node& node = net_.nodes[at.node];
      Four dx;
#pragma unroll
      for (int i = 0; i < 4; ++i) dx[i] = s == 0 ? dx_[0][i] : dx_[1][i];
      if (node.moves != 0) store_values(at, dx);
#pragma unroll 1
      for (int p = node.predictions_begin; p < node.predictions_end; ++p) {
        if (net_.predictions[p].delta != nullptr) store_errors(at, p, dx);
      }
    });
    __syncthreads();
    add_energies();
  }

 private:
  template <class Body>
  __device__ void each_slot(Body body) {
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      if (slots_[s].node >= 0) body(s);
    }
  }
  static_assert(kSlots == 2);
  template <class Body>
  __device__ void each_slot_once(Body body) const {
#pragma unroll 1
    for (int s = 0; s < kSlots; ++s) {
      const Network::Slot at{s == 0 ? slots_[0].node : slots_[1].node, s == 0 ? slots_[0].first : slots_[1].first};
      if (at.node >= 0) body(s, at);
    }
  }
  __device__ static std::int64_t row() { return std::int64_t{blockIdx.x} * kSamples; }
  /// body(i, row, column): for each of a thread's entries of a tile.
  template <class Body>
  __device__ void each_entry(int first, Body body) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) body(i, row() + lane_ % 4 * 2 + i % 2, first + lane_ / 4 + i / 2 * 8);
  }
  __device__ Four read(const float* from, std::int64_t ld, int first, int n) const {
    Four result;
    each_entry(first, [&](int i, std::int64_t row, int col) {
      result[i] = col < n ? from[min(row, args_.rows - 1) * ld + col] : 0.0F;
    });
    return result;
  }
  __device__ void write(float* to, std::int64_t ld, int first, int n, const Four& values) const {
    each_entry(first, [&](int i, std::int64_t row, int col) {
      if (col < n && row < args_.rows) to[row * ld + col] = values[i];
    });
  }
  __device__ void narrow(const cu::Narrow& to, int first, int n, const Four& values) const {
    each_entry(first, [&](int i, std::int64_t row, int col) {
      if (col < n && row < args_.rows) to(row, col, values[i]);
    });
  }
  /// A thread's state of the tile that begins at `first`; further sets are kWarp apart.
  template <int sets>
  __device__ float4* state(int at, int first) const {
    return state_ + at + first / kTile * (sets * kWarp) + lane_;
  }
  __device__ static Four four(const float4& v) { return {{v.x, v.y, v.z, v.w}}; }
  __device__ static float4 packed(const Four& v) { return {v[0], v[1], v[2], v[3]}; }

  __device__ void clear_operands() {
    for (int e = 0; e < args_.edge_count; ++e) {
      const Network::Edge& edge = net_.edges[e];
      if (edge.w == nullptr) continue;
      const int count = 2 * kSamples * args_.stride;  // forward and back, beside each other
#pragma unroll 1
      for (int i = threadIdx.x; i < count / 2; i += kThreads) {
        reinterpret_cast<unsigned*>(operands_ + edge.forward_at)[i] = 0;
      }
    }
  }

  __device__ void load_weights(const Network::Edge& edge) {
    const auto* from = static_cast<const Operand*>(edge.w);
    Operand* to = operands_ + edge.w_at;
    using Eight = cu::Pack<Operand, 8>;
    const bool whole = edge.w_ld % 8 == 0 && reinterpret_cast<std::uintptr_t>(from) % sizeof(Eight) == 0;
    const int packs = edge.squares_in * 2, count = edge.squares_out * kTile * packs;
#pragma unroll 1
    for (int i = threadIdx.x; i < count; i += kThreads) {
      const int row = i / packs, col = i % packs * 8;
      auto* run = reinterpret_cast<Eight*>(to + row * edge.w_stride + col);
      if (whole && row < edge.out && col + 8 <= edge.in) {
        cu::fetch(run, reinterpret_cast<const Eight*>(from + row * edge.w_ld + col));
        continue;
      }
#pragma unroll 1
      for (int k = 0; k < 8; ++k) {
        const bool inside = row < edge.out && col + k < edge.in;
        run->items[k] = inside ? from[row * edge.w_ld + col + k] : Operand(0.0F);
      }
    }
  }

  /// Where the activation begins, with what it gives there, which is returned, and its slope.
  __device__ Four begin_activation(float4* at, const Four& x) const {
    Four value, slope;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const auto y = activate<f>(x[i]);
      value[i] = y.value;
      slope[i] = y.slope;
    }
    at[0] = packed(x);
    at[kWarp] = packed(value);
    at[2 * kWarp] = at[3 * kWarp] = packed(slope);
    return value;
  }

  /// What edges that leave a node will want of the value that it begins with.
  __device__ void begin_leaving(Network::Slot at, const Four& x) const {
    const Network::Node& node = net_.nodes[at.node];
#pragma unroll 1
    for (int i = node.leaving_begin; i < node.leaving_end; ++i) {
      const Network::Edge& edge = net_.edges[net_.leaving[i]];
      const bool mapped = edge.before != Activation::identity;
      const Four value = mapped ? begin_activation(state<kSets>(edge.before_at, at.first), x) : x;
      if (args_.stages > 0) send(edge.forward_at, at.first, value, 1);
    }
  }

  __device__ void load_state(Network::Slot at) const {
    const Network::Node& node = net_.nodes[at.node];
#pragma unroll 1
    for (int p = node.predictions_begin; p < node.predictions_end; ++p) {
      const Network::Prediction& prediction = net_.predictions[p];
      if (prediction.start != nullptr) {
        *state<1>(prediction.start_at, at.first) =
            packed(read(prediction.start, prediction.start_ld, at.first, node.n));
      }
#pragma unroll 1
      for (int e = prediction.edges_begin; e < prediction.edges_end; ++e) {
        const Network::Edge& edge = net_.edges[e];
        if (edge.after == Activation::identity || (prediction.stage > 0 && e < prediction.moving_end)) continue;
        begin_activation(state<kSets>(edge.after_at, at.first), read(edge.z, edge.z_ld, at.first, edge.out));
      }
    }
    if (node.begins == 0 && node.leaving_begin < node.leaving_end) {
      begin_leaving(at, read(node.x, node.x_ld, at.first, node.n));
    }
  }

  /// A prediction at the start.
  __device__ void begin(Network::Slot at, int p) const {
    const Network::Node& node = net_.nodes[at.node];
    const Network::Prediction& prediction = net_.predictions[p];
    Four mu = {};
#pragma unroll 1
    for (int e = prediction.edges_begin; e < prediction.edges_end; ++e) {
      const Network::Edge& edge = net_.edges[e];
      float4* after = state<kSets>(edge.after_at, at.first);
      Four z;
      if (e < prediction.moving_end) {
        z = multiply<false>(edge, at.first);
        each_entry(at.first, [&](int i, std::int64_t, int col) {
          z[i] = fmaf(edge.gain, z[i], edge.bias != nullptr && col < node.n ? edge.bias[col] : 0.0F);
        });
        if (edge.after != Activation::identity) z = begin_activation(after, z);
      } else if (edge.after == Activation::identity) {
        z = read(edge.z, edge.z_ld, at.first, node.n);
      } else {
        z = four(after[kWarp]);
      }
      each_entry(at.first, [&](int i, std::int64_t, int col) { mu[i] += col < node.n ? z[i] : 0.0F; });
    }
    if (prediction.makes != 0) {
      write(node.x, node.x_ld, at.first, node.n, mu);
      return begin_leaving(at, mu);
    }
    Four error = read(node.x, node.x_ld, at.first, node.n);
#pragma unroll
    for (int i = 0; i < 4; ++i) error[i] -= mu[i];
    *state<1>(prediction.start_at, at.first) = packed(error);
    add_squares(energies_ + kMostTiles * kSamples, prediction.tile_at + at.first / kTile, error);
  }

  /// How far an activation is from where it began after a change by `dx`, and its slope.
  __device__ static void follow(const float4* at, const Four& dx, Four& change, Four& slope) {
    const Four x = four(at[0]), value = four(at[kWarp]), before = four(at[2 * kWarp]);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const auto y = change_since<f>({value[i], before[i]}, x[i], dx[i]);
      change[i] = y.value;
      slope[i] = y.slope;
    }
  }

  // --- products ---

  /// A lane's address of a square of the weights, as load_square wants it: of 16 outputs, from `first` on.
  template <bool back>
  __device__ const Operand* square(const Network::Edge& edge, int first) const {
    const Operand* w = operands_ + edge.w_at;
    return back ? w + (lane_ / 16 * 8 + lane_ % 8) * edge.w_stride + first + lane_ / 8 % 2 * 8
                : w + (first + lane_ % 16) * edge.w_stride + lane_ / 16 * 8;
  }

  __device__ void load_held(int h) {
    const int key = held_key_[h], s = key % kSlots;
    const bool back = key / kSlots % 2 != 0;
    const Network::Edge& edge = net_.edges[key / (2 * kSlots)];
    const int first = s == 0 ? slots_[0].first : slots_[1].first;
    const int squares = back ? edge.squares_out : edge.squares_in;
#pragma unroll
    for (int k = 0; k < kHeldSquares; ++k) {
      held_[h][k][0] = held_[h][k][1] = held_[h][k][2] = held_[h][k][3] = 0;
      if (k >= squares) continue;
      if (back) {
        cu::load_square<true>(held_[h][k], square<true>(edge, first) + k * kTile * edge.w_stride);
      } else {
        cu::load_square<false>(held_[h][k], square<false>(edge, first) + k * kTile);
      }
    }
  }

  __device__ static Four sum_of(const float (&sums)[2][4]) {
    Four result;
#pragma unroll
    for (int i = 0; i < 4; ++i) result[i] = sums[0][i] + sums[1][i];
    return result;
  }

  __device__ Four multiply_held(int h, const Operand* columns) const {
    float sums[2][4] = {};  // of even and odd squares: so that one need not wait for the other
#pragma unroll
    for (int k = 0; k < kHeldSquares; k += 2) {
      unsigned b[4];
      cu::load_columns(b, columns + k * kTile);
      cu::multiply_add(sums[0], held_[h][k], b[0], b[1], Operand{});
      cu::multiply_add(sums[1], held_[h][k + 1], b[2], b[3], Operand{});
    }
    return sum_of(sums);
  }

  /// A tile of an edge's product with its weights, or back with the transpose, without the gain.
  template <bool back>
  __device__ Four multiply(const Network::Edge& edge, int first) const {
    const Operand* columns = operands_ + (back ? edge.back_at : edge.forward_at) + column_;
    const Operand* row = square<back>(edge, first);
    const int squares = back ? edge.squares_out : edge.squares_in, step = back ? kTile * edge.w_stride : kTile;
    float sums[2][4] = {};
#pragma unroll 1
    for (int k = 0; k < squares; k += 2) {
      unsigned a[4], b[4];
      cu::load_columns(b, columns + k * kTile);
      cu::load_square<back>(a, row + k * step);
      cu::multiply_add(sums[0], a, b[0], b[1], Operand{});
      if (k + 1 == squares) break;
      cu::load_square<back>(a, row + (k + 1) * step);
      cu::multiply_add(sums[1], a, b[2], b[3], Operand{});
    }
    return sum_of(sums);
  }
  /// The same, with weights from registers where they are there.
  template <bool back>
  __device__ Four multiply_in_step(int e, int s) const {
    const Network::Edge& edge = net_.edges[e];
    const int key = product_key(e, back, s);
    const Operand* columns = operands_ + (back ? edge.back_at : edge.forward_at) + column_;
    if (key == held_key_[0]) return multiply_held(0, columns);
    if (key == held_key_[1]) return multiply_held(1, columns);
    return multiply<back>(edge, slots_[s].first);
  }

  /// Leaves what is to be multiplied for others, times `scale`.
  __device__ void send(int at, int first, const Four& values, float scale) const {
    Operand* to = operands_ + at + entry_ + first;
    float largest = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float scaled = scale * values[i];
      largest = fmaxf(largest, fabsf(scaled));
      to[i % 2 * args_.stride + i / 2 * 8] = Operand(scaled);
    }
    if constexpr (std::is_same_v<Operand, __half>) {
      constexpr float kTooLarge = 65520;                                   // what rounds to infinity
      if (largest >= kTooLarge && !isinf(largest)) *args_.overflow = 1.0;  // whoever writes, writes the same
    }
  }

  // --- a step ---

  /// What an edge takes from the error, whose product is `z`, and how its activation stands.
  __device__ void subtract(const Network::Edge& edge, int first, bool several, Four z, Four& error, Four& slope) const {
    const float by = edge.gain * args_.down;
#pragma unroll
    for (int i = 0; i < 4; ++i) z[i] *= by;
    if (edge.after != Activation::identity) {
      float4* at = state<kSets>(edge.after_at, first);
      Four change;
      follow(at, z, change, slope);
      z = change;
      if (several) at[3 * kWarp] = packed(slope);
    } else {
      slope = {{1, 1, 1, 1}};
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) error[i] -= z[i];
  }

  template <bool first_step>
  __device__ void compare(int s) {
    const auto [v, first] = slots_[s];
    const Network::Node& node = net_.nodes[v];
#pragma unroll
    for (int i = 0; i < 4; ++i) velocity_[s][i] *= args_.momentum;
    for (int p = node.predictions_begin; p < node.predictions_end; ++p) {
      const Network::Prediction& prediction = net_.predictions[p];
      const int begin = prediction.edges_begin, end = prediction.moving_end;
      const bool several = end - begin > 1;
      Four delta = {}, slope;
      for (int e = begin; e < end; ++e) {
        if constexpr (first_step) {
          const Network::Edge& edge = net_.edges[e];
          const bool bare = edge.after == Activation::identity;
          slope = bare ? Four{{1, 1, 1, 1}} : four(state<kSets>(edge.after_at, first)[2 * kWarp]);
        } else {
          subtract(net_.edges[e], first, several, multiply_in_step<false>(e, s), delta, slope);
        }
      }
      const Four start = prediction.start_at >= 0 ? four(*state<1>(prediction.start_at, first)) : Four{};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        delta[i] = prediction.precision * (delta[i] + dx_[s][i] + start[i]);
        velocity_[s][i] += delta[i];
      }
      for (int e = begin; e < end; ++e) {
        const Network::Edge& edge = net_.edges[e];
        if (several) {
          const bool bare = edge.after == Activation::identity;
          slope = bare ? Four{{1, 1, 1, 1}} : four(state<kSets>(edge.after_at, first)[3 * kWarp]);
        }
        Four dz;
#pragma unroll
        for (int i = 0; i < 4; ++i) dz[i] = slope[i] * delta[i];
        send(edge.back_at, first, dz, args_.up);
      }
    }
  }

  __device__ void move(int s) {
    const auto [v, first] = slots_[s];
    const Network::Node& node = net_.nodes[v];
    if (node.moves == 0) return;
    for (int l = node.leaving_begin; l < node.leaving_end; ++l) {
      const int e = net_.leaving[l];
      const Network::Edge& edge = net_.edges[e];
      Four back = multiply_in_step<true>(e, s);
      const float by = -edge.gain * args_.down;
      if (edge.before != Activation::identity) {
        const Four slope = four(state<kSets>(edge.before_at, first)[3 * kWarp]);
#pragma unroll
        for (int i = 0; i < 4; ++i) back[i] *= slope[i];
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) velocity_[s][i] = fmaf(by, back[i], velocity_[s][i]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) dx_[s][i] = fmaf(-args_.rate, velocity_[s][i], dx_[s][i]);
    for (int l = node.leaving_begin; l < node.leaving_end; ++l) {
      const Network::Edge& edge = net_.edges[net_.leaving[l]];
      Four a = dx_[s];
      if (edge.before != Activation::identity) {
        float4* at = state<kSets>(edge.before_at, first);
        Four slope;
        follow(at, dx_[s], a, slope);
        at[3 * kWarp] = packed(slope);
      }
      send(edge.forward_at, first, a, args_.up);
    }
  }

  // --- the end ---

  __device__ void store_values(Network::Slot at, const Four& dx) const {
    const Network::Node& node = net_.nodes[at.node];
    Four whole = read(node.x, node.x_ld, at.first, node.n);
#pragma unroll
    for (int i = 0; i < 4; ++i) whole[i] += dx[i];
    write(node.dx, node.dx_ld, at.first, node.n, dx);
    if (node.whole != nullptr) write(node.whole, node.whole_ld, at.first, node.n, whole);
    narrow(node.narrow, at.first, node.n, dx);
    narrow(node.narrow_whole, at.first, node.n, whole);
  }

  __device__ void store_errors(Network::Slot at, int p, const Four& dx) const {
    const Network::Prediction& prediction = net_.predictions[p];
    const int n = net_.nodes[at.node].n;
    Four delta = {}, slope;
#pragma unroll 1
    for (int e = prediction.edges_begin; e < prediction.moving_end; ++e) {
      subtract(net_.edges[e], at.first, false, multiply<false>(net_.edges[e], at.first), delta, slope);
    }
    const Four start = prediction.start_at >= 0 ? four(*state<1>(prediction.start_at, at.first)) : Four{};
    each_entry(at.first,
               [&](int i, std::int64_t, int col) { delta[i] = col < n ? delta[i] + dx[i] + start[i] : 0.0F; });
    add_squares(energies_, prediction.tile_at + at.first / kTile, delta);
#pragma unroll
    for (int i = 0; i < 4; ++i) delta[i] *= prediction.precision;
    write(prediction.delta, prediction.delta_ld, at.first, n, delta);
    if (prediction.dz != nullptr) {
      if (prediction.moving_end == prediction.edges_begin) {  // its edge does not change
        slope = four(state<kSets>(net_.edges[prediction.edges_begin].after_at, at.first)[2 * kWarp]);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) delta[i] *= slope[i];
      write(prediction.dz, prediction.dz_ld, at.first, n, delta);
    }
    narrow(prediction.narrow, at.first, n, delta);
  }

  /// A tile's part of a prediction's energy, for each sample.
  __device__ void add_squares(double* energies, int tile, const Four& error) const {
    double even = double(error[0]) * error[0] + double(error[2]) * error[2];
    double odd = double(error[1]) * error[1] + double(error[3]) * error[3];
#pragma unroll
    for (int apart = 4; apart < kWarp; apart *= 2) {
      even += __shfl_xor_sync(~0U, even, apart);
      odd += __shfl_xor_sync(~0U, odd, apart);
    }
    if (lane_ >= 4) return;
    double* at = energies + tile * kSamples + lane_ * 2;
    at[0] = even;
    at[1] = odd;
  }
  /// Those of the end and those of the start, by a thread each.
  __device__ void add_energies() const {
    const int which = static_cast<int>(threadIdx.x) / kSamples, sample = static_cast<int>(threadIdx.x) % kSamples;
    const bool start = which >= kMostOf;
    const int p = start ? which - kMostOf : which;
    if (p >= args_.prediction_count || row() + sample >= args_.rows) return;
    const Network::Prediction& prediction = net_.predictions[p];
    double* to = start ? prediction.energy_start : prediction.energy;
    if (to == nullptr) return;
    double sum = 0;
    const double* energies = energies_ + (start ? kMostTiles * kSamples : 0) + prediction.tile_at * kSamples;
    const int tiles = squares_of(net_.nodes[prediction.node].n);
    for (int tile = 0; tile < tiles; ++tile) sum += energies[tile * kSamples + sample];
    to[row() + sample] = 0.5 * double(prediction.precision) * sum;
  }

  const Network &net_, &args_;
  float4* state_;
  Operand* operands_;
  double* energies_;
  int lane_, column_, entry_;  // and its places among operands that are multiplied, and that it sends
  Network::Slot slots_[kSlots];
  Four dx_[kSlots], velocity_[kSlots];
  int held_key_[kHeld];
  unsigned held_[kHeld][kHeldSquares][4];
};

template <class Operand, Activation f>
__global__ void __launch_bounds__(kThreads, 1) settle_warps_kernel(const __grid_constant__ Network net) {
  extern __shared__ float4 memory[];
  __shared__ Network here;
  __shared__ double energies[2 * kMostTiles * kSamples];
  static_assert(sizeof(Network) % sizeof(double) == 0);
  constexpr int kWords = sizeof(Network) / sizeof(double);
#pragma unroll 8
  for (int i = threadIdx.x / kWarp; i < kWords; i += kWarps) {  // a warp reads one argument at a time, as in settle
    const double word = reinterpret_cast<const double*>(&net)[i];
    if (threadIdx.x % kWarp == 0) reinterpret_cast<double*>(&here)[i] = word;
  }
  __syncthreads();
  Slice<Operand, f> slice(here, net, memory, energies);
  slice.load();
  slice.begin();
  slice.template step<true>();
#pragma unroll 1
  for (int t = 1; t < net.steps; ++t) slice.template step<false>();
  slice.store();
}

std::size_t bytes_of(const Network& net) {
  return static_cast<std::size_t>(net.state_count) * sizeof(float4) +
         static_cast<std::size_t>(net.operand_count) * sizeof(__half);
}

bool fits(const Network& net, CudaContext& context) {
  constexpr std::size_t kStatic = sizeof(Network) + sizeof(double) * 2 * kMostTiles * kSamples + 1024;
  return bytes_of(net) + kStatic <= cu::block_memory(context);
}

template <class Operand, Activation f>
void run_with(const Network& net, CudaContext& context) {
  const std::size_t bytes = bytes_of(net);
  PC_CUDA_CHECK(cudaFuncSetAttribute(settle_warps_kernel<Operand, f>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     static_cast<int>(bytes)));
  const auto blocks = static_cast<unsigned>((net.rows + kSamples - 1) / kSamples);
  settle_warps_kernel<Operand, f><<<blocks, kThreads, bytes, context.stream>>>(net);
  PC_CUDA_CHECK(cudaGetLastError());
}

constexpr std::array kActivations = {Activation::identity, Activation::gelu, Activation::tanh, Activation::relu,
                                     Activation::silu};

template <class Operand>
void run(const Network& net, CudaContext& context) {
  switch (net.f) {
    case Activation::gelu:
      return run_with<Operand, Activation::gelu>(net, context);
    case Activation::tanh:
      return run_with<Operand, Activation::tanh>(net, context);
    case Activation::relu:
      return run_with<Operand, Activation::relu>(net, context);
    case Activation::silu:
      return run_with<Operand, Activation::silu>(net, context);
    default:
      return run_with<Operand, Activation::identity>(net, context);
  }
}

}  // namespace

bool settle_warps_fit(const SettleArgs& args, CudaContext& context) {
  if (size_of(args.operands()) != 2) return false;
  const std::optional<Network> net = network_of(args);
  const auto known = [&] { return std::count(kActivations.begin(), kActivations.end(), net->f) > 0; };
  return net && known() && fits(*net, context);
}

void settle_warps_cuda(const SettleArgs& args, CudaContext& context) {
  PC_CHECK(settle_warps_fit(args, context), "settle", "warps cannot do this call");
  const Network net = *network_of(args);
  args.operands() == DType::f16 ? run<__half>(net, context) : run<__nv_bfloat16>(net, context);
}

}  // namespace pc::kernels

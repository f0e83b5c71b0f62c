#include "kernels/settle_warps.h"

#include <cooperative_groups.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <type_traits>
#include <vector>

#include "kernels/barrier.cuh"
#include "kernels/launch.cuh"
#include "kernels/narrow.cuh"
#include "kernels/squares.cuh"

namespace pc::kernels {
namespace {

constexpr int kWarp = 32, kWarps = 16;  // of a block, at most
constexpr int kSamples = 8;             // of a team: one block, or a cluster of blocks that share its tiles
constexpr int kTeam = 4;                // blocks, at most
constexpr int kTile = kSettleTile;
constexpr int kSlots = 2;        // tiles of a warp, at most
constexpr int kMostTiles = 64;   // of all predictions
constexpr int kHeld = 2;         // products of a warp whose weights stay in registers, where there are so many,
constexpr int kHeldSquares = 8;  // of so many squares each, at most
constexpr int kMostOf = 16;      // nodes, predictions, edges
// When those who work together wait for each other: after the stages of the start, after errors and after moves.
constexpr int kErrors = kMostOf + 1, kMoves = kErrors + 1, kMeetings = kMoves + 1;

/// What is the same for all and is asked for in every step.
struct Numbers {
  int node_count, prediction_count, edge_count, steps, stages, operand_count, state_count, stride, team;
  std::int64_t rows;
  float rate, momentum, up, down;
  double* overflow;
  Activation f;  // of every edge that has one
};

/// SettleArgs as device code reads it, with places in a block's memory: operands in entries of 16 bits; the state in
/// sets of four entries, a set for each lane of a tile's warp.
struct Network : Numbers {
  struct Floats {
    float* data = nullptr;
    std::int64_t ld = 0;
    int packs = 0;  // four entries may be read and written at once

    Floats() = default;
    explicit Floats(const View& v)
        : data(v.as<float>()), ld(v.empty() ? 0 : v.ld()), packs(cu::matrix<float>(v).packs() ? 1 : 0) {}
  };
  /// Entries as operands, of the type of the weights.
  struct Operands {
    std::uint16_t* data = nullptr;
    std::int64_t ld = 0;
    double* overflow = nullptr;
    float scale = 1;
    int packs = 0;

    Operands() = default;
    explicit Operands(const Narrowed& to)
        : data(static_cast<std::uint16_t*>(to.y.data)),
          ld(to.y.empty() ? 0 : to.y.ld()),
          overflow(to.overflow.as<double>()),
          scale(std::ldexp(1.0F, to.y.exponent)),
          packs(cu::Narrow(to).packs() ? 1 : 0) {}
  };
  struct Node {
    int n, moves, begins;  // begins: at the stage at which its value is there
    int predictions_begin, predictions_end, leaving_begin, leaving_end;  // leaving: into the list
    Floats x, dx, whole;
    Operands narrow, narrow_whole;
  };
  // Of a prediction and an edge a step reads only what comes first, in one or two words of 16 bytes.
  struct alignas(16) Prediction {
    int start_at;  // -1: zero
    float precision;
    int edges_begin, moving_end, edges_end;  // those that may change, then the others
    int node, stage, makes;
    int tile_at;  // its tiles among those of all predictions
    Floats start, delta, dz;
    Operands narrow;
    double *energy, *energy_start;
  };
  struct alignas(16) Edge {
    float gain;
    int forward_at, back_at;  // what is multiplied by the weights and by their transpose
    int before_at, after_at;  // where it began, its function and slope there; and the slope now. -1: no activation
    int w_at, w_stride;
    std::int16_t squares_in, squares_out;
    int source, in, out;
    int bias_at;  // -1: there is none
    const void* w;
    const float* bias;
    std::int64_t w_ld;
    Floats z;
  };
  /// A tile that a warp has, with its node's places in the lists.
  struct Slot {
    int node = -1, first = 0;
    std::int16_t predictions_begin = 0, predictions_end = 0, leaving_begin = 0, leaving_end = 0;
  };
  Node nodes[kMostOf];
  Prediction predictions[kMostOf];
  Edge edges[kMostOf];
  int leaving[kMostOf];
  Slot slots[kTeam][kWarps][kSlots];
  int held[kTeam][kWarps][kHeld];  // products: see product_key
  int busy[kTeam];                 // warps that have tiles
  int expected[kTeam][kMeetings];  // bytes that other blocks send
};

constexpr int kNoProduct = -1;
constexpr int product_key(int edge, bool back, int slot) { return (edge * 2 + (back ? 1 : 0)) * kSlots + slot; }
constexpr int squares_of(int n) { return (n + kTile - 1) / kTile; }
constexpr int kSets = 4;                     // of an activation's state
constexpr int kSent = kSamples * kTile * 2;  // bytes of a tile
constexpr int kWord = 4;                     // and of the word by which a block says that it is there
/// Rows of operands end with zeros up to a pair of squares, and up to what registers hold the other factor of; each
/// begins 16 bytes further in the memory banks.
constexpr int operand_stride(int n) {
  constexpr int kPair = 2 * kTile;
  return std::max((n + kPair - 1) / kPair * kPair, kHeldSquares * kTile) + kSettleGap;
}

/// Tiles that there is something to do for, and how much.
struct Tile {
  int node, first, work;
};
std::vector<Tile> tiles_of(const Network& net) {
  std::vector<Tile> tiles;
  for (int v = 0; v < net.node_count; ++v) {
    const Network::Node& node = net.nodes[v];
    if (node.moves == 0 && node.predictions_begin == node.predictions_end) continue;
    int work = 1;
    for (int p = node.predictions_begin; p < node.predictions_end; ++p) {
      for (int e = net.predictions[p].edges_begin; e < net.predictions[p].moving_end; ++e) {
        work += squares_of(net.edges[e].in);
      }
    }
    for (int i = node.leaving_begin; i < node.leaving_end; ++i) work += squares_of(net.edges[net.leaving[i]].out);
    for (int first = 0; first < node.n; first += kTile) tiles.push_back({v, first, work});
  }
  return tiles;
}

/// The longest products of each warp that registers take.
void hold(Network& net) {
  for (int b = 0; b < net.team; ++b) {
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
        if (net.slots[b][w][s].node < 0) continue;
        const Network::Node& node = net.nodes[net.slots[b][w][s].node];
        for (int p = node.predictions_begin; p < node.predictions_end; ++p) {
          for (int e = net.predictions[p].edges_begin; e < net.predictions[p].moving_end; ++e) add(e, false, s);
        }
        for (int i = node.leaving_begin; i < node.leaving_end; ++i) add(net.leaving[i], true, s);
      }
      std::stable_sort(products.begin(), products.end(),
                       [](const Product& a, const Product& b) { return a.squares > b.squares; });
      for (int i = 0; i < kHeld; ++i) {
        net.held[b][w][i] =
            i < static_cast<int>(products.size()) ? products[static_cast<std::size_t>(i)].key : kNoProduct;
      }
    }
  }
}

/// Deals tiles out to the warps of `team` blocks, those with the longest products first, each to the warp that has
/// least to do; of several such to one of another block than before, then to one of another scheduler.
void deal_out(Network& net, int team, int warps, int slots) {
  net.team = team;
  for (auto& block : net.expected) std::fill_n(block, kMeetings, (team - 1) * kWord);
  std::vector<Tile> tiles = tiles_of(net);
  std::stable_sort(tiles.begin(), tiles.end(), [](const Tile& a, const Tile& b) { return a.work > b.work; });
  std::array<int, kWarps * kTeam> load{}, count{};
  for (const Tile& tile : tiles) {
    int least = -1;
    for (int w = 0; w < warps * team; ++w) {
      if (count[w] < slots && (least < 0 || load[w] < load[least])) least = w;
    }
    const int block = least % team, warp = least / team;
    const Network::Node& node = net.nodes[tile.node];
    net.busy[block] = std::max(net.busy[block], warp + 1);
    net.slots[block][warp][count[least]++] = {.node = tile.node,
                                              .first = tile.first,
                                              .predictions_begin = static_cast<std::int16_t>(node.predictions_begin),
                                              .predictions_end = static_cast<std::int16_t>(node.predictions_end),
                                              .leaving_begin = static_cast<std::int16_t>(node.leaving_begin),
                                              .leaving_end = static_cast<std::int16_t>(node.leaving_end)};
    load[least] += tile.work;
    const auto send = [&](int meeting, int times) {
      for (int b = 0; b < team; ++b) {
        if (b != block) net.expected[b][meeting] += times * kSent;
      }
    };
    const int leaving = node.leaving_end - node.leaving_begin;
    if (net.stages > 0) send(node.begins, leaving);
    if (node.moves != 0) send(kMoves, leaving);
    for (int p = node.predictions_begin; p < node.predictions_end; ++p) {
      send(kErrors, net.predictions[p].moving_end - net.predictions[p].edges_begin);
    }
  }
  hold(net);
}

/// Nothing where it is not for this kernel.
std::optional<Network> network_of(const SettleArgs& args) {
  if (std::max({args.nodes.count, args.predictions.count, args.edges.count, args.stages()}) > kMostOf) {
    return std::nullopt;
  }
  Network net{};
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
  std::array<int, kMostOf> order{};
  // A node's predictions stand beside each other, and so do a prediction's edges.
  for (int v = 0; v < args.nodes.count; ++v) {
    const SettleNode& n = args.nodes[v];
    Network::Node& node = net.nodes[net.node_count++];
    for (const Narrowed* to : {&n.narrow, &n.narrow_whole}) {
      if (!to->y.empty() && to->y.dtype != args.operands()) return std::nullopt;
    }
    node = {.n = static_cast<int>(n.x.cols()),
            .moves = n.dx.empty() ? 0 : 1,
            .predictions_begin = net.prediction_count,
            .x = Network::Floats(n.x),
            .dx = Network::Floats(n.dx),
            .whole = Network::Floats(n.whole),
            .narrow = Network::Operands(n.narrow),
            .narrow_whole = Network::Operands(n.narrow_whole)};
    for (int p = 0; p < args.predictions.count; ++p) {
      const SettlePrediction& from = args.predictions[p];
      if (from.node != v) continue;
      if (!from.narrow.y.empty() && from.narrow.y.dtype != args.operands()) return std::nullopt;
      order[net.prediction_count] = p;
      Network::Prediction& prediction = net.predictions[net.prediction_count++];
      const bool makes = args.makes(p), apart = !from.start.empty() || (from.stage > 0 && !makes);
      prediction = {.start_at = apart ? state_of(node.n, 1) : -1,
                    .precision = static_cast<float>(from.precision),
                    .node = v,
                    .stage = from.stage,
                    .makes = makes ? 1 : 0,
                    .start = Network::Floats(from.start),
                    .delta = Network::Floats(from.delta),
                    .dz = Network::Floats(from.dz),
                    .narrow = Network::Operands(from.narrow),
                    .energy = from.energy.as<double>(),
                    .energy_start = makes ? nullptr : from.energy_start.as<double>()};
      if (makes) node.begins = from.stage;
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
        edge = {.gain = static_cast<float>(e.gain),
                .before_at = -1,
                .after_at = e.after == Activation::identity ? -1 : state_of(out, kSets),
                .w_stride = settle_tiled(in) + kSettleGap,
                .squares_in = static_cast<std::int16_t>(squares_of(in)),
                .squares_out = static_cast<std::int16_t>(squares_of(out)),
                .source = e.source,
                .in = in,
                .out = out,
                .bias_at = e.bias.empty() ? -1 : take(net.state_count, squares_of(out) * kTile / 4),
                .w = e.w.data,
                .bias = e.bias.as<float>(),
                .w_ld = moving ? e.w.ld() : 0,
                .z = Network::Floats(e.z)};
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
  if (tiles > kMostTiles || tiles_of(net).size() > std::size_t{kWarps} * kSlots) return std::nullopt;
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

constexpr int kTurned = kSamples * (kTile + 4);  // entries of a warp's room to turn a tile in

/// A team's eight samples. Rows past the last are computed with, as copies of it, and never stored. What is done once
/// is written short: code that is seldom run has to be fetched.
template <class Operand, Activation f, int warps, int slots>
class Slice {
 public:
  /// `energies`: of the team's first block; `arrived`: for what comes by turns; `words`: one for each block.
  __device__ Slice(const Network& net, const Numbers& args, float4* memory, float* turning, double* energies,
                   cu::Barrier* arrived, unsigned* words)
      : net_(net),
        args_(args),
        state_(memory),
        operands_(reinterpret_cast<Operand*>(memory + args.state_count)),
        turning_(turning + threadIdx.x / kWarp * kTurned),
        energies_(energies),
        arrived_(arrived),
        words_(words),
        lane_(static_cast<int>(threadIdx.x) % kWarp),
        block_(static_cast<int>(blockIdx.x % static_cast<unsigned>(args.team))),
        row_(std::int64_t{blockIdx.x / static_cast<unsigned>(args.team)} * kSamples),
        column_(lane_ % 8 * args.stride + lane_ / 8 * 8),
        entry_(lane_ / 4 * args.stride + lane_ % 4 * 2) {
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
#pragma unroll
    for (int s = 0; s < slots; ++s) {
      slots_[s] = net.slots[block_][warp][s];
      dx_[s] = velocity_[s] = {};
    }
#pragma unroll
    for (int h = 0; h < kHolds; ++h) held_key_[h] = net.held[block_][warp][h];
  }

  /// Weights, and all predictions at the start, stage by stage, where they are not there yet.
  __device__ void begin() {
    clear_operands();
#pragma unroll 1
    for (int e = 0; e < args_.edge_count; ++e) {
      const Network::Edge& edge = net_.edges[e];
      if (edge.w == nullptr) continue;
      load_weights(edge);
      load_biases(edge);
    }
    meet_all();  // before zeros are written over, by blocks that have begun
#pragma unroll 1
    for (int stage = 0; stage <= args_.stages; ++stage) {
#pragma unroll 1
      for (int s = 0; s < slots; ++s) {
        const Network::Slot at = s == 0 ? slots_[0] : slots_[slots - 1];
        if (at.node >= 0) begin(at, s, stage);
      }
      if (stage == 0) {
        cu::wait_for_fetched();
        __syncthreads();
        if constexpr (kRoomy) hold();
      }
      meet(stage);
    }
    if constexpr (!kRoomy) hold();
  }

  /// All steps, and what the last move has led to: values, and, where they are wanted, errors.
  __device__ void settle() {
#pragma unroll 1
    for (int t = 0;; ++t) {
      each_slot([this, t](int s) { compare(s, t > 0, t == args_.steps); });
      if (t == args_.steps) break;
      meet(kErrors);
      each_slot([this](int s) { move(s); });
      meet(kMoves);
    }
    meet_all();
    if (block_ == 0) add_energies();
  }

 private:
  static constexpr int kThreads = warps * kWarp;
  static constexpr bool kRoomy = warps <= kWarps / 2;  // registers for what is held from the start on
  static constexpr int kHolds = kRoomy ? kHeld : 1;

  template <class Body>
  __device__ void each_slot(Body body) {
#pragma unroll
    for (int s = 0; s < slots; ++s) {
      if (slots_[s].node >= 0) body(s);
    }
  }
  static_assert(slots == 1 || slots == 2);

  /// The i-th block after this one; there are two or four.
  __device__ unsigned other(int i) const { return static_cast<unsigned>((block_ + i) & (args_.team - 1)); }
  __device__ void meet_all() const {
#if __CUDA_ARCH__ >= 900
    if (args_.team > 1) return cooperative_groups::this_cluster().sync();
#endif
    __syncthreads();
  }
  /// What warps with tiles have sent is there for all of them. Whoever has what all have sent knows as well that
  /// they no longer read what was there before: each sends after it has read. So that nobody is two meetings ahead of
  /// a block that has nothing to send, and its bytes are counted for the wrong one, each block sends a word as well.
  __device__ void meet(int meeting) {
#if __CUDA_ARCH__ >= 900
    if (args_.team > 1) {
      if (slots_[0].node < 0) return;
      cu::Barrier& arrived = arrived_[meetings_ % 2];
      if (threadIdx.x == 0) {
        arrived.expect_and_arrive(net_.expected[block_][meeting]);
        for (int i = 1; i < args_.team; ++i) cu::store_there(words_ + block_, 0, other(i), &arrived);
      }
      cu::meet(net_.busy[block_] * kWarp);
      arrived.wait(meetings_ / 2 % 2);
      ++meetings_;
      return;
    }
#endif
    __syncthreads();
  }

  // A lane has entries lane / 4 and 8 more of samples 2 (lane % 4) and the next, as products give them; turned, it has
  // four entries from 4 (lane % 4) on of sample lane / 4, as they lie in memory.

  __device__ float4 turned(const Four& values) const {
    constexpr int kStride = kTurned / kSamples;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      turning_[(lane_ % 4 * 2 + i % 2) * kStride + lane_ / 4 + i / 2 * 8] = values[i];
    }
    __syncwarp();
    return *reinterpret_cast<const float4*>(turning_ + lane_ / 4 * kStride + lane_ % 4 * 4);
  }
  __device__ Four turned_back(const float4& values) const {
    constexpr int kStride = kTurned / kSamples;
    __syncwarp();
    *reinterpret_cast<float4*>(turning_ + lane_ / 4 * kStride + lane_ % 4 * 4) = values;
    __syncwarp();
    Four result;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      result[i] = turning_[(lane_ % 4 * 2 + i % 2) * kStride + lane_ / 4 + i / 2 * 8];
    }
    return result;
  }
  /// A lane's turned entries; zeros behind the n-th.
  __device__ float4 get(const Network::Floats& from, int first, int n) const {
    const int col = first + lane_ % 4 * 4;
    const float* const at = from.data + min(row_ + lane_ / 4, args_.rows - 1) * from.ld + col;
    if (from.packs != 0 && col + 4 <= n) return *reinterpret_cast<const float4*>(at);
    return {col < n ? at[0] : 0.0F, col + 1 < n ? at[1] : 0.0F, col + 2 < n ? at[2] : 0.0F, col + 3 < n ? at[3] : 0.0F};
  }
  __device__ Four read(const Network::Floats& from, int first, int n) const { return turned_back(get(from, first, n)); }
  __device__ void put(const Network::Floats& to, int first, int n, const float4& values) const {
    const int col = first + lane_ % 4 * 4;
    const std::int64_t row_of = row_ + lane_ / 4;
    if (to.data == nullptr || row_of >= args_.rows) return;
    float* const at = to.data + row_of * to.ld + col;
    if (to.packs != 0 && col + 4 <= n) {
      *reinterpret_cast<float4*>(at) = values;
      return;
    }
    if (col < n) at[0] = values.x;
    if (col + 1 < n) at[1] = values.y;
    if (col + 2 < n) at[2] = values.z;
    if (col + 3 < n) at[3] = values.w;
  }
  __device__ void put(const Network::Operands& to, int first, int n, const float4& values) const {
    const int col = first + lane_ % 4 * 4;
    const std::int64_t row_of = row_ + lane_ / 4;
    if (to.data == nullptr || row_of >= args_.rows) return;
    const Four all = scaled(four(values), to.scale, to.overflow);
    const uint2 bits{cu::pair(all[0], all[1], Operand{}), cu::pair(all[2], all[3], Operand{})};
    std::uint16_t* const at = to.data + row_of * to.ld + col;
    if (to.packs != 0 && col + 4 <= n) {
      *reinterpret_cast<uint2*>(at) = bits;
      return;
    }
    if (col < n) at[0] = static_cast<std::uint16_t>(bits.x);
    if (col + 1 < n) at[1] = static_cast<std::uint16_t>(bits.x >> 16);
    if (col + 2 < n) at[2] = static_cast<std::uint16_t>(bits.y);
    if (col + 3 < n) at[3] = static_cast<std::uint16_t>(bits.y >> 16);
  }
  /// `values` times `scale`; tells if one of them does not fit.
  __device__ static Four scaled(const Four& values, float scale, double* overflow) {
    Four result;
    bool too_large = false;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      result[i] = scale * values[i];
      too_large |= fabsf(result[i]) >= 65520.0F && !isinf(values[i]);  // what rounds to infinity
    }
    if constexpr (std::is_same_v<Operand, __half>) {
      if (too_large) *overflow = 1.0;  // whoever writes, writes the same
    }
    return result;
  }
  /// A thread's state of the tile that begins at `first`; further sets are kWarp apart.
  template <int sets>
  __device__ float4* state(int at, int first) const {
    return state_ + at + first / kTile * (sets * kWarp) + lane_;
  }
  __device__ static Four four(const float4& v) { return {{v.x, v.y, v.z, v.w}}; }
  __device__ static float4 packed(const Four& v) { return {v[0], v[1], v[2], v[3]}; }

  __device__ void clear_operands() {
#pragma unroll 1
    for (int e = 0; e < args_.edge_count; ++e) {
      const Network::Edge& edge = net_.edges[e];
      if (edge.w == nullptr) continue;
      const int count = 2 * kSamples * args_.stride / 8;  // forward and back, beside each other
#pragma unroll 1
      for (int i = threadIdx.x; i < count; i += kThreads) {
        reinterpret_cast<uint4*>(operands_ + edge.forward_at)[i] = {};
      }
    }
  }

  __device__ void load_weights(const Network::Edge& edge) {
    using Eight = cu::Pack<Operand, 8>;
    const auto* const weights = static_cast<const Operand*>(edge.w);
    const std::int64_t ld = edge.w_ld;
    const int out = edge.out, in = edge.in, stride = edge.w_stride, end = edge.squares_out * kTile;
    const unsigned packs = edge.squares_in * 2U, at_once = kThreads / packs;
    const int col = static_cast<int>(threadIdx.x % packs * 8);
    int row = static_cast<int>(threadIdx.x / packs);
    if (row >= static_cast<int>(at_once)) return;
    const Operand* from = weights + row * ld + col;
    Operand* to = operands_ + edge.w_at + row * stride + col;
    const bool runs = ld % 8 == 0 && reinterpret_cast<std::uintptr_t>(weights) % sizeof(Eight) == 0;
    const auto next = [&] { row += at_once, from += at_once * ld, to += at_once * stride; };
    if (runs && col + 8 <= in) {
#pragma unroll 4
      for (; row < out; next()) cu::fetch(reinterpret_cast<Eight*>(to), reinterpret_cast<const Eight*>(from));
    }
#pragma unroll 1
    for (; row < end; next()) {
#pragma unroll 1
      for (int k = 0; k < 8; ++k) to[k] = row < out && col + k < in ? from[k] : Operand(0.0F);
    }
  }
  __device__ void load_biases(const Network::Edge& edge) {
    if (edge.bias_at < 0) return;
#pragma unroll 1
    for (int i = threadIdx.x; i < edge.out; i += kThreads) cu::fetch(bias(edge) + i, edge.bias + i);
  }
  __device__ float* bias(const Network::Edge& edge) const { return reinterpret_cast<float*>(state_ + edge.bias_at); }

  /// Where the activation begins, with what it gives there, which is returned, and its slope.
  __device__ static Four begin_activation(float4* at, const Four& x) {
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

  /// What begins at a stage: predictions, and the value that one of them gives the node. At stage 0 those that are
  /// there, and the values of the other nodes.
  __device__ void begin(Network::Slot at, int s, int stage) const {
    const Network::Node& node = net_.nodes[at.node];
    const int n = node.n;
    Four value = {};
#pragma unroll 1
    for (int p = at.predictions_begin; p < at.predictions_end; ++p) {
      const Network::Prediction& prediction = net_.predictions[p];
      if (prediction.stage != stage) continue;
      Four mu = {};
#pragma unroll 1
      for (int e = prediction.edges_begin; e < prediction.edges_end; ++e) {
        const Network::Edge& edge = net_.edges[e];
        Four z;
        if (stage > 0 && e < prediction.moving_end) {
          z = kRoomy ? multiply<false>(e, s, at.first) : multiply<false>(edge, at.first);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int col = at.first + lane_ / 4 + i / 2 * 8;
            z[i] = fmaf(edge.gain, z[i], edge.bias_at >= 0 && col < n ? bias(edge)[col] : 0.0F);
          }
        } else if (stage > 0 || edge.after_at >= 0) {
          z = read(edge.z, at.first, n);
        } else {
          continue;
        }
        if (edge.after_at >= 0) z = begin_activation(state<kSets>(edge.after_at, at.first), z);
#pragma unroll
        for (int i = 0; i < 4; ++i) mu[i] += at.first + lane_ / 4 + i / 2 * 8 < n ? z[i] : 0.0F;
      }
      if (prediction.makes != 0) {
        put(node.x, at.first, n, turned(mu));
        value = mu;
      } else if (stage > 0) {
        Four error = read(node.x, at.first, n);
#pragma unroll
        for (int i = 0; i < 4; ++i) error[i] -= mu[i];
        *state<1>(prediction.start_at, at.first) = packed(error);
        add_squares(energies_ + kMostTiles * kSamples, prediction.tile_at + at.first / kTile, error);
      } else if (prediction.start.data != nullptr) {
        *state<1>(prediction.start_at, at.first) = packed(read(prediction.start, at.first, n));
      }
    }
    if (node.begins != stage || at.leaving_begin == at.leaving_end) return;
    if (stage == 0) value = read(node.x, at.first, n);
#pragma unroll 1
    for (int i = at.leaving_begin; i < at.leaving_end; ++i) {
      const Network::Edge& edge = net_.edges[net_.leaving[i]];
      Four sent = value;
      if (edge.before_at >= 0) sent = begin_activation(state<kSets>(edge.before_at, at.first), value);
      if (args_.stages > 0) send(edge.forward_at, at.first, sent, 1);
    }
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
    const int first = s == 0 ? slots_[0].first : slots_[slots - 1].first;
    const int squares = back ? edge.squares_out : edge.squares_in, step = back ? kTile * edge.w_stride : kTile;
    const Operand* const begin = back ? square<true>(edge, first) : square<false>(edge, first);
#pragma unroll
    for (int k = 0; k < kHeldSquares; ++k) {
      held_[h][k][0] = held_[h][k][1] = held_[h][k][2] = held_[h][k][3] = 0;
      if (k >= squares) continue;
      back ? cu::load_square<true>(held_[h][k], begin + k * step)
           : cu::load_square<false>(held_[h][k], begin + k * step);
    }
  }

  __device__ void hold() {
#pragma unroll
    for (int h = 0; h < kHolds; ++h) {
      if (held_key_[h] != kNoProduct) load_held(h);
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
  /// The same for a warp's tile, with weights from registers where they are there.
  template <bool back>
  __device__ Four multiply(int e, int s, int first) const {
    const Network::Edge& edge = net_.edges[e];
    const int key = product_key(e, back, s);
    const Operand* columns = operands_ + (back ? edge.back_at : edge.forward_at) + column_;
    if (key == held_key_[0]) return multiply_held(0, columns);
    if constexpr (kHolds > 1) {
      if (key == held_key_[1]) return multiply_held(1, columns);
    }
    return multiply<back>(edge, first);
  }

  /// Leaves what is to be multiplied, times `scale`, for all of the team.
  __device__ void send(int at, int first, const Four& values, float scale) const {
    Operand* const to = operands_ + at + entry_ + first;
    const Four all = scaled(values, scale, args_.overflow);
    // A lane has an entry of two samples, and gets two entries of a sample, which lie beside each other.
    const unsigned low = cu::turned(cu::pair(all[0], all[1], Operand{}));
    const unsigned high = cu::turned(cu::pair(all[2], all[3], Operand{}));
    *reinterpret_cast<unsigned*>(to) = low;
    *reinterpret_cast<unsigned*>(to + 8) = high;
#if __CUDA_ARCH__ >= 900
#pragma unroll
    for (int i = 1; i < kTeam; ++i) {
      if (i >= args_.team) continue;
      cu::store_there(to, low, other(i), &arrived_[meetings_ % 2]);
      cu::store_there(to + 8, high, other(i), &arrived_[meetings_ % 2]);
    }
#endif
  }

  // --- a step ---

  /// What an edge takes from the error, whose product is `z`, and how its activation stands.
  __device__ void subtract(const Network::Edge& edge, int first, bool several, Four z, Four& error, Four& slope) const {
    const float by = edge.gain * args_.down;
#pragma unroll
    for (int i = 0; i < 4; ++i) z[i] *= by;
    if (edge.after_at >= 0) {
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

  /// Errors, and what they send back; or, the `last` time, values and the errors that are wanted, to memory.
  __device__ __forceinline__ void compare(int s, bool moved, bool last) {
    const int first = slots_[s].first;
    if (last) store_values(slots_[s], dx_[s]);
#pragma unroll
    for (int i = 0; i < 4; ++i) velocity_[s][i] *= args_.momentum;
#pragma unroll 1
    for (int p = slots_[s].predictions_begin; p < slots_[s].predictions_end; ++p) {
      const Network::Prediction& prediction = net_.predictions[p];
      const int start_at = prediction.start_at, begin = prediction.edges_begin, end = prediction.moving_end;
      const float precision = prediction.precision;
      const bool several = end - begin > 1;
      if (last && prediction.delta.data == nullptr) continue;
      Four delta = {}, slope = {{1, 1, 1, 1}};
#pragma unroll 1
      for (int e = begin; e < end; ++e) {
        const Four z = moved ? multiply<false>(e, s, first) : Four{};
        subtract(net_.edges[e], first, several, z, delta, slope);
      }
      const Four start = start_at >= 0 ? four(*state<1>(start_at, first)) : Four{};
#pragma unroll
      for (int i = 0; i < 4; ++i) delta[i] += dx_[s][i] + start[i];
      if (last) {
        store_errors(slots_[s], prediction, delta, slope);
        continue;
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        delta[i] *= precision;
        velocity_[s][i] += delta[i];
      }
#pragma unroll 1
      for (int e = begin; e < end; ++e) {
        const Network::Edge& edge = net_.edges[e];
        if (several) {
          slope = edge.after_at < 0 ? Four{{1, 1, 1, 1}} : four(state<kSets>(edge.after_at, first)[3 * kWarp]);
        }
        Four dz;
#pragma unroll
        for (int i = 0; i < 4; ++i) dz[i] = slope[i] * delta[i];
        send(edge.back_at, first, dz, args_.up);
      }
    }
  }

  __device__ void move(int s) {
    const int first = slots_[s].first, begin = slots_[s].leaving_begin, end = slots_[s].leaving_end;
    if (net_.nodes[slots_[s].node].moves == 0) return;
#pragma unroll 1
    for (int l = begin; l < end; ++l) {
      const int e = net_.leaving[l];
      const Network::Edge& edge = net_.edges[e];
      Four back = multiply<true>(e, s, first);
      const float by = -edge.gain * args_.down;
      if (edge.before_at >= 0) {
        const Four slope = four(state<kSets>(edge.before_at, first)[3 * kWarp]);
#pragma unroll
        for (int i = 0; i < 4; ++i) back[i] *= slope[i];
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) velocity_[s][i] = fmaf(by, back[i], velocity_[s][i]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) dx_[s][i] = fmaf(-args_.rate, velocity_[s][i], dx_[s][i]);
#pragma unroll 1
    for (int l = begin; l < end; ++l) {
      const Network::Edge& edge = net_.edges[net_.leaving[l]];
      Four a = dx_[s];
      if (edge.before_at >= 0) {
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
    const int n = node.n;
    if (node.moves == 0) return;
    const float4 change = turned(dx);
    float4 whole = get(node.x, at.first, n);
    whole = {whole.x + change.x, whole.y + change.y, whole.z + change.z, whole.w + change.w};
    put(node.dx, at.first, n, change);
    put(node.whole, at.first, n, whole);
    put(node.narrow, at.first, n, change);
    put(node.narrow_whole, at.first, n, whole);
  }

  __device__ void store_errors(Network::Slot at, const Network::Prediction& prediction, Four error, Four slope) const {
    const int n = net_.nodes[at.node].n;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (at.first + lane_ / 4 + i / 2 * 8 >= n) error[i] = 0;
    }
    add_squares(energies_, prediction.tile_at + at.first / kTile, error);
#pragma unroll
    for (int i = 0; i < 4; ++i) error[i] *= prediction.precision;
    float4 wanted = turned(error);
    put(prediction.delta, at.first, n, wanted);
    if (prediction.dz.data != nullptr) {
      if (prediction.moving_end == prediction.edges_begin) {  // its edge does not change
        const int after_at = net_.edges[prediction.edges_begin].after_at;
        if (after_at >= 0) slope = four(state<kSets>(after_at, at.first)[2 * kWarp]);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) error[i] *= slope[i];
      wanted = turned(error);
      put(prediction.dz, at.first, n, wanted);
    }
    put(prediction.narrow, at.first, n, wanted);
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
    if (p >= args_.prediction_count || row_ + sample >= args_.rows) return;
    const Network::Prediction& prediction = net_.predictions[p];
    double* to = start ? prediction.energy_start : prediction.energy;
    if (to == nullptr) return;
    double sum = 0;
    const double* energies = energies_ + (start ? kMostTiles * kSamples : 0) + prediction.tile_at * kSamples;
    const int tiles = squares_of(net_.nodes[prediction.node].n);
    for (int tile = 0; tile < tiles; ++tile) sum += energies[tile * kSamples + sample];
    to[row_ + sample] = 0.5 * double(prediction.precision) * sum;
  }

  const Network& net_;
  const Numbers& args_;
  float4* state_;
  Operand* operands_;
  float* turning_;
  double* energies_;
  cu::Barrier* arrived_;
  unsigned* words_;
  int lane_, block_;
  std::int64_t row_;    // the first sample
  int column_, entry_;  // its places among operands that are multiplied, and that it sends
  unsigned meetings_ = 0;
  Network::Slot slots_[slots];
  Four dx_[slots], velocity_[slots];
  int held_key_[kHolds];
  unsigned held_[kHolds][kHeldSquares][4];
};

template <class Operand, Activation f, int warps, int slots>
__global__ void __launch_bounds__(warps* kWarp, 1)
    settle_warps_kernel(const __grid_constant__ Numbers numbers, const Network* described) {
  extern __shared__ float4 memory[];
  __shared__ Network net;
  __shared__ double energies[2 * kMostTiles * kSamples];
  __shared__ float4 turning[warps * kTurned / 4];
  __shared__ cu::Barrier arrived[2];
  __shared__ unsigned words[kTeam];
  static_assert(sizeof(Network) % sizeof(double) == 0);
  // Before cu::follow: nobody writes it once it is there.
  for (std::size_t i = threadIdx.x; i < sizeof(Network) / sizeof(double); i += warps * kWarp) {
    reinterpret_cast<double*>(&net)[i] = reinterpret_cast<const double*>(described)[i];
  }
  __syncthreads();
  double* energies_of_first = energies;
#if __CUDA_ARCH__ >= 900
  if (numbers.team > 1) {
    energies_of_first = cooperative_groups::this_cluster().map_shared_rank(energies, 0);
    if (threadIdx.x == 0) {
      for (cu::Barrier& barrier : arrived) barrier.init(1);
      cu::show_barriers();
    }
  }
#endif
  cu::follow();
  Slice<Operand, f, warps, slots> slice(net, numbers, memory, reinterpret_cast<float*>(turning), energies_of_first,
                                        arrived, words);
  slice.begin();
  slice.settle();
}

std::size_t bytes_of(const Network& net) {
  return static_cast<std::size_t>(net.state_count) * sizeof(float4) +
         static_cast<std::size_t>(net.operand_count) * sizeof(__half);
}

bool fits(const Network& net, CudaContext& context) {
  constexpr std::size_t kStatic =
      sizeof(Network) + sizeof(double) * 2 * kMostTiles * kSamples + sizeof(float) * kWarps * kTurned + 1024;
  return bytes_of(net) + kStatic <= cu::block_memory(context);
}

/// By teams of `team` blocks. Several: false where not all teams are there at once, or there are not as many tiles.
template <class Operand, Activation f, unsigned team, int warps, int slots>
bool run_by(Network net, CudaContext& context) {
  static_assert(team * warps * slots >= kWarps * kSlots, "there is a place for each tile");
  if (team > 1 && tiles_of(net).size() < team) return false;
  const auto kernel = settle_warps_kernel<Operand, f, warps, slots>;
  const auto teams = static_cast<unsigned>((net.rows + kSamples - 1) / kSamples);
  cu::LaunchAttributes attributes(team);
  const cudaLaunchConfig_t config = attributes.config(teams * team, warps * kWarp, bytes_of(net), context.stream);
  PC_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     static_cast<int>(config.dynamicSmemBytes)));
  if (team > 1) {
    int at_once = 0;
    PC_CUDA_CHECK(cudaOccupancyMaxActiveClusters(&at_once, kernel, &config));
    if (teams > static_cast<unsigned>(at_once)) return false;
  }
  deal_out(net, static_cast<int>(team), warps, slots);
  const auto* const kept = static_cast<const Network*>(context.keep(&net, sizeof(Network)));
  PC_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, static_cast<const Numbers&>(net), kept));
  return true;
}

/// By teams as large as leave room for all of them at once.
template <class Operand, Activation f>
void run_with(const Network& net, CudaContext& context) {
  static_assert(kTeam == 4);
  const bool clusters = cu::is_hopper(context);
  if (clusters && run_by<Operand, f, 4, kWarps / 2, 1>(net, context)) return;
  if (clusters && run_by<Operand, f, 2, kWarps, 1>(net, context)) return;
  run_by<Operand, f, 1, kWarps, kSlots>(net, context);
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

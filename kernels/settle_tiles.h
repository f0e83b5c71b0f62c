// How a relaxation (settle.h) is shared out over all blocks of a device, whose shared memories together hold all
// weights, in both directions, from the first step to the last. Each step has two rounds: predictions are compared with
// their nodes, then nodes move. What a round leaves of one prediction or node is cut into tiles, which the groups of
// threads in a block take in an order that is fixed ahead. Nobody waits for a whole round: a tile waits until those
// tiles of the round before have been done that it reads, of the same samples, and by then nobody reads any more what
// it writes. So one group multiplies while another waits.
//
// In a round everything is independent, cycles included, so the number of layers does not matter; what lies outside the
// light cone of the start is left out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/settle.h"

namespace pc::kernels::tiles {

/// Samples and entries of a tile, and terms of its sums that are multiplied at once.
inline constexpr int kRows = 64, kCols = 32, kTerms = 128;
/// Of threads in a block: each does tiles of its own, with weights that they share.
inline constexpr int kGroups = 2;
/// Of the weights that belong to kCols entries, as many as kTerms terms need: a block's memory is counted in these.
inline constexpr int kSquare = kCols * kTerms * 2;
/// What is fetched at once are so many terms, or all of them where weights lie the other way round, on the way back.
inline constexpr int kPart = 64, kParts = kTerms / kPart;
/// Bytes of a part of a tile's samples; a group has a ring of some, in which they arrive.
inline constexpr int kStage = kRows * kPart * 2, kMostStages = 16;
inline constexpr int kMostTasks = 64;  // of a block
/// Bytes of a block's memory for what does not depend on the network.
inline constexpr std::size_t kFixed = 3072;

constexpr int pieces(std::int64_t n, int of) { return static_cast<int>((n + of - 1) / of); }

/// Of a matrix, so many rows and columns are fetched at once.
struct Operand {
  View view;
  int rows, cols;
};

/// Sums of a job: values [rows, terms] times weights, [n, terms] on the way forward and [terms, n] on the way back.
struct Product {
  int values, weights;  // places in Tiles::operands
  int chunks;           // of kTerms terms
  int from;             // the first step at which they are not zero
};

/// Before step t, of the rows that a tile has, another job must have done so many tiles: tiles (t - from + after).
struct Wait {
  int counter;  // of its first rows; those of others follow
  int tiles, from, after;
};

/// factor times an entry, added to what the products are taken from.
struct Term {
  const float* at;
  std::int64_t ld;
  float factor;
  int from;
};

/// float32 [rows, n]; null: nothing.
struct Entries {
  float* at = nullptr;
  std::int64_t ld = 0;
};
/// Of 16 bits: each entry times `scale`.
struct Narrow {
  void* at = nullptr;
  std::int64_t ld = 0;
  float scale = 1;
};

/// What is done to the entries of one prediction or node at each step t >= from. With z = scale (sum of products) and
/// s = sum of terms:
///
///   prediction   error = s - (f(at + z) - f(at));  out = factor error;  operand = f'(at + z) out
///   node         velocity = s - f'(at + out) z;  out -= rate velocity;  operand = f(at + out) - f(at)
///
/// (momentum times the velocity before is one of the terms), and of a node after the last step: whole = at + out, and
/// both as `narrow_whole` and `narrow`.
struct Job {
  int n = 0, from = 0;
  int back = 0;     // a node
  int counter = 0;  // of its finished tiles of the first rows
  int packed = 0;   // entries lie together in fours in all that it touches
  int products = 0, products_end = 0, waits = 0, waits_end = 0;
  int terms = 0, late = 0, terms_end = 0;  // those from `late` on are others' to write: they are there after the waits
  float scale = 1, factor = 1, leak = 0;
  scalar::Activation f = scalar::Activation::identity;
  Entries at, out, velocity, whole;
  Narrow operand, narrow, narrow_whole;
};

/// Weights that a block keeps: of a job's columns, its products' squares one after the other.
struct Kept {
  int job, col, at;
};
struct Task {
  int job, row, col;  // of tiles
  int at;             // of its weights, in squares
};

struct Tiles {
  std::vector<Job> jobs;
  std::vector<Product> products;
  std::vector<Wait> waits;
  std::vector<Term> terms;
  std::vector<Operand> operands;
  std::vector<Kept> kept;
  std::vector<int> kept_begins;  // where those of block b begin; and the end
  std::vector<Task> tasks;       // of predictions, block by block and group by group; then of nodes
  std::vector<int> begins;  // where those of group g of block b begin: [(round blocks + b) kGroups + g]; and the end
  int blocks = 0, counters = 0;
  int groups = 0;               // of a block that have tasks
  int squares = 0, stages = 0;  // of weights in a block, at most; of a group's ring
  std::size_t counters_at = 0;  // bytes from the beginning of the scratch memory

  /// Of jobs, products, waits and terms, which every block keeps beside weights and ring.
  [[nodiscard]] std::size_t list_bytes() const;
};

/// Blocks that a device can have at once, and bytes of shared memory of each, beside kFixed.
struct Machine {
  int blocks;
  std::size_t memory;
};
/// The CPU answers as an H200 does, so that plans for either can be compared.
[[nodiscard]] Machine machine(const Exec& exec);

/// For the machine's blocks or, where there are fewer tiles, for fewer. `args.scratch` must be there. Throws where
/// why_not_tiled says why.
[[nodiscard]] Tiles cut(const SettleArgs& args, const Machine& machine);

}  // namespace pc::kernels::tiles

namespace pc::kernels {

/// Why a relaxation cannot be cut into tiles for such a machine; empty: it can.
[[nodiscard]] std::string why_not_tiled(const SettleArgs& args, const tiles::Machine& machine);
/// Bytes of scratch memory.
[[nodiscard]] std::size_t settle_scratch(const SettleArgs& args);
/// Needs is_hopper(exec) and `args.scratch`.
void settle_tiled_cuda(const SettleArgs&, CudaContext&);
namespace tiles {
[[nodiscard]] Machine machine_cuda(CudaContext&);
}

}  // namespace pc::kernels

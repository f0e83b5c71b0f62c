// How a relaxation (settle.h) is shared out over all blocks of a device. Each step has two rounds: predictions are
// compared with their nodes, then nodes move. What a round leaves of one prediction or node is cut into tiles, which
// the blocks take in an order that is fixed ahead. No block waits for a whole round: a tile waits until those tiles of
// the round before have been done that it reads, of the same samples, and by then nobody reads any more what it writes.
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
inline constexpr int kSide = 64;

constexpr std::int64_t tiles_across(std::int64_t n) { return (n + kSide - 1) / kSide; }

/// Sums of a job: an operand [rows, terms] times another, [n, terms] on the way forward and [terms, n] on the way back.
struct Product {
  int left, right;  // places in Tiles::operands
  int chunks;       // of kSide terms
  int from;         // the first step at which they are not zero
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
  int pack = 1;     // so many entries lie together in all that it touches
  int products = 0, products_end = 0, waits = 0, waits_end = 0, terms = 0, terms_end = 0;
  float scale = 1, factor = 1, leak = 0;
  scalar::Activation f = scalar::Activation::identity;
  Entries at, out, velocity, whole;
  Narrow operand, narrow, narrow_whole;
};

struct Task {
  int job, row, col;  // of tiles
};

struct Tiles {
  std::vector<Job> jobs;
  std::vector<Product> products;
  std::vector<Wait> waits;
  std::vector<Term> terms;
  std::vector<View> operands;
  std::vector<Task> tasks;  // of predictions, block by block; then of nodes
  std::vector<int> begins;  // where those of block b begin: [b] and [blocks + b]; and the end
  int blocks = 0, counters = 0;
  std::size_t counters_at = 0;  // bytes from the beginning of the scratch memory
};

/// `blocks` at most; fewer where there are fewer tiles. `args.scratch` must be there.
[[nodiscard]] Tiles cut(const SettleArgs& args, int blocks);

}  // namespace pc::kernels::tiles

namespace pc::kernels {

/// Why a relaxation cannot be cut into tiles; empty: it can.
[[nodiscard]] std::string why_not_tiled(const SettleArgs& args);
/// Bytes of scratch memory.
[[nodiscard]] std::size_t settle_scratch(const SettleArgs& args);
/// Needs is_hopper(exec) and `args.scratch`.
void settle_tiled_cuda(const SettleArgs&, CudaContext&);

}  // namespace pc::kernels

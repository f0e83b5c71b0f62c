#include "graphs/neurons.h"

#include <algorithm>
#include <limits>
#include <span>

#include "pc/components.h"

namespace pc::graphs {
namespace {

constexpr std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// What one edge of the graph connects: a mask, a pattern, everything, or each entry with its like.
struct Block {
  std::int64_t row = 0, col = 0, rows = 0, cols = 0;
  const Pattern* pattern = nullptr;
  const std::vector<std::uint8_t>* mask = nullptr;
  bool like = false;

  [[nodiscard]] std::int64_t count() const {
    if (pattern != nullptr) return pattern->count();
    if (mask != nullptr) return std::count_if(mask->begin(), mask->end(), [](auto m) { return m != 0; });
    return like ? rows : rows * cols;
  }
  /// Appends the neurons that row i of all reads.
  void read(std::int64_t i, std::vector<std::int32_t>& list) const {
    if (i < row || i >= row + rows) return;
    const auto add = [&](std::int64_t j) { list.push_back(static_cast<std::int32_t>(col + j)); };
    const std::int64_t r = i - row;
    if (like) return add(r);
    if (pattern != nullptr) {
      for (std::int64_t place = pattern->begin(r); place < pattern->end(r); ++place) add(pattern->column(place));
      return;
    }
    for (std::int64_t j = 0; j < cols; ++j) {
      if (mask == nullptr || (*mask)[at(r * cols + j)] != 0) add(j);
    }
  }
};

bool entry_by_entry(const Op& op) {
  return op.activation.has_value() || &op == &find_op("identity") || &op == &find_op("scale");
}

std::optional<Block> block_of(const Graph& graph, const Edge& edge) {
  if (edge.from.size() != 1) return std::nullopt;
  Block block;
  block.like = true;
  for (const Link& link : edge.chain) {
    if (entry_by_entry(*link.op)) continue;
    const bool linear = link.op->sparse || link.op == &find_op("linear");
    if (!linear || !block.like) return std::nullopt;
    block.like = false;
    block.pattern = link.pattern.get();
    const auto& mask = graph.param(link.params[0]).mask;
    if (!mask.empty()) block.mask = &mask;
  }
  block.rows = graph.node(graph.prediction(edge.prediction).node).shape.count();
  block.cols = graph.node(edge.from[0]).shape.count();
  return block;
}

Degrees degrees_of(const Pattern& pattern) {
  Degrees degrees{.least = std::numeric_limits<std::int64_t>::max()};
  for (std::int64_t i = 0; i < pattern.rows; ++i) {
    const std::int64_t degree = pattern.end(i) - pattern.begin(i);
    degrees.least = std::min(degrees.least, degree);
    degrees.most = std::max(degrees.most, degree);
  }
  degrees.mean = double(pattern.count()) / double(pattern.rows);
  return degrees;
}

std::int64_t entries_of(const Graph& graph) {
  std::int64_t sum = 0;
  for (const Node& node : graph.nodes()) sum += node.shape.count();
  return sum;
}

/// In their places among all neurons.
std::optional<std::vector<Block>> blocks_of(const Graph& graph) {
  if (entries_of(graph) > std::numeric_limits<std::int32_t>::max()) return std::nullopt;
  std::vector<std::int64_t> begin = {0};
  for (const Node& node : graph.nodes()) begin.push_back(begin.back() + node.shape.count());
  std::vector<Block> blocks;
  for (const Edge& edge : graph.edges()) {
    auto block = block_of(graph, edge);
    if (!block) return std::nullopt;
    block->row = begin[at(graph.prediction(edge.prediction).node)];
    block->col = begin[at(edge.from[0])];
    blocks.push_back(*block);
  }
  return blocks;
}

}  // namespace

std::optional<std::int64_t> neuron_edges(const Graph& graph) {
  const auto blocks = blocks_of(graph);
  if (!blocks) return std::nullopt;
  std::int64_t count = 0;
  for (const Block& block : *blocks) count += block.count();
  return count;
}

std::optional<Pattern> neurons_of(const Graph& graph) {
  const auto blocks = blocks_of(graph);
  if (!blocks) return std::nullopt;
  const std::int64_t n = entries_of(graph);
  Pattern all{.rows = n, .cols = n};
  all.columns.reserve(at(*neuron_edges(graph)));
  std::vector<std::int32_t> row;
  for (std::int64_t i = 0; i < all.rows; ++i) {
    row.clear();
    for (const Block& block : *blocks) block.read(i, row);
    std::sort(row.begin(), row.end());
    row.erase(std::unique(row.begin(), row.end()), row.end());  // two edges of the graph may lead the same way
    all.columns.insert(all.columns.end(), row.begin(), row.end());
    all.offsets.push_back(all.count());
  }
  return all;
}

NeuronStatistics statistics_of(const Pattern& neurons) {
  const auto row = [](const Pattern& p, std::size_t i) {
    return std::span<const int>(p.columns).subspan(at(p.offsets[i]), at(p.offsets[i + 1] - p.offsets[i]));
  };
  const Pattern read_by = transposed(neurons).pattern;
  NeuronStatistics s{
      .neurons = neurons.rows, .edges = neurons.count(), .in = degrees_of(neurons), .out = degrees_of(read_by)};
  std::int64_t both_ways = 0;
  std::vector<bool> loops(at(neurons.rows), false);
  std::vector<std::int32_t> both;
  for (std::size_t i = 0; i < loops.size(); ++i) {
    const auto in = row(neurons, i), out = row(read_by, i);
    loops[i] = std::binary_search(in.begin(), in.end(), static_cast<int>(i));
    s.self_loops += loops[i] ? 1 : 0;
    both.clear();
    std::set_intersection(in.begin(), in.end(), out.begin(), out.end(), std::back_inserter(both));
    both_ways += std::ssize(both) - (loops[i] ? 1 : 0);
  }
  if (s.edges > s.self_loops) s.reciprocity = double(both_ways) / double(s.edges - s.self_loops);
  for (const auto& component :
       strongly_connected_components(loops.size(), [&](std::size_t v) { return row(read_by, v); })) {
    ++s.components;
    s.largest = std::max(s.largest, static_cast<std::int64_t>(component.size()));
    if (component.size() > 1 || loops[at(component[0])]) s.on_cycles += std::ssize(component);
  }
  return s;
}

}  // namespace pc::graphs

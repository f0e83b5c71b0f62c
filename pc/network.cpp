#include "pc/network.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/random.h"

namespace pc {
namespace {

/// Tensor cores want rows to begin at multiples of 16 bytes, and to be as long; the products of a network with rows of
/// an odd length take twice as long without.
std::int64_t padded(std::int64_t cols) {
  constexpr std::int64_t kAligned = 8;
  return (cols + kAligned - 1) / kAligned * kAligned;
}

struct Draw {
  kernels::Distribution distribution;
  double a, b;
};

Draw draw_for(const Param& param, const Pattern* pattern, WeightInit init) {
  const auto [in, out] = fans_of(param, pattern);
  const bool bias = param.spec.role == ParamRole::bias;
  const auto uniform = [&](double limit) {
    return Draw{kernels::Distribution::uniform, -limit * init.scale, limit * init.scale};
  };
  const auto normal = [&](double deviation) { return Draw{kernels::Distribution::normal, 0, deviation * init.scale}; };
  if (param.spec.role == ParamRole::gain) return {kernels::Distribution::uniform, 1, 1};
  if (param.spec.role == ParamRole::offset) return {kernels::Distribution::uniform, 0, 0};
  switch (init.kind) {
    case WeightInit::Kind::fan_in:
      return uniform(1 / std::sqrt(in));
    case WeightInit::Kind::xavier:
      return uniform(bias ? 0 : std::sqrt(6 / (in + out)));
    case WeightInit::Kind::he:
      return normal(bias ? 0 : std::sqrt(2 / in));
    case WeightInit::Kind::normal:
      return normal(bias ? 0 : 1);
    case WeightInit::Kind::zeros:
      break;
  }
  return uniform(0);
}

}  // namespace

Network::Network(Graph graph, const Exec& exec, DType dtype, std::int64_t max_batch, std::uint64_t seed,
                 WeightInit init)
    : graph_(std::move(graph)),
      arena_(exec),
      dtype_(dtype),
      max_batch_(max_batch),
      seed_(seed),
      first_maps_(pc::first_maps(graph_)),
      neighbours_(neighbours(graph_)) {
  PC_CHECK(max_batch > 0, "network", "a batch of ", max_batch, " is too small");
  for (const Edge& edge : graph_.edges()) {
    for (const Link& link : edge.chain) {
      if (link.pattern) patterns_.emplace(link.params[0], link.pattern);
    }
  }
  for (ParamId id = 0; id < graph_.param_count(); ++id) {
    weights_.push_back(param_buffer("w", id));
    masks_.emplace_back();
    if (const auto& mask = graph_.param(id).mask; !mask.empty()) {
      masks_.back() = param_buffer("mask", id);
      arena_.write(masks_.back(), {mask.begin(), mask.end()});
    }
    init_weight(id, init);
  }
  place_patterns();
  // What goes from batch to batch belongs to the network as its weights do: checkpoints must have it.
  for (EdgeId e = 0; e < graph_.edge_count(); ++e) {
    const auto& chain = graph_.edge(e).chain;
    for (std::size_t i = 0; i < chain.size(); ++i) {
      if (chain[i].op->state_serves == Op::Serves::looking) {
        static_cast<void>(link_state(e, static_cast<int>(i), max_batch_));
      }
    }
  }
}

namespace {

View place(Arena& arena, const std::string& name, const auto& numbers) {
  const View view = arena.take(name, {std::ssize(numbers)}, DType::i32);
  if constexpr (sizeof(numbers[0]) == sizeof(std::int32_t)) {
    arena.upload(view, numbers.data());
  } else {
    arena.upload(view, std::vector<std::int32_t>(numbers.begin(), numbers.end()).data());
  }
  return view;
}

View place_short(Arena& arena, const std::string& name, const Shape& shape, const std::vector<std::uint16_t>& numbers) {
  const View view = arena.take(name, shape, DType::u8);
  arena.upload(view, numbers.data());
  return view;
}

/// Names of an index's lists: "sparse/" + rows + what + name.
kernels::SparsePatches place_patches(Arena& arena, const std::string& rows, const std::string& name,
                                     const Patches& patches) {
  const std::string kind = "sparse/" + rows;
  return {.first = place(arena, kind + "_patches" + name, patches.first),
          .source_offsets = place(arena, kind + "_source_offsets" + name, patches.source_offsets),
          .sources = place(arena, kind + "_sources" + name, patches.sources),
          .local = place_short(arena, kind + "_local" + name, {std::ssize(patches.local), 2}, patches.local)};
}

kernels::SparseBlocks place_blocks(Arena& arena, const std::string& rows, const std::string& name,
                                   const Blocks& blocks) {
  constexpr std::int64_t kCols = kernels::SparseBlocks::kCols;
  const std::string kind = "sparse/" + rows;
  const Shape sources{std::ssize(blocks.sources) / kCols, kCols, 2};
  return {.groups = place(arena, kind + "_groups" + name, blocks.groups),
          .first = place(arena, kind + "_blocks" + name, blocks.first),
          .sources = place_short(arena, kind + "_block_sources" + name, sources, blocks.sources)};
}

}  // namespace

void Network::place_patterns() {
  for (const auto& [id, pattern] : patterns_) {
    const std::string name = "/" + graph_.param(id).name;
    const auto index = [&](const Pattern& of, const std::string& rows, const std::string& columns) {
      kernels::SparseIndex at{place(arena_, "sparse/" + rows + name, of.offsets),
                              place(arena_, "sparse/" + columns + name, of.columns)};
      if (exec().device != Device::cuda) return at;
      const auto patches = patches_of(of, kernels::kPatchRows, kernels::kPatchSources);
      if (patches) at.patches = place_patches(arena_, rows, name, *patches);
      return at;
    };
    const auto [by_column, position] = transposed(*pattern);
    // Rows of whole vectors: products load several samples at once. Edges have their turns, so those of one width share
    // the room; those of one node then find it transposed already.
    constexpr std::int64_t kVector = 8;
    const std::int64_t samples = (max_batch_ + kVector - 1) / kVector * kVector;
    const auto room = [&](const std::string& end, std::int64_t entries) {
      return arena_.take("sparse/" + end + "_room/" + std::to_string(entries), {entries, samples}, dtype_);
    };
    sparse_[id] = {.by_row = index(*pattern, "rows", "row_columns"),
                   .by_column = index(by_column, "columns", "column_rows"),
                   .place_by_column = place(arena_, "sparse/position" + name, position),
                   .values_by_column = arena_.take("sparse/values_by_column" + name, {pattern->count()}, dtype_),
                   .source_room = room("source", pattern->cols),
                   .target_room = room("target", pattern->rows)};
  }
}

const SparseViews* Network::sparse_by_blocks(EdgeId edge, int link) {
  const SparseViews* of = sparse(edge, link);
  if (of == nullptr) return nullptr;
  const ParamId id = graph_.edge(edge).chain[static_cast<std::size_t>(link)].params[0];
  if (const auto found = by_blocks_.find(id); found != by_blocks_.end()) return &found->second;
  const std::string name = "/" + graph_.param(id).name;
  /// `position`: where in the weights the pattern's entries stand; empty: there in its own order.
  const auto go_by_blocks = [&](const Pattern& pattern, const std::vector<std::int32_t>& position,
                                const std::string& rows, kernels::SparseIndex& index, View& places, View& values) {
    const auto patches = patches_of(pattern, kernels::kPatchRows, kernels::kPatchSources);
    auto blocks = patches ? blocks_of(pattern, *patches) : std::nullopt;
    if (!blocks) return;
    if (index.patches.empty()) index.patches = place_patches(arena_, rows, name, *patches);
    index.blocks = place_blocks(arena_, rows, name, *blocks);
    if (!position.empty()) {
      for (std::int32_t& i : blocks->place) i = i < 0 ? i : position[static_cast<std::size_t>(i)];
    }
    places = place(arena_, "sparse/" + rows + "_block_places" + name, blocks->place);
    values = arena_.take("sparse/" + rows + "_block_values" + name, {std::ssize(blocks->place)}, DType::bf16);
  };
  SparseViews views = *of;
  const Pattern& pattern = *patterns_.at(id);
  const auto [by_column, position] = transposed(pattern);
  go_by_blocks(pattern, {}, "rows", views.by_row, views.place_by_row, views.values_by_row);
  go_by_blocks(by_column, position, "columns", views.by_column, views.place_by_column, views.values_by_column);
  return &by_blocks_.emplace(id, views).first->second;
}

const SparseViews* Network::sparse(ParamId weight) const {
  const auto found = sparse_.find(weight);
  return found == sparse_.end() ? nullptr : &found->second;
}

const SparseViews* Network::sparse(EdgeId edge, int link) const {
  const auto& params = graph_.edge(edge).chain[static_cast<std::size_t>(link)].params;
  return params.empty() ? nullptr : sparse(params[0]);
}

/// An entry is drawn by its place in the whole matrix: a sparse weight starts as the same one under a mask does.
void Network::init_weight(ParamId id, WeightInit init) {
  const Param& param = graph_.param(id);
  const auto sparse = patterns_.find(id);
  const Pattern* pattern = sparse == patterns_.end() ? nullptr : sparse->second.get();
  const Draw draw = draw_for(param, pattern, init);
  std::vector<double> values(static_cast<std::size_t>(param.spec.shape.count()));
  const auto purpose = Purpose::weights;
  const auto stream = static_cast<std::uint32_t>(id);
  if (pattern != nullptr) {
    for (std::int64_t row = 0; row < pattern->rows; ++row) {
      for (std::int64_t place = pattern->begin(row); place < pattern->end(row); ++place) {
        const auto entry = static_cast<std::uint64_t>(row * pattern->cols + pattern->column(place));
        values[static_cast<std::size_t>(place)] =
            kernels::random_entry(draw.distribution, draw.a, draw.b, philox::bits(seed_, purpose, stream, 0, entry));
      }
    }
    return arena_.write(weight(id), values);
  }
  const View host{values.data(), weight(id).shape, DType::f64, Device::cpu, 0};
  kernels::random(Exec{}, {.out = host,
                           .distribution = draw.distribution,
                           .a = draw.a,
                           .b = draw.b,
                           .seed = seed_,
                           .purpose = purpose,
                           .stream = stream});
  for (std::size_t i = 0; i < param.mask.size(); ++i) {
    if (param.mask[i] == 0) values[i] = 0;
  }
  arena_.write(weight(id), values);
}

/// Memory that neighbours are parts of.
View Network::shared(const std::string& name, const Shape& shape) {
  View& view = shared_[name];
  if (view.empty()) view = arena_.reserve(name, shape, dtype_);
  return view;
}

View Network::param_buffer(const std::string& kind, ParamId id) {
  const Param& param = graph_.param(id);
  const std::string name = kind + "/" + param.name;
  const auto& place = neighbours_.params[static_cast<std::size_t>(id)];
  if (!place || arena_.has(name)) return arena_.take(name, param.spec.shape, dtype_);
  const Shape shape{neighbours_.rows[static_cast<std::size_t>(place->group)], param.spec.shape[1]};
  View part = shared(kind + "/rows " + std::to_string(place->group), shape);
  part.data =
      static_cast<std::byte*>(part.data) + static_cast<std::size_t>(place->offset * part.ld()) * size_of(dtype_);
  part.shape = param.spec.shape;
  return arena_.adopt(name, part);
}

View Network::node_buffer(const std::string& kind, NodeId id, std::int64_t batch) {
  const Node& node = graph_.node(id);
  return arena_.take(kind + "/" + node.name, node.shape.batched(max_batch_), dtype_).first_rows(batch);
}

View Network::prediction_buffer(const std::string& kind, PredictionId id, std::int64_t batch) {
  const Prediction& p = graph_.prediction(id);
  const std::string name = kind + "/" + p.name;
  const Shape shape = graph_.node(p.node).shape.batched(max_batch_);
  const auto& place = neighbours_.predictions[static_cast<std::size_t>(id)];
  if (!place || arena_.has(name)) return arena_.take(name, shape, dtype_).first_rows(batch);
  const std::int64_t columns = neighbours_.columns[static_cast<std::size_t>(place->group)];
  View part = shared(kind + "/columns " + std::to_string(place->group), {max_batch_, columns});
  part.data = static_cast<std::byte*>(part.data) + static_cast<std::size_t>(place->offset) * size_of(dtype_);
  part.shape = shape;
  part.stride = columns;
  return arena_.adopt(name, part).first_rows(batch);
}

View Network::link_buffer(const std::string& kind, EdgeId edge, int link, std::int64_t batch) {
  if (link == 0) edge = first_map(edge);
  const Edge& e = graph_.edge(edge);
  const std::string name = kind + "/" + e.name + "/" + std::to_string(link);
  const Shape& shape = e.chain[static_cast<std::size_t>(link)].out;
  if (link > 0 || !only_products(edge)) return arena_.take(name, shape.batched(max_batch_), dtype_).first_rows(batch);
  View view = arena_.take(name, {max_batch_, padded(shape.count())}, dtype_);
  view.shape = shape.batched(max_batch_);
  view.stride = padded(shape.count());
  view.padding = static_cast<int>(view.stride - shape.count());
  return view.first_rows(batch);
}

View Network::precisions(PredictionId id) {
  const Prediction& p = graph_.prediction(id);
  if (p.spec.precision.size() == 1 && p.spec.learn_precision == 0) return {};
  const std::string name = "precision/" + p.name;
  const bool made = arena_.has(name);
  const View view = arena_.take(name, {static_cast<std::int64_t>(p.spec.precision.size())}, dtype_);
  if (!made) arena_.write(view, p.spec.precision);
  return view;
}

double Network::precision_scale(PredictionId id) const {
  const EnergySpec& spec = graph_.prediction(id).spec;
  return spec.precision.size() == 1 && spec.learn_precision == 0 ? spec.precision[0] : 1.0;
}

View Network::row_buffer(const std::string& name, std::int64_t batch) {
  return arena_.take(name, {max_batch_}, DType::f64).first_rows(batch);
}

/// New memory, with padded rows.
View Network::aligned_operand(std::int64_t rows, std::int64_t cols, DType type) {
  const std::int64_t stride = padded(cols);
  View view = arena_.take("operand/" + std::to_string(operands_.size()), {rows, stride}, type).columns(0, cols);
  view.padding = static_cast<int>(stride - cols);
  return view;
}

/// Whether all that a map makes goes into products, which like their rows padded.
bool Network::only_products(EdgeId map) const {
  for (EdgeId e = 0; e < graph_.edge_count(); ++e) {
    const Edge& edge = graph_.edge(e);
    const bool product = edge.chain.size() == 2 && !edge.chain[1].params.empty() &&
                         neighbours_.params[static_cast<std::size_t>(edge.chain[1].params[0])];
    if (first_map(e) == map && !product) return false;
  }
  return true;
}

/// The memory that a view is a true part of, where it has neighbours; null: it has none.
const View* Network::whole_of(const View& of) const {
  for (const auto& [name, whole] : shared_) {
    if (overlap(whole, of) && of.count() < whole.count()) return &whole;
  }
  return nullptr;
}

View Network::operand(const View& of, DType type, int exponent) {
  View& copy = operands_[{of.data, of.rows(), of.cols(), type, exponent}];
  if (!copy.empty()) return copy;
  if (type == DType::tf32) {
    copy = of;
    copy.dtype = type;
  } else if (const View* whole = whole_of(of)) {
    // Neighbours' operands are neighbours.
    const View all = operand(*whole, type, exponent);
    const auto entries = (static_cast<const std::byte*>(of.data) - static_cast<const std::byte*>(whole->data)) /
                         static_cast<std::ptrdiff_t>(size_of(of.dtype));
    View part = all.columns(entries % whole->ld(), of.cols());
    part.data =
        static_cast<std::byte*>(part.data) + static_cast<std::size_t>(entries / whole->ld() * all.ld()) * size_of(type);
    part.shape = {of.rows(), of.cols()};
    copy = part;
  } else {
    copy = aligned_operand(of.rows(), of.cols(), type);
    copy.shape = of.shape;
    copy.exponent = exponent;
  }
  return copy;
}

View Network::turned_operand(const View& of) {
  View& copy = operands_[{of.data, of.rows(), of.cols(), DType::bf16, std::numeric_limits<int>::min()}];
  if (copy.empty()) copy = aligned_operand(of.cols(), of.rows(), DType::bf16);
  return copy;
}

View Network::split_operand(const View& of, DType type, std::int64_t run) {
  View& copy = operands_[{of.data, of.rows(), of.cols(), type, -static_cast<int>(run)}];  // not an exponent's key
  if (!copy.empty()) return copy;
  copy = aligned_operand(of.rows(), 3 * of.cols(), type);
  const int last = of.shape.rank() - 1;
  if (last == 0 || of.shape[last] != run) return copy;
  Shape shape;  // that of `of`, with a longer last axis
  for (int axis = 0; axis < last; ++axis) shape.append(of.shape[axis]);
  shape.append(3 * run);
  copy.shape = shape;
  return copy;
}

std::vector<View> Network::link_inputs(EdgeId edge, int link, std::int64_t batch) {
  if (link > 0) return {link_buffer("z", edge, link - 1, batch)};
  std::vector<View> inputs;
  for (const NodeId from : graph_.edge(edge).from) inputs.push_back(value(from, batch));
  return inputs;
}

std::vector<View> Network::link_state(EdgeId edge, int link, std::int64_t batch) {
  const Edge& e = graph_.edge(edge);
  const Link& l = e.chain[static_cast<std::size_t>(link)];
  if (l.op->state == nullptr) return {};
  std::vector<View> state;
  for (const StateSpec& spec : l.op->state(l.attrs, l.out)) {
    const char* kind = !spec.fixed.empty() ? "fixed/" : spec.each_sample ? "drawn/" : "running/";
    const std::string name = kind + e.name + "/" + std::to_string(link) + "/" + std::string(spec.name);
    const bool made = arena_.has(name);
    const View view = arena_.take(name, spec.each_sample ? spec.shape.batched(max_batch_) : spec.shape, dtype_);
    const auto count = static_cast<std::size_t>(view.count());
    if (!made) arena_.write(view, spec.fixed.empty() ? std::vector<double>(count, spec.start) : spec.fixed);
    state.push_back(spec.each_sample ? view.first_rows(batch) : view);
  }
  return state;
}

std::vector<View> Network::link_weights(EdgeId edge, int link) const {
  std::vector<View> weights;
  for (const ParamId id : graph_.edge(edge).chain[static_cast<std::size_t>(link)].params) weights.push_back(weight(id));
  return weights;
}

}  // namespace pc

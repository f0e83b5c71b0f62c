// Sparse edges: the kernels against plain loops, and networks against the same ones with masked matrices.
#include <Eigen/Core>
#include <functional>

#include "pc/checkpoint.h"
#include "pc/step_bound.h"
#include "tests/networks.h"
#include "tests/program.h"

namespace pc::test {
namespace {

Pattern random_pattern(Dice& dice, std::int64_t rows, std::int64_t cols, double density) {
  std::vector<std::uint8_t> mask(index(rows * cols));
  for (auto& entry : mask) entry = dice.chance(density) ? 1 : 0;
  return pattern_of(mask, rows, cols);
}

/// A matrix on the CPU, with columns to spare.
struct Room {
  std::vector<double> values;
  View view;

  Room(const Values& from, std::int64_t rows, std::int64_t cols, std::int64_t spare)
      : values(index(rows * (cols + spare)), NAN) {
    view = {.data = values.data(), .shape = {rows, cols + spare}, .dtype = DType::f64};
    view = view.columns(0, cols);
    for (std::int64_t i = 0; i < rows * cols; ++i) view.row<double>(i / cols)[i % cols] = from[index(i)];
  }
  double operator()(std::int64_t row, std::int64_t col) const { return view.row<double>(row)[col]; }
};

View list_of(const std::vector<std::int32_t>& numbers) {
  return {.data = const_cast<std::int32_t*>(numbers.data()), .shape = {length(numbers)}, .dtype = DType::i32};
}

}  // namespace

TEST_CASE("pattern: there and back, and transposed") {
  Dice dice(3);
  for (const auto& [rows, cols] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {7, 5}, {30, 41}}) {
    for (const double density : {0.0, 0.2, 1.0}) {
      const Pattern pattern = random_pattern(dice, rows, cols, density);
      pattern.check();
      CHECK(pattern == pattern_of(mask_of(pattern), rows, cols));
      CHECK(pattern.complete() == (density == 1));
      const auto [turned, position] = transposed(pattern);
      turned.check();
      CHECK(turned.rows == cols);
      CHECK(length(position) == pattern.count());
      const auto mask = mask_of(pattern), back = mask_of(turned);
      for (std::int64_t i = 0; i < rows * cols; ++i) CHECK(mask[index(i)] == back[index(i % cols * rows + i / cols)]);
      for (std::int64_t row = 0; row < turned.rows; ++row) {
        for (std::int64_t place = turned.begin(row); place < turned.end(row); ++place) {
          const std::int64_t from = position[index(place)], source = turned.column(place);
          CHECK(pattern.column(from) == row);
          CHECK((pattern.begin(source) <= from && from < pattern.end(source)));
        }
      }
      if (pattern.count() == 0) continue;
      Pattern other = pattern;
      std::vector<std::uint8_t> moved = mask;
      const auto unlike = std::find(moved.begin(), moved.end(), moved.front() == 0 ? 1 : 0);
      if (unlike != moved.end()) {  // not all there
        std::swap(moved.front(), *unlike);
        other = pattern_of(moved, rows, cols);
      }
      CHECK((other.fingerprint() == pattern.fingerprint()) == (other == pattern));
      other.columns.back() = static_cast<std::int32_t>(cols);
      CHECK(contains(error_of([&] { other.check(); }), "column"));
    }
  }
}

TEST_CASE("patches: every entry is in one, where its column is; none where rows have little in common") {
  // Rows that read near ones, with some that read nothing, many at the end.
  Pattern pattern{.rows = 9000, .cols = 1000};
  Dice dice(5);
  for (std::int64_t row = 0; row < pattern.rows; ++row) {
    for (std::int64_t col = row; col < std::min<std::int64_t>(row + 40, pattern.cols); ++col) {
      if (row % 7 != 3 && dice.chance(0.5)) pattern.columns.push_back(static_cast<std::int32_t>(col));
    }
    pattern.offsets.push_back(pattern.count());
  }
  for (const auto& [most_rows, most_sources] : {std::pair<std::int64_t, std::int64_t>{96, 780}, {50, 60}, {20, 1000}}) {
    const auto patches = patches_of(pattern, most_rows, most_sources);
    REQUIRE(patches.has_value());
    CHECK(patches->first.back() == pattern.rows);
    CHECK(length(patches->local) % 4 == 0);
    CHECK(length(patches->source_offsets) == length(patches->first));
    CHECK(length(patches->first) < pattern.cols);  // rows that read nothing are in few
    bool right = true;
    for (std::size_t p = 0; p + 1 < patches->first.size(); ++p) {
      const std::int64_t rows = patches->first[p + 1] - patches->first[p];
      const std::int64_t source = patches->source_offsets[p], sources = patches->source_offsets[p + 1] - source;
      CHECK((rows > 0 && sources <= most_sources && (rows <= most_rows || sources == 0)));
      for (std::int64_t i = 1; i < sources; ++i) {
        right = right && patches->sources[index(source + i - 1)] < patches->sources[index(source + i)];
      }
      for (std::int64_t k = pattern.begin(patches->first[p]); k < pattern.begin(patches->first[p + 1]); ++k) {
        const std::int64_t local = patches->local[index(k)];
        right = right && local < sources && patches->sources[index(source + local)] == pattern.column(k);
      }
    }
    CHECK(right);
  }
  CHECK(!patches_of(pattern, 96, 39 / 4).has_value());  // a row has more columns than that
  CHECK(!patches_of(random_pattern(dice, 200, 5000, 0.02), 96, 780).has_value());
  // Few entries: a patch costs less than a visit to each row.
  CHECK(patches_of(random_pattern(dice, 20, 5000, 0.02), 96, 780).has_value());
}

TEST_CASE("blocks: every entry stands in one, its sources are read without conflicts; products by them") {
  Pattern pattern{.rows = 500, .cols = 300};
  Dice dice(7);
  for (std::int64_t row = 0; row < pattern.rows; ++row) {
    for (std::int64_t col = row / 2; col < std::min<std::int64_t>(row / 2 + 50, pattern.cols); ++col) {
      if (row % 7 != 3 && dice.chance(0.6)) pattern.columns.push_back(static_cast<std::int32_t>(col));
    }
    pattern.offsets.push_back(pattern.count());
  }
  const auto patches = patches_of(pattern, kernels::kPatchRows, kernels::kPatchSources);
  REQUIRE(patches.has_value());
  const auto blocks = blocks_of(pattern, *patches);
  REQUIRE(blocks.has_value());
  using B = kernels::SparseBlocks;
  const std::int64_t count = length(blocks->sources) / B::kCols;
  REQUIRE(length(blocks->place) == count * B::kEntries);
  CHECK(length(blocks->place) < 3 * pattern.count());
  std::vector<std::int32_t> found;
  std::copy_if(blocks->place.begin(), blocks->place.end(), std::back_inserter(found), [](auto i) { return i >= 0; });
  std::sort(found.begin(), found.end());
  REQUIRE(length(found) == pattern.count());
  for (std::size_t i = 0; i < found.size(); ++i) CHECK(found[i] == static_cast<std::int32_t>(i));
  std::int64_t alike = 0;  // columns 4 t + i whose source is t + 4 (i % 2) modulo 8
  for (std::size_t i = 0; i < blocks->sources.size(); ++i) {
    alike += blocks->sources[i] % 8 == i % 16 / 4 + 4 * (i % 2) ? 1 : 0;
  }
  CHECK(double(alike) > 0.75 * double(blocks->sources.size()));

  const std::int64_t batch = 20, room = 24;
  using Half = Eigen::bfloat16;
  std::vector<float> weights(index(pattern.count()));
  std::vector<Half> values(blocks->place.size(), Half(NAN)), x_t(index(pattern.cols * room));
  std::vector<float> y(index(batch * pattern.rows), NAN);
  for (float& entry : weights) entry = static_cast<float>(dice.normal());
  for (Half& entry : x_t) entry = static_cast<Half>(dice.normal());
  const View of_blocks{.data = values.data(), .shape = {length(values)}, .dtype = DType::bf16};
  kernels::permute(
      {}, {.x = {.data = weights.data(), .shape = {pattern.count()}}, .from = list_of(blocks->place), .y = of_blocks});
  const std::vector<std::int32_t> offsets(pattern.offsets.begin(), pattern.offsets.end());
  const View samples{.data = x_t.data(), .shape = {pattern.cols, room}, .dtype = DType::bf16};
  const View sources{
      .data = const_cast<std::uint16_t*>(blocks->sources.data()), .shape = {count, B::kCols, 2}, .dtype = DType::u8};
  kernels::sparse_product(
      {},
      {.index = {.offsets = list_of(offsets),
                 .columns = list_of(pattern.columns),
                 .patches = {.first = list_of(patches->first),
                             .source_offsets = list_of(patches->source_offsets),
                             .sources = list_of(patches->sources)},
                 .blocks = {.groups = list_of(blocks->groups), .first = list_of(blocks->first), .sources = sources}},
       .values = of_blocks,
       .x_t = samples.columns(0, batch),
       .y = {.data = y.data(), .shape = {batch, pattern.rows}},
       .alpha = 0.5});
  for (std::int64_t row = 0; row < pattern.rows; ++row) {
    for (std::int64_t b = 0; b < batch; ++b) {
      double want = 0;
      for (std::int64_t k = pattern.begin(row); k < pattern.end(row); ++k) {
        const auto weight = static_cast<double>(Half(weights[index(k)]));
        want += 0.5 * weight * static_cast<double>(x_t[index(pattern.column(k) * room + b)]);
      }
      CHECK(std::abs(y[index(b * pattern.rows + row)] - want) < 1e-5);
    }
  }
  // Rows that have few columns in common: mostly zeros.
  Pattern thin{.rows = 960, .cols = 200};
  for (std::int64_t row = 0; row < thin.rows; ++row) {
    for (std::int64_t col = row % 8; col < thin.cols; col += 8) thin.columns.push_back(static_cast<std::int32_t>(col));
    thin.offsets.push_back(thin.count());
  }
  const auto few = patches_of(thin, kernels::kPatchRows, kernels::kPatchSources);
  REQUIRE(few.has_value());
  CHECK(!blocks_of(thin, *few).has_value());
}

TEST_CASE("sparse_product, sparse_gradient, transpose and permute: against plain loops") {
  Dice dice(4);
  for (const std::int64_t batch : {1, 3, 32, 33, 70}) {
    for (const std::int64_t spare : {0, 5}) {
      CAPTURE(batch);
      const std::int64_t rows = 19, cols = 23;
      const Pattern pattern = random_pattern(dice, rows, cols, 0.4);
      const std::vector<std::int32_t> offsets(pattern.offsets.begin(), pattern.offsets.end());
      const kernels::SparseIndex at{list_of(offsets), list_of(pattern.columns)};
      Values w = dice.normals(pattern.count());
      const View values{.data = w.data(), .shape = {pattern.count()}, .dtype = DType::f64};
      const Room x_t(dice.normals(cols * batch), cols, batch, spare), d_t(dice.normals(rows * batch), rows, batch, 3);
      for (const Write write : {Write::set, Write::add}) {
        const Values before = write == Write::add ? dice.normals(rows * batch) : Values(index(rows * batch), NAN);
        Room y(before, batch, rows, 2);
        kernels::sparse_product(
            {}, {.index = at, .values = values, .x_t = x_t.view, .y = y.view, .alpha = 0.7, .write = write});
        Values start = write == Write::add ? dice.normals(pattern.count()) : Values(w.size(), NAN), dw = start;
        kernels::sparse_gradient({}, {.index = at,
                                      .d_t = d_t.view,
                                      .x_t = x_t.view,
                                      .dw = {.data = dw.data(), .shape = {pattern.count()}, .dtype = DType::f64},
                                      .alpha = -0.3,
                                      .write = write});
        for (std::int64_t i = 0; i < rows; ++i) {
          for (std::int64_t b = 0; b < batch; ++b) {
            double want = write == Write::add ? before[index(b * rows + i)] : 0;
            for (std::int64_t k = pattern.begin(i); k < pattern.end(i); ++k) {
              want += 0.7 * w[index(k)] * x_t(pattern.column(k), b);
            }
            CHECK(std::abs(y(b, i) - want) < 1e-13);
          }
          for (std::int64_t k = pattern.begin(i); k < pattern.end(i); ++k) {
            double want = write == Write::add ? start[index(k)] : 0;
            for (std::int64_t b = 0; b < batch; ++b) want += -0.3 * d_t(i, b) * x_t(pattern.column(k), b);
            CHECK(std::abs(dw[index(k)] - want) < 1e-13);
          }
        }
      }
      Room turned(Values(index(cols * batch), NAN), batch, cols, 1);
      kernels::transpose({}, {.x = x_t.view, .y = turned.view});
      bool same = true;
      for (std::int64_t i = 0; i < cols * batch; ++i)
        same = same && turned(i % batch, i / batch) == x_t(i / batch, i % batch);
      CHECK(same);
      const auto [unused, position] = transposed(pattern);
      Values sorted(w.size(), NAN);
      kernels::permute({}, {.x = values,
                            .from = list_of(position),
                            .y = {.data = sorted.data(), .shape = {pattern.count()}, .dtype = DType::f64}});
      for (std::size_t k = 0; k < w.size(); ++k) CHECK(sorted[k] == w[index(position[k])]);
    }
  }
}

namespace {

/// Neurons in `parts` nodes, edges between random pairs of parts, cycles and self-loops among them; the first and the
/// last node are clamped, a middle one in part.
Problem masked_problem(std::uint64_t seed, bool sparse) {
  Dice dice(seed);
  Problem problem;
  problem.batch = seed % 3 == 1 ? 4 * (3 + dice.below(8)) : 1 + dice.below(5);  // the former by patches on a GPU
  const int parts = 3 + dice.below(2);
  for (int i = 0; i < parts; ++i) {
    problem.nodes.push_back({.name = "n" + std::to_string(i), .shape = {1 + dice.below(12)}});
  }
  for (const NodeSpec& to : problem.nodes) {
    for (const NodeSpec& from : problem.nodes) {
      if (!dice.chance(0.7)) continue;
      const double gain = dice.uniform(0.3, 1), bias = dice.below(2);
      EdgeSpec edge{.from = {from.name}, .to = to.name};
      edge.chain = {op("tanh"), op(sparse ? "sparse_linear" : "linear", {{"gain", gain}, {"bias", bias}})};
      if (dice.chance(0.3)) edge.chain.push_back(op("sigmoid"));
      edge.pattern = std::make_shared<const Pattern>(
          random_pattern(dice, to.shape.count(), from.shape.count(), dice.uniform(0.1, 0.9)));
      problem.edges.push_back(edge);
    }
  }
  const auto clamp = [&](NodeId v, bool whole) {
    const std::int64_t count = problem.batch * problem.nodes[index(v)].shape.count();
    Values where(index(count));
    for (double& entry : where) entry = dice.chance(0.5) ? 1 : 0;
    whole ? problem.clamp(v, dice.normals(count)) : problem.clamp(v, dice.normals(count), where);
  };
  clamp(0, true);
  if (dice.chance(0.5)) clamp(1, false);
  clamp(parts - 1, true);
  return problem;
}

/// A sparse parameter as the matrix that it stands for.
Values whole(const Pattern& pattern, const Values& values) {
  Values all(index(pattern.rows * pattern.cols), 0.0);
  for (std::int64_t row = 0; row < pattern.rows; ++row) {
    for (std::int64_t k = pattern.begin(row); k < pattern.end(row); ++k) {
      all[index(row * pattern.cols + pattern.column(k))] = values[index(k)];
    }
  }
  return all;
}

void check_same_network(Run& sparse, Run& dense) {
  const Graph& graph = sparse.network.graph();
  for (NodeId v = 0; v < graph.node_count(); ++v) {
    CHECK(relative_error(read_value(sparse.network, v, sparse.problem.batch),
                         read_value(dense.network, v, dense.problem.batch), 1) < 1e-12);
  }
  for (EdgeId e = 0; e < graph.edge_count(); ++e) {
    const auto& chain = graph.edge(e).chain;
    for (std::size_t link = 0; link < chain.size(); ++link) {
      for (std::size_t i = 0; i < chain[link].params.size(); ++i) {
        const ParamId mine = chain[link].params[i], theirs = dense.network.graph().edge(e).chain[link].params[i];
        const Pattern* pattern = i == 0 ? chain[link].pattern.get() : nullptr;
        const auto& mask = dense.network.graph().param(theirs).mask;
        const auto compare = [&](const View& a, const View& b) {
          Values values = read(sparse.network, a), other = read(dense.network, b);
          if (pattern != nullptr) values = whole(*pattern, values);
          for (std::size_t k = 0; k < mask.size(); ++k) other[k] = mask[k] != 0 ? other[k] : 0;
          CHECK(relative_error(values, other, 1) < 1e-12);
        };
        compare(sparse.network.weight(mine), dense.network.weight(theirs));
        compare(sparse.network.gradient(mine), dense.network.gradient(theirs));
        if (sparse.network.arena().has("m/" + graph.param(mine).name)) {
          compare(sparse.network.param_buffer("m", mine), dense.network.param_buffer("m", theirs));
        }
      }
    }
  }
}

}  // namespace

// The same seed gives both the same first weights: nothing is copied from one to the other.
TEST_CASE("sparse and masked matrices give the same numbers, over training steps on cyclic graphs") {
  int moved = 0;
  for (std::uint64_t seed = 0; seed < 14; ++seed) {
    CAPTURE(seed);
    const Problem sparse = masked_problem(seed, true), dense = masked_problem(seed, false);
    if (sparse.edges.empty()) continue;
    for (const bool optimize : {true, false}) {
      PlanSpec spec = wild_plan(seed, sparse);
      spec.optimize = optimize;
      spec.learn = LearnSpec{.optimizer = WeightAdam{.epsilon = 1e-3, .weight_decay = 0.1}, .rate = {.base = 0.02}};
      if (seed % 3 == 0) spec.learn->optimizer = WeightSgd{.momentum = 0.5};
      if (seed % 2 == 0) spec.learn->clip_norm = 0.05;
      WeightInit init{.kind = seed % 2 == 0 ? WeightInit::Kind::xavier : WeightInit::Kind::fan_in};
      Run a(sparse, spec, DType::f64, seed % 4 == 0 ? 2 : 1, init), b(dense, spec, DType::f64, 1, init);
      // A bias is drawn by the fan of its own operator.
      for (ParamId p = 0; p < a.network.graph().param_count(); ++p) {
        if (a.network.graph().param(p).spec.role == ParamRole::bias) {
          b.network.arena().write(b.network.weight(p), read(a.network, a.network.weight(p)));
        }
      }
      const Values first = read(a.network, a.network.weight(0));
      for (int step = 0; step < 4; ++step) {
        a.step();
        b.step();
        check_same_network(a, b);
      }
      moved += worst_difference(first, read(a.network, a.network.weight(0))) > 1e-3 ? 1 : 0;
    }
  }
  CHECK(moved > 20);
}

namespace {

/// Three nodes, the outer ones clamped, of neurons that read near ones; with edges back and to themselves, or none.
Problem near_problem(bool sparse, bool cycles) {
  Dice dice(11);
  Problem problem;
  problem.batch = 12;
  for (const auto& [name, width] : {std::pair<const char*, std::int64_t>{"from", 48}, {"middle", 57}, {"to", 40}}) {
    problem.nodes.push_back({.name = name, .shape = {width}});
  }
  std::vector<std::pair<NodeId, NodeId>> edges = {{0, 1}, {1, 2}};
  if (cycles) edges.insert(edges.end(), {{1, 1}, {2, 1}});
  for (const auto& [from, to] : edges) {
    const std::int64_t rows = problem.nodes[index(to)].shape.count(), cols = problem.nodes[index(from)].shape.count();
    std::vector<std::uint8_t> mask(index(rows * cols));
    for (std::int64_t i = 0; i < rows * cols; ++i) {
      const bool near = std::abs(i / cols * cols / rows - i % cols) <= 12;
      mask[index(i)] = near && dice.chance(0.7) ? 1 : 0;
    }
    EdgeSpec edge{.from = {problem.nodes[index(from)].name}, .to = problem.nodes[index(to)].name};
    edge.chain = {op("tanh"), op(sparse ? "sparse_linear" : "linear", {{"gain", 0.8}, {"bias", 0}})};
    edge.pattern = std::make_shared<const Pattern>(pattern_of(mask, rows, cols));
    problem.edges.push_back(edge);
  }
  for (const NodeId v : {0, 2}) problem.clamp(v, dice.normals(problem.batch * problem.nodes[index(v)].shape.count()));
  return problem;
}

}  // namespace

TEST_CASE("sparse edges in bfloat16: neurons that read near ones go by blocks, and as masked matrices do") {
  const Problem sparse = near_problem(true, true), dense = near_problem(false, true);
  PlanSpec spec = plan_for(sparse, 6);
  spec.operands = DType::bf16;
  Run blocks(sparse, spec, DType::f32), masked(dense, spec, DType::f32);
  spec.operands = DType::f32;
  Run whole(sparse, spec, DType::f32);
  for (EdgeId e = 0; e < 4; ++e) {
    const SparseViews& views = *blocks.network.sparse_by_blocks(e, 1);
    CHECK((!views.by_row.blocks.empty() && !views.by_column.blocks.empty()));
  }
  for (Run* run : {&whole, &blocks, &masked}) run->step();
  const auto middle = [&](Run& run) { return read_value(run.network, 1, sparse.batch); };
  const double lost = relative_error(middle(blocks), middle(whole));
  CHECK((lost > 1e-5 && lost < 1e-2));
  CHECK(relative_error(middle(blocks), middle(masked)) < 0.1 * lost);  // a sum rounded otherwise may move an operand
}

TEST_CASE("sparse edges in bfloat16: products take the weights as they are after each update") {
  for (const char* schedule : {"pc", "ipc", "backprop"}) {
    CAPTURE(schedule);
    const Problem problem = near_problem(true, std::string_view(schedule) != "backprop");
    PlanSpec spec = plan_for(problem, 6);
    spec.schedule = &find_schedule(schedule);
    spec.learn = LearnSpec{.optimizer = WeightSgd{}, .rate = {.base = 0.05}};
    Run whole(problem, spec, DType::f32);
    spec.operands = DType::bf16;
    Run blocks(problem, spec, DType::f32);
    Values first, before;
    for (int step = 0; step < 4; ++step) {
      whole.step();
      blocks.step();
      for (ParamId p = 0; p < whole.network.graph().param_count(); ++p) {
        const Values got = read(blocks.network, blocks.network.gradient(p));
        const Values want = read(whole.network, whole.network.gradient(p));
        CHECK(relative_error(got, want) < 2e-2);
        if (p == 0) (step == 0 ? first : before) = want;
      }
    }
    CHECK(relative_error(first, before) > 0.1);  // old weights would show
  }
}

TEST_CASE("sparse edges in bfloat16: products that go on with errors and moves leave what calls apart leave") {
  using Change = std::function<void(PlanSpec&)>;
  struct Variant {
    std::string name;
    Change change;
    bool errors = true, moves = true;  // there are products that go on with them
    bool reader = false;               // another reads the map, as float32
  };
  const auto sgd = [](double momentum, bool automatic) {
    return [=](PlanSpec& s) { s.relax.stepper = ValueSgd{.rate = 0.1, .momentum = momentum, .automatic = automatic}; };
  };
  const auto schedule = [](const char* name, bool energies = true) {
    return [=](PlanSpec& s) { s.schedule = &find_schedule(name), s.energies = energies; };
  };
  const std::vector<Variant> variants = {
      {"plain", [](PlanSpec&) {}},
      {"momentum and a rate that follows", sgd(0.6, true)},
      {"not written out", [](PlanSpec& s) { s.relax.steps = 70; }},
      {"a plateau", [](PlanSpec& s) { s.relax.stop = EnergyPlateau{.relative = 1e-3}; }, false},
      {"a gradient", [](PlanSpec& s) { s.relax.stop = GradientNorm{.tolerance = 1e-3}; }, true, false},
      {"ipc", schedule("ipc")},
      {"no energies", schedule("pc", false)},
      {"forward update", [](PlanSpec& s) { s.relax.forward_update = true; }},
      {"somebody looks",
       [](PlanSpec& s) {
         s.observed = {1, 2};
       },
       false},
      {"another reader", [](PlanSpec&) {}, true, false, true},
      {"Adam", [](PlanSpec& s) { s.relax.stepper = ValueAdam{.rate = 0.02}; }, true, false}};
  for (const Variant& variant : variants) {
    CAPTURE(variant.name);
    Problem problem = near_problem(true, true);
    if (variant.reader) {
      problem.nodes.push_back({.name = "side", .shape = {5}});
      problem.edges.push_back({.from = {"middle"}, .to = "side", .chain = {op("tanh"), linear()}});
    }
    PlanSpec spec = plan_for(problem, 6);
    spec.operands = DType::bf16;
    spec.relax.init.kind = ValueInit::Kind::zeros;
    spec.learn = LearnSpec{.optimizer = WeightSgd{}, .rate = {.base = 0.05}};
    spec.energies = true;
    variant.change(spec);
    Run at_once(problem, spec, DType::f32);
    spec.optimize = false;
    Run apart(problem, spec, DType::f32);
    const auto any = [](Run& run, std::string_view kernel) {
      const auto programs = run.trainer.plan(run.problem.batch).programs();
      return std::any_of(programs.begin(), programs.end(), [&](const Program* program) {
        return std::any_of(program->calls().begin(), program->calls().end(),
                           [&](const Call& call) { return call.kernel == kernel; });
      });
    };
    CHECK(any(at_once, "sparse_error") == variant.errors);
    CHECK(any(at_once, "sparse_move") == variant.moves);
    CHECK((!any(apart, "sparse_move") && !any(apart, "sparse_error")));
    for (int step = 0; step < 3; ++step) {
      at_once.step();
      apart.step();
      check_near_numbers(at_once, apart, std::max(rounding(DType::f32), 1e-5), 0.05);
    }
  }
}

TEST_CASE("sparse edges: gradients of the energy are those of dual numbers") {
  for (std::uint64_t seed = 100; seed < 104; ++seed) {
    CAPTURE(seed);
    const Problem problem = masked_problem(seed, true);
    if (problem.edges.empty()) continue;
    PlanSpec spec = plan_for(problem, 2);
    spec.relax.init.kind = ValueInit::Kind::normal;
    spec.relax.init.sigma = 0.5;
    spec.learn = LearnSpec{.optimizer = WeightSgd{}, .rate = {.base = 0.05}};
    Run run(problem, spec);
    Reference reference(run.network, problem, spec);
    for (int step = 0; step < 2; ++step) {
      run.step();
      reference.step();
    }
    for (NodeId v = 0; v < reference.graph.node_count(); ++v) {
      CHECK(worst_difference(read_value(run.network, v, problem.batch), reference.flat(v)) < 1e-11);
    }
    for (ParamId p = 0; p < reference.graph.param_count(); ++p) {
      CHECK(worst_difference(read(run.network, run.network.weight(p)), reference.w[index(p)]) < 1e-11);
    }
  }
}

TEST_CASE("sparse edges: backprop, and the bound of the step size") {
  const auto make = [](bool sparse) {
    Dice same(9);
    Problem problem = chain({6, 9, 4}, [&](std::size_t) {
      return std::vector{op(sparse ? "sparse_linear" : "linear", {{"bias", 0}}), op("tanh")};
    });
    for (std::size_t e = 0; e < 2; ++e) {
      problem.edges[e].pattern = std::make_shared<const Pattern>(
          random_pattern(same, problem.nodes[e + 1].shape.count(), problem.nodes[e].shape.count(), 0.5));
    }
    problem.batch = 3;
    problem.clamp(0, same.normals(18));
    problem.clamp(2, same.normals(12));
    return problem;
  };
  const Problem sparse = make(true), dense = make(false);
  PlanSpec spec = plan_for(sparse, 1);
  spec.schedule = &find_schedule("backprop");
  spec.learn = LearnSpec{.optimizer = WeightSgd{}, .rate = {.base = 0.1}};
  Run a(sparse, spec), b(dense, spec);
  for (int step = 0; step < 3; ++step) {
    a.step();
    b.step();
    check_same_network(a, b);
  }
  for (const ParamId p : {0, 1}) {
    CHECK(spectral_norm(a.network, p) == doctest::Approx(spectral_norm(b.network, p)).epsilon(1e-10));
  }
}

TEST_CASE("sparse edges: a checkpoint is refused by a network with as many weights elsewhere") {
  const auto network = [](std::vector<std::uint8_t> mask) {
    Problem problem = chain({2, 2}, [](std::size_t) { return std::vector{op("sparse_linear")}; });
    problem.edges[0].pattern = std::make_shared<const Pattern>(pattern_of(mask, 2, 2));
    return std::make_unique<Network>(problem.graph(), Exec{}, DType::f64, 1, 1, WeightInit{});
  };
  const auto saved = network({1, 0, 1, 1}), same = network({1, 0, 1, 1}), other = network({1, 1, 0, 1});
  const Scratch folder;
  const std::vector<std::string> weights = {"w/"};
  save_checkpoint(folder / "a.h5", *saved, weights, {}, "");
  same->arena().zero(same->weight(0));
  load_checkpoint(folder / "a.h5", *same);
  CHECK(worst_difference(read(*same, same->weight(0)), read(*saved, saved->weight(0))) == 0);
  const Values before = read(*other, other->weight(0));
  CHECK(contains(error_of([&] { load_checkpoint(folder / "a.h5", *other); }), "is of another graph"));
  CHECK(worst_difference(read(*other, other->weight(0)), before) == 0);
}

TEST_CASE("sparse edges: what is wrong is said") {
  Problem problem = chain({3, 2}, [](std::size_t) { return std::vector{op("sparse_linear")}; });
  CHECK(contains(error_of([&] { static_cast<void>(problem.graph()); }), "must know which weights there are"));
  Dice dice(1);
  problem.edges[0].pattern = std::make_shared<const Pattern>(random_pattern(dice, 3, 3, 0.5));
  CHECK(contains(error_of([&] { static_cast<void>(problem.graph()); }), "has a mask of [3, 3], but weights [2, 3]"));
  problem.edges[0].pattern = nullptr;
  problem.edges[0].mask = [](const Shape& shape) {
    CHECK(shape == Shape{2, 3});
    return std::vector<std::uint8_t>{1, 0, 0, 0, 1, 1};
  };
  const Graph graph = problem.graph();
  CHECK(graph.weight_count() == 3 + 2);
  CHECK(graph.param(0).spec.shape == Shape{3});
}

}  // namespace pc::test

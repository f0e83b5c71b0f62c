// How a relaxation is cut into tiles (kernels/settle_tiles.h): whatever blocks do first, the numbers come out.
#include <algorithm>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/settle_tiles.h"
#include "tests/networks.h"
#include "tests/support.h"

namespace pc::test {
namespace {

using kernels::SettleArgs;
using scalar::Activation;
namespace tiles = kernels::tiles;

/// Matrices in memory that stays where it is.
class Matrices {
 public:
  explicit Matrices(std::uint64_t seed) : dice_(seed) {}

  View make(std::int64_t rows, std::int64_t cols, DType type = DType::f32, double scale = 1) {
    const std::int64_t ld = (cols + 7) / 8 * 8;
    auto& bytes = memory_.emplace_back(static_cast<std::size_t>(rows * ld) * size_of(type) + 16);
    View view{.data = bytes.data(), .shape = {rows, cols}, .dtype = type, .stride = ld};
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < cols; ++c) {
        const double value = scale * dice_.uniform(-1, 1);
        detail::with_any(type, [&]<class T>(T) { view.row<T>(r)[c] = static_cast<T>(value); });
      }
    }
    return view;
  }

 private:
  Dice dice_;
  std::list<std::vector<std::byte>> memory_;
};

/// What groups of threads do with their tasks, one entry at a time, by the words of settle_tiles.h.
class Groups {
 public:
  Groups(const SettleArgs& args, const tiles::Tiles& cut)
      : args_(args),
        cut_(cut),
        counters_(index(cut.counters), 0),
        next_(index(cut.blocks * tiles::kGroups), 0),
        lists_(index(cut.blocks * tiles::kGroups)) {
    for (int group = 0; group < cut.blocks * tiles::kGroups; ++group) {
      if (group % tiles::kGroups == 0) check_weights(group / tiles::kGroups);
      for (int t = 0; t < args.steps; ++t) {
        for (int round = 0; round < 2; ++round) {
          const auto [begin, end] = tasks_of(round, group);
          for (int i = begin; i < end; ++i) {
            if (t >= job(cut.tasks[index(i)]).from) lists_[index(group)].push_back({cut.tasks[index(i)], t});
          }
        }
      }
    }
  }

  /// Some group's next task that waits for nothing; false: none is left. Fails where all wait.
  bool run_one(Dice& dice) {
    std::vector<int> able;
    bool left = false;
    for (int group = 0; group < cut_.blocks * tiles::kGroups; ++group) {
      if (next_[index(group)] == lists_[index(group)].size()) continue;
      left = true;
      const auto& [task, t] = lists_[index(group)][next_[index(group)]];
      if (ready(task, t)) able.push_back(group);
    }
    if (!left) return false;
    REQUIRE(!able.empty());
    const int group = dice.pick(able);
    const auto& [task, t] = lists_[index(group)][next_[index(group)]++];
    run(task, t);
    ++counters_[index(job(task).counter + task.row)];
    return true;
  }

 private:
  [[nodiscard]] const tiles::Job& job(const tiles::Task& task) const { return cut_.jobs[index(task.job)]; }
  [[nodiscard]] std::pair<int, int> tasks_of(int round, int group) const {
    const std::size_t at = index(round * cut_.blocks * tiles::kGroups + group);
    return {cut_.begins[at], cut_.begins[at + 1]};
  }

  /// Each task of a block finds its weights there, and no two jobs' lie in one place.
  void check_weights(int block) const {
    std::vector<int> of(index(cut_.squares), -1);
    for (int i = cut_.kept_begins[index(block)]; i < cut_.kept_begins[index(block + 1)]; ++i) {
      const tiles::Kept& kept = cut_.kept[index(i)];
      const tiles::Job& j = cut_.jobs[index(kept.job)];
      int at = kept.at;
      for (int p = j.products; p < j.products_end; ++p) {
        for (int chunk = 0; chunk < cut_.products[index(p)].chunks; ++chunk) {
          REQUIRE(at < cut_.squares);
          CHECK(std::exchange(of[index(at++)], i) == -1);
        }
      }
    }
    for (int part = 0; part < 2 * tiles::kGroups; ++part) {
      const auto [begin, end] = tasks_of(part / tiles::kGroups, block * tiles::kGroups + part % tiles::kGroups);
      for (int i = begin; i < end; ++i) {
        const tiles::Task& task = cut_.tasks[index(i)];
        if (job(task).products == job(task).products_end) continue;
        REQUIRE((task.at < cut_.squares && of[index(task.at)] >= 0));
        const tiles::Kept& kept = cut_.kept[index(of[index(task.at)])];
        CHECK((kept.job == task.job && kept.col == task.col && kept.at == task.at));
      }
    }
  }

  [[nodiscard]] bool ready(const tiles::Task& task, int t) const {
    for (int i = job(task).waits; i < job(task).waits_end; ++i) {
      const tiles::Wait& wait = cut_.waits[index(i)];
      if (counters_[index(wait.counter + task.row)] < wait.tiles * (t - wait.from + wait.after)) return false;
    }
    return true;
  }

  void run(const tiles::Task& task, int t) {
    const tiles::Job& j = job(task);
    for (std::int64_t r = task.row * tiles::kRows;
         r < std::min<std::int64_t>(args_.rows(), (task.row + 1) * tiles::kRows); ++r) {
      for (std::int64_t c = task.col * tiles::kCols; c < std::min<std::int64_t>(j.n, (task.col + 1) * tiles::kCols);
           ++c) {
        entry(j, t, r, c);
      }
    }
  }

  [[nodiscard]] double sum(const tiles::Job& j, int t, std::int64_t r, std::int64_t c) const {
    double z = 0;
    for (int i = j.products; i < j.products_end; ++i) {
      const tiles::Product& product = cut_.products[index(i)];
      if (t < product.from) continue;
      const View& values = cut_.operands[index(product.values)].view;
      const View& weights = cut_.operands[index(product.weights)].view;
      for (std::int64_t k = 0; k < values.cols(); ++k) {
        z += double(kernels::widened(values, r, k)) *
             double(j.back != 0 ? kernels::widened(weights, k, c) : kernels::widened(weights, c, k));
      }
    }
    return z;
  }

  void entry(const tiles::Job& j, int t, std::int64_t r, std::int64_t c) {
    const auto z = static_cast<float>(j.scale * sum(j, t, r, c));
    float s = 0;
    for (int i = j.terms; i < j.terms_end; ++i) {
      const tiles::Term& term = cut_.terms[index(i)];
      if (t >= term.from) s += term.factor * term.at[r * term.ld + c];
    }
    const float at = j.at.at == nullptr ? 0 : j.at.at[r * j.at.ld + c];
    const auto narrow = [&](const tiles::Narrow& to, float value) {
      if (to.at == nullptr) return;
      View row{.data = static_cast<std::uint16_t*>(to.at) + r * to.ld + c, .shape = {1, 1}, .dtype = args_.operands()};
      row.exponent = static_cast<int>(std::log2(to.scale));
      kernels::narrow_row({row, args_.overflow}, 0, &value);
    };
    if (j.back == 0) {
      const auto f = scalar::change(j.f, at, z, j.leak);
      const float delta = j.factor * (s - f.value);
      j.out.at[r * j.out.ld + c] = delta;
      return narrow(j.operand, f.slope * delta);
    }
    float& dx = j.out.at[r * j.out.ld + c];
    if (t == j.from) dx = 0;
    const float slope = scalar::activate(j.f, at + dx, j.leak).slope, velocity = s - slope * z;
    if (j.velocity.at != nullptr) j.velocity.at[r * j.velocity.ld + c] = velocity;
    dx -= static_cast<float>(args_.rate) * velocity;
    narrow(j.operand, scalar::change(j.f, at, dx, j.leak).value);
    if (t + 1 < args_.steps) return;
    if (j.whole.at != nullptr) j.whole.at[r * j.whole.ld + c] = at + dx;
    narrow(j.narrow, dx);
    narrow(j.narrow_whole, at + dx);
  }

  const SettleArgs& args_;
  const tiles::Tiles& cut_;
  std::vector<int> counters_;
  std::vector<std::size_t> next_;
  std::vector<std::vector<std::pair<tiles::Task, int>>> lists_;
};

/// Whose memory is large enough for any of these networks, however few blocks there are.
constexpr tiles::Machine kMachine{12, std::size_t{16} << 20};

/// A network of dense edges and identities, cycles included, such as can be cut.
SettleArgs random_network(Dice& dice, Matrices& memory, const View& overflow) {
  const std::int64_t rows = 1 + dice.below(150);
  const DType type = dice.chance(0.5) ? DType::f16 : DType::bf16;
  SettleArgs args{
      .steps = 1 + dice.below(7), .rate = 0.1, .momentum = dice.chance(0.5) ? 0.6 : 0, .overflow = overflow};
  args.exponent = type == DType::f16 ? 6 : 0;
  const int nodes = 2 + dice.below(4);
  const auto width = [&] { return std::int64_t{1} + dice.below(dice.chance(0.5) ? 9 : 140); };
  const std::int64_t common = width();
  std::vector<Activation> before;
  for (int v = 0; v < nodes; ++v) {
    const std::int64_t n = dice.chance(0.5) ? common : width();
    kernels::SettleNode node{.x = memory.make(rows, n)};
    if (v == 0 || dice.chance(0.8)) {
      node.dx = memory.make(rows, n);
      if (dice.chance(0.5)) node.whole = memory.make(rows, n);
      if (dice.chance(0.5)) node.narrow = {memory.make(rows, n, type), overflow};
      node.narrow.y.exponent = node.narrow.y.empty() ? 0 : args.exponent;
      if (dice.chance(0.5)) node.narrow_whole = {memory.make(rows, n, type), overflow};
    }
    args.nodes.add(node);
    before.push_back(dice.pick(std::vector{Activation::identity, Activation::tanh, Activation::gelu}));
  }
  const double gain = dice.uniform(0.3, 1);
  for (int v = 0; v < nodes; ++v) {
    for (int i = dice.chance(0.2) ? 2 : 1; i > 0; --i) {
      kernels::SettlePrediction p{.node = v, .precision = dice.uniform(0.3, 1.5)};
      if (dice.chance(0.3)) p.start = memory.make(rows, args.nodes[v].x.cols());
      args.predictions.add(p);
    }
  }
  for (int e = 0; e < 2 * nodes; ++e) {
    kernels::SettleEdge edge{.source = dice.below(nodes), .prediction = dice.below(args.predictions.count)};
    const std::int64_t in = args.nodes[edge.source].x.cols(), out = args.width(args.predictions[edge.prediction]);
    const auto into = [&](const kernels::SettleEdge& other) { return other.prediction == edge.prediction; };
    if (args.nodes[edge.source].dx.empty()) continue;
    if (in == out && dice.chance(0.3)) {
      if (std::any_of(args.edges.begin(), args.edges.end(),
                      [&](const auto& o) { return into(o) && o.after != Activation::identity; }))
        continue;
      args.edges.add(edge);
      continue;
    }
    edge.w = memory.make(out, in, type, 1 / std::sqrt(double(in)));
    edge.gain = gain;
    edge.before = before[index(edge.source)];
    if (dice.chance(0.3) && std::none_of(args.edges.begin(), args.edges.end(), into)) {
      edge.after = Activation::silu;
      edge.z = memory.make(rows, out);
    }
    args.edges.add(edge);
    if (!kernels::why_not_tiled(args, kMachine).empty()) {
      args.edges.items.pop_back();
      --args.edges.count;
    }
  }
  return args;
}

/// Everything that a relaxation leaves.
std::map<std::string, std::vector<double>> left_by(const SettleArgs& args) {
  std::map<std::string, std::vector<double>> all;
  const auto add = [&](const std::string& name, const View& view) {
    for (std::int64_t r = 0; r < view.rows() && !view.empty(); ++r) {
      for (std::int64_t c = 0; c < view.cols(); ++c) {
        all[name].push_back(view.dtype == DType::f32 ? double(view.row<float>(r)[c])
                                                     : double(kernels::widened(view, r, c)));
      }
    }
  };
  for (int v = 0; v < args.nodes.count; ++v) {
    const std::string name = std::to_string(v);
    if (args.nodes[v].dx.empty()) continue;
    add("dx" + name, args.nodes[v].dx);
    add("whole" + name, args.nodes[v].whole);
    add("narrow" + name, args.nodes[v].narrow.y);
    add("narrow_whole" + name, args.nodes[v].narrow_whole.y);
  }
  return all;
}

}  // namespace

TEST_CASE("settle, cut into tiles: in whatever order groups get on, what one sample after the other gives") {
  int products = 0;
  double worst = 0;
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    CAPTURE(seed);
    Dice dice(seed);
    Matrices memory(seed);
    double overflow = 0;
    const View flag{.data = &overflow, .shape = {}, .dtype = DType::f64};
    SettleArgs args = random_network(dice, memory, flag);
    if (args.operands() == args.dtype()) continue;  // no edge has weights
    args.check();
    std::vector<std::byte> scratch(kernels::settle_scratch(args) + 256,
                                   std::byte{0xFF});  // NaN, where nobody has written
    void* at = scratch.data();
    std::size_t space = scratch.size();
    at = std::align(256, 1, at, space);
    args.scratch = {.data = at, .shape = {static_cast<std::int64_t>(scratch.size() - 256)}, .dtype = DType::u8};
    kernels::settle_cpu(args, Share{});
    const auto truth = left_by(args);
    for (const kernels::SettleNode& node : args.nodes) {
      for (std::int64_t r = 0; r < node.dx.rows() && !node.dx.empty(); ++r)
        std::fill_n(node.dx.row<float>(r), node.dx.cols(), std::nanf(""));
    }
    const tiles::Tiles cut = tiles::cut(args, {1 + dice.below(kMachine.blocks), kMachine.memory});
    products += static_cast<int>(cut.products.size());
    Groups groups(args, cut);
    while (groups.run_one(dice)) {
    }
    for (const auto& [name, values] : left_by(args)) {
      CAPTURE(name);
      const double off = relative_error(values, truth.at(name));
      CHECK(off < (args.operands() == DType::f16 ? 1e-3 : 8e-3));
      if (!name.starts_with("narrow")) worst = std::max(worst, off);
    }
    CHECK(overflow == 0);
  }
  CHECK(products > 120);
  MESSAGE("worst relative difference ", worst);
}

TEST_CASE("settle, cut into tiles: rows are shared out so that weights fit, or it is told that they do not") {
  Matrices memory(1);
  double overflow = 0;
  SettleArgs args{.steps = 3, .overflow = {.data = &overflow, .shape = {}, .dtype = DType::f64}};
  constexpr std::int64_t kRows = 128, kWidth = 160;  // 2 tiles of samples, 5 of entries, 2 chunks of terms
  for (int v = 0; v < 2; ++v) args.nodes.add({.x = memory.make(kRows, kWidth), .dx = memory.make(kRows, kWidth)});
  args.predictions.add({.node = 1, .start = memory.make(kRows, kWidth)});
  args.edges.add({.source = 0, .prediction = 0, .w = memory.make(kWidth, kWidth, DType::f16)});
  std::vector<std::byte> scratch(kernels::settle_scratch(args));
  args.scratch = {.data = scratch.data(), .shape = {static_cast<std::int64_t>(scratch.size())}, .dtype = DType::u8};
  const auto made = [&](int blocks) { return tiles::cut(args, {blocks, std::size_t{200} << 10}); };
  // Round 0: ten tiles of two squares each; round 1: ten of x0 with as many, and ten of x1 without.
  const tiles::Tiles many = made(40), few = made(3);
  CHECK((many.blocks == 30 && many.groups == 1 && many.squares == 2));
  CHECK((few.blocks == 3 && few.groups == 2 && few.squares == 8));
  CHECK(few.kept.size() == 15);  // of each job each column once, for both of its tiles
  const std::size_t needed = few.list_bytes() + 2 * 3 * tiles::kStage + 8 * tiles::kSquare;
  CHECK(kernels::why_not_tiled(args, {3, needed}).empty());
  CHECK(contains(kernels::why_not_tiled(args, {3, needed - 1}), "do not fit"));
  args.scratch = {};  // as before there is any
  CHECK(kernels::why_not_tiled(args, {3, needed}).empty());
  CHECK(contains(kernels::why_not_tiled(args, {3, needed - 1}), "do not fit"));
}

TEST_CASE("settle: errors travel one edge a step") {
  double memory[3] = {};
  const auto one = [&](int i) { return View{.data = &memory[i], .shape = {1, 1}, .dtype = DType::f64}; };
  SettleArgs args{.steps = 9};
  for (int v = 0; v < 6; ++v) args.nodes.add({one(0), v == 0 || v == 5 ? View{} : one(1)});
  for (int v = 1; v < 6; ++v) args.predictions.add({.node = v});
  for (int v = 1; v < 5; ++v) args.edges.add({.source = v, .prediction = v});  // to the next
  args.predictions[4].start = one(2);
  const kernels::SettleFirst first = kernels::settle_first(args);
  CHECK(first.predictions == std::vector{4, 3, 2, 1, 0});
  CHECK(first.nodes == std::vector{9, 3, 2, 1, 0, 9});
}

TEST_CASE("settle: more weights than an int counts fit no block") {
  float nothing = 0;
  const auto view = [&](std::int64_t rows, std::int64_t cols) {
    return View{.data = &nothing, .shape = {rows, cols}, .dtype = DType::f32};  // nobody looks into it
  };
  for (const std::int64_t n : {std::int64_t{32768}, std::int64_t{46341}, std::int64_t{65536}, std::int64_t{92682}}) {
    SettleArgs args;
    args.nodes.add({.x = view(1, n)});
    args.nodes.add({.x = view(1, n), .dx = view(1, n)});
    args.predictions.add({.node = 1});
    args.edges.add({.source = 0, .prediction = 0, .w = view(n, n)});
    const kernels::SettleLayout layout = kernels::settle_layout(args);
    CAPTURE(n);
    CHECK(layout.weights > 0);
    CHECK(layout.weights + std::int64_t{layout.state} > 1000000000);
    CHECK(!kernels::settle_fits({}, args));
  }
}

}  // namespace pc::test

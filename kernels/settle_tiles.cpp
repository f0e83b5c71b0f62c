#include "kernels/settle_tiles.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "kernels/exec.h"

namespace pc::kernels {
namespace {

using scalar::Activation;
using tiles::kCols, tiles::kPart, tiles::kRows, tiles::kTerms;

constexpr const char* kTooLarge =
    "the weights do not fit the shared memory of all multiprocessors, or the batch is too large for so few of them";

std::size_t place(int i) { return static_cast<std::size_t>(i); }

bool multiplies(const SettleEdge& e) { return !e.w.empty(); }

/// Hands out memory, 256 bytes aligned.
class Room {
 public:
  explicit Room(std::byte* memory) : memory_(memory) {}
  std::byte* take(std::size_t bytes) {
    constexpr std::size_t kAlign = 256;
    std::byte* at = memory_ + used_;
    used_ += (bytes + kAlign - 1) / kAlign * kAlign;
    return at;
  }
  [[nodiscard]] std::size_t used() const { return used_; }

 private:
  std::byte* memory_;
  std::size_t used_ = 0;
};

/// What lies in the scratch memory.
struct Layout {
  std::vector<tiles::Entries> delta, velocity;  // of predictions; of nodes
  // Of predictions without edges that count: the error is what the node's value is, and stands nowhere else.
  std::vector<bool> bare;
  std::vector<View> sent, read;  // as operands: what predictions send back, what goes into their products
  std::size_t counters_at = 0, bytes = 0;
};

Layout layout_of(const SettleArgs& args) {
  Room room(args.scratch.as<std::byte>());
  Layout layout;
  const std::int64_t rows = args.rows();
  const auto padded = [](std::int64_t n) { return std::int64_t{tiles::pieces(n, kTerms)} * kTerms; };
  const auto entries = [&](std::int64_t n, bool wanted) {
    if (!wanted) return tiles::Entries{};
    return tiles::Entries{
        reinterpret_cast<float*>(room.take(sizeof(float) * static_cast<std::size_t>(rows * padded(n)))), padded(n)};
  };
  const auto operand = [&](std::int64_t n, bool wanted) {
    if (!wanted) return View{};
    return View{.data = room.take(2 * static_cast<std::size_t>(rows * padded(n))),
                .shape = {rows, n},
                .dtype = args.operands(),
                .device = args.scratch.device,
                .stride = padded(n),
                .exponent = args.exponent};
  };
  for (int p = 0; p < args.predictions.count; ++p) {
    const auto into = [&](const SettleEdge& e) { return e.prediction == p; };
    const auto multiplied = [&](const SettleEdge& e) { return into(e) && multiplies(e); };
    const std::int64_t n = args.width(args.predictions[p]);
    layout.bare.push_back(std::none_of(args.edges.begin(), args.edges.end(), into));
    layout.delta.push_back(entries(n, !layout.bare.back()));
    layout.sent.push_back(operand(n, std::any_of(args.edges.begin(), args.edges.end(), multiplied)));
  }
  for (int v = 0; v < args.nodes.count; ++v) {
    const SettleNode& node = args.nodes[v];
    const auto multiplied = [&](const SettleEdge& e) { return e.source == v && multiplies(e); };
    layout.velocity.push_back(entries(node.x.cols(), !node.dx.empty() && args.momentum != 0));
    layout.read.push_back(operand(node.x.cols(), std::any_of(args.edges.begin(), args.edges.end(), multiplied)));
  }
  layout.counters_at = room.used();
  const std::int64_t jobs = args.predictions.count + args.nodes.count;
  room.take(sizeof(int) * static_cast<std::size_t>(jobs * tiles::pieces(rows, kRows)));
  layout.bytes = room.used();
  return layout;
}

class Cutter {
 public:
  explicit Cutter(const SettleArgs& args) : args_(args), layout_(layout_of(args)), first_(settle_first(args)) {
    rows_ = tiles::pieces(args.rows(), kRows);
    // A node that does not move in these steps stores that in the last one.
    for (int& step : first_.nodes) step = std::min(step, args.steps - 1);
    made_.counters_at = layout_.counters_at;
    made_.counters = (args.predictions.count + args.nodes.count) * rows_;
  }

  /// Nothing, if the weights do not fit.
  std::optional<tiles::Tiles> cut(const tiles::Machine& machine) {
    for (int p = 0; p < args_.predictions.count; ++p) compare(p);
    const std::size_t nodes_begin = made_.jobs.size();
    for (int v = 0; v < args_.nodes.count; ++v) {
      if (!args_.nodes[v].dx.empty()) move(v);
    }
    // A block for each tile of a round, if there are so many: it gets its operands sooner than two groups of one.
    const int together = std::min(rows_, tiles::kGroups);
    if (share_out(nodes_begin, machine, 1, 1) || share_out(nodes_begin, machine, together, tiles::kGroups)) {
      return std::move(made_);
    }
    return std::nullopt;
  }

 private:
  /// Of a node, whose counters stand behind those of predictions.
  [[nodiscard]] int counter_of_node(int v) const { return (args_.predictions.count + v) * rows_; }
  [[nodiscard]] int counter_of_prediction(int p) const { return p * rows_; }
  [[nodiscard]] static int across(const View& x) { return tiles::pieces(x.cols(), kCols); }
  [[nodiscard]] const View& x_of(const SettlePrediction& p) const { return args_.nodes[p.node].x; }

  int operand(const View& view, int rows, int cols) {
    const auto [found, fresh] =
        operands_.try_emplace({view.data, view.rows(), view.cols(), rows}, made_.operands.size());
    if (fresh) made_.operands.push_back({view, rows, cols});
    return static_cast<int>(found->second);
  }
  /// Of values with the weights of an edge, from a step on.
  void product(const View& values, const SettleEdge& e, bool back, int from) {
    made_.products.push_back({operand(values, kRows, kPart),
                              back ? operand(e.w, kTerms, kCols) : operand(e.w, kCols, kPart),
                              tiles::pieces(values.cols(), kTerms), from});
  }

  tiles::Job begin() const {
    tiles::Job job;
    job.products = static_cast<int>(made_.products.size());
    job.waits = static_cast<int>(made_.waits.size());
    job.terms = job.late = static_cast<int>(made_.terms.size());
    return job;
  }
  void end(tiles::Job job) {
    job.products_end = static_cast<int>(made_.products.size());
    job.waits_end = static_cast<int>(made_.waits.size());
    job.terms_end = static_cast<int>(made_.terms.size());
    job.packed = packed(job) ? 1 : 0;
    made_.jobs.push_back(job);
  }

  /// Waits for what a node's moves before step t have left.
  void wait_for_node(int v, std::size_t begin) {
    wait({counter_of_node(v), across(args_.nodes[v].x), first_.nodes[place(v)], 0}, begin);
  }
  void wait_for_prediction(int p, std::size_t begin) {
    wait({counter_of_prediction(p), across(x_of(args_.predictions[p])), first_.predictions[place(p)], 1}, begin);
  }
  void wait(const tiles::Wait& wanted, std::size_t begin) {
    const auto same = [&](const tiles::Wait& w) { return w.counter == wanted.counter; };
    if (std::none_of(made_.waits.begin() + static_cast<std::ptrdiff_t>(begin), made_.waits.end(), same)) {
      made_.waits.push_back(wanted);
    }
  }
  void term(const View& view, double factor, int from) {
    made_.terms.push_back({view.as<const float>(), view.ld(), static_cast<float>(factor), from});
  }
  void term(const tiles::Entries& entries, double factor, int from) {
    made_.terms.push_back({entries.at, entries.ld, static_cast<float>(factor), from});
  }

  [[nodiscard]] bool bare(int p) const { return layout_.bare[place(p)]; }

  void compare(int p) {
    if (bare(p) || first_.predictions[place(p)] >= args_.steps) return;
    const SettlePrediction& prediction = args_.predictions[p];
    const SettleNode& node = args_.nodes[prediction.node];
    tiles::Job job = begin();
    const std::size_t waits = made_.waits.size();
    job.n = static_cast<int>(node.x.cols());
    job.from = first_.predictions[place(p)];
    job.counter = counter_of_prediction(p);
    job.factor = static_cast<float>(prediction.precision);
    if (!prediction.start.empty()) term(prediction.start, 1, 0);
    job.late = static_cast<int>(made_.terms.size());
    if (!node.dx.empty()) {
      term(node.dx, 1, first_.nodes[place(prediction.node)] + 1);
      wait_for_node(prediction.node, waits);
    }
    for (const SettleEdge& e : args_.edges) {
      if (e.prediction != p) continue;
      const int from = first_.nodes[place(e.source)] + 1;
      wait_for_node(e.source, waits);
      if (!multiplies(e)) {
        term(args_.nodes[e.source].dx, -1, from);
        continue;
      }
      product(layout_.read[place(e.source)], e, false, from);
      job.scale = static_cast<float>(std::ldexp(e.gain, -args_.exponent));
      job.f = e.after;
      job.leak = static_cast<float>(e.leak);
      if (e.after != Activation::identity) job.at = {e.z.as<float>(), e.z.ld()};
    }
    job.out = layout_.delta[place(p)];
    job.operand = narrow(layout_.sent[place(p)]);
    end(job);
  }

  void move(int v) {
    const SettleNode& node = args_.nodes[v];
    tiles::Job job = begin();
    const std::size_t waits = made_.waits.size();
    const int from = first_.nodes[place(v)];
    job.n = static_cast<int>(node.x.cols());
    job.from = from;
    job.back = 1;
    job.counter = counter_of_node(v);
    if (args_.momentum != 0) {
      job.velocity = layout_.velocity[place(v)];
      term(job.velocity, args_.momentum, from + 1);
    }
    const auto own = [&](int p) { return args_.predictions[p].node == v; };
    for (int p = 0; p < args_.predictions.count; ++p) {
      const SettlePrediction& prediction = args_.predictions[p];
      if (!own(p) || !bare(p)) continue;
      if (!prediction.start.empty()) term(prediction.start, prediction.precision, 0);
      term(node.dx, prediction.precision, from + 1);
    }
    job.late = static_cast<int>(made_.terms.size());
    for (int p = 0; p < args_.predictions.count; ++p) {
      if (!own(p) || bare(p) || first_.predictions[place(p)] >= args_.steps) continue;
      term(layout_.delta[place(p)], 1, first_.predictions[place(p)]);
      wait_for_prediction(p, waits);
    }
    for (const SettleEdge& e : args_.edges) {
      if (e.source != v || first_.predictions[place(e.prediction)] >= args_.steps) continue;
      const int sent_from = first_.predictions[place(e.prediction)];
      wait_for_prediction(e.prediction, waits);
      if (!multiplies(e)) {
        term(layout_.delta[place(e.prediction)], -1, sent_from);
        continue;
      }
      product(layout_.sent[place(e.prediction)], e, true, sent_from);
      job.scale = static_cast<float>(std::ldexp(e.gain, -args_.exponent));
      job.f = e.before;
      job.leak = static_cast<float>(e.leak);
    }
    job.at = {node.x.as<float>(), node.x.ld()};
    job.out = {node.dx.as<float>(), node.dx.ld()};
    job.operand = narrow(layout_.read[place(v)]);
    if (!node.whole.empty()) job.whole = {node.whole.as<float>(), node.whole.ld()};
    job.narrow = narrow(node.narrow.y);
    job.narrow_whole = narrow(node.narrow_whole.y);
    end(job);
  }

  static tiles::Narrow narrow(const View& to) {
    if (to.empty()) return {};
    return {to.data, to.ld(), std::ldexp(1.0F, to.exponent)};
  }

  /// Whether four entries of a row can be read and written at once.
  [[nodiscard]] bool packed(const tiles::Job& job) const {
    constexpr std::int64_t kPack = 4;
    const auto aligned = [](const void* at, std::int64_t ld, std::size_t size) {
      return ld % kPack == 0 && reinterpret_cast<std::uintptr_t>(at) % (size * kPack) == 0;
    };
    bool all = job.n % kPack == 0;
    for (const tiles::Entries& e : {job.at, job.out, job.velocity, job.whole}) {
      all = all && aligned(e.at, e.ld, sizeof(float));
    }
    for (const tiles::Narrow& n : {job.operand, job.narrow, job.narrow_whole}) all = all && aligned(n.at, n.ld, 2);
    for (int i = job.terms; i < job.terms_end; ++i) {
      all = all && aligned(made_.terms[place(i)].at, made_.terms[place(i)].ld, sizeof(float));
    }
    return all;
  }

  /// Tiles of the same columns, for `together` groups of one block.
  struct Unit {
    int job, col, row;  // the first
    int price;
  };

  /// Of one round: its jobs are [begin, end).
  [[nodiscard]] std::vector<Unit> units(std::size_t begin, std::size_t end, int together) const {
    std::vector<Unit> list;
    for (std::size_t j = begin; j < end; ++j) {
      constexpr int kEnds = 3;  // what comes before and after the products of a tile, in chunks
      for (int col = 0; col < tiles::pieces(made_.jobs[j].n, kCols); ++col) {
        for (int row = 0; row < rows_; row += together) {
          list.push_back({static_cast<int>(j), col, row, kEnds + chunks(made_.jobs[j])});
        }
      }
    }
    std::stable_sort(list.begin(), list.end(), [](const Unit& a, const Unit& b) { return a.price > b.price; });
    return list;
  }
  [[nodiscard]] int chunks(const tiles::Job& job) const {
    int sum = 0;
    for (int i = job.products; i < job.products_end; ++i) sum += made_.products[place(i)].chunks;
    return sum;
  }

  /// A block's share.
  struct Share {
    std::vector<tiles::Kept> kept;
    int squares = 0, tasks = 0;
    std::array<std::vector<tiles::Task>, tiles::kGroups> lists[2];  // by round
    std::array<int, tiles::kGroups> load = {};                      // of the round in hand

    /// Where these weights are, or would be.
    [[nodiscard]] int at(const Unit& unit) const {
      for (const tiles::Kept& k : kept) {
        if (k.job == unit.job && k.col == unit.col) return k.at;
      }
      return squares;
    }
  };

  /// Units to blocks, in each round: the dearest first, each to the block that has least to do and room for its
  /// weights. A group does its cheap tiles first, for which others may wait. False: there is no room, or one group of
  /// each block is too few.
  bool share_out(std::size_t nodes_begin, const tiles::Machine& machine, int together, int groups) {
    const std::array rounds{units(0, nodes_begin, together), units(nodes_begin, made_.jobs.size(), together)};
    const auto blocks = static_cast<std::size_t>(machine.blocks);
    if (groups == 1 && std::max(rounds[0].size(), rounds[1].size()) > blocks) return false;
    constexpr std::size_t kFewest = 3;  // stages of a ring
    const std::size_t taken = made_.list_bytes() + place(groups) * kFewest * tiles::kStage;
    std::vector<Share> shares(std::clamp<std::size_t>(rounds[0].size() + rounds[1].size(), 1, blocks));
    for (std::size_t round = 0; round < 2; ++round) {
      for (Share& share : shares) share.load = {};
      for (const Unit& unit : rounds[round]) {
        const int needs = chunks(made_.jobs[place(unit.job)]), tasks = std::min(together, rows_ - unit.row);
        const auto after = [&](const Share& share) { return std::max(share.squares, share.at(unit) + needs); };
        const auto group_of = [&](const Share& share) {
          const auto least = std::min_element(share.load.begin(), share.load.begin() + groups);
          return tasks > 1 ? 0 : static_cast<int>(least - share.load.begin());
        };
        const auto rank = [&](const Share& share) {
          const int load =
              tasks > 1 ? *std::max_element(share.load.begin(), share.load.end()) : share.load[place(group_of(share))];
          return std::pair(load, after(share));
        };
        Share* best = nullptr;
        for (Share& share : shares) {
          if (taken + place(after(share)) * tiles::kSquare > machine.memory) continue;
          if (share.tasks + tasks > tiles::kMostTasks) continue;
          if (best == nullptr || rank(share) < rank(*best)) best = &share;
        }
        if (best == nullptr) return false;
        const int at = best->at(unit), first = group_of(*best);
        if (at == best->squares) best->kept.push_back({unit.job, unit.col, at});
        best->squares = after(*best);
        best->tasks += tasks;
        for (int i = 0; i < tasks; ++i) {
          auto& list = best->lists[round][place(first + i)];
          list.insert(list.begin(), {unit.job, unit.row + i, unit.col, at});
          best->load[place(first + i)] += unit.price;
        }
      }
    }
    made_.groups = groups;
    made_.blocks = static_cast<int>(shares.size());
    for (const Share& share : shares) {
      made_.kept_begins.push_back(static_cast<int>(made_.kept.size()));
      made_.kept.insert(made_.kept.end(), share.kept.begin(), share.kept.end());
      made_.squares = std::max(made_.squares, share.squares);
    }
    made_.kept_begins.push_back(static_cast<int>(made_.kept.size()));
    for (std::size_t round = 0; round < 2; ++round) {
      for (const Share& share : shares) {
        for (const auto& list : share.lists[round]) {
          made_.begins.push_back(static_cast<int>(made_.tasks.size()));
          made_.tasks.insert(made_.tasks.end(), list.begin(), list.end());
        }
      }
    }
    made_.begins.push_back(static_cast<int>(made_.tasks.size()));
    const std::size_t left = machine.memory - made_.list_bytes() - place(made_.squares) * tiles::kSquare;
    made_.stages = std::min(tiles::kMostStages, static_cast<int>(left / tiles::kStage) / groups);
    return true;
  }

  const SettleArgs& args_;
  Layout layout_;
  SettleFirst first_;
  int rows_ = 0;
  tiles::Tiles made_;
  std::map<std::tuple<void*, std::int64_t, std::int64_t, int>, std::size_t> operands_;
};

}  // namespace

std::size_t tiles::Tiles::list_bytes() const {
  std::size_t bytes = 0;
  const auto add = [&]<class T>(const std::vector<T>& list) { bytes += (list.size() * sizeof(T) + 15) / 16 * 16; };
  add(jobs);
  add(products);
  add(waits);
  add(terms);
  return bytes;
}

tiles::Machine tiles::machine(const Exec& exec) {
#if defined(PC_WITH_HOPPER)
  if (exec.cuda != nullptr) return machine_cuda(*exec.cuda);
#endif
  constexpr int kProcessors = 132;
  return {kProcessors, block_memory(exec) - kFixed};
}

tiles::Tiles tiles::cut(const SettleArgs& args, const Machine& machine) {
  auto made = Cutter(args).cut(machine);
  PC_CHECK(made.has_value(), "settle", kTooLarge);
  return std::move(*made);
}

std::size_t settle_scratch(const SettleArgs& args) { return layout_of(args).bytes; }

std::string why_not_tiled(const SettleArgs& args, const tiles::Machine& machine) {
  if (args.dtype() != DType::f32 || size_of(args.operands()) != 2) {
    return "products are not of float16 or bfloat16 (gemm: fp16, bf16)";
  }
  const auto& edges = args.edges.items;
  for (std::size_t i = 0; i < edges.size(); ++i) {
    const SettleEdge& e = edges[i];
    if (!multiplies(e)) continue;
    if (e.w.ld() % 8 != 0 || reinterpret_cast<std::uintptr_t>(e.w.data) % 16 != 0) return "weights are not aligned";
    for (std::size_t j = 0; j < edges.size(); ++j) {
      const SettleEdge& other = edges[j];
      if (j == i) continue;
      if (other.prediction == e.prediction && e.after != Activation::identity) {
        return "a prediction with several edges has one that ends in an activation";
      }
      if (!multiplies(other)) continue;
      if (other.prediction == e.prediction && other.gain != e.gain) return "edges of one prediction differ in gain";
      if (other.source == e.source && (other.before != e.before || other.leak != e.leak || other.gain != e.gain)) {
        return "edges that leave one node differ in activation or gain";
      }
    }
  }
  for (const SettleNode& node : args.nodes) {
    for (const Narrowed& operand : {node.narrow, node.narrow_whole}) {
      if (!operand.y.empty() && operand.y.dtype != args.operands()) return "operands are of several types";
    }
  }
  if (!Cutter(args).cut(machine)) return kTooLarge;
  return {};
}

}  // namespace pc::kernels

#include "kernels/settle_tiles.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numeric>

namespace pc::kernels {
namespace {

using scalar::Activation;
using tiles::kSide;

std::size_t place(int i) { return static_cast<std::size_t>(i); }

bool product(const SettleEdge& e) { return !e.w.empty(); }

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
  std::vector<View> sent, read;  // as operands: what predictions send back, what goes into their products
  std::size_t counters_at = 0, bytes = 0;
};

Layout layout_of(const SettleArgs& args) {
  Room room(args.scratch.as<std::byte>());
  Layout layout;
  const std::int64_t rows = args.rows();
  const auto padded = [](std::int64_t n) { return tiles::tiles_across(n) * kSide; };
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
    const auto multiplied = [&](const SettleEdge& e) { return into(e) && product(e); };
    const std::int64_t n = args.width(args.predictions[p]);
    layout.delta.push_back(entries(n, std::any_of(args.edges.begin(), args.edges.end(), into)));
    layout.sent.push_back(operand(n, std::any_of(args.edges.begin(), args.edges.end(), multiplied)));
  }
  for (int v = 0; v < args.nodes.count; ++v) {
    const SettleNode& node = args.nodes[v];
    const auto multiplied = [&](const SettleEdge& e) { return e.source == v && product(e); };
    layout.velocity.push_back(entries(node.x.cols(), !node.dx.empty() && args.momentum != 0));
    layout.read.push_back(operand(node.x.cols(), std::any_of(args.edges.begin(), args.edges.end(), multiplied)));
  }
  layout.counters_at = room.used();
  const std::int64_t jobs = args.predictions.count + args.nodes.count;
  room.take(sizeof(int) * static_cast<std::size_t>(jobs * tiles::tiles_across(rows)));
  layout.bytes = room.used();
  return layout;
}

class Cutter {
 public:
  explicit Cutter(const SettleArgs& args) : args_(args), layout_(layout_of(args)), first_(settle_first(args)) {
    rows_ = static_cast<int>(tiles::tiles_across(args.rows()));
    // A node that does not move in these steps stores that in the last one.
    for (int& step : first_.nodes) step = std::min(step, args.steps - 1);
    made_.counters_at = layout_.counters_at;
    made_.counters = (args.predictions.count + args.nodes.count) * rows_;
  }

  tiles::Tiles cut(int blocks) {
    for (int p = 0; p < args_.predictions.count; ++p) compare(p);
    const std::size_t nodes_begin = made_.jobs.size();
    for (int v = 0; v < args_.nodes.count; ++v) {
      if (!args_.nodes[v].dx.empty()) move(v);
    }
    share_out(nodes_begin, blocks);
    return std::move(made_);
  }

 private:
  /// Of a node, whose counters stand behind those of predictions.
  [[nodiscard]] int counter_of_node(int v) const { return (args_.predictions.count + v) * rows_; }
  [[nodiscard]] int counter_of_prediction(int p) const { return p * rows_; }
  [[nodiscard]] static int across(const View& x) { return static_cast<int>(tiles::tiles_across(x.cols())); }
  [[nodiscard]] const View& x_of(const SettlePrediction& p) const { return args_.nodes[p.node].x; }

  int operand(const View& view) {
    const auto [found, fresh] = operands_.try_emplace({view.data, view.rows(), view.cols()}, made_.operands.size());
    if (fresh) made_.operands.push_back(view);
    return static_cast<int>(found->second);
  }

  tiles::Job begin() const {
    tiles::Job job;
    job.products = static_cast<int>(made_.products.size());
    job.waits = static_cast<int>(made_.waits.size());
    job.terms = static_cast<int>(made_.terms.size());
    return job;
  }
  void end(tiles::Job job) {
    job.products_end = static_cast<int>(made_.products.size());
    job.waits_end = static_cast<int>(made_.waits.size());
    job.terms_end = static_cast<int>(made_.terms.size());
    job.pack = pack(job);
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

  /// A prediction without edges that count: its error is what its node's value is, and stands nowhere else.
  [[nodiscard]] bool bare(int p) const { return layout_.delta[place(p)].at == nullptr; }

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
    if (!node.dx.empty()) {
      term(node.dx, 1, first_.nodes[place(prediction.node)] + 1);
      wait_for_node(prediction.node, waits);
    }
    for (const SettleEdge& e : args_.edges) {
      if (e.prediction != p) continue;
      const int from = first_.nodes[place(e.source)] + 1;
      wait_for_node(e.source, waits);
      if (!product(e)) {
        term(args_.nodes[e.source].dx, -1, from);
        continue;
      }
      made_.products.push_back(
          {operand(layout_.read[place(e.source)]), operand(e.w), across(args_.nodes[e.source].x), from});
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
    for (int p = 0; p < args_.predictions.count; ++p) {
      const SettlePrediction& prediction = args_.predictions[p];
      if (prediction.node != v) continue;
      if (bare(p)) {
        if (!prediction.start.empty()) term(prediction.start, prediction.precision, 0);
        term(node.dx, prediction.precision, from + 1);
      } else if (first_.predictions[place(p)] < args_.steps) {
        term(layout_.delta[place(p)], 1, first_.predictions[place(p)]);
        wait_for_prediction(p, waits);
      }
    }
    for (const SettleEdge& e : args_.edges) {
      if (e.source != v || first_.predictions[place(e.prediction)] >= args_.steps) continue;
      const int sent_from = first_.predictions[place(e.prediction)];
      wait_for_prediction(e.prediction, waits);
      if (!product(e)) {
        term(layout_.delta[place(e.prediction)], -1, sent_from);
        continue;
      }
      made_.products.push_back({operand(layout_.sent[place(e.prediction)]), operand(e.w),
                                across(x_of(args_.predictions[e.prediction])), sent_from});
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

  /// How many entries of a row can be read and written at once.
  [[nodiscard]] int pack(const tiles::Job& job) const {
    const auto fits = [&](int pack) {
      const auto aligned = [&](const void* at, std::int64_t ld, std::size_t size) {
        return ld % pack == 0 && reinterpret_cast<std::uintptr_t>(at) % (size * place(pack)) == 0;
      };
      bool all = job.n % pack == 0;
      for (const tiles::Entries& e : {job.at, job.out, job.velocity, job.whole}) {
        all = all && aligned(e.at, e.ld, sizeof(float));
      }
      for (const tiles::Narrow& n : {job.operand, job.narrow, job.narrow_whole}) all = all && aligned(n.at, n.ld, 2);
      for (int i = job.terms; i < job.terms_end; ++i) {
        all = all && aligned(made_.terms[place(i)].at, made_.terms[place(i)].ld, sizeof(float));
      }
      return all;
    };
    return fits(4) ? 4 : fits(2) ? 2 : 1;
  }

  /// Tiles to blocks, in each round: the dearest first, each to the block that has least to do. A block does its cheap
  /// ones first, for which others may wait.
  void share_out(std::size_t nodes_begin, int blocks) {
    struct Priced {
      tiles::Task task;
      int price;
    };
    std::array<std::vector<Priced>, 2> rounds;
    for (std::size_t j = 0; j < made_.jobs.size(); ++j) {
      const tiles::Job& job = made_.jobs[j];
      constexpr int kEnds = 4;  // what comes before and after the products of a tile, in chunks
      int price = kEnds;
      for (int i = job.products; i < job.products_end; ++i) price += made_.products[place(i)].chunks;
      const int cols = static_cast<int>(tiles::tiles_across(job.n));
      for (int col = 0; col < cols; ++col) {
        for (int row = 0; row < rows_; ++row)
          rounds[j < nodes_begin ? 0 : 1].push_back({{static_cast<int>(j), row, col}, price});
      }
    }
    made_.blocks = std::max(1, std::min(blocks, static_cast<int>(std::max(rounds[0].size(), rounds[1].size()))));
    for (auto& round : rounds) {
      std::vector<std::size_t> order(round.size());
      std::iota(order.begin(), order.end(), std::size_t{0});
      std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return round[a].price > round[b].price; });
      std::vector<std::vector<Priced>> of_block(place(made_.blocks));
      std::vector<int> load(place(made_.blocks), 0);
      for (const std::size_t i : order) {
        const auto least = std::min_element(load.begin(), load.end());
        *least += round[i].price;
        of_block[static_cast<std::size_t>(least - load.begin())].push_back(round[i]);
      }
      for (auto& list : of_block) {
        made_.begins.push_back(static_cast<int>(made_.tasks.size()));
        std::stable_sort(list.begin(), list.end(), [](const Priced& a, const Priced& b) { return a.price < b.price; });
        for (const Priced& priced : list) made_.tasks.push_back(priced.task);
      }
    }
    made_.begins.push_back(static_cast<int>(made_.tasks.size()));
  }

  const SettleArgs& args_;
  Layout layout_;
  SettleFirst first_;
  int rows_ = 0;
  tiles::Tiles made_;
  std::map<std::tuple<void*, std::int64_t, std::int64_t>, std::size_t> operands_;
};

}  // namespace

tiles::Tiles tiles::cut(const SettleArgs& args, int blocks) { return Cutter(args).cut(blocks); }

std::size_t settle_scratch(const SettleArgs& args) { return layout_of(args).bytes; }

std::string why_not_tiled(const SettleArgs& args) {
  if (args.dtype() != DType::f32 || size_of(args.operands()) != 2) {
    return "products are not of float16 or bfloat16 (gemm: fp16, bf16)";
  }
  const auto& edges = args.edges.items;
  for (std::size_t i = 0; i < edges.size(); ++i) {
    const SettleEdge& e = edges[i];
    if (!product(e)) continue;
    if (e.w.ld() % 8 != 0 || reinterpret_cast<std::uintptr_t>(e.w.data) % 16 != 0) return "weights are not aligned";
    for (std::size_t j = 0; j < edges.size(); ++j) {
      const SettleEdge& other = edges[j];
      if (j == i) continue;
      if (other.prediction == e.prediction && e.after != Activation::identity) {
        return "a prediction with several edges has one that ends in an activation";
      }
      if (!product(other)) continue;
      if (other.prediction == e.prediction && other.gain != e.gain) return "edges of one prediction differ in gain";
      if (other.source == e.source && (other.before != e.before || other.leak != e.leak || other.gain != e.gain)) {
        return "edges that leave one node differ in activation or gain";
      }
    }
  }
  for (const SettleNode& node : args.nodes) {
    for (const Narrowed& narrow : {node.narrow, node.narrow_whole}) {
      if (!narrow.y.empty() && narrow.y.dtype != args.operands()) return "operands are of several types";
    }
  }
  return {};
}

}  // namespace pc::kernels

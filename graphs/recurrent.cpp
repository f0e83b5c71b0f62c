// rnn, gru, lstm: cells written out for every step of a sequence, with shared weights. Each elementary operation of a
// cell is a value node of its own, so that every node has its energy and errors travel from step to step:
//   rnn   z = W x + b + U tanh(z')
//   gru   z = W x + b + U h';  m = U2 h';  r, u = sigmoid(z);  n = tanh(W2 x + b2 + r m);  d = h' - n;  h = n + u d
//         (Cho et al. 2014, with the reset gate behind the product, as in cuDNN and PyTorch)
//   lstm  z = W x + b + U h';  i, f, o = sigmoid(z);  g = tanh(z);  c = f c' + i g;  s = tanh(c);  h = o s
//         (Hochreiter & Schmidhuber 1997; Gers et al. 2000)
// where ' is the step before. States begin with zero: what the first step would read of them is left out. Nodes carry
// the number of their step, from 1: z1, h1, ...
#include <cmath>

#include "graphs/networks.h"

namespace pc::graphs {
namespace {

OpSpec with(std::string_view name, Attrs attrs = {}) { return {&find_op(name), std::move(attrs)}; }
OpSpec recurrence(double units) { return with("linear", {{"units", units}, {"bias", 0}}); }

/// What the three have in common: the input, a state for each step, and what is read from the states.
class Unrolled {
 public:
  explicit Unrolled(Settings& settings) : place_(settings.place()) {
    const std::vector<std::int64_t> shape = settings.integers("shape");
    PC_CHECK(shape.size() == 2, "recurrent", "shape is [steps, features] of the input");
    steps_ = shape[0];
    features_ = shape[1];
    units = settings.number("units", 64);
    PC_CHECK(units >= 1 && units == std::floor(units), "recurrent", "units must be a whole number, not ", units);
    const double outputs = settings.number("outputs", 10), entries = settings.number("entries", 0);
    PC_CHECK(outputs >= 1 && outputs == std::floor(outputs), "recurrent", "outputs must be a whole number, not ",
             outputs);
    sequence_ = settings.flag("sequence", false);
    output_ = {&find_energy(settings.text("output", "gaussian")), {settings.number("output_precision", 1.0)}};
    const std::string input = settings.text("input", "image");
    target_ = settings.text("target", "label");
    outputs_ = static_cast<std::int64_t>(outputs);
    if (entries > 0) {
      node(input, {steps_});
      source_ = "embedded";
      node(source_, {steps_, features_});
      edge({input}, source_, {with("embedding", {{"entries", entries}})}, "", "embed");
    } else {
      source_ = input;
      node(input, {steps_, features_});
    }
  }

  void node(const std::string& name, const Shape& shape, const EnergySpec& energy = {}) {
    graph_.nodes.push_back({.name = name, .shape = shape, .energy = energy, .place = place_});
  }
  /// Edges of one `share` have the same parameters, which are called after it.
  void edge(const std::vector<std::string>& from, const std::string& to, const std::vector<OpSpec>& chain,
            const std::string& share = "", const std::string& name = "") {
    EdgeSpec& made = graph_.edges.emplace_back();
    made.from = from;
    made.to = to;
    made.chain = chain;
    made.share = share;
    made.name = name;
    if (!share.empty()) {
      bool first = true;
      for (const EdgeSpec& other : graph_.edges) first = first && (&other == &made || other.share != share);
      if (first) made.name = share;
    }
    made.place = place_;
  }

  /// The input of step t, through a linear operator that all steps share.
  void read_input(std::int64_t t, const std::string& to, const std::string& share) {
    edge({source_}, to,
         {with("slice", {{"begin", double((t - 1) * features_)}, {"count", double(features_)}}),
          with("linear", {{"units", double(graph_.nodes[find(to)].shape.count())}})},
         share);
  }

  /// One part of what is computed together: entries [part units, (part + 1) units), through an activation.
  void gate(const std::string& from, std::int64_t part, const std::string& to, std::string_view activation) {
    node(to, {width()});
    edge({from}, to, {with("slice", {{"begin", double(part) * units}, {"count", units}}), with(activation)});
  }

  /// `state` is the stem of the states' names, `before` what stands before the operator that reads them.
  Description finish(const std::string& state, const std::vector<OpSpec>& before) {
    std::vector<OpSpec> read = before;
    if (!sequence_) {
      read.push_back(with("linear"));
      node(target_, {outputs_}, output_);
      edge({at(state, steps_)}, target_, read, "", "read");
      return std::move(graph_);
    }
    std::vector<std::string> states;
    for (std::int64_t t = 1; t <= steps_; ++t) states.push_back(at(state, t));
    node("states", {steps_, width()});
    edge(states, "states", {with("concat")}, "", "states");
    node(target_, {steps_, outputs_}, output_);
    read.push_back(with("linear", {{"last_axis", 1}}));
    edge({"states"}, target_, read, "", "read");
    return std::move(graph_);
  }

  static std::string at(const std::string& stem, std::int64_t t) { return stem + std::to_string(t); }
  [[nodiscard]] std::int64_t width() const { return static_cast<std::int64_t>(units); }
  [[nodiscard]] std::int64_t steps() const { return steps_; }

  double units = 0;  // of a state

 private:
  [[nodiscard]] std::size_t find(const std::string& name) const {
    std::size_t i = 0;
    while (graph_.nodes[i].name != name) ++i;
    return i;
  }

  std::string place_, source_, target_;
  std::int64_t steps_ = 0, features_ = 0, outputs_ = 0;
  bool sequence_ = false;
  EnergySpec output_;
  Description graph_;
};

Description make_rnn(Settings& settings) {
  Unrolled net(settings);
  for (std::int64_t t = 1; t <= net.steps(); ++t) {
    const std::string z = Unrolled::at("z", t);
    net.node(z, {net.width()});
    net.read_input(t, z, "input");
    if (t > 1) net.edge({Unrolled::at("z", t - 1)}, z, {with("tanh"), recurrence(net.units)}, "recur");
  }
  return net.finish("z", {with("tanh")});
}

Description make_gru(Settings& settings) {
  Unrolled net(settings);
  for (std::int64_t t = 1; t <= net.steps(); ++t) {
    const auto at = [t](const char* stem) { return Unrolled::at(stem, t); };
    const std::string before = Unrolled::at("h", t - 1);
    const bool first = t == 1;
    net.node(at("z"), {2 * net.width()});
    net.read_input(t, at("z"), "input");
    if (!first) net.edge({before}, at("z"), {recurrence(2 * net.units)}, "recur");
    net.node(at("a"), {net.width()});
    net.read_input(t, at("a"), "input_candidate");
    if (!first) {
      net.gate(at("z"), 0, at("r"), "sigmoid");
      net.node(at("m"), {net.width()});
      net.edge({before}, at("m"), {recurrence(net.units)}, "recur_candidate");
      net.edge({at("r"), at("m")}, at("a"), {with("multiply")});
    }
    net.gate(at("z"), 1, at("u"), "sigmoid");
    net.gate(at("a"), 0, at("n"), "tanh");
    net.node(at("d"), {net.width()});
    net.edge({at("n")}, at("d"), {with("scale", {{"by", -1}})});
    if (!first) net.edge({before}, at("d"), {with("identity")});
    net.node(at("h"), {net.width()});
    net.edge({at("n")}, at("h"), {with("identity")});
    net.edge({at("u"), at("d")}, at("h"), {with("multiply")});
  }
  return net.finish("h", {});
}

Description make_lstm(Settings& settings) {
  Unrolled net(settings);
  for (std::int64_t t = 1; t <= net.steps(); ++t) {
    const auto at = [t](const char* stem) { return Unrolled::at(stem, t); };
    net.node(at("z"), {4 * net.width()});
    net.read_input(t, at("z"), "input");
    if (t > 1) net.edge({Unrolled::at("h", t - 1)}, at("z"), {recurrence(4 * net.units)}, "recur");
    net.gate(at("z"), 0, at("i"), "sigmoid");
    if (t > 1) net.gate(at("z"), 1, at("f"), "sigmoid");
    net.gate(at("z"), 2, at("g"), "tanh");
    net.gate(at("z"), 3, at("o"), "sigmoid");
    net.node(at("c"), {net.width()});
    if (t > 1) net.edge({at("f"), Unrolled::at("c", t - 1)}, at("c"), {with("multiply")});
    net.edge({at("i"), at("g")}, at("c"), {with("multiply")});
    net.node(at("s"), {net.width()});
    net.edge({at("c")}, at("s"), {with("tanh")});
    net.node(at("h"), {net.width()});
    net.edge({at("o"), at("s")}, at("h"), {with("multiply")});
  }
  return net.finish("h", {});
}

constexpr std::string_view kKeys =
    "shape: [steps, features]    # of the input\n"
    "units: 64                   # of a state\n"
    "outputs: 10\n"
    "sequence: false             # true: an output for every step, [steps, outputs]; false: for the last one\n"
    "entries: 0                  # above 0: the input is [steps], numbers of so many entries, which are embedded\n"
    "output: gaussian            # energy of the last node\n"
    "output_precision: 1.0\n"
    "input: image                # name of the first node\n"
    "target: label               # name of the last node\n";

}  // namespace

extern const Network rnn{
    .name = "rnn", .about = "a simple recurrent network, written out step by step", .keys = kKeys, .make = make_rnn};
extern const Network gru{
    .name = "gru", .about = "gated recurrent units, written out step by step", .keys = kKeys, .make = make_gru};
extern const Network lstm{
    .name = "lstm", .about = "long short-term memory, written out step by step", .keys = kKeys, .make = make_lstm};

}  // namespace pc::graphs

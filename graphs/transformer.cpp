// transformer: a decoder of tokens, pre-norm and causal (Vaswani et al. 2017; pre-norm: Xiong et al. 2020).
//   x0 = table[tokens] + positions;   a = x + W attention(norm x);   x = a + W2 f(W1 norm a);   next = V norm x
// With nodes: sublayers the value nodes are x0, a1, x1, a2, x2, ...: the residual stream after each sublayer, which is
// one edge with all that the sublayer computes, and an identity. With nodes: inner there are three more in each layer:
// qkv [context, 3 width], what the heads give (heads) and the hidden units behind their activation (hidden).
#include <cmath>

#include "graphs/networks.h"

namespace pc::graphs {
namespace {

using Chain = std::vector<OpSpec>;

OpSpec with(std::string_view name, Attrs attrs = {}) { return {&find_op(name), std::move(attrs)}; }
OpSpec along(double units) { return with("linear", {{"last_axis", 1}, {"units", units}}); }

double whole(Settings& settings, std::string_view key, double fallback, double least) {
  const double value = settings.number(key, fallback);
  PC_CHECK(value >= least && value < 1e9 && value == std::floor(value), "transformer", key,
           " must be a whole number of at least ", least, ", not ", value);
  return value;
}

class Decoder {
 public:
  explicit Decoder(Settings& settings)
      : place_(settings.place()),
        context_(whole(settings, "context", 64, 1)),
        entries_(whole(settings, "entries", 65, 1)),
        width_(whole(settings, "width", 64, 1)),
        heads_(whole(settings, "heads", 4, 1)),
        layers_(whole(settings, "layers", 2, 1)),
        hidden_(whole(settings, "hidden", 4 * width_, 1)),
        activation_(settings.op("activation", "gelu")),
        positions_(settings.text("positions", "learned")),
        norm_(settings.text("norm", "rms_norm")),
        nodes_(settings.text("nodes", "sublayers")),
        output_{&find_energy(settings.text("output", "softmax_cross_entropy")),
                {settings.number("output_precision", 1.0)}},
        input_(settings.text("input", "tokens")),
        target_(settings.text("target", "next")) {
    PC_CHECK(positions_ == "learned" || positions_ == "rotary", "transformer", "positions is learned or rotary, not \"",
             positions_, "\"");
    PC_CHECK(norm_ == "rms_norm" || norm_ == "layer_norm", "transformer", "norm is rms_norm or layer_norm, not \"",
             norm_, "\"");
    PC_CHECK(nodes_ == "sublayers" || nodes_ == "inner", "transformer", "nodes is sublayers or inner, not \"", nodes_,
             "\"");
    PC_CHECK(std::fmod(width_, heads_) == 0, "transformer", heads_, " heads do not divide width ", width_);
    PC_CHECK(positions_ == "learned" || std::fmod(width_ / heads_, 2) == 0, "transformer",
             "rotary positions need heads of even width, not ", width_ / heads_);
  }

  Description make() {
    node(input_, {length(context_)});
    std::string x = stream("x", 0);
    edge(input_, x, {with("embedding", {{"entries", entries_}})}, "embed");
    if (positions_ == "learned") {
      edge("", x, {with("constant")}, "positions");
    }
    for (int layer = 1; layer <= layers_; ++layer) {
      x = attention(x, layer);
      x = perceptron(x, layer);
    }
    node(target_, {length(context_), length(entries_)}, output_);
    edge(x, target_, normed({along(entries_)}), "read");
    return std::move(graph_);
  }

 private:
  static std::int64_t length(double n) { return static_cast<std::int64_t>(n); }

  void node(const std::string& name, const Shape& shape, const EnergySpec& energy = {}) {
    graph_.nodes.push_back({.name = name, .shape = shape, .energy = energy, .place = place_});
  }
  void edge(const std::string& from, const std::string& to, const Chain& chain, const std::string& name) {
    EdgeSpec& made = graph_.edges.emplace_back();
    if (!from.empty()) made.from = {from};
    made.to = to;
    made.chain = chain;
    made.name = name;
    made.place = place_;
  }
  std::string stream(const char* stem, int layer, double width = 0) {
    const std::string name = stem + std::to_string(layer);
    node(name, {length(context_), length(width > 0 ? width : width_)});
    return name;
  }

  /// The norm, and what follows.
  [[nodiscard]] Chain normed(const Chain& next) const {
    Chain chain = {with(norm_)};
    chain.insert(chain.end(), next.begin(), next.end());
    return chain;
  }

  std::string attention(const std::string& x, int layer) {
    Chain chain = normed({along(3 * width_)});
    if (positions_ == "rotary") chain.push_back(with("rotary", {{"head", width_ / heads_}, {"count", 2 * width_}}));
    const std::string name = "attention" + std::to_string(layer);
    std::string from = x;
    if (nodes_ == "inner") {
      const std::string qkv = stream("qkv", layer, 3 * width_), heads = stream("heads", layer);
      edge(x, qkv, chain, name + ".in");
      edge(qkv, heads, {attend()}, name + ".heads");
      chain.clear();
      from = heads;
    } else {
      chain.push_back(attend());
    }
    const std::string to = stream("a", layer);
    chain.push_back(along(width_));
    edge(x, to, {with("identity")}, name + ".skip");
    edge(from, to, chain, nodes_ == "inner" ? name + ".out" : name);
    return to;
  }

  std::string perceptron(const std::string& x, int layer) {
    Chain chain = normed({along(hidden_), activation_});
    const std::string name = "perceptron" + std::to_string(layer);
    std::string from = x;
    if (nodes_ == "inner") {
      from = stream("hidden", layer, hidden_);
      edge(x, from, chain, name + ".in");
      chain.clear();
    }
    const std::string to = stream("x", layer);
    chain.push_back(along(width_));
    edge(x, to, {with("identity")}, name + ".skip");
    edge(from, to, chain, nodes_ == "inner" ? name + ".out" : name);
    return to;
  }

  [[nodiscard]] OpSpec attend() const { return with("attention", {{"heads", heads_}, {"causal", 1}}); }

  std::string place_;
  double context_, entries_, width_, heads_, layers_, hidden_;
  OpSpec activation_;
  std::string positions_, norm_, nodes_;
  EnergySpec output_;
  std::string input_, target_;
  Description graph_;
};

Description make(Settings& settings) { return Decoder(settings).make(); }

}  // namespace

extern const Network transformer{
    .name = "transformer",
    .about = "a causal decoder of tokens",
    .keys =
        "context: 64                 # tokens that it sees\n"
        "entries: 65                 # different tokens\n"
        "width: 64                   # of the residual stream\n"
        "heads: 4\n"
        "layers: 2\n"
        "hidden: 256                 # units between; by default 4 times the width\n"
        "activation: gelu\n"
        "positions: learned          # or rotary\n"
        "norm: rms_norm              # or layer_norm\n"
        "nodes: sublayers            # value nodes after each sublayer; inner: and inside\n"
        "output: softmax_cross_entropy\n"
        "output_precision: 1.0\n"
        "input: tokens               # name of the first node\n"
        "target: next                # name of the last node\n",
    .make = make};

}  // namespace pc::graphs

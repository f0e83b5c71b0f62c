// Graphs: inferred shapes, every message, and what levels.h says of them, against brute force.
#include <map>
#include <set>

#include "tests/networks.h"

namespace pc::test {
namespace {

std::string error_of_graph(const std::vector<NodeSpec>& nodes, const std::vector<EdgeSpec>& edges) {
  return error_of([&] { static_cast<void>(Graph(nodes, edges)); });
}

const std::vector<NodeSpec> kTwo = {{.name = "a", .shape = {3}}, {.name = "b", .shape = {2}}};

EdgeSpec edge(std::vector<std::string> from, const std::string& to, std::vector<OpSpec> chain) {
  return {.from = std::move(from), .to = to, .chain = std::move(chain)};
}

/// Nodes of one entry and identity edges between them; several edges between the same two now and then.
struct Arrows {
  int nodes = 0;
  std::vector<std::pair<int, int>> list;

  static Arrows random(std::uint64_t seed, bool cycles) {
    Dice dice(seed);
    Arrows arrows;
    arrows.nodes = 1 + dice.below(9);
    std::vector<int> rank(index(arrows.nodes));  // so that the order of the names says nothing
    for (int v = 0; v < arrows.nodes; ++v) rank[index(v)] = v;
    for (int v = arrows.nodes - 1; v > 0; --v) std::swap(rank[index(v)], rank[index(dice.below(v + 1))]);
    const int count = dice.below(2 * arrows.nodes + 1);
    for (int e = 0; e < count; ++e) {
      int a = dice.below(arrows.nodes), b = dice.below(arrows.nodes);
      if (!cycles && a == b) continue;
      if (!cycles && rank[index(a)] > rank[index(b)]) std::swap(a, b);
      arrows.list.emplace_back(a, b);
    }
    return arrows;
  }

  [[nodiscard]] Graph graph() const {
    std::vector<NodeSpec> specs;
    std::vector<EdgeSpec> edges;
    for (int v = 0; v < nodes; ++v) specs.push_back({.name = "n" + std::to_string(v), .shape = {1}});
    for (const auto& [a, b] : list)
      edges.push_back(edge({specs[index(a)].name}, specs[index(b)].name, {op("identity")}));
    return {specs, edges};
  }

  [[nodiscard]] bool joined(int a, int b) const {
    return std::find(list.begin(), list.end(), std::pair(a, b)) != list.end();
  }

  /// reach[a][b]: there is a path of at least one arrow.
  [[nodiscard]] std::vector<std::vector<bool>> reach() const {
    std::vector<std::vector<bool>> reach(index(nodes), std::vector<bool>(index(nodes), false));
    for (const auto& [a, b] : list) reach[index(a)][index(b)] = true;
    for (std::size_t k = 0; k < reach.size(); ++k) {
      for (std::size_t a = 0; a < reach.size(); ++a) {
        for (std::size_t b = 0; b < reach.size(); ++b) {
          if (reach[a][k] && reach[k][b]) reach[a][b] = true;
        }
      }
    }
    return reach;
  }

  /// Longest path from v, by trying all of them.
  [[nodiscard]] int longest(int v) const {
    int best = 0;
    for (const auto& [a, b] : list) {
      if (a == v) best = std::max(best, 1 + longest(b));
    }
    return best;
  }
};

}  // namespace

TEST_CASE("graph: shapes are inferred along chains") {
  const Graph graph({{.name = "image", .shape = {4, 5}}, {.name = "h", .shape = {2, 3}}, {.name = "y", .shape = {7}}},
                    {edge({"image"}, "h", {linear(), op("tanh")}),
                     edge({"image", "h"}, "y", {op("concat"), op("linear", {{"units", 9}}), op("relu"), linear()})});
  REQUIRE(graph.edge_count() == 2);
  CHECK(graph.edge(0).name == "image->h");
  CHECK(graph.edge(0).chain[0].out == Shape{2, 3});
  CHECK(graph.edge(0).chain[1].out == Shape{2, 3});
  CHECK(graph.edge(1).name == "image+h->y");
  CHECK(graph.edge(1).chain[0].out == Shape{26});
  CHECK(graph.edge(1).chain[1].out == Shape{9});
  CHECK(graph.edge(1).chain[3].out == Shape{7});
  REQUIRE(graph.param_count() == 6);
  CHECK(graph.param(0).name == "image->h/linear.weight");
  CHECK(graph.param(0).spec.shape == Shape{6, 20});
  CHECK(graph.param(2).spec.shape == Shape{9, 26});
  CHECK(graph.param(4).name == "image+h->y/linear2.weight");  // the second linear of its chain
  CHECK(graph.param(4).spec.shape == Shape{7, 9});
  CHECK(graph.weight_count() == 6 * 20 + 6 + 9 * 26 + 9 + 7 * 9 + 7);
  CHECK(graph.node(0).out == std::vector<EdgeId>{0, 1});
  CHECK(graph.find("y") == 2);
  CHECK(graph.node(0).predictions.empty());
}

TEST_CASE("graph: edges with the same ends get names of their own") {
  const Graph graph(kTwo, {edge({"a"}, "b", {linear()}), edge({"a"}, "b", {linear(), op("tanh")})});
  CHECK(graph.edge(0).name != graph.edge(1).name);
  CHECK(graph.param(0).name != graph.param(2).name);
  REQUIRE(graph.prediction_count() == 1);
  CHECK(graph.prediction(0).edges == std::vector<EdgeId>{1, 0});  // products last
}

TEST_CASE("graph: a node may be read twice by one edge") {
  const Graph graph({{.name = "a", .shape = {3}}, {.name = "b", .shape = {3}}},
                    {edge({"a", "a"}, "b", {op("multiply")})});
  CHECK(graph.edge(0).from == std::vector<NodeId>{0, 0});
  CHECK(graph.node(0).out == std::vector<EdgeId>{0});
}

TEST_CASE("graph: what is wrong is said, with names, shapes and places") {
  const auto one = [](const EdgeSpec& e) { return error_of_graph(kTwo, {e}); };
  SUBCASE("no nodes") { CHECK(contains(error_of_graph({}, {}), "no nodes")); }
  SUBCASE("unknown node") {
    const std::string text = one(edge({"c"}, "b", {linear()}));
    CHECK(contains(text, "edge c->b"));
    CHECK(contains(text, "no node named \"c\""));
    CHECK(contains(text, "a, b"));
    CHECK(contains(one(edge({"a"}, "d", {linear()})), "no node named \"d\""));
    CHECK(contains(error_of([] { static_cast<void>(Graph(kTwo, {}).find("zzz")); }), "no node named \"zzz\""));
  }
  SUBCASE("two nodes of one name") { CHECK(contains(error_of_graph({kTwo[0], kTwo[0]}, {}), "two nodes named a")); }
  SUBCASE("no name, no entries") {
    CHECK(contains(error_of_graph({{.name = "", .shape = {1}}}, {}), "needs a name"));
    CHECK(contains(error_of_graph({{.name = "e", .shape = {2, 0}}}, {}), "node e has the empty shape [2, 0]"));
  }
  SUBCASE("shapes that do not fit name the edge and both shapes") {
    const std::string text = one(edge({"a"}, "b", {op("tanh")}));
    CHECK(contains(text, "edge a->b"));
    CHECK(contains(text, "[3]"));
    CHECK(contains(text, "[2]"));
    const std::string turned = error_of_graph({{.name = "a", .shape = {2, 3}}, {.name = "b", .shape = {3, 2}}},
                                              {edge({"a"}, "b", {op("identity")})});
    CHECK(contains(turned, "[2, 3]"));
    CHECK(contains(turned, "[3, 2]"));
  }
  SUBCASE("a shape from an operator on images: which axis it took for channels") {
    const std::string text = error_of_graph({{.name = "a", .shape = {3, 16, 16}}, {.name = "b", .shape = {16, 16, 8}}},
                                            {edge({"a"}, "b", {op("conv2d", {{"padding", 1}}), op("tanh")})});
    CHECK(contains(text,
                   "gives shape [3, 16, 8], but node b has shape [16, 16, 8]; for conv2d, [3, 16, 16] is taken for "
                   "3 x 16 places of 16 channels, the last axis; write channels_last before"));
  }
  SUBCASE("no operator") { CHECK(contains(one(edge({"a"}, "b", {})), "edge a->b has no operator")); }
  SUBCASE("wrong number of sources") {
    CHECK(contains(one(edge({"a", "b"}, "b", {linear()})), "takes 1 source(s), not 2; begin the chain with"));
    CHECK(contains(one(edge({"a"}, "b", {op("multiply")})), "takes 2 source(s), not 1"));
    CHECK(contains(one(edge({}, "b", {linear()})), "takes 1 source(s), not 0"));
    CHECK(contains(one(edge({}, "b", {op("add")})), "takes at least 1 source(s), not 0"));
    CHECK(contains(one(edge({}, "b", {linear()})), "add from: NODE to the edge"));
    CHECK(contains(one(edge({"a"}, "b", {op("constant")})), "takes 0 source(s), not 1"));
    CHECK(contains(one(edge({"a"}, "b", {op("constant")})), "without from: {to: b, op: constant}"));
  }
  SUBCASE("a product whose shapes do not fit: which transpose would mend it, if any") {
    const auto product = [](const Shape& a, const Shape& b, const Attrs& attrs) {
      return error_of_graph({{.name = "a", .shape = a}, {.name = "b", .shape = b}, {.name = "c", .shape = {4}}},
                            {edge({"a", "b"}, "c", {op("matmul", attrs)})});
    };
    CHECK(contains(product({2, 3}, {2, 3}, {}), "edge a+b->c: matmul: [2, 3] and [2, 3] are"));
    CHECK(contains(product({2, 3}, {2, 3}, {}), "with trans_b: true they are equal"));
    CHECK(contains(product({2, 3}, {2, 5}, {}), "with trans_a: true they are equal"));
    CHECK(contains(product({2, 3}, {3, 5}, {{"trans_b", 1}}), "with trans_b: false they are equal"));
    CHECK(contains(product({2, 3}, {5, 7}, {}), "change the shape of a source"));
  }
  SUBCASE("linear of unknown width in the middle of a chain") {
    const std::string text = one(edge({"a"}, "b", {linear(), linear()}));
    CHECK(contains(text, "edge a->b: linear"));
    CHECK(contains(text, "units"));
  }
  SUBCASE("unknown setting") {
    CHECK(contains(one(edge({"a"}, "b", {op("linear", {{"unit", 2}})})), "linear has no setting \"unit\""));
  }
  SUBCASE("mask of the wrong size, or of nothing") {
    EdgeSpec masked = edge({"a"}, "b", {linear()});
    masked.mask = [](const Shape&) { return std::vector<std::uint8_t>(5, 1); };
    const std::string text = one(masked);
    CHECK(contains(text, "edge a->b"));
    CHECK(contains(text, "5 entries"));
    CHECK(contains(text, "[2, 3]"));
    masked.to = "a";
    masked.chain = {op("tanh")};
    CHECK(contains(one(masked), "has a mask, but no weights"));
  }
  SUBCASE("precisions") {
    NodeSpec node{.name = "p", .shape = {3}};
    node.predictions = {{"side", {&gaussian, {1, 2}}}};
    const std::string text = error_of_graph({node}, {});
    CHECK(contains(text, "p.side has 2 precisions; give 1 or 3"));
    node.predictions = {{"side", {&gaussian, {1, -2, 1}}}};
    CHECK(contains(error_of_graph({node}, {}), "p.side: a precision cannot be negative"));
    node.predictions = {{"side", {&gaussian, {NAN}}}};
    CHECK(contains(error_of_graph({node}, {}), "a precision cannot be"));
    node.predictions = {{"side", {&bernoulli, {1, 2, 1}}}};
    CHECK(contains(error_of_graph({node}, {}), "bernoulli takes one precision only"));
    // The default prediction is checked when an edge asks for it.
    node = {.name = "b", .shape = {2}, .energy = {&gaussian, {1, 2, 3}}};
    CHECK(contains(error_of_graph({kTwo[0], node}, {edge({"a"}, "b", {linear()})}), "b has 3 precisions; give 1 or 2"));
  }
  SUBCASE("sharing") {
    EdgeSpec first = edge({"a"}, "b", {linear()}), second = edge({"b"}, "a", {linear()});
    first.share = second.share = "w";
    const std::string text = error_of_graph(kTwo, {first, second});
    CHECK(contains(text, "edge b->a"));
    CHECK(contains(text, "[2, 3]"));
    CHECK(contains(text, "[3, 2]"));
    second.chain = {linear(), op("tanh")};
    CHECK(contains(error_of_graph(kTwo, {first, second}), "another chain"));
    second = edge({"b"}, "b", {op("constant")});
    second.from = {};
    second.share = "w";
    CHECK(contains(error_of_graph(kTwo, {first, second}), "another operator"));
  }
  SUBCASE("places come first") {
    EdgeSpec placed = edge({"c"}, "b", {linear()});
    placed.place = "net.yaml:7:3";
    CHECK(one(placed).starts_with("net.yaml:7:3: edge c->b"));
    NodeSpec node = kTwo[0];
    node.place = "net.yaml:2:1";
    CHECK(error_of_graph({kTwo[0], node}, {}).starts_with("net.yaml:2:1: "));
    // Also where an edge of another place asks for what is wrong with the node.
    node = kTwo[1];
    node.place = "net.yaml:2:1";
    node.energy.precision = {-2};
    placed = edge({"a"}, "b", {linear()});
    placed.place = "net.yaml:7:3";
    CHECK(error_of_graph({kTwo[0], node}, {placed}) == "net.yaml:2:1: prediction b: a precision cannot be negative");
  }
  SUBCASE("two predictions of one name would share their memory") {
    NodeSpec node{.name = "p", .shape = {3}};
    node.predictions = {{"side", {}}, {"side", {}}};
    CHECK(contains(error_of_graph({node}, {}), "p.side"));
    node.predictions = {{"side", {}}};
    EdgeSpec into = edge({"p"}, "p.side", {op("tanh")});
    CHECK(contains(error_of_graph({node, {.name = "p.side", .shape = {3}}}, {into}), "p.side"));
  }
}

TEST_CASE("graph: several predictions on a node; the default one comes first") {
  NodeSpec node{.name = "b", .shape = {2}, .energy = {&gaussian, {3}}};
  node.predictions = {{"below", {&gaussian, {5}}}};
  node.prior = true;
  EdgeSpec below = edge({"a"}, "b", {linear(), op("tanh")}), unlisted = edge({"a"}, "b", {linear()});
  below.prediction = "below";
  unlisted.prediction = "aside";
  const Graph graph({kTwo[0], node}, {below, unlisted, edge({"a"}, "b", {linear()})});
  const Node& b = graph.node(1);
  REQUIRE(b.predictions.size() == 4);
  std::map<std::string, double> precision;
  for (const PredictionId p : b.predictions)
    precision[graph.prediction(p).name] = graph.prediction(p).spec.precision[0];
  CHECK(precision == std::map<std::string, double>{{"b", 3}, {"b.below", 5}, {"b.aside", 1}, {"b.prior", 1}});
  CHECK(graph.prediction(b.predictions[0]).name == "b");
  for (const PredictionId p : b.predictions) CHECK(graph.prediction(p).edges.size() == 1);
  CHECK(graph.weight_count() == 3 * (2 * 3 + 2) + 2);
  const EdgeId prior = graph.edge_count() - 1;
  CHECK(graph.edge(prior).name == "b.prior");
  CHECK(graph.edge(prior).from.empty());
  CHECK(graph.param(graph.param_count() - 1).spec.role == ParamRole::bias);
}

TEST_CASE("graph: a prior's energy is listed as its own, not as the node's") {
  NodeSpec top{.name = "b", .shape = {2}, .prior = true};
  top.predictions = {{"prior", {&gaussian, {0.25}}}};
  const Graph graph({kTwo[0], top}, {edge({"b"}, "a", {linear()})});
  REQUIRE(graph.node(1).predictions.size() == 1);
  const Prediction& prior = graph.prediction(graph.node(1).predictions[0]);
  CHECK(prior.name == "b.prior");
  CHECK(prior.spec.precision[0] == 0.25);
  CHECK(prior.edges.size() == 1);
}

TEST_CASE("graph: shared parameters count once, masked ones not at all") {
  const std::vector<NodeSpec> nodes = {
      {.name = "a", .shape = {3}}, {.name = "b", .shape = {3}}, {.name = "c", .shape = {3}}};
  EdgeSpec first = edge({"a"}, "b", {linear()}), second = edge({"b"}, "c", {linear()});
  first.share = second.share = "w";
  const Graph tied(nodes, {first, second, edge({"a"}, "c", {linear()})});
  CHECK(tied.param_count() == 4);
  CHECK(tied.weight_count() == 2 * (9 + 3));
  CHECK(tied.param(0).uses == 2);
  CHECK(tied.param(2).uses == 1);
  CHECK(tied.edge(0).chain[0].params == tied.edge(1).chain[0].params);

  EdgeSpec masked = edge({"a"}, "b", {linear()});
  masked.mask = [](const Shape& shape) {
    std::vector<std::uint8_t> mask(index(shape.count()), 0);
    mask[0] = mask[4] = 1;
    return mask;
  };
  const Graph thin(nodes, {masked});
  CHECK(thin.weight_count() == 2 + 3);
}

TEST_CASE("levels: the longest path, against trying them all") {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    CAPTURE(seed);
    const Arrows arrows = Arrows::random(seed, false);
    const std::vector<int> level = levels(arrows.graph());
    REQUIRE(length(level) == arrows.nodes);
    for (int v = 0; v < arrows.nodes; ++v) CHECK(level[index(v)] == arrows.longest(v));
  }
}

TEST_CASE("levels: a graph with a cycle has none, and the message shows it") {
  Arrows arrows{3, {{0, 1}, {1, 2}, {2, 1}}};
  const std::string text = error_of([&] { levels(arrows.graph()); });
  CHECK((contains(text, "n1 -> n2 -> n1") || contains(text, "n2 -> n1 -> n2")));
}

TEST_CASE("topological order: sources come first; only cycles prevent it") {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    CAPTURE(seed);
    const Arrows arrows = Arrows::random(seed, seed % 2 == 0);
    const auto reach = arrows.reach();
    bool cyclic = false;
    for (std::size_t v = 0; v < reach.size(); ++v) cyclic = cyclic || reach[v][v];
    const auto order = topological_order(arrows.graph());
    REQUIRE(order.has_value() == !cyclic);
    if (!order) continue;
    CHECK(std::set<NodeId>(order->begin(), order->end()).size() == index(arrows.nodes));
    CHECK(length(*order) == arrows.nodes);
    std::vector<std::int64_t> place(index(arrows.nodes));
    for (std::size_t i = 0; i < order->size(); ++i) place[index((*order)[i])] = static_cast<std::int64_t>(i);
    for (const auto& [a, b] : arrows.list) CHECK(place[index(a)] < place[index(b)]);
  }
}

TEST_CASE("strongly connected components: against reachability") {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    CAPTURE(seed);
    const Arrows arrows = Arrows::random(seed + 1000, true);
    const auto reach = arrows.reach();
    const auto components = strongly_connected_components(arrows.graph());
    std::vector<int> component(index(arrows.nodes), -1);
    int count = 0;
    for (std::size_t c = 0; c < components.size(); ++c) {
      for (const NodeId v : components[c]) {
        CHECK(component[index(v)] == -1);
        component[index(v)] = static_cast<int>(c);
        ++count;
      }
    }
    REQUIRE(count == arrows.nodes);
    for (int a = 0; a < arrows.nodes; ++a) {
      for (int b = 0; b < arrows.nodes; ++b) {
        const bool together = a == b || (reach[index(a)][index(b)] && reach[index(b)][index(a)]);
        CHECK((component[index(a)] == component[index(b)]) == together);
      }
    }
    for (const auto& [a, b] : arrows.list) CHECK(component[index(a)] <= component[index(b)]);  // sources first
  }
}

TEST_CASE("find_cycle: gives a real cycle, and only where there is one") {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    CAPTURE(seed);
    const Arrows arrows = Arrows::random(seed + 2000, seed % 3 != 0);
    const auto reach = arrows.reach();
    bool cyclic = false;
    for (std::size_t v = 0; v < reach.size(); ++v) cyclic = cyclic || reach[v][v];
    const std::vector<NodeId> cycle = find_cycle(arrows.graph());
    REQUIRE(cycle.empty() == !cyclic);
    CHECK(std::set<NodeId>(cycle.begin(), cycle.end()).size() == cycle.size());
    for (std::size_t i = 0; i < cycle.size(); ++i) CHECK(arrows.joined(cycle[i], cycle[(i + 1) % cycle.size()]));
  }
  const Arrows self{2, {{0, 1}, {1, 1}}};
  CHECK(find_cycle(self.graph()) == std::vector<NodeId>{1});
  CHECK(cycle_text(self.graph(), {1}) == "n1 -> n1");
  CHECK(cycle_text(self.graph(), {}) == "none");
}

TEST_CASE("levels: a very deep graph does not exhaust the stack") {
  Arrows arrows{3000, {}};
  for (int v = 0; v + 1 < arrows.nodes; ++v) arrows.list.emplace_back(v, v + 1);
  const Graph line = arrows.graph();
  CHECK(levels(line)[0] == arrows.nodes - 1);
  CHECK(strongly_connected_components(line).size() == 3000);
}

}  // namespace pc::test

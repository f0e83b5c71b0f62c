// pc graph: what a config's graph looks like, as text and drawn through Graphviz.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "experiments/commands.h"
#include "experiments/output.h"
#include "graphs/neurons.h"
#include "pc/levels.h"
#include "pc/replacement.h"

namespace pc::experiments {
namespace {

using Json = nlohmann::ordered_json;

std::string chain_text(const Edge& edge) {
  std::string text;
  for (const Link& link : edge.chain) text += (text.empty() ? "" : ", ") + std::string(link.op->name);
  return text;
}

std::int64_t weights_of(const Graph& graph, const Edge& edge) {
  std::int64_t n = 0;
  for (const Link& link : edge.chain) {
    for (const ParamId id : link.params) {
      const Param& param = graph.param(id);
      n += param.mask.empty() ? param.spec.shape.count()
                              : std::count_if(param.mask.begin(), param.mask.end(), [](auto m) { return m != 0; });
    }
  }
  return n;
}

Json describe_neurons(const Pattern& neurons) {
  const graphs::NeuronStatistics s = graphs::statistics_of(neurons);
  const auto degrees = [](const graphs::Degrees& d) {
    return Json{{"min", d.least}, {"mean", d.mean}, {"max", d.most}};
  };
  return {{"neurons", s.neurons},         {"edges", s.edges},
          {"self_loops", s.self_loops},   {"in_degree", degrees(s.in)},
          {"out_degree", degrees(s.out)}, {"reciprocity", s.reciprocity},
          {"components", s.components},   {"largest_component", s.largest},
          {"on_cycles", s.on_cycles}};
}

Json describe(const Config& config, const Graph& graph) {
  const std::vector<NodeId> cycle = find_cycle(graph);
  const std::vector<int> level = cycle.empty() ? levels(graph) : std::vector<int>{};
  Json out;
  out["name"] = config.name;
  for (NodeId v = 0; v < graph.node_count(); ++v) {
    const Node& node = graph.node(v);
    Json entry = {{"name", node.name}, {"shape", Json::array()}};
    for (int axis = 0; axis < node.shape.rank(); ++axis) entry["shape"].push_back(node.shape[axis]);
    if (!level.empty()) entry["level"] = level[static_cast<std::size_t>(v)];
    entry["predictions"] = Json::array();
    for (const PredictionId p : node.predictions) {
      entry["predictions"].push_back({{"name", graph.prediction(p).name},
                                      {"energy", graph.prediction(p).spec.energy->name},
                                      {"precision", graph.prediction(p).spec.precision}});
    }
    out["nodes"].push_back(entry);
  }
  out["edges"] = Json::array();
  for (const Edge& edge : graph.edges()) {
    Json from = Json::array();
    for (const NodeId id : edge.from) from.push_back(graph.node(id).name);
    out["edges"].push_back({{"name", edge.name},
                            {"from", from},
                            {"to", graph.prediction(edge.prediction).name},
                            {"op", chain_text(edge)},
                            {"parameters", weights_of(graph, edge)}});
  }
  out["acyclic"] = cycle.empty();
  out["components"] = strongly_connected_components(graph).size();
  if (!cycle.empty()) out["cycle"] = cycle_text(graph, cycle);
  out["parameters"] = graph.weight_count();
  constexpr std::int64_t kMost = 400'000'000;  // edges: seconds, and 4 bytes each, three times over
  const std::int64_t between = graphs::neuron_edges(graph).value_or(0);
  if (between > kMost) {
    out["neurons_left_out"] =
        fmt::format("{} edges between neurons; up to {} are looked at one by one", between, kMost);
  } else if (const auto neurons = graphs::neurons_of(graph)) {
    out["neurons"] = describe_neurons(*neurons);
  }
  return out;
}

void print(const Json& info) {
  fmt::print("{}: {} nodes, {} edges, {} parameters\n\n", info["name"].get<std::string>(), info["nodes"].size(),
             info["edges"].size(), info["parameters"].get<std::int64_t>());
  fmt::print("{:<16} {:<16} {:>6}  {}\n", "node", "shape", "level", "energy");
  for (const Json& node : info["nodes"]) {
    std::string energies;
    for (const Json& p : node["predictions"]) {
      energies += (energies.empty() ? "" : ", ") + p["energy"].get<std::string>();
    }
    fmt::print("{:<16} {:<16} {:>6}  {}\n", node["name"].get<std::string>(), node["shape"].dump(),
               node.contains("level") ? std::to_string(node["level"].get<int>()) : "-",
               energies.empty() ? "none (nothing predicts it)" : energies);
  }
  fmt::print("\n{:<28} {:<28} {:>12}\n", "edge", "operators", "parameters");
  for (const Json& edge : info["edges"]) {
    fmt::print("{:<28} {:<28} {:>12}\n", edge["name"].get<std::string>(), edge["op"].get<std::string>(),
               edge["parameters"].get<std::int64_t>());
  }
  if (info["acyclic"].get<bool>()) {
    fmt::print("\nno cycles\n");
  } else {
    fmt::print("\na cycle: {}\n{} strongly connected components\n", info["cycle"].get<std::string>(),
               info["components"].get<std::size_t>());
  }
  if (info.contains("neurons_left_out")) fmt::print("\n{}\n", info["neurons_left_out"].get<std::string>());
  if (!info.contains("neurons")) return;
  const Json& n = info["neurons"];
  const auto number = [](const Json& of, const char* key) { return of[key].get<std::int64_t>(); };
  fmt::print("\n{} neurons, {} edges between them, {} of these self-loops; {:.1f} % of the others have a reverse\n",
             number(n, "neurons"), number(n, "edges"), number(n, "self_loops"), 100 * n["reciprocity"].get<double>());
  for (const char* way : {"in_degree", "out_degree"}) {
    const Json& d = n[way];
    fmt::print("{:<12} min {}, mean {:.2f}, max {}\n", way, number(d, "min"), d["mean"].get<double>(),
               number(d, "max"));
  }
  fmt::print("{} neurons on cycles; {} strongly connected components, the largest of {} neurons\n",
             number(n, "on_cycles"), number(n, "components"), number(n, "largest_component"));
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) out += (c == '"' || c == '\\') ? std::string("\\") + c : std::string(1, c);
  return out + "\"";
}

std::string to_dot(const Config& config, const Graph& graph) {
  std::string dot = "digraph " + quoted(config.name) +
                    " {\n  rankdir=LR;\n  node [shape=box, style=rounded, fontname=Helvetica];\n" +
                    "  edge [fontname=Helvetica, fontsize=10];\n";
  for (const Node& node : graph.nodes()) {
    dot += "  " + quoted(node.name) + " [label=" + quoted(node.name + "\n" + node.shape.text()) + "];\n";
  }
  for (const Edge& edge : graph.edges()) {
    const std::string to = quoted(graph.node(graph.prediction(edge.prediction).node).name);
    if (edge.from.empty()) {
      dot += "  " + quoted("prior of " + edge.name) + " [shape=plaintext, label=prior];\n  " +
             quoted("prior of " + edge.name) + " -> " + to + ";\n";
    }
    for (const NodeId from : edge.from) {
      dot += "  " + quoted(graph.node(from).name) + " -> " + to + " [label=" + quoted(chain_text(edge)) + "];\n";
    }
  }
  return dot + "}\n";
}

void draw(const std::string& dot, const std::filesystem::path& svg) {
  if (std::system("dot -V >/dev/null 2>&1") != 0) {
    fail("graph", "drawing needs Graphviz's program dot, which is not installed (Debian: apt-get install graphviz)");
  }
  std::error_code ignored;
  PC_CHECK(!std::filesystem::is_directory(svg, ignored), "graph", svg.string(),
           " is a folder; name a file, as in --svg graph.svg");
  PC_CHECK(svg.parent_path().empty() || std::filesystem::is_directory(svg.parent_path()), "graph",
           "there is no folder ", svg.parent_path().string());
  Replacement drawn(svg);
  const Replacement source(svg.string() + ".dot");  // which takes no place: dot reads it
  write_whole(source.path(), dot);
  const auto shell = [](const std::string& path) {
    std::string out = "'";
    for (const char c : path) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return out + "'";
  };
  const int status =
      std::system(("dot -Tsvg -o " + shell(drawn.path().string()) + " " + shell(source.path().string())).c_str());
  PC_CHECK(status == 0, "graph", "dot could not write ", svg.string());
  drawn.take_place();
}

}  // namespace

int graph_command(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                  const std::filesystem::path& svg, const Common& common) {
  if (!svg.empty()) check_output(svg, file, {".svg"});
  const Config config = read_config(file, overrides);
  const Graph graph(config.graph.nodes, config.graph.edges);
  const Json info = describe(config, graph);
  if (!svg.empty()) {
    draw(to_dot(config, graph), svg);
    spdlog::info("wrote {}", svg.string());
  }
  if (common.json) {
    fmt::print("{}\n", info.dump());
  } else {
    print(info);
  }
  return 0;
}

}  // namespace pc::experiments

#include "pc/levels.h"

#include <algorithm>

namespace pc {
namespace {

/// Nodes that a node feeds.
std::vector<std::vector<NodeId>> successors(const Graph& graph) {
  std::vector<std::vector<NodeId>> next(static_cast<std::size_t>(graph.node_count()));
  for (NodeId v = 0; v < graph.node_count(); ++v) {
    for (const EdgeId e : graph.node(v).out) {
      next[static_cast<std::size_t>(v)].push_back(graph.prediction(graph.edge(e).prediction).node);
    }
  }
  return next;
}

/// Tarjan's algorithm with its own stack, so that deep graphs do not exhaust the program's.
class Tarjan {
 public:
  explicit Tarjan(const Graph& graph)
      : next_(successors(graph)), index_(next_.size(), -1), low_(next_.size(), 0), on_stack_(next_.size(), false) {
    for (std::size_t v = 0; v < next_.size(); ++v) {
      if (index_[v] < 0) visit(v);
    }
    std::reverse(components_.begin(), components_.end());
  }
  std::vector<std::vector<NodeId>> take() && { return std::move(components_); }

 private:
  struct Frame {
    std::size_t node, child;
  };

  void enter(std::size_t v, std::vector<Frame>& frames) {
    index_[v] = low_[v] = counter_++;
    stack_.push_back(v);
    on_stack_[v] = true;
    frames.push_back({v, 0});
  }

  void visit(std::size_t root) {
    std::vector<Frame> frames;
    enter(root, frames);
    while (!frames.empty()) {
      const std::size_t v = frames.back().node;
      if (frames.back().child < next_[v].size()) {
        const auto w = static_cast<std::size_t>(next_[v][frames.back().child++]);
        if (index_[w] < 0) {
          enter(w, frames);
        } else if (on_stack_[w]) {
          low_[v] = std::min(low_[v], index_[w]);
        }
        continue;
      }
      if (low_[v] == index_[v]) close(v);
      frames.pop_back();
      if (!frames.empty()) low_[frames.back().node] = std::min(low_[frames.back().node], low_[v]);
    }
  }

  void close(std::size_t v) {
    std::vector<NodeId> component;
    std::size_t w = 0;
    do {
      w = stack_.back();
      stack_.pop_back();
      on_stack_[w] = false;
      component.push_back(static_cast<NodeId>(w));
    } while (w != v);
    std::reverse(component.begin(), component.end());
    components_.push_back(std::move(component));
  }

  std::vector<std::vector<NodeId>> next_;
  std::vector<int> index_, low_;
  std::vector<bool> on_stack_;
  std::vector<std::size_t> stack_;
  std::vector<std::vector<NodeId>> components_;
  int counter_ = 0;
};

}  // namespace

std::vector<std::vector<NodeId>> strongly_connected_components(const Graph& graph) { return Tarjan(graph).take(); }

std::optional<std::vector<NodeId>> topological_order(const Graph& graph) {
  const auto next = successors(graph);
  std::vector<int> waiting(next.size(), 0);
  for (const auto& list : next) {
    for (const NodeId w : list) ++waiting[static_cast<std::size_t>(w)];
  }
  std::vector<NodeId> order;
  for (NodeId v = 0; v < graph.node_count(); ++v) {
    if (waiting[static_cast<std::size_t>(v)] == 0) order.push_back(v);
  }
  for (std::size_t done = 0; done < order.size(); ++done) {
    for (const NodeId w : next[static_cast<std::size_t>(order[done])]) {
      if (--waiting[static_cast<std::size_t>(w)] == 0) order.push_back(w);
    }
  }
  if (order.size() != next.size()) return std::nullopt;
  return order;
}

std::vector<NodeId> find_cycle(const Graph& graph) {
  const auto next = successors(graph);
  for (const auto& component : strongly_connected_components(graph)) {
    const NodeId start = component[0];
    const auto& first = next[static_cast<std::size_t>(start)];
    if (component.size() == 1) {
      if (std::find(first.begin(), first.end(), start) != first.end()) return {start};
      continue;
    }
    // Breadth first inside the component, back to the start.
    std::vector<NodeId> came_from(next.size(), -1), queue = {start};
    for (std::size_t done = 0; done < queue.size(); ++done) {
      for (const NodeId w : next[static_cast<std::size_t>(queue[done])]) {
        if (w == start) {
          std::vector<NodeId> cycle;
          for (NodeId v = queue[done]; v != start; v = came_from[static_cast<std::size_t>(v)]) cycle.push_back(v);
          cycle.push_back(start);
          std::reverse(cycle.begin(), cycle.end());
          return cycle;
        }
        const bool inside = std::find(component.begin(), component.end(), w) != component.end();
        if (inside && came_from[static_cast<std::size_t>(w)] < 0) {
          came_from[static_cast<std::size_t>(w)] = queue[done];
          queue.push_back(w);
        }
      }
    }
  }
  return {};
}

std::vector<int> levels(const Graph& graph) {
  const auto order = topological_order(graph);
  PC_CHECK(order.has_value(), "levels", "the graph has a cycle: ", cycle_text(graph, find_cycle(graph)));
  const auto next = successors(graph);
  std::vector<int> level(next.size(), 0);
  for (auto v = order->rbegin(); v != order->rend(); ++v) {
    for (const NodeId w : next[static_cast<std::size_t>(*v)]) {
      int& here = level[static_cast<std::size_t>(*v)];
      here = std::max(here, level[static_cast<std::size_t>(w)] + 1);
    }
  }
  return level;
}

std::string cycle_text(const Graph& graph, const std::vector<NodeId>& cycle) {
  std::string text;
  for (const NodeId v : cycle) text += graph.node(v).name + " -> ";
  return cycle.empty() ? "none" : text + graph.node(cycle[0]).name;
}

}  // namespace pc

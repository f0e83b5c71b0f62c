// Strongly connected components (Tarjan, "Depth-first search and linear graph algorithms", 1972), of the nodes of a
// graph as of the neurons in them.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

namespace pc {
namespace detail {

template <class Next>
class Tarjan {
 public:
  Tarjan(std::size_t count, const Next& next)
      : next_(next), index_(count, -1), low_(count, 0), on_stack_(count, false) {
    for (std::size_t v = 0; v < count; ++v) {
      if (index_[v] < 0) visit(v);
    }
    std::reverse(components_.begin(), components_.end());
  }
  std::vector<std::vector<int>> take() && { return std::move(components_); }

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
      const std::span<const int> next = next_(v);
      if (frames.back().child < next.size()) {
        const auto w = static_cast<std::size_t>(next[frames.back().child++]);
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
    std::vector<int> component;
    std::size_t w = 0;
    do {
      w = stack_.back();
      stack_.pop_back();
      on_stack_[w] = false;
      component.push_back(static_cast<int>(w));
    } while (w != v);
    std::reverse(component.begin(), component.end());
    components_.push_back(std::move(component));
  }

  const Next& next_;
  std::vector<int> index_, low_;
  std::vector<bool> on_stack_;
  std::vector<std::size_t> stack_;
  std::vector<std::vector<int>> components_;
  int counter_ = 0;
};

}  // namespace detail

/// Of nodes 0 .. count - 1, where next(v) is a span of those that v leads to; sources before what they feed. It keeps a
/// stack of its own, so that deep graphs do not exhaust the program's.
template <class Next>
std::vector<std::vector<int>> strongly_connected_components(std::size_t count, const Next& next) {
  return detail::Tarjan<Next>(count, next).take();
}

}  // namespace pc

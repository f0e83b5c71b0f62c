#include <cmath>
#include <vector>

#include "kernels/exec.h"
#include "kernels/loops.h"
#include "kernels/settle.h"

namespace pc::kernels {
namespace {

/// One sample, one number at a time.
template <class T>
class Sample {
 public:
  Sample(const SettleArgs& args, std::int64_t row) : a_(args), row_(row) {
    for (const SettleNode& node : a_.nodes) {
      velocity_.emplace_back(static_cast<std::size_t>(node.x.cols()), T(0));
      if (!node.dx.empty()) std::fill_n(node.dx.template row<T>(row), node.dx.cols(), T(0));
    }
    gradient_ = velocity_;
    for (const SettleEdge& e : a_.edges) {
      dz_.emplace_back(static_cast<std::size_t>(a_.width(a_.predictions[e.prediction])));
    }
  }

  void step() {
    for (auto& list : gradient_) std::fill(list.begin(), list.end(), T(0));
    for (int e = 0; e < a_.edges.count; ++e) forward(e);
    for (int p = 0; p < a_.predictions.count; ++p) compare(p);
    for (int n = 0; n < a_.nodes.count; ++n) {
      if (a_.nodes[n].dx.empty()) continue;
      T* dx = a_.nodes[n].dx.template row<T>(row_);
      for (std::size_t i = 0; i < velocity_[at(n)].size(); ++i) {
        velocity_[at(n)][i] = T(a_.momentum) * velocity_[at(n)][i] + gradient_[at(n)][i];
        dx[i] -= T(a_.rate) * velocity_[at(n)][i];
      }
    }
  }

 private:
  static std::size_t at(int i) { return static_cast<std::size_t>(i); }
  /// The change of what the edge multiplies, and the slope there.
  [[nodiscard]] scalar::ValueSlope<T> source(const SettleEdge& e, std::int64_t i) const {
    const SettleNode& node = a_.nodes[e.source];
    return scalar::change(e.before, node.x.row<T>(row_)[i], node.dx.row<T>(row_)[i], T(e.leak));
  }
  /// The change of what the edge adds to its prediction, and the slope there.
  [[nodiscard]] scalar::ValueSlope<T> result(int edge, std::size_t o) const {
    const SettleEdge& e = a_.edges[edge];
    return scalar::change(e.after, e.z.empty() ? T(0) : e.z.row<T>(row_)[o], dz_[at(edge)][o], T(e.leak));
  }

  void forward(int edge) {
    const SettleEdge& e = a_.edges[edge];
    for (std::size_t o = 0; o < dz_[at(edge)].size(); ++o) {
      T sum = 0;
      if (e.w.empty()) {
        sum = a_.nodes[e.source].dx.row<T>(row_)[o];
      } else {
        const T* w = e.w.row<T>(static_cast<std::int64_t>(o));
        for (std::int64_t i = 0; i < e.w.cols(); ++i) sum += w[i] * source(e, i).value;
        sum *= T(e.gain);
      }
      dz_[at(edge)][o] = sum;
    }
  }

  /// The error of a prediction, what it means for its own node, and for the sources of its edges.
  void compare(int prediction) {
    const SettlePrediction& p = a_.predictions[prediction];
    const View& dx = a_.nodes[p.node].dx;
    std::vector<T>& own = gradient_[at(p.node)];
    std::vector<T> delta(own.size());
    for (std::size_t j = 0; j < own.size(); ++j) {
      T error = (p.start.empty() ? T(0) : p.start.row<T>(row_)[j]) + (dx.empty() ? T(0) : dx.row<T>(row_)[j]);
      for (int e = 0; e < a_.edges.count; ++e) {
        if (a_.edges[e].prediction == prediction) error -= result(e, j).value;
      }
      delta[j] = T(p.precision) * error;
      own[j] += delta[j];
    }
    for (int e = 0; e < a_.edges.count; ++e) {
      if (a_.edges[e].prediction == prediction) pull_back(e, delta);
    }
  }

  void pull_back(int edge, const std::vector<T>& delta) {
    const SettleEdge& e = a_.edges[edge];
    std::vector<T>& back = gradient_[at(e.source)];
    for (std::size_t o = 0; o < delta.size(); ++o) {
      const T dz = delta[o] * result(edge, o).slope;
      if (e.w.empty()) {
        back[o] -= dz;
        continue;
      }
      const T* w = e.w.row<T>(static_cast<std::int64_t>(o));
      for (std::size_t i = 0; i < back.size(); ++i) {
        back[i] -= T(e.gain) * w[i] * dz * source(e, static_cast<std::int64_t>(i)).slope;
      }
    }
  }

  const SettleArgs& a_;
  std::int64_t row_;
  std::vector<std::vector<T>> velocity_, gradient_;  // by node
  std::vector<std::vector<T>> dz_;                   // by edge
};

}  // namespace

SettleLayout settle_layout(const SettleArgs& args) {
  SettleLayout layout;
  const auto parts = [](std::int64_t n) { return (n + kSettleChunk - 1) / kSettleChunk; };
  const auto take = [](std::int64_t& end, std::int64_t n) {
    const std::int64_t at = end;
    end += (n + 3) / 4 * 4;  // so that four entries can be read at once
    return static_cast<int>(at);
  };
  std::int64_t weights = 0, state = 0;
  for (int n = 0; n < args.nodes.count; ++n) {
    const std::int64_t width = args.nodes[n].x.cols();
    layout.nodes[n] = {take(state, width), take(state, args.nodes[n].dx.empty() ? 0 : width)};
  }
  for (int p = 0; p < args.predictions.count; ++p) {
    const std::int64_t width = args.width(args.predictions[p]);
    layout.predictions[p] = {take(state, width), take(state, width)};
  }
  for (int i = 0; i < args.edges.count; ++i) {
    const SettleEdge& e = args.edges[i];
    const std::int64_t in = args.nodes[e.source].x.cols(), out = args.width(args.predictions[e.prediction]);
    const std::int64_t mapped = e.before == Activation::identity ? 0 : in;
    const std::int64_t sums = e.w.empty() ? 0 : std::max(out * parts(in), in * parts(out));
    // Rows an odd number of entries apart: threads meet in no memory bank, along rows or along columns.
    layout.edges[i] = {.w = take(weights, e.w.empty() ? 0 : out * (in | 1)),
                       .x = take(state, mapped),
                       .a = take(state, mapped),
                       .slope = take(state, mapped),
                       .z = take(state, e.after == Activation::identity ? 0 : out),
                       .dz = take(state, out),
                       .sums = take(state, sums)};
  }
  layout.weights = static_cast<int>(weights);
  layout.state = static_cast<int>(state);
  return layout;
}

bool settle_fits(const Exec& exec, const SettleArgs& args) {
  const SettleLayout layout = settle_layout(args);
  return static_cast<std::size_t>(layout.weights + layout.state) * size_of(args.dtype()) <= block_memory(exec);
}

void settle_cpu(const SettleArgs& args, Share share) {
  with_float(args.dtype(), [&]<class T>(T) {
    each_row(share, args.rows(), [&](std::int64_t row) {
      Sample<T> sample(args, row);
      for (int t = 0; t < args.steps; ++t) sample.step();
    });
  });
}

}  // namespace pc::kernels

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/exec.h"
#include "kernels/loops.h"
#include "kernels/narrow.h"
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
    narrow_ = a_.operands() != a_.dtype();
    for (const SettleEdge& e : a_.edges) {
      z_.push_back(e.z.empty() ? std::vector<T>(dz_[z_.size()].size()) : row_of(e.z));
    }
    for (const SettlePrediction& p : a_.predictions) {
      start_.push_back(p.start.empty() ? std::vector<T>(gradient_[at(p.node)].size()) : row_of(p.start));
    }
    for (int stage = 1; stage <= a_.stages(); ++stage) {
      for (int p = 0; p < a_.predictions.count; ++p) {
        if (a_.predictions[p].stage == stage) begin(p);
      }
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

  void store() const {
    for (const SettleNode& node : a_.nodes) {
      if (node.dx.empty()) continue;
      const T *x = node.x.template row<T>(row_), *dx = node.dx.template row<T>(row_);
      std::vector<T> whole;
      for (std::int64_t i = 0; i < node.dx.cols(); ++i) whole.push_back(x[i] + dx[i]);
      narrow_row(node.narrow, row_, dx);
      narrow_row(node.narrow_whole, row_, whole.data());
      if (!node.whole.empty()) std::copy(whole.begin(), whole.end(), node.whole.template row<T>(row_));
    }
  }

  /// What the last move has led to, before x may be written over.
  void store_errors() {
    for (int e = 0; e < a_.edges.count; ++e) forward(e);
    for (int i = 0; i < a_.predictions.count; ++i) {
      const SettlePrediction& p = a_.predictions[i];
      if (p.delta.empty()) continue;
      std::vector<T> sent = error(i);
      double squares = 0;
      for (T& entry : sent) {
        squares += double(entry) * double(entry);
        entry *= T(p.precision);
      }
      if (!p.energy.empty()) p.energy.as<double>()[row_] = 0.5 * p.precision * squares;
      std::copy(sent.begin(), sent.end(), p.delta.template row<T>(row_));
      for (int e = 0; e < a_.edges.count && !p.dz.empty(); ++e) {
        if (a_.edges[e].prediction != i) continue;
        for (std::size_t j = 0; j < sent.size(); ++j) sent[j] *= result(e, j).slope;
        std::copy(sent.begin(), sent.end(), p.dz.template row<T>(row_));
      }
      narrow_row(p.narrow, row_, sent.data());
    }
  }

 private:
  static std::size_t at(int i) { return static_cast<std::size_t>(i); }
  [[nodiscard]] std::vector<T> row_of(const View& view) const {
    const T* row = view.row<T>(row_);
    return {row, row + view.cols()};
  }

  /// A prediction at the start.
  void begin(int prediction) {
    const SettlePrediction& p = a_.predictions[prediction];
    T* x = a_.nodes[p.node].x.template row<T>(row_);
    std::vector<T> mu(start_[at(prediction)].size(), T(0));
    for (int edge = 0; edge < a_.edges.count; ++edge) {
      const SettleEdge& e = a_.edges[edge];
      if (e.prediction != prediction) continue;
      std::vector<T>& z = z_[at(edge)];
      if (!e.constant()) multiply_start(e, z);
      for (std::size_t o = 0; o < z.size(); ++o) mu[o] += scalar::activate(e.after, z[o], T(e.leak)).value;
    }
    if (a_.makes(prediction)) {
      std::copy(mu.begin(), mu.end(), x);
      return;
    }
    double squares = 0;
    for (std::size_t o = 0; o < mu.size(); ++o) {
      const T error = start_[at(prediction)][o] = x[o] - mu[o];
      squares += double(error) * double(error);
    }
    if (!p.energy_start.empty()) p.energy_start.template as<double>()[row_] = 0.5 * p.precision * squares;
  }

  void multiply_start(const SettleEdge& e, std::vector<T>& z) const {
    std::vector<T> a = row_of(a_.nodes[e.source].x);
    for (T& value : a) value = scalar::activate(e.before, value, T(e.leak)).value;
    if (!e.w.empty()) {
      for (T& value : a) value = operand(value, 0);
    }
    for (std::size_t o = 0; o < z.size(); ++o) {
      T sum = e.w.empty() ? a[o] : T(0);
      for (std::size_t i = 0; i < a.size() && !e.w.empty(); ++i) {
        sum += weight(e, o, static_cast<std::int64_t>(i)) * a[i];
      }
      z[o] = (e.w.empty() ? sum : T(e.gain) * sum) + (e.bias.empty() ? T(0) : e.bias.template as<T>()[o]);
    }
  }
  /// The change of what the edge multiplies, and the slope there.
  [[nodiscard]] scalar::ValueSlope<T> source(const SettleEdge& e, std::int64_t i) const {
    const SettleNode& node = a_.nodes[e.source];
    return scalar::change(e.before, node.x.row<T>(row_)[i], node.dx.row<T>(row_)[i], T(e.leak));
  }
  /// The change of what the edge adds to its prediction, and the slope there.
  [[nodiscard]] scalar::ValueSlope<T> result(int edge, std::size_t o) const {
    const SettleEdge& e = a_.edges[edge];
    return scalar::change(e.after, z_[at(edge)][o], dz_[at(edge)][o], T(e.leak));
  }

  [[nodiscard]] T weight(const SettleEdge& e, std::size_t o, std::int64_t i) const {
    const auto row = static_cast<std::int64_t>(o);
    return narrow_ ? T(widened(e.w, row, i)) : e.w.row<T>(row)[i];
  }
  /// What is multiplied, as an operand.
  [[nodiscard]] T operand(T value, int exponent) const {
    if (!narrow_) return value;
    std::uint16_t bits = 0;
    View stored{.data = &bits, .shape = {1, 1}, .dtype = a_.operands()};
    stored.exponent = exponent;
    const float exact = static_cast<float>(value);
    narrow_row({stored, a_.overflow}, 0, &exact);
    return T(std::ldexp(widened(stored, 0, 0), -exponent));
  }

  void forward(int edge) {
    const SettleEdge& e = a_.edges[edge];
    if (e.constant()) return;
    std::vector<T> a;
    for (std::int64_t i = 0; i < a_.nodes[e.source].x.cols(); ++i) a.push_back(source(e, i).value);
    if (!e.w.empty()) {
      for (T& value : a) value = operand(value, a_.exponent);
    }
    for (std::size_t o = 0; o < dz_[at(edge)].size(); ++o) {
      T sum = 0;
      if (e.w.empty()) {
        sum = a[o];
      } else {
        for (std::size_t i = 0; i < a.size(); ++i) sum += weight(e, o, static_cast<std::int64_t>(i)) * a[i];
        sum *= T(e.gain);
      }
      dz_[at(edge)][o] = sum;
    }
  }

  [[nodiscard]] std::vector<T> error(int prediction) const {
    const SettlePrediction& p = a_.predictions[prediction];
    const View& dx = a_.nodes[p.node].dx;
    std::vector<T> list(gradient_[at(p.node)].size());
    for (std::size_t j = 0; j < list.size(); ++j) {
      list[j] = start_[at(prediction)][j] + (dx.empty() ? T(0) : dx.row<T>(row_)[j]);
      for (int e = 0; e < a_.edges.count; ++e) {
        if (a_.edges[e].prediction == prediction && !a_.edges[e].constant()) list[j] -= result(e, j).value;
      }
    }
    return list;
  }

  /// The error of a prediction, what it means for its own node, and for the sources of its edges.
  void compare(int prediction) {
    const SettlePrediction& p = a_.predictions[prediction];
    std::vector<T>& own = gradient_[at(p.node)];
    std::vector<T> delta = error(prediction);
    for (std::size_t j = 0; j < own.size(); ++j) {
      delta[j] *= T(p.precision);
      own[j] += delta[j];
    }
    for (int e = 0; e < a_.edges.count; ++e) {
      if (a_.edges[e].prediction == prediction && !a_.edges[e].constant()) pull_back(e, delta);
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
      const T sent = operand(dz, a_.exponent);
      for (std::size_t i = 0; i < back.size(); ++i) {
        const auto in = static_cast<std::int64_t>(i);
        back[i] -= T(e.gain) * weight(e, o, in) * sent * source(e, in).slope;
      }
    }
  }

  const SettleArgs& a_;
  std::int64_t row_;
  bool narrow_ = false;
  std::vector<std::vector<T>> velocity_, gradient_;  // by node
  std::vector<std::vector<T>> z_, dz_;               // by edge: at the start; the change
  std::vector<std::vector<T>> start_;                // by prediction
};

}  // namespace

SettleLayout settle_layout(const SettleArgs& args) {
  SettleLayout layout;
  const auto take = [](std::int64_t& end, std::int64_t n) {
    const std::int64_t at = end;
    end += (n + 3) / 4 * 4;  // so that four entries can be read at once
    return static_cast<int>(at);
  };
  const bool tensor_cores = args.operands() != args.dtype();
  // Operands of 16 bits, two to an entry.
  const auto operands = [](std::int64_t n) { return (settle_tiled(n) + kSettleGap) / 2; };
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
    const std::int64_t in = e.constant() ? 0 : args.nodes[e.source].x.cols(),
                       out = args.width(args.predictions[e.prediction]);
    const std::int64_t mapped = e.before == Activation::identity ? 0 : in;
    const bool multiplies = !e.w.empty(), tensor = multiplies && tensor_cores;
    // Rows an odd number of entries apart: threads meet in no memory bank, along rows or along columns.
    const std::int64_t matrix = tensor ? settle_tiled(out) * operands(in) : out * (in | 1);
    layout.edges[i] = {.w = take(weights, multiplies ? matrix : 0),
                       .x = take(state, mapped),
                       .a = take(state, mapped),
                       .slope = take(state, mapped),
                       .z = take(state, e.after == Activation::identity ? 0 : out),
                       .dz = take(state, out),
                       .forward = take(state, tensor ? operands(in) : 0),
                       .back = take(state, tensor ? operands(out) : 0)};
  }
  // More than this fits no block anyway, and the sum of both is an int still.
  constexpr std::int64_t kMost = std::numeric_limits<int>::max() / 2;
  layout.weights = static_cast<int>(std::min(weights, kMost));
  layout.state = static_cast<int>(std::min(state, kMost));
  return layout;
}

bool settle_by_warps(const Exec& exec, const SettleArgs& args) {
  const auto on_device = [&](bool (*asked)(const SettleArgs&, CudaContext&)) {
    return asked != nullptr && asked(args, *exec.cuda);
  };
  return exec.device == Device::cpu || on_device(PC_CUDA(settle_by_warps_cuda));
}

bool settle_fits(const Exec& exec, const SettleArgs& args) {
  if (std::max({args.nodes.count, args.predictions.count, args.edges.count}) > kSettleMost) return false;
  const SettleLayout layout = settle_layout(args);
  const std::size_t bytes = static_cast<std::size_t>(layout.weights + layout.state) * size_of(args.dtype());
  return bytes + kSettleDescription <= block_memory(exec);
}

/// Cut into tiles, products are left out as long as they are zero.
double SettleArgs::flops() const {
  const SettleFirst first = settle_first(*this);
  double sum = 0;
  for (const SettleEdge& e : edges) {
    if (e.constant()) continue;
    const int forward = first.nodes[static_cast<std::size_t>(e.source)] + 1,
              back = first.predictions[static_cast<std::size_t>(e.prediction)];
    const int products = scratch.empty() ? 2 * steps : 2 * steps - std::min(forward, steps) - std::min(back, steps);
    if (!e.w.empty()) sum += 2.0 * products * static_cast<double>(e.w.count()) * static_cast<double>(rows());
  }
  return sum;
}

SettleFirst settle_first(const SettleArgs& args) {
  SettleFirst first;
  first.nodes.assign(args.nodes.items.size(), args.steps);
  for (const SettlePrediction& p : args.predictions) first.predictions.push_back(p.start.empty() ? args.steps : 0);
  const auto at = [](int i) { return static_cast<std::size_t>(i); };
  bool changed = true;
  const auto lower = [&](int& step, int to) {
    if (to >= step) return;
    step = to;
    changed = true;
  };
  while (changed) {
    changed = false;
    for (int p = 0; p < args.predictions.count; ++p) {
      const int node = args.predictions[p].node;
      if (args.nodes[node].dx.empty()) continue;
      lower(first.nodes[at(node)], first.predictions[at(p)]);
      lower(first.predictions[at(p)], first.nodes[at(node)] + 1);
    }
    for (const SettleEdge& e : args.edges) {
      if (e.constant()) continue;
      lower(first.nodes[at(e.source)], first.predictions[at(e.prediction)]);
      lower(first.predictions[at(e.prediction)], first.nodes[at(e.source)] + 1);
    }
  }
  return first;
}

void settle_cpu(const SettleArgs& args, Share share) {
  with_float(args.dtype(), [&]<class T>(T) {
    each_row(share, args.rows(), [&](std::int64_t row) {
      Sample<T> sample(args, row);
      for (int t = 0; t < args.steps; ++t) sample.step();
      sample.store_errors();
      sample.store();
    });
  });
}

}  // namespace pc::kernels

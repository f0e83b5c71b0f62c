#include "pc/network.h"

#include <algorithm>
#include <cmath>

#include "kernels/random.h"

namespace pc {
namespace {

/// Inputs that an output really has: masks thin them out.
double effective_fan(std::int64_t fan, const Param& param) {
  if (param.mask.empty()) return double(fan);
  const auto kept = std::count_if(param.mask.begin(), param.mask.end(), [](auto m) { return m != 0; });
  return std::max(1.0, double(fan) * double(kept) / double(param.mask.size()));
}

struct Draw {
  kernels::Distribution distribution;
  double a, b;
};

Draw draw_for(const Param& param, WeightInit init) {
  const double in = effective_fan(param.spec.fan_in, param), out = effective_fan(param.spec.fan_out, param);
  const bool bias = param.spec.role == ParamRole::bias;
  const auto uniform = [&](double limit) {
    return Draw{kernels::Distribution::uniform, -limit * init.scale, limit * init.scale};
  };
  const auto normal = [&](double deviation) { return Draw{kernels::Distribution::normal, 0, deviation * init.scale}; };
  switch (init.kind) {
    case WeightInit::Kind::fan_in:
      return uniform(1 / std::sqrt(in));
    case WeightInit::Kind::xavier:
      return uniform(bias ? 0 : std::sqrt(6 / (in + out)));
    case WeightInit::Kind::he:
      return normal(bias ? 0 : std::sqrt(2 / in));
    case WeightInit::Kind::normal:
      return normal(bias ? 0 : 1);
    case WeightInit::Kind::zeros:
      break;
  }
  return uniform(0);
}

}  // namespace

Network::Network(Graph graph, const Exec& exec, DType dtype, std::int64_t max_batch, std::uint64_t seed,
                 WeightInit init)
    : graph_(std::move(graph)), arena_(exec), dtype_(dtype), max_batch_(max_batch), seed_(seed) {
  PC_CHECK(max_batch > 0, "network", "a batch of ", max_batch, " is too small");
  for (ParamId id = 0; id < graph_.param_count(); ++id) {
    weights_.push_back(param_buffer("w", id));
    masks_.emplace_back();
    if (const auto& mask = graph_.param(id).mask; !mask.empty()) {
      masks_.back() = param_buffer("mask", id);
      arena_.write(masks_.back(), {mask.begin(), mask.end()});
    }
    init_weight(id, init);
  }
}

void Network::init_weight(ParamId id, WeightInit init) {
  const Param& param = graph_.param(id);
  const Draw draw = draw_for(param, init);
  std::vector<double> values(static_cast<std::size_t>(param.spec.shape.count()));
  const View host{values.data(), weight(id).shape, DType::f64, Device::cpu, 0};
  kernels::random(Exec{}, {.out = host,
                           .distribution = draw.distribution,
                           .a = draw.a,
                           .b = draw.b,
                           .seed = seed_,
                           .purpose = Purpose::weights,
                           .stream = static_cast<std::uint32_t>(id)});
  for (std::size_t i = 0; i < param.mask.size(); ++i) {
    if (param.mask[i] == 0) values[i] = 0;
  }
  arena_.write(weight(id), values);
}

View Network::param_buffer(const std::string& kind, ParamId id) {
  const Param& param = graph_.param(id);
  return arena_.take(kind + "/" + param.name, param.spec.shape, dtype_);
}

View Network::node_buffer(const std::string& kind, NodeId id, std::int64_t batch) {
  const Node& node = graph_.node(id);
  return arena_.take(kind + "/" + node.name, node.shape.batched(max_batch_), dtype_).first_rows(batch);
}

View Network::prediction_buffer(const std::string& kind, PredictionId id, std::int64_t batch) {
  const Prediction& p = graph_.prediction(id);
  return arena_.take(kind + "/" + p.name, graph_.node(p.node).shape.batched(max_batch_), dtype_).first_rows(batch);
}

View Network::link_buffer(const std::string& kind, EdgeId edge, int link, std::int64_t batch) {
  const Edge& e = graph_.edge(edge);
  return arena_
      .take(kind + "/" + e.name + "/" + std::to_string(link),
            e.chain[static_cast<std::size_t>(link)].out.batched(max_batch_), dtype_)
      .first_rows(batch);
}

View Network::precisions(PredictionId id) {
  const Prediction& p = graph_.prediction(id);
  if (p.spec.precision.size() == 1) return {};
  const std::string name = "precision/" + p.name;
  const bool made = arena_.has(name);
  const View view = arena_.take(name, {static_cast<std::int64_t>(p.spec.precision.size())}, dtype_);
  if (!made) arena_.write(view, p.spec.precision);
  return view;
}

double Network::precision_scale(PredictionId id) const {
  const auto& precision = graph_.prediction(id).spec.precision;
  return precision.size() == 1 ? precision[0] : 1.0;
}

View Network::row_buffer(const std::string& name, std::int64_t batch) {
  return arena_.take(name, {max_batch_}, DType::f64).first_rows(batch);
}

std::vector<View> Network::link_inputs(EdgeId edge, int link, std::int64_t batch) {
  if (link > 0) return {link_buffer("z", edge, link - 1, batch)};
  std::vector<View> inputs;
  for (const NodeId from : graph_.edge(edge).from) inputs.push_back(value(from, batch));
  return inputs;
}

std::vector<View> Network::link_weights(EdgeId edge, int link) const {
  std::vector<View> weights;
  for (const ParamId id : graph_.edge(edge).chain[static_cast<std::size_t>(link)].params) weights.push_back(weight(id));
  return weights;
}

}  // namespace pc

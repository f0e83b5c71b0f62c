#include "experiments/check_batch.h"

#include <algorithm>
#include <cmath>

#include "pc/ops/axes.h"

namespace pc::experiments {
namespace {

double draw(std::uint64_t seed, NodeId node, std::uint64_t number, std::size_t index) {
  return philox::uniform(philox::bits(seed, Purpose::check, static_cast<std::uint32_t>(node), number, index));
}

/// How many things a node's numbers tell apart: entries of an embedding that reads it, or places that gather looks up
/// in it; 0: they are no such numbers.
double count_named_by(const Graph& graph, NodeId id) {
  for (const EdgeId e : graph.node(id).out) {
    const auto& [name, from, prediction, chain] = graph.edge(e);
    const Link& first = chain[0];
    if (first.op == &find_op("embedding")) return first.attrs.at("entries");
    if (first.op == &find_op("gather") && from.size() == 2 && from[1] == id) {
      return double(ops::Cut(graph.node(from[0]).shape, 0, static_cast<int>(first.attrs.at("axis"))).length);
    }
  }
  return 0;
}

std::vector<double> random_values(const Graph& graph, NodeId id, std::int64_t size, std::uint64_t seed,
                                  std::uint64_t number) {
  const Node& node = graph.node(id);
  const std::int64_t width = node.shape.count();
  const Energy* energy = node.predictions.empty() ? &gaussian : graph.prediction(node.predictions[0]).spec.energy;
  std::vector<double> values(static_cast<std::size_t>(size * width));
  if (energy == &softmax_cross_entropy) {
    const std::int64_t classes = node.shape[node.shape.rank() - 1];
    for (std::int64_t run = 0; run < size * width / classes; ++run) {
      const double u = draw(seed, id, number, static_cast<std::size_t>(run));
      values[static_cast<std::size_t>(run * classes) + static_cast<std::size_t>(u * double(classes))] = 1;
    }
    return values;
  }
  const double named = count_named_by(graph, id);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double u = draw(seed, id, number, i);
    values[i] = named > 0 ? std::floor(named * u) : energy == &bernoulli ? u : philox::normal(u);
  }
  return values;
}

DataConfig with_batch(DataConfig data, std::int64_t size) {
  data.batch = size;
  return data;
}

/// The data on the CPU, whatever device is checked: every device then gets the same numbers.
std::unique_ptr<Feed> make_feed(const Config& config, std::int64_t size) {
  return std::make_unique<Feed>(Exec{}, load_data(config.data.request), with_batch(config.data, size), config.seed,
                                sequence_length(config));
}

void check_width(const Graph& graph, const std::string& name, std::int64_t width, const std::string& set) {
  const Node& node = graph.node(graph.find(name));
  PC_CHECK(node.shape.count() == width, "check", "node ", name, " has shape ", node.shape.text(), ", but ", set,
           " has ", width, " values for it");
}

}  // namespace

CheckBatch random_batch(const Graph& graph, const std::vector<std::string>& clamped, std::int64_t size,
                        std::uint64_t seed, std::uint64_t number) {
  CheckBatch batch{size, {}};
  for (const std::string& name : clamped) {
    batch.values[name] = random_values(graph, graph.find(name), size, seed, number);
  }
  return batch;
}

BatchSource::BatchSource(const Config& config, std::int64_t size, bool random)
    : config_(config), graph_(config.unpadded.nodes, config.unpadded.edges), size_(size) {
  for (const std::string& name : task_names(config)) static_cast<void>(graph_.find(name));
  if (random || config.check_task) return;
  feed_ = make_feed(config, size);
  size_ = std::min(size, feed_->train().count);
  const std::vector<std::string> names = task_names(config);
  for (std::size_t i = 0; i < names.size(); ++i) {
    check_width(graph_, names[i], i == 0 || config.examples ? feed_->size() : feed_->label_size(),
                config.data.request.set);
  }
}

CheckBatch BatchSource::batch(std::int64_t number) const {
  if (feed_ == nullptr) {
    return random_batch(graph_, task_names(config_), size_, config_.check.seed, static_cast<std::uint64_t>(number));
  }
  CheckBatch batch{size_, {}};
  const auto room = [&](const std::string& name, std::int64_t width) {
    std::vector<double>& values = batch.values[name];
    values.resize(static_cast<std::size_t>(size_ * width));
    return View{.data = values.data(), .shape = {size_, width}, .dtype = DType::f64};
  };
  const Part& part = feed_->train();
  feed_->rewind(part, number % (part.count / size_) * size_);
  const std::vector<std::string> names = task_names(config_);
  feed_->record_input(Exec{}, part, room(names[0], feed_->size()));
  if (names.size() == 1) return batch;
  if (config_.examples) {
    feed_->record_copy(Exec{}, part, room(names[1], feed_->size()), config_.examples->next);
  } else {
    feed_->record_target(Exec{}, part, room(names[1], feed_->label_size()), config_.classify.on, config_.classify.off);
  }
  return batch;
}

std::string BatchSource::about() const {
  const std::string count = std::to_string(size_);
  return feed_ == nullptr ? count + " random samples" : count + " examples of " + config_.data.request.set;
}

}  // namespace pc::experiments

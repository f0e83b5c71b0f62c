// Batches for `pc check`: examples of the task's data, or random values that are the same on every device.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "experiments/config.h"
#include "experiments/feed.h"

namespace pc::experiments {

/// What clamped nodes are fixed to, by name: [size, node].
struct CheckBatch {
  std::int64_t size = 0;
  std::map<std::string, std::vector<double>> values;
};

/// Standard normal values for nodes without predictions and for Gaussian ones, one random class along the last axis for
/// softmax targets, uniform in (0, 1) for bernoulli targets, random entries' numbers for what an embedding reads, and
/// random places for the second source of a gather.
/// `number` tells batches apart.
CheckBatch random_batch(const Graph& graph, const std::vector<std::string>& clamped, std::int64_t size,
                        std::uint64_t seed, std::uint64_t number);

class BatchSource {
 public:
  /// `random`: also where there is data. A batch is no larger than the training part.
  BatchSource(const Config& config, std::int64_t size, bool random);

  /// Batches of data follow each other in an order that never changes, and begin again after the last whole one.
  [[nodiscard]] CheckBatch batch(std::int64_t number) const;
  [[nodiscard]] std::int64_t size() const { return size_; }
  /// "32 examples of mnist", "32 random samples"
  [[nodiscard]] std::string about() const;

 private:
  const Config& config_;
  Graph graph_;
  std::int64_t size_;
  std::unique_ptr<Feed> feed_;  // null: random
};

}  // namespace pc::experiments

// A data set on the device: tables, the split into parts, and the kernel calls that put one batch into the network.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "experiments/config.h"
#include "experiments/data/dataset.h"
#include "kernels/gather.h"
#include "kernels/philox.h"
#include "pc/network.h"

namespace pc::experiments {

/// Some of the examples in some order. The order and the place in it live on the device.
struct Part {
  View table, labels;  // of the set that the part is taken from
  View order;          // int32 [count]
  View cursor, next;   // float64 scalars: where the current batch begins, and the one after it
  std::int64_t count = 0;
};

class Feed {
 public:
  Feed(const Exec& exec, const DataSet& data, const DataConfig& config, std::uint64_t seed);

  [[nodiscard]] const Part& train() const { return train_; }
  [[nodiscard]] const Part& validation() const { return validation_; }
  [[nodiscard]] const Part& test() const { return test_; }
  /// The first examples of the training part, in an order that never changes: for traces.
  [[nodiscard]] const Part& sample() const { return sample_; }
  [[nodiscard]] int classes() const { return classes_; }
  [[nodiscard]] std::int64_t size() const { return size_; }
  [[nodiscard]] std::size_t bytes() const { return arena_.bytes(); }

  /// Shuffles the training part: a permutation that depends on the seed and the epoch alone.
  void shuffle(std::int64_t epoch);
  /// The part's next batch will begin at `example`.
  void rewind(const Part& part, std::int64_t example = 0) const;

  /// Records: the next batch becomes the current one, and its values go to `input` [batch, size].
  void record_input(const Exec& exec, const Part& part, const View& input) const;
  /// Records: the current batch's labels as rows of `on` and `off`.
  void record_target(const Exec& exec, const Part& part, const View& target, double on, double off) const;
  /// Records: right[i] = 1 where `answer` has its largest entry at the label.
  void record_right(const Exec& exec, const Part& part, const View& answer, const View& right) const;

 private:
  View upload_table(const std::string& name, const Examples& examples);
  View upload_labels(const std::string& name, const Examples& examples);
  Part make_part(const std::string& name, const View& table, const View& labels,
                 const std::vector<std::int32_t>& order);
  void set_scales(const DataSet& data, Normalize normalize);

  Arena arena_;
  std::uint64_t seed_;
  int classes_;
  std::int64_t size_;
  View scale_, shift_;  // float64 [channels]
  std::vector<std::int32_t> train_order_;
  Part train_, validation_, test_, sample_;
};

/// 0 .. n-1 shuffled (Fisher-Yates) by the counter-based generator.
std::vector<std::int32_t> permutation(std::int64_t n, std::uint64_t seed, Purpose purpose, std::uint64_t draw);

}  // namespace pc::experiments

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

/// Some of the examples in some order. The order and the place in it live on the device. Where examples are taken as
/// sequences, `order` lists their beginnings.
struct Part {
  View table, labels;  // of the set that the part is taken from
  View order;          // int32 [count]
  View after;         // int32 [count]: the example that follows each one in the part's first order; the last: the first
  View cursor, next;  // float64 scalars: where the current batch begins, and the one after it
  std::int64_t count = 0;
  kernels::Augment augment = {};
};

class Feed {
 public:
  /// `times`: examples of the data in a row are taken together, as a sequence, with a label for each. Then the
  /// validation part is the end of the training part, and an epoch has as many sequences as would cover what is left,
  /// each from a place of its own that is drawn anew.
  Feed(const Exec& exec, const DataSet& data, const DataConfig& config, std::uint64_t seed, std::int64_t times = 1);

  [[nodiscard]] const Part& train() const { return train_; }
  [[nodiscard]] const Part& validation() const { return validation_; }
  [[nodiscard]] const Part& test() const { return test_; }
  /// The first examples of the training part, in an order that never changes: for traces.
  [[nodiscard]] const Part& sample() const { return sample_; }
  [[nodiscard]] int classes() const { return classes_; }
  [[nodiscard]] std::int64_t times() const { return times_; }
  /// Values of an example, and entries of its labels as one-hot rows; of all its times together.
  [[nodiscard]] std::int64_t size() const { return times_ * size_; }
  [[nodiscard]] std::int64_t label_size() const { return times_ * classes_; }
  /// What the classes are called where they are characters of a text; else empty.
  [[nodiscard]] const std::string& characters() const { return characters_; }
  [[nodiscard]] std::size_t bytes() const { return arena_.bytes(); }
  /// Of the training examples, with their labels and what those are called.
  [[nodiscard]] std::int64_t fingerprint() const { return fingerprint_; }
  /// By channel: a value of the network is scale times the stored one, plus shift.
  [[nodiscard]] std::vector<double> scale() const { return arena_.read(scale_); }
  [[nodiscard]] std::vector<double> shift() const { return arena_.read(shift_); }

  /// Shuffles the training part, or draws its sequences: what comes depends on the seed and the epoch alone.
  void shuffle(std::int64_t epoch);
  /// The part's next batch will begin at `example`.
  void rewind(const Part& part, std::int64_t example = 0) const;

  /// Records: the next batch becomes the current one, and its values go to `input` [batch, size].
  void record_input(const Exec& exec, const Part& part, const View& input) const;
  /// Records: the examples of the current batch, or those that follow them, once more.
  void record_copy(const Exec& exec, const Part& part, const View& copy, bool next) const;
  /// Records: the current batch's labels as rows of `on` and `off`.
  void record_target(const Exec& exec, const Part& part, const View& target, double on, double off) const;
  /// Records: right[i] = 1 where `answer` has its largest entry at the label; of a sequence, the mean.
  void record_right(const Exec& exec, const Part& part, const View& answer, const View& right) const;

 private:
  View upload_table(const std::string& name, const Examples& examples);
  View upload_labels(const std::string& name, const Examples& examples);
  Part make_part(const std::string& name, const View& table, const View& labels,
                 const std::vector<std::int32_t>& order);
  void upload_order(const Part& part, const std::vector<std::int32_t>& order, const std::vector<std::int32_t>& after);
  void set_scales(const DataSet& data, Normalize normalize);
  void take_sequences(const View& train_table, const View& train_labels, const View& test_table,
                      const View& test_labels, std::int64_t held, const DataConfig& config);
  [[nodiscard]] kernels::Augment augment(const std::vector<std::int64_t>& shape, const DataConfig& config) const;

  Arena arena_;
  std::uint64_t seed_;
  int classes_;
  std::int64_t size_, times_;
  std::string characters_;
  std::int64_t fingerprint_;
  std::int64_t places_ = 0;  // at which a sequence to learn from may begin
  View scale_, shift_;       // float64 [channels]
  View epoch_;               // a float64 scalar
  std::vector<std::int32_t> train_order_, train_after_;
  Part train_, validation_, test_, sample_;
};

/// 0 .. n-1 shuffled (Fisher-Yates) by the counter-based generator.
std::vector<std::int32_t> permutation(std::int64_t n, std::uint64_t seed, Purpose purpose, std::uint64_t draw);

}  // namespace pc::experiments

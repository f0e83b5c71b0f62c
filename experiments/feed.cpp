#include "experiments/feed.h"

#include <cmath>
#include <numeric>

#include "kernels/arithmetic.h"
#include "kernels/philox.h"
#include "kernels/reduce.h"

namespace pc::experiments {
namespace {

void shuffle_in_place(std::vector<std::int32_t>& order, std::uint64_t seed, Purpose purpose, std::uint64_t draw) {
  for (std::size_t i = order.size(); i > 1; --i) {
    const double u = philox::uniform(philox::bits(seed, purpose, 0, draw, i));
    std::swap(order[i - 1], order[static_cast<std::size_t>(u * double(i))]);
  }
}

/// Mean and deviation of each channel.
struct Moments {
  std::vector<double> mean, deviation;
};

template <class T>
Moments moments(const std::vector<T>& values, std::size_t channels, std::size_t run) {
  Moments m{std::vector<double>(channels), std::vector<double>(channels)};
  std::vector<double> squares(channels);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::size_t c = i / run % channels;
    m.mean[c] += double(values[i]);
    squares[c] += double(values[i]) * double(values[i]);
  }
  const double n = double(values.size()) / double(channels);
  for (std::size_t c = 0; c < channels; ++c) {
    m.mean[c] /= n;
    m.deviation[c] = std::sqrt(std::max(squares[c] / n - m.mean[c] * m.mean[c], 1e-12));
  }
  return m;
}

}  // namespace

std::vector<std::int32_t> permutation(std::int64_t n, std::uint64_t seed, Purpose purpose, std::uint64_t draw) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  shuffle_in_place(order, seed, purpose, draw);
  return order;
}

Feed::Feed(const Exec& exec, const DataSet& data, const DataConfig& config, std::uint64_t seed)
    : arena_(exec), seed_(seed), classes_(data.classes), size_(data.train.size()) {
  const View train_table = upload_table("train", data.train), test_table = upload_table("test", data.test);
  const View train_labels = upload_labels("train", data.train), test_labels = upload_labels("test", data.test);
  set_scales(data, config.normalize);

  std::vector<std::int32_t> order = permutation(data.train.count(), seed, Purpose::split, 0);
  const std::int64_t held =
      config.validation > 0 ? config.validation : std::llround(config.validation_part * double(data.train.count()));
  PC_CHECK(held < data.train.count(), "data", "validation holds out ", held, " of ", data.train.count(),
           " training examples; none are left to learn from");
  const auto split = order.begin() + held;
  auto end = order.end();
  if (config.limit > 0 && config.limit < end - split) end = split + config.limit;
  train_order_.assign(split, end);
  train_ = make_part("train", train_table, train_labels, train_order_);
  validation_ = make_part("validation", train_table, train_labels, {order.begin(), split});
  const auto few = std::min<std::int64_t>(config.batch, train_.count);
  sample_ = make_part("sample", train_table, train_labels, {train_order_.begin(), train_order_.begin() + few});
  std::vector<std::int32_t> all(static_cast<std::size_t>(data.test.count()));
  std::iota(all.begin(), all.end(), 0);
  test_ = make_part("test", test_table, test_labels, all);
}

View Feed::upload_table(const std::string& name, const Examples& examples) {
  const Shape shape{examples.count(), examples.size()};
  const bool bytes = !examples.bytes.empty();
  const View view = arena_.take(name + "/table", shape, bytes ? DType::u8 : DType::f32);
  if (shape.count() > 0) {
    arena_.upload(view, bytes ? static_cast<const void*>(examples.bytes.data()) : examples.floats.data());
  }
  return view;
}

View Feed::upload_labels(const std::string& name, const Examples& examples) {
  const View view = arena_.take(name + "/labels", {examples.count()}, DType::i32);
  if (examples.count() > 0) arena_.upload(view, examples.labels.data());
  return view;
}

Part Feed::make_part(const std::string& name, const View& table, const View& labels,
                     const std::vector<std::int32_t>& order) {
  Part part{.table = table,
            .labels = labels,
            .order = arena_.take(name + "/order", {std::ssize(order)}, DType::i32),
            .cursor = arena_.take(name + "/cursor", {}, DType::f64),
            .next = arena_.take(name + "/next", {}, DType::f64),
            .count = std::ssize(order)};
  if (part.count > 0) arena_.upload(part.order, order.data());
  return part;
}

void Feed::set_scales(const DataSet& data, Normalize normalize) {
  const Examples& train = data.train;
  const std::size_t channels = train.shape.size() == 3 ? static_cast<std::size_t>(train.shape[0]) : 1;
  const bool bytes = !train.bytes.empty();
  std::vector<double> scale(channels, 1.0), shift(channels, 0.0);
  if (bytes && normalize == Normalize::unit) scale.assign(channels, 1.0 / 255);
  if (bytes && normalize == Normalize::centered) {
    scale.assign(channels, 2.0 / 255);
    shift.assign(channels, -1.0);
  }
  if (normalize == Normalize::standard) {
    const std::size_t run = static_cast<std::size_t>(size_) / channels;
    const Moments m = bytes ? moments(train.bytes, channels, run) : moments(train.floats, channels, run);
    for (std::size_t c = 0; c < channels; ++c) {
      scale[c] = 1 / m.deviation[c];
      shift[c] = -m.mean[c] / m.deviation[c];
    }
  }
  scale_ = arena_.take("scale", {std::ssize(scale)}, DType::f64);
  shift_ = arena_.take("shift", {std::ssize(shift)}, DType::f64);
  arena_.write(scale_, scale);
  arena_.write(shift_, shift);
}

void Feed::shuffle(std::int64_t epoch) {
  std::vector<std::int32_t> order = train_order_;
  shuffle_in_place(order, seed_, Purpose::shuffle, static_cast<std::uint64_t>(epoch));
  arena_.upload(train_.order, order.data());
  rewind(train_);
}

void Feed::rewind(const Part& part, std::int64_t example) const { arena_.write(part.next, {double(example)}); }

void Feed::record_input(const Exec& exec, const Part& part, const View& input) const {
  kernels::copy(exec, {.in = part.next, .out = part.cursor});
  kernels::tick(exec, {.counter = part.next, .by = double(input.rows())});
  kernels::gather(
      exec, {.table = part.table, .out = input, .rows = {part.order, part.cursor}, .scale = scale_, .shift = shift_});
}

void Feed::record_target(const Exec& exec, const Part& part, const View& target, double on, double off) const {
  kernels::one_hot(exec,
                   {.labels = part.labels, .out = target, .rows = {part.order, part.cursor}, .on = on, .off = off});
}

void Feed::record_right(const Exec& exec, const Part& part, const View& answer, const View& right) const {
  kernels::right(exec, {.answer = answer, .labels = part.labels, .right = right, .rows = {part.order, part.cursor}});
}

}  // namespace pc::experiments

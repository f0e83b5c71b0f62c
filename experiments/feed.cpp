#include "experiments/feed.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/arithmetic.h"
#include "kernels/philox.h"
#include "kernels/reduce.h"
#include "pc/fingerprint.h"

namespace pc::experiments {
namespace {

void shuffle_in_place(std::vector<std::int32_t>& order, std::uint64_t seed, Purpose purpose, std::uint64_t draw) {
  for (std::size_t i = order.size(); i > 1; --i) {
    const double u = philox::uniform(philox::bits(seed, purpose, 0, draw, i));
    std::swap(order[i - 1], order[static_cast<std::size_t>(u * double(i))]);
  }
}

/// The one that follows each; the first follows the last.
std::vector<std::int32_t> rotated(std::vector<std::int32_t> order) {
  if (!order.empty()) std::rotate(order.begin(), order.begin() + 1, order.end());
  return order;
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

std::int64_t fingerprint_of(const DataSet& data) {
  Fingerprint print;
  print.add_all(std::span(data.train.bytes));
  print.add_all(std::span(data.train.floats));
  print.add_all(std::span(data.train.labels));
  print.add_all(std::span(data.train.shape));
  print.add_all(std::span(data.characters));
  return static_cast<std::int64_t>(print.value());
}

}  // namespace

std::vector<std::int32_t> permutation(std::int64_t n, std::uint64_t seed, Purpose purpose, std::uint64_t draw) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  shuffle_in_place(order, seed, purpose, draw);
  return order;
}

Feed::Feed(const Exec& exec, const DataSet& data, const DataConfig& config, std::uint64_t seed, std::int64_t times)
    : arena_(exec),
      seed_(seed),
      classes_(data.classes),
      size_(data.train.size()),
      times_(times),
      characters_(data.characters),
      fingerprint_(fingerprint_of(data)) {
  const View train_table = upload_table("train", data.train), test_table = upload_table("test", data.test);
  const View train_labels = upload_labels("train", data.train), test_labels = upload_labels("test", data.test);
  set_scales(data, config.normalize);

  const std::int64_t held =
      config.validation > 0 ? config.validation : std::llround(config.validation_part * double(data.train.count()));
  if (held >= data.train.count()) {
    fail_at(config.validation_place, "data.validation holds out ", held, " of ", data.train.count(),
            " training examples; none are left to learn from");
  }
  if (!characters_.empty()) {
    take_sequences(train_table, train_labels, test_table, test_labels, held, config);
    return;
  }
  std::vector<std::int32_t> order = permutation(data.train.count(), seed, Purpose::split, 0);
  const auto split = order.begin() + held;
  auto end = order.end();
  if (config.limit > 0 && config.limit < end - split) end = split + config.limit;
  train_order_.assign(split, end);
  train_after_ = rotated(train_order_);
  for (std::vector<std::int32_t>* list : {&train_order_, &train_after_}) {
    const std::vector<std::int32_t> once = *list;
    for (std::int64_t i = 1; i < config.repeat; ++i) list->insert(list->end(), once.begin(), once.end());
  }
  train_ = make_part("train", train_table, train_labels, train_order_);
  upload_order(train_, train_order_, train_after_);
  epoch_ = arena_.take("epoch", {}, DType::f64);
  train_.augment = augment(data.train.shape, config);
  validation_ = make_part("validation", train_table, train_labels, {order.begin(), split});
  const auto few = std::min<std::int64_t>(config.batch, train_.count);
  sample_ = make_part("sample", train_table, train_labels, {train_order_.begin(), train_order_.begin() + few});
  std::vector<std::int32_t> all(static_cast<std::size_t>(data.test.count()));
  std::iota(all.begin(), all.end(), 0);
  test_ = make_part("test", test_table, test_labels, all);
}

namespace {

/// Beginnings of sequences one after another.
std::vector<std::int32_t> in_a_row(std::int64_t begin, std::int64_t end, std::int64_t times) {
  std::vector<std::int32_t> order;
  for (std::int64_t at = begin; at + times <= end; at += times) order.push_back(static_cast<std::int32_t>(at));
  return order;
}

}  // namespace

void Feed::take_sequences(const View& train_table, const View& train_labels, const View& test_table,
                          const View& test_labels, std::int64_t held, const DataConfig& config) {
  const std::int64_t all = train_table.rows(), learned = all - held;
  std::int64_t count = learned / times_;
  if (config.limit > 0) count = std::min(count, config.limit);
  const std::vector<std::int32_t> validation = in_a_row(learned, all, times_);
  const std::vector<std::int32_t> test = in_a_row(0, test_table.rows(), times_);
  PC_CHECK(count > 0 && !test.empty() && (held == 0 || !validation.empty()), "data", "sequences of ", times_,
           " do not fit into ", learned, " characters to learn from, ", held, " to validate on and ", test_table.rows(),
           " to test on");
  places_ = learned - times_ + 1;
  train_order_.assign(static_cast<std::size_t>(count), 0);
  train_ = make_part("train", train_table, train_labels, train_order_);
  validation_ = make_part("validation", train_table, train_labels, validation);
  test_ = make_part("test", test_table, test_labels, test);
  std::vector<std::int32_t> first = in_a_row(0, learned, times_);
  first.resize(static_cast<std::size_t>(std::min(config.batch, count)));
  sample_ = make_part("sample", train_table, train_labels, first);
  shuffle(0);
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
            .after = arena_.take(name + "/after", {std::ssize(order)}, DType::i32),
            .cursor = arena_.take(name + "/cursor", {}, DType::f64),
            .next = arena_.take(name + "/next", {}, DType::f64),
            .count = std::ssize(order)};
  upload_order(part, order, rotated(order));
  return part;
}

void Feed::upload_order(const Part& part, const std::vector<std::int32_t>& order,
                        const std::vector<std::int32_t>& after) {
  if (part.count == 0) return;
  arena_.upload(part.order, order.data());
  arena_.upload(part.after, after.data());
}

void Feed::set_scales(const DataSet& data, Normalize normalize) {
  if (!characters_.empty()) normalize = Normalize::none;  // they are numbers of characters, and stay so
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

kernels::Augment Feed::augment(const std::vector<std::int64_t>& shape, const DataConfig& config) const {
  if (config.crop == 0 && !config.flip) return {};
  PC_CHECK(shape.size() == 2 || shape.size() == 3, "data", "augment is for images; examples of ", config.request.set,
           " have ", shape.size(), " dimension(s)");
  const std::int64_t height = shape[shape.size() - 2], width = shape.back();
  PC_CHECK(config.crop < std::min(height, width), "data", "augment.crop ", config.crop, " shifts images of ", height,
           " x ", width, " out of sight");
  return {.height = height, .width = width, .crop = config.crop, .flip = config.flip, .seed = seed_, .epoch = epoch_};
}

void Feed::shuffle(std::int64_t epoch) {
  std::vector<std::int32_t> order = train_order_, after = train_after_;
  if (places_ > 0) {
    constexpr std::uint32_t kPlaces = 1;  // the stream: permutations use 0
    for (std::size_t i = 0; i < order.size(); ++i) {
      const double u =
          philox::uniform(philox::bits(seed_, Purpose::shuffle, kPlaces, static_cast<std::uint64_t>(epoch), i));
      order[i] = static_cast<std::int32_t>(u * double(places_));
    }
    arena_.upload(train_.order, order.data());
  } else {
    for (std::vector<std::int32_t>* list : {&order, &after}) {
      shuffle_in_place(*list, seed_, Purpose::shuffle, static_cast<std::uint64_t>(epoch));
    }
    upload_order(train_, order, after);
    arena_.write(epoch_, {double(epoch)});
  }
  rewind(train_);
}

void Feed::rewind(const Part& part, std::int64_t example) const { arena_.write(part.next, {double(example)}); }

void Feed::record_input(const Exec& exec, const Part& part, const View& input) const {
  kernels::copy(exec, {.in = part.next, .out = part.cursor});
  kernels::tick(exec, {.counter = part.next, .by = double(input.rows())});
  kernels::gather(exec, {.table = part.table,
                         .out = input,
                         .rows = {part.order, part.cursor},
                         .scale = scale_,
                         .shift = shift_,
                         .augment = part.augment});
}

void Feed::record_copy(const Exec& exec, const Part& part, const View& copy, bool next) const {
  kernels::gather(exec, {.table = part.table,
                         .out = copy,
                         .rows = {next ? part.after : part.order, part.cursor},
                         .scale = scale_,
                         .shift = shift_,
                         .augment = part.augment});  // by the place in the batch, so as its input was
}

void Feed::record_target(const Exec& exec, const Part& part, const View& target, double on, double off) const {
  kernels::one_hot(
      exec,
      {.labels = part.labels, .out = target, .rows = {part.order, part.cursor}, .on = on, .off = off, .times = times_});
}

void Feed::record_right(const Exec& exec, const Part& part, const View& answer, const View& right) const {
  kernels::right(
      exec,
      {.answer = answer, .labels = part.labels, .right = right, .rows = {part.order, part.cursor}, .times = times_});
}

}  // namespace pc::experiments

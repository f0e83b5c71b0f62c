#include "experiments/query.h"

#include <spdlog/spdlog.h>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "experiments/data/npy.h"
#include "experiments/fields.h"
#include "experiments/names.h"
#include "experiments/run_folder.h"
#include "graphs/transform.h"
#include "kernels/embed.h"
#include "pc/message.h"

namespace pc::experiments {
namespace {

using Eigen::VectorXd;
using Names = std::vector<std::string>;

constexpr std::int64_t kChunk = 1024;  // samples that settle at once, at most
constexpr std::int64_t kSmall = 32;    // entries of a node whose values are shown whatever is asked

View host_view(Rows& rows) { return {.data = rows.data(), .shape = {rows.rows(), rows.cols()}, .dtype = DType::f64}; }

/// The words of "a:b:c" or "1,2,3".
Names split(const std::string& text, char separator) {
  Names words;
  std::size_t from = 0;
  while (from <= text.size()) {
    const std::size_t to = std::min(text.find(separator, from), text.size());
    words.push_back(text.substr(from, to - from));
    from = to + 1;
  }
  return words;
}

double number(const std::string& text, const std::string& what) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  PC_CHECK(error == std::errc() && end == text.data() + text.size() && std::isfinite(value), "query", what, ": \"",
           text, "\" is no number");
  return value;
}

/// "top" or "random:0.5": a part of an image, as far as it can be told without the image.
struct ImagePart {
  std::string kind;
  std::vector<double> numbers;
};

ImagePart image_part(const std::string& name) {
  const Names words = split(name, ':');
  const std::string& kind = words[0];
  static const Names kKinds = {"half", "quarter", "eighth", "top", "bottom", "left", "right", "random", "rectangle"};
  PC_CHECK(std::find(kKinds.begin(), kKinds.end(), kind) != kKinds.end(), "query", "there is no part \"", kind, "\"",
           did_you_mean(kind, kKinds));
  const bool random = kind == "random", rectangle = kind == "rectangle";
  PC_CHECK(words.size() == (random || rectangle ? 2 : 1), "query", "a part is one of ", joined(kKinds),
           "; random:SHARE and rectangle:TOP,LEFT,HEIGHT,WIDTH take numbers");
  std::vector<double> numbers;
  for (const std::string& word : words.size() > 1 ? split(words[1], ',') : Names{}) {
    numbers.push_back(number(word, "the part " + kind));
  }
  PC_CHECK(numbers.size() == (rectangle ? 4U
                              : random  ? 1U
                                        : 0U),
           "query", "random takes one number, as random:0.5, ",
           "rectangle four, as rectangle:7,7,14,14: top, left, height, width");
  PC_CHECK(!random || (numbers[0] > 0 && numbers[0] < 1), "query", "random takes a share between 0 and 1, not ",
           words[1]);
  return {kind, numbers};
}

/// "3" or "0-9", of so many.
std::vector<std::int64_t> range(const std::string& text, const std::string& what, std::int64_t count,
                                const std::string& of = "") {
  std::vector<std::int64_t> ends;
  for (const std::string& word : split(text, '-')) {
    std::int64_t value = -1;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    ends.push_back(error == std::errc() && end == word.data() + word.size() ? value : -1);
  }
  PC_CHECK(ends.size() <= 2 && ends.front() >= 0 && ends.back() >= ends.front(), "query", what,
           " takes N or N-M, whole numbers from 0 on, not \"", text, "\"");
  PC_CHECK(ends.back() < count, "query", "there is no ", what, " ", ends.back(), of, "; there are ", count,
           ", from 0 on");
  std::vector<std::int64_t> list(static_cast<std::size_t>(ends.back() - ends.front() + 1));
  std::iota(list.begin(), list.end(), ends.front());
  return list;
}

Rows one_hot(const std::vector<std::int64_t>& classes, std::int64_t width, const ClassifyConfig& task) {
  Rows rows = Rows::Constant(std::ssize(classes), width, task.off);
  for (std::size_t i = 0; i < classes.size(); ++i) {
    rows(static_cast<std::int64_t>(i), classes[i]) = task.on;
  }
  return rows;
}

/// Rows as often as there are samples: one serves all.
Rows repeated(const Rows& rows, std::int64_t count) {
  if (rows.rows() == count || rows.size() == 0) return rows;
  PC_CHECK(rows.rows() == 1, "query", "one node is given ", rows.rows(), " samples and another one ", count,
           "; give each as many, or one");
  return rows.replicate(count, 1);
}

/// An array [N, ...] as rows of `width` entries.
Rows rows_of(const NpyArray& array, std::int64_t width) {
  const auto fill = [&]<class T>(T) {
    const std::int64_t entries = std::ssize(array.values) / static_cast<std::int64_t>(sizeof(T));
    PC_CHECK(entries > 0 && entries % width == 0, "query", array.file, " holds ", entries, " values; ", width,
             " a sample are needed");
    std::vector<T> values(static_cast<std::size_t>(entries));
    std::memcpy(values.data(), array.values.data(), array.values.size());
    Rows rows(entries / width, width);
    std::transform(values.begin(), values.end(), rows.data(), [](T value) { return double(value); });
    PC_CHECK(rows.allFinite(), "query", array.file, " holds values that are not finite");
    return rows;
  };
  switch (array.type) {
    case NpyType::f4:
      return fill(float{});
    case NpyType::f8:
      return fill(double{});
    case NpyType::i4:
      return fill(std::int32_t{});
    case NpyType::i8:
      return fill(std::int64_t{});
    case NpyType::u1:
      break;
  }
  return fill(std::uint8_t{});
}

RelaxSpec relaxation(const Config& config, const QueryOptions& options) {
  RelaxSpec relax = relax_of_answers(config);
  if (options.steps) relax.steps = *options.steps;
  if (!options.rate.empty() || options.momentum || options.temperature) {
    auto* given = std::get_if<ValueSgd>(&relax.stepper);
    ValueSgd sgd = given != nullptr ? *given : ValueSgd{};
    if (!options.rate.empty()) {
      sgd.automatic = options.rate == "auto";
      sgd.rate = sgd.automatic ? 1 : number(options.rate, "--rate, auto or a number above 0");
      PC_CHECK(sgd.rate > 0, "query", "--rate is auto or a number above 0, not ", options.rate);
    }
    if (options.momentum) sgd.momentum = *options.momentum;
    if (options.temperature) sgd.temperature = *options.temperature;
    relax.stepper = sgd;
  }
  const auto* sgd = std::get_if<ValueSgd>(&relax.stepper);
  PC_CHECK(sgd == nullptr || sgd->temperature == 0 || sgd->momentum == 0, "query",
           "with a temperature values move without momentum; write --momentum 0");
  return relax;
}

/// Whether it begins anywhere, or moves at random.
bool draws_numbers(const RelaxSpec& relax) {
  const auto* sgd = std::get_if<ValueSgd>(&relax.stepper);
  return relax.init.kind == ValueInit::Kind::normal || (sgd != nullptr && sgd->temperature > 0);
}

/// What the command line sets in `relax` must be what settles the question. An override has no line.
void check_relax_keys(const Config& config, const QueryOptions& options) {
  if (config.relax.place.line == 0 && config.relax.schedule->name != "pc") {
    fail_at(config.relax.place, "values settle by pc, or by epc with --schedule epc, whatever the run has learned by; ",
            "take this out");
  }
  const ConfigTree* relax = config.tree.find("relax");
  const ConfigTree* steps = relax == nullptr ? nullptr : relax->find("steps");
  if (steps != nullptr && steps->place().line == 0 && (config.evaluate_steps || options.steps)) {
    fail_at(steps->place(), options.steps ? "--steps" : "evaluate.steps of the run",
            " says how many steps there are: ", "relax.steps has no effect; ",
            options.steps ? "take one of them out" : "write --steps N in its place");
  }
}

/// Each node that is spoken of is there, and is given once.
void check_said(const Config& config, const QueryOptions& options) {
  Names known, given;
  for (const NodeSpec& node : config.graph.nodes) known.push_back(node.name);
  const auto check = [&](const char* option, const std::string& node) {
    PC_CHECK(std::find(known.begin(), known.end(), node) != known.end(), "query", option, ": there is no node \"", node,
             "\"", did_you_mean(node, known));
  };
  const auto check_all = [&](const char* option, const Names& list) {
    for (const std::string& text : list) {
      PC_CHECK(text.find('=') != std::string::npos, "query", option, ": \"", text,
               "\" should be NODE=WHAT, as in label=class:3");
      const std::string node = text.substr(0, text.find('='));
      check(option, node);
      PC_CHECK(std::find(given.begin(), given.end(), node) == given.end(), "query", "the node ", node,
               " is given twice by --clamp, --start or --intervene; keep one of them (index:N-M and class:N-M ask ",
               "about several values)");
      given.push_back(node);
    }
  };
  check_all("--clamp", options.clamp);
  check_all("--start", options.start);
  check_all("--intervene", options.intervene);
  for (const std::string& node : options.free) {
    check("--free", node);
    const auto names = [&](const std::string& text) { return text.substr(0, text.find('=')) == node; };
    PC_CHECK(std::none_of(options.clamp.begin(), options.clamp.end(), names) &&
                 std::none_of(options.intervene.begin(), options.intervene.end(), names),
             "query", "the node ", node, " is given and free; take out one of the two");
  }
  if (!options.latent.empty()) check("--latent", options.latent);
}

void check_word(const char* option, const std::string& word, const Names& known) {
  PC_CHECK(word.empty() || std::find(known.begin(), known.end(), word) != known.end(), "query", option, " cannot be \"",
           word, "\"", did_you_mean(word, known));
}

DataConfig once(DataConfig data) {
  data.repeat = 1;
  return data;
}

/// The graph that is asked: with what is intervened at cut off, and what is seen through noise added.
graphs::Description asked_graph(const Config& config, const QueryOptions& options) {
  Names cut;
  for (const std::string& text : options.intervene) cut.push_back(text.substr(0, text.find('=')));
  graphs::Description graph = graphs::intervene(config.graph, cut);
  if (options.task == "denoise" && options.by == "precision") {
    graph = graphs::observe(graph, task_names(config)[0], options.precision.value_or(1));
  }
  return graph;
}

}  // namespace

Query::Query(const Config& config, const QueryOptions& options, const std::filesystem::path& checkpoint,
             const ExecContext& where, bool quiet)
    : Query(config, options, checkpoint, where, quiet, load_data(config.data.request)) {}

Query::Query(const Config& config, const QueryOptions& options, const std::filesystem::path& checkpoint,
             const ExecContext& where, bool quiet, const DataSet& data)
    : config_(config),
      options_(options),
      feed_(Exec{}, data, once(config.data), config.seed, sequence_length(config)),
      progress_(quiet),
      threads_(thread_count(config)) {
  shape_ = data.train.shape;
  if (shape_.size() == 2) shape_.insert(shape_.begin(), 1);
  if (shape_.size() != 3 || (shape_[0] != 1 && shape_[0] != 3)) shape_.clear();
  const bool bytes = !data.train.bytes.empty();
  const std::vector<double> scale = feed_.scale(), shift = feed_.shift();
  const std::int64_t run = feed_.size() / std::ssize(scale);
  unit_.resize(feed_.size());
  shift_.resize(feed_.size());
  for (std::int64_t i = 0; i < feed_.size(); ++i) {
    unit_[i] = 1 / (scale[static_cast<std::size_t>(i / run)] * (bytes ? 255.0 : 1.0));
    shift_[i] = shift[static_cast<std::size_t>(i / run)];
  }

  const graphs::Description graph = asked_graph(config, options);
  network_ = std::make_unique<Network>(Graph(graph.nodes, graph.edges), where.exec(), config.dtype, kChunk,
                                       options.seed.value_or(config.seed), config.init);
  // A checkpoint may hold values too, of another number of samples: only the weights are wanted.
  Network trained(network_->graph(), where.exec(), config.dtype, 1, config.seed, config.init);
  static_cast<void>(load_trained(checkpoint, config_.learn.select_best, trained, feed_));
  for (ParamId p = 0; p < trained.graph().param_count(); ++p) {
    network_->arena().write(network_->weight(p), trained.arena().read(trained.weight(p)));
  }
  for (const auto& [name, view] : trained.arena().views()) {
    if (!name.starts_with("running/")) continue;
    network_->arena().write(network_->arena().take(name, view.shape, view.dtype), trained.arena().read(view));
  }
  const Names names = task_names(config);
  image_ = network_->graph().find(names[0]);
  if (!config.examples) label_ = network_->graph().find(names[1]);
  const auto check = [&](NodeId id, std::int64_t size, const char* what) {
    const Node& node = network_->graph().node(id);
    PC_CHECK(node.shape.count() == size, "query", "the task's node ", node.name, " has shape ", node.shape.text(),
             ", but ", what, " has ", size, " values; name the nodes that the run was trained with");
  };
  check(image_, feed_.size(), "an example");
  check(answering(), feed_.size(), "an example");
  if (label_ >= 0) check(label_, feed_.label_size(), "a label");
}

NodeId Query::need_label() const {
  PC_CHECK(label_ >= 0, "query", "this run has learned without labels; ", options_.task,
           " needs a run of the task classify");
  return label_;
}

/// The node that tells what the image should be.
NodeId Query::answering() const {
  const bool copies = config_.examples && !config_.examples->target.empty();
  return copies ? network_->graph().find(config_.examples->target) : image_;
}

/// Throws where nothing tells what the image should be: its free entries would stay where they begin. To fill in or to
/// change an image it may do that what the image predicts is clamped; what makes one has to predict it.
void Query::need_cause(bool makes) const {
  const Node& node = network_->graph().node(image_);
  const bool fits = !makes && (options_.with_label || !options_.clamp.empty());
  PC_CHECK(!node.predictions.empty() || fits, "query", "nothing predicts ", node.name, ", so that there is nothing to ",
           options_.task, " it by; ask a run with an edge to it, as ",
           "configs/demos/digits.yaml has in both directions (docs/one-graph.md)",
           makes ? "" : ", or clamp what it predicts, by --clamp NODE=WHAT");
}

// --- data ---

const Part& Query::part(const char* fallback) const {
  const std::string name = options_.part.empty() ? fallback : options_.part;
  const Part& found = name == "train" ? feed_.train() : name == "test" ? feed_.test() : feed_.validation();
  PC_CHECK(found.count > 0, "query", "the run has held out no examples for validation (data.validation is 0); write ",
           "--part train or --part test");
  return found;
}

Rows Query::examples(const Part& part, std::int64_t first, std::int64_t count) const {
  PC_CHECK(first >= 0 && count > 0 && first + count <= part.count, "query", "examples ", first, " to ",
           first + count - 1, " are asked for, but the part has ", part.count);
  Rows rows(count, feed_.size());
  feed_.rewind(part, first);
  feed_.record_input(Exec{}, part, host_view(rows));
  return rows;
}

/// How many examples from --first on: --count of them; or the fallback, or fewer where the part ends.
std::int64_t Query::count_from_first(const Part& part, std::int64_t fallback) const {
  PC_CHECK(options_.first < part.count, "query", "--first ", options_.first, ": the part has ", part.count,
           " examples, the last is ", part.count - 1);
  PC_CHECK(options_.count <= part.count - options_.first, "query", "--count ", options_.count, ": the part has ",
           part.count - options_.first, " examples from --first on");
  return std::min(options_.count > 0 ? options_.count : fallback, part.count - options_.first);
}

Rows Query::labels(const Part& part, std::int64_t first, std::int64_t count) const {
  Rows rows(count, feed_.label_size());
  feed_.rewind(part, first);
  Rows unused(count, feed_.size());
  feed_.record_input(Exec{}, part, host_view(unused));
  feed_.record_target(Exec{}, part, host_view(rows), config_.classify.on, config_.classify.off);
  return rows;
}

Eigen::MatrixXd Query::class_means() const {
  Eigen::MatrixXd means = Eigen::MatrixXd::Zero(feed_.classes() + 1, feed_.size());
  VectorXd counts = VectorXd::Zero(feed_.classes() + 1);
  const Part& all = feed_.train();
  for (std::int64_t first = 0; first < all.count; first += kChunk) {
    const std::int64_t count = std::min(kChunk, all.count - first);
    const Rows images = examples(all, first, count), rows = labels(all, first, count);
    for (std::int64_t i = 0; i < count; ++i) {
      Eigen::Index label = 0;
      rows.row(i).maxCoeff(&label);
      for (const Eigen::Index k : {label, Eigen::Index(feed_.classes())}) {
        means.row(k) += images.row(i);
        counts[k] += 1;
      }
    }
  }
  return counts.cwiseMax(1).cwiseInverse().asDiagonal() * means;
}

Rows Query::noisy(const Rows& rows, double variance) const {
  Rows result = rows;
  for (std::int64_t i = 0; i < rows.size(); ++i) {
    const double u = philox::uniform(
        philox::bits(options_.seed.value_or(0), Purpose::corruption, 0, 0, static_cast<std::uint64_t>(i)));
    result.data()[i] += std::sqrt(variance) * philox::normal(u) / unit_[i % rows.cols()];
  }
  return result;
}

/// Which entries are known: 1, else 0.
Rows Query::known_part(const std::string& name, std::int64_t count) const {
  const std::int64_t height = shape_.empty() ? 1 : shape_[1], width = shape_.empty() ? feed_.size() : shape_[2];
  const ImagePart named = image_part(name);
  const std::string& kind = named.kind;
  const std::vector<double>& numbers = named.numbers;
  const bool rectangle = kind == "rectangle";
  const auto inside = [](double begin, double length, std::int64_t all) {
    return begin >= 0 && length >= 1 && begin + length <= double(all) && begin == std::floor(begin) &&
           length == std::floor(length);
  };
  PC_CHECK(!rectangle || (inside(numbers[0], numbers[2], height) && inside(numbers[1], numbers[3], width)), "query",
           name, " is not within an image of ", height, " x ", width,
           " pixels; it takes whole numbers TOP,LEFT,HEIGHT,WIDTH");
  const auto is_known = [&](std::int64_t sample, std::int64_t pixel) {
    const auto y = double(pixel / width), x = double(pixel % width);
    const auto h = double(height), w = double(width);
    if (kind == "half" || kind == "top") return y < h / 2;
    if (kind == "quarter") return y < h / 4;
    if (kind == "eighth") return y < h / 8;
    if (kind == "bottom") return y >= h / 2;
    if (kind == "left") return x < w / 2;
    if (kind == "right") return x >= w / 2;
    if (rectangle) {
      return y >= numbers[0] && y < numbers[0] + numbers[2] && x >= numbers[1] && x < numbers[1] + numbers[3];
    }
    const auto entry = static_cast<std::uint64_t>(sample * height * width + pixel);
    return philox::uniform(philox::bits(options_.seed.value_or(0), Purpose::corruption, 1, 0, entry)) < numbers[0];
  };
  Rows known(count, feed_.size());
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::int64_t j = 0; j < feed_.size(); ++j) known(i, j) = is_known(i, j % (height * width)) ? 1 : 0;
  }
  PC_CHECK(known.minCoeff() < known.maxCoeff(), "query", "the part ", name, " of ", height, " x ", width,
           " entries is ", known.minCoeff() > 0 ? "all" : "none", " of them; choose another part");
  return known;
}

/// Mean squared difference of each row from the truth, over the entries that are asked for, in units of 0..1.
VectorXd Query::errors(const Rows& answer, const Truth& truth) const {
  const Rows squares = ((answer - truth.values) * unit_.asDiagonal()).array().square();
  if (truth.where.size() == 0) return squares.rowwise().mean();
  return squares.cwiseProduct(truth.where).rowwise().sum().cwiseQuotient(truth.where.rowwise().sum().cwiseMax(1));
}

Picture Query::picture(const VectorXd& values) const {
  const std::int64_t channels = shape_[0], height = shape_[1], width = shape_[2];
  Picture picture{height, width, channels, std::vector<std::uint8_t>(static_cast<std::size_t>(values.size()))};
  const VectorXd bytes = (values - shift_).cwiseProduct(unit_) * 255.0;
  for (std::int64_t c = 0; c < channels; ++c) {
    for (std::int64_t i = 0; i < height * width; ++i) {
      const double value = std::clamp(bytes[c * height * width + i], 0.0, 255.0);
      picture.bytes[static_cast<std::size_t>(i * channels + c)] = static_cast<std::uint8_t>(std::lround(value));
    }
  }
  return picture;
}

// --- settling ---

/// What a node answers: its value where it is free, else what predicts it.
Rows Query::read_node(NodeId id, std::int64_t count) {
  const Node& node = network_->graph().node(id);
  const auto& predictions = node.predictions;
  bool by_prediction = false;
  if (!predictions.empty()) {
    by_prediction = !network_->graph().prediction(predictions[0]).spec.energy->zero_at_prediction;
  }
  const View view =
      by_prediction ? network_->prediction_buffer("mu", predictions[0], count) : network_->value(id, count);
  const std::vector<double> values = network_->arena().read(view);
  return Eigen::Map<const Rows>(values.data(), count, node.shape.count());
}

/// Shows how far so many questions are, of `count` samples each.
void Query::begin_progress(const std::string& what, std::int64_t questions, std::int64_t count) {
  const std::int64_t chunks = (count + kChunk - 1) / kChunk;
  steps_done_ = 0;
  progress_.begin(what, questions * chunks * relaxation(config_, options_).steps, 0, 0);
}

Query::Settled Query::settle(std::vector<Said> said, NodeId read, const Truth& truth) {
  std::int64_t count = 1;
  for (const Said& s : said) count = std::max(count, std::int64_t(s.values.rows()));
  bool clamped_whole = false;
  for (Said& s : said) {
    s.values = repeated(s.values, count);
    s.known = repeated(s.known, count);
    clamped_whole = clamped_whole || (s.node == read && s.clamped && s.known.size() == 0);
  }
  const auto answer_of = [&](std::int64_t rows) -> Rows {
    if (!clamped_whole) return read_node(read, rows);
    const auto& predictions = network_->graph().node(read).predictions;
    PC_CHECK(!predictions.empty(), "query", "node ", network_->graph().node(read).name,
             " is clamped and nothing predicts it: it cannot answer");
    const std::vector<double> mu = network_->arena().read(network_->prediction_buffer("mu", predictions[0], rows));
    return Eigen::Map<const Rows>(mu.data(), rows, network_->graph().node(read).shape.count());
  };
  if (!one_of_several_) begin_progress(options_.task, 1, count);
  Settled result;
  result.answer.resize(count, network_->graph().node(read).shape.count());
  result.energies.resize(count);
  for (std::int64_t first = 0; first < count; first += kChunk) {
    const std::int64_t rows = std::min(kChunk, count - first);
    Question question{.count = rows, .given = {}, .relax = relaxation(config_, options_), .threads = threads_};
    question.schedule = &find_schedule(options_.schedule.empty() ? "pc" : options_.schedule);
    for (const Said& s : said) {
      question.given.push_back({s.node, list_of(s.values.middleRows(first, rows)),
                                s.known.size() > 0 ? list_of(s.known.middleRows(first, rows)) : std::vector<double>{},
                                s.clamped});
    }
    // The error is looked at often enough for a curve, and no oftener: it comes from the device.
    const int every = std::max(1, question.relax.steps / 50);
    std::vector<double> error;
    Truth here;
    if (truth.values.size() > 0 && !clamped_whole) {
      here.values = truth.values.middleRows(first, rows);
      if (truth.where.size() > 0) here.where = truth.where.middleRows(first, rows);
      question.watch = [&](int step) {
        if ((step + 1) % every == 0) error.push_back(errors(answer_of(rows), here).sum() / double(count));
      };
    }
    question.tick = [this] { progress_.update(++steps_done_, ""); };
    const Answer answer = ask(*network_, question);
    if (question.watch && answer.steps % every != 0)
      error.push_back(errors(answer_of(rows), here).sum() / double(count));
    result.answer.middleRows(first, rows) = answer_of(rows);
    result.energies.segment(first, rows) = Eigen::Map<const VectorXd>(answer.energies.data(), rows);
    // Where a rule ended one chunk's relaxation before another's, it stands where it ended.
    const auto add = [&](std::vector<double>& sum, std::vector<double> more, double weight) {
      const auto lengthen = [&](std::vector<double>& curve, std::size_t size) {
        if (!curve.empty()) curve.resize(std::max(curve.size(), size), curve.back());
      };
      if (sum.empty()) sum.resize(more.size(), 0.0);
      lengthen(sum, more.size());
      lengthen(more, sum.size());
      for (std::size_t i = 0; i < more.size(); ++i) sum[i] += weight * more[i];
    };
    add(result.energy, answer.energy, double(rows) / double(count));
    add(result.error, error, 1);
    result.steps = std::max(result.steps, answer.steps);
  }
  return result;
}

/// Shows the answer again, `repeat` times, as what is asked: where entries are known they stay. A node that is read as
/// it is clamped must be shown whole.
Query::Settled Query::settle_again(const Said& said, NodeId read, const Truth& truth, int repeat) {
  Said shown = said;
  Settled settled;
  const bool fills = read != said.node && said.known.size() > 0;
  for (int i = 0; i < repeat; ++i) {
    std::vector<Said> all = asked_beside({shown}, read);
    if (read == image_) need_cause();
    if (fills) all.back().known = {};
    Settled next = settle(all, read, i + 1 == repeat ? truth : Truth{});
    next.energy.insert(next.energy.begin(), settled.energy.begin(), settled.energy.end());
    next.steps += settled.steps;
    settled = std::move(next);
    if (fills) settled.answer = (said.known.array() != 0).select(said.values, settled.answer);
    shown.values = settled.answer;
  }
  settled.shown = repeat;
  return settled;
}

/// The same from `--starts` random starts; of each row the answer of least energy. What is kept along the steps is the
/// first start's.
Query::Settled Query::settle_best(const std::string& what, const Said& said, NodeId read, const Truth& truth,
                                  int repeat) {
  PC_CHECK(options_.starts == 1 || relaxation(config_, options_).init.kind == ValueInit::Kind::normal, "query",
           "--starts ", options_.starts, " needs starts that differ: --set \"relax.init={normal: {sigma: 0.5}}\"");
  begin_progress(what, std::int64_t{options_.starts} * repeat, said.values.rows());
  one_of_several_ = true;
  Settled best = settle_again(said, read, truth, repeat);
  for (int start = 1; start < options_.starts; ++start) {
    const Settled next = settle_again(said, read, {}, repeat);
    for (std::int64_t i = 0; i < best.answer.rows(); ++i) {
      if (!(next.energies[i] < best.energies[i])) continue;
      best.answer.row(i) = next.answer.row(i);
      best.energies[i] = next.energies[i];
    }
  }
  one_of_several_ = false;
  return best;
}

// --- what is said on the command line ---

Rows Query::values_of(const std::string& what, NodeId id) {
  const Node& node = network_->graph().node(id);
  const std::int64_t width = node.shape.count();
  const std::size_t colon = what.find(':');
  const std::string kind = what.substr(0, colon), rest = colon == std::string::npos ? "" : what.substr(colon + 1);
  if (kind == "index") {
    const Part& from = part("test");
    const std::vector<std::int64_t> list =
        range(rest, "index", from.count, " of the part " + (options_.part.empty() ? "test" : options_.part));
    if (id == label_) return labels(from, list.front(), std::ssize(list));
    PC_CHECK(width == feed_.size(), "query", "node ", node.name, " has shape ", node.shape.text(),
             ", but an example has ", feed_.size(), " values");
    return examples(from, list.front(), std::ssize(list));
  }
  if (kind == "class") {
    PC_CHECK(id == label_ && !config_.next_token, "query",
             "class:N says something of a node that holds one label, not of ", node.name);
    return one_hot(range(rest == "all" ? "0-" + std::to_string(width - 1) : rest, "class", width), width,
                   config_.classify);
  }
  if (kind == "value") {
    const Names words = split(rest, ',');
    PC_CHECK(words.size() == 1 || std::ssize(words) == width, "query", "node ", node.name, " has ", width,
             " entries; value: takes one number for all, or so many");
    Rows row(1, width);
    for (std::int64_t i = 0; i < width; ++i) {
      row(0, i) = number(words[words.size() == 1 ? 0 : static_cast<std::size_t>(i)], "value");
    }
    return row;
  }
  const std::filesystem::path file = what;
  PC_CHECK(file.extension() == ".png" || file.extension() == ".npy", "query", "\"", what, "\" is neither index:N, ",
           "class:N, value:V, nor a .png or .npy file");
  Rows row(1, width);
  if (file.extension() == ".npy") {
    const NpyArray array = read_npy(file);
    Rows rows = rows_of(array, width);
    // Bytes are a picture's, like those that the run has learned; other numbers are the network's own.
    if (array.type == NpyType::u1 && (id == image_ || id == answering())) {
      for (std::int64_t i = 0; i < width; ++i)
        rows.col(i) = (rows.col(i).array() / (255.0 * unit_[i]) + shift_[i]).matrix();
    }
    return rows;
  }
  PC_CHECK(width == feed_.size() && draws(), "query", "a picture fits a node as large as an example, not ", node.name);
  const Picture picture = read_png(file, shape_[0]);
  PC_CHECK(picture.height == shape_[1] && picture.width == shape_[2], "query", file.string(), " is ", picture.width,
           " x ", picture.height, " pixels; the run has learned ", shape_[2], " x ", shape_[1]);
  const std::int64_t pixels = shape_[1] * shape_[2];
  for (std::int64_t i = 0; i < width; ++i) {
    const auto byte = picture.bytes[static_cast<std::size_t>(i % pixels * shape_[0] + i / pixels)];
    row(0, i) = double(byte) / 255.0 / unit_[i] + shift_[i];
  }
  return row;
}

Query::Said Query::parse(const std::string& text, bool clamped) {
  const std::size_t equals = text.find('=');
  const NodeId node = network_->graph().find(text.substr(0, equals));
  Said said{node, {}, {}, clamped};
  try {
    said.values = values_of(text.substr(equals + 1), node);
  } catch (const Error& e) {
    fail("query", text, ": ", bare(e.what()));
  }
  PC_CHECK(config_.dtype == DType::f64 || said.values.cwiseAbs().maxCoeff() <= std::numeric_limits<float>::max(),
           "query", text, " is too large for a run in float32; write a smaller number");
  return said;
}

/// What the options clamp, start and intervene at.
std::vector<Query::Said> Query::asked_for() {
  std::vector<Said> all;
  for (const std::string& text : options_.clamp) all.push_back(parse(text, true));
  for (const std::string& text : options_.intervene) all.push_back(parse(text, true));
  for (const std::string& text : options_.start) all.push_back(parse(text, false));
  return all;
}

/// The same beside what the task says itself, which is the question: no option may say otherwise, or give the answer.
std::vector<Query::Said> Query::asked_beside(const std::vector<Said>& own, NodeId read) {
  std::vector<Said> all = asked_for();
  for (const Said& s : all) {
    const std::string& name = network_->graph().node(s.node).name;
    const bool taken = std::any_of(own.begin(), own.end(), [&](const Said& o) { return o.node == s.node; });
    PC_CHECK(!taken && !(s.node == read && s.clamped), "query", "the task ", options_.task,
             taken ? " sets the node " : " reads the node ", name, taken ? " itself" : ", which must be free",
             "; take out what --clamp, --start or --intervene say of ", name,
             ", or leave out the task: everything is then as the options say");
  }
  all.insert(all.end(), own.begin(), own.end());
  return all;
}

// --- tasks ---

void Query::add_settled(QueryResult& result, const Settled& settled) const {
  result.energy = settled.energy;
  result.error = settled.error;
  result.steps = settled.steps;
  result.shown = settled.shown;
}

/// What the small nodes hold now; of the label also which class it is.
void Query::add_answers(QueryResult& result, std::int64_t count) {
  for (NodeId v = 0; v < network_->graph().node_count(); ++v) {
    if (network_->graph().node(v).shape.count() > kSmall || count > kChunk) continue;
    result.values.push_back({network_->graph().node(v).name, read_node(v, count)});
  }
}

namespace {

/// The part of the rows that are largest where they should be.
double label_accuracy(const Rows& answer, const Rows& wanted) {
  std::int64_t right = 0;
  for (std::int64_t i = 0; i < wanted.rows(); ++i) {
    Eigen::Index a = 0, b = 0;
    answer.row(i).maxCoeff(&a);
    wanted.row(i).maxCoeff(&b);
    right += a == b ? 1 : 0;
  }
  return double(right) / double(wanted.rows());
}

}  // namespace

/// Image clamped, label free. With --intervene it tells what a node is good for.
QueryResult Query::classify() {
  static_cast<void>(need_label());
  const Part& from = part("test");
  const std::int64_t count = count_from_first(from, kChunk);
  const Rows images = examples(from, options_.first, count);
  const Settled settled = settle(asked_beside({{image_, images, {}, true}}, label_), label_);
  QueryResult result{.task = "classify", .about = "image clamped, label free"};
  result.measured = {
      {"label_accuracy", label_accuracy(settled.answer, labels(from, options_.first, count)), QueryMeasure::kShare}};
  result.strips = {{"image", images}};
  result.values = {{"label", settled.answer}};
  add_settled(result, settled);
  return result;
}

/// The image; where it is clamped, the task's target if it has one of examples, or the label if nothing predicts the
/// image.
NodeId Query::asked_of(const std::vector<Said>& said) const {
  const bool given =
      std::any_of(said.begin(), said.end(), [&](const Said& s) { return s.node == image_ && s.clamped; });
  if (!given) return image_;
  return label_ >= 0 && network_->graph().node(image_).predictions.empty() ? label_ : answering();
}

/// `tokens` [samples, times] are numbers of characters, `answers` [samples, times x classes] what speaks for each.
std::vector<Continued> Query::continued(const Rows& tokens, const Rows& answers) const {
  const std::string& characters = feed_.characters();
  std::vector<Continued> texts(static_cast<std::size_t>(answers.rows()));
  for (std::int64_t i = 0; i < answers.rows(); ++i) {
    Continued& text = texts[static_cast<std::size_t>(i)];
    for (std::int64_t t = 0; t < feed_.times(); ++t) {
      Eigen::Index likeliest = 0;
      answers.row(i).segment(t * feed_.classes(), feed_.classes()).maxCoeff(&likeliest);
      const double token = tokens(tokens.rows() == 1 ? 0 : i, t);
      text.given += characters[static_cast<std::size_t>(kernels::embed_row(token, std::ssize(characters)))];
      text.next += characters[static_cast<std::size_t>(likeliest)];
    }
  }
  return texts;
}

/// Whatever the options say is given; everything else settles.
QueryResult Query::ask_freely() {
  const std::vector<Said> said = asked_for();
  PC_CHECK(!said.empty(), "query", "nothing is said; give --clamp, --start or --intervene NODE=WHAT, or name a task");
  const NodeId read = asked_of(said);
  const Settled settled = settle(said, read);
  QueryResult result{.task = "ask", .about = "what is given stays, everything else settles"};
  for (const Said& s : said) {
    if (s.node == image_) result.strips.push_back({s.clamped ? "clamped" : "start", s.values});
    if (s.node == image_ && read == label_ && !feed_.characters().empty()) {
      result.texts = continued(s.values, settled.answer);
    }
  }
  add_settled(result, settled);
  add_answers(result, settled.answer.rows());
  if (read != label_ || !draws()) {
    result.strips.push_back({"answer", settled.answer});
  } else if (settled.answer.cols() > kSmall) {
    result.values.push_back({network_->graph().node(read).name, settled.answer});
  }
  for (const std::string& name : options_.free) {
    const NodeId v = network_->graph().find(name);
    const std::int64_t count = settled.answer.rows();
    PC_CHECK(v == read || count <= kChunk, "query", "--free ", name, ": at most ", kChunk, " examples settle at once, ",
             "so ask about fewer");
    const bool there =
        std::any_of(result.values.begin(), result.values.end(), [&](const Strip& strip) { return strip.name == name; });
    if (!there) result.values.push_back({name, v == read ? settled.answer : read_node(v, count)});
  }
  return result;
}

/// Label clamped, image free. An image agrees with its label where the nearest of the classes' mean images is its own.
QueryResult Query::generate() {
  const NodeId label = need_label();
  need_cause(true);
  const std::int64_t classes = feed_.classes(), each = std::max<std::int64_t>(options_.count, 1);
  std::vector<std::int64_t> wanted;
  for (std::int64_t i = 0; i < classes * each; ++i) wanted.push_back(i % classes);
  const Rows rows = one_hot(wanted, network_->graph().node(label).shape.count(), config_.classify);
  const Settled settled = settle(asked_beside({{label, rows, {}, true}}, image_), image_);
  const Eigen::MatrixXd means = class_means();
  std::int64_t agree = 0;
  double distance = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const Eigen::RowVectorXd one = settled.answer.row(static_cast<std::int64_t>(i));
    Eigen::Index nearest = 0;
    ((means.topRows(classes).rowwise() - one) * unit_.asDiagonal()).rowwise().squaredNorm().minCoeff(&nearest);
    agree += nearest == wanted[i] ? 1 : 0;
    distance += ((one - means.row(wanted[i])) * unit_.asDiagonal()).squaredNorm() / double(one.size());
  }
  QueryResult result{.task = "generate", .about = "label clamped, image free; one column a class"};
  result.measured = {{"nearest_class_mean_is_the_label", double(agree) / double(wanted.size()), QueryMeasure::kShare},
                     {"error_from_class_mean", distance / double(wanted.size())}};
  for (std::int64_t i = 0; i < each; ++i)
    result.strips.push_back({"answer", settled.answer.middleRows(i * classes, classes)});
  result.strips.push_back({"class means", means.topRows(classes)});
  add_settled(result, settled);
  return result;
}

/// A part of the image clamped, the rest free; the label too, unless --with-label.
QueryResult Query::complete() {
  const Part& from = part("test");
  const std::int64_t count = count_from_first(from, 100);
  const Rows originals = examples(from, options_.first, count);
  Rows known =
      known_part(options_.hide.empty() ? (options_.keep.empty() ? "top" : options_.keep) : options_.hide, count);
  if (!options_.hide.empty()) known = 1 - known.array();
  const Eigen::RowVectorXd mean = class_means().bottomRows(1);
  const Rows means = mean.replicate(count, 1);
  std::vector<Said> own = {{image_, originals, known, true}};
  if (options_.with_label) own.push_back({need_label(), labels(from, options_.first, count), {}, true});
  const std::vector<Said> said = asked_beside(own, image_);
  need_cause();
  const Truth truth{originals, 1 - known.array()};
  const Settled settled = settle(said, image_, truth);
  QueryResult result{.task = "complete", .about = "a part of the image clamped, the rest free; errors over the rest"};
  result.measured = {{"error", errors(settled.answer, truth).mean()},
                     {"error_of_mean_image", errors(means, truth).mean()}};
  const bool label_given =
      std::any_of(said.begin(), said.end(), [&](const Said& s) { return s.node == label_ && s.clamped; });
  if (label_ >= 0 && !label_given && count <= kChunk) {
    result.measured.push_back({"label_accuracy",
                               label_accuracy(read_node(label_, count), labels(from, options_.first, count)),
                               QueryMeasure::kShare});
  }
  const Rows query = (known.array() != 0).select(originals, shift_.transpose().replicate(count, 1));
  result.strips = {{"original", originals}, {"query", query}, {"answer", settled.answer}};
  add_settled(result, settled);
  return result;
}

/// A noisy image is where relaxation starts, or what the image is seen as.
QueryResult Query::denoise() {
  const Part& from = part("test");
  const std::int64_t count = count_from_first(from, 100);
  const Rows originals = examples(from, options_.first, count);
  const double variance = options_.noise.value_or(0.1);
  const Rows query = noisy(originals, variance);
  const bool starts = options_.by == "start";
  const NodeId noisy_node = starts ? image_ : network_->graph().find(network_->graph().node(image_).name + ".seen");
  const Truth truth{originals, {}};
  const std::vector<Said> said = asked_beside({{noisy_node, query, {}, !starts}}, image_);
  need_cause();
  const Settled settled = settle(said, image_, truth);
  const Rows means = class_means().bottomRows(1).replicate(count, 1);
  QueryResult result{.task = "denoise",
                     .about = starts ? "starts from the noisy image, and everything is free"
                                     : "the noisy image is clamped, and predicted by the image"};
  result.measured = {{"error", errors(settled.answer, truth).mean()},
                     {"error_of_query", errors(query, truth).mean()},
                     {"error_of_mean_image", errors(means, truth).mean()}};
  result.strips = {{"original", originals}, {"query", query}, {"answer", settled.answer}};
  add_settled(result, settled);
  return result;
}

/// Recall of stored examples from noise and from parts. Success: a mean squared difference below 0.005 from noise, and
/// below 0.001 over the whole image from a part (Salvatori et al. 2021).
QueryResult Query::recall() {
  const Part& from = part("train");
  const std::int64_t count = count_from_first(from, from.count);
  const Rows stored = examples(from, options_.first, count);
  const NodeId read = answering();
  const Truth truth{stored, {}};
  QueryResult result{.task = "recall", .about = "stored examples, from noise and from parts of them"};
  struct Cue {
    std::string name;
    double noise;  // variance; below 0: a part is known
    double success;
  };
  std::vector<Cue> cues;
  if (options_.noise || options_.keep.empty()) {
    cues.push_back({"noise", options_.noise.value_or(0.2), options_.threshold.value_or(0.005)});
  }
  const Names parts = !options_.keep.empty()       ? Names{options_.keep}
                      : options_.noise || !draws() ? Names{}
                                                   : Names{"half", "quarter", "eighth"};
  for (const std::string& name : parts) cues.push_back({name, -1, options_.threshold.value_or(0.001)});
  if (options_.repeat > 0 && !parts.empty() && read == image_) {
    PC_CHECK(parts.size() < cues.size(), "query", "--repeat has no effect on --keep: a part settles in one go where ",
             network_->graph().node(image_).name, " itself is read; take it out");
    result.about += "; --repeat goes for noise alone, parts settle in one go";
  }
  for (const Cue& cue : cues) {
    Said said{image_, stored, {}, true};
    if (cue.noise >= 0) {
      said.values = noisy(stored, cue.noise);
    } else {
      said.known = known_part(cue.name, count);
      said.values = (said.known.array() != 0).select(stored, shift_.transpose().replicate(count, 1));
    }
    // A part settles in one go where the node itself is read; else the answer is shown again until it stands.
    const int repeat = cue.noise < 0 && read == image_ ? 1 : options_.repeat > 0 ? options_.repeat : 30;
    const Settled settled = settle_best("recall, " + cue.name + ":", said, read, truth, repeat);
    const VectorXd error = errors(settled.answer, truth);
    const auto recalled = (error.array() < cue.success).count();
    result.measured.push_back({cue.name + "/recalled", double(recalled) / double(count), QueryMeasure::kShare});
    result.measured.push_back({cue.name + "/error", error.mean()});
    result.measured.push_back({cue.name + "/median_error", [&] {
                                 std::vector<double> sorted(error.data(), error.data() + error.size());
                                 std::sort(sorted.begin(), sorted.end());
                                 return (sorted[(sorted.size() - 1) / 2] + sorted[sorted.size() / 2]) / 2;
                               }()});
    if (options_.baselines) recall_baselines(result, cue.name, stored, said, cue.success);
    if (result.strips.empty()) result.strips.push_back({"stored", stored});
    result.strips.push_back({cue.name, said.values});
    result.strips.push_back({cue.name + " answer", settled.answer});
    add_settled(result, settled);
  }
  return result;
}

/// Hopfield networks on the same images and cues. The classical one stores signs about the middle grey, and is held to
/// them: recalled is what has no sign wrong. Of the modern one the best inverse temperature is shown.
void Query::recall_baselines(QueryResult& result, const std::string& name, const Rows& stored, const Said& cue,
                             double threshold) const {
  const auto to_unit = [&](const Rows& rows) -> Rows {
    return (rows.rowwise() - shift_.transpose()) * unit_.asDiagonal();
  };
  const Rows patterns = to_unit(stored), queries = to_unit(cue.values);
  const Rows signs = (patterns.array() < 0.5).select(Rows::Constant(patterns.rows(), patterns.cols(), -1.0), 1.0);
  constexpr int kSweeps = 50;
  Rows centred = queries.array() - 0.5;
  if (cue.known.size() > 0) centred = centred.cwiseProduct(cue.known);  // what is unknown says nothing
  const Rows classical = hopfield_recall(signs, centred, cue.known, kSweeps);
  const auto right = (classical - signs).rowwise().squaredNorm().array() == 0;
  result.measured.push_back(
      {name + "/hopfield/recalled", double(right.count()) / double(stored.rows()), QueryMeasure::kShare});
  double best = -1, error = 0, beta = 0;
  for (const double b : {0.01, 0.1, 1.0, 10.0, 100.0, 1000.0}) {
    const Rows answer = modern_hopfield_recall(patterns, queries, cue.known, b, kSweeps);
    const VectorXd distance = (answer - patterns).rowwise().squaredNorm() / double(patterns.cols());
    const double recalled = double((distance.array() < threshold).count()) / double(stored.rows());
    if (recalled > best) best = recalled, error = distance.mean(), beta = b;
  }
  result.measured.push_back({name + "/modern_hopfield/recalled", best, QueryMeasure::kShare});
  result.measured.push_back({name + "/modern_hopfield/error", error});
  result.measured.push_back({name + "/modern_hopfield/beta", beta, "inverse temperature, of six the best"});
}

/// A sequence from its first picture: each answer is what comes before the next.
QueryResult Query::replay() {
  PC_CHECK(config_.examples && config_.examples->next, "query", "replay needs a run of the task sequence");
  const NodeId next = network_->graph().find(config_.examples->target);
  const Part& from = part("train");
  const std::int64_t count = from.count;
  const Rows stored = examples(from, 0, count);
  Rows after(count, stored.cols());
  after << stored.bottomRows(count - 1), stored.topRows(1);
  const auto to_unit = [&](const Rows& rows) -> Rows {
    return (rows.rowwise() - shift_.transpose()) * unit_.asDiagonal();
  };
  QueryResult result{.task = "replay", .about = "the whole sequence from its first picture, each answer shown next"};
  Rows now = options_.noise ? noisy(stored.topRows(1), *options_.noise) : Rows(stored.topRows(1));
  const Rows start = to_unit(now);
  Rows replayed(count, stored.cols());
  for (std::int64_t t = 0; t < count; ++t) {
    const Settled settled = settle({{image_, now, {}, true}}, next);
    replayed.row(t) = settled.answer;
    now = settled.answer;
    add_settled(result, settled);
  }
  const double success = options_.threshold.value_or(0.005);
  const auto add = [&](const std::string& name, const VectorXd& distance, const char* unit = QueryMeasure::kError) {
    result.measured.push_back(
        {name + "/recalled", double((distance.array() < success).count()) / double(count), QueryMeasure::kShare});
    result.measured.push_back({name + "/error", distance.mean(), unit});
  };
  const VectorXd error = errors(replayed, {after, {}});
  add("replay", error);
  result.error = {error.data(), error.data() + error.size()};
  result.strips = {{"stored", after}, {"replayed", replayed}};
  if (!options_.baselines) return result;

  const Rows patterns = to_unit(stored), follow = to_unit(after);
  const auto roll = [&](const Rows& wanted, Rows x, const auto& step) {
    VectorXd distance(count);
    for (std::int64_t t = 0; t < count; ++t) {
      x = step(x);
      distance[t] = (x - wanted.row(t)).squaredNorm() / double(x.cols());
    }
    return distance;
  };
  const auto sign = [](const Rows& rows) -> Rows {
    return (rows.array() < 0.5).select(Rows::Constant(rows.rows(), rows.cols(), -1.0), 1.0);
  };
  const Rows signs = sign(patterns), sign_next = sign(follow);
  // Held to the signs that it stores: in their units an error of 1 is a quarter of all wrong.
  add("asymmetric_hopfield",
      roll(sign_next, sign(start), [&](const Rows& x) { return asymmetric_hopfield_next(signs, sign_next, x); }),
      "mean squared difference of a sign, -1 or 1");
  VectorXd best = VectorXd::Constant(count, INFINITY);
  for (const double beta : {0.1, 1.0, 10.0, 100.0}) {
    const VectorXd one =
        roll(follow, start, [&](const Rows& x) { return modern_asymmetric_next(patterns, follow, x, beta); });
    if (one.mean() < best.mean()) best = one;
  }
  add("modern_asymmetric_hopfield", best);
  const Eigen::MatrixXd transition = least_squares_transition(patterns, follow);
  add("least_squares", roll(follow, start, [&](const Rows& x) -> Rows { return x * transition.transpose(); }));
  return result;
}

/// Pictures between pictures: their latent values are found, and what lies between them is clamped.
QueryResult Query::interpolate() {
  PC_CHECK(!options_.latent.empty(), "query", "interpolate needs --latent NODE, the node to move along");
  const NodeId latent = network_->graph().find(options_.latent);
  need_cause(true);
  const Part& from = part("test");
  const std::int64_t pairs = options_.count > 0 ? options_.count : 5, between = 9;
  const Rows originals = examples(from, options_.first, 2 * pairs);
  const Rows ends = settle({{image_, originals, {}, true}}, latent).answer;
  Rows mixed(pairs * between, ends.cols());
  for (std::int64_t i = 0; i < mixed.rows(); ++i) {
    const double t = double(i % between) / double(between - 1);
    const std::int64_t pair = i / between;
    mixed.row(i) = (1 - t) * ends.row(2 * pair) + t * ends.row(2 * pair + 1);
  }
  const Settled settled = settle({{latent, mixed, {}, true}}, image_);
  QueryResult result{.task = "interpolate", .about = "between two examples, along their latent values"};
  for (std::int64_t p = 0; p < pairs; ++p) {
    Rows row(between + 2, originals.cols());
    row << originals.row(2 * p), settled.answer.middleRows(p * between, between), originals.row(2 * p + 1);
    result.strips.push_back({"pair " + std::to_string(p), row});
  }
  add_settled(result, settled);
  return result;
}

/// Langevin dynamics with everything free that is not clamped. `nearest_example` tells how far, in the mean, samples
/// are from the nearest of 2000 training examples, beside the same for unseen examples.
QueryResult Query::sample() {
  const std::int64_t count = options_.count > 0 ? options_.count : 20;
  const RelaxSpec relax = relaxation(config_, options_);
  const auto* sgd = std::get_if<ValueSgd>(&relax.stepper);
  PC_CHECK(sgd != nullptr && sgd->temperature > 0, "query",
           "sample needs a temperature above 0, as --temperature 0.01");
  need_cause();
  std::vector<Said> said = asked_for();
  const auto is_image = [&](const Said& s) { return s.node == image_; };
  if (std::none_of(said.begin(), said.end(), is_image)) {
    said.push_back({image_, Rows::Zero(count, feed_.size()), {}, false});  // so many samples, each from its own noise
  }
  const Settled settled = settle(said, image_);
  const Part& train = feed_.train();
  const Rows known = examples(train, 0, std::min<std::int64_t>(2000, train.count));
  const auto nearest = [&](const Rows& rows) {
    double sum = 0;
    for (std::int64_t i = 0; i < rows.rows(); ++i) {
      sum += ((known.rowwise() - rows.row(i)) * unit_.asDiagonal()).rowwise().squaredNorm().minCoeff();
    }
    return sum / double(rows.rows() * rows.cols());
  };
  QueryResult result{.task = "sample", .about = "Langevin dynamics; everything moves that is not clamped"};
  result.measured = {{"nearest_example", nearest(settled.answer)},
                     {"nearest_example_of_unseen",
                      nearest(examples(feed_.test(), 0, std::min<std::int64_t>(count, feed_.test().count)))}};
  result.strips = {{"samples", settled.answer}};
  if (const auto& predictions = network_->graph().node(image_).predictions; !predictions.empty() && count <= kChunk) {
    const std::vector<double> mu = network_->arena().read(network_->prediction_buffer("mu", predictions[0], count));
    result.strips.push_back({"predictions of samples", Eigen::Map<const Rows>(mu.data(), count, feed_.size())});
  }
  add_settled(result, settled);
  return result;
}

// --- which tasks there are, and what can be said to them ---

const Query::Task Query::kTasks[] = {
    {"ask", &Query::ask_freely},    {"classify", &Query::classify}, {"generate", &Query::generate},
    {"complete", &Query::complete}, {"denoise", &Query::denoise},   {"recall", &Query::recall},
    {"replay", &Query::replay},     {"sample", &Query::sample},     {"interpolate", &Query::interpolate}};

std::vector<std::string> Query::tasks() {
  Names names;
  for (const Task& task : kTasks) names.emplace_back(task.name);
  return names;
}

const Query::Task& Query::find_task(const std::string& name) {
  for (const Task& task : kTasks) {
    if (task.name == name) return task;
  }
  fail("query", "there is no task \"", name, "\"", did_you_mean(name, tasks()));
}

void Query::check(const QueryOptions& options, const Config& config) {
  static_cast<void>(find_task(options.task));
  PC_CHECK(!config.next_token || options.task == "ask", "query", "the task ", options.task,
           " makes no sense for a run that has learned a text (next_token); pc write goes on with one, pc query RUN ",
           "--clamp ", config.classify.input, "=index:0, where ", config.classify.target,
           " answers, asks what follows one; pc eval measures it");
  const bool says = !options.clamp.empty() || !options.start.empty() || !options.intervene.empty();
  const auto holds = [&](const Names& list, const std::string& node) {
    return std::any_of(list.begin(), list.end(), [&](const std::string& text) { return text.starts_with(node + "="); });
  };
  const std::string& input = config.classify.input;
  PC_CHECK(!config.next_token || !says || holds(options.clamp, input) || holds(options.intervene, input), "query",
           "the characters of ", input, " are numbers of entries, to which nothing flows back: they cannot be what is ",
           "asked for, and without them ", config.classify.target, " follows nothing; add --clamp ", input, "=index:0");
  check_relax_keys(config, options);
  const RelaxSpec relax = relaxation(config, options);
  const struct {
    const char* name;
    bool given;
    Names tasks;  // that heed it
    const char* more = "";
  } known[] = {
      {"--clamp, --start or --intervene",
       says,
       {"ask", "classify", "generate", "complete", "denoise", "recall", "sample"}},
      {"--free", !options.free.empty(), {"ask"}},
      // Of any task, where NODE=index:N asks for an example.
      {"--part",
       !options.part.empty() && !says,
       {"ask", "classify", "complete", "denoise", "recall", "replay", "interpolate"}},
      {"--count",
       options.count != 0,
       {"classify", "generate", "complete", "denoise", "recall", "sample", "interpolate"}},
      {"--first", options.first != 0, {"classify", "complete", "denoise", "recall", "interpolate"}},
      {"--keep", !options.keep.empty(), {"complete", "recall"}},
      {"--hide", !options.hide.empty(), {"complete"}, " (recall has --keep, which says what is known)"},
      {"--with-label", options.with_label, {"complete"}},
      {"--noise", options.noise.has_value(), {"denoise", "recall", "replay"}},
      {"--by", options.by != QueryOptions{}.by, {"denoise"}},
      {"--precision", options.precision.has_value(), {"denoise"}},
      {"--repeat", options.repeat != 0, {"recall"}},
      {"--starts", options.starts != 1, {"recall"}},
      {"--threshold", options.threshold.has_value(), {"recall", "replay"}},
      {"--baselines", options.baselines, {"recall", "replay"}},
      {"--latent", !options.latent.empty(), {"interpolate"}},
      {"--seed",
       options.seed && !draws_numbers(relax),
       {"complete", "denoise", "recall", "replay"},
       " (others draw nothing without --temperature or --set relax.init=normal)"},
  };
  for (const auto& option : known) {
    if (!option.given || std::find(option.tasks.begin(), option.tasks.end(), options.task) != option.tasks.end()) {
      continue;
    }
    fail("query", "the task ", options.task, " does not heed ", option.name, ", which goes with ", joined(option.tasks),
         option.more, "; take it out, or name a task that it goes with");
  }
  check_said(config, options);
  for (const std::string& part : {options.keep, options.hide}) {
    if (!part.empty()) static_cast<void>(image_part(part));
  }
  check_word("--part", options.part, {"train", "validation", "test"});
  check_word("--by", options.by, {"start", "precision"});
  check_word("--schedule", options.schedule, {"pc", "epc"});
  PC_CHECK(!options.precision || options.by == "precision", "query",
           "--precision says how well the image is seen; add --by precision, or take it out");
}

QueryResult Query::run() {
  QueryResult result = (this->*find_task(options_.task).answer)();
  progress_.clear();
  const RelaxSpec relax = relaxation(config_, options_);
  const auto* sgd = std::get_if<ValueSgd>(&relax.stepper);
  const bool samples = sgd != nullptr && sgd->temperature > 0;
  if (!samples && !result.energy.empty() && result.energy.back() > result.energy.front()) {
    spdlog::warn("the energy has risen: this is no settled answer; choose a smaller rate, as --rate auto does");
  }
  return result;
}

}  // namespace pc::experiments

// Texts: how they are read and cut into sequences, and the task next_token from end to end.
#include <nlohmann/json.hpp>
#include <numbers>

#include "experiments/classify.h"
#include "tests/networks.h"
#include "tests/program.h"

namespace pc::test {
namespace {

using Json = nlohmann::json;
using experiments::Config;
using experiments::Feed;
using experiments::Part;

/// A text in which every character follows from the one before it.
std::string alphabet(int lines) {
  std::string text;
  for (int i = 0; i < lines; ++i) text += "abcdefghijklmnopqrstuvwxyz\n";
  return text;
}

fs::path write_text(const Scratch& scratch, const std::string& text) {
  const fs::path path = scratch / "text.txt";
  std::ofstream(path) << text;
  return path;
}

fs::path write_config(const Scratch& scratch) {
  const fs::path text = write_text(scratch, alphabet(120)), path = scratch / "text.yaml";
  std::ofstream(path) << "name: text\n"
                         "seed: 5\n"
                         "device: cpu\n"
                         "data: {set: text, file: "
                      << text.string()
                      << ", batch: 20, validation: 0.1}\n"
                         "graph: {transformer: {context: 8, entries: 27, width: 16, heads: 2, layers: 1}}\n"
                         "task: {next_token: {sample: 60, temperature: 0.2}}\n"
                         "relax: {schedule: zil}\n"
                         "learn: {epochs: 2, optimizer: {adam: {rate: 0.01}}}\n"
                         "save: {trace: false}\n";
  return path;
}

/// Values and labels of a part's batch that begins at `example`, one row for each sequence.
std::pair<Values, Values> batch_of(const Feed& feed, const Part& part, std::int64_t example, std::int64_t rows) {
  Values x(index(rows * feed.size())), y(index(rows * feed.label_size()));
  feed.rewind(part, example);
  feed.record_input({}, part, {.data = x.data(), .shape = {rows, feed.size()}, .dtype = DType::f64});
  feed.record_target({}, part, {.data = y.data(), .shape = {rows, feed.label_size()}, .dtype = DType::f64}, 1, 0);
  return {x, y};
}

}  // namespace

TEST_CASE("text: sequences follow the file, labels are what comes next, validation and test are its end") {
  const Scratch scratch;
  std::string text;
  Dice dice(1);
  for (int i = 0; i < 2101; ++i) text.push_back("ab\ncd"[dice.below(5)]);
  experiments::DataRequest request{.set = "text"};
  request.file = write_text(scratch, text);
  const experiments::DataSet data = experiments::load_data(request);
  CHECK(data.classes == 5);
  CHECK(data.characters == "\nabcd");
  CHECK(data.class_names[0] == "\\n");
  CHECK(data.test.count() == 105);  // of 2100 characters that have a next one
  constexpr std::int64_t kTimes = 7;
  const experiments::DataConfig config{.batch = 4, .validation_part = 0.1};
  Feed feed({}, data, config, 3, kTimes);
  CHECK(feed.validation().count == 200 / kTimes);
  CHECK(feed.test().count == 105 / kTimes);
  CHECK(feed.train().count == (1995 - 200) / kTimes);
  // Where in the file a sequence stands, or -1.
  const auto place = [&](const Values& x, const Values& y, std::int64_t row) {
    std::string here;
    for (std::int64_t t = 0; t < kTimes; ++t) here += data.characters[index(std::llround(x[index(row * kTimes + t)]))];
    for (std::int64_t t = 0; t < kTimes; ++t) {
      const Values hot = rows_of(rows_of(y, length(y) / (kTimes * 5), row, 1), kTimes, t, 1);
      CHECK(std::count(hot.begin(), hot.end(), 1.0) == 1);
      const auto label = index(std::find(hot.begin(), hot.end(), 1.0) - hot.begin());
      if (t + 1 < kTimes) CHECK(data.characters[label] == here[index(t) + 1]);
      if (t + 1 == kTimes) here += data.characters[label];
    }
    return text.find(here);
  };
  const auto check_part = [&](const Part& part, std::size_t low, std::size_t high) {
    const auto [x, y] = batch_of(feed, part, 0, part.count);
    std::size_t previous = 0;
    for (std::int64_t row = 0; row < part.count; ++row) {
      const std::size_t at = place(x, y, row);
      CHECK((at >= low && at + kTimes <= high));
      if (&part != &feed.train()) CHECK((row == 0 || at == previous + kTimes));
      previous = at;
    }
    return x;
  };
  check_part(feed.validation(), 1795, 1995);
  check_part(feed.test(), 1995, 2100);
  feed.shuffle(4);
  const Values first = check_part(feed.train(), 0, 1795);
  feed.shuffle(5);
  CHECK(check_part(feed.train(), 0, 1795) != first);
  feed.shuffle(4);
  CHECK(check_part(feed.train(), 0, 1795) == first);
}

TEST_CASE("text: what cannot be used is named") {
  const Scratch scratch;
  const auto failure = [&](const std::string& text, std::int64_t times) {
    experiments::DataRequest request{.set = "text"};
    if (!text.empty()) request.file = write_text(scratch, text);
    return error_of([&] { Feed({}, experiments::load_data(request), {.validation_part = 0.1}, 1, times); });
  };
  CHECK(contains(failure("", 8), "data.file"));
  CHECK(contains(failure("too short", 8), "has 9 characters"));
  CHECK(contains(failure(alphabet(40), 500), "sequences of 500 do not fit"));
  const auto run = [&](const std::vector<std::string>& set) {
    std::vector<std::string> arguments = {"run", write_config(scratch), "--out", scratch / "none"};
    for (const std::string& s : set) arguments.insert(arguments.end(), {"--set", s});
    const Result result = run_program(scratch, arguments);
    CHECK(result.status == 2);
    CHECK_FALSE(fs::exists(scratch / "none"));
    return result.err;
  };
  CHECK(has(run({"data.file=nowhere.txt"}), "nowhere.txt: no such file in "));
  CHECK(has(run({"task=classify"}), "go together"));
  CHECK(has(run({"task.next_token.input=token"}), "\"token\" is not in the graph"));
  CHECK(has(run({"graph.transformer.entries=26"}), "has 27 classes for each of 8 characters"));
  CHECK(has(run({"graph.transformer.output=gaussian"}), "softmax_cross_entropy"));
}

TEST_CASE("next_token: learns, and resumes with the same bits; what it writes is what it has learned") {
  const Scratch scratch;
  const auto run = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"run", write_config(scratch), "--json"});
    const Result result = run_program(scratch, arguments);
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
    return Json::parse(result.out);
  };
  const Json whole = run({"--out", scratch / "whole", "--set", "learn.epochs=12"});
  const double bits = whole["test"]["bits_per_character"];
  CHECK(bits < 1);  // an even guess costs log2 27 = 4.75
  CHECK(whole["test"]["perplexity"].get<double>() == doctest::Approx(std::exp2(bits)));
  const std::string sample = whole["sample"];
  CHECK(sample.size() == 60);
  CHECK(alphabet(10).find(sample.substr(0, 40)) != std::string::npos);

  run({"--out", scratch / "parts", "--set", "learn.epochs=5"});
  const Json resumed = run({"--out", scratch / "parts", "--resume", "--set", "learn.epochs=12"});
  CHECK(resumed["signature"] == whole["signature"]);
  CHECK(resumed["sample"] == whole["sample"]);
  const Json backprop =
      run({"--out", scratch / "backprop", "--set", "learn.epochs=12", "--set", "relax.schedule=backprop"});
  CHECK(backprop["test"]["bits_per_character"].get<double>() == doctest::Approx(bits).epsilon(0.02));

  const Result eval = run_program(scratch, {"eval", scratch / "whole", "--json"});
  CHECK(eval.status == 0);
  CHECK(Json::parse(eval.out)["test"]["bits_per_character"].get<double>() == doctest::Approx(bits));
}

}  // namespace pc::test

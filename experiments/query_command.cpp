// pc query: puts a question to a trained run, and leaves pictures and arrays of the answer.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>

#include "experiments/commands.h"
#include "experiments/names.h"
#include "experiments/query.h"
#include "pc/h5.h"

namespace pc::experiments {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr std::int64_t kColumns = 20;     // of a grid
constexpr std::int64_t kMostShown = 128;  // entries of a node, as numbers
constexpr const char* kFormat = "pc-query";

/// What training and measuring heed, and no question does.
constexpr const char* kUnheeded[] = {
    "plan", "gemm", "data.batch", "relax.sweep", "relax.precision", "relax.growth", "relax.forward_update"};

void draw(const fs::path& file, const Query& query, const QueryResult& result) {
  std::vector<std::vector<Picture>> rows;
  for (const Strip& strip : result.strips) {
    rows.emplace_back();
    for (std::int64_t i = 0; i < std::min<std::int64_t>(kColumns, strip.values.rows()); ++i) {
      rows.back().push_back(query.picture(strip.values.row(i)));
    }
  }
  constexpr std::int64_t kSmall = 40;  // pixels a side that are shown twice as large
  write_png(file, grid(rows, rows[0][0].width <= kSmall ? 2 : 1));
}

bool is_answer(const fs::path& arrays) {
  try {
    return H5Reader(arrays).attribute_text("format") == kFormat;
  } catch (const Error&) {
    return false;
  }
}

/// What is there is replaced only where an earlier question has written it: arrays, and the picture beside them.
void check_files(const fs::path& arrays, const fs::path& picture) {
  std::error_code ignored;
  const fs::path into = arrays.has_parent_path() ? arrays.parent_path() : fs::path(".");
  PC_CHECK(fs::is_directory(into, ignored), "query", "--out: there is no folder ", into.string(),
           "; make it, or name files in another");
  PC_CHECK(!is_run_file(arrays), "query", arrays.string(), " is a file of the run itself; choose another name with ",
           "--out");
  if (is_answer(arrays)) return;
  for (const fs::path& file : {arrays, picture}) {
    PC_CHECK(!fs::exists(file, ignored), "query", file.string(), " is there, and is no answer to an earlier question; ",
             "choose another name with --out, or move it away");
  }
}

void write_h5(const fs::path& path, const QueryResult& result, const QueryOptions& options, const fs::path& weights) {
  H5Writer file(path);
  file.attribute("format", kFormat);
  file.attribute("task", result.task);
  file.write_text("about", result.about, "what was given, and what was free");
  file.write_text("command", options.command, "what was asked, as it was written");
  file.write_text("checkpoint", weights.string(), "the file of the weights that answered");
  for (const QueryMeasure& m : result.measured) file.write_scalar("measured/" + m.name, m.value, m.about);
  if (!result.energy.empty()) {
    file.write("steps/energy", result.energy, "per sample, before each step and at the end");
  }
  if (!result.error.empty()) file.write("steps/error", result.error, "mean squared difference from what was asked for");
  const auto write = [&](const std::string& group, const std::vector<Strip>& strips, const char* about) {
    for (std::size_t i = 0; i < strips.size(); ++i) {
      const Rows& rows = strips[i].values;
      std::string name = group + strips[i].name;
      for (std::size_t j = 0; j < i; ++j) {
        if (strips[j].name == strips[i].name) name = group + strips[i].name + "-" + std::to_string(i);
      }
      const std::vector<float> values(rows.data(), rows.data() + rows.size());
      file.write(name, H5Dims{rows.rows(), rows.cols()}, values, about, true);
    }
  };
  write("pictures/", result.strips, "[sample, entry] in the network's units");
  write("values/", result.values, "[sample, entry] of a node");
  file.commit();
}

/// "original, answer x 3": rows of one name that follow each other are counted. Of many names only the first.
std::string row_names(const std::vector<Strip>& strips) {
  std::string text;
  int names = 0;
  for (std::size_t i = 0, next = 0; i < strips.size(); i = next) {
    if (names++ == kColumns) return text + ", ...";
    while (next < strips.size() && strips[next].name == strips[i].name) ++next;
    text += (i > 0 ? ", " : "") + strips[i].name + (next - i > 1 ? " x " + std::to_string(next - i) : "");
  }
  return text;
}

/// How the answer came about. Where values begin as predicted and nothing pulls at them, as in an autoencoder, there is
/// no energy.
std::string steps_taken(const QueryResult& result) {
  std::string text = fmt::format("{} {}", result.steps, result.steps == 1 ? "step" : "steps");
  if (result.shown > 1) text = fmt::format("shown {} times, {} in all", result.shown, text);
  if (std::any_of(result.energy.begin(), result.energy.end(), [](double energy) { return energy != 0; })) {
    text += fmt::format(", energy {:.5g} -> {:.5g}", result.energy.front(), result.energy.back());
  }
  return text;
}

Json as_json(const QueryResult& result) {
  Json out;
  out["task"] = result.task;
  out["steps"] = result.steps;
  if (!result.energy.empty()) out["energy"] = {{"start", result.energy.front()}, {"end", result.energy.back()}};
  for (const QueryMeasure& m : result.measured) out["measured"][m.name] = m.value;
  for (const Continued& text : result.texts) {
    out["texts"].push_back({{"given", printable(text.given)}, {"next", printable(text.next)}});
  }
  for (const Strip& strip : result.values) {
    if (strip.values.rows() > kColumns) continue;
    Json rows = Json::array();
    for (std::int64_t i = 0; i < strip.values.rows(); ++i) rows.push_back(list_of(strip.values.row(i)));
    out["values"][strip.name] = rows;
  }
  return out;
}

}  // namespace

int query_command(const QueryOptions& options, const Common& common) {
  const Config config = asked_config(options.run, options.overrides, "query", kUnheeded);
  require_data_task(config, "query");
  Query::check(options, config);
  const fs::path from = trained_weights(options.run, config.learn.select_best);
  const fs::path folder = options.out.empty() ? options.run : options.out;
  fs::path stem = options.out.has_filename() ? options.out : folder / Query::stem(options.task);
  if (stem.extension() == ".png") stem.replace_extension();  // the picture's own name was given
  const fs::path arrays = stem.string() + ".h5", picture = stem.string() + ".png";
  check_files(arrays, picture);
  const ExecContext where(config.device);
  Query query(config, options, from, where, common.quiet);
  const QueryResult result = query.run();

  Json out = as_json(result);
  out["run"] = options.run.string();
  out["checkpoint"] = from.string();
  write_h5(arrays, result, options, from);
  out["arrays"] = arrays.string();
  if (query.draws() && !result.strips.empty()) {
    draw(picture, query, result);
    out["picture"] = picture.string();
  }
  if (common.json) {
    fmt::print("{}\n", out.dump());
    return 0;
  }
  fmt::print("{}: {}\n", result.task, result.about);
  if (!result.energy.empty()) fmt::print("{}\n", steps_taken(result));
  for (const QueryMeasure& m : result.measured) fmt::print("  {:<40} {:.5g}\n", m.name, m.value);
  const std::size_t shown = std::min<std::size_t>(result.texts.size(), kColumns);
  for (const Continued& text : std::span(result.texts).first(shown)) {
    fmt::print("  after  {}\n  comes  {}\n", Json(printable(text.given)).dump(), Json(printable(text.next)).dump());
  }
  if (shown < result.texts.size()) fmt::print("  ... and {} more\n", result.texts.size() - shown);
  for (const Strip& strip : result.values) {
    if (strip.values.rows() > kColumns || strip.values.cols() > kMostShown) continue;
    fmt::print("  {}\n", strip.name);
    for (std::int64_t i = 0; i < strip.values.rows(); ++i) {
      std::string row;
      for (std::int64_t j = 0; j < strip.values.cols(); ++j) row += fmt::format(" {:7.3f}", strip.values(i, j));
      fmt::print("   {}\n", row);
    }
  }
  if (out.contains("picture")) {
    fmt::print("{}  (rows: {})\n", picture.string(), row_names(result.strips));
  }
  fmt::print("{}\n", arrays.string());
  return 0;
}

}  // namespace pc::experiments

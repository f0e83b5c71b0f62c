#include "experiments/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "experiments/names.h"
#include "experiments/output.h"
#include "experiments/query.h"
#include "pc/h5.h"
#include "pc/replacement.h"

namespace pc::experiments {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

constexpr const char* kConfig = "config.yaml";
constexpr const char* kMetrics = "metrics.jsonl";
constexpr const char* kBest = "best.h5";

/// What a run writes, the config last: by it a folder is known to hold a run.
constexpr const char* kFiles[] = {"checkpoint.h5", kBest,        "run.h5", "result.json",
                                  "log.txt",       "curves.svg", kMetrics, kConfig};

/// Whether it is what a killed run was writing when it died. Whatever else is in the folder is somebody else's.
bool left_over(const std::string& name) {
  return std::any_of(std::begin(kFiles), std::end(kFiles),
                     [&](const char* file) { return Replacement::is_for(file, name); });
}

[[noreturn]] void fail_to_begin(const fs::path& path, int error) {
  fail("run", "cannot write ", path.string(), ": ", std::strerror(error),
       "; choose another folder with --out, or mend its permissions");
}

bool constant_rate(const ConfigTree& tree) {
  const ConfigTree* learn = tree.find("learn");
  const ConfigTree* rate = learn == nullptr ? nullptr : learn->find("rate");
  return rate == nullptr || (rate->is_scalar() && rate->scalar() == "constant") || rate->find("constant") != nullptr;
}

/// The value at a key such as "data.limit"; null where there is none.
const ConfigTree* find_at(const ConfigTree& tree, std::string_view key) {
  const std::size_t dot = key.find('.');
  const ConfigTree* child = tree.find(key.substr(0, dot));
  return child == nullptr || dot == key.npos ? child : find_at(*child, key.substr(dot + 1));
}

/// The config without what a resumed run may change: how it saves and, if `longer`, how long it runs.
ConfigTree comparable(ConfigTree tree, bool longer) {
  const auto remove = [&](const std::string& key) { set_override(tree, key + "=~"); };
  for (const char* key : {"save", "threads", "device"}) {
    if (tree.find(key) != nullptr) remove(key);
  }
  if (find_at(tree, "data.root") != nullptr) remove("data.root");  // the examples are the same wherever they lie
  const ConfigTree* learn = tree.find("learn");
  if (longer && learn != nullptr && learn->find("epochs") != nullptr) {
    remove(learn->entries().size() == 1 ? "learn" : "learn.epochs");
  }
  return tree;
}

/// What differs, as "relax.steps: 4 -> 5"; a null stands for a key that is not there.
void list_changes(const ConfigTree* before, const ConfigTree* now, std::vector<std::string>& list) {
  if (before != nullptr && now != nullptr) {
    if (same_values(*before, *now)) return;
    if (before->is_map() && now->is_map()) {
      for (const ConfigTree::Entry& e : before->entries()) list_changes(&e.value, now->find(e.key), list);
      for (const ConfigTree::Entry& e : now->entries()) {
        if (before->find(e.key) == nullptr) list_changes(nullptr, &e.value, list);
      }
      return;
    }
  }
  const auto text = [](const ConfigTree* tree) { return tree == nullptr ? "not given" : to_flow(*tree); };
  list.push_back((now != nullptr ? now : before)->path() + ": " + text(before) + " -> " + text(now));
}

/// What says which examples a run has learned from, and how it saw them. Where they lie (data.root) does not.
struct LearnedFrom {
  const char* key;
  bool (*same)(const Config&, const Config&);
};

template <auto member>
bool same_request(const Config& a, const Config& b) {
  return a.data.request.*member == b.data.request.*member;
}
template <auto member>
bool same_data(const Config& a, const Config& b) {
  return a.data.*member == b.data.*member;
}

constexpr LearnedFrom kLearnedFrom[] = {{"seed", [](const Config& a, const Config& b) { return a.seed == b.seed; }},
                                        {"data.set", same_request<&DataRequest::set>},
                                        {"data.file", same_request<&DataRequest::file>},
                                        {"data.train", same_request<&DataRequest::train>},
                                        {"data.train_images", same_request<&DataRequest::train_images>},
                                        {"data.train_labels", same_request<&DataRequest::train_labels>},
                                        {"data.limit", same_data<&DataConfig::limit>},
                                        {"data.validation",
                                         [](const Config& a, const Config& b) {
                                           return a.data.validation == b.data.validation &&
                                                  a.data.validation_part == b.data.validation_part;
                                         }},
                                        {"data.normalize", same_data<&DataConfig::normalize>}};

/// What says how a run learns, and nothing about what it has learned.
constexpr const char* kOfLearning[] = {"learn.epochs", "learn.optimizer", "learn.rate",   "learn.clip_norm", "init",
                                       "save",         "check",           "data.augment", "data.repeat"};

bool differs(const ConfigTree& before, const ConfigTree& now, std::string_view key) {
  const ConfigTree *a = find_at(before, key), *b = find_at(now, key);
  return a == nullptr || b == nullptr ? a != b : !same_values(*a, *b);
}

/// A number of each line, by its path ("/train/energy"); NaN where a line lacks it.
std::vector<double> column(const std::vector<Json>& lines, const char* pointer) {
  std::vector<double> values;
  for (const Json& line : lines) {
    const Json::json_pointer at(pointer);
    values.push_back(line.contains(at) && line.at(at).is_number() ? line.at(at).get<double>() : NAN);
  }
  return values;
}

}  // namespace

Config asked_config(const fs::path& run, const std::vector<std::string>& overrides, const char* who,
                    std::span<const char* const> unheeded) {
  PC_CHECK(fs::exists(run / kConfig), who, run.string(), " is no run folder: it has no ", kConfig);
  const ConfigTree saved = load_config(run / kConfig);
  ConfigTree tree = saved;
  for (const std::string& assignment : overrides) set_override(tree, assignment);
  for (const LearnedFrom& what : kLearnedFrom) {
    if (!differs(saved, tree, what.key)) continue;  // most often; and a default may be written out
    PC_CHECK(what.same(read_config(saved), read_config(tree)), who, what.key,
             " decides what the run has learned from; it cannot be changed afterwards");
  }
  const auto check_unheeded = [&](std::span<const char* const> keys) {
    for (const char* key : keys) {
      PC_CHECK(!differs(saved, tree, key), who, key, " has no effect here; take out the --set that changes it");
    }
  };
  check_unheeded(kOfLearning);
  check_unheeded(unheeded);
  return read_config(std::move(tree));
}

std::vector<Json> read_metrics(const fs::path& run) {
  std::vector<Json> lines;
  std::ifstream in(run / kMetrics);
  for (std::string line; std::getline(in, line);) {
    const Json value = Json::parse(line, nullptr, false);
    if (value.is_object()) lines.push_back(value);
  }
  return lines;
}

bool is_run_file(const fs::path& file) {
  std::error_code ignored;
  return std::count(std::begin(kFiles), std::end(kFiles), file.filename().string()) > 0 &&
         fs::exists(file.parent_path() / kConfig, ignored);
}

fs::path trained_weights(const fs::path& run, bool best) {
  const fs::path chosen = run / kBest, last = run / "checkpoint.h5";
  const fs::path from = best && fs::exists(chosen) ? chosen : last;
  PC_CHECK(fs::exists(from), "run", run.string(), " holds no checkpoint yet; let the run finish an epoch first");
  return from;
}

Progress load_trained(const fs::path& checkpoint, bool best, Network& network, const Feed& feed) {
  const Progress at = load_checkpoint(checkpoint, network);
  const std::int64_t chosen = std::strtoll(at.extra.c_str(), nullptr, 10);
  const fs::path lost = checkpoint.parent_path() / kBest;
  const bool chooses = best && feed.validation().count > 0;
  PC_CHECK(!chooses || checkpoint.filename() == kBest || chosen == 0, "run", lost.string(),
           " is gone, which holds the weights of epoch ", chosen,
           ", the best; bring it back, or take those of the last epoch (--set learn.select=last, or --last)");
  PC_CHECK(at.data == 0 || at.data == feed.fingerprint(), "run", checkpoint.string(),
           ": was learned from other training examples than its data set has now; bring the old files back, or train "
           "anew");
  return at;
}

/// Holds an advisory lock on a file for as long as it lives.
class RunFolder::Lock {
 public:
  explicit Lock(const fs::path& path) : file_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
    if (file_ < 0) fail_to_begin(path, errno);
    if (::flock(file_, LOCK_EX | LOCK_NB) == 0) return;
    const int error = errno;
    ::close(file_);
    if (error != EWOULDBLOCK) fail_to_begin(path, error);
    fail("run", path.parent_path().string(),
         " is in use by another process; wait for it, or choose another folder "
         "with --out");
  }
  ~Lock() { ::close(file_); }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  int file_;
};

RunFolder::RunFolder(fs::path folder, const Config& config, Start start)
    : path_(std::move(folder)), start_(start), metrics_(std::make_shared<std::vector<Json>>()) {
  look(config);
}

void RunFolder::look(const Config& config) {
  resumes_ = false;
  metrics_->clear();
  const fs::path saved = path_ / kConfig;
  std::error_code error;
  const bool holds_run = fs::exists(saved, error);
  if (holds_run && start_ == Start::fresh) {
    fail("run", path_.string(),
         " already holds a run; go on with it by --resume, replace it by --force, or choose "
         "another folder with --out");
  }
  for (const char* name : kFiles) {
    PC_CHECK(holds_run || start_ == Start::force || !fs::exists(path_ / name, error), "run", path_.string(), " holds ",
             name, ", but no ", kConfig,
             ", so it is no run's folder; move the file away, or choose another folder with ", "--out");
  }
  if (holds_run && start_ == Start::resume) {
    const ConfigTree before = load_config(saved);
    // A run may be made longer, unless its rate depends on how long it is.
    const bool longer = constant_rate(before) && constant_rate(config.tree);
    const ConfigTree then = comparable(before, longer), now = comparable(config.tree, longer);
    std::vector<std::string> changes;
    list_changes(&then, &now, changes);
    const bool epochs = changes.size() == 1 && changes[0].starts_with("learn.epochs:");
    PC_CHECK(changes.empty(), "run", path_.string(), " was started with another config: ", joined(changes),
             epochs ? " (its learn.rate depends on how long the run is)" : "", "; resume with the same one (pc run ",
             shell_word(saved.string()), " --out ", shell_word(path_.string()),
             " --resume), or start afresh with --force");
    resumes_ = fs::exists(checkpoint(), error);
    *metrics_ = read_metrics(path_);
    // The first epoch is always saved: where it alone is there, the program was killed while it did that.
    PC_CHECK(resumes_ || metrics_->size() <= 1, "run", path_.string(),
             " holds finished epochs, but no checkpoint.h5 to go on "
             "from; start afresh with --force");
    PC_CHECK(std::ssize(*metrics_) <= config.learn.epochs, "run", path_.string(), " has finished ", metrics_->size(),
             " epochs, more than learn.epochs = ", config.learn.epochs, "; give at least as many");
  }
}

void RunFolder::begin(const Config& config) {
  std::error_code error;
  fs::create_directories(path_, error);
  if (error) fail_to_begin(path_, error.value());
  lock_ = std::make_shared<Lock>(path_ / "lock");
  look(config);  // another process may have been at work there since
  if (start_ == Start::force) {
    for (const char* name : kFiles) fs::remove(path_ / name, error);
    for (const std::string& task : Query::tasks()) {
      for (const char* ending : {".h5", ".png"}) fs::remove(path_ / (Query::stem(task) + ending), error);
    }
  }
  for (const auto& entry : fs::directory_iterator(path_, error)) {
    if (left_over(entry.path().filename().string())) fs::remove(entry.path(), error);
  }
  write_whole(path_ / kConfig, to_yaml(config.tree));
  if (!resumes_) keep_metrics(0);
}

void RunFolder::add_metrics(Json line) {
  metrics_->push_back(std::move(line));
  append(path_ / kMetrics, metrics_->back().dump() + "\n");
}

void RunFolder::keep_metrics(std::size_t n) {
  if (metrics_->size() > n) metrics_->resize(n);
  std::string text;
  for (const Json& line : *metrics_) text += line.dump() + "\n";
  write_whole(path_ / kMetrics, text);
}

void RunFolder::write_h5() const {
  const std::vector<Json>& lines = *metrics_;
  H5Writer file(path_ / "run.h5");
  const auto rows = static_cast<std::int64_t>(lines.size());
  struct Column {
    const char *name, *pointer, *about;
  };
  static constexpr Column kColumns[] = {
      {"metrics/epoch", "/epoch", "epochs finished, from 1"},
      {"metrics/train/energy_start", "/train/energy_start", "energy per example before relaxation"},
      {"metrics/train/energy", "/train/energy", "energy per example after relaxation"},
      {"metrics/train/accuracy", "/train/accuracy", "of the feedforward start; NaN on cyclic graphs"},
      {"metrics/train/steps", "/train/steps", "mean number of relaxation steps"},
      {"metrics/validation/accuracy", "/validation/accuracy", "part of the validation examples classified rightly"},
      {"metrics/validation/error", "/validation/error", "mean squared difference of an entry, on the validation part"},
      {"metrics/validation/bits_per_character", "/validation/bits_per_character",
       "cross-entropy on the validation part"},
      {"metrics/rate", "/rate", "last learning rate of the epoch"},
      {"metrics/seconds", "/seconds", "of the epoch, evaluation included, the trace not"},
      {"metrics/examples_per_second", "/examples_per_second", "training alone"},
  };
  for (const Column& c : kColumns) file.write(c.name, column(lines, c.pointer), c.about);
  std::vector<std::vector<double>> traces;
  std::size_t longest = 0;
  for (const Json& line : lines) {
    traces.push_back(line.value("trace", std::vector<double>{}));
    longest = std::max(longest, traces.back().size());
  }
  if (longest > 0) {
    std::vector<double> table;
    for (std::vector<double>& trace : traces) {
      trace.resize(longest, NAN);  // relax.stop may have ended it early
      table.insert(table.end(), trace.begin(), trace.end());
    }
    file.write("traces/relaxation_energy", H5Dims{rows, static_cast<std::int64_t>(longest)}, table,
               "[epoch, step] energy per example along the relaxation of one fixed batch, after each epoch; NaN after "
               "its end");
  }
  file.commit();
}

}  // namespace pc::experiments

#include "experiments/data/dataset.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <stop_token>
#include <thread>

#include "experiments/data/bytes.h"
#include "kernels/check.h"

namespace pc::experiments {

namespace sources {
extern const DataSource glyphs, mnist, fashion_mnist, cifar10, npy, text;  // name every source here,
}

std::span<const DataSource* const> all_data_sources() {
  static constexpr const DataSource* list[] = {&sources::glyphs,  &sources::mnist, &sources::fashion_mnist,
                                               &sources::cifar10, &sources::npy,   &sources::text};  // and here
  return list;
}

const DataSource& find_data_source(std::string_view name) {
  std::string known;
  for (const DataSource* source : all_data_sources()) {
    if (source->name == name) return *source;
    known += std::string(known.empty() ? "" : ", ").append(source->name);
  }
  fail("data", "no data set named '", name, "'; there are: ", known);
}

std::optional<std::filesystem::path> data_root(const DataRequest& request) {
  if (!request.root.empty()) return request.root;
  const char* folder = std::getenv("PC_DATA_DIR");
  if (folder == nullptr || *folder == '\0') return std::nullopt;
  return folder;
}

std::filesystem::path own_file(const DataRequest& request, const std::filesystem::path& file) {
  std::error_code ignored;
  if (std::filesystem::exists(file, ignored)) return file;
  PC_CHECK(file.is_relative(), "data", file.string(), ": no such file");
  const std::filesystem::path here = std::filesystem::current_path();
  const std::optional<std::filesystem::path> root = data_root(request);
  PC_CHECK(root.has_value(), "data", file.string(), ": no such file in ", here.string(),
           ", and neither PC_DATA_DIR nor data.root says where else to look");
  PC_CHECK(std::filesystem::exists(*root / file, ignored), "data", file.string(), ": no such file in ", here.string(),
           ", from where pc runs, nor in ", root->string(), ", the data root (data.root, else PC_DATA_DIR)");
  return *root / file;
}

namespace {

// What the rest of the program relies on, whatever source the examples came from.
void check_examples(const Examples& part, const char* which, const DataSet& set) {
  const auto values = static_cast<std::int64_t>(part.bytes.size() + part.floats.size());
  PC_CHECK(part.bytes.empty() || part.floats.empty(), "data", set.name, " ", which, ": bytes and floats both filled");
  PC_CHECK(part.count() > 0, "data", set.name, " ", which, ": no examples");
  PC_CHECK(values == part.count() * part.size(), "data", set.name, " ", which, ": ", part.count(), " labels and ",
           values, " values do not make examples of ", shape_text(part.shape));
  const auto [least, most] = std::ranges::minmax(part.labels);
  PC_CHECK(least >= 0 && most < set.classes, "data", set.name, " ", which, ": labels from ", least, " to ", most,
           ", but there are ", set.classes, " classes");
}

}  // namespace

DataSet load_data(const DataRequest& request) {
  // Unpacking takes seconds: whoever waits for longer than a moment is told what for.
  const std::jthread patience([&request](const std::stop_token& done) {
    std::mutex mutex;
    std::unique_lock lock(mutex);
    std::condition_variable_any ended;
    ended.wait_for(lock, done, std::chrono::seconds(1), [] { return false; });
    if (!done.stop_requested()) spdlog::info("reading the data set {} ...", request.set);
  });
  DataSet set = find_data_source(request.set).load(request);
  check_examples(set.train, "train", set);
  check_examples(set.test, "test", set);
  PC_CHECK(set.train.shape == set.test.shape, "data", set.name, ": train examples are ", shape_text(set.train.shape),
           ", test examples are ", shape_text(set.test.shape));
  PC_CHECK(set.train.bytes.empty() == set.test.bytes.empty(), "data", set.name,
           ": train and test differ in type; save both as uint8 or both as float32");
  return set;
}

}  // namespace pc::experiments

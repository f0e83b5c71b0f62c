// Data sets by name: what a training run asks for, and the arrays it gets back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pc::experiments {

/// Examples in order, one after another. Exactly one of bytes and floats is filled: [count, shape...], row-major.
struct Examples {
  std::vector<std::uint8_t> bytes;   // 0..255, as stored in the files
  std::vector<float> floats;         // finite
  std::vector<std::int64_t> shape;   // of one example: {28, 28}; {3, 32, 32} is planes, rows, columns
  std::vector<std::int32_t> labels;  // [count], 0 .. classes-1

  [[nodiscard]] std::int64_t count() const { return std::ssize(labels); }

  /// Values per example.
  [[nodiscard]] std::int64_t size() const {
    std::int64_t product = 1;
    for (const std::int64_t extent : shape) product *= extent;
    return product;
  }
};

/// A data set in memory. train and test have the same shape and the same kind of values.
struct DataSet {
  std::string name;
  Examples train, test;
  int classes = 0;
  std::vector<std::string> class_names;  // [classes]
  std::string provenance;                // which files, from where
  std::string characters;                // [classes]; empty unless examples follow each other as a text
};

/// What to load: the `data:` part of a config that concerns where examples come from.
struct DataRequest {
  std::string set;
  std::filesystem::path root;  // data.root; empty: the environment's PC_DATA_DIR
  std::uint64_t seed = 0;      // glyphs

  // glyphs: how many to draw
  std::int64_t train = 8000, test = 2000;

  // npy: images [N, ...] and labels [N]. See own_file.
  std::filesystem::path train_images, train_labels, test_images, test_labels;

  std::filesystem::path file;  // text: likewise
};

/// A file of a data set whose content is known. It may lie there plain, or packed as name.gz or name.xz.
struct KnownFile {
  std::string_view name;           // unpacked
  std::int64_t bytes;              // unpacked; also the most that is ever unpacked
  std::string_view sha256;         // unpacked
  std::string_view packed_suffix;  // of the known packed form
  std::string_view packed_sha256;
  std::string_view note;  // what a matching sum proves
};

/// Where a data set comes from. A value: no state, no inheritance.
struct DataSource {
  std::string_view name;
  std::string_view about;
  std::span<const std::string_view> folders;  // tried under the data root, which is tried last
  std::span<const KnownFile> files;           // empty: needs no known file
  DataSet (*load)(const DataRequest&);
  /// Looks at a file with an unknown sum, says what it holds, or stops with an Error. Null: other content is wrong.
  std::string (*inspect)(const KnownFile&, const std::filesystem::path&) = nullptr;
};

std::span<const DataSource* const> all_data_sources();
const DataSource& find_data_source(std::string_view name);

/// Loads request.set and checks that the result is whole.
DataSet load_data(const DataRequest& request);

/// data.root if given, else PC_DATA_DIR if set, else nothing.
std::optional<std::filesystem::path> data_root(const DataRequest& request);

/// A file of the user's, looked for from where the program runs, then under the data root. Throws if it is not there.
std::filesystem::path own_file(const DataRequest& request, const std::filesystem::path& file);

enum class FileState { missing, ok, differs, unknown };
std::string_view state_name(FileState state);

struct FileReport {
  std::string file;            // unpacked name
  std::filesystem::path path;  // the file that was found; empty if missing
  FileState state;
  std::string detail;
};

/// Compares every known file of a source with its SHA-256, packed or unpacked.
std::vector<FileReport> verify(const DataSource& source, const std::filesystem::path& root);

}  // namespace pc::experiments

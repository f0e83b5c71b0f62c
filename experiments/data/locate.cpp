#include "experiments/data/locate.h"

#include <algorithm>

#include "experiments/data/bytes.h"
#include "kernels/check.h"

namespace pc::experiments {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kNoDownload = "; or use data.set: glyphs, which needs no download";

std::vector<fs::path> candidates(const DataSource& source, const fs::path& root) {
  std::vector<fs::path> folders;
  for (const std::string_view folder : source.folders) folders.push_back(root / folder);
  folders.push_back(root);
  return folders;
}

std::ptrdiff_t n_found(const DataSource& source, const fs::path& folder) {
  return std::ranges::count_if(
      source.files, [&](const KnownFile& known) { return find_packed(folder, std::string(known.name)).has_value(); });
}

std::string searched(const DataSource& source, const fs::path& root) {
  std::string text;
  for (const fs::path& folder : candidates(source, root)) text += (text.empty() ? "" : ", ") + folder.string();
  return text;
}

}  // namespace

fs::path data_folder(const DataSource& source, const fs::path& root) {
  const std::vector<fs::path> folders = candidates(source, root);
  return *std::ranges::max_element(folders, {}, [&](const fs::path& folder) { return n_found(source, folder); });
}

std::vector<fs::path> locate(const DataSource& source, const DataRequest& request) {
  const std::optional<fs::path> root = data_root(request);
  PC_CHECK(root.has_value(), "data", source.name, " needs its files: set PC_DATA_DIR or data.root to the folder that ",
           "holds ", source.folders.front(), "/", source.files.front().name, " and the others", kNoDownload);
  std::error_code ignored;
  PC_CHECK(fs::is_directory(*root, ignored), "data", root->string(), " is no folder; set PC_DATA_DIR or data.root to ",
           "the folder that holds ", source.folders.front(), "/", kNoDownload);
  const fs::path folder = data_folder(source, *root);
  std::vector<fs::path> files;
  std::string missing;
  for (const KnownFile& known : source.files) {
    const std::string name(known.name);
    const std::optional<fs::path> file = find_packed(folder, name);
    if (file)
      files.push_back(*file);
    else
      missing += (missing.empty() ? "" : ", ") + name;
  }
  PC_CHECK(missing.empty(), "data", source.name, ": searched ", searched(source, *root), "; missing: ", missing,
           " (plain, .gz or .xz); put them there, or point to them with PC_DATA_DIR or data.root", kNoDownload);
  return files;
}

std::string provenance(const std::vector<fs::path>& files) {
  std::string text;
  for (const fs::path& file : files) text += (text.empty() ? "" : ", ") + file.filename().string();
  return text + " in " + files.front().parent_path().string();
}

}  // namespace pc::experiments

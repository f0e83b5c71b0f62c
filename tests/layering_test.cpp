// The architecture, as a test: who may include whom, and where CUDA may be mentioned.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <regex>
#include <set>
#include <string>

namespace {

namespace fs = std::filesystem;

const std::map<std::string, std::set<std::string>> kMayInclude = {
    {"kernels", {"kernels"}},
    {"pc", {"kernels", "pc"}},
    {"graphs", {"pc", "graphs"}},
    {"experiments", {"kernels", "pc", "graphs", "experiments"}},
};

/// Every line of every source file of a layer. Gives the number of files, so that an empty sweep cannot pass.
int each_line(const std::string& layer,
              const std::function<void(const std::string& file, const std::string& line)>& body) {
  static const std::set<std::string> kSources = {".h", ".cpp", ".cu", ".cuh"};
  int files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(PC_SOURCE_DIR) / layer)) {
    if (!entry.is_regular_file() || !kSources.contains(entry.path().extension().string())) continue;
    ++files;
    std::ifstream in(entry.path());
    const std::string file = entry.path().lexically_relative(PC_SOURCE_DIR).generic_string();
    for (std::string line; std::getline(in, line);) body(file, line);
  }
  return files;
}

}  // namespace

TEST_CASE("layers: includes only point downwards") {
  const std::regex include(R"re(^\s*#\s*include\s*"([^"]+)")re");
  for (const auto& [layer, allowed] : kMayInclude) {
    const int files = each_line(layer, [&, &may = allowed](const std::string& file, const std::string& line) {
      std::smatch found;
      if (!std::regex_search(line, found, include)) return;
      const std::string path = found[1];
      CAPTURE(file);
      CAPTURE(line);
      CHECK(path.find("..") == std::string::npos);
      CHECK(path.find('/') != std::string::npos);  // from the root, so that the layer is there to see
      CHECK(may.contains(path.substr(0, path.find('/'))));
    });
    CAPTURE(layer);
    CHECK(files > 0);
  }
}

TEST_CASE("layers: a build without CUDA differs in two files") {
  for (const auto& [layer, allowed] : kMayInclude) {
    each_line(layer, [](const std::string& file, const std::string& line) {
      if (!file.ends_with(".h") && !file.ends_with(".cpp")) return;
      if (line.find("PC_WITH_CUDA") == std::string::npos) return;
      CAPTURE(file);
      CHECK((file == "kernels/kernel.h" || file == "kernels/exec.cpp"));
    });
  }
}

TEST_CASE("layers: only kernels/ knows the CUDA runtime") {
  int seen = 0;
  for (const auto& [layer, allowed] : kMayInclude) {
    each_line(layer, [&seen](const std::string& file, const std::string& line) {
      if (line.find("cuda_runtime") == std::string::npos && line.find("cublas") == std::string::npos) return;
      ++seen;
      CAPTURE(file);
      CHECK(file.starts_with("kernels/"));
    });
  }
  CHECK(seen > 0);
}

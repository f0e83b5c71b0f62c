// A file is written beside its place and then put there: whoever looks finds the old one or the new one, whole.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "kernels/check.h"

namespace pc {

/// What will take a file's place. Dropped before, it leaves nothing behind and the old file whole.
class Replacement {
 public:
  explicit Replacement(std::filesystem::path place)
      : place_(std::move(place)), beside_(place_.string() + kMark + std::to_string(::getpid())) {}
  ~Replacement() {
    std::error_code ignored;
    if (!beside_.empty()) std::filesystem::remove(beside_, ignored);
  }
  Replacement(const Replacement&) = delete;
  Replacement& operator=(const Replacement&) = delete;

  /// Where to write it.
  [[nodiscard]] const std::filesystem::path& path() const { return beside_; }

  void take_place() {
    std::error_code error;
    std::filesystem::rename(beside_, place_, error);
    if (error) {
      fail_run("output", "cannot write ", place_.string(), ": ", error.message(),
               "; nothing else may be in its place, and its folder must be writable");
    }
    beside_.clear();
  }

  /// Whether a file of this name was to replace the one called `place`.
  static bool is_for(const std::string& place, std::string_view name) { return name.starts_with(place + kMark); }

 private:
  static constexpr const char* kMark = ".tmp-";  // before the number of the process

  std::filesystem::path place_, beside_;  // the latter empty: it is in its place
};

}  // namespace pc

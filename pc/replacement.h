// A file is written beside its place and then put there: whoever looks finds the old one or the new one, whole.
#pragma once

#include <unistd.h>

#include <array>
#include <atomic>
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
      : place_(std::move(place)), beside_(place_.string() + kMark + std::to_string(::getpid())) {
    swap_in(nullptr, beside_.c_str());
  }
  ~Replacement() {
    std::error_code ignored;
    if (!beside_.empty()) std::filesystem::remove(beside_, ignored);
    swap_in(beside_.c_str(), nullptr);
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
    swap_in(beside_.c_str(), nullptr);
    beside_.clear();
  }

  /// Removes what is half written, for a program that a signal ends: safe in its handler.
  static void drop_all() noexcept {
    for (const std::atomic<const char*>& path : open_) {
      if (const char* half = path.load(); half != nullptr) ::unlink(half);
    }
  }

  /// Whether a file of this name was to replace the one called `place`.
  static bool is_for(const std::string& place, std::string_view name) { return name.starts_with(place + kMark); }

 private:
  static constexpr const char* kMark = ".tmp-";  // before the number of the process

  static void swap_in(const char* was, const char* is) noexcept {
    for (std::atomic<const char*>& path : open_) {
      const char* expected = was;
      if (path.compare_exchange_strong(expected, is)) return;
    }
  }
  static inline std::array<std::atomic<const char*>, 8> open_{};  // of so many at once; others would be left behind

  std::filesystem::path place_, beside_;  // the latter empty: it is in its place
};

}  // namespace pc

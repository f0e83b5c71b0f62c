// One exception type, one message shape: "[who] what was wrong, with the numbers".
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace pc {

/// What the program should answer with when an Error ends it.
enum class ExitStatus : int { done = 0, failed = 1, bad_input = 2 };

/// The only exception type the library throws. Every message starts with "[who]" or with "file:line:column".
class Error final : public std::runtime_error {
 public:
  explicit Error(const std::string& text, ExitStatus status = ExitStatus::bad_input)
      : std::runtime_error(text), status_(status) {}

  /// bad_input: the user can mend what he gave us. failed: the run itself went wrong (diverged, out of tolerance).
  [[nodiscard]] ExitStatus status() const noexcept { return status_; }

 private:
  ExitStatus status_;
};

namespace detail {
template <class... Parts>
std::string message(const char* who, const Parts&... parts) {
  std::ostringstream text;
  text << '[' << who << "] ";
  (text << ... << parts);
  return text.str();
}
}  // namespace detail

/// Stops because of something the caller gave us: a config, a file, a shape, a device.
template <class... Parts>
[[noreturn]] void fail(const char* who, const Parts&... parts) {
  throw Error(detail::message(who, parts...));
}

/// Stops because the computation itself failed.
template <class... Parts>
[[noreturn]] void fail_run(const char* who, const Parts&... parts) {
  throw Error(detail::message(who, parts...), ExitStatus::failed);
}

}  // namespace pc

/// PC_CHECK(condition, who, parts...): always on, at the border of each layer.
#define PC_CHECK(condition, ...)               \
  do {                                         \
    if (!(condition)) ::pc::fail(__VA_ARGS__); \
  } while (false)

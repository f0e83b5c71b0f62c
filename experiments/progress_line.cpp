#include "experiments/progress_line.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

namespace pc::experiments {

namespace {

/// A terminal that is gone must not end what is under way.
void show_text(const std::string& text) {
  static_cast<void>(std::fwrite(text.data(), 1, text.size(), stderr));
  static_cast<void>(std::fflush(stderr));
}

}  // namespace

std::string duration_text(double seconds) {
  if (seconds < 60) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<std::int64_t>(seconds);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole / 60 % 60);
}

ProgressLine::ProgressLine(bool quiet) : quiet_(quiet), terminal_(isatty(fileno(stderr)) != 0) {}

ProgressLine::~ProgressLine() { clear(); }

void ProgressLine::begin(std::string what, std::int64_t total, std::int64_t done, double examples_per_unit) {
  what_ = std::move(what);
  total_ = total;
  first_ = done;
  examples_per_unit_ = examples_per_unit;
  start_ = Clock::now();
  last_ = terminal_ ? Clock::time_point{} : start_;  // a terminal's line costs nothing: the first one shows at once
}

void ProgressLine::update(std::int64_t done, const std::string& note) {
  const auto now = Clock::now();
  const auto pause = terminal_ ? std::chrono::milliseconds(200) : std::chrono::milliseconds(15000);
  if (quiet_ || now - last_ < pause) return;
  last_ = now;
  show(done, note);
}

void ProgressLine::show(std::int64_t done, const std::string& note) {
  std::string line = fmt::format("{} {:3.0f}%", what_, 100.0 * double(done) / double(total_));
  if (done > first_) {
    const double rate = double(done - first_) / std::chrono::duration<double>(last_ - start_).count();
    if (examples_per_unit_ > 0) line += fmt::format(" {:.0f} examples/s,", rate * examples_per_unit_);
    line += fmt::format(" {} left", duration_text(double(total_ - done) / rate));
  }
  if (!note.empty()) line += ", " + note;
  show_text(fmt::format("{}{}{}", terminal_ ? "\r\033[K" : "", line, terminal_ ? "" : "\n"));
  shown_ = true;
}

void ProgressLine::clear() {
  if (shown_ && terminal_) show_text("\r\033[K");
  shown_ = false;
}

}  // namespace pc::experiments

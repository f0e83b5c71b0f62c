#include "experiments/progress_line.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

namespace pc::experiments {

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
  start_ = last_ = Clock::now();
}

void ProgressLine::update(std::int64_t done, const std::string& note) {
  const auto now = Clock::now();
  const auto pause = terminal_ ? std::chrono::milliseconds(200) : std::chrono::milliseconds(15000);
  if (quiet_ || now - last_ < pause) return;
  last_ = now;
  show(done, note);
}

void ProgressLine::show(std::int64_t done, const std::string& note) {
  const double elapsed = std::chrono::duration<double>(last_ - start_).count();
  const double rate = double(done - first_) / elapsed;
  const std::string left = duration_text(double(total_ - done) / rate);
  const std::string line =
      fmt::format("{} {:3.0f}% {:.0f} examples/s, {} left{}{}", what_, 100.0 * double(done) / double(total_),
                  rate * examples_per_unit_, left, note.empty() ? "" : ", ", note);
  fmt::print(stderr, "{}{}{}", terminal_ ? "\r\033[K" : "", line, terminal_ ? "" : "\n");
  std::fflush(stderr);
  shown_ = true;
}

void ProgressLine::clear() {
  if (shown_ && terminal_) fmt::print(stderr, "\r\033[K");
  shown_ = false;
}

}  // namespace pc::experiments

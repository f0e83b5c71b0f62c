// Progress of long work on standard error: one line that is rewritten on a terminal, plain lines now and then
// elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace pc::experiments {

class ProgressLine {
 public:
  /// `quiet`: say nothing at all.
  explicit ProgressLine(bool quiet);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  /// Without examples per unit, their pace is not shown.
  void begin(std::string what, std::int64_t total, std::int64_t done, double examples_per_unit);
  /// Cheap to call often. `note` is shown behind the bar: energies, accuracies.
  void update(std::int64_t done, const std::string& note);
  /// Clears the line, so that something else can be printed.
  void clear();

 private:
  void show(std::int64_t done, const std::string& note);

  using Clock = std::chrono::steady_clock;
  bool quiet_, terminal_, shown_ = false;
  std::string what_;
  std::int64_t total_ = 0, first_ = 0;
  double examples_per_unit_ = 0;
  Clock::time_point start_, last_;
};

/// "12.3 s", "4 min 05 s", "2 h 03 min"
std::string duration_text(double seconds);

}  // namespace pc::experiments

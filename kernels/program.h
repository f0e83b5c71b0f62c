// A program: a flat list of recorded calls, run many times.
#pragma once

#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include "kernels/kernel.h"

namespace pc {

/// Records calls and runs them again and again. On the CPU a team of threads runs the whole list: each thread does its
/// share of the rows of every call, and threads wait for each other only where one reads what another wrote. On CUDA
/// the calls become a graph: each waits for those alone that it depends on, and the host does nothing in between.
class Program final : public Recorder {
 public:
  void record(Call call) override;

  /// Names what the following calls are for; shown by timings and listings.
  void part(std::string_view name) { part_ = name; }

  /// From now on each call is a launch of its own, also where alike ones could be done together: then a call on the
  /// same numbers gives the same bits wherever it stands.
  void apart() { apart_ = true; }

  /// It will not run often, as a set's last batch, which is smaller than the others: libraries take their first choice
  /// of an algorithm, and do not compile and time several.
  void seldom() { seldom_ = true; }

  /// What has been recorded so far is done once at the beginning of several runs in a row, which may rely on its
  /// results all along.
  void once() {
    once_.clear();
    for (const Call& call : calls_) once_.push_back(call.kernel);
  }

  /// Puts other calls in the place of those recorded. The first ones, which are done once, must stay.
  void replace(std::vector<Call> calls);

  /// Makes one call of two where their kernel knows how (Kernel::join) and nothing between them minds. For CUDA, where
  /// few large calls are faster than many; sums are then rounded otherwise. Call it when all is recorded.
  void join();

  [[nodiscard]] const std::vector<Call>& calls() const { return calls_; }
  [[nodiscard]] bool barrier_before(std::size_t call) const { return barrier_[call]; }
  [[nodiscard]] double flops() const;
  [[nodiscard]] double bytes() const;

  /// Runs every call in order, and all of that `times` times, but for what is done once. `threads` matters on the CPU
  /// only. On CUDA it returns when the work is queued; the first run launches call by call, later ones as a graph.
  void run(const Exec& exec, int threads, int times = 1) const;

  /// The calls of `times` runs in a row.
  [[nodiscard]] std::vector<const Call*> in_a_row(int times) const;
  /// For each of them, the earlier ones that must be done before it: those that write what it touches, or touch what it
  /// writes. Left out are those that follow from others.
  [[nodiscard]] std::vector<std::vector<std::size_t>> dependencies(int times = 1) const;

 private:
  [[nodiscard]] bool conflicts(const Call& call) const;
  void run_on_device(const Exec& exec, int times) const;

  std::vector<Call> calls_;
  std::vector<bool> barrier_;
  std::vector<Touch> since_barrier_;
  std::vector<std::string_view> once_;  // kernels of the first calls, which are done once
  std::string_view part_;
  bool apart_ = false;
  bool seldom_ = false;
  mutable bool ran_ = false;
  mutable std::map<int, std::shared_ptr<void>> graphs_;  // by times
};

}  // namespace pc

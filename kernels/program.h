// A program: a flat list of recorded calls, run many times.
#pragma once

#include <string_view>
#include <vector>

#include "kernels/kernel.h"

namespace pc {

/// Records calls and runs them again and again. On the CPU a team of threads runs the whole list: each thread does its
/// share of the rows of every call, and threads wait for each other only where one reads what another wrote.
class Program final : public Recorder {
 public:
  void record(Call call) override;

  /// Names what the following calls are for; shown by timings and listings.
  void part(std::string_view name) { part_ = name; }

  [[nodiscard]] const std::vector<Call>& calls() const { return calls_; }
  [[nodiscard]] bool barrier_before(std::size_t call) const { return barrier_[call]; }
  [[nodiscard]] double flops() const;
  [[nodiscard]] double bytes() const;

  /// Runs every call in order. `threads` matters on the CPU only.
  void run(const Exec& exec, int threads) const;

 private:
  [[nodiscard]] bool conflicts(const Call& call) const;

  std::vector<Call> calls_;
  std::vector<bool> barrier_;
  std::vector<Touch> since_barrier_;
  std::string_view part_;
};

}  // namespace pc

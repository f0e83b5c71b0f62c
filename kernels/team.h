// The threads that run a program's calls on the CPU, and how they wait for each other. They spin only briefly and then
// sleep: on a busy machine a thread that spins keeps away the very thread it waits for. (OpenMP's runtime spins for
// milliseconds between parallel regions, and a program cannot tell it otherwise.)
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "kernels/kernel.h"

namespace pc {

/// Waits until `value` is no longer `old`; returns what it is then.
unsigned wait_while(const std::atomic<unsigned>& value, unsigned old);

/// A point that all threads of a team reach before any goes on.
class Barrier {
 public:
  void wait(int threads);

 private:
  std::atomic<int> arrived_{0};
  std::atomic<unsigned> round_{0};
};

class Team {
 public:
  Team() = default;
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  /// Runs body(share) once for each of `threads` shares, the first one on the calling thread, and waits for all. The
  /// body must not throw.
  void run(int threads, const std::function<void(Share)>& body);

 private:
  void work(int index, unsigned seen);  // `seen`: tasks before this worker's time

  std::mutex one_at_a_time_;
  std::vector<std::thread> workers_;
  const std::function<void(Share)>* body_ = nullptr;
  int active_ = 0;
  bool stop_ = false;
  std::atomic<unsigned> task_{0};      // counts tasks handed out
  std::atomic<int> running_{0};        // workers that have not finished the current one
  std::atomic<unsigned> finished_{0};  // counts tasks that all workers have finished
};

}  // namespace pc

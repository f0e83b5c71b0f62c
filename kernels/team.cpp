#include "kernels/team.h"

#include <chrono>

namespace pc {

unsigned wait_while(const std::atomic<unsigned>& value, unsigned old) {
  // Waking a sleeper takes tens of microseconds, more in a virtual machine: spin about as long as that costs.
  constexpr auto kSpin = std::chrono::microseconds(200);
  const auto start = std::chrono::steady_clock::now();
  do {
    for (int i = 0; i < 32; ++i) {
      if (const unsigned now = value.load(std::memory_order_acquire); now != old) return now;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
  } while (std::chrono::steady_clock::now() - start < kSpin);
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

void Barrier::wait(int threads) {
  const unsigned round = round_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 < threads) {
    wait_while(round_, round);
    return;
  }
  arrived_.store(0, std::memory_order_relaxed);
  round_.store(round + 1, std::memory_order_release);
  round_.notify_all();
}

Team::~Team() {
  stop_ = true;
  task_.fetch_add(1, std::memory_order_release);
  task_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void Team::run(int threads, const std::function<void(Share)>& body) {
  if (threads <= 1) return body(Share{});
  const std::scoped_lock lock(one_at_a_time_);
  while (std::ssize(workers_) < threads - 1) {
    workers_.emplace_back(&Team::work, this, static_cast<int>(workers_.size()) + 1, task_.load());
  }
  body_ = &body;
  active_ = threads;
  running_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  const unsigned before = finished_.load(std::memory_order_relaxed);
  task_.fetch_add(1, std::memory_order_release);
  task_.notify_all();
  body({0, threads});
  wait_while(finished_, before);
}

void Team::work(int index, unsigned seen) {
  while (true) {
    seen = wait_while(task_, seen);
    if (stop_) return;
    if (index < active_) (*body_)({index, active_});
    if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      finished_.fetch_add(1, std::memory_order_release);
      finished_.notify_all();
    }
  }
}

}  // namespace pc

#include "kernels/program.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdlib>

namespace pc {
namespace {

bool overlap(const View& a, const View& b) {
  const auto* a0 = static_cast<const std::byte*>(a.data);
  const auto* b0 = static_cast<const std::byte*>(b.data);
  return a0 < b0 + b.extent() && b0 < a0 + a.extent();
}

/// Two touches by different threads may meet: one of them writes, and they do not deal out the same rows alike.
bool collide(const Touch& a, const Touch& b) {
  if (!a.write && !b.write) return false;
  if (!overlap(a.view, b.view)) return false;
  // Columns of one buffer: the same rows of the same memory, whichever columns each view takes.
  const auto row_bytes = [](const View& v) { return v.ld() * static_cast<std::int64_t>(size_of(v.dtype)); };
  const std::int64_t apart = static_cast<const std::byte*>(a.view.data) - static_cast<const std::byte*>(b.view.data);
  const bool same_rows = !a.all && !b.all && a.view.rows() == b.view.rows() && row_bytes(a.view) == row_bytes(b.view) &&
                         std::abs(apart) < row_bytes(a.view);
  return !same_rows;
}

/// Where the threads of one run wait for each other. They spin only briefly and then sleep: on a busy machine a thread
/// that spins keeps away the very thread it waits for.
class Barrier {
 public:
  /// `threads` must be the same in all of them.
  void wait(int threads) {
    const unsigned round = round_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
      round_.notify_all();
      return;
    }
    for (int spin = 0; spin < kSpins; ++spin) {
      if (round_.load(std::memory_order_acquire) != round) return;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
    round_.wait(round, std::memory_order_acquire);
  }

 private:
  static constexpr int kSpins = 4000;  // some tens of microseconds

  std::atomic<int> arrived_{0};
  std::atomic<unsigned> round_{0};
};

}  // namespace

double Call::bytes() const {
  double sum = 0;
  for (const Touch& touch : touches) sum += static_cast<double>(touch.view.count()) * static_cast<double>(size_of(touch.view.dtype));
  return sum;
}

bool Program::conflicts(const Call& call) const {
  for (const Touch& touch : call.touches) {
    for (const Touch& before : since_barrier_) {
      if (collide(before, touch)) return true;
    }
  }
  return false;
}

void Program::record(Call call) {
  call.part = part_;
  const bool barrier = conflicts(call);
  if (barrier) since_barrier_.clear();
  for (const Touch& touch : call.touches) {
    const auto same = [&](const Touch& t) {
      return t.view.data == touch.view.data && t.view.rows() == touch.view.rows() &&
             t.view.extent() == touch.view.extent() && t.all == touch.all && t.write == touch.write;
    };
    if (std::none_of(since_barrier_.begin(), since_barrier_.end(), same)) since_barrier_.push_back(touch);
  }
  barrier_.push_back(barrier);
  calls_.push_back(std::move(call));
}

double Program::flops() const {
  double sum = 0;
  for (const Call& call : calls_) sum += call.flops;
  return sum;
}

double Program::bytes() const {
  double sum = 0;
  for (const Call& call : calls_) sum += call.bytes();
  return sum;
}

void Program::run(const Exec& exec, int threads) const {
  if (exec.device == Device::cuda) {
    for (const Call& call : calls_) call.cuda(*exec.cuda);
    return;
  }
  if (threads == 1) {
    for (const Call& call : calls_) call.cpu(Share{});
    return;
  }
  Barrier barrier;
#pragma omp parallel num_threads(threads)
  {
    const Share share{omp_get_thread_num(), omp_get_num_threads()};
    for (std::size_t i = 0; i < calls_.size(); ++i) {
      if (barrier_[i]) barrier.wait(share.count);
      calls_[i].cpu(share);
    }
    barrier.wait(share.count);  // before OpenMP's own, which spins long
  }
}

}  // namespace pc

#include "kernels/program.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <optional>
#include <utility>

#include "kernels/exec.h"
#include "kernels/team.h"

namespace pc {
namespace {

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

/// One team for the process: programs run one after another, and threads are dear.
Team& team() {
  static Team instance;
  return instance;
}

/// Whether the last of some calls have left what this one would.
bool done_already(const std::vector<Call>& calls, const Call& call) {
  constexpr std::ptrdiff_t kFar = 64;  // calls that are looked at
  if (!call.idempotent) return false;
  const auto same = [](const Touch& a, const Touch& b) {
    return a.view.data == b.view.data && a.view.shape == b.view.shape && a.view.ld() == b.view.ld() &&
           a.view.dtype == b.view.dtype && a.write == b.write;
  };
  const auto spoils = [&](const Touch& before) {
    return before.write && std::any_of(call.touches.begin(), call.touches.end(),
                                       [&](const Touch& touch) { return overlap(before.view, touch.view); });
  };
  const auto last = calls.rbegin() + std::min(kFar, std::ssize(calls));
  for (auto before = calls.rbegin(); before != last; ++before) {
    if (before->kernel == call.kernel &&
        std::equal(before->touches.begin(), before->touches.end(), call.touches.begin(), call.touches.end(), same)) {
      return true;
    }
    if (std::any_of(before->touches.begin(), before->touches.end(), spoils)) return false;
  }
  return false;
}

}  // namespace

// Not in the header: where GCC 13 inlines it, it takes the growth of an empty list for a write out of bounds.
Touches& Touches::add(const View& view, bool all, bool write) {
  if (!view.empty()) list_.push_back({view, all, write});
  return *this;
}

double Call::bytes() const {
  double sum = 0;
  for (const Touch& touch : touches)
    sum += static_cast<double>(touch.view.count()) * static_cast<double>(size_of(touch.view.dtype));
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
  if (done_already(calls_, call)) return;
  call.part = part_;
  if (apart_) call.alike = 0;
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

void Program::replace(std::vector<Call> calls) {
  const auto stays = [](std::string_view kernel, const Call& call) { return call.kernel == kernel; };
  PC_CHECK(calls.size() >= once_.size() && std::equal(once_.begin(), once_.end(), calls.begin(), stays), "program",
           "calls that are done once were replaced");
  calls_.clear();
  barrier_.clear();
  since_barrier_.clear();
  for (Call& call : calls) {
    part_ = call.part;
    record(std::move(call));
  }
}

void Program::join() {
  if (apart_) return;
  constexpr std::size_t kFar = 64;  // calls that a call may move over
  const auto meet = [](const Call& a, const Call& b) {
    return std::any_of(a.touches.begin(), a.touches.end(), [&](const Touch& x) {
      return std::any_of(b.touches.begin(), b.touches.end(),
                         [&](const Touch& y) { return (x.write || y.write) && overlap(x.view, y.view); });
    });
  };
  std::vector<Call> joined;
  // Joins a call with an earlier one, in the place of either. Returns whether it is done with.
  const auto join_with = [&](std::size_t i, Call& call) {
    if (joined[i].kernel != call.kernel || joined[i].part != call.part) return false;
    std::optional<Call> both = call.join(joined[i].args.get());
    if (!both) return false;
    both->part = call.part;
    const auto first = joined.begin() + static_cast<std::ptrdiff_t>(i);
    const auto free = [&](const Call& moved) {
      return std::none_of(first + 1, joined.end(), [&](const Call& other) { return meet(moved, other); });
    };
    if (free(*first)) {
      call = std::move(*both);
      joined.erase(first);
    } else if (free(call)) {
      *first = std::move(*both);
      return true;
    }
    return false;
  };
  for (Call& call : calls_) {
    bool gone = false;
    for (std::size_t i = joined.size(); call.join && !gone && i > 0 && joined.size() - i < kFar; --i) {
      gone = join_with(i - 1, call);
    }
    if (!gone) joined.push_back(std::move(call));
  }
  replace(std::move(joined));
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

std::vector<const Call*> Program::in_a_row(int times) const {
  std::vector<const Call*> list;
  for (int time = 0; time < times; ++time) {
    for (std::size_t i = time == 0 ? 0 : once_.size(); i < calls_.size(); ++i) list.push_back(&calls_[i]);
  }
  return list;
}

std::vector<std::vector<std::size_t>> Program::dependencies(int times) const {
  const std::vector<const Call*> calls = in_a_row(times);
  const std::size_t total = calls.size();
  const std::size_t words = (total + 63) / 64;
  std::vector<std::vector<std::size_t>> direct(total);
  std::vector<std::uint64_t> before(total * words, 0);  // for each call a bit for everything that comes before it
  const auto depends = [&](const Call& later, const Call& earlier) {
    for (const Touch& a : later.touches) {
      for (const Touch& b : earlier.touches) {
        if ((a.write || b.write) && overlap(a.view, b.view)) return true;
      }
    }
    return false;
  };
  for (std::size_t j = 0; j < total; ++j) {
    std::uint64_t* mine = &before[j * words];
    for (std::size_t i = j; i-- > 0;) {
      if ((mine[i / 64] >> (i % 64) & 1) != 0 || !depends(*calls[j], *calls[i])) continue;
      direct[j].push_back(i);
      const std::uint64_t* theirs = &before[i * words];
      for (std::size_t w = 0; w < words; ++w) mine[w] |= theirs[w];
      mine[i / 64] |= std::uint64_t{1} << (i % 64);
    }
  }
  return direct;
}

void Program::run_on_device(const Exec& exec, int times) const {
  if (!ran_) {  // libraries load and choose their kernels now, not while a graph is being captured
    ran_ = true;
    run_once(exec, in_a_row(1), dependencies(), seldom_);
    if (--times == 0) return;
  }
  std::shared_ptr<void>& graph = graphs_[times];
  if (graph == nullptr) graph = capture(exec, in_a_row(times), dependencies(times));
  launch(exec, graph.get());
}

void Program::run(const Exec& exec, int threads, int times) const {
  if (calls_.empty()) return;
  if (exec.device == Device::cuda) return run_on_device(exec, times);
  Barrier barrier;
  // Whose call has failed, for want of memory, goes on from barrier to barrier, as the others wait there.
  std::atomic<bool> failed = false;
  std::exception_ptr failure;
  team().run(threads, [&](Share share) {
    for (int time = 0; time < times; ++time) {
      if (time > 0) barrier.wait(share.count);
      for (std::size_t i = time == 0 ? 0 : once_.size(); i < calls_.size(); ++i) {
        if (barrier_[i]) barrier.wait(share.count);
        if (failed.load(std::memory_order_relaxed)) continue;
        try {
          calls_[i].cpu(share);
        } catch (...) {
          if (!failed.exchange(true)) failure = std::current_exception();
        }
      }
    }
  });
  if (failure) std::rethrow_exception(failure);
}

}  // namespace pc

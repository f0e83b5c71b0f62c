// A kernel is a value: one name, one argument struct, one function per device. This header also holds what a call of
// one looks like when it is recorded instead of run: the plan is a list of such calls.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/view.h"

#if defined(PC_WITH_CUDA)
#define PC_CUDA(function) function
#else
#define PC_CUDA(function) nullptr
#endif

namespace pc {

struct CudaContext;  // stream and library handles: cuda_context.h

/// The part of a call that one CPU thread does.
struct Share {
  int index = 0;
  int count = 1;

  struct Range {
    std::int64_t begin, end;
  };
  /// Rows are dealt out in groups of eight, so that a row meets the same vector code whatever the number of threads.
  [[nodiscard]] Range of(std::int64_t rows) const {
    constexpr std::int64_t kGroup = 8;
    const std::int64_t groups = (rows + kGroup - 1) / kGroup;
    const std::int64_t begin = groups * index / count * kGroup, end = groups * (index + 1) / count * kGroup;
    return {std::min(begin, rows), std::min(end, rows)};
  }
  [[nodiscard]] bool first() const { return index == 0; }
};

/// What a call does to one view. `rows`: a thread touches only its own Share of the rows; `all`: it may touch any.
/// From these the program knows where threads must wait for each other.
struct Touch {
  View view;
  bool all = false;
  bool write = false;
};

/// Collects the touches of one call; argument structs fill it in `void touches(Touches&) const`.
class Touches {
 public:
  Touches& read(const View& view) { return add(view, false, false); }
  Touches& read_all(const View& view) { return add(view, true, false); }
  Touches& write(const View& view) { return add(view, false, true); }
  Touches& write_all(const View& view) { return add(view, true, true); }

  [[nodiscard]] const std::vector<Touch>& list() const { return list_; }
  [[nodiscard]] std::vector<Touch> take() && { return std::move(list_); }

 private:
  Touches& add(const View& view, bool all, bool write);
  std::vector<Touch> list_;
};

/// One recorded call: a kernel with its arguments.
struct Call {
  std::string_view kernel;
  std::string_view part;  // what the plan was doing: "predict", "error", ...
  std::function<void(Share)> cpu;
  std::function<void(CudaContext&)> cuda;
  std::vector<Touch> touches;
  double flops = 0;
  std::shared_ptr<const void> args = {};
  // Calls of one kernel with the same number, not 0, may be done by one launch: `together`, of this and others' `args`.
  std::size_t alike = 0;
  std::function<void(const std::vector<const void*>&, CudaContext&)> together = {};
  bool idempotent = false;  // Kernel::idempotent
  // This call and an earlier one of the same kernel, with these arguments, as one; nothing: they are two.
  std::function<std::optional<Call>(const void* earlier)> join = {};

  /// Bytes of all views that the call touches; a gather counts its whole table.
  [[nodiscard]] double bytes() const;
};

/// Takes calls down instead of running them.
class Recorder {
 public:
  virtual ~Recorder() = default;
  virtual void record(Call call) = 0;

 protected:
  Recorder() = default;
  Recorder(const Recorder&) = default;
  Recorder& operator=(const Recorder&) = default;
};

/// A number, not 0, of things that must be the same for calls to be alike.
template <class... Parts>
std::size_t alike_if_same(const Parts&... parts) {
  std::size_t number = 1;
  ((number = number * 0x9E3779B97F4A7C15ULL + std::hash<Parts>{}(parts)), ...);
  return number == 0 ? 1 : number;
}

/// Where a kernel runs. Passed down, never global. With a recorder, calls are taken down instead.
struct Exec {
  Device device = Device::cpu;
  CudaContext* cuda = nullptr;
  Recorder* recorder = nullptr;
};

/// Args has: void check() const (shapes and types, throws), void touches(Touches&) const, double flops() const.
template <class Args>
struct Kernel {
  std::string_view name;
  void (*cpu)(const Args&, Share);
  void (*cuda)(const Args&, CudaContext&);  // null in a build without CUDA
  // Several independent calls in one launch, where alike(args) is the same for all of them and not 0. Null: there is no
  // such launch.
  std::size_t (*alike)(const Args&) = nullptr;
  void (*cuda_together)(std::span<const Args* const>, CudaContext&) = nullptr;
  // Two calls, the second right after the first, as one that leaves the same but for rounding. Null: never.
  std::optional<Args> (*join)(const Args& first, const Args& second) = nullptr;
  // What it writes follows from its views alone: a call on the same ones, none of which has been written since, is
  // left out of a program.
  bool idempotent = false;

  /// What a call was given; null: it is another kernel's.
  [[nodiscard]] const Args* args_of(const Call& call) const {
    return call.kernel == name ? static_cast<const Args*>(call.args.get()) : nullptr;
  }

  void operator()(const Exec& exec, const Args& args) const {
    args.check();
    PC_CHECK(exec.device == Device::cpu || cuda != nullptr, "kernel", name, " has no CUDA version in this build");
    if (exec.recorder != nullptr) return exec.recorder->record(call(args));
    if (exec.device == Device::cpu) {
      cpu(args, Share{});
    } else {
      cuda(args, *exec.cuda);
    }
  }

  /// The call, as it is recorded.
  [[nodiscard]] Call call(const Args& args) const {
    Touches touches;
    args.touches(touches);
    Call made{.kernel = name,
              .part = {},
              .cpu = [fn = cpu, args](Share share) { fn(args, share); },
              .cuda = [fn = cuda, args](CudaContext& context) { fn(args, context); },
              .touches = std::move(touches).take(),
              .flops = args.flops(),
              .args = std::make_shared<const Args>(args),
              .idempotent = idempotent};
    if (alike != nullptr && cuda_together != nullptr) {
      made.alike = alike(args);
      made.together = [fn = cuda_together](const std::vector<const void*>& list, CudaContext& context) {
        std::vector<const Args*> typed;
        for (const void* item : list) typed.push_back(static_cast<const Args*>(item));
        fn(typed, context);
      };
    }
    if (join != nullptr) {
      made.join = [kernel = *this, args](const void* earlier) -> std::optional<Call> {
        const std::optional<Args> both = kernel.join(*static_cast<const Args*>(earlier), args);
        return both ? std::optional(kernel.call(*both)) : std::nullopt;
      };
    }
    return made;
  }
};

}  // namespace pc

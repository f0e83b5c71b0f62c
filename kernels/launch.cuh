// The launchers of most kernels, which alone test bounds. A kernel gives the body for one entry. Whatever is added up
// is added up in an order that depends on sizes and alignment alone, so the same call gives the same bits.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <type_traits>
#include <vector>

#include "kernels/cuda_context.h"
#include "kernels/view.h"

namespace pc::cu {

/// The place of `n` neighbouring entries of a row.
template <int n>
struct At {
  std::int64_t row, col;
};

/// Their values. Memory is read and written 16 bytes at a time or not at full speed.
template <class T, int n>
struct alignas(sizeof(T) * n) Pack {
  T items[n];

  __device__ T& operator[](int i) { return items[i]; }
  __device__ const T& operator[](int i) const { return items[i]; }
};
template <class T>
constexpr int kPack = 16 / sizeof(T);

/// A View as device code sees it. False where the view is empty.
template <class T>
struct Matrix {
  T* data = nullptr;
  std::int64_t ld = 0;

  __device__ T& operator()(std::int64_t row, std::int64_t col) const { return data[row * ld + col]; }
  __host__ __device__ explicit operator bool() const { return data != nullptr; }

  template <int n>
  __device__ Pack<T, n>& operator()(At<n> at) const {
    return *reinterpret_cast<Pack<T, n>*>(data + at.row * ld + at.col);
  }
  /// The entries, or zeros where the view is empty.
  template <int n>
  __device__ Pack<T, n> or_zero(At<n> at) const {
    return data == nullptr ? Pack<T, n>{} : (*this)(at);
  }
  /// Whether packs may be read and written; where there is nothing, nothing is.
  template <int n = kPack<T>>
  [[nodiscard]] bool packs() const {
    return data == nullptr || (ld % n == 0 && reinterpret_cast<std::uintptr_t>(data) % sizeof(Pack<T, n>) == 0);
  }
};

template <class T>
Matrix<T> matrix(const View& v) {
  return {v.as<T>(), v.ld()};
}

/// Calls body.operator()<n>() with how many entries of runs of `run` neighbours may be read and written at once, in all
/// of these views.
template <class T, class Body>
void with_packs(std::int64_t run, std::initializer_list<const View*> views, Body&& body) {
  const auto fits = [](const View* view) { return matrix<T>(*view).packs(); };
  if (run % kPack<T> == 0 && std::all_of(views.begin(), views.end(), fits)) {
    return body.template operator()<kPack<T>>();
  }
  body.template operator()<1>();
}

/// One row stands for all rows.
template <class T>
Matrix<T> matrix_or_row(const View& v) {
  return {v.as<T>(), v.rows() == 1 ? 0 : v.ld()};
}

/// out (=|+=) value
template <class T>
__device__ void store(T& out, T value, bool add) {
  out = add ? out + value : value;
}
template <class T, int n>
__device__ void store(Pack<T, n>& out, Pack<T, n> value, bool add) {
  if (add) {
    const Pack<T, n> before = out;
    for (int i = 0; i < n; ++i) value[i] = before[i] + value[i];
  }
  out = value;
}

/// For calls that read no scalars from the device.
struct NoScalars {
  struct Values {};
  __device__ Values operator()() const { return {}; }
};

/// One number from the device, times another that the host knows; without the first, that one alone.
struct OneScalar {
  const double* at;
  double times = 1;

  using Values = double;
  __device__ Values operator()() const { return at == nullptr ? times : times * *at; }
};

template <class Body>
struct IgnoreScalars {
  Body body;
  template <class... Place>
  __device__ auto operator()(NoScalars::Values, Place... place) const {
    return body(place...);
  }
};

/// Most bodies take a row and a column. Those with `kEntries` take At<kEntries>, where `packs()` says that all that
/// they touch allows it and rows are so many times as long, and else At<1>. Those with `packs<n>()` also take At<2>.
template <class Body>
constexpr int kEntries = [] {
  if constexpr (requires { Body::kEntries; }) {
    return Body::kEntries;
  } else {
    return 1;
  }
}();
template <class Body>
constexpr int kEntries<IgnoreScalars<Body>> = kEntries<Body>;

template <class Body>
constexpr bool kSized = requires(const Body& body) {
  body.template packs<2>();
};
template <class Body>
constexpr bool kSized<IgnoreScalars<Body>> = kSized<Body>;

template <int n, class Body>
bool packs(const Body& body) {
  if constexpr (kSized<Body>) {
    return body.template packs<n>();
  } else {
    return body.packs();
  }
}
template <int n, class Body>
bool packs(const IgnoreScalars<Body>& body) {
  return packs<n>(body.body);
}

template <int n, class Body, class Values>
__device__ auto run(const Body& body, const Values& values, std::int64_t row, std::int64_t col) {
  if constexpr (kEntries < Body >> 1) {
    return body(values, At<n>{row, col});
  } else {
    return body(values, row, col);
  }
}

// --- a launch ---

/// First in a kernel that `launch` starts: waits until the calls before it are done and what they wrote is there.
__device__ inline void follow() {
#if __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
}

/// Of a launch of a kernel that begins with `follow`: its blocks come as those of the calls before it end (programmatic
/// dependent launch), which saves a part of the time between two kernels. `cluster`: blocks that run together.
class LaunchAttributes {
 public:
  explicit LaunchAttributes(unsigned cluster = 1) : count_(cluster > 1 ? 2 : 1) {
    list_[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    list_[0].val.programmaticStreamSerializationAllowed = can_follow() ? 1 : 0;
    list_[1].id = cudaLaunchAttributeClusterDimension;
    list_[1].val.clusterDim = {cluster, 1, 1};
  }
  /// Refers to the attributes.
  [[nodiscard]] cudaLaunchConfig_t config(dim3 grid, dim3 block, std::size_t shared, cudaStream_t stream) {
    return {.gridDim = grid,
            .blockDim = block,
            .dynamicSmemBytes = shared,
            .stream = stream,
            .attrs = list_,
            .numAttrs = count_};
  }

 private:
  cudaLaunchAttribute list_[2]{};
  unsigned count_;
};

/// Launches a kernel that begins with `follow`.
template <class... Parameters, class... Args>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared, cudaStream_t stream,
            const Args&... args) {
  LaunchAttributes attributes;
  const cudaLaunchConfig_t config = attributes.config(grid, block, shared, stream);
  PC_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(args)...));
}

// --- every entry on its own ---

constexpr int kEntryThreads = 256;

/// A body and the matrix that it runs over.
template <class Body>
struct Job {
  std::int64_t rows = 0, cols = 0;
  Body body;
};

/// As many jobs as fit a kernel's 4 KB of arguments on every version of CUDA; the rest is for others.
template <class Body>
constexpr int kMostJobs = std::max<int>(1, 3072 / sizeof(Job<Body>));

template <class Body, int n>
struct Jobs {
  Job<Body> items[n];
};

/// `width`: entries that a body does at once.
template <int width, class Scalars, class Body, int n>
__global__ void __launch_bounds__(kEntryThreads)
    each_entry_kernel(Scalars scalars, const __grid_constant__ Jobs<Body, n> jobs) {
  follow();
  __shared__ typename Scalars::Values values;
  if constexpr (!std::is_same_v<Scalars, NoScalars>) {
    if (threadIdx.x == 0 && threadIdx.y == 0) values = scalars();
    __syncthreads();
  }
  const Job<Body>& job = jobs.items[n == 1 ? 0 : blockIdx.z];
  const std::int64_t row_step = std::int64_t{gridDim.y} * blockDim.y;
  const std::int64_t col_step = std::int64_t{gridDim.x} * blockDim.x * width;
  for (std::int64_t row = std::int64_t{blockIdx.y} * blockDim.y + threadIdx.y; row < job.rows; row += row_step) {
    for (std::int64_t col = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * width; col < job.cols;
         col += col_step) {
      run<width>(job.body, values, row, col);
    }
  }
}

template <int n, class Body>
Jobs<Body, n> listed(std::span<const Job<Body>> jobs) {
  if constexpr (n == 1) {
    return {{jobs[0]}};
  } else {
    Jobs<Body, n> list{};
    std::copy(jobs.begin(), jobs.end(), list.items);
    return list;
  }
}

template <int width, int n, class Scalars, class Body>
void launch_jobs(std::span<const Job<Body>> jobs, cudaStream_t stream, Scalars scalars) {
  std::int64_t rows = 0, cols = 0;
  for (const Job<Body>& job : jobs) {
    rows = std::max(rows, job.rows);
    cols = std::max(cols, job.cols / width);
  }
  if (rows == 0 || cols == 0) return;
  // Enough to fill any GPU; threads walk on from there. What each block makes of scalars, few should make.
  constexpr std::int64_t kMaxBlocks = std::is_same_v<Scalars, NoScalars> ? 4096 : 1024;
  unsigned across = 1;
  while (across < kEntryThreads && across < cols) across *= 2;
  const dim3 block(across, kEntryThreads / across);
  const std::int64_t wide = std::min((cols + block.x - 1) / block.x, kMaxBlocks);
  const std::int64_t high = std::min((rows + block.y - 1) / block.y, kMaxBlocks / wide);
  const dim3 grid(static_cast<unsigned>(wide), static_cast<unsigned>(high), static_cast<unsigned>(jobs.size()));
  launch(each_entry_kernel<width, Scalars, Body, n>, grid, block, 0, stream, scalars, listed<n>(jobs));
}

/// Calls launch.operator()<width>(): how many entries may be done at once.
template <class Body, class Launch>
void with_width(std::span<const Job<Body>> jobs, Launch launch) {
  const auto all = [&]<int width>() {
    return std::all_of(jobs.begin(), jobs.end(),
                       [](const Job<Body>& job) { return job.cols % width == 0 && packs<width>(job.body); });
  };
  if constexpr (kEntries < Body >> 1) {
    if (all.template operator()<kEntries<Body>>()) return launch.template operator()<kEntries<Body>>();
  }
  if constexpr (kSized<Body> && kEntries < Body >> 2) {
    if (all.template operator()<2>()) return launch.template operator()<2>();
  }
  launch.template operator()<1>();
}

/// Runs body(values, row, col) for every entry of the matrix of each job. `scalars()` makes the values that all entries
/// share from numbers that lie on the device (a rate, a step); it runs once per block.
template <class Scalars, class Body>
void each_entry(std::span<const Job<Body>> jobs, cudaStream_t stream, Scalars scalars) {
  with_width(jobs, [&]<int width>() {
    if (jobs.size() == 1) return launch_jobs<width, 1>(jobs, stream, scalars);
    constexpr auto kMost = std::size_t{kMostJobs<Body>};
    for (auto rest = jobs; !rest.empty(); rest = rest.subspan(std::min(rest.size(), kMost))) {
      launch_jobs<width, kMostJobs<Body>>(rest.first(std::min(rest.size(), kMost)), stream, scalars);
    }
  });
}

/// The same for one matrix.
template <class Scalars, class Body>
void each_entry(std::int64_t rows, std::int64_t cols, cudaStream_t stream, Scalars scalars, Body body) {
  const Job<Body> job{rows, cols, body};
  const std::span<const Job<Body>> jobs(&job, 1);
  with_width(jobs, [&]<int width>() { launch_jobs<width, 1>(jobs, stream, scalars); });
}

/// Runs body(row, col) for every entry of a matrix.
template <class Body>
void each_entry(std::int64_t rows, std::int64_t cols, cudaStream_t stream, Body body) {
  each_entry(rows, cols, stream, NoScalars{}, IgnoreScalars<Body>{body});
}

/// Body(args) for every entry of shape(args), of several calls: body(row, col).
template <class Body, class Args, class Shape>
void each_entry_of(std::span<const Args* const> calls, cudaStream_t stream, Shape shape) {
  std::vector<Job<IgnoreScalars<Body>>> jobs;
  for (const Args* args : calls) {
    const View& view = shape(*args);
    jobs.push_back({view.rows(), view.cols(), {Body(*args)}});
  }
  each_entry(std::span<const Job<IgnoreScalars<Body>>>(jobs), stream, NoScalars{});
}

/// Runs body(i) for every i in [0, n).
template <class Body>
struct IgnoreRow {
  Body body;
  __device__ void operator()(std::int64_t, std::int64_t col) const { body(col); }
};
template <class Body>
void each_index(std::int64_t n, cudaStream_t stream, Body body) {
  each_entry(1, n, stream, IgnoreRow<Body>{body});
}

// --- rows: one block each, or a few lanes of a warp ---

constexpr int kRowThreads = 1024, kWarp = 32;

/// The threads that do one row together: a block, or so many lanes of a warp.
class Team {
 public:
  __device__ explicit Team(int size) : size_(size) {}
  __device__ int rank() const { return static_cast<int>(threadIdx.x) & (size_ - 1); }
  __device__ int size() const { return size_; }

  /// Combines one value of each thread: a tree within warps, then warp by warp. Every thread gets the result.
  template <class T, class Combine>
  __device__ T reduce(T value, Combine combine) const {
    if (size_ < kWarp) {
      const int lane = static_cast<int>(threadIdx.x) % kWarp;
      const unsigned own = ((1U << size_) - 1U) << (lane / size_ * size_);
      for (int step = size_ / 2; step > 0; step /= 2) value = combine(value, __shfl_xor_sync(own, value, step));
      return value;
    }
    for (int step = kWarp / 2; step > 0; step /= 2) value = combine(value, __shfl_xor_sync(~0U, value, step));
    if (size_ == kWarp) return value;
    __shared__ T of_warp[kRowThreads / kWarp];
    if (rank() % kWarp == 0) of_warp[rank() / kWarp] = value;
    __syncthreads();
    value = of_warp[0];
    for (int warp = 1; warp < size_ / kWarp; ++warp) value = combine(value, of_warp[warp]);
    __syncthreads();  // the array may be used again
    return value;
  }

 private:
  int size_;  // a power of two
};

template <class Body>
__global__ void __launch_bounds__(kRowThreads) each_row_kernel(Body body) {
  follow();
  body(std::int64_t{blockIdx.x}, Team(static_cast<int>(blockDim.x)));
}

/// Runs body(row, team) for every row of a matrix; the team walks the columns in steps of its size. A thread has some
/// columns, or, where rows are too few to fill a GPU that way, one.
template <class Body>
void each_row(std::int64_t rows, std::int64_t cols, cudaStream_t stream, Body body) {
  if (rows == 0) return;
  constexpr std::int64_t kSome = 4, kFull = std::int64_t{1} << 17;
  const std::int64_t each = rows * cols < kSome * kFull ? 1 : kSome;
  int width = kWarp;
  while (width < kRowThreads && width * each < cols) width *= 2;
  launch(each_row_kernel<Body>, static_cast<unsigned>(rows), static_cast<unsigned>(width), 0, stream, body);
}

template <class Body>
__global__ void __launch_bounds__(kEntryThreads) each_short_row_kernel(std::int64_t rows, int size, Body body) {
  follow();
  const std::int64_t row = (std::int64_t{blockIdx.x} * kEntryThreads + threadIdx.x) / size;
  if (row < rows) body(row, Team(size));
}

/// The same, where rows may be short and many: then up to a warp does one, and a block several, for which a body must
/// not wait.
template <class Body>
void each_short_row(std::int64_t rows, std::int64_t cols, cudaStream_t stream, Body body) {
  constexpr std::int64_t kShort = 8 * kWarp, kMany = 1024;
  if (rows < kMany || cols > kShort) return each_row(rows, cols, stream, body);
  int size = 1;
  while (size < kWarp && size < cols) size *= 2;
  const std::int64_t blocks = (rows * size + kEntryThreads - 1) / kEntryThreads;
  launch(each_short_row_kernel<Body>, static_cast<unsigned>(blocks), kEntryThreads, 0, stream, rows, size, body);
}

// --- every entry, and one float64 for each row ---

/// How terms of a row become out[row]: what each thread starts from, how two are combined, what is stored.
struct Sum {
  double scale = 1;
  bool add = false;

  __device__ double start(const double*) const { return 0; }
  __device__ double operator()(double a, double b) const { return a + b; }
  __device__ void store(double* out, double total) const { cu::store(*out, scale * total, add); }
};

struct Largest {
  bool add = false;

  __device__ double start(const double* out) const { return add ? *out : 0; }
  __device__ double operator()(double a, double b) const { return a > b || a != a ? a : b; }  // a NaN wins and stays
  __device__ void store(double* out, double top) const { *out = top; }
};

template <int width, class Fold, class Scalars, class Term>
struct FoldRow {
  std::int64_t cols;
  double* out;
  Fold fold;
  Scalars scalars;
  Term term;

  __device__ void operator()(std::int64_t row, Team team) const {
    __shared__ typename Scalars::Values values;
    if (team.rank() == 0) values = scalars();
    __syncthreads();
    double total = fold.start(out + row);
    for (std::int64_t col = team.rank() * width; col < cols; col += team.size() * width)
      total = fold(total, run<width>(term, values, row, col));
    total = team.reduce(total, fold);
    if (team.rank() == 0) fold.store(out + row, total);
  }
};

/// out[row] = fold of term(values, row, col) over the columns, or of term(values, At<n>). With no out, the terms are
/// run and dropped.
template <class Fold, class Scalars, class Term>
void fold_rows(std::int64_t rows, std::int64_t cols, cudaStream_t stream, double* out, Fold fold, Scalars scalars,
               Term term) {
  if (out == nullptr) return each_entry(rows, cols, stream, scalars, term);
  const Job<Term> job{rows, cols, term};
  with_width(std::span<const Job<Term>>(&job, 1), [&]<int width>() {
    each_row(rows, cols / width, stream, FoldRow<width, Fold, Scalars, Term>{cols, out, fold, scalars, term});
  });
}

template <class Fold, class Term>
void fold_rows(std::int64_t rows, std::int64_t cols, cudaStream_t stream, double* out, Fold fold, Term term) {
  fold_rows(rows, cols, stream, out, fold, NoScalars{}, IgnoreScalars<Term>{term});
}

}  // namespace pc::cu

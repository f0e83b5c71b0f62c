// settle_tiles.h on Hopper: one block a multiprocessor, all of them there at once. In each, groups of four warps
// multiply (wgmma) and do what the job says with the sums. For each group one more warp waits for others' tiles and
// fetches values into a ring of shared memory (bulk tensor copies). Weights are fetched once, at the start.
#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstring>

#include "kernels/barrier.cuh"
#include "kernels/launch.cuh"
#include "kernels/settle_tiles.h"

namespace pc::kernels {
namespace {

using cu::Barrier, cu::Patience, cu::shared_address;
using scalar::Activation;
using tiles::Job, tiles::Kept, tiles::Product, tiles::Task, tiles::Term, tiles::Wait;
using tiles::kCols, tiles::kGroups, tiles::kMostStages, tiles::kMostTasks, tiles::kPart, tiles::kParts, tiles::kRows,
    tiles::kSquare, tiles::kStage, tiles::kTerms;

constexpr int kWarp = 32;
constexpr int kGroup = 128;  // threads that multiply together
constexpr int kWorkers = kGroups * kGroup;
constexpr int kThreads = kWorkers + kGroups * kWarp;
constexpr int kAtOnce = 16;           // terms that one instruction multiplies
constexpr std::size_t kAlign = 1024;  // of what is interleaved over 128 bytes

/// Tiles in device memory: one block of bytes, with places.
struct OnDevice {
  const std::byte* tables;
  int tables_bytes;  // what is copied into shared memory: jobs, products, waits, terms
  int products, waits, terms;
  const Kept* kept;
  const int* kept_begins;
  const Task* tasks;
  const int* begins;
  int groups, stages, squares;
  const CUtensorMap* operands;
  int operand_count;
  unsigned* counters;
  int steps, rows;
  float rate;
  double* overflow;
};

// --- what the hardware is told ---

/// A piece of an operand, as large as its description says; what lies outside arrives as zeros.
__device__ void fetch_piece(void* to, const CUtensorMap* from, int col, int row, Barrier* done) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
          shared_address(to)),
      "l"(from), "r"(shared_address(done)), "r"(col), "r"(row)
      : "memory");
}

__device__ unsigned read(const unsigned* at) {
  unsigned value = 0;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(at) : "memory");
  return value;
}
__device__ unsigned read_acquire(const unsigned* at) {
  unsigned value = 0;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(at) : "memory");
  return value;
}
__device__ void add_release(unsigned* at) {
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(at) : "memory");
}
/// Between others' ordinary writes, seen through a counter, and bulk copies that read them.
__device__ void fence_bulk_copies() { asm volatile("fence.proxy.async;" ::: "memory"); }

/// PTX: the lower half of a matrix descriptor in shared memory; the upper half says that rows of so many bytes are
/// interleaved by as many, groups of 8 rows one after the other.
__device__ unsigned lower_half(unsigned address) { return address >> 4 | 1U << 16; }
constexpr unsigned upper_half(int row_bytes) {
  return static_cast<unsigned>(8 * row_bytes) >> 4 | (row_bytes == 128 ? 1U : 2U) << 30;
}

__device__ void multiply_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ void multiply_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int left>
__device__ void multiply_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(left) : "memory");
}

/// sum [64, 32] += a [64, 16] b [16, 32], by lower halves; of b rows are terms if `back`, else entries.
template <bool half, bool back>
__device__ __forceinline__ void multiply(float (&sum)[16], unsigned a, unsigned b) {
#define PC_MULTIPLY(type)                                                                                     \
  asm volatile(                                                                                               \
      "{\n.reg .b64 a, b;\nmov.b64 a, {%16, %18};\nmov.b64 b, {%17, %19};\n"                                  \
      "wgmma.mma_async.sync.aligned.m64n32k16.f32." type "." type                                             \
      " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, a, b, 1, 1, 1, 0, %20;\n}"    \
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3]), "+f"(sum[4]), "+f"(sum[5]), "+f"(sum[6]),     \
        "+f"(sum[7]), "+f"(sum[8]), "+f"(sum[9]), "+f"(sum[10]), "+f"(sum[11]), "+f"(sum[12]), "+f"(sum[13]), \
        "+f"(sum[14]), "+f"(sum[15])                                                                          \
      : "r"(a), "r"(b), "n"(upper_half(kPart * 2)), "n"(upper_half((back ? kCols : kPart) * 2)), "n"(back ? 1 : 0))
  if constexpr (half) {
    PC_MULTIPLY("f16");
  } else {
    PC_MULTIPLY("bf16");
  }
#undef PC_MULTIPLY
}

// --- a block ---

/// What a block's memory holds behind rings and weights, and before the tables.
struct Inside {
  struct OfGroup {
    Barrier full[kMostStages], empty[kMostStages];
    Barrier ready[2], taken[2];  // a task's tile may be read and written; each of the group's warps knows
  };
  OfGroup groups[kGroups];
  Barrier weights;
  alignas(16) Task tasks[kMostTasks];
};
static_assert(sizeof(Inside) + kAlign <= tiles::kFixed);

struct Memory {
  std::byte *rings, *weights;
  Inside* inside;
  std::byte* tables;

  __device__ Memory(const OnDevice& on, std::byte* raw)
      : rings(raw + (kAlign - reinterpret_cast<std::uintptr_t>(raw) % kAlign) % kAlign),
        weights(rings + on.groups * on.stages * kStage),
        inside(reinterpret_cast<Inside*>(weights + on.squares * kSquare)),
        tables(reinterpret_cast<std::byte*>(inside + 1)) {}
};

/// The tables, and a group's tasks.
struct Tables {
  const Job* jobs;
  const Product* products;
  const Wait* waits;
  const Term* terms;
  const Task* tasks[2];
  int count[2];

  __device__ Tables(const OnDevice& on, const Memory& memory, int group)
      : jobs(reinterpret_cast<const Job*>(memory.tables)),
        products(reinterpret_cast<const Product*>(memory.tables + on.products)),
        waits(reinterpret_cast<const Wait*>(memory.tables + on.waits)),
        terms(reinterpret_cast<const Term*>(memory.tables + on.terms)) {
    int inside = 0;
    for (int round = 0; round < 2; ++round) {
      const int* begins = begins_of(on, round);
      tasks[round] = memory.inside->tasks + inside + begins[group] - begins[0];
      count[round] = begins[group + 1] - begins[group];
      inside += begins[kGroups] - begins[0];
    }
  }

  /// Brings everything inside, by all threads of the block.
  __device__ static void fetch(const OnDevice& on, const Memory& memory) {
    for (int i = threadIdx.x; i < on.tables_bytes / 16; i += kThreads) {
      reinterpret_cast<int4*>(memory.tables)[i] = reinterpret_cast<const int4*>(on.tables)[i];
    }
    int inside = 0;
    for (int round = 0; round < 2; ++round) {
      const int* begins = begins_of(on, round);
      const int count = begins[kGroups] - begins[0];
      for (int i = threadIdx.x; i < count; i += kThreads) memory.inside->tasks[inside + i] = on.tasks[begins[0] + i];
      inside += count;
    }
  }

 private:
  __device__ static const int* begins_of(const OnDevice& on, int round) {
    return on.begins + (round * static_cast<int>(gridDim.x) + static_cast<int>(blockIdx.x)) * kGroups;
  }
};

/// body(task, step) for all tasks of a group in order. Everybody in it walks the same way.
template <class Body>
__device__ __forceinline__ void each_task(const OnDevice& on, const Tables& tables, Body body) {
  for (int t = 0; t < on.steps; ++t) {
#pragma unroll
    for (int round = 0; round < 2; ++round) {
      for (int i = 0; i < tables.count[round]; ++i) {
        const Task task = tables.tasks[round][i];
        const Job& job = tables.jobs[task.job];
        if (t >= job.from) body(task, job, t);
      }
    }
  }
}

/// A group's places in its ring, one after the other.
struct Ring {
  std::byte* memory;
  int stages;
  int stage = 0;
  unsigned parity = 0;

  __device__ Ring(const OnDevice& on, const Memory& shared, int group)
      : memory(shared.rings + group * on.stages * kStage), stages(on.stages) {}
  __device__ __forceinline__ void next() {
    if (++stage == stages) stage = 0, parity ^= 1;
  }
  [[nodiscard]] __device__ __forceinline__ std::byte* here() const { return memory + stage * kStage; }
};

/// The warp that fetches for a group.
class Fetcher {
 public:
  __device__ Fetcher(const OnDevice& on, const Memory& memory, int group)
      : on_(on),
        memory_(memory),
        tables_(on, memory, group),
        barriers_(memory.inside->groups[group]),
        group_(group),
        lane_(static_cast<int>(threadIdx.x) % kWarp),
        ring_(on, memory, group) {}

  __device__ void run() {
    for (int i = lane_; i < on_.operand_count; i += kWarp) {  // descriptions that the host has written
      asm volatile("fence.proxy.tensormap::generic.acquire.gpu [%0], 128;" ::"l"(on_.operands + i) : "memory");
    }
    __syncwarp();
    if (group_ == 0 && lane_ == 0) fetch_weights();
    __syncwarp();
    each_task(on_, tables_, [this](const Task& task, const Job& job, int t) { fetch(task, job, t); });
  }

 private:
  __device__ void fetch_weights() const {
    Barrier& done = memory_.inside->weights;
    const int begin = on_.kept_begins[blockIdx.x], end = on_.kept_begins[blockIdx.x + 1];
    for (int i = begin; i < end; ++i) {
      const Kept kept = on_.kept[i];
      const Job& job = tables_.jobs[kept.job];
      std::byte* to = memory_.weights + kept.at * kSquare;
      for (int p = job.products; p < job.products_end; ++p) {
        const Product& product = tables_.products[p];
        for (int chunk = 0; chunk < product.chunks; ++chunk, to += kSquare) {
          const CUtensorMap* weights = on_.operands + product.weights;
          const int along = chunk * kTerms, across = kept.col * kCols;
          done.expect(kSquare);
          if (job.back != 0) {
            fetch_piece(to, weights, across, along, &done);
          } else {
            for (int i = 0; i < kParts; ++i) {
              fetch_piece(to + i * (kSquare / kParts), weights, along + i * kPart, across, &done);
            }
          }
        }
      }
    }
    done.arrive();
  }

  __device__ void fetch(const Task& task, const Job& job, int t) {
    wait_for_others(task, job, t);
    if (lane_ == 0) {
      const int place = tasks_ % 2;
      barriers_.taken[place].wait((static_cast<unsigned>(tasks_) / 2 & 1) ^ 1);
      barriers_.ready[place].arrive();
      for (int i = job.products; i < job.products_end; ++i) {
        const Product& product = tables_.products[i];
        if (t < product.from) continue;
        for (int part = 0; part < product.chunks * kParts; ++part) {
          Barrier& full = barriers_.full[ring_.stage];
          barriers_.empty[ring_.stage].wait(ring_.parity ^ 1);
          full.expect_and_arrive(kStage);
          fetch_piece(ring_.here(), on_.operands + product.values, part * kPart, task.row * kRows, &full);
          ring_.next();
        }
      }
    }
    ++tasks_;
    __syncwarp();
  }

  __device__ void wait_for_others(const Task& task, const Job& job, int t) const {
    for (int i = job.waits + lane_; i < job.waits_end; i += kWarp) {
      const Wait& wait = tables_.waits[i];
      const int steps = t - wait.from + wait.after;
      if (steps <= 0) continue;
      const auto wanted = static_cast<unsigned>(wait.tiles * steps);
      const unsigned* counter = on_.counters + wait.counter + task.row;
      Patience patience;
      while (read(counter) < wanted) patience.spend();
      static_cast<void>(read_acquire(counter));  // orders what comes after it; it would slow down each look before
    }
    __syncwarp();
    if (lane_ == 0) fence_bulk_copies();
  }

  const OnDevice& on_;
  const Memory memory_;
  const Tables tables_;
  Inside::OfGroup& barriers_;
  int group_, lane_;
  Ring ring_;
  int tasks_ = 0;
};

constexpr int kRuns = 4, kRun = 4;  // what a thread has of a tile: so many neighbours, so many times

/// Some neighbours of one row.
struct Run {
  float at[kRun];
};

/// Where a thread's runs lie in a tile. wgmma gives a thread two neighbours of two rows in each 8 columns; in each 16
/// two threads exchange one pair, and then have four neighbours each.
struct Places {
  int row, col, col_end, rows;

  __device__ int row_of(int run) const { return row + run % 2 * 8; }
  __device__ int col_of(int run) const { return col + run / 2 * 16; }
};

__device__ __forceinline__ void exchange(const float (&sum)[16], Run (&runs)[kRuns]) {
  const bool odd = threadIdx.x % 2 != 0;
#pragma unroll
  for (int wide = 0; wide < 2; ++wide) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float* low = sum + wide * 8 + half * 2;  // of the first 8 columns; those of the second are 4 on
      Run& run = runs[wide * 2 + half];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float other = __shfl_xor_sync(~0U, odd ? low[i] : low[4 + i], 1);
        run.at[i] = odd ? other : low[i];
        run.at[2 + i] = odd ? low[4 + i] : other;
      }
    }
  }
}

/// A group that multiplies. All of it is one function in the end, or its state would lie in memory.
template <bool half>
class Worker {
 public:
  __device__ Worker(const OnDevice& on, const Memory& memory, int group)
      : on_(on),
        weights_(shared_address(memory.weights)),
        tables_(on, memory, group),
        barriers_(memory.inside->groups[group]),
        group_(group),
        ring_(on, memory, group) {}

  __device__ __forceinline__ void run() {
    each_task(on_, tables_, [this](const Task& task, const Job& job, int t) { work(task, job, t); });
  }

 private:
  using Operand = std::conditional_t<half, __half, __nv_bfloat16>;

  /// What does not come from the products. It is asked for before them, and looked at after them.
  struct Around {
    Run base[kRuns] = {}, late[2][kRuns] = {}, at[kRuns] = {}, dx[kRuns] = {};
    float by = 0, late_by[2] = {};

    /// base becomes the sum of all terms.
    __device__ __forceinline__ void add_up() {
#pragma unroll
      for (int r = 0; r < kRuns; ++r) {
#pragma unroll
        for (int k = 0; k < kRun; ++k) {
          base[r].at[k] = by * base[r].at[k] + late_by[0] * late[0][r].at[k] + late_by[1] * late[1][r].at[k];
        }
      }
    }
  };

  __device__ __forceinline__ void work(const Task& task, const Job& job, int t) {
    const int thread = static_cast<int>(threadIdx.x) % kGroup, quad = thread % 4;
    const Places places{task.row * kRows + thread / kWarp * 16 + thread % kWarp / 4,
                        task.col * kCols + quad / 2 * 4 + quad % 2 * 8, job.n, on_.rows};
    const bool last = job.back != 0 && t + 1 == on_.steps;
    const bool packed = job.packed != 0;
    Around around;
    load_own(job, t, last, packed, places, around);
    const int place = tasks_ % 2;
    barriers_.ready[place].wait(static_cast<unsigned>(tasks_) / 2 & 1);
    __syncwarp();
    if (thread % kWarp == 0) barriers_.taken[place].arrive();
    ++tasks_;
    load_late(job, t, packed, places, around);
    Run z[kRuns] = {};
    if (__shfl_sync(~0U, job.back, 0) != 0) {
      multiply_all<true>(task, job, t, z);
      around.add_up();
      move(job, packed, places, last, z, around);
    } else {
      multiply_all<false>(task, job, t, z);
      around.add_up();
      compare(job, packed, places, z, around);
    }
    asm volatile("bar.sync %0, %1;" ::"r"(1 + group_), "n"(kGroup) : "memory");
    if (thread == 0) add_release(on_.counters + job.counter + task.row);
  }

  /// The number of chunks that are not zero yet; the compiler is to see that all threads of a warp agree.
  __device__ __forceinline__ int chunks_of(const Job& job, int t) const {
    int chunks = 0;
    for (int i = job.products; i < job.products_end; ++i) {
      const Product& product = tables_.products[i];
      if (t >= product.from) chunks += product.chunks;
    }
    return __shfl_sync(~0U, chunks, 0);
  }

  template <bool back>
  __device__ __forceinline__ void multiply_all(const Task& task, const Job& job, int t, Run (&z)[kRuns]) {
    const int chunks = chunks_of(job, t);
    if (chunks == 0) return;
    float sum[16] = {};
    const unsigned values = lower_half(shared_address(ring_.memory));
    unsigned weights = lower_half(weights_ + task.at * kSquare);
    int product = job.products, left = 0;  // chunks of it
    // Where there is room in the ring, a chunk is on its way through the tensor cores while the next one is begun.
    const bool ahead = ring_.stages >= 2 * kParts;
    int chunk = 0, held = 0;  // parts that may not be written over
    do {
      for (; left == 0; ++product) {
        const Product& next = tables_.products[product];
        if (t >= next.from) {
          left = next.chunks;
        } else {
          weights += next.chunks * (kSquare >> 4);
        }
      }
      unsigned parts[kParts];
#pragma unroll
      for (unsigned& part : parts) {
        barriers_.full[ring_.stage].wait(ring_.parity);
        part = values + ring_.stage * (kStage >> 4);
        ring_.next();
      }
      multiply_begin();
#pragma unroll
      for (int k = 0; k < kTerms; k += kAtOnce) {
        const int part = k / kPart, along = k % kPart * 2;  // bytes, in a row
        constexpr int kRow = kCols * 2;                     // bytes, on the way back
        multiply<half, back>(sum, parts[part] + (along >> 4),
                             weights + ((back ? k * kRow : part * (kSquare / kParts) + along) >> 4));
      }
      multiply_commit();
      held += kParts;
      if (ahead) {
        multiply_wait<1>();
        let_go(held, kParts);
      } else {
        multiply_wait<0>();
        let_go(held, 0);
      }
      weights += kSquare >> 4;
      --left;
    } while (++chunk < chunks);
    multiply_wait<0>();
#pragma unroll
    for (float& entry : sum) asm volatile("" : "+f"(entry)::"memory");  // only now is anybody to read it
    let_go(held, 0);
    exchange(sum, z);
  }

  /// All but the last `kept` parts of those that are held.
  __device__ __forceinline__ void let_go(int& held, int kept) {
    for (; held > kept; --held) {
      if (threadIdx.x % kGroup == 0) barriers_.empty[free_].arrive();
      if (++free_ == ring_.stages) free_ = 0;
    }
  }

  /// What nobody else writes. What lies outside is read from the nearest place that does not, and never stored.
  __device__ __forceinline__ void load_own(const Job& job, int t, bool last, bool packed, const Places& places,
                                           Around& around) const {
    if (job.f != Activation::identity || last) load(around.at, job.at.at, job.at.ld, packed, places);
    if (job.back != 0 && t > job.from) load(around.dx, job.out.at, job.out.ld, packed, places);
    if (job.terms == job.late) return;
    around.by = load_term(around.base, job.terms, t, packed, places);
    for (int i = job.terms + 1; i < job.late; ++i) add_term(around, i, t, packed, places);
  }
  __device__ __forceinline__ void load_late(const Job& job, int t, bool packed, const Places& places,
                                            Around& around) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (job.late + i < job.terms_end) {
        around.late_by[i] = load_term(around.late[i], job.late + i, t, packed, places);
      }
    }
    for (int i = job.late + 2; i < job.terms_end; ++i) add_term(around, i, t, packed, places);
  }

  /// The term's factor; where there is no such term yet, nothing is loaded.
  __device__ __forceinline__ float load_term(Run (&runs)[kRuns], int i, int t, bool packed,
                                             const Places& places) const {
    const Term& term = tables_.terms[i];
    if (t < term.from) return 0;
    load(runs, term.at, term.ld, packed, places);
    return term.factor;
  }
  __device__ __forceinline__ void add_term(Around& around, int i, int t, bool packed, const Places& places) const {
    Run more[kRuns] = {};
    const float by = load_term(more, i, t, packed, places);
#pragma unroll
    for (int r = 0; r < kRuns; ++r) {
#pragma unroll
      for (int k = 0; k < kRun; ++k) around.base[r].at[k] = around.by * around.base[r].at[k] + by * more[r].at[k];
    }
    around.by = 1;
  }

  /// Past the first cache: others may have written it.
  __device__ __forceinline__ static void load(Run (&runs)[kRuns], const float* from, std::int64_t ld, bool packed,
                                              const Places& places) {
#pragma unroll
    for (int r = 0; r < kRuns; ++r) {
      const float* row = from + min(places.row_of(r), places.rows - 1) * ld;
      if (packed) {
        const float4 four = __ldcg(reinterpret_cast<const float4*>(row + min(places.col_of(r), places.col_end - 4)));
        runs[r].at[0] = four.x, runs[r].at[1] = four.y, runs[r].at[2] = four.z, runs[r].at[3] = four.w;
        continue;
      }
#pragma unroll
      for (int k = 0; k < kRun; ++k) runs[r].at[k] = __ldcg(row + min(places.col_of(r) + k, places.col_end - 1));
    }
  }

  __device__ __forceinline__ static void store(const Run (&runs)[kRuns], const tiles::Entries& to, bool packed,
                                               const Places& places) {
    if (to.at == nullptr) return;
#pragma unroll
    for (int r = 0; r < kRuns; ++r) {
      const int col = places.col_of(r);
      if (places.row_of(r) >= places.rows || col >= places.col_end) continue;
      float* at = to.at + places.row_of(r) * to.ld + col;
      const auto& from = runs[r].at;
      if (packed) {
        *reinterpret_cast<float4*>(at) = {from[0], from[1], from[2], from[3]};
      } else {
#pragma unroll
        for (int k = 0; k < kRun; ++k) {
          if (col + k < places.col_end) at[k] = from[k];
        }
      }
    }
  }

  /// As an operand.
  __device__ __forceinline__ void store(const Run (&runs)[kRuns], const tiles::Narrow& to, bool packed,
                                        const Places& places) const {
    if (to.at == nullptr) return;
#pragma unroll
    for (int r = 0; r < kRuns; ++r) {
      const int col = places.col_of(r);
      if (places.row_of(r) >= places.rows || col >= places.col_end) continue;
      auto* at = static_cast<Operand*>(to.at) + places.row_of(r) * to.ld + col;
      cu::Pack<Operand, kRun> rounded;
#pragma unroll
      for (int k = 0; k < kRun; ++k) {
        rounded[k] = Operand(to.scale * runs[r].at[k]);
        if constexpr (half) {
          if (__hisinf(rounded[k]) != 0 && !isinf(runs[r].at[k]))
            *on_.overflow = 1.0;  // whoever writes, writes the same
        }
      }
      if (packed) {
        *reinterpret_cast<cu::Pack<Operand, 4>*>(at) = rounded;
      } else {
#pragma unroll
        for (int k = 0; k < kRun; ++k) {
          if (col + k < places.col_end) at[k] = rounded[k];
        }
      }
    }
  }

  /// body(run, entry, f) for all entries, where f has the activation's name in its type.
  template <class Body>
  __device__ __forceinline__ static void each_entry(Activation f, Body body) {
    scalar::with_activation(f, [&]<Activation known>() {
#pragma unroll
      for (int r = 0; r < kRuns; ++r) {
#pragma unroll
        for (int k = 0; k < kRun; ++k) body(r, k, std::integral_constant<Activation, known>{});
      }
    });
  }

  __device__ __forceinline__ void compare(const Job& job, bool packed, const Places& places, const Run (&z)[kRuns],
                                          const Around& around) const {
    Run delta[kRuns], sent[kRuns];
    const float scale = job.scale, factor = job.factor, leak = job.leak;
    each_entry(job.f, [&](int r, int k, auto f) {
      const auto made = scalar::change<f.value>(around.at[r].at[k], scale * z[r].at[k], leak);
      delta[r].at[k] = factor * (around.base[r].at[k] - made.value);
      sent[r].at[k] = made.slope * delta[r].at[k];
    });
    store(delta, job.out, packed, places);
    store(sent, job.operand, packed, places);
  }

  __device__ __forceinline__ void move(const Job& job, bool packed, const Places& places, bool last,
                                       const Run (&z)[kRuns], Around& around) const {
    const auto& at = around.at;
    auto& dx = around.dx;
    Run velocity[kRuns], read[kRuns];
    const float scale = job.scale, leak = job.leak, rate = on_.rate;
    each_entry(job.f, [&](int r, int k, auto f) {
      const float slope = scalar::activate<f.value>(at[r].at[k] + dx[r].at[k], leak).slope;
      velocity[r].at[k] = around.base[r].at[k] - slope * (scale * z[r].at[k]);
      dx[r].at[k] -= rate * velocity[r].at[k];
      read[r].at[k] = scalar::change<f.value>(at[r].at[k], dx[r].at[k], leak).value;
    });
    store(velocity, job.velocity, packed, places);
    store(dx, job.out, packed, places);
    store(read, job.operand, packed, places);
    if (!last) return;
    store(dx, job.narrow, packed, places);
#pragma unroll
    for (int r = 0; r < kRuns; ++r) {
#pragma unroll
      for (int k = 0; k < kRun; ++k) read[r].at[k] = at[r].at[k] + dx[r].at[k];
    }
    store(read, job.whole, packed, places);
    store(read, job.narrow_whole, packed, places);
  }

  const OnDevice& on_;
  unsigned weights_;
  const Tables tables_;
  Inside::OfGroup& barriers_;
  int group_;
  Ring ring_;
  int free_ = 0;  // the next stage to be let go
  int tasks_ = 0;
};

template <bool half>
__global__ void __launch_bounds__(kThreads, 1) settle_tiled_kernel(const __grid_constant__ OnDevice on) {
  extern __shared__ std::byte raw[];
  const Memory memory(on, raw);
  Tables::fetch(on, memory);
  if (threadIdx.x == 0) {
    for (Inside::OfGroup& group : memory.inside->groups) {
      for (int i = 0; i < kMostStages; ++i) group.full[i].init(1), group.empty[i].init(1);
      for (int i = 0; i < 2; ++i) group.ready[i].init(1), group.taken[i].init(kGroup / kWarp);
    }
    memory.inside->weights.init(1);
    cu::show_barriers();
    fence_bulk_copies();
  }
  __syncthreads();
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  if (warp < kWorkers / kWarp) {
    memory.inside->weights.wait(0);
    Worker<half>(on, memory, warp * kWarp / kGroup).run();
  } else {
    Fetcher(on, memory, warp - kWorkers / kWarp).run();
  }
}

// --- the host's part ---

std::size_t place(int i) { return static_cast<std::size_t>(i); }

CUtensorMap describe(const tiles::Operand& piece, DType type) {
  const View& operand = piece.view;
  static const auto encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
    PC_CUDA_CHECK(
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found));
    PC_CHECK(found == cudaDriverEntryPointSuccess, "settle", "the driver has no tensor maps");
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
  }();
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(operand.cols()), static_cast<cuuint64_t>(operand.rows())};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(operand.ld()) * 2};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(piece.cols), static_cast<cuuint32_t>(piece.rows)}, steps[] = {1, 1};
  CUtensorMap map{};
  const CUresult status =
      encode(&map, type == DType::f16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2,
             operand.data, sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             piece.cols == kPart ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  PC_CHECK(status == CUDA_SUCCESS, "settle", "an operand ", operand.shape.text(), " with rows ", operand.ld(),
           " entries apart cannot be described to the device");
  return map;
}

/// Several lists as one block of bytes.
class Packed {
 public:
  template <class T>
  int add(const std::vector<T>& list, std::size_t align = 16) {
    bytes_.resize((bytes_.size() + align - 1) / align * align);
    const std::size_t at = bytes_.size();
    bytes_.resize(at + list.size() * sizeof(T));
    std::memcpy(bytes_.data() + at, list.data(), list.size() * sizeof(T));
    return static_cast<int>(at);
  }
  [[nodiscard]] const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

template <bool half>
void launch(const OnDevice& on, int blocks, CudaContext& context) {
  const auto kernel = settle_tiled_kernel<half>;
  const std::size_t bytes = place(on.groups * on.stages) * kStage + place(on.squares) * kSquare + sizeof(Inside) +
                            place(on.tables_bytes) + kAlign;
  PC_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
  cudaLaunchAttribute together{};
  together.id = cudaLaunchAttributeCooperative;  // tiles wait for each other: all blocks must be there
  together.val.cooperative = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = bytes;
  config.stream = context.stream;
  config.attrs = &together;
  config.numAttrs = 1;
  PC_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, on));
}

}  // namespace

tiles::Machine tiles::machine_cuda(CudaContext& context) {
  int processors = 0;
  PC_CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, context.device));
  return {processors, cu::block_memory(context) - kFixed};
}

void settle_tiled_cuda(const SettleArgs& args, CudaContext& context) {
  const tiles::Machine machine = tiles::machine_cuda(context);
  const std::string why = why_not_tiled(args, machine);
  PC_CHECK(why.empty(), "settle", why);
  const tiles::Tiles cut = tiles::cut(args, machine);
  std::vector<CUtensorMap> operands;
  for (const tiles::Operand& operand : cut.operands) operands.push_back(describe(operand, args.operands()));
  Packed packed;
  packed.add(cut.jobs);
  OnDevice on{};
  on.products = packed.add(cut.products);
  on.waits = packed.add(cut.waits);
  on.terms = packed.add(cut.terms);
  const int tasks = packed.add(cut.tasks);
  on.tables_bytes = tasks;
  PC_CHECK(place(tasks) <= cut.list_bytes(), "settle", "the lists are longer than was counted");
  const int begins = packed.add(cut.begins), kept = packed.add(cut.kept), kept_begins = packed.add(cut.kept_begins);
  const int maps = packed.add(operands, alignof(CUtensorMap));
  const auto* tables = static_cast<const std::byte*>(context.keep(packed.bytes().data(), packed.bytes().size()));
  on.tables = tables;
  on.tasks = reinterpret_cast<const Task*>(tables + tasks);
  on.begins = reinterpret_cast<const int*>(tables + begins);
  on.kept = reinterpret_cast<const Kept*>(tables + kept);
  on.kept_begins = reinterpret_cast<const int*>(tables + kept_begins);
  on.groups = cut.groups;
  on.stages = cut.stages;
  on.squares = cut.squares;
  on.operands = reinterpret_cast<const CUtensorMap*>(tables + maps);
  on.operand_count = static_cast<int>(operands.size());
  on.counters = reinterpret_cast<unsigned*>(args.scratch.as<std::byte>() + cut.counters_at);
  on.steps = args.steps;
  on.rows = static_cast<int>(args.rows());
  on.rate = static_cast<float>(args.rate);
  on.overflow = args.overflow.as<double>();
  PC_CUDA_CHECK(
      cudaMemsetAsync(on.counters, 0, sizeof(unsigned) * static_cast<std::size_t>(cut.counters), context.stream));
  if (args.operands() == DType::f16) return launch<true>(on, cut.blocks, context);
  launch<false>(on, cut.blocks, context);
}

}  // namespace pc::kernels

// settle_tiles.h on Hopper: one block a multiprocessor, all of them there at once. In each, one warp fetches operands
// into a ring of shared memory (bulk tensor copies), and two groups of four warps multiply them (wgmma) and do what the
// job says with the sums. Weights of a tile are on their way while it still waits for others' tiles.
#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstring>

#include "kernels/launch.cuh"
#include "kernels/settle_tiles.h"

namespace pc::kernels {
namespace {

using scalar::Activation;
using tiles::Job, tiles::kSide, tiles::Product, tiles::Task, tiles::Term, tiles::Wait;

constexpr int kWarp = 32;
constexpr int kGroup = 128;  // threads that multiply together
constexpr int kGroups = 2;   // side by side: each has half of a tile's entries
constexpr int kWorkers = kGroups * kGroup;
constexpr int kThreads = kWorkers + kWarp;
constexpr int kWidth = kSide / kGroups;           // entries of a row that a group has
constexpr int kStages = 12;                       // of the ring
constexpr int kSquare = kSide * kSide * 2;        // bytes of a square of an operand: rows of 128
constexpr int kTerms = 16;                        // that one instruction multiplies
constexpr std::size_t kTablesInside = 22 * 1024;  // bytes of tables that a block copies
constexpr int kTasksInside = 64;                  // and tasks of its own
constexpr std::size_t kAlign = 1024;              // of squares whose rows are interleaved over 128 bytes

/// Tiles in device memory: one block of bytes, with places.
struct OnDevice {
  const std::byte* tables;
  int tables_bytes;  // what is copied into shared memory: jobs, products, waits, terms
  int products, waits, terms;
  const Task* tasks;
  const int* begins;
  const CUtensorMap* operands;
  int operand_count;
  unsigned* counters;
  int steps, rows;
  float rate;
  double* overflow;
};

// --- what the hardware is told ---

__device__ unsigned shared_address(const void* at) { return static_cast<unsigned>(__cvta_generic_to_shared(at)); }

/// A wait that never ends is a fault of ours: the kernel stops with an error instead.
class Patience {
 public:
  __device__ void spend() {
    if (++spent_ == 1U << 24) __trap();
  }

 private:
  unsigned spent_ = 0;
};

struct Barrier {
  std::uint64_t state;

  __device__ void init(int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(this)), "r"(arrivals));
  }
  __device__ void arrive() {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(this)) : "memory");
  }
  __device__ void expect(int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(this)), "r"(bytes)
                 : "memory");
  }
  /// Until as many rounds are over as say `parity`; nobody may be more than one round behind.
  __device__ void wait(unsigned parity) {
    Patience patience;
    for (;;) {
      unsigned done = 0;
      asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                   : "=r"(done)
                   : "r"(shared_address(this)), "r"(parity)
                   : "memory");
      if (done != 0) return;
      patience.spend();
    }
  }
};

/// A square of an operand, columns first; what lies outside arrives as zeros.
__device__ void fetch_square(void* to, const CUtensorMap* from, int col, int row, Barrier* done) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
          shared_address(to)),
      "l"(from), "r"(shared_address(done)), "r"(col), "r"(row)
      : "memory");
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

/// PTX: matrix descriptor in shared memory, rows of 128 bytes interleaved by 128, groups of 8 rows 1024 bytes apart.
__device__ std::uint64_t square_descriptor(unsigned address) {
  return std::uint64_t{(address & 0x3FFFFU) >> 4} | std::uint64_t{1} << 16 | std::uint64_t{1024 >> 4} << 32 |
         std::uint64_t{1} << 62;
}

__device__ void multiply_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ void multiply_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int left>
__device__ void multiply_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(left) : "memory");
}

/// sum [64, 32] += a [64, 16] b [16, 32]; of b rows are terms if `back`, else entries.
template <bool half, bool back>
__device__ void multiply(float (&sum)[16], std::uint64_t a, std::uint64_t b) {
#define PC_MULTIPLY(type)                                                                                              \
  asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32." type "." type                                             \
               " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, %16, %17, 1, 1, 1, 0, %18;"   \
               : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3]), "+f"(sum[4]), "+f"(sum[5]), "+f"(sum[6]),     \
                 "+f"(sum[7]), "+f"(sum[8]), "+f"(sum[9]), "+f"(sum[10]), "+f"(sum[11]), "+f"(sum[12]), "+f"(sum[13]), \
                 "+f"(sum[14]), "+f"(sum[15])                                                                          \
               : "l"(a), "l"(b), "n"(back ? 1 : 0))
  if constexpr (half) {
    PC_MULTIPLY("f16");
  } else {
    PC_MULTIPLY("bf16");
  }
#undef PC_MULTIPLY
}

// --- a block ---

struct alignas(kAlign) Stage {
  std::byte left[kSquare], right[kSquare];
};

struct Memory {
  Stage ring[kStages];
  Barrier full[kStages], empty[kStages];
  Barrier ready[2], taken[2];  // a task's tile may be read and written; the groups know
  Task tasks[kTasksInside];
  alignas(16) std::byte tables[kTablesInside];
};

/// The tables, in shared memory where there is room, and this block's tasks.
struct Tables {
  const Job* jobs;
  const Product* products;
  const Wait* waits;
  const Term* terms;
  const Task* tasks[2];
  int count[2];

  __device__ Tables(const OnDevice& on, Memory& memory)
      : Tables(on, on.tables_bytes <= static_cast<int>(kTablesInside) ? memory.tables : on.tables) {
    const int block = static_cast<int>(blockIdx.x), blocks = static_cast<int>(gridDim.x);
    for (int round = 0; round < 2; ++round) {
      tasks[round] = on.tasks + on.begins[round * blocks + block];
      count[round] = on.begins[round * blocks + block + 1] - on.begins[round * blocks + block];
    }
    if (count[0] + count[1] > kTasksInside) return;
    for (int round = 0; round < 2; ++round) {
      Task* here = memory.tasks + (round == 0 ? 0 : count[0]);
      for (int i = threadIdx.x; i < count[round]; i += kThreads) here[i] = tasks[round][i];
      tasks[round] = here;
    }
  }

 private:
  __device__ Tables(const OnDevice& on, const std::byte* at)
      : jobs(reinterpret_cast<const Job*>(at)),
        products(reinterpret_cast<const Product*>(at + on.products)),
        waits(reinterpret_cast<const Wait*>(at + on.waits)),
        terms(reinterpret_cast<const Term*>(at + on.terms)) {}
};

/// body(task, step) for all tasks of this block in order. Everybody in it walks the same way.
template <class Body>
__device__ void each_task(const OnDevice& on, const Tables& tables, Body body) {
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

/// Places in the ring, one after the other.
struct Ring {
  int stage = 0;
  unsigned parity = 0;

  __device__ void next() {
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
};

/// The warp that fetches.
class Fetcher {
 public:
  __device__ Fetcher(const OnDevice& on, const Tables& tables, Memory& memory)
      : on_(on), tables_(tables), memory_(memory), lane_(static_cast<int>(threadIdx.x) % kWarp) {}

  __device__ void run() {
    for (int i = lane_; i < on_.operand_count; i += kWarp) {  // descriptions that the host has written
      asm volatile("fence.proxy.tensormap::generic.acquire.gpu [%0], 128;" ::"l"(on_.operands + i) : "memory");
    }
    __syncwarp();
    each_task(on_, tables_, [this](const Task& task, const Job& job, int t) { fetch(task, job, t); });
  }

 private:
  /// body(product, chunk) for all that are not zero yet.
  template <class Body>
  __device__ void each_chunk(const Job& job, int t, Body body) {
    for (int i = job.products; i < job.products_end; ++i) {
      const Product& product = tables_.products[i];
      if (t < product.from) continue;
      for (int chunk = 0; chunk < product.chunks; ++chunk) body(product, chunk);
    }
  }

  __device__ void fetch(const Task& task, const Job& job, int t) {
    const Ring start = ring_;
    int ahead = 0;
    if (lane_ == 0) {
      each_chunk(job, t, [&](const Product& product, int chunk) {
        if (ahead == kStages) return;
        fetch_right(task, job, product, chunk, ring_);
        ring_.next();
        ++ahead;
      });
    }
    ring_ = start;
    wait_for_others(task, job, t);
    if (lane_ == 0) {
      const int place = tasks_ % 2;
      memory_.taken[place].wait((static_cast<unsigned>(tasks_) / 2 & 1) ^ 1);
      memory_.ready[place].arrive();
      each_chunk(job, t, [&](const Product& product, int chunk) {
        if (ahead > 0) {
          --ahead;
        } else {
          fetch_right(task, job, product, chunk, ring_);
        }
        Stage& stage = memory_.ring[ring_.stage];
        fetch_square(stage.left, on_.operands + product.left, chunk * kSide, task.row * kSide,
                     &memory_.full[ring_.stage]);
        ring_.next();
      });
    }
    ++tasks_;
    __syncwarp();
  }

  /// The weights of a stage, once it is empty.
  __device__ void fetch_right(const Task& task, const Job& job, const Product& product, int chunk, const Ring& at) {
    memory_.empty[at.stage].wait(at.parity ^ 1);
    memory_.full[at.stage].expect(2 * kSquare);
    const int along = chunk * kSide, across = task.col * kSide;
    fetch_square(memory_.ring[at.stage].right, on_.operands + product.right, job.back != 0 ? across : along,
                 job.back != 0 ? along : across, &memory_.full[at.stage]);
  }

  __device__ void wait_for_others(const Task& task, const Job& job, int t) {
    for (int i = job.waits + lane_; i < job.waits_end; i += kWarp) {
      const Wait& wait = tables_.waits[i];
      const int steps = t - wait.from + wait.after;
      if (steps <= 0) continue;
      const auto wanted = static_cast<unsigned>(wait.tiles * steps);
      Patience patience;
      while (read_acquire(on_.counters + wait.counter + task.row) < wanted) patience.spend();
    }
    __syncwarp();
    if (lane_ == 0) fence_bulk_copies();
  }

  const OnDevice& on_;
  const Tables& tables_;
  Memory& memory_;
  int lane_;
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

__device__ void exchange(const float (&sum)[16], Run (&runs)[kRuns]) {
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

/// The groups that multiply.
template <bool half>
class Worker {
 public:
  __device__ Worker(const OnDevice& on, const Tables& tables, Memory& memory)
      : on_(on), tables_(tables), memory_(memory), group_(static_cast<int>(threadIdx.x) / kGroup) {}

  __device__ void run() {
    each_task(on_, tables_, [this](const Task& task, const Job& job, int t) { work(task, job, t); });
  }

 private:
  using Operand = std::conditional_t<half, __half, __nv_bfloat16>;

  __device__ void work(const Task& task, const Job& job, int t) {
    const int place = tasks_ % 2;
    memory_.ready[place].wait(static_cast<unsigned>(tasks_) / 2 & 1);
    if (threadIdx.x % kGroup == 0) memory_.taken[place].arrive();
    ++tasks_;
    const int thread = static_cast<int>(threadIdx.x) % kGroup, quad = thread % 4;
    const Places places{task.row * kSide + thread / kWarp * 16 + thread % kWarp / 4,
                        task.col * kSide + group_ * kWidth + quad / 2 * 4 + quad % 2 * 8, job.n, on_.rows};
    // What does not come from the products is asked for before them.
    Run base[kRuns] = {}, at[kRuns] = {}, dx[kRuns] = {};
    const bool last = job.back != 0 && t + 1 == on_.steps;
    if (job.pack == 4) {
      load_all<4>(job, t, last, places, base, at, dx);
    } else if (job.pack == 2) {
      load_all<2>(job, t, last, places, base, at, dx);
    } else {
      load_all<1>(job, t, last, places, base, at, dx);
    }
    Run z[kRuns] = {};
    const int chunks = chunks_of(job, t);
    if (__shfl_sync(~0U, job.back, 0) != 0) {
      multiply_all<true>(chunks, z);
      scalar::with_activation(job.f, [&]<Activation f>() { move<f>(job, places, last, z, base, at, dx); });
    } else {
      multiply_all<false>(chunks, z);
      scalar::with_activation(job.f, [&]<Activation f>() { compare<f>(job, places, z, base, at); });
    }
    asm volatile("bar.sync 1, %0;" ::"n"(kWorkers) : "memory");
    if (threadIdx.x == 0) add_release(on_.counters + job.counter + task.row);
  }

  /// The number of chunks that are not zero yet; the compiler is to see that all threads of a warp agree.
  __device__ int chunks_of(const Job& job, int t) const {
    int chunks = 0;
    for (int i = job.products; i < job.products_end; ++i) {
      const Product& product = tables_.products[i];
      if (t >= product.from) chunks += product.chunks;
    }
    return __shfl_sync(~0U, chunks, 0);
  }

  template <bool back>
  __device__ void multiply_all(int chunks, Run (&z)[kRuns]) {
    if (chunks == 0) return;
    float sum[16] = {};
    int before = ring_.stage, chunk = 0;
    do {
      memory_.full[ring_.stage].wait(ring_.parity);
      const Stage& stage = memory_.ring[ring_.stage];
      // This group's entries are rows of the square on the way forward, and columns on the way back.
      const std::uint64_t a = square_descriptor(shared_address(stage.left)),
                          b = square_descriptor(shared_address(stage.right) + group_ * kWidth * (back ? 2 : kSide * 2));
      constexpr int kAlong = kTerms * 2, kDown = kTerms * kSide * 2;  // bytes to the next terms
      multiply_begin();
#pragma unroll
      for (int k = 0; k < kSide / kTerms; ++k) {
        multiply<half, back>(sum, a + (k * kAlong >> 4), b + (k * (back ? kDown : kAlong) >> 4));
      }
      multiply_commit();
      multiply_wait<1>();
      if (chunk > 0 && threadIdx.x % kGroup == 0) memory_.empty[before].arrive();
      before = ring_.stage;
      ring_.next();
    } while (++chunk < chunks);
    multiply_wait<0>();
#pragma unroll
    for (float& entry : sum) asm volatile("" : "+f"(entry)::"memory");  // only now is anybody to read it
    if (threadIdx.x % kGroup == 0) memory_.empty[before].arrive();
    exchange(sum, z);
  }

  /// Everything is on its way before the first of it is looked at. What lies outside is read from the nearest place
  /// that does not, and never stored.
  template <int pack>
  __device__ void load_all(const Job& job, int t, bool last, const Places& places, Run (&base)[kRuns], Run (&at)[kRuns],
                           Run (&dx)[kRuns]) const {
    if (job.f != Activation::identity || last) load<pack>(at, job.at.at, job.at.ld, places);
    if (job.back != 0 && t > job.from) load<pack>(dx, job.out.at, job.out.ld, places);
    for (int i = job.terms; i < job.terms_end; i += 2) {
      Run first[kRuns] = {}, second[kRuns] = {};
      const float by = load_term<pack>(first, job, i, t, places),
                  by_second = load_term<pack>(second, job, i + 1, t, places);
#pragma unroll
      for (int r = 0; r < kRuns; ++r) {
#pragma unroll
        for (int k = 0; k < kRun; ++k) base[r].at[k] += by * first[r].at[k] + by_second * second[r].at[k];
      }
    }
  }

  /// The term's factor; where there is no such term yet, nothing is loaded.
  template <int pack>
  __device__ float load_term(Run (&runs)[kRuns], const Job& job, int i, int t, const Places& places) const {
    if (i >= job.terms_end || t < tables_.terms[i].from) return 0;
    load<pack>(runs, tables_.terms[i].at, tables_.terms[i].ld, places);
    return tables_.terms[i].factor;
  }

  /// Past the first cache: others may have written it.
  template <int pack>
  __device__ static void load(Run (&runs)[kRuns], const float* from, std::int64_t ld, const Places& places) {
#pragma unroll
    for (int r = 0; r < kRuns; ++r) {
      const float* row = from + min(places.row_of(r), places.rows - 1) * ld;
      if constexpr (pack == 4) {
        const float4 four = __ldcg(reinterpret_cast<const float4*>(row + min(places.col_of(r), places.col_end - 4)));
        runs[r].at[0] = four.x, runs[r].at[1] = four.y, runs[r].at[2] = four.z, runs[r].at[3] = four.w;
      } else {
#pragma unroll
        for (int k = 0; k < kRun; k += pack) {
          const float* place = row + min(places.col_of(r) + k, places.col_end - pack);
          if constexpr (pack == 2) {
            const float2 two = __ldcg(reinterpret_cast<const float2*>(place));
            runs[r].at[k] = two.x, runs[r].at[k + 1] = two.y;
          } else {
            runs[r].at[k] = __ldcg(place);
          }
        }
      }
    }
  }

  __device__ static void store(const Run (&runs)[kRuns], const tiles::Entries& to, int pack, const Places& places) {
    if (to.at == nullptr) return;
#pragma unroll
    for (int r = 0; r < kRuns; ++r) {
      const int col = places.col_of(r);
      if (places.row_of(r) >= places.rows || col >= places.col_end) continue;
      float* at = to.at + places.row_of(r) * to.ld + col;
      const auto& from = runs[r].at;
      if (pack == 4) {
        *reinterpret_cast<float4*>(at) = {from[0], from[1], from[2], from[3]};
      } else if (pack == 2) {
        *reinterpret_cast<float2*>(at) = {from[0], from[1]};
        if (col + 2 < places.col_end) *reinterpret_cast<float2*>(at + 2) = {from[2], from[3]};
      } else {
#pragma unroll
        for (int k = 0; k < kRun; ++k) {
          if (col + k < places.col_end) at[k] = from[k];
        }
      }
    }
  }

  /// As an operand.
  __device__ void store(const Run (&runs)[kRuns], const tiles::Narrow& to, int pack, const Places& places) const {
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
      if (pack == 4) {
        *reinterpret_cast<cu::Pack<Operand, 4>*>(at) = rounded;
      } else {
#pragma unroll
        for (int k = 0; k < kRun; ++k) {
          if (col + k < places.col_end) at[k] = rounded[k];
        }
      }
    }
  }

  template <Activation f>
  __device__ void compare(const Job& job, const Places& places, const Run (&z)[kRuns], const Run (&base)[kRuns],
                          const Run (&at)[kRuns]) const {
    Run delta[kRuns], sent[kRuns];
#pragma unroll
    for (int r = 0; r < kRuns; ++r) {
#pragma unroll
      for (int k = 0; k < kRun; ++k) {
        const auto made = scalar::change<f>(at[r].at[k], job.scale * z[r].at[k], job.leak);
        delta[r].at[k] = job.factor * (base[r].at[k] - made.value);
        sent[r].at[k] = made.slope * delta[r].at[k];
      }
    }
    store(delta, job.out, job.pack, places);
    store(sent, job.operand, job.pack, places);
  }

  template <Activation f>
  __device__ void move(const Job& job, const Places& places, bool last, const Run (&z)[kRuns], const Run (&base)[kRuns],
                       const Run (&at)[kRuns], Run (&dx)[kRuns]) const {
    Run velocity[kRuns], read[kRuns];
#pragma unroll
    for (int r = 0; r < kRuns; ++r) {
#pragma unroll
      for (int k = 0; k < kRun; ++k) {
        const float slope = scalar::activate<f>(at[r].at[k] + dx[r].at[k], job.leak).slope;
        velocity[r].at[k] = base[r].at[k] - slope * (job.scale * z[r].at[k]);
        dx[r].at[k] -= on_.rate * velocity[r].at[k];
        read[r].at[k] = scalar::change<f>(at[r].at[k], dx[r].at[k], job.leak).value;
      }
    }
    store(velocity, job.velocity, job.pack, places);
    store(dx, job.out, job.pack, places);
    store(read, job.operand, job.pack, places);
    if (!last) return;
    store(dx, job.narrow, job.pack, places);
#pragma unroll
    for (int r = 0; r < kRuns; ++r) {
#pragma unroll
      for (int k = 0; k < kRun; ++k) read[r].at[k] = at[r].at[k] + dx[r].at[k];
    }
    store(read, job.whole, job.pack, places);
    store(read, job.narrow_whole, job.pack, places);
  }

  const OnDevice& on_;
  const Tables& tables_;
  Memory& memory_;
  int group_;
  Ring ring_;
  int tasks_ = 0;
};

template <bool half>
__global__ void __launch_bounds__(kThreads, 1) settle_tiled_kernel(const __grid_constant__ OnDevice on) {
  extern __shared__ std::byte raw[];
  auto& memory = *reinterpret_cast<Memory*>((reinterpret_cast<std::uintptr_t>(raw) + kAlign - 1) / kAlign * kAlign);
  const Tables tables(on, memory);
  if (on.tables_bytes <= static_cast<int>(kTablesInside)) {
    for (int i = threadIdx.x; i < on.tables_bytes / 16; i += kThreads) {
      reinterpret_cast<int4*>(memory.tables)[i] = reinterpret_cast<const int4*>(on.tables)[i];
    }
  }
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) memory.full[i].init(1), memory.empty[i].init(kGroups);
    for (int i = 0; i < 2; ++i) memory.ready[i].init(1), memory.taken[i].init(kGroups);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    fence_bulk_copies();
  }
  __syncthreads();
  if (threadIdx.x < kWorkers) {
    Worker<half>(on, tables, memory).run();
  } else {
    Fetcher(on, tables, memory).run();
  }
}

// --- the host's part ---

CUtensorMap describe(const View& operand, DType type) {
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
  const cuuint32_t box[] = {kSide, kSide}, steps[] = {1, 1};
  CUtensorMap map{};
  const CUresult status =
      encode(&map, type == DType::f16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2,
             operand.data, sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
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
  constexpr std::size_t kBytes = sizeof(Memory) + kAlign;
  PC_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  cudaLaunchAttribute together{};
  together.id = cudaLaunchAttributeCooperative;  // tiles wait for each other: all blocks must be there
  together.val.cooperative = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = kBytes;
  config.stream = context.stream;
  config.attrs = &together;
  config.numAttrs = 1;
  PC_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, on));
}

}  // namespace

void settle_tiled_cuda(const SettleArgs& args, CudaContext& context) {
  const std::string why = why_not_tiled(args);
  PC_CHECK(why.empty(), "settle", why);
  int processors = 0;
  PC_CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, context.device));
  const tiles::Tiles cut = tiles::cut(args, processors);
  std::vector<CUtensorMap> operands;
  for (const View& operand : cut.operands) operands.push_back(describe(operand, args.operands()));
  Packed packed;
  packed.add(cut.jobs);
  OnDevice on{};
  on.products = packed.add(cut.products);
  on.waits = packed.add(cut.waits);
  on.terms = packed.add(cut.terms);
  const int tasks = packed.add(cut.tasks);
  on.tables_bytes = tasks;
  const int begins = packed.add(cut.begins), maps = packed.add(operands, alignof(CUtensorMap));
  const auto* tables = static_cast<const std::byte*>(context.keep(packed.bytes().data(), packed.bytes().size()));
  on.tables = tables;
  on.tasks = reinterpret_cast<const Task*>(tables + tasks);
  on.begins = reinterpret_cast<const int*>(tables + begins);
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

// Barriers in shared memory that count bytes on their way as well as threads: PTX's mbarrier, on Hopper.
#pragma once

#include <cstdint>

namespace pc::cu {

__device__ inline unsigned shared_address(const void* at) {
  return static_cast<unsigned>(__cvta_generic_to_shared(at));
}

/// A wait that never ends is a fault of ours: the kernel stops with an error instead, after some ten seconds.
class Patience {
 public:
  __device__ void spend() {
    if (++spent_ % kLooks != 0) return;
    const auto now = static_cast<unsigned>(clock64() >> kShift);
    if (spent_ == kLooks) since_ = now;
    if (now - since_ > kMost) __trap();
  }

 private:
  static constexpr unsigned kLooks = 1U << 10, kShift = 24, kMost = 1200;  // of 2^24 cycles
  unsigned spent_ = 0, since_ = 0;
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
    asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(shared_address(this)), "r"(bytes)
                 : "memory");
  }
  __device__ void expect_and_arrive(int bytes) {
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

/// As __syncthreads, for the first `threads` of a block, which are whole warps.
__device__ inline void meet(int threads) { asm volatile("bar.sync 1, %0;" ::"r"(threads) : "memory"); }

/// Makes what has been initialised known to others of the cluster, and to what comes by itself.
__device__ inline void show_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

/// Stores a word where block `block` of the cluster has what this one has at `to`, in shared memory; there it counts as
/// four of the bytes that `barrier` of that block waits for.
__device__ inline void store_there(void* to, unsigned word, unsigned block, Barrier* barrier) {
  asm volatile(
      "{\n\t.reg .u32 place, done;\n\t"
      "mapa.shared::cluster.u32 place, %0, %2;\n\t"
      "mapa.shared::cluster.u32 done, %1, %2;\n\t"
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [place], %3, [done];\n\t}" ::"r"(shared_address(to)),
      "r"(shared_address(barrier)), "r"(block), "r"(word)
      : "memory");
}

}  // namespace pc::cu

// The CUDA half of an ExecContext: one device with one stream, one cuBLAS handle, and all the memory that kernels may
// need beside their arguments. Nothing is allocated while calls are captured in a graph.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/exec.h"

/// PC_CUDA_CHECK(call): throws an Error (ExitStatus::failed) with the call, its place and CUDA's reason.
#define PC_CUDA_CHECK(...) ::pc::cu::check((__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)
#define PC_CUBLAS_CHECK(...) ::pc::cu::check((__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)

namespace pc {
namespace cu {  // not "cuda": that name would hide ::cuda from the toolkit's own headers

[[noreturn]] void fail_call(cudaError_t status, const char* call, const char* file, int line);
[[noreturn]] void fail_call(cublasStatus_t status, const char* call, const char* file, int line);

inline void check(cudaError_t status, const char* call, const char* file, int line) {
  if (status != cudaSuccess) fail_call(status, call, file, line);
}
inline void check(cublasStatus_t status, const char* call, const char* file, int line) {
  if (status != CUBLAS_STATUS_SUCCESS) fail_call(status, call, file, line);
}

/// Owns one CUDA or cuBLAS handle, or device memory, and reads as it. Move-only; the destructor never throws.
template <class Handle, auto destroy>
class CudaHandle {
 public:
  CudaHandle() = default;
  explicit CudaHandle(Handle handle) noexcept : handle_(handle) {}
  CudaHandle(CudaHandle&& other) noexcept : handle_(std::exchange(other.handle_, Handle{})) {}
  CudaHandle& operator=(CudaHandle&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~CudaHandle() {
    if (handle_) static_cast<void>(destroy(handle_));
  }

  [[nodiscard]] Handle get() const noexcept { return handle_; }
  operator Handle() const noexcept { return handle_; }  // NOLINT(google-explicit-constructor): it stands for its handle

 private:
  Handle handle_{};
};

using Stream = CudaHandle<cudaStream_t, cudaStreamDestroy>;
using Blas = CudaHandle<cublasHandle_t, cublasDestroy>;
using Memory = CudaHandle<void*, cudaFree>;

// What exec.cpp asks of the CUDA runtime.
std::vector<DeviceInfo> devices(std::string* why_none);  // never throws for want of a GPU
void* allocate(std::size_t bytes);
void release(void* memory) noexcept;
void copy_bytes(CudaContext& context, void* to, const void* from, std::size_t bytes);
/// New device memory with what `data` holds; also while calls are captured in a graph.
Memory copy_of(const void* data, std::size_t bytes);
std::size_t block_memory(CudaContext& context);
bool is_hopper(CudaContext& context);
/// Whether `follow` (kernels/launch.cuh) waits on this thread's device, in the code that it runs.
bool can_follow();

}  // namespace cu

struct CudaContext {
  static constexpr int kPartials = 1024;
  static constexpr std::size_t kSlots = 8;

  /// Makes `device_index` the calling thread's device.
  explicit CudaContext(int device_index);

  /// Calls that may run at the same time get scratch memory of different slots.
  void use_slot(std::size_t slot);
  [[nodiscard]] double* partials() const { return static_cast<double*>(partials_memory.get()) + slot_ * kPartials; }
  /// Bytes that a call may use while it runs; calls that fit into kScratch may take it for granted. More of it is
  /// allocated when a call first asks, which a program's first run does before anything is captured. Memory once given
  /// stays, as captured graphs refer to it.
  static constexpr std::size_t kScratch = std::size_t{32} << 20;  // patches of it stay in an H200's L2
  [[nodiscard]] void* scratch(std::size_t bytes);

  /// Pointers in device memory, for a call that several others are done by. They lie there before the call runs and for
  /// as long as it may be run again, which is for `tables` to see to (capture_cuda.cu).
  [[nodiscard]] void** table(const std::vector<void*>& pointers);
  std::function<void**(const std::vector<void*>&)> tables;
  /// A copy of host memory on the device, for a call that reads it each time it runs; it stays as long as a table does,
  /// or, outside of a program, as long as the context.
  [[nodiscard]] const void* keep(const void* data, std::size_t bytes);
  std::function<const void*(const void*, std::size_t)> keeps;

  int device;
  bool seldom = false;  // what runs now: libraries are to take their first choice (Program::seldom)
  cu::Stream stream;    // non-blocking: it does not wait for the default stream
  cu::Memory blas_workspace;
  cu::Memory partials_memory;   // kPartials doubles a slot, for reductions in two stages
  cu::Blas blas;                // so late that it goes before the stream and the workspace that it uses
  std::shared_ptr<void> cudnn;  // its handle, and what it has chosen (conv_cudnn.cu)

 private:
  std::size_t slot_ = 0;
  std::size_t scratch_bytes_ = 0;           // of a slot
  std::vector<cu::Memory> scratch_memory_;  // the last one is in use
  std::vector<cu::Memory> kept_;
};

}  // namespace pc

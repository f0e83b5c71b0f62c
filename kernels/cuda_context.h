// The CUDA half of an ExecContext: one device with one stream, one cuBLAS handle, and all the memory that kernels may
// need beside their arguments. Nothing is allocated once it is built, so that its calls can be captured in a graph.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <cstddef>
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
std::size_t block_memory(CudaContext& context);

}  // namespace cu

struct CudaContext {
  static constexpr int kPartials = 1024;
  static constexpr std::size_t kSlots = 8;

  /// Makes `device_index` the calling thread's device.
  explicit CudaContext(int device_index);

  /// Calls that may run at the same time get scratch memory of different slots.
  void use_slot(std::size_t slot);
  [[nodiscard]] double* partials() const { return static_cast<double*>(partials_memory.get()) + slot_ * kPartials; }

  int device;
  cu::Stream stream;  // non-blocking: it does not wait for the default stream
  cu::Memory blas_workspace;
  cu::Memory partials_memory;  // kPartials doubles a slot, for reductions in two stages
  cu::Blas blas;               // last, so that it goes before the stream and the workspace that it uses

 private:
  std::size_t slot_ = 0;
};

}  // namespace pc

// The CUDA half of exec.cpp: devices, the context, memory and copies.
#include <algorithm>
#include <cstdint>

#include "kernels/cuda_context.h"

namespace pc {
namespace cu {
namespace {

// cuBLAS asks for 32 MiB on Hopper, for any of its products. Given once, it need not allocate, and so can be captured.
constexpr std::size_t kBlasWorkspace = std::size_t{32} << 20;

/// Tells for which devices kernels were compiled.
__global__ void as_built() {}

/// The oldest compute capability that this build has code for, as 100 major + 10 minor.
int oldest_arch() {
  constexpr int kArchs[] = {__CUDA_ARCH_LIST__};
  return *std::min_element(std::begin(kArchs), std::end(kArchs));
}

std::string capability(int arch) { return std::to_string(arch / 100) + '.' + std::to_string(arch / 10 % 10); }

double mebibytes(std::size_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

}  // namespace

void fail_call(cudaError_t status, const char* call, const char* file, int line) {
  static_cast<void>(cudaGetLastError());  // a failure that was reported must not be reported again by the next call
  fail_run("cuda", call, " failed: ", cudaGetErrorString(status), " (", cudaGetErrorName(status), "), at ", file, ':',
           line);
}

void fail_call(cublasStatus_t status, const char* call, const char* file, int line) {
  fail_run("cublas", call, " failed: ", cublasGetStatusString(status), ", at ", file, ':', line);
}

std::vector<DeviceInfo> devices(std::string* why_none) {
  std::string why;
  std::vector<DeviceInfo> list;
  int count = 0;
  if (const cudaError_t status = cudaGetDeviceCount(&count); status != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    why = std::string("built with CUDA, but no device is visible: ") + cudaGetErrorString(status);
    int driver = 0;  // CUDA's own words are the same for an old driver and for none at all
    if (status == cudaErrorInsufficientDriver && cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0) {
      why += " (no NVIDIA driver is loaded)";
    }
    count = 0;
  }
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp found;
    PC_CUDA_CHECK(cudaGetDeviceProperties(&found, i));
    const int arch = 100 * found.major + 10 * found.minor;
    if (arch < oldest_arch()) {
      why += (why.empty() ? "" : "; ") + std::string("cuda:") + std::to_string(i) + " (" + found.name +
             ") has compute capability " + capability(arch) + ", but this build needs " + capability(oldest_arch()) +
             "; configure with -DCMAKE_CUDA_ARCHITECTURES=" + std::to_string(arch / 10);
      continue;
    }
    list.push_back({.name = "cuda:" + std::to_string(i),
                    .model = found.name,
                    .memory = found.totalGlobalMem,
                    .detail = std::to_string(found.multiProcessorCount) + " multiprocessors, compute capability " +
                              capability(arch)});
  }
  if (list.empty() && why.empty()) why = "built with CUDA, but no device is visible";
  if (why_none != nullptr) *why_none = list.empty() ? why : std::string();
  return list;
}

void* allocate(std::size_t bytes) {
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, std::max<std::size_t>(bytes, 1));
  if (status == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    std::size_t available = 0, total = 0;
    PC_CUDA_CHECK(cudaMemGetInfo(&available, &total));
    fail_run("cuda", "out of memory: asked for ", mebibytes(bytes), " MiB, but of the device's ", mebibytes(total),
             " MiB only ", mebibytes(available), " MiB are free");
  }
  PC_CUDA_CHECK(status);
  return memory;
}

void release(void* memory) noexcept { static_cast<void>(cudaFree(memory)); }

void copy_bytes(CudaContext& context, void* to, const void* from, std::size_t bytes) {
  PC_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, context.stream));
  PC_CUDA_CHECK(cudaStreamSynchronize(context.stream));
}

Memory copy_of(const void* data, std::size_t bytes) {
  // No call has to do with the stream that may be captured just now, and so the runtime need not refuse them.
  struct Relaxed {
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    Relaxed() { PC_CUDA_CHECK(cudaThreadExchangeStreamCaptureMode(&mode)); }
    ~Relaxed() { static_cast<void>(cudaThreadExchangeStreamCaptureMode(&mode)); }
  } now;
  Memory memory(allocate(bytes));
  // From ordinary memory a copy returns when it has been read, not when it has arrived, and streams that do not wait
  // for the default one could begin before.
  PC_CUDA_CHECK(cudaMemcpy(memory, data, bytes, cudaMemcpyHostToDevice));
  PC_CUDA_CHECK(cudaStreamSynchronize(cudaStreamLegacy));
  return memory;
}

bool is_hopper([[maybe_unused]] CudaContext& context) {
#if defined(PC_WITH_HOPPER)
  int major = 0;
  PC_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, context.device));
  return major == 9;
#else
  return false;
#endif
}

bool can_follow() {
  constexpr int kInGraphs = 12030;  // the first CUDA that captures such launches
  int driver = 0;
  PC_CUDA_CHECK(cudaDriverGetVersion(&driver));
  if (std::min(driver, CUDART_VERSION) < kInGraphs) return false;
  cudaFuncAttributes code{};  // that the device runs: as it was built, or made from what was built for an older one
  PC_CUDA_CHECK(cudaFuncGetAttributes(&code, as_built));
  return code.ptxVersion >= 90;
}

std::size_t block_memory(CudaContext& context) {
  int bytes = 0;
  PC_CUDA_CHECK(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, context.device));
  return static_cast<std::size_t>(bytes);
}

}  // namespace cu

CudaContext::CudaContext(int device_index) : device(device_index) {
  PC_CUDA_CHECK(cudaSetDevice(device));
  cudaStream_t new_stream = nullptr;
  PC_CUDA_CHECK(cudaStreamCreateWithFlags(&new_stream, cudaStreamNonBlocking));
  stream = cu::Stream(new_stream);
  blas_workspace = cu::Memory(cu::allocate(kSlots * cu::kBlasWorkspace));
  partials_memory = cu::Memory(cu::allocate(kSlots * kPartials * sizeof(double)));
  cublasHandle_t new_blas = nullptr;
  PC_CUBLAS_CHECK(cublasCreate(&new_blas));
  blas = cu::Blas(new_blas);
  PC_CUBLAS_CHECK(cublasSetStream(blas, stream));
  use_slot(0);  // after the stream, which would reset the workspace
  // float32 products in float32: tensor cores with fewer bits (TF32) have to be asked for, and are not.
  // What is added up is float32 also where the result is not.
  PC_CUBLAS_CHECK(
      cublasSetMathMode(blas, cublasMath_t(CUBLAS_DEFAULT_MATH | CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION)));
  PC_CUBLAS_CHECK(cublasSetAtomicsMode(blas, CUBLAS_ATOMICS_NOT_ALLOWED));
}

void** CudaContext::table(const std::vector<void*>& pointers) {
  PC_CHECK(tables != nullptr, "cuda", "several calls are done by one, outside of a program");
  return tables(pointers);
}

const void* CudaContext::keep(const void* data, std::size_t bytes) {
  if (keeps != nullptr) return keeps(data, bytes);
  kept_.push_back(cu::copy_of(data, bytes));
  return kept_.back();
}

void* CudaContext::scratch(std::size_t bytes) {
  constexpr std::size_t kAlign = 256;
  if (bytes > scratch_bytes_ || scratch_memory_.empty()) {
    scratch_bytes_ = (std::max(bytes, kScratch) + kAlign - 1) / kAlign * kAlign;
    scratch_memory_.emplace_back(cu::allocate(kSlots * scratch_bytes_));
  }
  return static_cast<std::byte*>(scratch_memory_.back().get()) + slot_ * scratch_bytes_;
}

void CudaContext::use_slot(std::size_t slot) {
  slot_ = slot;
  PC_CUBLAS_CHECK(cublasSetWorkspace(blas, static_cast<std::byte*>(blas_workspace.get()) + slot * cu::kBlasWorkspace,
                                     cu::kBlasWorkspace));
}

}  // namespace pc

// Devices: what there is, how one is named, and memory on it.
#include "kernels/exec.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <thread>

#if defined(PC_WITH_CUDA)
#include "kernels/capture.h"
#include "kernels/cuda_context.h"
#else

// A build without CUDA: the same questions, answered once and for all.
namespace pc {
struct CudaContext {
  explicit CudaContext(int) {}
};
namespace cu {
namespace {
std::vector<DeviceInfo> devices(std::string* why_none) {
  if (why_none != nullptr) *why_none = "this build has no CUDA kernels; configure with -DPC_CUDA=ON";
  return {};
}
void* allocate(std::size_t) { fail("exec", "this build has no CUDA kernels; configure with -DPC_CUDA=ON"); }
void release(void*) noexcept {}
void copy_bytes(CudaContext&, void*, const void*, std::size_t) { allocate(0); }
std::size_t block_memory(CudaContext&) { return 0; }
bool is_hopper(CudaContext&) { return false; }
void run_once(CudaContext&, const std::vector<const Call*>&, const std::vector<std::vector<std::size_t>>&, bool) {}
std::shared_ptr<void> capture(CudaContext&, const std::vector<const Call*>&,
                              const std::vector<std::vector<std::size_t>>&) {
  return {};
}
void launch(CudaContext&, void*) { allocate(0); }
}  // namespace
}  // namespace cu
}  // namespace pc
#endif

namespace pc {
namespace {

constexpr std::size_t kAlignment = 64;  // a cache line, and the widest vector register

/// "model name : Intel(R) ..." of /proc/cpuinfo; Arm's has no such line.
std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("model name")) continue;
    const std::size_t colon = line.find(':');
    if (colon != std::string::npos && colon + 2 < line.size()) return line.substr(colon + 2);
  }
  return "unknown processor";
}

DeviceInfo cpu_info() {
  const auto pages = static_cast<std::size_t>(std::max(0L, sysconf(_SC_PHYS_PAGES)));
  const auto page = static_cast<std::size_t>(std::max(0L, sysconf(_SC_PAGE_SIZE)));
  return {.name = "cpu",
          .model = cpu_model(),
          .memory = pages * page,
          .detail = std::to_string(std::thread::hardware_concurrency()) + " hardware threads"};
}

std::string names_of(const std::vector<DeviceInfo>& list) {
  std::string names;
  for (const DeviceInfo& info : list) names += (names.empty() ? "" : ", ") + info.name;
  return names;
}

/// The N of "cuda:N"; "cuda" alone is the first one that there is.
int cuda_index(const std::string& where, const std::vector<DeviceInfo>& gpus) {
  const std::string wanted = where == "cuda" ? gpus.front().name : where;
  const bool there = std::any_of(gpus.begin(), gpus.end(), [&](const DeviceInfo& gpu) { return gpu.name == wanted; });
  PC_CHECK(there, "exec", "there is no device '", wanted, "'; there are: cpu, ", names_of(gpus));
  int index = 0;
  std::from_chars(wanted.data() + std::strlen("cuda:"), wanted.data() + wanted.size(), index);
  return index;
}

bool is_cuda_name(const std::string& where) {
  if (where == "cuda") return true;
  return where.starts_with("cuda:") && where.size() > std::strlen("cuda:") &&
         where.find_first_not_of("0123456789", std::strlen("cuda:")) == std::string::npos;
}

}  // namespace

std::vector<DeviceInfo> devices(std::string* why_no_cuda) {
  std::vector<DeviceInfo> list = cu::devices(why_no_cuda);
  list.insert(list.begin(), cpu_info());
  return list;
}

ExecContext::ExecContext(const std::string& where) : name_("cpu") {
  PC_CHECK(where == "auto" || where == "cpu" || is_cuda_name(where), "exec", "'", where,
           "' names no device; use auto, cpu, cuda or cuda:N");
  if (where == "cpu") return;
  std::string why;
  const std::vector<DeviceInfo> gpus = cu::devices(&why);
  if (where == "auto" && gpus.empty()) return;
  PC_CHECK(!gpus.empty(), "exec", "cannot run on '", where, "': ", why);
  const int index = cuda_index(where == "auto" ? "cuda" : where, gpus);
  cuda_ = std::make_unique<CudaContext>(index);
  name_ = "cuda:" + std::to_string(index);
}

ExecContext::~ExecContext() = default;
ExecContext::ExecContext(ExecContext&&) noexcept = default;
ExecContext& ExecContext::operator=(ExecContext&&) noexcept = default;

Exec ExecContext::exec() const {
  return {.device = cuda_ ? Device::cuda : Device::cpu, .cuda = cuda_.get(), .recorder = nullptr};
}

void ExecContext::wait() const {
  if (cuda_) cu::copy_bytes(*cuda_, nullptr, nullptr, 0);
}

void* allocate(Device device, std::size_t bytes) {
  if (device == Device::cuda) return cu::allocate(bytes);
  const std::size_t rounded = std::max(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  void* memory = rounded < bytes ? nullptr : std::aligned_alloc(kAlignment, rounded);
  if (memory == nullptr) fail_run("exec", "out of memory: asked for ", bytes, " bytes on the CPU");
  return memory;
}

void release(Device device, void* memory) noexcept {
  if (device == Device::cuda) return cu::release(memory);
  std::free(memory);  // NOLINT(cppcoreguidelines-no-malloc): pairs with aligned_alloc
}

void copy_bytes(const Exec& exec, void* to, Device to_device, const void* from, Device from_device, std::size_t bytes) {
  if (bytes == 0) return;
  if (to_device == Device::cpu && from_device == Device::cpu) {
    std::memcpy(to, from, bytes);
    return;
  }
  PC_CHECK(exec.cuda != nullptr, "copy_bytes", "a copy to or from a GPU needs that GPU's ExecContext");
  cu::copy_bytes(*exec.cuda, to, from, bytes);
}

std::size_t block_memory(const Exec& exec) {
  constexpr std::size_t kHopper = std::size_t{227} << 10;
  return exec.cuda == nullptr ? kHopper : cu::block_memory(*exec.cuda);
}

bool is_hopper(const Exec& exec) { return exec.cuda == nullptr || cu::is_hopper(*exec.cuda); }

void run_once(const Exec& exec, const std::vector<const Call*>& calls,
              const std::vector<std::vector<std::size_t>>& dependencies, bool seldom) {
  cu::run_once(*exec.cuda, calls, dependencies, seldom);
}

std::shared_ptr<void> capture(const Exec& exec, const std::vector<const Call*>& calls,
                              const std::vector<std::vector<std::size_t>>& dependencies) {
  return cu::capture(*exec.cuda, calls, dependencies);
}

void launch(const Exec& exec, void* graph) { cu::launch(*exec.cuda, graph); }

}  // namespace pc

// Devices: what there is, and the memory on them.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "kernels/kernel.h"

namespace pc {

struct DeviceInfo {
  std::string name;        // "cpu", "cuda:0"
  std::string model;       // the processor's own name
  std::size_t memory = 0;  // bytes
  std::string detail;      // cores, compute capability
};

/// Every device that this build can run on here; the CPU is first. `why_no_cuda` says why there is no GPU in the list.
std::vector<DeviceInfo> devices(std::string* why_no_cuda = nullptr);

/// A place to run: the device with its stream and library handles. Chosen once and passed down.
class ExecContext {
 public:
  /// `where`: auto (a GPU if there is one), cpu, cuda or cuda:N.
  explicit ExecContext(const std::string& where);
  ~ExecContext();
  ExecContext(ExecContext&&) noexcept;
  ExecContext& operator=(ExecContext&&) noexcept;

  [[nodiscard]] Exec exec() const;
  [[nodiscard]] const std::string& name() const { return name_; }
  /// Waits until the device has done everything that was asked of it.
  void wait() const;

 private:
  std::string name_;
  std::unique_ptr<CudaContext> cuda_;
};

// Memory of a device. Raw: Arena (pc/arena.h) owns what these return.
void* allocate(Device device, std::size_t bytes);  // throws an Error that says how much was asked
void release(Device device, void* memory) noexcept;
/// Copies `bytes` between any two devices; waits until done.
void copy_bytes(const Exec& exec, void* to, Device to_device, const void* from, Device from_device, std::size_t bytes);

/// Bytes of shared memory that a block of the CUDA device may have. The CPU, which needs none, answers as an H200 does,
/// so that plans for either can be compared.
std::size_t block_memory(const Exec& exec);
/// Whether the device is of the one generation that settle_tiles.h has code for (compute capability 9.0), and this
/// build has that code. The CPU says yes, as above.
bool is_hopper(const Exec& exec);

/// Recorded calls on a CUDA device, once or as a graph, for Program: see kernels/capture.h.
void run_once(const Exec& exec, const std::vector<const Call*>& calls,
              const std::vector<std::vector<std::size_t>>& dependencies, bool seldom);
std::shared_ptr<void> capture(const Exec& exec, const std::vector<const Call*>& calls,
                              const std::vector<std::vector<std::size_t>>& dependencies);
void launch(const Exec& exec, void* graph);

}  // namespace pc

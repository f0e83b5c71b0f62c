// All memory of a run: one arena per network, buffers by name, never freed one by one. Its size is reported.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "kernels/exec.h"

namespace pc {

class Arena {
 public:
  explicit Arena(const Exec& exec) : exec_(exec) {}
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  /// The buffer of that name: made (zeroed) at the first call; later calls must ask for the same dtype and no more than
  /// its size, and get its first rows. Throws, with what was asked for and what is held, when the device is out of
  /// memory.
  View take(const std::string& name, const Shape& shape, DType dtype);

  /// Zeroed memory without a name, of which parts are to be buffers; `what` is for messages.
  View reserve(const std::string& what, const Shape& shape, DType dtype);
  /// Makes a part of it the buffer of that name.
  View adopt(const std::string& name, const View& part);

  [[nodiscard]] bool has(const std::string& name) const { return views_.contains(name); }
  [[nodiscard]] const std::map<std::string, View>& views() const { return views_; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }
  [[nodiscard]] const Exec& exec() const { return exec_; }

  /// Copies between a view of this arena and packed host memory of the same dtype; waits.
  void upload(const View& to, const void* from) const;
  void download(const View& from, void* to) const;
  /// Any floating-point view as float64, packed.
  [[nodiscard]] std::vector<double> read(const View& view) const;
  /// A float64 scalar; allocates nothing.
  [[nodiscard]] double read_scalar(const View& view) const;
  void write(const View& view, const std::vector<double>& values) const;
  void zero(const View& view) const;

 private:
  template <class Copy>
  void each_run(const View& view, Copy copy) const;

  Exec exec_;
  std::map<std::string, View> views_;
  std::vector<void*> blocks_;
  std::size_t bytes_ = 0;
  std::byte* free_ = nullptr;  // unused part of the newest block
  std::size_t left_ = 0;
};

}  // namespace pc

#include "experiments/output.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <system_error>

#include "experiments/names.h"
#include "kernels/check.h"

namespace pc::experiments {

namespace fs = std::filesystem;

namespace {

int open_to_write(const fs::path& path, int how) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | how, 0644);
  PC_CHECK(file >= 0, "output", "cannot write ", path.string(), ": ", std::strerror(errno),
           "; its folder must exist and be writable");
  return file;
}

/// What cannot be kept once it is under way is a failure of the run; the user's input was fine.
[[noreturn]] void fail_to_write(const fs::path& path, int error) {
  fail_run("output", "cannot write ", path.string(), ": ", std::strerror(error), "; is there room left on its disk?");
}

/// Writes all of it, waits until it is on disk, and closes the file. Gives the system's error, 0 where there is none.
int write_and_close(int file, std::string_view text) {
  int error = 0;
  while (error == 0 && !text.empty()) {
    const ssize_t done = ::write(file, text.data(), text.size());
    if (done >= 0) {
      text.remove_prefix(static_cast<std::size_t>(done));
    } else if (errno != EINTR) {
      error = errno;
    }
  }
  if (error == 0 && ::fsync(file) != 0) error = errno;
  ::close(file);
  return error;
}

}  // namespace

void check_output(const fs::path& file, const fs::path& config, const std::vector<std::string>& endings) {
  std::error_code ignored;
  PC_CHECK(!fs::equivalent(file, config, ignored), "output", file.string(),
           " is the config itself; name another file to write");
  const bool fits = std::find(endings.begin(), endings.end(), file.extension().string()) != endings.end();
  PC_CHECK(fits || !fs::exists(file, ignored), "output", file.string(),
           " is there, and by its name it is something else; name a new file, or one that ends in ", joined(endings));
}

void write_whole(const fs::path& path, const std::string& text) {
  fs::path beside = path;
  beside += ".tmp";
  int error = write_and_close(open_to_write(beside, O_TRUNC), text);
  if (error == 0 && ::rename(beside.c_str(), path.c_str()) != 0) error = errno;
  if (error == 0) return;
  ::unlink(beside.c_str());
  fail_to_write(path, error);
}

void append(const fs::path& path, const std::string& text) {
  if (const int error = write_and_close(open_to_write(path, O_APPEND), text); error != 0) fail_to_write(path, error);
}

}  // namespace pc::experiments

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
#include "pc/replacement.h"

namespace pc::experiments {

namespace fs = std::filesystem;

namespace {

/// Writes all of it and waits until it is on disk. What cannot be kept once the file is open is a failure of the run;
/// the user's input was fine. `place`: the file that is spoken of.
void write_all(const fs::path& path, int how, std::string_view text, const fs::path& place) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | how, 0644);
  PC_CHECK(file >= 0, "output", "cannot write ", place.string(), ": ", std::strerror(errno),
           "; its folder must exist and be writable");
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
  if (error == 0) return;
  fail_run("output", "cannot write ", place.string(), ": ", std::strerror(error), "; is there room left on its disk?");
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
  Replacement replacement(path);
  write_all(replacement.path(), O_TRUNC, text, path);
  replacement.take_place();
}

void append(const fs::path& path, const std::string& text) { write_all(path, O_APPEND, text, path); }

}  // namespace pc::experiments

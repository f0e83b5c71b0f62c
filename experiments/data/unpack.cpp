#include "experiments/data/unpack.h"

#include <lzma.h>
#include <zlib.h>

#include <algorithm>
#include <memory>

#include "kernels/check.h"

namespace pc::experiments {
namespace {

// 64 MiB is what xz -9 needs; a header may claim 4 GiB.
constexpr std::uint64_t kXzMemory = std::uint64_t{256} << 20;
constexpr int kGzipOnly = 15 + 16;  // zlib's window bits: largest window, gzip header and CRC
constexpr std::size_t kLargestStep = std::size_t{1} << 26;

/// Bytes that grow by doubling up to max_bytes + 1; the one too many tells a file that is too long.
class Output {
 public:
  Output(std::int64_t max_bytes, const std::string& name) : max_(static_cast<std::size_t>(max_bytes)), name_(name) {}

  std::span<std::uint8_t> room() {
    const std::size_t step = std::min(std::clamp(used_, std::size_t{65536}, kLargestStep), max_ + 1 - used_);
    bytes_.resize(used_ + step);
    return std::span(bytes_).subspan(used_);
  }

  void keep(std::size_t n) {
    used_ += n;
    PC_CHECK(used_ <= max_, "data", name_, ": unpacks to more than ", max_, " bytes; it is not the file expected here");
  }

  Bytes finish() {
    bytes_.resize(used_);
    return std::move(bytes_);
  }

 private:
  Bytes bytes_;
  std::size_t used_ = 0, max_;
  const std::string& name_;
};

[[noreturn]] void fail_truncated(const std::string& name, const char* kind, std::size_t size) {
  fail("data", name, ": ", kind, " data end too early, after ", size, " bytes (truncated); fetch the file again");
}

[[noreturn]] void fail_corrupt(const std::string& name, const char* kind, const char* why) {
  fail("data", name, ": corrupt ", kind, " data (", why, "); fetch the file again");
}

const char* xz_reason(lzma_ret code) {
  switch (code) {
    case LZMA_FORMAT_ERROR:
      return "not an xz file";
    case LZMA_OPTIONS_ERROR:
      return "unsupported options";
    case LZMA_MEMLIMIT_ERROR:
      return "needs more memory than any honest file of this kind";
    case LZMA_MEM_ERROR:
      return "out of memory";
    default:
      return "its checksum or its structure is wrong";
  }
}

}  // namespace

Bytes unpack_gzip(std::span<const std::uint8_t> packed, std::int64_t max_bytes, const std::string& name) {
  PC_CHECK(packed.size() <= std::numeric_limits<uInt>::max(), "data", name, ": ", packed.size(),
           " bytes of gzip are more than this program reads");
  z_stream stream{};
  PC_CHECK(inflateInit2(&stream, kGzipOnly) == Z_OK, "data", name, ": cannot start gzip");
  const std::unique_ptr<z_stream, int (*)(z_stream*)> closer(&stream, inflateEnd);
  stream.next_in = const_cast<Bytef*>(packed.data());  // zlib only reads it
  stream.avail_in = static_cast<uInt>(packed.size());
  for (Output output(max_bytes, name);;) {
    const std::span<std::uint8_t> room = output.room();
    stream.next_out = room.data();
    stream.avail_out = static_cast<uInt>(room.size());
    const int code = inflate(&stream, Z_NO_FLUSH);
    output.keep(room.size() - stream.avail_out);
    if (code == Z_BUF_ERROR) fail_truncated(name, "gzip", packed.size());
    if (code != Z_OK && code != Z_STREAM_END) fail_corrupt(name, "gzip", stream.msg ? stream.msg : "unknown reason");
    if (code == Z_STREAM_END && stream.avail_in == 0) return output.finish();
    if (code == Z_STREAM_END) inflateReset(&stream);  // gzip files may be concatenated
  }
}

Bytes unpack_xz(std::span<const std::uint8_t> packed, std::int64_t max_bytes, const std::string& name) {
  lzma_stream stream = LZMA_STREAM_INIT;
  PC_CHECK(lzma_stream_decoder(&stream, kXzMemory, LZMA_CONCATENATED) == LZMA_OK, "data", name, ": cannot start xz");
  const std::unique_ptr<lzma_stream, void (*)(lzma_stream*)> closer(&stream, lzma_end);
  stream.next_in = packed.data();
  stream.avail_in = packed.size();
  for (Output output(max_bytes, name);;) {
    const std::span<std::uint8_t> room = output.room();
    stream.next_out = room.data();
    stream.avail_out = room.size();
    const lzma_ret code = lzma_code(&stream, LZMA_FINISH);
    output.keep(room.size() - stream.avail_out);
    if (code == LZMA_STREAM_END) return output.finish();
    if (code == LZMA_BUF_ERROR) fail_truncated(name, "xz", packed.size());
    if (code != LZMA_OK) fail_corrupt(name, "xz", xz_reason(code));
  }
}

}  // namespace pc::experiments

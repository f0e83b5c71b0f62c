// Decompression in memory, with a limit. `name` is the file's, for messages.
#pragma once

#include <string>

#include "experiments/data/bytes.h"

namespace pc::experiments {

Bytes unpack_gzip(std::span<const std::uint8_t> packed, std::int64_t max_bytes, const std::string& name);
Bytes unpack_xz(std::span<const std::uint8_t> packed, std::int64_t max_bytes, const std::string& name);

}  // namespace pc::experiments

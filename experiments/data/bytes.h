// Whole files into memory: plain, gzip or xz, with a limit so that a lying file cannot exhaust memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace pc::experiments {

using Bytes = std::vector<std::uint8_t>;

inline constexpr std::int64_t kNoLimit = std::numeric_limits<std::int64_t>::max();

/// folder/name, folder/name.gz or folder/name.xz: the first that is a file.
std::optional<std::filesystem::path> find_packed(const std::filesystem::path& folder, const std::string& name);

/// The file as it lies there.
Bytes read_file(const std::filesystem::path& file, std::int64_t max_bytes = kNoLimit);

/// The file unpacked according to its suffix; at most max_bytes + 1 are ever produced.
Bytes read_unpacked(const std::filesystem::path& file, std::int64_t max_bytes);

/// Product of extents >= 0, or nothing if it does not fit.
std::optional<std::int64_t> product(std::span<const std::int64_t> extents);

/// "60000x28x28", for messages.
std::string shape_text(std::span<const std::int64_t> extents);

}  // namespace pc::experiments

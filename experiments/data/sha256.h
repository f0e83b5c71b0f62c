// SHA-256 of bytes in memory (FIPS 180-4).
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace pc::experiments {

/// 64 lower-case hexadecimal digits, as sha256sum prints them.
std::string sha256(std::span<const std::uint8_t> bytes);

}  // namespace pc::experiments

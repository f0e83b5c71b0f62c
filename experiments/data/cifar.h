// CIFAR-10's binary form: records of 3073 bytes and no header.
//   u8 label, 1024 red, 1024 green, 1024 blue; each plane row by row
#pragma once

#include "experiments/data/dataset.h"

namespace pc::experiments {

inline constexpr std::int64_t kCifarRecord = 1 + 3 * 32 * 32;
inline constexpr std::int64_t kCifarFile = 10'000 * kCifarRecord;  // the longest a file may be

/// Reads one file, plain, .gz or .xz. shape {3, 32, 32}.
Examples read_cifar10(const std::filesystem::path& file);

}  // namespace pc::experiments

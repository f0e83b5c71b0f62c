// NumPy .npy files, versions 1 to 3:
//   "\x93NUMPY", u8 major, u8 minor, u16 (version 1) or u32 header length, header, values
//   header: a Python dict {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }, padded with spaces
#pragma once

#include <string>

#include "experiments/data/bytes.h"
#include "experiments/data/dataset.h"

namespace pc::experiments {

enum class NpyType { u1, f4, f8, i4, i8 };

/// An array in C order, little-endian, as the file holds it.
struct NpyArray {
  std::string file;  // for messages
  NpyType type;
  std::vector<std::int64_t> shape;
  Bytes values;
};

NpyArray read_npy(const std::filesystem::path& file);

struct NpyHeader {
  NpyType type;
  std::vector<std::int64_t> shape;
};

/// Parses the dict strictly: each key once, no other keys.
NpyHeader parse_npy_header(std::string_view text, const std::string& file);

}  // namespace pc::experiments

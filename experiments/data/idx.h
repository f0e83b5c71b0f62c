// IDX files: MNIST's format, big-endian.
//   images: u32 2051, u32 count, u32 rows, u32 columns, then count*rows*columns bytes
//   labels: u32 2049, u32 count, then count bytes
#pragma once

#include "experiments/data/dataset.h"

namespace pc::experiments {

struct IdxFiles {
  std::filesystem::path images, labels;  // plain, .gz or .xz
  std::int64_t max_image_bytes, max_label_bytes;
  int classes;
};

/// Reads an image file and its label file; any claim that does not fit the files is an error.
Examples read_idx(const IdxFiles& files);

}  // namespace pc::experiments

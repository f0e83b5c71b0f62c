// Checkpoints: what a run needs to go on with the same bits, in one HDF5 file.
//   attributes  format = "pc-checkpoint", version = 1, dtype of the network
//   config      the resolved config, as text
//   progress/   epoch, batch, seconds, best, data, extra
//   patterns/   a fingerprint of which weights each sparse matrix has
//   mask_fingerprint  and one of the masks of all dense ones
//   buffers/    buffers of the arena under their own names: buffers/w/image->hidden/linear.weight
//
// A name's '/' makes groups. What HDF5 could not keep is escaped, part by part: '%' is written %25, a zero byte %00; a
// part that is "." or ".." %2E or %2E%2E; and a '%' at the end of a part stands for nothing: it marks a part that would
// be empty, and an array that would have the name of a group ("x/a" beside "x/a/b" is x/a%).
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <span>
#include <string>

#include "pc/network.h"

namespace pc {

/// Where a run stands. Everything else in a checkpoint is buffers of the arena.
struct Progress {
  std::int64_t epoch = 0;                                  // epochs finished
  std::int64_t batch = 0;                                  // batches done of the epoch under way
  double seconds = 0;                                      // of work, over all sittings
  double best = -std::numeric_limits<double>::infinity();  // validation score so far; larger is better
  std::int64_t data = 0;                                   // a fingerprint of what was learned from; 0: not known
  std::string extra;                                       // whatever else the task keeps, as text
};

/// Writes the progress, the config and every buffer whose name starts with one of `prefixes`: "w/", which must be among
/// them, the optimiser's, "clock/", and "x/" where values carry over. The file is whole or the old one stays.
void save_checkpoint(const std::filesystem::path& path, const Network& network, std::span<const std::string> prefixes,
                     const Progress& progress, const std::string& config);

/// Loads all buffers of the file into a network of the same graph and dtype; those that it has not made yet are made,
/// and those that the file does not have stay as they are. Nothing is changed unless the whole file fits.
Progress load_checkpoint(const std::filesystem::path& path, Network& network);

}  // namespace pc

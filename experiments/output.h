// Files that the program writes: what they may not replace, and those of text.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace pc::experiments {

/// Throws where a file that a command is to write is the config itself, or is there and is not of the kind (by its
/// ending) that it will be: nothing of the user's is overwritten by a slip.
void check_output(const std::filesystem::path& file, const std::filesystem::path& config,
                  const std::vector<std::string>& endings);

/// Writes a whole file beside its place and renames it there.
void write_whole(const std::filesystem::path& path, const std::string& text);

/// Adds to the end of a file.
void append(const std::filesystem::path& path, const std::string& text);

}  // namespace pc::experiments

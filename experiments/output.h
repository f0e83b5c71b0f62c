// Files of text that the program writes.
#pragma once

#include <filesystem>
#include <string>

namespace pc::experiments {

/// Writes a whole file beside its place and renames it there.
void write_whole(const std::filesystem::path& path, const std::string& text);

/// Adds to the end of a file.
void append(const std::filesystem::path& path, const std::string& text);

}  // namespace pc::experiments

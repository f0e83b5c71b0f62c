// Messages of errors, told again where more is known.
#pragma once

#include <string>

namespace pc {

/// Without the "[who] " in front.
inline std::string bare(const std::string& message) {
  const std::size_t end = message.starts_with('[') ? message.find("] ") : std::string::npos;
  return end == std::string::npos ? message : message.substr(end + 2);
}

}  // namespace pc

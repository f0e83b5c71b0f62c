// Settings that are whole numbers.
#pragma once

#include <charconv>
#include <cmath>
#include <string>

#include "pc/op.h"

namespace pc::ops {

/// From `least` to `most`, of which the former stands in every message and the latter only where it is exceeded.
inline std::int64_t whole_setting(const char* who, const Attrs& attrs, std::string_view name, double least,
                                  double most) {
  const double value = attrs.find(name)->second;
  if (value >= least && value <= most && value == std::floor(value)) return static_cast<std::int64_t>(value);
  const auto digits = [](double number) {
    char text[32];
    return std::string(text, std::to_chars(text, text + sizeof text, number).ptr);
  };
  fail(who, name, " must be a whole number of at least ", digits(least),
       value > most ? " and at most " + digits(most) : "", ", not ", digits(value));
}

}  // namespace pc::ops

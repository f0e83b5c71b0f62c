// Names: the nearest right name for a wrong one, so that a message can say what was probably meant; and how text is
// shown.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace pc::experiments {

/// The known name with the fewest slips (insert, drop, replace, swap; case is no slip) from `wrong`; the first of
/// equals. Empty when every one is further than max(2, a third of `wrong`), or shares nothing with it.
std::string nearest(std::string_view wrong, std::span<const std::string> known);

/// The tail of a message: `; did you mean "x"?`, or `; known: a, b, c`, or nothing when nothing is known.
std::string did_you_mean(std::string_view wrong, std::span<const std::string> known);

/// "a, b, c"
std::string joined(std::span<const std::string> names);

/// ASCII only: enough for keys and the words of YAML.
std::string lower_case(std::string_view text);

/// As a shell takes it for one word.
std::string shell_word(const std::string& text);

/// A byte of a text: itself, "\n", or "byte 200" where it cannot be shown.
std::string character_name(char c);

/// Valid UTF-8: what is none, as a text may be that was cut within a character, becomes U+FFFD.
std::string printable(const std::string& text);

}  // namespace pc::experiments

#include "experiments/names.h"

#include <algorithm>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

namespace pc::experiments {
namespace {

/// Damerau-Levenshtein distance where no piece is edited twice (optimal string alignment): three rows are enough.
std::size_t slips(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before_last, last(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0u : 1u)});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before_last[j - 2] + 1);
    }
    before_last = std::exchange(last, row);
  }
  return last[b.size()];
}

}  // namespace

std::string lower_case(std::string_view text) {
  std::string lowered(text);
  for (char& c : lowered) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lowered;
}

std::string nearest(std::string_view wrong, std::span<const std::string> known) {
  const std::string asked = lower_case(wrong);
  std::size_t least = std::max<std::size_t>(2, asked.size() / 3) + 1;
  std::string found;
  for (const std::string& name : known) {
    const std::size_t distance = slips(asked, lower_case(name));
    // "lr" is two slips from "mu", but replacing every letter is no slip of the pen.
    if (distance >= least || (distance > 0 && distance >= asked.size())) continue;
    least = distance;
    found = name;
  }
  return found;
}

std::string joined(std::span<const std::string> names) {
  std::string text;
  for (const std::string& name : names) text.append(text.empty() ? "" : ", ").append(name);
  return text;
}

std::string did_you_mean(std::string_view wrong, std::span<const std::string> known) {
  if (known.empty()) return "";
  const std::string near = nearest(wrong, known);
  return near.empty() ? "; known: " + joined(known) : "; did you mean \"" + near + "\"?";
}

std::string shell_word(const std::string& text) {
  constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-+:,@%=";
  if (!text.empty() && text.find_first_not_of(kPlain) == std::string::npos) return text;
  std::string word = "'";
  for (const char c : text) word += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return word + "'";
}

std::string character_name(char c) {
  if (c >= 0x20 && c < 0x7F) return {c};
  return c == '\n' ? "\\n" : "byte " + std::to_string(static_cast<unsigned char>(c));
}

std::string printable(const std::string& text) {
  using Json = nlohmann::json;
  return Json::parse(Json(text).dump(-1, ' ', false, Json::error_handler_t::replace)).get<std::string>();
}

}  // namespace pc::experiments

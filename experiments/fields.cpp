#include "experiments/fields.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "experiments/names.h"

namespace pc::experiments {
namespace {

using detail::shown;

const ConfigTree& empty_map() {
  static const ConfigTree empty = ConfigTree::map_of({}, {});
  return empty;
}

[[noreturn]] void fail_type(const ConfigTree& node, const std::string& name, const char* wanted) {
  if (node.is_null()) fail_at(node.place(), name, " has no value; it must be ", wanted, ", or leave the key out");
  const char* hint = node.quoted() ? " in quotes" : "";
  fail_at(node.place(), name, " must be ", wanted, ", not ", shown(node), hint);
}

/// from_chars knows no plus sign.
std::string_view digits_of(const ConfigTree& node) {
  const std::string_view text = node.scalar();
  return text.starts_with('+') && !text.starts_with("+-") ? text.substr(1) : text;
}

template <class T>
std::errc parse_number(std::string_view text, T& value) {
  const auto [stopped, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return stopped == text.data() + text.size() ? error : std::errc::invalid_argument;
}

template <class Whole>
void read_whole(const ConfigTree& node, const std::string& name, Whole& value) {
  if (!node.is_scalar() || node.quoted()) fail_type(node, name, "a whole number");
  using Limits = std::numeric_limits<Whole>;
  std::errc error = parse_number(digits_of(node), value);
  if (error == std::errc::invalid_argument) {  // 6e4 is a whole number too, and -1 reaches here for an unsigned one
    double number = 0;
    error = parse_number(digits_of(node), number);
    if (error == std::errc::invalid_argument || number != std::trunc(number)) fail_type(node, name, "a whole number");
    constexpr double kExact = 9007199254740992.0;  // 2^53: beyond it a double no longer counts in ones
    const double low = std::max(-kExact, static_cast<double>(Limits::min()));
    const double high = std::min(kExact, static_cast<double>(Limits::max()));
    if (!(number >= low && number <= high)) error = std::errc::result_out_of_range;  // inf and nan as well
    if (error == std::errc()) value = static_cast<Whole>(number);
  }
  if (error == std::errc()) return;
  fail_at(node.place(), name, " must be a whole number from ", Limits::min(), " to ", Limits::max(), ", not ",
          node.scalar());
}

constexpr std::pair<std::string_view, bool> kBools[] = {
    {"true", true},   {"yes", true}, {"on", true},   {"1", true},
    {"false", false}, {"no", false}, {"off", false}, {"0", false},
};

}  // namespace

namespace detail {

std::string shown(const ConfigTree& node) {
  constexpr std::size_t kLongest = 40;
  if (node.is_null()) return "nothing";
  if (node.is_list()) return "a list";
  if (node.is_map()) return "a map";
  const std::string& text = node.scalar();
  return '"' + (text.size() > kLongest ? text.substr(0, kLongest) + "..." : text) + '"';
}

std::string shown(double number) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, number).ptr};
}

std::size_t find_name(const ConfigTree& node, const std::string& name, std::span<const std::string> known) {
  if (!node.is_scalar()) fail_type(node, name, ("one of: " + joined(known)).c_str());
  const auto found = std::find(known.begin(), known.end(), node.scalar());
  if (found != known.end()) return static_cast<std::size_t>(found - known.begin());
  fail_at(node.place(), name, " cannot be ", shown(node), did_you_mean(node.scalar(), known));
}

}  // namespace detail

void read_value(const ConfigTree& node, const std::string& name, bool& value) {
  if (node.is_scalar() && !node.quoted()) {
    const std::string word = lower_case(node.scalar());
    for (const auto& [text, meaning] : kBools) {
      if (word != text) continue;
      value = meaning;
      return;
    }
  }
  fail_type(node, name, "true or false");
}

void read_value(const ConfigTree& node, const std::string& name, int& value) { read_whole(node, name, value); }
void read_value(const ConfigTree& node, const std::string& name, std::int64_t& value) { read_whole(node, name, value); }
void read_value(const ConfigTree& node, const std::string& name, std::uint64_t& value) {
  read_whole(node, name, value);
}

void read_value(const ConfigTree& node, const std::string& name, double& value) {
  if (!node.is_scalar() || node.quoted()) fail_type(node, name, "a number");
  double number = 0;
  const std::errc error = parse_number(digits_of(node), number);
  if (error == std::errc::result_out_of_range) {
    fail_at(node.place(), name, " must be a number that a double can hold, not ", node.scalar());
  }
  const std::string word = lower_case(node.scalar());
  const bool endless = word.ends_with("nan") || word.ends_with("inf") || !std::isfinite(number);
  if (error != std::errc() || endless) fail_type(node, name, endless ? "a finite number" : "a number");
  value = number;
}

void read_value(const ConfigTree& node, const std::string& name, std::string& value) {
  if (!node.is_scalar()) fail_type(node, name, "a text");
  value = node.scalar();
}

void read_value(const ConfigTree& node, const std::string& name, std::filesystem::path& value) {
  if (!node.is_scalar() || node.scalar().empty()) fail_type(node, name, "a path");
  value = node.scalar();
}

Choice read_choice(const ConfigTree& node, std::string_view what, std::span<const std::string> known) {
  Choice choice;
  if (node.is_scalar()) {
    choice = {node.scalar(), nullptr, node.place()};
  } else if (node.is_map() && node.entries().size() == 1) {
    const ConfigTree::Entry& only = node.entries().front();
    choice = {only.key, only.value.is_null() ? nullptr : &only.value, only.key_place};
  } else if (node.is_map() && !node.entries().empty()) {
    const ConfigTree::Entry &first = node.entries()[0], &second = node.entries()[1];
    fail_at(second.key_place, what, " has two choices, ", first.key, " at ", first.key_place.text(), " and ",
            second.key, "; keep one");
  } else {
    fail_at(node.place(), what, " must be a name, as in ", known.empty() ? "name" : known.front(),
            " or {name: {...}}, not ", node.is_map() ? "an empty map" : shown(node),
            "; choose one of: ", joined(known));
  }
  if (std::find(known.begin(), known.end(), choice.name) != known.end()) return choice;
  fail_at(choice.place, what, " cannot be \"", choice.name, '"', did_you_mean(choice.name, known));
}

Fields::Fields(const ConfigTree& map, std::string_view what) : map_(&map), what_(what), place_(map.place()) {
  if (!map.is_map()) fail_type(map, what.empty() ? "the config" : what_, "a map");
}

Fields::Fields(const Choice& choice, std::string_view what) : Fields(choice.body ? *choice.body : empty_map(), what) {
  if (!choice.body) place_ = choice.place;
}

const ConfigTree* Fields::child(std::string_view key) {
  if (std::find(known_.begin(), known_.end(), key) == known_.end()) known_.emplace_back(key);
  return map_->find(key);
}

const ConfigTree& Fields::required_child(std::string_view key, std::string_view mended) {
  if (const ConfigTree* node = child(key)) return *node;
  std::vector<std::string> strangers;
  for (const ConfigTree::Entry& e : map_->entries()) {
    if (std::find(known_.begin(), known_.end(), e.key) == known_.end()) strangers.push_back(e.key);
  }
  const std::string near = nearest(key, strangers);
  fail_at(place_, name_of(key), " is missing; ",
          near.empty() ? std::string(mended) : "is \"" + near + "\" meant for it?");
}

void Fields::done() const {
  for (const ConfigTree::Entry& e : map_->entries()) {
    if (std::find(known_.begin(), known_.end(), e.key) != known_.end()) continue;
    fail_at(e.key_place, "unknown key ", name_of(e.key), did_you_mean(e.key, known_),
            known_.empty() ? "; no keys belong here" : "");
  }
}

}  // namespace pc::experiments

// From the tree to structs: every key is asked for by name and type, and what nobody asked for is an error.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "experiments/config_tree.h"

namespace pc::experiments {

/// Which of several things a config asks for: `sgd`, or `{sgd: {rate: 0.1}}`.
struct Choice {
  std::string name;
  const ConfigTree* body = nullptr;  // null: nothing was said about it, so all defaults
  Place place;                       // of the name
};

/// `what` names the choice in messages, as in "relax.optimizer".
Choice read_choice(const ConfigTree& node, std::string_view what, std::span<const std::string> known);

// One value, or an error that says `name` and what was found. A type of one's own joins by another overload of
// read_value beside it; lists and optionals of it then work too.
void read_value(const ConfigTree& node, const std::string& name, bool& value);
void read_value(const ConfigTree& node, const std::string& name, int& value);
void read_value(const ConfigTree& node, const std::string& name, std::int64_t& value);
void read_value(const ConfigTree& node, const std::string& name, std::uint64_t& value);
void read_value(const ConfigTree& node, const std::string& name, double& value);
void read_value(const ConfigTree& node, const std::string& name, std::string& value);
void read_value(const ConfigTree& node, const std::string& name, std::filesystem::path& value);  // kept as written

template <class T>
void read_value(const ConfigTree& node, const std::string& name, std::optional<T>& value);
template <class T>
void read_value(const ConfigTree& node, const std::string& name, std::vector<T>& value);

namespace detail {

/// What was found, for a message: nothing, "many", a list, a map.
std::string shown(const ConfigTree& node);
std::string shown(double number);

std::size_t find_name(const ConfigTree& node, const std::string& name, std::span<const std::string> known);

/// Calls check(number) for a number, or for each number of a list or an optional.
template <class T, class Check>
void each_number(const T& value, const Check& check) {
  if constexpr (std::is_arithmetic_v<T>) {
    check(static_cast<double>(value));
  } else if constexpr (requires { value.has_value(); }) {
    if (value) each_number(*value, check);
  } else {
    for (const auto& one : value) each_number(one, check);
  }
}

}  // namespace detail

/// Reads one map of the tree into a struct and refuses any key nobody asked for. Looks into the tree, which must
/// outlive it. A key that is read twice is fine: require("rate", rate).read_positive("rate", rate).
class Fields {
 public:
  /// `what` names the map in messages, as in "relax"; empty for the root.
  Fields(const ConfigTree& map, std::string_view what);
  Fields(ConfigTree&&, std::string_view) = delete;
  /// A choice without a body is an empty map.
  Fields(const Choice& choice, std::string_view what);

  /// Leaves the default where the key is missing.
  template <class T>
  Fields& read(std::string_view key, T& value) {
    if (const ConfigTree* node = child(key)) read_value(*node, name_of(key), value);
    return *this;
  }

  template <class T>
  Fields& require(std::string_view key, T& value) {
    read_value(required_child(key), name_of(key), value);
    return *this;
  }

  // The ranges hold for what is written, for each element of a list; defaults are the code's own business.
  template <class T>
  Fields& read_in(std::string_view key, T& value, double low, double high) {
    return read_if(
        key, value, [&](double v) { return v >= low && v <= high; },
        "in [" + detail::shown(low) + ", " + detail::shown(high) + "]");
  }
  template <class T>
  Fields& read_positive(std::string_view key, T& value) {
    return read_if(
        key, value, [](double v) { return v > 0; }, "greater than 0");
  }
  template <class T>
  Fields& read_at_least(std::string_view key, T& value, double low) {
    return read_if(
        key, value, [&](double v) { return v >= low; }, "at least " + detail::shown(low));
  }

  template <class Enum>
  Fields& read_enum(std::string_view key, Enum& value,
                    std::type_identity_t<std::span<const std::pair<std::string_view, Enum>>> names) {
    const ConfigTree* node = child(key);
    if (!node) return *this;
    std::vector<std::string> known;
    for (const auto& [name, meaning] : names) known.emplace_back(name);
    value = names[detail::find_name(*node, name_of(key), known)].second;
    return *this;
  }

  /// Marks the key as known; null when it is missing.
  const ConfigTree* child(std::string_view key);
  /// `mended` says what to do where it is missing.
  const ConfigTree& required_child(std::string_view key, std::string_view mended = "add it here");

  /// Call it last: refuses every key that was not asked for.
  void done() const;

  /// "relax.steps"
  [[nodiscard]] std::string name_of(std::string_view key) const { return dotted(what_, key); }
  [[nodiscard]] const Place& place() const { return place_; }

 private:
  template <class T, class Test>
  Fields& read_if(std::string_view key, T& value, const Test& test, const std::string& range) {
    read(key, value);
    const ConfigTree* node = child(key);
    if (!node) return *this;
    detail::each_number(value, [&](double v) {
      if (!test(v)) fail_at(node->place(), name_of(key), " must be ", range, ", not ", detail::shown(v));
    });
    return *this;
  }

  const ConfigTree* map_;
  std::string what_;
  Place place_;
  std::vector<std::string> known_;
};

template <class T>
void read_value(const ConfigTree& node, const std::string& name, std::optional<T>& value) {
  value.reset();
  if (!node.is_null()) read_value(node, name, value.emplace());
}

template <class T>
void read_value(const ConfigTree& node, const std::string& name, std::vector<T>& value) {
  if (!node.is_list()) fail_at(node.place(), name, " must be a list, as in [a, b], not ", detail::shown(node));
  value.clear();
  for (const ConfigTree& item : node.items()) {
    T element{};
    read_value(item, name + "[" + std::to_string(value.size()) + "]", element);
    value.push_back(std::move(element));
  }
}

}  // namespace pc::experiments

// A config as a tree that remembers where each value was written, whatever parents and overrides went over it.
#pragma once

#include <filesystem>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/check.h"

namespace pc::experiments {

/// Where something was written. An override has no line: its file is the assignment itself.
struct Place {
  std::string file;
  int line = 0, column = 0;  // from 1

  /// "configs/mnist.yaml:7:12", or "--set relax.steps=20", or the file alone.
  [[nodiscard]] std::string text() const;
};

template <class... Parts>
[[noreturn]] void fail_at(const Place& place, const Parts&... parts) {
  std::ostringstream text;
  text << place.text() << ": ";
  (text << ... << parts);
  throw Error(text.str());
}

/// One value of a config with everything below it. A value type: never changed in place, copied freely.
class ConfigTree {
 public:
  enum class Kind { null, scalar, list, map };
  struct Entry;

  ConfigTree() = default;
  static ConfigTree null_at(Place place);
  static ConfigTree scalar_of(std::string text, bool quoted, Place place);
  static ConfigTree list_of(std::vector<ConfigTree> items, Place place);
  static ConfigTree map_of(std::vector<Entry> entries, Place place);

  [[nodiscard]] Kind kind() const { return kind_; }
  [[nodiscard]] bool is_null() const { return kind_ == Kind::null; }
  [[nodiscard]] bool is_scalar() const { return kind_ == Kind::scalar; }
  [[nodiscard]] bool is_list() const { return kind_ == Kind::list; }
  [[nodiscard]] bool is_map() const { return kind_ == Kind::map; }

  /// The text as YAML understood it, without quotes. Empty unless a scalar.
  [[nodiscard]] const std::string& scalar() const { return scalar_; }
  /// "8" in quotes is a text and 8 is a number.
  [[nodiscard]] bool quoted() const { return quoted_; }
  [[nodiscard]] const std::vector<ConfigTree>& items() const { return items_; }
  /// In the order they were written.
  [[nodiscard]] const std::vector<Entry>& entries() const { return entries_; }
  /// Null when there is no such key, or when this is no map.
  [[nodiscard]] const Entry* entry(std::string_view key) const;
  [[nodiscard]] const ConfigTree* find(std::string_view key) const;

  [[nodiscard]] const Place& place() const { return place_; }
  /// From the root of the config: "graph.edges[2].op". The root's own path is empty.
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  void set_paths(std::string path);

  Kind kind_ = Kind::null;
  bool quoted_ = false;
  std::string scalar_, path_;
  std::vector<ConfigTree> items_;
  std::vector<Entry> entries_;
  Place place_;
};

struct ConfigTree::Entry {
  std::string key;
  Place key_place;
  ConfigTree value;
};

/// "relax" and "steps" make "relax.steps"; nothing and "steps" make "steps".
std::string dotted(std::string_view path, std::string_view key);

/// The map without that key.
ConfigTree without(const ConfigTree& map, std::string_view key);

/// One YAML document. `file` is only what places say. Duplicate keys, tags and `<<` are errors; parents stay unread.
ConfigTree parse_config(const std::string& text, const std::string& file);

/// A config file with its chain of parents laid under it; the key `parent` itself is gone. A parent is looked for
/// beside the file that names it, then in the nearest enclosing folder called "configs".
ConfigTree load_config(const std::filesystem::path& path);

/// Whether the map at this dotted path is a choice: its one key says which of several things it is.
bool is_choice_map(std::string_view path);

/// `child` laid over `parent`, map by map. What is no map is replaced whole; a null removes the parent's key; a choice
/// map that chooses something else replaces the parent's whole.
ConfigTree overlaid(const ConfigTree& parent, const ConfigTree& child,
                    bool (*is_choice)(std::string_view path) = is_choice_map);

/// Lays "a.b.c=value" over `root`; the value is YAML. "graph.edges[2].op" and "graph.edges.2.op" reach into a list; a
/// null removes the key or the element.
void set_override(ConfigTree& root, std::string_view assignment);

/// Block style, with what is short in flow style. parse_config of it has the same values, in the same order.
std::string to_yaml(const ConfigTree& tree);

/// On one line.
std::string to_flow(const ConfigTree& tree);

/// Equal but for places, the order of keys, and quotes that change nothing ("sgd" is sgd, but "8" is not 8).
bool same_values(const ConfigTree& a, const ConfigTree& b);

}  // namespace pc::experiments

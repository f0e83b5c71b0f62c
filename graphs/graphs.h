// Networks that people name: each a function from settings to nodes and edges. Knows no files and no command line.
#pragma once

#include <cstdint>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "pc/graph.h"

namespace pc::graphs {

/// Edges between numbered nodes, from from[i] to to[i].
struct EdgeList {
  std::int64_t nodes = 0;
  bool least_nodes = false;  // there may be more, which have no edges
  std::vector<std::int32_t> from, to;
};

/// What a network reads its settings from. The program implements it over a config; a key that no network asks for is
/// an error there. Each call gives the value of `key`, or the fallback where it is not set.
class Settings {
 public:
  virtual ~Settings() = default;
  virtual std::vector<std::int64_t> integers(std::string_view key) = 0;  // required
  virtual std::vector<std::int64_t> integers_or(std::string_view key, std::vector<std::int64_t> fallback) = 0;
  virtual std::string text(std::string_view key, std::string_view fallback) = 0;
  virtual double number(std::string_view key, double fallback) = 0;
  virtual bool flag(std::string_view key, bool fallback) = 0;
  virtual OpSpec op(std::string_view key, std::string_view fallback) = 0;
  /// Which of several known things a setting names, with the settings of that one, which live as long as these.
  struct Choice {
    std::string name;
    Settings* settings;
  };
  virtual Choice choice(std::string_view key, std::span<const std::string> known, std::string_view fallback) = 0;
  /// What a setting stands for; required. The program reads it from a file.
  virtual EdgeList edge_list(std::string_view key) = 0;
  /// An error that names `key`, and the place where it is set, unless `fine`.
  template <class... Parts>
  void check(bool fine, std::string_view key, const Parts&... parts) {
    if (fine) return;
    std::ostringstream text;
    (text << ... << parts);
    refuse(key, text.str());
  }
  /// Of the experiment: a network that draws anything depends on it alone.
  [[nodiscard]] virtual std::uint64_t seed() const = 0;
  /// Where the settings stand, for messages and for the nodes made from them.
  [[nodiscard]] virtual std::string place() const = 0;

 protected:
  [[noreturn]] virtual void refuse(std::string_view key, const std::string& text) = 0;
  Settings() = default;
  Settings(const Settings&) = default;
  Settings& operator=(const Settings&) = default;
};

struct Description {
  std::vector<NodeSpec> nodes;
  std::vector<EdgeSpec> edges;
};

struct Network {
  std::string_view name;
  std::string_view about;
  std::string_view keys;  // what it reads, one a line
  Description (*make)(Settings&);
};

std::span<const Network* const> all_networks();

}  // namespace pc::graphs

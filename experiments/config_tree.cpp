#include "experiments/config_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <map>
#include <span>
#include <utility>

#include "experiments/names.h"

namespace pc::experiments {

namespace fs = std::filesystem;
using Entry = ConfigTree::Entry;
using Kind = ConfigTree::Kind;

// ---- the tree

std::string Place::text() const {
  if (line == 0) return file;
  return file + ":" + std::to_string(line) + ":" + std::to_string(column);
}

std::string dotted(std::string_view path, std::string_view key) {
  return std::string(path).append(path.empty() ? "" : ".").append(key);
}

ConfigTree ConfigTree::null_at(Place place) {
  ConfigTree tree;
  tree.place_ = std::move(place);
  return tree;
}

ConfigTree ConfigTree::scalar_of(std::string text, bool quoted, Place place) {
  ConfigTree tree = null_at(std::move(place));
  tree.kind_ = Kind::scalar;
  tree.scalar_ = std::move(text);
  tree.quoted_ = quoted;
  return tree;
}

ConfigTree ConfigTree::list_of(std::vector<ConfigTree> items, Place place) {
  ConfigTree tree = null_at(std::move(place));
  tree.kind_ = Kind::list;
  tree.items_ = std::move(items);
  tree.set_paths("");
  return tree;
}

ConfigTree ConfigTree::map_of(std::vector<Entry> entries, Place place) {
  ConfigTree tree = null_at(std::move(place));
  tree.kind_ = Kind::map;
  tree.entries_ = std::move(entries);
  tree.set_paths("");
  return tree;
}

void ConfigTree::set_paths(std::string path) {
  path_ = std::move(path);
  for (std::size_t i = 0; i < items_.size(); ++i) items_[i].set_paths(path_ + "[" + std::to_string(i) + "]");
  for (Entry& e : entries_) e.value.set_paths(dotted(path_, e.key));
}

const Entry* ConfigTree::entry(std::string_view key) const {
  const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.key == key; });
  return found == entries_.end() ? nullptr : &*found;
}

const ConfigTree* ConfigTree::find(std::string_view key) const {
  const Entry* found = entry(key);
  return found ? &found->value : nullptr;
}

// ---- parsing

namespace {

/// Builds our tree from the parser's events. YAML::Node would lose the marks in its copies, and hide duplicate keys.
class TreeBuilder final : public YAML::EventHandler {
 public:
  /// `where` with a line of 0 is the place of everything (an override); otherwise marks are places in its file.
  TreeBuilder(const std::string& text, Place where) : text_(text), where_(std::move(where)) {}

  [[nodiscard]] const ConfigTree& root() const { return root_; }

  [[nodiscard]] Place at(const YAML::Mark& mark) const {
    if (where_.line == 0 || mark.is_null()) return where_;
    return {where_.file, mark.line + 1, mark.column + 1};
  }

  /// Where to look when the parser gives up: the innermost list or map that is still open.
  [[nodiscard]] std::string still_open() const {
    if (open_.empty() || where_.line == 0) return "";
    return std::string("; see the ") + (open_.back().is_map ? "map" : "list") + " that starts at " +
           open_.back().place.text();
  }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { add(ConfigTree::null_at(at(mark)), anchor); }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& text) override {
    const bool plain = tag.empty() || tag == "?";
    if (!plain && tag != "!" && tag != "tag:yaml.org,2002:str") {
      fail_at(at(mark), "the tag ", tag, " means nothing here; remove it");
    }
    check_closed(mark);
    add(ConfigTree::scalar_of(text, !plain, at(mark)), anchor);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) fail_at(at(mark), "this alias stands inside its own anchor");
    add(found->second, YAML::NullAnchor);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open_.push_back({.is_map = false, .place = at(mark), .anchor = anchor});
  }
  void OnSequenceEnd() override { close(); }

  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open_.push_back({.is_map = true, .place = at(mark), .anchor = anchor});
  }
  void OnMapEnd() override { close(); }

 private:
  struct Open {
    bool is_map;
    Place place;
    YAML::anchor_t anchor;
    std::vector<ConfigTree> items = {};
    std::vector<Entry> entries = {};
    bool has_key = false;  // the last entry waits for its value
  };

  void close() {
    Open done = std::move(open_.back());
    open_.pop_back();
    add(done.is_map ? ConfigTree::map_of(std::move(done.entries), done.place)
                    : ConfigTree::list_of(std::move(done.items), done.place),
        done.anchor);
  }

  void add(ConfigTree tree, YAML::anchor_t anchor) {
    if (anchor != YAML::NullAnchor) anchors_[anchor] = tree;
    if (open_.empty()) {
      root_ = std::move(tree);
    } else if (Open& top = open_.back(); !top.is_map) {
      top.items.push_back(std::move(tree));
    } else if (top.has_key) {
      Entry& waiting = top.entries.back();
      // The parser marks a value that is not there by whatever comes next.
      const bool absent = tree.is_null() && tree.place().line != waiting.key_place.line;
      waiting.value = absent ? ConfigTree::null_at(waiting.key_place) : std::move(tree);
      top.has_key = false;
    } else {
      add_key(top, tree);
    }
  }

  /// yaml-cpp 0.7 takes the end of the file for a closing quote, and would swallow every key on the way there.
  void check_closed(const YAML::Mark& mark) const {
    const std::size_t open = mark.is_null() ? text_.size() : static_cast<std::size_t>(mark.pos);
    if (open >= text_.size() || (text_[open] != '"' && text_[open] != '\'')) return;
    const std::string_view rest = std::string_view(text_).substr(open + 1), escape = text_[open] == '"' ? "\\" : "''";
    for (std::size_t i = 0; i < rest.size(); ++i) {
      if (rest.substr(i).starts_with(escape)) {
        ++i;
      } else if (rest[i] == text_[open]) {
        return;
      }
    }
    fail_at(at(mark), "the quote that opens here is never closed");
  }

  static void add_key(Open& map, const ConfigTree& key) {
    if (!key.is_scalar()) fail_at(key.place(), "a key must be a name");
    if (key.scalar() == "<<" && !key.quoted()) {
      fail_at(key.place(), "merge keys (<<) are not read; inherit with \"parent: other.yaml\"");
    }
    for (const Entry& e : map.entries) {
      if (e.key != key.scalar()) continue;
      fail_at(key.place(), "the key ", e.key, " is already set at ", e.key_place.text(), "; remove one of them");
    }
    map.entries.push_back({key.scalar(), key.place(), {}});
    map.has_key = true;
  }

  const std::string& text_;
  Place where_;
  ConfigTree root_;
  std::vector<Open> open_;
  std::map<YAML::anchor_t, ConfigTree> anchors_;
};

ConfigTree parse_at(const std::string& text, const Place& where) {
  TreeBuilder builder(text, where);
  try {
    std::istringstream in(text);
    YAML::Parser parser(in);
    if (!parser.HandleNextDocument(builder)) return ConfigTree::null_at(where);
    ConfigTree tree = builder.root();
    if (parser.HandleNextDocument(builder)) {
      fail_at(builder.root().place(),
              "the config has ended before this; check the indentation, and keep one document in a file");
    }
    return tree;
  } catch (const YAML::Exception& e) {
    fail_at(builder.at(e.mark), "this is not YAML: ", e.msg, builder.still_open());
  }
}

// ---- files and their parents

std::vector<std::string> configs_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& file : fs::directory_iterator(folder.empty() ? "." : folder, ignored)) {
    if (file.path().extension() == ".yaml") names.push_back(file.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

/// "no such file" with the nearest one of its folder.
std::string not_there(const fs::path& path) {
  std::error_code ignored;
  const fs::path folder = path.parent_path();
  if (!folder.empty() && !fs::is_directory(folder, ignored)) return "no such file: no folder " + folder.string();
  fs::path name = path.filename();
  if (!name.has_extension()) name += ".yaml";
  return "no such file" + did_you_mean(name.string(), configs_in(folder));
}

std::string content_of(const fs::path& path) {
  const Place place{path.string()};
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    const std::vector<std::string> names = configs_in(path);
    fail_at(place, "this is a folder, not a config", names.empty() ? "" : "; choose one of: ", joined(names));
  }
  if (!fs::exists(path, ignored)) fail_at(place, not_there(path));
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  if (!in.is_open() || in.bad()) fail_at(place, "the file is there but cannot be read");
  return text.str();
}

fs::path parent_of(const fs::path& file, const ConfigTree& parent) {
  if (!parent.is_scalar() || parent.scalar().empty()) {
    fail_at(parent.place(), "parent must be the name of one file, as in \"parent: base.yaml\"");
  }
  const fs::path beside = (file.parent_path() / parent.scalar()).lexically_normal();
  std::error_code ignored;
  if (fs::exists(beside, ignored)) return beside;
  for (fs::path folder = fs::absolute(file).parent_path(); folder.has_relative_path(); folder = folder.parent_path()) {
    if (folder.filename() != "configs") continue;
    const fs::path above = folder.lexically_proximate(fs::current_path()) / parent.scalar();
    if (fs::exists(above, ignored)) return above.lexically_normal();
    break;
  }
  fail_at(parent.place(), "parent ", beside.string(), ": ", not_there(beside));
}

void check_no_loop(std::span<const fs::path> chain, const fs::path& next, const Place& place) {
  const auto same = [&](const fs::path& file) { return fs::weakly_canonical(file) == fs::weakly_canonical(next); };
  if (std::none_of(chain.begin(), chain.end(), same)) return;
  std::string names;
  for (const fs::path& file : chain) names += file.string() + " -> ";
  fail_at(place, "the parents make a loop: ", names, next.string());
}

ConfigTree load_chain(std::vector<fs::path> chain) {
  const fs::path file = chain.back();
  ConfigTree tree = parse_config(content_of(file), file.string());
  if (tree.is_null()) fail_at(tree.place(), "the file is empty; a config is a map, as in \"name: first\"");
  if (!tree.is_map()) fail_at(tree.place(), "a config is a map of keys, as in \"name: first\"");
  const ConfigTree* named = tree.find("parent");
  if (!named || named->is_null()) return without(tree, "parent");
  const fs::path parent = parent_of(file, *named);
  check_no_loop(chain, parent, named->place());
  chain.push_back(parent);
  return overlaid(load_chain(std::move(chain)), without(tree, "parent"));
}

}  // namespace

ConfigTree without(const ConfigTree& map, std::string_view key) {
  std::vector<Entry> kept = map.entries();
  std::erase_if(kept, [&](const Entry& e) { return e.key == key; });
  return ConfigTree::map_of(std::move(kept), map.place());
}

ConfigTree parse_config(const std::string& text, const std::string& file) { return parse_at(text, {file, 1, 1}); }

ConfigTree load_config(const fs::path& path) { return load_chain({path}); }

// ---- overlays

namespace {

/// The maps whose one key chooses: {mlp: {...}} is one of the networks, {sgd: {...}} one of the optimizers. In any
/// other map a child's keys join its parent's; here another key means another choice, so the parent's must go.
constexpr std::array<std::string_view, 11> kChoiceMaps = {
    "graph",           "task",       "init",       "relax.schedule",  "graph.pc_graph.topology",
    "relax.optimizer", "relax.init", "relax.stop", "relax.precision", "learn.optimizer",
    "learn.rate",
};

/// A graph that is written out has two keys, which are one choice: either may be changed alone.
std::string_view choice_of(std::string_view key) { return key == "edges" ? "nodes" : key; }

/// `unroll` stands beside the choice of a graph and chooses nothing.
bool chooses(const Entry& entry) { return entry.key != "unroll"; }

bool chooses_another(const ConfigTree& parent, const ConfigTree& child) {
  bool any = false;
  for (const Entry& ours : child.entries()) {
    if (!chooses(ours)) continue;
    any = true;
    for (const Entry& theirs : parent.entries()) {
      if (choice_of(ours.key) == choice_of(theirs.key)) return false;
    }
  }
  return any;
}

ConfigTree overlaid_at(const std::string& path, const ConfigTree& parent, const ConfigTree& child,
                       bool (*is_choice)(std::string_view)) {
  if (!parent.is_map() || !child.is_map()) return child;
  if (is_choice(path) && chooses_another(parent, child)) return child;
  std::vector<Entry> merged;
  for (const Entry& old : parent.entries()) {
    const Entry* over = child.entry(old.key);
    if (!over) {
      merged.push_back(old);
    } else if (!over->value.is_null()) {
      const std::string inner = dotted(path, old.key);
      const bool within = over->key_place.line == 0 && old.value.is_map() && over->value.is_map();
      merged.push_back(
          {old.key, within ? old.key_place : over->key_place, overlaid_at(inner, old.value, over->value, is_choice)});
    }
  }
  for (const Entry& e : child.entries()) {
    if (!parent.entry(e.key)) merged.push_back(e);
  }
  // An override touches one key: its sections, and what is missing beside it, are still best looked for in the file.
  return ConfigTree::map_of(std::move(merged), child.place().line > 0 ? child.place() : parent.place());
}

/// One step of an override's path: a name, or the number of a list's element.
struct Step {
  std::string name;
  bool in_brackets = false;
};

/// "graph.edges[2].op" as graph, edges, 2, op; empty when it cannot be read.
std::vector<Step> steps_of(std::string_view path) {
  std::vector<Step> steps;
  while (true) {
    const std::size_t end = path.find_first_of(".[");
    const std::string_view name = path.substr(0, end);
    if (name.empty() || name.find_first_of("] ") != name.npos) return {};
    steps.push_back({std::string(name)});
    path.remove_prefix(name.size());
    while (path.starts_with('[')) {
      const std::size_t close = path.find(']');
      if (close == path.npos || close == 1) return {};
      steps.push_back({std::string(path.substr(1, close - 1)), true});
      path.remove_prefix(close + 1);
    }
    if (path.empty()) return steps;
    if (!path.starts_with('.')) return {};
    path.remove_prefix(1);
  }
}

std::size_t index_of(const Step& step, const ConfigTree& list, const Place& place) {
  std::size_t index = 0;
  const char* end = step.name.data() + step.name.size();
  const auto [stopped, error] = std::from_chars(step.name.data(), end, index);
  const bool number = error == std::errc() && stopped == end;
  if (number && index < list.items().size()) return index;
  fail_at(place, list.path(), " is a list of ", list.items().size(), " and has no element ", step.name,
          list.items().empty() ? "" : "; the first is " + list.path() + "[0]");
}

/// The smallest tree that, laid over `old`, puts `value` where the steps lead. A list has to be given whole.
ConfigTree change_for(const ConfigTree* old, std::span<const Step> steps, const ConfigTree& value) {
  if (steps.empty()) return value;
  const Step& step = steps.front();
  if (old && old->is_list()) {
    std::vector<ConfigTree> items = old->items();
    const std::size_t index = index_of(step, *old, value.place());
    ConfigTree& item = items[index];
    item = overlaid_at(item.path(), item, change_for(&item, steps.subspan(1), value), is_choice_map);
    if (item.is_null()) items.erase(items.begin() + static_cast<std::ptrdiff_t>(index));
    return ConfigTree::list_of(std::move(items), old->place());
  }
  if (step.in_brackets) fail_at(value.place(), "there is no list to take [", step.name, "] of");
  const ConfigTree* inner = old ? old->find(step.name) : nullptr;
  return ConfigTree::map_of({{step.name, value.place(), change_for(inner, steps.subspan(1), value)}}, value.place());
}

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\n");
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\n") - first + 1);
}

}  // namespace

bool is_choice_map(std::string_view path) {
  return std::find(kChoiceMaps.begin(), kChoiceMaps.end(), path) != kChoiceMaps.end();
}

ConfigTree overlaid(const ConfigTree& parent, const ConfigTree& child, bool (*is_choice)(std::string_view)) {
  return overlaid_at("", parent, child, is_choice);
}

void set_override(ConfigTree& root, std::string_view assignment) {
  const Place place{"--set " + std::string(assignment)};
  const std::size_t equals = assignment.find('=');
  const std::vector<Step> steps = steps_of(trimmed(assignment.substr(0, equals)));
  if (equals == assignment.npos || steps.empty()) {
    fail_at(place, "an override has the form a.b.c=value, as in --set relax.steps=20");
  }
  const std::string text(trimmed(assignment.substr(equals + 1)));
  if (text.empty()) fail_at(place, "no value after \"=\"; write ~ to remove the key, or \"\" for an empty text");
  if (text.starts_with('#')) fail_at(place, "# starts a comment; put the value in quotes");
  root = overlaid(root, change_for(&root, steps, parse_at(text, place)));
}

// ---- writing

namespace {

constexpr std::size_t kLineWidth = 100;
constexpr int kFlowDepth = 2;  // a third brace on one line is one too many for the eye

bool reads_as_null(std::string_view text) { return text.empty() || text == "~" || lower_case(text) == "null"; }

/// Whether the text, unquoted, would be a number, a yes or no, or nothing, for us or for another YAML reader.
bool reads_as_no_text(std::string_view text) {
  if (reads_as_null(text)) return true;
  constexpr std::array<std::string_view, 12> kWords = {"true", "false", "yes", "no",   "on",   "off",
                                                       "y",    "n",     "nan", ".nan", ".inf", "inf"};
  const std::size_t sign = text.front() == '+' || text.front() == '-' ? 1 : 0;
  const std::string bare = lower_case(text.substr(sign));
  if (std::find(kWords.begin(), kWords.end(), bare) != kWords.end()) return true;
  const bool starts = !bare.empty() && ((bare[0] >= '0' && bare[0] <= '9') || bare[0] == '.');
  return starts && bare.find_first_not_of("0123456789abcdefxo_.:+-") == bare.npos;
}

/// Whether the text, unquoted, comes back as it is, in block and in flow style.
bool can_be_plain(std::string_view text) {
  if (text.empty() || text == "<<" || text.front() == ' ' || text.back() == ' ' || text.back() == ':') return false;
  if (std::string_view(":,[]{}#&*!|>'\"%@`=").find(text.front()) != text.npos) return false;
  if (text == "-" || text.starts_with("- ") || text.starts_with("--") || text.starts_with("...")) return false;
  if (text.find_first_of(",[]{}?") != text.npos) return false;  // yaml-cpp ends a plain text of flow style at any "?"
  if (text.find(": ") != text.npos || text.find(" #") != text.npos) return false;
  return std::none_of(text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
}

std::string in_quotes(std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted.append({'\\', c});
    } else if (c == '\n' || c == '\t') {
      quoted.append({'\\', c == '\n' ? 'n' : 't'});
    } else if (byte < 0x20 || byte == 0x7f) {
      quoted.append({'\\', 'x', kHex[byte / 16], kHex[byte % 16]});
    } else {
      quoted += c;
    }
  }
  return quoted + '"';
}

std::string key_text(const std::string& key) { return can_be_plain(key) && !reads_as_null(key) ? key : in_quotes(key); }

std::string flow(const ConfigTree& tree) {
  const std::string& text = tree.scalar();
  if (tree.is_null()) return "~";
  if (tree.is_scalar())
    return can_be_plain(text) && !(tree.quoted() && reads_as_no_text(text)) ? text : in_quotes(text);
  std::string inside;
  for (const ConfigTree& item : tree.items()) inside.append(inside.empty() ? "" : ", ").append(flow(item));
  for (const Entry& e : tree.entries()) {
    inside.append(inside.empty() ? "" : ", ").append(key_text(e.key)).append(": ").append(flow(e.value));
  }
  return tree.is_list() ? '[' + inside + ']' : '{' + inside + '}';
}

int depth(const ConfigTree& tree) {
  int below = 0;
  for (const ConfigTree& item : tree.items()) below = std::max(below, depth(item));
  for (const Entry& e : tree.entries()) below = std::max(below, depth(e.value));
  return below + (tree.is_list() || tree.is_map() ? 1 : 0);
}

std::string block(const ConfigTree& tree, std::size_t indent) {
  const std::string pad(indent, ' ');
  std::string out;
  const auto add = [&](const std::string& head, const ConfigTree& value, bool opens_line) {
    const std::string line = flow(value);
    const bool leaf = value.items().empty() && value.entries().empty();
    if (leaf || (depth(value) <= kFlowDepth && indent + head.size() + 1 + line.size() <= kLineWidth)) {
      out += pad + head + ' ' + line + '\n';
    } else if (opens_line) {
      out += pad + head + '\n' + block(value, indent + 2);
    } else {
      out += pad + "- " + block(value, indent + 2).substr(indent + 2);
    }
  };
  for (const ConfigTree& item : tree.items()) add("-", item, false);
  for (const Entry& e : tree.entries()) add(key_text(e.key) + ":", e.value, true);
  return out.empty() ? flow(tree) + '\n' : out;
}

}  // namespace

std::string to_yaml(const ConfigTree& tree) { return block(tree, 0); }

std::string to_flow(const ConfigTree& tree) { return flow(tree); }

bool same_values(const ConfigTree& a, const ConfigTree& b) {
  if (a.kind() != b.kind() || a.scalar() != b.scalar()) return false;
  if (a.items().size() != b.items().size() || a.entries().size() != b.entries().size()) return false;
  if (a.is_scalar() && a.quoted() != b.quoted() && reads_as_no_text(a.scalar())) return false;
  return std::equal(a.items().begin(), a.items().end(), b.items().begin(), same_values) &&
         std::all_of(a.entries().begin(), a.entries().end(), [&](const Entry& e) {
           const ConfigTree* other = b.find(e.key);
           return other && same_values(e.value, *other);
         });
}

}  // namespace pc::experiments

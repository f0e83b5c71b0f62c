// Configs: places, parents, overlays, overrides, writing back, and every message a user may meet.
#include "experiments/config_tree.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <fstream>
#include <random>

#include "experiments/fields.h"
#include "experiments/names.h"

namespace {

namespace fs = std::filesystem;
using namespace pc::experiments;
using Names = std::vector<std::string>;

ConfigTree parsed(const std::string& text) { return parse_config(text, "x.yaml"); }

template <class Body>
std::string message_of(const Body& body) {
  try {
    body();
  } catch (const pc::Error& e) {
    return e.what();
  }
  return "(no error)";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

/// CHECK that prints the whole message when a part is missing.
void check_message(const std::string& message, std::initializer_list<const char*> parts) {
  CAPTURE(message);
  for (const std::string part : parts) {
    CAPTURE(part);
    CHECK(contains(message, part));
  }
}

std::string parse_error(const std::string& text) {
  return message_of([&] { parsed(text); });
}

template <class T>
T value_of(const std::string& text) {
  const ConfigTree tree = parsed(text);
  T value{};
  Fields(tree, "relax").require("v", value).done();
  return value;
}

template <class T>
std::string read_error(const std::string& text) {
  return message_of([&] { value_of<T>(text); });
}

/// A folder of configs that goes away with the test.
class Folder {
 public:
  Folder() : root_(fs::temp_directory_path() / ("pc_config_test_" + std::to_string(::getpid()))) {
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  ~Folder() { fs::remove_all(root_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  fs::path add(const fs::path& name, const std::string& text) const {
    fs::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name) << text;
    return root_ / name;
  }
  [[nodiscard]] fs::path operator/(const fs::path& name) const { return root_ / name; }
  [[nodiscard]] std::string load_error(const fs::path& name) const {
    return message_of([&] { load_config(root_ / name); });
  }

 private:
  fs::path root_;
};

std::string overlay(const std::string& parent, const std::string& child) {
  return to_yaml(overlaid(parsed(parent), parsed(child)));
}

std::string with_set(const std::string& text, std::initializer_list<const char*> assignments) {
  ConfigTree tree = parsed(text);
  for (const char* assignment : assignments) set_override(tree, assignment);
  return to_yaml(tree);
}

std::string set_error(const std::string& text, const char* assignment) {
  return message_of([&] { with_set(text, {assignment}); });
}

}  // namespace

TEST_CASE("names: the nearest by insert, drop, replace and swap, whatever the case") {
  const Names known = {"steps", "rate", "momentum", "sgd"};
  CHECK(nearest("step", known) == "steps");
  CHECK(nearest("stpes", known) == "steps");
  CHECK(nearest("RATE", known) == "rate");
  CHECK(nearest("momentun", known) == "momentum");
  CHECK(nearest("mmentuum", known) == "momentum");
  CHECK(nearest("schedule", known).empty());
  CHECK(nearest("xy", Names{"lr", "mu"}).empty());
  CHECK(nearest("", known).empty());
  CHECK(did_you_mean("step", known) == "; did you mean \"steps\"?");
  CHECK(did_you_mean("zzzzzz", known) == "; known: steps, rate, momentum, sgd");
  CHECK(did_you_mean("step", Names{}).empty());
}

TEST_CASE("parsing: kinds, order, places, paths, quotes") {
  const ConfigTree tree =
      parsed("name: a\ngraph:\n  nodes: {x: {shape: [784]}}\n  edges:\n    - {op: linear}\nz: ~\ne:\n");
  REQUIRE(tree.is_map());
  CHECK(tree.entries()[1].key == "graph");
  CHECK(tree.place().text() == "x.yaml:1:1");
  const ConfigTree& graph = *tree.find("graph");
  CHECK(tree.entry("graph")->key_place.text() == "x.yaml:2:1");
  const ConfigTree& op = *graph.find("edges")->items()[0].find("op");
  CHECK(op.path() == "graph.edges[0].op");
  CHECK(op.place().text() == "x.yaml:5:12");
  CHECK(op.scalar() == "linear");
  CHECK_FALSE(op.quoted());
  CHECK(graph.find("nodes")->find("x")->find("shape")->items()[0].path() == "graph.nodes.x.shape[0]");
  CHECK(tree.find("z")->is_null());
  CHECK(tree.find("z")->place().text() == "x.yaml:6:4");
  CHECK(tree.find("e")->is_null());
  CHECK(tree.find("e")->place().line == 7);
  CHECK(tree.find("nothing") == nullptr);
  CHECK(op.find("nothing") == nullptr);
  CHECK(parsed("a: \"8\"").find("a")->quoted());
  CHECK(parsed("a: '8'").find("a")->quoted());
  CHECK(parsed("ü: 'it''s'\nb: \"\\\"\"").find("b")->scalar() == "\"");
  CHECK(parsed("a: !!str 8").find("a")->quoted());
}

TEST_CASE("parsing: anchors and aliases are copies") {
  const ConfigTree tree = parsed("a: &x {b: [1, 2]}\nc: *x\nd: {e: *x}\n");
  CHECK(same_values(*tree.find("a"), *tree.find("c")));
  CHECK(tree.find("d")->find("e")->find("b")->items()[1].path() == "d.e.b[1]");
}

TEST_CASE("parsing: what is refused says where") {
  check_message(parse_error("a: 1\nb: {c: 2, c: 3}\n"), {"x.yaml:2:11:", "key c", "already set at x.yaml:2:5"});
  check_message(parse_error("a: 1\na: 2\n"), {"x.yaml:2:1:", "x.yaml:1:1"});
  check_message(parse_error("a: [1, 2\nb: 3\n"), {"x.yaml:2:2:", "not YAML", "see the list that starts at x.yaml:1:4"});
  check_message(parse_error("a: 1\n\tb: 2\n"), {"x.yaml:2:", "not YAML"});
  check_message(parse_error("a: \"open\n"), {"x.yaml:1:4:", "never closed"});
  check_message(parse_error("ü: 1\nb: {c: 'it''s\nd: 2\n"), {"x.yaml:2:8:", "never closed"});
  check_message(parse_error("a: 1\nb: *nowhere\n"), {"x.yaml:2:", "not YAML"});
  check_message(parse_error("a: &x [1, *x]\n"), {"x.yaml:1:", "inside its own anchor"});
  check_message(parse_error("a: !!int 3\n"), {"x.yaml:1:4:", "tag"});
  check_message(parse_error("b: &x {c: 1}\na:\n  <<: *x\n"), {"x.yaml:3:3:", "<<", "parent: other.yaml"});
  check_message(parse_error("{[1, 2]: 3}\n"), {"x.yaml:1:2:", "a key must be a name"});
  check_message(parse_error("a: 1\n---\nb: 2\n"), {"x.yaml:3:1:", "one document in a file"});
}

TEST_CASE("files: missing, near, folder, empty, no map") {
  const Folder folder;
  folder.add("mnist.yaml", "name: mnist\n");
  folder.add("empty.yaml", "# nothing\n");
  folder.add("blank.yaml", "");
  folder.add("list.yaml", "\n- 1\n");
  CHECK(load_config(folder / "mnist.yaml").find("name")->scalar() == "mnist");
  check_message(folder.load_error("mnst.yaml"), {"mnst.yaml: no such file; did you mean \"mnist.yaml\"?"});
  check_message(folder.load_error("mnist"), {"mnist: no such file; did you mean \"mnist.yaml\"?"});
  check_message(folder.load_error("cifar_resnet.yaml"), {"no such file; known: blank.yaml, empty.yaml"});
  check_message(folder.load_error("none/x.yaml"), {"x.yaml: no such file", "no folder"});
  check_message(folder.load_error(""), {"is a folder", "choose one of: blank.yaml, empty.yaml"});
  check_message(folder.load_error("empty.yaml"), {"empty.yaml:1:1:", "is empty"});
  check_message(folder.load_error("blank.yaml"), {"blank.yaml:1:1:", "is empty"});
  check_message(folder.load_error("list.yaml"), {"list.yaml:2:1:", "a map of keys"});
}

TEST_CASE("parents: a chain, child over parent, places kept") {
  const Folder folder;
  folder.add("configs/base.yaml", "seed: 0\nrelax: {steps: 20, rate: 0.1}\n");
  folder.add("configs/mnist.yaml", "parent: base.yaml\nrelax: {steps: 8}\ngraph: {mlp: {widths: [1, 2]}}\n");
  folder.add("configs/check/small.yaml", "parent: mnist.yaml\ngraph:\n  mlp: {widths: [3]}\n");
  const ConfigTree tree = load_config(folder / "configs/check/small.yaml");  // its parent is in the configs' own folder
  CHECK(to_yaml(tree) == "seed: 0\nrelax: {steps: 8, rate: 0.1}\ngraph:\n  mlp: {widths: [3]}\n");
  CHECK(contains(tree.find("relax")->find("steps")->place().text(), "mnist.yaml:2:16"));
  CHECK(contains(tree.find("relax")->find("rate")->place().text(), "base.yaml:2:26"));
  CHECK(contains(tree.entry("graph")->key_place.text(), "small.yaml:2:1"));
  CHECK(tree.find("parent") == nullptr);
  CHECK(tree.find("relax")->find("rate")->path() == "relax.rate");
}

TEST_CASE("parents: null, loops, missing ones, wrong kinds") {
  const Folder folder;
  folder.add("alone.yaml", "parent: ~\nname: x\n");
  folder.add("a.yaml", "parent: b.yaml\n");
  folder.add("b.yaml", "name: b\nparent: sub/../c.yaml\n");
  folder.add("c.yaml", "parent: a.yaml\n");
  folder.add("sub/self.yaml", "parent: self.yaml\n");
  folder.add("lost.yaml", "name: x\nparent: alon.yaml\n");
  folder.add("list.yaml", "parent: [a.yaml]\n");
  folder.add("broken_parent.yaml", "parent: broken.yaml\n");
  folder.add("broken.yaml", "x: 1\ny: [\n");
  CHECK(to_yaml(load_config(folder / "alone.yaml")) == "name: x\n");
  check_message(folder.load_error("a.yaml"), {"c.yaml:1:9:", "loop", "a.yaml -> ", "b.yaml -> ", "c.yaml -> "});
  check_message(folder.load_error("sub/self.yaml"), {"self.yaml:1:9:", "loop"});
  check_message(folder.load_error("lost.yaml"), {"lost.yaml:2:9:", "no such file", "did you mean \"alone.yaml\"?"});
  check_message(folder.load_error("list.yaml"), {"list.yaml:1:9:", "parent must be the name of one file"});
  check_message(folder.load_error("broken_parent.yaml"), {"/broken.yaml:", "not YAML"});
}

TEST_CASE("overlay: maps join, everything else is replaced, null removes") {
  CHECK(overlay("{a: {b: 1, c: 2}, l: [1, 2]}", "{a: {c: 3, d: 4}, l: [9]}") == "a: {b: 1, c: 3, d: 4}\nl: [9]\n");
  CHECK(overlay("{a: {b: 1, c: 2}}", "{a: {b: ~}}") == "a: {c: 2}\n");
  CHECK(overlay("{a: {b: 1}}", "{a: 5}") == "a: 5\n");
  CHECK(overlay("{a: 5}", "{a: {b: 1}}") == "a: {b: 1}\n");
  CHECK(overlay("{a: 5}", "{b: ~}") == "a: 5\nb: ~\n");  // removes nothing: stays, so that a mistyped key is still seen
}

TEST_CASE("overlay: a choice map that chooses another thing replaces the parent's") {
  CHECK(overlay("{graph: {mlp: {widths: [1]}}}", "{graph: {vgg: {depth: 5}}}") == "graph: {vgg: {depth: 5}}\n");
  CHECK(overlay("{graph: {mlp: {widths: [1], bias: no}}}", "{graph: {mlp: {bias: yes}}}") ==
        "graph:\n  mlp: {widths: [1], bias: yes}\n");
  CHECK(overlay("{graph: {mlp: {a: 1}}}", "{graph: {mlp: ~, vgg: {b: 2}}}") == "graph: {vgg: {b: 2}}\n");
  CHECK(overlay("{graph: {mlp: {a: 1}}}", "{graph: {}}") == "graph: {mlp: {a: 1}}\n");
  CHECK(overlay("{graph: {nodes: {a: 1}}}", "{graph: {edges: [2]}}") == "graph: {nodes: {a: 1}, edges: [2]}\n");
  CHECK(overlay("{graph: {nodes: {a: 1}, edges: [2]}}", "{graph: {mlp: {}}}") == "graph: {mlp: {}}\n");
  CHECK(overlay("{learn: {optimizer: {sgd: {rate: 1}}, epochs: 2}}", "{learn: {optimizer: {adam: ~}}}") ==
        "learn: {optimizer: {adam: ~}, epochs: 2}\n");
  CHECK(overlay("{learn: {optimizer: {sgd: {rate: 1}}}}", "{learn: {optimizer: adam}}") ==
        "learn: {optimizer: adam}\n");
  for (const char* path : {"graph", "task", "init", "relax.optimizer", "relax.init", "relax.stop", "learn.rate"}) {
    CHECK(is_choice_map(path));
  }
  CHECK_FALSE(is_choice_map("relax"));
  const auto never = [](std::string_view) { return false; };
  CHECK(to_yaml(overlaid(parsed("graph: {a: 1}"), parsed("graph: {b: 2}"), never)) == "graph: {a: 1, b: 2}\n");
}

TEST_CASE("overrides: values, new keys, lists, removal, choice maps") {
  CHECK(with_set("relax: {steps: 8, rate: 0.1}", {"relax.steps=20"}) == "relax: {steps: 20, rate: 0.1}\n");
  CHECK(with_set("a: 1", {"b.c.d=[1, 2]", "b.c.e={f: yes}"}) == "a: 1\nb:\n  c: {d: [1, 2], e: {f: yes}}\n");
  CHECK(with_set("graph: {mlp: {widths: [1], bias: no}}", {"graph.mlp.widths=[784,64,10]"}) ==
        "graph:\n  mlp: {widths: [784, 64, 10], bias: no}\n");
  const char* kEdges = "graph: {edges: [{op: a, to: x}, {op: b, to: y}]}";
  CHECK(contains(with_set(kEdges, {"graph.edges[1].op=c"}), "graph:\n  edges: [{op: a, to: x}, {op: c, to: y}]\n"));
  CHECK(with_set(kEdges, {"graph.edges.1.op=c"}) == with_set(kEdges, {"graph.edges[1].op=c"}));
  CHECK(with_set("a: [[1, 2], [3]]", {"a[0][1]=9", "a.1.0=8"}) == "a: [[1, 9], [8]]\n");
  CHECK(with_set("a: [1, 2, 3]", {"a[1]=~"}) == "a: [1, 3]\n");
  CHECK(with_set("a: {b: 1, c: 2}", {"a.b=~"}) == "a: {c: 2}\n");
  CHECK(with_set("learn: {optimizer: {adamw: {rate: 1}}, epochs: 3}", {"learn.optimizer.sgd.rate=0.1"}) ==
        "learn:\n  optimizer: {sgd: {rate: 0.1}}\n  epochs: 3\n");
  CHECK(with_set("graph: {mlp: {a: 1}}", {"graph.nodes={a: {}}", "graph.edges=[b]"}) ==
        "graph:\n  nodes: {a: {}}\n  edges: [b]\n");
  CHECK(with_set("a: 1", {" a = x=y "}) == "a: x=y\n");
  CHECK(with_set("a: 1", {"a=\"8\""}) == "a: \"8\"\n");
  CHECK(with_set("a: 1", {"a=\"\""}) == "a: \"\"\n");
}

TEST_CASE("overrides: places and paths") {
  ConfigTree tree = parsed("relax: {steps: 8}\n");
  set_override(tree, "relax.rate=[1, 2]");
  const ConfigTree& rate = *tree.find("relax")->find("rate");
  CHECK(rate.items()[1].place().text() == "--set relax.rate=[1, 2]");
  CHECK(rate.items()[1].path() == "relax.rate[1]");
  CHECK(tree.find("relax")->place().text() == "x.yaml:1:8");
  CHECK(tree.entry("relax")->key_place.text() == "x.yaml:1:1");  // the section is still the file's
  CHECK(tree.find("relax")->entry("rate")->key_place.text() == "--set relax.rate=[1, 2]");
  set_override(tree, "relax.stpes=3");
  int steps = 0;
  std::vector<double> rates;
  check_message(
      message_of([&] { Fields(*tree.find("relax"), "relax").read("steps", steps).read("rate", rates).done(); }),
      {"--set relax.stpes=3: unknown key relax.stpes; did you mean \"steps\"?"});
}

TEST_CASE("overrides: malformed ones say how it is done") {
  for (const char* wrong : {"", "a", "=3", "a..b=3", ".a=3", "a.=3", "a[=3", "a[]=3", "a[0]b=3", "[0]=3", "a b=3"}) {
    CAPTURE(wrong);
    check_message(set_error("a: 1", wrong), {"--set ", "a.b.c=value", "--set relax.steps=20"});
  }
  check_message(set_error("a: 1", "a="), {"--set a=: no value", "~"});
  check_message(set_error("a: 1", "a=#f00"), {"--set a=#f00:", "quotes"});
  check_message(set_error("a: 1", "a=[1, 2"), {"--set a=[1, 2: ", "not YAML"});
  check_message(set_error("a: 1", "a={b: 1, b: 2}"), {"key b is already set"});
  check_message(set_error("a: {b: [1, 2]}", "a.b[2]=3"), {"--set a.b[2]=3: a.b is a list of 2", "no element 2"});
  check_message(set_error("a: {b: [1, 2]}", "a.b.op=3"), {"a.b is a list of 2", "no element op", "a.b[0]"});
  check_message(set_error("a: {b: []}", "a.b[-1]=3"), {"a.b is a list of 0", "no element -1"});
  check_message(set_error("a: {b: 1}", "a.b[0]=3"), {"no list to take [0] of"});
}

TEST_CASE("writing: short things in flow style, long ones in block style") {
  const std::string text =
      "name: mnist-mlp\n"
      "data: {set: mnist, batch: 128}\n"
      "graph:\n"
      "  nodes:\n"
      "    image: {shape: [784]}\n"
      "    a rather long name of a node, so that no line could hold both: {shape: [10], energy: "
      "softmax}\n"
      "  edges:\n"
      "    - {from: image, to: hidden, op: [linear, tanh]}\n"
      "    - from: image\n"
      "      to: {a: {b: [c]}}\n"
      "    - - - 1\n"
      "        - {a: [{b: ~}]}\n"
      "none: []\n"
      "empty: {}\n";
  const ConfigTree tree = parsed(text);
  const std::string written = to_yaml(tree);
  CAPTURE(written);
  CHECK(same_values(parsed(written), tree));
  CHECK(contains(written, "data: {set: mnist, batch: 128}\n"));
  CHECK(contains(written, "    - {from: image, to: hidden, op: [linear, tanh]}\n"));
  CHECK(contains(written, "    - from: image\n      to:\n        a: {b: [c]}\n"));
  CHECK(contains(written, "none: []\nempty: {}\n"));
  CHECK(to_yaml(parsed("[]")) == "[]\n");
  CHECK(to_yaml(ConfigTree()) == "~\n");
  CHECK(to_yaml(parsed("just a text")) == "just a text\n");
}

TEST_CASE("writing: a text stays a text and a number a number") {
  const Names texts = {
      "1e3", "yes",   "null",   "a: b", "",           "two\nlines\n", " lead",    "trail ", "größe 零 ✓", "~",   "8",
      "-",   "- a",   "a #b",   "#a",   "a:",         ":a",           "a: ",      "---",    "...",        "[a]", "{a}",
      "a,b", "what?", "?",      "&a",   "*a",         "!a",           "|",        ">",      "'",          "\"",  "%a",
      "@a",  "`a",    "<<",     "=",    "\t",         "a\tb",         "\r\n",     "\x01",   "\x7f",       "\\n", "0x1F",
      ".5",  ".inf",  "-.NaN",  "True", "+1",         "a'b",          "12:30:45", "1_000",  "./data",     "a\\", "NULL",
      "-x",  "--set", "a\n\nb", "\n",   "2026-01-01", "x=y",          "%",        "a - b"};
  for (const std::string& text : texts) {
    CAPTURE(text);
    const ConfigTree scalar = ConfigTree::scalar_of(text, true, {});
    const ConfigTree tree = ConfigTree::map_of(
        {{text.empty() ? "key" : text, {}, scalar}, {"list", {}, ConfigTree::list_of({scalar, scalar}, {})}}, {});
    const std::string written = to_yaml(tree);
    CAPTURE(written);
    CHECK(same_values(parsed(written), tree));
    CHECK(to_yaml(parsed(written)) == written);
  }
  for (const char* plain : {"8", "1e3", "yes", "-0.5", "gelu", "a b", "3.0e-4", "./data/x.yaml"}) {
    CHECK(to_yaml(parsed(std::string("a: ") + plain)) == std::string("a: ") + plain + "\n");
  }
  CHECK(to_yaml(parsed("a: 'gelu'")) == "a: gelu\n");
}

TEST_CASE("writing: random trees come back with the same values in the same order") {
  std::mt19937 random(7);
  const auto below = [&](unsigned n) { return static_cast<unsigned>(random() % n); };
  const Names pieces = {"a", "yes", "1", ".", "-", ":",  " ", "#", "\n", "\"",
                        "'", ",",   "[", "}", "?", "\\", "é", "~", "\t"};
  const auto text = [&](unsigned least) {
    std::string made;
    for (unsigned n = least + below(5); n > 0; --n) made += pieces[below(static_cast<unsigned>(pieces.size()))];
    return made;
  };
  const auto tree = [&](const auto& self, int levels) -> ConfigTree {
    const unsigned kind = below(levels > 0 ? 6 : 3);
    if (kind == 0) return ConfigTree();
    if (kind < 3) return ConfigTree::scalar_of(text(0), true, {});
    const unsigned count = below(5);
    std::vector<ConfigTree> items;
    for (unsigned i = 0; i < count; ++i) items.push_back(self(self, levels - 1));
    if (kind == 3) return ConfigTree::list_of(std::move(items), {});
    std::vector<ConfigTree::Entry> entries;
    for (unsigned i = 0; i < count; ++i) entries.push_back({text(0) + std::to_string(i), {}, items[i]});
    return ConfigTree::map_of(std::move(entries), {});
  };
  for (int round = 0; round < 2000; ++round) {
    const ConfigTree made = tree(tree, 4);
    const std::string written = to_yaml(made);
    CAPTURE(written);
    ConfigTree back;
    REQUIRE_NOTHROW(back = parsed(written));
    REQUIRE(same_values(back, made));
    REQUIRE(to_yaml(back) == written);
  }
}

TEST_CASE("same_values: places, order and idle quotes do not count; kinds, counts and speaking quotes do") {
  const auto same = [](const char* a, const char* b) { return same_values(parsed(a), parsed(b)); };
  CHECK(same("{a: 1, b: [x]}", "b:\n  - 'x'\na: 1"));
  CHECK_FALSE(same("a: 1", "a: 2"));
  CHECK_FALSE(same("a: 8", "a: \"8\""));
  CHECK_FALSE(same("a: yes", "a: 'yes'"));
  CHECK_FALSE(same("a: ~", "a: '~'"));
  CHECK_FALSE(same("a: [1, 2]", "a: [2, 1]"));
  CHECK_FALSE(same("a: [1]", "a: [1, 1]"));
  CHECK_FALSE(same("{a: 1}", "{b: 1}"));
  CHECK_FALSE(same("{a: 1}", "{a: 1, b: 1}"));
  CHECK_FALSE(same("a: []", "a: {}"));
}

TEST_CASE("fields: every type") {
  CHECK(value_of<bool>("v: true"));
  CHECK(value_of<bool>("v: On"));
  CHECK_FALSE(value_of<bool>("v: no"));
  CHECK(value_of<bool>("v: 1"));
  CHECK_FALSE(value_of<bool>("v: 0"));
  CHECK(value_of<int>("v: -12") == -12);
  CHECK(value_of<int>("v: +12") == 12);
  CHECK(value_of<int>("v: 6e4") == 60000);
  CHECK(value_of<std::int64_t>("v: -9223372036854775808") == std::numeric_limits<std::int64_t>::min());
  CHECK(value_of<std::uint64_t>("v: 18446744073709551615") == std::numeric_limits<std::uint64_t>::max());
  CHECK(value_of<double>("v: 3.0e-4") == 3.0e-4);
  CHECK(value_of<double>("v: 1e-3") == 1e-3);
  CHECK(value_of<double>("v: 7") == 7.0);
  CHECK(value_of<double>("v: -.5") == -0.5);
  CHECK(value_of<std::string>("v: gelu") == "gelu");
  CHECK(value_of<std::string>("v: 8") == "8");
  CHECK(value_of<std::string>("v: ''").empty());
  CHECK(value_of<fs::path>("v: ../a//b") == fs::path("../a//b"));
  CHECK(value_of<std::optional<int>>("v: 3") == 3);
  CHECK(value_of<std::optional<int>>("v: ~") == std::nullopt);
  CHECK(value_of<std::vector<int>>("v: [784, 64, 10]") == std::vector<int>{784, 64, 10});
  CHECK(value_of<std::vector<int>>("v: []").empty());
  CHECK(value_of<std::vector<bool>>("v: [yes, no]") == std::vector<bool>{true, false});
  CHECK(value_of<std::vector<std::vector<double>>>("v: [[1], [2, 3]]").at(1).at(1) == 3.0);
}

TEST_CASE("fields: every wrong value says where, which key and what was found") {
  check_message(read_error<int>("\nv: many"), {"x.yaml:2:4: relax.v must be a whole number, not \"many\""});
  check_message(read_error<int>("v: 2.5"), {"x.yaml:1:4:", "must be a whole number, not \"2.5\""});
  check_message(read_error<int>("v: 1_000"), {"whole number"});
  check_message(read_error<int>("v: 8x"), {"whole number"});
  check_message(read_error<int>("v: 0x10"), {"whole number"});
  check_message(read_error<int>("v: nan"), {"whole number"});
  check_message(read_error<int>("v: +-3"), {"whole number"});
  check_message(read_error<int>("v: '8'"), {"must be a whole number, not \"8\" in quotes"});
  check_message(read_error<int>("v: [8]"), {"must be a whole number, not a list"});
  check_message(read_error<int>("v: {a: 8}"), {"must be a whole number, not a map"});
  check_message(read_error<int>("v:"), {"x.yaml:1:", "relax.v has no value", "whole number"});
  check_message(read_error<int>("v: 3000000000"), {"from -2147483648 to 2147483647, not 3000000000"});
  check_message(read_error<int>("v: 1e10"), {"from -2147483648 to 2147483647, not 1e10"});
  check_message(read_error<int>("v: 1e400"), {"from -2147483648 to 2147483647, not 1e400"});
  check_message(read_error<int>("v: inf"), {"from -2147483648 to 2147483647, not inf"});
  check_message(read_error<std::int64_t>("v: 9223372036854775808"), {"to 9223372036854775807, not 92233"});
  check_message(read_error<std::uint64_t>("v: -1"), {"from 0 to 18446744073709551615, not -1"});
  for (const char* text : {"nan", "inf", "-inf", ".nan", ".inf", "-.Inf"}) {
    check_message(read_error<double>(std::string("v: ") + text), {"x.yaml:1:4: relax.v must be a finite number"});
  }
  check_message(read_error<double>("v: 1e400"), {"that a double can hold, not 1e400"});
  check_message(read_error<double>("v: 0.1 rad"), {"must be a number, not \"0.1 rad\""});
  check_message(read_error<double>("v: '0.1'"), {"must be a number, not \"0.1\" in quotes"});
  check_message(read_error<bool>("v: 2"), {"must be true or false, not \"2\""});
  check_message(read_error<bool>("v: 'true'"), {"must be true or false, not \"true\" in quotes"});
  check_message(read_error<std::string>("v: [a]"), {"must be a text, not a list"});
  check_message(read_error<fs::path>("v: ''"), {"must be a path"});
  check_message(read_error<std::vector<int>>("v: 5"), {"must be a list, as in [a, b], not \"5\""});
  check_message(read_error<std::vector<int>>("v: [1,\n  x]"), {"x.yaml:2:3: relax.v[1] must be a whole number"});
  check_message(read_error<std::optional<int>>("v: x"), {"whole number"});
}

TEST_CASE("fields: defaults, missing keys, unknown keys, no map") {
  const ConfigTree tree = parsed("steps: 8\n");
  int steps = 1, other = 5;
  Fields(tree, "relax").read("steps", steps).read("other", other).done();
  CHECK(steps == 8);
  CHECK(other == 5);
  check_message(message_of([&] { Fields(tree, "relax").require("widths", other); }),
                {"x.yaml:1:1: relax.widths is missing; add it here"});
  check_message(message_of([&] { Fields(tree, "").require("step", other); }),
                {"x.yaml:1:1: step is missing; is \"steps\" meant for it?"});
  check_message(message_of([&] { Fields(tree, "relax").read("step", other).read("rate", other).done(); }),
                {"x.yaml:1:1: unknown key relax.steps; did you mean \"step\"?"});
  check_message(message_of([&] { Fields(tree, "").read("momentum", other).read("rate", other).done(); }),
                {"x.yaml:1:1: unknown key steps; known: momentum, rate"});
  check_message(message_of([&] { Fields(tree, "relax").done(); }), {"unknown key relax.steps; no keys belong here"});
  check_message(message_of([&] { Fields(*tree.find("steps"), "relax"); }),
                {"x.yaml:1:8: relax must be a map, not \"8\""});
  Fields fields(tree, "relax");
  CHECK(fields.child("steps") != nullptr);
  CHECK(fields.child("none") == nullptr);
  CHECK_NOTHROW(fields.done());
}

TEST_CASE("fields: ranges hold for what is written, elements of lists included") {
  const ConfigTree tree = parsed("rate: 3\nsteps: 0\nrates: [0.5, 2]\nmaybe: ~\n");
  double rate = 0.1, absent = -1;
  int steps = 1;
  std::vector<double> rates;
  std::optional<double> maybe;
  const auto error = [&](const auto& read) {
    return message_of([&] {
      Fields fields(tree, "relax");
      read(fields);
    });
  };
  check_message(error([&](Fields& f) { f.read_in("rate", rate, 0, 1); }),
                {"x.yaml:1:7: relax.rate must be in [0, 1], not 3"});
  check_message(error([&](Fields& f) { f.read_positive("steps", steps); }),
                {"x.yaml:2:8: relax.steps must be greater than 0, not 0"});
  check_message(error([&](Fields& f) { f.read_at_least("steps", steps, 1); }), {"must be at least 1, not 0"});
  check_message(error([&](Fields& f) { f.read_in("rates", rates, 0, 1); }), {"x.yaml:3:8:", "in [0, 1], not 2"});
  Fields fields(tree, "relax");
  fields.read_in("rate", rate, 3, 3).read_at_least("steps", steps, 0).read_positive("rates", rates);
  fields.read_positive("maybe", maybe).read_positive("absent", absent).done();
  CHECK(rate == 3);
  CHECK(absent == -1);
}

TEST_CASE("fields: enums by name") {
  enum class Kind { pc, error_nodes };
  constexpr std::pair<std::string_view, Kind> kKinds[] = {{"pc", Kind::pc}, {"error_nodes", Kind::error_nodes}};
  const ConfigTree tree = parsed("a: error_nodes\nb: eror_nodes\nc: [pc]\n");
  Kind kind = Kind::pc;
  Fields fields(tree, "relax");
  fields.read_enum("none", kind, kKinds);
  CHECK(kind == Kind::pc);
  fields.read_enum("a", kind, kKinds);
  CHECK(kind == Kind::error_nodes);
  check_message(message_of([&] { fields.read_enum("b", kind, kKinds); }),
                {"x.yaml:2:4: relax.b cannot be \"eror_nodes\"; did you mean \"error_nodes\"?"});
  check_message(message_of([&] { fields.read_enum("c", kind, kKinds); }),
                {"x.yaml:3:4: relax.c must be one of: pc, error_nodes, not a list"});
}

TEST_CASE("fields: choices") {
  const Names known = {"sgd", "adamw"};
  const auto error = [&](const char* text) {
    const ConfigTree tree = parsed(text);
    return message_of([&] { read_choice(*tree.find("o"), "learn.optimizer", known); });
  };
  const ConfigTree tree = parsed("a: sgd\nb: {sgd: {rate: 2}}\nc:\n  adamw:\n");
  CHECK(read_choice(*tree.find("a"), "o", known).name == "sgd");
  CHECK(read_choice(*tree.find("a"), "o", known).body == nullptr);
  CHECK(read_choice(*tree.find("c"), "o", known).body == nullptr);
  const Choice sgd = read_choice(*tree.find("b"), "o", known);
  CHECK(sgd.place.text() == "x.yaml:2:5");
  double rate = 1;
  Fields(sgd, "o.sgd").read("rate", rate).done();
  CHECK(rate == 2);
  check_message(message_of([&] { Fields(read_choice(*tree.find("a"), "o", known), "o.sgd").require("rate", rate); }),
                {"x.yaml:1:4: o.sgd.rate is missing"});
  check_message(error("o: adam"), {"x.yaml:1:4: learn.optimizer cannot be \"adam\"; did you mean \"adamw\"?"});
  check_message(error("o: {lbfgs: {}}"), {"x.yaml:1:5:", "cannot be \"lbfgs\"; known: sgd, adamw"});
  check_message(error("o: {sgd: {}, adamw: {}}"),
                {"x.yaml:1:14: learn.optimizer has two choices, sgd at x.yaml:1:5 and adamw"});
  check_message(error("o: {}"), {"x.yaml:1:4:", "an empty map", "choose one of: sgd, adamw"});
  check_message(error("o: [sgd]"), {"x.yaml:1:4:", "not a list", "choose one of: sgd, adamw"});
  check_message(error("o:"), {"x.yaml:1:", "not nothing", "choose one of: sgd, adamw"});
}

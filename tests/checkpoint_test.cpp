#include "pc/checkpoint.h"

#include <doctest/doctest.h>
#include <stdlib.h>  // mkdtemp

#include <bit>
#include <cstring>
#include <fstream>
#include <map>
#include <random>

#include "pc/h5.h"

namespace {

namespace fs = std::filesystem;
using doctest::Contains;
using pc::DType, pc::Network, pc::Progress, pc::Shape;

struct TempFolder {
  fs::path path;
  TempFolder() {
    std::string name = (fs::temp_directory_path() / "pc-checkpoint-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~TempFolder() { fs::remove_all(path); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
};

const std::vector<std::string> kEverything = {"w/", "m/", "v/", "velocity/", "clock/", "metric/", "x/"};
const std::vector<std::string> kWeights = {"w/"};

struct Sizes {
  std::int64_t in = 3, hidden = 4, batch = 5;
  DType dtype = DType::f32;
  bool output = true;
  std::uint64_t seed = 1;
  std::vector<std::uint8_t> mask = {};  // of the first edge, repeated; empty: none
};

Network network(const Sizes& sizes = {}) {
  std::vector<pc::NodeSpec> nodes(2);
  nodes[0].name = "image";
  nodes[0].shape = {sizes.in};
  nodes[1].name = "hidden";
  nodes[1].shape = {sizes.hidden};
  std::vector<pc::EdgeSpec> edges(1);
  edges[0].from = {"image"};
  edges[0].to = "hidden";
  edges[0].chain = {{&pc::find_op("linear"), {}}, {&pc::find_op("tanh"), {}}};
  if (!sizes.mask.empty()) {
    edges[0].mask = [&](const Shape& shape) {
      std::vector<std::uint8_t> mask;
      for (std::int64_t i = 0; i < shape.count(); ++i) mask.push_back(sizes.mask[std::size_t(i) % sizes.mask.size()]);
      return mask;
    };
  }
  if (sizes.output) {
    nodes.emplace_back().name = "label";
    nodes[2].shape = {2};
    edges.emplace_back().from = {"hidden"};
    edges[1].to = "label";
    edges[1].chain = {{&pc::find_op("linear"), {}}};
  }
  return {pc::Graph(nodes, edges), pc::Exec{}, sizes.dtype, sizes.batch, sizes.seed, {}};
}

using Contents = std::map<std::string, std::vector<std::byte>>;

Contents contents(const Network& net) {
  Contents all;
  for (const auto& [name, view] : net.arena().views()) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(view.count()) * pc::size_of(view.dtype));
    net.arena().download(view, bytes.data());
    all[name] = bytes;
  }
  return all;
}

/// Any bits at all: NaNs, denormal numbers, -0.
void scramble(Network& net, unsigned seed) {
  std::mt19937 random(seed);
  for (const auto& [name, view] : net.arena().views()) {
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(view.count()) * pc::size_of(view.dtype));
    for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
    net.arena().upload(view, bytes.data());
  }
}

/// What a run with Adam has besides the weights.
void make_state(Network& net) {
  for (pc::ParamId id = 0; id < net.graph().param_count(); ++id) {
    for (const char* kind : {"m", "v", "dw"}) static_cast<void>(net.param_buffer(kind, id));
  }
  for (pc::NodeId id = 0; id < net.graph().node_count(); ++id) static_cast<void>(net.value(id, net.max_batch()));
  static_cast<void>(net.scalar("clock/updates"));
  net.arena().take("metric/counts", {2, 1, 3, 1, 2}, DType::i32);
  net.arena().take("metric/bytes", {7}, DType::u8);
  net.arena().take("metric/none", {0}, DType::f64);
}

std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_bytes(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

/// Loading must fail, say this, and change nothing.
void fails(const fs::path& path, Network& net, const std::string& says) {
  const Contents before = contents(net);
  CHECK_THROWS_WITH_AS(pc::load_checkpoint(path, net), Contains(says.c_str()), pc::Error);
  CHECK(contents(net) == before);
}

}  // namespace

TEST_CASE("checkpoint: save, perturb, load restores every bit") {
  const TempFolder folder;
  const fs::path path = folder.path / "checkpoint.h5";
  for (const DType dtype : {DType::f32, DType::f64}) {
    Network net = network({.dtype = dtype});
    make_state(net);
    scramble(net, 1);
    const Contents saved = contents(net);
    const double seconds = std::bit_cast<double>(0x7ff8000000000123ULL);
    pc::save_checkpoint(
        path, net, kEverything,
        {.epoch = 3, .batch = 17, .seconds = seconds, .best = -0.0, .data = -5, .extra = "{\"order\": [2, 0, 1]}"},
        "name: test\n");
    CHECK(contents(net) == saved);
    scramble(net, 2);
    const Contents other = contents(net);
    const Progress progress = pc::load_checkpoint(path, net);
    for (const auto& [name, bytes] : contents(net)) {
      CAPTURE(name);
      CHECK(bytes == (name.starts_with("dw/") ? other : saved).at(name));  // what was not asked for was not saved
    }
    CHECK(progress.epoch == 3);
    CHECK(progress.batch == 17);
    CHECK(std::bit_cast<std::uint64_t>(progress.seconds) == 0x7ff8000000000123ULL);
    CHECK(std::signbit(progress.best));
    CHECK(progress.data == -5);
    CHECK(progress.extra == "{\"order\": [2, 0, 1]}");
    CHECK(pc::H5Reader(path).read_text("config") == "name: test\n");
  }
}

TEST_CASE("checkpoint: a fresh network gets the buffers that it has not made yet") {
  const TempFolder folder;
  const fs::path path = folder.path / "checkpoint.h5";
  Network net = network();
  make_state(net);
  scramble(net, 1);
  pc::save_checkpoint(path, net, kEverything, {}, "");
  Network fresh = network({.seed = 2});
  REQUIRE_FALSE(fresh.arena().has("m/image->hidden/linear.weight"));
  pc::load_checkpoint(path, fresh);
  make_state(fresh);  // finds them made
  Contents saved = contents(net), loaded = contents(fresh);
  std::erase_if(saved, [](const auto& entry) { return entry.first.starts_with("dw/"); });
  std::erase_if(loaded, [](const auto& entry) { return entry.first.starts_with("dw/"); });
  CHECK(saved == loaded);
}

TEST_CASE("checkpoint: buffers lie under their own names, described") {
  const TempFolder folder;
  const fs::path path = folder.path / "checkpoint.h5";
  const Network net = network();
  pc::save_checkpoint(path, net, kWeights, {}, "");
  const pc::H5Reader file(path);
  CHECK(file.dims("buffers/w/image->hidden/linear.weight") == pc::H5Dims{4, 3});
  CHECK(file.attribute_text("format") == "pc-checkpoint");
  CHECK(file.attribute_text("dtype") == "float32");
  for (const std::string& name : file.names()) {
    CAPTURE(name);
    CHECK_FALSE(file.description(name).empty());
  }
}

TEST_CASE("checkpoint: every name comes back") {
  const TempFolder folder;
  const fs::path path = folder.path / "checkpoint.h5";
  const std::vector<std::string> names = {"x/",
                                          "x//",
                                          "x/.",
                                          "x/..",
                                          "x/...",
                                          "x/./a",
                                          "x/a",
                                          "x/a/b",
                                          "x/a/b/c",
                                          "x/a/",
                                          "x/a%",
                                          "x/%",
                                          "x/%2E",
                                          "x/%25",
                                          "x/a%/b",
                                          "x//a",
                                          "x/a b",
                                          "x/.a",
                                          "x/a->b.c#2",
                                          "x/caf\xc3\xa9",
                                          "x/\xff",
                                          "x/\n",
                                          "x/a\\b",
                                          "x/\"'",
                                          std::string("x/zero\0byte", 11),
                                          "x/" + std::string(2'000, 'n')};
  Network net = network();
  double value = 0;
  for (const std::string& name : names) net.arena().write(net.arena().take(name, {1}, DType::f64), {++value});
  pc::save_checkpoint(path, net, kEverything, {}, "");
  Network fresh = network();
  pc::load_checkpoint(path, fresh);
  CHECK(contents(fresh) == contents(net));
  CHECK(fresh.arena().views().size() == 4 + names.size());
}

TEST_CASE("checkpoint: weights that lie side by side are saved and loaded each by itself") {
  const TempFolder folder;
  const fs::path path = folder.path / "checkpoint.h5";
  // Two edges through the same tanh of one node: their weights are rows of one matrix.
  const auto network = [] {
    std::vector<pc::NodeSpec> nodes(3);
    std::vector<pc::EdgeSpec> edges(2);
    for (int i = 0; i < 3; ++i) {
      nodes[static_cast<std::size_t>(i)].name = std::string(1, static_cast<char>('a' + i));
      nodes[static_cast<std::size_t>(i)].shape = {i + 2};
    }
    for (int i = 0; i < 2; ++i) {
      pc::EdgeSpec& edge = edges[static_cast<std::size_t>(i)];
      edge.from = {"a"};
      edge.to = i == 0 ? "b" : "c";
      edge.chain = {{&pc::find_op("tanh"), {}}, {&pc::find_op("linear"), {{"bias", 0.0}}}};
    }
    return Network{pc::Graph(nodes, edges), pc::Exec{}, DType::f32, 2, 1, {}};
  };
  Network net = network();
  const pc::View first = net.weight(0), second = net.weight(1);
  REQUIRE(static_cast<std::byte*>(first.data) + first.extent() == second.data);
  make_state(net);
  scramble(net, 3);
  pc::save_checkpoint(path, net, kEverything, {}, "");
  Network fresh = network();
  pc::load_checkpoint(path, fresh);
  for (pc::ParamId id = 0; id < 2; ++id) {
    for (const char* kind : {"w", "m", "v"}) {
      CAPTURE(kind);
      std::vector<std::vector<std::byte>> bytes;
      for (Network* of : {&net, &fresh}) {
        const pc::View view = of->param_buffer(kind, id);
        bytes.emplace_back(view.extent());
        of->arena().download(view, bytes.back().data());
      }
      CHECK(bytes[0] == bytes[1]);
    }
  }
}

TEST_CASE("checkpoint: one of another network is refused, with both shapes") {
  const TempFolder folder;
  const fs::path path = folder.path / "checkpoint.h5";
  Network net = network();
  make_state(net);
  pc::save_checkpoint(path, net, kEverything, {}, "");

  Network wider = network({.hidden = 6});
  fails(path, wider,
        "w/hidden->label/linear.weight is [2, 4] in the checkpoint and [2, 6] in the network; the checkpoint is of "
        "another network");
  Network longer = network({.in = 9});
  fails(path, longer, "w/image->hidden/linear.weight is [4, 3] in the checkpoint and [4, 9] in the network");
  Network exact = network({.dtype = DType::f64});
  fails(path, exact, "is of a float32 network, and this one is float64");
  Network smaller = network({.output = false});
  fails(path, smaller, "w/hidden->label/linear.bias is not in the network; the checkpoint is of another network");
  Network batched = network({.batch = 6});
  make_state(batched);
  fails(path, batched, "x/hidden is [5, 4] in the checkpoint and [6, 4] in the network");
  Network retyped = network();
  retyped.arena().take("clock/updates", {}, DType::f32);
  fails(path, retyped, "clock/updates is float64 in the checkpoint and float32 in the network");

  pc::save_checkpoint(path, smaller, kWeights, {}, "");
  Network larger = network();
  fails(path, larger, "has no w/hidden->label/linear.weight, which is [2, 4] in the network");
}

TEST_CASE("checkpoint: one of other masks is refused; an older one, which says nothing about masks, is not") {
  const TempFolder folder;
  const fs::path path = folder.path / "checkpoint.h5";
  const Network whole = network(), masked = network({.mask = {1, 0}}), other = network({.mask = {0, 1}});
  for (const Network* from : {&whole, &masked, &other}) {
    pc::save_checkpoint(path, *from, kWeights, {}, "");
    for (const std::vector<std::uint8_t>& mask : {std::vector<std::uint8_t>{}, {1, 0}, {0, 1}}) {
      Network net = network({.mask = mask});
      if (net.graph().param(0).mask == from->graph().param(0).mask) {
        pc::load_checkpoint(path, net);
      } else {
        fails(path, net,
              "its fingerprint \"mask_fingerprint\" is not the network's; the checkpoint is of another graph");
      }
    }
  }
  // As they were written before: the same without that number, and without one of the data.
  const fs::path older = folder.path / "older.h5";
  {
    const pc::H5Reader file(path);
    pc::H5Writer copy(older);
    copy.attribute("format", "pc-checkpoint");
    copy.attribute("version", std::int64_t{1});
    copy.attribute("dtype", "float32");
    for (const std::string& name : file.names()) {
      if (name == "mask_fingerprint" || name == "progress/data") continue;
      if (name == "config" || name == "progress/extra") {
        copy.write_text(name, file.read_text(name), "text");
        continue;
      }
      std::vector<std::byte> bytes(file.check(name, file.dtype(name), file.dims(name)) * pc::size_of(file.dtype(name)));
      file.read(name, file.dtype(name), file.dims(name), bytes.data());
      copy.write(name, file.dtype(name), file.dims(name), bytes.data(), "array");
    }
    copy.commit();
  }
  Network net = network({.mask = {1, 0}});
  CHECK(pc::load_checkpoint(older, net).data == 0);
}

TEST_CASE("checkpoint: a mistake in the last buffer changes nothing") {
  const TempFolder folder;
  const fs::path path = folder.path / "checkpoint.h5";
  Network net = network();
  net.arena().take("x/zzz", {2}, DType::f32);
  net.arena().take("x/new", {2}, DType::f32);
  pc::save_checkpoint(path, net, kEverything, {}, "");
  Network other = network({.seed = 2});
  other.arena().take("x/zzz", {3}, DType::f32);
  fails(path, other, "x/zzz is [2] in the checkpoint and [3] in the network");
  CHECK_FALSE(other.arena().has("x/new"));
}

TEST_CASE("checkpoint: the weights must be among what is saved") {
  const TempFolder folder;
  const Network net = network();
  const std::vector<std::string> prefixes = {"m/", "clock/"};
  CHECK_THROWS_WITH_AS(pc::save_checkpoint(folder.path / "a.h5", net, prefixes, {}, ""), Contains("leave out w/"),
                       pc::Error);
  CHECK(fs::is_empty(folder.path));
}

TEST_CASE("checkpoint: other files are refused") {
  const TempFolder folder;
  const fs::path path = folder.path / "checkpoint.h5";
  Network net = network();
  fails(path, net, "No such file");
  write_bytes(path, "name: test\n");
  fails(path, net, "is not an HDF5 file");
  const auto write = [&](const char* format, std::int64_t version) {
    pc::H5Writer file(path);
    file.attribute("format", format);
    file.attribute("version", version);
    file.commit();
  };
  write("other", 1);
  fails(path, net, "not a checkpoint");
  write("pc-checkpoint", 2);
  fails(path, net, "has version 2; this program reads version 1");
  write("pc-checkpoint", 1);
  fails(path, net, "no attribute 'dtype'");
  {
    pc::H5Writer file(path);
    file.write_scalar("a", 1.0, "one");
    file.commit();
  }
  fails(path, net, "not a checkpoint");
}

TEST_CASE("checkpoint: a place that cannot be written is an error, and a broken save leaves the old file") {
  const TempFolder folder;
  const fs::path path = folder.path / "checkpoint.h5";
  const Network net = network();
  CHECK_THROWS_WITH_AS(pc::save_checkpoint("/proc/none/a.h5", net, kWeights, {}, ""), Contains("/proc/none/a.h5"),
                       pc::Error);
  pc::save_checkpoint(path, net, kWeights, {.epoch = 1}, "");
  const std::string before = bytes_of(path);
  CHECK_THROWS_AS(pc::save_checkpoint(path, net, kWeights, {.epoch = 2}, std::string("a\0b", 3)), pc::Error);
  CHECK(bytes_of(path) == before);
  CHECK(std::distance(fs::directory_iterator(folder.path), {}) == 1);
}

TEST_CASE("checkpoint: a damaged one is refused and changes nothing") {
  const TempFolder folder;
  const fs::path path = folder.path / "checkpoint.h5";
  Network net = network();
  make_state(net);
  scramble(net, 1);
  pc::save_checkpoint(path, net, kEverything, {}, "config");
  const std::string whole = bytes_of(path);
  scramble(net, 2);
  for (std::size_t length = 0; length < whole.size(); length += 509) {
    CAPTURE(length);
    write_bytes(path, whole.substr(0, length));
    fails(path, net, path.string());
  }
  std::mt19937 random(3);
  for (int trial = 0; trial < 300; ++trial) {
    std::string damaged = whole;
    const std::size_t at = 15 + random() % (whole.size() - 15);
    CAPTURE(at);
    damaged[at] = static_cast<char>(damaged[at] ^ 1 << random() % 8);
    write_bytes(path, damaged);
    fails(path, net, "do not match its checksum");
  }
}

TEST_CASE("checkpoint: the same state makes the same file") {
  const TempFolder folder;
  const Network net = network();
  pc::save_checkpoint(folder.path / "a.h5", net, kWeights, {}, "");
  pc::save_checkpoint(folder.path / "b.h5", net, kWeights, {}, "");
  CHECK(bytes_of(folder.path / "a.h5") == bytes_of(folder.path / "b.h5"));
}

#include "experiments/data/bytes.h"

#include <doctest/doctest.h>
#include <lzma.h>
#include <stdlib.h>  // mkdtemp
#include <zlib.h>

#include <fstream>

#include "experiments/data/dataset.h"
#include "experiments/data/sha256.h"
#include "kernels/check.h"

namespace {

namespace fs = std::filesystem;
using doctest::Contains;
using pc::experiments::Bytes;

/// A folder that goes away with the test.
struct TempFolder {
  fs::path path;
  TempFolder() {
    std::string name = (fs::temp_directory_path() / "pc-data-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~TempFolder() { fs::remove_all(path); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  fs::path write(const std::string& name, const Bytes& bytes) const {
    fs::create_directories((path / name).parent_path());
    std::ofstream(path / name, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
    return path / name;
  }
};

Bytes bytes_of(std::string_view text) { return {text.begin(), text.end()}; }

Bytes gzip(const Bytes& bytes) {
  z_stream stream{};
  REQUIRE(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  Bytes packed(deflateBound(&stream, bytes.size()));
  Bytes source = bytes;
  stream.next_in = source.data(), stream.avail_in = static_cast<uInt>(source.size());
  stream.next_out = packed.data(), stream.avail_out = static_cast<uInt>(packed.size());
  REQUIRE(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

Bytes xz(const Bytes& bytes) {
  Bytes packed(lzma_stream_buffer_bound(bytes.size()));
  std::size_t used = 0;
  REQUIRE(lzma_easy_buffer_encode(6, LZMA_CHECK_CRC64, nullptr, bytes.data(), bytes.size(), packed.data(), &used,
                                  packed.size()) == LZMA_OK);
  packed.resize(used);
  return packed;
}

Bytes sample(std::size_t n) {
  Bytes bytes(n);
  std::uint32_t state = 1;
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>((state = state * 1664525 + 1013904223) >> 24);
  return bytes;
}

}  // namespace

TEST_CASE("bytes: plain, gzip and xz give the same content") {
  const TempFolder folder;
  const Bytes content = sample(200'000);
  const auto size = std::ssize(content);
  CHECK(pc::experiments::read_unpacked(folder.write("plain", content), size) == content);
  CHECK(pc::experiments::read_unpacked(folder.write("a.gz", gzip(content)), size) == content);
  CHECK(pc::experiments::read_unpacked(folder.write("a.xz", xz(content)), size) == content);
  CHECK(pc::experiments::read_unpacked(folder.write("none.gz", gzip({})), 0).empty());
  CHECK(pc::experiments::read_unpacked(folder.write("none.xz", xz({})), 0).empty());

  Bytes twice = gzip(content);
  const Bytes once = twice;
  twice.insert(twice.end(), once.begin(), once.end());  // gzip files may be concatenated
  CHECK(pc::experiments::read_unpacked(folder.write("twice.gz", twice), 2 * size).size() == 2 * content.size());
}

TEST_CASE("bytes: a file is found plain first, then .gz, then .xz") {
  const TempFolder folder;
  CHECK_FALSE(pc::experiments::find_packed(folder.path, "f").has_value());
  fs::create_directories(folder.path / "f");  // a folder is no file
  const fs::path xz_file = folder.write("f.xz", {1});
  CHECK(pc::experiments::find_packed(folder.path, "f") == xz_file);
  const fs::path gz_file = folder.write("f.gz", {1});
  CHECK(pc::experiments::find_packed(folder.path, "f") == gz_file);
}

TEST_CASE("bytes: truncated, corrupt, too long, missing") {
  const TempFolder folder;
  const Bytes content = sample(100'000);
  for (const auto& [suffix, packed] : {std::pair{".gz", gzip(content)}, std::pair{".xz", xz(content)}}) {
    CAPTURE(suffix);
    const std::string name = std::string("f") + suffix;
    auto read = [&](const Bytes& bytes, std::int64_t limit) {
      return pc::experiments::read_unpacked(folder.write(name, bytes), limit);
    };
    const Bytes half(packed.begin(), packed.begin() + std::ssize(packed) / 2);
    CHECK_THROWS_WITH_AS(read(half, 100'000), Contains("data end too early"), pc::Error);
    CHECK_THROWS_WITH_AS(read(half, 100'000), Contains(name.c_str()), pc::Error);
    CHECK_THROWS_WITH_AS(read({}, 100'000), Contains("data end too early, after 0 bytes"), pc::Error);
    Bytes bad = packed;
    for (std::size_t i = bad.size() - 40; i < bad.size(); ++i) bad[i] ^= 0x55;
    CHECK_THROWS_WITH_AS(read(bad, 100'000), Contains(": corrupt "), pc::Error);
    CHECK_THROWS_WITH_AS(read(content, 100'000), Contains(": corrupt "), pc::Error);
    CHECK_THROWS_WITH_AS(read(packed, 99'999), Contains("unpacks to more than 99999 bytes"), pc::Error);
    Bytes tail = packed;
    tail.push_back('x');
    CHECK_THROWS_AS(read(tail, 200'000), pc::Error);
  }
  const Bytes bomb = gzip(Bytes(50'000'000));  // 49 KB packed
  CHECK_THROWS_WITH_AS(pc::experiments::read_unpacked(folder.write("bomb.gz", bomb), 1000),
                       Contains("unpacks to more than 1000 bytes"), pc::Error);
  CHECK_THROWS_WITH_AS(pc::experiments::read_unpacked(folder.write("long", sample(11)), 10),
                       Contains("has 11 bytes, more than the 10"), pc::Error);
  CHECK_THROWS_WITH_AS(pc::experiments::read_file(folder.path / "none"), Contains("no such file"), pc::Error);
  CHECK_THROWS_WITH_AS(pc::experiments::read_file(folder.path), Contains("not a file"), pc::Error);
}

TEST_CASE("bytes: products that do not fit are nothing") {
  using Extents = std::vector<std::int64_t>;
  CHECK(pc::experiments::product(Extents{}) == 1);
  CHECK(pc::experiments::product(Extents{60'000, 28, 28}) == 47'040'000);
  CHECK_FALSE(pc::experiments::product(Extents{4294967295, 4294967295, 4294967295}).has_value());
  CHECK(pc::experiments::product(Extents{4294967295, 4294967295, 4294967295, 0}) == 0);
}

TEST_CASE("sha256: the vectors of FIPS 180-4") {
  using pc::experiments::sha256;
  CHECK(sha256({}) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256(bytes_of("abc")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha256(bytes_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")) ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(
      sha256(bytes_of("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqr"
                      "smnopqrstnopqrstu")) == "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
  CHECK(sha256(Bytes(1'000'000, 'a')) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("data sources: found by name, and the names are told") {
  CHECK(pc::experiments::find_data_source("mnist").files.size() == 4);
  CHECK_THROWS_WITH_AS(pc::experiments::find_data_source("mnits"),
                       "[data] no data set named 'mnits'; there are: glyphs, mnist, fashion-mnist, cifar10, npy, text",
                       pc::Error);
  for (const pc::experiments::DataSource* source : pc::experiments::all_data_sources()) {
    CHECK(&pc::experiments::find_data_source(source->name) == source);
    for (const pc::experiments::KnownFile& file : source->files) {
      CHECK(file.sha256.size() == 64);
      CHECK(file.packed_sha256.size() == 64);
    }
  }
}

TEST_CASE("data sources: missing files tell where we looked and what to do") {
  const TempFolder folder;
  pc::experiments::DataRequest request;
  request.set = "cifar10";
  request.root = folder.path;
  folder.write("cifar-10-batches-bin/test_batch.bin", {0});
  auto load = [&] { return pc::experiments::load_data(request); };
  CHECK_THROWS_WITH_AS(load(), Contains((folder.path / "cifar-10-batches-bin").c_str()), pc::Error);
  CHECK_THROWS_WITH_AS(load(), Contains("missing: data_batch_1.bin, data_batch_2.bin"), pc::Error);
  CHECK_THROWS_WITH_AS(load(), Contains("PC_DATA_DIR or data.root"), pc::Error);
  CHECK_THROWS_WITH_AS(load(), Contains("data.set: glyphs, which needs no download"), pc::Error);
  request.root = folder.path / "nowhere";
  CHECK_THROWS_WITH_AS(load(), Contains("is no folder"), pc::Error);
}

TEST_CASE("verify: missing, differing, unknown and unreadable files") {
  using pc::experiments::FileState;
  const TempFolder folder;
  folder.write("mnist/train-labels-idx1-ubyte", {1, 2, 3});
  folder.write("mnist/t10k-labels-idx1-ubyte.gz", {1, 2, 3});
  const auto mnist = verify(pc::experiments::find_data_source("mnist"), folder.path);
  REQUIRE(mnist.size() == 4);
  CHECK(mnist[0].state == FileState::missing);
  CHECK(mnist[1].state == FileState::differs);
  CHECK(mnist[1].path == folder.path / "mnist" / "train-labels-idx1-ubyte");
  CHECK(mnist[3].state == FileState::differs);
  CHECK(mnist[3].detail.find("corrupt gzip") != std::string::npos);

  folder.write("test_batch.bin", Bytes(2 * 3073, 7));
  folder.write("data_batch_1.bin", Bytes(3072, 7));
  folder.write("data_batch_2.bin", Bytes(3073, 10));
  const auto cifar = verify(pc::experiments::find_data_source("cifar10"), folder.path);
  REQUIRE(cifar.size() == 6);
  CHECK(cifar[0].state == FileState::differs);
  CHECK(cifar[0].detail.find("3072 bytes are no whole number of 3073-byte records") != std::string::npos);
  CHECK(cifar[1].state == FileState::differs);
  CHECK(cifar[1].detail.find("label 10 in record 0") != std::string::npos);
  CHECK(cifar[5].state == FileState::unknown);
  CHECK(cifar[5].detail.find("2 well-formed records") != std::string::npos);
  CHECK(state_name(cifar[5].state) == "unknown");
  CHECK(verify(pc::experiments::find_data_source("glyphs"), folder.path).empty());
}

TEST_CASE("verify: the real files are as published") {
  const auto root = pc::experiments::data_root({});
  if (!root) {
    MESSAGE("SKIPPED: PC_DATA_DIR is not set, so no real file was verified");
    return;
  }
  for (const char* set : {"mnist", "fashion-mnist"}) {
    CAPTURE(set);
    for (const auto& report : verify(pc::experiments::find_data_source(set), *root)) {
      CHECK_MESSAGE(report.state == pc::experiments::FileState::ok, report.file << ": " << report.detail);
    }
  }
}

#include "pc/h5.h"

#include <doctest/doctest.h>
#include <stdlib.h>  // mkdtemp

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <random>

#include "kernels/check.h"
#include "tests/small_disk.h"

namespace {

namespace fs = std::filesystem;
using doctest::Contains;
using pc::H5Dims, pc::H5Reader, pc::H5Type, pc::H5Writer, pc::test::SmallDisk;

struct TempFolder {
  fs::path path;
  TempFolder() {
    std::string name = (fs::temp_directory_path() / "pc-h5-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~TempFolder() { fs::remove_all(path); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(path)) names.push_back(entry.path().filename().string());
    return names;
  }
};

std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_bytes(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

/// Without its seal a file is read as one from elsewhere.
std::string unsealed(std::string bytes) {
  std::fill_n(bytes.begin(), 512, '\0');
  return bytes;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

/// Everything that a file can say, read once.
void read_all(const fs::path& path) {
  const H5Reader file(path);
  for (const std::string& name : file.names()) {
    if (name == "text") {
      static_cast<void>(file.read_text(name));
      continue;
    }
    static_cast<void>(file.description(name));
    const H5Dims dims = file.dims(name);
    switch (file.dtype(name)) {
      case H5Type::f32:
        static_cast<void>(file.read<float>(name, dims));
        break;
      case H5Type::f64:
        static_cast<void>(file.read<double>(name, dims));
        break;
      case H5Type::i32:
        static_cast<void>(file.read<std::int32_t>(name, dims));
        break;
      case H5Type::i64:
        static_cast<void>(file.read<std::int64_t>(name, dims));
        break;
      case H5Type::u8:
        static_cast<void>(file.read<std::uint8_t>(name, dims));
        break;
    }
  }
  static_cast<void>(file.attribute_text("format"));
  static_cast<void>(file.attribute_int("version"));
}

void write_sample(const fs::path& path) {
  H5Writer file(path);
  file.attribute("format", "sample");
  file.attribute("version", std::int64_t{3});
  file.attribute("rate", 0.25);
  file.write("a/b/c", {2, 3}, std::vector<float>{1, 2, 3, 4, 5, 6}, "six floats");
  file.write("a/counts", std::vector<std::int64_t>{1, -1}, "two counts");
  file.write("pixels", {1300, 1000}, std::vector<std::uint8_t>(1'300'000, 7), "much the same", true);
  file.write_text("text", "a text", "says something");
  file.commit();
}

template <class Action>
void fails(Action&& action, const char* says) {
  CHECK_THROWS_WITH_AS(static_cast<void>(action()), Contains(says), pc::Error);
}

}  // namespace

TEST_CASE("h5: every type comes back bit for bit") {
  const TempFolder folder;
  const fs::path path = folder.path / "a.h5";
  using Float = std::numeric_limits<float>;
  using Double = std::numeric_limits<double>;
  const std::vector<float> floats = {0.0F,
                                     -0.0F,
                                     Float::denorm_min(),
                                     -Float::denorm_min(),
                                     Float::infinity(),
                                     -Float::infinity(),
                                     Float::max(),
                                     Float::quiet_NaN(),
                                     std::bit_cast<float>(0xffc12345U),   // a NaN with a payload
                                     std::bit_cast<float>(0x7f812345U)};  // a signalling one
  const std::vector<double> doubles = {-0.0,
                                       Double::denorm_min(),
                                       Double::lowest(),
                                       -Double::infinity(),
                                       std::bit_cast<double>(0xfff8000000abcdefULL),
                                       std::bit_cast<double>(0x7ff0000000abcdefULL)};
  const std::vector<std::int32_t> ints = {0, -1, std::numeric_limits<std::int32_t>::min()};
  const std::vector<std::int64_t> longs = {std::numeric_limits<std::int64_t>::min(), 7,
                                           std::numeric_limits<std::int64_t>::max()};
  std::vector<std::uint8_t> bytes(256);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i);
  {
    H5Writer file(path);
    file.write("floats", {2, 5}, floats, "float32");
    file.write("doubles", doubles, "float64");
    file.write("ints", ints, "int32");
    file.write("longs", longs, "int64");
    file.write("bytes", {4, 4, 4, 2, 2}, bytes, "uint8");
    file.write_scalar("scalar", doubles[4], "a NaN");
    file.commit();
  }
  const H5Reader file(path);
  CHECK(same_bits(file.read<float>("floats", {2, 5}), floats));
  CHECK(same_bits(file.read<double>("doubles", {6}), doubles));
  CHECK(same_bits(file.read<std::int32_t>("ints", {3}), ints));
  CHECK(same_bits(file.read<std::int64_t>("longs", {3}), longs));
  CHECK(same_bits(file.read<std::uint8_t>("bytes", {4, 4, 4, 2, 2}), bytes));
  CHECK(std::bit_cast<std::uint64_t>(file.read_scalar<double>("scalar")) == 0xfff8000000abcdefULL);
  CHECK(file.dtype("floats") == H5Type::f32);
  CHECK(file.dtype("doubles") == H5Type::f64);
  CHECK(file.dtype("ints") == H5Type::i32);
  CHECK(file.dtype("longs") == H5Type::i64);
  CHECK(file.dtype("bytes") == H5Type::u8);
  CHECK(file.dims("scalar").empty());
}

TEST_CASE("h5: empty arrays, texts and attributes come back") {
  const TempFolder folder;
  const fs::path path = folder.path / "a.h5";
  const std::string text = "zwei Zeilen\nund ein \xc3\xa9\n", large(200'000, 'x');
  {
    H5Writer file(path);
    file.write("none", {0, 3}, std::vector<double>{}, "no rows");
    file.write_text("texts/some", text, "some");
    file.write_text("texts/empty", "", "none");
    file.write_text("texts/large", large, "long");
    file.attribute("real", -0.0);
    file.attribute("count", std::int64_t{-5});
    file.attribute("text", text);
    file.attribute("empty", "");
    file.attribute("large", large);
    file.commit();
  }
  const H5Reader file(path);
  CHECK(file.dims("none") == H5Dims{0, 3});
  CHECK(file.read<double>("none", {0, 3}).empty());
  CHECK(file.read_text("texts/some") == text);
  CHECK(file.read_text("texts/empty").empty());
  CHECK(file.read_text("texts/large") == large);
  CHECK(std::signbit(file.attribute_double("real")));
  CHECK(file.attribute_int("count") == -5);
  CHECK(file.attribute_text("text") == text);
  CHECK(file.attribute_text("empty").empty());
  CHECK(file.attribute_text("large") == large);
  CHECK(file.description("texts/some") == "some");
  CHECK(file.names() == std::vector<std::string>{"none", "texts/empty", "texts/large", "texts/some"});
  CHECK(file.has("none"));
  CHECK_FALSE(file.has("texts"));
  CHECK_FALSE(file.has("nothing/at/all"));
  CHECK_FALSE(file.has_attribute("nothing"));
}

TEST_CASE("h5: names may hold anything but a path's own signs") {
  const TempFolder folder;
  const fs::path path = folder.path / "odd name \xc3\xa9.h5";
  const std::vector<std::string> names = {" ",     "...", "a b", "a->b/linear.weight", "caf\xc3\xa9/\xe2\x86\x92",
                                          "q\"'\\"};
  {
    H5Writer file(path);
    for (const std::string& name : names) file.write_scalar(name, std::int32_t{1}, "one");
    for (const char* name : {"", "/", "/a", "a/", "a//b", ".", "a/./b", "..", "a/.."}) {
      CAPTURE(name);
      CHECK_THROWS_WITH_AS(file.write_scalar(name, 1.0, "one"), Contains("cannot name a dataset"), pc::Error);
    }
    CHECK_THROWS_WITH_AS(file.write_scalar("a b", 1.0, "again"), Contains("is its name taken"), pc::Error);
    CHECK_THROWS_WITH_AS(file.write_scalar("a b/c", 1.0, "under an array"), Contains("a b/c"), pc::Error);
    CHECK_THROWS_WITH_AS(file.write_scalar("other", 1.0, ""), Contains("needs a description"), pc::Error);
    CHECK_THROWS_WITH_AS(file.write("other", {3}, std::vector<float>{1, 2}, "three?"),
                         Contains("is [3] but was given 2 values"), pc::Error);
    CHECK_THROWS_WITH_AS(file.write_text("other", std::string("a\0b", 3), "zero"), Contains("zero byte"), pc::Error);
    file.commit();
  }
  CHECK(H5Reader(path).names() == names);
}

TEST_CASE("h5: compression is only used where asked and worth it") {
  const TempFolder folder;
  const std::vector<float> zeros(1'000'000, 0.5F);
  const auto write = [&](const char* name, bool compress) {
    H5Writer file(folder.path / name);
    file.write("zeros", {10, 100'000}, zeros, "all the same", compress);
    file.commit();
    CHECK(same_bits(H5Reader(folder.path / name).read<float>("zeros", {10, 100'000}), zeros));
    return fs::file_size(folder.path / name);
  };
  CHECK(write("plain.h5", false) > 4'000'000);
  CHECK(write("packed.h5", true) < 100'000);
}

TEST_CASE("h5: the same content makes the same file") {
  const TempFolder folder;
  write_sample(folder.path / "a.h5");
  write_sample(folder.path / "b.h5");
  CHECK(bytes_of(folder.path / "a.h5") == bytes_of(folder.path / "b.h5"));
}

TEST_CASE("h5: a writer dropped without commit leaves the old file whole and nothing else") {
  const TempFolder folder;
  const fs::path path = folder.path / "a.h5";
  write_sample(path);
  const std::string before = bytes_of(path);
  {
    H5Writer file(path);
    file.write("other", std::vector<double>(100'000, 1.0), "never finished");
    CHECK(folder.files().size() == 2);
    CHECK(bytes_of(path) == before);
  }
  CHECK(bytes_of(path) == before);
  CHECK(folder.files() == std::vector<std::string>{"a.h5"});
  {
    H5Writer file(path);
    file.write_scalar("other", 2.0, "finished");
    file.commit();
    CHECK_THROWS_WITH_AS(file.write_scalar("late", 2.0, "late"), Contains("is finished"), pc::Error);
    CHECK_THROWS_WITH_AS(file.commit(), Contains("is finished"), pc::Error);
  }
  CHECK(H5Reader(path).names() == std::vector<std::string>{"other"});
  CHECK(folder.files() == std::vector<std::string>{"a.h5"});
}

TEST_CASE("h5: a full disk is an error that leaves the old file whole") {
  const TempFolder folder;
  const fs::path path = folder.path / "a.h5";
  write_sample(path);
  const std::string before = bytes_of(path);
  for (const rlim_t room : {0, 600, 3'000, 30'000, 300'000, 790'000}) {
    CAPTURE(room);
    try {
      const SmallDisk limit(room);
      H5Writer file(path);
      for (const char* name : {"a", "b", "c"}) file.write(name, std::vector<float>(100'000, 1.0F), "large");
      file.commit();
      FAIL("it was written");
    } catch (const pc::Error& e) {
      CHECK(std::string(e.what()).find(path.string()) != std::string::npos);
      CHECK(e.status() == pc::ExitStatus::failed);
    }
    CHECK(bytes_of(path) == before);
    CHECK(folder.files() == std::vector<std::string>{"a.h5"});
  }
  write_sample(folder.path / "b.h5");  // and HDF5 is still in order
  read_all(folder.path / "b.h5");
}

TEST_CASE("h5: places that cannot be written are named, with the way out") {
  const TempFolder folder;
  write_bytes(folder.path / "file", "x");
  fs::create_directory(folder.path / "folder.h5");
  CHECK_THROWS_WITH_AS(H5Writer(folder.path / "file" / "a.h5"), Contains("must exist and be writable"), pc::Error);
  CHECK_THROWS_WITH_AS(H5Writer(folder.path / "missing" / "a.h5"), Contains("/missing must exist"), pc::Error);
  CHECK_THROWS_WITH_AS(H5Writer("/proc/a.h5"), Contains("cannot write /proc/a.h5"), pc::Error);
  CHECK_THROWS_WITH_AS(H5Writer(folder.path / "folder.h5"), Contains("a folder is in its place"), pc::Error);
  CHECK_THROWS_WITH_AS(H5Writer(""), Contains("needs a name"), pc::Error);
}

TEST_CASE("h5: what is no HDF5 file is named") {
  const TempFolder folder;
  const fs::path path = folder.path / "a.h5";
  CHECK_THROWS_WITH_AS(H5Reader{path}, Contains(path.c_str()), pc::Error);
  CHECK_THROWS_WITH_AS(H5Reader{path}, Contains("No such file"), pc::Error);
  CHECK_THROWS_WITH_AS(H5Reader{folder.path}, Contains("is a folder"), pc::Error);
  CHECK_THROWS_WITH_AS(H5Reader{"/dev/zero"}, Contains("is a device or pipe"), pc::Error);
  for (const std::string& bytes : {std::string(), std::string("x"), std::string(5'000, '\0'), std::string("\x89HDF"),
                                   std::string("{\"yaml\": 1}")}) {
    write_bytes(path, bytes);
    CHECK_THROWS_WITH_AS(H5Reader{path}, Contains("is not an HDF5 file"), pc::Error);
  }
  write_bytes(path, "\x89HDF\r\n\x1a\n" + std::string(3'000, '\0'));
  CHECK_THROWS_WITH_AS(H5Reader{path}, Contains("damaged"), pc::Error);
}

TEST_CASE("h5: what was not expected is told with both sides") {
  const TempFolder folder;
  const fs::path path = folder.path / "a.h5";
  write_sample(path);
  const H5Reader file(path);
  fails([&] { return file.dims("a/b"); }, "there are: a/b/c, a/counts, pixels, text");
  fails([&] { return file.read<float>("a/b/c", {3, 2}); }, "is [2, 3], but [3, 2] was expected");
  fails([&] { return file.read<float>("a/b/c", {}); }, "is [2, 3], but [] was expected");
  fails([&] { return file.read<double>("a/b/c", {2, 3}); }, "holds float32, but float64");
  fails([&] { return file.read_text("a/b/c"); }, "is not a text");
  fails([&] { return file.dtype("text"); }, "type that is not read");
  fails([&] { return file.attribute_int("rate"); }, "is not an integer");
  fails([&] { return file.attribute_double("version"); }, "is not a real number");
  fails([&] { return file.attribute_text("version"); }, "is not a text");
  fails([&] { return file.attribute_int("none"); }, "no attribute 'none'");
}

TEST_CASE("h5: a file cut off anywhere is an error") {
  const TempFolder folder;
  const fs::path path = folder.path / "a.h5";
  write_sample(path);
  const std::string whole = bytes_of(path);
  for (std::size_t length = 0; length < whole.size(); length += length < 520 ? 1 : 37) {
    CAPTURE(length);
    write_bytes(path, whole.substr(0, length));
    CHECK_THROWS_AS(H5Reader{path}, pc::Error);
  }
  write_bytes(path, whole + "x");
  CHECK_THROWS_WITH_AS(H5Reader{path}, Contains("do not match its checksum"), pc::Error);
}

TEST_CASE("h5: a flipped bit is an error, wherever it is") {
  const TempFolder folder;
  const fs::path path = folder.path / "a.h5";
  write_sample(path);
  const std::string whole = bytes_of(path);
  std::mt19937 random(7);
  for (int trial = 0; trial < 2'000; ++trial) {
    const std::size_t at = random() % whole.size();
    CAPTURE(at);
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 1 << random() % 8);
    write_bytes(path, damaged);
    const bool of_seal = at < 15;  // then it is not known for one
    CHECK_THROWS_WITH_AS(H5Reader{path},
                         Contains(of_seal ? "begins neither with its checksum" : "do not match its checksum"),
                         pc::Error);
  }
  std::string damaged = whole;
  damaged.replace(0, 4, "xxxx");
  damaged[whole.size() / 2] ^= 1;
  write_bytes(path, damaged);
  CHECK_THROWS_WITH_AS(H5Reader{path}, Contains("begins neither with its checksum"), pc::Error);
}

TEST_CASE("h5: a file without a seal is read") {
  const TempFolder folder;
  const fs::path path = folder.path / "a.h5";
  write_sample(path);
  write_bytes(path, unsealed(bytes_of(path)));
  CHECK_NOTHROW(read_all(path));
  CHECK(H5Reader(path).read<float>("a/b/c", {2, 3}) == std::vector<float>{1, 2, 3, 4, 5, 6});
}

TEST_CASE("h5: a file that lies about its size takes no memory") {
  const TempFolder folder;
  const fs::path path = folder.path / "a.h5";
  {
    H5Writer file(path);
    file.write("x", std::vector<float>(12'345, 1.0F), "some");
    file.commit();
  }
  const auto word = [](std::uint64_t value) {
    std::string text(sizeof value, '\0');
    std::memcpy(text.data(), &value, sizeof value);
    return text;
  };
  const std::string whole = unsealed(bytes_of(path));
  // The extent alone, and the extent with the size of the data.
  for (const bool size_too : {false, true}) {
    for (const std::uint64_t claim : {std::uint64_t{1} << 40, std::uint64_t{1} << 61, ~std::uint64_t{0}}) {
      std::string lying = whole;
      for (std::size_t at; (at = lying.find(word(12'345))) != std::string::npos;) lying.replace(at, 8, word(claim));
      if (size_too) {
        for (std::size_t at; (at = lying.find(word(4 * 12'345))) != std::string::npos;) {
          lying.replace(at, 8, word(4 * claim));
        }
      }
      REQUIRE(lying != whole);
      write_bytes(path, lying);
      CHECK_THROWS_AS(
          [&] {
            const H5Reader file(path);
            static_cast<void>(file.read<float>("x", file.dims("x")));
          }(),
          pc::Error);
    }
  }
}

#include "experiments/data/npy.h"

#include <doctest/doctest.h>
#include <stdlib.h>  // mkdtemp

#include <cmath>
#include <cstring>
#include <fstream>

#include "kernels/check.h"

namespace {

namespace fs = std::filesystem;
using doctest::Contains;
using pc::experiments::Bytes, pc::experiments::NpyType;

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

  fs::path write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path / name, std::ios::binary) << bytes;
    return path / name;
  }
};

template <class T>
std::string raw(const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

std::string npy(const std::string& header, const std::string& values, char version = 1) {
  std::string bytes = std::string("\x93NUMPY") + version + '\0';
  const std::size_t n_length = version == 1 ? 2 : 4;
  for (std::size_t i = 0; i < n_length; ++i) bytes += static_cast<char>(header.size() >> 8 * i & 255);
  return bytes + header + values;
}

std::string header(const std::string& descr, const std::string& shape) {
  return "{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }      \n";
}

struct Fixture {
  TempFolder folder;

  pc::experiments::NpyArray read(const std::string& bytes) const {
    return pc::experiments::read_npy(folder.write("a.npy", bytes));
  }
  void fails(const std::string& bytes, const char* says) const {
    CHECK_THROWS_WITH_AS(read(bytes), Contains(says), pc::Error);
  }
  void header_fails(const std::string& text, const char* says) const { fails(npy(text, ""), says); }
};

/// Four arrays on disk, and the request for them.
struct SetFixture : Fixture {
  pc::experiments::DataRequest request = [this] {
    pc::experiments::DataRequest r;
    r.set = "npy";
    r.root = folder.path;
    r.train_images = "train_images.npy", r.train_labels = "train_labels.npy";
    r.test_images = folder.path / "test_images.npy", r.test_labels = "test_labels.npy";
    return r;
  }();

  SetFixture() {
    write("train_images", npy(header("<f8", "(3, 1, 2)"), raw<double>({0, 0.5, 1, -1, 2, 3})));
    write("train_labels", npy(header("<i8", "(3,)"), raw<std::int64_t>({0, 4, 1})));
    write("test_images", npy(header("<f4", "(1, 1, 2)"), raw<float>({0.25F, 8})));
    write("test_labels", npy(header("|u1", "(1,)"), raw<std::uint8_t>({2})));
  }
  void write(const std::string& name, const std::string& bytes) const { folder.write(name + ".npy", bytes); }
  [[nodiscard]] pc::experiments::DataSet load() const { return pc::experiments::load_data(request); }
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "npy: every version and type") {
  for (const char version : {char{1}, char{2}, char{3}}) {
    const auto array = read(npy(header("|u1", "(2, 3)"), raw<std::uint8_t>({1, 2, 3, 4, 5, 255}), version));
    CHECK(array.type == NpyType::u1);
    CHECK(array.shape == std::vector<std::int64_t>{2, 3});
    CHECK(array.values == Bytes{1, 2, 3, 4, 5, 255});
  }
  CHECK(read(npy(header("<f4", "()"), raw<float>({1}))).shape.empty());
  CHECK(read(npy(header("<f8", "(1,)"), raw<double>({1}))).type == NpyType::f8);
  CHECK(read(npy(header("<i4", "(2,)"), raw<std::int32_t>({1, 2}))).type == NpyType::i4);
  CHECK(read(npy(header("<i8", "(0, 7)"), "")).values.empty());
  CHECK(read(npy("{\"shape\":(2,1,),\"descr\":\"|u1\",\"fortran_order\":False}", "ab")).values == Bytes{'a', 'b'});
}

TEST_CASE_FIXTURE(Fixture, "npy: what is wrong with a file") {
  fails("", "a.npy: is empty");
  fails("PK\3\4 a zip file", "does not start with \\x93NUMPY");
  fails("\x93NUM", "does not start with \\x93NUMPY");
  fails("\x93NUMPY\1", "ends inside its header, after 7 bytes");
  fails(std::string("\x93NUMPY\2\0\1\0", 10), "ends inside its header, after 10 bytes");
  fails(std::string("\x93NUMPY\4\0\1\0", 10), "is version 4; this program reads 1, 2 and 3");
  fails(npy(header("|u1", "(2,)"), "ab").substr(0, 30), "bytes, but only 20 follow");
  fails(std::string("\x93NUMPY\2\0\xff\xff\xff\xff{}", 14), "its header claims 4294967295 bytes, but only 2 follow");
  fails(npy(header("<f4", "(2, 3)"), "abc"), "its header claims 2x3x4 = 24 bytes of values, but 3 follow");
  fails(npy(header("|u1", "(2,)"), "abc"), "its header claims 2x1 = 2 bytes of values, but 3 follow");
  fails(npy(header("<f8", "(4294967296, 4294967296)"), "abc"), "more values than any file can hold");
}

TEST_CASE_FIXTURE(Fixture, "npy: unsupported arrays come with the fix") {
  header_fails(header(">f4", "(1,)"), "type '>f4' is big-endian; save array.astype('<f4')");
  header_fails(header("|O", "(1,)"), "type '|O' is not supported; there are |u1, <f4, <f8, <i4, <i8");
  header_fails(header("<f2", "(1,)"), "type '<f2' is not supported");
  header_fails("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", "structured arrays");
  header_fails("{'descr': '<f4', 'fortran_order': True, 'shape': (1, 2), }",
               "is in Fortran order; save numpy.ascontiguousarray(array)");
}

TEST_CASE_FIXTURE(Fixture, "npy: a malformed header is refused, wherever it ends") {
  header_fails("", "malformed header, expected { at character 0");
  header_fails("{}", "descr, fortran_order or shape is missing");
  header_fails("{'descr': '|u1', 'fortran_order': False, }", "shape is missing");
  header_fails("{'descr': '|u1', 'descr': '|u1', }", "unknown or repeated key descr");
  header_fails("{'colour': 1}", "unknown or repeated key colour");
  header_fails("{'descr': '|u1}", "a string without end");
  header_fails("{descr: '|u1'}", "expected \"");
  header_fails(header("|u1", "(3)"), "expected ,");
  header_fails(header("|u1", "3"), "expected (");
  header_fails(header("|u1", "(-3,)"), "expected a whole number");
  header_fails(header("|u1", "(1, 3.5)"), "expected )");
  header_fails(header("|u1", "(9999999999999999999,)"), "a number that is too large");
  header_fails(header("|u1", "(1,)") + "x", "something after the dict");
  header_fails("{'descr': '|u1', 'fortran_order': 0, 'shape': (1,), }", "expected False");
  std::string many = "(";
  for (int i = 0; i < 33; ++i) many += "1, ";
  header_fails(header("|u1", many + ")"), "more than 32 dimensions");
  const std::string whole = header("|u1", "(1, 2)");
  for (std::size_t n = 0; n < whole.find('}'); ++n) {
    CHECK_THROWS_AS(pc::experiments::parse_npy_header(whole.substr(0, n), "a.npy"), pc::Error);
  }
}

TEST_CASE_FIXTURE(SetFixture, "npy: a data set of floats, and of bytes") {
  const pc::experiments::DataSet set = load();
  CHECK(set.train.floats == std::vector<float>{0, 0.5F, 1, -1, 2, 3});
  CHECK(set.train.bytes.empty());
  CHECK(set.train.shape == std::vector<std::int64_t>{1, 2});
  CHECK(set.train.labels == std::vector<std::int32_t>{0, 4, 1});
  CHECK(set.test.floats == std::vector<float>{0.25F, 8});
  CHECK(set.classes == 5);
  CHECK(set.class_names.back() == "4");

  write("train_images", npy(header("|u1", "(3, 1, 2)"), "abcdef"));
  CHECK_THROWS_WITH_AS(load(), Contains("train and test differ in type"), pc::Error);
  write("test_images", npy(header("|u1", "(1, 1, 2)"), "gh"));
  CHECK(load().test.bytes == Bytes{'g', 'h'});
}

TEST_CASE_FIXTURE(SetFixture, "npy: arrays that make no data set") {
  auto check = [&](const char* name, const std::string& bytes, const char* says) {
    const SetFixture fresh;
    fresh.write(name, bytes);
    CHECK_THROWS_WITH_AS(fresh.load(), Contains(says), pc::Error);
  };
  check("train_labels", npy(header("<f4", "(3,)"), raw<float>({1, 2, 3})), "labels must be integers");
  check("train_labels", npy(header("<i4", "(3,)"), raw<std::int32_t>({1, -1, 0})), "label -1 at position 1");
  check("train_labels", npy(header("<i4", "(3,)"), raw<std::int32_t>({1, 0, 65536})), "label 65536 at position 2");
  check("train_labels", npy(header("|u1", "(3, 1)"), "abc"), "labels must be [N], but it has 2 dimensions");
  check("train_labels", npy(header("|u1", "(2,)"), "ab"), "holds 3 images, but ");
  check("train_images", npy(header("|u1", "(3,)"), "abc"), "images must be [N, ...], but it has 1 dimensions");
  check("train_images", npy(header("|u1", "(3, 0)"), ""), "is empty, 3x0");
  check("train_images", npy(header("<i4", "(3, 1)"), raw<std::int32_t>({1, 2, 3})), "images must be uint8");
  check("train_images", npy(header("<f4", "(3, 1)"), raw<float>({1, NAN, 3})), "value nan at position 1");
  check("train_images", npy(header("<f8", "(3, 1)"), raw<double>({1, 2, 1e300})), "values must be finite");
  check("train_images", npy(header("<f4", "(3, 1)"), raw<float>({1, 2, 3})),
        "train examples are 1, test examples are 1x2");
  request.test_labels.clear();
  CHECK_THROWS_WITH_AS(load(), Contains("npy needs data.test_labels"), pc::Error);
  request.test_labels = "none.npy";
  CHECK_THROWS_WITH_AS(load(), Contains("none.npy: no such file"), pc::Error);
}

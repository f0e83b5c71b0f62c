#include "experiments/data/idx.h"

#include <doctest/doctest.h>
#include <stdlib.h>  // mkdtemp

#include <array>
#include <cmath>
#include <fstream>

#include "experiments/data/bytes.h"
#include "experiments/data/cifar.h"
#include "experiments/data/locate.h"
#include "kernels/check.h"

namespace {

namespace fs = std::filesystem;
using doctest::Contains;
using pc::experiments::Bytes, pc::experiments::Examples;

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
    std::ofstream(path / name, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
    return path / name;
  }
};

/// A header of big-endian words, then values.
Bytes idx(const std::vector<std::uint32_t>& header, const Bytes& values) {
  Bytes bytes;
  for (const std::uint32_t word : header) {
    for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(static_cast<std::uint8_t>(word >> shift));
  }
  bytes.insert(bytes.end(), values.begin(), values.end());
  return bytes;
}

const Bytes kPixels = {0, 1, 2, 3, 4, 5, 250, 251, 252, 253, 254, 255};
const Bytes kImages = idx({2051, 2, 2, 3}, kPixels), kLabels = idx({2049, 2}, {9, 0});

struct Fixture {
  TempFolder folder;

  Examples read(const Bytes& images, const Bytes& labels) const {
    return pc::experiments::read_idx({folder.write("pictures", images), folder.write("names", labels), 1000, 1000, 10});
  }
};

/// Counts per label.
std::vector<int> histogram(const Examples& examples) {
  std::vector<int> counts(10);
  for (const std::int32_t label : examples.labels) ++counts.at(static_cast<std::size_t>(label));
  return counts;
}

struct Moments {
  double mean, std;
};

/// Of the values in [0, 1] whose place in the example is in [from, from + n).
Moments moments(const Examples& examples, std::int64_t from, std::int64_t n) {
  double sum = 0, squares = 0;
  for (std::int64_t i = 0; i < examples.count(); ++i) {
    for (std::int64_t k = from; k < from + n; ++k) {
      const double value = examples.bytes[static_cast<std::size_t>(i * examples.size() + k)] / 255.0;
      sum += value, squares += value * value;
    }
  }
  const auto total = static_cast<double>(examples.count() * n);
  return {sum / total, std::sqrt(squares / total - sum / total * (sum / total))};
}

}  // namespace

TEST_CASE_FIXTURE(Fixture, "idx: exact values") {
  const Examples examples = read(kImages, kLabels);
  CHECK(examples.count() == 2);
  CHECK(examples.size() == 6);
  CHECK(examples.shape == std::vector<std::int64_t>{2, 3});
  CHECK(examples.bytes == kPixels);
  CHECK(examples.floats.empty());
  CHECK(examples.labels == std::vector<std::int32_t>{9, 0});
}

TEST_CASE_FIXTURE(Fixture, "idx: every lie has its own message") {
  auto check = [&](const Bytes& images, const Bytes& labels, const char* says) {
    CHECK_THROWS_WITH_AS(read(images, labels), Contains(says), pc::Error);
  };
  check({}, kLabels, "pictures: is empty; fetch the file again");
  check(kImages, {}, "names: is empty");
  check({0, 0, 8}, kLabels, "pictures: has 3 bytes, no room for a magic number");
  check(idx({2051, 2, 2}, {0}), kLabels, "pictures: has 13 bytes, but its header alone takes 16");
  check(kImages, idx({2049}, {0, 0}), "names: has 6 bytes, but its header alone takes 8");
  check(idx({2051, 2, 2, 3}, {1, 2, 3}), kLabels, "claims 2x2x3 = 12 values, but only 3 follow");
  check(idx({2051, 1, 2, 3}, kPixels), kLabels, "claims 1x2x3 = 6 values, but 12 follow: 6 bytes too many");
  check(kImages, idx({2049, 2}, {1}), "names: its header claims 2 = 2 values, but only 1 follow");
  check(kImages, idx({2049, 1}, {1, 2}), "1 bytes too many");
  check(idx({2051, 0xffffffff, 0xffffffff, 0xffffffff}, kPixels), kLabels,
        "claims 4294967295x4294967295x4294967295 values, which no file can hold");
  check(idx({2051, 0, 28, 28}, {}), kLabels, "claims 0x28x28: nothing to learn from");
  check(kImages, idx({2049, 2}, {3, 10}), "names: label 10 at position 1; labels must be 0 to 9");
  check(kImages, idx({2049, 3}, {3, 1, 2}), "holds 2 images, but ");
  check(kImages, idx({2049, 3}, {3, 1, 2}), "holds 3 labels; they do not belong together");
  check(idx({2051, 10, 10, 10}, Bytes(1000)), kLabels, "has 1016 bytes, more than the 1000");
}

TEST_CASE_FIXTURE(Fixture, "idx: a wrong magic number is explained") {
  auto check = [&](const Bytes& images, const Bytes& labels, const char* says) {
    CHECK_THROWS_WITH_AS(read(images, labels), Contains(says), pc::Error);
  };
  check(kLabels, kImages,
        "pictures: starts with 2049, not with 2051; it looks like a label file: are images and labels");
  check(kImages, kImages, "names: starts with 2051, not with 2049; it looks like an image file");
  check({0x1f, 0x8b, 8, 0}, kLabels, "it is gzip data: end its name in .gz");
  check({0xfd, '7', 'z', 'X', 'Z', 0}, kLabels, "it is xz data: end its name in .xz");
  check({'<', 'h', 't', 'm', 'l', '>'}, kLabels, "it looks like a web page");
  check(idx({1}, {}), kLabels, "starts with 1, not with 2051");
}

TEST_CASE("cifar10: exact values, and what is wrong with a file") {
  const TempFolder folder;
  Bytes records(2 * 3073);
  records[0] = 3, records[1] = 11, records[3072] = 22, records[3073] = 9, records[3074] = 33;
  const Examples examples = pc::experiments::read_cifar10(folder.write("a.bin", records));
  CHECK(examples.labels == std::vector<std::int32_t>{3, 9});
  CHECK(examples.shape == std::vector<std::int64_t>{3, 32, 32});
  REQUIRE(examples.bytes.size() == 2 * 3072);
  CHECK(examples.bytes[0] == 11);
  CHECK(examples.bytes[3071] == 22);
  CHECK(examples.bytes[3072] == 33);

  auto check = [&](const Bytes& bytes, const char* says) {
    CHECK_THROWS_WITH_AS(pc::experiments::read_cifar10(folder.write("b.bin", bytes)), Contains(says), pc::Error);
  };
  check({}, "b.bin: is empty");
  check(Bytes(3000), "3000 bytes are no whole number of 3073-byte records");
  check(Bytes(2 * 3074), "it looks like CIFAR-100");
  records[3073] = 10;
  check(records, "label 10 in record 1; labels must be 0 to 9");
  check(Bytes(10'001 * 3073), "more than the 30730000");
}

TEST_CASE("mnist and fashion-mnist: the real files") {
  pc::experiments::DataRequest request;
  if (!pc::experiments::data_root(request)) {
    MESSAGE("SKIPPED: PC_DATA_DIR is not set, so the real MNIST and Fashion-MNIST were not read");
    return;
  }
  request.set = "mnist";
  const pc::experiments::DataSet mnist = pc::experiments::load_data(request);
  CHECK(mnist.train.shape == std::vector<std::int64_t>{28, 28});
  CHECK(histogram(mnist.train) == std::vector<int>{5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949});
  CHECK(histogram(mnist.test) == std::vector<int>{980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009});
  CHECK(std::abs(moments(mnist.train, 0, 784).mean - 0.130660) < 1e-6);
  CHECK(std::abs(moments(mnist.train, 0, 784).std - 0.308108) < 1e-6);
  CHECK(std::abs(moments(mnist.test, 0, 784).mean - 0.132515) < 1e-6);
  CHECK(std::abs(moments(mnist.test, 0, 784).std - 0.310480) < 1e-6);

  request.set = "fashion-mnist";
  const pc::experiments::DataSet fashion = pc::experiments::load_data(request);
  CHECK(histogram(fashion.train) == std::vector<int>(10, 6000));
  CHECK(std::abs(moments(fashion.test, 0, 784).mean - 0.286849) < 1e-6);
  CHECK(fashion.class_names.at(9) == "Ankle boot");

  // A root that is the other set's folder: the files have the right names and the wrong content.
  request.root =
      pc::experiments::data_folder(pc::experiments::find_data_source("mnist"), *pc::experiments::data_root({}));
  CHECK_THROWS_WITH_AS(pc::experiments::load_data(request), Contains("belongs to mnist; use data.set: mnist"),
                       pc::Error);
}

TEST_CASE("cifar10: the real test batch") {
  const auto root = pc::experiments::data_root({});
  if (!root) {
    MESSAGE("SKIPPED: PC_DATA_DIR is not set, so the real CIFAR-10 was not read");
    return;
  }
  const fs::path folder = pc::experiments::data_folder(pc::experiments::find_data_source("cifar10"), *root);
  const auto file = pc::experiments::find_packed(folder, "test_batch.bin");
  REQUIRE(file.has_value());
  const Examples test = pc::experiments::read_cifar10(*file);
  CHECK(histogram(test) == std::vector<int>(10, 1000));
  const std::array<Moments, 3> known = {{{0.494214, 0.246653}, {0.485131, 0.242892}, {0.450409, 0.261592}}};
  for (std::size_t plane = 0; plane < 3; ++plane) {
    const Moments found = moments(test, static_cast<std::int64_t>(plane) * 1024, 1024);
    CHECK(std::abs(found.mean - known[plane].mean) < 1e-6);
    CHECK(std::abs(found.std - known[plane].std) < 1e-6);
  }
}

// npy: the user's own arrays. images [N, ...] as uint8 or float, labels [N] as integers.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "experiments/data/npy.h"
#include "kernels/check.h"

namespace pc::experiments::sources {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMostClasses = 65536;  // beyond this a one-hot label is a mistake, not a plan

/// Calls use(value) for every value, read as T.
template <class T, class Use>
void each(const NpyArray& array, Use&& use) {
  for (std::size_t at = 0; at < array.values.size(); at += sizeof(T)) {
    T value;
    std::memcpy(&value, array.values.data() + at, sizeof(T));
    use(value);
  }
}

template <class T>
std::vector<float> to_floats(const NpyArray& array) {
  std::vector<float> floats;
  floats.reserve(array.values.size() / sizeof(T));
  each<T>(array, [&](T value) {
    // A finite double may still be infinite as a float.
    PC_CHECK(std::isfinite(value) && std::isfinite(static_cast<float>(value)), "npy", array.file, ": value ", value,
             " at position ", floats.size(), "; values must be finite");
    floats.push_back(static_cast<float>(value));
  });
  return floats;
}

template <class T>
std::vector<std::int32_t> to_labels(const NpyArray& array) {
  std::vector<std::int32_t> labels;
  labels.reserve(array.values.size() / sizeof(T));
  each<T>(array, [&](T value) {
    const auto label = static_cast<std::int64_t>(value);
    PC_CHECK(label >= 0 && label < kMostClasses, "npy", array.file, ": label ", label, " at position ", labels.size(),
             "; labels must be 0 to ", kMostClasses - 1);
    labels.push_back(static_cast<std::int32_t>(label));
  });
  return labels;
}

std::vector<std::int32_t> labels_of(const NpyArray& array) {
  PC_CHECK(array.shape.size() == 1, "npy", array.file, ": labels must be [N], but it has ", array.shape.size(),
           " dimensions");
  switch (array.type) {
    case NpyType::u1:
      return to_labels<std::uint8_t>(array);
    case NpyType::i4:
      return to_labels<std::int32_t>(array);
    case NpyType::i8:
      return to_labels<std::int64_t>(array);
    default:
      fail("npy", array.file, ": labels must be integers; save labels.astype('int64')");
  }
}

Examples examples_of(NpyArray images, const NpyArray& labels) {
  PC_CHECK(images.shape.size() >= 2, "npy", images.file, ": images must be [N, ...], but it has ", images.shape.size(),
           " dimensions");
  PC_CHECK(std::ranges::count(images.shape, 0) == 0, "npy", images.file, ": is empty, ", shape_text(images.shape));
  Examples examples;
  examples.labels = labels_of(labels);
  PC_CHECK(images.shape[0] == examples.count(), "npy", images.file, " holds ", images.shape[0], " images, but ",
           labels.file, " holds ", examples.count(), " labels");
  examples.shape.assign(images.shape.begin() + 1, images.shape.end());
  switch (images.type) {
    case NpyType::u1:
      examples.bytes = std::move(images.values);
      break;
    case NpyType::f4:
      examples.floats = to_floats<float>(images);
      break;
    case NpyType::f8:
      examples.floats = to_floats<double>(images);
      break;
    default:
      fail("npy", images.file, ": images must be uint8 (0 to 255) or float; save images.astype('float32')");
  }
  return examples;
}

fs::path resolve(const DataRequest& request, const fs::path& file, const char* option) {
  PC_CHECK(!file.empty(), "data", "npy needs data.", option, ", the path of a .npy file");
  return own_file(request, file);
}

DataSet load(const DataRequest& request) {
  const fs::path train_images = resolve(request, request.train_images, "train_images");
  const fs::path train_labels = resolve(request, request.train_labels, "train_labels");
  const fs::path test_images = resolve(request, request.test_images, "test_images");
  const fs::path test_labels = resolve(request, request.test_labels, "test_labels");
  DataSet set{.name = "npy",
              .train = examples_of(read_npy(train_images), read_npy(train_labels)),
              .test = examples_of(read_npy(test_images), read_npy(test_labels)),
              .class_names = {},
              .provenance = train_images.string() + ", " + train_labels.string() + ", " + test_images.string() + ", " +
                            test_labels.string()};
  set.classes = 1 + std::max(std::ranges::max(set.train.labels), std::ranges::max(set.test.labels));
  for (int k = 0; k < set.classes; ++k) set.class_names.push_back(std::to_string(k));
  return set;
}

}  // namespace

extern constinit const DataSource npy{"npy", "your own NumPy arrays: images [N, ...], labels [N]", {}, {}, load};

}  // namespace pc::experiments::sources

// mnist, fashion-mnist: four IDX files each, and they share their names.
#include <array>

#include "experiments/data/bytes.h"
#include "experiments/data/idx.h"
#include "experiments/data/locate.h"
#include "experiments/data/sha256.h"
#include "kernels/check.h"

namespace pc::experiments::sources {
namespace {

constexpr std::int64_t kTrainImages = 16 + 60'000 * 784, kTrainLabels = 8 + 60'000;
constexpr std::int64_t kTestImages = 16 + 10'000 * 784, kTestLabels = 8 + 10'000;
constexpr std::string_view kAsPublished = "as published";

// Order: train images, train labels, test images, test labels.
constexpr KnownFile kMnist[] = {
    {"train-images-idx3-ubyte", kTrainImages, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db", ".gz",
     "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", kAsPublished},
    {"train-labels-idx1-ubyte", kTrainLabels, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5", ".gz",
     "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", kAsPublished},
    {"t10k-images-idx3-ubyte", kTestImages, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7", ".gz",
     "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", kAsPublished},
    {"t10k-labels-idx1-ubyte", kTestLabels, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2", ".gz",
     "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", kAsPublished},
};

constexpr KnownFile kFashion[] = {
    {"train-images-idx3-ubyte", kTrainImages, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888", ".gz",
     "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", kAsPublished},
    {"train-labels-idx1-ubyte", kTrainLabels, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9", ".gz",
     "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", kAsPublished},
    {"t10k-images-idx3-ubyte", kTestImages, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b", ".gz",
     "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", kAsPublished},
    {"t10k-labels-idx1-ubyte", kTestLabels, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34", ".gz",
     "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", kAsPublished},
};

// The other set's test labels under this set's name would train without complaint, on the wrong images.
void check_not_swapped(const std::filesystem::path& test_labels, const DataSource& other) {
  PC_CHECK(sha256(read_unpacked(test_labels, kTestLabels)) != other.files.back().sha256, "data", test_labels.string(),
           " belongs to ", other.name, "; use data.set: ", other.name, ", or keep each set in a folder of its own");
}

DataSet load(const DataSource& source, const DataSource& other, const DataRequest& request) {
  const std::vector<std::filesystem::path> files = locate(source, request);
  check_not_swapped(files[3], other);
  DataSet set{.name = std::string(source.name),
              .train = read_idx({files[0], files[1], kTrainImages, kTrainLabels, 10}),
              .test = read_idx({files[2], files[3], kTestImages, kTestLabels, 10}),
              .classes = 10,
              .class_names = {},
              .provenance = provenance(files)};
  PC_CHECK((set.train.shape == std::vector<std::int64_t>{28, 28}), "data", files[0].string(), ": images are ",
           shape_text(set.train.shape), ", those of ", source.name, " are 28x28");
  return set;
}

DataSet load_mnist(const DataRequest&);
DataSet load_fashion(const DataRequest&);

constexpr std::string_view kMnistFolders[] = {"mnist"}, kFashionFolders[] = {"fashion-mnist"};

}  // namespace

extern constinit const DataSource mnist{"mnist", "60,000 + 10,000 handwritten digits, 28x28, IDX", kMnistFolders,
                                        kMnist, load_mnist};
extern constinit const DataSource fashion_mnist{"fashion-mnist", "60,000 + 10,000 pieces of clothing, 28x28, IDX",
                                                kFashionFolders, kFashion, load_fashion};

namespace {

DataSet load_mnist(const DataRequest& request) {
  DataSet set = load(mnist, fashion_mnist, request);
  set.class_names = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};
  return set;
}

DataSet load_fashion(const DataRequest& request) {
  DataSet set = load(fashion_mnist, mnist, request);
  set.class_names = {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                     "Sandal",      "Shirt",   "Sneaker",  "Bag",   "Ankle boot"};
  return set;
}

}  // namespace
}  // namespace pc::experiments::sources

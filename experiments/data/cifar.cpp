#include "experiments/data/cifar.h"

#include <future>

#include "experiments/data/bytes.h"
#include "experiments/data/locate.h"
#include "kernels/check.h"

namespace pc::experiments {

Examples read_cifar10(const std::filesystem::path& file) {
  const Bytes bytes = read_unpacked(file, kCifarFile);
  const std::int64_t size = std::ssize(bytes), n_records = size / kCifarRecord;
  PC_CHECK(size > 0, "cifar10", file.string(), ": is empty; fetch the file again");
  PC_CHECK(size % kCifarRecord == 0, "cifar10", file.string(), ": ", size, " bytes are no whole number of ",
           kCifarRecord, "-byte records", size % (kCifarRecord + 1) == 0 ? "; it looks like CIFAR-100" : "",
           "; this program reads CIFAR-10's binary version");
  Examples examples{.bytes = {}, .floats = {}, .shape = {3, 32, 32}, .labels = {}};
  examples.bytes.reserve(static_cast<std::size_t>(size - n_records));
  examples.labels.reserve(static_cast<std::size_t>(n_records));
  for (auto record = bytes.begin(); record != bytes.end(); record += kCifarRecord) {
    PC_CHECK(*record < 10, "cifar10", file.string(), ": label ", int{*record}, " in record ", examples.labels.size(),
             "; labels must be 0 to 9. This program reads CIFAR-10's binary version");
    examples.labels.push_back(*record);
    examples.bytes.insert(examples.bytes.end(), record + 1, record + kCifarRecord);
  }
  return examples;
}

namespace sources {
namespace {

// The order of images differs from the original distribution's, so other sums may be right too.
constexpr std::string_view kNote = "exact pixels, shuffled order";

constexpr KnownFile kFiles[] = {
    {"data_batch_1.bin", kCifarFile, "878e1109ddea0aff9ba535884732cd605d09e5ce437b0336c52abd18b47cadeb", ".xz",
     "8c6a65414dffd0031e0622a4ad310885dd01aa24837f5f8cbbd45a4c822049df", kNote},
    {"data_batch_2.bin", kCifarFile, "d5e2905379b9195185c3293185f679d7d0545a8e1b6efec42968605e7a12ee08", ".xz",
     "a5546d812d60586abdffa4c69c367726ee2bfc1801dc88fada73b5ef6e670d1d", kNote},
    {"data_batch_3.bin", kCifarFile, "c32807e09d00bc5723700b169dfa1e4882dfcae93de69d695bcb367b44b1a5da", ".xz",
     "cd7d8ba8812fe1e4e40bf2b196995992a0042c1d369056017fccd0de78801646", kNote},
    {"data_batch_4.bin", kCifarFile, "620f3dff3e42139adfabc283debf473eb7173bdab449f9f96dc99d7b90a2f0b2", ".xz",
     "84a32a621b547370f4a2f42e560b2209c5b37b8e10ecb4314910665001ea55c9", kNote},
    {"data_batch_5.bin", kCifarFile, "f2d8170f61ce85ad3199bb70b288f57fbf06416101df6f08951944886a51f0db", ".xz",
     "94506cd69ca725dbed78f98d67b2d78c0b125e7aef25124a7a2ed3ab03132e79", kNote},
    {"test_batch.bin", kCifarFile, "84d3544b3027b9edb1ffea10df72f666a73a2d5967d549f0b90b13bf67832172", ".xz",
     "83fcaab8b19f77a9f3b16932b0b4b15beb15705f3e4b00aa5f23b9d587bed6c2", kNote},
};

constexpr std::string_view kFolders[] = {"cifar10", "cifar-10-batches-bin"};

void append(Examples& all, Examples part) {
  all.shape = part.shape;
  all.bytes.insert(all.bytes.end(), part.bytes.begin(), part.bytes.end());
  all.labels.insert(all.labels.end(), part.labels.begin(), part.labels.end());
}

DataSet load(const DataRequest&);

std::string inspect(const KnownFile&, const std::filesystem::path& file) {
  return std::to_string(read_cifar10(file).count()) + " well-formed records";
}

}  // namespace

extern constinit const DataSource cifar10{
    "cifar10", "50,000 + 10,000 photographs, 3x32x32, binary records", kFolders, kFiles, load, inspect};

namespace {

DataSet load(const DataRequest& request) {
  const std::vector<std::filesystem::path> files = locate(cifar10, request);
  std::vector<std::future<Examples>> parts;  // unpacking xz takes seconds a file
  for (const std::filesystem::path& file : files) {
    parts.push_back(std::async(std::launch::async, [&file] { return read_cifar10(file); }));
  }
  DataSet set{.name = "cifar10",
              .train = {},
              .test = parts.back().get(),
              .classes = 10,
              .class_names = {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"},
              .provenance = provenance(files)};
  parts.pop_back();
  for (std::future<Examples>& part : parts) append(set.train, part.get());
  return set;
}

}  // namespace
}  // namespace sources
}  // namespace pc::experiments

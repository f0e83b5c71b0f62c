// text: a file of the user's, character by character. An example is one character (a byte), its label the next one.
#include <algorithm>
#include <array>

#include "experiments/data/bytes.h"
#include "experiments/data/dataset.h"
#include "experiments/names.h"
#include "kernels/check.h"

namespace pc::experiments::sources {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMost = std::int64_t{1} << 31;  // characters: places are kept as int32
constexpr std::int64_t kLeast = 1000;

Examples part(const Bytes& text, const std::array<std::uint8_t, 256>& number, std::size_t begin, std::size_t end) {
  Examples examples;
  examples.shape = {1};
  for (std::size_t i = begin; i < end; ++i) {
    examples.bytes.push_back(number[text[i]]);
    examples.labels.push_back(number[text[i + 1]]);
  }
  return examples;
}

DataSet load(const DataRequest& request) {
  PC_CHECK(!request.file.empty(), "data", "text needs data.file, the path of a text file");
  const fs::path file = own_file(request, request.file);
  const Bytes text = read_unpacked(file, kMost);
  const auto length = static_cast<std::int64_t>(text.size());
  PC_CHECK(length >= kLeast && length < kMost, "data", file.string(), " has ", length, " characters; a text has ",
           kLeast, " to ", kMost - 1);
  std::array<bool, 256> used{};
  for (const std::uint8_t byte : text) used[byte] = true;
  DataSet set{.name = "text", .train = {}, .test = {}, .class_names = {}, .provenance = file.string()};
  std::array<std::uint8_t, 256> number{};
  for (std::size_t byte = 0; byte < used.size(); ++byte) {
    if (!used[byte]) continue;
    number[byte] = static_cast<std::uint8_t>(set.classes++);
    set.class_names.push_back(character_name(static_cast<char>(byte)));
    set.characters.push_back(static_cast<char>(byte));
  }
  const std::size_t last = text.size() - 1, split = last - last / 20;  // nobody knows what follows the last one
  set.train = part(text, number, 0, split);
  set.test = part(text, number, split, last);
  return set;
}

}  // namespace

extern constinit const DataSource text{
    "text", "a text file of your own, by characters: data.file; its last twentieth is the test", {}, {}, load};

}  // namespace pc::experiments::sources

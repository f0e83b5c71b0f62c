#include "pc/pattern.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "kernels/check.h"
#include "kernels/sparse.h"
#include "pc/fingerprint.h"

namespace pc {
namespace {

constexpr std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

}  // namespace

void Pattern::check() const {
  PC_CHECK(rows >= 0 && cols >= 0 && cols <= std::numeric_limits<std::int32_t>::max(), "pattern", "a matrix of ", rows,
           " rows and ", cols, " columns: columns are int32");
  PC_CHECK(std::ssize(offsets) == rows + 1 && offsets.front() == 0 && offsets.back() == count(), "pattern",
           "the offsets of ", rows, " rows do not lead through ", count(), " entries");
  for (std::int64_t row = 0; row < rows; ++row) {
    PC_CHECK(begin(row) <= end(row), "pattern", "row ", row, " ends before it begins");
    std::int64_t last = -1;
    for (std::int64_t place = begin(row); place < end(row); ++place) {
      PC_CHECK(column(place) > last && column(place) < cols, "pattern", "row ", row, " has column ", column(place),
               " behind ", last, ", of ", cols);
      last = column(place);
    }
  }
}

std::uint64_t Pattern::fingerprint() const {
  Fingerprint print;
  print.add(static_cast<std::uint64_t>(rows));
  print.add(static_cast<std::uint64_t>(cols));
  for (const std::int64_t offset : offsets) print.add(static_cast<std::uint64_t>(offset));
  for (const std::int32_t c : columns) print.add(static_cast<std::uint64_t>(c));
  return print.value();
}

Pattern pattern_of(const std::vector<std::uint8_t>& mask, std::int64_t rows, std::int64_t cols) {
  PC_CHECK(std::ssize(mask) == rows * cols, "pattern", "a mask of ", mask.size(), " entries does not fit [", rows, ", ",
           cols, "]");
  Pattern pattern{.rows = rows, .cols = cols};
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t col = 0; col < cols; ++col) {
      if (mask[at(row * cols + col)] != 0) pattern.columns.push_back(static_cast<std::int32_t>(col));
    }
    pattern.offsets.push_back(pattern.count());
  }
  return pattern;
}

std::vector<std::uint8_t> mask_of(const Pattern& pattern) {
  std::vector<std::uint8_t> mask(at(pattern.rows * pattern.cols), 0);
  for (std::int64_t row = 0; row < pattern.rows; ++row) {
    for (std::int64_t place = pattern.begin(row); place < pattern.end(row); ++place) {
      mask[at(row * pattern.cols + pattern.column(place))] = 1;
    }
  }
  return mask;
}

Transposed transposed(const Pattern& pattern) {
  constexpr std::int64_t kMost = 2'000'000'000;  // kernels count past the last one, in int32
  PC_CHECK(pattern.count() <= kMost, "pattern", pattern.count(), " entries in one matrix; at most ", kMost,
           " are supported: divide the nodes at its ends");
  Transposed result;
  Pattern& t = result.pattern;
  t.rows = pattern.cols;
  t.cols = pattern.rows;
  t.offsets.assign(at(t.rows + 1), 0);
  for (const std::int32_t c : pattern.columns) ++t.offsets[at(c) + 1];
  for (std::size_t i = 1; i < t.offsets.size(); ++i) t.offsets[i] += t.offsets[i - 1];
  t.columns.resize(pattern.columns.size());
  result.position.resize(pattern.columns.size());
  std::vector<std::int64_t> next(t.offsets.begin(), t.offsets.end() - 1);
  for (std::int64_t row = 0; row < pattern.rows; ++row) {  // in order, so that columns ascend
    for (std::int64_t place = pattern.begin(row); place < pattern.end(row); ++place) {
      const std::int64_t to = next[at(pattern.column(place))]++;
      t.columns[at(to)] = static_cast<std::int32_t>(row);
      result.position[at(to)] = static_cast<std::int32_t>(place);
    }
  }
  return result;
}

std::optional<Patches> patches_of(const Pattern& pattern, std::int64_t most_rows, std::int64_t most_sources) {
  constexpr std::int64_t kShared = 4;        // entries for each column of a patch, at least, for it to be worth while
  constexpr std::int64_t kEmptyRows = 4096;  // of a patch without entries
  const bool few = pattern.count() < std::max(pattern.rows, pattern.cols);  // most rows, or columns, have no entry
  Patches result;
  result.local.resize(at((pattern.count() + 3) / 4 * 4));
  std::vector<std::int32_t> place(at(pattern.cols), -1);  // of a column among those of the patch in hand
  std::vector<std::int32_t> sources;
  for (std::int64_t row = 0; row < pattern.rows;) {
    const std::int64_t first = row;
    sources.clear();
    for (; row < pattern.rows; ++row) {
      const std::size_t before = sources.size();
      const bool has_none = before == 0 && pattern.begin(row) == pattern.end(row);
      if (row - first >= (has_none ? kEmptyRows : most_rows)) break;
      for (std::int64_t k = pattern.begin(row); k < pattern.end(row); ++k) {
        std::int32_t& seen = place[at(pattern.column(k))];
        if (seen < 0) sources.push_back(pattern.column(k));
        seen = 0;
      }
      if (std::ssize(sources) <= most_sources) continue;
      for (std::size_t i = before; i < sources.size(); ++i) place[at(sources[i])] = -1;
      sources.resize(before);
      break;
    }
    if (row == first) return std::nullopt;
    std::sort(sources.begin(), sources.end());
    for (std::size_t i = 0; i < sources.size(); ++i) place[at(sources[i])] = static_cast<std::int32_t>(i);
    for (std::int64_t k = pattern.begin(first); k < pattern.end(row - 1); ++k) {
      result.local[at(k)] = static_cast<std::uint16_t>(place[at(pattern.column(k))]);
    }
    for (const std::int32_t c : sources) place[at(c)] = -1;
    result.sources.insert(result.sources.end(), sources.begin(), sources.end());
    result.first.push_back(static_cast<std::int32_t>(row));
    result.source_offsets.push_back(static_cast<std::int32_t>(result.sources.size()));
    if (!few && std::ssize(result.sources) > pattern.count() / kShared) return std::nullopt;
  }
  return result;
}

namespace {

using kernels::SparseBlocks;

/// In which order a group's sources stand in its blocks. A GPU reads samples of eight columns at once, 4 t and 4 t + 1,
/// or 4 t + 2 and 4 t + 3, t from 0 to 3, and finds them in different banks where their sources differ modulo 8
/// (kernels/sparse_blocks_cuda.cu). So column 4 t + i gets a source that is t + 4 (i % 2) modulo 8 as long as there are
/// some. Columns too many get the first source.
std::vector<std::uint16_t> spread_over_columns(std::vector<std::uint16_t> sources) {
  const std::size_t cols = at(SparseBlocks::kCols), columns = (sources.size() + cols - 1) / cols * cols;
  std::vector<std::uint16_t> result(columns, sources.front());
  std::vector<std::size_t> open(columns);
  std::iota(open.begin(), open.end(), 0);
  for (const std::size_t modulus : {8, 1}) {
    std::vector<std::vector<std::uint16_t>> classes(modulus);
    for (const std::uint16_t s : sources) classes[s % modulus].push_back(s);
    std::vector<std::size_t> next(modulus, 0), still_open;
    for (const std::size_t column : open) {
      const std::size_t wanted = (column % cols / 4 + 4 * (column % 2)) % modulus;
      if (next[wanted] < classes[wanted].size()) {
        result[column] = classes[wanted][next[wanted]++];
      } else {
        still_open.push_back(column);
      }
    }
    open = still_open;
    sources.clear();
    for (std::size_t c = 0; c < modulus; ++c) {
      sources.insert(sources.end(), classes[c].begin() + static_cast<std::ptrdiff_t>(next[c]), classes[c].end());
    }
  }
  return result;
}

}  // namespace

std::optional<Blocks> blocks_of(const Pattern& pattern, const Patches& patches) {
  // Entries of blocks, for each that is there, and for each row and column: samples that are transposed as float32 for
  // this edge alone cost more.
  constexpr std::int64_t kMostEntries = 4, kMostOfColumn = 64;
  constexpr std::int64_t kRows = SparseBlocks::kRows, kCols = SparseBlocks::kCols, kEntries = SparseBlocks::kEntries;
  const std::int64_t most =
      std::min<std::int64_t>(pattern.count() * kMostEntries + (pattern.rows + pattern.cols) * kMostOfColumn,
                             std::numeric_limits<std::int32_t>::max());
  Blocks result;
  constexpr std::int32_t kNone = -1;
  std::vector<std::int32_t> column(at(std::int64_t{std::numeric_limits<std::uint16_t>::max()} + 1),
                                   kNone);  // of a source
  for (std::size_t p = 0; p + 1 < patches.first.size(); ++p) {
    const bool none = pattern.begin(patches.first[p]) == pattern.begin(patches.first[p + 1]);
    for (std::int64_t row = patches.first[p]; row < patches.first[p + 1] && !none; row += kRows) {
      const std::int64_t end = std::min<std::int64_t>(row + kRows, patches.first[p + 1]);
      std::vector<std::uint16_t> sources;
      for (std::int64_t k = pattern.begin(row); k < pattern.begin(end); ++k) {
        const std::uint16_t source = patches.local[at(k)];
        if (column[source] == kNone) sources.push_back(source);
        column[source] = 0;
      }
      if (!sources.empty()) sources = spread_over_columns(std::move(sources));
      for (std::size_t i = sources.size(); i-- > 0;)
        column[sources[i]] = static_cast<std::int32_t>(i);  // the first of those with the same
      const std::int64_t begin = std::ssize(result.place);
      result.place.resize(at(begin + std::ssize(sources) * kRows), kNone);
      for (std::int64_t r = row; r < end; ++r) {
        for (std::int64_t k = pattern.begin(r); k < pattern.end(r); ++k) {
          const std::int64_t c = column[patches.local[at(k)]];
          result.place[at(begin + c / kCols * kEntries + (r - row) * kCols + c % kCols)] = static_cast<std::int32_t>(k);
        }
      }
      for (const std::uint16_t source : sources) column[source] = kNone;
      result.sources.insert(result.sources.end(), sources.begin(), sources.end());
      result.first.push_back(static_cast<std::int32_t>(std::ssize(result.sources) / kCols));
      if (std::ssize(result.place) > most) return std::nullopt;
    }
    result.groups.push_back(static_cast<std::int32_t>(std::ssize(result.first) - 1));
  }
  return result;
}

}  // namespace pc

// Which weights of a matrix exist, as a list: for matrices too large to be written down whole.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace pc {

/// Entries of a matrix [rows, cols], row by row (CSR): row i has those in columns[offsets[i]] up to
/// columns[offsets[i + 1]], which ascend.
struct Pattern {
  std::int64_t rows = 0, cols = 0;
  std::vector<std::int64_t> offsets = {0};  // [rows + 1]
  std::vector<std::int32_t> columns;

  [[nodiscard]] std::int64_t count() const { return static_cast<std::int64_t>(columns.size()); }
  [[nodiscard]] bool complete() const { return count() == rows * cols; }
  [[nodiscard]] std::int64_t begin(std::int64_t row) const { return offsets[static_cast<std::size_t>(row)]; }
  [[nodiscard]] std::int64_t end(std::int64_t row) const { return offsets[static_cast<std::size_t>(row) + 1]; }
  [[nodiscard]] std::int32_t column(std::int64_t place) const { return columns[static_cast<std::size_t>(place)]; }

  /// Throws unless it is as said above.
  void check() const;
  /// The same for the same pattern on every machine; another for another, but for a chance of 2^-64.
  [[nodiscard]] std::uint64_t fingerprint() const;

  friend bool operator==(const Pattern&, const Pattern&) = default;
};

/// The entries of a matrix that are not 0, and the matrix that has 1 at these entries; row by row.
Pattern pattern_of(const std::vector<std::uint8_t>& mask, std::int64_t rows, std::int64_t cols);
std::vector<std::uint8_t> mask_of(const Pattern& pattern);

/// The transposed pattern, and where in the given one each of its entries stands.
struct Transposed {
  Pattern pattern;
  std::vector<std::int32_t> position;
};
/// At most 2,000,000,000 entries: positions are int32.
Transposed transposed(const Pattern& pattern);

/// The same entries, in patches of rows that have many columns in common (kernels/sparse.h).
struct Patches {
  std::vector<std::int32_t> first = {0}, source_offsets = {0}, sources;
  std::vector<std::uint16_t> local;
};
/// At most so many rows, and so many columns, in a patch. Nothing: rows do not have enough columns in common for
/// patches to be faster, or one row alone has more.
std::optional<Patches> patches_of(const Pattern& pattern, std::int64_t most_rows, std::int64_t most_sources);

/// The same again, in blocks of 8 x 16 (kernels/sparse.h), with the place of each of a block's entries in the pattern,
/// or -1 where it has none.
struct Blocks {
  std::vector<std::int32_t> groups = {0}, first = {0}, place;
  std::vector<std::uint16_t> sources;
};
/// Nothing: so few of a block's entries are there that patches alone are faster.
std::optional<Blocks> blocks_of(const Pattern& pattern, const Patches& patches);

}  // namespace pc

#include "experiments/edge_file.h"

#include <expat.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <memory>
#include <string_view>
#include <unordered_map>

#include "experiments/data/bytes.h"
#include "experiments/names.h"

namespace pc::experiments {
namespace {

constexpr std::int64_t kMostNodes = std::int64_t{1} << 31;  // their numbers are int32
constexpr std::int64_t kMostBytes = std::int64_t{1} << 36;  // of an unpacked file

/// Lines of a text, one after another, cut into words.
class Lines {
 public:
  Lines(std::string_view text, std::string file) : text_(text), file_(std::move(file)) {}

  bool next() {
    if (at_ >= text_.size()) return false;
    const std::size_t end = std::min(text_.find('\n', at_), text_.size());
    line_ = text_.substr(at_, end - at_);
    at_ = end + 1;
    ++number_;
    words_.clear();
    constexpr std::string_view kBetween = " \t\r,;";
    for (std::size_t i = line_.find_first_not_of(kBetween); i != line_.npos; i = line_.find_first_not_of(kBetween, i)) {
      const std::size_t stop = std::min(line_.find_first_of(kBetween, i), line_.size());
      words_.push_back(line_.substr(i, stop - i));
      i = stop;
      if (i >= line_.size()) break;
    }
    return true;
  }

  [[nodiscard]] std::string_view line() const { return line_; }
  [[nodiscard]] const std::vector<std::string_view>& words() const { return words_; }
  [[nodiscard]] std::int64_t number() const { return number_; }

  [[nodiscard]] static bool is_number(std::string_view word) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    return error == std::errc{} && end == word.data() + word.size();
  }
  /// Word i as a number in [low, high].
  [[nodiscard]] std::int64_t whole(std::size_t i, std::int64_t low, std::int64_t high) const {
    std::int64_t value = 0;
    const std::string_view word = words_[i];
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (error != std::errc{} || end != word.data() + word.size() || value < low || value > high) {
      fail_here("\"" + std::string(word) + "\" is not a whole number from " + std::to_string(low) + " to " +
                std::to_string(high));
    }
    return value;
  }
  [[noreturn]] void fail_here(const std::string& text) const { fail("graph file", file_, ':', number_, ": ", text); }

 private:
  std::string_view text_;
  std::string file_;
  std::size_t at_ = 0;
  std::string_view line_;
  std::vector<std::string_view> words_;
  std::int64_t number_ = 0;
};

void add(graphs::EdgeList& list, std::int64_t from, std::int64_t to) {
  list.from.push_back(static_cast<std::int32_t>(from));
  list.to.push_back(static_cast<std::int32_t>(to));
}

graphs::EdgeList read_csv(std::string_view text, const std::string& file) {
  graphs::EdgeList list{.least_nodes = true};
  constexpr std::string_view kByteOrder = "\xef\xbb\xbf";  // which spreadsheets put first
  Lines lines(text.starts_with(kByteOrder) ? text.substr(kByteOrder.size()) : text, file);
  bool first = true;
  while (lines.next()) {
    if (lines.words().empty() || lines.line()[0] == '#' || lines.line()[0] == '%') continue;
    const bool heading =
        first && std::none_of(lines.words().begin(), lines.words().end(), [](auto w) { return Lines::is_number(w); });
    first = false;
    if (heading) {
      spdlog::info("{}:{}: taken for a heading: {}", file, lines.number(), lines.line());
      continue;
    }
    if (lines.words().size() != 2) lines.fail_here("an edge is two numbers, source and target; weights are not read");
    add(list, lines.whole(0, 0, kMostNodes - 1), lines.whole(1, 0, kMostNodes - 1));
    list.nodes = std::max({list.nodes, std::int64_t{list.from.back()} + 1, std::int64_t{list.to.back()} + 1});
  }
  return list;
}

/// Boisvert, Pozo, Remington, "The Matrix Market exchange formats", NISTIR 5935, 1996.
graphs::EdgeList read_matrix_market(std::string_view text, const std::string& file) {
  Lines lines(text, file);
  const bool any = lines.next();
  const std::vector<std::string_view> banner = lines.words();
  const auto word = [&](std::size_t i) { return lower_case(i < banner.size() ? banner[i] : ""); };
  if (!any || word(0) != "%%matrixmarket") fail("graph file", file, ":1: does not begin with %%MatrixMarket");
  if (word(1) != "matrix" || word(2) != "coordinate") {
    lines.fail_here("holds \"" + word(1) + ' ' + word(2) + "\"; a graph is a \"matrix coordinate\"");
  }
  static constexpr std::array kSymmetries = {"general", "symmetric", "skew-symmetric", "hermitian"};
  if (std::find(kSymmetries.begin(), kSymmetries.end(), word(4)) == kSymmetries.end()) {
    lines.fail_here("names the symmetry \"" + word(4) + "\"; it is general, symmetric, skew-symmetric or hermitian");
  }
  const bool symmetric = word(4) != "general";
  graphs::EdgeList list;
  std::int64_t entries = -1, seen = 0;
  while (lines.next()) {
    if (lines.words().empty() || lines.line()[0] == '%') continue;
    if (entries < 0) {
      if (lines.words().size() != 3) lines.fail_here("needs rows, columns and entries here");
      list.nodes = lines.whole(0, 0, kMostNodes);
      entries = lines.whole(2, 0, std::int64_t{1} << 48);
      if (lines.whole(1, 0, kMostNodes) != list.nodes) lines.fail_here("the matrix of a graph is square");
      continue;
    }
    if (lines.words().size() < 2) lines.fail_here("an entry is a row, a column, and perhaps a value");
    const std::int64_t from = lines.whole(0, 1, list.nodes) - 1, to = lines.whole(1, 1, list.nodes) - 1;
    add(list, from, to);
    if (symmetric && from != to) add(list, to, from);
    ++seen;
  }
  if (entries < 0) lines.fail_here("ends without the line of its size: rows, columns and entries");
  if (seen != entries)
    lines.fail_here("holds " + std::to_string(seen) + " entries; its head says " + std::to_string(entries));
  return list;
}

/// A SAX parser: large files do not lie in memory twice.
class GraphMl {
 public:
  explicit GraphMl(std::string file) : file_(std::move(file)), parser_(XML_ParserCreate(nullptr), XML_ParserFree) {}

  graphs::EdgeList read(std::string_view text) {
    XML_SetUserData(parser_.get(), this);
    XML_SetStartElementHandler(parser_.get(), [](void* self, const char* name, const char** attributes) {
      static_cast<GraphMl*>(self)->element(name, attributes);
    });
    constexpr std::size_t kPiece = std::size_t{1} << 24;  // XML_Parse takes an int
    for (std::size_t at = 0; trouble_.empty(); at += kPiece) {
      const std::string_view piece = text.substr(at, kPiece);
      const bool last = at + kPiece >= text.size();
      if (XML_Parse(parser_.get(), piece.data(), static_cast<int>(piece.size()), last) != XML_STATUS_OK &&
          trouble_.empty()) {
        trouble(XML_ErrorString(XML_GetErrorCode(parser_.get())));
      }
      if (last) break;
    }
    PC_CHECK(trouble_.empty(), "graph file", file_, ':', line_, ": ", trouble_);
    PC_CHECK(graphs_ == 1, "graph file", file_, ": has ", graphs_, " graphs; it must be one");
    for (const Edge& edge : edges_) {  // edges may come before their nodes
      const std::int64_t from = node(edge.from, edge.line), to = node(edge.to, edge.line);
      add(list_, from, to);
      if (!edge.directed && from != to) add(list_, to, from);
    }
    return std::move(list_);
  }

 private:
  struct Edge {
    std::string from, to;
    bool directed;
    std::uint64_t line;
  };

  // Nothing may be thrown through expat, which is C: what is wrong is kept and the parser stopped.
  void trouble(const std::string& text) {
    trouble_ = text;
    line_ = XML_GetCurrentLineNumber(parser_.get());
    XML_StopParser(parser_.get(), XML_FALSE);
  }

  void element(std::string_view name, const char** attributes) {
    const auto attribute = [&](std::string_view key) -> std::string {
      for (const char** a = attributes; *a != nullptr; a += 2) {
        if (key == *a) return a[1];
      }
      return {};
    };
    if (name.ends_with(":graph")) {
      trouble("a prefix, as in " + std::string(name) + ", is not read; write the names without it");
    } else if (name == "graph") {
      ++graphs_;
      const std::string way = attribute("edgedefault");
      if (!way.empty() && way != "directed" && way != "undirected")
        return trouble("edgedefault is directed or undirected, not \"" + way + '"');
      directed_ = way != "undirected";
    } else if (name == "node") {
      const std::string id = attribute("id");
      if (id.empty()) return trouble("a node without an id");
      if (!nodes_.emplace(id, static_cast<std::int32_t>(list_.nodes)).second)
        return trouble("two nodes with the id " + id);
      ++list_.nodes;
    } else if (name == "edge") {
      const std::string own = attribute("directed");
      const bool yes = own == "true" || own == "1", no = own == "false" || own == "0";  // xs:boolean
      if (!own.empty() && !yes && !no) return trouble("directed is true or false, not \"" + own + '"');
      edges_.push_back({attribute("source"), attribute("target"), own.empty() ? directed_ : yes,
                        XML_GetCurrentLineNumber(parser_.get())});
      if (edges_.back().from.empty() || edges_.back().to.empty()) trouble("an edge without a source or a target");
    } else if (name == "hyperedge") {
      trouble("hyperedges are not supported");
    }
  }

  [[nodiscard]] std::int32_t node(const std::string& id, std::uint64_t line) const {
    const auto found = nodes_.find(id);
    PC_CHECK(found != nodes_.end(), "graph file", file_, ':', line, ": an edge names the node \"", id,
             "\", which the file does not have");
    return found->second;
  }

  std::string file_;
  std::unique_ptr<XML_ParserStruct, decltype(&XML_ParserFree)> parser_;
  std::string trouble_;
  std::uint64_t line_ = 0;
  int graphs_ = 0;
  bool directed_ = true;
  std::unordered_map<std::string, std::int32_t> nodes_;
  std::vector<Edge> edges_;
  graphs::EdgeList list_;
};

}  // namespace

graphs::EdgeList read_edge_list(const std::filesystem::path& file) {
  std::filesystem::path kind = file;
  if (kind.extension() == ".gz" || kind.extension() == ".xz") kind = kind.stem();
  const std::string suffix = kind.extension().string(), name = file.string();
  if (suffix != ".csv" && suffix != ".mtx" && suffix != ".graphml") {
    fail("graph file", name, ": a graph is read from a file .csv, .mtx or .graphml");
  }
  const Bytes bytes = read_unpacked(file, kMostBytes);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  graphs::EdgeList list = suffix == ".csv"   ? read_csv(text, name)
                          : suffix == ".mtx" ? read_matrix_market(text, name)
                                             : GraphMl(name).read(text);
  PC_CHECK(!list.from.empty(), "graph file", name, ": has no edges");
  return list;
}

}  // namespace pc::experiments

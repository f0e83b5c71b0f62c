#include "experiments/data/npy.h"
#include "kernels/check.h"

namespace pc::experiments {
namespace {

/// Reads Python literals from left to right; every step checks that there is something left to read.
class Reader {
 public:
  Reader(std::string_view text, const std::string& file) : text_(text), file_(file) {}

  bool take(std::string_view token) {
    skip_spaces();
    if (!text_.substr(at_).starts_with(token)) return false;
    at_ += token.size();
    return true;
  }

  void expect(std::string_view token) {
    if (!take(token)) fail_here(std::string("expected ").append(token));
  }

  std::string_view quoted() {
    const std::string_view quote = take("'") ? "'" : "\"";
    if (quote == "\"") expect(quote);
    const std::size_t end = text_.find(quote, at_);
    if (end == std::string_view::npos) fail_here("a string without end");
    const std::string_view inside = text_.substr(at_, end - at_);
    at_ = end + 1;
    return inside;
  }

  std::int64_t number() {
    skip_spaces();
    const std::size_t start = at_;
    std::int64_t value = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      if (at_ - start == 18) fail_here("a number that is too large");
      value = value * 10 + (text_[at_] - '0');
    }
    if (at_ == start) fail_here("expected a whole number");
    return value;
  }

  bool at_end() {
    skip_spaces();
    return at_ == text_.size();
  }

  [[noreturn]] void fail_here(const std::string& what) const {
    fail("npy", file_, ": malformed header, ", what, " at character ", at_, " of: ", text_.substr(0, 200));
  }

 private:
  void skip_spaces() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  const std::string& file_;
};

NpyType read_type(Reader& reader, const std::string& file) {
  PC_CHECK(!reader.take("["), "npy", file, ": structured arrays are not supported; save one plain array");
  const std::string_view descr = reader.quoted();
  if (descr == "|u1") return NpyType::u1;
  if (descr == "<f4") return NpyType::f4;
  if (descr == "<f8") return NpyType::f8;
  if (descr == "<i4") return NpyType::i4;
  if (descr == "<i8") return NpyType::i8;
  PC_CHECK(!descr.starts_with('>'), "npy", file, ": type '", descr, "' is big-endian; save array.astype('<",
           descr.substr(1), "')");
  fail("npy", file, ": type '", descr, "' is not supported; there are |u1, <f4, <f8, <i4, <i8");
}

void read_order(Reader& reader, const std::string& file) {
  PC_CHECK(!reader.take("True"), "npy", file, ": is in Fortran order; save numpy.ascontiguousarray(array)");
  reader.expect("False");
}

std::vector<std::int64_t> read_shape(Reader& reader) {
  std::vector<std::int64_t> shape;
  reader.expect("(");
  while (!reader.take(")")) {
    if (shape.size() == 32) reader.fail_here("more than 32 dimensions");
    shape.push_back(reader.number());
    if (reader.take(",")) continue;
    if (shape.size() == 1) reader.fail_here("expected ,");  // (3) is no tuple
    reader.expect(")");
    break;
  }
  return shape;
}

}  // namespace

NpyHeader parse_npy_header(std::string_view text, const std::string& file) {
  Reader reader(text, file);
  std::optional<NpyType> type;
  std::optional<std::vector<std::int64_t>> shape;
  bool order = false;
  reader.expect("{");
  while (!reader.take("}")) {
    const std::string_view key = reader.quoted();
    reader.expect(":");
    if (key == "descr" && !type)
      type = read_type(reader, file);
    else if (key == "fortran_order" && !order)
      read_order(reader, file), order = true;
    else if (key == "shape" && !shape)
      shape = read_shape(reader);
    else
      reader.fail_here(std::string("unknown or repeated key ").append(key));
    if (reader.take(",")) continue;
    reader.expect("}");
    break;
  }
  if (!reader.at_end()) reader.fail_here("something after the dict");
  if (!type || !order || !shape) reader.fail_here("descr, fortran_order or shape is missing");
  return {*type, *shape};
}

}  // namespace pc::experiments

// Every kernel with sample arguments: what the parity tests and the benchmarks run. A kernel without a case fails a
// test.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/kernel.h"

namespace pc::kernels {

/// What a view of a case holds before the call.
enum class Content : std::uint8_t {
  normal,    // standard normal
  positive,  // in (0.1, 1.1)
  coarse,    // whole numbers from -2 to 2, so that some are equal
  mask,      // 0 or 1
  index,     // a whole number in [0, value)
  lacking,   // the same, but one in eight is -1
  offsets,   // of the rows of a sparse matrix: by turns `value` entries, none, and twice as many
  spread,    // a whole number in [0, value), of neighbours others
  bytes,     // of `spread` as uint16, where value is at most 256
  turns,     // 0, 1, ... below value, again and again
  steps,     // 0, value, twice value, ...
  constant,  // value
  holes,     // standard normal, but one in eight is NaN
  nan        // NaN: an output that is not to be read, and of which every entry is to be written
};

struct CaseView {
  Shape shape;
  DType dtype = DType::f32;
  Content content = Content::normal;
  double value = 0;
  bool wide = false;  // the view is some columns of wider memory
};

/// What entry `index` holds; `stream` tells the views of a case apart.
double case_entry(const CaseView& view, std::uint32_t stream, std::int64_t index);

struct KernelCase {
  using Views = std::vector<View>;

  std::string_view kernel;
  std::string name;  // "gemm 5x7 f32: ..."
  std::vector<CaseView> in;
  std::vector<CaseView> out;  // changed by the call; some are read too
  std::function<void(const Exec&, const Views& in, const Views& out)> run;
  double rounding = 0;  // relative error that sums in another order may bring: of operands that fall to the other side
};

/// Every variant of every kernel, on matrices of about rows x cols.
std::vector<KernelCase> cases_of_size(DType dtype, std::int64_t rows, std::int64_t cols);

/// The same at several sizes, odd ones and 1x1 among them.
std::span<const KernelCase> all_cases(DType dtype);

std::span<const std::string_view> all_kernel_names();

}  // namespace pc::kernels

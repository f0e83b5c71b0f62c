#include "kernels/arithmetic.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <array>
#include <cmath>

#include "kernels/column_sums.cuh"
#include "kernels/one_row.h"

namespace pc::kernels {
namespace {

using cu::At, cu::each_entry, cu::matrix, cu::matrix_or_row, cu::Pack;

template <class T>
struct Fill {
  static constexpr int kEntries = cu::kPack<T>;
  cu::Matrix<T> out;
  T value;

  explicit Fill(const FillArgs& a) : out(matrix<T>(a.out)), value(T(a.value)) {}
  Fill() = default;
  [[nodiscard]] bool packs() const { return out.packs(); }
  template <int n>
  __device__ void operator()(At<n> at) const {
    Pack<T, n> all;
    for (int i = 0; i < n; ++i) all[i] = value;
    out(at) = all;
  }
};

template <class T>
struct Copy {
  static constexpr int kEntries = cu::kPack<T>;
  cu::Matrix<T> in, out, mask;

  explicit Copy(const CopyArgs& a) : in(matrix<T>(a.in)), out(matrix<T>(a.out)), mask(matrix_or_row<T>(a.mask)) {}
  Copy() = default;
  [[nodiscard]] bool packs() const { return in.packs() && out.packs() && mask.packs(); }
  template <int n>
  __device__ void operator()(At<n> at) const {
    Pack<T, n> value = in(at);
    if (mask) {
      const Pack<T, n> before = out(at), chosen = mask(at);
      for (int i = 0; i < n; ++i) value[i] = chosen[i] != T(0) ? value[i] : before[i];
    }
    out(at) = value;
  }
};

template <class T>
struct Axpby {
  static constexpr int kEntries = cu::kPack<T>;
  cu::Matrix<T> x, y;
  T a, b;

  explicit Axpby(const AxpbyArgs& g) : x(matrix<T>(g.x)), y(matrix<T>(g.y)), a(T(g.a)), b(T(g.b)) {}
  Axpby() = default;
  [[nodiscard]] bool packs() const { return x.packs() && y.packs(); }
  template <int n>
  __device__ void operator()(At<n> at) const {
    Pack<T, n> value = x(at);
    for (int i = 0; i < n; ++i) value[i] = a * value[i];
    if (b != T(0)) {  // else y may hold anything
      const Pack<T, n> before = y(at);
      for (int i = 0; i < n; ++i) value[i] = value[i] + b * before[i];
    }
    y(at) = value;
  }
};

template <class T>
void multiply_typed(const MultiplyArgs& m, CudaContext& context) {
  const auto a = matrix<T>(m.a), b = matrix<T>(m.b), y = matrix<T>(m.y);
  const bool add = m.write == Write::add;
  each_entry(m.y.rows(), m.y.cols(), context.stream, [=] __device__(std::int64_t row, std::int64_t col) {
    cu::store(y(row, col), a(row, col) * b(row, col), add);
  });
}

template <class T>
struct AddRow {
  static constexpr int kEntries = cu::kPack<T>;
  cu::Matrix<T> y, row;  // row: of all rows alike
  bool add;

  explicit AddRow(const AddRowArgs& a) : y(matrix<T>(a.y)), row{a.row.as<T>(), 0}, add(a.write == Write::add) {}
  AddRow() = default;
  [[nodiscard]] bool packs() const { return y.packs() && row.packs(); }
  template <int n>
  __device__ void operator()(At<n> at) const {
    cu::store(y(at), row(at), add);
  }
};

/// Entries of an operand as float32.
template <class Stored>
struct Widened {
  cu::Matrix<Stored> x;
  float scale;

  __device__ float operator()(std::int64_t row, std::int64_t col) const { return scale * float(x(row, col)); }
};

template <class T, class Term>
void sum_rows_of(const SumRowsArgs& s, Term term, CudaContext& context) {
  const std::int64_t rows = s.x.rows(), cols = s.x.cols(), parts = cu::slices(rows) * cols;
  cu::column_sums<T>(rows, cols, context.stream, term, s.row.as<T>(), s.write == Write::add,
                     cu::slices(rows) == 1 ? nullptr : static_cast<T*>(context.scratch(sizeof(T) * parts)));
}

template <class T>
void sum_rows_typed(const SumRowsArgs& s, CudaContext& context) {
  const float scale = std::ldexp(1.0F, -s.x.exponent);
  if (s.x.dtype == DType::f16) return sum_rows_of<T>(s, Widened<__half>{matrix<__half>(s.x), scale}, context);
  if (s.x.dtype == DType::bf16) {
    return sum_rows_of<T>(s, Widened<__nv_bfloat16>{matrix<__nv_bfloat16>(s.x), scale}, context);
  }
  if (s.x.dtype == DType::tf32) return sum_rows_of<T>(s, Widened<float>{matrix<float>(s.x), scale}, context);
  sum_rows_of<T>(s, matrix<T>(s.x), context);
}

template <class T>
void lerp_typed(const LerpArgs& l, CudaContext& context) {
  const auto a = matrix<T>(l.a), b = matrix<T>(l.b), y = matrix<T>(l.y);
  each_entry(l.y.rows(), l.y.cols(), context.stream, cu::OneScalar{l.t.as<double>()},
             [=] __device__(double t, std::int64_t row, std::int64_t col) {
               const T from = a(row, col);
               y(row, col) = from + T(t) * (b(row, col) - from);
             });
}

template <class T>
void scale_by_typed(const ScaleByArgs& s, CudaContext& context) {
  const auto y = matrix<T>(s.y);
  each_entry(s.y.rows(), s.y.cols(), context.stream, cu::OneScalar{s.by.as<double>()},
             [=] __device__(double by, std::int64_t row, std::int64_t col) { y(row, col) *= T(by); });
}

}  // namespace

void fill_cuda_together(std::span<const FillArgs* const> calls, CudaContext& context) {
  with_float(calls[0]->out.dtype, [&]<class T>(T) {
    const auto join = [](FillArgs& a) { join_rows(a.out); };
    with_changed(calls, join, [&](std::span<const FillArgs* const> all) {
      cu::each_entry_of<Fill<T>>(all, context.stream, [](const FillArgs& a) -> const View& { return a.out; });
    });
  });
}
void copy_cuda_together(std::span<const CopyArgs* const> calls, CudaContext& context) {
  with_float(calls[0]->out.dtype, [&]<class T>(T) {
    const auto join = [](CopyArgs& a) {
      if (a.mask.empty()) join_rows(a.in, a.out);
    };
    with_changed(calls, join, [&](std::span<const CopyArgs* const> all) {
      cu::each_entry_of<Copy<T>>(all, context.stream, [](const CopyArgs& a) -> const View& { return a.out; });
    });
  });
}
void axpby_cuda_together(std::span<const AxpbyArgs* const> calls, CudaContext& context) {
  with_float(calls[0]->y.dtype, [&]<class T>(T) {
    cu::each_entry_of<Axpby<T>>(calls, context.stream, [](const AxpbyArgs& a) -> const View& { return a.y; });
  });
}
void add_row_cuda_together(std::span<const AddRowArgs* const> calls, CudaContext& context) {
  with_float(calls[0]->y.dtype, [&]<class T>(T) {
    cu::each_entry_of<AddRow<T>>(calls, context.stream, [](const AddRowArgs& a) -> const View& { return a.y; });
  });
}
void fill_cuda(const FillArgs& a, CudaContext& context) { fill_cuda_together(std::array{&a}, context); }
void copy_cuda(const CopyArgs& a, CudaContext& context) { copy_cuda_together(std::array{&a}, context); }
void axpby_cuda(const AxpbyArgs& a, CudaContext& context) { axpby_cuda_together(std::array{&a}, context); }
void add_row_cuda(const AddRowArgs& a, CudaContext& context) { add_row_cuda_together(std::array{&a}, context); }
void multiply_cuda(const MultiplyArgs& m, CudaContext& context) {
  with_float(m.y.dtype, [&]<class T>(T) { multiply_typed<T>(m, context); });
}
void sum_rows_cuda(const SumRowsArgs& s, CudaContext& context) {
  with_float(s.row.dtype, [&]<class T>(T) { sum_rows_typed<T>(s, context); });
}
void lerp_cuda(const LerpArgs& l, CudaContext& context) {
  with_float(l.y.dtype, [&]<class T>(T) { lerp_typed<T>(l, context); });
}
void scale_by_cuda(const ScaleByArgs& s, CudaContext& context) {
  with_float(s.y.dtype, [&]<class T>(T) { scale_by_typed<T>(s, context); });
}

}  // namespace pc::kernels

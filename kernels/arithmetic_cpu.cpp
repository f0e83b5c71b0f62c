#include "kernels/arithmetic.h"

#include <cmath>

#include "kernels/loops.h"
#include "kernels/narrow.h"

namespace pc::kernels {

void fill_cpu(const FillArgs& a, Share share) {
  with_float(a.out.dtype, [&]<class T>(T) {
    each_row(share, a.out.rows(), [&](std::int64_t row) {
      T* out = a.out.row<T>(row);
      each_entry(a.out.cols(), [=, value = T(a.value)](std::int64_t i) { out[i] = value; });
    });
  });
}

void copy_cpu(const CopyArgs& a, Share share) {
  with_float(a.out.dtype, [&]<class T>(T) {
    each_row(share, a.out.rows(), [&](std::int64_t row) {
      const T* in = a.in.row<T>(row);
      T* out = a.out.row<T>(row);
      if (a.mask.empty()) {
        each_entry(a.out.cols(), [=](std::int64_t i) { out[i] = in[i]; });
      } else {
        const T* mask = a.mask.row<T>(a.mask.rows() == 1 ? 0 : row);
        each_entry(a.out.cols(), [=](std::int64_t i) { out[i] = mask[i] != T(0) ? in[i] : out[i]; });
      }
    });
  });
}

void axpby_cpu(const AxpbyArgs& g, Share share) {
  with_float(g.y.dtype, [&]<class T>(T) {
    const T a = T(g.a), b = T(g.b);
    each_row(share, g.y.rows(), [&](std::int64_t row) {
      const T* x = g.x.row<T>(row);
      T* y = g.y.row<T>(row);
      if (b == T(0)) {
        each_entry(g.y.cols(), [=](std::int64_t i) { y[i] = a * x[i]; });
      } else {
        each_entry(g.y.cols(), [=](std::int64_t i) { y[i] = a * x[i] + b * y[i]; });
      }
    });
  });
}

void multiply_cpu(const MultiplyArgs& m, Share share) {
  with_float(m.y.dtype, [&]<class T>(T) {
    each_row(share, m.y.rows(), [&](std::int64_t row) {
      const T *a = m.a.row<T>(row), *b = m.b.row<T>(row);
      T* y = m.y.row<T>(row);
      if (m.write == Write::set) {
        each_entry(m.y.cols(), [=](std::int64_t i) { y[i] = a[i] * b[i]; });
      } else {
        each_entry(m.y.cols(), [=](std::int64_t i) { y[i] += a[i] * b[i]; });
      }
    });
  });
}

void add_row_cpu(const AddRowArgs& a, Share share) {
  with_float(a.y.dtype, [&]<class T>(T) {
    const T* from = a.row.as<T>();
    each_row(share, a.y.rows(), [&](std::int64_t row) {
      T* y = a.y.row<T>(row);
      if (a.write == Write::set) {
        each_entry(a.y.cols(), [=](std::int64_t i) { y[i] = from[i]; });
      } else {
        each_entry(a.y.cols(), [=](std::int64_t i) { y[i] += from[i]; });
      }
    });
  });
}

void sum_rows_cpu(const SumRowsArgs& s, Share share) {
  with_float(s.row.dtype, [&]<class T>(T) {
    const auto [begin, end] = share.of(s.x.cols());
    T* out = s.row.as<T>() + begin;
    if (s.write == Write::set) std::fill_n(out, end - begin, T(0));
    for (std::int64_t row = 0; row < s.x.rows(); ++row) {
      if (s.x.dtype != s.row.dtype) {
        for (std::int64_t i = begin; i < end; ++i) {
          out[i - begin] += T(std::ldexp(widened(s.x, row, i), -s.x.exponent));
        }
        continue;
      }
      const T* x = s.x.row<T>(row) + begin;
      each_entry(end - begin, [=](std::int64_t i) { out[i] += x[i]; });
    }
  });
}

void lerp_cpu(const LerpArgs& l, Share share) {
  with_float(l.y.dtype, [&]<class T>(T) {
    const T t = T(*l.t.as<double>());
    each_row(share, l.y.rows(), [&](std::int64_t row) {
      const T *a = l.a.row<T>(row), *b = l.b.row<T>(row);
      T* y = l.y.row<T>(row);
      each_entry(l.y.cols(), [=](std::int64_t i) { y[i] = a[i] + t * (b[i] - a[i]); });
    });
  });
}

void scale_by_cpu(const ScaleByArgs& s, Share share) {
  with_float(s.y.dtype, [&]<class T>(T) {
    const T by = T(*s.by.as<double>());
    each_row(share, s.y.rows(), [&](std::int64_t row) {
      T* y = s.y.row<T>(row);
      each_entry(s.y.cols(), [=](std::int64_t i) { y[i] *= by; });
    });
  });
}

}  // namespace pc::kernels

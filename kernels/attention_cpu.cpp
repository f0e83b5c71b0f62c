// Head by head with gemm's product; a sample has one thread, whatever their number.
#include <Eigen/Core>
#include <algorithm>
#include <type_traits>

#include "kernels/attention.h"
#include "kernels/gemm.h"
#include "kernels/loops.h"

namespace pc::kernels {
namespace {

double products(const AttentionShape& of, std::int64_t rows) {
  return 2.0 * static_cast<double>(rows * of.heads) * static_cast<double>(of.queries * of.keys);
}

void check_shape(const AttentionShape& of, const Tokens& q, const Tokens& k, const Tokens& v, const Tokens& out) {
  const std::int64_t rows = out.view.rows();
  PC_CHECK(of.heads > 0 && of.queries > 0 && of.keys > 0 && of.queries <= kMostQueries, "attention", of.queries,
           " queries, ", of.keys, " keys and ", of.heads, " heads; it takes up to ", kMostQueries, " queries");
  PC_CHECK(!of.causal || of.queries == of.keys, "attention", "causal, but with ", of.queries, " queries and ", of.keys,
           " keys");
  PC_CHECK(q.fits(rows, of.queries, of.heads) && k.fits(rows, of.keys, of.heads) && v.fits(rows, of.keys, of.heads) &&
               out.fits(rows, of.queries, of.heads) && q.width == k.width && v.width == out.width,
           "attention", "q ", q.view.shape.text(), ", k ", k.view.shape.text(), ", v ", v.view.shape.text(), " and ",
           out.view.shape.text(), " do not fit");
  const DType type = out.view.dtype;
  PC_CHECK(q.view.dtype == type && k.view.dtype == type && v.view.dtype == type, "attention", "dtypes differ");
}

/// One head of one sample, [count, width].
View head(const Tokens& of, std::int64_t row, std::int64_t h, std::int64_t count) {
  const std::int64_t first = row * of.view.ld() + of.begin + h * of.width;
  return {.data = static_cast<std::byte*>(of.view.data) + static_cast<std::size_t>(first) * size_of(of.view.dtype),
          .shape = {count, of.width},
          .dtype = of.view.dtype,
          .stride = of.step};
}

/// A matrix of a thread's own. Eigen's memory is aligned, always alike, on which the order of its sums depends.
template <class T>
class Scratch {
 public:
  View of(std::int64_t rows, std::int64_t cols) {
    memory_.resize(rows * cols);
    return {.data = memory_.data(), .shape = {rows, cols}, .dtype = std::is_same_v<T, float> ? DType::f32 : DType::f64};
  }

 private:
  Eigen::Array<T, Eigen::Dynamic, 1> memory_;
};

/// c (=|+=) alpha op(a) op(b)
void put_product(const View& a, Trans trans_a, const View& b, Trans trans_b, const View& c, Write write,
                 double alpha = 1) {
  gemm_cpu({.a = a,
            .b = b,
            .c = c,
            .trans_a = trans_a,
            .trans_b = trans_b,
            .alpha = alpha,
            .beta = write == Write::add ? 1.0 : 0.0},
           Share{});
}

/// p = softmax(s q k^T)
template <class T>
void weigh(const AttentionShape& of, const View& q, const View& k, const View& p) {
  put_product(q, Trans::no, k, Trans::yes, p, Write::set, of.scale);
  for (std::int64_t i = 0; i < of.queries; ++i) {
    T* row = p.row<T>(i);
    const std::int64_t n = of.causal ? i + 1 : of.keys;
    Eigen::Map<Eigen::Array<T, Eigen::Dynamic, 1>> seen(row, n);
    seen = (seen - seen.maxCoeff()).exp();
    seen /= seen.sum();
    std::fill(row + n, row + of.keys, T(0));
  }
}

}  // namespace

void AttentionArgs::check() const { check_shape(of, q, k, v, out); }
double AttentionArgs::flops() const { return products(of, out.view.rows()) * static_cast<double>(q.width + v.width); }

void AttentionPullbackArgs::check() const {
  check_shape(of, q, k, v, delta);
  const Tokens& like = to == To::q ? q : to == To::k ? k : v;
  PC_CHECK(dx.fits(delta.view.rows(), to == To::q ? of.queries : of.keys, of.heads) && dx.width == like.width &&
               dx.view.dtype == delta.view.dtype,
           "attention_pullback", "dx ", dx.view.shape.text(), " does not fit ", like.view.shape.text());
}
double AttentionPullbackArgs::flops() const {
  const std::int64_t once = to == To::v ? v.width : q.width + v.width;
  return products(of, delta.view.rows()) * static_cast<double>(q.width + once);
}

void attention_cpu(const AttentionArgs& a, Share share) {
  with_float(a.out.view.dtype, [&]<class T>(T) {
    Scratch<T> weights;
    const View p = weights.of(a.of.queries, a.of.keys);
    each_row(share, a.out.view.rows(), [&](std::int64_t row) {
      for (std::int64_t h = 0; h < a.of.heads; ++h) {
        weigh<T>(a.of, head(a.q, row, h, a.of.queries), head(a.k, row, h, a.of.keys), p);
        put_product(p, Trans::no, head(a.v, row, h, a.of.keys), Trans::no, head(a.out, row, h, a.of.queries), a.write);
      }
    });
  });
}

void attention_pullback_cpu(const AttentionPullbackArgs& a, Share share) {
  using To = AttentionPullbackArgs::To;
  with_float(a.delta.view.dtype, [&]<class T>(T) {
    Scratch<T> weights, slopes;
    const View p = weights.of(a.of.queries, a.of.keys), dp = slopes.of(a.of.queries, a.of.keys);
    each_row(share, a.delta.view.rows(), [&](std::int64_t row) {
      for (std::int64_t h = 0; h < a.of.heads; ++h) {
        const View q = head(a.q, row, h, a.of.queries), k = head(a.k, row, h, a.of.keys);
        const View v = head(a.v, row, h, a.of.keys), delta = head(a.delta, row, h, a.of.queries);
        weigh<T>(a.of, q, k, p);
        const View dx = head(a.dx, row, h, a.to == To::q ? a.of.queries : a.of.keys);
        if (a.to == To::v) {
          put_product(p, Trans::yes, delta, Trans::no, dx, a.write);
          continue;
        }
        put_product(delta, Trans::no, v, Trans::yes, dp, Write::set);
        for (std::int64_t i = 0; i < a.of.queries; ++i) {
          T* ds = p.row<T>(i);
          const T* dpi = dp.row<T>(i);
          T inner = 0;
          for (std::int64_t j = 0; j < a.of.keys; ++j) inner += ds[j] * dpi[j];
          for (std::int64_t j = 0; j < a.of.keys; ++j) ds[j] *= T(a.of.scale) * (dpi[j] - inner);
        }
        if (a.to == To::q) {
          put_product(p, Trans::no, k, Trans::no, dx, a.write);
        } else {
          put_product(p, Trans::yes, q, Trans::no, dx, a.write);
        }
      }
    });
  });
}

}  // namespace pc::kernels

// Head by head with Eigen's products; a sample has one thread, whatever their number.
#include <Eigen/Core>
#include <cmath>

#include "kernels/attention.h"
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

template <class T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using Head = Eigen::Map<Matrix<T>, Eigen::Unaligned, Eigen::OuterStride<>>;

template <class T>
Head<T> head(const Tokens& of, std::int64_t row, std::int64_t h, std::int64_t count) {
  return {of.view.row<T>(row) + of.begin + h * of.width, count, of.width, Eigen::OuterStride<>(of.step)};
}

/// softmax(s q k^T)
template <class T>
Matrix<T> weights(const AttentionShape& of, const Head<T>& q, const Head<T>& k) {
  Matrix<T> p = T(of.scale) * (q * k.transpose());
  for (std::int64_t i = 0; i < of.queries; ++i) {
    const std::int64_t n = of.causal ? i + 1 : of.keys;
    auto seen = p.row(i).head(n).array();
    seen = (seen - seen.maxCoeff()).exp();
    seen /= seen.sum();
    p.row(i).tail(of.keys - n).setZero();
  }
  return p;
}

template <class T, class Product>
void put(Head<T> to, const Product& product, Write write) {
  if (write == Write::add) {
    to.noalias() += product;
  } else {
    to.noalias() = product;
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
    each_row(share, a.out.view.rows(), [&](std::int64_t row) {
      for (std::int64_t h = 0; h < a.of.heads; ++h) {
        const Matrix<T> p = weights<T>(a.of, head<T>(a.q, row, h, a.of.queries), head<T>(a.k, row, h, a.of.keys));
        put<T>(head<T>(a.out, row, h, a.of.queries), p * head<T>(a.v, row, h, a.of.keys), a.write);
      }
    });
  });
}

void attention_pullback_cpu(const AttentionPullbackArgs& a, Share share) {
  using To = AttentionPullbackArgs::To;
  with_float(a.delta.view.dtype, [&]<class T>(T) {
    each_row(share, a.delta.view.rows(), [&](std::int64_t row) {
      for (std::int64_t h = 0; h < a.of.heads; ++h) {
        const auto q = head<T>(a.q, row, h, a.of.queries), k = head<T>(a.k, row, h, a.of.keys);
        const auto v = head<T>(a.v, row, h, a.of.keys), delta = head<T>(a.delta, row, h, a.of.queries);
        Matrix<T> p = weights<T>(a.of, q, k);
        if (a.to == To::v) {
          put<T>(head<T>(a.dx, row, h, a.of.keys), p.transpose() * delta, a.write);
          continue;
        }
        const Matrix<T> dp = delta * v.transpose();
        for (std::int64_t i = 0; i < a.of.queries; ++i) {
          const T inner = p.row(i).dot(dp.row(i));
          p.row(i).array() *= T(a.of.scale) * (dp.row(i).array() - inner);
        }
        if (a.to == To::q) {
          put<T>(head<T>(a.dx, row, h, a.of.queries), p * k, a.write);
        } else {
          put<T>(head<T>(a.dx, row, h, a.of.keys), p.transpose() * q, a.write);
        }
      }
    });
  });
}

}  // namespace pc::kernels

#include "experiments/hopfield.h"

#include <Eigen/QR>

namespace pc::experiments {
namespace {

Rows sign(const Rows& x) {
  return x.unaryExpr([](double v) { return v < 0 ? -1.0 : 1.0; });
}

void keep_known(Rows& x, const Rows& queries, const Rows& known) {
  if (known.size() > 0) x = (known.array() != 0).select(queries, x);
}

/// Each row's softmax of beta times its scores.
Rows attention(const Rows& patterns, const Rows& queries, double beta) {
  Rows scores = beta * queries * patterns.transpose();
  scores.colwise() -= scores.rowwise().maxCoeff().eval();
  scores = scores.array().exp();
  return scores.array().colwise() / scores.rowwise().sum().array();
}

/// Applies `next` until nothing changes.
template <class Next>
Rows iterate(Rows x, const Rows& known, int sweeps, Next next) {
  const Rows queries = x;
  for (int i = 0; i < sweeps; ++i) {
    Rows moved = next(x);
    keep_known(moved, queries, known);
    const bool rests = moved == x;
    x = std::move(moved);
    if (rests) break;
  }
  return x;
}

}  // namespace

Rows hopfield_recall(const Rows& signs, Rows queries, const Rows& known, int sweeps) {
  const auto n = double(signs.rows());
  return iterate(sign(queries), known, sweeps,
                 [&](const Rows& x) { return sign(((x * signs.transpose()) * signs - n * x) / n); });
}

Rows modern_hopfield_recall(const Rows& patterns, Rows queries, const Rows& known, double beta, int sweeps) {
  return iterate(std::move(queries), known, sweeps,
                 [&](const Rows& x) -> Rows { return attention(patterns, x, beta) * patterns; });
}

Rows asymmetric_hopfield_next(const Rows& signs, const Rows& next, const Rows& queries) {
  return sign((queries * signs.transpose()) * next);
}

Rows modern_asymmetric_next(const Rows& patterns, const Rows& next, const Rows& queries, double beta) {
  return attention(patterns, queries, beta) * next;
}

Eigen::MatrixXd least_squares_transition(const Rows& patterns, const Rows& next) {
  // The solution of least norm of patterns W^T = next.
  return Eigen::MatrixXd(patterns).completeOrthogonalDecomposition().solve(Eigen::MatrixXd(next)).transpose();
}

}  // namespace pc::experiments

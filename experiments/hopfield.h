// Closed-form associative memories to compare with: Hopfield networks, for pictures and for sequences of them, and the
// least-squares fit that linear temporal predictive coding learns. Patterns are rows.
#pragma once

#include <Eigen/Core>
#include <vector>

namespace pc::experiments {

using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
[[nodiscard]] inline std::vector<double> list_of(const Rows& rows) { return {rows.data(), rows.data() + rows.size()}; }

/// Classical network (Hopfield 1982) on the signs of the entries: W = X^T X / n without its diagonal, x <- sign(W x),
/// all at once, at most `sweeps` times. Entries of `known` (same shape as the queries; empty: none) that are not 0
/// stay. O(queries n d) a sweep: W is never formed.
Rows hopfield_recall(const Rows& signs, Rows queries, const Rows& known, int sweeps);

/// Modern network (Ramsauer et al. 2021, "Hopfield Networks is All You Need"): x <- X^T softmax(beta X x), at most
/// `sweeps` times, with what is known put back each time.
Rows modern_hopfield_recall(const Rows& patterns, Rows queries, const Rows& known, double beta, int sweeps);

/// Asymmetric network on signs (Sompolinsky & Kanter 1986): the successor of each query, sign(X_next^T X x).
Rows asymmetric_hopfield_next(const Rows& signs, const Rows& next, const Rows& queries);

/// Modern continuous asymmetric network (Chaudhry et al. 2023, as in Tang et al. 2023): X_next^T softmax(beta X x).
Rows modern_asymmetric_next(const Rows& patterns, const Rows& next, const Rows& queries, double beta);

/// W = (sum x_next x^T) (sum x x^T)^+, what linear temporal predictive coding converges to (Tang et al. 2023).
Eigen::MatrixXd least_squares_transition(const Rows& patterns, const Rows& next);

}  // namespace pc::experiments

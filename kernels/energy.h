// Energies of a prediction, E(x, mu), and what flows from them. One kernel per energy, all with the same arguments:
//   delta  = -dE/dmu    [rows, cols]   the error that a prediction sends to its sources
//   own    =  dE/dx     [rows, cols]   its pull on its own node (empty: not wanted)
//   energy =  E         [rows]         per sample, float64 (empty: not wanted)
#pragma once

#include "kernels/kernel.h"
#include "kernels/narrow.h"
#include "kernels/scalar_math.h"
#include "kernels/write.h"

namespace pc::kernels {

using scalar::Activation;

struct ErrorArgs {
  View x, mu;
  View delta, own = {}, energy = {};
  double precision = 1.0;
  View precisions = {};  // one per column, multiplies `precision`; Gaussian and Laplace only
  Narrowed narrow = {};  // delta; Gaussian only
  View base = {};        // the prediction is base + mu; Gaussian only

  /// What a distribution over classes is taken over: the last dimension of x.
  [[nodiscard]] std::int64_t classes() const { return x.shape.rank() < 2 ? x.cols() : x.shape[x.shape.rank() - 1]; }
  void check() const {
    check_alike("error", x, mu);
    check_alike("error", x, delta);
    if (!own.empty()) check_alike("error", x, own);
    PC_CHECK(energy.empty() || (energy.count() == x.rows() && energy.dtype == DType::f64), "error",
             "energy must be float64, one per row");
    PC_CHECK(precisions.empty() || (precisions.count() == x.cols() && precisions.dtype == x.dtype), "error",
             "precisions ", precisions.shape.text(), " must be one per column of ", x.shape.text());
    narrow.check("error", delta);
    if (!base.empty()) check_alike("error", x, base);
  }
  void touches(Touches& t) const {
    t.read(x).read(mu).read(base).read_all(precisions).write(delta).write(own).write(energy);
    narrow.touches(t);
  }
  [[nodiscard]] double flops() const { return 4.0 * static_cast<double>(x.count()); }
};

/// Gaussian energy of a prediction mu = f(z), without writing mu: the element-wise end of an edge and its pull-back
/// in one pass.   e = x - f(z);  delta = p e (own is the same);  dz = p e f'(z);  energy = 1/2 sum p e^2
struct MapErrorArgs {
  View x, z;
  View delta, dz, energy = {};
  Activation f = Activation::identity;
  double leak = 0.01;
  double precision = 1.0;
  View precisions = {};

  void check() const {
    check_alike("map_error", x, z);
    check_alike("map_error", x, delta);
    check_alike("map_error", x, dz);
    PC_CHECK(energy.empty() || (energy.count() == x.rows() && energy.dtype == DType::f64), "map_error",
             "energy must be float64, one per row");
    PC_CHECK(precisions.empty() || (precisions.count() == x.cols() && precisions.dtype == x.dtype), "map_error",
             "precisions must be one per column");
  }
  void touches(Touches& t) const { t.read(x).read(z).read_all(precisions).write(delta).write(dz).write(energy); }
  [[nodiscard]] double flops() const { return 6.0 * static_cast<double>(x.count()); }
};

void gaussian_error_cpu(const ErrorArgs&, Share);
void gaussian_error_cuda(const ErrorArgs&, CudaContext&);
void gaussian_error_cuda_together(std::span<const ErrorArgs* const>, CudaContext&);
void softmax_error_cpu(const ErrorArgs&, Share);
void softmax_error_cuda(const ErrorArgs&, CudaContext&);
void laplace_error_cpu(const ErrorArgs&, Share);
void laplace_error_cuda(const ErrorArgs&, CudaContext&);
void categorical_error_cpu(const ErrorArgs&, Share);
void categorical_error_cuda(const ErrorArgs&, CudaContext&);
void bernoulli_error_cpu(const ErrorArgs&, Share);
void bernoulli_error_cuda(const ErrorArgs&, CudaContext&);
void map_error_cpu(const MapErrorArgs&, Share);
void map_error_cuda(const MapErrorArgs&, CudaContext&);

/// E = 1/2 sum_i p_i (x_i - mu_i)^2;  delta = own = p (x - mu), where mu is what it is with its base
inline constexpr Kernel<ErrorArgs> gaussian_error{
    "gaussian_error", gaussian_error_cpu, PC_CUDA(gaussian_error_cuda),
    [](const ErrorArgs& e) { return e.energy.empty() ? alike_if_same(e.x.dtype) : 0; },
    PC_CUDA(gaussian_error_cuda_together)};
/// E = sum_i p_i |x_i - mu_i|;  delta = own = p sign(x - mu), 0 where they are equal
inline constexpr Kernel<ErrorArgs> laplace_error{"laplace_error", laplace_error_cpu, PC_CUDA(laplace_error_cuda)};
/// x and mu are logits of P and Q, the softmax of each run of classes:  E = p sum_i P_i (log P_i - log Q_i), which is
/// their Kullback-Leibler divergence;  delta = p (P - Q);  own_i = p P_i (log P_i - log Q_i - E / p)  (of the run)
inline constexpr Kernel<ErrorArgs> categorical_error{"categorical_error", categorical_error_cpu,
                                                     PC_CUDA(categorical_error_cuda)};
/// Run by run of classes; mu are logits:  E = p sum_i x_i (log sum_j e^mu_j - mu_i);  delta = p (x - (sum x)
/// softmax(mu));  own = p (lse - mu)
inline constexpr Kernel<ErrorArgs> softmax_error{"softmax_error", softmax_error_cpu, PC_CUDA(softmax_error_cuda)};
/// mu are logits:  E = p sum_i softplus(mu_i) - x_i mu_i;  delta = p (x - sigmoid(mu));  own = -p mu
inline constexpr Kernel<ErrorArgs> bernoulli_error{"bernoulli_error", bernoulli_error_cpu,
                                                   PC_CUDA(bernoulli_error_cuda)};
inline constexpr Kernel<MapErrorArgs> map_error{"map_error", map_error_cpu, PC_CUDA(map_error_cuda)};

}  // namespace pc::kernels

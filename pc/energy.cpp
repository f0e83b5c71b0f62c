#include "pc/energy.h"

namespace pc {

const Energy gaussian{.name = "gaussian",
                      .about = "1/2 p (x - mu)^2",
                      .error = &kernels::gaussian_error,
                      .own_is_delta = true,
                      .diagonal_precision = true,
                      .zero_at_prediction = true};

const Energy softmax_cross_entropy{
    .name = "softmax_cross_entropy",
    .about = "-p sum x log softmax(mu) along the last axis; mu are logits, x a distribution",
    .error = &kernels::softmax_error,
    .own_is_delta = false,
    .diagonal_precision = false,
    .zero_at_prediction = false};

const Energy laplace{.name = "laplace",
                     .about = "p |x - mu|",
                     .error = &kernels::laplace_error,
                     .own_is_delta = true,
                     .diagonal_precision = true,
                     .zero_at_prediction = true};

const Energy categorical_kl{.name = "categorical_kl",
                            .about = "p KL(softmax(x) || softmax(mu)) along the last axis; x and mu are logits",
                            .error = &kernels::categorical_error,
                            .own_is_delta = false,
                            .diagonal_precision = false,
                            .zero_at_prediction = true};

const Energy bernoulli{.name = "bernoulli",
                       .about = "-p (x log s + (1 - x) log(1 - s)), s = sigmoid(mu); mu are logits, x in [0, 1]",
                       .error = &kernels::bernoulli_error,
                       .own_is_delta = false,
                       .diagonal_precision = false,
                       .zero_at_prediction = false};

std::span<const Energy* const> all_energies() {
  static constexpr const Energy* list[] = {&gaussian, &softmax_cross_entropy, &bernoulli, &laplace, &categorical_kl};
  return list;
}

const Energy& find_energy(std::string_view name) {
  std::string known;
  for (const Energy* energy : all_energies()) {
    if (energy->name == name) return *energy;
    known += std::string(known.empty() ? "" : ", ").append(energy->name);
  }
  fail("energy", "no energy named \"", name, "\"; there are: ", known);
}

}  // namespace pc

// Energies of a prediction. Each is a value: a name and the kernel that computes it (kernels/energy.h has formulas).
#pragma once

#include <span>
#include <string_view>

#include "kernels/energy.h"

namespace pc {

struct Energy {
  std::string_view name;
  std::string_view about;
  const Kernel<kernels::ErrorArgs>* error;
  bool own_is_delta;        // dE/dx equals -dE/dmu, so that one buffer serves both
  bool diagonal_precision;  // one precision per entry is allowed
  bool zero_at_prediction;  // E and its slopes vanish where x = mu
};

extern const Energy gaussian, softmax_cross_entropy, bernoulli, laplace, categorical_kl;

std::span<const Energy* const> all_energies();
const Energy& find_energy(std::string_view name);

}  // namespace pc

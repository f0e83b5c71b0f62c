// One training step after another: a plan for each batch size, and a watch over the energies.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "pc/plan.h"

namespace pc {

/// Energies summed over samples since the last reset, one for each prediction.
struct EnergySums {
  std::vector<double> start, end;

  [[nodiscard]] double total_start() const;
  [[nodiscard]] double total_end() const;
};

class Trainer {
 public:
  /// `spec.batch` is ignored: plans are made when a batch size first comes.
  Trainer(Network& network, PlanSpec spec, int threads);

  Plan::Outcome step(std::int64_t batch, int times = 1) { return plan(batch).run(threads_, times); }
  const Plan& plan(std::int64_t batch);

  [[nodiscard]] EnergySums energies() const;
  void reset_energies();
  /// Whether the energies added up since the last reset are finite, and did not grow by more than `growth` while they
  /// should have fallen. Allocates nothing: it is asked after every batch.
  [[nodiscard]] bool sound(double growth) const;
  /// Throws when they are not: it names the prediction and what to change. `where` tells the place in the run.
  void check_energies(const std::string& where, double growth) const;
  /// Throws when weights are not finite or absurdly large: what an update did shows in the energies only after the next
  /// batch.
  void check_weights(const std::string& where) const;

 private:
  Network& network_;
  PlanSpec spec_;
  int threads_;
  std::map<std::int64_t, std::unique_ptr<Plan>> plans_;
  std::vector<View> starts_, ends_;  // of the energies, by prediction
};

}  // namespace pc

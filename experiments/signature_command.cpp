// pc signature: a short fixed run whose result changes when, and only when, the program's behaviour does.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "experiments/classify.h"
#include "experiments/commands.h"

namespace pc::experiments {
namespace {

constexpr const char* kConfig = R"(name: signature
seed: 1
device: cpu
dtype: float64
threads: 1
data: {set: glyphs, train: 160, test: 32, batch: 16, validation: 0}
graph:
  nodes:
    image: {shape: [784]}
    low:   {shape: [12]}
    high:  {shape: [8]}
    label: {shape: [10]}
  edges:
    - {from: image, to: low, op: [linear, tanh]}
    - {from: low, to: high, op: [linear, gelu]}
    - {from: high, to: label, op: linear}
    - {from: label, to: high, op: [linear, tanh]}
    - {from: low, to: low, op: [{linear: {bias: false}}, {scale: {by: 0.1}}]}
relax: {schedule: pc, steps: 6, optimizer: {sgd: {rate: 0.1, momentum: 0.5}}}
learn: {epochs: 1, optimizer: {adam: {rate: 0.001}}}
)";

}  // namespace

int signature_command(const Common& common) {
  const Config config = read_config(parse_config(kConfig, "signature"));
  const ExecContext where("cpu");
  Classifier task(config, where);
  bool finished = false;
  const EpochResult result = task.train_epoch(0, 0, nullptr, finished);
  if (common.json) {
    const nlohmann::ordered_json out = {{"signature", task.signature()}, {"energy", result.energy_end}};
    fmt::print("{}\n", out.dump());
  } else {
    fmt::print("Signature: {}\n", task.signature());
  }
  return 0;
}

}  // namespace pc::experiments

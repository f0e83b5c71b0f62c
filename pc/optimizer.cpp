#include "pc/optimizer.h"

#include "kernels/arithmetic.h"
#include "kernels/weight_update.h"

namespace pc {
namespace {

void record_clip(const Exec& exec, Network& network, double limit, double scale) {
  const View norm = network.scalar("clock/square_norm");
  Write write = Write::set;
  for (ParamId id = 0; id < network.graph().param_count(); ++id) {
    // Masked entries of a gradient never reach a weight, so they must not count.
    View dw = network.gradient(id);
    if (const View mask = network.mask(id); !mask.empty()) {
      kernels::multiply(exec, {.a = dw, .b = mask, .y = dw});
    }
    kernels::sum(exec, {.in = dw, .out = norm, .scale = scale * scale, .squares = true, .write = write});
    write = Write::add;
  }
  kernels::clip(exec, {.square_norm = norm, .clip = network.scalar("clock/clip"), .limit = limit});
}

}  // namespace

void record_update(Program& program, Network& network, const LearnSpec& learn, std::int64_t batch) {
  Exec exec = network.exec();
  exec.recorder = &program;
  program.part("update");
  const View updates = network.scalar(kUpdates), rate = network.scalar(kRate);
  kernels::tick(exec, {.counter = updates});
  kernels::rate(exec, {.step = updates,
                       .rate = rate,
                       .kind = learn.rate.kind,
                       .base = learn.rate.base,
                       .floor = learn.rate.floor,
                       .warmup = learn.rate.warmup,
                       .total = learn.rate.total});
  const double scale = 1.0 / double(batch);
  if (learn.clip_norm > 0) record_clip(exec, network, learn.clip_norm, scale);

  for (ParamId id = 0; id < network.graph().param_count(); ++id) {
    const kernels::WeightGradient g{.w = network.weight(id),
                                    .dw = network.gradient(id),
                                    .mask = network.mask(id),
                                    .rate = rate,
                                    .clip = learn.clip_norm > 0 ? network.scalar("clock/clip") : View{},
                                    .scale = scale};
    if (const auto* sgd = std::get_if<WeightSgd>(&learn.optimizer)) {
      kernels::weight_sgd(exec, {.g = g,
                                 .velocity = sgd->momentum != 0 ? network.param_buffer("velocity", id) : View{},
                                 .momentum = sgd->momentum,
                                 .decay = sgd->weight_decay});
      continue;
    }
    const auto& adam = std::get<WeightAdam>(learn.optimizer);
    kernels::weight_adam(exec, {.g = g,
                                .m = network.param_buffer("m", id),
                                .v = network.param_buffer("v", id),
                                .step = updates,
                                .beta1 = adam.beta1,
                                .beta2 = adam.beta2,
                                .epsilon = adam.epsilon,
                                .decay = adam.weight_decay,
                                .decoupled = adam.decoupled});
  }
}

}  // namespace pc

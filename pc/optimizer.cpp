#include "pc/optimizer.h"

#include <optional>
#include <utility>

#include "kernels/arithmetic.h"
#include "kernels/gemm_adam.h"

namespace pc {
namespace {

void record_clip(const Exec& exec, Network& network, double limit, double scale, const std::set<ParamId>& learned) {
  const View norm = network.scalar("clock/square_norm");
  Write write = Write::set;
  for (const ParamId id : learned) {
    // Masked entries of a gradient never reach a weight, so they must not count.
    View dw = network.gradient(id);
    if (const View mask = network.mask(id); !mask.empty()) {
      kernels::multiply(exec, {.a = dw, .b = mask, .y = dw});
    }
    kernels::sum(exec, {.in = dw, .out = norm, .scale = scale * scale, .squares = true, .write = write});
    write = Write::add;
  }
  if (write == Write::set) kernels::fill(exec, {.out = norm});
  kernels::clip(exec, {.square_norm = norm, .clip = network.scalar("clock/clip"), .limit = limit});
}

/// Where a call that writes `gradient` stands before call `end`, and whether it is the last to touch it until then.
/// Nothing: there is none, or another one has touched it since.
std::optional<std::size_t> writer_of(const std::vector<Call>& calls, const View& gradient, std::size_t end) {
  for (std::size_t i = end; i-- > 0;) {
    for (const Touch& touch : calls[i].touches) {
      if (overlap(touch.view, gradient)) return touch.write ? std::optional(i) : std::nullopt;
    }
  }
  return std::nullopt;
}

/// Whether a call may be done anywhere after call `begin` and before call `end`, for all that the calls between touch.
bool may_move(const std::vector<Call>& calls, const Call& call, std::size_t begin, std::size_t end) {
  for (std::size_t i = begin + 1; i < end; ++i) {
    for (const Touch& other : calls[i].touches) {
      for (const Touch& own : call.touches) {
        if ((own.write || other.write) && overlap(own.view, other.view)) return false;
      }
    }
  }
  return true;
}

/// Whether nobody reads what a gradient's buffer holds after call `from`: it is made anew first.
bool forgotten(const std::vector<Call>& calls, const View& gradient, std::size_t from) {
  for (std::size_t i = from + 1; i < calls.size(); ++i) {
    for (const Touch& touch : calls[i].touches) {
      if (!overlap(touch.view, gradient)) continue;
      const auto* product = kernels::gemm.args_of(calls[i]);
      const auto* sum = kernels::sum_rows.args_of(calls[i]);
      return touch.write && touch.view.count() == gradient.count() &&
             ((product != nullptr && product->beta == 0) || (sum != nullptr && sum->write == Write::set));
    }
  }
  return true;
}

}  // namespace

void record_update(Program& program, Network& network, Operands& operands, const LearnSpec& learn, std::int64_t batch,
                   const std::set<ParamId>& learned, bool changes) {
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
  if (learn.clip_norm > 0) record_clip(exec, network, learn.clip_norm, scale, learned);

  for (ParamId id = 0; id < network.graph().param_count(); ++id) {
    kernels::WeightGradient g{.w = network.weight(id),
                              .dw = learned.contains(id) ? network.gradient(id) : View{},
                              .mask = network.mask(id),
                              .rate = rate,
                              .clip = learn.clip_norm > 0 ? network.scalar("clock/clip") : View{},
                              .scale = scale,
                              .narrow = operands.kept_up(network.weight(id))};
    if (changes) {
      const View change = network.param_buffer("dw0", id);
      g.start = network.param_buffer("w0", id);
      if (operands.narrower() && network.graph().param(id).spec.role == ParamRole::weight) {
        g.moved_operand = operands.instead_of(change, Magnitude::change);
      } else {
        g.moved = change;
      }
    }
    if (const auto* sgd = std::get_if<WeightSgd>(&learn.optimizer)) {
      if (g.dw.empty() && sgd->momentum == 0 && sgd->weight_decay == 0 && !changes) continue;
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

void learn_at_once(Program& program, bool keep) {
  const std::vector<Call>& calls = program.calls();
  constexpr std::size_t kNone = ~std::size_t{0};
  std::vector<std::optional<kernels::GemmAdamArgs>> joined(calls.size());
  std::vector<bool> gone(calls.size(), false);
  // What makes the gradient that update `j` learns from, if it can wait until then.
  const auto maker_of = [&](std::size_t j, const View& gradient) {
    const auto maker = writer_of(calls, gradient, j);
    const bool waits = maker && may_move(calls, calls[*maker], *maker, j) && (keep || forgotten(calls, gradient, j));
    return waits ? *maker : kNone;
  };
  for (std::size_t j = 0; j < calls.size(); ++j) {
    const auto* w = kernels::weight_adam.args_of(calls[j]);
    if (w == nullptr || w->g.dw.empty()) continue;
    const std::size_t i = maker_of(j, w->g.dw);
    const auto* product = i == kNone ? nullptr : kernels::gemm.args_of(calls[i]);
    if (product == nullptr) continue;
    joined[j] = kernels::join_gemm_adam(*product, *w);
    gone[i] = joined[j].has_value();
  }
  for (std::size_t j = 0; j < calls.size(); ++j) {
    const auto* bias = kernels::weight_adam.args_of(calls[j]);
    if (bias == nullptr || joined[j] || bias->g.dw.empty()) continue;
    const std::size_t i = maker_of(j, bias->g.dw);
    const auto* sum = i == kNone ? nullptr : kernels::sum_rows.args_of(calls[i]);
    if (sum == nullptr) continue;
    for (std::size_t other = i + 1; other < j && !gone[j]; ++other) {
      if (!joined[other] || !joined[other]->bias_delta.empty() || !may_move(calls, calls[j], other, j)) continue;
      gone[j] = gone[i] = kernels::join_bias(*joined[other], *sum, *bias);
    }
  }
  std::vector<Call> list;
  for (std::size_t j = 0; j < calls.size(); ++j) {
    if (gone[j]) continue;
    list.push_back(calls[j]);
    if (!joined[j]) continue;
    kernels::GemmAdamArgs& args = *joined[j];
    if (!keep) args.w.g.dw = args.bias.g.dw = View{};
    args.check();
    list.back() = kernels::gemm_adam.call(args);
    list.back().part = calls[j].part;
  }
  program.replace(std::move(list));
}

}  // namespace pc

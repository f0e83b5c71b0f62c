#include "pc/operands.h"

#include <algorithm>

#include "kernels/split.h"

namespace pc {

void Operands::record_into(Program& program) {
  program_ = &program;
  seen_ = program.calls().size();
  for (Copy& copy : copies_) copy.fresh = false;
}

/// Looks at what has been written since it looked last.
void Operands::catch_up() {
  for (; seen_ < program_->calls().size(); ++seen_) {
    for (const Touch& touch : program_->calls()[seen_].touches) {
      if (!touch.write) continue;
      for (Copy& copy : copies_) {
        if (overlap(touch.view, copy.of)) copy.fresh = copy.alone = false;
      }
    }
    for (const Touch& touch : program_->calls()[seen_].touches) {
      if (!touch.write) continue;
      for (Copy& copy : copies_) copy.fresh = copy.fresh || overlap(touch.view, copy.copy);
    }
  }
}

int Operands::exponent(Magnitude magnitude) const {
  constexpr int kExponent = 10;
  return type_ == DType::f16 && magnitude == Magnitude::change ? kExponent : 0;
}

Operands::Copy& Operands::copy_in(const View& memory, const View& of) {
  const auto found =
      std::find_if(copies_.begin(), copies_.end(), [&](const Copy& c) { return c.copy.data == memory.data; });
  if (found != copies_.end()) return *found;
  copies_.push_back({of, memory});
  return copies_.back();
}

Operands::Copy& Operands::copy(const View& of, Magnitude magnitude) {
  return copy_in(network_.operand(of, type_, exponent(magnitude)), of);
}

View Operands::of(const Op& op, const View& of, Magnitude magnitude) {
  if (type_ == DType::f32 || !op.products) return of;
  if (!narrower()) return network_.operand(of, type_, 0);
  catch_up();
  Copy& made = copy(of, magnitude);
  if (!made.fresh && !made.alone) {
    Exec exec = network_.exec();
    exec.recorder = program_;
    kernels::narrow(exec, {.x = of, .to = {made.copy, network_.overflow()}});
    made.fresh = true;
  }
  return made.copy;
}

std::vector<View> Operands::of(const Op& op, std::vector<View> views, Magnitude magnitude) {
  for (View& view : views) view = of(op, view, magnitude);
  return views;
}

/// How many neighbours of an input meet as many of the weight; 0: the products of this link are not split.
std::int64_t Operands::run_of(EdgeId edge, int link) const {
  const Link& l = network_.graph().edge(edge).chain[static_cast<std::size_t>(link)];
  if (!lossy() || !l.op->sums_last_axis) return 0;
  const Shape& weight = network_.graph().param(l.params[0]).spec.shape;
  const auto groups = l.attrs.find("groups");
  return groups == l.attrs.end() || groups->second == 1 ? weight[weight.rank() - 1] : 0;
}

View Operands::split(const View& of, std::int64_t run, bool weights) {
  catch_up();
  Copy& made = copy_in(network_.split_operand(of, type_, run), of);
  if (!made.fresh) {
    Exec exec = network_.exec();
    exec.recorder = program_;
    kernels::split(exec, {.x = of, .y = made.copy, .overflow = network_.overflow(), .run = run, .weights = weights});
    made.fresh = true;
  }
  return made.copy;
}

std::vector<View> Operands::split_inputs(EdgeId edge, int link, std::vector<View> inputs) {
  const std::int64_t run = run_of(edge, link);
  if (run == 0)
    return of(*network_.graph().edge(edge).chain[static_cast<std::size_t>(link)].op, inputs, Magnitude::value);
  for (View& view : inputs) view = split(view, run, false);
  return inputs;
}

std::vector<View> Operands::split_weights(EdgeId edge, int link) {
  const std::int64_t run = run_of(edge, link);
  if (run == 0) return weights(edge, link);
  std::vector<View> views = network_.link_weights(edge, link);
  views[0] = split(views[0], run, true);
  return views;
}

const SparseViews* Operands::sparse(EdgeId edge, int link) {
  return type_ == DType::bf16 ? network_.sparse_by_blocks(edge, link) : network_.sparse(edge, link);
}

View Operands::turn(const View& of) {
  catch_up();
  Copy& made = copy_in(network_.turned_operand(of), of);
  if (!made.fresh && !made.alone) {
    Exec exec = network_.exec();
    exec.recorder = program_;
    kernels::transpose(exec, {.x = of, .y = made.copy});
    made.fresh = true;
  }
  return made.copy;
}

View Operands::turned(const SparseViews* sparse, const std::vector<View>& inputs) {
  return sparse != nullptr && sparse->predicts_by_blocks() ? turn(inputs[0]) : View{};
}

View Operands::turned_back(const SparseViews* sparse, const View& arriving) {
  return sparse != nullptr && sparse->pulls_by_blocks() ? turn(arriving) : View{};
}

View Operands::turned_beside(const View& of) {
  catch_up();
  return copy_in(network_.turned_operand(of), of).copy;
}

View Operands::turned_instead_of(const View& of) {
  catch_up();
  Copy& made = copy_in(network_.turned_operand(of), of);
  made.alone = true;
  return made.copy;
}

std::vector<View> Operands::weights(EdgeId edge, int link) {
  const Link& l = network_.graph().edge(edge).chain[static_cast<std::size_t>(link)];
  std::vector<View> views = network_.link_weights(edge, link);
  for (std::size_t i = 0; i < views.size(); ++i) {
    if (is_weight(l, i)) views[i] = of(*l.op, views[i], Magnitude::value);
  }
  return views;
}

void Operands::prepare_weights() {
  if (!narrower()) return;
  program_->part("operands");
  for (EdgeId e = 0; e < network_.graph().edge_count(); ++e) {
    const auto& chain = network_.graph().edge(e).chain;
    for (int link = 0; link < static_cast<int>(chain.size()); ++link) static_cast<void>(weights(e, link));
  }
  program_->once();
}

kernels::Narrowed Operands::kept_up(const View& of) {
  if (!narrower()) return {};
  catch_up();
  const auto found = std::find_if(copies_.begin(), copies_.end(), [&](const Copy& c) {
    return c.fresh && c.of.data == of.data && c.copy.rows() == of.rows() && c.copy.cols() == of.cols();
  });
  return found == copies_.end() ? kernels::Narrowed{} : kernels::Narrowed{found->copy, network_.overflow()};
}

View Operands::teaching(const Link& link, std::size_t param, const View& delta) {
  return is_weight(link, param) || alone(delta) ? of(*link.op, delta, Magnitude::change) : delta;
}

bool Operands::is_weight(const Link& link, std::size_t param) const {
  return network_.graph().param(link.params[param]).spec.role == ParamRole::weight;
}

kernels::Narrowed Operands::beside(const View& of, Magnitude magnitude) {
  if (!narrower()) return {};
  catch_up();
  return {copy(of, magnitude).copy, network_.overflow()};
}

kernels::Narrowed Operands::instead_of(const View& of, Magnitude magnitude) {
  catch_up();
  Copy& made = copy(of, magnitude);
  made.alone = true;
  return {made.copy, network_.overflow()};
}

bool Operands::alone(const View& of) {
  catch_up();
  return std::any_of(copies_.begin(), copies_.end(), [&](const Copy& c) { return c.alone && c.of.data == of.data; });
}

}  // namespace pc

// The list of operators. Self-registering statics would vanish from a static library; a list cannot.
#include "pc/ops/ops.h"

namespace pc {

std::span<const Op* const> all_ops() {
  static constexpr const Op* list[] = {
      &ops::linear,     &ops::sparse_linear, &ops::matmul,
      &ops::constant,   &ops::scale,         &ops::identity,
      &ops::add,        &ops::subtract,      &ops::multiply,
      &ops::concat,     &ops::slice,         &ops::softmax,
      &ops::permute,    &ops::embedding,     &ops::attention,
      &ops::rotary,     &ops::relu,          &ops::leaky_relu,
      &ops::gelu,       &ops::gelu_tanh,     &ops::silu,
      &ops::tanh,       &ops::hard_tanh,     &ops::sigmoid,
      &ops::softplus,   &ops::conv2d,        &ops::conv_transpose2d,
      &ops::max_pool2d, &ops::avg_pool2d,    &ops::global_avg_pool,
      &ops::upsample,   &ops::pad,           &ops::flatten,
      &ops::reshape,    &ops::channels_last, &ops::channels_first,
      &ops::layer_norm, &ops::rms_norm,      &ops::batch_norm,
      &ops::dropout,
  };
  return list;
}

const Op& find_op(std::string_view name) {
  std::string known;
  for (const Op* op : all_ops()) {
    if (op->name == name) return *op;
    known += std::string(known.empty() ? "" : ", ").append(op->name);
  }
  fail("op", "no operator named \"", name, "\"; there are: ", known);
}

Attrs complete_attrs(const Op& op, const Attrs& given) {
  Attrs attrs;
  std::string known;
  for (const AttrSpec& spec : op.attrs) {
    attrs.emplace(spec.name, spec.fallback);
    known += std::string(known.empty() ? "" : ", ").append(spec.name);
  }
  for (const auto& [name, value] : given) {
    PC_CHECK(attrs.contains(name), "op", op.name, " has no setting \"", name, "\"",
             known.empty() ? std::string(" (it has none)") : "; it has: " + known);
    attrs[name] = value;
  }
  return attrs;
}

}  // namespace pc

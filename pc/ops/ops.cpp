// The list of operators. Self-registering statics would vanish from a static library; a list cannot.
#include "pc/ops/ops.h"

#include <algorithm>

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
      &ops::dropout,    &ops::gather,
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

namespace {

/// Entries of lists are settings, "name.0" and so on.
std::string name_of_entry(std::string_view list, std::size_t i) { return std::string(list) + "." + std::to_string(i); }

bool is_entry_of_list(const Op& op, std::string_view name) {
  return std::any_of(op.attrs.begin(), op.attrs.end(), [&](const AttrSpec& spec) {
    return spec.kind == AttrSpec::Kind::list && name.starts_with(std::string(spec.name) + ".");
  });
}

}  // namespace

void set_list(Attrs& attrs, std::string_view name, std::span<const double> list) {
  for (std::size_t i = 0; i < list.size(); ++i) attrs[name_of_entry(name, i)] = list[i];
}

std::vector<double> list_of(const Attrs& attrs, std::string_view name) {
  std::vector<double> list;
  for (auto entry = attrs.find(name_of_entry(name, 0)); entry != attrs.end();
       entry = attrs.find(name_of_entry(name, list.size()))) {
    list.push_back(entry->second);
  }
  return list;
}

Attrs complete_attrs(const Op& op, const Attrs& given) {
  Attrs attrs;
  std::string known;
  for (const AttrSpec& spec : op.attrs) {
    if (spec.kind != AttrSpec::Kind::list) attrs.emplace(spec.name, spec.fallback);
    known += std::string(known.empty() ? "" : ", ").append(spec.name);
  }
  for (const auto& [name, value] : given) {
    PC_CHECK(attrs.contains(name) || is_entry_of_list(op, name), "op", op.name, " has no setting \"", name, "\"",
             known.empty() ? std::string(" (it has none)") : "; it has: " + known);
    attrs[name] = value;
  }
  for (const AttrSpec& spec : op.attrs) {
    if (spec.kind != AttrSpec::Kind::flag) continue;
    const double value = attrs.find(spec.name)->second;
    PC_CHECK(value == 0 || value == 1, std::string(op.name).c_str(), spec.name, " must be 0 or 1, not ", value);
  }
  return attrs;
}

}  // namespace pc

#include "kernels/cases.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels/arithmetic.h"
#include "kernels/arrival.h"
#include "kernels/attention.h"
#include "kernels/batch_norm.h"
#include "kernels/batched_gemm.h"
#include "kernels/change.h"
#include "kernels/conv.h"
#include "kernels/embed.h"
#include "kernels/energy.h"
#include "kernels/exec.h"
#include "kernels/feedforward.h"
#include "kernels/gather.h"
#include "kernels/gemm.h"
#include "kernels/gemm_adam.h"
#include "kernels/map.h"
#include "kernels/map_sgd.h"
#include "kernels/narrow.h"
#include "kernels/norm.h"
#include "kernels/philox.h"
#include "kernels/pick.h"
#include "kernels/pool.h"
#include "kernels/pool_change.h"
#include "kernels/precision.h"
#include "kernels/random.h"
#include "kernels/rearrange.h"
#include "kernels/reduce.h"
#include "kernels/rotate.h"
#include "kernels/runge_kutta.h"
#include "kernels/settle.h"
#include "kernels/settle_tiles.h"
#include "kernels/softmax.h"
#include "kernels/sparse.h"
#include "kernels/sparse_blocks.h"
#include "kernels/split.h"
#include "kernels/transpose.h"
#include "kernels/value_update.h"
#include "kernels/weight_update.h"

namespace pc::kernels {
namespace {

using Views = KernelCase::Views;

constexpr std::array kWrites = {Write::set, Write::add};
constexpr std::array kActivations = {std::pair{Activation::identity, "identity"},
                                     std::pair{Activation::relu, "relu"},
                                     std::pair{Activation::leaky_relu, "leaky_relu"},
                                     std::pair{Activation::gelu, "gelu"},
                                     std::pair{Activation::gelu_tanh, "gelu_tanh"},
                                     std::pair{Activation::silu, "silu"},
                                     std::pair{Activation::tanh, "tanh"},
                                     std::pair{Activation::hard_tanh, "hard_tanh"},
                                     std::pair{Activation::sigmoid, "sigmoid"},
                                     std::pair{Activation::softplus, "softplus"}};

std::string name_of_write(Write write) { return write == Write::add ? "add" : "set"; }

/// Of Content::offsets.
double first_place(double value, std::int64_t row) { return value * static_cast<double>(row % 3 == 2 ? row - 1 : row); }

/// Of an operand near the largest entry: sums in another order may round one to its neighbour.
double unit(DType type) { return type == DType::f16 ? 1e-3 : 8e-3; }

/// An output of a kernel that is told whether to set or to add.
Content before(Write write) { return write == Write::add ? Content::normal : Content::nan; }

/// Makes the cases of one size and dtype. `wide` ones run on strided views.
class Maker {
 public:
  Maker(DType dtype, std::int64_t rows, std::int64_t cols) : dtype_(dtype), rows_(rows), cols_(cols) {}

  std::vector<KernelCase> all() && {
    for (const bool wide : {false, true}) {
      wide_ = wide;
      arithmetic();
      gemms();
      if (dtype_ == DType::f32) operands();
      batched_gemms();
      maps();
      energies();
      changes();
      softmaxes();
      embeds();
      picks();
      attentions();
      rearranges();
      value_updates();
      weight_updates();
      resting_updates();
      gathers();
      randoms();
      sums();
      arrivals();
      runge_kuttas();
      settles();
      tiled_settles();
      sparse();
      feedforward_layers();
      convolutions();
      pools();
      pool_changes();
      norms();
      batch_norms();
      transposes();
    }
    wide_ = false;
    scalars();
    return std::move(list_);
  }

 private:
  using Run = std::function<void(const Exec&, const Views&, const Views&)>;

  void add(std::string_view kernel, const std::string& variant, std::vector<CaseView> in, std::vector<CaseView> out,
           Run run) {
    std::string name = std::string(kernel) + ' ' + std::to_string(rows_) + 'x' + std::to_string(cols_) + ' ' +
                       pc::name_of(dtype_) + ": " + variant + (wide_ ? ", wide" : "");
    list_.push_back({kernel, std::move(name), std::move(in), std::move(out), std::move(run)});
  }

  [[nodiscard]] CaseView matrix(Content content = Content::normal) const { return matrix(rows_, cols_, content); }
  [[nodiscard]] CaseView matrix(std::int64_t rows, std::int64_t cols, Content content = Content::normal) const {
    return {.shape = {rows, cols}, .dtype = dtype_, .content = content, .wide = wide_};
  }
  [[nodiscard]] static CaseView rounded(CaseView view) {
    view.dtype = DType::bf16;
    return view;
  }
  [[nodiscard]] CaseView column(std::int64_t n) const { return {.shape = {n}, .dtype = dtype_}; }
  [[nodiscard]] CaseView column_row(Content content = Content::normal) const {
    return {.shape = {cols_}, .dtype = dtype_, .content = content};
  }
  [[nodiscard]] CaseView per_row(Content content = Content::nan) const {
    return {.shape = {rows_}, .dtype = DType::f64, .content = content};
  }
  [[nodiscard]] static CaseView scalar(double value) {
    return {.shape = {}, .dtype = DType::f64, .content = Content::constant, .value = value};
  }

  void arithmetic() {
    add("fill", "2.5", {}, {matrix(Content::nan)},
        [](const Exec& exec, const Views&, const Views& out) { fill(exec, {.out = out[0], .value = 2.5}); });
    add("copy", "all", {matrix()}, {matrix(Content::nan)},
        [](const Exec& exec, const Views& in, const Views& out) { copy(exec, {.in = in[0], .out = out[0]}); });
    CaseView row_mask = matrix(1, cols_, Content::mask);
    row_mask.wide = false;
    for (const CaseView& mask : {row_mask, matrix(Content::mask)}) {
      add("copy", "mask " + mask.shape.text(), {matrix(), mask}, {matrix()},
          [](const Exec& exec, const Views& in, const Views& out) {
            copy(exec, {.in = in[0], .out = out[0], .mask = in[1]});
          });
    }
    for (const double b : {0.0, 1.0, -0.5}) {
      add("axpby", "b = " + std::to_string(b), {matrix()}, {matrix(b == 0 ? Content::nan : Content::normal)},
          [b](const Exec& exec, const Views& in, const Views& out) {
            axpby(exec, {.x = in[0], .y = out[0], .a = 1.25, .b = b});
          });
    }
    for (const double t : {0.0, 0.3, -1.5}) {
      add("lerp", "t = " + std::to_string(t), {matrix(), matrix(), scalar(t)}, {matrix(Content::nan)},
          [](const Exec& exec, const Views& in, const Views& out) {
            lerp(exec, {.a = in[0], .b = in[1], .t = in[2], .y = out[0]});
          });
      add("scale_by", std::to_string(t), {scalar(t)}, {matrix()},
          [](const Exec& exec, const Views& in, const Views& out) { scale_by(exec, {.y = out[0], .by = in[0]}); });
    }
    for (const Write write : kWrites) {
      add("multiply", name_of_write(write), {matrix(), matrix()}, {matrix(before(write))},
          [write](const Exec& exec, const Views& in, const Views& out) {
            multiply(exec, {.a = in[0], .b = in[1], .y = out[0], .write = write});
          });
      add("add_row", name_of_write(write), {column_row()}, {matrix(before(write))},
          [write](const Exec& exec, const Views& in, const Views& out) {
            add_row(exec, {.row = in[0], .y = out[0], .write = write});
          });
      add("sum_rows", name_of_write(write), {matrix()}, {column_row(before(write))},
          [write](const Exec& exec, const Views& in, const Views& out) {
            sum_rows(exec, {.x = in[0], .row = out[0], .write = write});
          });
    }
  }

  void gemms() {
    constexpr std::pair<double, double> kScales[] = {{1, 0}, {1, 1}, {0.5, -2}};
    const std::int64_t inner = std::min<std::int64_t>((rows_ + cols_) / 2, 65);
    for (const auto& [alpha, beta] : kScales) {
      for (const bool ta : {false, true}) {
        for (const bool tb : {false, true}) gemm_case(ta, tb, inner, alpha, beta);
      }
      gemm_case(false, true, 0, alpha, beta);
    }
  }

  void gemm_case(bool ta, bool tb, std::int64_t inner, double alpha, double beta) {
    const std::string variant = std::string(ta ? "t" : "n") + (tb ? "t" : "n") + ", inner " + std::to_string(inner) +
                                ", alpha " + std::to_string(alpha) + ", beta " + std::to_string(beta);
    add("gemm", variant,
        {ta ? matrix(inner, rows_) : matrix(rows_, inner), tb ? matrix(cols_, inner) : matrix(inner, cols_)},
        {matrix(beta == 0 ? Content::nan : Content::normal)}, [=](const Exec& exec, const Views& in, const Views& out) {
          gemm(exec, {.a = in[0],
                      .b = in[1],
                      .c = out[0],
                      .trans_a = Trans{ta},
                      .trans_b = Trans{tb},
                      .alpha = alpha,
                      .beta = beta});
        });
  }

  /// Products of fewer bits: of whole numbers, which every type holds exactly.
  void operands() {
    const auto coarse = [&](DType type, std::int64_t rows, std::int64_t cols) {
      CaseView view = matrix(rows, cols, Content::coarse);
      view.dtype = type;
      return view;
    };
    const std::int64_t inner = std::min<std::int64_t>((rows_ + cols_) / 2, 65);
    for (const DType type : {DType::tf32, DType::f16, DType::bf16}) {
      for (const bool ta : {false, true}) {
        for (const bool tb : {false, true}) {
          add("gemm", std::string(pc::name_of(type)) + (ta ? ", t" : ", n") + (tb ? 't' : 'n'),
              {ta ? coarse(type, inner, rows_) : coarse(type, rows_, inner),
               tb ? coarse(type, cols_, inner) : coarse(type, inner, cols_)},
              {matrix()}, [=](const Exec& exec, const Views& in, const Views& out) {
                View a = in[0];
                a.exponent = 1;
                gemm(exec, {.a = a, .b = in[1], .c = out[0], .trans_a = Trans{ta}, .trans_b = Trans{tb}, .beta = -0.5});
              });
          if (type != DType::bf16) continue;
          add("gemm", std::string("bfloat16 into bfloat16") + (ta ? ", t" : ", n") + (tb ? 't' : 'n'),
              {ta ? coarse(type, inner, rows_) : coarse(type, rows_, inner),
               tb ? coarse(type, cols_, inner) : coarse(type, inner, cols_)},
              {rounded(matrix(Content::nan))}, [=](const Exec& exec, const Views& in, const Views& out) {
                View a = in[0];
                a.exponent = 1;
                gemm(exec, {.a = a, .b = in[1], .c = out[0], .trans_a = Trans{ta}, .trans_b = Trans{tb}, .alpha = 0.5});
              });
        }
      }
      for (const Write write : kWrites) {
        add("sum_rows", std::string(pc::name_of(type)) + ", " + name_of_write(write), {coarse(type, rows_, cols_)},
            {column_row(before(write))}, [=](const Exec& exec, const Views& in, const Views& out) {
              View x = in[0];
              x.exponent = 2;
              sum_rows(exec, {.x = x, .row = out[0], .write = write});
            });
      }
      for (const bool weights : {false, true}) {
        CaseView parts = matrix(rows_, 6 * cols_, Content::nan);
        parts.dtype = type;
        add("split", std::string(pc::name_of(type)) + (weights ? ", weights" : ", values"), {matrix(rows_, 2 * cols_)},
            {parts, scalar(0)}, [=, run = cols_](const Exec& exec, const Views& in, const Views& out) {
              split(exec, {.x = in[0], .y = out[0], .overflow = out[1], .run = run, .weights = weights});
            });
      }
      if (type == DType::tf32) continue;
      for (const int exponent : {0, 10}) {
        CaseView narrow_to = matrix(Content::nan);
        narrow_to.dtype = type;
        add("narrow", std::string(pc::name_of(type)) + " times 2^" + std::to_string(exponent), {matrix()},
            {narrow_to, scalar(0)}, [exponent](const Exec& exec, const Views& in, const Views& out) {
              View y = out[0];
              y.exponent = exponent;
              narrow(exec, {.x = in[0], .to = {y, out[1]}});
            });
      }
    }
  }

  void changes() {
    for (const auto& [f, f_name] : kActivations) {
      for (const Write write : kWrites) {
        add("map_change", std::string(f_name) + ", " + name_of_write(write), {matrix(), matrix()},
            {matrix(before(write))}, [f = f, write](const Exec& exec, const Views& in, const Views& out) {
              map_change(exec, {.x = in[0], .dx = in[1], .y = out[0], .f = f, .leak = 0.1, .write = write});
            });
      }
      add("change_error", f_name, {matrix(), matrix(), matrix()}, {matrix(Content::nan), matrix(Content::nan)},
          [f = f](const Exec& exec, const Views& in, const Views& out) {
            change_error(
                exec, {.delta = out[0], .dx = in[0], .z = in[1], .change = in[2], .dz = out[1], .f = f, .leak = 0.1});
          });
      add("change_error", std::string(f_name) + ", start, energy, precisions",
          {matrix(), matrix(), column_row(Content::positive)}, {matrix(Content::nan), matrix(Content::nan), per_row()},
          [f = f](const Exec& exec, const Views& in, const Views& out) {
            change_error(exec, {.delta = out[0],
                                .start = in[0],
                                .z = in[1],
                                .dz = out[1],
                                .energy = out[2],
                                .f = f,
                                .leak = 0.1,
                                .precision = 0.75,
                                .precisions = in[2]});
          });
    }
    add("change_error", "no activation", {matrix(), matrix()}, {matrix(Content::nan), per_row()},
        [](const Exec& exec, const Views& in, const Views& out) {
          change_error(exec, {.delta = out[0], .dx = in[0], .change = in[1], .energy = out[1], .precision = 0.75});
        });
    add("add_change", "plain", {matrix(), matrix()}, {matrix(Content::nan)},
        [](const Exec& exec, const Views& in, const Views& out) {
          add_change(exec, {.x = in[0], .dx = in[1], .y = out[0]});
        });
    if (dtype_ != DType::f32) return;
    const CaseView half = rounded(matrix(Content::nan));
    for (const Activation f : {Activation::identity, Activation::tanh}) {
      const bool curved = f != Activation::identity;
      add("change_error", curved ? "rounded change, activation" : "rounded change",
          {matrix(), matrix(), rounded(matrix())}, {matrix(Content::nan), half, scalar(0)},
          [f, curved](const Exec& exec, const Views& in, const Views& out) {
            change_error(exec, {.delta = out[0],
                                .dx = in[0],
                                .z = curved ? in[1] : View{},
                                .change = in[2],
                                .f = f,
                                .narrow = {out[1], out[2]}});
          });
    }
    add("change_error", "rounded change, energy", {matrix(), matrix(), rounded(matrix())},
        {matrix(Content::nan), matrix(Content::nan), per_row()},
        [](const Exec& exec, const Views& in, const Views& out) {
          change_error(exec, {.delta = out[0],
                              .start = in[0],
                              .z = in[1],
                              .change = in[2],
                              .dz = out[1],
                              .energy = out[2],
                              .f = Activation::gelu});
        });
    add("add_change", "narrow", {matrix(), matrix()}, {matrix(Content::nan), half, scalar(0)},
        [](const Exec& exec, const Views& in, const Views& out) {
          add_change(exec, {.x = in[0], .dx = in[1], .y = out[0], .narrow = {out[1], out[2]}});
        });
    add("change_error", "narrow", {matrix(), matrix()}, {matrix(Content::nan), half, scalar(0)},
        [](const Exec& exec, const Views& in, const Views& out) {
          change_error(exec, {.delta = out[0], .dx = in[0], .change = in[1], .narrow = {out[1], out[2]}});
        });
    add("change_error", "dz as an operand alone", {matrix(), matrix(), matrix()},
        {matrix(Content::nan), half, scalar(0)}, [](const Exec& exec, const Views& in, const Views& out) {
          change_error(exec, {.delta = out[0],
                              .dx = in[0],
                              .z = in[1],
                              .change = in[2],
                              .f = Activation::relu,
                              .narrow = {out[1], out[2]}});
        });
    add("map_change", "narrow", {matrix(), matrix()}, {matrix(Content::nan), half, scalar(0)},
        [](const Exec& exec, const Views& in, const Views& out) {
          map_change(exec, {.x = in[0], .dx = in[1], .y = out[0], .f = Activation::relu, .narrow = {out[1], out[2]}});
        });
    add("map", "narrow", {matrix()}, {matrix(Content::nan), half, scalar(0)},
        [](const Exec& exec, const Views& in, const Views& out) {
          map(exec, {.x = in[0], .y = out[0], .f = Activation::relu, .narrow = {out[1], out[2]}});
        });
    add("map_sgd", "narrow", {matrix()}, {matrix(), matrix(Content::nan), half, scalar(0)},
        [](const Exec& exec, const Views& in, const Views& out) {
          map_sgd(
              exec,
              {.x = out[0], .y = out[1], .dy = in[0], .f = Activation::relu, .rate = 0.25, .narrow = {out[2], out[3]}});
        });
    add("gaussian_error", "base, energy", {matrix(), matrix(), matrix()}, {matrix(Content::nan), per_row()},
        [](const Exec& exec, const Views& in, const Views& out) {
          gaussian_error(exec, {.x = in[0], .mu = in[1], .delta = out[0], .energy = out[1], .base = in[2]});
        });
    add("gaussian_error", "base", {matrix(), matrix(), matrix()}, {matrix(Content::nan)},
        [](const Exec& exec, const Views& in, const Views& out) {
          gaussian_error(exec, {.x = in[0], .mu = in[1], .delta = out[0], .base = in[2]});
        });
    add("gaussian_error", "base in a wider matrix", {matrix(), matrix(), matrix(rows_, cols_ + 3)},
        {matrix(Content::nan)}, [](const Exec& exec, const Views& in, const Views& out) {
          const View base = in[2].columns(0, in[0].cols());
          gaussian_error(exec, {.x = in[0], .mu = in[1], .delta = out[0], .base = base});
        });
    add("gaussian_error", "narrow", {matrix(), matrix()}, {matrix(Content::nan), half, scalar(0)},
        [](const Exec& exec, const Views& in, const Views& out) {
          gaussian_error(exec, {.x = in[0], .mu = in[1], .delta = out[0], .narrow = {out[1], out[2]}});
        });
  }

  void batched_gemms() {
    const std::int64_t m = std::min<std::int64_t>(cols_, 5), n = std::min<std::int64_t>(cols_, 9);
    const std::int64_t k = std::min<std::int64_t>(cols_, 67);
    for (const auto& [alpha, beta] : {std::pair{1.0, 0.0}, {1.0, 1.0}, {0.5, -2.0}}) {
      for (const bool ta : {false, true}) {
        for (const bool tb : {false, true}) batched_gemm_case(m, n, k, ta, tb, alpha, beta);
      }
      batched_gemm_case(1, n, k, false, false, alpha, beta);
      batched_gemm_case(m, 1, k, false, false, alpha, beta);
      batched_gemm_case(m, n, 0, false, true, alpha, beta);
    }
  }

  void batched_gemm_case(std::int64_t m, std::int64_t n, std::int64_t k, bool ta, bool tb, double alpha, double beta) {
    const std::string variant = std::string(ta ? "t" : "n") + (tb ? "t" : "n") + ", " + std::to_string(m) + 'x' +
                                std::to_string(k) + " times " + std::to_string(k) + 'x' + std::to_string(n) +
                                ", alpha " + std::to_string(alpha) + ", beta " + std::to_string(beta);
    add("batched_gemm", variant, {matrix(rows_, m * k), matrix(rows_, k * n)},
        {matrix(rows_, m * n, beta == 0 ? Content::nan : Content::normal)},
        [=](const Exec& exec, const Views& in, const Views& out) {
          batched_gemm(exec, {.a = in[0],
                              .b = in[1],
                              .c = out[0],
                              .m = m,
                              .n = n,
                              .k = k,
                              .trans_a = Trans{ta},
                              .trans_b = Trans{tb},
                              .alpha = alpha,
                              .beta = beta});
        });
  }

  void maps() {
    for (const auto& [f, f_name] : kActivations) {
      for (const Write write : kWrites) {
        const std::string variant = std::string(f_name) + ", " + name_of_write(write);
        add("map", variant, {matrix()}, {matrix(before(write))},
            [f = f, write](const Exec& exec, const Views& in, const Views& out) {
              map(exec, {.x = in[0], .y = out[0], .f = f, .leak = 0.1, .write = write});
            });
        add("map_pullback", variant, {matrix(), matrix()}, {matrix(before(write))},
            [f = f, write](const Exec& exec, const Views& in, const Views& out) {
              map_pullback(exec, {.x = in[0], .dy = in[1], .dx = out[0], .f = f, .leak = 0.1, .write = write});
            });
      }
      add("map_sgd", std::string(f_name), {matrix(), matrix()}, {matrix(), matrix(Content::nan), matrix()},
          [f = f](const Exec& exec, const Views& in, const Views& out) {
            map_sgd(exec, {.x = out[0],
                           .y = out[1],
                           .dy = in[0],
                           .own = in[1],
                           .velocity = out[2],
                           .f = f,
                           .leak = 0.1,
                           .rate = 0.2,
                           .momentum = 0.9});
          });
    }
  }

  void energies() {
    for (const Kernel<ErrorArgs>* kernel :
         {&gaussian_error, &softmax_error, &bernoulli_error, &laplace_error, &categorical_error}) {
      add(kernel->name, "delta", {matrix(), matrix()}, {matrix(Content::nan)},
          [kernel](const Exec& exec, const Views& in, const Views& out) {
            (*kernel)(exec, {.x = in[0], .mu = in[1], .delta = out[0]});
          });
      add(kernel->name, "delta, own, energy", {matrix(), matrix()},
          {matrix(Content::nan), matrix(Content::nan), per_row()},
          [kernel](const Exec& exec, const Views& in, const Views& out) {
            (*kernel)(exec,
                      {.x = in[0], .mu = in[1], .delta = out[0], .own = out[1], .energy = out[2], .precision = 0.75});
          });
    }
    for (const Kernel<ErrorArgs>* kernel : {&gaussian_error, &laplace_error}) {
      add(kernel->name, "precisions", {matrix(), matrix(), column_row(Content::positive)},
          {matrix(Content::nan), per_row()}, [kernel](const Exec& exec, const Views& in, const Views& out) {
            (*kernel)(
                exec,
                {.x = in[0], .mu = in[1], .delta = out[0], .energy = out[1], .precision = 0.75, .precisions = in[2]});
          });
    }
    add("learn_precision", "rate 0.3", {matrix()}, {column_row(Content::positive)},
        [](const Exec& exec, const Views& in, const Views& out) {
          learn_precision(exec, {.delta = in[0], .precisions = out[0], .rate = 0.3, .least = 0.5});
        });
    for (const Kernel<ErrorArgs>* kernel : {&softmax_error, &categorical_error}) {
      CaseView several = matrix();
      several.shape = {rows_, 3, std::min<std::int64_t>(cols_, 65)};
      CaseView made = several;
      made.content = Content::nan;
      add(kernel->name, "several runs", {several, several}, {made, made, per_row()},
          [kernel](const Exec& exec, const Views& in, const Views& out) {
            (*kernel)(exec,
                      {.x = in[0], .mu = in[1], .delta = out[0], .own = out[1], .energy = out[2], .precision = 0.75});
          });
    }
    for (const auto& [f, f_name] : kActivations) {
      add("map_error", f_name, {matrix(), matrix()}, {matrix(Content::nan), matrix(Content::nan)},
          [f = f](const Exec& exec, const Views& in, const Views& out) {
            map_error(exec, {.x = in[0], .z = in[1], .delta = out[0], .dz = out[1], .f = f, .leak = 0.1});
          });
      add("map_error", std::string(f_name) + ", energy, precisions",
          {matrix(), matrix(), column_row(Content::positive)}, {matrix(Content::nan), matrix(Content::nan), per_row()},
          [f = f](const Exec& exec, const Views& in, const Views& out) {
            map_error(exec, {.x = in[0],
                             .z = in[1],
                             .delta = out[0],
                             .dz = out[1],
                             .energy = out[2],
                             .f = f,
                             .leak = 0.1,
                             .precision = 0.75,
                             .precisions = in[2]});
          });
    }
  }

  void softmaxes() {
    for (const Write write : kWrites) {
      add("softmax", name_of_write(write), {matrix()}, {matrix(before(write))},
          [write](const Exec& exec, const Views& in, const Views& out) {
            softmax(exec, {.x = in[0], .y = out[0], .write = write});
          });
      add("softmax_pullback", name_of_write(write), {matrix(), matrix()}, {matrix(before(write))},
          [write](const Exec& exec, const Views& in, const Views& out) {
            softmax_pullback(exec, {.x = in[0], .dy = in[1], .dx = out[0], .write = write});
          });
      for (const bool causal : {false, true}) {
        const std::int64_t n = std::min<std::int64_t>(cols_, 37);
        const SoftmaxRuns runs{.width = n, .causal = causal};
        const std::string variant = std::string(causal ? "causal, " : "runs, ") + name_of_write(write);
        add("softmax", variant, {matrix(rows_, 2 * n * n)}, {matrix(rows_, 2 * n * n, before(write))},
            [=](const Exec& exec, const Views& in, const Views& out) {
              softmax(exec, {.x = in[0], .y = out[0], .runs = runs, .write = write});
            });
        add("softmax_pullback", variant, {matrix(rows_, 2 * n * n), matrix(rows_, 2 * n * n)},
            {matrix(rows_, 2 * n * n, before(write))}, [=](const Exec& exec, const Views& in, const Views& out) {
              softmax_pullback(exec, {.x = in[0], .dy = in[1], .dx = out[0], .runs = runs, .write = write});
            });
      }
    }
  }

  void embeds() {
    const std::int64_t times = std::min<std::int64_t>(cols_, 9), width = std::min<std::int64_t>(cols_, 70);
    constexpr std::int64_t kEntries = 5;
    CaseView numbers = matrix(rows_, times, Content::index);
    numbers.value = kEntries;
    for (const Write write : kWrites) {
      for (const CaseView& x : {numbers, matrix(rows_, times)}) {
        const std::string variant =
            std::string(x.content == Content::index ? "whole, " : "any number, ") + name_of_write(write);
        add("embed", variant, {x, matrix(kEntries, width)}, {matrix(rows_, times * width, before(write))},
            [write](const Exec& exec, const Views& in, const Views& out) {
              embed(exec, {.x = in[0], .table = in[1], .y = out[0], .write = write});
            });
        add("embed_grad", variant, {x, matrix(rows_, times * width)}, {matrix(kEntries, width, before(write))},
            [write](const Exec& exec, const Views& in, const Views& out) {
              embed_grad(exec, {.x = in[0], .dy = in[1], .dtable = out[0], .write = write});
            });
      }
    }
  }

  void picks() {
    const std::int64_t inner = std::min<std::int64_t>(cols_, 30);
    constexpr std::int64_t kOuter = 2, kLength = 5, kPlaces = 7;  // more places than entries: some come twice
    const PickShape of{.length = kLength, .inner = inner};
    const CaseView all = matrix(rows_, kOuter * kLength * inner);
    for (const Write write : kWrites) {
      for (const std::int64_t lists : {rows_, std::int64_t{1}}) {
        CaseView whole = matrix(lists, kPlaces, Content::index), half = matrix(lists, kPlaces, Content::constant);
        whole.value = kLength;
        half.value = 2.5;
        for (const CaseView& places : {whole, half, matrix(lists, kPlaces)}) {
          const char* kind = places.content == Content::index      ? "whole, "
                             : places.content == Content::constant ? "half-way, "
                                                                   : "any number, ";
          const std::string variant = kind + std::string(lists == 1 ? "one list, " : "") + name_of_write(write);
          add("pick", variant, {all, places}, {matrix(rows_, kOuter * kPlaces * inner, before(write))},
              [=](const Exec& exec, const Views& in, const Views& out) {
                pick(exec, {.x = in[0], .places = in[1], .y = out[0], .shape = of, .write = write});
              });
          add("pick_back", variant, {matrix(rows_, kOuter * kPlaces * inner), places},
              {matrix(rows_, kOuter * kLength * inner, before(write))},
              [=](const Exec& exec, const Views& in, const Views& out) {
                pick_back(exec, {.places = in[1], .dy = in[0], .dx = out[0], .shape = of, .write = write});
              });
        }
      }
    }
  }

  void attentions() {
    using To = AttentionPullbackArgs::To;
    // More queries than warps, more keys than lanes, heads narrower and wider than a warp, whole packs of entries, and
    // more than a GPU's block can fetch.
    struct Sizes {
      std::int64_t heads, queries, keys, width, value_width;
      bool causal;
    };
    for (const Sizes& s : {Sizes{1, 1, 1, 1, 1, true},
                           {2, 11, 37, 3, 5, false},
                           {3, 37, 37, 4, 2, true},
                           {1, 5, 5, 2, 150, true},
                           Sizes{2, 19, 33, 8, 12, false},
                           Sizes{1, 70, 70, 200, 100, true}}) {
      if (s.queries > cols_ || rows_ > 40) continue;  // a few sizes are enough
      const auto tokens = [](const View& view, std::int64_t heads, std::int64_t width, std::int64_t spare) {
        return Tokens{.view = view, .begin = spare, .step = heads * width + spare, .width = width};
      };
      constexpr std::int64_t kSpare = 1;  // between the tokens of q, k and v
      const AttentionShape of{.heads = s.heads, .queries = s.queries, .keys = s.keys, .scale = 0.4, .causal = s.causal};
      const CaseView q = matrix(rows_, s.queries * (s.heads * s.width + kSpare));
      const CaseView k = matrix(rows_, s.keys * (s.heads * s.width + kSpare));
      const CaseView v = matrix(rows_, s.keys * (s.heads * s.value_width + kSpare));
      const auto three = [=](const Views& in, auto args) {
        args.q = tokens(in[0], s.heads, s.width, kSpare);
        args.k = tokens(in[1], s.heads, s.width, kSpare);
        args.v = tokens(in[2], s.heads, s.value_width, kSpare);
        args.of = of;
        return args;
      };
      for (const Write write : kWrites) {
        const std::string variant = std::to_string(s.heads) + " heads, " + std::to_string(s.queries) + 'x' +
                                    std::to_string(s.keys) + (s.causal ? ", causal, " : ", ") + name_of_write(write);
        add("attention", variant, {q, k, v}, {matrix(rows_, s.queries * s.heads * s.value_width, before(write))},
            [=](const Exec& exec, const Views& in, const Views& out) {
              AttentionArgs args = three(in, AttentionArgs{});
              args.out = tokens(out[0], s.heads, s.value_width, 0);
              args.write = write;
              attention(exec, args);
            });
        for (const To to : {To::q, To::k, To::v}) {
          const std::int64_t count = to == To::q ? s.queries : s.keys, width = to == To::v ? s.value_width : s.width;
          add("attention_pullback", variant + ", to " + std::to_string(static_cast<int>(to)),
              {q, k, v, matrix(rows_, s.queries * s.heads * s.value_width)},
              {matrix(rows_, count * s.heads * width, before(write))},
              [=](const Exec& exec, const Views& in, const Views& out) {
                AttentionPullbackArgs args = three(in, AttentionPullbackArgs{});
                args.delta = tokens(in[3], s.heads, s.value_width, 0);
                args.dx = tokens(out[0], s.heads, width, 0);
                args.to = to;
                args.write = write;
                attention_pullback(exec, args);
              });
        }
      }
    }
  }

  void rearranges() {
    const std::int64_t n = std::min<std::int64_t>(cols_, 30);
    for (const Write write : kWrites) {
      add("rearrange", "all, " + name_of_write(write), {matrix(rows_, 6 * n)}, {matrix(rows_, 6 * n, before(write))},
          [=](const Exec& exec, const Views& in, const Views& out) {
            rearrange(exec, {.x = in[0],
                             .y = out[0],
                             .dims = {1, 2, n, 3},
                             .from = {0, {0, 3 * n, 3, 1}},
                             .to = {0, {0, 1, 6, 2}},
                             .write = write});
          });
      add("rearrange", "a part, " + name_of_write(write), {matrix(rows_, 5 * n)}, {matrix(rows_, 4 * n + 1)},
          [=](const Exec& exec, const Views& in, const Views& out) {
            rearrange(exec, {.x = in[0],
                             .y = out[0],
                             .dims = {1, 1, n, 2},
                             .from = {2, {0, 0, 5, 1}},
                             .to = {1, {0, 0, 4, 2}},
                             .write = write});
          });
      for (const bool back : {false, true}) {
        add("rotate", std::string(back ? "back, " : "") + name_of_write(write), {matrix(rows_, 7 * n)},
            {matrix(rows_, 7 * n, before(write))}, [=](const Exec& exec, const Views& in, const Views& out) {
              rotate(exec, {.x = in[0],
                            .y = out[0],
                            .width = 7,
                            .head = 2,
                            .count = 6,
                            .base = 100,
                            .back = back,
                            .write = write});
            });
      }
    }
  }

  /// The ways in which a value may be pulled, and held. in: own, back, free; out: x, steepest.
  struct Pull {
    const char* name;
    bool own, back;
    int free;  // 0: no mask; 1: one row; 2: a matrix
    bool steepest;
  };
  static constexpr Pull kPulls[] = {{"own and back", true, true, 0, false},
                                    {"own, steepest", true, false, 0, true},
                                    {"back, row mask", false, true, 1, false},
                                    {"all, mask", true, true, 2, true},
                                    {"no gradient", false, false, 0, true}};

  /// The views of a ValueGradient, by their places in the case's lists.
  struct Placed {
    std::vector<CaseView> in, out;
    Pull pull;

    [[nodiscard]] ValueGradient gradient(const Views& i, const Views& o) const {
      std::size_t next = 0;
      ValueGradient g{
          .x = o[0],
      };
      if (pull.own) g.own = i[next++];
      if (pull.back) g.back = i[next++];
      if (pull.free != 0) g.free = i[next++];
      if (pull.steepest) g.steepest = o[1];
      return g;
    }
  };

  [[nodiscard]] Placed place(const Pull& pull) const {
    Placed p{.in = {}, .out = {matrix()}, .pull = pull};
    if (pull.own) p.in.push_back(matrix());
    if (pull.back) p.in.push_back(matrix());
    if (pull.free == 1) p.in.push_back({.shape = {1, cols_}, .dtype = dtype_, .content = Content::mask});
    if (pull.free == 2) p.in.push_back(matrix(Content::mask));
    if (pull.steepest) p.out.push_back(per_row());
    return p;
  }

  void value_updates() {
    if (dtype_ == DType::f32) {
      add("value_sgd", "rounded back", {matrix(), rounded(matrix())}, {matrix(), matrix()},
          [](const Exec& exec, const Views& in, const Views& out) {
            value_sgd(
                exec,
                {.g = {.x = out[0], .own = in[0], .back = in[1]}, .velocity = out[1], .rate = 0.25, .momentum = 0.9});
          });
      add("value_sgd", "rounded back, steepest", {rounded(matrix())}, {matrix(), per_row()},
          [](const Exec& exec, const Views& in, const Views& out) {
            value_sgd(exec, {.g = {.x = out[0], .back = in[0], .steepest = out[1]}, .rate = 0.25});
          });
      add("value_adam", "rounded back", {matrix(), rounded(matrix()), scalar(3)},
          {matrix(), matrix(), matrix(Content::positive)}, [](const Exec& exec, const Views& in, const Views& out) {
            value_adam(exec, {.g = {.x = out[0], .own = in[0], .back = in[1]},
                              .m = out[1],
                              .v = out[2],
                              .step = in[2],
                              .rate = 0.05});
          });
      CaseView half = matrix(Content::nan);
      half.dtype = DType::f16;
      add("value_sgd", "whole and narrow",
          {matrix(), matrix(), {.shape = {1, cols_}, .dtype = dtype_, .content = Content::mask}},
          {matrix(), matrix(Content::nan), half, scalar(0)}, [](const Exec& exec, const Views& in, const Views& out) {
            value_sgd(exec, {.g = {.x = out[0],
                                   .own = in[0],
                                   .free = in[2],
                                   .from = in[1],
                                   .whole = out[1],
                                   .narrow = {out[2], out[3]}},
                             .rate = 0.25});
          });
    }
    for (const Pull& pull : kPulls) {
      const Placed plain = place(pull);
      add("value_sgd", pull.name, plain.in, plain.out, [plain](const Exec& exec, const Views& in, const Views& out) {
        value_sgd(exec, {.g = plain.gradient(in, out), .rate = 0.2});
      });
      Placed moving = place(pull);
      moving.out.push_back(matrix());
      add("value_sgd", std::string(pull.name) + ", momentum", moving.in, moving.out,
          [moving](const Exec& exec, const Views& in, const Views& out) {
            value_sgd(exec, {.g = moving.gradient(in, out), .velocity = out.back(), .rate = 0.2, .momentum = 0.9});
          });
      Placed adam = place(pull);
      adam.in.push_back(scalar(3));
      adam.out.push_back(matrix());
      adam.out.push_back(matrix(Content::positive));
      add("value_adam", pull.name, adam.in, adam.out, [adam](const Exec& exec, const Views& in, const Views& out) {
        const std::size_t m = out.size() - 2;
        value_adam(exec, {.g = adam.gradient(in, out), .m = out[m], .v = out[m + 1], .step = in.back(), .rate = 0.05});
      });
    }
  }

  void weight_updates() {
    for (const bool full : {false, true}) {
      // in: dw, rate, and where `full`: mask, clip; out: w, ...
      std::vector<CaseView> in = {matrix(), scalar(0.05)};
      if (full) in.insert(in.end(), {matrix(Content::mask), scalar(0.5)});
      const std::string with = full ? ", mask, clip" : "";
      const auto gradient = [full](const Views& i, const Views& o) {
        return WeightGradient{.w = o[0],
                              .dw = i[0],
                              .mask = full ? i[2] : View{},
                              .rate = i[1],
                              .clip = full ? i[3] : View{},
                              .scale = 0.125};
      };
      add("weight_sgd", "plain" + with, in, {matrix()}, [=](const Exec& exec, const Views& i, const Views& o) {
        weight_sgd(exec, {.g = gradient(i, o), .decay = 0.01});
      });
      add("weight_sgd", "momentum" + with, in, {matrix(), matrix()},
          [=](const Exec& exec, const Views& i, const Views& o) {
            weight_sgd(exec, {.g = gradient(i, o), .velocity = o[1], .momentum = 0.9, .decay = 0.01});
          });
      std::vector<CaseView> adam_in = in;
      adam_in.push_back(scalar(7));
      for (const bool decoupled : {false, true}) {
        add("weight_adam", (decoupled ? "decoupled" : "coupled") + with, adam_in,
            {matrix(), matrix(), matrix(Content::positive)}, [=](const Exec& exec, const Views& i, const Views& o) {
              weight_adam(
                  exec,
                  {.g = gradient(i, o), .m = o[1], .v = o[2], .step = i.back(), .decay = 0.01, .decoupled = decoupled});
            });
      }
    }
  }

  /// Without a gradient, where some weights, or none, still move; and with operands kept up with weights.
  void resting_updates() {
    for (const bool moving : {false, true}) {
      const Content means = moving ? Content::mask : Content::constant;
      for (const double decay : {0.0, 0.01}) {
        add("weight_adam",
            std::string("no gradient, ") + (moving ? "moving" : "resting") + ", decay " + std::to_string(decay),
            {scalar(0.05), scalar(7)}, {matrix(), matrix(means), matrix(means)},
            [=](const Exec& exec, const Views& i, const Views& o) {
              weight_adam(exec, {.g = {.w = o[0], .rate = i[0]}, .m = o[1], .v = o[2], .step = i[1], .decay = decay});
            });
      }
    }
    add("weight_sgd", "no gradient", {scalar(0.05)}, {matrix(), matrix()},
        [](const Exec& exec, const Views& i, const Views& o) {
          weight_sgd(exec, {.g = {.w = o[0], .rate = i[0]}, .velocity = o[1], .momentum = 0.9, .decay = 0.01});
        });
    add("weight_sgd", "how far", {matrix(), scalar(0.05), matrix()}, {matrix(), matrix(Content::nan)},
        [](const Exec& exec, const Views& i, const Views& o) {
          weight_sgd(exec, {.g = {.w = o[0], .dw = i[0], .rate = i[1], .start = i[2], .moved = o[1]}});
        });
    add("weight_adam", "how far, no gradient", {scalar(0.05), scalar(7), matrix()},
        {matrix(), matrix(Content::mask), matrix(Content::mask), matrix(Content::nan)},
        [](const Exec& exec, const Views& i, const Views& o) {
          weight_adam(
              exec, {.g = {.w = o[0], .rate = i[0], .start = i[2], .moved = o[3]}, .m = o[1], .v = o[2], .step = i[1]});
        });
    if (dtype_ != DType::f32) return;
    for (const DType type : {DType::f16, DType::bf16}) {
      CaseView operand = matrix();
      operand.dtype = type;
      const std::string name = std::string("narrow, ") + pc::name_of(type);
      add("weight_sgd", name, {matrix(), scalar(0.05)}, {matrix(), operand, scalar(0)},
          [](const Exec& exec, const Views& i, const Views& o) {
            weight_sgd(exec, {.g = {.w = o[0], .dw = i[0], .rate = i[1], .narrow = {o[1], o[2]}}});
          });
      add("weight_adam", name, {matrix(), scalar(0.05), scalar(7)},
          {matrix(), matrix(), matrix(Content::positive), operand, scalar(0)},
          [](const Exec& exec, const Views& i, const Views& o) {
            weight_adam(exec, {.g = {.w = o[0], .dw = i[0], .rate = i[1], .narrow = {o[3], o[4]}},
                               .m = o[1],
                               .v = o[2],
                               .step = i[2]});
          });
      add("weight_adam", "how far, " + name, {matrix(), scalar(0.05), scalar(7), matrix()},
          {matrix(), matrix(), matrix(Content::positive), operand, scalar(0)},
          [](const Exec& exec, const Views& i, const Views& o) {
            weight_adam(exec, {.g = {.w = o[0], .dw = i[0], .rate = i[1], .start = i[3], .moved_operand = {o[3], o[4]}},
                               .m = o[1],
                               .v = o[2],
                               .step = i[2]});
          });
      for (const std::int64_t samples : {std::int64_t{1}, std::int64_t{37}, std::int64_t{300}}) {
        for (const bool full : {false, true}) learning_product(type, samples, full);
      }
    }
  }

  /// Of whole numbers, whose sums are exact. `full`: with a bias, a mask and operands, and what is learned from kept.
  /// Some are all columns of their matrices but the last.
  void learning_product(DType type, std::int64_t samples, bool full) {
    CaseView delta = matrix(samples, rows_, Content::coarse), x = matrix(samples, cols_, Content::coarse);
    CaseView operand = matrix();
    delta.dtype = x.dtype = operand.dtype = type;
    CaseView bias_delta = matrix(samples, rows_, Content::coarse);
    if (samples == 37) bias_delta.dtype = type;
    const auto bias = [&](Content content) { return CaseView{.shape = {rows_}, .dtype = dtype_, .content = content}; };
    std::vector<CaseView> in = {delta, x, scalar(0.05), scalar(7)};
    std::vector<CaseView> out = {matrix(), matrix(), matrix(Content::positive)};
    if (full) {
      in.insert(in.end(), {matrix(Content::mask), bias_delta, matrix(), bias(Content::normal)});
      out.insert(out.end(), {operand, scalar(0), matrix(), bias(Content::normal), bias(Content::normal),
                             bias(Content::positive), bias(Content::nan), operand, bias(Content::nan)});
    }
    add("gemm_adam",
        std::string(pc::name_of(type)) + ", samples " + std::to_string(samples) + (full ? ", bias, mask, narrow" : ""),
        in, out, [full, part = samples == 37](const Exec& exec, const Views& i, const Views& o) {
          const auto some = [&](const View& v) {
            return part ? v.columns(0, std::max<std::int64_t>(1, v.cols() - 1)) : v;
          };
          const auto adam = [&](const View& w, const View& m, const View& v) {
            return WeightAdamArgs{
                .g = {.w = w, .rate = i[2], .scale = 0.125}, .m = m, .v = v, .step = i[3], .decay = full ? 0.01 : 0};
          };
          GemmAdamArgs args{
              .delta = i[0], .x = some(i[1]), .alpha = 0.5, .w = adam(some(o[0]), some(o[1]), some(o[2]))};
          args.delta.exponent = 2;
          if (full) {
            args.w.g.mask = some(i[4]);
            args.w.g.narrow = {some(o[3]), o[4]};
            args.w.g.dw = some(o[5]);
            args.bias_delta = i[5];
            args.bias = adam(o[6], o[7], o[8]);
            args.bias.g.dw = o[9];
            args.w.g.start = some(i[6]);
            args.w.g.moved_operand = {some(o[10]), o[4]};
            args.bias.g.start = i[7];
            args.bias.g.moved = o[11];
          }
          gemm_adam(exec, args);
        });
  }

  void gathers() {
    constexpr std::int64_t kExamples = 11;
    constexpr double kCursor = 2;
    const CaseView order{.shape = {rows_ + 5}, .dtype = DType::i32, .content = Content::index, .value = kExamples};
    const CaseView labels{
        .shape = {kExamples}, .dtype = DType::i32, .content = Content::index, .value = static_cast<double>(cols_)};
    const std::int64_t channels = cols_ % 3 == 0 ? 3 : cols_;
    const CaseView per_channel{.shape = {channels}, .dtype = DType::f64};
    for (const DType from : {DType::u8, DType::f32, DType::f64}) {
      CaseView table = matrix(kExamples, cols_);
      table.dtype = from;
      if (from == DType::u8) {
        table.content = Content::index;
        table.value = 256;
      }
      add("gather", std::string("from ") + pc::name_of(from), {table, order, scalar(kCursor), per_channel, per_channel},
          {matrix(Content::nan)}, [](const Exec& exec, const Views& in, const Views& out) {
            gather(exec, {.table = in[0], .out = out[0], .rows = {in[1], in[2]}, .scale = in[3], .shift = in[4]});
          });
    }
    for (const bool flip : {false, true}) {
      const std::int64_t height = 5, width = 4, planes = 3;
      const CaseView images = matrix(kExamples, planes * height * width, Content::positive);
      const CaseView of_plane{.shape = {planes}, .dtype = DType::f64};
      add("gather", flip ? "shifted, mirrored" : "shifted",
          {images, order, scalar(kCursor), of_plane, of_plane, scalar(3)},
          {matrix(rows_, planes * height * width, Content::nan)},
          [=](const Exec& exec, const Views& in, const Views& out) {
            gather(exec, {.table = in[0],
                          .out = out[0],
                          .rows = {in[1], in[2]},
                          .scale = in[3],
                          .shift = in[4],
                          .augment = {.height = height,
                                      .width = width,
                                      .crop = 2,
                                      .flip = flip,
                                      .seed = 0x123456789ABCDEF0U,
                                      .epoch = in[5]}});
          });
    }
    constexpr std::int64_t kTimes = 3;  // of a sequence, which must end within the labels
    CaseView starts = order;
    starts.value = kExamples - kTimes + 1;
    const CaseView one{.shape = {1}, .dtype = DType::f64};
    add("gather", "three rows", {packed(kExamples, cols_), starts, scalar(kCursor), one, one},
        {matrix(rows_, kTimes * cols_, Content::nan)}, [](const Exec& exec, const Views& in, const Views& out) {
          gather(exec, {.table = in[0], .out = out[0], .rows = {in[1], in[2]}, .scale = in[3], .shift = in[4]});
        });
    add("one_hot", "three times", {labels, starts, scalar(kCursor)}, {matrix(rows_, kTimes * cols_, Content::nan)},
        [](const Exec& exec, const Views& in, const Views& out) {
          one_hot(exec, {.labels = in[0], .out = out[0], .rows = {in[1], in[2]}, .times = kTimes});
        });
    add("right", "three times", {matrix(rows_, kTimes * cols_), labels, starts, scalar(kCursor)}, {per_row()},
        [](const Exec& exec, const Views& in, const Views& out) {
          right(exec, {.answer = in[0], .labels = in[1], .right = out[0], .rows = {in[2], in[3]}, .times = kTimes});
        });
    add("one_hot", "on and off", {labels, order, scalar(kCursor)}, {matrix(Content::nan)},
        [](const Exec& exec, const Views& in, const Views& out) {
          one_hot(exec, {.labels = in[0], .out = out[0], .rows = {in[1], in[2]}, .on = 0.9, .off = 0.1});
        });
    for (const Content content : {Content::normal, Content::coarse}) {
      add("right", content == Content::coarse ? "equals" : "all different",
          {matrix(content), labels, order, scalar(kCursor)}, {per_row()},
          [](const Exec& exec, const Views& in, const Views& out) {
            right(exec, {.answer = in[0], .labels = in[1], .right = out[0], .rows = {in[2], in[3]}});
          });
    }
  }

  void randoms() {
    for (const auto& [distribution, name] :
         {std::pair{Distribution::uniform, "uniform"}, std::pair{Distribution::normal, "normal"},
          std::pair{Distribution::keep, "keep"}}) {
      for (const Write write : kWrites) {
        const std::string variant = std::string(name) + ", " + name_of_write(write);
        RandomArgs args{.out = {},
                        .distribution = distribution,
                        .a = distribution == Distribution::keep ? 0.3 : -0.3,
                        .b = 1.7,
                        .seed = 0x123456789ABCDEF0U,
                        .purpose = Purpose::test,
                        .stream = 5,
                        .draw = 2,
                        .step = {},
                        .write = write};
        add("random", variant, {scalar(9)}, {matrix(before(write))},
            [args](const Exec& exec, const Views& in, const Views& out) {
              RandomArgs with = args;
              with.out = out[0];
              with.step = in[0];
              random(exec, with);
            });
      }
    }
    for (const bool row : {true, false}) {
      add("random", row ? "row mask" : "mask", {matrix(row ? 1 : rows_, cols_, Content::mask)}, {matrix()},
          [](const Exec& exec, const Views& in, const Views& out) {
            random(exec, {.out = out[0], .write = Write::add, .mask = in[0]});
          });
    }
    add("random", "no step", {}, {matrix(Content::nan)},
        [](const Exec& exec, const Views&, const Views& out) { random(exec, {.out = out[0], .step = {}}); });
  }

  void sums() {
    for (const Write write : kWrites) {
      CaseView out = scalar(write == Write::add ? 0.625 : std::numeric_limits<double>::quiet_NaN());
      for (const bool squares : {false, true}) {
        add("sum", name_of_write(write) + (squares ? ", squares" : ""), {matrix()}, {out},
            [=](const Exec& exec, const Views& i, const Views& o) {
              sum(exec, {.in = i[0], .out = o[0], .scale = 0.5, .squares = squares, .write = write});
            });
      }
      CaseView in = matrix();
      in.dtype = DType::f64;
      add("largest", name_of_write(write), {in}, {out}, [=](const Exec& exec, const Views& i, const Views& o) {
        largest(exec, {.in = i[0], .out = o[0], .write = write});
      });
    }
  }

  /// h -> g and back (a cycle), g -> g by an identity, h -> y, which is clamped.
  void settles() {
    const std::int64_t n = std::min<std::int64_t>(cols_, 96), m = 5;
    for (const Activation f : {Activation::tanh, Activation::gelu, Activation::leaky_relu}) {
      add("settle", std::string("f ") + std::to_string(static_cast<int>(f)),
          {matrix(rows_, n), matrix(rows_, n), matrix(rows_, m), packed(n, n), matrix(rows_, n), packed(m, n),
           packed(n, n), matrix(rows_, n), matrix(rows_, m)},
          {matrix(rows_, n, Content::nan), matrix(rows_, n, Content::nan), matrix(rows_, n, Content::nan), per_row(),
           matrix(rows_, m, Content::nan), matrix(rows_, m, Content::nan)},
          [=](const Exec& exec, const Views& in, const Views& out) {
            SettleArgs args{.steps = 3, .rate = 0.05, .momentum = 0.5};
            args.nodes.add({in[0], out[0]});
            args.nodes.add({in[1], out[1]});
            args.nodes.add({in[2]});
            args.predictions.add({.node = 0, .start = in[7], .precision = 0.7, .delta = out[2], .energy = out[3]});
            args.predictions.add({.node = 1});
            args.predictions.add({.node = 2, .start = in[8], .precision = 2});
            args.predictions.add({.node = 2, .precision = 0.6, .delta = out[4], .dz = out[5]});
            args.edges.add({.source = -1, .prediction = 3, .z = in[2], .after = f, .leak = 0.1});
            const double small = 1 / std::sqrt(double(n));
            args.edges.add(
                {.source = 0, .prediction = 1, .w = in[3], .z = in[4], .gain = small, .after = f, .leak = 0.1});
            args.edges.add({.source = 1, .prediction = 1});
            args.edges.add({.source = 0, .prediction = 2, .w = in[5], .gain = small, .before = f, .leak = 0.1});
            args.edges.add({.source = 1, .prediction = 0, .w = in[6], .gain = small});
            settle(exec, args);
          });
    }
    if (dtype_ != DType::f32) return;
    for (const DType type : {DType::f16, DType::bf16}) {
      CaseView all = packed(n, n), few = packed(m, n);
      CaseView part = matrix(rows_, n, Content::nan);
      all.dtype = few.dtype = part.dtype = type;
      add("settle", std::string("weights ") + std::string(pc::name_of(type)),
          {matrix(rows_, n), matrix(rows_, n), matrix(rows_, m), all, few},
          {matrix(rows_, n, Content::nan), matrix(rows_, n, Content::nan), scalar(0), matrix(rows_, n, Content::nan),
           part, part, matrix(rows_, n, Content::nan), matrix(rows_, n, Content::nan), part, per_row()},
          [=](const Exec& exec, const Views& in, const Views& out) {
            SettleArgs args{.steps = 3, .rate = 0.05, .momentum = 0.5, .exponent = 6, .overflow = out[2]};
            args.nodes.add({.x = in[0],
                            .dx = out[0],
                            .whole = out[3],
                            .narrow = {out[4], out[2]},
                            .narrow_whole = {out[5], out[2]}});
            args.nodes.add({in[1], out[1]});
            args.nodes.add({in[2]});
            args.predictions.add({.node = 1,
                                  .start = in[0],
                                  .precision = 0.7,
                                  .delta = out[6],
                                  .dz = out[7],
                                  .energy = out[9],
                                  .narrow = {out[8], out[2]}});
            args.predictions.add({.node = 2, .start = in[2]});
            const double small = 1 / std::sqrt(double(n));
            args.edges.add(
                {.source = 0, .prediction = 0, .w = in[3], .z = in[1], .gain = small, .after = Activation::gelu});
            args.edges.add({.source = 1, .prediction = 1, .w = in[4], .gain = small, .before = Activation::tanh});
            settle(exec, args);
          });
      list_.back().rounding = unit(type);
      const Activation f = type == DType::f16 ? Activation::gelu : Activation::silu;
      // With its start: what stays goes to h, h to g and y, g to y twice, and a free node without predictions to g.
      add("settle", std::string("begins, ") + std::string(pc::name_of(type)),
          {matrix(rows_, n), matrix(rows_, n), matrix(rows_, m), all, few, few, all, column(n), column(m)},
          {matrix(rows_, n, Content::nan), matrix(rows_, n, Content::nan), scalar(0), matrix(rows_, n, Content::nan),
           matrix(rows_, n, Content::nan), matrix(rows_, n, Content::nan), per_row(), per_row(),
           matrix(rows_, m, Content::nan)},
          [=](const Exec& exec, const Views& in, const Views& out) {
            SettleArgs args{
                .steps = 4, .rate = 0.05, .momentum = 0.5, .exponent = 6, .overflow = out[2], .warps = true};
            args.nodes.add({.x = out[3], .dx = out[0], .whole = out[3]});
            args.nodes.add({.x = out[4], .dx = out[1]});
            args.nodes.add({.x = in[2]});
            args.nodes.add({.x = in[0], .dx = out[5]});
            args.predictions.add({.node = 0, .stage = 1});
            args.predictions.add({.node = 1, .precision = 0.7, .stage = 2});
            args.predictions.add(
                {.node = 2, .precision = 1.5, .stage = 3, .energy_start = out[6], .delta = out[8], .energy = out[7]});
            const double small = 1 / std::sqrt(double(n));
            args.edges.add({.source = -1, .prediction = 0, .z = in[1], .after = f});
            args.edges.add({.source = 0, .prediction = 1, .w = in[3], .gain = small, .after = f, .bias = in[7]});
            args.edges.add({.source = 3, .prediction = 1, .w = in[6], .gain = small});
            args.edges.add({.source = 1, .prediction = 2, .w = in[4], .gain = small, .before = f, .bias = in[8]});
            args.edges.add({.source = 0, .prediction = 2, .w = in[5], .gain = small});
            settle(exec, args);
          });
      list_.back().rounding = unit(type);
      // Two predictions of a node, one of two edges; a self-loop; an edge that stays; and, at times, an identity.
      for (const bool identity : {false, true}) {
        add("settle", std::string("cycle, ") + std::string(pc::name_of(type)) + (identity ? ", identity" : ""),
            {matrix(rows_, n), matrix(rows_, n), matrix(rows_, m), all, few, all, all, few},
            {matrix(rows_, n, Content::nan), matrix(rows_, n, Content::nan), scalar(0), matrix(rows_, n, Content::nan),
             matrix(rows_, m, Content::nan), per_row(), matrix(rows_, m, Content::nan), matrix(rows_, m, Content::nan),
             part},
            [=](const Exec& exec, const Views& in, const Views& out) {
              SettleArgs args{
                  .steps = 4, .rate = 0.05, .momentum = 0.5, .exponent = 6, .overflow = out[2], .warps = !identity};
              args.nodes.add({in[0], out[0]});
              args.nodes.add({in[1], out[1]});
              args.nodes.add({in[2]});
              args.predictions.add({.node = 1, .precision = 0.7});
              args.predictions.add({.node = 2, .start = in[2], .precision = 1.5, .delta = out[4], .energy = out[5]});
              args.predictions.add(
                  {.node = 1, .start = in[1], .precision = 0.4, .delta = out[3], .narrow = {out[8], out[2]}});
              args.predictions.add({.node = 2, .precision = 0.6, .delta = out[6], .dz = out[7]});
              const double small = 1 / std::sqrt(double(n));
              args.edges.add({.source = 0, .prediction = 0, .w = in[3], .z = in[1], .gain = small, .after = f});
              args.edges.add({.source = 1, .prediction = 1, .w = in[4], .gain = small, .before = f});
              args.edges.add({.source = 0, .prediction = 1, .w = in[7], .z = in[2], .gain = small, .after = f});
              args.edges.add({.source = 1, .prediction = 2, .w = in[5], .gain = small});
              args.edges.add({.source = 0, .prediction = 2, .w = in[6], .z = in[0], .gain = small, .after = f});
              args.edges.add({.source = -1, .prediction = 3, .z = in[2], .after = f});
              if (identity) args.edges.add({.source = 0, .prediction = 2});
              settle(exec, args);
            });
        list_.back().rounding = unit(type);
      }
    }
  }

  /// The same cut into tiles: g -> h and back, g -> k beside an identity from h, h -> y, which is clamped.
  void tiled_settles() {
    if (dtype_ != DType::f32 || rows_ < 5) return;
    const std::int64_t n = (cols_ + 7) / 8 * 8, wide = n + 8, m = 5;
    for (const DType type : {DType::f16, DType::bf16}) {
      const auto weights = [&](std::int64_t rows, std::int64_t cols) {
        CaseView view = packed(rows, cols);
        view.dtype = type;
        return view;
      };
      CaseView part = matrix(rows_, n, Content::nan);
      part.dtype = type;
      const CaseView moved = matrix(rows_, wide, Content::nan);
      add("settle", std::string("tiles of ") + std::string(pc::name_of(type)),
          {matrix(rows_, n), matrix(rows_, wide), matrix(rows_, wide), matrix(rows_, m), weights(wide, n),
           weights(wide, n), weights(n, wide), weights(m, wide), matrix(rows_, wide), matrix(rows_, m)},
          {matrix(rows_, n, Content::nan), moved, moved, scalar(0), matrix(rows_, n, Content::nan), part, part},
          [=](const Exec& exec, const Views& in, const Views& out) {
            if (!is_hopper(exec)) return fail("settle", "needs a GPU of compute capability 9.0");
            SettleArgs args{.steps = 5, .rate = 0.05, .momentum = 0.5, .exponent = 6, .overflow = out[3]};
            args.nodes.add({.x = in[0],
                            .dx = out[0],
                            .whole = out[4],
                            .narrow = {out[5], out[3]},
                            .narrow_whole = {out[6], out[3]}});
            args.nodes.add({in[1], out[1]});
            args.nodes.add({in[2], out[2]});
            args.nodes.add({in[3]});
            args.predictions.add({.node = 0, .precision = 0.7});
            args.predictions.add({.node = 1});
            args.predictions.add({.node = 2, .start = in[8], .precision = 2});
            args.predictions.add({.node = 3, .start = in[9]});
            const double small = 1 / std::sqrt(double(n));
            args.edges.add(
                {.source = 0, .prediction = 1, .w = in[4], .z = in[8], .gain = small, .after = Activation::gelu});
            args.edges.add({.source = 0, .prediction = 2, .w = in[5], .gain = small});
            args.edges.add({.source = 1, .prediction = 2});
            args.edges.add({.source = 1, .prediction = 0, .w = in[6], .gain = small, .before = Activation::tanh});
            args.edges.add({.source = 1, .prediction = 3, .w = in[7], .gain = small, .before = Activation::tanh});
            const std::size_t bytes = settle_scratch(args);
            void* memory = allocate(exec.device, bytes);
            args.scratch = {
                .data = memory, .shape = {static_cast<std::int64_t>(bytes)}, .dtype = DType::u8, .device = exec.device};
            settle(exec, args);
            release(exec.device, memory);  // after the call, or it was only taken down
          });
      list_.back().rounding = unit(type);
    }
  }

  static constexpr std::int64_t kWideCase = 200;

  /// Odd sizes; widths that a GPU reads several at a time, and others; windows that overlap, touch and leave gaps.
  void convolutions() {
    if (cols_ > kWideCase) return;  // its sizes are its own
    const ConvShape shapes[] = {
        {.window = {.height = 5, .width = 7, .channels = 3, .kernel_h = 3, .kernel_w = 3, .padding = 1},
         .out_channels = 2},
        {.window = {.height = 6, .width = 5, .channels = 8, .kernel_h = 3, .kernel_w = 2, .stride = 2, .padding = 2},
         .out_channels = 12,
         .groups = 2},
        {.window = {.height = 7, .width = 4, .channels = 4, .kernel_h = 2, .kernel_w = 2, .dilation = 3},
         .out_channels = 5},
        {.window = {.height = 9, .width = 8, .channels = 6, .kernel_h = 2, .kernel_w = 2, .stride = 3},
         .out_channels = 6,
         .groups = 3},
        {.window = {.height = 3, .width = 5, .channels = 4}, .out_channels = 6, .groups = 2},
        {.window = {.height = 19, .width = 17, .channels = 1, .kernel_h = 5, .kernel_w = 5, .padding = 2},
         .out_channels = 1}};
    const std::int64_t batch = std::min<std::int64_t>(rows_, 11);  // not all in one group of eight
    if (dtype_ == DType::f32) narrow_convolutions(batch);
    for (const ConvShape& shape : shapes) {
      const Window& w = shape.window;
      const std::string size = std::to_string(w.height) + 'x' + std::to_string(w.width) + 'x' +
                               std::to_string(w.channels) + ", groups " + std::to_string(shape.groups) + ", ";
      const CaseView filters = packed(shape.out_channels, shape.depth());
      for (const Write write : kWrites) {
        const auto image = [&](Content content) { return matrix(batch, w.image_count(), content); };
        const auto result = [&](Content content) { return matrix(batch, w.positions() * shape.out_channels, content); };
        CaseView gradient = filters;
        gradient.content = before(write);
        add("conv", size + name_of_write(write), {image(Content::normal), filters}, {result(before(write))},
            [=](const Exec& exec, const Views& in, const Views& out) {
              conv(exec, {.x = in[0], .w = in[1], .y = out[0], .shape = shape, .write = write});
            });
        add("conv_pullback", size + name_of_write(write), {result(Content::normal), filters}, {image(before(write))},
            [=](const Exec& exec, const Views& in, const Views& out) {
              conv_pullback(exec, {.dy = in[0], .w = in[1], .dx = out[0], .shape = shape, .write = write});
            });
        add("conv_weight", size + name_of_write(write), {image(Content::normal), result(Content::normal)}, {gradient},
            [=](const Exec& exec, const Views& in, const Views& out) {
              conv_weight(exec, {.x = in[0], .dy = in[1], .dw = out[0], .shape = shape, .write = write});
            });
      }
    }
  }

  /// Numbers of few bits, which narrower types hold. The first sizes are such as cuDNN takes.
  void narrow_convolutions(std::int64_t batch) {
    const ConvShape shapes[] = {
        {.window = {.height = 6, .width = 5, .channels = 16, .kernel_h = 3, .kernel_w = 3, .padding = 1},
         .out_channels = 24},
        {.window = {.height = 7, .width = 6, .channels = 8, .kernel_h = 3, .kernel_w = 2, .stride = 2},
         .out_channels = 8},
        {.window = {.height = 5, .width = 7, .channels = 3, .kernel_h = 3, .kernel_w = 3, .padding = 1},
         .out_channels = 2},
        {.window = {.height = 3, .width = 5, .channels = 4}, .out_channels = 6, .groups = 2}};
    for (const DType type : {DType::tf32, DType::f16, DType::bf16}) {
      const auto coarse = [&](std::int64_t rows, std::int64_t cols) {
        CaseView view = matrix(rows, cols, Content::coarse);
        view.dtype = type;
        return view;
      };
      for (const ConvShape& shape : shapes) {
        for (const Write write : kWrites) {
          const Window& w = shape.window;
          const std::string variant =
              std::string(pc::name_of(type)) + ", " + std::to_string(w.channels) + " channels, " + name_of_write(write);
          const std::int64_t image = w.image_count(), result = w.positions() * shape.out_channels;
          CaseView filters = coarse(shape.out_channels, shape.depth()), gradient = filters;
          gradient.content = before(write);
          gradient.dtype = DType::f32;
          const auto scaled = [](View v) {
            v.exponent = 1;
            return v;
          };
          if (type == DType::bf16 && write == Write::set) {
            add("conv", variant + " bfloat16", {coarse(batch, image), filters},
                {rounded(matrix(batch, result, Content::nan))},
                [=](const Exec& exec, const Views& in, const Views& out) {
                  conv(exec, {.x = scaled(in[0]), .w = in[1], .y = out[0], .shape = shape});
                });
            add("conv_pullback", variant + " bfloat16", {coarse(batch, result), filters},
                {rounded(matrix(batch, image, Content::nan))},
                [=](const Exec& exec, const Views& in, const Views& out) {
                  conv_pullback(exec, {.dy = scaled(in[0]), .w = in[1], .dx = out[0], .shape = shape});
                });
          }
          add("conv", variant, {coarse(batch, image), filters}, {matrix(batch, result, before(write))},
              [=](const Exec& exec, const Views& in, const Views& out) {
                conv(exec, {.x = scaled(in[0]), .w = in[1], .y = out[0], .shape = shape, .write = write});
              });
          add("conv_pullback", variant, {coarse(batch, result), filters}, {matrix(batch, image, before(write))},
              [=](const Exec& exec, const Views& in, const Views& out) {
                conv_pullback(exec, {.dy = scaled(in[0]), .w = in[1], .dx = out[0], .shape = shape, .write = write});
              });
          add("conv_weight", variant, {coarse(batch, image), coarse(batch, result)}, {gradient},
              [=](const Exec& exec, const Views& in, const Views& out) {
                conv_weight(exec, {.x = in[0], .dy = scaled(in[1]), .dw = out[0], .shape = shape, .write = write});
              });
        }
      }
    }
  }

  void pool_changes() {
    if (cols_ > kWideCase) return;
    const std::int64_t batch = std::min<std::int64_t>(rows_, 11);
    const Window windows[] = {
        {.height = 5, .width = 7, .channels = 3, .kernel_h = 2, .kernel_w = 2, .stride = 2},
        {.height = 4, .width = 6, .channels = 8, .kernel_h = 2, .kernel_w = 2, .stride = 2},
        {.height = 3, .width = 4, .channels = 2},
        {.height = 7, .width = 5, .channels = 2, .kernel_h = 3, .kernel_w = 3, .stride = 2, .padding = 1}};
    for (const Window& w : windows) {
      const std::string size = std::to_string(w.height) + 'x' + std::to_string(w.width) + ", ";
      const CaseView image = matrix(batch, w.image_count()), seen = matrix(batch, w.positions() * w.channels);
      CaseView new_image = image, new_seen = seen;
      new_image.content = new_seen.content = Content::nan;
      CaseView bias = matrix(1, w.channels);
      bias.wide = false;
      for (const Write write : kWrites) {
        CaseView out = seen;
        out.content = before(write);
        add("pool_change", size + name_of_write(write), {image, image}, {out},
            [=](const Exec& exec, const Views& in, const Views& o) {
              pool_change(exec, {.x = in[0], .dx = in[1], .y = o[0], .window = w, .write = write});
            });
      }
      for (const auto& [f, f_name] : kActivations) {
        add("pool_map", size + f_name, {image}, {new_seen},
            [=, kind = f](const Exec& exec, const Views& in, const Views& o) {
              pool_map(exec, {.z = in[0], .y = o[0], .window = w, .f = kind, .leak = 0.1});
            });
        if (f == Activation::gelu) {
          add("pool_map", size + "bias", {image, bias}, {new_seen},
              [=, kind = f](const Exec& exec, const Views& in, const Views& o) {
                pool_map(exec, {.z = in[0], .bias = in[1], .y = o[0], .window = w, .f = kind});
              });
        }
        if (!w.tiles()) continue;
        add("pool_error", size + f_name, {seen, seen, image, image}, {new_seen, new_image},
            [=, kind = f](const Exec& exec, const Views& in, const Views& o) {
              pool_error(exec, {.delta = o[0],
                                .top = in[0],
                                .z = in[2],
                                .dx = in[1],
                                .change = in[3],
                                .dz = o[1],
                                .window = w,
                                .f = kind,
                                .leak = 0.1});
            });
      }
      if (!w.tiles()) continue;
      CaseView energy = per_row();
      energy.shape = Shape{batch};
      CaseView weights = matrix(1, seen.shape[1]);
      weights.wide = false;
      add("pool_error", size + "start, energy, precisions, bias", {seen, seen, image, weights, bias},
          {new_seen, new_image, energy}, [=](const Exec& exec, const Views& in, const Views& o) {
            pool_error(exec, {.delta = o[0],
                              .top = in[0],
                              .z = in[2],
                              .bias = in[4],
                              .start = in[1],
                              .dz = o[1],
                              .energy = o[2],
                              .window = w,
                              .f = Activation::tanh,
                              .precision = 0.75,
                              .precisions = in[3]});
          });
      if (dtype_ != DType::f32) continue;
      CaseView half = new_image;
      half.dtype = DType::f16;
      add("pool_error", size + "rounded change", {seen, seen, image, rounded(image)}, {new_seen, new_image},
          [=](const Exec& exec, const Views& in, const Views& o) {
            pool_error(exec, {.delta = o[0],
                              .top = in[0],
                              .z = in[2],
                              .dx = in[1],
                              .change = in[3],
                              .dz = o[1],
                              .window = w,
                              .f = Activation::gelu});
          });
      add("pool_error", size + "narrow", {seen, seen, image, image}, {new_seen, half, scalar(0)},
          [=](const Exec& exec, const Views& in, const Views& o) {
            View operand = o[1];
            operand.exponent = 3;
            pool_error(exec, {.delta = o[0],
                              .top = in[0],
                              .z = in[2],
                              .dx = in[1],
                              .change = in[3],
                              .window = w,
                              .f = Activation::relu,
                              .narrow = {operand, o[2]}});
          });
    }
  }

  void pools() {
    if (cols_ > kWideCase) return;
    const std::int64_t batch = std::min<std::int64_t>(rows_, 11);
    const Window windows[] = {
        {.height = 4, .width = 7, .channels = 3, .kernel_h = 2, .kernel_w = 2, .stride = 2},
        {.height = 7, .width = 5, .channels = 2, .kernel_h = 3, .kernel_w = 3, .stride = 2, .padding = 1},
        {.height = 6, .width = 7, .channels = 4, .kernel_h = 2, .kernel_w = 3, .stride = 1, .dilation = 2},
        {.height = 5, .width = 3, .channels = 37, .kernel_h = 5, .kernel_w = 3},
        {.height = 5, .width = 7, .channels = 8, .kernel_h = 2, .kernel_w = 2, .stride = 2},
        {.height = 8, .width = 7, .channels = 4, .kernel_h = 3, .kernel_w = 3, .stride = 3}};
    for (const Window& w : windows) {
      for (const Pooling pooling : {Pooling::sum, Pooling::max}) {
        for (const Content content : {Content::normal, Content::coarse}) {
          for (const Write write : kWrites) {
            const std::string variant = std::string(pooling == Pooling::max ? "max " : "sum ") +
                                        std::to_string(w.height) + 'x' + std::to_string(w.width) +
                                        (content == Content::coarse ? ", equals, " : ", ") + name_of_write(write);
            const CaseView image = matrix(batch, w.image_count(), content);
            const CaseView seen = matrix(batch, w.positions() * w.channels);
            CaseView out = seen, back = image;
            out.content = back.content = before(write);
            add("pool", variant, {image}, {out}, [=](const Exec& exec, const Views& in, const Views& o) {
              pool(exec, {.x = in[0], .y = o[0], .window = w, .pooling = pooling, .by = 0.3, .write = write});
            });
            add("pool_pullback", variant, {image, seen}, {back},
                [=](const Exec& exec, const Views& in, const Views& o) {
                  pool_pullback(exec, {.x = in[0],
                                       .dy = in[1],
                                       .dx = o[0],
                                       .window = w,
                                       .pooling = pooling,
                                       .by = 0.3,
                                       .write = write});
                });
          }
        }
      }
    }
  }

  /// Rows of three runs.
  void norms() {
    const CaseView runs = matrix(rows_, 3 * cols_), row = column_row();
    for (const bool affine : {false, true}) {
      for (const bool centred : {false, true}) {
        for (const Write write : kWrites) {
          const NormShape shape{.width = cols_, .centred = centred, .epsilon = 0.01};
          const std::string variant =
              std::string(centred ? "layer, " : "rms, ") + (affine ? "affine, " : "") + name_of_write(write);
          CaseView out = runs, gain = row;
          out.content = gain.content = before(write);
          add("norm", variant, {runs, row, row}, {out}, [=](const Exec& exec, const Views& in, const Views& o) {
            norm(exec, {.x = in[0],
                        .gain = affine ? in[1] : View{},
                        .bias = affine ? in[2] : View{},
                        .y = o[0],
                        .shape = shape,
                        .write = write});
          });
          add("norm_pullback", variant, {runs, row, runs}, {out},
              [=](const Exec& exec, const Views& in, const Views& o) {
                norm_pullback(exec, {.x = in[0],
                                     .gain = affine ? in[1] : View{},
                                     .dy = in[2],
                                     .dx = o[0],
                                     .shape = shape,
                                     .write = write});
              });
          if (!affine) continue;
          add("norm_gain", variant, {runs, runs}, {gain}, [=](const Exec& exec, const Views& in, const Views& o) {
            norm_gain(exec, {.x = in[0], .dy = in[1], .dgain = o[0], .shape = shape, .write = write});
          });
        }
      }
    }
  }

  /// Rows of three places.
  void batch_norms() {
    const CaseView places = matrix(rows_, 3 * cols_), row = column_row(), variance = column_row(Content::positive);
    const auto shape = [](const Views& in, bool given) {
      BatchNormShape s{.channels = in[1].count(), .epsilon = 0.01};
      if (given) s.mean = in[2], s.variance = in[3];
      return s;
    };
    for (const bool given : {false, true}) {
      for (const Write write : kWrites) {
        for (const bool affine : {false, true}) {
          const std::string variant =
              std::string(given ? "given, " : "own, ") + (affine ? "affine, " : "") + name_of_write(write);
          CaseView out = places;
          out.content = before(write);
          add("batch_norm", variant, {places, row, row, variance, row}, {out},
              [=](const Exec& exec, const Views& in, const Views& o) {
                batch_norm(exec, {.x = in[0],
                                  .gain = affine ? in[1] : View{},
                                  .bias = affine ? in[4] : View{},
                                  .y = o[0],
                                  .shape = shape(in, given),
                                  .write = write});
              });
          add("batch_norm_pullback", variant, {places, row, row, variance, places}, {out},
              [=](const Exec& exec, const Views& in, const Views& o) {
                batch_norm_pullback(exec, {.x = in[0],
                                           .gain = affine ? in[1] : View{},
                                           .dy = in[4],
                                           .dx = o[0],
                                           .shape = shape(in, given),
                                           .write = write});
              });
        }
        CaseView gain = row;
        gain.content = before(write);
        add("batch_norm_gain", std::string(given ? "given, " : "own, ") + name_of_write(write),
            {places, row, row, variance, places}, {gain}, [=](const Exec& exec, const Views& in, const Views& o) {
              batch_norm_gain(exec,
                              {.x = in[0], .dy = in[4], .dgain = o[0], .shape = shape(in, given), .write = write});
            });
      }
    }
    add("batch_moments", "", {places}, {row, variance}, [](const Exec& exec, const Views& in, const Views& o) {
      batch_moments(exec, {.x = in[0], .mean = o[0], .variance = o[1], .channels = o[0].count(), .part = 0.25});
    });
  }

  void transposes() {
    for (const Write write : kWrites) {
      add("transpose_each", name_of_write(write), {matrix(rows_, 3 * cols_)}, {matrix(rows_, 3 * cols_, before(write))},
          [=, n = cols_](const Exec& exec, const Views& in, const Views& out) {
            transpose_each(exec, {.x = in[0], .y = out[0], .m = 3, .n = n, .write = write});
          });
    }
  }

  [[nodiscard]] CaseView packed(std::int64_t rows, std::int64_t cols) const {
    return {.shape = {rows, cols}, .dtype = dtype_};
  }

  void arrivals() {
    CaseView nothing = matrix(Content::constant);
    nothing.value = 0;
    for (const CaseView& delta : {matrix(), matrix(Content::coarse), nothing}) {
      add("first_arrival", "delta of kind " + std::to_string(static_cast<int>(delta.content)), {delta},
          {per_row(Content::mask), matrix(Content::nan)}, [](const Exec& exec, const Views& in, const Views& out) {
            first_arrival(exec, {.delta = in[0], .fired = out[0], .gated = out[1]});
          });
    }
  }

  /// The views of a stage: from, h, x or the slopes' mask, and the slopes come last.
  struct Stage {
    const char* name;
    int count, free;  // free as in Pull
    bool h;
  };
  static constexpr Stage kStages[] = {{"one slope", 1, 0, false},
                                      {"two, h", 2, 0, true},
                                      {"three, h, row mask", 3, 1, true},
                                      {"four, mask", 4, 2, false}};

  void runge_kuttas() {
    constexpr std::array<double, kMaxSlopes> kFactors = {0.5, -0.25, 1.5, 0.125};
    for (const Stage& stage : kStages) {
      const auto count = static_cast<std::size_t>(stage.count);
      // in: from, [h], [free], slopes
      std::vector<CaseView> in = {matrix()};
      if (stage.h) in.push_back(scalar(0.3));
      if (stage.free == 1) in.push_back({.shape = {1, cols_}, .dtype = dtype_, .content = Content::mask});
      if (stage.free == 2) in.push_back(matrix(Content::mask));
      in.insert(in.end(), count, matrix());
      const auto slopes = [=](const Views& i, const View& x) {
        std::size_t next = 1;
        Slopes s{.x = x, .from = i[0], .k = {}, .count = stage.count};
        if (stage.h) s.h = i[next++];
        if (stage.free != 0) s.free = i[next++];
        for (std::size_t j = 0; j < count; ++j) s.k[j] = i[next++];
        return s;
      };
      add("rk_stage", stage.name, in, {matrix(stage.free == 0 ? Content::nan : Content::normal)},
          [=](const Exec& exec, const Views& i, const Views& o) {
            const Slopes s = slopes(i, o[0]);
            rk_stage(exec, {.x = s.x,
                            .from = s.from,
                            .k = s.k,
                            .a = kFactors,
                            .count = s.count,
                            .h = s.h,
                            .step = 0.7,
                            .free = s.free});
          });
      in.push_back(matrix());
      add("rk_error", stage.name, in, {per_row()}, [=](const Exec& exec, const Views& i, const Views& o) {
        const Slopes s = slopes(i, i.back());
        rk_error(exec, {.x = s.x,
                        .from = s.from,
                        .k = s.k,
                        .e = kFactors,
                        .count = s.count,
                        .h = s.h,
                        .step = 0.7,
                        .absolute = 0.5,
                        .relative = 0.25,
                        .worst = o[0],
                        .free = s.free});
      });
    }
    for (const double flag : {0.0, 1.0}) {
      add("choose", flag != 0 ? "yes" : "no", {matrix(), matrix(), scalar(flag)}, {matrix(Content::nan)},
          [](const Exec& exec, const Views& in, const Views& out) {
            choose(exec, {.yes = in[0], .no = in[1], .y = out[0], .flag = in[2]});
          });
    }
  }

  /// Layers of all kinds that follow each other.
  void feedforward_layers() {
    if (dtype_ != DType::f32 || !FeedforwardArgs::takes(cols_)) return;
    constexpr std::int64_t kLayers = 5;
    for (const DType type : {DType::f16, DType::bf16}) {
      std::vector<CaseView> in = {matrix()};
      for (std::int64_t i = 0; i < kLayers; ++i) {
        in.push_back({.shape = {cols_, cols_}, .dtype = type});
        in.push_back(column_row());
      }
      const std::vector<CaseView> out(2 * kLayers, matrix(Content::nan));
      std::vector<CaseView> all = out;
      all.push_back(scalar(0));
      add("feedforward", std::string(pc::name_of(type)), in, all,
          [=](const Exec& exec, const Views& from, const Views& to) {
            if (!is_hopper(exec)) return fail("feedforward", "needs a GPU of compute capability 9.0");
            constexpr std::array kinds = {Activation::relu, Activation::identity, Activation::gelu, Activation::tanh,
                                          Activation::leaky_relu};
            FeedforwardArgs args{.x = from[0], .layers = {}, .overflow = to[2 * kLayers]};
            for (std::size_t i = 0; i < kLayers; ++i) {
              args.layers.push_back({.w = from[1 + 2 * i],
                                     .bias = i % 2 == 0 ? from[2 + 2 * i] : View{},
                                     .gain = 1 / std::sqrt(double(from[0].cols())),
                                     .f = kinds[i],
                                     .residual = i % 3 != 1,
                                     .z = to[2 * i],
                                     .y = to[2 * i + 1]});
            }
            feedforward(exec, args);
          });
      list_.back().rounding = unit(type);
    }
  }

  /// A of cols_ rows and `sources` columns meets a batch of rows_.
  void sparse() {
    constexpr double kEach = 5;
    const std::int64_t sources = std::min<std::int64_t>((rows_ + cols_) / 2, 65);
    const auto entries = static_cast<std::int64_t>(first_place(kEach, cols_));
    const CaseView offsets{.shape = {cols_ + 1}, .dtype = DType::i32, .content = Content::offsets, .value = kEach};
    const CaseView columns{
        .shape = {entries}, .dtype = DType::i32, .content = Content::index, .value = static_cast<double>(sources)};
    const CaseView values{.shape = {entries}, .dtype = dtype_};
    // The same in patches, each of which has all columns; the last one may end behind the rows.
    const std::int64_t in_patch = (cols_ + 2) / 3, patches = (cols_ + in_patch - 1) / in_patch;
    const auto list = [](std::int64_t count, Content content, double value) {
      return CaseView{.shape = {count}, .dtype = DType::i32, .content = content, .value = value};
    };
    const auto each = static_cast<double>(sources);
    const std::vector<CaseView> in_patches = {
        offsets,
        list(entries, Content::spread, each),
        list(patches + 1, Content::steps, static_cast<double>(in_patch)),
        list(patches + 1, Content::steps, each),
        list(patches * sources, Content::turns, each),
        {.shape = {(entries + 3) / 4 * 4, 2}, .dtype = DType::u8, .content = Content::bytes, .value = each}};
    // Rows of 16 bytes, as the networks have them, and others.
    const std::int64_t whole = (rows_ + 7) / 8 * 8;
    for (const bool patched : {false, true}) {
      const std::vector<CaseView> index = patched ? in_patches : std::vector{offsets, columns};
      const auto index_of = [](const Views& in, bool has_patches) {
        SparseIndex at{in[0], in[1]};
        if (has_patches) at.patches = {.first = in[2], .source_offsets = in[3], .sources = in[4], .local = in[5]};
        return at;
      };
      const auto views = [&](std::initializer_list<CaseView> others) {
        std::vector<CaseView> all = index;
        all.insert(all.end(), others);
        return all;
      };
      const std::size_t next = index.size();
      for (const std::int64_t room : {rows_, whole}) {
        const auto batch = [n = rows_](const View& v) { return v.columns(0, n); };
        const std::string variant = std::string(patched ? "patches, " : "") + "room for " + std::to_string(room) + ", ";
        for (const Write write : kWrites) {
          add("sparse_product", variant + name_of_write(write), views({values, matrix(sources, room)}),
              {matrix(before(write))}, [=](const Exec& exec, const Views& in, const Views& out) {
                sparse_product(exec, {.index = index_of(in, patched),
                                      .values = in[next],
                                      .x_t = batch(in[next + 1]),
                                      .y = out[0],
                                      .alpha = -0.7,
                                      .write = write});
              });
          if (write == Write::set) {
            add("sparse_product", variant + "base", views({values, matrix(sources, room), matrix()}),
                {matrix(Content::nan)}, [=](const Exec& exec, const Views& in, const Views& out) {
                  sparse_product(exec, {.index = index_of(in, patched),
                                        .values = in[next],
                                        .x_t = batch(in[next + 1]),
                                        .y = out[0],
                                        .base = in[next + 2]});
                });
          }
          CaseView dw = values;
          dw.content = before(write);
          add("sparse_gradient", variant + name_of_write(write), views({matrix(cols_, room), matrix(sources, room)}),
              {dw}, [=](const Exec& exec, const Views& in, const Views& out) {
                sparse_gradient(exec, {.index = index_of(in, patched),
                                       .d_t = batch(in[next]),
                                       .x_t = batch(in[next + 1]),
                                       .dw = out[0],
                                       .alpha = -0.7,
                                       .write = write});
              });
        }
      }
    }
    if (dtype_ == DType::f32 && in_patch <= kPatchRows) {
      // Patches of as many rows, the second without sources; groups with so many blocks, none, and twice as many.
      constexpr double kBlocks = 10;
      constexpr std::int64_t kCols = SparseBlocks::kCols;
      const std::int64_t most = std::min<std::int64_t>(rows_ + cols_, 256);  // sources of the first patch
      const std::int64_t groups = (in_patch + SparseBlocks::kRows - 1) / SparseBlocks::kRows * patches;
      const auto count = static_cast<std::int64_t>(first_place(kBlocks, groups));
      const auto most_each = static_cast<double>(most);
      const std::vector<CaseView> index = {
          offsets,
          columns,
          in_patches[2],
          list(patches + 1, Content::offsets, most_each),
          list(static_cast<std::int64_t>(first_place(most_each, patches)), Content::turns, most_each),
          in_patches[5],
          list(patches + 1, Content::steps, static_cast<double>(groups / patches)),
          list(groups + 1, Content::offsets, kBlocks),
          {.shape = {count, kCols, 2}, .dtype = DType::u8, .content = Content::bytes, .value = most_each},
          {.shape = {count, SparseBlocks::kRows, kCols}, .dtype = DType::bf16}};
      CaseView samples = matrix(most, whole);
      samples.wide = false;
      samples.dtype = DType::bf16;
      const auto product = [n = rows_](const Views& in, View y, Write write, View base) {
        const SparsePatches patches_at{.first = in[2], .source_offsets = in[3], .sources = in[4], .local = in[5]};
        const SparseBlocks blocks{.groups = in[6], .first = in[7], .sources = in[8]};
        return SparseProductArgs{.index = {in[0], in[1], patches_at, blocks},
                                 .values = in[9],
                                 .x_t = in[10].columns(0, n),
                                 .y = y,
                                 .alpha = -0.7,
                                 .write = write,
                                 .base = base};
      };
      const auto views = [&](std::initializer_list<CaseView> others) {
        std::vector<CaseView> all = index;
        all.push_back(samples);
        all.insert(all.end(), others);
        return all;
      };
      for (const Write write : kWrites) {
        add("sparse_product", "blocks, " + name_of_write(write), views({}), {matrix(before(write))},
            [=](const Exec& exec, const Views& in, const Views& out) {
              sparse_product(exec, product(in, out[0], write, {}));
            });
      }
      add("sparse_product", "blocks, base", views({matrix()}), {matrix(Content::nan)},
          [=](const Exec& exec, const Views& in, const Views& out) {
            sparse_product(exec, product(in, out[0], Write::set, in[11]));
          });
      CaseView turned = matrix(cols_, rows_, Content::nan), spread{.shape = {256}, .content = Content::nan};
      turned.dtype = spread.dtype = DType::bf16;
      CaseView in_runs = matrix(cols_, whole);  // what is behind the batch stays
      in_runs.wide = false;
      in_runs.dtype = DType::bf16;
      const CaseView precisions{.shape = {cols_}, .content = Content::positive};
      for (const bool all : {false, true}) {
        add("sparse_error", all ? "base, precisions" : "plain", views({matrix(), matrix(), precisions}),
            {matrix(Content::nan), in_runs}, [=, n = rows_](const Exec& exec, const Views& in, const Views& out) {
              sparse_error(exec, {.product = product(in, out[0], Write::set, all ? in[12] : View{}),
                                  .value = in[11],
                                  .y_t = out[1].columns(0, n),
                                  .precision = 1.3,
                                  .precisions = all ? in[13] : View{}});
            });
      }
      for (const Activation f : {Activation::tanh, Activation::relu}) {
        const bool all = f == Activation::tanh;
        const CaseView bound{.shape = {}, .dtype = DType::f64, .content = Content::constant, .value = 0.5};
        add("sparse_move", all ? "tanh, base, own, velocity, bound" : "relu", views({matrix(), matrix(), bound}),
            {matrix(Content::normal), matrix(Content::normal), in_runs},
            [=, n = rows_](const Exec& exec, const Views& in, const Views& out) {
              sparse_move(exec, {.product = product(in, out[0], Write::set, all ? in[12] : View{}),
                                 .y_t = out[2].columns(0, n),
                                 .own = all ? in[11] : View{},
                                 .velocity = all ? out[1] : View{},
                                 .f = f,
                                 .rate = 0.1,
                                 .momentum = all ? 0.6 : 0,
                                 .bound = all ? in[13] : View{}});
            });
      }
      add("transpose", "bfloat16", {matrix()}, {turned},
          [](const Exec& exec, const Views& in, const Views& out) { transpose(exec, {.x = in[0], .y = out[0]}); });
      add("permute", "bfloat16",
          {CaseView{.shape = {40}, .dtype = dtype_},
           CaseView{.shape = {256}, .dtype = DType::i32, .content = Content::lacking, .value = 40}},
          {spread}, [](const Exec& exec, const Views& in, const Views& out) {
            permute(exec, {.x = in[0], .from = in[1], .y = out[0]});
          });
    }
    add("transpose", "all", {matrix()}, {matrix(cols_, rows_, Content::nan)},
        [](const Exec& exec, const Views& in, const Views& out) { transpose(exec, {.x = in[0], .y = out[0]}); });
    const std::int64_t all = rows_ * cols_;
    add("permute", "all",
        {CaseView{.shape = {all}, .dtype = dtype_},
         CaseView{
             .shape = {2 * all}, .dtype = DType::i32, .content = Content::lacking, .value = static_cast<double>(all)}},
        {CaseView{.shape = {2 * all}, .dtype = dtype_, .content = Content::nan}},
        [](const Exec& exec, const Views& in, const Views& out) {
          permute(exec, {.x = in[0], .from = in[1], .y = out[0]});
        });
  }

  void scalars() {
    const CaseView unread = scalar(std::numeric_limits<double>::quiet_NaN());
    for (const double square_norm : {0.0, 0.5, 9.0}) {
      add("clip", "square norm " + std::to_string(square_norm), {scalar(square_norm)}, {unread},
          [](const Exec& exec, const Views& in, const Views& out) {
            clip(exec, {.square_norm = in[0], .clip = out[0], .limit = 1.5});
          });
    }
    add("tick", "by 2", {}, {scalar(40)},
        [](const Exec& exec, const Views&, const Views& out) { tick(exec, {.counter = out[0], .by = 2}); });
    for (const RateKind kind : {RateKind::constant, RateKind::cosine, RateKind::warmup_cosine}) {
      for (const double step : {1.0, 4.0, 60.0, 101.0, 300.0}) {
        add("rate", "kind " + std::to_string(static_cast<int>(kind)) + ", step " + std::to_string(step), {scalar(step)},
            {unread}, [kind](const Exec& exec, const Views& in, const Views& out) {
              rate(exec, {.step = in[0],
                          .rate = out[0],
                          .kind = kind,
                          .base = 0.1,
                          .floor = 0.01,
                          .warmup = 10,
                          .total = 100});
            });
      }
    }
    for (const bool alternate : {false, true}) {
      for (const double counter : {1.0, 2.0, 10.0, 101.0}) {
        add("nudge_strength", "batch " + std::to_string(counter) + (alternate ? ", alternating" : ""),
            {scalar(counter)}, {unread, unread}, [alternate](const Exec& exec, const Views& in, const Views& out) {
              nudge_strength(exec, {.counter = in[0],
                                    .beta = out[0],
                                    .inverse = out[1],
                                    .base = -0.1,
                                    .growth = 0.07,
                                    .limit = 0.9,
                                    .per_epoch = 3,
                                    .alternate = alternate});
            });
      }
    }
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    for (const double error : {0.0, 1e-300, 0.5, 1.0, 7.0, kInfinity, std::numeric_limits<double>::quiet_NaN()}) {
      add("step_control", "error " + std::to_string(error), {scalar(error)}, {scalar(0.1), unread, scalar(2)},
          [](const Exec& exec, const Views& in, const Views& out) {
            step_control(exec,
                         {.error = in[0], .h = out[0], .accepted = out[1], .time = out[2], .order = 3, .most = 0.4});
          });
    }
  }

  DType dtype_;
  std::int64_t rows_, cols_;
  bool wide_ = false;
  std::vector<KernelCase> list_;
};

std::vector<KernelCase> make_all(DType dtype) {
  std::vector<KernelCase> list;
  const auto add = [&](std::int64_t rows, std::int64_t cols, std::string_view only) {
    for (KernelCase& k : cases_of_size(dtype, rows, cols)) {
      if (only.empty() || k.kernel == only) list.push_back(std::move(k));
    }
  };
  add(1, 1, {});
  add(5, 7, {});
  add(33, 129, {});
  add(3, 2003, {});
  add(150, 200, "settle");  // several tiles each way
  add(345, 90, "settle");   // on a GPU in teams of two blocks; of more there are not as many at once
  add(615, 60, "settle");   // and by blocks alone
  add(67, 401, "sum");      // more than one block's part on a GPU
  for (const std::string_view product : {"sparse_product", "sparse_error", "sparse_move"}) {
    add(36, 129, product);  // in patches on a GPU
    add(36, 288, product);  // as large as they may be
  }
  add(36, 129, "sparse_gradient");
  for (const std::int64_t width : {128, 256, 384, 512}) add(11, width, "feedforward");
  add(1, 128, "feedforward");
  add(260, 128, "feedforward");     // more than there are at once on a GPU
  add(2, 40001, "gaussian_error");  // rows of which several blocks add up parts
  for (const std::string_view entries :
       {"fill", "copy", "axpby", "add_row", "narrow", "map", "map_pullback", "map_sgd", "map_change", "change_error",
        "gaussian_error", "value_sgd", "weight_sgd", "weight_adam", "gemm_adam", "batch_norm", "batch_norm_pullback"}) {
    add(6, 36, entries);  // several entries at a time on a GPU
    add(6, 34, entries);
  }
  add(5, 16900, "gemm_adam");  // larger squares on a GPU, as there are many
  add(6, 16902, "gemm_adam");
  add(2500, 33, "sum_rows");
  add(2500, 7, "norm_gain");
  for (const std::string_view many : {"norm", "norm_pullback"}) {
    add(401, 24, many);  // so many short rows that on a GPU a block does several
    add(401, 200, many);
  }
  add(2500, 7, "batch_norm_pullback");
  add(1100, 1001, "fill");  // more entries than a GPU's threads
  return list;
}

}  // namespace

double case_entry(const CaseView& view, std::uint32_t stream, std::int64_t index) {
  constexpr std::uint64_t kSeed = 1;
  if (view.content == Content::constant) return view.value;
  if (view.content == Content::nan) return std::numeric_limits<double>::quiet_NaN();
  const double u = philox::uniform(philox::bits(kSeed, Purpose::test, stream, 0, static_cast<std::uint64_t>(index)));
  switch (view.content) {
    case Content::normal:
      return philox::normal(u);
    case Content::positive:
      return 0.1 + u;
    case Content::coarse:
      return std::floor(5 * u) - 2;
    case Content::mask:
      return u < 0.5 ? 0 : 1;
    case Content::lacking:
      if (index % 8 == 5) return -1;
      [[fallthrough]];
    case Content::index:
      return std::floor(view.value * u);
    case Content::offsets:
      return first_place(view.value, index);
    case Content::spread:
      return static_cast<double>((7 * index + 3) % static_cast<std::int64_t>(view.value));
    case Content::bytes:
      return index % 2 == 0 ? static_cast<double>((7 * (index / 2) + 3) % static_cast<std::int64_t>(view.value)) : 0.0;
    case Content::turns:
      return static_cast<double>(index % static_cast<std::int64_t>(view.value));
    case Content::steps:
      return static_cast<double>(index) * view.value;
    case Content::holes:
      return index % 8 == 3 ? std::numeric_limits<double>::quiet_NaN() : philox::normal(u);
    case Content::constant:
    case Content::nan:
      break;
  }
  return 0;
}

std::vector<KernelCase> cases_of_size(DType dtype, std::int64_t rows, std::int64_t cols) {
  return Maker(dtype, rows, cols).all();
}

std::span<const KernelCase> all_cases(DType dtype) {
  static const std::vector<KernelCase> f32 = make_all(DType::f32), f64 = make_all(DType::f64);
  return dtype == DType::f64 ? f64 : f32;
}

std::span<const std::string_view> all_kernel_names() {
  // clang-format off
  static constexpr std::string_view kNames[] = {
      fill.name, copy.name, axpby.name, multiply.name, add_row.name, sum_rows.name, gemm.name, gemm_adam.name, narrow.name, split.name, map_change.name, change_error.name, add_change.name, map.name, map_sgd.name,
      map_pullback.name, gaussian_error.name, softmax_error.name, bernoulli_error.name, map_error.name, softmax.name,
      settle.name, softmax_pullback.name, value_sgd.name, value_adam.name, weight_sgd.name, weight_adam.name, gather.name,
      one_hot.name, right.name, random.name, sum.name, largest.name, clip.name, tick.name, rate.name,
      nudge_strength.name, lerp.name, scale_by.name, first_arrival.name, rk_stage.name, rk_error.name,
      step_control.name, choose.name, batched_gemm.name, transpose.name, permute.name, sparse_product.name,
      sparse_error.name, sparse_move.name, feedforward.name, sparse_gradient.name, conv.name, conv_pullback.name, conv_weight.name, pool.name, pool_pullback.name, pool_map.name, pool_change.name, pool_error.name, norm.name,
      norm_pullback.name, norm_gain.name, batch_norm.name, batch_norm_pullback.name, batch_norm_gain.name, batch_moments.name, transpose_each.name,
      laplace_error.name, categorical_error.name, embed.name, embed_grad.name, pick.name, pick_back.name, attention.name, attention_pullback.name,
      rearrange.name, rotate.name, learn_precision.name};
  // clang-format on
  return kNames;
}

}  // namespace pc::kernels

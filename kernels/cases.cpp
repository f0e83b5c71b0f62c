#include "kernels/cases.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels/arithmetic.h"
#include "kernels/arrival.h"
#include "kernels/batched_gemm.h"
#include "kernels/energy.h"
#include "kernels/gather.h"
#include "kernels/gemm.h"
#include "kernels/map.h"
#include "kernels/philox.h"
#include "kernels/random.h"
#include "kernels/reduce.h"
#include "kernels/runge_kutta.h"
#include "kernels/settle.h"
#include "kernels/softmax.h"
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
      batched_gemms();
      maps();
      energies();
      softmaxes();
      value_updates();
      weight_updates();
      gathers();
      randoms();
      sums();
      arrivals();
      runge_kuttas();
      settles();
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
    }
  }

  void energies() {
    for (const Kernel<ErrorArgs>* kernel : {&gaussian_error, &softmax_error, &bernoulli_error}) {
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
    add("gaussian_error", "precisions", {matrix(), matrix(), column_row(Content::positive)},
        {matrix(Content::nan), per_row()}, [](const Exec& exec, const Views& in, const Views& out) {
          gaussian_error(
              exec,
              {.x = in[0], .mu = in[1], .delta = out[0], .energy = out[1], .precision = 0.75, .precisions = in[2]});
        });
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
    for (const Distribution distribution : {Distribution::uniform, Distribution::normal}) {
      for (const Write write : kWrites) {
        const std::string variant =
            std::string(distribution == Distribution::normal ? "normal, " : "uniform, ") + name_of_write(write);
        RandomArgs args{.out = {},
                        .distribution = distribution,
                        .a = -0.3,
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

  /// h -> g and back (a cycle), g -> g by an identity, h -> y; a constant part on h.
  void settles() {
    const std::int64_t n = std::min<std::int64_t>(cols_, 96), m = 5;
    for (const Activation f : {Activation::tanh, Activation::gelu, Activation::leaky_relu}) {
      add("settle", std::string("f ") + std::to_string(static_cast<int>(f)),
          {matrix(rows_, n), matrix(rows_, m), packed(n, n), packed(1, n), packed(m, n), packed(n, n)},
          {matrix(rows_, n), matrix(rows_, n)}, [=](const Exec& exec, const Views& in, const Views& out) {
            SettleArgs args{.steps = 3, .rate = 0.05, .momentum = 0.5};
            args.nodes.add({out[0], true});
            args.nodes.add({out[1], true});
            args.nodes.add({in[1], false});
            args.predictions.add({.node = 0, .base = in[0], .base_map = f, .base_leak = 0.1, .precision = 0.7});
            args.predictions.add({.node = 1});
            args.predictions.add({.node = 2, .precision = 2});
            const double small = 1 / std::sqrt(double(n));
            args.edges.add(
                {.source = 0, .prediction = 1, .w = in[2], .b = in[3], .gain = small, .after = f, .leak = 0.1});
            args.edges.add({.source = 1, .prediction = 1});
            args.edges.add({.source = 0, .prediction = 2, .w = in[4], .gain = small, .before = f, .leak = 0.1});
            args.edges.add({.source = 1, .prediction = 0, .w = in[5], .gain = small});
            settle(exec, args);
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
  add(67, 401, "sum");      // more than one block's part on a GPU
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
    case Content::index:
      return std::floor(view.value * u);
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
      fill.name, copy.name, axpby.name, multiply.name, add_row.name, sum_rows.name, gemm.name, map.name,
      map_pullback.name, gaussian_error.name, softmax_error.name, bernoulli_error.name, map_error.name, softmax.name,
      settle.name, softmax_pullback.name, value_sgd.name, value_adam.name, weight_sgd.name, weight_adam.name, gather.name,
      one_hot.name, right.name, random.name, sum.name, largest.name, clip.name, tick.name, rate.name,
      nudge_strength.name, lerp.name, scale_by.name, first_arrival.name, rk_stage.name, rk_error.name,
      step_control.name, choose.name, batched_gemm.name};
  // clang-format on
  return kNames;
}

}  // namespace pc::kernels

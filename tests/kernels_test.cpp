// Every CPU kernel against its formula, written once more with plain loops.
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "kernels/arithmetic.h"
#include "kernels/arrival.h"
#include "kernels/batched_gemm.h"
#include "kernels/energy.h"
#include "kernels/gather.h"
#include "kernels/gemm.h"
#include "kernels/map.h"
#include "kernels/reduce.h"
#include "kernels/runge_kutta.h"
#include "kernels/softmax.h"
#include "kernels/value_update.h"
#include "kernels/weight_update.h"
#include "tests/support.h"

namespace {

using namespace pc;
using namespace pc::test;
using namespace pc::kernels;
namespace scalar = pc::scalar;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr Activation kActivations[] = {
    Activation::identity, Activation::relu, Activation::leaky_relu, Activation::gelu,    Activation::gelu_tanh,
    Activation::silu,     Activation::tanh, Activation::hard_tanh,  Activation::sigmoid, Activation::softplus};

double norm_max(const std::vector<double>& list) {
  double top = 0;
  for (const double x : list) top = std::max(top, std::abs(x));
  return top;
}

// --- the list of cases ---

TEST_CASE("cases: every kernel declared in kernels/*.h is named, and has cases") {
  std::set<std::string> declared;
  const std::regex pattern(R"re(inline constexpr Kernel<\w+>\s+\w+\{\s*(?:\.name = )?"(\w+)")re");
  for (const auto& file : std::filesystem::directory_iterator(std::filesystem::path(PC_SOURCE_DIR) / "kernels")) {
    if (file.path().extension() != ".h") continue;
    std::stringstream text;
    text << std::ifstream(file.path()).rdbuf();
    const std::string source = text.str();
    for (std::sregex_iterator it(source.begin(), source.end(), pattern), end; it != end; ++it) {
      declared.insert((*it)[1]);
    }
  }
  const auto names = all_kernel_names();
  CHECK(declared == std::set<std::string>(names.begin(), names.end()));
  std::set<std::string> with_case;
  for (const KernelCase& k : all_cases(DType::f32)) with_case.emplace(k.kernel);
  CHECK(declared == with_case);
}

TEST_CASE("every kernel: results do not depend on the number of threads, and stay inside their views") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const KernelCase& k : all_cases(dtype)) {
      CAPTURE(k.name);
      const auto alone = run_case({}, k);
      for (const int count : {2, 3, 5}) {
        CAPTURE(count);
        const CaseOnDevice placed({}, k);
        KeepCall call;
        placed.run({.recorder = &call});
        for (int index = 0; index < count; ++index) call.kept.cpu(Share{index, count});
        const auto shared = placed.outputs();
        for (std::size_t i = 0; i < alone.size(); ++i) CHECK(same_bits(shared[i], alone[i]));
      }
    }
  }
}

TEST_CASE("every kernel: float32 agrees with float64") {
  std::map<std::string, const KernelCase*> f32;  // some are of float32 alone
  for (const KernelCase& k : all_cases(DType::f32)) f32[k.name] = &k;
  for (const KernelCase& k : all_cases(DType::f64)) {
    CAPTURE(k.name);
    const auto single = f32.find(std::regex_replace(k.name, std::regex("float64"), "float32"));
    REQUIRE(single != f32.end());
    const auto rough = run_case({}, *single->second), fine = run_case({}, k);
    // Inputs are rounded too, so that this is a test of meaning, not of the last digits.
    for (std::size_t j = 0; j < rough.size(); ++j) CHECK(relative_error(rough[j], fine[j]) < 2e-5);
  }
}

// --- arithmetic ---

TEST_CASE("fill, copy, axpby, multiply") {
  const Host x = Host::random({5, 7}, 1), y = Host::random({5, 7}, 2), old = Host::random({5, 7}, 3);
  Host in = x, other = y, out({5, 7}, kNan), mask({5, 7}), row_mask({7});
  for (std::size_t i = 0; i < mask.values.size(); ++i) mask[i] = i % 3 == 0 ? 1 : 0;
  for (std::size_t i = 0; i < row_mask.values.size(); ++i) row_mask[i] = i % 2 == 0 ? 2 : 0;

  fill({}, {.out = out.view(), .value = -1.5});
  for (const double entry : out.values) CHECK(entry == -1.5);
  copy({}, {.in = in.view(), .out = out.view()});
  CHECK(same_bits(out.values, x.values));
  out = old;
  copy({}, {.in = in.view(), .out = out.view(), .mask = mask.view()});
  for (std::size_t i = 0; i < out.values.size(); ++i) CHECK(out[i] == (i % 3 == 0 ? x : old).values[i]);
  out = old;
  View one_row = row_mask.view();
  one_row.shape = {1, 7};
  copy({}, {.in = in.view(), .out = out.view(), .mask = one_row});
  for (std::size_t i = 0; i < out.values.size(); ++i) CHECK(out[i] == (i % 7 % 2 == 0 ? x : old).values[i]);

  out = Host({5, 7}, kNan);
  axpby({}, {.x = in.view(), .y = out.view(), .a = 2});
  for (std::size_t i = 0; i < out.values.size(); ++i) CHECK(out[i] == 2 * x.values[i]);
  out = old;
  axpby({}, {.x = in.view(), .y = out.view(), .a = 2, .b = -3});
  for (std::size_t i = 0; i < out.values.size(); ++i) CHECK(out[i] == 2 * x.values[i] + -3 * old.values[i]);
  out = Host({5, 7}, kNan);
  multiply({}, {.a = in.view(), .b = other.view(), .y = out.view()});
  for (std::size_t i = 0; i < out.values.size(); ++i) CHECK(out[i] == x.values[i] * y.values[i]);
  out = old;
  multiply({}, {.a = in.view(), .b = other.view(), .y = out.view(), .write = Write::add});
  for (std::size_t i = 0; i < out.values.size(); ++i) CHECK(out[i] == old.values[i] + x.values[i] * y.values[i]);
}

TEST_CASE("add_row and sum_rows") {
  const Host x = Host::random({5, 7}, 1), first = Host::random({7}, 2);
  Host y = x, row = first, set({5, 7}, kNan);
  add_row({}, {.row = row.view(), .y = y.view()});
  add_row({}, {.row = row.view(), .y = set.view(), .write = Write::set});
  for (std::size_t i = 0; i < y.values.size(); ++i) {
    CHECK(y[i] == x.values[i] + first.values[i % 7]);
    CHECK(set[i] == first.values[i % 7]);
  }
  Host sums({7}, kNan), in = x;
  sum_rows({}, {.x = in.view(), .row = sums.view()});
  sum_rows({}, {.x = in.view(), .row = row.view(), .write = Write::add});
  for (std::int64_t col = 0; col < 7; ++col) {
    double want = 0;
    for (std::int64_t i = 0; i < 5; ++i) want += in(i, col);
    CHECK(sums[static_cast<std::size_t>(col)] == doctest::Approx(want).epsilon(1e-14));
    CHECK(row(col, 0) == doctest::Approx(want + first.values[static_cast<std::size_t>(col)]).epsilon(1e-14));
  }
}

TEST_CASE("lerp and scale_by") {
  const Host first = Host::random({5, 7}, 1), second = Host::random({5, 7}, 2);
  for (const int place : {0, 1, 2}) {  // y apart, y = a, y = b
    CAPTURE(place);
    Host a = first, b = second, apart({5, 7}, kNan), t({}, 0.3);
    Host& y = place == 0 ? apart : place == 1 ? a : b;
    lerp({}, {.a = a.view(), .b = b.view(), .t = t.view(), .y = y.view()});
    for (std::size_t i = 0; i < y.values.size(); ++i) {
      CHECK(std::abs(y[i] - (0.7 * first.values[i] + 0.3 * second.values[i])) < 1e-15);
    }
    if (place != 1) CHECK(same_bits(a.values, first.values));
    if (place != 2) CHECK(same_bits(b.values, second.values));
  }
  Host y = first, by({}, -1.75);
  scale_by({}, {.y = y.view(), .by = by.view()});
  for (std::size_t i = 0; i < y.values.size(); ++i) CHECK(y[i] == -1.75 * first.values[i]);
  Host two({2});
  CHECK_THROWS_AS(scale_by({}, {.y = y.view(), .by = two.view()}), Error);
  CHECK_THROWS_AS(lerp({}, {.a = y.view(), .b = two.view(), .t = by.view(), .y = y.view()}), Error);
}

// --- gemm ---

TEST_CASE("gemm: every transpose, scale and stride") {
  const std::int64_t n = 10, k = 17;
  for (const int variant : {0, 1, 2, 3, 4, 5, 6, 7}) {
    const bool ta = variant % 2 == 1, tb = variant / 2 % 2 == 1;
    const std::int64_t m = variant < 4 ? 13 : 1;  // a single row goes another way
    for (const auto& [alpha, beta] : {std::pair{1.0, 0.0}, {1.0, 1.0}, {-0.5, 3.0}}) {
      CAPTURE(ta);
      CAPTURE(tb);
      CAPTURE(beta);
      Host a = Host::random(ta ? Shape{k, m + 3} : Shape{m, k + 3}, 1);
      Host b = Host::random(tb ? Shape{n, k + 3} : Shape{k, n + 3}, 2);
      const Host old = Host::random({m, n + 3}, 3);
      Host c = old;
      // beta 0 must not read c
      if (beta == 0) std::fill(c.values.begin(), c.values.end(), kNan);
      gemm({}, {.a = a.view().columns(2, ta ? m : k),
                .b = b.view().columns(2, tb ? k : n),
                .c = c.view().columns(2, n),
                .trans_a = Trans{ta},
                .trans_b = Trans{tb},
                .alpha = alpha,
                .beta = beta});
      std::vector<double> want, got;
      for (std::int64_t i = 0; i < m; ++i) {
        for (std::int64_t j = 0; j < n; ++j) {
          double sum = 0;
          for (std::int64_t l = 0; l < k; ++l)
            sum += (ta ? a(l, i + 2) : a(i, l + 2)) * (tb ? b(j, l + 2) : b(l, j + 2));
          want.push_back(alpha * sum + (beta == 0 ? 0 : beta * Host(old)(i, j + 2)));
          got.push_back(c(i, j + 2));
        }
      }
      CHECK(worst_difference(got, want) < 1e-13);
    }
  }
}

TEST_CASE("gemm: a product over no terms scales c") {
  Host a({3, 0}), b({4, 0}), c({3, 4}, 2), junk({3, 4}, kNan);
  View no_a = a.view(), no_b = b.view();
  double nothing = 0;
  no_a.data = no_b.data = &nothing;
  gemm({}, {.a = no_a, .b = no_b, .c = c.view(), .trans_b = Trans::yes, .beta = 0.5});
  gemm({}, {.a = no_a, .b = no_b, .c = junk.view(), .trans_b = Trans::yes});
  for (const double entry : c.values) CHECK(entry == 1);
  for (const double entry : junk.values) CHECK(entry == 0);
}

TEST_CASE("gemm: shapes that do not fit are refused") {
  Host a({3, 4}), b({5, 6}), c({3, 6});
  CHECK_THROWS_WITH_AS(gemm({}, {.a = a.view(), .b = b.view(), .c = c.view()}),
                       "[gemm] a [3, 4], b [5, 6], c [3, 6] do not fit", Error);
}

TEST_CASE("batched_gemm: every transpose, scale and stride") {
  constexpr std::int64_t kBatch = 11;
  struct Sizes {
    std::int64_t m, n, k;
  };
  // Eigen has ways of its own for vectors, for small matrices and for large ones.
  for (const auto& [m, n, k] : {Sizes{1, 1, 1}, {3, 2, 5}, {1, 7, 5}, {7, 1, 5}, {13, 10, 17}, {4, 3, 0}}) {
    for (const int variant : {0, 1, 2, 3}) {
      const bool ta = variant % 2 == 1, tb = variant / 2 == 1;
      for (const auto& [alpha, beta] : {std::pair{1.0, 0.0}, {1.0, 1.0}, {-0.5, 3.0}}) {
        CAPTURE(m);
        CAPTURE(n);
        CAPTURE(k);
        CAPTURE(variant);
        CAPTURE(beta);
        Host a = Host::random({kBatch, m * k + 3}, 1), b = Host::random({kBatch, k * n + 2}, 2);
        Host old = Host::random({kBatch, m * n + 3}, 3), c = old;
        if (beta == 0) std::fill(c.values.begin(), c.values.end(), kNan);
        batched_gemm({}, {.a = a.view().columns(2, m * k),
                          .b = b.view().columns(1, k * n),
                          .c = c.view().columns(2, m * n),
                          .m = m,
                          .n = n,
                          .k = k,
                          .trans_a = Trans{ta},
                          .trans_b = Trans{tb},
                          .alpha = alpha,
                          .beta = beta});
        std::vector<double> want, got;
        for (std::int64_t sample = 0; sample < kBatch; ++sample) {
          for (std::int64_t i = 0; i < m; ++i) {
            for (std::int64_t j = 0; j < n; ++j) {
              double sum = 0;
              for (std::int64_t l = 0; l < k; ++l) {
                sum += a(sample, 2 + (ta ? l * m + i : i * k + l)) * b(sample, 1 + (tb ? j * k + l : l * n + j));
              }
              const std::int64_t at = 2 + i * n + j;
              want.push_back(alpha * sum + (beta == 0 ? 0 : beta * old(sample, at)));
              got.push_back(c(sample, at));
            }
          }
        }
        CHECK(worst_difference(got, want) < 1e-13);
      }
    }
  }
  Host a({2, 12}), b({2, 20}), c({2, 15});
  CHECK_NOTHROW(batched_gemm({}, {.a = a.view(), .b = b.view(), .c = c.view(), .m = 3, .n = 5, .k = 4}));
  CHECK_THROWS_WITH_AS(batched_gemm({}, {.a = a.view(), .b = b.view(), .c = c.view(), .m = 3, .n = 4, .k = 5}),
                       "[batched_gemm] a [2, 12], b [2, 20], c [2, 15] do not fit a batch of [3, 5] times [5, 4]",
                       Error);
}

// --- map ---

TEST_CASE("map: known values") {
  struct Known {
    Activation f;
    double x, value, slope;
  };
  // mpmath, 18 digits
  constexpr Known kKnown[] = {{Activation::identity, -2, -2, 1},
                              {Activation::identity, 3, 3, 1},
                              {Activation::relu, -2, 0, 0},
                              {Activation::relu, 0, 0, 0},
                              {Activation::relu, 3, 3, 1},
                              {Activation::leaky_relu, -2, -0.2, 0.1},
                              {Activation::leaky_relu, 0, 0, 0.1},
                              {Activation::leaky_relu, 3, 3, 1},
                              {Activation::gelu, -1, -0.158655253931457051, -0.0833154705876862984},
                              {Activation::gelu, 0, 0, 0.5},
                              {Activation::gelu, 3, 2.99595030590510972, 1.01194564720418393},
                              {Activation::gelu_tanh, -1, -0.158808009391723295, -0.0829640838457825551},
                              {Activation::gelu_tanh, 0, 0, 0.5},
                              {Activation::gelu_tanh, 3, 2.99636260791822698, 1.01158416663096973},
                              {Activation::silu, -2, -0.238405844044235112, -0.0907842487848954788},
                              {Activation::silu, 0, 0, 0.5},
                              {Activation::silu, 1, 0.731058578630004879, 0.927670511871486732},
                              {Activation::tanh, -1, -0.761594155955764888, 0.419974341614026069},
                              {Activation::tanh, 0, 0, 1},
                              {Activation::tanh, 0.5, 0.462117157260009759, 0.78644773296592741},
                              {Activation::hard_tanh, -3, -1, 0},
                              {Activation::hard_tanh, 0.5, 0.5, 1},
                              {Activation::hard_tanh, 2, 1, 0},
                              {Activation::sigmoid, -2, 0.119202922022117556, 0.104993585403506517},
                              {Activation::sigmoid, 0, 0.5, 0.25},
                              {Activation::sigmoid, 3, 0.952574126822433219, 0.0451766597309121326},
                              {Activation::softplus, -1, 0.313261687518222834, 0.268941421369995121},
                              {Activation::softplus, 0, 0.693147180559945309, 0.5},
                              {Activation::softplus, 3, 3.04858735157374206, 0.952574126822433219}};
  for (const Known& k : kKnown) {
    CAPTURE(static_cast<int>(k.f));
    CAPTURE(k.x);
    for (const Write write : {Write::set, Write::add}) {
      const double old = write == Write::add ? 10 : 0;
      Host x({1, 1}, k.x), dy({1, 1}, 2), y({1, 1}, write == Write::add ? 10 : kNan), dx = y;
      map({}, {.x = x.view(), .y = y.view(), .f = k.f, .leak = 0.1, .write = write});
      map_pullback({}, {.x = x.view(), .dy = dy.view(), .dx = dx.view(), .f = k.f, .leak = 0.1, .write = write});
      CHECK(std::abs(y[0] - (old + k.value)) < 4e-15);
      CHECK(std::abs(dx[0] - (old + 2 * k.slope)) < 4e-15);
    }
  }
}

/// f and f' in double, and as float code computes them.
template <class T>
scalar::ValueSlope<T> activate(Activation kind, T z) {
  scalar::ValueSlope<T> out{};
  scalar::with_activation(kind, [&]<Activation f>() { out = scalar::activate<f>(z, T(0.25)); });
  return out;
}

TEST_CASE("map: the float formulas are within 4e-7 of the double ones") {
  for (const Activation f : kActivations) {
    CAPTURE(static_cast<int>(f));
    double worst_value = 0, worst_slope = 0, at_value = 0, at_slope = 0;
    for (int i = -300000; i <= 300000; ++i) {
      const float z = static_cast<float>(i) * 1e-4F;
      const auto rough = activate<float>(f, z);
      const auto fine = activate<double>(f, z);
      const double value = std::abs(rough.value - fine.value) / (1 + std::abs(fine.value));
      const double slope = std::abs(rough.slope - fine.slope) / (1 + std::abs(fine.slope));
      if (!(value <= worst_value)) worst_value = value, at_value = z;
      if (!(slope <= worst_slope)) worst_slope = slope, at_slope = z;
    }
    CAPTURE(at_value);
    CAPTURE(at_slope);
    CHECK(worst_value < 4e-7);
    CHECK(worst_slope < 4e-7);
  }
}

TEST_CASE("exp in float: relative error, and no overflow") {
  double worst = 0;
  for (int i = -870000; i <= 870000; ++i) {
    const float x = static_cast<float>(i) * 1e-4F;
    const double want = std::exp(static_cast<double>(x));
    worst = std::max(worst, std::abs(scalar::exp(x) - want) / want);
  }
  CHECK(worst < 2e-7);
  for (const float x : {-1e30F, -100.0F, 100.0F, 1e30F, INFINITY, -INFINITY}) CHECK(std::isfinite(scalar::exp(x)));
}

TEST_CASE("map: a NaN comes out as NaN") {
  for (const Activation f : kActivations) {
    CAPTURE(static_cast<int>(f));
    CHECK(std::isnan(activate<float>(f, NAN).value));
    CHECK(std::isnan(activate<double>(f, kNan).value));
  }
  CHECK(std::isnan(scalar::exp(NAN)));
}

TEST_CASE("map: slopes agree with central differences") {
  for (const Activation f : kActivations) {
    CAPTURE(static_cast<int>(f));
    for (double z = -6.03; z < 6; z += 0.1) {  // keeps away from the kinks at -1, 0 and 1
      const double h = 1e-5;
      const double want = (activate(f, z + h).value - activate(f, z - h).value) / (2 * h);
      CHECK(std::abs(activate(f, z).slope - want) < 1e-9);
    }
  }
}

// --- energies ---

using ErrorKernel = Kernel<ErrorArgs>;

/// Energy of one sample, as a test writes it.
double energy_of(const ErrorKernel& kernel, Host& x, Host& mu, Host* precisions, double precision) {
  double sum = 0;
  const auto classes = static_cast<std::size_t>(x.shape[x.shape.rank() - 1]);
  const auto share = [&](const Host& logits, std::size_t i) {  // of the run that the entry is in
    double partition = 0;
    for (std::size_t j = i / classes * classes; j / classes == i / classes; ++j)
      partition += std::exp(logits.values[j]);
    return std::exp(logits.values[i]) / partition;
  };
  for (std::size_t i = 0; i < x.values.size(); ++i) {
    const double p = precision * (precisions == nullptr ? 1 : (*precisions)[i]);
    if (kernel.name == "gaussian_error") sum += p * (x[i] - mu[i]) * (x[i] - mu[i]) / 2;
    if (kernel.name == "laplace_error") sum += p * std::abs(x[i] - mu[i]);
    if (kernel.name == "softmax_error") sum -= p * x[i] * std::log(share(mu, i));
    if (kernel.name == "categorical_error") sum += p * share(x, i) * std::log(share(x, i) / share(mu, i));
    if (kernel.name == "bernoulli_error") {
      const double q = 1 / (1 + std::exp(-mu[i]));
      sum -= p * (x[i] * std::log(q) + (1 - x[i]) * std::log(1 - q));
    }
  }
  return sum;
}

TEST_CASE("errors: the energy, and its slopes by central differences") {
  const std::int64_t n = 15;
  const std::vector<Shape> shapes = {{1, n}, {1, 3, 5}};
  for (const ErrorKernel* kernel :
       {&gaussian_error, &softmax_error, &bernoulli_error, &laplace_error, &categorical_error}) {
    for (const int variant : {0, 1, 2}) {
      const bool weighted = variant == 2;
      const Shape shape = shapes[variant == 1 ? 1 : 0];
      if (weighted && kernel != &gaussian_error && kernel != &laplace_error) continue;
      CAPTURE(kernel->name);
      CAPTURE(shape.text());
      Host x = Host::random(shape, 1), mu = Host::random(shape, 2), precisions = Host::random({n}, 3);
      Host delta(shape, kNan), own(shape, kNan), energy({1}, kNan);
      for (double& p : precisions.values) p = std::abs(p) + 0.1;
      Host* chosen = weighted ? &precisions : nullptr;
      const double precision = 0.7, h = 1e-5;
      (*kernel)({}, {.x = x.view(),
                     .mu = mu.view(),
                     .delta = delta.view(),
                     .own = own.view(),
                     .energy = energy.view(),
                     .precision = precision,
                     .precisions = weighted ? precisions.view() : View{}});
      CHECK(energy[0] == doctest::Approx(energy_of(*kernel, x, mu, chosen, precision)).epsilon(1e-13));
      const auto slope = [&](double& entry) {
        const double keep = entry;
        const auto at = [&](double value) {
          entry = value;
          return energy_of(*kernel, x, mu, chosen, precision);
        };
        const double result = (at(keep + h) - at(keep - h)) / (2 * h);
        entry = keep;
        return result;
      };
      for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
        CHECK(std::abs(delta[i] + slope(mu[i])) < 1e-9);
        CHECK(std::abs(own[i] - slope(x[i])) < 1e-9);
      }
    }
  }
}

TEST_CASE("map_error is map, gaussian_error and map_pullback") {
  for (const Activation f : kActivations) {
    CAPTURE(static_cast<int>(f));
    Host x = Host::random({5, 7}, 1), z = Host::random({5, 7}, 2), precisions = Host::random({7}, 3);
    Host mu({5, 7}), delta({5, 7}), dz({5, 7}), energy({5}), delta1({5, 7}, kNan), dz1 = delta1, energy1({5}, kNan);
    map({}, {.x = z.view(), .y = mu.view(), .f = f});
    gaussian_error({}, {.x = x.view(),
                        .mu = mu.view(),
                        .delta = delta.view(),
                        .energy = energy.view(),
                        .precision = 0.7,
                        .precisions = precisions.view()});
    map_pullback({}, {.x = z.view(), .dy = delta.view(), .dx = dz.view(), .f = f});
    map_error({}, {.x = x.view(),
                   .z = z.view(),
                   .delta = delta1.view(),
                   .dz = dz1.view(),
                   .energy = energy1.view(),
                   .f = f,
                   .precision = 0.7,
                   .precisions = precisions.view()});
    CHECK(worst_difference(delta1.values, delta.values) < 1e-15);
    CHECK(worst_difference(dz1.values, dz.values) < 1e-15);
    CHECK(worst_difference(energy1.values, energy.values) < 1e-14);
  }
}

TEST_CASE("softmax_error: large logits do no harm") {
  Host x({1, 3}), mu({1, 3}), delta({1, 3}), energy({1});
  x[1] = 1;
  mu[0] = 1000, mu[1] = 999, mu[2] = -1000;
  softmax_error({}, {.x = x.view(), .mu = mu.view(), .delta = delta.view(), .energy = energy.view()});
  CHECK(energy[0] == doctest::Approx(1 + std::log1p(std::exp(-1.0))).epsilon(1e-12));
  CHECK(delta[1] == doctest::Approx(1 / (1 + std::exp(-1.0))).epsilon(1e-12));
}

// --- softmax ---

TEST_CASE("softmax, and its pull-back by central differences") {
  const std::int64_t rows = 4, cols = 9;
  Host x = Host::random({rows, cols}, 1), dy = Host::random({rows, cols}, 2), y({rows, cols}, kNan);
  softmax({}, {.x = x.view(), .y = y.view()});
  for (std::int64_t row = 0; row < rows; ++row) {
    double total = 0;
    for (std::int64_t col = 0; col < cols; ++col) total += std::exp(x(row, col));
    for (std::int64_t col = 0; col < cols; ++col) CHECK(std::abs(y(row, col) - std::exp(x(row, col)) / total) < 1e-15);
  }
  Host dx({rows, cols}, kNan), added({rows, cols}, 3), twice({rows, cols}, 3);
  softmax_pullback({}, {.x = x.view(), .dy = dy.view(), .dx = dx.view()});
  softmax_pullback({}, {.x = x.view(), .dy = dy.view(), .dx = added.view(), .write = Write::add});
  softmax({}, {.x = x.view(), .y = twice.view(), .write = Write::add});
  for (std::size_t i = 0; i < x.values.size(); ++i) {
    const double keep = x[i], h = 1e-5;
    const auto at = [&](double value) {
      x[i] = value;
      softmax({}, {.x = x.view(), .y = y.view()});
      double sum = 0;
      for (std::size_t j = 0; j < y.values.size(); ++j) sum += y[j] * dy[j];
      return sum;
    };
    const double want = (at(keep + h) - at(keep - h)) / (2 * h);
    x[i] = keep;
    CHECK(std::abs(dx[i] - want) < 1e-9);
    CHECK(added[i] == doctest::Approx(3 + dx[i]).epsilon(1e-14));
  }
  softmax({}, {.x = x.view(), .y = y.view()});
  for (std::size_t i = 0; i < y.values.size(); ++i) CHECK(twice[i] == doctest::Approx(3 + y[i]).epsilon(1e-14));
}

// --- value updates ---

TEST_CASE("value_sgd: three steps of heavy ball, with held entries") {
  const std::int64_t rows = 4, cols = 5;
  for (const bool row_mask : {false, true}) {
    const Host start = Host::random({rows, cols}, 1), own = Host::random({rows, cols}, 2);
    const Host back = Host::random({rows, cols}, 3);
    Host x = start, v({rows, cols}), free = row_mask ? Host({1, cols}) : Host({rows, cols}), steepest({rows}, kNan);
    for (std::size_t i = 0; i < free.values.size(); ++i) free[i] = i % 3 == 0 ? 0 : 1;
    Host pull = own, away = back;
    for (int step = 0; step < 3; ++step) {
      value_sgd({}, {.g = {.x = x.view(),
                           .own = pull.view(),
                           .back = away.view(),
                           .free = free.view(),
                           .steepest = steepest.view()},
                     .velocity = v.view(),
                     .rate = 0.1,
                     .momentum = 0.9});
    }
    for (std::size_t i = 0; i < x.values.size(); ++i) {
      const double g = own.values[i] - back.values[i];
      const bool held = free[row_mask ? i % cols : i] == 0;
      // velocities g, 1.9 g, 2.71 g
      if (held) CHECK(x[i] == start.values[i]);
      if (!held) CHECK(x[i] == doctest::Approx(start.values[i] - 0.1 * (1 + 1.9 + 2.71) * g).epsilon(1e-13));
    }
    for (std::int64_t row = 0; row < rows; ++row) {
      double want = 0;
      for (std::int64_t col = 0; col < cols; ++col) {
        const auto i = static_cast<std::size_t>(row * cols + col);
        if (free[row_mask ? i % cols : i] != 0) want = std::max(want, std::abs(own.values[i] - back.values[i]));
      }
      CHECK(steepest(row, 0) == want);
    }
  }
}

TEST_CASE("value_sgd: a missing pull is zero") {
  const Host start = Host::random({3, 4}, 1);
  Host x = start, g = Host::random({3, 4}, 2);
  value_sgd({}, {.g = {.x = x.view(), .own = g.view()}, .rate = 0.5});
  for (std::size_t i = 0; i < x.values.size(); ++i) CHECK(x[i] == start.values[i] - 0.5 * g[i]);
  x = start;
  value_sgd({}, {.g = {.x = x.view(), .back = g.view()}, .rate = 0.5});
  for (std::size_t i = 0; i < x.values.size(); ++i) CHECK(x[i] == start.values[i] + 0.5 * g[i]);
  x = start;
  value_sgd({}, {.g = {.x = x.view()}, .rate = 0.5});
  CHECK(same_bits(x.values, start.values));
}

TEST_CASE("value_sgd: a NaN gradient is the steepest of its row, wherever it stands") {
  for (std::size_t at = 0; at < 4; ++at) {
    Host x({2, 4}), own({2, 4}, 1), steepest({2}, 0);
    own[at] = kNan;
    value_sgd({}, {.g = {.x = x.view(), .own = own.view(), .steepest = steepest.view()}});
    CHECK(std::isnan(steepest[0]));
    CHECK(steepest[1] == 1);
  }
}

/// Adam as its authors write it (algorithm 1), for one number.
struct TextbookAdam {
  double m = 0, v = 0, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;

  double step(int t, double g, double rate) {
    m = beta1 * m + (1 - beta1) * g;
    v = beta2 * v + (1 - beta2) * g * g;
    const double m_hat = m / (1 - std::pow(beta1, t)), v_hat = v / (1 - std::pow(beta2, t));
    return rate * m_hat / (std::sqrt(v_hat) + epsilon);
  }
};

TEST_CASE("value_adam: four steps by the book, with held entries") {
  const Host start = Host::random({3, 5}, 1);
  Host x = start, m({3, 5}), v({3, 5}), step({}), free({1, 5}, 1), own({3, 5}), steepest({3});
  free[2] = 0;
  std::vector<TextbookAdam> book(x.values.size());
  std::vector<double> want = start.values;
  for (int t = 1; t <= 4; ++t) {
    own = Host::random({3, 5}, static_cast<std::uint32_t>(10 + t));
    step[0] = t;
    value_adam({}, {.g = {.x = x.view(), .own = own.view(), .free = free.view(), .steepest = steepest.view()},
                    .m = m.view(),
                    .v = v.view(),
                    .step = step.view(),
                    .rate = 0.05});
    for (std::size_t i = 0; i < want.size(); ++i) {
      if (i % 5 != 2) want[i] -= book[i].step(t, own[i], 0.05);
    }
  }
  CHECK(worst_difference(x.values, want) < 1e-13);
  for (std::size_t i = 2; i < want.size(); i += 5) {
    CHECK(x[i] == start.values[i]);
    CHECK(m[i] == 0);
    CHECK(v[i] == 0);
  }
}

// --- weight updates ---

TEST_CASE("weight_sgd: momentum, decay, clip, scale, mask") {
  const double momentum = 0.9, decay = 0.01, lr = 0.05, clipped = 0.5, scale = 0.125;
  for (const bool masked : {false, true}) {
    const Host start = Host::random({4, 6}, 1);
    Host w = start, velocity({4, 6}), mask({4, 6}, 1), rate_slot({}, lr), clip_slot({}, clipped), dw({4, 6});
    for (std::size_t i = 0; i < mask.values.size(); i += 4) mask[i] = 0;
    std::vector<double> want = start.values, speed(want.size());
    for (std::uint32_t t = 1; t <= 4; ++t) {
      dw = Host::random({4, 6}, 10 + t);
      weight_sgd({}, {.g = {.w = w.view(),
                            .dw = dw.view(),
                            .mask = masked ? mask.view() : View{},
                            .rate = rate_slot.view(),
                            .clip = clip_slot.view(),
                            .scale = scale},
                      .velocity = velocity.view(),
                      .momentum = momentum,
                      .decay = decay});
      for (std::size_t i = 0; i < want.size(); ++i) {
        if (masked && i % 4 == 0) continue;
        speed[i] = momentum * speed[i] + (scale * clipped * dw[i] - decay * want[i]);
        want[i] += lr * speed[i];
      }
    }
    CHECK(worst_difference(w.values, want) < 1e-14);
    if (masked) {
      for (std::size_t i = 0; i < want.size(); i += 4) CHECK(w[i] == start.values[i]);
    }
  }
}

TEST_CASE("weight_sgd: without momentum or clip") {
  const Host start = Host::random({4, 6}, 1);
  Host w = start, dw = Host::random({4, 6}, 2), rate_slot({}, 0.05);
  weight_sgd({}, {.g = {.w = w.view(), .dw = dw.view(), .rate = rate_slot.view()}});
  for (std::size_t i = 0; i < w.values.size(); ++i) CHECK(w[i] == start.values[i] + 0.05 * dw[i]);
}

TEST_CASE("weight_adam: coupled and decoupled decay by the book, with a mask") {
  const double decay = 0.1, lr = 0.05, scale = 0.25;
  for (const bool decoupled : {false, true}) {
    for (const bool masked : {false, true}) {
      CAPTURE(decoupled);
      const Host start = Host::random({4, 6}, 1);
      Host w = start, m({4, 6}), v({4, 6}), mask({4, 6}, 1), rate_slot({}, lr), step({}), dw({4, 6});
      for (std::size_t i = 0; i < mask.values.size(); i += 4) mask[i] = 0;
      std::vector<TextbookAdam> book(w.values.size());
      std::vector<double> want = start.values;
      for (int t = 1; t <= 4; ++t) {
        dw = Host::random({4, 6}, static_cast<std::uint32_t>(10 + t));
        step[0] = t;
        weight_adam({}, {.g = {.w = w.view(),
                               .dw = dw.view(),
                               .mask = masked ? mask.view() : View{},
                               .rate = rate_slot.view(),
                               .scale = scale},
                         .m = m.view(),
                         .v = v.view(),
                         .step = step.view(),
                         .decay = decay,
                         .decoupled = decoupled});
        for (std::size_t i = 0; i < want.size(); ++i) {
          if (masked && i % 4 == 0) continue;
          // dw points downhill, so that the book's gradient is -dw
          const double gradient = -scale * dw[i] + (decoupled ? 0 : decay * want[i]);
          const double shrink = decoupled ? lr * decay * want[i] : 0;
          want[i] -= book[i].step(t, gradient, lr) + shrink;
        }
      }
      CHECK(worst_difference(w.values, want) < 1e-13);
      if (!masked) continue;
      for (std::size_t i = 0; i < want.size(); i += 4) CHECK(w[i] == start.values[i]);
    }
  }
}

// --- batches ---

TEST_CASE("gather, one_hot and right") {
  std::vector<std::uint8_t> table(5 * 6);
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<std::uint8_t>(7 * i);
  std::vector<std::int32_t> order = {4, 0, 3, 1, 2, 3}, labels = {2, 0, 1, 1, 2};
  Host cursor({}, 2), scale({2}), shift({2}), out({3, 6}, kNan), hot({3, 4}, kNan);
  scale[0] = 0.5, scale[1] = 2, shift[0] = -1, shift[1] = 3;
  const View order_view{.data = order.data(), .shape = {6}, .dtype = DType::i32};
  const View labels_view{.data = labels.data(), .shape = {5}, .dtype = DType::i32};
  const BatchRows rows{order_view, cursor.view()};
  gather({}, {.table = {.data = table.data(), .shape = {5, 6}, .dtype = DType::u8},
              .out = out.view(),
              .rows = rows,
              .scale = scale.view(),
              .shift = shift.view()});
  one_hot({}, {.labels = labels_view, .out = hot.view(), .rows = rows, .on = 0.9, .off = -0.1});
  for (std::int64_t row = 0; row < 3; ++row) {
    const auto example = static_cast<std::size_t>(order[static_cast<std::size_t>(2 + row)]);
    for (std::int64_t col = 0; col < 6; ++col) {
      const std::size_t channel = col < 3 ? 0 : 1;
      CHECK(out(row, col) == table[example * 6 + static_cast<std::size_t>(col)] * scale[channel] + shift[channel]);
    }
    for (std::int64_t col = 0; col < 4; ++col) CHECK(hot(row, col) == (col == labels[example] ? 0.9 : -0.1));
  }
  Host hits({3}, kNan);
  right({}, {.answer = hot.view(), .labels = labels_view, .right = hits.view(), .rows = rows});
  for (const double hit : hits.values) CHECK(hit == 1);
  // of equals the first counts: labels of the batch are 1, 0, 1
  Host flat({3, 4}, 0.25);
  right({}, {.answer = flat.view(), .labels = labels_view, .right = hits.view(), .rows = rows});
  CHECK(hits.values == std::vector<double>{0, 1, 0});
}

// --- reductions and scalars ---

TEST_CASE("sum and largest") {
  Host x = Host::random({13, 11}, 1), out({}, kNan);
  double plain = 0, squares = 0;
  for (const double entry : x.values) plain += entry, squares += entry * entry;
  sum({}, {.in = x.view(), .out = out.view(), .scale = 0.5});
  CHECK(out[0] == doctest::Approx(0.5 * plain).epsilon(1e-13));
  sum({}, {.in = x.view(), .out = out.view(), .squares = true, .write = Write::add});
  CHECK(out[0] == doctest::Approx(0.5 * plain + squares).epsilon(1e-13));

  for (double& entry : x.values) entry = std::abs(entry);
  largest({}, {.in = x.view(), .out = out.view()});
  CHECK(out[0] == norm_max(x.values));
  out[0] = 99;
  largest({}, {.in = x.view(), .out = out.view(), .write = Write::add});
  CHECK(out[0] == 99);
}

TEST_CASE("largest: NaN wins and stays") {
  for (const std::size_t at : {std::size_t{0}, std::size_t{3}, std::size_t{6}}) {
    Host x({7}, 1), fine({7}, 2), out({}, 0);
    x[at] = kNan;
    largest({}, {.in = x.view(), .out = out.view()});
    CHECK(std::isnan(out[0]));
    largest({}, {.in = fine.view(), .out = out.view(), .write = Write::add});
    CHECK(std::isnan(out[0]));
    largest({}, {.in = fine.view(), .out = out.view()});
    CHECK(out[0] == 2);
  }
}

TEST_CASE("clip and tick") {
  Host norm({}, 9), factor({}, kNan), counter({}, 5);
  clip({}, {.square_norm = norm.view(), .clip = factor.view(), .limit = 1.5});
  CHECK(factor[0] == 0.5);
  clip({}, {.square_norm = norm.view(), .clip = factor.view(), .limit = 3});
  CHECK(factor[0] == 1);
  tick({}, {.counter = counter.view(), .by = 3});
  CHECK(counter[0] == 8);
}

TEST_CASE("rate: schedules at their corners") {
  const auto at = [](RateKind kind, double step, double warmup = 10) {
    Host counter({}, step), out({}, kNan);
    rate({}, {.step = counter.view(),
              .rate = out.view(),
              .kind = kind,
              .base = 0.2,
              .floor = 0.04,
              .warmup = warmup,
              .total = 110});
    return doctest::Approx(out[0]).epsilon(1e-14);
  };
  CHECK(0.2 == at(RateKind::constant, 77));
  CHECK(0.2 == at(RateKind::cosine, 1));
  CHECK(0.12 == at(RateKind::cosine, 56));
  CHECK(0.04 == at(RateKind::cosine, 111));
  CHECK(0.04 == at(RateKind::cosine, 500));
  CHECK(0.02 == at(RateKind::warmup_cosine, 1));
  CHECK(0.2 == at(RateKind::warmup_cosine, 10));
  CHECK(0.2 == at(RateKind::warmup_cosine, 11));
  CHECK(0.12 == at(RateKind::warmup_cosine, 61));
  CHECK(0.04 == at(RateKind::warmup_cosine, 111));
  CHECK(0.2 == at(RateKind::warmup_cosine, 1, 0));
}

TEST_CASE("nudge_strength: grows by epochs up to its limit, and changes sides") {
  for (const double base : {0.25, -0.25}) {
    for (const bool alternate : {false, true}) {
      for (int batch = 1; batch <= 20; ++batch) {
        CAPTURE(base);
        CAPTURE(alternate);
        CAPTURE(batch);
        Host counter({}, batch), beta({}, kNan), inverse({}, kNan);
        nudge_strength({}, {.counter = counter.view(),
                            .beta = beta.view(),
                            .inverse = inverse.view(),
                            .base = base,
                            .growth = 0.125,
                            .limit = 0.75,
                            .per_epoch = 3,
                            .alternate = alternate});
        const int epoch = (batch - 1) / 3;  // 0.25, 0.375, 0.5, 0.625, then 0.75: all exact
        double want = std::min(0.75, 0.25 + 0.125 * epoch);
        if (base < 0) want = -want;
        if (alternate && batch % 2 == 0) want = -want;
        CHECK(beta[0] == want);
        CHECK(inverse[0] == 1 / want);
      }
    }
  }
  Host s({}, 1);
  CHECK_THROWS_AS(nudge_strength({}, {.counter = s.view(), .beta = s.view(), .inverse = s.view(), .base = 0}), Error);
}

// --- the gate of first arrivals ---

TEST_CASE("first_arrival: a row passes once, with the first entry that is not zero") {
  constexpr std::int64_t kCols = 5;
  Host delta({6, kCols}), fired({6}), gated({6, kCols}, kNan);
  delta(1, 4) = 1e-300;
  delta(2, 0) = kNan;
  delta(3, 2) = -0.0;  // a zero
  delta(4, 1) = -2;
  delta(5, 3) = 3;
  fired[5] = 1;
  const auto pass = [&] { first_arrival({}, {.delta = delta.view(), .fired = fired.view(), .gated = gated.view()}); };
  const auto row_is = [&](std::int64_t row, bool passed) {
    for (std::int64_t col = 0; col < kCols; ++col) {
      const double want = passed ? delta(row, col) : 0;
      CHECK(same_bits({gated(row, col)}, {want}));
    }
  };
  pass();
  for (std::int64_t row = 0; row < 6; ++row) row_is(row, row == 1 || row == 2 || row == 4);
  CHECK(fired.values == std::vector<double>{0, 1, 1, 0, 1, 1});
  delta(0, 0) = 7;
  pass();
  for (std::int64_t row = 0; row < 6; ++row) row_is(row, row == 0);
  CHECK(fired.values == std::vector<double>{1, 1, 1, 0, 1, 1});
}

// --- Runge-Kutta ---

TEST_CASE("rk_stage and rk_error") {
  constexpr std::int64_t kRows = 3, kCols = 7;
  const std::array<double, kMaxSlopes> factors = {0.5, -1.25, 2, 0.75};
  const Host old = Host::random({kRows, kCols}, 1), start = Host::random({kRows, kCols}, 2);
  for (int count = 1; count <= kMaxSlopes; ++count) {
    for (const int masked : {0, 1, 2}) {  // no mask, one row, a matrix
      for (const bool adaptive : {false, true}) {
        CAPTURE(count);
        CAPTURE(masked);
        CAPTURE(adaptive);
        Host x = old, from = start, h({}, 0.2), free(masked == 1 ? Shape{1, kCols} : Shape{kRows, kCols}),
             worst({kRows}, kNan);
        for (std::size_t i = 0; i < free.values.size(); ++i) free[i] = i % 3 == 0 ? 0 : 1;
        std::vector<Host> k;
        std::array<View, kMaxSlopes> views;
        for (std::uint32_t j = 0; j < kMaxSlopes; ++j) k.push_back(Host::random({kRows, kCols}, 10 + j));
        for (std::size_t j = 0; j < views.size(); ++j) views[j] = k[j].view();
        const auto moves = [&](std::size_t i) { return masked == 0 || free[masked == 1 ? i % kCols : i] != 0; };
        const double s = 0.5 * (adaptive ? 0.2 : 1.0);
        std::vector<double> want = old.values, change(want.size());
        for (std::size_t i = 0; i < want.size(); ++i) {
          for (std::size_t j = 0; j < static_cast<std::size_t>(count); ++j) change[i] += s * factors[j] * k[j][i];
          if (moves(i)) want[i] = start.values[i] - change[i];
        }
        rk_stage({}, {.x = x.view(),
                      .from = from.view(),
                      .k = views,
                      .a = factors,
                      .count = count,
                      .h = adaptive ? h.view() : View{},
                      .step = 0.5,
                      .free = masked ? free.view() : View{}});
        CHECK(worst_difference(x.values, want) < 1e-15 * 10);
        for (std::size_t i = 0; i < want.size(); ++i) {
          if (!moves(i)) CHECK(x[i] == old.values[i]);
        }
        const auto measure = [&] {
          rk_error({}, {.x = x.view(),
                        .from = from.view(),
                        .k = views,
                        .e = factors,
                        .count = count,
                        .h = adaptive ? h.view() : View{},
                        .step = 0.5,
                        .absolute = 0.01,
                        .relative = 0.1,
                        .worst = worst.view(),
                        .free = masked ? free.view() : View{}});
        };
        measure();
        std::vector<double> worst_want(kRows);
        for (std::size_t i = 0; i < want.size(); ++i) {
          const double allowed = 0.01 + 0.1 * std::max(std::abs(x[i]), std::abs(start.values[i]));
          if (moves(i)) worst_want[i / kCols] = std::max(worst_want[i / kCols], std::abs(change[i]) / allowed);
        }
        CHECK(relative_error(worst.values, worst_want) < 1e-14);
        // A NaN of row 1 wins there and nowhere else, unless its entry is held.
        for (const std::int64_t col : {0, 1, 2, 6}) {
          for (Host* poisoned : {&k[0], &x, &from}) {
            const double saved = (*poisoned)(1, col);
            (*poisoned)(1, col) = kNan;
            measure();
            (*poisoned)(1, col) = saved;
            CHECK(std::isnan(worst[1]) == moves(static_cast<std::size_t>(kCols + col)));
            CHECK(!std::isnan(worst[0]));
            CHECK(!std::isnan(worst[2]));
          }
        }
      }
    }
  }
  Host x({2, 2});
  CHECK_THROWS_AS(rk_stage({}, {.x = x.view(), .from = x.view(), .k = {x.view()}, .count = 5}), Error);
  CHECK_THROWS_AS(rk_stage({}, {.x = x.view(), .from = x.view(), .k = {x.view()}, .count = 2}), Error);
}

TEST_CASE("rk_stage: a step in place, as Heun's method on dx/dt = -x") {
  // x1 = x0 - h x0; x0 - h/2 (x0 + x1) = x0 (1 - h + h^2/2)
  Host x({1, 1}, 2), k1({1, 1}, 2), k2({1, 1}), h({}, 0.5);
  rk_stage({}, {.x = k2.view(), .from = x.view(), .k = {k1.view()}, .a = {1}, .count = 1, .h = h.view()});
  rk_stage({},
           {.x = x.view(), .from = x.view(), .k = {k1.view(), k2.view()}, .a = {0.5, 0.5}, .count = 2, .h = h.view()});
  CHECK(x[0] == 2 * (1 - 0.5 + 0.125));
}

TEST_CASE("step_control: accepts, and chooses the next step") {
  struct Case {
    double error;
    bool accepted;
    double factor;
  };
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  // order 2: 0.9 / sqrt(error)
  for (const Case& c : {Case{0, true, 5},
                        {1e-320, true, 5},
                        {0.01, true, 5},
                        {0.36, true, 1.5},
                        {1, true, 0.9},
                        {4, false, 0.45},
                        {81, false, 0.2},
                        {kInfinity, false, 0.2},
                        {kNan, false, 0.2}}) {
    for (const double most : {100.0, 0.3}) {
      CAPTURE(c.error);
      CAPTURE(most);
      Host error({}, c.error), h({}, 0.25), accepted({}, kNan), time({}, 3);
      step_control({}, {.error = error.view(),
                        .h = h.view(),
                        .accepted = accepted.view(),
                        .time = time.view(),
                        .order = 2,
                        .most = most});
      CHECK(accepted[0] == (c.accepted ? 1 : 0));
      CHECK(time[0] == (c.accepted ? 3.25 : 3));
      CHECK(std::abs(h[0] - std::min(most, 0.25 * c.factor)) < 1e-15);
    }
  }
}

TEST_CASE("choose: one of two, in place too") {
  const Host left = Host::random({3, 5}, 1), right = Host::random({3, 5}, 2);
  for (const double says : {0.0, 1.0}) {
    for (const int place : {0, 1, 2}) {
      Host yes = left, no = right, apart({3, 5}, kNan), flag({}, says);
      Host& y = place == 0 ? apart : place == 1 ? yes : no;
      choose({}, {.yes = yes.view(), .no = no.view(), .y = y.view(), .flag = flag.view()});
      CHECK(same_bits(y.values, (says != 0 ? left : right).values));
    }
  }
}

// --- devices ---

TEST_CASE("exec: names of devices") {
  CHECK(ExecContext("cpu").name() == "cpu");
  CHECK(ExecContext("cpu").exec().device == Device::cpu);
  CHECK_NOTHROW(ExecContext("auto"));
  for (const char* wrong : {"gpu", "cuda:", "cuda:x", "cuda:-1", "", "CPU"}) {
    CAPTURE(wrong);
    CHECK_THROWS_AS(ExecContext{wrong}, Error);
  }
  CHECK_THROWS_AS(ExecContext{"cuda:999"}, Error);
}

TEST_CASE("exec: the devices say what they are, or why there is no GPU") {
  std::string why = "junk";
  const std::vector<DeviceInfo> list = devices(&why);
  REQUIRE(!list.empty());
  CHECK(list[0].name == "cpu");
  CHECK(list[0].memory > 0);
  CHECK(why.empty() == (list.size() > 1));
}

TEST_CASE("exec: memory of the CPU is aligned, even if it is none") {
  for (const std::size_t bytes : {0, 1, 63, 64, 1000}) {
    void* memory = allocate(Device::cpu, bytes);
    CHECK(reinterpret_cast<std::uintptr_t>(memory) % 64 == 0);
    release(Device::cpu, memory);
  }
  CHECK_THROWS_AS(allocate(Device::cpu, ~std::size_t{0} - 10), Error);
}

}  // namespace

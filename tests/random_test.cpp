// Philox against published vectors, the normal quantile against mpmath, and streams that do not depend on threads.
#include <array>
#include <set>

#include "kernels/random.h"
#include "tests/support.h"

namespace {

using namespace pc;
using namespace pc::test;
using kernels::Distribution;
using philox::Words;

TEST_CASE("philox4x32-10: Random123's known answers") {
  struct Known {
    Words counter;
    std::uint32_t key0, key1;
    Words out;
  };
  constexpr std::uint32_t kOnes = 0xffffffffU;
  const Known known[] = {
      {{{0, 0, 0, 0}}, 0, 0, {{0x6627e8d5U, 0xe169c58dU, 0xbc57ac4cU, 0x9b00dbd8U}}},
      {{{kOnes, kOnes, kOnes, kOnes}}, kOnes, kOnes, {{0x408f276dU, 0x41c83b0eU, 0xa20bc7c6U, 0x6d5451fdU}}},
      {{{0x243f6a88U, 0x85a308d3U, 0x13198a2eU, 0x03707344U}},
       0xa4093822U,
       0x299f31d0U,
       {{0xd16cfe09U, 0x94fdccebU, 0x5001e420U, 0x24126ea1U}}}};
  for (const Known& k : known) {
    const Words out = philox::philox4x32(k.counter, k.key0, k.key1);
    for (int i = 0; i < 4; ++i) CHECK(out.w[i] == k.out.w[i]);
  }
}

TEST_CASE("philox: seed, purpose, stream, draw and index all matter") {
  const std::uint64_t wide = std::uint64_t{1} << 40;
  const std::set<std::uint64_t> different = {
      philox::bits(1, Purpose::test, 0, 0, 0),    philox::bits(2, Purpose::test, 0, 0, 0),
      philox::bits(wide, Purpose::test, 0, 0, 0), philox::bits(1, Purpose::noise, 0, 0, 0),
      philox::bits(1, Purpose::test, 1, 0, 0),    philox::bits(1, Purpose::test, 0, 1, 0),
      philox::bits(1, Purpose::test, 0, 0, 1),    philox::bits(1, Purpose::test, 0, 0, wide)};
  CHECK(different.size() == 8);
}

TEST_CASE("uniform: never 0 or 1") {
  CHECK(philox::uniform(0) > 0);
  CHECK(philox::uniform(~std::uint64_t{0}) < 1);
  CHECK(philox::uniform(std::uint64_t{1} << 63) == doctest::Approx(0.5).epsilon(1e-15));
}

TEST_CASE("log: against the standard library") {
  for (double x = 1e-16; x < 1e16; x *= 1.37) {
    CHECK(std::abs(philox::log(x) - std::log(x)) <= 4e-16 * std::max(1.0, std::abs(std::log(x))));
  }
}

TEST_CASE("normal: against 40-digit quantiles") {
  struct Known {
    double u, x;
  };
  // mpmath, 40 digits: x = sqrt(2) erfinv(2 u - 1), of the double nearest to u
  constexpr Known kKnown[] = {
      {1.1102230246251565e-16, -8.209536151601386855631},
      {1e-300, -37.04709629936119923655},
      {1e-100, -21.27345356096532429418},
      {1e-20, -9.262340089798407579572},
      {1e-12, -7.034483825301131932614},
      {1e-11, -6.706023155495136296102},
      {1.5e-11, -6.646570887477112861428},
      {1e-09, -5.997807015007686861446},
      {1e-06, -4.753424308822898957339},
      {0.001, -3.090232306167813535358},
      {0.01, -2.326347874040841093075},
      {0.0249, -1.961677869063786016051},
      {0.05, -1.644853626951472687952},
      {0.0749, -1.440238267527963663112},
      {0.0750000001, -1.439531470232018791429},
      {0.1, -1.281551565544600435335},
      {0.25, -0.6744897501960817432022},
      {0.4, -0.2533471031357997413247},
      {0.4999, -0.0002506628300880074923889},
      {0.5, 0.0},
      {0.5001, 0.0002506628300880074923889},
      {0.6, 0.2533471031357997413247},
      {0.75, 0.6744897501960817432022},
      {0.9, 1.281551565544600593487},
      {0.9249, 1.438825392752540374189},
      {0.925001, 1.439538535345230394199},
      {0.975, 1.959963984540053855604},
      {0.999, 3.090232306167813277758},
      {0.999999999, 5.997807019601637426423},
      {0.9999999999999999, 8.209536151601386855631},
  };
  for (const Known& k : kKnown) {
    CAPTURE(k.u);
    CHECK(std::abs(philox::normal(k.u) - k.x) <= 1e-15 * std::max(1.0, std::abs(k.x)));
  }
}

/// The first four moments of a sample.
std::array<double, 4> moments(const std::vector<double>& sample) {
  std::array<double, 4> sums{};
  for (const double x : sample) {
    double power = 1;
    for (double& sum : sums) sum += power *= x;
  }
  for (double& sum : sums) sum /= static_cast<double>(sample.size());
  return sums;
}

TEST_CASE("random: moments") {
  Host out({1000, 1000});
  // A million draws: the standard error of the mean of x^k is sqrt(var(x^k)) / 1000; five of them are allowed.
  kernels::random({}, {.out = out.view(), .seed = 42, .purpose = Purpose::test});
  const auto normal = moments(out.values);
  CHECK(std::abs(normal[0]) < 5 * 1e-3);
  CHECK(std::abs(normal[1] - 1) < 5 * std::sqrt(2.0) * 1e-3);
  CHECK(std::abs(normal[2]) < 5 * std::sqrt(15.0) * 1e-3);
  CHECK(std::abs(normal[3] - 3) < 5 * std::sqrt(96.0) * 1e-3);

  kernels::random({}, {.out = out.view(), .distribution = Distribution::uniform, .a = -1, .b = 3, .seed = 42});
  const auto uniform = moments(out.values);
  CHECK(std::abs(uniform[0] - 1) < 5 * std::sqrt(4.0 / 3) * 1e-3);
  CHECK(std::abs(uniform[1] - 7.0 / 3) < 5 * 2.5e-3);
  CHECK(*std::min_element(out.values.begin(), out.values.end()) > -1);
  CHECK(*std::max_element(out.values.begin(), out.values.end()) < 3);
}

TEST_CASE("random: mean and deviation, add, and draws counted by a step") {
  Host plain({6, 5}), scaled({6, 5}), added({6, 5}, 10), later({6, 5}), stepped({6, 5}), step({}, 3);
  kernels::random({}, {.out = plain.view(), .seed = 7});
  kernels::random({}, {.out = scaled.view(), .a = 2, .b = 0.5, .seed = 7});
  kernels::random({}, {.out = added.view(), .seed = 7, .write = Write::add});
  kernels::random({}, {.out = later.view(), .seed = 7, .draw = 5});
  kernels::random({}, {.out = stepped.view(), .seed = 7, .draw = 2, .step = step.view()});
  for (std::size_t i = 0; i < plain.values.size(); ++i) {
    CHECK(scaled[i] == std::fma(0.5, plain[i], 2.0));
    CHECK(added[i] == 10 + plain[i]);
    CHECK(later[i] != plain[i]);
  }
  CHECK(same_bits(stepped.values, later.values));
}

TEST_CASE("random: the same numbers for any sharing, shape of the batch, or stride") {
  Host whole({29, 5}), shared({29, 5}), wide({29, 8}), first({11, 5});
  kernels::RandomArgs args{.out = whole.view(), .seed = 3, .stream = 2};
  kernels::random_cpu(args, Share{});
  args.out = shared.view();
  for (int i = 2; i >= 0; --i) kernels::random_cpu(args, Share{i, 3});
  CHECK(same_bits(whole.values, shared.values));
  args.out = wide.view().columns(2, 5);
  kernels::random_cpu(args, Share{});
  args.out = first.view();
  kernels::random_cpu(args, Share{});
  for (std::int64_t row = 0; row < 29; ++row) {
    for (std::int64_t col = 0; col < 5; ++col) {
      CHECK(wide(row, col + 2) == whole(row, col));
      if (row < 11) CHECK(first(row, col) == whole(row, col));
    }
  }
}

}  // namespace

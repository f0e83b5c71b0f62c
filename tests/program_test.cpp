// Programs: recorded calls do what direct calls do, and threads wait for each other where they must and only there.
#include "kernels/program.h"

#include <algorithm>

#include "kernels/arithmetic.h"
#include "kernels/energy.h"
#include "kernels/gemm.h"
#include "kernels/map.h"
#include "kernels/reduce.h"
#include "kernels/sparse.h"
#include "kernels/value_update.h"
#include "kernels/weight_update.h"
#include "tests/support.h"

namespace {

using namespace pc;
using namespace pc::test;
using kernels::Activation, kernels::Trans;

constexpr std::int64_t kBatch = 37, kIn = 11, kOut = 19;

/// One layer that relaxes and learns: every kind of touch is in it.
struct Layer {
  Host x = Host::random({kBatch, kIn}, 1), y = Host::random({kBatch, kOut}, 2), w = Host::random({kOut, kIn}, 3);
  Host z{{kBatch, kOut}}, delta{{kBatch, kOut}}, dz{{kBatch, kOut}}, dx{{kBatch, kIn}}, dw{{kOut, kIn}};
  Host energy{{kBatch}}, steepest{{kBatch}}, total{{}}, rate{{}, 0.01}, bias{{kOut}};

  void steps(const Exec& exec) {
    for (int step = 0; step < 3; ++step) {
      kernels::gemm(exec, {.a = x.view(), .b = w.view(), .c = z.view(), .trans_b = Trans::yes});
      kernels::add_row(exec, {.row = bias.view(), .y = z.view()});
      kernels::map_error(exec, {.x = y.view(),
                                .z = z.view(),
                                .delta = delta.view(),
                                .dz = dz.view(),
                                .energy = energy.view(),
                                .f = Activation::tanh});
      kernels::sum(exec, {.in = energy.view(), .out = total.view()});
      kernels::gemm(exec, {.a = dz.view(), .b = w.view(), .c = dx.view()});
      kernels::value_sgd(exec, {.g = {.x = x.view(), .back = dx.view(), .steepest = steepest.view()}});
      kernels::gemm(exec, {.a = dz.view(), .b = x.view(), .c = dw.view(), .trans_a = Trans::yes});
      kernels::weight_sgd(exec, {.g = {.w = w.view(), .dw = dw.view(), .rate = rate.view()}});
      kernels::sum_rows(exec, {.x = dz.view(), .row = bias.view(), .write = Write::add});
    }
  }

  [[nodiscard]] std::vector<double> state() const {
    std::vector<double> all;
    for (const Host* h : {&x, &y, &w, &z, &delta, &dz, &dx, &dw, &energy, &steepest, &total, &bias}) {
      all.insert(all.end(), h->values.begin(), h->values.end());
    }
    return all;
  }
};

TEST_CASE("program: recording runs nothing, running does what direct calls do, on any number of threads") {
  Layer direct;
  direct.steps({});
  for (const int threads : {1, 2, 3, 4}) {
    CAPTURE(threads);
    Layer recorded;
    const std::vector<double> before = recorded.state();
    Program program;
    recorded.steps({.recorder = &program});
    CHECK(same_bits(recorded.state(), before));
    program.run({}, threads);
    CHECK(same_bits(recorded.state(), direct.state()));
  }
}

TEST_CASE("program: can be run again") {
  Layer twice, again;
  twice.steps({});
  twice.steps({});
  Program program;
  again.steps({.recorder = &program});
  program.run({}, 2);
  program.run({}, 2);
  CHECK(same_bits(again.state(), twice.state()));
}

/// Which calls have a barrier before them, as text: "-" no, "|" yes.
std::string barriers(const Program& program) {
  std::string text;
  for (std::size_t i = 0; i < program.calls().size(); ++i) text += program.barrier_before(i) ? '|' : '-';
  return text;
}

struct Barriers {
  Program program;
  Exec exec{.recorder = &program};
  Host a{{kBatch, kIn}}, b{{kBatch, kIn}}, c{{kBatch, kIn}}, w{{kIn, kIn}}, dw{{kIn, kIn}}, rate{{}}, total{{}};
};

TEST_CASE("program: any order that keeps the dependencies gives the same bits, over several runs in a row") {
  Layer plain, reordered;
  for (int time = 0; time < 3; ++time) plain.steps({});
  Program recorded;
  reordered.steps({.recorder = &recorded});
  const auto dependencies = recorded.dependencies(3);
  const std::size_t n = recorded.calls().size();
  REQUIRE(dependencies.size() == 3 * n);
  std::size_t edges = 0;
  for (const auto& list : dependencies) edges += list.size();
  CHECK(edges < 3 * 3 * n);  // those that follow from others are left out
  // Of the calls that are ready, always the last: as far from the recorded order as can be.
  std::vector<bool> done(3 * n, false);
  std::size_t out_of_order = 0, latest = 0;
  for (std::size_t count = 0; count < 3 * n; ++count) {
    std::size_t next = 3 * n;
    for (std::size_t j = 3 * n; j-- > 0 && next == 3 * n;) {
      const auto& before = dependencies[j];
      if (!done[j] && std::all_of(before.begin(), before.end(), [&](std::size_t i) { return bool(done[i]); })) next = j;
    }
    REQUIRE(next < 3 * n);
    done[next] = true;
    out_of_order += next < latest ? 1 : 0;
    latest = std::max(latest, next);
    recorded.calls()[next % n].cpu({});
  }
  CHECK(out_of_order > 0);
  CHECK(same_bits(reordered.state(), plain.state()));

  Layer in_a_row;
  Program again;
  in_a_row.steps({.recorder = &again});
  again.run({}, 2, 3);
  CHECK(same_bits(in_a_row.state(), plain.state()));
}

TEST_CASE("program: row-local calls need no barrier") {
  Barriers t;
  kernels::map(t.exec, {.x = t.a.view(), .y = t.b.view()});
  kernels::axpby(t.exec, {.x = t.b.view(), .y = t.c.view()});
  kernels::multiply(t.exec, {.a = t.b.view(), .b = t.c.view(), .y = t.a.view()});  // over what the first call read
  kernels::gemm(t.exec, {.a = t.a.view(), .b = t.w.view(), .c = t.b.view()});      // all of w, but nobody wrote it
  CHECK(barriers(t.program) == "----");
}

TEST_CASE("program: reading all of what was written by rows needs one, and one is enough") {
  Barriers t;
  kernels::map(t.exec, {.x = t.a.view(), .y = t.b.view()});
  kernels::gemm(t.exec, {.a = t.b.view(), .b = t.a.view(), .c = t.dw.view(), .trans_a = Trans::yes});
  kernels::sum(t.exec, {.in = t.b.view(), .out = t.total.view()});
  CHECK(barriers(t.program) == "-|-");
}

TEST_CASE("program: writing by rows what another thread still reads needs one") {
  Barriers t;
  kernels::gemm(t.exec, {.a = t.a.view(), .b = t.w.view(), .c = t.b.view()});
  kernels::weight_sgd(t.exec, {.g = {.w = t.w.view(), .dw = t.dw.view(), .rate = t.rate.view()}});
  kernels::fill(t.exec, {.out = t.w.view()});  // by the same rows again
  kernels::gemm(t.exec, {.a = t.a.view(), .b = t.w.view(), .c = t.b.view()});
  CHECK(barriers(t.program) == "-|-|");
}

TEST_CASE("program: a scalar written by one thread is waited for") {
  Barriers t;
  kernels::tick(t.exec, {.counter = t.rate.view()});
  kernels::weight_sgd(t.exec, {.g = {.w = t.w.view(), .dw = t.dw.view(), .rate = t.rate.view()}});
  kernels::tick(t.exec, {.counter = t.rate.view()});
  CHECK(barriers(t.program) == "-||");
}

TEST_CASE("program: columns of one matrix share its rows; its first rows alone do not") {
  Barriers t;
  kernels::fill(t.exec, {.out = t.a.view().columns(0, 4)});
  kernels::map(t.exec, {.x = t.a.view().columns(2, 5), .y = t.b.view().columns(0, 5)});
  kernels::fill(t.exec, {.out = t.a.view().first_rows(8)});
  CHECK(barriers(t.program) == "--|");
}

TEST_CASE("program: what would do again what is done is left out, and nothing else") {
  Host x = Host::random({3, 5}, 1), other = Host::random({3, 5}, 2), y{{5, 3}}, z{{5, 3}}, factor{{}};
  Program program;
  const Exec exec{.recorder = &program};
  const auto calls_after = [&](const View& from, const View& to) {
    kernels::transpose(exec, {.x = from, .y = to});
    return program.calls().size();
  };
  CHECK(calls_after(x.view(), y.view()) == 1);
  CHECK(calls_after(x.view(), y.view()) == 1);
  CHECK(calls_after(x.view(), z.view()) == 2);
  CHECK(calls_after(x.view(), y.view()) == 2);  // z is elsewhere
  CHECK(calls_after(x.view().first_rows(2), y.view().columns(0, 2)) == 3);
  CHECK(calls_after(x.view(), y.view()) == 4);  // some of it was written
  CHECK(calls_after(other.view(), y.view()) == 5);
  CHECK(calls_after(x.view(), y.view()) == 6);
  kernels::scale_by(exec, {.y = x.view(), .by = factor.view()});
  CHECK(program.calls().size() == 7);
  CHECK(calls_after(x.view(), y.view()) == 8);
  CHECK(calls_after(x.view(), z.view()) == 9);
}

TEST_CASE("program: work and traffic are summed") {
  Barriers t;
  CHECK(t.program.flops() == 0);
  t.program.part("first");
  kernels::gemm(t.exec, {.a = t.a.view(), .b = t.w.view(), .c = t.b.view()});
  t.program.part("second");
  kernels::multiply(t.exec, {.a = t.a.view(), .b = t.b.view(), .y = t.c.view()});
  constexpr double kMatrix = kBatch * kIn;
  CHECK(t.program.flops() == 2 * kMatrix * kIn + kMatrix);
  CHECK(t.program.bytes() == 8 * (2 * kMatrix + kIn * kIn + 3 * kMatrix));
  CHECK(t.program.calls()[0].kernel == "gemm");
  CHECK(t.program.calls()[0].part == "first");
  CHECK(t.program.calls()[1].part == "second");
}

/// Fills the rows that are not this share's with NaN, where the call says that it looks at its own rows only.
void poison_other_rows(const Touch& touch, Share share) {
  const auto [begin, end] = share.of(touch.view.rows());
  for (std::int64_t row = 0; row < touch.view.rows(); ++row) {
    if (row >= begin && row < end) continue;
    pc::test::detail::with_any(touch.view.dtype, [&, row = row]<class T>(T) {
      std::fill_n(touch.view.row<T>(row), touch.view.cols(), static_cast<T>(std::nan("")));
    });
  }
}

std::vector<double> rows_of(const View& v, std::int64_t begin, std::int64_t end) {
  std::vector<double> list;
  pc::test::detail::with_any(v.dtype, [&]<class T>(T) {
    for (std::int64_t row = begin; row < end; ++row) list.insert(list.end(), v.row<T>(row), v.row<T>(row) + v.cols());
  });
  return list;
}

bool all_nan(const std::vector<double>& list) {
  return std::all_of(list.begin(), list.end(), [](double x) { return std::isnan(x); });
}

// Barriers are placed by what calls say that they touch; this is the test that they say the truth.
TEST_CASE("every kernel: a thread stays within the rows that the call declares, both reading and writing") {
  const Share share{1, 3};
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const kernels::KernelCase& k : kernels::all_cases(dtype)) {
      CAPTURE(k.name);
      KeepCall whole, part;
      const CaseOnDevice all({}, k), some({}, k);
      all.run({.recorder = &whole});
      some.run({.recorder = &part});
      for (const Touch& touch : part.kept.touches) {
        if (!touch.all) poison_other_rows(touch, share);
      }
      whole.kept.cpu(Share{});
      part.kept.cpu(share);
      for (std::size_t i = 0; i < part.kept.touches.size(); ++i) {
        const Touch& touch = part.kept.touches[i];
        if (!touch.write || touch.all) continue;
        const View &want = whole.kept.touches[i].view, &got = touch.view;
        const auto [begin, end] = share.of(got.rows());
        CHECK(same_bits(rows_of(got, begin, end), rows_of(want, begin, end)));
        CHECK(all_nan(rows_of(got, 0, begin)));
        CHECK(all_nan(rows_of(got, end, got.rows())));
      }
    }
  }
}

TEST_CASE("program: what a call throws, on any thread, comes out when all have stopped, and the next run is whole") {
  Host x = Host::random({kBatch, kIn}, 1), y{{kBatch, kIn}};
  for (const int thrower : {0, 1, 2}) {
    CAPTURE(thrower);
    bool throws = true;
    Program program;
    Exec exec;
    exec.recorder = &program;
    kernels::copy(exec, {.in = x.view(), .out = y.view()});
    Call bad{.kernel = "bad", .cpu = [&](Share share) {
               if (throws && share.index == thrower) throw std::bad_alloc();
             }};
    Touches touches;
    touches.write_all(y.view());  // so that all wait before it, and after it
    bad.touches = std::move(touches).take();
    program.record(bad);
    kernels::copy(exec, {.in = x.view(), .out = y.view()});
    CHECK_THROWS_AS(program.run({}, 3), std::bad_alloc);
    throws = false;
    std::fill(y.values.begin(), y.values.end(), NAN);
    program.run({}, 3);
    CHECK(y.values == x.values);
  }
}

}  // namespace

// Every operator in the list with every example: nothing here names an operator that could be forgotten.
#include <set>

#include "tests/networks.h"

namespace pc::test {
namespace {

/// An operator at work on a device: sources, weights, and room for what comes out.
class Bench {
 public:
  Bench(const Op& op, const OpExample& example, std::int64_t batch, DType dtype)
      : op_(op), arena_(test_exec()), attrs_(complete_attrs(op, example.attrs)), batch_(batch), dtype_(dtype) {
    const OpSite site{example.sources, attrs_, example.wanted, example.pattern.get()};
    out_shape = op.infer(site);
    for (const Shape& shape : example.sources) x_.push_back(take(shape.batched(batch)));
    if (op.params != nullptr) {
      for (const ParamSpec& spec : op.params(site, out_shape)) w_.push_back(take(spec.shape));
    }
    if (op.sparse) place(*example.pattern);
    if (op.state_serves == Op::Serves::all) {
      for (const StateSpec& spec : op.state(attrs_, out_shape)) set(state_.emplace_back(take(spec.shape)), spec.fixed);
    }
  }

  [[nodiscard]] std::size_t sources() const { return x_.size(); }
  [[nodiscard]] std::size_t params() const { return w_.size(); }
  [[nodiscard]] std::int64_t out_count() const { return out_shape.count() * batch_; }
  [[nodiscard]] View x(std::size_t i) const { return x_[i]; }
  [[nodiscard]] View w(std::size_t i) const { return w_[i]; }
  void set(const View& view, const Values& values) const { arena_.write(view, values); }
  [[nodiscard]] Values get(const View& view) const { return arena_.read(view); }

  /// Fills everything with noise, away from the kinks at -1, 0 and 1.
  void fill(std::uint64_t seed) const {
    Dice dice(seed);
    for (const auto* list : {&x_, &w_}) {
      for (const View& view : *list) {
        Values values = dice.normals(view.count());
        for (double& entry : values) {
          while (std::min({std::abs(entry), std::abs(entry - 1), std::abs(entry + 1)}) < 0.01) entry = dice.normal();
        }
        arena_.write(view, values);
      }
    }
  }

  // Each runs on a view that holds `junk`, which may be a part of wider memory, and gives what the view holds then.
  Values predict(Write write, const Values& junk, bool wide = false) {
    return run(out_shape.batched(batch_), junk, wide, [&](const View& mu) { op_.predict(call(), mu, write); });
  }
  Values predict() { return predict(Write::set, Values(index(out_count()), NAN)); }
  Values pullback(const Values& delta, std::size_t source, Write write, const Values& junk, bool wide = false) {
    const View d = take(out_shape.batched(batch_));
    arena_.write(d, delta);
    return run(x_[source].shape, junk, wide, [&](const View& dx) {
      if (op_.prepare != nullptr) op_.prepare(call());
      op_.pullback(call(), d, static_cast<int>(source), dx, write);
    });
  }
  Values weight_grad(const Values& delta, std::size_t param, Write write, const Values& junk) {
    const View d = take(out_shape.batched(batch_));
    arena_.write(d, delta);
    return run(w_[param].shape, junk, false,
               [&](const View& dw) { op_.weight_grad(call(), d, static_cast<int>(param), dw, write); });
  }

  Shape out_shape;

 private:
  View take(const Shape& shape) { return arena_.take("t" + std::to_string(made_++), shape, dtype_); }
  [[nodiscard]] OpCall call() const {
    return {arena_.exec(), x_, w_, attrs_, op_.sparse ? &sparse_ : nullptr, false, state_};
  }

  void place(const Pattern& pattern) {
    const auto numbers = [&](const auto& list) {
      const View view = arena_.take("t" + std::to_string(made_++), {length(list)}, DType::i32);
      arena_.upload(view, std::vector<std::int32_t>(list.begin(), list.end()).data());
      return view;
    };
    const auto [turned, position] = transposed(pattern);
    sparse_ = {.by_row = {numbers(pattern.offsets), numbers(pattern.columns)},
               .by_column = {numbers(turned.offsets), numbers(turned.columns)},
               .place_by_column = numbers(position),
               .values_by_column = take({pattern.count()}),
               .source_room = take({pattern.cols, batch_ + 3}),
               .target_room = take({pattern.rows, batch_ + 3})};
  }

  template <class Body>
  Values run(const Shape& shape, const Values& junk, bool wide, Body&& body) {
    const View packed = take(shape);
    if (!wide) {
      arena_.write(packed, junk);
      body(packed);
      return arena_.read(packed);
    }
    constexpr std::int64_t kLeft = 2, kRight = 1;
    const std::int64_t rows = packed.rows(), cols = packed.cols(), width = kLeft + cols + kRight;
    const View memory = take({rows, width});
    Values all(index(rows * width), 77.0);
    for (std::int64_t i = 0; i < rows * cols; ++i) all[index(i / cols * width + kLeft + i % cols)] = junk[index(i)];
    arena_.write(memory, all);
    body(memory.columns(kLeft, cols));
    all = arena_.read(memory);
    Values inside;
    for (std::int64_t i = 0; i < rows * width; ++i) {
      const bool in = i % width >= kLeft && i % width < kLeft + cols;
      if (in) inside.push_back(all[index(i)]);
      if (!in) CHECK(all[index(i)] == 77.0);
    }
    return inside;
  }

  const Op& op_;
  Arena arena_;
  Attrs attrs_;
  std::int64_t batch_;
  DType dtype_;
  std::vector<View> x_, w_, state_;
  SparseViews sparse_;
  int made_ = 0;
};

double dot(const Values& a, const Values& b) {
  REQUIRE(a.size() == b.size());
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// d <op(x; w), probe> / d(wrt) by central differences.
Values numeric(Bench& bench, const View& wrt, const Values& probe) {
  Values at = bench.get(wrt), slopes;
  const double h = 1e-5;
  for (double& entry : at) {
    const double keep = entry;
    const auto value = [&](double moved) {
      entry = moved;
      bench.set(wrt, at);
      return dot(bench.predict(), probe);
    };
    slopes.push_back((value(keep + h) - value(keep - h)) / (2 * h));
    entry = keep;
  }
  bench.set(wrt, at);
  return slopes;
}

/// The result in both write modes, over junk: NaN where it is to be overwritten.
template <class Run>
void check_output(const Values& want, double tolerance, Run&& run) {
  Dice dice(9);
  const Values junk = dice.normals(length(want));
  CHECK(worst_difference(run(Write::set, Values(want.size(), NAN)), want) < tolerance);
  Values added = run(Write::add, junk);
  for (std::size_t i = 0; i < added.size(); ++i) added[i] -= junk[i];
  CHECK(worst_difference(added, want) < tolerance);
}

/// batch_norm with the statistics of the batch, channel by channel.
Values naive_batch_norm(const Op& op, const Attrs& attrs, const Values& x, const std::vector<Values>& w,
                        const Shape& sample) {
  REQUIRE(op.name == "batch_norm");  // the only operator that looks at several samples
  const std::size_t channels = last_of(sample), places = x.size() / channels;
  Values y(x.size());
  for (std::size_t c = 0; c < channels; ++c) {
    double mean = 0, variance = 0;
    for (std::size_t i = c; i < x.size(); i += channels) mean += x[i] / double(places);
    for (std::size_t i = c; i < x.size(); i += channels) variance += (x[i] - mean) * (x[i] - mean) / double(places);
    for (std::size_t i = c; i < x.size(); i += channels) {
      y[i] = (x[i] - mean) / std::sqrt(variance + attrs.at("epsilon"));
      if (!w.empty()) y[i] = w[0][c] * y[i] + w[1][c];
    }
  }
  return y;
}

template <class Body>
void each_example(Body&& body) {
  for (const Op* op : all_ops()) {
    const std::string name(op->name);
    CAPTURE(name);
    REQUIRE((op->examples != nullptr));
    REQUIRE(!op->examples().empty());
    for (std::size_t example = 0; example < op->examples().size(); ++example) {
      CAPTURE(example);
      body(*op, op->examples()[example]);
    }
  }
}

}  // namespace

TEST_CASE("every op: derivatives agree with central differences, in both write modes") {
  each_example([](const Op& op, const OpExample& example) {
    Bench bench(op, example, 3, DType::f64);
    bench.fill(1);
    Dice dice(2);
    const Values probe = dice.normals(bench.out_count());  // a probe of ones would hide mistakes
    for (std::size_t source = 0; source < bench.sources(); ++source) {
      CAPTURE(source);
      const Values want = numeric(bench, bench.x(source), probe);
      for (const bool wide : {false, true}) {
        CAPTURE(wide);
        check_output(want, 1e-8,
                     [&](Write write, const Values& junk) { return bench.pullback(probe, source, write, junk, wide); });
      }
    }
    for (std::size_t param = 0; param < bench.params(); ++param) {
      CAPTURE(param);
      check_output(numeric(bench, bench.w(param), probe), 1e-8,
                   [&](Write write, const Values& junk) { return bench.weight_grad(probe, param, write, junk); });
    }
  });
}

TEST_CASE("every op: the prediction is the naive one, in both write modes, strided or not") {
  each_example([](const Op& op, const OpExample& example) {
    constexpr std::int64_t kBatch = 3;
    Bench bench(op, example, kBatch, DType::f64);
    bench.fill(3);
    Link link{&op, complete_attrs(op, example.attrs), {}, bench.out_shape, example.pattern};
    std::vector<Values> w;
    for (std::size_t p = 0; p < bench.params(); ++p) {
      link.params.push_back(static_cast<ParamId>(p));
      w.push_back(bench.get(bench.w(p)));
    }
    Values want;
    if (op.mixes_samples) want = naive_batch_norm(op, link.attrs, bench.get(bench.x(0)), w, example.sources[0]);
    for (std::int64_t b = 0; b < kBatch && !op.mixes_samples; ++b) {
      std::vector<Values> rows;
      for (std::size_t i = 0; i < bench.sources(); ++i) rows.push_back(rows_of(bench.get(bench.x(i)), kBatch, b, 1));
      std::vector<const Values*> x;
      for (const Values& row : rows) x.push_back(&row);
      const Values mu = naive_op<double>(link, x, w, example.sources);
      want.insert(want.end(), mu.begin(), mu.end());
    }
    for (const bool wide : {false, true}) {
      CAPTURE(wide);
      check_output(want, 1e-12, [&](Write write, const Values& junk) { return bench.predict(write, junk, wide); });
    }
  });
}

TEST_CASE("every op: J and its transpose are adjoint") {
  each_example([](const Op& op, const OpExample& example) {
    Bench bench(op, example, 2, DType::f64);
    bench.fill(4);
    Dice dice(5);
    const Values u = dice.normals(bench.out_count());
    for (std::size_t source = 0; source < bench.sources(); ++source) {
      const Values at = bench.get(bench.x(source)), v = dice.normals(length(at));
      const double h = 1e-5;
      const auto moved = [&](double by) {
        Values to = at;
        for (std::size_t i = 0; i < to.size(); ++i) to[i] += by * v[i];
        bench.set(bench.x(source), to);
        return bench.predict();
      };
      const Values plus = moved(h), minus = moved(-h);
      bench.set(bench.x(source), at);
      Values jv(plus.size());
      for (std::size_t i = 0; i < jv.size(); ++i) jv[i] = (plus[i] - minus[i]) / (2 * h);
      const Values jtu = bench.pullback(u, source, Write::set, Values(at.size(), NAN));
      CHECK(std::abs(dot(u, jv) - dot(jtu, v)) < 1e-7);
    }
  });
}

TEST_CASE("every op: a batch is its samples one by one") {
  constexpr std::int64_t kBatch = 5;
  each_example([](const Op& op, const OpExample& example) {
    if (op.mixes_samples) return;
    Bench many(op, example, kBatch, DType::f64);
    many.fill(6);
    Dice dice(7);
    const Values delta = dice.normals(many.out_count()), mu = many.predict();
    std::vector<Values> dx, dw(many.params());
    for (std::size_t i = 0; i < many.sources(); ++i) {
      dx.push_back(many.pullback(delta, i, Write::set, Values(index(many.x(i).count()), NAN)));
    }
    for (std::int64_t b = 0; b < kBatch; ++b) {
      Bench one(op, example, 1, DType::f64);
      for (std::size_t i = 0; i < many.sources(); ++i) one.set(one.x(i), rows_of(many.get(many.x(i)), kBatch, b, 1));
      for (std::size_t i = 0; i < many.params(); ++i) one.set(one.w(i), many.get(many.w(i)));
      const Values d = rows_of(delta, kBatch, b, 1);
      CHECK(worst_difference(one.predict(), rows_of(mu, kBatch, b, 1)) < 1e-13);
      for (std::size_t i = 0; i < one.sources(); ++i) {
        CHECK(worst_difference(one.pullback(d, i, Write::set, Values(index(one.x(i).count()), NAN)),
                               rows_of(dx[i], kBatch, b, 1)) < 1e-13);
      }
      for (std::size_t i = 0; i < one.params(); ++i) {  // adds up over the samples
        if (b == 0) dw[i].assign(index(one.w(i).count()), 0);
        dw[i] = one.weight_grad(d, i, Write::add, dw[i]);
      }
    }
    for (std::size_t i = 0; i < many.params(); ++i) {
      CHECK(worst_difference(many.weight_grad(delta, i, Write::set, Values(dw[i].size(), NAN)), dw[i]) < 1e-13);
    }
  });
}

TEST_CASE("every op: float32 agrees with float64") {
  each_example([](const Op& op, const OpExample& example) {
    Bench single(op, example, 4, DType::f32), twice(op, example, 4, DType::f64);
    single.fill(8);
    const auto rounded = [](Values values) {
      for (double& entry : values) entry = double(float(entry));
      return values;
    };
    for (std::size_t i = 0; i < twice.sources(); ++i) twice.set(twice.x(i), single.get(single.x(i)));
    for (std::size_t i = 0; i < twice.params(); ++i) twice.set(twice.w(i), single.get(single.w(i)));
    Dice dice(10);
    const Values delta = rounded(dice.normals(twice.out_count()));
    const double tolerance = 1e-5;
    CHECK(worst_difference(single.predict(), twice.predict()) < tolerance);
    for (std::size_t i = 0; i < twice.sources(); ++i) {
      const Values junk(index(twice.x(i).count()), NAN);
      CHECK(worst_difference(single.pullback(delta, i, Write::set, junk), twice.pullback(delta, i, Write::set, junk)) <
            tolerance);
    }
    for (std::size_t i = 0; i < twice.params(); ++i) {
      const Values junk(index(twice.w(i).count()), NAN);
      CHECK(worst_difference(single.weight_grad(delta, i, Write::set, junk),
                             twice.weight_grad(delta, i, Write::set, junk)) < tolerance);
    }
  });
}

TEST_CASE("every op: stretches no change by more than its bound, and activations reach theirs") {
  std::map<std::string_view, double> reached;  // of the bound, by the activations
  each_example([&](const Op& op, const OpExample& example) {
    if (op.lipschitz == nullptr) return;
    constexpr std::int64_t kBatch = 400;
    Bench bench(op, example, kBatch, DType::f64);
    bench.fill(11);
    double bound = op.lipschitz(complete_attrs(op, example.attrs));
    // The largest factor of a matrix is no more than its Frobenius norm.
    if (bench.params() > 0) bound *= std::sqrt(dot(bench.get(bench.w(0)), bench.get(bench.w(0))));
    Dice dice(12);
    for (std::size_t source = 0; source < bench.sources(); ++source) {
      CAPTURE(source);
      for (const double size : {1e-3, 0.1, 3.0}) {
        const std::int64_t n = bench.x(source).count() / kBatch;
        const Values at = dice.normals(kBatch * n, 3), by = dice.normals(kBatch * n, size);
        Values to = at;
        for (std::size_t i = 0; i < to.size(); ++i) to[i] += by[i];
        bench.set(bench.x(source), at);
        const Values before = bench.predict();
        bench.set(bench.x(source), to);
        Values change = bench.predict();
        for (std::size_t i = 0; i < change.size(); ++i) change[i] -= before[i];
        bool within = true;
        for (std::int64_t b = 0; b < kBatch; ++b) {
          const Values moved = rows_of(by, kBatch, b, 1), came = rows_of(change, kBatch, b, 1);
          const double length = std::sqrt(dot(moved, moved)), stretch = std::sqrt(dot(came, came));
          within = within && stretch <= bound * length + 1e-13;  // rounding
          if (op.activation && length > 1e-5) {
            reached[op.name] = std::max(reached[op.name], stretch / (bound * length));
          }
        }
        CHECK(within);
      }
    }
  });
  for (const auto& [name, part] : reached) {
    const std::string activation(name);
    CAPTURE(activation);
    CHECK(part > 0.99);
  }
  CHECK(reached.size() >= 9);
  for (const Op* op : {&ops::multiply, &ops::matmul}) CHECK((op->lipschitz == nullptr));
  CHECK(ops::scale.lipschitz({{"by", -3}}) == 3);
  CHECK(ops::linear.lipschitz({{"gain", -0.5}}) == 0.5);
}

TEST_CASE("every op: is found by its name, which no other has, and says what it does") {
  std::set<std::string_view> names;
  for (const Op* op : all_ops()) {
    CHECK(&find_op(op->name) == op);
    CHECK(names.insert(op->name).second);
    CHECK(!op->about.empty());
    CHECK((op->params == nullptr) == (op->weight_grad == nullptr));
    CHECK((op->pullback != nullptr || op->max_sources == 0));
    for (const AttrSpec& attr : op->attrs) CHECK(!attr.about.empty());
  }
  CHECK(contains(error_of([] { find_op("liner"); }), "no operator named \"liner\""));
}

TEST_CASE("ops: settings have defaults, and an unknown one is named with those that there are") {
  const Attrs attrs = complete_attrs(ops::linear, {{"bias", 0}});
  CHECK(attrs.at("bias") == 0);
  CHECK(attrs.at("units") == 0);
  const std::string wrong = error_of([] { complete_attrs(ops::linear, {{"width", 3}}); });
  CHECK(contains(wrong, "linear has no setting \"width\""));
  CHECK(contains(error_of([] { complete_attrs(ops::linear, {{"bias", 7}}); }), "bias must be 0 or 1, not 7"));
  CHECK(contains(wrong, "units, bias"));
  CHECK(contains(error_of([] { complete_attrs(ops::tanh, {{"slope", 1}}); }), "it has none"));
}

TEST_CASE("ops: a setting that is a list comes back as it was set, and has no entries by default") {
  Values list;  // of more than ten, whose names are not in their order
  for (int i = 0; i < 25; ++i) list.push_back(7 * i % 25);
  Attrs given;
  set_list(given, "places", list);
  CHECK(list_of(complete_attrs(ops::gather, given), "places") == list);
  CHECK(list_of(complete_attrs(ops::gather, {}), "places").empty());
  CHECK(contains(error_of([] { complete_attrs(ops::gather, {{"place.0", 1}}); }), "it has: places, axis"));
  CHECK(contains(error_of([] { complete_attrs(ops::gather, {{"axis.0", 1}}); }), "no setting \"axis.0\""));
}

TEST_CASE("ops: shapes that do not fit") {
  const auto infer = [](const Op& op, std::vector<Shape> sources, Attrs attrs, std::optional<Shape> wanted) {
    const Attrs all = complete_attrs(op, attrs);
    return error_of([&] { op.infer({sources, all, wanted}); });
  };
  CHECK(contains(infer(ops::linear, {{3}}, {}, {}), "width is not known"));
  CHECK(infer(ops::linear, {{3}}, {{"units", 2}}, {}).empty());
  CHECK(contains(infer(ops::constant, {}, {}, {}), "not known"));
  const std::string add = infer(ops::add, {{3}, {2}}, {}, {});
  CHECK(contains(add, "[3]"));
  CHECK(contains(add, "[2]"));
  CHECK(contains(infer(ops::multiply, {{6}, {2, 3}}, {}, {}), "[2, 3]"));
  CHECK(infer(ops::concat, {{6}, {2, 3}}, {}, {}).empty());
  CHECK(contains(infer(ops::subtract, {{6}, {2, 3}}, {}, {}), "[2, 3]"));
  CHECK(contains(infer(ops::matmul, {{3, 5}, {3, 5}}, {}, {}), "[3, 5] times [3, 5], whose inner dimensions differ"));
  CHECK(infer(ops::matmul, {{3, 5}, {3, 5}}, {{"trans_b", 1}}, {}).empty());
  CHECK(contains(infer(ops::matmul, {{3, 5}, {5, 2, 1}}, {}, {}), "not [3, 5] and [5, 2, 1]"));
  CHECK(contains(infer(ops::matmul, {{3}, {2, 3}}, {}, {}), "[1, 3] times [2, 3]"));
  CHECK(contains(infer(ops::slice, {{3}}, {}, {}), "length is not known"));
  CHECK(contains(infer(ops::slice, {{2, 3}}, {{"begin", 4}, {"count", 3}}, {}), "entries 4 to 6"));
  CHECK(contains(infer(ops::slice, {{2, 3}}, {{"begin", 0.5}, {"count", 3}}, {}), "whole number"));
}

TEST_CASE("ops: entries keep their order, and take the shape that is wanted where it has as many") {
  const auto shape = [](const Op& op, std::vector<Shape> sources, Attrs attrs, std::optional<Shape> wanted) {
    const Attrs all = complete_attrs(op, attrs);
    return op.infer({sources, all, wanted});
  };
  CHECK(shape(ops::concat, {{5}, {5}, {5}}, {}, {}) == Shape{15});
  CHECK(shape(ops::concat, {{5}, {5}, {5}}, {}, Shape{3, 5}) == Shape{3, 5});
  CHECK(shape(ops::concat, {{5}, {5}, {5}}, {}, Shape{3, 4}) == Shape{15});
  CHECK(shape(ops::matmul, {{5}, {5, 3}}, {}, {}) == Shape{1, 3});
  CHECK(shape(ops::matmul, {{5}, {5, 3}}, {}, Shape{3}) == Shape{3});
  CHECK(shape(ops::matmul, {{3, 5}, {5}}, {}, {}) == Shape{3, 1});
  CHECK(shape(ops::matmul, {{3}, {5}}, {{"trans_a", 1}, {"trans_b", 1}}, {}) == Shape{3, 5});
  CHECK(shape(ops::slice, {{3, 5}}, {{"begin", 9}}, Shape{2, 3}) == Shape{2, 3});
  CHECK(shape(ops::slice, {{3, 5}}, {{"begin", 9}, {"count", 6}}, {}) == Shape{6});
}

TEST_CASE("ops: fans of a linear layer are its inputs and outputs") {
  const Attrs attrs = complete_attrs(ops::linear, {});
  const std::vector<Shape> sources = {{5, 3}};
  const auto specs = ops::linear.params({sources, attrs, {}}, {7});
  REQUIRE(specs.size() == 2);
  CHECK(specs[0].shape == Shape{7, 15});
  CHECK(specs[0].fan_in == 15);
  CHECK(specs[0].fan_out == 7);
  CHECK(specs[1].shape == Shape{7});
  CHECK(specs[1].role == ParamRole::bias);
}

}  // namespace pc::test

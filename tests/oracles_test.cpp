// What is known about predictive coding without running it: derivatives, closed forms of linear networks, invariants.
// The numbers O1..O13 and O34 are those of the project's list of oracles.
#include <Eigen/Dense>
#include <numeric>

#include "tests/networks.h"

namespace pc::test {
namespace {

using Matrix = Eigen::MatrixXd;
using Vector = Eigen::VectorXd;

/// Random values for everything that is free, so that nothing is special about where derivatives are taken.
void scatter(Run& run, std::uint64_t seed) {
  Dice dice(seed);
  for (NodeId v = 0; v < run.network.graph().node_count(); ++v) {
    const View x = run.network.value(v, run.problem.batch);
    Values values = dice.normals(x.count());
    const Values &data = run.problem.data[index(v)], &mask = run.problem.mask[index(v)];
    for (std::size_t i = 0; i < mask.size(); ++i) {
      if (mask[i] != 0) values[i] = data[i];
    }
    run.network.arena().write(x, values);
  }
  load(run.network, run.problem);
}

/// One step of size `rate` from the values as they are.
PlanSpec one_step(const Problem& problem, double rate) {
  PlanSpec spec = plan_for(problem, 1, rate);
  spec.relax.init.kind = ValueInit::Kind::previous;
  spec.gradients = true;
  return spec;
}

/// The reference, holding the network's present values and weights.
Reference reference_of(Run& run, const PlanSpec& spec) {
  Reference reference(run.network, run.problem, spec);
  for (NodeId v = 0; v < run.network.graph().node_count(); ++v) {
    const Values all = read_value(run.network, v, run.problem.batch);
    for (std::int64_t b = 0; b < run.problem.batch; ++b) {
      reference.x[index(v)][index(b)] = rows_of(all, run.problem.batch, b, 1);
    }
  }
  return reference;
}

/// d energy / d entry by central differences.
double slope(const Reference& reference, double& entry, double h = 1e-5) {
  const double keep = entry;
  entry = keep + h;
  const double above = reference.energy();
  entry = keep - h;
  const double below = reference.energy();
  entry = keep;
  return (above - below) / (2 * h);
}

Values read_delta(Run& run, PredictionId p) {
  return read(run.network, run.network.prediction_buffer("delta", p, run.problem.batch));
}

Matrix matrix_of(const Values& values, std::int64_t rows) {
  const std::int64_t cols = length(values) / rows;
  return Eigen::Map<const Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(values.data(), rows,
                                                                                                  cols);
}

/// Infinite if anything is NaN.
double difference(const Matrix& a, const Matrix& b) {
  REQUIRE(a.rows() == b.rows());
  REQUIRE(a.cols() == b.cols());
  return (a - b).allFinite() ? (a.size() == 0 ? 0 : (a - b).cwiseAbs().maxCoeff()) : INFINITY;
}

}  // namespace

// --- energy and gradient ---

TEST_CASE("O1: dF/dx, by finite differences of F in every free value") {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    CAPTURE(seed);
    const Problem problem = wild_problem(seed, {.cycles = seed % 4 != 0, .smooth = true, .products = seed >= 40});
    Run run(problem, one_step(problem, 1.0));
    scatter(run, seed);
    Reference reference = reference_of(run, {});
    run.step();
    for (NodeId v = 0; v < run.network.graph().node_count(); ++v) {
      CAPTURE(v);
      Values moved, want;
      const Values after = read_value(run.network, v, run.problem.batch);
      for (std::int64_t b = 0; b < run.problem.batch; ++b) {
        Values& x = reference.x[index(v)][index(b)];
        for (std::size_t i = 0; i < x.size(); ++i) {
          moved.push_back(x[i] - after[index(b) * x.size() + i]);
          want.push_back(reference.is_free(v, b, i) ? slope(reference, x[i]) : 0.0);
        }
      }
      CHECK(worst_difference(moved, want) < 1e-7);
    }
  }
}

TEST_CASE("O2: -dF/dw, summed over the batch, by finite differences of F in every weight") {
  for (std::uint64_t seed = 40; seed < 90; ++seed) {
    CAPTURE(seed);
    const Problem problem = wild_problem(seed, {.cycles = seed % 4 != 0, .smooth = true, .products = seed >= 70});
    Run run(problem, one_step(problem, 0.0));  // at rate 0 the settled state is the one we put there
    scatter(run, seed);
    Reference reference = reference_of(run, {});
    run.step();
    for (ParamId p = 0; p < run.network.graph().param_count(); ++p) {
      CAPTURE(p);
      Values want;
      for (double& entry : reference.w[index(p)]) want.push_back(-slope(reference, entry));
      CHECK(worst_difference(read(run.network, run.network.gradient(p)), want) < 1e-7);
    }
  }
}

TEST_CASE("O1, O2: energies are those of the reference, prediction by prediction") {
  for (std::uint64_t seed = 70; seed < 100; ++seed) {
    CAPTURE(seed);
    const Problem problem = wild_problem(seed);
    const PlanSpec spec = one_step(problem, 0.03);
    Run run(problem, spec);
    scatter(run, seed);
    Reference reference = reference_of(run, spec);
    run.step();
    reference.step();
    CHECK(worst_difference(run.trainer.energies().start, reference.start) < 1e-11);
    CHECK(worst_difference(run.trainer.energies().end, reference.end) < 1e-11);
  }
}

TEST_CASE("O3: adding up over the edges into a node instead of those out of it would be noticed") {
  Problem problem;
  problem.nodes = {{.name = "all", .shape = {6}}};
  problem.edges = {{.from = {"all"}, .to = "all", .chain = {linear(false)}}};
  Run run(problem, one_step(problem, 1.0));
  scatter(run, 3);
  const Vector x = matrix_of(read_value(run.network, 0, 1), 1).transpose();
  const Matrix w = matrix_of(read(run.network, run.network.weight(0)), 6);
  run.step();
  const Vector moved = x - matrix_of(read_value(run.network, 0, 1), 1).transpose();
  const Vector delta = x - w * x;
  CHECK(difference(moved, delta - w.transpose() * delta) < 1e-14);
  CHECK(difference(moved, delta - w * delta) > 0.1);
}

TEST_CASE("O4: at the settled state the local rule is the slope of the settled energy (envelope theorem)") {
  Problem problem = clamped_mlp({3, 3, 2}, 2, 4);
  problem.nodes[1].energy.precision = {0.7, 1.5, 1};
  PlanSpec spec = plan_for(problem, 4000);
  spec.relax.stepper = ValueSgd{0.2, 0.7};
  spec.relax.stop = GradientNorm{1e-13};
  spec.gradients = true;
  Run run(problem, spec);
  const auto settled = [&] {
    run.trainer.reset_energies();
    CHECK(run.step().converged);
    return run.trainer.energies().total_end();
  };
  for (ParamId p = 0; p < run.network.graph().param_count(); ++p) {
    CAPTURE(p);
    Values w = read(run.network, run.network.weight(p)), want;
    for (double& entry : w) {
      const double keep = entry, h = 1e-5;
      const auto at = [&](double value) {
        entry = value;
        run.network.arena().write(run.network.weight(p), w);
        return settled();
      };
      want.push_back(-(at(keep + h) - at(keep - h)) / (2 * h));
      at(keep);
    }
    CHECK(worst_difference(read(run.network, run.network.gradient(p)), want) < 1e-8);
  }
}

// --- invariants ---

TEST_CASE("O5: what is clamped keeps its bits") {
  for (std::uint64_t seed = 100; seed < 160; ++seed) {
    CAPTURE(seed);
    const Problem problem = wild_problem(seed, {.cycles = seed % 2 == 0});
    for (const DType dtype : {DType::f64, DType::f32}) {
      Run run(problem, wild_plan(seed, problem), dtype);
      run.step();
      run.step();
      for (const Clamp& clamp : problem.clamps) {
        const Values now = read_value(run.network, clamp.node, problem.batch);
        const Values &data = problem.data[index(clamp.node)], &mask = problem.mask[index(clamp.node)];
        for (std::size_t i = 0; i < now.size(); ++i) {
          if (clamp.masked && mask[i] == 0) continue;
          CHECK(now[i] == (dtype == DType::f64 ? data[i] : double(float(data[i]))));
        }
      }
    }
  }
}

TEST_CASE("O5: masked weights are exactly zero, whatever the optimiser") {
  const std::vector<Optimizer> optimizers = {WeightSgd{.momentum = 0.9, .weight_decay = 0.1},
                                             WeightAdam{.weight_decay = 0.1},
                                             WeightAdam{.weight_decay = 0.1, .decoupled = true}};
  for (const Optimizer& optimizer : optimizers) {
    for (const std::string schedule : {"pc", "ipc", "backprop"}) {
      CAPTURE(schedule);
      Problem problem = clamped_mlp({6, 5, 4}, 3, 9);
      for (EdgeSpec& edge : problem.edges) {
        edge.mask = [](const Shape& shape) {
          std::vector<std::uint8_t> mask(index(shape.count()));
          for (std::size_t i = 0; i < mask.size(); ++i) mask[i] = i % 3 != 0;
          return mask;
        };
      }
      PlanSpec spec = plan_for(problem, 4);
      spec.schedule = &find_schedule(schedule);
      spec.learn = LearnSpec{.optimizer = optimizer, .rate = {.base = 0.1}, .clip_norm = 0.5};
      Run run(problem, spec);
      for (int i = 0; i < 5; ++i) run.step();
      for (const ParamId p : {0, 2}) {
        const Values w = read(run.network, run.network.weight(p));
        for (std::size_t i = 0; i < w.size(); ++i) CHECK((w[i] == 0) == (i % 3 == 0));
      }
    }
  }
}

TEST_CASE("O5: names and order mean nothing") {
  for (std::uint64_t seed = 160; seed < 190; ++seed) {
    CAPTURE(seed);
    const Problem problem = wild_problem(seed, {.cycles = seed % 2 == 0});
    PlanSpec spec = wild_plan(seed, problem);
    if (spec.relax.init.kind == ValueInit::Kind::normal) spec.relax.init.kind = ValueInit::Kind::zeros;
    // The same graph with its nodes and edges listed backwards.
    Problem turned = problem;
    const auto count = static_cast<NodeId>(problem.nodes.size());
    for (EdgeSpec& edge : turned.edges) edge.name = edge.to + std::to_string(&edge - turned.edges.data());
    Problem named = problem;
    named.edges = turned.edges;
    std::reverse(turned.nodes.begin(), turned.nodes.end());
    std::reverse(turned.data.begin(), turned.data.end());
    std::reverse(turned.mask.begin(), turned.mask.end());
    std::reverse(turned.edges.begin(), turned.edges.end());
    for (EdgeSpec& edge : turned.edges) {  // the first of a group that shares owns the mask
      if (edge.share.empty()) continue;
      for (const EdgeSpec& other : named.edges) {
        if (other.share == edge.share && other.mask) edge.mask = other.mask;
      }
    }
    for (Clamp& clamp : turned.clamps) clamp.node = count - 1 - clamp.node;
    PlanSpec turned_spec = spec;
    turned_spec.clamps = turned.clamps;
    Run a(named, spec), b(turned, turned_spec);
    // Parameters are named after the edge that made them, and of two that share it is now the other one.
    const Graph &ga = a.network.graph(), &gb = b.network.graph();
    for (EdgeId e = 0; e < ga.edge_count(); ++e) {
      for (EdgeId f = 0; f < gb.edge_count(); ++f) {
        if (ga.edge(e).name != gb.edge(f).name) continue;
        for (std::size_t link = 0; link < ga.edge(e).chain.size(); ++link) {
          const auto &from = ga.edge(e).chain[link].params, &to = gb.edge(f).chain[link].params;
          for (std::size_t i = 0; i < from.size(); ++i) {
            b.network.arena().write(b.network.weight(to[i]), read(a.network, a.network.weight(from[i])));
          }
        }
      }
    }
    for (int i = 0; i < 2; ++i) {
      a.step();
      b.step();
    }
    for (NodeId v = 0; v < count; ++v) {
      CAPTURE(v);
      CHECK(worst_difference(read_value(a.network, v, problem.batch),
                             read_value(b.network, ga.node(v).name, problem.batch)) < 1e-12);
    }
  }
}

TEST_CASE("O5: a batch is its samples one by one") {
  for (std::uint64_t seed = 190; seed < 220; ++seed) {
    CAPTURE(seed);
    const Problem problem = wild_problem(seed, {.cycles = seed % 2 == 0});
    PlanSpec spec = wild_plan(seed, problem);
    if (spec.relax.init.kind == ValueInit::Kind::normal) spec.relax.init.kind = ValueInit::Kind::zeros;
    spec.schedule = &find_schedule("pc");
    spec.learn.reset();
    Run many(problem, spec);
    many.step();
    std::vector<Values> sum(index(many.network.graph().param_count()));
    for (std::int64_t b = 0; b < problem.batch; ++b) {
      Run one(problem, spec);
      load(one.network, problem, b, 1);
      one.trainer.step(1);
      for (NodeId v = 0; v < one.network.graph().node_count(); ++v) {
        CHECK(worst_difference(read_value(one.network, v, 1),
                               rows_of(read_value(many.network, v, problem.batch), problem.batch, b, 1)) < 1e-12);
      }
      for (std::size_t p = 0; p < sum.size(); ++p) {
        const Values dw = read(one.network, one.network.gradient(static_cast<ParamId>(p)));
        sum[p].resize(dw.size(), 0.0);
        for (std::size_t i = 0; i < dw.size(); ++i) sum[p][i] += dw[i];
      }
    }
    for (std::size_t p = 0; p < sum.size(); ++p) {
      CHECK(worst_difference(read(many.network, many.network.gradient(static_cast<ParamId>(p))), sum[p]) < 1e-12);
    }
  }
}

TEST_CASE("whole training runs agree with the reference") {
  for (std::uint64_t seed = 1000; seed < 1090; ++seed) {
    CAPTURE(seed);
    const Problem problem = wild_problem(seed, {.cycles = seed % 2 == 0, .products = seed >= 1060});
    const PlanSpec spec = wild_plan(seed, problem);
    Run run(problem, spec);
    Reference reference(run.network, run.problem, spec);
    for (int i = 0; i < 3; ++i) {
      run.step();
      reference.step();
    }
    for (NodeId v = 0; v < run.network.graph().node_count(); ++v) {
      CAPTURE(v);
      CHECK(relative_error(read_value(run.network, v, problem.batch), reference.flat(v)) < 1e-9);
    }
    for (ParamId p = 0; p < run.network.graph().param_count(); ++p) {
      CAPTURE(p);
      CHECK(worst_difference(read(run.network, run.network.weight(p)), reference.w[index(p)]) < 1e-9);
      // What the gradient is where a mask keeps the weight at zero is nobody's business.
      Values dw = read(run.network, run.network.gradient(p)), want = reference.dw[index(p)];
      const auto& mask = run.network.graph().param(p).mask;
      for (std::size_t i = 0; i < mask.size(); ++i) {
        if (mask[i] == 0) dw[i] = want[i] = 0;
      }
      CHECK(worst_difference(dw, want) < 1e-9);
    }
    CHECK(worst_difference(run.trainer.energies().start, reference.start) < 1e-8);
    CHECK(worst_difference(run.trainer.energies().end, reference.end) < 1e-8);
  }
}

// --- superset ---

// mu = W tanh(x) + b over one node that holds all layers, with a mask that lets each layer see the one before it alone,
// and no energy for the first layer, is the layered network.
TEST_CASE("O6: one node with a hierarchical mask relaxes as the layered network, step by step") {
  const std::vector<std::int64_t> widths = {4, 5, 3, 2};
  const std::int64_t total = 14, batch = 3;
  std::vector<std::int64_t> begin = {0, 4, 9, 12};
  const auto layer_of = [&](std::int64_t i) { return i < 4 ? 0 : i < 9 ? 1 : i < 12 ? 2 : 3; };
  Dice dice(12);
  Problem layered = chain(widths, [](std::size_t) { return std::vector{op("tanh"), linear()}; });
  layered.batch = batch;
  layered.clamp(0, dice.normals(batch * 4));
  layered.clamp(3, dice.normals(batch * 2));

  Problem block;
  block.batch = batch;
  block.nodes = {{.name = "all", .shape = {total}}};
  block.nodes[0].energy.precision.assign(index(total), 1.0);
  for (std::size_t i = 0; i < 4; ++i) block.nodes[0].energy.precision[i] = 0;
  block.edges = {{.from = {"all"}, .to = "all", .chain = {op("tanh"), linear()}}};
  block.edges[0].mask = [&](const Shape& shape) {
    std::vector<std::uint8_t> mask(index(shape.count()));
    for (std::int64_t i = 0; i < shape.count(); ++i) mask[index(i)] = layer_of(i / total) == layer_of(i % total) + 1;
    return mask;
  };
  Values data(index(batch * total)), mask(data.size());
  for (const int end : {0, 3}) {
    for (std::int64_t b = 0; b < batch; ++b) {
      for (std::int64_t i = 0; i < widths[index(end)]; ++i) {
        data[index(b * total + begin[index(end)] + i)] = layered.data[index(end)][index(b * widths[index(end)] + i)];
        mask[index(b * total + begin[index(end)] + i)] = 1;
      }
    }
  }
  block.clamp(0, data, mask);

  PlanSpec spec = one_step(layered, 0.15), block_spec = one_step(block, 0.15);
  spec.learn = block_spec.learn = LearnSpec{.optimizer = WeightSgd{}, .rate = {.base = 0.05}};
  Run a(layered, spec), b(block, block_spec);
  Values w(index(total * total)), bias(index(total));
  for (std::size_t l = 1; l < 4; ++l) {
    const Values part = read(a.network, a.network.weight(static_cast<ParamId>(2 * l - 2)));
    const Values shift = read(a.network, a.network.weight(static_cast<ParamId>(2 * l - 1)));
    for (std::int64_t i = 0; i < widths[l]; ++i) {
      bias[index(begin[l] + i)] = shift[index(i)];
      for (std::int64_t j = 0; j < widths[l - 1]; ++j) {
        w[index((begin[l] + i) * total + begin[l - 1] + j)] = part[index(i * widths[l - 1] + j)];
      }
    }
  }
  b.network.arena().write(b.network.weight(0), w);
  b.network.arena().write(b.network.weight(1), bias);
  for (int t = 0; t < 30; ++t) {  // one step of x and one of the weights each time
    CAPTURE(t);
    a.step();
    b.step();
    const Values all = read_value(b.network, 0, batch);
    for (std::size_t l = 0; l < 4; ++l) {
      Values part;
      for (std::int64_t row = 0; row < batch; ++row) {
        const auto* first = all.data() + row * total + begin[l];
        part.insert(part.end(), first, first + widths[l]);
      }
      CHECK(worst_difference(part, read_value(a.network, static_cast<NodeId>(l), batch)) < 1e-13);
    }
  }
}

// --- linear networks ---

namespace {

/// A linear network as matrices: mu = W x + b over all nodes side by side; H = A^T Pi A with A = I - W. Nodes without
/// a prediction have no row in Pi.
struct Affine {
  Matrix w, a, h;
  Vector b, precision;
  std::vector<std::int64_t> begin;  // of each node

  explicit Affine(Run& run) {
    const Graph& graph = run.network.graph();
    std::int64_t total = 0;
    for (const Node& node : graph.nodes()) {
      begin.push_back(total);
      total += node.shape.count();
    }
    begin.push_back(total);
    w = Matrix::Zero(total, total);
    b = precision = Vector::Zero(total);
    const Reference reference(run.network, run.problem, {});
    auto x = reference.sample<double>(0);
    for (auto& node : x) std::fill(node.begin(), node.end(), 0.0);
    const auto all_mu = [&] {
      Vector mu = Vector::Zero(total);
      for (PredictionId p = 0; p < graph.prediction_count(); ++p) {
        const Values part = naive_mu<double>(graph, p, x, reference.w);
        for (std::size_t i = 0; i < part.size(); ++i)
          mu(begin[index(graph.prediction(p).node)] + std::int64_t(i)) += part[i];
      }
      return mu;
    };
    b = all_mu();
    for (NodeId v = 0; v < graph.node_count(); ++v) {
      for (std::size_t i = 0; i < x[index(v)].size(); ++i) {
        x[index(v)][i] = 1;
        w.col(begin[index(v)] + std::int64_t(i)) = all_mu() - b;
        x[index(v)][i] = 0;
      }
    }
    for (PredictionId p = 0; p < graph.prediction_count(); ++p) {
      const auto& given = graph.prediction(p).spec.precision;
      const NodeId v = graph.prediction(p).node;
      for (std::int64_t i = begin[index(v)]; i < begin[index(v) + 1]; ++i) {
        precision(i) += given.size() == 1 ? given[0] : given[index(i - begin[index(v)])];
      }
    }
    a = Matrix::Identity(total, total) - w;
    h = a.transpose() * precision.asDiagonal() * a;
  }

  [[nodiscard]] std::int64_t total() const { return a.rows(); }
  [[nodiscard]] double energy(const Vector& x) const {
    const Vector e = a * x - b;
    return 0.5 * e.dot(precision.asDiagonal() * e);
  }
};

Vector state_vector(Run& run, std::int64_t sample) {
  Values all;
  for (NodeId v = 0; v < run.network.graph().node_count(); ++v) {
    const Values row = rows_of(read_value(run.network, v, run.problem.batch), run.problem.batch, sample, 1);
    all.insert(all.end(), row.begin(), row.end());
  }
  return Eigen::Map<Vector>(all.data(), length(all));
}

void set_state(Run& run, const Affine& affine, const std::vector<Vector>& samples) {
  for (NodeId v = 0; v < run.network.graph().node_count(); ++v) {
    Values all;
    for (const Vector& x : samples) {
      for (std::int64_t i = affine.begin[index(v)]; i < affine.begin[index(v) + 1]; ++i) all.push_back(x(i));
    }
    run.network.arena().write(run.network.value(v, run.problem.batch), all);
  }
}

/// Which entries are free in a sample.
std::vector<Eigen::Index> free_entries(const Problem& problem, const Affine& affine, std::int64_t sample, bool free) {
  std::vector<Eigen::Index> list;
  for (std::size_t v = 0; v < problem.nodes.size(); ++v) {
    for (std::int64_t i = affine.begin[v]; i < affine.begin[v + 1]; ++i) {
      bool clamped = !problem.data[v].empty();
      if (clamped && !problem.mask[v].empty()) {
        clamped = problem.mask[v][index(sample * (affine.begin[v + 1] - affine.begin[v]) + i - affine.begin[v])] != 0;
      }
      if (clamped != free) list.push_back(i);
    }
  }
  return list;
}

/// H_uu x_u = [A^T Pi b]_u - H_uc x_c
Vector settled(const Problem& problem, const Affine& affine, const Vector& x, std::int64_t sample) {
  const auto u = free_entries(problem, affine, sample, true), c = free_entries(problem, affine, sample, false);
  const Vector pull = affine.a.transpose() * affine.precision.asDiagonal() * affine.b;
  Vector result = x;
  const Vector right = pull(u) - affine.h(u, c) * x(c);
  const Matrix huu = affine.h(u, u);
  const Vector solved = huu.llt().solve(right);
  result(u) = solved;
  return result;
}

struct Spectrum {
  double low, high;
};
Spectrum spectrum(const Matrix& h) {
  const Vector values = Eigen::SelfAdjointEigenSolver<Matrix>(h, Eigen::EigenvaluesOnly).eigenvalues();
  return {values.minCoeff(), values.maxCoeff()};
}

/// The best heavy ball for a quadratic with these curvatures (Polyak 1964).
ValueSgd heavy_ball(Spectrum s) {
  const double root_low = std::sqrt(s.low), root_high = std::sqrt(s.high),
               q = (root_high - root_low) / (root_high + root_low);
  return {.rate = std::pow(2 / (root_high + root_low), 2), .momentum = q * q};
}

/// Linear edges between random pairs of nodes, cycles and self-loops among them.
Problem linear_problem(std::uint64_t seed, std::int64_t total, std::int64_t batch, bool everything_has_energy) {
  Dice dice(seed);
  Problem problem;
  problem.batch = batch;
  std::int64_t left = total;
  while (left > 0) {
    const std::int64_t width = std::min<std::int64_t>(left, 1 + dice.below(static_cast<int>(total / 3)));
    NodeSpec node{.name = "n" + std::to_string(problem.nodes.size()), .shape = {width}};
    node.energy.precision.clear();
    for (std::int64_t i = 0; i < width; ++i) node.energy.precision.push_back(dice.uniform(0.4, 2));
    problem.nodes.push_back(node);
    left -= width;
  }
  std::vector<NodeId> bare;
  for (NodeSpec& to : problem.nodes) {
    bool any = false;
    for (const NodeSpec& from : problem.nodes) {
      const bool self = &from == &to;
      if (!dice.chance(self ? 0.5 : 0.4)) continue;
      problem.edges.push_back({.from = {from.name}, .to = to.name, .chain = {linear()}});
      any = true;
    }
    // A node without a prediction has no energy: it is clamped, or it gets a prior.
    if (!any && everything_has_energy) to.prior = true;
    if (!any && !everything_has_energy) bare.push_back(static_cast<NodeId>(&to - problem.nodes.data()));
  }
  const auto clamp = [&](NodeId v, bool masked) {
    const std::int64_t count = batch * problem.nodes[index(v)].shape.count();
    Values where(index(count));
    for (double& entry : where) entry = dice.chance(0.5) ? 1 : 0;
    masked ? problem.clamp(v, dice.normals(count), where) : problem.clamp(v, dice.normals(count));
  };
  const auto last = static_cast<NodeId>(problem.nodes.size()) - 1;
  clamp(0, false);
  for (const NodeId v : bare) {
    if (v != 0) clamp(v, false);
  }
  if (problem.data[index(last)].empty()) clamp(last, true);
  return problem;
}

constexpr WeightInit kSmall{.kind = WeightInit::Kind::fan_in, .scale = 0.5};

}  // namespace

TEST_CASE("O8: the settled state of any linear graph is the direct solution") {
  for (const std::int64_t total : {12, 20, 50, 120, 200}) {
    CAPTURE(total);
    for (std::uint64_t seed = 0; seed < (total > 100 ? 2 : 6); ++seed) {
      CAPTURE(seed);
      const Problem problem = linear_problem(seed + 10, total, 2, false);
      PlanSpec spec = plan_for(problem, 1);
      Run probe(problem, spec, DType::f64, 1, kSmall);
      const Affine affine(probe);
      std::vector<Eigen::Index> u = free_entries(problem, affine, 0, true);
      std::vector<Spectrum> s;
      for (std::int64_t b = 0; b < 2; ++b) {
        u = free_entries(problem, affine, b, true);
        s.push_back(spectrum(affine.h(u, u)));
        REQUIRE(s.back().low > 0);
      }
      spec.relax.steps = 5000;
      spec.relax.stepper = heavy_ball({std::min(s[0].low, s[1].low), std::max(s[0].high, s[1].high)});
      spec.relax.stop = GradientNorm{1e-13};
      Run run(problem, spec, DType::f64, 1, kSmall);
      run.step();
      for (std::int64_t b = 0; b < 2; ++b) {
        const Vector x = state_vector(run, b);
        CHECK(difference(x, settled(problem, affine, x, b)) < 1e-10);
      }
    }
  }
}

TEST_CASE("O9: a linear network settles in the conditional mean of its Gaussian") {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    CAPTURE(seed);
    Problem problem = linear_problem(seed + 50, 14, 1, true);
    PlanSpec spec = plan_for(problem, 20000);
    Run probe(problem, spec, DType::f64, 1, kSmall);
    const Affine affine(probe);
    const auto u = free_entries(problem, affine, 0, true), c = free_entries(problem, affine, 0, false);
    const Spectrum s = spectrum(affine.h(u, u));
    REQUIRE(s.low > 0);
    spec.relax.stepper = heavy_ball(s);
    spec.relax.stop = GradientNorm{1e-13};
    Run run(problem, spec, DType::f64, 1, kSmall);
    run.step();
    const Matrix inverse = affine.a.inverse();
    const Vector mean = inverse * affine.b;
    const Matrix covariance = inverse * affine.precision.cwiseInverse().asDiagonal() * inverse.transpose();
    const Vector x = state_vector(run, 0);
    const Vector off = x(c) - mean(c);
    const Matrix cc = covariance(c, c);
    const Vector weighed = cc.llt().solve(off);
    CHECK(difference(x(u), mean(u) + covariance(u, c) * weighed) < 1e-9);
    CHECK(std::abs(run.trainer.energies().total_end() - 0.5 * off.dot(weighed)) < 1e-10);
  }
}

TEST_CASE("O10: each direction shrinks by its own factor, and the step size has an edge") {
  const Problem problem = linear_problem(77, 16, 1, false);
  Run probe(problem, one_step(problem, 0.1), DType::f64, 1, kSmall);
  const Affine affine(probe);
  const auto u = free_entries(problem, affine, 0, true);
  const Eigen::SelfAdjointEigenSolver<Matrix> eigen(Matrix(affine.h(u, u)));
  const double high = eigen.eigenvalues().maxCoeff(), low = eigen.eigenvalues().minCoeff();
  REQUIRE(low > 0.02);
  const Vector rest = settled(problem, affine, state_vector(probe, 0), 0);
  for (Eigen::Index i = 0; i < eigen.eigenvalues().size(); ++i) {
    CAPTURE(i);
    Vector x = rest;
    x(u) += eigen.eigenvectors().col(i);
    set_state(probe, affine, {x});
    probe.step();
    const Vector now = state_vector(probe, 0);
    const double factor = 1 - 0.1 * eigen.eigenvalues()(i);
    CHECK(difference(now(u) - rest(u), factor * eigen.eigenvectors().col(i)) < 1e-13);
  }
  for (const double part : {0.99, 1.01}) {
    CAPTURE(part);
    PlanSpec spec = one_step(problem, part * 2 / high);
    spec.relax.steps = 1500;
    spec.trace = true;
    Run run(problem, spec, DType::f64, 1, kSmall);
    Vector x = rest;
    for (const Eigen::Index i : u) x(i) += 1e-3;
    x(u) += 1e-3 * eigen.eigenvectors().col(eigen.eigenvectors().cols() - 1);
    set_state(run, affine, {x});
    run.step();
    const double before = (x - rest).norm(), after = (state_vector(run, 0) - rest).norm();
    double previous = INFINITY;
    bool falls = true;
    for (int t = 0; t <= spec.relax.steps; ++t) {
      const double energy = read(run.network, run.network.scalar(trace_name(t)))[0];
      falls = falls && energy <= previous * (1 + 1e-12);
      previous = energy;
    }
    CHECK(falls == (part < 1));
    if (part < 1) CHECK(after < 1e-6 * before);
    if (part > 1) CHECK(after > 1e3 * before);
  }
}

TEST_CASE("O11: no curvature is above max(Pi) (1 + |W|)^2") {
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    CAPTURE(seed);
    // Every sample of the batch is a unit vector: their gradients, less that of zero, are the columns of H.
    Problem problem = linear_problem(seed + 90, 15, 16, false);
    problem.clamps.clear();
    for (auto* list : {&problem.data, &problem.mask}) std::fill(list->begin(), list->end(), Values{});
    Run run(problem, one_step(problem, 1.0), DType::f64, 1, kSmall);
    const Affine affine(run);
    std::vector<Vector> units(16, Vector::Zero(15));
    for (Eigen::Index i = 0; i < 15; ++i) units[index(i)](i) = 1;
    set_state(run, affine, units);
    run.step();
    Matrix h(15, 15);
    const Vector at_zero = -state_vector(run, 15);
    for (Eigen::Index i = 0; i < 15; ++i) h.col(i) = units[index(i)] - state_vector(run, i) - at_zero;
    CHECK(difference(h, affine.h) < 1e-13);
    CHECK(difference(h, h.transpose()) < 1e-13);
    const double norm = affine.w.jacobiSvd().singularValues()(0);
    CHECK(spectrum(h).high <= affine.precision.maxCoeff() * (1 + norm) * (1 + norm) * (1 + 1e-12));
  }
  const Problem layered = chain({5, 7, 4, 3}, [](std::size_t) { return std::vector{linear()}; });
  Run run(layered, plan_for(layered, 1));
  const Affine affine(run);
  double largest = 0;
  for (const ParamId p : {0, 2, 4}) {
    const Matrix w = matrix_of(read(run.network, run.network.weight(p)), run.network.graph().param(p).spec.shape[0]);
    largest = std::max(largest, w.jacobiSvd().singularValues()(0));
  }
  CHECK(std::abs(affine.w.jacobiSvd().singularValues()(0) - largest) < 1e-13);
}

namespace {

/// Deep linear chains mu_l = M_l x_{l-1}, both ends clamped (ALGORITHMS, section 9), with P_l = M_L ... M_{l+1}:
///   r = y - M_L ... M_1 x_0,  S = sum_l P_l Pi_l^-1 P_l^T,  F* = r^T S^-1 r / 2,
///   delta_l = P_l^T S^-1 r,  eps_l = Pi_l^-1 delta_l,  -dF*/dM_l = delta_l x_{l-1}^T.
void check_deep_linear(bool residual) {
  const std::int64_t batch = 3;
  const std::size_t layers = 5;
  const std::vector<std::int64_t> widths =
      residual ? std::vector<std::int64_t>{4, 5, 5, 5, 5, 3} : std::vector<std::int64_t>{4, 5, 3, 6, 5, 3};
  const auto skips = [&](std::size_t l) { return residual && l > 1 && l < layers; };
  const auto gain = [&](std::size_t l) { return skips(l) ? 0.3 + 0.1 * double(l) : 1.0; };
  Problem problem = chain(widths, [&](std::size_t l) {
    return skips(l) ? std::vector{linear(false), op("scale", {{"by", gain(l)}})} : std::vector{linear(false)};
  });
  Dice dice(21);
  for (std::size_t l = 1; l <= layers; ++l) {
    if (skips(l))
      problem.edges.push_back(
          {.from = {"x" + std::to_string(l - 1)}, .to = "x" + std::to_string(l), .chain = {op("identity")}});
    problem.nodes[l].energy.precision.clear();
    for (std::int64_t i = 0; i < widths[l]; ++i) problem.nodes[l].energy.precision.push_back(dice.uniform(0.5, 2));
  }
  problem.batch = batch;
  problem.clamp(0, dice.normals(batch * widths.front()));
  problem.clamp(static_cast<NodeId>(layers), dice.normals(batch * widths.back()));
  PlanSpec spec = plan_for(problem, 20000);
  Run probe(problem, spec);
  const Affine affine(probe);
  const auto u = free_entries(problem, affine, 0, true);
  spec.relax.stepper = heavy_ball(spectrum(affine.h(u, u)));
  spec.relax.stop = GradientNorm{1e-14};
  spec.gradients = true;
  Run run(problem, spec);
  run.step();

  std::vector<Matrix> m(layers + 1), p(layers + 1);
  for (std::size_t l = 1; l <= layers; ++l) {
    m[l] = gain(l) * matrix_of(read(run.network, run.network.weight(static_cast<ParamId>(l - 1))), widths[l]);
    if (skips(l)) m[l] += Matrix::Identity(widths[l], widths[l]);
  }
  p[layers] = Matrix::Identity(widths.back(), widths.back());
  for (std::size_t l = layers; l-- > 1;) p[l] = p[l + 1] * m[l + 1];
  Matrix s = Matrix::Zero(widths.back(), widths.back());
  const auto inverse = [&](std::size_t l) {
    const auto& given = problem.nodes[l].energy.precision;
    return Matrix(Eigen::Map<const Vector>(given.data(), length(given)).cwiseInverse().asDiagonal());
  };
  for (std::size_t l = 1; l <= layers; ++l) s += p[l] * inverse(l) * p[l].transpose();
  const Matrix x0 = matrix_of(problem.data[0], batch).transpose(),
               y = matrix_of(problem.data[layers], batch).transpose();
  const Matrix r = y - p[1] * m[1] * x0, solved = s.llt().solve(r);
  CHECK(std::abs(run.trainer.energies().total_end() - 0.5 * (r.array() * solved.array()).sum()) < 1e-11);
  Matrix x = x0;
  for (std::size_t l = 1; l <= layers; ++l) {
    CAPTURE(l);
    const Matrix want = p[l].transpose() * solved;
    CHECK(difference(matrix_of(read_delta(run, static_cast<PredictionId>(l - 1)), batch).transpose(), want) < 1e-10);
    const Matrix dw = matrix_of(read(run.network, run.network.gradient(static_cast<ParamId>(l - 1))), widths[l]);
    CHECK(difference(dw, gain(l) * want * x.transpose()) < 1e-10);
    x = m[l] * x + inverse(l) * want;
    CHECK(difference(matrix_of(read_value(run.network, static_cast<NodeId>(l), batch), batch).transpose(), x) < 1e-10);
  }
}

}  // namespace

TEST_CASE("O12: deep linear chains in closed form") { check_deep_linear(false); }

TEST_CASE("O13: deep linear residual networks in closed form") { check_deep_linear(true); }

// --- what predictive coding promises ---

TEST_CASE("energy never rises while settling at a small rate") {
  for (std::uint64_t seed = 220; seed < 250; ++seed) {
    CAPTURE(seed);
    const Problem problem = wild_problem(seed, {.cycles = seed % 2 == 0, .smooth = true});
    PlanSpec spec = plan_for(problem, 150, 0.005);
    spec.relax.init.kind = ValueInit::Kind::previous;
    spec.trace = true;
    Run run(problem, spec);
    scatter(run, seed);
    run.step();
    double before = INFINITY;
    for (int t = 0; t <= 150; ++t) {
      const double now = read(run.network, run.network.scalar(trace_name(t)))[0];
      CHECK(now <= before + 1e-12 * std::abs(before));
      before = now;
    }
  }
}

TEST_CASE("a target equal to the prediction leaves every gradient zero") {
  Problem problem = clamped_mlp({5, 4, 4, 3}, 3, 2);
  Run forward(problem, plan_for(problem, 1));
  const Reference reference(forward.network, problem, plan_for(problem, 1));
  Values target;
  for (std::int64_t b = 0; b < 3; ++b) {
    auto x = reference.sample<double>(b);
    for (PredictionId p = 0; p < 3; ++p) x[index(p + 1)] = naive_mu<double>(reference.graph, p, x, reference.w);
    target.insert(target.end(), x[3].begin(), x[3].end());
  }
  problem.data[3] = target;
  PlanSpec spec = plan_for(problem, 20);
  spec.gradients = true;
  for (const bool optimize : {true, false}) {
    CAPTURE(optimize);
    spec.optimize = optimize;
    Run run(problem, spec);
    run.step();
    for (ParamId p = 0; p < run.network.graph().param_count(); ++p) {
      const Values dw = read(run.network, run.network.gradient(p));
      CHECK(worst_difference(dw, Values(dw.size(), 0.0)) < 1e-14);  // the target is rounded
    }
    CHECK(run.trainer.energies().total_end() < 1e-28);
  }
}

// Whittington & Bogacz 2017: the settled gradient is the output precision times backprop's, plus its square. (A target
// that comes close to the prediction would not do: STYLE, habit 17.)
TEST_CASE("as the output precision falls, the gradient becomes backprop's, with slope 1") {
  Problem problem = clamped_mlp({4, 6, 5, 2}, 4, 3);
  problem.edges.push_back({.from = {"x1"}, .to = "x3", .chain = {linear(false)}});
  std::vector<double> mismatch;
  const std::vector<double> precisions = {1e-1, 1e-2, 1e-3, 1e-4};
  for (const double precision : precisions) {
    problem.nodes[3].energy.precision = {precision};
    PlanSpec spec = plan_for(problem, 5000);
    spec.gradients = true;
    spec.relax.stepper = ValueSgd{0.3, 0.5};
    spec.relax.stop = GradientNorm{1e-14};
    Run settled(problem, spec);
    settled.step();
    spec.schedule = &find_schedule("backprop");
    Run back(problem, spec);
    back.step();
    double worst = 0;
    for (ParamId p = 0; p < settled.network.graph().param_count(); ++p) {
      const auto unit = [&](Run& run) {  // both fall with the precision itself
        Values dw = read(run.network, run.network.gradient(p));
        for (double& entry : dw) entry /= precision;
        return dw;
      };
      worst = std::max(worst, relative_error(unit(settled), unit(back)));
    }
    mismatch.push_back(worst);
  }
  CHECK(mismatch.back() < 1e-3);
  for (std::size_t i = 2; i < mismatch.size(); ++i) {
    const double order = std::log10(mismatch[i - 1] / mismatch[i]);
    CHECK(order == doctest::Approx(1).epsilon(0.05));
  }
}

// --- the method of multipliers ---

// PC-ALM (Seely & Gould, arXiv 2605.31022): e = x - mu = 0 as constraints, by the augmented Lagrangian L = loss + sum
// of lambda^T e + rho/2 |e|^2. Values relax on L, then lambda <- lambda + rho e. As lambda^T e + rho/2 |e|^2 is rho/2
// |x - (mu - lambda/rho)|^2 but for a constant, this is pc with precision rho and one more edge into each node, from a
// clamped node that holds -lambda/rho; and the delta that it settles with is the next lambda.
TEST_CASE("O34: the multipliers of PC-ALM become backprop's deltas if rho is large enough, and else do not") {
  Problem problem = chain({4, 6, 5, 3}, [](std::size_t) { return std::vector{op("tanh"), linear()}; });
  problem.edges.push_back({.from = {"x1"}, .to = "x3", .chain = {linear(false)}});
  Dice dice(34);
  problem.clamp(0, dice.normals(4));
  problem.clamp(3, dice.normals(3));
  PlanSpec spec = plan_for(problem, 1);
  spec.schedule = &find_schedule("backprop");
  spec.gradients = true;
  Run back(problem, spec, DType::f64);
  back.step();

  const std::vector<NodeId> hidden = {1, 2};
  const auto error_after = [&](int rounds, double rho) {
    Problem shifted = problem;
    for (const NodeId v : hidden) {
      NodeSpec& node = shifted.nodes[index(v)];
      node.energy.precision = {rho};
      const std::string name = "shift of " + node.name, to = node.name;
      const Shape shape = node.shape;
      shifted.nodes.push_back({.name = name, .shape = shape});
      shifted.edges.push_back({.from = {name}, .to = to, .chain = {op("identity")}});
      shifted.clamp(static_cast<NodeId>(shifted.nodes.size()) - 1, Values(index(shape.count()), 0.0));
    }
    PlanSpec relax = plan_for(shifted, 100, 0.2 / rho);
    relax.relax.init.kind = ValueInit::Kind::previous;
    relax.gradients = true;
    Run run(shifted, relax);
    for (ParamId p = 0; p < run.network.graph().param_count(); ++p) {
      run.network.arena().write(run.network.weight(p), read(back.network, back.network.weight(p)));
    }
    double worst = 0;
    for (int k = 0; k < rounds; ++k) {
      run.step();
      worst = 0;
      for (const NodeId v : hidden) {
        const Values lambda = read_delta(run, run.network.graph().node(v).predictions[0]);
        // mu = W tanh(x) + b for one sample, so that the gradient of b is the delta.
        const ParamId bias = 2 * v - 1;
        worst = std::max(worst, worst_difference(lambda, read(back.network, back.network.gradient(bias))));
        Values shift = lambda;
        for (double& entry : shift) entry /= -rho;
        const NodeId from = run.network.graph().find("shift of " + problem.nodes[index(v)].name);
        run.network.arena().write(run.network.value(from, 1), shift);
      }
    }
    return worst;
  };
  for (const double rho : {4.0, 10.0}) {
    CAPTURE(rho);
    CHECK(error_after(400, rho) < 1e-12);
  }
  CHECK(error_after(400, 0.25) > 1e-3);
}

}  // namespace pc::test

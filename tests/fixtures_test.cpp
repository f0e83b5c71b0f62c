// Losses and gradients against those of another program: the files in tests/fixtures/ are made with PyTorch, from
// networks that are written down there a second time. Here they are made from configs/check/.
#include <filesystem>
#include <map>
#include <memory>
#include <set>

#include "experiments/graph_config.h"
#include "pc/h5.h"
#include "tests/networks.h"

namespace pc::test {
namespace {

namespace fs = std::filesystem;

/// Those that promise the exact gradient.
const std::vector<std::string> kSchedules = {"backprop", "zil", "fa_zil", "fixed_prediction"};

using Names = std::set<std::string>;

std::string network_of(const std::string& path) { return path.substr(0, path.find('/')); }

/// The file of each network.
const std::map<std::string, std::shared_ptr<const H5Reader>>& files() {
  static const auto all = [] {
    std::map<std::string, std::shared_ptr<const H5Reader>> found;
    for (const char* name : {"gradients.h5", "sequence.h5"}) {
      const auto reader = std::make_shared<const H5Reader>(fs::path(PC_SOURCE_DIR) / "tests" / "fixtures" / name);
      for (const std::string& path : reader->names()) found[network_of(path)] = reader;
    }
    return found;
  }();
  return all;
}
const H5Reader& file(const std::string& path) { return *files().at(network_of(path)); }

/// The rest of the names that begin with `folder`.
Names names_in(const std::string& folder) {
  Names names;
  for (const std::string& name : file(folder).names()) {
    if (name.starts_with(folder)) names.insert(name.substr(folder.size()));
  }
  return names;
}

Names networks_in_files() {
  Names names;
  for (const auto& [name, reader] : files()) names.insert(name);
  return names;
}

Names networks_in_configs() {
  Names names;
  for (const auto& entry : fs::directory_iterator(fs::path(PC_SOURCE_DIR) / "configs" / "check")) {
    names.insert(entry.path().stem().string());
  }
  return names;
}

H5Dims dims_of(const Shape& shape) {
  H5Dims dims;
  for (int axis = 0; axis < shape.rank(); ++axis) dims.push_back(shape[axis]);
  return dims;
}

/// A network with everything that the file says about it.
struct Fixture {
  Problem problem;
  std::map<std::string, Values> weights, gradients;  // by parameter; d loss/dw, summed over the batch
  double loss = 0;
};

void read_clamps(const std::string& name, const experiments::ConfigTree& config, Problem& problem) {
  const Graph graph = problem.graph();
  const Names inputs = names_in(name + "/inputs/"), targets = names_in(name + "/targets/");
  REQUIRE(!inputs.empty());
  REQUIRE(!targets.empty());
  problem.batch = file(name).dims(name + "/inputs/" + *inputs.begin())[0];
  Names clamped;
  for (const auto& node : config.find("task")->find("check")->find("clamp")->items()) clamped.insert(node.scalar());
  Names wanted = inputs;
  wanted.insert(targets.begin(), targets.end());
  REQUIRE(clamped == wanted);
  for (const std::string& node : clamped) {
    CAPTURE(node);
    const NodeId v = graph.find(node);
    const bool target = targets.contains(node);
    REQUIRE(graph.node(v).predictions.empty() == !target);
    problem.clamp(v, file(name).read<double>(name + (target ? "/targets/" : "/inputs/") + node,
                                             dims_of(graph.node(v).shape.batched(problem.batch))));
  }
}

/// A parameter's name in the files, where a slash would make a folder.
std::string flat(std::string name) {
  std::replace(name.begin(), name.end(), '/', ':');
  return name;
}

void read_parameters(const std::string& name, Fixture& fixture) {
  const Graph graph = fixture.problem.graph();
  Names known;
  for (const Param& param : graph.params()) known.insert(flat(param.name));
  REQUIRE(known == names_in(name + "/weights/"));
  REQUIRE(known == names_in(name + "/gradients/"));
  for (const Param& param : graph.params()) {
    CAPTURE(param.name);
    const H5Dims dims = dims_of(param.spec.shape);
    const Values weight = file(name).read<double>(name + "/weights/" + flat(param.name), dims);
    const Values gradient = file(name).read<double>(name + "/gradients/" + flat(param.name), dims);
    for (std::size_t i = 0; i < param.mask.size(); ++i) {
      if (param.mask[i] == 0) REQUIRE((weight[i] == 0 && gradient[i] == 0));
    }
    // A parameter without influence would be compared with nothing.
    REQUIRE(worst_difference(gradient, Values(gradient.size())) > 0.01);
    fixture.weights[param.name] = weight;
    fixture.gradients[param.name] = gradient;
  }
}

Fixture fixture_of(const std::string& name) {
  const auto config = experiments::load_config(fs::path(PC_SOURCE_DIR) / "configs" / "check" / (name + ".yaml"));
  const graphs::Description graph = experiments::read_graph(*config.find("graph"), 0);
  Fixture fixture{.problem = {.nodes = graph.nodes, .edges = graph.edges}};
  read_clamps(name, config, fixture.problem);
  read_parameters(name, fixture);
  fixture.loss = file(name).read_scalar<double>(name + "/loss");
  return fixture;
}

/// Relative errors of the loss and of every gradient, by name.
std::map<std::string, double> errors_of(const Fixture& fixture, const std::string& schedule, DType dtype) {
  PlanSpec spec = plan_for(fixture.problem, 1);
  spec.schedule = &find_schedule(schedule);
  spec.gradients = true;
  Run run(fixture.problem, spec, dtype);
  const Graph& graph = run.network.graph();
  for (ParamId p = 0; p < graph.param_count(); ++p) {
    run.network.arena().write(run.network.weight(p), fixture.weights.at(graph.param(p).name));
  }
  run.step();
  std::map<std::string, double> errors;
  errors["loss"] = relative_error({run.trainer.energies().total_start()}, {fixture.loss}, 0);
  for (ParamId p = 0; p < graph.param_count(); ++p) {
    const Param& param = graph.param(p);
    Values slope = read(run.network, run.network.gradient(p));  // the buffer holds -d loss/dw
    for (std::size_t i = 0; i < slope.size(); ++i) slope[i] *= param.mask.empty() || param.mask[i] != 0 ? -1 : 0;
    errors[param.name] = relative_error(slope, fixture.gradients.at(param.name), 0);
  }
  return errors;
}

/// Sums of a few dozen terms, through at most a few dozen nodes: some hundred roundings, most of which cancel.
double tolerance(DType dtype) { return dtype == DType::f64 ? 1e-12 : 1e-4; }

/// The one network that Z-IL refuses: it has a clamped node inside.
bool refused(const std::string& network, const std::string& schedule) {
  return network == "clamped_hidden" && schedule.ends_with("zil");
}

}  // namespace

TEST_CASE("fixtures: the files and configs/check/ have the same networks") {
  CHECK(networks_in_files() == networks_in_configs());
  CHECK(networks_in_files().size() >= 25);
}

TEST_CASE("fixtures: losses and gradients agree with PyTorch") {
  for (const std::string& name : networks_in_files()) {
    CAPTURE(name);
    const Fixture fixture = fixture_of(name);
    for (const std::string& schedule : kSchedules) {
      if (refused(name, schedule)) {
        CHECK(contains(error_of([&] { errors_of(fixture, schedule, DType::f64); }), "cannot have node"));
        continue;
      }
      for (const DType dtype : {DType::f64, DType::f32}) {
        CAPTURE(schedule);
        CAPTURE(name_of(dtype));
        for (const auto& [what, error] : errors_of(fixture, schedule, dtype)) {
          CAPTURE(what);
          CHECK(error < tolerance(dtype));
        }
      }
    }
  }
}

TEST_CASE("fixtures: one wrong entry of one gradient is found") {
  const Fixture right = fixture_of("shared_weights");
  for (const auto& [name, gradient] : right.gradients) {
    Fixture wrong = right;
    wrong.gradients[name].back() += 1e-6;
    for (const auto& [what, error] : errors_of(wrong, "backprop", DType::f64)) {
      CAPTURE(what);
      CHECK((error < tolerance(DType::f64)) == (what != name));
    }
  }
}

}  // namespace pc::test

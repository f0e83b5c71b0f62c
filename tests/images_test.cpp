// Networks of images: shapes, named networks, convolutional relaxation, augmentation.
#include <nlohmann/json.hpp>
#include <set>

#include "experiments/config.h"
#include "experiments/feed.h"
#include "graphs/transform.h"
#include "kernels/gather.h"
#include "tests/gradients.h"
#include "tests/program.h"

namespace pc::test {
namespace {

using experiments::parse_config;
using Json = nlohmann::json;

Shape shape_of(std::string_view name, const Attrs& attrs, const Shape& source, std::optional<Shape> wanted = {}) {
  const Op& op = find_op(name);
  const Attrs all = complete_attrs(op, attrs);
  return op.infer({std::span(&source, 1), all, wanted});
}

graphs::Description network(const std::string& graph) {
  const std::string task = "name: t\ntask: {check: {clamp: [image, label]}}\n";
  return experiments::read_config(parse_config(task + "graph: {" + graph + "}\n", "t.yaml")).graph;
}

std::int64_t weights(const std::string& graph) {
  const graphs::Description made = network(graph);
  return Graph(made.nodes, made.edges).weight_count();
}

/// A named network with random values at its first and its last node.
Problem random_problem(const std::string& graph, std::int64_t batch, double size) {
  const graphs::Description made = network(graph);
  Problem problem{.nodes = made.nodes, .edges = made.edges, .clamps = {}, .batch = batch};
  const Graph whole = problem.graph();
  Dice dice(3);
  for (const char* name : {"image", "label"}) {
    const NodeId v = whole.find(name);
    problem.clamp(v, dice.normals(batch * whole.node(v).shape.count(), size));
  }
  return problem;
}

}  // namespace

TEST_CASE("images: shapes that come out, and those that do not fit") {
  CHECK(shape_of("conv2d", {{"channels", 8}}, {32, 20, 3}) == Shape{30, 18, 8});
  CHECK(shape_of("conv2d", {{"padding", 1}, {"stride", 2}}, {7, 8, 3}, Shape{4, 4, 5}) == Shape{4, 4, 5});
  CHECK(shape_of("conv2d", {{"channels", 2}, {"kernel", 2}, {"dilation", 3}}, {4, 5, 2}) == Shape{1, 2, 2});
  CHECK(shape_of("conv_transpose2d", {{"channels", 8}, {"kernel", 4}, {"stride", 2}, {"padding", 1}}, {5, 7, 3}) ==
        Shape{10, 14, 8});
  CHECK(shape_of("conv_transpose2d", {{"channels", 1}, {"stride", 2}, {"output_padding", 1}}, {3, 3, 1}) ==
        Shape{8, 8, 1});
  CHECK(shape_of("max_pool2d", {}, {7, 8, 3}) == Shape{3, 4, 3});
  CHECK(shape_of("avg_pool2d", {{"kernel", 3}, {"stride", 2}, {"padding", 1}}, {7, 8, 3}) == Shape{4, 4, 3});
  CHECK(shape_of("global_avg_pool", {}, {7, 8, 3}) == Shape{3});
  CHECK(shape_of("upsample", {{"by", 3}}, {2, 1, 5}) == Shape{6, 3, 5});
  CHECK(shape_of("pad", {{"by", 2}}, {2, 1, 5}) == Shape{6, 5, 5});
  CHECK(shape_of("channels_last", {}, {3, 32, 20}) == Shape{32, 20, 3});
  CHECK(shape_of("channels_first", {}, {32, 20, 3}) == Shape{3, 32, 20});
  CHECK(shape_of("reshape", {{"height", 2}, {"channels", 3}}, {12}) == Shape{2, 2, 3});

  const auto wrong = [](std::string_view name, const Attrs& attrs, const Shape& source) {
    return error_of([&] { shape_of(name, attrs, source); });
  };
  CHECK(contains(wrong("conv2d", {}, {5, 5, 3}), "write {conv2d: {channels: N}}"));
  CHECK(contains(wrong("conv2d", {{"channels", 4}}, {75}), "[height, width, channels], not [75]"));
  CHECK(contains(wrong("conv2d", {{"channels", 4}}, {2, 5, 3}), "larger than the image"));
  CHECK(contains(wrong("conv2d", {{"channels", 4}}, {1, 6, 6}), "[1, 6, 6] is taken for 1 x 6 places of 6 channels"));
  CHECK(contains(wrong("max_pool2d", {}, {1, 6, 6}), "write channels_last before the operator where"));
  CHECK(contains(wrong("conv2d", {{"channels", 4}, {"groups", 3}}, {3, 4, 4}), "3 x 4 places of 4 channels"));
  CHECK(contains(wrong("conv2d", {{"channels", 4}, {"dilation", 99999999999.0}}, {5, 5, 3}),
                 "dilation must be a whole number of at least 1 and at most 999999, not 99999999999"));
  CHECK(contains(wrong("conv2d", {{"channels", 4}, {"groups", 2}}, {5, 5, 3}), "do not divide"));
  CHECK(contains(wrong("conv2d", {{"channels", 4}, {"stride", 0.5}}, {5, 5, 3}), "stride must be a whole number"));
  CHECK(contains(wrong("conv_transpose2d", {{"channels", 4}, {"output_padding", 1}}, {5, 5, 3}), "below the stride"));
  CHECK(contains(wrong("max_pool2d", {{"padding", 2}}, {5, 5, 3}), "more than half"));
  CHECK(contains(wrong("reshape", {{"height", 5}}, {12}), "has 12 entries"));
  CHECK(contains(wrong("layer_norm", {{"axes", 2}}, {12}), "axes must be 1 to 1"));
}

// VGG5 and VGG7 are published with 3.8 and 4.5 million parameters. The numbers here are added up by hand, layer by
// layer; that of ResNet-18 for CIFAR-10 with two parameters a channel in each normalisation is well known.
TEST_CASE("images: the named networks have the published sizes") {
  CHECK(weights("vgg5: {}") == 3584 + 295168 + 1180160 + 2359808 + 20490);
  CHECK(weights("vgg7: {}") == 3584 + 147584 + 295168 + 590080 + 1180160 + 2359808 + 5130);
  CHECK(weights("vgg9: {}") == 3584 + 147584 + 295168 + 590080 + 1180160 + 3 * 2359808 + 20490);
  CHECK(weights("resnet18: {norm: layer_norm}") == 11173962);
  CHECK(network("vgg5: {}").nodes.size() == 6);
  CHECK(network("vgg9: {}").nodes.size() == 10);
  CHECK(network("vgg9: {blocks: 3}").nodes.size() == 5);
  CHECK(network("resnet18: {}").nodes.size() == 19);
  CHECK(network("resnet18: {inner: false}").nodes.size() == 11);
  CHECK(weights("vgg9: {blocks: 3}") == weights("vgg9: {}"));
  CHECK(weights("resnet18: {inner: false}") == weights("resnet18: {}"));
  CHECK(contains(error_of([] { graphs::mupc(network("vgg5: {}")); }), "no gain for conv2d"));
  CHECK(contains(error_of([] { network("vgg5: {size: 30}"); }), "multiple of 16"));
  CHECK(network("vgg5: {blocks: 4}").nodes.size() == 3);
  CHECK(contains(error_of([] { network("vgg5: {blocks: 5}"); }), "at most the 4 convolutions, not 5"));
  CHECK(contains(error_of([] { network("resnet18: {width: 0}"); }), "width must be a whole number"));
  CHECK(contains(error_of([] { network("resnet18: {norm: softmax}"); }), "norm is none, layer_norm, rms_norm or"));
}

TEST_CASE("images: errors as variables and values reach the same minimum of a convolutional network") {
  // Without a max-pool: at its kinks no slope is zero.
  const Problem problem = random_problem(
      "nodes: {image: {shape: [2, 6, 6]}, a: {shape: [6, 6, 3]}, b: {shape: [2, 2, 4]}, label: {shape: [3]}}, edges: ["
      "{from: image, to: a, op: [channels_last, {conv2d: {padding: 1}}, tanh]}, "
      "{from: a, to: b, op: [{conv2d: {channels: 4, padding: 1}}, tanh, {avg_pool2d: {kernel: 3}}]}, "
      "{from: b, to: label, op: linear}]",
      2, 1);
  PlanSpec by_values = spec_for(problem, "pc"), by_errors = spec_for(problem, "epc");
  by_values.relax = {.steps = 20000, .stepper = ValueSgd{0.1, 0}, .stop = GradientNorm{1e-11}};
  by_errors.relax = by_values.relax;
  Run values(problem, by_values), errors(problem, by_errors);
  REQUIRE(values.step().converged);
  REQUIRE(errors.step().converged);
  const double energy = values.trainer.energies().total_end(), start = values.trainer.energies().total_start();
  CHECK(energy < 0.9 * start);
  CHECK(std::abs(errors.trainer.energies().total_end() - energy) < 1e-9 * start);
  for (ParamId p = 0; p < values.network.graph().param_count(); ++p) {
    CHECK(worst_difference(read(values.network, values.network.gradient(p)),
                           read(errors.network, errors.network.gradient(p))) < 1e-8);
  }
}

// One network whose pools are evaluated with the error, where windows lie side by side, and one of everything else.
TEST_CASE("images: form changes gives the same numbers as form values") {
  for (const char* graph :
       {"nodes: {image: {shape: [2, 6, 6]}, a: {shape: [3, 3, 3]}, b: {shape: [1, 1, 4]}, label: {shape: [3]}}, edges: "
        "["
        "{from: image, to: a, op: [channels_last, {conv2d: {channels: 3, padding: 1}}, gelu, max_pool2d]}, "
        "{from: a, to: b, op: [{conv2d: {channels: 4, padding: 1}}, tanh, max_pool2d]}, "
        "{from: b, to: label, op: linear}]",
        "nodes: {image: {shape: [2, 5, 5]}, a: {shape: [5, 5, 3]}, b: {shape: [3, 3, 4]}, c: {shape: [6, 6, 2]}, "
        "d: {shape: [3, 3, 2]}, label: {shape: [2]}}, edges: ["
        "{from: image, to: a, op: [channels_last, {conv2d: {padding: 1}}, leaky_relu]}, "
        "{from: a, to: b, op: [{conv2d: {channels: 4, padding: 1}}, gelu, {max_pool2d: {kernel: 3, stride: 2, padding: "
        "1}}]}, "
        "{from: b, to: c, op: [{conv_transpose2d: {kernel: 2, stride: 2}}]}, "
        "{from: c, to: d, op: [max_pool2d, {conv2d: {padding: 1}}]}, "
        "{from: c, to: d, op: [pad, {avg_pool2d: {}}, {conv2d: {kernel: 2}}]}, "
        "{from: d, to: label, op: [upsample, global_avg_pool]}]"}) {
    CAPTURE(graph);
    const Problem problem = random_problem(graph, 3, 1);
    PlanSpec spec = plan_for(problem, 6);
    for (const bool optimize : {true, false}) {
      spec.optimize = optimize;
      spec.form = Form::values;
      Run values(problem, spec);
      spec.form = Form::changes;
      Run changes(problem, spec);
      for (int i = 0; i < 3; ++i) {
        values.step();
        changes.step();
      }
      check_near_numbers(changes, values, 1e-9);
      CHECK(changes.network.arena().has("dx/a"));
    }
  }
}

// The bits of an operand (tf32 and float16: 2^-11, bfloat16: 2^-8), of values, weights and errors, over five layers:
// the limits for VGG networks.
TEST_CASE("images: gradients err by the bits of operands in every layer") {
  const Problem problem = random_problem("vgg5: {size: 16, width: 8}", 4, 1);
  PlanSpec spec = plan_for(problem, 7);
  spec.relax.stepper = ValueSgd{0.02, 0.3};
  spec.gradients = true;
  for (const auto& [operands, limit] : {std::pair{DType::f32, 1e-5}, std::pair{DType::tf32, 3e-3},
                                        std::pair{DType::f16, 3e-3}, std::pair{DType::bf16, 1e-2}}) {
    CAPTURE(name_of(operands));
    spec.operands = DType::f32;
    Run exact(problem, spec, DType::f64);
    spec.operands = operands;
    Run run(problem, spec, DType::f32);
    for (ParamId p = 0; p < run.network.graph().param_count(); ++p) {
      exact.network.arena().write(exact.network.weight(p), read(run.network, run.network.weight(p)));
    }
    const Gradients want = gradients_of(exact), got = gradients_of(run);
    CHECK(read(run.network, run.network.overflow())[0] == 0);
    for (std::size_t p = 0; p < want.size(); ++p) {
      CAPTURE(p);
      CHECK(distance({got[p]}, {want[p]}) < limit);
    }
  }
}

// Rounding differs (zil adds errors to values and takes them off again), and training carries it on.
TEST_CASE("images: an exact schedule and backprop have the same loss at each step of training a ResNet-18") {
  const Problem problem = random_problem(
      "resnet18: {width: 1, size: 8, classes: 5, activation: silu, output: softmax_cross_entropy}", 4, 1);
  const auto curve = [&](const char* schedule) {
    PlanSpec spec = spec_for(problem, schedule);
    spec.learn = LearnSpec{WeightAdam{}, {.base = 1e-3}, 0};
    Run run(problem, spec);
    Values losses;
    for (int step = 0; step < 12; ++step) {
      run.trainer.reset_energies();
      run.step();
      losses.push_back(run.trainer.energies().total_start());
    }
    return losses;
  };
  const Values truth = curve("backprop");
  CHECK(truth.back() < 0.99 * truth.front());
  for (const char* schedule : {"zil", "fa_zil", "fixed_prediction"}) {
    CAPTURE(schedule);
    CHECK(relative_error(curve(schedule), truth) < 1e-9);
  }
}

// --- augmentation ---

TEST_CASE("augment: each image is one of the shifted and mirrored ones, all of them come, and each epoch draws anew") {
  constexpr std::int64_t kHeight = 4, kWidth = 3, kPlanes = 2, kCrop = 1, kCount = 400;
  const std::int64_t size = kPlanes * kHeight * kWidth;
  Host image({1, size}), cursor({}, 0), epoch({}, 0), scale({kPlanes}, 2), shift({kPlanes}, 0.5);
  for (std::size_t i = 0; i < image.values.size(); ++i) image[i] = double(i + 1);
  std::vector<std::int32_t> order(kCount, 0);
  const auto draw = [&](double of_epoch) {
    Host out({kCount, size}, NAN);
    epoch[0] = of_epoch;
    kernels::gather(
        {}, {.table = image.view(),
             .out = out.view(),
             .rows = {{.data = order.data(), .shape = {kCount}, .dtype = DType::i32}, cursor.view()},
             .scale = scale.view(),
             .shift = shift.view(),
             .augment = {
                 .height = kHeight, .width = kWidth, .crop = kCrop, .flip = true, .seed = 7, .epoch = epoch.view()}});
    return out;
  };
  Host out = draw(0);
  std::set<int> seen;
  for (std::int64_t k = 0; k < kCount; ++k) {
    int matches = 0;
    for (int variant = 0; variant < 18; ++variant) {
      const std::int64_t down = variant / 2 % 3 - 1, right = variant / 6 - 1;
      bool same = true;
      for (std::int64_t i = 0; i < size; ++i) {
        const std::int64_t plane = i / (kHeight * kWidth), y = i / kWidth % kHeight + down;
        std::int64_t x = i % kWidth + right;
        const bool inside = y >= 0 && y < kHeight && x >= 0 && x < kWidth;
        if (variant % 2 == 1) x = kWidth - 1 - x;
        const double pixel = inside ? image[index((plane * kHeight + y) * kWidth + x)] : 0;
        same = same && out(k, i) == 2 * pixel + 0.5;
      }
      matches += same ? 1 : 0;
      if (same) seen.insert(variant);
    }
    CHECK(matches == 1);
  }
  CHECK(seen.size() == 18);
  CHECK(same_bits(draw(0).values, out.values));
  CHECK(!same_bits(draw(1).values, out.values));
}

TEST_CASE("augment: what a network is to copy has been shifted and mirrored as its input was") {
  constexpr std::int64_t kRows = 40;
  const experiments::DataRequest request{.set = "glyphs", .train = 60, .test = 10};
  const experiments::DataSet data = experiments::load_data(request);
  const experiments::DataConfig plain{.batch = kRows, .validation_part = 0},
      shifted{.batch = kRows, .validation_part = 0, .crop = 3, .flip = true};
  const auto batch = [&](const experiments::DataConfig& config, bool next) {
    experiments::Feed feed({}, data, config, 3);
    Host input({kRows, 784}), copy({kRows, 784});
    feed.rewind(feed.train());
    feed.record_input({}, feed.train(), input.view());
    feed.record_copy({}, feed.train(), copy.view(), next);
    return std::pair{input.values, copy.values};
  };
  const auto [input, copy] = batch(shifted, false);
  CHECK(same_bits(input, copy));
  CHECK(!same_bits(input, batch(plain, false).first));
  // The next example, but for the last one's, is the input of the row below, with the shift of its own row.
  const auto [one, other] = batch(plain, true);
  CHECK(std::equal(one.begin() + 784, one.end(), other.begin()));
  CHECK(!same_bits(batch(shifted, true).second, other));
}

TEST_CASE("augment and label smoothing: a run that was stopped goes on with the same images; the config is checked") {
  const Scratch scratch;
  const fs::path config = scratch / "small.yaml";
  std::ofstream(config) << "name: small\n"
                           "data: {set: glyphs, train: 300, test: 50, batch: 64, augment: {crop: 2, flip: true}}\n"
                           "graph: {mlp: {widths: [784, 8, 10]}}\n"
                           "task: {classify: {input: image, target: label, smoothing: 0.1}}\n"
                           "device: cpu\n"
                           "relax: {schedule: backprop}\n"
                           "learn: {epochs: 2}\n";
  const auto signature = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"run", config, "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Result result = run_program(scratch, arguments);
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
    return Json::parse(result.out)["signature"].get<std::string>();
  };
  const std::string whole = signature({"--out", scratch / "a"}), part = scratch / "b";
  CHECK(signature({"--out", part, "--set", "learn.epochs=1"}) != whole);
  CHECK(signature({"--out", part, "--resume", "--set", "learn.epochs=2"}) == whole);
  CHECK(signature({"--out", scratch / "c", "--set", "data.augment.crop=0"}) != whole);
  CHECK(signature({"--out", scratch / "d", "--set", "task.classify.smoothing=0"}) != whole);
  const auto fails = [&](const std::string& set, const std::string& why) {
    const Result result = run_program(scratch, {"run", config, "--out", scratch / "e", "--set", set});
    CHECK(result.status == 2);
    CHECK(contains(result.err, why));
  };
  fails("data.augment.crop=28", "out of sight");
  fails("data.augment.crop=-1", "data.augment.crop");
  fails("task.classify.smoothing=1.5", "task.classify.smoothing");
}

}  // namespace pc::test

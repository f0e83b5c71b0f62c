// vgg5, vgg7, vgg9: 3x3 convolutions, some of them followed by a 2x2 max-pool, and a linear layer, as in the PCX
// benchmark (Pinchetti et al., "Benchmarking predictive coding networks - made simple", ICLR 2025; liukidar/pcx
// v0.6.1-public, examples/s4_1_discriminative_mode) and, for vgg9, in cgoemaere/error_based_PC (get_arch.py). A value
// node stands behind each layer: after the activation, and after the pool where there is one; with `blocks`, behind
// every so many layers.
#include "graphs/image_net.h"
#include "graphs/networks.h"

namespace pc::graphs {
namespace {

struct Layer {
  int width;  // channels, in those of the first layer
  bool pool = false, padded = true;
};

std::vector<OpSpec> chain_of(const Layer& layer, std::int64_t width, const OpSpec& activation) {
  std::vector<OpSpec> chain = {
      {&find_op("conv2d"), {{"channels", double(layer.width * width)}, {"padding", layer.padded ? 1.0 : 0.0}}},
      activation};
  if (layer.pool) chain.push_back({&find_op("max_pool2d"), {}});
  return chain;
}

Description make(Settings& settings, std::span<const Layer> layers, int places) {
  ImageNet net(settings);
  const std::int64_t width = whole(settings, "width", 128), blocks = whole(settings, "blocks", 1);
  PC_CHECK(blocks <= std::ssize(layers), "vgg", "blocks is how many layers lie between value nodes, at most the ",
           layers.size(), " convolutions, not ", blocks);
  const OpSpec activation = settings.op("activation", "gelu");
  PC_CHECK(net.size() % places == 0, "vgg", "size must be a multiple of ", places, ", not ", net.size());
  Shape shape{net.size(), net.size(), 0};
  std::string from = net.input();
  std::vector<OpSpec> chain = {{&find_op("channels_last"), {}}};
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const Layer& layer = layers[i];
    for (OpSpec& op : chain_of(layer, width, activation)) chain.push_back(std::move(op));
    std::int64_t extent = shape[0] - (layer.padded ? 0 : 2);
    if (layer.pool) extent /= 2;
    shape = {extent, extent, layer.width * width};
    const auto done = static_cast<std::int64_t>(i) + 1;
    if (done % blocks != 0 && i + 1 < layers.size()) continue;
    const std::string to = "layer" + std::to_string(done);
    net.node(to, shape);
    net.edge(from, to, std::move(chain));
    chain.clear();
    from = to;
  }
  return net.with_output(from, {{&find_op("linear"), {}}});
}

constexpr Layer kVgg5[] = {{1, true}, {2, true}, {4, true}, {4, true}};
// Two of its layers have no padding.
constexpr Layer kVgg7[] = {{1, true}, {1}, {2, true}, {2, false, false}, {4, true}, {4, false, false}};
constexpr Layer kVgg9[] = {{1, true}, {1}, {2, true}, {2}, {4, true}, {4}, {4, true}, {4}};

Description make5(Settings& settings) { return make(settings, kVgg5, 16); }
Description make7(Settings& settings) { return make(settings, kVgg7, 32); }
Description make9(Settings& settings) { return make(settings, kVgg9, 16); }

constexpr std::string_view kKeys =
    "activation: gelu\n"
    "width: 128                  # channels of the first layer; later ones have two and four times as many\n"
    "blocks: 1                   # layers between one value node and the next\n" PC_IMAGE_NET_KEYS;

}  // namespace

extern const Network vgg5{
    .name = "vgg5", .about = "4 convolutions with pools and a linear layer (PCX)", .keys = kKeys, .make = make5};
extern const Network vgg7{.name = "vgg7",
                          .about = "6 convolutions, 3 of them with pools, and a linear layer (PCX)",
                          .keys = kKeys,
                          .make = make7};
extern const Network vgg9{.name = "vgg9",
                          .about = "8 convolutions, 4 of them with pools, and a linear layer (error_based_PC)",
                          .keys = kKeys,
                          .make = make9};

}  // namespace pc::graphs

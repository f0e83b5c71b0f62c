// decoder: a generative network from a code to an image: a linear layer to a small image, then transposed convolutions
// that double it until it has its size. A value node stands behind each layer.
#include "graphs/image_net.h"
#include "graphs/networks.h"

namespace pc::graphs {
namespace {

Description make(Settings& settings) {
  const std::int64_t size = whole(settings, "size", 32), channels = whole(settings, "channels", 3);
  const std::int64_t code = whole(settings, "code", 64), width = whole(settings, "width", 32);
  const std::int64_t layers = whole(settings, "layers", 3);
  const OpSpec activation = settings.op("activation", "gelu"), last = settings.op("output_activation", "identity");
  const std::string input = settings.text("input", "code"), target = settings.text("target", "image");
  const EnergySpec output{&find_energy(settings.text("output", "gaussian")),
                          {settings.number("output_precision", 1.0)}};
  const bool prior = settings.flag("prior", false);
  PC_CHECK(layers < 20 && size % (std::int64_t{1} << layers) == 0, "decoder", layers,
           " layers double a small image, so size ", "must be a multiple of 2^", layers, ", not ", size);

  Description graph;
  const auto node = [&](const std::string& name, const Shape& shape, const EnergySpec& energy) {
    graph.nodes.push_back({.name = name, .shape = shape, .energy = energy, .place = settings.place()});
  };
  const auto edge = [&](const std::string& from, const std::string& to, std::vector<OpSpec> chain) {
    graph.edges.push_back({.from = {from}, .to = to, .chain = std::move(chain), .place = settings.place()});
  };
  node(input, {code}, {});
  graph.nodes.back().prior = prior;
  std::string from = input;
  for (std::int64_t layer = 0; layer <= layers; ++layer) {
    const bool is_last = layer == layers;
    const std::int64_t extent = size >> (layers - layer), n = is_last ? channels : width << (layers - 1 - layer);
    const std::string to = is_last ? target : "layer" + std::to_string(layer + 1);
    const OpSpec up{&find_op("conv_transpose2d"),
                    {{"channels", double(n)}, {"kernel", 4}, {"stride", 2}, {"padding", 1}}};
    if (is_last) {
      node(to, {n, extent, extent}, output);
      edge(from, to, {up, {&find_op("channels_first"), {}}, last});
    } else {
      node(to, {extent, extent, n}, {});
      edge(from, to, {layer == 0 ? OpSpec{&find_op("linear"), {}} : up, activation});
    }
    from = to;
  }
  return graph;
}

}  // namespace

extern const Network decoder{
    .name = "decoder",
    .about = "from a code to an image through transposed convolutions",
    .keys =
        "code: 64                    # entries of the first node\n"
        "layers: 3                   # transposed convolutions, each doubles rows and columns\n"
        "width: 32                   # channels before the last layer; each earlier one has twice as many\n"
        "size: 32                    # rows and columns of the image\n"
        "channels: 3                 # of the image, [channels, size, size]\n"
        "activation: gelu\n"
        "output_activation: identity # after the last layer\n"
        "output: gaussian            # energy of the image\n"
        "output_precision: 1.0\n"
        "prior: false                # true: a trainable constant predicts the code\n"
        "input: code                 # name of the first node\n"
        "target: image               # name of the last node\n",
    .make = make};

}  // namespace pc::graphs

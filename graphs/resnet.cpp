// resnet18 with the stem for small images (He et al., "Deep residual learning for image recognition", 2016,
// sections 3.4 and 4.2): a 3x3 convolution, four stages of two blocks, the mean over places, a linear layer. Value
// nodes hold sums before the activation f, so that a block
//   inner = norm(conv(f(x)))        x' = norm(conv(f(inner))) + f(x)
// is two nodes, and what is added is an edge of its own: f alone, or where the shape changes norm(conv 1x1 (f(x))).
#include "graphs/image_net.h"
#include "graphs/networks.h"

namespace pc::graphs {
namespace {

struct Ops {
  OpSpec activation;
  std::vector<OpSpec> norm;  // empty: none

  [[nodiscard]] std::vector<OpSpec> conv(std::int64_t channels, std::int64_t kernel, std::int64_t stride) const {
    std::vector<OpSpec> chain = {{&find_op("conv2d"),
                                  {{"channels", double(channels)},
                                   {"kernel", double(kernel)},
                                   {"stride", double(stride)},
                                   {"padding", double(kernel / 2)},
                                   {"bias", norm.empty() ? 1.0 : 0.0}}}};
    chain.insert(chain.end(), norm.begin(), norm.end());
    return chain;
  }
  [[nodiscard]] std::vector<OpSpec> activated(const std::vector<OpSpec>& chain) const {
    std::vector<OpSpec> all = {activation};
    all.insert(all.end(), chain.begin(), chain.end());
    return all;
  }
};

Description make(Settings& settings) {
  constexpr int kStages = 4, kBlocks = 2;
  ImageNet net(settings);
  const std::int64_t width = whole(settings, "width", 64);
  const std::string norm = settings.text("norm", "none");
  PC_CHECK(norm == "none" || norm == "layer_norm" || norm == "rms_norm" || norm == "batch_norm", "resnet18",
           "norm is none, layer_norm, rms_norm or batch_norm, not \"", norm, "\"");
  const bool inner_nodes = settings.flag("inner", true);
  const Ops ops{settings.op("activation", "relu"),
                norm == "none" ? std::vector<OpSpec>{} : std::vector<OpSpec>{{&find_op(norm), {}}}};
  PC_CHECK(net.size() % 8 == 0, "resnet18", "size must be a multiple of 8, not ", net.size());

  std::vector<OpSpec> stem = ops.conv(width, 3, 1);
  stem.insert(stem.begin(), {&find_op("channels_last"), {}});
  std::string from = "stem";
  std::int64_t extent = net.size(), channels = width;
  net.node(from, {extent, extent, channels});
  net.edge(net.input(), from, std::move(stem));
  for (int stage = 1; stage <= kStages; ++stage) {
    for (int block = 1; block <= kBlocks; ++block) {
      const bool changes = stage > 1 && block == 1;
      const std::int64_t stride = changes ? 2 : 1;
      if (changes) channels *= 2;
      extent /= stride;
      const std::string to = "stage" + std::to_string(stage) + "_block" + std::to_string(block), inner = to + "_inner";
      const auto first = ops.activated(ops.conv(channels, 3, stride)), second = ops.activated(ops.conv(channels, 3, 1));
      if (inner_nodes) net.node(inner, {extent, extent, channels});
      net.node(to, {extent, extent, channels});
      if (inner_nodes) {
        net.edge(from, inner, first);
        net.edge(inner, to, second);
      } else {
        std::vector<OpSpec> both = first;
        both.insert(both.end(), second.begin(), second.end());
        net.edge(from, to, both);
      }
      net.edge(from, to, changes ? ops.activated(ops.conv(channels, 1, stride)) : std::vector{ops.activation});
      from = to;
    }
  }
  return net.with_output(from, {ops.activation, {&find_op("global_avg_pool"), {}}, {&find_op("linear"), {}}});
}

}  // namespace

extern const Network resnet18{
    .name = "resnet18",
    .about = "a stem, 8 residual blocks of two convolutions, a linear layer",
    .keys =
        "activation: relu\n"
        "width: 64                   # channels of the first stage; each later one has twice as many\n"
        "norm: none                  # none | layer_norm | rms_norm | batch_norm, after each convolution\n"
        "inner: true                 # a value node inside each block too; false: one for each "
        "block\n" PC_IMAGE_NET_KEYS,
    .make = make};

}  // namespace pc::graphs

// What networks from an image to a class have in common: settings, the first and the last node.
#pragma once

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "graphs/graphs.h"

namespace pc::graphs {

/// The part of `keys` that ImageNet reads.
#define PC_IMAGE_NET_KEYS                                                \
  "size: 32                    # rows and columns of the image\n"        \
  "channels: 3                 # of the image, [channels, size, size]\n" \
  "classes: 10\n"                                                        \
  "output: gaussian            # energy of the last node\n"              \
  "output_precision: 1.0\n"                                              \
  "input: image                # name of the first node\n"               \
  "target: label               # name of the last node\n"

/// A whole number of at least 1.
inline std::int64_t whole(Settings& settings, std::string_view key, double fallback) {
  const double value = settings.number(key, fallback);
  PC_CHECK(value >= 1 && value < 1e6 && value == std::floor(value), "graph", key,
           " must be a whole number of at least 1, not ", value);
  return static_cast<std::int64_t>(value);
}

class ImageNet {
 public:
  explicit ImageNet(Settings& settings)
      : size_(whole(settings, "size", 32)),
        classes_(whole(settings, "classes", 10)),
        input_(settings.text("input", "image")),
        target_(settings.text("target", "label")),
        output_{&find_energy(settings.text("output", "gaussian")), {settings.number("output_precision", 1.0)}},
        place_(settings.place()) {
    node(input_, {whole(settings, "channels", 3), size_, size_});
  }

  [[nodiscard]] std::int64_t size() const { return size_; }
  [[nodiscard]] const std::string& input() const { return input_; }

  void node(const std::string& name, const Shape& shape) {
    NodeSpec& spec = graph_.nodes.emplace_back();
    spec.name = name;
    spec.shape = shape;
    spec.place = place_;
  }
  void edge(const std::string& from, const std::string& to, std::vector<OpSpec> chain) {
    graph_.edges.push_back({.from = {from}, .to = to, .chain = std::move(chain), .place = place_});
  }
  /// The whole network, once its last node is predicted from `from`.
  Description with_output(const std::string& from, std::vector<OpSpec> chain) {
    node(target_, {classes_});
    graph_.nodes.back().energy = output_;
    edge(from, target_, std::move(chain));
    return std::move(graph_);
  }

 private:
  std::int64_t size_, classes_;
  std::string input_, target_;
  EnergySpec output_;
  std::string place_;
  Description graph_;
};

}  // namespace pc::graphs

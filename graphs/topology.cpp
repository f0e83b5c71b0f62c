#include "graphs/topology.h"

#include <algorithm>
#include <cmath>
#include <future>
#include <limits>
#include <thread>

#include "pc/draws.h"

namespace pc::graphs {
namespace {

using Row = std::vector<std::int32_t>;  // the neurons that one reads, ascending, each once

constexpr std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// The numbers of one row: rows may be made in any order.
Draws draws_of(const Wanted& wanted, std::int64_t row) {
  return {wanted.seed, Purpose::topology, 0, static_cast<std::uint64_t>(row)};
}

/// Sorts a row, and drops what is double or unwanted.
void tidy(Row& row, std::int64_t reader, const Wanted& wanted) {
  std::sort(row.begin(), row.end());
  row.erase(std::unique(row.begin(), row.end()), row.end());
  const bool keep_sensory = wanted.sensory_edges || !wanted.parts.sensory(reader);
  if (wanted.self_loops && keep_sensory) return;
  std::erase_if(row, [&](std::int64_t read) {
    return (read == reader && !wanted.self_loops) || (!keep_sensory && wanted.parts.sensory(read));
  });
}

/// Throws where there are more edges than matrices hold.
void check_count(double edges) {
  constexpr double kMost = 9 * 2e9;  // in the matrices between three nodes (pc/pattern.h)
  PC_CHECK(edges <= kMost, "pc_graph", "the topology has about ", edges, " edges or more, and at most ", kMost,
           " fit in: take fewer neurons, or one with fewer edges");
}

/// The same of the rows that fill(row, list) makes, told by a few of them before all are made.
template <class Fill>
void check_count(std::int64_t n, const Fill& fill) {
  constexpr std::int64_t kRows = 16;
  Row row;
  double entries = 0;
  for (std::int64_t i = 0; i < kRows; ++i) {
    row.clear();
    fill(n * i / kRows, row);
    entries += double(row.size());
    check_count(entries / kRows * double(n));  // the other rows can only add to it
  }
}

/// The pattern whose rows fill(row, list) makes, a row at a time and several at once.
template <class Fill>
Pattern by_rows(const Wanted& wanted, const Fill& fill) {
  const std::int64_t n = wanted.parts.total();
  check_count(n, fill);
  struct Part {
    std::int64_t begin, end;
    std::vector<std::int64_t> lengths;
    Row columns;
  };
  const auto count = static_cast<std::int64_t>(std::clamp(std::thread::hardware_concurrency(), 1U, 32U));
  std::vector<Part> parts;
  for (std::int64_t i = 0; i < count; ++i) parts.push_back({n * i / count, n * (i + 1) / count, {}, {}});
  {
    std::vector<std::future<void>> work;
    for (Part& part : parts) {
      work.push_back(std::async(std::launch::async, [&part, &wanted, &fill] {
        Row row;
        for (std::int64_t i = part.begin; i < part.end; ++i) {
          row.clear();
          fill(i, row);
          tidy(row, i, wanted);
          part.lengths.push_back(std::ssize(row));
          part.columns.insert(part.columns.end(), row.begin(), row.end());
        }
      }));
    }
    for (std::future<void>& part : work) part.get();  // throws what was thrown in there: memory may run out
  }
  Pattern pattern{.rows = n, .cols = n};
  std::size_t entries = 0;
  for (const Part& part : parts) entries += part.columns.size();
  pattern.offsets.reserve(at(n) + 1);
  pattern.columns.reserve(entries);
  for (Part& part : parts) {
    for (const std::int64_t length : part.lengths) pattern.offsets.push_back(pattern.offsets.back() + length);
    pattern.columns.insert(pattern.columns.end(), part.columns.begin(), part.columns.end());
    part.columns = {};
  }
  return pattern;
}

/// The same from a list of edges: a counting sort.
Pattern by_edges(const Wanted& wanted, const EdgeList& edges) {
  const std::int64_t n = wanted.parts.total();
  std::vector<std::int64_t> first(at(n) + 1, 0);
  for (const std::int32_t to : edges.to) ++first[at(to) + 1];
  for (std::size_t i = 1; i < first.size(); ++i) first[i] += first[i - 1];
  std::vector<std::int64_t> next = first;
  Row sources(edges.from.size());
  for (std::size_t e = 0; e < edges.from.size(); ++e) sources[at(next[at(edges.to[e])]++)] = edges.from[e];
  return by_rows(wanted, [&](std::int64_t i, Row& row) {
    row.assign(sources.begin() + first[at(i)], sources.begin() + first[at(i) + 1]);
  });
}

void add_range(Row& row, std::int64_t begin, std::int64_t end) {
  for (std::int64_t j = begin; j < end; ++j) row.push_back(static_cast<std::int32_t>(j));
}

/// Each of [begin, end) with probability p: jumps over those that are left out, whose number is geometric.
void add_each(Row& row, std::int64_t begin, std::int64_t end, double p, Draws& draws) {
  if (p >= 1) return add_range(row, begin, end);
  if (p <= 0) return;
  const double scale = 1 / std::log1p(-p);
  for (double j = static_cast<double>(begin);; j += 1) {
    j += std::floor(std::log(draws.uniform()) * scale);
    if (!(j < static_cast<double>(end))) return;
    row.push_back(static_cast<std::int32_t>(j));
  }
}

double probability(Settings& settings, std::string_view key, double fallback) {
  const double p = settings.number(key, fallback);
  settings.check(p >= 0 && p <= 1, key, " is a probability, not ", p);
  return p;
}

std::int64_t whole(Settings& settings, std::string_view key, double fallback, double low, double high) {
  const double value = settings.number(key, fallback);
  settings.check(value >= low && value <= high && value == std::floor(value), key, " must be a whole number from ", low,
                 " to ", high, ", not ", value);
  return static_cast<std::int64_t>(value);
}

// --- dense ones ---

Pattern full(Settings&, const Wanted& wanted) {
  return by_rows(wanted, [&](std::int64_t, Row& row) { add_range(row, 0, wanted.parts.total()); });
}

/// Where the layers begin: the inputs, those of the hidden neurons, the outputs; and the end.
std::vector<std::int64_t> layers_of(Settings& settings, const Parts& parts) {
  std::vector<std::int64_t> widths = settings.integers_or("layers", {});
  if (widths.empty() && parts.hidden > 0) widths = {parts.hidden};
  std::int64_t sum = 0;
  for (const std::int64_t width : widths) sum += width;
  settings.check(sum == parts.hidden, "layers", " add up to ", sum, " neurons, but there are ", parts.hidden,
                 " hidden ones");
  std::vector<std::int64_t> begin = {0, parts.inputs};
  for (const std::int64_t width : widths) begin.push_back(begin.back() + width);
  if (parts.outputs > 0) begin.push_back(parts.total());
  return begin;
}

struct Ways {
  bool before = false, after = false;  // reads the neighbouring layers
  bool skips = false;                  // and those behind them
};

Pattern layered(Settings& settings, const Wanted& wanted, Ways ways) {
  const std::vector<std::int64_t> begin = layers_of(settings, wanted.parts);
  return by_rows(wanted, [&](std::int64_t i, Row& row) {
    const auto layer = at(std::upper_bound(begin.begin(), begin.end(), i) - begin.begin() - 1);
    if (ways.before && layer > 0) add_range(row, ways.skips ? 0 : begin[layer - 1], begin[layer]);
    if (ways.after && layer + 2 < begin.size()) add_range(row, begin[layer + 1], begin[layer + 2]);
  });
}

Pattern discriminative(Settings& s, const Wanted& w) { return layered(s, w, {.before = true}); }
Pattern generative(Settings& s, const Wanted& w) { return layered(s, w, {.after = true}); }
Pattern bidirectional(Settings& s, const Wanted& w) { return layered(s, w, {.before = true, .after = true}); }
Pattern hierarchical(Settings& s, const Wanted& w) { return layered(s, w, {.before = true, .skips = true}); }

// --- blocks ---

/// Each pair within a block is an edge with one probability, each other pair with another; `begin` has the blocks'
/// first neurons and the end.
Pattern blocks(const Wanted& wanted, const std::vector<std::int64_t>& begin, double inside, double between) {
  return by_rows(wanted, [&](std::int64_t i, Row& row) {
    Draws draws = draws_of(wanted, i);
    const auto block = std::upper_bound(begin.begin(), begin.end(), i) - 1;
    add_each(row, 0, block[0], between, draws);
    add_each(row, block[0], block[1], inside, draws);
    add_each(row, block[1], begin.back(), between, draws);
  });
}

/// [from, to) in `count` blocks, as equal as can be; appends their first neurons.
void divide(std::int64_t from, std::int64_t to, std::int64_t count, std::vector<std::int64_t>& begin) {
  for (std::int64_t i = 0; i < count; ++i) begin.push_back(from + (to - from) * i / count);
}

Pattern stochastic_block(Settings& settings, const Wanted& wanted) {
  const std::int64_t n = wanted.parts.total();
  const std::int64_t count = whole(settings, "blocks", std::min<double>(4, double(n)), 1, double(n));
  std::vector<std::int64_t> begin;
  divide(0, n, count, begin);
  begin.push_back(n);
  return blocks(wanted, begin, probability(settings, "inside", 0.5), probability(settings, "between", 0.05));
}

Pattern assembly(Settings& settings, const Wanted& wanted) {
  const Parts& parts = wanted.parts;
  const double hidden = double(parts.hidden);
  const std::int64_t count = whole(settings, "regions", std::min(4.0, hidden), std::min(1.0, hidden), hidden);
  std::vector<std::int64_t> begin = {0};
  divide(parts.inputs, parts.inputs + parts.hidden, count, begin);
  if (parts.outputs > 0) begin.push_back(parts.inputs + parts.hidden);
  begin.push_back(parts.total());
  return blocks(wanted, begin, probability(settings, "inside", 1), probability(settings, "between", 0.05));
}

// --- random graphs ---

Pattern erdos_renyi(Settings& settings, const Wanted& wanted) {
  const std::int64_t n = wanted.parts.total();
  const std::int64_t others = std::max<std::int64_t>(1, wanted.self_loops ? n : n - 1);
  constexpr double kUnset = std::numeric_limits<double>::quiet_NaN();  // no setting can be that
  const double degree = settings.number("degree", kUnset);
  const bool by_degree = !std::isnan(degree);
  settings.check(!by_degree || std::isnan(settings.number("density", kUnset)), "degree",
                 " says what density says too: write one of them, not both");
  const double p = by_degree ? degree / double(others) : probability(settings, "density", 0.1);
  settings.check(p >= 0 && p <= 1, "degree", " is the mean number of neurons that one reads, 0 to ", others, ", not ",
                 degree);
  return by_rows(wanted, [&](std::int64_t i, Row& row) {
    Draws draws = draws_of(wanted, i);
    add_each(row, 0, n, p, draws);
  });
}

Pattern fixed_in_degree(Settings& settings, const Wanted& wanted) {
  const std::int64_t n = wanted.parts.total(), others = wanted.self_loops ? n : n - 1;
  const std::int64_t degree = whole(settings, "degree", std::min(100.0, double(others)), 0, double(others));
  return by_rows(wanted, [&](std::int64_t i, Row& row) {
    Draws draws = draws_of(wanted, i);
    // A row that reads most of the others is made by those that it leaves out.
    const bool most = 2 * degree > others;
    const std::int64_t count = most ? others - degree : degree;
    while (std::ssize(row) < count) {
      for (std::int64_t missing = count - std::ssize(row); missing > 0; --missing) {
        std::int64_t j = draws.below(others);
        if (!wanted.self_loops && j >= i) ++j;
        row.push_back(static_cast<std::int32_t>(j));
      }
      std::sort(row.begin(), row.end());
      row.erase(std::unique(row.begin(), row.end()), row.end());
    }
    if (!most) return;
    Row all, kept;
    add_range(all, 0, n);
    std::set_difference(all.begin(), all.end(), row.begin(), row.end(), std::back_inserter(kept));
    row = std::move(kept);
  });
}

/// Watts & Strogatz 1998, directed: on a ring each neuron reads its nearest ones, half on either side, and each of
/// these edges comes, with probability `rewire`, from any other neuron instead.
Pattern watts_strogatz(Settings& settings, const Wanted& wanted) {
  const std::int64_t n = wanted.parts.total();
  const std::int64_t neighbours = whole(settings, "neighbours", std::min<double>(10, double(n - 1)), 0, double(n - 1));
  const double rewire = probability(settings, "rewire", 0.1);
  return by_rows(wanted, [&](std::int64_t i, Row& row) {
    Draws draws = draws_of(wanted, i);
    std::int64_t rewired = 0;
    for (std::int64_t k = 0; k < neighbours; ++k) {
      const std::int64_t distance = k / 2 + 1, j = (i + (k % 2 == 0 ? distance : n - distance)) % n;
      if (draws.uniform() < rewire) {
        ++rewired;
      } else {
        row.push_back(static_cast<std::int32_t>(j));
      }
    }
    std::sort(row.begin(), row.end());
    while (rewired > 0) {
      const auto j = static_cast<std::int32_t>(draws.below(n));
      const auto place = std::lower_bound(row.begin(), row.end(), j);
      if (j == i || (place != row.end() && *place == j)) continue;
      row.insert(place, j);
      --rewired;
    }
  });
}

/// Barabasi & Albert 1999: neurons come one by one, in a random order, and each links to `links` earlier ones, chosen
/// in proportion to the links that these have. Every link is an edge both ways.
Pattern barabasi_albert(Settings& settings, const Wanted& wanted) {
  const std::int64_t n = wanted.parts.total();
  const std::int64_t links =
      whole(settings, "links", std::min<double>(5, double(n - 1)), 1, double(std::max<std::int64_t>(1, n - 1)));
  Draws draws(wanted.seed, Purpose::topology, 1, 0);
  std::vector<std::int32_t> name(at(n));
  for (std::int64_t i = 0; i < n; ++i) name[at(i)] = static_cast<std::int32_t>(i);
  for (std::int64_t i = n - 1; i > 0; --i) std::swap(name[at(i)], name[at(draws.below(i + 1))]);
  check_count(2 * double(n) * double(links));
  std::vector<std::int32_t> ends;  // each neuron as often as it has links
  ends.reserve(at(2 * n * links));
  EdgeList edges;
  Row chosen;
  const auto link = [&](std::int32_t a, std::int32_t b) {
    ends.insert(ends.end(), {a, b});
    edges.from.insert(edges.from.end(), {name[at(a)], name[at(b)]});
    edges.to.insert(edges.to.end(), {name[at(b)], name[at(a)]});
  };
  for (std::int64_t i = 1; i < n; ++i) {
    chosen.clear();
    if (i <= links) add_range(chosen, 0, i);  // the first ones all know each other
    while (std::ssize(chosen) < std::min(i, links)) {
      const std::int32_t j = ends[at(draws.below(std::ssize(ends)))];
      if (std::find(chosen.begin(), chosen.end(), j) == chosen.end()) chosen.push_back(j);
    }
    for (const std::int32_t j : chosen) link(static_cast<std::int32_t>(i), j);
  }
  return by_edges(wanted, edges);
}

/// Neurons on a plane, row by row, or tile by tile, so that neighbours have near numbers.
class Plane {
 public:
  Plane(Settings& settings, std::int64_t n)
      : width_(whole(settings, "width", std::ceil(std::sqrt(double(n))), 1, double(n))),
        tile_(whole(settings, "tile", 1, 1, double(width_))) {
    height_ = (n + width_ - 1) / width_;
    settings.check(tile_ == 1 || (width_ % tile_ == 0 && n % (width_ * tile_) == 0), "tile", ": tiles of ", tile_,
                   " x ", tile_, " do not fill ", n, " neurons in rows of ", width_);
  }

  struct Place {
    std::int64_t x, y;
  };
  [[nodiscard]] Place place(std::int64_t neuron) const {
    const std::int64_t tile = neuron / (tile_ * tile_), within = neuron % (tile_ * tile_), across = width_ / tile_;
    return {tile % across * tile_ + within % tile_, tile / across * tile_ + within / tile_};
  }
  [[nodiscard]] std::int64_t neuron(Place p) const {
    const std::int64_t tile = p.y / tile_ * (width_ / tile_) + p.x / tile_;
    return tile * tile_ * tile_ + p.y % tile_ * tile_ + p.x % tile_;
  }
  [[nodiscard]] std::int64_t width() const { return width_; }
  [[nodiscard]] std::int64_t height() const { return height_; }

 private:
  std::int64_t width_, tile_, height_ = 0;
};

/// A neuron at distance d, up to the radius, is read with probability peak e^(-d^2 / (2 sigma^2)).
Pattern grid(Settings& settings, const Wanted& wanted) {
  const std::int64_t n = wanted.parts.total();
  const Plane plane(settings, n);
  const double sigma = settings.number("sigma", 2), peak = probability(settings, "peak", 1);
  settings.check(sigma > 0, "sigma", " is the reach of an edge and must be above 0, not ", sigma);
  const double radius = settings.number("radius", 3 * sigma);
  settings.check(radius >= 0 && radius <= 1e6, "radius", " is a distance from 0 to a million, not ", radius);
  const auto reach = static_cast<std::int64_t>(radius);
  return by_rows(wanted, [&](std::int64_t i, Row& row) {
    Draws draws = draws_of(wanted, i);
    const auto [x, y] = plane.place(i);
    for (std::int64_t v = std::max<std::int64_t>(0, y - reach); v <= std::min(plane.height() - 1, y + reach); ++v) {
      for (std::int64_t u = std::max<std::int64_t>(0, x - reach); u <= std::min(plane.width() - 1, x + reach); ++u) {
        const double square = double((u - x) * (u - x) + (v - y) * (v - y));
        const std::int64_t j = plane.neuron({u, v});
        if (square > radius * radius || j >= n) continue;
        if (draws.uniform() < peak * std::exp(-square / (2 * sigma * sigma)))
          row.push_back(static_cast<std::int32_t>(j));
      }
    }
  });
}

Pattern edges(Settings& settings, const Wanted& wanted) {
  const EdgeList list = settings.edge_list("file");
  const std::int64_t n = wanted.parts.total();
  settings.check(list.nodes == n || (list.least_nodes && list.nodes < n), "file", " has ", list.nodes,
                 " nodes, but inputs, hidden and outputs add up to ", n);
  return by_edges(wanted, list);
}

constexpr Topology kFull{"full", "every neuron reads every other", "", full};
constexpr Topology kDiscriminative{"discriminative", "each layer reads the one before it: input, hidden, output",
                                   "layers: []    # widths of hidden layers, together `hidden`; none: one layer\n",
                                   discriminative};
constexpr Topology kGenerative{"generative", "each layer reads the one behind it: output, hidden, input",
                               "layers: []\n", generative};
constexpr Topology kBidirectional{"bidirectional", "each layer reads both of its neighbours", "layers: []\n",
                                  bidirectional};
constexpr Topology kHierarchical{"hierarchical", "each layer reads all that come before it", "layers: []\n",
                                 hierarchical};
constexpr Topology kAssembly{"assembly", "regions: the inputs, the outputs, and parts of the hidden neurons",
                             "regions: 4       # of the hidden neurons\n"
                             "inside: 1.0      # density of edges within a region\n"
                             "between: 0.05    # and from other regions\n",
                             assembly};
constexpr Topology kStochasticBlock{"stochastic_block", "all neurons in equal blocks; edges by two probabilities",
                                    "blocks: 4\ninside: 0.5\nbetween: 0.05\n", stochastic_block};
constexpr Topology kErdosRenyi{"erdos_renyi", "every edge with one probability",
                               "density: 0.1     # the probability; or\n"
                               "degree: 100      # the mean number of neurons that one reads\n",
                               erdos_renyi};
constexpr Topology kFixedInDegree{"fixed_in_degree", "each neuron reads so many others, drawn at random",
                                  "degree: 100\n", fixed_in_degree};
constexpr Topology kWattsStrogatz{"watts_strogatz", "a ring of neighbours, some of them replaced at random",
                                  "neighbours: 10   # that a neuron reads\n"
                                  "rewire: 0.1      # the probability that it reads any other instead\n",
                                  watts_strogatz};
constexpr Topology kBarabasiAlbert{"barabasi_albert", "hubs: newcomers link to neurons that have many links",
                                   "links: 5         # of a newcomer; each is an edge both ways\n", barabasi_albert};
constexpr Topology kGrid{"grid", "a plane, where edges grow rarer with distance",
                         "width: 0         # neurons in a row; default: a square\n"
                         "sigma: 2.0       # probability peak e^(-d^2 / (2 sigma^2)) at distance d\n"
                         "radius: 6.0      # no edge is longer; default: 3 sigma\n"
                         "peak: 1.0\n"
                         "tile: 1          # number neurons by tiles of so many by so many: faster where sparse\n",
                         grid};
constexpr Topology kEdges{"edges", "a list in a file: .csv, .mtx (Matrix Market) or .graphml",
                          "file: graph.csv  # from where pc runs, else under PC_DATA_DIR or data.root\n", edges};

}  // namespace

std::span<const Topology* const> all_topologies() {
  static constexpr const Topology* list[] = {
      &kFull,       &kDiscriminative, &kGenerative,    &kBidirectional,  &kHierarchical, &kAssembly, &kStochasticBlock,
      &kErdosRenyi, &kFixedInDegree,  &kWattsStrogatz, &kBarabasiAlbert, &kGrid,         &kEdges};
  return list;
}

Pattern block_of(const Pattern& pattern, std::int64_t row, std::int64_t rows, std::int64_t col, std::int64_t cols) {
  Pattern block{.rows = rows, .cols = cols};
  block.offsets.reserve(at(rows) + 1);
  for (std::int64_t i = row; i < row + rows; ++i) {
    const auto first = pattern.columns.begin() + pattern.begin(i), last = pattern.columns.begin() + pattern.end(i);
    const auto from = std::lower_bound(first, last, col);
    const auto to = std::lower_bound(from, last, col + cols);
    std::transform(from, to, std::back_inserter(block.columns),
                   [col](std::int32_t c) { return static_cast<std::int32_t>(c - col); });
    block.offsets.push_back(block.count());
  }
  return block;
}

}  // namespace pc::graphs

#include "pc/checkpoint.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <string_view>
#include <vector>

#include "pc/fingerprint.h"
#include "pc/h5.h"

namespace pc {
namespace {

constexpr const char* kFormat = "pc-checkpoint";
constexpr std::int64_t kVersion = 1;
constexpr std::string_view kBuffers = "buffers/";
constexpr const char* kMasks = "mask_fingerprint";
constexpr const char* kData = "progress/data";
constexpr const char* kOtherNetwork = "; the checkpoint is of another network: use the config that it was saved with";

// --- names ---

struct Code {
  std::string_view text;
  char stands_for;
};
constexpr std::array kCodes = {Code{"%25", '%'}, Code{"%2E", '.'}, Code{"%00", '\0'}};

std::string escape_part(std::string_view part) {
  if (part.empty()) return "%";
  std::string out;
  const bool dots = part == "." || part == "..";
  for (const char c : part) {
    if (c == '%') {
      out += "%25";
    } else if (c == '\0') {
      out += "%00";
    } else if (dots) {
      out += "%2E";
    } else {
      out += c;
    }
  }
  return out;
}

/// The path of a buffer in the file; `group` tells whether other buffers lie below its name.
std::string escape(std::string_view name, bool group) {
  std::string out(kBuffers);
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('/', begin), name.size());
    out += (begin == 0 ? "" : "/") + escape_part(name.substr(begin, end - begin));
    begin = end + 1;
  }
  return out + (group ? "%" : "");
}

/// The inverse of escape.
std::string unescape(std::string_view path) {
  std::string name;
  path.remove_prefix(kBuffers.size());
  while (!path.empty()) {
    const auto code =
        std::find_if(kCodes.begin(), kCodes.end(), [&](const Code& c) { return path.starts_with(c.text); });
    if (code != kCodes.end()) {
      name += code->stands_for;
    } else if (path[0] != '%') {
      name += path[0];
    }
    path.remove_prefix(code != kCodes.end() ? code->text.size() : 1);
  }
  return name;
}

// --- saving ---

std::set<std::string> saved_names(const Network& network, std::span<const std::string> prefixes) {
  std::set<std::string> names;
  for (const auto& [name, view] : network.arena().views()) {
    const auto matches = [&name = name](const std::string& prefix) { return name.starts_with(prefix); };
    if (std::any_of(prefixes.begin(), prefixes.end(), matches)) names.insert(name);
  }
  return names;
}

void write_buffers(H5Writer& file, const Arena& arena, const std::set<std::string>& names) {
  std::vector<std::byte> bytes;
  for (const std::string& name : names) {
    const View& view = arena.views().at(name);
    bytes.resize(static_cast<std::size_t>(view.count()) * size_of(view.dtype));
    if (!bytes.empty()) arena.download(view, bytes.data());
    H5Dims dims;
    for (int axis = 0; axis < view.shape.rank(); ++axis) dims.push_back(view.shape[axis]);
    const auto below = names.lower_bound(name + "/");
    const bool group = below != names.end() && below->starts_with(name + "/");
    file.write(escape(name, group), h5_type(view.dtype), dims, bytes.data(), "buffer " + name + " of the network");
  }
}

/// Patterns are made from the config again, not saved: a fingerprint tells whether they came out the same.
std::map<std::string, std::int64_t> fingerprints(const Network& network) {
  std::map<std::string, std::int64_t> list;
  for (const Edge& edge : network.graph().edges()) {
    for (const Link& link : edge.chain) {
      if (!link.pattern) continue;
      const std::string place = escape(network.graph().param(link.params[0]).name, false);
      list["patterns/" + place.substr(kBuffers.size())] = static_cast<std::int64_t>(link.pattern->fingerprint());
    }
  }
  return list;
}

/// The same for the masks of dense weights, in one number: where there was none, there may be one now.
std::int64_t fingerprint_of_masks(const Network& network) {
  Fingerprint print;
  for (const Param& param : network.graph().params()) {
    print.add(param.mask.size());
    for (const std::uint8_t entry : param.mask) print.add(entry != 0 ? 1 : 0);
  }
  return static_cast<std::int64_t>(print.value());
}

// --- loading ---

H5Reader open_checkpoint(const std::filesystem::path& path) {
  H5Reader file(path);
  PC_CHECK(file.has_attribute("format") && file.attribute_text("format") == kFormat, "checkpoint", path.string(),
           ": is an HDF5 file, but not a checkpoint; name the checkpoint.h5 or best.h5 of a run");
  const std::int64_t version = file.attribute_int("version");
  PC_CHECK(version == kVersion, "checkpoint", path.string(), ": has version ", version, "; this program reads version ",
           kVersion, "; use the one that wrote it");
  return file;
}

Progress read_progress(const std::filesystem::path& path, const H5Reader& file) {
  const Progress progress{.epoch = file.read_scalar<std::int64_t>("progress/epoch"),
                          .batch = file.read_scalar<std::int64_t>("progress/batch"),
                          .seconds = file.read_scalar<double>("progress/seconds"),
                          .best = file.read_scalar<double>("progress/best"),
                          .data = file.has(kData) ? file.read_scalar<std::int64_t>(kData) : 0,  // older ones: no
                          .extra = file.read_text("progress/extra")};
  PC_CHECK(progress.epoch >= 0 && progress.batch >= 0, "checkpoint", path.string(), ": claims ", progress.epoch,
           " epochs and ", progress.batch, " batches");
  return progress;
}

/// A buffer on its way from the file into the network.
struct Loaded {
  std::string name;
  Shape shape;
  DType dtype = DType::f32;
  std::vector<std::byte> bytes;
};

DType arena_type(const std::filesystem::path& path, const std::string& name, H5Type type) {
  for (const DType dtype : {DType::f32, DType::f64, DType::i32, DType::u8}) {
    if (h5_type(dtype) == type) return dtype;
  }
  fail("checkpoint", path.string(), ": ", name, " holds ", name_of(type), ", which no buffer does");
}

/// Throws unless the network has such a buffer, or may yet make it.
void check_fits(const std::filesystem::path& path, const Loaded& loaded, const Network& network) {
  const auto& views = network.arena().views();
  const auto found = views.find(loaded.name);
  if (found == views.end()) {  // weights are all made with the network; others may come later
    PC_CHECK(!loaded.name.starts_with("w/"), "checkpoint", path.string(), ": ", loaded.name, " is not in the network",
             kOtherNetwork);
    return;
  }
  const View& view = found->second;
  PC_CHECK(view.shape == loaded.shape, "checkpoint", path.string(), ": ", loaded.name, " is ", loaded.shape.text(),
           " in the checkpoint and ", view.shape.text(), " in the network", kOtherNetwork);
  PC_CHECK(view.dtype == loaded.dtype, "checkpoint", path.string(), ": ", loaded.name, " is ", name_of(loaded.dtype),
           " in the checkpoint and ", name_of(view.dtype), " in the network", kOtherNetwork);
}

Loaded read_buffer(const std::filesystem::path& path, const H5Reader& file, const std::string& place,
                   const Network& network) {
  Loaded loaded;
  loaded.name = unescape(place);
  const H5Dims dims = file.dims(place);
  PC_CHECK(dims.size() <= std::size_t{Shape::kMaxRank}, "checkpoint", path.string(), ": ", loaded.name, " has ",
           dims.size(), " dimensions; at most ", Shape::kMaxRank, " are supported");
  for (const std::int64_t dim : dims) loaded.shape.append(dim);
  const H5Type type = file.dtype(place);
  loaded.dtype = arena_type(path, loaded.name, type);
  check_fits(path, loaded, network);
  loaded.bytes.resize(file.check(place, type, dims) * size_of(type));
  file.read(place, type, dims, loaded.bytes.data());
  return loaded;
}

std::vector<Loaded> read_buffers(const std::filesystem::path& path, const H5Reader& file, const Network& network) {
  std::vector<Loaded> buffers;
  std::set<std::string> seen;
  for (const std::string& place : file.names()) {
    if (!place.starts_with(kBuffers)) continue;
    buffers.push_back(read_buffer(path, file, place, network));
    PC_CHECK(seen.insert(buffers.back().name).second, "checkpoint", path.string(), ": has two buffers named ",
             buffers.back().name);
  }
  for (const Param& param : network.graph().params()) {
    PC_CHECK(seen.contains("w/" + param.name), "checkpoint", path.string(), ": has no w/", param.name, ", which is ",
             param.spec.shape.text(), " in the network", kOtherNetwork);
  }
  for (const auto& [name, view] : network.arena().views()) {
    PC_CHECK(!name.starts_with("running/") || seen.contains(name), "checkpoint", path.string(), ": has no ", name,
             ", without which the network cannot be evaluated", kOtherNetwork);
  }
  return buffers;
}

}  // namespace

void save_checkpoint(const std::filesystem::path& path, const Network& network, std::span<const std::string> prefixes,
                     const Progress& progress, const std::string& config) {
  const std::set<std::string> names = saved_names(network, prefixes);
  for (const Param& param : network.graph().params()) {
    PC_CHECK(names.contains("w/" + param.name), "checkpoint", "the prefixes leave out w/", param.name,
             ", and a checkpoint without it could not be loaded; save \"w/\" too");
  }
  H5Writer file(path);
  file.attribute("format", kFormat);
  file.attribute("version", kVersion);
  file.attribute("dtype", name_of(network.dtype()));
  file.write_text("config", config, "resolved config of the run");
  file.write_scalar("progress/epoch", progress.epoch, "epochs finished");
  file.write_scalar("progress/batch", progress.batch, "batches done of the epoch under way");
  file.write_scalar("progress/seconds", progress.seconds, "seconds of work, over all sittings");
  file.write_scalar("progress/best", progress.best, "best validation score so far; larger is better");
  file.write_scalar(kData, progress.data, "fingerprint of what was learned from; 0: not known");
  file.write_text("progress/extra", progress.extra, "what else the task keeps");
  for (const auto& [name, fingerprint] : fingerprints(network)) {
    file.write_scalar(name, fingerprint, "fingerprint of which weights there are");
  }
  file.write_scalar(kMasks, fingerprint_of_masks(network), "fingerprint of which dense weights are not masked");
  write_buffers(file, network.arena(), names);
  file.commit();
}

Progress load_checkpoint(const std::filesystem::path& path, Network& network) {
  const H5Reader file = open_checkpoint(path);
  const std::string dtype = file.attribute_text("dtype");
  PC_CHECK(dtype == name_of(network.dtype()), "checkpoint", path.string(), ": is of a ", dtype,
           " network, and this one is ", name_of(network.dtype()), "; run with the dtype that it was saved with");
  Progress progress = read_progress(path, file);
  const std::vector<Loaded> buffers = read_buffers(path, file, network);
  const auto check = [&](const std::string& name, std::int64_t fingerprint, bool older) {
    PC_CHECK(
        file.has(name) ? file.read_scalar<std::int64_t>(name) == fingerprint : older, "checkpoint", path.string(),
        ": its fingerprint \"", name, "\" is not the network's; the checkpoint is of another graph,",
        " drawn from another seed or another topology: use the config, and the graph file, that it was saved with");
  };
  for (const auto& [name, fingerprint] : fingerprints(network)) check(name, fingerprint, false);
  check(kMasks, fingerprint_of_masks(network), true);  // older checkpoints say nothing about masks

  // From here on only memory can run out, and that before any value has changed.
  std::vector<View> views;
  for (const Loaded& b : buffers) views.push_back(network.arena().take(b.name, b.shape, b.dtype));
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    if (!buffers[i].bytes.empty()) network.arena().upload(views[i], buffers[i].bytes.data());
  }
  return progress;
}

}  // namespace pc

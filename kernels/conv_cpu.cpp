// Patches of a few hundred positions at a time are laid out as a matrix that stays in the cache, and multiplied by
// gemm. The blocks depend on sizes alone, not on the number of threads.
#include "kernels/conv.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/gemm.h"
#include "kernels/loops.h"
#include "kernels/narrow.h"

namespace pc::kernels {
namespace {

/// Positions [first, first + positions) of each of some samples in a row.
struct Block {
  std::int64_t sample, samples, first, positions;
  [[nodiscard]] std::int64_t rows() const { return samples * positions; }
};

constexpr std::int64_t kPositions = 256;  // of a sample, at a time
constexpr std::int64_t kFew = 64;         // with fewer positions, eight samples (no Share splits them) go together
constexpr std::int64_t kTogether = 8;

/// body(block) for all positions of samples [begin, end). `packed`: samples may go together.
template <class Body>
void each_block(const Window& window, std::int64_t begin, std::int64_t end, bool packed, Body&& body) {
  const std::int64_t all = window.positions(), together = packed && all <= kFew ? kTogether : 1;
  for (std::int64_t sample = begin; sample < end; sample += together) {
    for (std::int64_t first = 0; first < all; first += kPositions) {
      body(Block{sample, std::min(together, end - sample), first, std::min(kPositions, all - first)});
    }
  }
}

bool packed(const View& v) { return v.ld() == v.cols(); }

/// The rows of a block in images with `channels` channels, where they are one matrix: channels [from, from + n).
template <class T>
View block_of(const View& images, const Block& block, std::int64_t channels, std::int64_t from, std::int64_t n) {
  return {images.row<T>(block.sample) + block.first * channels + from,
          {block.rows(), n},
          images.dtype,
          Device::cpu,
          channels};
}

/// body(sample, row of the block, top left corner of its patch: row, column)
template <class Body>
void each_patch(const Window& w, const Block& block, Body&& body) {
  const std::int64_t out_width = w.out_width();
  std::int64_t row = 0;
  for (std::int64_t s = 0; s < block.samples; ++s) {
    for (std::int64_t p = block.first; p < block.first + block.positions; ++p, ++row) {
      body(block.sample + s, row, w.at(p / out_width, 0), w.at(p % out_width, 0));
    }
  }
}

/// Patches of one group's channels, which begin at `from`, into the rows of a matrix [block rows, depth].
template <class T>
void lay_out(const ConvShape& shape, const View& images, const Block& block, std::int64_t from, T* patches) {
  const Window& w = shape.window;
  const std::int64_t n = shape.in_group(), depth = shape.depth();
  each_patch(w, block, [&](std::int64_t sample, std::int64_t row, std::int64_t top, std::int64_t left) {
    const T* image = images.row<T>(sample) + from;
    T* to = patches + row * depth;
    for (std::int64_t ky = 0; ky < w.kernel_h; ++ky) {
      const std::int64_t y = top + ky * w.dilation;
      for (std::int64_t kx = 0; kx < w.kernel_w; ++kx, to += n) {
        const std::int64_t x = left + kx * w.dilation;
        if (w.inside(y, x)) {
          std::copy_n(image + (y * w.width + x) * w.channels, n, to);
        } else {
          std::fill_n(to, n, T(0));
        }
      }
    }
  });
}

/// The adjoint: adds each entry of the patches to where it came from.
template <class T>
void add_back(const ConvShape& shape, const T* patches, const Block& block, std::int64_t from, const View& images) {
  const Window& w = shape.window;
  const std::int64_t n = shape.in_group(), depth = shape.depth();
  each_patch(w, block, [&](std::int64_t sample, std::int64_t row, std::int64_t top, std::int64_t left) {
    T* image = images.row<T>(sample) + from;
    const T* come = patches + row * depth;
    for (std::int64_t ky = 0; ky < w.kernel_h; ++ky) {
      const std::int64_t y = top + ky * w.dilation;
      for (std::int64_t kx = 0; kx < w.kernel_w; ++kx, come += n) {
        const std::int64_t x = left + kx * w.dilation;
        if (!w.inside(y, x)) continue;
        T* to = image + (y * w.width + x) * w.channels;
        each_entry(n, [=](std::int64_t i) { to[i] += come[i]; });
      }
    }
  });
}

/// Room for the patches of one block, and what they are as a matrix.
template <class T>
class Patches {
 public:
  explicit Patches(const ConvShape& shape)
      : shape_(shape), plain_(shape.window.is_identity()), memory_(plain_ ? 0 : room(shape)) {}

  /// No patches need be laid out: they are the image.
  [[nodiscard]] bool plain() const { return plain_; }
  T* data() { return memory_.data(); }
  [[nodiscard]] View view(const Block& block, DType dtype) {
    return {memory_.data(), {block.rows(), shape_.depth()}, dtype, Device::cpu, 0};
  }
  /// Of group `group` of the images.
  View of(const View& images, const Block& block, std::int64_t group) {
    const std::int64_t from = group * shape_.in_group();
    if (plain_) return block_of<T>(images, block, shape_.window.channels, from, shape_.in_group());
    lay_out(shape_, images, block, from, memory_.data());
    return view(block, images.dtype);
  }

 private:
  static std::size_t room(const ConvShape& shape) {
    const std::int64_t all = shape.window.positions(), rows = all <= kFew ? kTogether * all : std::min(all, kPositions);
    return static_cast<std::size_t>(rows * shape.depth());
  }

  const ConvShape& shape_;
  bool plain_;
  std::vector<T> memory_;
};

View filters(const View& w, std::int64_t begin, std::int64_t n) {
  View part = w;
  part.data = static_cast<std::byte*>(w.data) + static_cast<std::size_t>(begin * w.ld()) * size_of(w.dtype);
  part.shape = Shape{n, w.cols()};
  part.stride = w.ld();
  return part;
}

constexpr double beta(Write write) { return write == Write::add ? 1.0 : 0.0; }

/// An operand as packed float32 numbers; others stay what they are. Shows what narrower operands do to a result; it
/// saves nothing here.
class Widened {
 public:
  /// Only rows of the range are needed.
  Widened(const View& operand, const View& result, Share::Range rows) : view_(operand) {
    if (operand.dtype == result.dtype) return;
    memory_.resize(static_cast<std::size_t>(operand.count()));
    view_.data = memory_.data();
    view_.dtype = DType::f32;
    view_.stride = 0;
    view_.padding = 0;
    view_.exponent = 0;
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      for (std::int64_t col = 0; col < operand.cols(); ++col) {
        view_.row<float>(row)[col] = std::ldexp(widened(operand, row, col), -operand.exponent);
      }
    }
  }
  operator const View&() const { return view_; }  // NOLINT(google-explicit-constructor): it stands for its view

 private:
  std::vector<float> memory_;
  View view_;
};

Share::Range all_rows(const View& v) { return {0, v.rows()}; }

}  // namespace

void conv_cpu(const ConvArgs& c, Share share) {
  if (c.y.dtype == DType::bf16) {
    return round_result(c.y, share,
                        [&](const View& y) { conv_cpu({.x = c.x, .w = c.w, .y = y, .shape = c.shape}, share); });
  }
  with_float(c.y.dtype, [&]<class T>(T) {
    const ConvShape& s = c.shape;
    const auto [begin, end] = share.of(c.x.rows());
    const Widened wide_x(c.x, c.y, {begin, end}), wide_w(c.w, c.y, all_rows(c.w));
    const View &x = wide_x, &w = wide_w;
    Patches<T> patches(s);
    const std::int64_t n = s.out_group();
    each_block(s.window, begin, end, packed(x) && packed(c.y), [&](const Block& block) {
      for (std::int64_t g = 0; g < s.groups; ++g) {
        gemm_cpu({.a = patches.of(x, block, g),
                  .b = filters(w, g * n, n),
                  .c = block_of<T>(c.y, block, s.out_channels, g * n, n),
                  .trans_b = Trans::yes,
                  .beta = beta(c.write)},
                 Share{});
      }
    });
  });
}

void conv_pullback_cpu(const ConvPullbackArgs& c, Share share) {
  if (c.dx.dtype == DType::bf16) {
    return round_result(c.dx, share, [&](const View& dx) {
      conv_pullback_cpu({.dy = c.dy, .w = c.w, .dx = dx, .shape = c.shape}, share);
    });
  }
  with_float(c.dx.dtype, [&]<class T>(T) {
    const ConvShape& s = c.shape;
    const auto [begin, end] = share.of(c.dx.rows());
    const Widened wide_dy(c.dy, c.dx, {begin, end}), wide_w(c.w, c.dx, all_rows(c.w));
    const View &dy = wide_dy, &w = wide_w;
    Patches<T> patches(s);
    const std::int64_t n = s.out_group();
    if (c.write == Write::set && !patches.plain()) {
      for (std::int64_t row = begin; row < end; ++row) std::fill_n(c.dx.row<T>(row), c.dx.cols(), T(0));
    }
    each_block(s.window, begin, end, packed(c.dx) && packed(dy), [&](const Block& block) {
      for (std::int64_t g = 0; g < s.groups; ++g) {
        const std::int64_t from = g * s.in_group();
        GemmArgs product{.a = block_of<T>(dy, block, s.out_channels, g * n, n), .b = filters(w, g * n, n)};
        if (patches.plain()) {
          product.c = block_of<T>(c.dx, block, s.window.channels, from, s.in_group());
          product.beta = beta(c.write);
          gemm_cpu(product, Share{});
          continue;
        }
        product.c = patches.view(block, c.dx.dtype);
        gemm_cpu(product, Share{});
        add_back(s, patches.data(), block, from, c.dx);
      }
    });
  });
}

void conv_weight_cpu(const ConvWeightArgs& c, Share share) {
  with_float(c.dw.dtype, [&]<class T>(T) {
    const ConvShape& s = c.shape;
    const auto [begin, end] = share.of(s.out_channels);
    if (begin == end) return;
    if (c.write == Write::set) {
      for (std::int64_t row = begin; row < end; ++row) std::fill_n(c.dw.row<T>(row), c.dw.cols(), T(0));
    }
    const Widened wide_x(c.x, c.dw, all_rows(c.x)), wide_dy(c.dy, c.dw, all_rows(c.dy));
    const View &x = wide_x, &dy = wide_dy;
    Patches<T> patches(s);
    const std::int64_t n = s.out_group();
    each_block(s.window, 0, x.rows(), packed(x) && packed(dy), [&, first = begin, last = end](const Block& block) {
      for (std::int64_t g = first / n; g * n < last; ++g) {
        const std::int64_t from = std::max(first, g * n), to = std::min(last, (g + 1) * n);
        gemm_cpu({.a = block_of<T>(dy, block, s.out_channels, from, to - from),
                  .b = patches.of(x, block, g),
                  .c = filters(c.dw, from, to - from),
                  .trans_a = Trans::yes,
                  .beta = 1},
                 Share{});
      }
    });
  });
}

}  // namespace pc::kernels

// By cuDNN, where this build has it and it has the product; else patches of as many samples as the scratch memory holds
// are laid out as one matrix and multiplied by gemm.
#include <cuda_bf16.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/conv.h"
#include "kernels/conv_cudnn.h"
#include "kernels/gemm.h"
#include "kernels/launch.cuh"

namespace pc::kernels {
namespace {

/// V neighbouring channels, read and written at once.
template <class T, int V>
struct alignas(sizeof(T) * V) Pack {
  T v[V];
};

/// patches [samples * positions, places * group] of the `group` channels that `image` points at.
template <class T, int V>
void lay_out(const BasicWindow<int>& window, int group, const T* image, std::int64_t image_ld, std::int64_t samples,
             T* patches, std::int64_t patch_ld, cudaStream_t stream) {
  using P = Pack<T, V>;
  const int depth = window.places() * group, out_width = window.out_width();
  const auto positions = unsigned(window.positions());
  cu::each_entry(samples * positions, depth / V, stream,
                 [=, w = window] __device__(std::int64_t row, std::int64_t col) {
                   const unsigned sample = unsigned(row) / positions;
                   const int position = int(unsigned(row) % positions), entry = int(col) * V;
                   const int place = entry / group, channel = entry % group;
                   const int y = w.at(position / out_width, place / w.kernel_w);
                   const int x = w.at(position % out_width, place % w.kernel_w);
                   P value{};
                   if (w.inside(y, x)) {
                     value = *reinterpret_cast<const P*>(image + sample * image_ld +
                                                         std::int64_t{y * w.width + x} * w.channels + channel);
                   }
                   *reinterpret_cast<P*>(patches + row * patch_ld + entry) = value;
                 });
}

template <class T>
__device__ void put(T& out, T value, bool add) {
  cu::store(out, value, add);
}
__device__ void put(__nv_bfloat16& out, float value, bool) { out = __float2bfloat16_rn(value); }

/// Each entry of the image (of one group) gets the sum of the patches' entries that it was in, place by place; in an
/// image of bfloat16 it is rounded.
template <class T, int V, class Image>
void gather_back(const BasicWindow<int>& window, int group, const T* patches, std::int64_t samples, Image* image,
                 std::int64_t image_ld, bool add, cudaStream_t stream) {
  using P = Pack<T, V>;
  const int depth = window.places() * group, out_height = window.out_height(), out_width = window.out_width();
  const auto places = unsigned(window.height * window.width);
  cu::each_entry(samples * places, group / V, stream, [=, w = window] __device__(std::int64_t row, std::int64_t col) {
    const unsigned sample = unsigned(row) / places;
    const int at = int(unsigned(row) % places), channel = int(col) * V;
    const T* from = patches + std::int64_t{sample} * out_height * out_width * depth + channel;
    P total{};
    w.each_over(at / w.width, w.kernel_h, out_height, [&](int ky, int out_y) {
      w.each_over(at % w.width, w.kernel_w, out_width, [&](int kx, int out_x) {
        const std::int64_t position = out_y * out_width + out_x;
        const P entry = *reinterpret_cast<const P*>(from + position * depth + (ky * w.kernel_w + kx) * group);
        for (int i = 0; i < V; ++i) total.v[i] += entry.v[i];
      });
    });
    auto& to = *reinterpret_cast<Pack<Image, V>*>(image + sample * image_ld + std::int64_t{at} * w.channels + channel);
    for (int i = 0; i < V; ++i) put(to.v[i], total.v[i], add);
  });
}

template <class T>
constexpr int kWidest = 16 / sizeof(T);

/// Whether images can be read kWidest channels at a time, and written to patches so.
template <class T>
bool wide(const ConvShape& s, const View& images, std::int64_t patch_ld) {
  const auto address = reinterpret_cast<std::uintptr_t>(images.data);
  return s.window.channels % kWidest<T> == 0 && s.in_group() % kWidest<T> == 0 && images.ld() % kWidest<T> == 0 &&
         patch_ld % kWidest<T> == 0 && address % 16 == 0;
}

/// Calls body(T{}) with a type that has an entry's bits, for kernels that only move them.
template <class Body>
void with_bits(DType type, Body&& body) {
  if (size_of(type) == sizeof(double)) return body(double{});
  if (size_of(type) == sizeof(float)) return body(float{});
  body(std::uint16_t{});
}

/// `v` from entry `col` of row `row` on, as a matrix with rows `ld` apart.
View from(const View& v, std::int64_t row, std::int64_t col, const Shape& shape, std::int64_t ld) {
  View part = v;
  part.data = static_cast<std::byte*>(v.data) + static_cast<std::size_t>(row * v.ld() + col) * size_of(v.dtype);
  part.shape = shape;
  part.stride = ld;
  part.padding = 0;
  return part;
}

/// One convolution on the device: how many samples go together, and their matrices. `images` is what has patches.
class Worker {
 public:
  /// `type`: of patches.
  Worker(const ConvShape& shape, const View& images, DType type, const View& results, CudaContext& context)
      : shape_(shape),
        images_(images),
        results_(results),
        context_(context),
        type_(type),
        plain_(shape.window.is_identity()) {
    // Products of narrow operands want rows to begin at multiples of 16 bytes.
    const std::int64_t aligned = size_of(type) < sizeof(float) ? 8 : 1;
    patch_ld_ = (shape.depth() + aligned - 1) / aligned * aligned;
    const auto sample = static_cast<std::size_t>(shape.window.positions() * patch_ld_) * size_of(type);
    const bool packed = images.ld() == images.cols() && results.ld() == results.cols();
    constexpr std::size_t kScratch = CudaContext::kScratch;
    together_ = !packed ? 1 : plain_ ? images.rows() : std::max<std::int64_t>(1, std::int64_t(kScratch / sample));
    together_ = std::min(together_, images.rows());
    if (!plain_) patches_ = context.scratch(sample * static_cast<std::size_t>(together_));
  }

  /// body(first sample, samples) for all of them.
  template <class Body>
  void each_chunk(Body&& body) const {
    for (std::int64_t first = 0; first < images_.rows(); first += together_) {
      body(first, std::min(together_, images_.rows() - first));
    }
  }

  /// Patches of one group of some samples as a matrix [samples * positions, depth].
  [[nodiscard]] View patches(std::int64_t first, std::int64_t samples, std::int64_t group) const {
    if (plain_) return plain(first, samples, group);
    with_bits(images_.dtype, [&]<class T>(T) {
      const T* image = images_.row<T>(first) + group * shape_.in_group();
      auto* to = static_cast<T*>(patches_);
      const auto window = shape_.window.narrow();
      const int n = int(shape_.in_group());
      if (wide<T>(shape_, images_, patch_ld_)) {
        lay_out<T, kWidest<T>>(window, n, image, images_.ld(), samples, to, patch_ld_, context_.stream);
      } else {
        lay_out<T, 1>(window, n, image, images_.ld(), samples, to, patch_ld_, context_.stream);
      }
    });
    return room(samples);
  }
  /// The same memory, to be written: where plain, the images themselves.
  [[nodiscard]] View target(std::int64_t first, std::int64_t samples, std::int64_t group) const {
    return plain_ ? plain(first, samples, group) : room(samples);
  }
  /// Brings what was written there to the images.
  void bring_back(std::int64_t first, std::int64_t samples, std::int64_t group, bool add) const {
    if (plain_) return;
    if (images_.dtype == DType::bf16) return bring_to<float, __nv_bfloat16>(first, samples, group, add);
    with_float(images_.dtype, [&]<class T>(T) { bring_to<T, T>(first, samples, group, add); });
  }
  [[nodiscard]] bool plain() const { return plain_; }

  /// Results of one group of some samples, [samples * positions, channels of the group].
  [[nodiscard]] View results(std::int64_t first, std::int64_t samples, std::int64_t group) const {
    const std::int64_t n = shape_.out_group();
    return from(results_, first, group * n, {samples * shape_.window.positions(), n}, shape_.out_channels);
  }
  [[nodiscard]] View filters(const View& w, std::int64_t group) const {
    return from(w, group * shape_.out_group(), 0, {shape_.out_group(), w.cols()}, w.ld());
  }

 private:
  template <class T, class Image>
  void bring_to(std::int64_t first, std::int64_t samples, std::int64_t group, bool add) const {
    auto* to = images_.row<Image>(first) + group * shape_.in_group();
    const auto* patches = static_cast<const T*>(patches_);
    const auto window = shape_.window.narrow();
    const int n = int(shape_.in_group());
    if (wide<T>(shape_, images_, patch_ld_)) {
      gather_back<T, kWidest<T>>(window, n, patches, samples, to, images_.ld(), add, context_.stream);
    } else {
      gather_back<T, 1>(window, n, patches, samples, to, images_.ld(), add, context_.stream);
    }
  }
  [[nodiscard]] View plain(std::int64_t first, std::int64_t samples, std::int64_t group) const {
    const std::int64_t n = shape_.in_group();
    return from(images_, first, group * n, {samples * shape_.window.positions(), n}, shape_.window.channels);
  }
  [[nodiscard]] View room(std::int64_t samples) const {
    return {.data = patches_,
            .shape = {samples * shape_.window.positions(), shape_.depth()},
            .dtype = type_,
            .device = Device::cuda,
            .stride = patch_ld_,
            .exponent = images_.exponent};
  }

  const ConvShape& shape_;
  const View &images_, &results_;
  CudaContext& context_;
  DType type_;
  bool plain_;
  std::int64_t patch_ld_, together_;
  void* patches_ = nullptr;
};

constexpr double beta(bool add) { return add ? 1.0 : 0.0; }

}  // namespace

void conv_cuda(const ConvArgs& c, CudaContext& context) {
  if (cu::conv_cudnn(cu::ConvProduct::result, c.shape, c.x, c.w, c.y, c.write, context)) return;
  const Worker worker(c.shape, c.x, c.x.dtype, c.y, context);
  worker.each_chunk([&](std::int64_t first, std::int64_t samples) {
    for (std::int64_t g = 0; g < c.shape.groups; ++g) {
      gemm_cuda({.a = worker.patches(first, samples, g),
                 .b = worker.filters(c.w, g),
                 .c = worker.results(first, samples, g),
                 .trans_b = Trans::yes,
                 .beta = beta(c.write == Write::add)},
                context);
    }
  });
}

void conv_pullback_cuda(const ConvPullbackArgs& c, CudaContext& context) {
  if (cu::conv_cudnn(cu::ConvProduct::image, c.shape, c.dx, c.w, c.dy, c.write, context)) return;
  // Patches are added up before they are rounded.
  const DType sums = c.dx.dtype == DType::bf16 ? DType::f32 : c.dx.dtype;
  const Worker worker(c.shape, c.dx, sums, c.dy, context);
  const bool add = c.write == Write::add;
  worker.each_chunk([&](std::int64_t first, std::int64_t samples) {
    for (std::int64_t g = 0; g < c.shape.groups; ++g) {
      gemm_cuda({.a = worker.results(first, samples, g),
                 .b = worker.filters(c.w, g),
                 .c = worker.target(first, samples, g),
                 .beta = beta(add && worker.plain())},
                context);
      worker.bring_back(first, samples, g, add);
    }
  });
}

void conv_weight_cuda(const ConvWeightArgs& c, CudaContext& context) {
  if (cu::conv_cudnn(cu::ConvProduct::filters, c.shape, c.x, c.dw, c.dy, c.write, context)) return;
  const Worker worker(c.shape, c.x, c.x.dtype, c.dy, context);
  worker.each_chunk([&](std::int64_t first, std::int64_t samples) {
    for (std::int64_t g = 0; g < c.shape.groups; ++g) {
      gemm_cuda({.a = worker.results(first, samples, g),
                 .b = worker.patches(first, samples, g),
                 .c = worker.filters(c.dw, g),
                 .trans_a = Trans::yes,
                 .beta = beta(first > 0 || c.write == Write::add)},
                context);
    }
  });
}

}  // namespace pc::kernels

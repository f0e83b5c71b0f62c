// cuDNN's graph interface: a product, and a multiplication of it by a factor (of operands' exponents), which cuDNN
// compiles into one kernel that writes float32, or rounds to bfloat16.
#include "kernels/conv_cudnn.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cudnn.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <limits>
#include <map>
#include <optional>
#include <tuple>

#include "kernels/launch.cuh"

#define PC_CUDNN_CHECK(...) ::pc::cu::check_cudnn((__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)

namespace pc::cu {
namespace {

using kernels::ConvShape;

void check_cudnn(cudnnStatus_t status, const char* call, const char* file, int line) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  fail_run("cudnn", call, " failed: ", cudnnGetErrorString(status), ", at ", file, ':', line);
}

using Handle = CudaHandle<cudnnHandle_t, cudnnDestroy>;
using Event = CudaHandle<cudaEvent_t, cudaEventDestroy>;

/// cuDNN's objects are all of one type, and described attribute by attribute.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(cudnnBackendDescriptorType_t type) {
    cudnnBackendDescriptor_t made = nullptr;
    PC_CUDNN_CHECK(cudnnBackendCreateDescriptor(type, &made));
    owned_ = Owned(made);
  }

  template <class T>
  Descriptor& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, const std::vector<T>& values) {
    PC_CUDNN_CHECK(
        cudnnBackendSetAttribute(owned_, name, type, static_cast<std::int64_t>(values.size()), values.data()));
    return *this;
  }
  Descriptor& set_one(cudnnBackendAttributeName_t name, const Descriptor& other) {
    return set<cudnnBackendDescriptor_t>(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, {other});
  }
  /// False: cuDNN does not support what was described.
  [[nodiscard]] bool supported() const { return cudnnBackendFinalize(owned_) == CUDNN_STATUS_SUCCESS; }
  void finish() const { PC_CUDNN_CHECK(cudnnBackendFinalize(owned_)); }

  /// Up to `most` values.
  template <class T>
  [[nodiscard]] std::vector<T> get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                                   std::int64_t most) const {
    std::vector<T> values(static_cast<std::size_t>(most));
    std::int64_t count = 0;
    PC_CUDNN_CHECK(cudnnBackendGetAttribute(owned_, name, type, most, &count, values.data()));
    values.resize(static_cast<std::size_t>(std::min(count, most)));
    return values;
  }
  operator cudnnBackendDescriptor_t() const { return owned_; }  // NOLINT(google-explicit-constructor)

 private:
  using Owned = CudaHandle<cudnnBackendDescriptor_t, cudnnBackendDestroyDescriptor>;
  Owned owned_;
};

cudnnDataType_t type_of(DType type) {
  if (type == DType::f16) return CUDNN_DATA_HALF;
  return type == DType::bf16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
}

/// Images or filters [outer, rows, columns, channels] as cuDNN counts them: channels second.
struct Images {
  std::int64_t outer, rows, columns, channels, ld;

  [[nodiscard]] std::vector<std::int64_t> dims() const { return {outer, channels, rows, columns}; }
  [[nodiscard]] std::vector<std::int64_t> strides() const { return {ld, 1, columns * channels, channels}; }
};

constexpr std::int64_t kUnscaled = 3, kFactor = 4;  // names of tensors; 0, 1, 2: x, w, y

/// One product of given sizes: the sizes, and the order of x, w and y.
struct Problem {
  ConvProduct product;
  ConvShape shape;
  std::array<Images, 3> images;
  std::array<DType, 3> types;

  Problem(ConvProduct of, const ConvShape& s, const View& x, const View& w, const View& y)
      : product(of),
        shape(s),
        images{Images{x.rows(), s.window.height, s.window.width, s.window.channels, x.ld()},
               Images{s.out_channels, s.window.kernel_h, s.window.kernel_w, s.window.channels, w.ld()},
               Images{y.rows(), s.window.out_height(), s.window.out_width(), s.out_channels, y.ld()}},
        types{x.dtype, w.dtype, y.dtype} {}

  [[nodiscard]] std::size_t result() const {
    return product == ConvProduct::image ? 0 : product == ConvProduct::filters ? 1 : 2;
  }
  [[nodiscard]] DType operands() const { return types[result() == 0 ? 1 : 0]; }

  [[nodiscard]] auto key() const {
    const auto& w = shape.window;
    return std::tuple(product, operands(), types[result()], images[0].outer, w.height, w.width, w.channels, w.kernel_h,
                      w.kernel_w, w.stride, w.padding, w.dilation, shape.out_channels,
                      std::tuple(images[0].ld, images[1].ld, images[2].ld));
  }
};

Descriptor tensor(std::int64_t name, DType type, const Images& images, bool is_virtual = false) {
  Descriptor t(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  t.set<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, {type_of(type)});
  t.set(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, images.dims());
  t.set(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, images.strides());
  t.set<std::int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, {name});
  t.set<std::int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, {16});
  if (is_virtual) t.set<char>(CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, {1});
  return t;
}

/// An engine with its settings, compiled.
struct Engine {
  std::vector<Descriptor> parts;  // what the plan was made from
  Descriptor plan;
  std::size_t workspace = 0;
};

/// The product, and its result times a factor, which the caller gives when it runs.
Descriptor graph_of(const Problem& p, cudnnHandle_t handle, std::vector<Descriptor>& parts) {
  const auto keep = [&](Descriptor d) -> const Descriptor& {
    d.finish();
    return parts.emplace_back(std::move(d));
  };
  parts.reserve(16);  // references to parts stay
  const Window& w = p.shape.window;
  Descriptor convolution(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  convolution.set<cudnnDataType_t>(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, {CUDNN_DATA_FLOAT});
  convolution.set<cudnnConvolutionMode_t>(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE,
                                          {CUDNN_CROSS_CORRELATION});
  const auto both = [&](cudnnBackendAttributeName_t name, std::int64_t value) {
    convolution.set<std::int64_t>(name, CUDNN_TYPE_INT64, {value, value});
  };
  convolution.set<std::int64_t>(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, {2});
  both(CUDNN_ATTR_CONVOLUTION_DILATIONS, w.dilation);
  both(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, w.stride);
  both(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, w.padding);
  both(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, w.padding);
  const Descriptor& how = keep(std::move(convolution));

  const std::size_t result = p.result();
  std::array<const Descriptor*, 3> tensors{};
  for (std::size_t i = 0; i < 3; ++i) {
    const auto name = i == result ? kUnscaled : static_cast<std::int64_t>(i);
    tensors[i] = &keep(tensor(name, i == result ? DType::f32 : p.types[i], p.images[i], i == result));
  }
  struct Names {
    cudnnBackendDescriptorType_t operation;
    cudnnBackendAttributeName_t how, x, w, y, alpha, beta;
  };
  constexpr Names kNames[] = {
      {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
       CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
       CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
       CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
      {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
      {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA}};
  const Names& names = kNames[static_cast<std::size_t>(p.product)];
  Descriptor product(names.operation);
  product.set_one(names.how, how)
      .set_one(names.x, *tensors[0])
      .set_one(names.w, *tensors[1])
      .set_one(names.y, *tensors[2])
      .set<float>(names.alpha, CUDNN_TYPE_FLOAT, {1})
      .set<float>(names.beta, CUDNN_TYPE_FLOAT, {0});
  const Descriptor& multiply = keep(std::move(product));

  Descriptor one_number = tensor(kFactor, DType::f32, {1, 1, 1, 1, 1});
  one_number.set<char>(CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, {1});
  const Descriptor& factor = keep(std::move(one_number));
  const Descriptor& out = keep(tensor(static_cast<std::int64_t>(result), p.types[result], p.images[result]));
  Descriptor entry(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  entry.set<cudnnPointwiseMode_t>(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, {CUDNN_POINTWISE_MUL});
  entry.set<cudnnDataType_t>(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, {CUDNN_DATA_FLOAT});
  const Descriptor& by_entry = keep(std::move(entry));
  Descriptor times(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  times.set_one(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, by_entry)
      .set_one(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, *tensors[result])
      .set_one(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, factor)
      .set_one(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, out);
  const Descriptor& scale = keep(std::move(times));

  Descriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  graph.set<cudnnHandle_t>(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, {handle});
  graph.set<cudnnBackendDescriptor_t>(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, {multiply, scale});
  return graph;
}

bool reproducible(const Descriptor& config) {
  Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  std::int64_t count = 0;
  cudnnBackendDescriptor_t into = engine;
  PC_CUDNN_CHECK(
      cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &into));
  const auto notes = engine.get<cudnnBackendNumericalNote_t>(
      CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT);
  return std::find(notes.begin(), notes.end(), CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) == notes.end();
}

/// The first few that cuDNN's heuristics rank, compiled: those that give the same bits twice and fit the scratch.
std::vector<Engine> candidates(const Problem& p, cudnnHandle_t handle, std::size_t few) {
  std::vector<Descriptor> parts;
  Descriptor graph = graph_of(p, handle, parts);
  if (!graph.supported()) return {};
  Descriptor ranking(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  ranking.set_one(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
  ranking.set<cudnnBackendHeurMode_t>(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, {CUDNN_HEUR_MODE_A});
  if (!ranking.supported()) return {};
  constexpr std::size_t kMost = 16;
  std::vector<Descriptor> configs;
  std::vector<cudnnBackendDescriptor_t> into;
  for (std::size_t i = 0; i < kMost; ++i) {
    into.push_back(configs.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR));
  }
  std::int64_t count = 0;
  PC_CUDNN_CHECK(cudnnBackendGetAttribute(ranking, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                          static_cast<std::int64_t>(kMost), &count, into.data()));
  configs.resize(std::min(kMost, static_cast<std::size_t>(count)));
  std::vector<Engine> list;
  for (Descriptor& config : configs) {
    if (list.size() == few) break;
    if (!reproducible(config)) continue;
    Engine engine;
    engine.plan = Descriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    engine.plan.set<cudnnHandle_t>(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, {handle});
    engine.plan.set_one(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    if (!engine.plan.supported()) continue;
    const auto bytes =
        engine.plan.get<std::int64_t>(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1).at(0);
    engine.workspace = static_cast<std::size_t>(bytes);
    if (engine.workspace > CudaContext::kScratch) continue;
    engine.parts.push_back(std::move(config));
    list.push_back(std::move(engine));
  }
  if (list.empty()) return list;
  for (Descriptor& part : parts) list[0].parts.push_back(std::move(part));
  list[0].parts.push_back(std::move(graph));
  return list;
}

void run(const Engine& engine, cudnnHandle_t handle, const std::array<void*, 3>& data, float factor, void* workspace) {
  Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.set<std::int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, {0, 1, 2, kFactor});
  pack.set<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, {data[0], data[1], data[2], &factor});
  pack.set<void*>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, {workspace});
  pack.finish();
  PC_CUDNN_CHECK(cudnnBackendExecute(handle, engine.plan, pack));
}

/// Numbers in [-1, 1) that do not repeat soon.
void fill_trial(const View& v, cudaStream_t stream) {
  each_index(static_cast<std::int64_t>(v.extent() / size_of(v.dtype)), stream,
             [data = v.data, type = v.dtype] __device__(std::int64_t i) {
               const std::uint32_t mixed = (std::uint32_t(i) * 2654435761U) ^ (std::uint32_t(i) >> 7U) * 40503U;
               const float x = float(mixed >> 8U) * (1.0F / (1U << 23U)) - 1.0F;
               if (type == DType::f16) {
                 static_cast<__half*>(data)[i] = __float2half_rn(x);
               } else if (type == DType::bf16) {
                 static_cast<__nv_bfloat16*>(data)[i] = __float2bfloat16_rn(x);
               } else {
                 static_cast<float*>(data)[i] = x;
               }
             });
}

/// Times engines on numbers of its own, so that a choice depends on sizes alone.
class Trial {
 public:
  Trial(const Problem& p, const std::array<View, 3>& views, cudnnHandle_t handle, CudaContext& context)
      : handle_(handle), context_(context), result_(p.result()), first_(allocate(views[result_].extent())) {
    different_ = Memory(allocate(sizeof(int)));
    for (std::size_t i = 0; i < 3; ++i) {
      memory_[i] = Memory(allocate(views[i].extent()));
      View own = views[i];
      own.data = data_[i] = memory_[i];
      fill_trial(own, context.stream);
    }
    count_ = static_cast<std::int64_t>(views[result_].extent() / sizeof(float));
    for (Event& event : events_) {
      cudaEvent_t made = nullptr;
      PC_CUDA_CHECK(cudaEventCreate(&made));
      event = Event(made);
    }
  }

  /// Milliseconds; the best of a few rows.
  double time(const Engine& engine) {
    constexpr int kRows = 4, kRow = 8;
    const auto once = [&] { run(engine, handle_, data_, 1, context_.scratch(engine.workspace)); };
    once();
    float best = std::numeric_limits<float>::infinity();
    for (int i = 0; i < kRows; ++i) {
      PC_CUDA_CHECK(cudaEventRecord(events_[0], context_.stream));
      for (int j = 0; j < kRow; ++j) once();
      PC_CUDA_CHECK(cudaEventRecord(events_[1], context_.stream));
      PC_CUDA_CHECK(cudaEventSynchronize(events_[1]));
      float spent = 0;
      PC_CUDA_CHECK(cudaEventElapsedTime(&spent, events_[0], events_[1]));
      best = std::min(best, spent / kRow);
    }
    return best;
  }

  /// The last result is what others are compared with from now on.
  void keep() {
    PC_CUDA_CHECK(cudaMemcpyAsync(first_, data_[result_], static_cast<std::size_t>(count_) * sizeof(float),
                                  cudaMemcpyDefault, context_.stream));
  }
  /// Whether the last result has the bits of the one that was kept.
  [[nodiscard]] bool same() {
    int found = 0;
    PC_CUDA_CHECK(cudaMemsetAsync(different_, 0, sizeof(int), context_.stream));
    each_index(count_, context_.stream,
               [a = static_cast<const unsigned*>(first_.get()), b = static_cast<const unsigned*>(data_[result_]),
                out = static_cast<int*>(different_.get())] __device__(std::int64_t i) {
                 if (a[i] != b[i]) *out = 1;
               });
    copy_bytes(context_, &found, different_, sizeof(int));
    return found == 0;
  }

 private:
  cudnnHandle_t handle_;
  CudaContext& context_;
  std::size_t result_;
  Memory first_, different_;
  std::array<Memory, 3> memory_;
  std::array<void*, 3> data_{};
  std::array<Event, 2> events_;
  std::int64_t count_ = 0;
};

/// What this context has of cuDNN.
struct Library {
  Handle handle;
  std::map<decltype(std::declval<Problem>().key()), std::optional<Engine>> engines;
};

Library& library(CudaContext& context) {
  if (context.cudnn == nullptr) {
    auto made = std::make_shared<Library>();
    cudnnHandle_t handle = nullptr;
    PC_CUDNN_CHECK(cudnnCreate(&handle));
    made->handle = Handle(handle);
    PC_CUDNN_CHECK(cudnnSetStream(handle, context.stream));
    context.cudnn = made;
  }
  return *static_cast<Library*>(context.cudnn.get());
}

/// The same config must give the same bits twice, and times are never the same. So of engines that agree in every bit
/// the fastest is taken, and one that rounds otherwise than the heuristics' first only where it is faster by more than
/// times scatter.
std::optional<Engine> choose(const Problem& p, const std::array<View, 3>& views, cudnnHandle_t handle,
                             CudaContext& context) {
  constexpr double kClearly = 0.7;
  constexpr std::size_t kFew = 4;  // to compile one takes half a second
  std::vector<Engine> list = candidates(p, handle, context.seldom ? 1 : kFew);
  if (list.empty()) return std::nullopt;
  if (list.size() == 1) return std::move(list[0]);
  Trial trial(p, views, handle, context);
  std::size_t best = 0;
  double least = trial.time(list[0]);
  trial.keep();
  double first = least;  // of those that agree with what was kept
  for (std::size_t i = 1; i < list.size(); ++i) {
    const double spent = trial.time(list[i]);
    if (trial.same() ? spent >= least : spent >= kClearly * first) continue;
    if (!trial.same()) {
      trial.keep();
      first = spent;
    }
    best = i;
    least = spent;
  }
  if (best > 0) std::move(list[0].parts.begin(), list[0].parts.end(), std::back_inserter(list[best].parts));
  return std::move(list[best]);
}

}  // namespace

bool conv_cudnn(ConvProduct product, const ConvShape& shape, const View& x, const View& w, const View& y, Write write,
                CudaContext& context) {
  const Problem p(product, shape, x, w, y);
  const bool narrower = p.operands() != DType::f32 && p.operands() != DType::f64;
  // Tensor cores read eight channels at a time; with fewer, patches are small, and gemm is faster.
  constexpr std::int64_t kChannels = 8;
  if (!narrower || shape.groups != 1 || shape.window.channels % kChannels != 0 || shape.out_channels % kChannels != 0) {
    return false;
  }
  const std::array<View, 3> views{x, w, y};
  for (const View& v : views) {
    if (reinterpret_cast<std::uintptr_t>(v.data) % 16 != 0 || v.ld() % kChannels != 0) return false;
  }
  Library& cudnn = library(context);
  auto known = cudnn.engines.find(p.key());
  if (known == cudnn.engines.end()) {
    known = cudnn.engines.emplace(p.key(), choose(p, views, cudnn.handle, context)).first;
  }
  if (!known->second) return false;
  const Engine& engine = *known->second;
  const View& result = views[p.result()];
  int exponents = 0;
  std::array<void*, 3> data{};
  for (std::size_t i = 0; i < 3; ++i) {
    data[i] = views[i].data;
    if (i != p.result()) exponents += views[i].exponent;
  }
  const float factor = std::ldexp(1.0F, -exponents);
  if (write == Write::set) {
    run(engine, cudnn.handle, data, factor, context.scratch(engine.workspace));
    return true;
  }
  constexpr std::size_t kAlign = 256;
  const std::size_t before = (result.extent() + kAlign - 1) / kAlign * kAlign;
  auto* room = static_cast<std::byte*>(context.scratch(before + engine.workspace));
  data[p.result()] = room;
  run(engine, cudnn.handle, data, factor, room + before);
  View product_of = result;
  product_of.data = room;
  const auto from = matrix<float>(product_of), to = matrix<float>(result);
  each_entry(result.rows(), result.cols(), context.stream,
             [=] __device__(std::int64_t row, std::int64_t col) { to(row, col) += from(row, col); });
  return true;
}

}  // namespace pc::cu

#include "kernels/gather.h"
#include "kernels/launch.cuh"

namespace pc::kernels {
namespace {

using cu::each_entry, cu::matrix, cu::Team;

/// Example number for a row of the batch.
struct Examples {
  const std::int32_t* order;
  const double* cursor;

  explicit Examples(const BatchRows& rows) : order(rows.order.as<std::int32_t>()), cursor(rows.cursor.as<double>()) {}
  __device__ std::int64_t place(std::int64_t row) const { return static_cast<std::int64_t>(*cursor) + row; }
  __device__ std::int64_t operator()(std::int64_t row) const { return order[place(row)]; }
};

template <class From, class T>
void gather_augmented(const GatherArgs& g, CudaContext& context) {
  const auto table = matrix<From>(g.table);
  const auto out = matrix<T>(g.out);
  const double *scale = g.scale.as<double>(), *shift = g.shift.as<double>(), *epoch = g.augment.epoch.as<double>();
  const auto run = unsigned(g.out.cols() / g.scale.count());
  const auto height = unsigned(g.augment.height), width = unsigned(g.augment.width);
  each_entry(g.out.rows(), g.out.cols(), context.stream,
             [=, example = Examples(g.rows), crop = g.augment.crop, flip = g.augment.flip,
              seed = g.augment.seed] __device__(std::int64_t row, std::int64_t col) {
               const unsigned i = unsigned(col), plane = height * width;
               const Jitter jitter(crop, flip, seed, *epoch, example.place(row));
               const std::int64_t source = jitter.source(i % plane / width, i % width, height, width);
               const T pixel = source < 0 ? T(0) : T(table(example(row), i / plane * plane + source));
               out(row, col) = pixel * T(scale[i / run]) + T(shift[i / run]);
             });
}

template <class From, class T>
void gather_typed(const GatherArgs& g, CudaContext& context) {
  if (g.augment.any()) return gather_augmented<From, T>(g, context);
  const auto table = matrix<From>(g.table);
  const auto out = matrix<T>(g.out);
  const double *scale = g.scale.as<double>(), *shift = g.shift.as<double>();
  const auto run = static_cast<std::uint32_t>(g.out.cols() / g.scale.count());
  each_entry(g.out.rows(), g.out.cols(), context.stream,
             [=, example = Examples(g.rows)] __device__(std::int64_t row, std::int64_t col) {
               const std::uint32_t channel = static_cast<std::uint32_t>(col) / run;
               out(row, col) = T(table(example(row), col)) * T(scale[channel]) + T(shift[channel]);
             });
}

template <class T>
void one_hot_typed(const OneHotArgs& g, CudaContext& context) {
  const auto out = matrix<T>(g.out);
  const std::int32_t* labels = g.labels.as<std::int32_t>();
  const T on = T(g.on), off = T(g.off);
  const std::int64_t classes = g.out.cols() / g.times;
  each_entry(g.out.rows(), g.out.cols(), context.stream,
             [=, example = Examples(g.rows)] __device__(std::int64_t row, std::int64_t col) {
               out(row, col) = col % classes == labels[example(row) + col / classes] ? on : off;
             });
}

/// Every thread starts from entry 0, as the CPU does: a NaN there is never beaten, and one elsewhere never wins.
template <class T>
void right_typed(const RightArgs& g, CudaContext& context) {
  const auto answer = matrix<T>(g.answer);
  const std::int64_t times = g.times, n = g.answer.cols() / times;
  const std::int32_t* labels = g.labels.as<std::int32_t>();
  double* right = g.right.as<double>();
  cu::each_row(
      g.answer.rows(), n, context.stream, [=, example = Examples(g.rows)] __device__(std::int64_t row, Team team) {
        double count = 0;
        for (std::int64_t t = 0; t < times; ++t) {
          const T* of = &answer(row, t * n);
          const T first = of[0];
          T top = first;
          std::int64_t best = 0;
          for (std::int64_t i = team.rank(); i < n; i += team.size()) {
            if (!(of[i] > top)) continue;
            top = of[i];
            best = i;
          }
          const T overall = team.reduce(top, [](T a, T b) { return a > b ? a : b; });
          best = team.reduce(top == overall ? best : n, [](std::int64_t a, std::int64_t b) { return a < b ? a : b; });
          if (first != first) best = 0;
          count += best == labels[example(row) + t] ? 1.0 : 0.0;
        }
        if (team.rank() == 0) right[row] = count / double(times);
      });
}

}  // namespace

void gather_cuda(const GatherArgs& g, CudaContext& context) {
  with_float(g.out.dtype, [&]<class T>(T) {
    if (g.table.dtype == DType::u8) return gather_typed<std::uint8_t, T>(g, context);
    if (g.table.dtype == DType::f32) return gather_typed<float, T>(g, context);
    gather_typed<double, T>(g, context);
  });
}
void one_hot_cuda(const OneHotArgs& g, CudaContext& context) {
  with_float(g.out.dtype, [&]<class T>(T) { one_hot_typed<T>(g, context); });
}
void right_cuda(const RightArgs& g, CudaContext& context) {
  with_float(g.answer.dtype, [&]<class T>(T) { right_typed<T>(g, context); });
}

}  // namespace pc::kernels

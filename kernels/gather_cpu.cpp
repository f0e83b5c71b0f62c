#include "kernels/gather.h"

#include "kernels/loops.h"

namespace pc::kernels {
namespace {

/// Example number for a row of the batch.
std::int64_t example(const BatchRows& rows, std::int64_t row) {
  return rows.order.as<std::int32_t>()[static_cast<std::int64_t>(*rows.cursor.as<double>()) + row];
}

template <class From, class T>
void gather_rows(const GatherArgs& g, Share share) {
  const std::int64_t channels = g.scale.count(), run = g.out.cols() / channels;
  each_row(share, g.out.rows(), [&](std::int64_t row) {
    const From* from = g.table.row<From>(example(g.rows, row));
    T* out = g.out.row<T>(row);
    for (std::int64_t c = 0; c < channels; ++c) {
      const T scale = T(g.scale.as<double>()[c]), shift = T(g.shift.as<double>()[c]);
      each_entry(run, [=](std::int64_t i) { out[c * run + i] = T(from[c * run + i]) * scale + shift; });
    }
  });
}

}  // namespace

void gather_cpu(const GatherArgs& g, Share share) {
  with_float(g.out.dtype, [&]<class T>(T) {
    if (g.table.dtype == DType::u8) return gather_rows<std::uint8_t, T>(g, share);
    if (g.table.dtype == DType::f32) return gather_rows<float, T>(g, share);
    gather_rows<double, T>(g, share);
  });
}

void one_hot_cpu(const OneHotArgs& g, Share share) {
  with_float(g.out.dtype, [&]<class T>(T) {
    each_row(share, g.out.rows(), [&](std::int64_t row) {
      const std::int64_t label = g.labels.as<std::int32_t>()[example(g.rows, row)];
      T* out = g.out.row<T>(row);
      each_entry(g.out.cols(), [=, on = T(g.on), off = T(g.off)](std::int64_t i) { out[i] = i == label ? on : off; });
    });
  });
}

void right_cpu(const RightArgs& g, Share share) {
  with_float(g.answer.dtype, [&]<class T>(T) {
    each_row(share, g.answer.rows(), [&](std::int64_t row) {
      const T* answer = g.answer.row<T>(row);
      std::int64_t best = 0;
      for (std::int64_t i = 1; i < g.answer.cols(); ++i) {
        if (answer[i] > answer[best]) best = i;
      }
      g.right.as<double>()[row] = best == g.labels.as<std::int32_t>()[example(g.rows, row)] ? 1.0 : 0.0;
    });
  });
}

}  // namespace pc::kernels

#include "kernels/gather.h"

#include "kernels/loops.h"

namespace pc::kernels {
namespace {

/// Place in the order of a row of the batch, and the example there.
std::int64_t place(const BatchRows& rows, std::int64_t row) {
  return static_cast<std::int64_t>(*rows.cursor.as<double>()) + row;
}
std::int64_t example(const BatchRows& rows, std::int64_t row) {
  return rows.order.as<std::int32_t>()[place(rows, row)];
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

template <class From, class T>
void gather_augmented(const GatherArgs& g, Share share) {
  const Augment& a = g.augment;
  const std::int64_t channels = g.scale.count(), run = g.out.cols() / channels, plane = a.height * a.width;
  each_row(share, g.out.rows(), [&](std::int64_t row) {
    const From* from = g.table.row<From>(example(g.rows, row));
    T* out = g.out.row<T>(row);
    const Jitter jitter(a.crop, a.flip, a.seed, *a.epoch.as<double>(), place(g.rows, row));
    for (std::int64_t i = 0; i < g.out.cols(); ++i) {
      const std::int64_t source = jitter.source(i % plane / a.width, i % a.width, a.height, a.width);
      const T pixel = source < 0 ? T(0) : T(from[i / plane * plane + source]);
      out[i] = pixel * T(g.scale.as<double>()[i / run]) + T(g.shift.as<double>()[i / run]);
    }
  });
}

template <class From, class T>
void gather_typed(const GatherArgs& g, Share share) {
  g.augment.any() ? gather_augmented<From, T>(g, share) : gather_rows<From, T>(g, share);
}

}  // namespace

void gather_cpu(const GatherArgs& g, Share share) {
  with_float(g.out.dtype, [&]<class T>(T) {
    if (g.table.dtype == DType::u8) return gather_typed<std::uint8_t, T>(g, share);
    if (g.table.dtype == DType::f32) return gather_typed<float, T>(g, share);
    gather_typed<double, T>(g, share);
  });
}

void one_hot_cpu(const OneHotArgs& g, Share share) {
  with_float(g.out.dtype, [&]<class T>(T) {
    each_row(share, g.out.rows(), [&](std::int64_t row) {
      const std::int32_t* labels = g.labels.as<std::int32_t>() + example(g.rows, row);
      const std::int64_t classes = g.out.cols() / g.times;
      for (std::int64_t t = 0; t < g.times; ++t) {
        T* out = g.out.row<T>(row) + t * classes;
        each_entry(classes, [=, label = labels[t], on = T(g.on), off = T(g.off)](std::int64_t i) {
          out[i] = i == label ? on : off;
        });
      }
    });
  });
}

void right_cpu(const RightArgs& g, Share share) {
  with_float(g.answer.dtype, [&]<class T>(T) {
    each_row(share, g.answer.rows(), [&](std::int64_t row) {
      const std::int32_t* labels = g.labels.as<std::int32_t>() + example(g.rows, row);
      const std::int64_t classes = g.answer.cols() / g.times;
      double count = 0;
      for (std::int64_t t = 0; t < g.times; ++t) {
        const T* answer = g.answer.row<T>(row) + t * classes;
        std::int64_t best = 0;
        for (std::int64_t i = 1; i < classes; ++i) {
          if (answer[i] > answer[best]) best = i;
        }
        count += best == labels[t] ? 1.0 : 0.0;
      }
      g.right.as<double>()[row] = count / double(g.times);
    });
  });
}

}  // namespace pc::kernels

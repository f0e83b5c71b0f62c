#include "kernels/weight_update.h"

#include <array>

#include "kernels/adam.cuh"
#include "kernels/one_row.h"

namespace pc::kernels {
namespace {

using cu::each_entry, cu::matrix, cu::OnDevice;

template <class T>
struct SgdScalars {
  OnDevice on_device;

  struct Values {
    T rate, scale;
  };
  __device__ Values operator()() const { return {T(*on_device.rate), T(on_device.gradient_scale())}; }
};

template <class T>
void weight_sgd_typed(const WeightSgdArgs& a, CudaContext& context) {
  const auto w = matrix<T>(a.g.w), dw = matrix<T>(a.g.dw), mask = matrix<T>(a.g.mask);
  const auto velocity = matrix<T>(a.velocity);
  const cu::Followers<T> followers(a.g);
  const T momentum = T(a.momentum), decay = T(a.decay);
  using Values = typename SgdScalars<T>::Values;
  each_entry(a.g.w.rows(), a.g.w.cols(), context.stream, SgdScalars<T>{OnDevice(a.g)},
             [=] __device__(const Values& values, std::int64_t row, std::int64_t col) {
               T& weight = w(row, col);
               if (!mask || mask(row, col) != T(0)) {
                 T step = (dw ? values.scale * dw(row, col) : T(0)) - decay * weight;
                 if (velocity) step = velocity(row, col) = momentum * velocity(row, col) + step;
                 weight += values.rate * step;
               }
               followers(cu::At<1>{row, col}, cu::Pack<T, 1>{weight});
             });
}

}  // namespace

void weight_sgd_cuda(const WeightSgdArgs& a, CudaContext& context) {
  with_float(a.g.w.dtype, [&]<class T>(T) { weight_sgd_typed<T>(a, context); });
}
void weight_adam_cuda_together(std::span<const WeightAdamArgs* const> calls, CudaContext& context) {
  const WeightAdamArgs& a = *calls[0];
  with_float(a.g.w.dtype, [&]<class T>(T) {
    std::vector<cu::Job<cu::Adam<T>>> jobs;
    for (const WeightAdamArgs* call : calls) {
      WeightAdamArgs one = *call;
      join_rows(one.g.w, one.g.dw, one.g.mask, one.m, one.v, one.g.narrow.y, one.g.start, one.g.moved,
                one.g.moved_operand.y);
      jobs.push_back({one.g.w.rows(), one.g.w.cols(), cu::Adam<T>(one)});
    }
    cu::each_entry(std::span<const cu::Job<cu::Adam<T>>>(jobs), context.stream, cu::AdamScalars<T>(a));
  });
}
void weight_adam_cuda(const WeightAdamArgs& a, CudaContext& context) {
  weight_adam_cuda_together(std::array{&a}, context);
}

}  // namespace pc::kernels

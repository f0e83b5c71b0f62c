#include "kernels/embed.h"
#include "kernels/launch.cuh"

namespace pc::kernels {
namespace {

using cu::kWarp, cu::matrix, cu::Team;

template <class T>
void embed_typed(const EmbedArgs& e, CudaContext& context) {
  const auto x = matrix<T>(e.x), table = matrix<T>(e.table), y = matrix<T>(e.y);
  const std::int64_t n = e.table.rows();
  const auto d = unsigned(e.table.cols());
  const bool add = e.write == Write::add;
  cu::each_entry(e.y.rows(), e.y.cols(), context.stream, [=] __device__(std::int64_t row, std::int64_t col) {
    const T asked = x(row, unsigned(col) / d);
    const std::int64_t from = embed_row(asked, n);
    const T value = from < 0 ? asked : table(from, unsigned(col) % d);  // the NaN itself
    cu::store(y(row, col), value, add);
  });
}

/// A team for each row of the table. Its warps all look at a few times 32 places at once and go through those that ask
/// for the row in order, so that nothing is added by two threads.
template <class T>
void embed_grad_typed(const EmbedGradArgs& e, CudaContext& context) {
  const auto x = matrix<T>(e.x), dy = matrix<T>(e.dy), dtable = matrix<T>(e.dtable);
  const std::int64_t n = e.dtable.rows(), d = e.dtable.cols(), places = e.x.count();
  const auto times = unsigned(e.x.cols());
  const bool add = e.write == Write::add;
  cu::each_row(n, d, context.stream, [=] __device__(std::int64_t v, Team team) {
    constexpr int kTimes = 4;
    for (std::int64_t begin = 0; begin < d; begin += team.size()) {  // every thread stays, for the ballots
      const std::int64_t j = begin + team.rank();
      T sum = 0;
      for (std::int64_t base = 0; base < places; base += kTimes * kWarp) {
        bool asks[kTimes];
#pragma unroll
        for (int k = 0; k < kTimes; ++k) {
          const std::int64_t mine = base + k * kWarp + team.rank() % kWarp;
          asks[k] = mine < places && embed_row(x(unsigned(mine) / times, unsigned(mine) % times), n) == v;
        }
#pragma unroll
        for (int k = 0; k < kTimes; ++k) {
          for (unsigned set = __ballot_sync(~0U, asks[k]); set != 0; set &= set - 1) {
            const auto place = unsigned(base + k * kWarp + __ffs(static_cast<int>(set)) - 1);
            if (j < d) sum += dy(place / times, place % times * d + j);
          }
        }
      }
      if (j < d) cu::store(dtable(v, j), sum, add);
    }
  });
}

}  // namespace

void embed_cuda(const EmbedArgs& e, CudaContext& context) {
  with_float(e.y.dtype, [&]<class T>(T) { embed_typed<T>(e, context); });
}
void embed_grad_cuda(const EmbedGradArgs& e, CudaContext& context) {
  with_float(e.dy.dtype, [&]<class T>(T) { embed_grad_typed<T>(e, context); });
}

}  // namespace pc::kernels

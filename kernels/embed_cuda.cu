#include "kernels/embed.h"
#include "kernels/launch.cuh"

namespace pc::kernels {
namespace {

using cu::matrix, cu::Team;

template <class T>
void embed_typed(const EmbedArgs& e, CudaContext& context) {
  const auto x = matrix<T>(e.x), table = matrix<T>(e.table), y = matrix<T>(e.y);
  const std::int64_t n = e.table.rows(), d = e.table.cols();
  const bool add = e.write == Write::add;
  cu::each_entry(e.y.rows(), e.y.cols(), context.stream, [=] __device__(std::int64_t row, std::int64_t col) {
    const std::int64_t from = embed_row(x(row, col / d), n);
    const T value = from < 0 ? x(row, col / d) : table(from, col % d);  // the NaN itself
    cu::store(y(row, col), value, add);
  });
}

/// A team for each row of the table. Its warps all look at 32 places at once and go through those that ask for the row
/// in order, so that nothing is added by two threads.
template <class T>
void embed_grad_typed(const EmbedGradArgs& e, CudaContext& context) {
  const auto x = matrix<T>(e.x), dy = matrix<T>(e.dy), dtable = matrix<T>(e.dtable);
  const std::int64_t n = e.dtable.rows(), d = e.dtable.cols(), times = e.x.cols(), places = e.x.count();
  const bool add = e.write == Write::add;
  cu::each_row(n, d, context.stream, [=] __device__(std::int64_t v, Team team) {
    constexpr int kWarp = 32;
    for (std::int64_t begin = 0; begin < d; begin += team.size()) {  // every thread stays, for the ballots
      const std::int64_t j = begin + team.rank();
      T sum = 0;
      for (std::int64_t base = 0; base < places; base += kWarp) {
        const std::int64_t mine = base + team.rank() % kWarp;
        const bool asks = mine < places && embed_row(x(mine / times, mine % times), n) == v;
        for (unsigned set = __ballot_sync(~0U, asks); set != 0; set &= set - 1) {
          const std::int64_t place = base + __ffs(static_cast<int>(set)) - 1;
          if (j < d) sum += dy(place / times, place % times * d + j);
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

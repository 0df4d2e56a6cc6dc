// Attention over packed sequences: bf16 on tensor cores (64 or 128 query rows a block), f32 by fused
// multiply-adds (flash_forward.cuh).
#include "kernels/attention/flash_forward.cuh"
#include "kernels/attention/flash_mma.cuh"
#include "kernels/attention/flash_simt.cuh"

namespace nvl {

using namespace flash;

namespace {

// 32 rows a warp halve the shared-memory reads of K and V; with sums of 256 columns they do not fit.
template <class X, int DQK, int DV> struct Config {
    using Tile = MmaTile<DV <= 128 ? 2 : 1, 4, 64>;
    static constexpr int STAGES = 2;
};
template <int DQK, int DV> struct Config<float, DQK, DV> {
    using Tile = SimtTile<DV <= 128 ? 64 : 32>;
    static constexpr int STAGES = DV <= 128 ? 2 : 1;
};

void forward_cuda(Out y, Out lse, In q, In k, In v, In sequence_starts, In sinks, AttentionOptions o,
                  bool sunk) {
    cuda_dispatch(q.dtype, [&]<class X> {
        Forward<X> a{Problem(q, k, v, sequence_starts, sequence_starts.numel() - 1, o),
                     Heads<const X>(q),
                     Heads<const X>(k),
                     Heads<const X>(v),
                     Heads<X>(y),
                     Heads<float>(lse),
                     sunk ? pointer_of<const X>(sinks) : nullptr};
        a.p.vector_in = all_move_by(16 / int(sizeof(X)), q, k, v), a.p.vector_out = all_move_by(4, y);
        for_head_dims<X>(a.p.D, a.p.Dv, [&]<int DQK, int DV> {
            using C = Config<X, DQK, DV>;
            using Block = ForwardBlock<typename C::Tile, DQK, DV, C::STAGES, false>;
            int64_t tiles = q.dim(0) ? q.dim(0) / Block::M + a.p.sequences : 0;
            launch("attention", flash_forward<typename C::Tile, DQK, DV, C::STAGES, false>,
                   dim3(unsigned(tiles * a.p.H)), C::Tile::THREADS, Block::SHARED, a);
        });
    });
}

OnCuda registered{attention_forward, forward_cuda};

} // namespace

} // namespace nvl

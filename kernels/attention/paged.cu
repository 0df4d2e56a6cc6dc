// Attention over a paged cache. One launch serves any mix of prefill and decode (flash_forward.cuh); a second
// merges the segments of sequences that were split over blocks.
#include "kernels/attention/paged.h"

#include "kernels/attention/flash_forward.cuh"
#include "kernels/attention/flash_mma.cuh"
#include "kernels/attention/flash_simt.cuh"

namespace nvl {

using namespace flash;

namespace {

template <class X, int DQK, int DV> struct Config {
    using Tile = MmaTile<1, 4, 64>;
    static constexpr int STAGES = DV <= 128 ? 2 : 1;
};
template <int DQK, int DV> struct Config<float, DQK, DV> {
    using Tile = SimtTile<DV <= 128 ? 64 : 32>;
    static constexpr int STAGES = DV <= 128 ? 2 : 1;
};

/// Merges the segments of one packed row in order and ends the row: a warp a row.
template <class X> __global__ void __launch_bounds__(128) combine(const __grid_constant__ Forward<X> a) {
    Sequence s = sequence_of<true>(a, int(blockIdx.x), int(blockIdx.y));
    int r = int(blockIdx.z) * 4 + int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
    if (r >= s.rows || s.rows > a.partial.split_rows) return;
    Segments segments(a.p.mask, s, 0, s.rows);
    int n = segments.to - segments.from;
    if (n <= 1) return;
    int base = a.partial.dense ? s.row * s.pack : s.number * a.partial.split_rows;
    int64_t at = a.partial.at(s.g, base + r, 0);
    const float *state = a.partial.state + 2 * at, *sums = a.partial.sums + at * a.partial.ld;
    constexpr int COLUMNS = 8; // of a lane
    float m = state[0], l = state[1], o[COLUMNS];
#pragma unroll
    for (int j = 0; j < COLUMNS; j++) o[j] = lane + 32 * j < a.p.Dv ? sums[lane + 32 * j] : 0.f;
    for (int i = 1; i < n; i++) {
        state += 2, sums += a.partial.ld;
        Merge merge(m, state[0]);
        m = merge.m, l = merge(l, state[1]);
#pragma unroll
        for (int j = 0; j < COLUMNS; j++)
            if (lane + 32 * j < a.p.Dv) o[j] = merge(o[j], sums[lane + 32 * j]);
    }
    int head = s.head0 + r % s.pack;
    Finish end(m, l, a.sinks, a.sinks ? to_float(a.sinks[head]) : 0.f);
    X* y = a.y.at(s.row + r / s.pack, head);
#pragma unroll
    for (int j = 0; j < COLUMNS; j++)
        if (lane + 32 * j < a.p.Dv) y[lane + 32 * j] = from_float<X>(o[j] * end.scale);
}

/// Where partial results lie; `sums` and `state` are not set.
Unfinished partial_of(const View& q, const View& k, const View& v, const View& page_table, int64_t n) {
    int64_t group = q.dim(1) / k.dim(1), packed = q.dim(0) * group;
    Unfinished p;
    p.split_rows = group <= 16 ? 16 : 64;
    p.dense = packed <= n * p.split_rows;
    p.rows = int(p.dense ? packed : n * p.split_rows);
    p.segments = segment_of(int(page_table.dim(1) * PAGE) - 1) + 1;
    for_head_dims<__nv_bfloat16>(q.dim(2), v.dim(2), [&]<int DQK, int DV> { p.ld = DV; });
    if (q.dtype == Dtype::f32 && q.dim(2) > 128) p.ld = 256;
    return p;
}
int64_t partial_floats(const Unfinished& p, int64_t G) { return G * p.rows * p.segments * (p.ld + 2); }

int64_t paged_workspace(Out, In q, In k, In v, In page_table, In, In context_lengths, In, AttentionOptions,
                        bool) {
    Unfinished p = partial_of(q, k, v, page_table, context_lengths.numel());
    return p.segments > 1 ? partial_floats(p, k.dim(1)) * 4 : 0;
}

void paged_cuda(Out y, In q, In k, In v, In page_table, In query_starts, In context_lengths, In sinks,
                AttentionOptions o, bool sunk) {
    int64_t N = context_lengths.numel(), T = q.dim(0);
    if (!T || !N) return;
    cuda_dispatch(q.dtype, [&]<class X> {
        Forward<X> a{Problem(q, k, v, query_starts, N, o),
                     Heads<const X>(q),
                     Heads<const X>(k),
                     Heads<const X>(v),
                     Heads<X>(y),
                     {},
                     sunk ? pointer_of<const X>(sinks) : nullptr,
                     pointer_of<const int32_t>(page_table),
                     pointer_of<const int32_t>(context_lengths),
                     page_table.stride[0],
                     partial_of(q, k, v, page_table, N)};
        a.p.vector_in = all_move_by(16 / int(sizeof(X)), q, k, v), a.p.vector_out = all_move_by(4, y);
        Unfinished& part = a.partial;
        if (part.segments > 1) {
            part.sums = cuda_workspace_of<float>(partial_floats(part, a.p.G));
            part.state = part.sums + int64_t(a.p.G) * part.rows * part.segments * part.ld;
        }
        for_head_dims<X>(a.p.D, a.p.Dv, [&]<int DQK, int DV> {
            using C = Config<X, DQK, DV>;
            using Block = ForwardBlock<typename C::Tile, DQK, DV, C::STAGES, true>;
            int64_t tiles = (T * a.p.group / Block::M + N) * a.p.G;
            // enough blocks to fill the device some times; a block walks over several segments of its own
            int64_t split = std::clamp<int64_t>(ceil_div(8 * multiprocessors(), tiles), 1, part.segments);
            launch("attention_paged", flash_forward<typename C::Tile, DQK, DV, C::STAGES, true>,
                   dim3(unsigned(tiles), unsigned(split)), C::Tile::THREADS, Block::SHARED, a);
        });
        if (part.segments > 1)
            launch("attention_combine", combine<X>,
                   dim3(unsigned(N), unsigned(a.p.G), unsigned(part.split_rows / 4)), 128, 0, a);
    });
}

OnCuda paged{attention_paged_forward, paged_cuda, paged_workspace};

/// cache[slots[t]] = x[t], UNIT bytes a thread: a row of x is G heads of `across` units.
template <class U> struct Append {
    Heads<U> cache;
    Heads<const U> x;
    const int32_t* slots;
    int64_t units;
    int G, across;
};
template <class U> __global__ void __launch_bounds__(256) append(const Append<U> a) {
    int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x;
    if (i >= a.units) return;
    int row = a.G * a.across, t = int(i / row), c = int(i % row), g = c / a.across;
    c %= a.across;
    a.cache.at(a.slots[t], g)[c] = a.x.at(t, g)[c];
}

void append_cuda(InOut cache, In x, In slots) {
    auto run = [&]<class U> {
        int64_t n = int64_t(sizeof(U)) / size_of(x.dtype);
        auto heads = [&]<class V>(Heads<V>& h, const View& v) {
            h.data = reinterpret_cast<V*>(v.data), h.row_step = v.stride[0] / n,
            h.head_step = v.stride[1] / n;
        };
        Append<U> a{};
        heads(a.cache, cache), heads(a.x, x);
        a.slots = pointer_of<const int32_t>(slots), a.G = int(x.dim(1)), a.across = int(x.dim(2) / n);
        a.units = x.dim(0) * a.G * a.across;
        launch("kv_append", append<U>, dim3(unsigned(ceil_div(a.units, 256))), 256, 0, a);
    };
    int bytes = size_of(x.dtype), n = 16 / bytes;
    if (all_move_by(n, cache, x)) return run.operator()<uint4>();
    bytes == 4 ? run.operator()<uint32_t>() : run.operator()<uint16_t>();
}

OnCuda appended{kv_append_forward, append_cuda};

} // namespace

} // namespace nvl

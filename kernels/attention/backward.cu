// Backward of attention. Two kernels recompute p from the logarithms of the sums that the forward kept:
//
//   gradients of keys      a block owns M keys of one key/value head and walks over the queries that see
//   them,
//                          head after head of the group: dV += P^T dY, dK += dS^T Q, P and dS transposed
//   gradients of queries   a block owns M queries of one head and walks over its keys: dQ += dS K
//
// Each sum is one thread's, in a fixed order: no atomics. That S and dP are computed twice costs 7 products
// where 5 would do, the price of equal bits without waiting for other blocks.
#include "kernels/attention/flash_mma.cuh"
#include "kernels/attention/flash_simt.cuh"

namespace nvl {

using namespace flash;

namespace {

template <class X> struct Backward {
    Problem p;
    Heads<const X> q, k, v, dy, y;
    Heads<const float> lse;
    Heads<X> dq, dk, dv;
    bool add_q, add_k, add_v;
    float scale;
    int64_t T;
    float *log_sum, *delta; // (H, T): lse in units of log2, rowsum(dy * y)
};

// --- delta -----------------------------------------------------------------------------------------------
// A block takes 32 tokens and 8 heads, which it reads as they lie and writes head by head.
template <class X> __global__ void __launch_bounds__(256) row_sums(const __grid_constant__ Backward<X> a) {
    constexpr int E = 16 / sizeof(X), LANES = 8;
    __shared__ float delta[8][36], log_sum[8][36]; // 36: written across without bank conflicts
    int64_t t0 = int64_t(blockIdx.x) * 32;
    int h0 = int(blockIdx.y) * 8, thread = int(threadIdx.x);
    for (int r = thread / LANES; r < 256; r += 256 / LANES) {
        int64_t t = t0 + r / 8;
        int h = h0 + r % 8;
        float sum = 0;
        if (t < a.T && h < a.p.H) {
            const X *dy = a.dy.at(t, h), *y = a.y.at(t, h);
            for (int c = thread % LANES * E; c < a.p.Dv; c += LANES * E)
                if (a.p.vector_in) {
                    Floats<E> d = load<E>(dy + c), v = load<E>(y + c);
#pragma unroll
                    for (int e = 0; e < E; e++) sum = fmaf(d[e], v[e], sum);
                } else
                    for (int e = c; e < min(c + E, a.p.Dv); e++)
                        sum = fmaf(to_float(dy[e]), to_float(y[e]), sum);
        }
        sum = warp_sum<LANES>(sum);
        if (thread % LANES == 0) delta[r % 8][r / 8] = sum;
    }
    if (t0 + thread / 8 < a.T && h0 + thread % 8 < a.p.H)
        log_sum[thread % 8][thread / 8] = *a.lse.at(t0 + thread / 8, h0 + thread % 8) * LOG2E;
    __syncthreads();
    int64_t t = t0 + thread % 32;
    int h = thread / 32;
    if (t >= a.T || h0 + h >= a.p.H) return;
    a.delta[(h0 + h) * a.T + t] = delta[h][thread % 32];
    a.log_sum[(h0 + h) * a.T + t] = log_sum[h][thread % 32];
}

/// dsink of a head = -sum over rows of exp(sink - lse) delta: a block a head.
template <class X> __global__ void __launch_bounds__(256)
    sink_gradients(float* dsinks, bool add, const X* sinks, const float* log_sum, const float* delta,
                   int64_t T) {
    __shared__ float scratch[256 / WARP];
    int h = int(blockIdx.x);
    float sink = to_float(sinks[h]) * LOG2E, sum = 0;
    for (int64_t t = threadIdx.x; t < T; t += 256)
        sum = fmaf(-exp2_flush(sink - log_sum[h * T + t]), delta[h * T + t], sum);
    sum = block_sum<256>(sum, scratch);
    if (threadIdx.x == 0) put(dsinks + h, Floats<1>{{sum}}, add);
}

// --- the two walks ---------------------------------------------------------------------------------------
/// From scores and dP to p and dS; log_sum(i, j) and delta(i, j) belong to the query, hidden() clears p where
/// a query does not see a key.
template <class Tile, class F, class G, class H>
__device__ __forceinline__ void differentiate(typename Tile::Scores& s, typename Tile::Scores& d,
                                              const Scoring& scoring, F log_sum, G delta, H hidden) {
    if (scoring.inverse_cap != 0) {
#pragma unroll
        for (int i = 0; i < Tile::R; i++)
#pragma unroll
            for (int j = 0; j < Tile::C; j++) {
                float t = tanhf(s.at(i, j) * scoring.inverse_cap);
                s.at(i, j) = t * scoring.cap;
                d.at(i, j) = (d.at(i, j) - delta(i, j)) * fmaf(-t, t, 1.f);
            }
    } else {
#pragma unroll
        for (int i = 0; i < Tile::R; i++)
#pragma unroll
            for (int j = 0; j < Tile::C; j++) d.at(i, j) -= delta(i, j);
    }
#pragma unroll
    for (int i = 0; i < Tile::R; i++)
#pragma unroll
        for (int j = 0; j < Tile::C; j++)
            s.at(i, j) = exp2_flush(fmaf(s.at(i, j), scoring.factor, -log_sum(i, j)));
    hidden();
#pragma unroll
    for (int i = 0; i < Tile::R; i++)
#pragma unroll
        for (int j = 0; j < Tile::C; j++) d.at(i, j) *= s.at(i, j);
}

/// The owner's two tiles (A), stages of two tiles to walk over (B) with, for keys, what belongs to queries.
template <class Tile, int DQK, int DV, int STAGES> struct Memory {
    template <int ROWS, int COLS> using Shared = typename Tile::template Shared<ROWS, COLS>;
    using OwnK = Shared<Tile::M, DQK>;
    using OwnV = Shared<Tile::M, DV>;
    using WalkK = Shared<Tile::STEP, DQK>;
    using WalkV = Shared<Tile::STEP, DV>;
    static constexpr int OWN_ROWS = OwnK::BYTES + OwnV::BYTES, OWN = OWN_ROWS + Tile::M * 8,
                         ROWS = Tile::STEP * 8;
    static constexpr int STAGE = WalkK::BYTES + WalkV::BYTES + ROWS, SCRATCH = OWN + STAGES * STAGE;
    static constexpr int COLS = (DQK > DV ? DQK : DV) / Tile::PARTS;
    static constexpr int OUT = Tile::THREADS / 32 * Tile::WARP_ROWS * (COLS + 8) * 4;
    static constexpr int TILES = SCRATCH + Tile::SCRATCH * 4, BYTES = TILES > OUT ? TILES : OUT;

    unsigned char* start;
    __device__ __forceinline__ uint32_t address(int offset) const {
        return shared_address(start) + uint32_t(offset);
    }
    __device__ __forceinline__ OwnK own_k() const { return {address(0)}; }
    __device__ __forceinline__ OwnV own_v() const { return {address(OwnK::BYTES)}; }
    __device__ __forceinline__ WalkK walk_k(int slot) const { return {address(OWN + slot * STAGE)}; }
    __device__ __forceinline__ WalkV walk_v(int slot) const {
        return {address(OWN + slot * STAGE + WalkK::BYTES)};
    }
    __device__ __forceinline__ float* own_rows() const { return reinterpret_cast<float*>(start + OWN_ROWS); }
    __device__ __forceinline__ float* rows(int slot) const {
        return reinterpret_cast<float*>(start + OWN + slot * STAGE + WalkK::BYTES + WalkV::BYTES);
    }
    __device__ __forceinline__ float* scratch() const { return reinterpret_cast<float*>(start + SCRATCH); }
    __device__ __forceinline__ float*
    out() const { // of this warp, whatever it writes: no barrier between two
        return reinterpret_cast<float*>(start) + int(threadIdx.x) / 32 * Tile::WARP_ROWS * (COLS + 8);
    }
};

/// load(i, slot) runs ahead of compute(i, slot).
template <int STAGES, class F, class G> __device__ __forceinline__ void pipeline(int n, F load, G compute) {
    if (n > 0) load(0, 0);
    for (int i = 0; i < n; i++) {
        int slot = STAGES == 2 ? i & 1 : 0;
        copy_wait<0>();
        __syncthreads();
        if (STAGES == 2 && i + 1 < n) load(i + 1, slot ^ 1);
        compute(i, slot);
        if (STAGES == 1) {
            __syncthreads();
            if (i + 1 < n) load(i + 1, 0);
        }
    }
    copy_wait<0>();
    __syncthreads(); // the tiles may be used for something else
}

struct Stretch {
    int row, n; // first row of the sequence, its length
};

template <class Tile, int DQK, int DV, int STAGES>
__global__ void __launch_bounds__(Tile::THREADS, Tile::THREADS == 256 ? 1 : 2)
    query_gradients(const __grid_constant__ Backward<typename Tile::X> a) {
    using X = typename Tile::X;
    extern __shared__ __align__(128) unsigned char memory[];
    Memory<Tile, DQK, DV, STAGES> shared{memory};
    constexpr int M = Tile::M, N = Tile::N, STEP = Tile::STEP, R = Tile::R;
    int index = int((gridDim.x - 1 - blockIdx.x) / unsigned(a.p.H)), h = int(blockIdx.x % unsigned(a.p.H));
    Found found = find_tile(index, a.p.sequences,
                            [&](int n) { return (a.p.starts[n + 1] - a.p.starts[n] + M - 1) / M; });
    if (found.sequence < 0) return;
    Stretch s{a.p.starts[found.sequence], a.p.starts[found.sequence + 1] - a.p.starts[found.sequence]};
    int begin = found.tile * M, end = min(s.n, begin + M), g = h / a.p.group;
    const Mask& mask = a.p.mask;

    EvenRows<X> queries{a.q.at(s.row + begin, h), a.q.row_step},
        dys{a.dy.at(s.row + begin, h), a.dy.row_step};
    load_tile<Tile, 4>(shared.own_k(), queries, s.n - begin, a.p.D, a.p.vector_in);
    load_tile<Tile, 4>(shared.own_v(), dys, s.n - begin, a.p.Dv, a.p.vector_in);
    float* rows = shared.own_rows(); // in shared memory: registers are for sums
    for (int r = int(threadIdx.x); r < M; r += Tile::THREADS) {
        int64_t at = h * a.T + s.row + begin + r;
        rows[r] = begin + r < s.n ? a.log_sum[at] : 0.f, rows[M + r] = begin + r < s.n ? a.delta[at] : 0.f;
    }
    int low = begin + Tile::warp_row(), high = min(end, low + Tile::WARP_ROWS) - 1;
    typename Tile::template Sums<DQK> dq;
    dq.clear();
    int from = mask.first(begin) / STEP, to = (mask.last(end - 1, s.n) + STEP - 1) / STEP;
    auto load = [&](int i, int slot) {
        int key = (from + i) * STEP;
        EvenRows<X> keys{a.k.at(s.row + key, g), a.k.row_step}, values{a.v.at(s.row + key, g), a.v.row_step};
        load_tile<Tile, 4>(shared.walk_k(slot), keys, s.n - key, a.p.D, a.p.vector_in);
        load_tile<Tile, 4>(shared.walk_v(slot), values, s.n - key, a.p.Dv, a.p.vector_in);
        copy_commit();
    };
    pipeline<STAGES>(to - from, load, [&](int i, int slot) {
#pragma unroll 1
        for (int part = 0; part < STEP; part += N) {
            int key = (from + i) * STEP + part;
            if (low > high || key >= mask.last(high, s.n) || key + N <= mask.first(low)) continue;
            typename Tile::Scores p, d;
            Tile::scores(p, shared.own_k(), shared.walk_k(slot), part);
            Tile::scores(d, shared.own_v(), shared.walk_v(slot), part);
            differentiate<Tile>(
                p, d, a.p.scoring, [&](int i, int) { return rows[Tile::row(i)]; },
                [&](int i, int) { return rows[M + Tile::row(i)]; },
                [&] {
                    if (key >= mask.first(high) && key + N <= mask.last(low, s.n)) return;
                    hide<Tile>(
                        p, [&](int i) { return mask.first(begin + Tile::row(i)) - key; },
                        [&](int i) { return min(s.n, mask.last(begin + Tile::row(i), s.n)) - key; }, 0.f);
                });
            Tile::template accumulate<DQK>(dq, d, shared.walk_k(slot), part, 0, shared.scratch());
        }
    });
    float scale[R];
#pragma unroll
    for (int i = 0; i < R; i++) scale[i] = a.scale;
    auto row = [&](int r) -> X* { return begin + r < s.n ? a.dq.at(s.row + begin + r, h) : nullptr; };
    store_rows<Tile, DQK, X>(shared.out(), dq, scale, row, a.p.D, a.add_q, a.p.vector_out);
}

/// Columns of this warp's half (or all) of a tile go out.
template <class Tile, int COLS, class X, class Sums>
__device__ __forceinline__ void store_part(float* stage, const Sums& sums, float factor, const Heads<X>& to,
                                           int row0, int rows, int g, int cols, bool add, bool vector) {
    if (!to.data) return;
    float scale[Tile::R];
#pragma unroll
    for (int i = 0; i < Tile::R; i++) scale[i] = factor;
    int column = Tile::part() * COLS;
    auto row = [&](int r) -> X* { return r < rows ? to.at(row0 + r, g) + column : nullptr; };
    store_rows<Tile, COLS, X>(stage, sums, scale, row, cols - column, add, vector);
}

template <class Tile, int DQK, int DV, int STAGES>
__global__ void __launch_bounds__(Tile::THREADS, Tile::THREADS == 256 ? 1 : 2)
    key_gradients(const __grid_constant__ Backward<typename Tile::X> a) {
    using X = typename Tile::X;
    extern __shared__ __align__(128) unsigned char memory[];
    Memory<Tile, DQK, DV, STAGES> shared{memory};
    constexpr int M = Tile::M, N = Tile::N, STEP = Tile::STEP, COLS_K = DQK / Tile::PARTS,
                  COLS_V = DV / Tile::PARTS;
    int index = int(blockIdx.x / unsigned(a.p.G)), g = int(blockIdx.x % unsigned(a.p.G));
    Found found = find_tile(index, a.p.sequences,
                            [&](int n) { return (a.p.starts[n + 1] - a.p.starts[n] + M - 1) / M; });
    if (found.sequence < 0) return;
    Stretch s{a.p.starts[found.sequence], a.p.starts[found.sequence + 1] - a.p.starts[found.sequence]};
    int begin = found.tile * M, end = min(s.n, begin + M);
    const Mask& mask = a.p.mask;

    EvenRows<X> keys{a.k.at(s.row + begin, g), a.k.row_step}, values{a.v.at(s.row + begin, g), a.v.row_step};
    load_tile<Tile, 4>(shared.own_k(), keys, s.n - begin, a.p.D, a.p.vector_in);
    load_tile<Tile, 4>(shared.own_v(), values, s.n - begin, a.p.Dv, a.p.vector_in);
    int low = begin + Tile::warp_row(), high = min(end, low + Tile::WARP_ROWS) - 1;

    typename Tile::template Sums<COLS_K> dk;
    typename Tile::template Sums<COLS_V> dv;
    dk.clear(), dv.clear();
    int from = mask.first_query(begin) / STEP,
        steps = (mask.last_query(end - 1, s.n) + STEP - 1) / STEP - from;
    int h = g * a.p.group, ahead = from, at_tile = from; // what is loaded next; what is computed on
    auto load = [&](int, int slot) {
        int query = ahead * STEP, valid = s.n - query;
        EvenRows<X> queries{a.q.at(s.row + query, h), a.q.row_step},
            dys{a.dy.at(s.row + query, h), a.dy.row_step};
        load_tile<Tile, 4>(shared.walk_k(slot), queries, valid, a.p.D, a.p.vector_in);
        load_tile<Tile, 4>(shared.walk_v(slot), dys, valid, a.p.Dv, a.p.vector_in);
        uint32_t rows = shared_address(shared.rows(slot));
        int64_t at = h * a.T + s.row + query;
        for (int r = int(threadIdx.x); r < STEP; r += Tile::THREADS) {
            copy4(rows + r * 4, a.log_sum + at + (r < valid ? r : 0), r < valid);
            copy4(rows + (STEP + r) * 4, a.delta + at + (r < valid ? r : 0), r < valid);
        }
        copy_commit();
        if (++ahead == from + steps) ahead = from, h++;
    };
    pipeline<STAGES>(steps * a.p.group, load, [&](int, int slot) {
#pragma unroll 1
        for (int part = 0; part < STEP; part += N) {
            int query = at_tile * STEP + part;
            if (low > high || query >= mask.last_query(high, s.n) || query + N <= mask.first_query(low))
                continue;
            typename Tile::Scores p, d;
            Tile::scores(p, shared.own_k(), shared.walk_k(slot), part);
            Tile::scores(d, shared.own_v(), shared.walk_v(slot), part);
            const float* rows = shared.rows(slot) + part;
            differentiate<Tile>(
                p, d, a.p.scoring, [&](int, int j) { return rows[Tile::column(j)]; },
                [&](int, int j) { return rows[STEP + Tile::column(j)]; },
                [&] {
                    if (query >= mask.first_query(high) && query + N <= mask.last_query(low, s.n)) return;
                    hide<Tile>(
                        p, [&](int i) { return mask.first_query(begin + Tile::row(i)) - query; },
                        [&](int i) { return mask.last_query(begin + Tile::row(i), s.n) - query; }, 0.f);
                });
            if (a.dv.data)
                Tile::template accumulate<COLS_V>(dv, p, shared.walk_v(slot), part, Tile::part() * COLS_V,
                                                  shared.scratch());
            if (a.dk.data)
                Tile::template accumulate<COLS_K>(dk, d, shared.walk_k(slot), part, Tile::part() * COLS_K,
                                                  shared.scratch());
        }
        if (++at_tile == from + steps) at_tile = from;
    });
    int row0 = s.row + begin, rows = s.n - begin;
    store_part<Tile, COLS_K>(shared.out(), dk, a.scale, a.dk, row0, rows, g, a.p.D, a.add_k, a.p.vector_out);
    store_part<Tile, COLS_V>(shared.out(), dv, 1.f, a.dv, row0, rows, g, a.p.Dv, a.add_v, a.p.vector_out);
}

// --- sizes and launches ----------------------------------------------------------------------------------
// Shared memory (KB) and registers decide: as many rows a warp as sums of its columns leave room for.
template <class X, int DQK, int DV> struct Config {
    static constexpr bool BIG = DV > 128;
    using Queries = MmaTile<(DQK <= 128 ? 2 : 1), 4, (DQK <= 64 ? 64 : 32)>;
    using Keys = MmaTile<(DQK <= 64 ? 2 : 1), (BIG ? 8 : 4), (DQK == 128 ? 64 : 32), (BIG ? 2 : 1),
                         (DQK == 192 ? 16 : 32)>;
    static constexpr int STAGES = 2;
};
template <int DQK, int DV> struct Config<float, DQK, DV> {
    using Queries = SimtTile<DV <= 128 ? 64 : 32>;
    using Keys = Queries;
    static constexpr int STAGES = DV <= 64 ? 2 : 1;
};

int64_t backward_workspace(Acc, Acc, Acc, AccSum, In, In, In lse, In, In, In, In, In, AttentionOptions,
                           bool) {
    return 2 * lse.numel() * 4;
}

template <class X> void walk(const Backward<X>& a) {
    for_head_dims<X>(a.p.D, a.p.Dv, [&]<int DQK, int DV> {
        using C = Config<X, DQK, DV>;
        auto run = [&]<class Tile>(const char* name, auto kernel, int heads) {
            int64_t tiles = a.T / Tile::M + a.p.sequences;
            launch(name, kernel, dim3(unsigned(tiles * heads)), Tile::THREADS,
                   Memory<Tile, DQK, DV, C::STAGES>::BYTES, a);
        };
        if (a.dk.data || a.dv.data)
            run.template operator()<typename C::Keys>(
                "attention_backward", key_gradients<typename C::Keys, DQK, DV, C::STAGES>, a.p.G);
        if (a.dq.data)
            run.template operator()<typename C::Queries>(
                "attention_backward", query_gradients<typename C::Queries, DQK, DV, C::STAGES>, a.p.H);
    });
}

void backward_cuda(Acc dq, Acc dk, Acc dv, AccSum dsinks, In dy, In y, In lse, In q, In k, In v,
                   In sequence_starts, In sinks, AttentionOptions o, bool sunk) {
    int64_t T = q.dim(0), H = q.dim(1);
    cuda_dispatch(q.dtype, [&]<class X> {
        float* sums = cuda_workspace_of<float>(2 * T * H);
        Backward<X> a{Problem(q, k, v, sequence_starts, sequence_starts.numel() - 1, o),
                      Heads<const X>(q),
                      Heads<const X>(k),
                      Heads<const X>(v),
                      Heads<const X>(dy),
                      Heads<const X>(y),
                      Heads<const float>(lse),
                      Heads<X>(dq),
                      Heads<X>(dk),
                      Heads<X>(dv),
                      dq.add,
                      dk.add,
                      dv.add,
                      float(o.scale ? o.scale : 1 / std::sqrt(double(q.dim(2)))),
                      T,
                      sums,
                      sums + T * H};
        a.p.vector_in = all_move_by(16 / int(sizeof(X)), q, k, v, dy, y);
        a.p.vector_out = all_move_by(4, dq, dk, dv);
        launch("attention_row_sums", row_sums<X>, dim3(unsigned(ceil_div(T, 32)), unsigned(ceil_div(H, 8))),
               256, 0, a);
        if (dsinks && sunk)
            launch("attention_sinks", sink_gradients<X>, dim3(unsigned(H)), 256, 0, pointer_of<float>(dsinks),
                   dsinks.add, pointer_of<const X>(sinks), static_cast<const float*>(a.log_sum),
                   static_cast<const float*>(a.delta), T);
        if (T) walk(a);
    });
}

OnCuda registered{attention_backward, backward_cuda, backward_workspace};

} // namespace

} // namespace nvl

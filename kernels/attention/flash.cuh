// What the CUDA kernels of attention share: where a block finds its sequence, who sees whom, how scores
// become probabilities, and how running sums are merged. f32 and bf16 run the same kernels over different
// tiles (flash_mma.cuh, flash_simt.cuh).
#pragma once
#include "engine/device/cuda.h"
#include "kernels/attention/attention.h"
#include "kernels/tile/pipeline.cuh"
#include "kernels/tile/reduce.cuh"
#include "kernels/tile/vec.cuh"

namespace nvl::flash {

constexpr float LOG2E = 1.4426950408889634f;

/// Element (row, head, c) of a tensor (rows, heads, cols) is data[row * row_step + head * head_step + c].
template <class X> struct Heads {
    X* data = nullptr;
    int64_t row_step = 0, head_step = 0;
    Heads() = default;
    explicit Heads(const View& v) : data(pointer_of<X>(v)), row_step(v.stride[0]), head_step(v.stride[1]) {}
    __device__ __forceinline__ X* at(int64_t row, int head) const {
        return data + row * row_step + head * head_step;
    }
};

/// Who sees whom: query i the keys [first(i), last(i, n)) of its sequence of n, key j the queries
/// [first_query(j), last_query(j, n)).
struct Mask {
    int causal, window;
    __device__ __forceinline__ int first(int i) const { return window ? max(0, i - window + 1) : 0; }
    __device__ __forceinline__ int last(int i, int n) const {
        return causal ? i + 1 : window ? min(n, i + window) : n;
    }
    __device__ __forceinline__ int first_query(int j) const {
        return causal ? j : window ? max(0, j - window + 1) : 0;
    }
    __device__ __forceinline__ int last_query(int j, int n) const { return window ? min(n, j + window) : n; }
};

/// From a dot product to the exponent of 2: factor * s, or cap * tanh(s * inverse_cap) with factor 1.
struct Scoring {
    float factor, inverse_cap, cap;
    Scoring(const AttentionOptions& o, int64_t D) {
        double scale = o.scale ? o.scale : 1 / std::sqrt(double(D)), log2e = 1.4426950408889634;
        factor = o.softcap ? 1.f : float(scale * log2e);
        inverse_cap = o.softcap ? float(scale / o.softcap) : 0.f, cap = float(o.softcap * log2e);
    }
};

/// What all kernels know of the problem. Sequence n is rows [starts[n], starts[n + 1]).
struct Problem {
    const int32_t* starts;
    int sequences, H, G, group, D, Dv;
    Mask mask;
    Scoring scoring;
    bool vector_in, vector_out; // rows can be read 16 bytes, written 4 elements at a time
    Problem(const View& q, const View& k, const View& v, const View& starts_, int64_t n,
            const AttentionOptions& o)
        : starts(pointer_of<const int32_t>(starts_)), sequences(int(n)), H(int(q.dim(1))), G(int(k.dim(1))),
          group(H / G), D(int(q.dim(2))), Dv(int(v.dim(2))), mask{o.causal, int(o.window)}, scoring(o, D) {}
};

/// 2^x; below 2^-126 it is 0.
__device__ __forceinline__ float exp2_flush(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
/// What exponents are relative to: the maximum, or 0 as long as nothing was seen.
__device__ __forceinline__ float base_of(float m) { return m == -INFINITY ? 0.f : m; }

struct Found {
    int sequence, tile; // sequence -1: there is no such tile
};
/// Tile number `index` when sequence n has tiles_of(n) tiles. Every warp looks for itself.
template <class F> __device__ __forceinline__ Found find_tile(int index, int sequences, F tiles_of) {
    int lane = int(threadIdx.x) & 31;
    for (int from = 0; from < sequences; from += 32) {
        int n = from + lane < sequences ? tiles_of(from + lane) : 0, sum = n;
#pragma unroll
        for (int apart = 1; apart < 32; apart *= 2) {
            int before = __shfl_up_sync(0xffffffffu, sum, apart);
            if (lane >= apart) sum += before;
        }
        unsigned beyond = __ballot_sync(0xffffffffu, index < sum);
        if (beyond) {
            int at = __ffs(int(beyond)) - 1;
            return {from + at, index - __shfl_sync(0xffffffffu, sum - n, at)};
        }
        index -= __shfl_sync(0xffffffffu, sum, 31);
    }
    return {-1, 0};
}

/// threadIdx.x, read afresh: addresses that depend on it are not kept in registers from tile to tile.
__device__ __forceinline__ int thread_again() {
    int thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return thread;
}

/// Rows that lie at one distance, and rows whose place a function knows.
template <class X> struct EvenRows {
    const X* data;
    int64_t step;
    __device__ __forceinline__ const X* operator()(int r) const { return data + r * step; }
};

/// Copies `valid` rows of `cols` elements to a shared tile and fills the rest of it with zeros. row(r) is
/// where row r starts. With `vector` the copies are asynchronous: commit and wait. Rows that do not exist are
/// not read.
template <class Tile, int UNROLL, class Shared, class F>
__device__ __forceinline__ void load_tile(Shared to, F row, int valid, int cols, bool vector) {
    using X = typename Tile::X;
    constexpr int E = 16 / sizeof(X), CHUNKS = Shared::COLUMNS / E;
    constexpr int ACROSS = Tile::THREADS % CHUNKS ? CHUNKS & -CHUNKS : CHUNKS, STEP = Tile::THREADS / ACROSS;
    static_assert(Shared::ROWS_ % STEP == 0 && Tile::THREADS % ACROSS == 0);
    int r0 = thread_again() / ACROSS, c0 = thread_again() % ACROSS;
    if (vector) {
#pragma unroll
        for (int c = c0; c < CHUNKS; c += ACROSS) {
            int bytes = c * E < cols ? 16 : 0;
#pragma unroll UNROLL
            for (int r = 0; r < Shared::ROWS_; r += STEP)
                copy16(to.at(r0 + r, c), row(r0 + r) + c * E, r0 + r < valid ? bytes : 0);
        }
        return;
    }
#pragma unroll 1
    for (int at = int(threadIdx.x); at < Shared::ROWS_ * CHUNKS; at += Tile::THREADS) {
        int r = at / CHUNKS, c = at % CHUNKS;
        Vec<X, E> v;
#pragma unroll
        for (int e = 0; e < E; e++)
            v.x[e] = r < valid && c * E + e < cols ? row(r)[c * E + e] : from_float<X>(0.f);
        const uint4& bits = reinterpret_cast<const uint4&>(v);
        asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to.at(r, c)), "r"(bits.x), "r"(bits.y),
                     "r"(bits.z), "r"(bits.w)
                     : "memory");
    }
}

/// Writes (or adds) columns of this warp's rows, each multiplied by scale[i], through `stage` in shared
/// memory (WARP_ROWS rows of COLS + 8 floats, this warp's own): whole sectors go out. row(r) is where row r
/// of the tile starts, null to leave it out; `cols` of the columns exist.
template <class Tile, int COLS, class X, class Sums, class F>
__device__ __forceinline__ void store_rows(float* stage, const Sums& sums, const float (&scale)[Tile::R],
                                           F row, int cols, bool add, bool vector) {
    constexpr int LD = COLS + 8;
    Tile::template stage<COLS>(stage, sums, scale, LD);
    __syncwarp();
    int lane = int(threadIdx.x) & 31, row0 = Tile::warp_row();
#pragma unroll 1
    for (int i = lane; i < Tile::WARP_ROWS * (COLS / 4); i += 32) {
        int r = i / (COLS / 4), c = i % (COLS / 4) * 4;
        X* to = c < cols ? row(row0 + r) : nullptr;
        if (!to) continue;
        Floats<4> f = load<4>(static_cast<const float*>(stage + r * LD + c));
        if (vector) {
            put(to + c, f, add);
        } else {
#pragma unroll
            for (int e = 0; e < 4; e++)
                if (c + e < cols) put(to + c + e, Floats<1>{{f[e]}}, add);
        }
    }
    __syncwarp();
}

/// The running state of one thread's rows: maximum (exponents of 2), sum of p.
template <class Tile> struct Running {
    float m[Tile::R], l[Tile::R];
    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < Tile::R; i++) m[i] = -INFINITY, l[i] = 0;
    }
    __device__ __forceinline__ void reduce() { // l of a row lies in LANES lanes
#pragma unroll
        for (int i = 0; i < Tile::R; i++) l[i] = warp_sum<Tile::LANES>(l[i]);
    }
};

/// Columns outside [first(i), last(i)) of row i become `value`.
template <class Tile, class F, class G>
__device__ __forceinline__ void hide(typename Tile::Scores& s, F first, G last, float value) {
#pragma unroll
    for (int i = 0; i < Tile::R; i++) {
        int from = first(i) - Tile::column(0), to = last(i) - Tile::column(0);
#pragma unroll
        for (int j = 0; j < Tile::C; j++) // compared with constants, for want of registers
            if (Tile::apart(j) < from || Tile::apart(j) >= to) s.at(i, j) = value;
    }
}

/// Scores become probabilities relative to the new maxima; `o`, summed before, is rescaled where they are
/// new.
template <class Tile, class Sums> __device__ __forceinline__ void
softmax(typename Tile::Scores& s, Sums& o, Running<Tile>& state, float factor) {
    float alpha[Tile::R];
    bool change = false;
#pragma unroll
    for (int i = 0; i < Tile::R; i++) {
        float top = s.at(i, 0);
#pragma unroll
        for (int j = 1; j < Tile::C; j++) top = fmaxf(top, s.at(i, j));
        top = warp_reduce<Tile::LANES>(top, [](float a, float b) { return fmaxf(a, b); });
        float m = fmaxf(state.m[i], top * factor), base = base_of(m), sum = 0;
#pragma unroll
        for (int j = 0; j < Tile::C; j++) {
            s.at(i, j) = exp2_flush(fmaf(s.at(i, j), factor, -base));
            sum += s.at(i, j);
        }
        alpha[i] = exp2_flush(state.m[i] - base);
        change |= m != state.m[i];
        state.m[i] = m, state.l[i] = fmaf(state.l[i], alpha[i], sum);
    }
    if (!__any_sync(0xffffffffu, change)) return; // alpha is 1
#pragma unroll
    for (int i = 0; i < Tile::R; i++)
#pragma unroll
        for (int j = 0; j < Sums::COLUMNS; j++) o.at(i, j) *= alpha[i];
}

template <class Tile> __device__ __forceinline__ void cap(typename Tile::Scores& s, const Scoring& scoring) {
    if (scoring.inverse_cap == 0) return;
#pragma unroll
    for (int i = 0; i < Tile::R; i++)
#pragma unroll
        for (int j = 0; j < Tile::C; j++) s.at(i, j) = tanhf(s.at(i, j) * scoring.inverse_cap) * scoring.cap;
}

/// Two states of a row become one: x = x a + y b for sums, written so that it rounds alike everywhere.
struct Merge {
    float m, a, b;
    __device__ __forceinline__ Merge(float mx, float my) : m(fmaxf(mx, my)) {
        float base = base_of(m);
        a = exp2_flush(mx - base), b = exp2_flush(my - base);
    }
    __device__ __forceinline__ float operator()(float x, float y) const {
        return fmaf(x, a, __fmul_rn(y, b));
    }
};

/// The end of a row: its sink enters the sum. y = scale * o, lse in units of e.
struct Finish {
    float scale, lse;
    __device__ __forceinline__ Finish(float m, float l, bool sunk, float sink) {
        float a = 1;
        if (sunk) {
            Merge merge(m, sink * LOG2E);
            l = fmaf(l, merge.a, merge.b), m = merge.m, a = merge.a;
        }
        scale = __fdiv_rn(a, l), lse = fmaf(m, 1 / LOG2E, logf(l));
    }
};

/// f.template operator()<DQK, DV>() with the smallest sizes that kernels exist for.
template <class X, class F> void for_head_dims(int64_t D, int64_t Dv, F f) {
    if (D <= 64 && Dv <= 64) return f.template operator()<64, 64>();
    if (D <= 128 && Dv <= 128) return f.template operator()<128, 128>();
    if constexpr (sizeof(X) == 2)
        if (D <= 192 && Dv <= 128) return f.template operator()<192, 128>();
    if (D <= 256 && Dv <= 256) return f.template operator()<256, 256>();
    fail("attention: CUDA kernels have heads of at most 256 dimensions, found %ld and %ld", D, Dv);
}

template <class... P> void launch(const char* name, void (*kernel)(P...), dim3 grid, int threads, int shared,
                                  const P&... arguments) {
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
    cuda_check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
               name);
    kernel<<<grid, threads, size_t(shared), cuda_stream()>>>(arguments...);
    check_launch(name);
}

} // namespace nvl::flash

#include "kernels/sample/sample_rows.h"

#include "engine/device/cuda.h"
#include "kernels/tile/reduce.cuh"
#include "kernels/tile/vec.cuh"

namespace nvl {

namespace {

// One block for each row. It walks over the logits a few times, which are in L2 after the first, and computes
// weights again instead of keeping them. Only a row with penalties or biases gets a copy, in the workspace.
constexpr int THREADS = 1024, N = 4, BINS = 2048;
constexpr int MAX_BIASES = THREADS; // a thread each
using Count = unsigned long long;

/// The CPU's vexp (kernels/cpu/math.h), bit for bit.
__device__ __forceinline__ float exact_exp(float x) {
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    float shifted = __fmaf_rn(x, 1.44269504f, 12582912.0f), n = shifted - 12582912.0f;
    float r = __fmaf_rn(n, -1.42860677e-6f, __fmaf_rn(n, -0.693145752f, x));
    int power = __float_as_int(shifted) - 0x4b400000, half = power >> 1;
    float p = __fmaf_rn(0.001381454039f, r, 0.008368745084f);
    p = __fmaf_rn(p, r, 0.04166839078f);
    p = __fmaf_rn(p, r, 0.166665204f);
    p = __fmaf_rn(p, r, 0.4999999343f);
    p = __fadd_rn(__fmaf_rn(__fmul_rn(p, r), r, r), 1.0f);
    return __fmul_rn(__fmul_rn(p, __int_as_float((half + 127) << 23)),
                     __int_as_float((power - half + 127) << 23));
}
/// What a weight counts, in units of 2^-34 (mass() on the CPU): integers, so that sums have no order.
__device__ __forceinline__ Count mass(float w) { return Count(__double2ll_rn(double(w) * 0x1p34)); }

template <class X> struct Arguments {
    Rows<int> tokens;
    Rows<double> logprobs;
    Rows<const X> logits;
    Rows<const int> rows, history, biases;
    unsigned* tables; // (B, V): counts of history, then adjusted logits
    int V;
    bool vector;
};

struct Shared {
    Count scratch[THREADS / WARP], bins[BINS];
    double sums[THREADS / WARP];
    Count before; // a crossing: what lies above its bin
    int digit, chosen, last, wrong;
};

/// A row of logits or of adjusted ones; body(i, value) for those of this thread.
template <class X> struct Logits {
    const X* plain;
    const float* adjusted; // null: none
    int V;
    bool vector;
    __device__ __forceinline__ Floats<N> at(int i) const {
        if (adjusted) return floats(load_part<N>(adjusted, i, V, V % N == 0));
        return floats(load_part<N>(plain, i, V, vector));
    }
    template <class F> __device__ __forceinline__ void each(F body) const {
        for (int i = int(threadIdx.x) * N; i < V; i += THREADS * N) {
            Floats<N> v = at(i);
#pragma unroll
            for (int j = 0; j < N; j++)
                if (i + j < V) body(i + j, v[j]);
        }
    }
};

__device__ __forceinline__ float penalised(float x, unsigned said, const SampleRow& r) {
    if (!said) return x; // top bit: it occurs; the rest: how often in the answer
    float repetition = float(r.repetition_penalty);
    x = x > 0 ? x / repetition : x * repetition;
    if (unsigned n = said & 0x7fffffffu)
        x -= float(__dadd_rn(__dmul_rn(r.frequency_penalty, double(n)), r.presence_penalty));
    return x;
}

/// Fills a table with adjusted logits. Biases come first, added in order by the thread of a token's first
/// one.
template <class X> __device__ void adjust(unsigned* table, const X* logits, const SampleRow& r,
                                          const int* history, const int* biases, int V, int* wrong) {
    const bool repetition = r.repetition_penalty != 1,
               counting = repetition || r.presence_penalty != 0 || r.frequency_penalty != 0;
    for (int i = threadIdx.x; i < V; i += THREADS) table[i] = 0;
    __syncthreads();
    for (int j = threadIdx.x; counting && j < r.prompt + r.answer; j += THREADS) {
        int token = history[j];
        if (unsigned(token) >= unsigned(V))
            atomicOr(wrong, 1);
        else if (j >= r.prompt)
            atomicAdd(&table[token], 1u);
        else if (repetition)
            atomicOr(&table[token], 0x80000000u);
    }
    __syncthreads();
    int own = -1;
    float biased = 0;
    if (int(threadIdx.x) < r.biases) {
        own = biases[2 * threadIdx.x];
        if (unsigned(own) >= unsigned(V)) atomicOr(wrong, 1), own = -1;
        for (int k = 0; k < int(threadIdx.x); k++)
            if (biases[2 * k] == own) own = -1;
    }
    if (own >= 0) {
        biased = to_float(logits[own]);
        for (int k = int(threadIdx.x); k < r.biases; k++)
            if (biases[2 * k] == own) biased += __int_as_float(biases[2 * k + 1]);
        biased = penalised(biased, table[own], r);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < V; i += THREADS)
        table[i] = __float_as_uint(penalised(to_float(logits[i]), table[i], r));
    __syncthreads();
    if (own >= 0) table[own] = __float_as_uint(biased);
    __syncthreads();
}

/// Orders as floats do, ties by the lower index; NaN is left out.
__device__ __forceinline__ Count rank_of(float x, int i) {
    unsigned u = __float_as_uint(x + 0.0f);
    u = u >> 31 ? ~u : u | 0x80000000u;
    return Count(u) << 32 | (0xffffffffu - unsigned(i));
}
__device__ __forceinline__ int index_of(Count rank) { return int(0xffffffffu - unsigned(rank)); }

struct Crossing {
    float least;  // the weight at which the sum over the largest ones reaches what is wanted
    Count before; // the sum over larger weights
};
/// weigh(i, logit) is a weight, count(weight) what it adds (0: it is not among them). Bit patterns of
/// positive floats order as they do: three rounds of a histogram over 11, 11 and 10 bits.
template <class X, class W, class F>
__device__ Crossing find_crossing(const Logits<X>& logits, double wanted, W weigh, F count, Shared& s) {
    unsigned prefix = 0;
    Count above = 0;
    for (int round = 0; round < 3; round++) {
        const int shift = round == 0 ? 21 : round == 1 ? 10 : 0;
        const unsigned mask = round == 2 ? 1023 : BINS - 1,
                       known = round == 0 ? 0 : ~0u << (shift + (round == 1 ? 11 : 10));
        for (int b = threadIdx.x; b < BINS; b += THREADS) s.bins[b] = 0;
        if (threadIdx.x == 0) s.digit = 0, s.before = above; // if rounding keeps all of them below
        __syncthreads();
        logits.each([&](int i, float l) {
            float w = weigh(l);
            unsigned bits = __float_as_uint(w);
            if ((bits & known) != prefix) return;
            if (Count c = count(w)) atomicAdd(&s.bins[bits >> shift & mask], c);
        });
        __syncthreads();
        const int high = BINS - 1 - 2 * int(threadIdx.x), low = high - 1; // two bins each, from the top
        Count a = s.bins[high], b = s.bins[low], all;
        Count before = above + block_sum_before<THREADS>(a + b, s.scratch, all);
        if (double(before) < wanted && double(before + a) >= wanted)
            s.digit = high, s.before = before;
        else if (double(before + a) < wanted && double(before + a + b) >= wanted)
            s.digit = low, s.before = before + a;
        __syncthreads();
        prefix |= unsigned(s.digit) << shift, above = s.before;
        __syncthreads();
    }
    return {__uint_as_float(prefix), above};
}

/// Which weights are drawn from, and the sum of theirs.
struct Kept {
    float least = 0;         // top-k and min-p: weights from here on
    float crossing = -1;     // top-p: above it all, of its equals the first `ties` by index
    Count ties = 0, sum = 0; // ties: 0 without top-p
};

template <class X, class W>
__device__ Kept filter(const Logits<X>& logits, const SampleRow& r, W weigh, Shared& s) {
    Kept k;
    if (r.top_k > 0 && r.top_k < logits.V)
        k.least = find_crossing(
                      logits, double(r.top_k), weigh, [](float) -> Count { return 1; }, s)
                      .least;
    auto sum_of = [&](auto keep) {
        Count sum = 0;
        logits.each([&](int, float l) {
            float w = weigh(l);
            if (keep(w)) sum += mass(w);
        });
        return block_sum<THREADS>(sum, s.scratch);
    };
    k.sum = sum_of([&](float w) { return w >= k.least; });
    if (r.top_p < 1) {
        double wanted = __dmul_rn(r.top_p, double(k.sum));
        Crossing c = find_crossing(
            logits, wanted, weigh, [&](float w) { return w >= k.least ? mass(w) : Count(0); }, s);
        Count each = mass(c.least);
        if (each) { // as many equals as it takes
            k.ties = Count(fmax(1.0, ceil((wanted - double(c.before)) / double(each))));
            while (double(c.before + k.ties * each) < wanted) k.ties++;
            while (k.ties > 1 && double(c.before + (k.ties - 1) * each) >= wanted) k.ties--;
            k.crossing = c.least, k.sum = c.before + k.ties * each;
        }
    }
    if (r.min_p > 0) { // the largest weight is 1
        float least = float(r.min_p);
        if (least > k.least) {
            k.least = least;
            if (k.ties && k.crossing < least) k.ties = 0, k.crossing = -1;
            k.sum =
                sum_of([&](float w) { return w >= k.least && w > k.crossing; }) + k.ties * mass(k.crossing);
        }
    }
    return k;
}

/// The first index at which the running sum over what is kept exceeds the target.
template <class X, class W>
__device__ int draw(const Logits<X>& logits, const Kept& k, double target, W weigh, Shared& s) {
    if (threadIdx.x == 0) s.chosen = INT_MAX, s.last = 0;
    __syncthreads();
    Count sum = 0, ties = 0;
    for (int begin = 0; begin < logits.V; begin += THREADS * N) {
        const int first = begin + int(threadIdx.x) * N;
        Floats<N> v = logits.at(first);
        Count own[N], total = 0, equals = 0;
        float w[N];
#pragma unroll
        for (int j = 0; j < N; j++) {
            w[j] = first + j < logits.V ? weigh(v[j]) : 0;
            equals += w[j] == k.crossing;
        }
        Count seen = 0, all_equals = 0;
        if (k.ties) seen = ties + block_sum_before<THREADS>(equals, s.scratch, all_equals);
#pragma unroll
        for (int j = 0; j < N; j++) {
            bool kept = w[j] >= k.least && (w[j] > k.crossing || (w[j] == k.crossing && seen < k.ties));
            seen += w[j] == k.crossing;
            own[j] = kept ? mass(w[j]) : 0, total += own[j];
        }
        Count all, before = sum + block_sum_before<THREADS>(total, s.scratch, all);
#pragma unroll
        for (int j = 0; j < N; j++) {
            before += own[j];
            if (!own[j]) continue;
            atomicMax(&s.last, first + j); // it stands if rounding brings the target to the whole sum
            if (double(before) > target) atomicMin(&s.chosen, first + j);
        }
        sum += all, ties += all_equals;
        __syncthreads();
        if (s.chosen != INT_MAX) return s.chosen;
    }
    return s.last;
}

template <class X> __global__ void __launch_bounds__(THREADS) sample_kernel(Arguments<X> p) {
    __shared__ Shared s;
    const SampleRow r = *reinterpret_cast<const SampleRow*>(p.rows(blockIdx.x));
    const X* plain = p.logits(blockIdx.x);
    const bool adjusted =
        r.biases || r.repetition_penalty != 1 || r.presence_penalty != 0 || r.frequency_penalty != 0;
    if (threadIdx.x == 0) s.wrong = r.biases > MAX_BIASES;
    __syncthreads();
    unsigned* table = p.tables + int64_t(blockIdx.x) * p.V;
    if (adjusted) adjust(table, plain, r, p.history(blockIdx.x), p.biases(blockIdx.x), p.V, &s.wrong);
    const Logits<X> model{plain, nullptr, p.V, p.vector},
        logits{plain, adjusted ? reinterpret_cast<const float*>(table) : nullptr, p.V, p.vector};

    auto best_of = [&](const Logits<X>& from) {
        Count best = 0;
        from.each([&](int i, float l) {
            if (l != l) atomicOr(&s.wrong, 1);
            best = max(best, rank_of(l, i));
        });
        return index_of(block_max<THREADS>(best, s.scratch));
    };
    auto value = [&](const Logits<X>& from, int i) {
        return from.adjusted ? from.adjusted[i] : to_float(from.plain[i]);
    };
    int chosen = best_of(logits);
    const float largest = value(logits, chosen),
                model_largest = adjusted ? value(model, best_of(model)) : largest;
    const bool wrong = s.wrong || !isfinite(largest) || !isfinite(model_largest);
    if (!wrong && r.temperature > 0) {
        const float t = float(r.temperature);
        auto weigh = [&](float l) { return exact_exp((l - largest) / t); };
        Kept k = filter(logits, r, weigh, s);
        chosen = draw(logits, k, __dmul_rn(r.uniform, double(k.sum)), weigh, s);
    }
    double sum = 0;
    model.each([&](int, float l) { sum += double(exact_exp(l - model_largest)); });
    sum = block_sum<THREADS>(sum, s.sums);
    if (threadIdx.x) return;
    *p.tokens(blockIdx.x) = wrong ? -1 : chosen;
    *p.logprobs(blockIdx.x) = wrong ? NAN : double(value(model, chosen)) - double(model_largest) - log(sum);
}

int64_t workspace(Out, Out, In logits, In, In, In) { return logits.numel() * int64_t(sizeof(unsigned)); }
void forward(Out tokens, Out logprobs, In logits, In rows, In history, In biases) {
    const int64_t B = logits.dim(0), V = logits.cols();
    check(V <= 1 << 19, "sample_rows: a vocabulary of %ld; expected at most 2^19", long(V));
    check(biases.cols() / 2 <= MAX_BIASES, "sample_rows: room for %ld biases; the CUDA kernel takes up to %d",
          long(biases.cols() / 2), MAX_BIASES);
    check(reinterpret_cast<uintptr_t>(rows.data) % 8 == 0 && rows.row_stride() % 2 == 0,
          "sample_rows: rows of parameters are not aligned to 8 bytes");
    if (!B || !V) return;
    unsigned* tables = cuda_workspace_of<unsigned>(B * V);
    cuda_dispatch(logits.dtype, [&]<class X> {
        Arguments<X> p{rows_of<int>(tokens),
                       rows_of<double>(logprobs),
                       rows_of<const X>(logits),
                       rows_of<const int>(rows),
                       rows_of<const int>(history),
                       rows_of<const int>(biases),
                       tables,
                       int(V),
                       moves_by(logits, N)};
        sample_kernel<<<unsigned(B), THREADS, 0, cuda_stream()>>>(p);
        check_launch("sample_rows");
    });
}

OnCuda on_cuda{sample_rows_forward, forward, workspace};

} // namespace

} // namespace nvl

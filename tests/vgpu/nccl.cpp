// The NCCL look-alike with 1, 2 and 4 ranks, one thread each.
#include <nccl.h>

#include <functional>
#include <thread>

#include "tests/vgpu/api.h"
#include "tests/vgpu/api_kernels.h"

using namespace vgpu;

namespace {

constexpr size_t N = 10;

struct Rank {
    int rank, size;
    ncclComm_t comm;
    cudaStream_t stream;

    /// Element i of rank r's input.
    static float input(int r, size_t i) { return float(r * 100) + float(i); }
    float* inputs(size_t n) const {
        std::vector<float> v(n);
        for (size_t i = 0; i < n; i++) v[i] = input(rank, i);
        return to_device(v);
    }
    std::vector<float> result(const float* p, size_t n) const {
        ok(cudaStreamSynchronize(stream));
        return to_host(p, n);
    }
};

struct Nccl : Vgpu, testing::WithParamInterface<int> {
    int size = GetParam();
    Nccl() {
        options.devices = size;
        restart();
    }
    /// Runs body on a thread for each rank.
    void on_ranks(const std::function<void(const Rank&)>& body) {
        ncclUniqueId id;
        ASSERT_EQ(ncclGetUniqueId(&id), ncclSuccess);
        std::vector<std::thread> threads;
        for (int r = 0; r < size; r++)
            threads.emplace_back([&, r] {
                ok(cudaSetDevice(r));
                Rank rank{r, size, nullptr, nullptr};
                ok(cudaStreamCreateWithFlags(&rank.stream, cudaStreamNonBlocking));
                ASSERT_EQ(ncclCommInitRank(&rank.comm, size, id, r), ncclSuccess);
                body(rank);
                EXPECT_EQ(ncclCommDestroy(rank.comm), ncclSuccess);
            });
        for (auto& t : threads) t.join();
    }
    float sum(size_t i) const {
        float s = 0;
        for (int r = 0; r < size; r++) s += Rank::input(r, i);
        return s;
    }
};
using NcclFaults = Nccl;

} // namespace

INSTANTIATE_TEST_SUITE_P(Ranks, Nccl, testing::Values(1, 2, 4));
INSTANTIATE_TEST_SUITE_P(Ranks, NcclFaults, testing::Values(2, 4));

TEST_P(Nccl, reduces_and_gathers) {
    for (uint64_t seed : {0, 1, 2, 3}) {
        options.seed = seed;
        restart();
        on_ranks([&](const Rank& r) {
            size_t n = N * size_t(size);
            float *in = r.inputs(n), *out = device_array<float>(n);
            EXPECT_EQ(ncclAllReduce(in, out, N, ncclFloat32, ncclSum, r.comm, r.stream), ncclSuccess);
            EXPECT_EQ(r.result(out, N)[3], sum(3));
            EXPECT_EQ(ncclReduceScatter(in, out, N, ncclFloat32, ncclAvg, r.comm, r.stream), ncclSuccess);
            EXPECT_EQ(r.result(out, N)[3], sum(size_t(r.rank) * N + 3) / float(size));
            EXPECT_EQ(ncclAllGather(in, out, N, ncclFloat32, r.comm, r.stream), ncclSuccess);
            for (int i = 0; i < size; i++) EXPECT_EQ(r.result(out, n)[size_t(i) * N + 3], Rank::input(i, 3));
            EXPECT_EQ(ncclBroadcast(in, out, N, ncclFloat32, size - 1, r.comm, r.stream), ncclSuccess);
            EXPECT_EQ(r.result(out, N)[3], Rank::input(size - 1, 3));
            EXPECT_EQ(ncclReduce(in, out, N, ncclFloat32, ncclMax, 0, r.comm, r.stream), ncclSuccess);
            if (r.rank == 0) EXPECT_EQ(r.result(out, N)[3], Rank::input(size - 1, 3));
            EXPECT_EQ(ncclAllReduce(in, in, N, ncclFloat32, ncclSum, r.comm, r.stream),
                      ncclSuccess); // in place
            EXPECT_EQ(r.result(in, N)[3], sum(3));
        });
        ASSERT_EQ(all_findings(), "") << seed;
    }
}

TEST_P(Nccl, exchanges_all_to_all) {
    on_ranks([&](const Rank& r) {
        size_t n = N * size_t(size);
        float *in = r.inputs(n), *out = device_array<float>(n);
        ncclGroupStart();
        for (int peer = 0; peer < size; peer++) {
            EXPECT_EQ(ncclSend(in + size_t(peer) * N, N, ncclFloat32, peer, r.comm, r.stream), ncclSuccess);
            EXPECT_EQ(ncclRecv(out + size_t(peer) * N, N, ncclFloat32, peer, r.comm, r.stream), ncclSuccess);
        }
        EXPECT_EQ(ncclGroupEnd(), ncclSuccess);
        std::vector<float> result = r.result(out, n);
        for (int peer = 0; peer < size; peer++)
            EXPECT_EQ(result[size_t(peer) * N + 3], Rank::input(peer, size_t(r.rank) * N + 3));
    });
}

TEST_P(Nccl, is_captured_in_graphs) {
    on_ranks([&](const Rank& r) {
        float* x = to_device(std::vector<float>(N, 1));
        cudaGraph_t graph;
        cudaGraphExec_t exec;
        ok(cudaStreamBeginCapture(r.stream, cudaStreamCaptureModeThreadLocal));
        EXPECT_EQ(ncclAllReduce(x, x, N, ncclFloat32, ncclSum, r.comm, r.stream), ncclSuccess);
        ok(cudaStreamEndCapture(r.stream, &graph));
        ok(cudaGraphInstantiate(&exec, graph, 0));
        for (int i = 0; i < 3; i++) ok(cudaGraphLaunch(exec, r.stream));
        EXPECT_EQ(r.result(x, N)[0], float(size * size * size));
    });
}

TEST_P(Nccl, one_thread_may_own_all_ranks) {
    std::vector<ncclComm_t> comms(static_cast<size_t>(size));
    ASSERT_EQ(ncclCommInitAll(comms.data(), size, nullptr), ncclSuccess);
    std::vector<float*> x;
    ncclGroupStart();
    for (int r = 0; r < size; r++) {
        ok(cudaSetDevice(r));
        x.push_back(to_device(std::vector<float>(N, float(r + 1))));
        int rank = -1, count = 0, device = -1;
        ncclCommUserRank(comms[size_t(r)], &rank), ncclCommCount(comms[size_t(r)], &count);
        ncclCommCuDevice(comms[size_t(r)], &device);
        EXPECT_EQ(std::tuple(rank, count, device), std::tuple(r, size, r));
        EXPECT_EQ(ncclAllReduce(x.back(), x.back(), N, ncclFloat32, ncclSum, comms[size_t(r)], nullptr),
                  ncclSuccess);
    }
    ASSERT_EQ(ncclGroupEnd(), ncclSuccess) << last_refusal();
    for (int r = 0; r < size; r++) {
        ok(cudaSetDevice(r));
        EXPECT_EQ(to_host(x[size_t(r)], N)[0], float(size * (size + 1) / 2));
    }
    if (size > 1) {
        EXPECT_EQ(ncclAllReduce(x[0], x[0], N, ncclFloat32, ncclSum, comms[0], nullptr), ncclInvalidUsage);
        EXPECT_EQ(take_findings(Fault::api), 1);
    }
    for (ncclComm_t c : comms) ncclCommDestroy(c);
    ok(cudaSetDevice(0));
}

TEST_P(NcclFaults, permuted_sums_differ_in_their_bits_only) {
    options.permute = true;
    std::vector<float> found;
    for (uint64_t seed = 0; seed < 8; seed++) {
        options.seed = seed;
        restart();
        on_ranks([&](const Rank& r) {
            float* x = to_device(std::vector<float>(N, r.rank == 0 ? 1e8f : r.rank == 1 ? -1e8f : 1.f));
            ncclAllReduce(x, x, N, ncclFloat32, ncclSum, r.comm, r.stream);
            float y = r.result(x, N)[0];
            EXPECT_NEAR(y, size - 2, 16);
            if (r.rank == 0) found.push_back(y);
        });
    }
    if (size == 4)
        EXPECT_NE(*std::min_element(found.begin(), found.end()),
                  *std::max_element(found.begin(), found.end()));
}

TEST_P(NcclFaults, ranks_that_disagree_are_found) {
    on_ranks([&](const Rank& r) {
        float* x = r.inputs(N);
        ncclAllReduce(x, x, r.rank == 1 ? N - 1 : N, ncclFloat32, ncclSum, r.comm, r.stream);
        (void)cudaStreamSynchronize(r.stream);
        ncclResult_t error = ncclSuccess;
        EXPECT_EQ(ncclCommGetAsyncError(r.comm, &error), ncclSuccess);
        EXPECT_EQ(error, ncclInvalidUsage);
    });
    EXPECT_GE(take_findings(Fault::api), 1);
    on_ranks([&](const Rank& r) {
        float *x = r.inputs(N), *y = device_array<float>(N);
        ncclGroupStart();
        ncclSend(x, N - size_t(r.rank == 0), ncclFloat32, (r.rank + 1) % r.size, r.comm, r.stream);
        ncclRecv(y, N, ncclFloat32, (r.rank + r.size - 1) % r.size, r.comm, r.stream);
        ncclGroupEnd();
        ok(cudaStreamSynchronize(r.stream));
    });
    EXPECT_EQ(take_findings(Fault::api), 1);
}

TEST_P(NcclFaults, hangs_are_found) {
    on_ranks([&](const Rank& r) { // everybody sends before anybody receives
        float *x = r.inputs(N), *y = device_array<float>(N);
        ncclSend(x, N, ncclFloat32, (r.rank + 1) % r.size, r.comm, r.stream);
        ncclRecv(y, N, ncclFloat32, (r.rank + r.size - 1) % r.size, r.comm, r.stream);
        (void)cudaStreamSynchronize(r.stream);
    });
    EXPECT_GE(take_findings(Fault::deadlock), 1);
    on_ranks([&](const Rank& r) { // rank 0 does not take part
        float* x = r.inputs(N);
        if (r.rank == 0) return;
        ncclAllReduce(x, x, N, ncclFloat32, ncclSum, r.comm, r.stream);
        EXPECT_EQ(cudaStreamSynchronize(r.stream), cudaErrorLaunchTimeout);
    });
    EXPECT_GE(take_findings(Fault::deadlock), 1);
}

TEST_P(NcclFaults, buffers_are_checked_and_streams_ordered) {
    on_ranks([&](const Rank& r) {
        float* x = r.inputs(N);
        EXPECT_EQ(ncclAllReduce(x, x, N + 1, ncclFloat32, ncclSum, r.comm, r.stream), ncclInvalidArgument);
    });
    EXPECT_EQ(take_findings(Fault::out_of_bounds), size);
    on_ranks([&](const Rank& r) {
        float* x = r.inputs(N);
        cudaStream_t other;
        ok(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
        launch_fill(x, 1, N, other); // no event between it and the collective
        ncclAllReduce(x, x, N, ncclFloat32, ncclSum, r.comm, r.stream);
        ok(cudaDeviceSynchronize());
    });
    EXPECT_GE(take_findings(Fault::race_streams), size);
}

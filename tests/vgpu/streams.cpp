// Streams, events and graphs: with the events that a program needs, all legal orders give one result and no
// finding; without them, the race is found in every order, also where the result happens to be right.
#include "tests/vgpu/api.h"

#include <thread>

#include "tests/vgpu/api_kernels.h"

using namespace vgpu;

namespace {

constexpr int N = 200;

struct Streams : Vgpu {
    cudaStream_t a{}, b{};
    cudaEvent_t event{};
    float *x{}, *y{};
    void start(uint64_t seed) {
        options.seed = seed;
        restart();
        ok(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking));
        ok(cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking));
        ok(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
        x = to_device(std::vector<float>(N)), y = to_device(std::vector<float>(N));
    }
    /// x becomes 1 in a, y = x + y in b.
    void produce_and_consume(bool ordered) {
        launch_fill(x, 1, N, a);
        if (ordered) {
            ok(cudaEventRecord(event, a));
            ok(cudaStreamWaitEvent(b, event, 0));
        }
        launch_axpy(y, x, 1, N, b);
        ok(cudaStreamSynchronize(b));
        ok(cudaStreamSynchronize(a));
    }
    float first() { return to_host(y, N)[0]; }
};

} // namespace

TEST_F(Streams, an_event_orders_in_100_schedules) {
    for (uint64_t seed = 0; seed < 100; seed++) {
        start(seed);
        produce_and_consume(true);
        ASSERT_EQ(first(), 1) << seed;
        ASSERT_EQ(all_findings(), "") << seed;
    }
}

TEST_F(Streams, a_missing_event_is_found_in_100_schedules) {
    int wrong = 0;
    for (uint64_t seed = 0; seed < 100; seed++) {
        start(seed);
        produce_and_consume(false);
        wrong += first() != 1;
        ASSERT_GT(take_findings(Fault::race_streams), 0) << seed;
    }
    EXPECT_GT(wrong, 20); // the order really is an adversary's
}

TEST_F(Streams, a_copy_without_an_event_is_found) {
    for (uint64_t seed = 0; seed < 20; seed++) {
        start(seed);
        launch_fill(x, 1, N, a);
        ok(cudaMemcpyAsync(y, x, N * sizeof(float), cudaMemcpyDeviceToDevice, b));
        ok(cudaDeviceSynchronize());
        ASSERT_GT(take_findings(Fault::race_streams), 0) << seed;
    }
}

TEST_F(Streams, the_legacy_stream_orders_blocking_streams) {
    for (uint64_t seed = 0; seed < 50; seed++) {
        start(seed);
        cudaStream_t c, d;
        ok(cudaStreamCreate(&c)), ok(cudaStreamCreate(&d));
        launch_fill(x, 1, N, c);
        launch_axpy(y, x, 1, N);    // legacy: behind c
        launch_axpy(y, x, 1, N, d); // behind legacy
        ok(cudaStreamSynchronize(d));
        ASSERT_EQ(first(), 2);
        ASSERT_EQ(all_findings(), "") << seed;
        launch_fill(x, 2, N, a); // not blocking: nobody waits for it
        launch_axpy(y, x, 1, N);
        ok(cudaDeviceSynchronize());
        ASSERT_GT(take_findings(Fault::race_streams), 0) << seed;
    }
}

TEST_F(Streams, per_thread_streams_are_different) {
    start(0);
    launch_fill(x, 1, N, cudaStreamPerThread);
    ok(cudaStreamSynchronize(cudaStreamPerThread));
    std::thread other([&] {
        launch_axpy(y, x, 1, N, cudaStreamPerThread);
        ok(cudaStreamSynchronize(cudaStreamPerThread));
    });
    other.join();
    EXPECT_EQ(first(), 1);
}

TEST_F(Streams, pinned_sources_are_read_late_and_pageable_ones_are_staged) {
    start(0);
    float* pinned = nullptr;
    ok(cudaMallocHost(reinterpret_cast<void**>(&pinned), 4));
    float plain = 1;
    *pinned = 1;
    ok(cudaMemcpyAsync(x, pinned, 4, cudaMemcpyHostToDevice, a));
    ok(cudaMemcpyAsync(y, &plain, 4, cudaMemcpyHostToDevice, a));
    *pinned = plain = 2; // a mistake for the first, allowed for the second
    ok(cudaStreamSynchronize(a));
    EXPECT_EQ(to_host(x, 1)[0], 2);
    EXPECT_EQ(first(), 1);
    ok(cudaMemcpyAsync(pinned, y, 4, cudaMemcpyDeviceToHost, a));
    EXPECT_EQ(*pinned, 2); // has not arrived
    ok(cudaStreamSynchronize(a));
    EXPECT_EQ(*pinned, 1);
    ok(cudaFreeHost(pinned));
}

TEST_F(Streams, events_tell_when) {
    start(0);
    cudaEvent_t begin, end;
    ok(cudaEventCreate(&begin)), ok(cudaEventCreate(&end));
    float ms = -1;
    EXPECT_EQ(cudaEventElapsedTime(&ms, begin, end), cudaErrorInvalidResourceHandle);
    EXPECT_EQ(take_findings(Fault::api), 1);
    ok(cudaEventRecord(begin, a));
    launch_fill(x, 1, N, a);
    ok(cudaEventRecord(end, a));
    EXPECT_EQ(cudaEventElapsedTime(&ms, begin, end), cudaErrorNotReady);
    EXPECT_EQ(cudaStreamQuery(a), cudaErrorNotReady);
    while (cudaEventQuery(end) == cudaErrorNotReady) {
    }
    ok(cudaEventSynchronize(end));
    ok(cudaEventElapsedTime(&ms, begin, end));
    EXPECT_GE(ms, 0);
    ok(cudaStreamQuery(a));
    int order = 0;
    ok(cudaLaunchHostFunc(
        a, [](void* p) { *static_cast<int*>(p) = 7; }, &order));
    EXPECT_EQ(order, 0);
    ok(cudaStreamSynchronize(a));
    EXPECT_EQ(order, 7);
    ok(cudaEventDestroy(begin));
    EXPECT_EQ(cudaEventRecord(begin, a), cudaErrorInvalidResourceHandle);
    ok(cudaStreamDestroy(b));
    EXPECT_EQ(cudaStreamSynchronize(b), cudaErrorInvalidResourceHandle);
    EXPECT_EQ(take_findings(Fault::api), 2);
    int least = 1, greatest = 1, priority = 1;
    ok(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    ok(cudaStreamCreateWithPriority(&b, cudaStreamDefault, greatest));
    ok(cudaStreamGetPriority(b, &priority));
    EXPECT_EQ(priority, greatest);
}

TEST_F(Streams, memory_of_a_stream_is_freed_in_its_order) {
    start(0);
    void* p = nullptr;
    ok(cudaMallocAsync(&p, 4 * N, a));
    launch_fill(static_cast<float*>(p), 1, N, a);
    launch_axpy(y, static_cast<float*>(p), 1, N, a);
    ok(cudaFreeAsync(p, a));
    ok(cudaStreamSynchronize(a));
    EXPECT_EQ(first(), 1);
    launch_fill(static_cast<float*>(p), 1, N, a);
    ok(cudaStreamSynchronize(a));
    EXPECT_GT(take_findings(Fault::use_after_free), 0);
}

namespace {
/// y += x in two branches that join: fork by an event, as programs do.
cudaGraph_t capture_fork(Streams& s, bool join) {
    cudaGraph_t graph = nullptr;
    cudaEvent_t joined;
    ok(cudaEventCreate(&joined));
    ok(cudaStreamBeginCapture(s.a, cudaStreamCaptureModeThreadLocal));
    launch_fill(s.x, 1, N, s.a);
    ok(cudaEventRecord(s.event, s.a));
    ok(cudaStreamWaitEvent(s.b, s.event, 0));
    launch_axpy(s.y, s.x, 1, N / 2, s.a);
    launch_axpy(s.y + N / 2, s.x + N / 2, 2, N / 2, s.b);
    ok(cudaEventRecord(joined, s.b));
    if (join) ok(cudaStreamWaitEvent(s.a, joined, 0));
    cudaError_t status = cudaStreamEndCapture(s.a, &graph);
    EXPECT_EQ(status, join ? cudaSuccess : cudaErrorStreamCaptureUnjoined) << last_refusal();
    return graph;
}
} // namespace

TEST_F(Streams, graphs_equal_eager_work) {
    for (uint64_t seed = 0; seed < 20; seed++) {
        start(seed);
        cudaGraph_t graph = capture_fork(*this, true);
        EXPECT_EQ(first(), 0); // the capture ran nothing
        size_t nodes = 0;
        ok(cudaGraphGetNodes(graph, nullptr, &nodes));
        EXPECT_EQ(nodes, 3u);
        cudaGraphExec_t exec;
        ok(cudaGraphInstantiate(&exec, graph, 0));
        ok(cudaGraphDestroy(graph));
        for (int i = 0; i < 3; i++)
            ok(cudaGraphLaunch(exec, i == 1 ? b : a)); // one after the other all the same
        ok(cudaStreamSynchronize(a)), ok(cudaStreamSynchronize(b));
        std::vector<float> result = to_host(y, N);
        ASSERT_EQ(result[0], 3);
        ASSERT_EQ(result[N - 1], 6);
        ASSERT_EQ(all_findings(), "") << seed;
        ok(cudaGraphExecDestroy(exec));
        EXPECT_EQ(cudaGraphLaunch(exec, a), cudaErrorInvalidValue);
        EXPECT_EQ(take_findings(Fault::api), 1);
    }
}

TEST_F(Streams, a_race_between_branches_of_a_graph_is_found) {
    for (uint64_t seed = 0; seed < 20; seed++) {
        start(seed);
        cudaGraph_t graph;
        cudaGraphExec_t exec;
        ok(cudaStreamBeginCapture(a, cudaStreamCaptureModeGlobal));
        ok(cudaEventRecord(event, a));
        ok(cudaStreamWaitEvent(b, event, 0));
        launch_fill(x, 1, N, a);
        launch_axpy(y, x, 1, N, b);
        ok(cudaEventRecord(event, b));
        ok(cudaStreamWaitEvent(a, event, 0));
        ok(cudaStreamEndCapture(a, &graph));
        ok(cudaGraphInstantiate(&exec, graph, 0));
        ok(cudaGraphLaunch(exec, a));
        ok(cudaStreamSynchronize(a));
        ASSERT_GT(take_findings(Fault::race_streams), 0) << seed;
    }
}

TEST_F(Streams, graphs_keep_parameters_and_take_updates) {
    start(0);
    auto capture = [&](float value, bool second) {
        cudaGraph_t graph = nullptr;
        ok(cudaStreamBeginCapture(a, cudaStreamCaptureModeRelaxed));
        launch_fill(y, value, N, a);
        if (second) ok(cudaMemsetAsync(x, 0, 4, a));
        ok(cudaStreamEndCapture(a, &graph));
        return graph;
    };
    cudaGraph_t one = capture(1, false), two = capture(2, false), other = capture(2, true);
    cudaGraphExec_t exec;
    ok(cudaGraphInstantiateWithFlags(&exec, one, 0));
    ok(cudaGraphLaunch(exec, a));
    ok(cudaStreamSynchronize(a));
    EXPECT_EQ(first(), 1);
    cudaGraphExecUpdateResultInfo info;
    ok(cudaGraphExecUpdate(exec, two, &info));
    ok(cudaGraphLaunch(exec, a));
    ok(cudaStreamSynchronize(a));
    EXPECT_EQ(first(), 2);
    EXPECT_EQ(cudaGraphExecUpdate(exec, other, &info), cudaErrorGraphExecUpdateFailure);
    EXPECT_EQ(info.result, cudaGraphExecUpdateErrorTopologyChanged);
}

TEST_F(Streams, captures_refuse_what_cannot_be_captured) {
    start(0);
    capture_fork(*this, false);
    EXPECT_EQ(take_findings(Fault::api), 1);
    cudaGraph_t graph = nullptr;
    cudaStreamCaptureStatus status;
    void* p = nullptr;
    EXPECT_EQ(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal),
              cudaErrorStreamCaptureUnsupported);
    EXPECT_EQ(cudaStreamEndCapture(a, &graph), cudaErrorIllegalState);
    ok(cudaStreamBeginCapture(a, cudaStreamCaptureModeGlobal));
    ok(cudaStreamIsCapturing(a, &status));
    EXPECT_EQ(status, cudaStreamCaptureStatusActive);
    EXPECT_EQ(cudaMalloc(&p, 4), cudaErrorStreamCaptureUnsupported);
    ok(cudaStreamIsCapturing(a, &status));
    EXPECT_EQ(status, cudaStreamCaptureStatusInvalidated);
    EXPECT_EQ(cudaStreamEndCapture(a, &graph), cudaErrorStreamCaptureInvalidated);
    launch_fill(x, 1, N, b);
    ok(cudaEventRecord(event, b));
    ok(cudaStreamBeginCapture(a, cudaStreamCaptureModeThreadLocal));
    EXPECT_EQ(cudaStreamWaitEvent(a, event, 0), cudaErrorStreamCaptureIsolation);
    EXPECT_EQ(cudaStreamEndCapture(a, &graph), cudaErrorStreamCaptureInvalidated);
    cudaStream_t blocking;
    ok(cudaStreamCreate(&blocking));
    ok(cudaStreamBeginCapture(blocking, cudaStreamCaptureModeThreadLocal));
    launch_fill(x, 1, N); // the legacy stream would wait for the captured one
    EXPECT_EQ(cudaGetLastError(), cudaErrorStreamCaptureImplicit);
    EXPECT_EQ(cudaStreamEndCapture(blocking, &graph), cudaErrorStreamCaptureInvalidated);
    clear_findings();
    ok(cudaDeviceSynchronize());
}

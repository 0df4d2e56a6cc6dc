// Every bug is found, as what it is, in its kernel, on its line; its clean twin gives nothing under any
// schedule.
#include <cstring>
#include <fstream>
#include <set>

#include <gtest/gtest.h>

#include "tests/vgpu/bugs.h"
#include "tools/vgpu/count/traffic.h"
#include "tools/vgpu/vgpu.h"

using namespace vgpu;

namespace {

constexpr int SEEDS = 20;

std::string all_findings() {
    std::string s;
    for (const Finding& f : findings()) s += text_of(f) + "\n";
    return s;
}

/// The lines of bugs.cu with the comment "@name".
std::set<std::string> marked_lines(const std::string& name) {
    std::ifstream file(VGPU_TESTS "/bugs.cu");
    std::set<std::string> lines;
    std::string line, mark = "// @" + name;
    for (int n = 1; std::getline(file, line); n++)
        if (line.size() >= mark.size() && line.ends_with(mark)) lines.insert("bugs.cu:" + std::to_string(n));
    return lines;
}

float* device_floats(int n = FLOATS) {
    void* p = nullptr;
    EXPECT_EQ(cudaMalloc(&p, n * sizeof(float)), cudaSuccess);
    return static_cast<float*>(p);
}

struct Bugs : testing::Test {
    Buffers b{};
    void start(uint64_t seed = 0) {
        Options o = Options::from_environment();
        o.check = true, o.workers = 2, o.memory = 64 << 20, o.seed = seed, o.leaks = false;
        reset(o);
        b = {device_floats(), device_floats(), device_floats()};
        std::vector<float> x(FLOATS);
        for (int i = 0; i < FLOATS; i++) x[i] = float(i % 97);
        cudaMemcpy(b.x, x.data(), FLOATS * sizeof(float), cudaMemcpyHostToDevice);
        cudaMemset(b.y, 0, FLOATS * sizeof(float));
        cudaDeviceSynchronize(); // a fill is asynchronous, and other streams do not wait for it
    }
    void SetUp() override { start(); }
    void TearDown() override { clear_findings(); }
};

bool found(Fault fault) {
    cudaDeviceSynchronize();
    finish();
    for (const Finding& f : findings())
        if (f.fault == fault) return true;
    return false;
}

struct Stream {
    cudaStream_t s;
    Stream() { cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking); }
    ~Stream() { cudaStreamDestroy(s); }
    operator cudaStream_t() const { return s; }
};

struct Event {
    cudaEvent_t e;
    Event() { cudaEventCreateWithFlags(&e, cudaEventDisableTiming); }
    ~Event() { cudaEventDestroy(e); }
    operator cudaEvent_t() const { return e; }
};

} // namespace

// Kernels --------------------------------------------------------------------------------------------------

struct KernelBugs : Bugs, testing::WithParamInterface<KernelBug> {};

TEST_P(KernelBugs, is_found_on_its_line) {
    const KernelBug& bug = GetParam();
    bug.launch(true, b);
    EXPECT_TRUE(found(bug.fault)) << name_of(bug.fault) << " expected, found:\n" << all_findings();
    std::set<std::string> lines = marked_lines(bug.name);
    ASSERT_FALSE(lines.empty());
    bool right_place = false;
    for (const Finding& f : findings()) {
        if (f.fault != bug.fault) continue;
        EXPECT_EQ(readable(f.kernel), std::string(bug.name) + "<true>");
        for (const std::string& line : lines)
            right_place |= (f.source + " ").find(line + " ") != std::string::npos;
    }
    EXPECT_TRUE(right_place) << *lines.begin() << " expected, found:\n" << all_findings();
}

TEST_P(KernelBugs, clean_twin_is_clean) {
    for (int seed = 0; seed < SEEDS; seed++) {
        set_seed(uint64_t(seed));
        cudaMemset(b.y, 0, FLOATS * sizeof(float));
        GetParam().launch(false, b);
        EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        ASSERT_EQ(all_findings(), "") << "seed " << seed;
    }
}

INSTANTIATE_TEST_SUITE_P(All, KernelBugs, testing::ValuesIn(kernel_bugs()),
                         [](const auto& info) { return std::string(info.param.name); });

// Traffic --------------------------------------------------------------------------------------------------

TEST_F(Bugs, swizzle_removed) {
    set_count(true);
    double ratio[2];
    for (bool swizzled : {false, true}) {
        clear_traffic();
        launch_banks(swizzled, b.y);
        cudaDeviceSynchronize();
        ratio[swizzled] = traffic_of("banks").bank_ratio();
    }
    EXPECT_EQ(ratio[true], 1);
    EXPECT_GT(ratio[false], 4); // the reads take 8 times their ideal, the writes 1
    EXPECT_EQ(all_findings(), "");
}

TEST_F(Bugs, strided_loads) {
    set_count(true);
    for (int stride : {1, 16}) {
        clear_traffic();
        launch_strided(stride, b.x, b.y);
        cudaDeviceSynchronize();
        Traffic t = traffic_of("strided");
        EXPECT_EQ(t.read.requested, 128u);
        EXPECT_EQ(t.read.sectors, stride == 1 ? 4u : 32u);
        EXPECT_EQ(t.write.unique, 4u);
    }
}

// Numbers --------------------------------------------------------------------------------------------------

TEST_F(Bugs, order_of_float_atomics) {
    std::set<uint32_t> bits;
    std::vector<float> x(512);
    for (int i = 0; i < 512; i++) x[i] = 1.f / float(1 + i * i % 61);
    cudaMemcpy(b.x, x.data(), 512 * sizeof(float), cudaMemcpyHostToDevice);
    for (int seed = 0; seed < SEEDS; seed++) {
        set_seed(uint64_t(seed));
        cudaMemset(b.y, 0, sizeof(float));
        launch_float_atomics(b.y, b.x);
        uint32_t sum;
        cudaMemcpy(&sum, b.y, sizeof sum, cudaMemcpyDeviceToHost);
        bits.insert(sum);
    }
    EXPECT_GT(bits.size(), 1u) << "schedules must differ enough to show that a sum depends on its order";
    EXPECT_EQ(all_findings(), "");
}

TEST_F(Bugs, mutants_of_mma_give_other_numbers) {
    std::vector<uint16_t> a(256), w(128);
    std::vector<float> fa(256), fw(128), want(128), got(128);
    auto bf16 = [](float f) {
        uint32_t u;
        std::memcpy(&u, &f, 4);
        return uint16_t(u >> 16);
    };
    for (int i = 0; i < 256; i++) fa[i] = float((i * 7 + i / 16 * 3) % 13 - 6), a[i] = bf16(fa[i]); // exact
    for (int i = 0; i < 128; i++) fw[i] = float((i * 5 + i / 8) % 11 - 5), w[i] = bf16(fw[i]);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++)
            for (int k = 0; k < 16; k++) want[i * 8 + j] += fa[i * 16 + k] * fw[k * 8 + j];
    cudaMemcpy(b.x, a.data(), 512, cudaMemcpyHostToDevice);
    cudaMemcpy(b.x + 128, w.data(), 256, cudaMemcpyHostToDevice);
    for (Mutant m : {Mutant::none, Mutant::a_rows_swapped, Mutant::a_halves_swapped, Mutant::b_swapped,
                     Mutant::b_not_transposed, Mutant::c_swapped}) {
        launch_mma(m, b.y, b.x, b.x + 128);
        cudaMemcpy(got.data(), b.y, 512, cudaMemcpyDeviceToHost);
        EXPECT_EQ(got == want, m == Mutant::none) << int(m);
    }
    EXPECT_EQ(all_findings(), "");
}

// Host -----------------------------------------------------------------------------------------------------

TEST_F(Bugs, use_after_free) {
    float* p = device_floats(128);
    cudaMemset(p, 0, 512);
    launch_copy(b.y, p);
    EXPECT_FALSE(found(Fault::use_after_free));
    cudaFree(p);
    launch_copy(b.y, p);
    EXPECT_TRUE(found(Fault::use_after_free)) << all_findings();
}

TEST_F(Bugs, double_free) {
    float* p = device_floats(128);
    EXPECT_EQ(cudaFree(p), cudaSuccess);
    EXPECT_EQ(all_findings(), "");
    EXPECT_NE(cudaFree(p), cudaSuccess);
    EXPECT_NE(all_findings(), "");
}

TEST_F(Bugs, free_of_the_middle) {
    EXPECT_NE(cudaFree(b.x + 64), cudaSuccess);
    EXPECT_NE(all_findings(), "");
}

TEST_F(Bugs, leak) {
    cudaFree(b.x), cudaFree(b.y), cudaFree(b.u);
    report_leaks();
    EXPECT_EQ(all_findings(), "");
    device_floats(100);
    report_leaks();
    EXPECT_TRUE(found(Fault::leak));
}

TEST_F(Bugs, host_dereferences) {
    EXPECT_EXIT(b.x[7] = 1, testing::ExitedWithCode(1),
                "HOST_ACCESS.*byte 28 of the 16384 bytes.*use cudaMemcpy");
}

TEST_F(Bugs, event_missing) {
    for (bool event : {true, false}) {
        Stream s, t;
        Event e;
        launch_copy(b.y, b.x, s);
        cudaEventRecord(e, s);
        if (event) cudaStreamWaitEvent(t, e, 0);
        launch_copy(b.u, b.y, t);
        EXPECT_EQ(found(Fault::race_streams), !event) << all_findings();
    }
}

TEST_F(Bugs, copy_races_with_kernel) {
    for (bool wait : {true, false}) {
        Stream s, t;
        launch_copy(b.y, b.x, s);
        if (wait) cudaStreamSynchronize(s);
        cudaMemsetAsync(b.y, 0, 512, t);
        EXPECT_EQ(found(Fault::race_streams), !wait) << all_findings();
    }
}

TEST_F(Bugs, freed_while_another_stream_uses_it) {
    for (bool wait : {true, false}) {
        Stream s, t;
        float* p = device_floats(128);
        cudaMemset(p, 0, 512);
        cudaDeviceSynchronize();
        launch_copy(b.y, p, s);
        if (wait) cudaStreamSynchronize(s);
        cudaFreeAsync(p, t);
        EXPECT_EQ(found(Fault::race_streams) || found(Fault::use_after_free), !wait) << all_findings();
    }
}

TEST_F(Bugs, host_buffer_reused_before_its_copy) {
    bool wrong = false;
    float* host = nullptr;
    cudaMallocHost(reinterpret_cast<void**>(&host), 512);
    for (bool wait : {true, false})
        for (int seed = 0; seed < SEEDS; seed++) {
            set_seed(uint64_t(seed));
            Stream s;
            for (int i = 0; i < 128; i++) host[i] = 1;
            cudaMemcpyAsync(b.x, host, 512, cudaMemcpyHostToDevice, s);
            if (wait) cudaStreamSynchronize(s);
            for (int i = 0; i < 128; i++) host[i] = 2;
            cudaStreamSynchronize(s);
            float first;
            cudaMemcpy(&first, b.x, sizeof first, cudaMemcpyDeviceToHost);
            if (wait)
                EXPECT_EQ(first, 1);
            else
                wrong |= first != 1;
        }
    EXPECT_TRUE(wrong); // the copy reads as late as it may
    cudaFreeHost(host);
}

TEST_F(Bugs, result_read_before_its_copy) {
    bool wrong = false;
    float* host = nullptr;
    cudaMallocHost(reinterpret_cast<void**>(&host), 512);
    for (int seed = 0; seed < SEEDS; seed++) {
        set_seed(uint64_t(seed));
        Stream s;
        host[5] = -1;
        cudaMemcpyAsync(host, b.x, 512, cudaMemcpyDeviceToHost, s);
        wrong |= host[5] != 5;
        cudaStreamSynchronize(s);
        EXPECT_EQ(host[5], 5);
    }
    EXPECT_TRUE(wrong);
    cudaFreeHost(host);
}

TEST_F(Bugs, launch_limits) {
    launch_copy(b.y, b.x, nullptr, 1, 2048);
    EXPECT_NE(cudaGetLastError(), cudaSuccess);
    EXPECT_TRUE(found(Fault::launch_limit));
    start();
    launch_copy(b.y, b.x, nullptr, 1, 512); // __launch_bounds__(256)
    EXPECT_NE(cudaGetLastError(), cudaSuccess);
    EXPECT_TRUE(found(Fault::launch_limit));
    start();
    launch_copy(b.y, b.x, nullptr, 0, 128);
    EXPECT_NE(cudaGetLastError(), cudaSuccess);
    EXPECT_TRUE(found(Fault::launch_limit));
}

TEST_F(Bugs, shared_memory_without_the_attribute) {
    EXPECT_NE(launch_large_shared(false), cudaSuccess);
    EXPECT_TRUE(found(Fault::launch_limit));
    start();
    EXPECT_EQ(launch_large_shared(true), cudaSuccess);
    EXPECT_FALSE(found(Fault::launch_limit));
    EXPECT_EQ(all_findings(), "");
}

TEST_F(Bugs, copies_out_of_bounds) {
    std::vector<float> host(FLOATS + 1);
    EXPECT_EQ(cudaMemcpy(b.x, host.data(), FLOATS * sizeof(float), cudaMemcpyHostToDevice), cudaSuccess);
    EXPECT_EQ(all_findings(), "");
    cudaMemcpy(b.x, host.data(), (FLOATS + 1) * sizeof(float), cudaMemcpyHostToDevice);
    EXPECT_NE(all_findings(), "");
    start();
    cudaMemset(b.x + 1, 0, FLOATS * sizeof(float));
    EXPECT_NE(all_findings(), "");
}

TEST_F(Bugs, wrong_direction) {
    float host[4] = {};
    EXPECT_NE(cudaMemcpy(b.x, host, sizeof host, cudaMemcpyDeviceToHost), cudaSuccess);
    EXPECT_TRUE(found(Fault::api)) << all_findings();
}

TEST_F(Bugs, copy_of_what_nobody_wrote) {
    float host[4];
    cudaMemcpy(host, b.x, sizeof host, cudaMemcpyDeviceToHost);
    EXPECT_EQ(all_findings(), "");
    cudaMemcpy(host, b.u, sizeof host, cudaMemcpyDeviceToHost);
    EXPECT_TRUE(found(Fault::uninitialised)) << all_findings();
}

TEST_F(Bugs, graph_capture_misuse) {
    for (bool misuse : {false, true}) {
        start();
        Stream s;
        cudaGraph_t graph = nullptr;
        cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal);
        launch_copy(b.y, b.x, s);
        cudaError_t status = misuse ? cudaStreamSynchronize(s) : cudaSuccess;
        cudaError_t end = cudaStreamEndCapture(s, &graph);
        EXPECT_EQ(status != cudaSuccess || end != cudaSuccess, misuse);
        EXPECT_EQ(found(Fault::api), misuse) << all_findings();
        if (graph) cudaGraphDestroy(graph);
    }
}

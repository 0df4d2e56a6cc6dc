// Memory, launches, symbols, properties and errors of the CUDA runtime's look-alike.
#include <cuda.h>

#include "tests/vgpu/api.h"

#include <cstring>
#include <numeric>

#include "tests/vgpu/api_kernels.h"
#include "tools/vgpu/cudart/fatbin.h"

using namespace vgpu;
using cuda::choose, cuda::Image;

namespace {
std::vector<float> ramp(size_t n) {
    std::vector<float> v(n);
    std::iota(v.begin(), v.end(), 0.f);
    return v;
}
} // namespace

TEST_F(Vgpu, runs_a_kernel) {
    float *x = to_device(ramp(1000)), *y = device_array<float>(1000);
    launch_fill(y, 1, 1000);
    launch_axpy(y, x, 2, 1000);
    ok(cudaGetLastError());
    std::vector<float> result = to_host(y, 1000);
    for (size_t i = 0; i < 1000; i++) ASSERT_EQ(result[i], 2 * float(i) + 1);
    EXPECT_EQ(launches("axpy"), 1u);
    ok(cudaFree(x)), ok(cudaFree(y));
}

TEST_F(Vgpu, gives_the_same_bits_with_any_seed_and_workers) {
    for (uint64_t seed = 0; seed < 20; seed++) {
        options.seed = seed, options.workers = 1 + int(seed % 3);
        restart();
        float *x = to_device(ramp(1000)), *y = to_device(ramp(1000));
        launch_axpy(y, x, 3, 1000);
        EXPECT_EQ(to_host(y, 1000)[999], 4 * 999.f);
    }
}

TEST_F(Vgpu, copies_in_all_directions) {
    std::vector<float> v = ramp(64);
    float *a = to_device(v), *b = device_array<float>(64);
    ok(cudaMemcpy(b, a, 256, cudaMemcpyDeviceToDevice));
    EXPECT_EQ(to_host(b, 64), v);
    std::vector<float> w(64);
    ok(cudaMemcpy(w.data(), v.data(), 256, cudaMemcpyHostToHost));
    EXPECT_EQ(w, v);
    ok(cudaMemcpy(w.data(), b + 1, 4, cudaMemcpyDefault));
    EXPECT_EQ(w[0], 1);
    ok(cudaMemset(b, 0, 128));
    ok(cudaMemsetAsync(b + 32, 0xff, 128, nullptr));
    EXPECT_EQ(to_host(b, 64)[31], 0);
    EXPECT_NE(to_host(b, 64)[32], to_host(b, 64)[32]); // NaN

    float grid[4][3];
    ok(cudaMemcpy2D(grid, 12, a, 32, 12, 4, cudaMemcpyDeviceToHost));
    EXPECT_EQ(grid[3][2], 26);
    ok(cudaMemset2D(a, 32, 0, 4, 8));
    EXPECT_EQ(to_host(a, 64)[8], 0);
    EXPECT_EQ(to_host(a, 64)[9], 9);
    EXPECT_EQ(cudaMemcpy2D(grid, 8, a, 32, 12, 4, cudaMemcpyDeviceToHost), cudaErrorInvalidPitchValue);
    EXPECT_EQ(cudaMemcpy(b, a, 256, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    EXPECT_EQ(last_refusal(), "the call says host to device, the pointers are device to device");
    EXPECT_EQ(take_findings(Fault::api), 2);
}

TEST_F(Vgpu, finds_wrong_copies) {
    float* a = device_array<float>(64);
    std::vector<float> v(65);
    EXPECT_EQ(cudaMemcpy(a, v.data(), 260, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    EXPECT_EQ(take_findings(Fault::out_of_bounds), 1);
    ok(cudaMemcpy(a, v.data(), 100, cudaMemcpyHostToDevice));
    ok(cudaMemcpy(v.data(), a, 256, cudaMemcpyDeviceToHost));
    EXPECT_EQ(take_findings(Fault::uninitialised), 1);
    ok(cudaFree(a));
    EXPECT_EQ(cudaMemset(a, 0, 4), cudaErrorInvalidValue);
    EXPECT_EQ(take_findings(Fault::use_after_free), 1);
    EXPECT_EQ(cudaFree(a), cudaErrorInvalidValue);
    EXPECT_EQ(cudaFree(v.data()), cudaErrorInvalidValue);
    EXPECT_EQ(take_findings(Fault::api), 2);
}

TEST_F(Vgpu, counts_memory_and_finds_leaks) {
    options.memory = 1 << 20;
    restart();
    size_t free = 0, total = 0;
    ok(cudaMemGetInfo(&free, &total));
    void *a = nullptr, *b = nullptr;
    size_t before = free;
    ok(cudaMalloc(&a, 1 << 19));
    ok(cudaMemGetInfo(&free, &total));
    EXPECT_EQ(before - free, size_t(1) << 19);
    EXPECT_EQ(total, size_t(1) << 20);
    EXPECT_EQ(cudaMalloc(&b, 1 << 20), cudaErrorMemoryAllocation);
    EXPECT_EQ(b, nullptr);
    EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    report_leaks();
    EXPECT_EQ(take_findings(Fault::leak), 1);
    ok(cudaFree(a));
    report_leaks();
    ok(cudaFree(nullptr));
}

TEST_F(Vgpu, knows_host_memory) {
    void* pinned = nullptr;
    ok(cudaMallocHost(&pinned, 64));
    cudaPointerAttributes a;
    ok(cudaPointerGetAttributes(&a, pinned));
    EXPECT_EQ(a.type, cudaMemoryTypeHost);
    float* device = device_array<float>(4);
    ok(cudaPointerGetAttributes(&a, device + 1));
    EXPECT_EQ(a.type, cudaMemoryTypeDevice);
    std::vector<char> plain(8192);
    ok(cudaPointerGetAttributes(&a, plain.data()));
    EXPECT_EQ(a.type, cudaMemoryTypeUnregistered);
    ok(cudaHostRegister(plain.data(), plain.size(), cudaHostRegisterDefault));
    EXPECT_EQ(cudaHostRegister(plain.data() + 10, 10, 0), cudaErrorHostMemoryAlreadyRegistered);
    ok(cudaPointerGetAttributes(&a, plain.data() + 100));
    EXPECT_EQ(a.type, cudaMemoryTypeHost);
    ok(cudaHostUnregister(plain.data()));
    EXPECT_EQ(cudaHostUnregister(plain.data()), cudaErrorHostMemoryNotRegistered);
    EXPECT_EQ(take_findings(Fault::api), 2);
    ok(cudaFreeHost(pinned));
    ok(cudaHostAlloc(&pinned, 64, cudaHostAllocDefault));
    ok(cudaFreeHost(pinned));
}

TEST_F(Vgpu, reaches_symbols) {
    float constant[4] = {1, 2, 3, 4}, value = 0;
    ok(cudaMemcpyToSymbol(constant_symbol(), constant, sizeof constant, 0, cudaMemcpyHostToDevice));
    float* x = device_array<float>(8);
    launch_symbols({x, 8});
    EXPECT_EQ(to_host(x, 8)[6], 203);
    ok(cudaMemcpyFromSymbol(&value, bias_symbol(), 4, 0, cudaMemcpyDeviceToHost));
    EXPECT_EQ(value, 100);
    void* address = nullptr;
    size_t bytes = 0;
    ok(cudaGetSymbolAddress(&address, bias_symbol()));
    ok(cudaGetSymbolSize(&bytes, bias_symbol()));
    EXPECT_EQ(bytes, 8u);
    launch_fill(static_cast<float*>(address), 7, 2);
    launch_symbols({x, 8});
    EXPECT_EQ(to_host(x, 8)[5], 9);
    EXPECT_EQ(cudaMemcpyToSymbol(bias_symbol(), constant, 8, 4, cudaMemcpyHostToDevice),
              cudaErrorInvalidValue);
    EXPECT_EQ(cudaGetSymbolAddress(&address, &value), cudaErrorInvalidSymbol);
    EXPECT_EQ(take_findings(Fault::api), 2);
}

TEST_F(Vgpu, enforces_limits_of_launches) {
    float* x = device_array<float>(1 << 17);
    ok(cudaMemset(x, 0, 1 << 19));
    auto refused = [&](cudaError_t status) {
        EXPECT_EQ(cudaPeekAtLastError(), status) << last_refusal();
        EXPECT_EQ(cudaGetLastError(), status);
        EXPECT_EQ(take_findings(Fault::launch_limit), 1);
    };
    launch_reverse(x, 1000, 1025, 4000);
    refused(cudaErrorInvalidConfiguration);
    launch_reverse(x, 1000, 0, 4000);
    refused(cudaErrorInvalidConfiguration);
    launch_bounded(x, 96);
    refused(cudaErrorLaunchOutOfResources);
    launch_registers(x, 1024); // 128 registers and more: 65536 are not enough
    refused(cudaErrorLaunchOutOfResources);
    launch_registers(x, 128);
    launch_bounded(x, 64);
    ok(cudaGetLastError());

    launch_reverse(x, 1000, 256, 48 << 10);
    ok(cudaGetLastError());
    launch_reverse(x, 1000, 256, (48 << 10) + 4);
    refused(cudaErrorInvalidValue);
    ok(cudaFuncSetAttribute(reverse_kernel(), cudaFuncAttributeMaxDynamicSharedMemorySize, 100 << 10));
    launch_reverse(x, 25600, 256, 100 << 10);
    ok(cudaGetLastError());
    launch_reverse(x, 1000, 256, (100 << 10) + 4);
    refused(cudaErrorInvalidValue);
    EXPECT_EQ(cudaFuncSetAttribute(reverse_kernel(), cudaFuncAttributeMaxDynamicSharedMemorySize, 164 << 10),
              cudaErrorInvalidValue); // 163 KiB on an A100
    EXPECT_EQ(take_findings(Fault::api), 1);
    ok(cudaDeviceSynchronize());
}

TEST_F(Vgpu, knows_what_ptxas_decided) {
    cudaFuncAttributes a;
    ok(cudaFuncGetAttributes(&a, registers_kernel()));
    EXPECT_GT(a.numRegs, 100);
    EXPECT_LE(a.numRegs, 255);
    EXPECT_LT(a.maxThreadsPerBlock, 1024);
    ok(cudaFuncGetAttributes(&a, bounded_kernel()));
    EXPECT_EQ(a.maxThreadsPerBlock, 64);
    int blocks = 0;
    ok(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, reverse_kernel(), 1024, 0));
    EXPECT_EQ(blocks, 2); // 2048 threads
    ok(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, reverse_kernel(), 32, 40 << 10));
    EXPECT_EQ(blocks, 4); // 164 KiB, 1 KiB reserved for each
    EXPECT_EQ(cudaFuncGetAttributes(&a, &blocks), cudaErrorInvalidDeviceFunction);
    EXPECT_EQ(take_findings(Fault::api), 1);
}

TEST_F(Vgpu, launches_by_configuration) {
    float* x = device_array<float>(64);
    float value = 5;
    int n = 64;
    void* args[] = {&x, &value, &n};
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(1), config.blockDim = dim3(64);
    float* y = to_device(ramp(64));
    void* reverse[] = {&y, &n};
    config.dynamicSmemBytes = 256;
    ok(cudaLaunchKernelExC(&config, reverse_kernel(), reverse));
    EXPECT_EQ(to_host(y, 64)[0], 63);
    cudaLaunchAttribute cluster{};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {2, 1, 1};
    config.attrs = &cluster, config.numAttrs = 1, config.gridDim = dim3(2);
    EXPECT_EQ(cudaLaunchKernelExC(&config, reverse_kernel(), reverse), cudaErrorNotSupported); // sm_80
    EXPECT_EQ(take_findings(Fault::launch_limit), 1);
    EXPECT_EQ(cudaLaunchKernel(&value, dim3(1), dim3(1), args, 0, nullptr), cudaErrorInvalidDeviceFunction);
    EXPECT_EQ(take_findings(Fault::api), 1);
}

TEST_F(Vgpu, has_properties_of_its_architecture) {
    int count = 0, value = 0;
    ok(cudaGetDeviceCount(&count));
    EXPECT_EQ(count, 1);
    cudaDeviceProp p;
    ok(cudaGetDeviceProperties(&p, 0));
    EXPECT_EQ(p.major, 8);
    EXPECT_EQ(p.multiProcessorCount, 108);
    EXPECT_EQ(p.sharedMemPerBlockOptin, size_t(163) << 10);
    EXPECT_EQ(cudaSetDevice(1), cudaErrorInvalidDevice);
    EXPECT_EQ(cudaGetDeviceProperties(&p, 1), cudaErrorInvalidDevice);
    EXPECT_EQ(take_findings(Fault::api), 1);
    options.arch = 90, options.devices = 2;
    restart();
    ok(cudaGetDeviceCount(&count));
    EXPECT_EQ(count, 2);
    ok(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, 1));
    EXPECT_EQ(value, 132);
    ok(cudaRuntimeGetVersion(&value));
    EXPECT_EQ(value, CUDART_VERSION);
    EXPECT_STREQ(cudaGetErrorName(cudaErrorNotReady), "cudaErrorNotReady");
    EXPECT_STREQ(cudaGetErrorString(cudaErrorMemoryAllocation), "out of memory");
}

TEST_F(Vgpu, has_several_devices) {
    options.devices = 2;
    restart();
    float* a = to_device(ramp(64));
    ok(cudaSetDevice(1));
    float* b = device_array<float>(64);
    ok(cudaMemcpyPeer(b, 1, a, 0, 256));
    launch_axpy(b, b, 1, 64);
    EXPECT_EQ(to_host(b, 64)[63], 126);
    ok(cudaDeviceEnablePeerAccess(0, 0));
    launch_fill(a, 1, 64); // memory of device 0 in a kernel of device 1
    ok(cudaDeviceSynchronize());
    EXPECT_EQ(to_host(a, 64)[63], 1);
    cudaStream_t other;
    ok(cudaSetDevice(0));
    ok(cudaStreamCreate(&other));
    ok(cudaSetDevice(1));
    launch_fill(b, 1, 64, other); // a stream of device 0
    EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidResourceHandle);
    EXPECT_EQ(take_findings(Fault::api), 1);
    ok(cudaSetDevice(0));
}

TEST_F(Vgpu, kernels_are_checked) {
    float *x = device_array<float>(64), *y = device_array<float>(64);
    launch_fill(y, 0, 65);
    ok(cudaDeviceSynchronize());
    EXPECT_EQ(take_findings(Fault::out_of_bounds), 1);
    launch_axpy(y, x, 1, 64);
    ok(cudaDeviceSynchronize());
    EXPECT_GT(take_findings(Fault::uninitialised), 0);
    ok(cudaFree(y));
    launch_fill(y, 0, 64);
    ok(cudaDeviceSynchronize());
    EXPECT_GT(take_findings(Fault::use_after_free), 0);
}

namespace {
[[noreturn]] void fill_and_exit(int n) { // nobody waits for the kernel: it runs all the same
    float* x = device_array<float>(64);
    launch_fill(x, 0, n);
    std::exit(0);
}
} // namespace

TEST_F(Vgpu, findings_are_the_exit_status) {
    EXPECT_EXIT(fill_and_exit(65), testing::ExitedWithCode(99),
                "OUT_OF_BOUNDS in .*fill.* at .*api_kernels.cu:");
    EXPECT_EXIT(fill_and_exit(64), testing::ExitedWithCode(0), "");
}

TEST_F(Vgpu, counts_what_kernels_move) {
    options.count = true;
    restart();
    float *x = to_device(ramp(1024)), *y = to_device(ramp(1024));
    launch_axpy(y, x, 1, 1024);
    launch_axpy(y, x, 1, 1024);
    ok(cudaDeviceSynchronize());
    Traffic t = traffic_of("axpy");
    EXPECT_EQ(t.launches, 2u);
    EXPECT_EQ(t.read.requested, 2u * 8192);
    EXPECT_EQ(t.write.unique * 32, 2u * 4096);
    EXPECT_EQ(t.read.sectors_per_requested(), 1);
}

namespace {
CUresult encode(CUtensorMap* map, void* tensor, uint64_t stride, uint32_t width) {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
    ok(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault,
                                        &found));
    EXPECT_EQ(found, cudaDriverEntryPointSuccess);
    cuuint64_t extent[] = {64, 8}, strides[] = {stride};
    cuuint32_t box[] = {width, 8}, step[] = {1, 1};
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function)(
        map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 2, tensor, extent, strides, box, step,
        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_NONE,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}
} // namespace

TEST_F(Vgpu, encodes_tensor_maps) {
    CUtensorMap map;
    float* x = device_array<float>(512);
    EXPECT_EQ(encode(&map, x, 256, 32), CUDA_ERROR_INVALID_VALUE); // sm_80
    options.arch = 90;
    restart();
    x = device_array<float>(512);
    EXPECT_EQ(encode(&map, x, 256, 32), CUDA_SUCCESS) << last_refusal();
    EXPECT_EQ(encode(&map, x + 1, 256, 32), CUDA_ERROR_INVALID_VALUE);
    EXPECT_EQ(encode(&map, x, 260, 32), CUDA_ERROR_INVALID_VALUE);
    EXPECT_EQ(encode(&map, x, 256, 33), CUDA_ERROR_INVALID_VALUE);
    EXPECT_EQ(encode(&map, x, 256, 64), CUDA_ERROR_INVALID_VALUE);
    EXPECT_EQ(last_refusal(), "the box is 256 bytes wide, more than the swizzle of 128");
    EXPECT_EQ(take_findings(Fault::api), 4);
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
    ok(cudaGetDriverEntryPointByVersion("cuNothing", &function, 12000, cudaEnableDefault, &found));
    EXPECT_EQ(found, cudaDriverEntryPointSymbolNotFound);
}

TEST(Fatbin, chooses_what_cuda_would_choose) {
    auto image = [](bool ptx, int arch, bool specific) {
        Image i;
        i.ptx = ptx, i.arch = arch, i.specific = specific;
        i.bytes = ptx ? "// text" : "";
        return i;
    };
    std::vector<Image> images{image(false, 80, false), image(true, 80, false), image(false, 90, true),
                              image(true, 90, true)};
    EXPECT_EQ(choose(images, 80).ptx.data(), images[1].bytes.data());
    EXPECT_FALSE(choose(images, 80).ptx.empty());
    EXPECT_EQ(choose(images, 90).cubin, &images[2]);
    EXPECT_EQ(choose(images, 100).cubin, &images[0]); // 90a is for 90 alone: PTX of 80
    EXPECT_TRUE(choose({images[2], images[3]}, 80).no_image);
    EXPECT_EQ(choose({images[2]}, 90).refusal,
              "sm_90 would run the cubin of sm_90a, and there is no PTX text beside it: compile with "
              "code=[sm_90a,compute_90a]");
    images[1].compressed = true;
    EXPECT_EQ(choose(images, 80).refusal, "the PTX of compute_80 is compressed: give nvcc --no-compress");
}

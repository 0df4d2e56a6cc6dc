// What nvcc's host code calls before main: fat binaries, kernels and variables are made known. These
// functions are private to NVIDIA's runtime and may change with the toolkit (this is CUDA 12 and 13).
#include <cuda_runtime.h> // brings the prototypes of __cudaGetKernel and others

#include <cstdio>
#include <cstring>

#include "tools/vgpu/cudart/runtime.h"

namespace vgpu::cuda {

Binary::Loaded& Runtime::load(Binary& b, int number) {
    if (auto it = b.loaded.find(number); it != b.loaded.end()) return it->second;
    Binary::Loaded& l = b.loaded[number];
    Choice c = choose(b.images, options.arch);
    if (!c.refusal.empty()) {
        l.status = c.no_image ? cudaErrorNoKernelImageForDevice : cudaErrorInvalidKernelImage;
        l.refusal = (c.file.empty() ? "" : c.file + ": ") + c.refusal;
        return l;
    }
    if (c.cubin) l.resources = resources_of(c.cubin->bytes);
    Device& d = device(number);
    try {
        Unlocked unlocked(*d.memory);
        l.module = load_module(c.ptx, options.arch, c.file.empty() ? "module" : c.file,
                               [&](std::string_view name, uint64_t bytes, uint64_t) {
                                   uint64_t address = d.memory->allocate(bytes);
                                   if (!address) throw Error(std::string(name) + ": no room for a variable");
                                   d.memory->mark_written(address, bytes);
                                   d.variables.insert(address);
                                   return address;
                               });
    } catch (const Error& e) {
        l.status = cudaErrorInvalidPtx;
        l.refusal = e.what();
        finding(Fault::api, "load", l.refusal);
    }
    return l;
}

CUkern_st* Runtime::kernel(const void* stub) {
    if (auto it = kernels.find(stub); it != kernels.end()) return it->second;
    for (auto& [key, k] : kernels)
        if (k == stub) return k; // a cudaKernel_t passed where a function is expected
    refuse(cudaErrorInvalidDeviceFunction, "%p is no __global__ function", stub);
}

CUkern_st::State& Runtime::state(CUkern_st& k, int number) {
    CUkern_st::State& s = k.states[number];
    if (s.function) return s;
    Binary::Loaded& l = load(*k.binary, number);
    if (!l.module) refuse(l.status, "%s: %s", k.name.c_str(), l.refusal.c_str());
    s.function = l.module->find(k.name);
    if (!s.function)
        refuse(cudaErrorInvalidDeviceFunction, "%s is not in the PTX that this device runs", k.name.c_str());
    if (auto it = l.resources.find(k.name); it != l.resources.end()) s.resources = it->second;
    return s;
}

const Variable& Runtime::variable(const void* shadow) {
    auto it = variables.find(shadow);
    if (it == variables.end()) refuse(cudaErrorInvalidSymbol, "%p is no __device__ variable", shadow);
    auto& [binary, i] = it->second;
    Binary::Loaded& l = load(*binary, current_device());
    const std::string& name = binary->variables[i].name;
    if (!l.module) refuse(l.status, "%s: %s", name.c_str(), l.refusal.c_str());
    const Variable* v = l.module->variable(name);
    if (!v) refuse(cudaErrorInvalidSymbol, "%s is not in the PTX (nothing uses it)", name.c_str());
    return *v;
}

} // namespace vgpu::cuda

using namespace vgpu;
using namespace vgpu::cuda;

extern "C" {

void** __cudaRegisterFatBinary(void* wrapper) {
    Runtime& r = runtime();
    std::unique_lock lock(r.queue.mutex);
    auto b = std::make_unique<Binary>();
    try {
        b->images = images_of(wrapper);
    } catch (const Error& e) {
        r.finding(Fault::api, "load", e.what());
    }
    r.binaries.push_back(std::move(b));
    return reinterpret_cast<void**>(r.binaries.back().get());
}

// Decodes at once, so a program with an instruction that the machine does not know says so at start-up (and
// ends with status 99), whatever it was going to do.
void __cudaRegisterFatBinaryEnd(void** handle) {
    Runtime& r = runtime();
    std::unique_lock lock(r.queue.mutex);
    if (r.devices.empty()) return;
    Binary::Loaded& l = r.load(*reinterpret_cast<Binary*>(handle), 0);
    if (l.status == cudaErrorInvalidPtx || l.status == cudaErrorInvalidKernelImage)
        std::fprintf(stderr, "vgpu: %s\n", l.refusal.c_str());
}

void __cudaUnregisterFatBinary(void**) {} // at exit; findings may still name its kernels

void __cudaRegisterFunction(void** handle, const char* stub, char*, const char* name, int, uint3*, uint3*,
                            dim3*, dim3*, int*) {
    Runtime& r = runtime();
    std::unique_lock lock(r.queue.mutex);
    auto* b = reinterpret_cast<Binary*>(handle);
    auto k = std::make_unique<CUkern_st>();
    k->binary = b, k->name = name;
    r.kernels[stub] = k.get();
    b->kernels.push_back(std::move(k));
}

void __cudaRegisterVar(void** handle, char* host, char*, const char* name, int, size_t bytes, int, int) {
    Runtime& r = runtime();
    std::unique_lock lock(r.queue.mutex);
    auto* b = reinterpret_cast<Binary*>(handle);
    r.variables[host] = {b, b->variables.size()};
    b->variables.push_back({host, name, bytes});
}

char __cudaInitModule(void**) { return 0; }

} // extern "C"

// The device code inside a host object: nvcc's "fat binary", a list of images, PTX text or cubins (ELF), for
// one architecture each. The layout is not documented; it is what nvcc 12 and 13 write.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace vgpu::cuda {

struct Image {
    bool ptx = false;
    bool compressed = false;
    int arch = 0;          // 80, 90, ...
    bool specific = false; // sm_90a: for exactly this architecture
    std::string_view bytes;
    std::string file; // the .cu it was made of, empty without -lineinfo

    std::string target() const {
        return (ptx ? "compute_" : "sm_") + std::to_string(arch) + (specific ? "a" : "");
    }
};

/// `wrapper` is what __cudaRegisterFatBinary gets. Throws Error when it is something else.
std::vector<Image> images_of(const void* wrapper);

/// What a device of this architecture would run (CUDA's rule: the newest cubin of its own generation, else
/// the newest PTX that is not newer than it) and the PTX text of it.
struct Choice {
    std::string_view ptx;         // empty: see refusal
    const Image* cubin = nullptr; // the machine code of the same target, if it is there: its register counts
    std::string file, refusal;
    bool no_image = false; // nothing for this device at all: cudaErrorNoKernelImageForDevice
};
Choice choose(const std::vector<Image>& images, int arch);

/// What ptxas decided about a kernel.
struct Resources {
    int registers = 0;
    int stack = 0; // bytes of local memory of a thread
};
/// By mangled name of the kernel, from .nv.info of a cubin.
std::map<std::string, Resources> resources_of(std::string_view cubin);

} // namespace vgpu::cuda

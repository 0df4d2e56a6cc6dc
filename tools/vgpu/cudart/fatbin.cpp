#include "tools/vgpu/cudart/fatbin.h"

#include <elf.h>

#include <cstring>

#include "tools/vgpu/machine/module.h"

namespace vgpu::cuda {

namespace {

constexpr uint32_t WRAPPER_MAGIC = 0x466243B1, BINARY_MAGIC = 0xBA55ED50;
constexpr uint64_t COMPRESSED_LZ4 = 0x2000, COMPRESSED_ZSTD = 0x8000, ARCH_SPECIFIC = 0x100000;
enum : uint16_t { KIND_PTX = 1, KIND_ELF = 2 };

struct Wrapper {
    uint32_t magic, version;
    const char* data;
    const void* prelinked;
};
struct Header {
    uint32_t magic;
    uint16_t version, header_bytes;
    uint64_t bytes; // of all entries, without this header
};
struct Entry {
    uint16_t kind, version;
    uint32_t header_bytes;
    uint64_t bytes;
    uint32_t compressed_bytes, options;
    uint16_t minor, major;
    uint32_t arch, name_offset, name_bytes;
    uint64_t flags, zero, uncompressed_bytes;
};
static_assert(sizeof(Header) == 16 && sizeof(Entry) == 64);

template <class X> X at(std::string_view bytes, size_t offset) {
    if (offset + sizeof(X) > bytes.size())
        throw Error("device code is cut off: it ends at byte " + std::to_string(bytes.size()));
    X x;
    std::memcpy(&x, bytes.data() + offset, sizeof x);
    return x;
}

Image image_of(const char* entry_at, const Entry& e) {
    Image image;
    image.ptx = e.kind == KIND_PTX;
    image.compressed = (e.flags & (COMPRESSED_LZ4 | COMPRESSED_ZSTD)) != 0 || e.uncompressed_bytes != 0;
    image.arch = int(e.arch);
    image.specific = (e.flags & ARCH_SPECIFIC) != 0;
    image.bytes = {entry_at + e.header_bytes, e.bytes};
    if (e.name_offset && e.name_bytes) image.file.assign(entry_at + e.name_offset, e.name_bytes);
    if (image.ptx && !image.compressed) {
        image.bytes = image.bytes.substr(0, image.bytes.find('\0'));
        std::string_view target = ".target sm_";
        if (size_t p = image.bytes.find(target); p != image.bytes.npos) {
            size_t end = image.bytes.find_first_of(" ,\n", p + target.size());
            image.specific = image.bytes.substr(p, end - p).back() == 'a';
        }
    }
    return image;
}

} // namespace

std::vector<Image> images_of(const void* wrapper) {
    Wrapper w;
    std::memcpy(&w, wrapper, sizeof w);
    if (w.magic != WRAPPER_MAGIC) throw Error("this is no fat binary of nvcc (wrong magic number)");
    Header h;
    std::memcpy(&h, w.data, sizeof h);
    if (h.magic != BINARY_MAGIC)
        throw Error("this is no fat binary of nvcc (wrong magic number of its data)");
    std::vector<Image> images;
    const char* p = w.data + h.header_bytes;
    for (const char* end = p + h.bytes; p < end;) {
        Entry e;
        std::memcpy(&e, p, sizeof e);
        if (e.kind == KIND_PTX || e.kind == KIND_ELF) images.push_back(image_of(p, e));
        p += e.header_bytes + e.bytes;
    }
    return images;
}

Choice choose(const std::vector<Image>& images, int arch) {
    auto runs = [&](const Image& i) {
        if (i.specific) return i.arch == arch;
        return i.arch <= arch && (i.ptx || i.arch / 10 == arch / 10);
    };
    const Image* best = nullptr;
    auto rank = [](const Image& i) { return (i.ptx ? 0 : 1 << 20) + i.arch * 2 + i.specific; };
    std::string all;
    for (const Image& i : images) {
        all += (all.empty() ? "" : ", ") + i.target();
        if (runs(i) && (!best || rank(i) > rank(*best))) best = &i;
    }
    Choice c;
    if (!best) {
        c.no_image = true;
        c.refusal = "nothing here runs on sm_" + std::to_string(arch) + ": it was compiled for " +
                    (all.empty() ? "nothing" : all);
        return c;
    }
    c.file = best->file;
    for (const Image& i : images) {
        if (i.arch != best->arch || i.specific != best->specific) continue;
        if (!i.ptx) {
            if (!i.compressed) c.cubin = &i;
        } else if (i.compressed) {
            c.refusal = "the PTX of " + i.target() + " is compressed: give nvcc --no-compress";
        } else {
            c.ptx = i.bytes;
        }
    }
    if (c.ptx.empty() && c.refusal.empty()) {
        std::string name = std::to_string(best->arch) + (best->specific ? "a" : "");
        c.refusal = "sm_" + std::to_string(arch) + " would run the cubin of sm_" + name +
                    ", and there is no PTX text beside it: compile with code=[sm_" + name + ",compute_" +
                    name + "]";
    }
    return c;
}

// .nv.info is a list of (format, attribute, value): here those whose value is a pair (symbol, number).
std::map<std::string, Resources> resources_of(std::string_view cubin) {
    constexpr uint8_t FORMAT_SIZED = 4, FRAME_SIZE = 0x11, REGCOUNT = 0x2f;
    auto header = at<Elf64_Ehdr>(cubin, 0);
    auto section = [&](size_t i) { return at<Elf64_Shdr>(cubin, header.e_shoff + i * header.e_shentsize); };
    auto text = [&](const Elf64_Shdr& strings, size_t offset) {
        size_t begin = strings.sh_offset + offset;
        return std::string(cubin.substr(begin, cubin.find('\0', begin) - begin));
    };
    Elf64_Shdr names = section(header.e_shstrndx), symbols{}, info{};
    for (size_t i = 1; i < header.e_shnum; i++) {
        Elf64_Shdr s = section(i);
        if (s.sh_type == SHT_SYMTAB) symbols = s;
        if (text(names, s.sh_name) == ".nv.info") info = s;
    }
    std::map<std::string, Resources> found;
    for (size_t p = info.sh_offset, end = p + info.sh_size; p + 4 <= end;) {
        auto format = at<uint8_t>(cubin, p), attribute = at<uint8_t>(cubin, p + 1);
        auto bytes = at<uint16_t>(cubin, p + 2);
        if (format == FORMAT_SIZED && (attribute == REGCOUNT || attribute == FRAME_SIZE)) {
            auto symbol =
                at<Elf64_Sym>(cubin, symbols.sh_offset + at<uint32_t>(cubin, p + 4) * sizeof(Elf64_Sym));
            Resources& r = found[text(section(symbols.sh_link), symbol.st_name)];
            (attribute == REGCOUNT ? r.registers : r.stack) = int(at<uint32_t>(cubin, p + 8));
        }
        p += format == FORMAT_SIZED ? 4 + bytes : 4;
    }
    return found;
}

} // namespace vgpu::cuda

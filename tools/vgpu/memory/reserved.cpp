#include "tools/vgpu/memory/reserved.h"

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

#include <sys/mman.h>

namespace vgpu {

namespace {
constexpr size_t PAGE = 4096;
}

Reserved::Reserved(size_t bytes, bool accessible) : size_((bytes + PAGE - 1) / PAGE * PAGE) {
    void* p = mmap(nullptr, size_, accessible ? PROT_READ | PROT_WRITE : PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        throw std::runtime_error("vgpu: cannot reserve " + std::to_string(size_ >> 30) +
                                 " GiB of address space (" + std::strerror(errno) +
                                 "): raise the limit of virtual memory (ulimit -v unlimited)");
    data_ = static_cast<std::byte*>(p);
}

Reserved::~Reserved() {
    if (data_) munmap(data_, size_);
}

Reserved& Reserved::operator=(Reserved&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}

void Reserved::drop(size_t offset, size_t bytes) {
    size_t begin = (offset + PAGE - 1) / PAGE * PAGE, end = (offset + bytes) / PAGE * PAGE;
    if (begin < end) madvise(data_ + begin, end - begin, MADV_DONTNEED);
}

void Reserved::protect(size_t offset, size_t bytes, bool accessible) {
    size_t begin = offset / PAGE * PAGE, end = (offset + bytes + PAGE - 1) / PAGE * PAGE;
    if (begin < end) mprotect(data_ + begin, end - begin, accessible ? PROT_READ | PROT_WRITE : PROT_NONE);
}

} // namespace vgpu

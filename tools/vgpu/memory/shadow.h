// What the checkers know about each byte of a device's memory, in arrays that are as sparse as the memory.
//
//   written   a bit per byte: it has a value
//   words     four stamps per 4 bytes (stamps.h): last weak write, two reads, last strong (atomic) access
//   bytes     the same per byte, for words whose bytes have different histories
//   sectors   per 32 bytes: the launch that last read / wrote it, for counting unique sectors
#pragma once
#include <atomic>
#include <cstdint>

#include "tools/vgpu/memory/reserved.h"
#include "tools/vgpu/memory/segments.h"

namespace vgpu {

class Shadow {
public:
    Shadow(uint64_t begin, uint64_t region);

    void mark(uint64_t address, uint64_t bytes, bool written);
    void copy(uint64_t to, uint64_t from, uint64_t bytes);
    /// Number of written bytes at the beginning of the range.
    uint64_t written(uint64_t address, uint64_t bytes) const;
    /// Forgets everything about a range.
    void drop(uint64_t address, uint64_t bytes);

    /// 64 bits of `written`, those of the bytes from `address` (a multiple of 64) on.
    std::atomic_ref<uint64_t> written_bits(uint64_t address) const {
        return std::atomic_ref(written_.as<uint64_t>()[(address - begin_) / 64]);
    }
    uint32_t* words(int kind, uint64_t address) const {
        return words_[kind].as<uint32_t>() + (address - begin_) / 4;
    }
    uint32_t* bytes(int kind, uint64_t address) const {
        return bytes_[kind].as<uint32_t>() + (address - begin_);
    }
    uint32_t* sector(bool write, uint64_t address) const {
        return sectors_[write].as<uint32_t>() + (address - begin_) / 32;
    }
    /// A new number for each launch whose unique sectors are counted.
    uint32_t next_epoch() { return ++epoch_; }

    /// Who is behind the stamps of `words` and `bytes`.
    Segments segments;
    /// Makes all stamps free again when their numbers run out; between launches only.
    void forget_stamps();

private:
    uint64_t begin_, region_;
    Reserved written_, words_[4], bytes_[4], sectors_[2];
    std::atomic<uint32_t> epoch_ = 0;
};

} // namespace vgpu

#include "tools/vgpu/memory/shadow.h"

#include <algorithm>
#include <bit>

namespace vgpu {

Shadow::Shadow(uint64_t begin, uint64_t region) : begin_(begin), region_(region), written_(region / 8, true) {
    for (Reserved& w : words_) w = Reserved(region, true);
    for (Reserved& b : bytes_) b = Reserved(region * 4, true);
    for (Reserved& s : sectors_) s = Reserved(region / 8, true);
}

/// Calls f(index of the 64-bit word, mask of its bits) for the bits [first, first + count).
template <class F> static void each_word(uint64_t first, uint64_t count, F f) {
    for (uint64_t at = first, end = first + count; at < end;) {
        uint64_t n = std::min(end - at, 64 - at % 64);
        f(at / 64, (n == 64 ? ~0ull : (1ull << n) - 1) << at % 64);
        at += n;
    }
}

void Shadow::mark(uint64_t address, uint64_t bytes, bool written) {
    uint64_t* bits = written_.as<uint64_t>();
    each_word(address - begin_, bytes, [&](uint64_t i, uint64_t mask) {
        if (mask == ~0ull)
            bits[i] = written ? ~0ull : 0;
        else if (written)
            std::atomic_ref(bits[i]).fetch_or(mask, std::memory_order_relaxed);
        else
            std::atomic_ref(bits[i]).fetch_and(~mask, std::memory_order_relaxed);
    });
}

uint64_t Shadow::written(uint64_t address, uint64_t bytes) const {
    const uint64_t* bits = written_.as<uint64_t>();
    for (uint64_t at = address - begin_, end = at + bytes; at < end;) {
        uint64_t missing = ~bits[at / 64] >> at % 64;
        if (missing) {
            at += std::countr_zero(missing);
            return std::min(at, end) - (address - begin_);
        }
        at += 64 - at % 64;
    }
    return bytes;
}

void Shadow::copy(uint64_t to, uint64_t from, uint64_t bytes) {
    for (uint64_t done = 0; done < bytes;) { // by runs of equal bits: there are few
        uint64_t n = written(from + done, bytes - done);
        mark(to + done, n, true);
        done += n;
        uint64_t gap = 0;
        const uint64_t* bits = written_.as<uint64_t>();
        for (uint64_t at = from + done - begin_; done + gap < bytes && !(bits[at / 64] >> at % 64 & 1); at++)
            gap++;
        mark(to + done, gap, false);
        done += gap;
    }
}

void Shadow::drop(uint64_t address, uint64_t bytes) {
    mark(address, bytes, false);
    uint64_t first = address - begin_;
    for (Reserved& w : words_) w.drop(first, bytes);
    for (Reserved& b : bytes_) b.drop(first * 4, bytes * 4);
}

void Shadow::forget_stamps() {
    for (Reserved& w : words_) w.drop(0, w.size());
    for (Reserved& b : bytes_) b.drop(0, b.size());
    segments.restart();
}

} // namespace vgpu

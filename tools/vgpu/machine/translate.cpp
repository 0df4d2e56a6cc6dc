// From the addresses of a warp's access to host pointers, past the observer and the bounds of windows.
#include <cinttypes>

#include "tools/vgpu/machine/warp.h"

namespace vgpu {
namespace {

constexpr uint64_t WINDOW = 255ull << 56;

struct Window {
    Space space;
    std::byte* base;
    uint64_t size, stride; // stride: between lanes (local memory)
};

/// Lanes whose shared address names another block of the cluster (its rank + 1 above bit 24).
uint32_t foreign(const uint64_t* offset, uint32_t lanes) {
    uint32_t f = 0;
    for (uint32_t m = lanes; m; m &= m - 1) {
        if (offset[lowest(m)] >> 24) f |= m & -m;
    }
    return f;
}

uint32_t in_window(Warp& w, const Op& op, Access a, const Window& win, std::byte** host) {
    Block& b = *w.block;
    uint32_t away = a.space == Space::shared ? foreign(a.address, a.lanes) : 0;
    uint32_t lanes = a.lanes;
    if (b.observer) {
        uint32_t own = a.lanes & ~away;
        a.lanes = own;
        lanes = (own ? b.observer->access(w.id, a) : 0) | away;
    }
    uint32_t good = 0;
    for (uint32_t m = lanes; m; m &= m - 1) {
        uint32_t i = lowest(m);
        uint64_t offset = a.address[i];
        std::byte* base = win.base + win.stride * i;
        uint64_t size = win.size;
        if (away >> i & 1) {
            uint64_t rank = (offset >> 24) - 1;
            offset &= 0xffffff;
            size = rank < b.cluster.size() ? b.cluster[rank]->shared_bytes : 0;
            if (size) base = b.cluster[rank]->shared;
        }
        if (offset > size || size - offset < a.bytes) {
            if (!b.observer || (away >> i & 1)) {
                char text[160];
                std::snprintf(text, sizeof text,
                              "%u bytes at %s offset %" PRIu64 ", which has %" PRIu64 " bytes", a.bytes,
                              a.space == Space::shared  ? "shared"
                              : a.space == Space::local ? "local"
                                                        : "parameter",
                              offset, size);
                complain(w, op, Fault::out_of_bounds, i, text);
            }
            continue;
        }
        good |= 1u << i;
        host[i] = base + offset;
    }
    return good;
}

} // namespace

uint32_t translate(Warp& w, const Op& op, const Memory& m, Kind kind, uint32_t bytes, uint32_t mask,
                   const uint64_t* address, std::byte** host, const std::byte* value) {
    Block& b = *w.block;
    Access a{&b.code->sites[op.site], m.space, kind, m.order, m.scope, bytes, mask, address, value};
    uint64_t local = b.code->local_bytes;
    Window shared{Space::shared, b.shared, b.shared_bytes, 0};
    Window stack{Space::local, b.local + uint64_t(w.id.number) * 32 * local, local, local};
    if (!m.generic && !m.parameter) {
        if (m.space == Space::shared) return in_window(w, op, a, shared, host);
        if (m.space == Space::local) return in_window(w, op, a, stack, host);
        if (b.observer) mask = b.observer->access(w.id, a);
        for (int i = 0; i < 32; i++) host[i] = reinterpret_cast<std::byte*>(address[i]);
        return mask;
    }
    uint32_t good = 0, rest = mask;
    while (rest) { // window by window; nearly always there is one
        uint64_t tag = address[lowest(rest)] & WINDOW;
        uint32_t same = 0;
        uint64_t offset[32];
        for (int i = 0; i < 32; i++) {
            same |= uint32_t((address[i] & WINDOW) == tag) << i;
            offset[i] = address[i] & ~WINDOW;
        }
        same &= rest, rest &= ~same;
        a.lanes = same, a.address = offset;
        if (tag == SHARED_WINDOW) {
            a.space = Space::shared;
            good |= in_window(w, op, a, shared, host);
        } else if (tag == LOCAL_WINDOW) {
            a.space = Space::local;
            Observer* o = b.observer;
            if (m.parameter) b.observer = nullptr; // arguments of calls are registers on the device
            good |= in_window(w, op, a, stack, host);
            b.observer = o;
        } else if (tag == PARAMETER_WINDOW) {
            const auto& p = b.launch->parameters;
            Observer* o = b.observer;
            b.observer = nullptr;
            good |=
                in_window(w, op, a, {Space::constant, const_cast<std::byte*>(p.data()), p.size(), 0}, host);
            b.observer = o;
        } else {
            a.space = m.space == Space::constant ? Space::constant : Space::global;
            uint32_t allowed = b.observer ? b.observer->access(w.id, a) : same;
            for (int i = 0; i < 32; i++) {
                if (allowed >> i & 1) host[i] = reinterpret_cast<std::byte*>(address[i]);
            }
            good |= allowed;
        }
    }
    return good;
}

void addresses(Warp& w, const Memory& m, int32_t base, uint64_t* out) {
    uint64_t offset = uint64_t(m.offset);
    if (m.wide_address) {
        const uint64_t* a = w.at<uint64_t>(base);
        for (int i = 0; i < 32; i++) out[i] = a[i] + offset;
    } else {
        const uint32_t* a = w.at<uint32_t>(base);
        for (int i = 0; i < 32; i++) out[i] = uint32_t(a[i] + uint32_t(offset));
    }
}

} // namespace vgpu

#include "tools/vgpu/memory/cells.h"

namespace vgpu {

// Stamps of global memory are read and written by several workers at once. They are plain 32-bit words, not
// std::atomic, so that the loops below become vector code: on the machines this runs on (x86-64, AArch64) an
// aligned word is never torn, and a lost update costs at most one of several readers that are remembered.

static bool ordered(const Actor& me, uint32_t lane, Stamp s) {
    if (me.quiet(s) || s == SPLIT) return true; // split: by another worker, just now
    if (me.global && s < me.first)
        return !me.streams || me.streams->ordered(me.streams->owner(s >> GLOBAL_SHIFT), me.operation);
    return me.block.ordered(me.warp, lane, s, me.segment(s));
}

template <int PER_LANE>
static void read_shared(const Actor& actor, Stamp* r, Stamp* r2, uint32_t n, uint32_t lane);

static void note_read(const Actor& me, Stamp* const cell[4], uint32_t lane) {
    if (!me.global) return read_shared<1>(me, cell[READ], cell[READ2], 1, lane);
    Stamp mine = me.stamp | lane;
    for (int slot : {READ, READ2}) {
        Stamp& s = *cell[slot];
        if (s == mine) return;
        if (ordered(me, lane, s)) {
            s = mine;
            return;
        }
        if (me.global && s < me.first) continue;
        const Segment& other = me.segment(s);
        if (other.block == me.block.number) {
            Stamp many = other.warp == me.warp.number ? MANY_LANES : MANY_WARPS;
            s = mine | many | (s & (MANY_LANES | MANY_WARPS));
            return;
        }
    } // two other blocks are remembered: any writer is a third one to at least one of them
}

static void note_strong_write(const Actor& me, Stamp* const cell[4], uint32_t lane) {
    Stamp s = *cell[STRONG], mine = me.stamp | lane;
    if (me.global && s >= me.first && !me.quiet(s)) {
        bool others = s & MANY_WARPS || me.segment(s).block != me.block.number;
        if (others && !ordered(me, lane, s)) mine |= MANY_WARPS; // other blocks, unordered, as well
    }
    *cell[STRONG] = mine;
}

/// Of the strong slot: MANY_WARPS means other blocks; they are ordered if this block has acquired anything.
static bool strong_ordered(const Actor& me, uint32_t lane, Stamp s) {
    if (me.quiet(s) && !(s & MANY_WARPS && s >= me.old)) return true;
    if (me.global && s & MANY_WARPS && s >= me.first) return me.acquired;
    return ordered(me, lane, s);
}

Conflict step(const Actor& me, Stamp* const cell[4], uint32_t lane) {
    if (!ordered(me, lane, *cell[WRITE])) return {*cell[WRITE], true};
    bool strong = me.act == Act::strong_read || me.act == Act::strong_write;
    if (!strong && !strong_ordered(me, lane, *cell[STRONG])) return {*cell[STRONG], true};
    if (me.act == Act::write || me.act == Act::strong_write)
        for (int slot : {READ, READ2})
            if (!ordered(me, lane, *cell[slot])) return {*cell[slot], false};
    switch (me.act) {
    case Act::read: note_read(me, cell, lane); break;
    case Act::write: *cell[WRITE] = me.stamp | lane; break;
    case Act::strong_write: note_strong_write(me, cell, lane); break;
    case Act::strong_read: break; // polls again and again: noting them would slow them, and the last one sees
    }
    return {};
}

static void split(const Cells& cells) {
    for (int kind : {READ, READ2, STRONG, WRITE}) {
        for (int b = 0; b < 4; b++) cells.byte[kind][b] = *cells.word[kind];
        *cells.word[kind] = kind == WRITE ? SPLIT : 0;
    }
}

Conflict step_bytes(const Actor& me, const Cells& cells, uint32_t offset, uint32_t bytes, uint32_t lane) {
    Conflict first;
    bool was_split = *cells.word[WRITE] == SPLIT;
    if (bytes == 4 && !was_split) return step(me, cells.word, lane);
    if (!was_split) split(cells);
    for (uint32_t b = offset; b < offset + bytes; b++) {
        Stamp* cell[4];
        for (int kind = 0; kind < 4; kind++) cell[kind] = cells.byte[kind] + b;
        Conflict c = step(me, cell, lane);
        if (c.stamp && !first.stamp) first = c;
    }
    if (bytes == 4 && me.act == Act::write && !first.stamp) // one history again
        for (int kind = 3; kind >= 0; kind--) *cells.word[kind] = kind == WRITE ? me.stamp | lane : 0;
    return first;
}

template <bool GLOBAL> static bool all_quiet(const Actor& actor, const Stamp* s, uint32_t n) {
    const Actor me = actor; // by value: the compiler need not fear that stamps alias it
    uint32_t bad = 0;
    for (uint32_t i = 0; i < n; i++) bad |= uint32_t(!me.quiet<GLOBAL>(s[i]));
    return !bad;
}

/// Fine are words that are free or ours, and those that two other blocks already read.
template <int PER_LANE>
static bool read_global(const Actor& actor, Stamp* r, Stamp* r2, uint32_t n, uint32_t lane) {
    const Actor me = actor;
    const Stamp mine = me.stamp + lane;
    uint32_t bad = 0;
    for (uint32_t i = 0; i < n; i++) {
        bool foreign = r[i] - me.own >= me.own_n, foreign2 = r2[i] - me.own >= me.own_n;
        bool others = foreign & (foreign2 | me.quiet<true>(r2[i]));
        bad |= uint32_t(!(me.quiet<true>(r[i]) | (r[i] == mine + i / PER_LANE) | others));
    }
    if (bad) return false;
    for (uint32_t i = 0; i < n; i++) {
        Stamp s = mine + i / PER_LANE;
        bool free = me.quiet<true>(r[i]), second = !free & (r[i] != s) & me.quiet<true>(r2[i]);
        r2[i] = second ? s : r2[i];
        r[i] = free ? s : r[i];
    }
    return true;
}

/// The same for shared memory, where the stamp tells the warp: never a reason to give up.
template <int PER_LANE>
static void read_shared(const Actor& actor, Stamp* r, Stamp* r2, uint32_t n, uint32_t lane) {
    const Actor me = actor;
    const Stamp mine = me.stamp + lane;
    for (uint32_t i = 0; i < n; i++) {
        Stamp s = mine + i / PER_LANE, a = r[i], b = r2[i];
        bool free = me.quiet<false>(a), ours = ((a ^ s) & WARP_BITS) == 0;
        bool free2 = me.quiet<false>(b), ours2 = ((b ^ s) & WARP_BITS) == 0;
        Stamp flags = a & (MANY_LANES | MANY_WARPS), flags2 = b & (MANY_LANES | MANY_WARPS);
        Stamp again = s | flags | ((a ^ s) & 31 ? MANY_LANES : 0);
        Stamp again2 = s | flags2 | ((b ^ s) & 31 ? MANY_LANES : 0);
        r[i] = free ? s : ours ? again : a;
        Stamp second = free2 ? s : ours2 ? again2 : b | MANY_WARPS;
        r2[i] = free | ours ? b : second;
    }
}

template <int PER_LANE> static void write(const Actor& me, Stamp* s, uint32_t n, uint32_t lane) {
    const Stamp first = me.stamp + lane;
    for (uint32_t i = 0; i < n; i++) s[i] = first + i / PER_LANE;
}

template <bool GLOBAL, int PER_LANE>
static bool quietly(const Actor& me, const Cells& cells, uint32_t n, uint32_t lane) {
    Stamp *r = cells.word[READ], *r2 = cells.word[READ2], *w = cells.word[WRITE];
    if (!all_quiet<GLOBAL>(me, w, n)) return false;
    if (GLOBAL) { // not those of our own block either: they may stand for other blocks as well
        uint32_t bad = 0;
        for (uint32_t i = 0; i < n; i++) bad |= uint32_t(cells.word[STRONG][i] >= me.old);
        if (bad) return false;
    } else if (!all_quiet<false>(me, cells.word[STRONG], n)) {
        return false;
    }
    if (me.act == Act::read) {
        if (GLOBAL) return read_global<PER_LANE>(me, r, r2, n, lane);
        read_shared<PER_LANE>(me, r, r2, n, lane);
        return true;
    }
    if (me.act != Act::write || !all_quiet<GLOBAL>(me, r, n) || !all_quiet<GLOBAL>(me, r2, n)) return false;
    write<PER_LANE>(me, w, n, lane);
    return true;
}

template <bool GLOBAL>
static bool quietly(const Actor& me, const Cells& cells, uint32_t n, uint32_t per_lane, uint32_t lane) {
    switch (per_lane) {
    case 1: return quietly<GLOBAL, 1>(me, cells, n, lane);
    case 2: return quietly<GLOBAL, 2>(me, cells, n, lane);
    default: return quietly<GLOBAL, 4>(me, cells, n, lane);
    }
}

bool step_quietly(const Actor& me, const Cells& cells, uint32_t words, uint32_t per_lane, uint32_t lane) {
    if (me.global) return !me.acquired && quietly<true>(me, cells, words, per_lane, lane);
    return quietly<false>(me, cells, words, per_lane, lane);
}

} // namespace vgpu

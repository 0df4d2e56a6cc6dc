#include <vector>

#include "tools/vgpu/memory/checker.h"

namespace vgpu {

/// Each observer has its own identities, since `data` in them is its own.
struct Twins {
    BlockId block[2];
    std::vector<WarpId> warps[2];
};

static WarpId& twin(WarpId& w, int side) { return static_cast<Twins*>(w.block->data)->warps[side][w.number]; }

void Both::block_begin(BlockId& b) {
    auto* t = new Twins{{b, b}, {}};
    for (int side = 0; side < 2; side++) {
        for (uint32_t i = 0; i < b.warps; i++) t->warps[side].push_back({&t->block[side], i});
        observers_[side]->block_begin(t->block[side]);
    }
    b.data = t;
}

void Both::block_end(BlockId& b) {
    auto* t = static_cast<Twins*>(b.data);
    for (int side = 0; side < 2; side++) observers_[side]->block_end(t->block[side]);
    delete t;
    b.data = nullptr;
}

uint32_t Both::access(WarpId& w, const Access& a) {
    return observers_[0]->access(twin(w, 0), a) & observers_[1]->access(twin(w, 1), a);
}

void Both::warp_sync(WarpId& w, uint32_t lanes) {
    for (int side = 0; side < 2; side++) observers_[side]->warp_sync(twin(w, side), lanes);
}

void Both::block_barrier(BlockId& b, uint32_t id, WarpId* const* warps, uint32_t count) {
    std::vector<WarpId*> own(count);
    for (int side = 0; side < 2; side++) {
        for (uint32_t i = 0; i < count; i++) own[i] = &twin(*warps[i], side);
        observers_[side]->block_barrier(static_cast<Twins*>(b.data)->block[side], id, own.data(), count);
    }
}

void Both::arrive(WarpId& w, uint32_t lanes, uint64_t object) {
    for (int side = 0; side < 2; side++) observers_[side]->arrive(twin(w, side), lanes, object);
}
void Both::acquire(WarpId& w, uint32_t lanes, uint64_t object) {
    for (int side = 0; side < 2; side++) observers_[side]->acquire(twin(w, side), lanes, object);
}
void Both::fence(WarpId& w, uint32_t lanes, Scope scope) {
    for (int side = 0; side < 2; side++) observers_[side]->fence(twin(w, side), lanes, scope);
}
void Both::executed(WarpId& w, const Site& site, Unit unit, uint32_t lanes) {
    for (int side = 0; side < 2; side++) observers_[side]->executed(twin(w, side), site, unit, lanes);
}

} // namespace vgpu

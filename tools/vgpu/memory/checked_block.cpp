#include "tools/vgpu/memory/checked_block.h"

#include <algorithm>

namespace vgpu {

void CheckedBlock::begin(const BlockId& id, Segments* segments, uint64_t launch) {
    if (order.exhausted()) {
        order.restart();
        for (int k = 0; k < 4; k++) {
            std::fill(word[k].begin(), word[k].end(), 0);
            std::fill(byte[k].begin(), byte[k].end(), 0);
        }
    }
    order.begin(id.number, id.warps, segments, launch);
    size_t words = (id.shared_bytes + 3) / 4;
    if (word[0].size() < words)
        for (auto& w : word) w.resize(words);
    if (!byte[0].empty()) need_bytes();
    pending.assign((words + 63) / 64, 0);
    pending_words = 0;
    cached.assign(2 * id.warps, {});
}

bool CheckedBlock::is_written(uint64_t offset, uint32_t bytes) const {
    Stamp first = order.shared_first();
    for (uint64_t at = offset; at < offset + bytes; at = at / 4 * 4 + 4) {
        Stamp w = word[WRITE][at / 4];
        if (w == SPLIT) {
            for (uint64_t b = at; b < std::min(offset + bytes, at / 4 * 4 + 4); b++)
                if (byte[WRITE][b] < first && byte[STRONG][b] < first) return false;
        } else if (w < first && word[STRONG][at / 4] < first) {
            return false;
        }
    }
    return true;
}

} // namespace vgpu

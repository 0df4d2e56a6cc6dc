#include "engine/tape/passes.h"

#include <algorithm>
#include <unordered_set>

namespace nvl {

using Buffers = std::unordered_set<const Buffer*>;

int eliminate_dead(Tape& t) {
    Buffers needed;
    std::vector<Step> live;
    for (size_t i = t.steps.size(); i-- > 0;) {
        Step& s = t.steps[i];
        bool alive = s.traits.effect;
        for (const Argument& a : s.args)
            if (a.tensor && writes(a.use))
                alive |= !a.tensor.buffer->tape || a.tensor.buffer->keep || needed.count(a.tensor.buffer);
        if (!alive) continue;
        for (const Argument& a : s.args)
            if (a.tensor && reads(a)) needed.insert(a.tensor.buffer);
        live.push_back(std::move(s));
    }
    int dropped = int(t.steps.size() - live.size());
    std::reverse(live.begin(), live.end());
    t.steps = std::move(live);
    return dropped;
}

int split_weight_gradients(Tape& t, int segment) {
    Buffers needed_by_others, written_by_others; // by the steps that stay, seen from the end
    std::vector<size_t> moved;
    for (size_t i = t.steps.size(); i-- > 0;) {
        const Step& s = t.steps[i];
        bool weight_only = s.segment == segment && !s.traits.effect && !s.traits.communicates;
        for (const Argument& a : s.args) {
            if (!a.tensor) continue;
            const Buffer* b = a.tensor.buffer;
            if (writes(a.use))
                weight_only &= !b->keep && !needed_by_others.count(b) && !written_by_others.count(b);
            else
                weight_only &= !written_by_others.count(b);
        }
        if (weight_only) {
            moved.push_back(i);
            continue;
        }
        for (const Argument& a : s.args) {
            if (!a.tensor) continue;
            if (reads(a)) needed_by_others.insert(a.tensor.buffer);
            if (writes(a.use)) written_by_others.insert(a.tensor.buffer);
        }
    }
    for (Step& s : t.steps)
        if (s.segment > segment) s.segment++;
    for (size_t i : moved) t.steps[i].segment = segment + 1;
    std::stable_sort(t.steps.begin(), t.steps.end(),
                     [](const Step& a, const Step& b) { return a.segment < b.segment; });
    return int(moved.size());
}

} // namespace nvl

// The recorded program as text, for readers: every step with its kernel, shapes, places, bytes and FLOPs.
#include <algorithm>

#include "engine/base/text.h"
#include "engine/plan/program.h"

namespace nvl {

std::string Program::describe(const Argument& a) const {
    const Buffer* b = a.tensor.buffer;
    std::string t = b->name + a.tensor.shape().text();
    if (b->dtype != Dtype::f32) t += std::string(":") + name_of(b->dtype);
    if (!b->tape)
        t += "*";
    else {
        const Place& p = places_[size_t(b->id)];
        t += (p.in_set ? "+" : "~") + std::to_string(p.offset);
    }
    if (a.tensor.layout.offset) t += "[" + std::to_string(a.tensor.layout.offset) + "]";
    if (a.use == Use::inout) return t + "!";
    if (!writes(a.use)) return t;
    return t + (a.add == Add::yes ? "+=" : a.add == Add::after_first ? "?=" : "=");
}

std::string Program::listing(size_t from, size_t to) const {
    std::string text = "~ offset in scratch, + in the activation set, * persistent;"
                       " = writes, += adds, ?= adds after the first micro-batch, ! in place\n";
    text += format("%5s %-7s %-22s %-26s %10s %10s  %s\n", "#", "phase", "module", "kernel", "bytes", "flops",
                   "writes <- reads");
    constexpr const char* phases[] = {"forward", "again", "back", "update"};
    for (size_t i = from; i < std::min(to, steps_.size()); i++) {
        const Step& s = steps_[i];
        Cost c = cost(i);
        std::string written, read;
        for (const Argument& a : s.args) {
            if (!a.tensor) continue;
            std::string& side = writes(a.use) ? written : read;
            side += (side.empty() ? "" : " ") + describe(a);
        }
        text += format("%5zu %-7s %-22s %-26s %10s %10s  %s <- %s\n", i, phases[int(s.phase)], s.path.c_str(),
                       s.kernel, human(c.bytes, "B").c_str(), c.flops > 0 ? human(c.flops, "F").c_str() : "",
                       written.c_str(), read.c_str());
    }
    return text + summary() + "\n";
}

std::string Program::summary() const {
    Cost all = cost();
    return format(
        "%zu steps, %s, moves %s; memory: scratch %s (alive at once %s) + per set %s, %s without sharing",
        steps_.size(), human(all.flops, "FLOP").c_str(), human(all.bytes, "B").c_str(),
        human(double(scratch_bytes), "B").c_str(), human(double(alive_bytes), "B").c_str(),
        human(double(set_bytes), "B").c_str(), human(double(unshared_bytes), "B").c_str());
}

} // namespace nvl

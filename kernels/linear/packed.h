// Weights prepacked for inference: the order in which the GEMM reads them, the same bits (gemm.h). With few
// rows a product then runs at the speed of memory; unpacked weights are packed on the fly at less than half.
//
//   PackedWeights packed;
//   for (Tensor w : matrices) packed.add(w);
//   UsePacked use(packed);          linear(x, w) recorded in this scope reads the packed copy of w
//
// A copy: later changes of w do not reach it, and nothing recorded with it takes gradients.
#pragma once
#include <memory>
#include <vector>

#include "engine/tape/tape.h"
#include "kernels/linear/gemm.h"

namespace nvl {

class PackedWeights {
public:
    /// w (F, C), f32 or bf16, persistent; or the transposed view of a (C, F), as given to linear(). On a GPU
    /// there is nothing to pack: its products read rows as they are.
    void add(const Tensor& w);
    int64_t bytes() const;
    /// The packed copy of exactly this view, or null.
    std::shared_ptr<const PackedWeight> find(const Tensor& w) const;
    /// linear() packs what it is given and finds no copy of, if that is a persistent matrix of f32 or bf16
    /// on the CPU.
    bool on_use = false;

private:
    struct Entry {
        Tensor w;
        std::shared_ptr<const PackedWeight> packed;
    };
    std::vector<Entry> entries_;
};

/// While it lives, linear() on this thread uses `packed`.
class UsePacked {
public:
    explicit UsePacked(PackedWeights& packed) : before_(std::exchange(active(), &packed)) {}
    ~UsePacked() { active() = before_; }
    UsePacked(const UsePacked&) = delete;
    UsePacked& operator=(const UsePacked&) = delete;
    static PackedWeights*& active();

private:
    PackedWeights* before_;
};

} // namespace nvl

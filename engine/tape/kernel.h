// A kernel is a named slot with one implementation per device. Its parameter types (In, Out, InOut, Acc,
// AccSum) say how each tensor is used; lifetimes, hazards, dead-step elimination, version checks and bytes
// moved are read from them.
#pragma once
#include "engine/tensor/view.h"

namespace nvl {

struct Traits {
    bool any_stride = false;   // accepts views whose last dimension is not dense
    bool any_dtype = false;    // its gradients may have any type; else the tape converts through a temporary
    bool communicates = false; // talks to other ranks
    bool effect = false;       // must run even if nobody reads what it writes (send, print)
    bool on_host = false;      // runs on the CPU in programs of every device (what fills a test's tensors)
};

template <class Signature> struct Kernel;
template <class... P> struct Kernel<void(P...)> {
    const char* name;
    void (*cpu)(P...) = nullptr;
    double (*flops)(P...) =
        nullptr; // counted multiply-adds x 2; null: 0 (the field counts matrix products only)
    Traits traits{};
    double (*moved)(P...) =
        nullptr;                  // bytes, where it is not "each argument once" (embedding reads T rows of V)
    void (*cuda)(P...) = nullptr; // set by the .cu file, where it is part of the build
    int64_t (*cuda_workspace)(P...) = nullptr; // bytes of scratch that it needs for these arguments
    /// Position of each parameter among the tensor parameters, -1 for plain values.
    static constexpr std::array<int, sizeof...(P)> view_index = [] {
        std::array<int, sizeof...(P)> a{};
        size_t i = 0;
        int n = 0;
        ((a[i++] = is_view<P> ? n++ : -1), ...);
        return a;
    }();
};

} // namespace nvl

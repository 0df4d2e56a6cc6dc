// What linear_cross_entropy's three kernels share, on every device: one set of views, and its dense scratch.
#pragma once
#include "kernels/linear/matrix.h"
#include "kernels/loss/linear_cross_entropy.h"

namespace nvl {

/// Views that a kernel has not got are empty.
struct LossHead {
    View x, w, labels;
    double softcap, z_loss;
    View logits;              // (chunk, V) f32
    View loss, token, lse;    // written by the forward part
    View dloss, dtoken, dlse; // read by the backward part
    View block, sums; // (chunk, LOSS_BLOCK_V) as x, (chunk, C) f32: dlogits, and dx while blocks are added
    Acc dx{};
    AccSum dw{};
    int64_t vocabulary() const { return w.dim(0); }
};

/// The first rows x cols elements of a buffer as a dense matrix.
inline Matrix dense(const View& v, int64_t rows, int64_t cols) {
    return {v.data, rows, cols, cols, false, v.dtype};
}

/// The launch functions of the three slots, from what a device does with the views they have.
template <void (*RUN)(const LossHead&)> struct LossSlots {
    static void forward(Out loss, Out token, Out lse, Out logits, In x, In w, In labels, double softcap,
                        double z_loss) {
        RUN({.x = x,
             .w = w,
             .labels = labels,
             .softcap = softcap,
             .z_loss = z_loss,
             .logits = logits,
             .loss = loss,
             .token = token,
             .lse = lse});
    }
    static void backward(Acc dx, AccSum dw, Out logits, Out block, Out sums, In dloss, In dtoken, In dlse,
                         In x, In w, In labels, In lse, double softcap, double z_loss) {
        RUN({.x = x,
             .w = w,
             .labels = labels,
             .softcap = softcap,
             .z_loss = z_loss,
             .logits = logits,
             .lse = lse,
             .dloss = dloss,
             .dtoken = dtoken,
             .dlse = dlse,
             .block = block,
             .sums = sums,
             .dx = dx,
             .dw = dw});
    }
    static void fused(Out loss, Out token, Out lse, Acc dx, AccSum dw, Out logits, Out block, Out sums,
                      In dloss, In x, In w, In labels, double softcap, double z_loss) {
        RUN({.x = x,
             .w = w,
             .labels = labels,
             .softcap = softcap,
             .z_loss = z_loss,
             .logits = logits,
             .loss = loss,
             .token = token,
             .lse = lse,
             .dloss = dloss,
             .block = block,
             .sums = sums,
             .dx = dx,
             .dw = dw});
    }
};

} // namespace nvl

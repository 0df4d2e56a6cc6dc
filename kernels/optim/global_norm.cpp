#include "kernels/optim/global_norm.h"

#include <cmath>

#include "kernels/cpu/sums.h"
#include "kernels/optim/step.h"
#include "kernels/spec.h"

namespace nvl {

static void square_sum_cpu(Out square, In g) {
    constexpr int64_t BLOCK = 16384;
    int64_t n = dense_count("global_norm", g), blocks = (n + BLOCK - 1) / BLOCK;
    std::vector<double> sums(static_cast<size_t>(blocks));
    dispatch(g.dtype, [&]<class X> {
        const X* p = g.as<X>();
        parallel_for(blocks, 4, [&](int64_t begin, int64_t end) {
            for (int64_t b = begin; b < end; b++) {
                const X* at = p + b * BLOCK;
                sums[size_t(b)] = lane_sum<double>(std::min(BLOCK, n - b * BLOCK), [&](int64_t i) {
                    double v = double(sum_t<X>(at[i]));
                    return v * v;
                });
            }
        });
    });
    double total = 0;
    for (double s : sums) total += s;
    *square.as<double>() = total;
}

static void clip_scale_cpu(Out clip, In squares, double max_norm) {
    double total = 0;
    for (int64_t i = 0; i < squares.numel(); i++) total += squares.as<double>()[i];
    double norm = std::sqrt(total), scale = max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1;
    clip.as<double>()[0] = norm;
    clip.as<double>()[1] = std::isfinite(norm) ? scale : NAN;
}

constinit Kernel<void(Out, In)> square_sum{"square_sum", square_sum_cpu};
constinit Kernel<void(Out, In, double)> clip_scale{"clip_scale", clip_scale_cpu};

GlobalNorm global_norm(const std::vector<Tensor>& gradients, double max_norm) {
    check(!gradients.empty() && max_norm >= 0, "global_norm: %zu gradients, max_norm %g", gradients.size(),
          max_norm);
    Tape& t = tape();
    GlobalNorm r{t.tensor("clip", {2}, Dtype::f64),
                 t.tensor("squares", {int64_t(gradients.size())}, Dtype::f64)};
    for (size_t i = 0; i < gradients.size(); i++)
        t.run(square_sum, slice(r.squares, 0, int64_t(i), int64_t(i) + 1), gradients[i]);
    t.run(clip_scale, r.clip, r.squares, max_norm);
    return r;
}

static RegisterOp op{{
    .name = "global_norm",
    .build = [](Case& c) -> std::vector<Tensor> {
        Tensor a = c.constant({c["N"]}), b = c.constant({3});
        GlobalNorm r = global_norm({a, b}, 1);
        return {r.clip, r.squares};
    },
    .cases = {"N=1", "N=1000", "N=70001", "bench N=10000000"},
    .gradients = false,
}};

} // namespace nvl

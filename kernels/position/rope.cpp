#include "kernels/position/rope.h"

#include "kernels/cpu/math.h"
#include "kernels/cpu/rows.h"
#include "kernels/position/rotate.h"
#include "kernels/spec.h"
#include "kernels/types.h"

namespace nvl {

static void angles_forward(Out angles, In positions, RopeTable table) {
    int64_t n = table.pairs, step = positions.rank == 2 ? positions.stride[1] : 0;
    const int32_t* p = positions.as<int32_t>();
    parallel_for(angles.dim(0), row_grain(8 * n), [&](int64_t begin, int64_t end) {
        std::array<float, RopeTable::MAX_PAIRS> angle;
        for (int64_t t = begin; t < end; t++) {
            for (int64_t i = 0; i < n; i++)
                angle[size_t(i)] = float(p[t * positions.stride[0] + table.stream[size_t(i)] * step]) *
                                   table.inv_freq[size_t(i)];
            float *cosine = angles.row<float>(t), *sine = cosine + n;
            for (int64_t i = 0; i < n; i++) {
                double s, c;
                vsincos(double(angle[size_t(i)]), s, c);
                cosine[i] = float(c * double(table.scale));
                sine[i] = float(s * double(table.scale));
            }
        }
    });
}

static void forward(Out y, In x, In angles, Pairs pairs) {
    int64_t H = x.dim(1), D = x.dim(2), d = angles.cols();
    dispatch(x.dtype, [&]<class X> {
        parallel_for(x.dim(0), row_grain(H * D), [&](int64_t begin, int64_t end) {
            for (int64_t t = begin; t < end; t++)
                for (int64_t h = 0; h < H; h++)
                    rotate<1>(head<X>(y, t, h), head<X>(x, t, h), angles.row<float>(t), d, D, pairs);
        });
    });
}

static void backward(Acc dx, In dy, In angles, Pairs pairs) {
    if (!dx) return;
    int64_t H = dy.dim(1), D = dy.dim(2), d = angles.cols();
    dispatch(dy.dtype, [&]<class X> {
        using A = sum_t<X>;
        parallel_for(dy.dim(0), row_grain(H * D), [&](int64_t begin, int64_t end) {
            std::array<A, MAX_HEAD> turned;
            for (int64_t t = begin; t < end; t++)
                for (int64_t h = 0; h < H; h++) {
                    X* to = head<X>(dx, t, h);
                    const X* from = head<X>(dy, t, h);
                    if (!dx.add) {
                        rotate<-1>(to, from, angles.row<float>(t), d, D, pairs);
                        continue;
                    }
                    rotate<-1>(turned.data(), from, angles.row<float>(t), d, D, pairs);
                    put_row(dx, to, D, [&](int64_t c) { return turned[size_t(c)]; });
                }
        });
    });
}

constinit Kernel<void(Out, In, RopeTable)> rope_angles_forward{"rope_angles", angles_forward};
constinit Kernel<void(Out, In, In, Pairs)> rope_forward{"rope", forward};
constinit Kernel<void(Acc, In, In, Pairs)> rope_backward{"rope_backward", backward};

Tensor rope_angles(Tensor positions, const RopeTable& table) {
    int rank = positions.shape().rank;
    check(positions.dtype() == Dtype::i32 && (rank == 2 || (rank == 1 && table.streams() == 1)) &&
              (rank == 1 || positions.dim(1) >= table.streams()),
          "rope_angles: %s is %s of %s; expected (T) or (T,%d) of i32", positions.name(),
          positions.shape().text().c_str(), name_of(positions.dtype()), table.streams());
    Tape& t = tape();
    Tensor angles = t.tensor("angles", {positions.dim(0), 2 * table.pairs}, Dtype::f32, positions.type);
    t.run(rope_angles_forward, angles, positions, table);
    return angles;
}

void expect_heads(const char* op, const Tensor& x, const Tensor& angles) {
    check(x.shape().rank == 3 && angles.shape().rank == 2 && angles.dtype() == Dtype::f32 &&
              x.dim(0) == angles.dim(0) && angles.dim(1) <= x.dim(2) && x.dim(2) <= MAX_HEAD,
          "%s: %s is %s and %s is %s; expected (T,H,D) and angles (T,d), d <= D <= %ld", op, x.name(),
          x.shape().text().c_str(), angles.name(), angles.shape().text().c_str(), long(MAX_HEAD));
}

Tensor rope(Tensor x, Tensor angles, Pairs pairs) {
    expect_heads("rope", x, angles);
    Tape& t = tape();
    Tensor y = t.tensor("rope", x.shape(), x.dtype(), join("rope", Rule::product, {x, angles}));
    t.run(rope_forward, y, x, angles, pairs);
    t.on_backward({y}, [=, &t] { t.run(rope_backward, t.into(x), t.grad(y), angles, pairs); });
    return y;
}

static Tensor case_angles(Case& c, Dim T) {
    RopeTable table = rope_table({.head_dim = c.get("d", c["D"])});
    return rope_angles(c.integers({T}, [](int64_t t) { return int32_t(t * 37 % 101); }), table);
}
static RegisterOp angles_op{{
    .name = "rope_angles",
    .build = [](Case& c) -> std::vector<Tensor> {
        RopeConfig config{.head_dim = c["D"]};
        Dim T = c.rows("T");
        auto position = [](int64_t t) { return int32_t(t * 3719 % 131072); };
        if (!c.get("streams", 0)) return {rope_angles(c.integers({T}, position), rope_table(config))};
        config.sections = {c["D"] / 2 - 4, 2, 2};
        return {rope_angles(c.integers({T, 3}, position), rope_table(config))};
    },
    .cases = {"T=1 D=2", "T=33 D=64", "T=5 D=96 streams=1", "bench T=4096 D=64"},
    .gradients = false,
}};
static RegisterOp op{{
    .name = "rope",
    .build = [](Case& c) -> std::vector<Tensor> {
        Dim T = c.rows("T");
        Tensor angles = case_angles(c, T), x = c.input({T, c["H"], c["D"]});
        return {rope(x, angles, c.get("interleaved", 0) ? Pairs::interleaved : Pairs::half)};
    },
    .cases = {"T=1 H=1 D=2", "T=7 H=3 D=20", "T=5 H=2 D=33 d=20", "T=7 H=3 D=20 interleaved=1",
              "T=5 H=2 D=64 d=16 interleaved=1", "T=5 H=2 D=64", "T=3 H=4 D=128", "T=3 H=1 D=256 d=64",
              "T=2 H=2 D=512", "bench T=256 H=12 D=64", "bench T=4096 H=12 D=64"},
}};

} // namespace nvl

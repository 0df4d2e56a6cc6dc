// What memory-bound kernels move, counted by the virtual GPU, against what their op must move (each argument
// once, as the program's plan says): no byte is fetched twice from memory, accesses fill their sectors,
// shared memory has no bank conflicts, and nothing spills.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "engine/base/text.h"
#include "engine/plan/program.h"
#include "kernels/spec.h"
#include "tools/vgpu/count/traffic.h"
#include "tools/vgpu/vgpu.h"

using namespace nvl;

namespace {

struct Measured {
    double floor = 0, workspace = 0; // bytes; partial sums are written and read once
    vgpu::Counts counts;
};
Measured measure(const std::string& op_name, const std::string& text, Dtype dtype) {
    auto op =
        std::find_if(all_ops().begin(), all_ops().end(), [&](const Op& o) { return o.name == op_name; });
    check(op != all_ops().end(), "no op %s", op_name.c_str());
    Store store(Device::cuda);
    Tape tape;
    Recording recording(tape);
    Case c(store, text, {.dtype = dtype});
    std::vector<Tensor> outputs = op->build(c);
    if (!op->gradients) tape.no_grad();
    for (Tensor& y : outputs) {
        tape.keep(y);
        if (op->gradients && y.buffer->needs_grad)
            tape.seed(y, tape.input("cotangent", y.shape(), y.dtype()));
    }
    if (op->gradients) tape.backward(c.differentiable);
    Program program(tape, 1, Device::cuda);
    for (const Step& s : program.steps()) // inputs need values before they are read
        for (const Argument& a : s.args)
            if (a.tensor && a.tensor.buffer->input) {
                View v = program.host_view(a.tensor);
                std::memset(v.data, 0, size_t(v.bytes()));
            }
    vgpu::finish();
    vgpu::clear_traffic();
    vgpu::set_count(true);
    program.run({.counts = c.counts});
    vgpu::finish();
    vgpu::set_count(false);
    Measured m{.workspace = double(program.workspace_bytes), .counts = vgpu::traffic_of("")};
    for (size_t i = 0; i < program.steps().size(); i++)
        if (!program.steps()[i].traits.on_host) m.floor += program.cost(i).bytes;
    return m;
}

double unique_bytes(const vgpu::Counts& c) { return 32.0 * double(c.read.unique + c.write.unique); }

struct Kernel {
    const char *op, *text;
    double at_least = 0.95;   // unique bytes over the floor: less where tokens repeat or are ignored
    double bank_ratio = 1.05; // more where data decides the banks (digits that are counted)
};
void PrintTo(const Kernel& k, std::ostream* to) { *to << k.op << " " << k.text; }

class Traffic : public testing::TestWithParam<Kernel> {};

// NVL_TRAFFIC_TABLE=FILE adds a line for each kernel to FILE (bench/results/cuda_traffic.md).
void add_to_table(const Kernel& k, Dtype dtype, const Measured& m) {
    const char* path = std::getenv("NVL_TRAFFIC_TABLE");
    if (!path) return;
    std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path, "a"), std::fclose);
    check(bool(file), "NVL_TRAFFIC_TABLE: cannot write %s", path);
    const vgpu::Counts& c = m.counts;
    std::fprintf(file.get(), "| %s %s %s | %.0f | %.3f | %.3f | %.3f | %.3f | %.1f |\n", k.op, k.text,
                 name_of(dtype), m.floor, unique_bytes(c) / m.floor, c.read.sectors_per_requested(),
                 c.write.sectors_per_requested(), c.bank_ratio(),
                 double(c.thread_instructions) / (unique_bytes(c) / double(size_of(dtype))));
}

TEST_P(Traffic, IsWhatTheOpMustMove) {
    for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
        Kernel k = GetParam();
        Measured m = measure(k.op, k.text, dtype);
        const vgpu::Counts& c = m.counts;
        add_to_table(k, dtype, m);
        SCOPED_TRACE(format("%s %s %s: floor %.0f, workspace %.0f, unique %.0f", k.op, k.text, name_of(dtype),
                            m.floor, m.workspace, unique_bytes(c)));
        EXPECT_GE(unique_bytes(c), k.at_least * m.floor);
        EXPECT_LE(unique_bytes(c), 1.05 * m.floor + 2 * m.workspace);
        EXPECT_LE(c.read.sectors_per_requested(), 1.05);
        if (32 * c.write.unique > m.floor / 100) // a few sums are no traffic
            EXPECT_LE(c.write.sectors_per_requested(), 1.05);
        EXPECT_LE(c.bank_ratio(), k.bank_ratio);
        EXPECT_EQ(c.local_bytes, 0u);
    }
}

INSTANTIATE_TEST_SUITE_P(
    Kernels, Traffic,
    testing::Values(Kernel{"add", "T=64 C=1024"}, Kernel{"mul", "T=64 C=1024"},
                    Kernel{"scale", "T=64 C=1024"}, Kernel{"softcap", "T=64 C=1024"},
                    Kernel{"silu", "T=64 C=1024"}, Kernel{"swiglu", "T=64 F=1024"},
                    Kernel{"contiguous", "T=64 C=1024"}, Kernel{"rmsnorm", "T=256 C=1024"},
                    Kernel{"rmsnorm", "T=64 C=2048"}, Kernel{"add_rmsnorm", "T=256 C=1024"},
                    Kernel{"layernorm", "T=256 C=768"}, Kernel{"add_layernorm", "T=256 C=768"},
                    Kernel{"rope", "T=64 H=8 D=128"}, Kernel{"rope", "T=64 H=8 D=64"},
                    Kernel{"qknorm_rope", "T=64 H=8 D=128"},
                    Kernel{"embedding_add_positions", "T=128 V=300 S=128 C=768", 0.8, 1.1},
                    Kernel{"embedding", "T=256 V=300 C=768", 0.8, 1.1}, Kernel{"adamw", "N=100000"},
                    Kernel{"global_norm", "N=100000"}, Kernel{"cross_entropy", "T=64 V=4096", 0.85}),
    [](const auto& info) {
        std::string name = std::string(info.param.op) + "_" + info.param.text;
        for (char& ch : name)
            if (!std::isalnum(static_cast<unsigned char>(ch))) ch = '_';
        return name;
    });

} // namespace

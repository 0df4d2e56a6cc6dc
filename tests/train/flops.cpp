// FLOPs: the formula against published worked numbers, and the recorded program against the formula.
#include <gtest/gtest.h>

#include "tests/train/runs.h"
#include "train/loop/flops.h"

using namespace nvl;
using namespace nvl::testing;

namespace {

// nanochat's d4 and d24 as weight tables: attention and MLP matrices, value-embedding gates, head, smear
// gate.
class Table : public Model {
public:
    Table(int64_t layers, int64_t V, std::vector<int64_t> windows) : gates_(layers / 2) {
        int64_t C = (64 * layers + 127) / 128 * 128;
        dims = {layers, C, C / 128, C / 128, 128, 4 * C, V, 2048, std::move(windows)};
    }
    void each(const Visit& visit) override {
        Tensor none;
        int64_t C = dims.C;
        visit({"wte", {dims.V, C}, Role::embedding}, none);
        for (int64_t l = 0; l < dims.layers; l++) {
            for (const char* name : {"q", "k", "v", "o"}) visit({name, {C, C}, Role::matrix}, none);
            visit({"fc", {4 * C, C}, Role::matrix}, none), visit({"proj", {C, 4 * C}, Role::matrix}, none);
            visit({"lambda", {2}, Role::vector}, none);
        }
        for (int64_t g = 0; g < gates_; g++) visit({"gate", {dims.G, 12}, Role::matrix}, none);
        visit({"head", {dims.V, C}, Role::head}, none), visit({"smear", {1, 24}, Role::matrix}, none);
    }
    Tensor hidden(const Batch&) override { return {}; }
    Tensor head() const override { return {}; }

private:
    int64_t gates_;
};

TEST(Flops, WorkedNumbersOfNanochat) {
    Table d4(4, 32768, {512, 512, 512, 2048});
    EXPECT_EQ(d4.flops(2048).matmul_weights, 11'534'408);
    EXPECT_EQ(d4.flops(2048).per_token, 80'216'496);
    std::vector<int64_t> windows;
    for (int64_t l = 0; l < 24; l++) windows.push_back(l % 4 == 3 ? 0 : 512);
    Table d24(24, 32768, windows);
    EXPECT_EQ(d24.flops(2048).matmul_weights, 729'810'648);
    EXPECT_EQ(d24.flops(2048).per_token, 4'775'225'616);
    EXPECT_NE(explain_flops(d24, 2048).find("4,775,225,616 FLOPs per token"), std::string::npos);
}

// All matrix products but attention's: exactly 6 N per token. Attention counts what is visible.
TEST(Flops, RecordedProgramAgreesWithTheFormula) {
    for (const char* tied : {"model.tie_word_embeddings=true", "model.tie_word_embeddings=false"}) {
        Folder f;
        TrainConfig c = read_config(TINY, tiny_words(f / "run", {tied, "model.num_hidden_layers=3"}));
        auto model = model_of(c, nullptr);
        Store store;
        model->allocate(store, Dtype::f32, true);
        int64_t T = c.rows * c.row_length;
        StepProgram step(*model, T, c.rows);
        double products = 0, attention = 0;
        for (size_t i = 0; i < step.program().steps().size(); i++) {
            bool is_attention =
                std::string(step.program().steps()[i].kernel).find("attention") != std::string::npos;
            (is_attention ? attention : products) += step.program().cost(i).flops;
        }
        EXPECT_EQ(products, 6.0 * double(model->flops(c.row_length).matmul_weights) * double(T)) << tied;
        EXPECT_GT(attention, 0);
    }
}

TEST(Flops, PlanAndInspectPrint) {
    Outcome o = command("plan", {TINY});
    EXPECT_EQ(o.status, 0) << o.output;
    for (const char* text : {"FLOPs per token, forward and backward = 6 N", "worked: 6 x ",
                             "memory     optimiser", "tokens per parameter"})
        EXPECT_NE(o.output.find(text), std::string::npos) << text << o.output;
    o = command("inspect", {"program", TINY});
    EXPECT_EQ(o.status, 0) << o.output;
    for (const char* text : {"attention_backward", "layers.1", "adamw", "forward", "back"})
        EXPECT_NE(o.output.find(text), std::string::npos) << text;
    EXPECT_EQ(command("inspect", {"model", "/nowhere"}).status, 1);
}

} // namespace

// Our files in the reference packages and theirs in ours; skipped where python3 lacks the package.
#include <gtest/gtest.h>

#include <cstdlib>
#include <numeric>
#include <sstream>

#include "engine/io/gguf.h"
#include "engine/io/safetensors.h"
#include "kernels/quant/quantize.h"
#include "tests/unit/files.h"

using namespace nvl;

static bool python_has(const std::string& modules) {
    return std::system(("python3 -c 'import " + modules + "' >/dev/null 2>&1").c_str()) == 0;
}
static void python(const std::string& arguments) {
    ASSERT_EQ(std::system(("python3 " NVL_SOURCE "/tests/unit/interop.py " + arguments).c_str()), 0);
}

TEST(Interop, SafetensorsPackageReadsOursAndWritesTheSameBytes) {
    if (!python_has("numpy, safetensors")) GTEST_SKIP() << "python3 has no numpy and safetensors";
    TemporaryFolder dir;
    std::vector<float> f{0, 0.5, 1, 1.5, 2, 2.5};
    std::vector<int32_t> n{0, -1, 2};
    write_safetensors(dir / "ours.safetensors", {{"i64", {3}, n.data(), Dtype::i32, StoredType::i64},
                                                 {"f16", {3}, f.data(), Dtype::f32, StoredType::f16},
                                                 {"f32", {2, 3}, f.data(), Dtype::f32},
                                                 {"scalar", {}, f.data(), Dtype::f32},
                                                 {"empty", {0, 3}, nullptr, Dtype::f32}});
    python("safetensors " + dir / "ours.safetensors" + " " + dir / "theirs.safetensors");
    EXPECT_EQ(read_file(dir / "ours.safetensors"), read_file(dir / "theirs.safetensors"));
    EXPECT_EQ(read_as<float>(Checkpoint(dir / "theirs.safetensors").at("f32")), f);
}

TEST(Interop, GgufPackageReadsOursAndWeTheirs) {
    if (!python_has("numpy, gguf")) GTEST_SKIP() << "python3 has no numpy and gguf";
    TemporaryFolder dir;
    std::vector<float> x(64);
    std::iota(x.begin(), x.end(), 0.0f);
    GgufWriter w;
    w.set("general.architecture", std::string("test"));
    w.set("names", std::vector<std::string>{"a", "b c"});
    w.set("numbers", std::vector<float>{1.5f, -2});
    w.add("x", BlockType::f32, {2, 32}, std::as_bytes(std::span(x)));
    w.write(dir / "ours.gguf");
    python("gguf " + dir / "ours.gguf" + " " + dir / "theirs.gguf");
    Gguf g(dir / "theirs.gguf");
    EXPECT_EQ(g.string("general.architecture"), "test");
    EXPECT_EQ(g.strings("names"), (std::vector<std::string>{"a", "b c"}));
    EXPECT_EQ(g.numbers("numbers"), (std::vector<double>{1.5, -2}));
    EXPECT_EQ(g.integer("count"), 7);
    EXPECT_EQ(g.at("y").shape, (Shape{2, 32}));
    auto ours = quantize(BlockType::q8_0, x);
    ASSERT_EQ(g.at("x").bytes.size(), ours.size());
    EXPECT_EQ(std::memcmp(g.at("x").bytes.data(), ours.data(), ours.size()), 0);
}

/// Compares the models in models/cache with the package; returns how many tensors.
static size_t compare_real_models(const std::string& which) {
    size_t compared = 0;
    std::vector<std::string> names{"SmolLM2-135M-Instruct.Q4_1.gguf"};
    if (which == "all") names.push_back("gemma-3-270m-q4_k_m.gguf");
    for (auto& name : names) {
        std::string path = std::string(NVL_SOURCE "/models/cache/") + name;
        if (!exists(path)) continue;
        TemporaryFolder dir;
        python("values " + path + " " + which + " > " + dir / "values");
        Gguf g(path);
        std::istringstream lines(read_file(dir / "values"));
        std::string tensor, hash;
        for (std::vector<float> y; lines >> tensor >> hash; compared++) {
            auto& t = g.at(tensor);
            y.resize(size_t(t.shape.numel()));
            dequantize(t.type, t.bytes, t.shape.numel(), y.data());
            EXPECT_EQ(sha256(std::as_bytes(std::span(y))), hash) << tensor;
        }
    }
    return compared;
}
TEST(Interop, RealModelsHaveTheValuesOfTheReference) {
    if (!python_has("numpy, gguf")) GTEST_SKIP() << "python3 has no numpy and gguf";
    if (!compare_real_models(""))
        GTEST_SKIP() << "no model in models/cache; tools/get_smollm2.sh obtains one";
}
/// A minute: --gtest_also_run_disabled_tests.
TEST(Interop, DISABLED_RealModelsEveryTensor) { EXPECT_GT(compare_real_models("all"), 0u); }

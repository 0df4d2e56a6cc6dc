// Checkpoints: what is written is read back to the bit, sharded or not; damage and mismatches are one clear
// line; and transformers computes the same logits from our files (where Python has it).
#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <filesystem>

#include "engine/io/safetensors.h"
#include "models/checkpoint.h"
#include "tests/unit/files.h"

using namespace nvl;

namespace {

Json tiny(const std::string& type) {
    if (type == "gpt2")
        return {{"model_type", "gpt2"}, {"architectures", {"GPT2LMHeadModel"}},
                {"n_embd", 24},         {"n_head", 3},
                {"n_layer", 2},         {"n_positions", 40},
                {"vocab_size", 61},     {"bos_token_id", 0},
                {"eos_token_id", 0}};
    if (type == "llama" || type == "qwen2" || type == "qwen3")
        return {{"model_type", type},
                {"architectures",
                 {type == "llama"   ? "LlamaForCausalLM"
                  : type == "qwen2" ? "Qwen2ForCausalLM"
                                    : "Qwen3ForCausalLM"}},
                {"hidden_size", 24},
                {"num_attention_heads", 4},
                {"num_key_value_heads", 2},
                {"head_dim", 8},
                {"num_hidden_layers", 2},
                {"intermediate_size", 40},
                {"vocab_size", 61},
                {"max_position_embeddings", 40},
                {"rms_norm_eps", 1e-6},
                {"rope_theta", 10000.0},
                {"hidden_act", "silu"},
                {"tie_word_embeddings", type == "qwen2"},
                {"initializer_range", 0.2}};
    if (type == "bert")
        return {{"model_type", "bert"},   {"architectures", {"BertModel"}},
                {"hidden_size", 24},      {"num_attention_heads", 4},
                {"num_hidden_layers", 2}, {"intermediate_size", 40},
                {"vocab_size", 61},       {"max_position_embeddings", 40},
                {"type_vocab_size", 2},   {"layer_norm_eps", 1e-12},
                {"hidden_act", "gelu"}};
    std::string folder = type == "gemma3_text" ? "gemma3" : type; // the others: as small as their goldens
    return Json::parse(read_file(std::string(NVL_SOURCE) + "/tests/golden/" + folder + "/config.json"));
}

std::unique_ptr<Model> random_model(const std::string& type, Store& store) {
    auto model = make_model(tiny(type));
    model->allocate(store, Dtype::f32, false);
    model->initialise(11);
    return model;
}

// Loading fails with one line that has `part` in it.
void expect_line(const std::string& path, const std::string& part) {
    Store store;
    std::string line = error_of([&] { load_model(path, store, Dtype::f32, false); });
    EXPECT_NE(line.find(part), std::string::npos) << line;
    EXPECT_EQ(line.find('\n'), std::string::npos) << line;
}

} // namespace

TEST(ModelFolder, RoundTripsToTheBitAlsoInShards) {
    for (const std::string& type : known_families())
        for (int64_t shard : {int64_t(8000), int64_t(1) << 40}) {
            TemporaryFolder folder;
            Store store, again;
            auto model = random_model(type, store);
            save_model(*model, folder.path, nullptr, shard);
            EXPECT_EQ(exists(folder.path + "/model.safetensors.index.json"), shard == 8000);
            auto loaded = load_model(folder.path, again, Dtype::f32, true);
            auto a = model->weights(), b = loaded->weights();
            ASSERT_EQ(a.size(), b.size());
            for (size_t i = 0; i < a.size(); i++)
                EXPECT_EQ(0, std::memcmp(a[i].second.buffer->data, b[i].second.buffer->data,
                                         size_t(a[i].second.buffer->bytes())))
                    << a[i].first.name;
        }
}

TEST(ModelFolder, DamageIsOneClearLine) {
    TemporaryFolder folder;
    Store store;
    auto model = random_model("llama", store);
    save_model(*model, folder.path);
    std::string weights = folder.path + "/model.safetensors", config = folder.path + "/config.json";
    std::string good = read_file(weights), settings = read_file(config);
    {
        Store again;
        load_model(folder.path, again, Dtype::f32, false);
    }
    expect_line(folder.path + "_none", "no such model");
    write_file(weights, good.substr(0, good.size() / 2));
    expect_line(folder.path, "model.safetensors");
    write_file(weights, good);
    write_file(config, "{");
    expect_line(folder.path, "not valid JSON");
    Json c = Json::parse(settings);
    auto with = [&](const char* key, Json value) {
        Json changed = c;
        changed[key] = value;
        write_file(config, changed.dump());
    };
    with("model_type", "gpt5");
    expect_line(folder.path, "gpt2, gpt_oss, kimi_k2, llama");
    with("hidden_size", 32);
    expect_line(folder.path, "config.json asks for");
    with("hidden_size", "wide");
    expect_line(folder.path, "\"hidden_size\" expects an integer");
    with("num_hidden_layers", 3);
    expect_line(folder.path, "is missing");
    with("num_hidden_layers", 1);
    expect_line(folder.path, "is not part of this model");
    with("num_hidden_layers", int64_t(1) << 60);
    expect_line(folder.path, "num_hidden_layers");
    with("num_key_value_heads", 3);
    expect_line(folder.path, "not a multiple");
    with("hidden_act", "cube");
    expect_line(folder.path, "cube");
    with("rope_scaling", Json{{"rope_type", "spiral"}, {"factor", 2}});
    expect_line(folder.path, "spiral");
    with("rope_scaling", 7);
    expect_line(folder.path, "expects an object");
    std::filesystem::remove(config);
    expect_line(folder.path, "config.json: not found");
}

TEST(Interop, TransformersComputesTheSameLogits) {
    for (const std::string& type : known_families()) {
        if (type == "bert") continue; // an encoder: no logits
        TemporaryFolder folder;
        Store store;
        save_model(*random_model(type, store), folder.path, nullptr, 8000);
        std::string command = std::string("python3 ") + NVL_SOURCE + "/tools/check_interop.py " +
                              folder.path + " " + NVL_BIN + " 2>&1",
                    output;
        FILE* pipe = popen(command.c_str(), "r");
        ASSERT_TRUE(pipe);
        char line[4096];
        while (std::fgets(line, sizeof line, pipe)) output += line;
        int status = pclose(pipe);
        if (output.find("interop: skipped") != std::string::npos) GTEST_SKIP() << output;
        EXPECT_EQ(status, 0) << output;
    }
}

TEST(Flops, CountsAreThoseOfTheFormula) {
    // 6 N + 12 H D (sum over layers of the window): GPT-2 124M at 1024 tokens
    auto gpt2 = make_model({{"model_type", "gpt2"},
                            {"n_embd", 768},
                            {"n_head", 12},
                            {"n_layer", 12},
                            {"n_positions", 1024},
                            {"vocab_size", 50257}});
    FlopCount f = gpt2->flops(1024);
    EXPECT_EQ(gpt2->parameters(), 124439808);
    EXPECT_EQ(f.matmul_weights, 12 * 12 * 768 * 768 + 50257 * 768);
    EXPECT_EQ(f.attention_tokens, 12 * 1024);
    EXPECT_DOUBLE_EQ(f.per_token, 6.0 * (12 * 12 * 768 * 768 + 50257 * 768) + 12.0 * 12 * 768 * 1024);
    Json c = tiny("qwen2");
    c["use_sliding_window"] = true, c["sliding_window"] = 16, c["max_window_layers"] = 1;
    EXPECT_EQ(make_model(c)->flops(40).attention_tokens, 40 + 16);
}

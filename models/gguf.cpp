// Models of the llama, qwen2, qwen3 and gemma3 families from GGUF files: metadata as a config.json, tensors
// under their Hugging Face names, dequantised.
#include "engine/io/gguf.h"

#include <algorithm>
#include <vector>

#include "kernels/quant/quantize.h"
#include "models/checkpoint.h"

namespace nvl {

// What the gemma3 architecture means without saying it: one full layer in six, windows rotated at 10^4,
// scores scaled by the head size (in the largest model by C / H).
static void add_gemma(const Gguf& file, bool linear, Json& c) {
    c.erase("hidden_act");
    c["hidden_activation"] = "gelu_pytorch_tanh";
    c["sliding_window"] = file.integer("gemma3.attention.sliding_window");
    c["sliding_window_pattern"] = 6;
    c["rope_local_base_freq"] = 10000.0;
    c["rope_theta"] = file.find_number("gemma3.rope.freq_base").value_or(1e6);
    if (linear)
        c["rope_scaling"] = {{"rope_type", "linear"}, {"factor", file.number("gemma3.rope.scaling.factor")}};
    constexpr int64_t LARGEST = 62;
    c["query_pre_attn_scalar"] =
        c["num_hidden_layers"] == LARGEST
            ? c["hidden_size"].get<int64_t>() / c["num_attention_heads"].get<int64_t>()
            : c["head_dim"].get<int64_t>();
}

Json config_of_gguf(const std::string& path) {
    Gguf file(path);
    std::string arch = file.string("general.architecture");
    bool gemma = arch == "gemma3";
    check(arch == "llama" || arch == "qwen2" || arch == "qwen3" || gemma,
          "%s: general.architecture \"%s\" is not supported; this build reads llama, qwen2, qwen3 and gemma3",
          path.c_str(), arch.c_str());
    auto key = [&](const char* name) { return arch + "." + name; };
    check(!file.find("rope_freqs.weight"),
          "%s: rope_freqs.weight (scaled rotary frequencies) is not supported", path.c_str());
    auto scaling = file.find_string(key("rope.scaling.type"));
    check(!scaling || *scaling == "none" || (gemma && *scaling == "linear"), "%s: %s \"%s\" is not supported",
          path.c_str(), key("rope.scaling.type").c_str(), scaling->c_str());

    Json c;
    c["model_type"] = gemma ? "gemma3_text" : arch;
    c["architectures"] = {arch == "llama"   ? "LlamaForCausalLM"
                          : gemma           ? "Gemma3ForCausalLM"
                          : arch == "qwen2" ? "Qwen2ForCausalLM"
                                            : "Qwen3ForCausalLM"};
    int64_t H = file.integer(key("attention.head_count")), C = file.integer(key("embedding_length"));
    check(H > 0 && C > 0, "%s: head count %ld and embedding length %ld; expected positive numbers",
          path.c_str(), H, C);
    c["hidden_size"] = C;
    c["num_hidden_layers"] = file.integer(key("block_count"));
    c["intermediate_size"] = file.integer(key("feed_forward_length"));
    c["num_attention_heads"] = H;
    c["num_key_value_heads"] = file.find_integer(key("attention.head_count_kv")).value_or(H);
    c["head_dim"] = file.find_integer(key("attention.key_length")).value_or(C / H);
    c["max_position_embeddings"] = file.integer(key("context_length"));
    c["rms_norm_eps"] = file.number(key("attention.layer_norm_rms_epsilon"));
    c["rope_theta"] = file.find_number(key("rope.freq_base")).value_or(10000.0);
    c["hidden_act"] = "silu";
    if (gemma) add_gemma(file, scaling && *scaling == "linear", c);
    c["vocab_size"] = file.at("token_embd.weight").shape[0].size;
    c["tie_word_embeddings"] = !file.find("output.weight");
    for (const char* id : {"bos", "eos"})
        if (auto value = file.find_integer(std::string("tokenizer.ggml.") + id + "_token_id"))
            c[std::string(id) + "_token_id"] = *value;
    return c;
}

// "model.layers.3.self_attn.q_proj.weight" -> "blk.3.attn_q.weight"
static std::string gguf_name(const std::string& name, bool gemma) {
    static const std::vector<std::pair<std::string, std::string>> parts{
        {"model.embed_tokens.", "token_embd."},
        {"model.norm.", "output_norm."},
        {"lm_head.", "output."},
        {"model.layers.", "blk."},
        {"input_layernorm.", "attn_norm."},
        {"post_attention_layernorm.", "ffn_norm."},
        {"self_attn.q_proj.", "attn_q."},
        {"self_attn.k_proj.", "attn_k."},
        {"self_attn.v_proj.", "attn_v."},
        {"self_attn.o_proj.", "attn_output."},
        {"self_attn.q_norm.", "attn_q_norm."},
        {"self_attn.k_norm.", "attn_k_norm."},
        {"mlp.gate_proj.", "ffn_gate."},
        {"mlp.up_proj.", "ffn_up."},
        {"mlp.down_proj.", "ffn_down."}};
    static const std::vector<std::pair<std::string, std::string>> of_gemma{
        {"post_attention_layernorm.", "post_attention_norm."},
        {"pre_feedforward_layernorm.", "ffn_norm."},
        {"post_feedforward_layernorm.", "post_ffw_norm."}};
    std::string result = name;
    if (gemma)
        for (auto& [from, to] : of_gemma)
            if (size_t at = result.find(from); at != result.npos) result.replace(at, from.size(), to);
    for (auto& [from, to] : parts)
        if (size_t at = result.find(from); at != result.npos) result.replace(at, from.size(), to);
    return result;
}

// GGUF's llama rotates pairs (2i, 2i + 1) and stores q and k with their rows in that order; ours (and the
// Hub's) rotates (i, i + D/2). Row h*D + a*D/2 + i of ours is row h*D + 2i + a of the file.
static void unpair_rows(std::byte* rows, int64_t count, int64_t row_bytes, int64_t D) {
    std::vector<std::byte> paired(rows, rows + count * row_bytes);
    for (int64_t r = 0; r < count; r++) {
        int64_t within = r % D, a = within / (D / 2), i = within % (D / 2), from = r - within + 2 * i + a;
        std::copy_n(paired.begin() + from * row_bytes, row_bytes, rows + r * row_bytes);
    }
}

// The factor of Gemma's norms is 1 + w; the file holds the factor.
static void write_less_one(const GgufTensor& stored, const Tensor& to) {
    int64_t n = stored.shape.numel();
    std::vector<float> factor(size_t(n), 0);
    dequantize(stored.type, stored.bytes, n, factor.data());
    for (float& f : factor) f -= 1;
    auto bytes = std::as_bytes(std::span(factor));
    host_write(to, [&](std::byte* data) { dequantize(BlockType::f32, bytes, n, to.dtype(), data); });
}

void load_gguf_weights(Model& model, const std::string& path, const WeightTensor& also) {
    Gguf file(path);
    std::string arch = file.string("general.architecture");
    bool paired = arch == "llama", gemma = arch == "gemma3";
    size_t used = 0;
    model.each([&](const WeightInfo& w, Tensor& t) {
        std::string name = gguf_name(w.name, gemma);
        const GgufTensor* stored = file.find(name);
        check(stored, "%s: tensor %s %s is missing", path.c_str(), name.c_str(), w.shape.text().c_str());
        check(stored->shape == w.shape, "%s: tensor %s is %s, the metadata asks for %s", path.c_str(),
              name.c_str(), stored->shape.text().c_str(), w.shape.text().c_str());
        used++;
        bool rotated = name.find("attn_q.") != name.npos || name.find("attn_k.") != name.npos;
        bool offset = gemma && w.role == Role::vector; // 1 + w is stored
        auto fill = [&](const Tensor& to) {
            int64_t n = w.shape.numel(), rows = w.shape[0];
            if (offset) return write_less_one(*stored, to);
            host_write(to, [&](std::byte* data) {
                dequantize(stored->type, stored->bytes, n, to.dtype(), data);
                if (paired && rotated) unpair_rows(data, rows, n / rows * size_of(to.dtype()), model.dims.D);
            });
        };
        fill(t);
        if (Tensor other = also ? also(w, t) : Tensor{}; other && other.buffer != t.buffer) fill(other);
    });
    check(used == file.tensors().size(), "%s: has %zu tensors, this model uses %zu of them", path.c_str(),
          file.tensors().size(), used);
}

} // namespace nvl

#include "infer/embed.h"

#include <cmath>

#include "engine/io/file.h"
#include "engine/plan/program.h"
#include "infer/load.h"
#include "models/checkpoint.h"

namespace nvl {

static Json read_json(const std::string& path) {
    Json json = Json::parse(read_file(path), nullptr, false);
    check(!json.is_discarded(), "%s: not valid JSON", path.c_str());
    return json;
}

Embedder::Embedder(const std::string& path, Dtype dtype, Device device)
    : path_(path), dtype_(dtype), store_(device), model_(open_model(path)),
      bert_(dynamic_cast<Bert*>(model_.get())), tokenizer_(load_tokenizer(path)),
      max_tokens_(model_->dims.context) {
    check(bert_, "%s: expected an encoder (model_type bert), found %s", path.c_str(),
          model_->config["model_type"].get<std::string>().c_str());
    check_vocabulary(path, tokenizer_, model_->dims.V);
    read_pooling();
    model_->allocate(store_, dtype, false);
    load_weights(*model_, path);
}

// A plain BERT folder without these files: mean pooling, normalised.
void Embedder::read_pooling() {
    std::string file = path_ + "/modules.json";
    if (exists(file)) {
        Json modules = read_json(file);
        check(modules.is_array(), "%s: expected a list", file.c_str());
        normalize_ = false;
        for (const Json& m : modules) {
            check(m.is_object() && m.contains("type") && m["type"].is_string(), "%s: a module has no type",
                  file.c_str());
            std::string type = m["type"], kind = type.substr(type.rfind('.') + 1);
            check(kind == "Transformer" || kind == "Pooling" || kind == "Normalize",
                  "%s: the module %s is not supported (known: Transformer, Pooling, Normalize)", file.c_str(),
                  kind.c_str());
            normalize_ |= kind == "Normalize";
        }
    }
    if (file = path_ + "/1_Pooling/config.json"; exists(file)) {
        Json json = read_json(file);
        ConfigReader c(json);
        bool mean = c.boolean("pooling_mode_mean_tokens", false),
             cls = c.boolean("pooling_mode_cls_token", false);
        check(mean != cls && !c.boolean("pooling_mode_max_tokens", false) &&
                  !c.boolean("pooling_mode_mean_sqrt_len_tokens", false),
              "%s: expected either pooling_mode_mean_tokens or pooling_mode_cls_token alone", file.c_str());
        pooling_ = mean ? Pooling::mean : Pooling::cls;
    }
    if (file = path_ + "/sentence_bert_config.json"; exists(file)) {
        Json json = read_json(file);
        max_tokens_ = std::min(max_tokens_, ConfigReader(json).integer("max_seq_length", max_tokens_));
    }
    int64_t frame = int64_t(tokenizer_.parts().prefix.size() + tokenizer_.parts().suffix.size());
    check(max_tokens_ > frame, "%s: max_seq_length %ld has no room for text", path_.c_str(), max_tokens_);
}

std::vector<int> Embedder::encode(const std::string& text) const {
    std::vector<int> ids = tokenizer_.encode(text, false, true);
    auto& suffix = tokenizer_.parts().suffix;
    if (int64_t(ids.size()) > max_tokens_) {
        ids.resize(size_t(max_tokens_) - suffix.size());
        ids.insert(ids.end(), suffix.begin(), suffix.end());
    }
    check(!ids.empty(), "%s: an empty text has no tokens in this vocabulary", path_.c_str());
    return ids;
}

std::vector<float> Embedder::pool(const float* rows, int64_t n) const {
    int64_t C = model_->dims.C;
    std::vector<double> sum(rows, rows + C);
    if (pooling_ == Pooling::mean)
        for (int64_t t = 1; t < n; t++)
            for (int64_t c = 0; c < C; c++) sum[size_t(c)] += rows[t * C + c];
    double scale = pooling_ == Pooling::mean ? 1 / double(n) : 1, squares = 0;
    for (double& x : sum) x *= scale, squares += x * x;
    if (normalize_ && squares > 0)
        for (double& x : sum) x /= std::sqrt(squares);
    return {sum.begin(), sum.end()};
}

void Embedder::run(std::span<const std::vector<int>> ids, std::vector<std::vector<float>>& out) {
    int64_t N = int64_t(ids.size()), T = 0;
    for (auto& v : ids) T += int64_t(v.size());
    Tape t;
    Recording recording(t);
    t.no_grad();
    Tensor tokens = t.input("tokens", {T}, Dtype::i32), positions = t.input("positions", {T}, Dtype::i32);
    Tensor starts = t.input("sequence_starts", {N + 1}, Dtype::i32),
           types = t.input("token_types", {T}, Dtype::i32);
    Tensor hidden = t.keep(bert_->encode({tokens, positions, starts}, types));
    Program program(t);
    int64_t at = 0;
    program.data<int32_t>(starts)[0] = 0;
    for (int64_t i = 0; i < N; i++) {
        auto& v = ids[size_t(i)];
        for (size_t k = 0; k < v.size(); k++, at++) {
            program.data<int32_t>(tokens)[at] = v[k];
            program.data<int32_t>(positions)[at] = int32_t(k);
            program.data<int32_t>(types)[at] = 0;
        }
        program.data<int32_t>(starts)[i + 1] = int32_t(at);
    }
    program.run();
    std::vector<float> rows(size_t(T * model_->dims.C));
    dispatch(dtype_, [&]<class X> {
        const X* from = program.data<X>(hidden);
        for (size_t i = 0; i < rows.size(); i++) rows[i] = float(from[i]);
    });
    at = 0;
    for (auto& v : ids) {
        out.push_back(pool(rows.data() + at * model_->dims.C, int64_t(v.size())));
        at += int64_t(v.size());
    }
    tokens_ += T;
}

std::vector<std::vector<float>> Embedder::embed(std::span<const std::string> texts) {
    constexpr int64_t MOST = 4096; // tokens of one program
    std::vector<std::vector<float>> out;
    std::vector<std::vector<int>> group;
    int64_t tokens = 0;
    tokens_ = 0;
    for (auto& text : texts) {
        std::vector<int> ids = encode(text);
        if (!group.empty() && tokens + int64_t(ids.size()) > MOST) run(group, out), group.clear(), tokens = 0;
        tokens += int64_t(ids.size());
        group.push_back(std::move(ids));
    }
    if (!group.empty()) run(group, out);
    return out;
}

} // namespace nvl

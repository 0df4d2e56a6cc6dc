#include "infer/load.h"

#include <algorithm>

#include "engine/io/file.h"

namespace nvl {

const Tokenizer& LoadedModel::need_tokenizer() const {
    check(tokenizer, "%s/tokenizer.json: not found; text needs a tokenizer (token ids go without)",
          path.c_str());
    return *tokenizer;
}

void check_vocabulary(const std::string& path, const Tokenizer& tokenizer, int64_t vocabulary) {
    int64_t n = tokenizer.size(), padding = std::max<int64_t>(128, vocabulary / 8);
    check(n <= vocabulary && vocabulary - n <= padding,
          "%s: the tokenizer has %ld ids, the model %ld; they do not belong together", path.c_str(), n,
          vocabulary);
}

static void add_ids(std::vector<int32_t>& ids, const Json& config, const std::string& where,
                    int64_t vocabulary) {
    auto it = config.find("eos_token_id");
    if (it == config.end() || it->is_null()) return;
    for (const Json& id : it->is_array() ? *it : Json::array({*it})) {
        check(id.is_number_integer(), "%s: eos_token_id expects a number or a list of them", where.c_str());
        auto value = id.get<int64_t>();
        check(value >= 0 && value < vocabulary, "%s: eos_token_id %ld; the vocabulary has %ld ids",
              where.c_str(), value, vocabulary);
        ids.push_back(int32_t(value));
    }
}

std::vector<int32_t> stop_ids_of(const std::string& path, const Model& model, const Tokenizer* tokenizer) {
    std::vector<int32_t> ids;
    if (tokenizer && tokenizer->eos() >= 0) ids.push_back(tokenizer->eos());
    add_ids(ids, model.config, path + "/config.json", model.dims.V);
    if (std::string file = path + "/generation_config.json"; !is_gguf(path) && exists(file)) {
        Json config = Json::parse(read_file(file), nullptr, false);
        check(config.is_object(), "%s: not a JSON object", file.c_str());
        add_ids(ids, config, file, model.dims.V);
    }
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    return ids;
}

std::unique_ptr<LoadedModel> load_for_inference(const std::string& path, Dtype dtype, Device device) {
    auto loaded = std::make_unique<LoadedModel>(device);
    loaded->path = path, loaded->dtype = dtype;
    loaded->model = open_model(path);
    if (is_gguf(path) || exists(path + "/tokenizer.json")) {
        loaded->tokenizer.emplace(load_tokenizer(path));
        check_vocabulary(path, *loaded->tokenizer, loaded->model->dims.V);
    }
    loaded->stop_ids = stop_ids_of(path, *loaded->model, loaded->tokenizer ? &*loaded->tokenizer : nullptr);
    loaded->model->allocate(loaded->store, dtype, false);
    load_weights(*loaded->model, path);
    return loaded;
}

} // namespace nvl

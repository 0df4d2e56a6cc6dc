#include "models/model.h"

#include <cmath>
#include <map>

#include "engine/base/parallel.h"
#include "engine/base/rng.h"
#include "engine/base/text.h"
#include "kernels/linear/linear.h"
#include "kernels/pointwise/softcap.h"

namespace nvl {

using Make = std::function<std::unique_ptr<Model>(const Json&)>;
static std::map<std::string, Make>& registry() {
    static std::map<std::string, Make> families;
    return families;
}
RegisterModel::RegisterModel(const std::string& model_type, Make make) {
    registry()[model_type] = std::move(make);
}
std::vector<std::string> known_families() {
    std::vector<std::string> names;
    for (auto& [name, make] : registry()) names.push_back(name);
    return names;
}

std::unique_ptr<Model> make_model(const Json& config) {
    check(config.is_object() && config.contains("model_type") && config["model_type"].is_string(),
          "config.json: expected an object with a \"model_type\"");
    std::string type = config["model_type"], known;
    auto it = registry().find(type);
    for (auto& name : known_families()) known += (known.empty() ? "" : ", ") + name;
    check(it != registry().end(), "config.json: model_type \"%s\" is not known; this build has %s",
          type.c_str(), known.c_str());
    auto model = it->second(config);
    model->config = config;
    return model;
}

Recompute Recompute::parse(const std::string& text) {
    if (text == "none") return {0};
    if (text == "full") return {1};
    if (text.rfind("every:", 0) == 0) {
        char* end = nullptr;
        long k = std::strtol(text.c_str() + 6, &end, 10);
        if (end && !*end && k >= 1) return {k};
    }
    fail("recompute: expected none, full or every:K, found \"%s\"", text.c_str());
}

std::string WeightInfo::part_name(int64_t i) const {
    size_t star = name.find('*');
    return star == name.npos ? name : name.substr(0, star) + std::to_string(i) + name.substr(star + 1);
}
Shape WeightInfo::part_shape() const {
    if (!stacked()) return shape;
    Shape part;
    for (int d = 1; d < shape.rank; d++) part.push(shape[d]);
    return part;
}

Tensor Model::head_logits(Tensor hidden) {
    Tensor logits = linear_sums(hidden, head());
    return logit_softcap ? softcap(logits, logit_softcap) : logits;
}
CrossEntropy Model::loss(Tensor hidden, Tensor labels, LossOptions options) {
    options.softcap = logit_softcap;
    return linear_cross_entropy(hidden, head(), labels, options);
}

void Model::allocate(Store& store, Dtype dtype, bool gradients) {
    each([&](const WeightInfo& w, Tensor& t) {
        if (w.role == Role::buffer)
            t = store.tensor(w.name, w.shape, Dtype::f32);
        else
            t = gradients ? store.parameter(w.name, w.shape, dtype) : store.tensor(w.name, w.shape, dtype);
    });
}

void Model::initialise(uint64_t seed) {
    each([&](const WeightInfo& w, Tensor& t) {
        Random random(seed, w.name);
        dispatch(t.dtype(), [&]<class X> {
            host_write(t, [&](std::byte* bytes) {
                X* data = reinterpret_cast<X*>(bytes);
                parallel_for(w.shape.numel(), 4096, [&](int64_t begin, int64_t end) {
                    for (int64_t i = begin; i < end; i++)
                        data[i] = X(float(w.std > 0 ? w.mean + w.std * random.normal(uint64_t(i)) : w.mean));
                });
            });
        });
    });
}

std::vector<std::pair<WeightInfo, Tensor>> Model::weights() {
    std::vector<std::pair<WeightInfo, Tensor>> all;
    each([&](const WeightInfo& w, Tensor& t) { all.push_back({w, t}); });
    return all;
}
std::vector<Tensor> Model::trainable() {
    std::vector<Tensor> all;
    each([&](const WeightInfo& w, Tensor& t) {
        if (w.role != Role::buffer) all.push_back(t);
    });
    return all;
}
int64_t Model::parameters() {
    int64_t n = 0;
    each([&](const WeightInfo& w, Tensor&) { n += w.shape.numel(); });
    return n;
}

FlopCount Model::flops(int64_t context) {
    FlopCount f{0, 0, 0};
    bool has_head = false;
    each([&](const WeightInfo& w, Tensor&) {
        if (w.role == Role::matrix || w.role == Role::head)
            f.matmul_weights += int64_t(std::llround(double(w.shape.numel()) * w.active));
        has_head |= w.role == Role::head;
    });
    if (!has_head)
        f.matmul_weights += dims.V * dims.C; // tied: the embedding multiplies the stream as the head
    for (int64_t w : dims.window) f.attention_tokens += w ? std::min(w, context) : context;
    f.per_token =
        6.0 * double(f.matmul_weights) + 12.0 * double(dims.H * dims.D) * double(f.attention_tokens);
    return f;
}
int64_t Model::cache_bytes_per_token(Dtype dtype) const {
    CacheShape c = cache_shape();
    return dims.layers * c.heads * (c.key + c.value) * size_of(dtype);
}

} // namespace nvl

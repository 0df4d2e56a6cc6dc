#include "kernels/spec.h"

#include <algorithm>

#include "engine/base/rng.h"
#include "engine/base/text.h"

namespace nvl {

static std::vector<Op>& registry() {
    static std::vector<Op> ops;
    return ops;
}
const std::vector<Op>& all_ops() {
    std::sort(registry().begin(), registry().end(), [](const Op& a, const Op& b) { return a.name < b.name; });
    return registry();
}
RegisterOp::RegisterOp(Op op) { registry().push_back(std::move(op)); }

Case::Case(Store& store, const std::string& text, Options options) : store_(store), options_(options) {
    for (const std::string& word : split(text, ' ')) {
        if (word.empty() || word == "bench") continue;
        size_t eq = word.find('=');
        check(eq != word.npos, "case \"%s\": expected key=value, found \"%s\"", text.c_str(), word.c_str());
        values_[word.substr(0, eq)] = word.substr(eq + 1);
    }
}
std::string Case::text(const char* key, const char* fallback) const {
    auto it = values_.find(key);
    return it == values_.end() ? fallback : it->second;
}
int64_t Case::get(const char* key, int64_t fallback) const {
    auto it = values_.find(key);
    return it == values_.end() ? fallback : std::stoll(it->second);
}
int64_t Case::operator[](const char* key) const {
    check(values_.count(key), "the case has no %s", key);
    return get(key, 0);
}
Dim Case::rows(const char* key) {
    int64_t n = (*this)[key];
    Dim d = tape().capacity(n + options_.extra_rows);
    counts.push_back(n);
    return d;
}

Tensor Case::make(Shape shape, double scale, double mean, const char* name, bool parameter) {
    uint64_t number = handed_out_++;
    bool frozen = options_.frozen == int(differentiable.size());
    bool strided = options_.strided && !parameter && shape.rank >= 2;
    Shape whole = shape; // dense shape without symbols: capacities are a matter of the handle
    for (int i = 0; i < shape.rank; i++) whole[i] = shape[i].size;
    Shape wide = whole;
    if (strided) wide[-1] = whole[-1].size + 5;
    Tensor x =
        frozen ? store_.tensor(name, wide, options_.dtype) : store_.parameter(name, wide, options_.dtype);
    if (!parameter && !frozen) { // an activation: its gradient has its own type
        x.buffer->grad_dtype = options_.dtype;
        x.buffer->gradient = store_.tensor(std::string("d ") + name, wide, options_.dtype).buffer;
    }
    Tensor base = x;
    if (strided) x = slice(x, -1, 3, 3 + whole[-1].size);
    Random random(number, "case");
    int64_t cols = whole.rank ? whole[-1].size : 1, rows = whole.numel() / std::max<int64_t>(1, cols);
    host_write(base, [&](std::byte* data) {
        View v = view_of(x, data);
        dispatch(options_.dtype, [&]<class X> {
            for (int64_t i = 0; i < rows; i++)
                for (int64_t c = 0; c < cols; c++)
                    v.row<X>(i)[c] =
                        X(float(bf16(float(mean + scale * random.normal(uint64_t(i * cols + c))))));
        });
    });
    for (int i = 0; i < shape.rank; i++) x.layout.shape[i] = shape[i];
    return x;
}
Tensor Case::input(Shape shape, double scale, const char* name) {
    Tensor x = make(shape, scale, 0, name, false);
    differentiable.push_back(x);
    return x;
}
Tensor Case::weight(Shape shape, double scale, double mean, const char* name) {
    Tensor x = make(shape, scale, mean, name, true);
    differentiable.push_back(x);
    return x;
}
Tensor Case::constant(Shape shape, double scale) {
    Tensor x = make(shape, scale, 0, "constant", false);
    x.buffer->needs_grad = false;
    return x;
}
Tensor Case::integers(Shape shape, const std::function<int32_t(int64_t)>& value) {
    Shape whole = shape;
    for (int i = 0; i < shape.rank; i++) whole[i] = shape[i].size;
    Tensor x = store_.tensor("integers", whole, Dtype::i32);
    host_write(x, [&](std::byte* data) {
        for (int64_t i = 0; i < whole.numel(); i++) reinterpret_cast<int32_t*>(data)[i] = value(i);
    });
    for (int i = 0; i < shape.rank; i++) x.layout.shape[i] = shape[i];
    return x;
}

} // namespace nvl

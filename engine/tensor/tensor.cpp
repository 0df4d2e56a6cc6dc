#include "engine/tensor/tensor.h"

namespace nvl {

Tensor slice(Tensor x, int dim, int64_t from, int64_t to) {
    x.layout = slice(x.layout, dim, from, to);
    return x;
}
Tensor transpose(Tensor x, int a, int b) {
    a = x.shape().axis(a), b = x.shape().axis(b);
    x.layout = transpose(x.layout, a, b);
    for (Type& t : x.type)
        if (t.kind == Kind::V) t.dim = int8_t(t.dim == a ? b : t.dim == b ? a : t.dim);
    return x;
}
Tensor reshape(Tensor x, const Shape& s) {
    x.layout = reshape(x.layout, s);
    for (Type& t : x.type) // (T, H*D) <-> (T, H, D): dimension 0 stays, the others lie in what is last
        if (t.kind == Kind::V && t.dim > 0) t.dim = int8_t(s.rank - 1);
    return x;
}
std::vector<Tensor> split(Tensor x, int dim, int parts) {
    int64_t n = (x.dim(dim) / parts).size;
    std::vector<Tensor> r;
    for (int i = 0; i < parts; i++) r.push_back(slice(x, dim, i * n, (i + 1) * n));
    return r;
}
Tensor with_rows(Tensor x, Dim rows) {
    check(x.dim(0).size == rows.size, "%s has %ld rows, the capacity is %ld", x.name(), x.dim(0).size,
          rows.size);
    x.layout.shape[0] = rows;
    return x;
}

Tensor Store::tensor(std::string name, Shape shape, Dtype dtype, Types type) {
    Buffer& b = buffers_.emplace_back();
    b.name = std::move(name), b.dtype = dtype, b.grad_dtype = sum_dtype(dtype), b.shape = shape;
    memory_.emplace_back(size_t(b.bytes()) + 1);
    b.data = memory_.back().data();
    return {&b, Layout::contiguous(shape), type};
}
Tensor Store::parameter(std::string name, Shape shape, Dtype dtype, Types type) {
    Tensor w = tensor(name, shape, dtype, type);
    w.buffer->gradient = tensor("d " + name, shape, sum_dtype(dtype)).buffer;
    w.buffer->needs_grad = true;
    return w;
}
int64_t Store::bytes() const {
    int64_t n = 0;
    for (auto& b : buffers_) n += b.bytes();
    return n;
}
Tensor gradient_of(const Tensor& w) {
    check(w.buffer->gradient, "%s is not a parameter: it has no gradient", w.name());
    return {w.buffer->gradient, w.layout};
}

} // namespace nvl

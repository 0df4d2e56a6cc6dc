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
    if (device_ == Device::cpu)
        memory_.emplace_back(size_t(b.bytes()) + 1);
    else {
        memory_.emplace_back(size_t(b.bytes()), device_, b.name.c_str());
        backend_of(device_).fill(memory_.back().data(), 0, size_t(b.bytes()));
    }
    b.data = memory_.back().data(), b.device = device_;
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

// A tensor that is one range of its buffer's memory: a whole one, or a slice of the first dimension.
static std::byte* range_of(const Tensor& t) {
    Layout dense = Layout::contiguous(t.shape());
    bool one = t.buffer->data;
    for (int d = 0; d < t.shape().rank; d++)
        one &= t.shape()[d].size <= 1 || t.layout.stride[size_t(d)] == dense.stride[size_t(d)];
    check(one, "%s: expected a tensor in one piece, with memory of its own", t.name());
    return t.buffer->data + t.layout.offset * size_of(t.dtype());
}
static size_t range_bytes(const Tensor& t) { return size_t(t.shape().numel() * size_of(t.dtype())); }

void host_write(const Tensor& t, const std::function<void(std::byte*)>& fill) {
    std::byte* to = range_of(t);
    if (t.buffer->device == Device::cpu) return fill(to);
    Memory values(range_bytes(t) + 1);
    fill(values.data());
    backend_of(t.buffer->device).upload(to, values.data(), range_bytes(t));
}
HostCopy::HostCopy(const Tensor& t) : dtype_(t.dtype()), data_(range_of(t)) {
    size_t bytes = range_bytes(t);
    if (t.buffer->device == Device::cpu) return;
    copy_ = Memory(bytes + 1);
    backend_of(t.buffer->device).download(copy_.data(), data_, bytes);
    data_ = copy_.data();
}

} // namespace nvl

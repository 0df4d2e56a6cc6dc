// Buffer: memory with a name. Tensor: a handle = buffer + layout (+ types along the mesh axes). A view moves
// no data.
#pragma once
#include <cstddef>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "engine/base/dtype.h"
#include "engine/base/memory.h"
#include "engine/comm/types.h"
#include "engine/tensor/layout.h"

namespace nvl {

class Tape;

struct Buffer {
    std::string name;
    Dtype dtype = Dtype::f32, grad_dtype = Dtype::f32;
    Shape shape;
    bool needs_grad = false;
    bool input = false, keep = false; // filled before the program runs; read after it
    Tape* tape = nullptr;             // null: persistent, shared by many programs
    int id = -1;                      // number on its tape
    std::byte* data = nullptr;        // of persistent and eager buffers; else the plan decides
    Device device = Device::cpu;      // of persistent buffers: where data lies
    Buffer* gradient = nullptr;       // persistent gradient of a parameter
    Buffer* storage = nullptr;        // an alias: same memory, a gradient of its own (detach, copy_to)
    int64_t bytes() const { return shape.numel() * size_of(dtype); }
};

struct Tensor {
    Buffer* buffer = nullptr;
    Layout layout;
    Types type{};
    uint32_t version = 0; // an in-place write makes older handles of the buffer unusable
    explicit operator bool() const { return buffer; }
    const Shape& shape() const { return layout.shape; }
    Dim dim(int i) const { return layout.shape[i]; }
    Dtype dtype() const { return buffer->dtype; }
    const char* name() const { return buffer->name.c_str(); }
};

/// Elements [from, to) of dimension `dim`, [0, size) reordered, or the same elements under another shape:
/// views of x.
Tensor slice(Tensor x, int dim, int64_t from, int64_t to);
Tensor transpose(Tensor x, int a, int b);
Tensor reshape(Tensor x, const Shape& s);
std::vector<Tensor> split(Tensor x, int dim, int parts);
/// The same tensor with the leading dimension declared as the capacity `rows` (an input that is filled per
/// run).
Tensor with_rows(Tensor x, Dim rows);

/// Parameters, gradients, optimiser state, caches: memory that outlives every program.
class Store {
public:
    explicit Store(Device device = Device::cpu) : device_(device) {}
    Device device() const { return device_; }
    Tensor tensor(std::string name, Shape shape, Dtype dtype, Types type = {});
    /// A value and its gradient (f32, or f64 of f64). Untouched pages cost nothing, so inference pays no
    /// gradient.
    Tensor parameter(std::string name, Shape shape, Dtype dtype, Types type = {});
    int64_t bytes() const;

private:
    Device device_;
    std::deque<Buffer> buffers_;
    std::vector<Memory> memory_;
};

/// The gradient of a parameter, as a tensor; an error for a tensor that has none.
Tensor gradient_of(const Tensor& w);

/// Data of a persistent or eager tensor that lives on the CPU (elsewhere: host_write and host_read).
template <class X> X* host(const Tensor& t) {
    check(t.dtype() == dtype_of<X>, "%s is %s", t.name(), name_of(t.dtype()));
    check(t.buffer->data, "%s has no memory of its own; ask the program for it", t.name());
    check(t.buffer->device == Device::cpu, "%s lives on %s; use host_write or host_read", t.name(),
          name_of(t.buffer->device));
    return reinterpret_cast<X*>(t.buffer->data) + t.layout.offset;
}

/// Lets `fill` write all elements of a persistent tensor: in place on the CPU; elsewhere into host memory
/// that is then sent to its device.
void host_write(const Tensor& t, const std::function<void(std::byte*)>& fill);

/// All elements of a persistent tensor in host memory: in place on the CPU, elsewhere a copy of what the
/// device holds now.
class HostCopy {
public:
    explicit HostCopy(const Tensor& t);
    const std::byte* data() const { return data_; }
    template <class X> const X* as() const {
        check(dtype_ == dtype_of<X>, "a tensor of %s was read as %s", name_of(dtype_), name_of(dtype_of<X>));
        return reinterpret_cast<const X*>(data_);
    }

private:
    Dtype dtype_;
    Memory copy_; // empty on the CPU
    const std::byte* data_;
};

} // namespace nvl

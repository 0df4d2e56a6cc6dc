// Device memory and times for what hwcheck runs by itself, on the backend's stream.
#pragma once
#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "engine/base/check.h"
#include "engine/base/dtype.h"
#include "engine/device/cuda.h"
#include "engine/device/device.h"

namespace nvl::hw {

class Buffer {
public:
    explicit Buffer(int64_t bytes) : data_(backend_of(Device::cuda).allocate(size_t(bytes))) {
        check(data_, "hwcheck: the device has no %ld bytes left", long(bytes));
    }
    /// A matrix; `gap` elements, which are NaN, lie behind each row.
    Buffer(const std::vector<double>& values, int64_t cols, int64_t gap, Dtype dtype)
        : Buffer(rows_of(values, cols) * (cols + gap) * size_of(dtype)) {
        dispatch(dtype, [&]<class X> {
            int64_t rows = rows_of(values, cols), ld = cols + gap;
            std::vector<X> host(size_t(rows * ld), X(NAN));
            for (int64_t i = 0; i < rows * cols; i++)
                host[size_t(i / cols * ld + i % cols)] = X(float(values[size_t(i)]));
            backend_of(Device::cuda).upload(data_, host.data(), host.size() * sizeof(X));
        });
    }
    ~Buffer() { backend_of(Device::cuda).release(data_); }
    Buffer(const Buffer&) = delete;
    template <class X> X* as() const { return reinterpret_cast<X*>(data_); }
    template <class X> std::vector<X> read(int64_t n, int64_t from = 0) const {
        std::vector<X> host(static_cast<size_t>(n));
        backend_of(Device::cuda)
            .download(host.data(), data_ + from * int64_t(sizeof(X)), host.size() * sizeof(X));
        return host;
    }
    std::vector<double> matrix(int64_t rows, int64_t cols, int64_t gap, Dtype dtype) const {
        std::vector<double> values;
        dispatch(dtype, [&]<class X> {
            std::vector<X> host = read<X>(rows * (cols + gap));
            for (int64_t i = 0; i < rows * cols; i++)
                values.push_back(double(float(host[size_t(i / cols * (cols + gap) + i % cols)])));
        });
        return values;
    }

private:
    static int64_t rows_of(const std::vector<double>& values, int64_t cols) {
        return int64_t(values.size()) / cols;
    }
    std::byte* data_;
};

/// Best seconds of `launch`, by events around a few of them, after one that warms up.
inline double seconds_of(const std::function<void()>& launch, bool is_virtual) {
    struct Event {
        cudaEvent_t e = nullptr;
        Event() { cuda_check(cudaEventCreate(&e), "an event"); }
        ~Event() { cudaEventDestroy(e); }
    } start, end;
    launch();
    double best = INFINITY;
    int each = is_virtual ? 1 : 5;
    for (int round = 0; round < (is_virtual ? 1 : 8); round++) {
        cuda_check(cudaEventRecord(start.e, cuda_stream()), "an event");
        for (int i = 0; i < each; i++) launch();
        cuda_check(cudaEventRecord(end.e, cuda_stream()), "an event");
        cuda_check(cudaEventSynchronize(end.e), "waiting for an event");
        float milliseconds = 0;
        cuda_check(cudaEventElapsedTime(&milliseconds, start.e, end.e), "the time between events");
        best = std::min(best, double(milliseconds) * 1e-3 / each);
    }
    return best;
}

} // namespace nvl::hw

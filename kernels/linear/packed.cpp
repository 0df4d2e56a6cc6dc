#include "kernels/linear/packed.h"

#include <algorithm>

#include "kernels/linear/matrix.h"

namespace nvl {

PackedWeights*& UsePacked::active() {
    static thread_local PackedWeights* packed = nullptr;
    return packed;
}

static bool same_view(const Tensor& a, const Tensor& b) {
    bool same = a.buffer == b.buffer && a.layout.offset == b.layout.offset && a.shape() == b.shape();
    for (size_t d = 0; same && d < size_t(a.shape().rank); d++)
        same = a.layout.stride[d] == b.layout.stride[d];
    return same;
}

std::shared_ptr<const PackedWeight> PackedWeights::find(const Tensor& w) const {
    auto it =
        std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return same_view(e.w, w); });
    return it == entries_.end() ? nullptr : it->packed;
}

void PackedWeights::add(const Tensor& w) {
    check(w.shape().rank == 2 && w.buffer->data, "pack: %s is %s; expected a persistent matrix", w.name(),
          w.shape().text().c_str());
    if (w.buffer->device != Device::cpu || find(w)) return;
    Matrix m = matrix(view_of(w, w.buffer->data));
    std::vector<std::byte> rows; // of a transposed view
    if (m.transposed) {
        int64_t size = size_of(m.dtype);
        rows.resize(size_t(m.rows * m.cols * size));
        for (int64_t i = 0; i < m.rows; i++)
            for (int64_t j = 0; j < m.cols; j++)
                std::copy_n(static_cast<std::byte*>(m.data) + (j * m.ld + i) * size, size,
                            rows.data() + (i * m.cols + j) * size);
        m = {rows.data(), m.rows, m.cols, m.cols, false, m.dtype};
    }
    entries_.push_back({w, std::make_shared<PackedWeight>(m.data, m.ld, m.rows, m.cols, m.dtype)});
}

int64_t PackedWeights::bytes() const {
    int64_t n = 0;
    for (const Entry& e : entries_) n += int64_t(e.packed->bytes());
    return n;
}

} // namespace nvl

#include "engine/tensor/layout.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace nvl {

int64_t Shape::numel() const {
    int64_t n = 1;
    for (int i = 0; i < rank; i++) n *= dims[size_t(i)].size;
    return n;
}
std::string Shape::text() const {
    std::string s = "(";
    for (int i = 0; i < rank; i++) {
        Dim d = dims[size_t(i)];
        s += (i ? "," : "") + std::string(d.symbol ? "<=" : "") + std::to_string(d.size);
    }
    return s + ")";
}
bool operator==(const Shape& a, const Shape& b) {
    if (a.rank != b.rank) return false;
    for (size_t i = 0; i < size_t(a.rank); i++)
        if (a.dims[i].size != b.dims[i].size || a.dims[i].symbol != b.dims[i].symbol) return false;
    return true;
}

Layout Layout::contiguous(const Shape& s) {
    Layout l{s};
    int64_t n = 1;
    for (int i = s.rank - 1; i >= 0; i--) l.stride[size_t(i)] = n, n *= s.dims[size_t(i)].size;
    return l;
}

Layout slice(Layout l, int dim, int64_t from, int64_t to) {
    dim = l.shape.axis(dim);
    check(l.shape[dim].symbol == 0,
          "slice: dimension %d is a capacity; its bounds are data, use an op that reads the count", dim);
    check(0 <= from && from < to && to <= l.shape[dim], "slice: [%ld, %ld) of extent %ld", from, to,
          l.shape[dim].size);
    l.offset += from * l.stride[size_t(dim)];
    l.shape[dim] = to - from;
    return l;
}

Layout transpose(Layout l, int a, int b) {
    auto i = size_t(l.shape.axis(a)), j = size_t(l.shape.axis(b));
    std::swap(l.shape.dims[i], l.shape.dims[j]);
    std::swap(l.stride[i], l.stride[j]);
    return l;
}

// Both shapes are cut into the shortest groups of equal product; inside a group the old dimensions must be
// dense. A capacity may only lead its group: (H, <=T, D) -> (H * T, D) is dense at T rows and wrong at T' <
// T.
Layout reshape(const Layout& l, const Shape& to) {
    std::string a_text = l.shape.text(), b_text = to.text();
    const char *from_text = a_text.c_str(), *to_text = b_text.c_str();
    check(l.shape.numel() == to.numel(), "reshape: %s has %ld elements, %s has %ld", from_text,
          l.shape.numel(), to_text, to.numel());
    Layout r{to, {}, l.offset};
    auto from_dim = [&](int k) { return l.shape.dims[size_t(k)]; };
    auto to_dim = [&](int k) { return to.dims[size_t(k)]; };
    for (int i = 0, j = 0; i < l.shape.rank || j < to.rank;) {
        int i0 = i, j0 = j;
        int64_t a = i < l.shape.rank ? from_dim(i++).size : 1, b = j < to.rank ? to_dim(j++).size : 1;
        while (a != b) {
            if (a < b)
                a *= from_dim(i++).size;
            else
                b *= to_dim(j++).size;
        }
        for (int k = i0; k + 1 < i; k++)
            check(
                l.stride[size_t(k)] == l.stride[size_t(k + 1)] * from_dim(k + 1).size ||
                    from_dim(k).size == 1,
                "reshape: %s is a strided view and cannot become %s without a copy; call contiguous() first",
                from_text, to_text);
        for (int k = i0 + 1; k < i; k++)
            check(!from_dim(k).symbol,
                  "reshape: capacity dimension %d of %s must stay outermost in its group", k, from_text);
        for (int k = j0 + 1; k < j; k++)
            check(!to_dim(k).symbol, "reshape: capacity dimension %d of %s must stay outermost in its group",
                  k, to_text);
        if (i > i0 && j > j0)
            check(from_dim(i0).symbol == to_dim(j0).symbol, "reshape: %s to %s loses the capacity dimension",
                  from_text, to_text);
        int64_t s = i > i0 ? l.stride[size_t(i - 1)] : 1;
        for (int k = j - 1; k >= j0; k--) r.stride[size_t(k)] = s, s *= to_dim(k).size;
    }
    return r;
}

// A region written as one interval per digit of a mixed radix number system whose weights are the strides of
// both regions. Not every pair of views fits (unknown); the caller then takes the slow and safe way.
static bool digits(const Layout& l, const std::vector<int64_t>& weight, std::vector<int64_t>& lo,
                   std::vector<int64_t>& n) {
    size_t levels = weight.size();
    lo.assign(levels, 0), n.assign(levels, 1);
    int64_t rest = l.offset;
    for (size_t j = 0; j < levels; j++) lo[j] = rest / weight[j], rest %= weight[j];
    for (size_t d = 0; d < size_t(l.shape.rank); d++) {
        int64_t extent = l.shape.dims[d].size;
        if (extent == 1) continue;
        auto j = size_t(std::find(weight.begin(), weight.end(), l.stride[d]) - weight.begin());
        while (true) { // a merged dimension is split over several digits
            int64_t radix = j ? weight[j - 1] / weight[j] : INT64_MAX;
            if (n[j] != 1) return false; // two dimensions on one digit: the view overlaps itself
            if (lo[j] + extent <= radix) {
                n[j] = extent;
                break;
            }
            if (lo[j] != 0 || extent % radix) return false;
            n[j] = radix, extent /= radix, j--;
            if (extent == 1) break;
        }
    }
    return true;
}

Relation relation(const Layout& a, const Layout& b) {
    std::vector<int64_t> weight{1};
    for (const Layout* l : {&a, &b})
        for (size_t d = 0; d < size_t(l->shape.rank); d++)
            if (l->shape.dims[d].size != 1) weight.push_back(l->stride[d]);
    std::sort(weight.rbegin(), weight.rend());
    weight.erase(std::unique(weight.begin(), weight.end()), weight.end());
    if (weight.back() == 0) return Relation::unknown;
    for (size_t j = 1; j < weight.size(); j++)
        if (weight[j - 1] % weight[j]) return Relation::unknown;
    std::vector<int64_t> la, na, lb, nb;
    if (!digits(a, weight, la, na) || !digits(b, weight, lb, nb)) return Relation::unknown;
    bool inside = true;
    for (size_t j = 0; j < weight.size(); j++) {
        if (la[j] + na[j] <= lb[j] || lb[j] + nb[j] <= la[j]) return Relation::disjoint;
        inside &= lb[j] <= la[j] && la[j] + na[j] <= lb[j] + nb[j];
    }
    return inside ? Relation::inside : Relation::unknown;
}

} // namespace nvl

// atom and red: read-modify-write, by compare-and-swap on host memory, since blocks run on several threads.
// Lanes go one after the other, the lowest first.
#include "tools/vgpu/machine/memory_modifiers.h"
#include "tools/vgpu/machine/numbers.h"

namespace vgpu {
namespace {

template <class U> U load_now(std::byte* p) {
    return __atomic_load_n(reinterpret_cast<U*>(p), __ATOMIC_SEQ_CST);
}
template <class U> bool swap_if(std::byte* p, U& old, U v) {
    return __atomic_compare_exchange_n(reinterpret_cast<U*>(p), &old, v, false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_SEQ_CST);
}

/// r: old value (or none), address, b, c;  F(old, b, c) is the new value; T has the size of an integer U.
template <class T, class U, auto F> void atomic(Warp& w, const Op& op, uint32_t mask) {
    const Memory& m = op.extra->memory;
    uint64_t address[32];
    std::byte* host[32];
    addresses(w, m, op.r[1], address);
    uint32_t good = translate(w, op, m, Kind::atomic, sizeof(T), mask, address, host);
    for (uint32_t rest = good; rest; rest &= rest - 1) {
        uint32_t i = lowest(rest);
        if (reinterpret_cast<uintptr_t>(host[i]) % sizeof(U)) continue; // reported by the observer
        T b = w.at<T>(op.r[2])[i], c = op.r[3] == NO_REGISTER ? b : w.at<T>(op.r[3])[i];
        U old = load_now<U>(host[i]);
        U next;
        do next = std::bit_cast<U>(T(F(std::bit_cast<T>(old), b, c)));
        while (!swap_if<U>(host[i], old, next));
        if (op.r[0] != NO_REGISTER) w.at<U>(op.r[0])[i] = old;
    }
    w.block->progress++;
}

template <class T> struct Integer {
    using S = std::make_signed_t<T>;
    static T add(T a, T b, T) { return a + b; }
    static T conjunction(T a, T b, T) { return a & b; }
    static T disjunction(T a, T b, T) { return a | b; }
    static T exclusive(T a, T b, T) { return a ^ b; }
    static T exchange(T, T b, T) { return b; }
    static T compare(T a, T b, T c) { return a == b ? c : a; }
    static T increment(T a, T b, T) { return a >= b ? 0 : a + 1; }
    static T decrement(T a, T b, T) { return a == 0 || a > b ? b : a - 1; }
    static T least(T a, T b, T) { return a < b ? a : b; }
    static T most(T a, T b, T) { return a > b ? a : b; }
    static T least_signed(T a, T b, T) { return S(a) < S(b) ? a : b; }
    static T most_signed(T a, T b, T) { return S(a) > S(b) ? a : b; }
};

template <class T> Exec integer_atomic(std::string_view op, char sign) {
    using I = Integer<T>;
    if (op == "add") return atomic<T, T, I::add>;
    if (op == "and") return atomic<T, T, I::conjunction>;
    if (op == "or") return atomic<T, T, I::disjunction>;
    if (op == "xor") return atomic<T, T, I::exclusive>;
    if (op == "exch") return atomic<T, T, I::exchange>;
    if (op == "cas") return atomic<T, T, I::compare>;
    if (op == "inc") return atomic<T, T, I::increment>;
    if (op == "dec") return atomic<T, T, I::decrement>;
    if (op == "min") return sign == 's' ? atomic<T, T, I::least_signed> : atomic<T, T, I::least>;
    if (op == "max") return sign == 's' ? atomic<T, T, I::most_signed> : atomic<T, T, I::most>;
    return nullptr;
}

float add_float(float a, float b, float) { return a + b; }
double add_double(double a, double b, double) { return a + b; }
template <class T> T add_small(T a, T b, T) {
    return from_double<T>(double(to_float(a)) + double(to_float(b)));
}
template <class T> T min_small(T a, T b, T) { return nearest<T>(smaller<false>(to_float(a), to_float(b))); }
template <class T> T max_small(T a, T b, T) { return nearest<T>(larger<false>(to_float(a), to_float(b))); }
template <class T> Two<T> add_two(Two<T> a, Two<T> b, Two<T>) {
    return {add_small(a.low, b.low, b.low), add_small(a.high, b.high, b.high)};
}
template <class T> Two<T> min_two(Two<T> a, Two<T> b, Two<T>) {
    return {min_small(a.low, b.low, b.low), min_small(a.high, b.high, b.high)};
}
template <class T> Two<T> max_two(Two<T> a, Two<T> b, Two<T>) {
    return {max_small(a.low, b.low, b.low), max_small(a.high, b.high, b.high)};
}

template <class T> Exec small_atomic(std::string_view op, bool pair) {
    if (op == "add") return pair ? atomic<Two<T>, uint32_t, add_two<T>> : atomic<T, uint16_t, add_small<T>>;
    if (op == "min") return pair ? atomic<Two<T>, uint32_t, min_two<T>> : atomic<T, uint16_t, min_small<T>>;
    if (op == "max") return pair ? atomic<Two<T>, uint32_t, max_two<T>> : atomic<T, uint16_t, max_small<T>>;
    return nullptr;
}

Exec atomic_of(std::string_view op, std::string_view type, char& letter) {
    letter = 'w';
    if (type == "f16x2") return small_atomic<Half>(op, true);
    if (type == "bf16x2") return small_atomic<Bf16>(op, true);
    if (type == "u32" || type == "s32" || type == "b32") return integer_atomic<uint32_t>(op, type[0]);
    letter = 'f';
    if (type == "f32") return op == "add" ? atomic<float, uint32_t, add_float> : nullptr;
    letter = 'h';
    if (type == "f16") return small_atomic<Half>(op, false);
    if (type == "bf16") return small_atomic<Bf16>(op, false);
    if (type == "b16") return op == "cas" || op == "exch" ? integer_atomic<uint16_t>(op, 'b') : nullptr;
    letter = 'x';
    if (type == "u64" || type == "s64" || type == "b64") return integer_atomic<uint64_t>(op, type[0]);
    letter = 'd';
    if (type == "f64") return op == "add" ? atomic<double, uint64_t, add_double> : nullptr;
    return nullptr;
}

void decode_atomic(Decoder& d, const ptx::Instruction& i, Modifiers& m, bool returns) {
    Memory memory = memory_of(m);
    if (memory.order == Order::weak) memory.order = Order::relaxed;
    std::string_view name = m.one_of({"add", "and", "or", "xor", "exch", "cas", "inc", "dec", "min", "max"});
    m.take("noftz");
    std::string_view vector = m.one_of({"v2", "v4", "v8"});
    std::string_view type = m.first();
    char letter;
    Exec exec = atomic_of(name, type, letter);
    if (!exec) d.fail("no '." + std::string(name) + "' for type '." + std::string(type) + "'");
    size_t least = (returns ? 3 : 2) + (name == "cas");
    d.want_operands(i, least, least + 1); // a cache policy may follow
    size_t at = returns ? 1 : 0;
    memory.bytes = width_of(letter);
    int32_t base = d.address(i.operands[at], memory);
    const ptx::Operand& data = i.operands[at + 1];
    size_t count = vector.empty() ? 1 : size_t(vector[1] - '0');
    if (count > 1 && data.list.size() != count) d.fail("the vector has another length than the opcode says");
    for (size_t k = 0; k < count; k++) { // a vector is so many atomics
        int32_t old = !returns ? NO_REGISTER
                               : d.destination(count > 1 ? i.operands[0].list.at(k) : i.operands[0], letter);
        int32_t b = d.source(count > 1 ? data.list[k] : data, letter);
        int32_t c = name == "cas" ? d.source(i.operands[at + 2], letter) : NO_REGISTER;
        Op& op = d.emit(exec, i);
        Extra& e = d.extra(op);
        e.memory = memory, e.memory.offset += int64_t(k * memory.bytes);
        op.r[0] = old, op.r[1] = base, op.r[2] = b, op.r[3] = c;
    }
}

} // namespace

void add_atomic(Table& t) {
    t.decode("atom",
             [](Decoder& d, const ptx::Instruction& i, Modifiers& m) { decode_atomic(d, i, m, true); });
    t.decode("red",
             [](Decoder& d, const ptx::Instruction& i, Modifiers& m) { decode_atomic(d, i, m, false); });
}

} // namespace vgpu

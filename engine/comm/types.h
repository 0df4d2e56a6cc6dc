// The type of a tensor along each axis of the device mesh, and the mesh itself.
//
// The types are those of a varying-manual-axes calculus: they make a missing or doubled collective an error
// when the op is recorded, not a silently wrong gradient. On one device every axis has size 1 and nothing is
// checked.
#pragma once
#include <array>
#include <cstdint>
#include <string>

namespace nvl {

// I invariant: replicated, and so is its gradient     R replicated: its gradient is Partial
// V varies from rank to rank (a shard of dimension dim, -1: unspecified)     P partial: the value is the sum
// over ranks
enum class Kind : uint8_t { I, R, V, P };
struct Type {
    Kind kind = Kind::I;
    int8_t dim = -1;
    bool operator==(const Type&) const = default;
    std::string text() const {
        constexpr const char* names[] = {"I", "R", "V", "P"};
        return kind == Kind::V && dim >= 0 ? "S(" + std::to_string(dim) + ")" : names[int(kind)];
    }
};

enum Axis : uint8_t { dp, cp, tp, ep, AXES };
constexpr const char* axis_names[AXES] = {"dp", "cp", "tp", "ep"};
using Types = std::array<Type, AXES>;
constexpr Type Invariant{Kind::I}, Replicated{Kind::R}, Partial{Kind::P};
constexpr Type Shard(int dim) { return {Kind::V, int8_t(dim)}; }

/// Sizes of the mesh axes and this rank's place on them.
struct Mesh {
    std::array<int, AXES> size{1, 1, 1, 1}, rank{};
};

} // namespace nvl

// The error for a tensor that a file does not have, in one wording for every format.
#pragma once
#include <string>
#include <vector>

#include "engine/base/check.h"
#include "engine/base/text.h"
#include "engine/io/printable.h"

namespace nvl {

/// `tensors` is a range of things with a `name`; the nearest one is suggested.
template <class Tensors>
[[noreturn]] void no_such_tensor(const std::string& path, const std::string& name, const Tensors& tensors) {
    std::vector<std::string> names;
    for (auto& t : tensors) names.push_back(t.name);
    std::string near = nearest(name, names);
    fail("%s: no tensor \"%s\" among its %zu%s", path.c_str(), name.c_str(), names.size(),
         near.empty() ? "" : ("; did you mean \"" + printable(near) + "\"?").c_str());
}

} // namespace nvl

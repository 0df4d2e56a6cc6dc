#include "engine/base/check.h"

#include <cstdarg>
#include <cstdio>

namespace nvl {

std::string& module_path() {
    thread_local std::string path;
    return path;
}
Module::Module(const std::string& name) : before(module_path().size()) {
    module_path() += (before ? "." : "") + name;
}
Module::~Module() { module_path().resize(before); }

static std::string formatted(const char* format, va_list args) {
    va_list again;
    va_copy(again, args);
    int n = std::vsnprintf(nullptr, 0, format, args);
    std::string text(n > 0 ? size_t(n) : 0, '\0');
    if (n > 0) std::vsnprintf(text.data(), text.size() + 1, format, again);
    va_end(again);
    return text;
}
std::string format(const char* format, ...) {
    va_list args;
    va_start(args, format);
    std::string text = formatted(format, args);
    va_end(args);
    return text;
}
void fail(const char* format, ...) {
    va_list args;
    va_start(args, format);
    std::string text = formatted(format, args);
    va_end(args);
    throw Error(module_path().empty() ? text : module_path() + ": " + text);
}

} // namespace nvl

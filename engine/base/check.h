// Errors: one clear line that says what was expected, what was found and, where known, what to do.
#pragma once
#include <stdexcept>
#include <string>

namespace nvl {

/// An error that the caller (a user, a config, a file) can do something about. main prints it as one line.
struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// Where in the model we are recording ("layers.3.attn"): every recorded step and every error carries it.
std::string& module_path();
struct Module {
    size_t before;
    explicit Module(const std::string& name);
    ~Module();
    Module(const Module&) = delete;
};

/// Throws Error with the printf-style text, prefixed by the module path if one is set.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

/// printf into a std::string.
std::string format(const char* format, ...) __attribute__((format(printf, 1, 2)));

// A macro because the message's arguments must not be evaluated when all is well: they build strings and may
// be null.
#define check(ok, ...)                                                                                       \
    do {                                                                                                     \
        if (!(ok)) ::nvl::fail(__VA_ARGS__);                                                                 \
    } while (0)

} // namespace nvl

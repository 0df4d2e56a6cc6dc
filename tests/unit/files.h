// Files for tests: a folder that goes away, bytes put together by hand.
#pragma once
#include <stdlib.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <span>
#include <string>

#include "engine/base/check.h"

namespace nvl {

/// A fresh folder under the system's temporary one, removed at the end of the scope.
struct TemporaryFolder {
    std::string path;
    TemporaryFolder() {
        path = (std::filesystem::temp_directory_path() / "nvl_test_XXXXXX").string();
        check(mkdtemp(path.data()), "cannot make a temporary folder");
    }
    ~TemporaryFolder() { std::filesystem::remove_all(path); }
    TemporaryFolder(const TemporaryFolder&) = delete;
    std::string operator/(const std::string& name) const { return path + "/" + name; }
};

template <class T> std::string raw(T v) { return {reinterpret_cast<const char*>(&v), sizeof v}; }
inline std::span<const std::byte> bytes_of(const std::string& s) {
    return {reinterpret_cast<const std::byte*>(s.data()), s.size()};
}

/// The message of the Error that f throws; empty if it throws none. Any other exception goes through.
inline std::string error_of(const std::function<void()>& f) {
    try {
        f();
    } catch (const Error& e) {
        return e.what();
    }
    return "";
}

} // namespace nvl

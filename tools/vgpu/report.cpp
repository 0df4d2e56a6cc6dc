#include "tools/vgpu/report.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <tuple>

#include <cxxabi.h>

namespace vgpu {

namespace {
using Key = std::tuple<Fault, std::string, std::string, uint32_t, std::string>;

struct Book {
    std::mutex mutex;
    std::map<Key, size_t> index;
    std::vector<Finding> list;
};
Book& book() {
    static Book* b = new Book; // findings of static destructors must still find it
    return *b;
}

std::string text_of(const Dim3& d) {
    return "(" + std::to_string(d.x) + "," + std::to_string(d.y) + "," + std::to_string(d.z) + ")";
}
} // namespace

const char* name_of(Fault fault) {
    switch (fault) {
    case Fault::race_shared: return "RACE_SHARED";
    case Fault::race_global: return "RACE_GLOBAL";
    case Fault::race_streams: return "RACE_STREAMS";
    case Fault::out_of_bounds: return "OUT_OF_BOUNDS";
    case Fault::misaligned: return "MISALIGNED";
    case Fault::uninitialised: return "UNINITIALISED";
    case Fault::use_after_free: return "USE_AFTER_FREE";
    case Fault::copy_not_waited: return "COPY_NOT_WAITED";
    case Fault::barrier_divergent: return "BARRIER_DIVERGENT";
    case Fault::barrier_exited: return "BARRIER_EXITED";
    case Fault::inactive_lane: return "INACTIVE_LANE";
    case Fault::host_access: return "HOST_ACCESS";
    case Fault::leak: return "LEAK";
    case Fault::launch_limit: return "LAUNCH_LIMIT";
    case Fault::deadlock: return "DEADLOCK";
    case Fault::trap: return "TRAP";
    case Fault::api: return "API";
    }
    return "UNKNOWN";
}

std::string readable(const std::string& mangled) {
    int status = 0;
    char* text = abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status);
    if (status != 0) return mangled;
    std::string s = text;
    std::free(text);
    for (std::string word : {"(anonymous namespace)::", "void "})
        for (size_t at; (at = s.find(word)) != s.npos;) s.erase(at, word.size());
    int depth = 0; // the parameter list begins at the first parenthesis outside of template arguments
    for (size_t i = 0; i < s.size(); i++) {
        depth += (s[i] == '<') - (s[i] == '>');
        if (s[i] == '(' && depth == 0) return s.substr(0, i);
    }
    return s;
}

void report(Finding f) {
    Book& b = book();
    std::lock_guard lock(b.mutex);
    // A finding of the host has no kernel: its text tells it from others.
    Key key{f.fault, f.kernel, f.kernel.empty() ? f.source : "", f.ptx_line, f.kernel.empty() ? f.what : ""};
    auto [at, fresh] = b.index.try_emplace(key, b.list.size());
    if (fresh)
        b.list.push_back(std::move(f));
    else
        b.list[at->second].times += f.times;
}

std::vector<Finding> findings() {
    std::lock_guard lock(book().mutex);
    return book().list;
}

void clear_findings() {
    std::lock_guard lock(book().mutex);
    book().index.clear();
    book().list.clear();
}

std::string text_of(const Finding& f) {
    std::string s = name_of(f.fault);
    if (!f.kernel.empty()) s += " in " + readable(f.kernel);
    if (!f.source.empty()) s += " at " + f.source;
    if (f.ptx_line) s += " (ptx " + std::to_string(f.ptx_line) + ")";
    if (!f.kernel.empty()) s += ", block " + text_of(f.block) + " thread " + text_of(f.thread);
    s += ": " + f.what;
    if (f.times > 1) s += " (" + std::to_string(f.times) + " times)";
    return s;
}

size_t print_findings() {
    std::vector<Finding> list = findings();
    for (const Finding& f : list) std::fprintf(stderr, "vgpu: %s\n", text_of(f).c_str());
    return list.size();
}

} // namespace vgpu

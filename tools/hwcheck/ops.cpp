// Every op's spec with device cuda against f64 on the CPU: op_tests, a program of its own beside this one.
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "engine/base/check.h"
#include "tools/hwcheck/report.h"

namespace nvl::hw {

namespace {

namespace fs = std::filesystem;

struct Outcome {
    int status;
    std::string output;
};
std::string shell_word(const std::string& word) {
    std::string r = "'";
    for (char c : word) r += c == '\'' ? "'\\''" : std::string(1, c);
    return r + "'";
}
Outcome run(const std::string& command) {
    FILE* pipe = popen((command + " 2>&1").c_str(), "r");
    check(pipe, "cannot start %s", command.c_str());
    Outcome r{};
    char piece[4096];
    while (size_t n = fread(piece, 1, sizeof piece, pipe)) r.output.append(piece, n);
    r.status = pclose(pipe);
    return r;
}

/// The first case of each op, as a filter.
std::string first_cases(const std::string& program) {
    Outcome listed = run(program + " --gtest_list_tests");
    check(listed.status == 0, "op_tests cannot list its tests: %s", listed.output.c_str());
    std::set<std::string> seen;
    std::string filter, prefix = "  HoldsItsPromises/";
    size_t at = 0;
    while ((at = listed.output.find(prefix, at)) != std::string::npos) {
        at += prefix.size();
        std::string name = listed.output.substr(at, listed.output.find_first_of(" \n", at) - at);
        if (seen.insert(name.substr(0, name.find("__"))).second)
            filter += (filter.empty() ? "*/" : ":*/") + name;
    }
    check(!filter.empty(), "op_tests lists no case of an op");
    return filter;
}

} // namespace

void check_ops(Report& r, const Setting& s) {
    fs::path beside = fs::read_symlink("/proc/self/exe").parent_path() / "op_tests";
    check(fs::exists(beside), "%s is missing: build it with this program", beside.c_str());
    std::string program = shell_word(beside.string()) + " --device cuda";
    std::string filter = s.ops == "all" ? "*" : s.ops == "one" ? first_cases(program) : s.ops;
    char file[] = "/tmp/hwcheck_ops_XXXXXX";
    int made = mkstemp(file);
    check(made >= 0, "cannot make a temporary file");
    close(made);
    Outcome done = run(program + " --gtest_brief=1 --gtest_output=json:" + shell_word(file) +
                       " --gtest_filter=" + shell_word(filter));
    Json found = Json::parse(std::ifstream(file), nullptr, false);
    fs::remove(file);
    check(found.is_object(), "op_tests ended without results: %s", done.output.substr(0, 600).c_str());
    int64_t cases = 0;
    Json failures = Json::array();
    for (const Json& suite : found["testsuites"])
        for (const Json& test : suite["testsuite"]) {
            cases += test.value("status", "") == "RUN";
            if (!test.contains("failures")) continue;
            std::string name = test["name"], why = test["failures"][0]["failure"];
            r.note(name, why.substr(0, why.find('\n')));
            failures.push_back({{"name", name}, {"failures", test["failures"]}});
        }
    bool ok = cases > 0 && failures.empty() && done.status == 0;
    if (!ok && failures.empty()) r.note("output", done.output.substr(0, 2000));
    r.check_that(ok, "op_tests, " + std::string(s.ops == "one" ? "one case of each op" : s.ops),
                 format("%ld cases in f32 and bf16, %ld failed", long(cases), long(failures.size())),
                 {{"cases", cases}, {"failures", failures}});
}

} // namespace nvl::hw

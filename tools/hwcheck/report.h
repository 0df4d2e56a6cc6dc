// What hwcheck found, as a table on the way and a JSON file at the end.
#pragma once
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

namespace nvl::hw {

using Json = nlohmann::ordered_json;

/// What every section knows.
struct Setting {
    bool quick = false, is_virtual = false;
    std::string ops; // "one", "all" or a filter of op_tests
};

class Report {
public:
    Json json; // sections add what they record beside their checks
    /// Prints a heading and runs it; what it throws is a failed check.
    void section(const std::string& name, const std::function<void()>& run);
    /// `text`: what was found, for the table; `values`: for the file.
    void check_that(bool ok, const std::string& name, const std::string& text, Json values = Json::object());
    /// A row without a verdict.
    void note(const std::string& name, const std::string& text);
    int failed = 0, passed = 0;

private:
    std::string section_;
};

void check_instructions(Report& r, const Setting& s); // goldens, errors of approximations
void check_products(Report& r, const Setting& s);     // cublasLt against ours, and what it refuses
void check_ops(Report& r, const Setting& s);          // op_tests beside this program
void check_training(Report& r, const Setting& s);     // a step as a graph against the CPU
void measure_memory(Report& r, const Setting& s);     // read, write, copy
void measure_products(Report& r, const Setting& s);   // backends of cuda_gemm

} // namespace nvl::hw

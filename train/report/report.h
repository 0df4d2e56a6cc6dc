// The report of a run of all stages: index.html (self-contained, curves as SVG, light and dark) and
// report.md.
#pragma once
#include <array>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace nvl {

using Json = nlohmann::ordered_json;

struct Row {
    std::vector<std::string> cells;
};
struct Table {
    std::string title;
    std::vector<std::string> head;
    std::vector<Row> rows;
};
struct Curve {
    std::string title, unit;
    std::vector<std::pair<double, double>> line; // (step, value) of every step
    std::vector<std::pair<double, double>> dots; // measured now and then
};
struct Talk {
    std::string task, question, answer;
    bool right;
};
/// What the pages are made of, apart from how they look.
struct Report {
    std::string title, subtitle;
    std::vector<std::pair<std::string, std::string>> headline; // value, what it is
    std::vector<Curve> curves;
    std::vector<Table> tables;
    std::vector<std::array<double, 3>> bars; // per task: tuned, base, best constant answer
    std::vector<std::string> bar_names;
    std::vector<Talk> talks;
    std::vector<std::pair<std::string, std::string>> samples; // prompt, continuation
    std::string footer;
};

/// Reads what the stages left in `run` (base/, sft/, *_chat.json, *.seconds); a stage that has not run is
/// left out. None at all is an error.
Report read_report(const std::string& run);
std::string to_html(const Report& report);
std::string to_markdown(const Report& report);

} // namespace nvl

#include <algorithm>
#include <array>
#include <cmath>

#include "engine/base/check.h"
#include "engine/base/text.h"
#include "train/report/report.h"

namespace nvl {

namespace {

const char* const STYLE = R"(
:root { --ink:#1d1d1f; --soft:#6e6e73; --line:#e3e3e8; --back:#fbfbfd; --card:#fff; --blue:#2563eb; --green:#0f9d58; --grey:#b8bcc6; --red:#c2410c; }
@media (prefers-color-scheme: dark) { :root { --ink:#f0f0f3; --soft:#9a9aa2; --line:#2e2e34; --back:#131316; --card:#1b1b20; --blue:#7aa2ff; --green:#4ccf8a; --grey:#5a5e69; --red:#ff9b6a; } }
* { box-sizing:border-box } body { margin:0; background:var(--back); color:var(--ink); font:16px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif; font-variant-numeric:tabular-nums }
main { max-width:880px; margin:0 auto; padding:64px 24px 96px }
h1 { font-size:44px; letter-spacing:-.02em; margin:0; line-height:1.1 } .sub { color:var(--soft); font-size:19px; margin:8px 0 40px }
h2 { font-size:22px; letter-spacing:-.01em; margin:56px 0 16px }
.cards { display:grid; grid-template-columns:repeat(auto-fit,minmax(150px,1fr)); gap:12px }
.card { background:var(--card); border:1px solid var(--line); border-radius:14px; padding:18px } .card b { display:block; font-size:26px; letter-spacing:-.02em; line-height:1.2 } .card span { color:var(--soft); font-size:14px }
figure { margin:0 0 20px; background:var(--card); border:1px solid var(--line); border-radius:14px; padding:20px } figcaption { color:var(--soft); font-size:14px; margin-bottom:8px }
svg { width:100%; height:auto; display:block } svg text { fill:var(--soft); font:12px system-ui,sans-serif }
table { border-collapse:collapse; width:100%; font-size:15px } td,th { text-align:left; padding:8px 12px 8px 0; border-bottom:1px solid var(--line); vertical-align:top } th { color:var(--soft); font-weight:500 } tr td:first-child { color:var(--soft) } .wide td:first-child { color:var(--ink) }
.talk { display:grid; gap:8px; margin:0 0 18px } .q,.a { padding:10px 14px; border-radius:16px; max-width:78%; white-space:pre-wrap; overflow-wrap:anywhere } .q { justify-self:end; background:var(--blue); color:var(--back) } .a { justify-self:start; background:var(--card); border:1px solid var(--line) } .a.wrong { border-color:var(--red) } .task { color:var(--soft); font-size:13px; text-align:center }
blockquote { margin:0 0 14px; padding:12px 16px; border-left:3px solid var(--blue); background:var(--card); white-space:pre-wrap; overflow-wrap:anywhere } blockquote b { font-weight:600 }
code { background:var(--card); border:1px solid var(--line); border-radius:8px; padding:10px 14px; display:block; font:14px ui-monospace,monospace; overflow-x:auto }
)";

std::string escaped(const std::string& text) {
    std::string out;
    for (char c : text) switch (c) {
        case '&': out += "&amp;"; break;
        case '<': out += "&lt;"; break;
        case '>': out += "&gt;"; break;
        case '"': out += "&quot;"; break;
        default: out += c;
        }
    return out;
}

// A round step such that some five fit into the range.
double tick(double range) {
    double raw = std::max(range, 1e-9) / 5, power = std::pow(10, std::floor(std::log10(raw)));
    for (double m : {1.0, 2.0, 5.0, 10.0})
        if (raw <= m * power) return m * power;
    return 10 * power;
}

std::string svg(const Curve& c) {
    constexpr double W = 800, H = 280, LEFT = 44, BOTTOM = 28, TOP = 10, RIGHT = 20;
    double x1 = c.line.back().first, y0 = 1e30, y1 = -1e30;
    for (auto* points : {&c.line, &c.dots})
        for (auto& [x, y] : *points) y0 = std::min(y0, y), y1 = std::max(y1, y);
    double step = tick(y1 - y0), x_step = std::max(1.0, tick(x1));
    y0 = std::floor(y0 / step) * step, y1 = std::max(y0 + step, std::ceil(y1 / step) * step);
    auto px = [&](double x) { return LEFT + (W - LEFT - RIGHT) * x / x1; };
    auto py = [&](double y) { return TOP + (H - TOP - BOTTOM) * (y1 - y) / (y1 - y0); };
    std::string s =
        format("<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"%s\">", W, H, escaped(c.title).c_str());
    for (double y = y0; y <= y1 + step / 2; y += step)
        s += format("<line x1=\"%g\" x2=\"%g\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"var(--line)\"/><text "
                    "x=\"%g\" y=\"%.1f\" text-anchor=\"end\">%g</text>",
                    LEFT, W - RIGHT, py(y), py(y), LEFT - 8, py(y) + 4, std::round(y * 1e6) / 1e6);
    for (double x = x_step; x <= x1; x += x_step)
        s += format("<text x=\"%.1f\" y=\"%g\" text-anchor=\"middle\">%g</text>", px(x), H - 8, x);
    s += "<polyline fill=\"none\" stroke=\"var(--blue)\" stroke-width=\"1.6\" stroke-linejoin=\"round\" "
         "points=\"";
    size_t every = std::max<size_t>(1, c.line.size() / 800);
    for (size_t i = 0; i < c.line.size(); i += every)
        s += format("%.1f,%.1f ", px(c.line[i].first), py(c.line[i].second));
    s += "\"/>";
    for (auto& [x, y] : c.dots)
        s += format("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"var(--green)\"><title>step %g: "
                    "%.4f</title></circle>",
                    px(x), py(y), x, y);
    return s + "</svg>";
}

std::string bars(const Report& r) {
    constexpr double W = 800, ROW = 58, LEFT = 130, FULL = 580;
    const char* colours[] = {"var(--green)", "var(--grey)", "var(--line)"};
    std::string s = format("<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"accuracy of the tasks\">", W,
                           ROW * double(r.bars.size()));
    for (size_t i = 0; i < r.bars.size(); i++) {
        double y = ROW * double(i) + 4;
        s += format("<text x=\"%g\" y=\"%g\" text-anchor=\"end\">%s</text>", LEFT - 12, y + 28,
                    escaped(r.bar_names[i]).c_str());
        for (size_t k = 0; k < 3; k++) {
            double v = r.bars[i][k], at = y + 15 * double(k);
            s += format("<rect x=\"%g\" y=\"%g\" width=\"%.1f\" height=\"12\" rx=\"3\" fill=\"%s\"/><text "
                        "x=\"%.1f\" y=\"%g\">%.1f%%</text>",
                        LEFT, at, std::max(2.0, FULL * v), colours[k], LEFT + std::max(2.0, FULL * v) + 8,
                        at + 10, 100 * v);
        }
    }
    return s + "</svg>";
}

std::string html(const Table& t) {
    std::string s =
        "<h2>" + escaped(t.title) + "</h2><table" + (t.head.size() > 2 ? " class=\"wide\"" : "") + ">";
    bool named = std::any_of(t.head.begin(), t.head.end(), [](auto& h) { return !h.empty(); });
    if (named) {
        s += "<tr>";
        for (auto& h : t.head) s += "<th>" + escaped(h) + "</th>";
        s += "</tr>";
    }
    for (auto& row : t.rows) {
        s += "<tr>";
        for (auto& cell : row.cells) s += "<td>" + escaped(cell) + "</td>";
        s += "</tr>";
    }
    return s + "</table>\n";
}

} // namespace

std::string to_html(const Report& r) {
    std::string s = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" "
                    "content=\"width=device-width,initial-scale=1\">"
                    "<title>" +
                    escaped(r.title) + "</title><style>" + STYLE + "</style><main>\n<h1>" + escaped(r.title) +
                    "</h1><p class=\"sub\">" + escaped(r.subtitle) + "</p>\n<div class=\"cards\">";
    for (auto& [value, what] : r.headline)
        s += "<div class=\"card\"><b>" + escaped(value) + "</b><span>" + escaped(what) + "</span></div>";
    s += "</div>\n";
    if (!r.bars.empty())
        s += "<h2>What it can do</h2><figure><figcaption>share of held-out questions answered correctly: "
             "tuned (green), before "
             "tuning (grey), the best constant answer (light)</figcaption>" +
             bars(r) + "</figure>\n";
    if (!r.talks.empty()) s += "<h2>It talks</h2>\n";
    for (auto& t : r.talks)
        s += "<div class=\"talk\"><div class=\"task\">" + escaped(t.task) + "</div><div class=\"q\">" +
             escaped(t.question) + "</div><div class=\"a" + (t.right ? "" : " wrong") + "\">" +
             escaped(t.answer) + "</div></div>\n";
    if (!r.curves.empty()) s += "<h2>How it learned</h2>\n";
    for (auto& c : r.curves)
        s += "<figure><figcaption>" + escaped(c.title) + ", " + escaped(c.unit) +
             " (line: every step; dots: held-out)</figcaption>" + svg(c) + "</figure>\n";
    if (!r.samples.empty()) s += "<h2>What the base model writes</h2>\n";
    for (auto& [prompt, text] : r.samples)
        s += "<blockquote><b>" + escaped(prompt) + "</b>" + escaped(text) + "</blockquote>\n";
    for (auto& t : r.tables) s += html(t);
    if (!r.footer.empty()) s += "<h2>Chat with it</h2><code>" + escaped(r.footer) + "</code>\n";
    return s + "</main></html>\n";
}

std::string to_markdown(const Report& r) {
    auto cell = [](std::string text) {
        for (size_t at = 0; (at = text.find_first_of("|\n", at)) != text.npos; at += 2)
            text.replace(at, 1, text[at] == '|' ? "\\|" : "  ");
        return text;
    };
    std::string s = "# " + r.title + "\n\n" + r.subtitle + "\n\n";
    for (auto& [value, what] : r.headline) s += "- **" + value + "** " + what + "\n";
    for (auto& t : r.tables) {
        s += "\n## " + t.title + "\n\n|";
        for (auto& h : t.head) s += " " + cell(h) + " |";
        s += "\n|";
        for (size_t i = 0; i < t.head.size(); i++) s += "---|";
        s += "\n";
        for (auto& row : t.rows) {
            s += "|";
            for (auto& c : row.cells) s += " " + cell(c) + " |";
            s += "\n";
        }
    }
    if (!r.talks.empty()) s += "\n## It talks\n\n| task | question | answer | |\n|---|---|---|---|\n";
    for (auto& t : r.talks)
        s += "| " + t.task + " | " + cell(t.question) + " | " + cell(t.answer) + " | " +
             (t.right ? "right" : "wrong") + " |\n";
    if (!r.samples.empty()) s += "\n## What the base model writes\n\n";
    for (auto& [prompt, text] : r.samples) s += "> **" + cell(prompt) + "**" + cell(text) + "\n\n";
    if (!r.footer.empty()) s += "\n## Chat with it\n\n    " + r.footer + "\n";
    return s;
}

} // namespace nvl

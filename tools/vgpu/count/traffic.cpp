#include "tools/vgpu/count/traffic.h"

#include <algorithm>
#include <mutex>
#include <utility>

namespace vgpu {

namespace {
struct Book {
    std::mutex mutex;
    std::vector<Traffic> kernels;
};
Book& book() {
    static Book* b = new Book;
    return *b;
}
} // namespace

Direction& Direction::operator+=(const Direction& d) {
    requested += d.requested, sectors += d.sectors, unique += d.unique;
    return *this;
}

Counts& Counts::operator+=(const Counts& w) {
    read += w.read, write += w.write;
    shared_bytes += w.shared_bytes, wavefronts += w.wavefronts, ideal += w.ideal;
    local_bytes += w.local_bytes;
    warp_instructions += w.warp_instructions, thread_instructions += w.thread_instructions;
    loads += w.loads, stores += w.stores;
    tensor += w.tensor, special += w.special, shuffle += w.shuffle, atomics += w.atomics;
    return *this;
}

/// Adds the counts of a launch, or of another kernel's launches, line by line.
static void add(Traffic& to, const Traffic& t) {
    to += t;
    to.launches += t.launches;
    to.l2.reads += t.l2.reads, to.l2.read_hits += t.l2.read_hits, to.l2.writes += t.l2.writes;
    to.l2.dram_read += t.l2.dram_read, to.l2.dram_written += t.l2.dram_written;
    for (const LineCounts& line : t.lines) {
        auto at = std::lower_bound(to.lines.begin(), to.lines.end(), line.ptx_line,
                                   [](const LineCounts& a, uint32_t n) { return a.ptx_line < n; });
        if (at != to.lines.end() && at->ptx_line == line.ptx_line)
            static_cast<Counts&>(*at) += line;
        else
            to.lines.insert(at, line);
    }
}

std::vector<Traffic> traffic() {
    std::lock_guard lock(book().mutex);
    return book().kernels;
}

Traffic traffic_of(std::string_view part) {
    Traffic sum;
    sum.kernel = part;
    for (const Traffic& t : traffic())
        if (t.kernel.find(part) != std::string::npos) add(sum, t);
    return sum;
}

void clear_traffic() {
    std::lock_guard lock(book().mutex);
    book().kernels.clear();
}

void add_traffic(Traffic t) {
    std::lock_guard lock(book().mutex);
    for (Traffic& known : book().kernels)
        if (known.kernel == t.kernel) return add(known, t);
    book().kernels.push_back(std::move(t));
}

// JSON ---------------------------------------------------------------------------------------------------

static std::string quoted(const std::string& s) {
    std::string q = "\"";
    for (char c : s) {
        if (c == '"' || c == '\\') q += '\\';
        q += c;
    }
    return q + "\"";
}

using Fields = std::vector<std::pair<const char*, uint64_t>>;

static std::string list(const Fields& fields) {
    std::string s;
    for (auto& [name, value] : fields)
        s += (s.empty() ? "\"" : ", \"") + std::string(name) + "\": " + std::to_string(value);
    return s;
}

static std::string json(const Direction& d) {
    return "{" + list({{"requested", d.requested}, {"sectors", d.sectors}, {"unique", d.unique}}) + "}";
}

static std::string json(const Counts& w) {
    return "\"read\": " + json(w.read) + ", \"write\": " + json(w.write) + ", " +
           list({{"shared_bytes", w.shared_bytes},
                 {"wavefronts", w.wavefronts},
                 {"ideal", w.ideal},
                 {"local_bytes", w.local_bytes},
                 {"warp_instructions", w.warp_instructions},
                 {"thread_instructions", w.thread_instructions},
                 {"loads", w.loads},
                 {"stores", w.stores},
                 {"tensor", w.tensor},
                 {"special", w.special},
                 {"shuffle", w.shuffle},
                 {"atomics", w.atomics}});
}

std::string traffic_json(bool lines) {
    std::string s = "[";
    for (const Traffic& t : traffic()) {
        s += (s.size() > 1 ? ",\n {" : "{") + std::string("\"kernel\": ") + quoted(t.kernel) + ", " +
             list({{"launches", t.launches}}) + ", " + json(t) + ", \"l2\": {" +
             list({{"reads", t.l2.reads},
                   {"read_hits", t.l2.read_hits},
                   {"writes", t.l2.writes},
                   {"dram_read", t.l2.dram_read},
                   {"dram_written", t.l2.dram_written}}) +
             "}";
        if (lines) {
            s += ", \"lines\": [";
            for (size_t i = 0; i < t.lines.size(); i++)
                s += (i ? ",\n   {" : "{") + std::string("\"source\": ") + quoted(t.lines[i].source) +
                     ", \"ptx_line\": " + std::to_string(t.lines[i].ptx_line) + ", " + json(t.lines[i]) + "}";
            s += "]";
        }
        s += "}";
    }
    return s + "]\n";
}

} // namespace vgpu

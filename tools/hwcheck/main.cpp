// Replays on the device at hand what tests claim of CUDA on the virtual GPU: instructions, cublasLt, every
// op, a training step, and what only hardware can tell: rates.
#include <cstdio>
#include <fstream>

#include "engine/base/check.h"
#include "engine/base/cli.h"
#include "engine/base/clock.h"
#include "engine/device/device.h"
#include "tools/hwcheck/report.h"

namespace nvl::hw {

void Report::section(const std::string& name, const std::function<void()>& run) {
    section_ = name;
    printf("\n%s\n", name.c_str());
    double start = seconds_now();
    try {
        run();
    } catch (const std::exception& e) {
        check_that(false, "finished", e.what());
    }
    json["seconds"][name] = seconds_now() - start;
    fflush(stdout);
}
void Report::check_that(bool ok, const std::string& name, const std::string& text, Json values) {
    (ok ? passed : failed)++;
    printf("  %-4s  %-48s  %s\n", ok ? "ok" : "FAIL", name.c_str(), text.c_str());
    fflush(stdout);
    Json row = {{"section", section_}, {"name", name}, {"ok", ok}, {"found", text}};
    row.update(values);
    json["checks"].push_back(row);
}
void Report::note(const std::string& name, const std::string& text) {
    printf("        %-48s  %s\n", name.c_str(), text.c_str());
    fflush(stdout);
}

} // namespace nvl::hw

int main(int argc, char** argv) {
    using namespace nvl;
    return run_main("hwcheck", [&] {
        Args args("hwcheck", "Checks and measures the CUDA device at hand; exit status 1 if a check fails.");
        auto& output = args.option("output", "hwcheck.json", "file for everything that was found");
        auto& quick = args.flag("quick", "small sizes, one case of each op; always so on the virtual GPU");
        auto& ops =
            args.option("ops", "", "one (case of each op), all, or a filter of op_tests; one if quick");
        if (!args.parse(argc, argv)) return 0;
        DeviceBackend& device = backend_of(device_from("cuda"));
        hw::Setting s;
        s.is_virtual = device.description().rfind("vgpu ", 0) == 0;
        s.quick = quick || s.is_virtual;
        s.ops = !ops.empty() ? ops : s.quick ? "one" : "all";
        std::ofstream file(output); // before minutes of work
        check(bool(file), "cannot write %s", output.c_str());

        hw::Report r;
        r.json = {{"device", device.description()}, {"virtual", s.is_virtual}, {"quick", s.quick}};
        printf("%s%s\n", device.description().c_str(), s.is_virtual ? " (virtual)" : "");
        r.section("instructions", [&] { check_instructions(r, s); });
        r.section("cublasLt", [&] { check_products(r, s); });
        r.section("training step", [&] { check_training(r, s); });
        r.section("ops", [&] { check_ops(r, s); });
        const std::string label = s.is_virtual ? " (virtual, not a measurement)" : "";
        r.section("memory" + label, [&] { measure_memory(r, s); });
        r.section("products" + label, [&] { measure_products(r, s); });
        r.json["passed"] = r.passed, r.json["failed"] = r.failed;
        file << r.json.dump(1) << "\n";
        check(bool(file.flush()), "cannot write %s", output.c_str());
        printf("\n%d checks passed, %d failed; %s\n", r.passed, r.failed, output.c_str());
        return r.failed ? 1 : 0;
    });
}

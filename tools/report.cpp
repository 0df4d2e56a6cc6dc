// report --run out/speedrun --output report: the report of a run as index.html and report.md.
#include <cstdio>

#include "engine/base/cli.h"
#include "engine/io/file.h"
#include "train/report/report.h"

int main(int argc, char** argv) {
    using namespace nvl;
    return run_main("report", [&] {
        Args args("report", "Writes index.html (self-contained) and report.md about the stages of a run.");
        auto& run = args.option("run", "out/speedrun", "folder with base/, sft/ and the evaluations");
        auto& output = args.option("output", "report", "folder to write to");
        if (!args.parse(argc, argv)) return 0;
        Report report = read_report(run);
        make_directories(output);
        write_file(output + "/index.html", to_html(report));
        write_file(output + "/report.md", to_markdown(report));
        std::printf("%s/index.html and %s/report.md are written\n", output.c_str(), output.c_str());
        return 0;
    });
}

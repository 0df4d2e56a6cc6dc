// embed: texts to vectors, by a sentence encoder.
#include <cstdio>
#include <iostream>

#include "engine/base/cli.h"
#include "engine/io/file.h"
#include "infer/embed.h"

using namespace nvl;

static int run(int argc, char** argv) {
    Args args("embed",
              "Turns texts into vectors: one by --text, one document by --file, else a line of stdin each.");
    auto& path = args.option("model", "", "folder of a sentence encoder (BERT)");
    auto& texts = args.list("text", "texts to embed");
    auto& file = args.option("file", "", "a file to embed as one text");
    auto& json = args.flag("json", "JSON lines {\"embedding\": [...]} instead of plain numbers");
    args.common();
    if (!args.parse(argc, argv)) return 0;
    check(!path.empty(), "expected --model with a folder");
    check(texts.empty() || file.empty(), "expected either --text or --file");
    Embedder embedder(path, dtype_from(args.dtype()), device_from(args.device()));
    std::vector<std::string> all = texts;
    if (!file.empty())
        all.push_back(read_file(file));
    else if (texts.empty())
        for (std::string line; std::getline(std::cin, line);) all.push_back(line);
    for (auto& vector : embedder.embed(all)) {
        std::string line = json ? "{\"embedding\":[" : "";
        for (size_t i = 0; i < vector.size(); i++)
            line += (i ? json ? "," : " " : "") + format("%.9g", double(vector[i]));
        std::printf("%s%s\n", line.c_str(), json ? "]}" : "");
    }
    return 0;
}

int main(int argc, char** argv) {
    return run_main("embed", [&] { return run(argc, argv); });
}

// tokenizer train | encode | decode | convert: the command line of data/tokenizer.
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "data/text/documents.h"
#include "data/tokenizer/train.h"
#include "engine/base/check.h"
#include "engine/base/cli.h"
#include "engine/base/clock.h"
#include "engine/base/text.h"
#include "engine/io/file.h"
#include "engine/io/printable.h"

using namespace nvl;
using Json = nlohmann::json;

// Documents go to the trainer in batches, so that the corpus need not fit in memory.
static void count_corpus(const std::vector<std::string>& paths, BpeTrainer& trainer) {
    std::vector<std::string> batch;
    size_t bytes = 0;
    auto flush = [&] {
        std::vector<std::string_view> views(batch.begin(), batch.end());
        trainer.add(views);
        batch.clear(), bytes = 0;
    };
    each_document(paths, [&](Document&& d) {
        auto take = [&](std::string text) { bytes += text.size(), batch.push_back(std::move(text)); };
        if (d.conversation)
            for (auto& m : d.conversation->messages) take(text_of(m));
        else
            take(std::move(d.text));
        if (bytes > (64 << 20)) flush();
    });
    flush();
}

static int train(int argc, char** argv) {
    Args args("tokenizer train", "Trains a byte-level BPE and writes it as a Hugging Face tokenizer.");
    auto& input = args.list("input", "files (.txt, .jsonl) and folders of them");
    auto& size = args.option("vocab-size", 32768, "ids: 256 bytes, merges and special tokens together");
    auto& output = args.option("output", "", "folder to write");
    auto& pattern =
        args.option("pattern", "gpt4-2", "how text is split: gpt4-2, gpt4-1, gpt4-3, gpt2, smollm");
    auto& min_count = args.option("min-count", 1, "pairs seen less often are not merged");
    auto& quiet = args.flag("quiet", "no progress line");
    args.common();
    if (!args.parse(argc, argv, 2)) return 0;
    check(!input.empty(), "expected --input with files or folders");
    check(!output.empty(), "expected --output with a folder");
    check(size > 0 && size <= 1 << 24, "--vocab-size: expected 1 to 16777216, found %ld", long(size));
    TrainOptions options;
    options.vocabulary_size = int(size), options.pattern = pattern, options.min_count = min_count;
    double start = seconds_now(), shown = start;
    if (!quiet)
        options.progress = [&](int done, int total) {
            if (seconds_now() - shown < 0.25) return;
            shown = seconds_now();
            std::fprintf(stderr, "\rmerging: %s of %s ids, %s ", with_commas(done).c_str(),
                         with_commas(total).c_str(), human_time(seconds_now() - start).c_str());
        };
    BpeTrainer trainer(options);
    count_corpus(input, trainer);
    double counted = seconds_now(), bytes = double(trainer.bytes());
    Tokenizer tokenizer = trainer.train();
    double trained = seconds_now();
    tokenizer.save(output);
    if (shown != start) std::fprintf(stderr, "\n");
    std::printf("%s: %s ids from %s of text, counted in %s, merged in %s\n", output.c_str(),
                with_commas(tokenizer.size()).c_str(), human(bytes, "B").c_str(),
                human_time(counted - start).c_str(), human_time(trained - counted).c_str());
    return 0;
}

// The inputs of encode and decode: --text, --file, or else each line of stdin.
static void each_input(Args& args, const std::string& text, const std::string& file,
                       const std::function<void(std::string&&)>& visit) {
    check(!args.given("text") || !args.given("file"), "expected --text or --file, found both");
    if (args.given("text")) return visit(std::string(text));
    if (args.given("file")) return visit(read_file(file));
    for (std::string line; std::getline(std::cin, line);) visit(std::move(line));
}

static int encode(int argc, char** argv) {
    Args args("tokenizer encode", "Text to ids, a line for each text.");
    auto& model = args.option("model", "", "model folder, tokenizer.json or GGUF file");
    auto& text = args.option("text", "", "one text");
    auto& file =
        args.option("file", "", "one document; without --text and --file, each line of stdin is a text");
    auto& special = args.flag("special", "special tokens in the text become their ids, bos and eos are added "
                                         "where the model wants them");
    auto& json = args.flag("json", "print {\"ids\": [...]}");
    args.common();
    if (!args.parse(argc, argv, 2)) return 0;
    check(!model.empty(), "expected --model with a model folder, a tokenizer.json or a GGUF file");
    Tokenizer tokenizer = load_tokenizer(model);
    each_input(args, text, file, [&](std::string&& t) {
        std::string line = json ? "{\"ids\":[" : "";
        const char* between = "";
        for (int id : tokenizer.encode(t, special, special))
            line += between + std::to_string(id), between = json ? "," : " ";
        line += json ? "]}\n" : "\n";
        std::fwrite(line.data(), 1, line.size(), stdout);
    });
    return 0;
}

static std::vector<int> parse_json_ids(const std::string& line) {
    Json json = Json::parse(line, nullptr, false);
    check(!json.is_discarded(), "not valid JSON: '%s'", printable(line).c_str());
    const Json* list = &json;
    if (json.is_object()) {
        check(json.contains("ids"), "expected an object with \"ids\", found '%s'", printable(line).c_str());
        list = &json["ids"];
    }
    check(list->is_array(), "expected a list of ids, found '%s'", printable(line).c_str());
    std::vector<int> ids;
    for (auto& v : *list) {
        check(v.is_number_integer() && v >= 0 && v <= INT32_MAX, "expected ids, found '%s'",
              printable(v.dump(-1, ' ', true, Json::error_handler_t::replace)).c_str());
        ids.push_back(v.get<int>());
    }
    return ids;
}
// {"ids": [1, 2]}, [1, 2], "1 2" or "1,2".
static std::vector<int> parse_ids(const std::string& line) {
    size_t first = line.find_first_not_of(" \t\r\n");
    if (first != line.npos && (line[first] == '{' || line[first] == '[')) return parse_json_ids(line);
    std::vector<int> ids;
    std::string word;
    for (char c : line + " ") {
        if (c != ' ' && c != ',' && c != '\t' && c != '\r' && c != '\n') {
            word += c;
        } else if (!word.empty()) {
            bool number = word.size() < 10 && word.find_first_not_of("0123456789") == word.npos;
            check(number, "expected ids, found '%s'", printable(word).c_str());
            ids.push_back(std::stoi(word));
            word.clear();
        }
    }
    return ids;
}

static int decode(int argc, char** argv) {
    Args args("tokenizer decode", "Ids to text: {\"ids\": [...]}, [...] or numbers, a list for each line.");
    auto& model = args.option("model", "", "model folder, tokenizer.json or GGUF file");
    auto& text = args.option("text", "", "one list of ids");
    auto& file =
        args.option("file", "", "a file with one list; without --text and --file, each line of stdin");
    auto& skip = args.flag("skip-special", "leave special tokens away");
    args.flag("special", "spell special tokens out (the default)");
    auto& json = args.flag("json", "print {\"text\": \"...\"}, ill-formed UTF-8 replaced by U+FFFD");
    args.common();
    if (!args.parse(argc, argv, 2)) return 0;
    check(!model.empty(), "expected --model with a model folder, a tokenizer.json or a GGUF file");
    Tokenizer tokenizer = load_tokenizer(model);
    each_input(args, text, file, [&](std::string&& line) {
        std::string out = tokenizer.decode(parse_ids(line), skip);
        if (json) out = Json{{"text", replace_invalid_utf8(out)}}.dump();
        if (json || !args.given("file")) out += "\n"; // a document comes back byte by byte
        std::fwrite(out.data(), 1, out.size(), stdout);
    });
    return 0;
}

static int convert(int argc, char** argv) {
    Args args("tokenizer convert", "Writes any tokenizer as a Hugging Face folder.");
    auto& model = args.option("model", "", "model folder, tokenizer.json or GGUF file");
    auto& output = args.option("output", "", "folder to write");
    args.common();
    if (!args.parse(argc, argv, 2)) return 0;
    check(!model.empty(), "expected --model with a model folder, a tokenizer.json or a GGUF file");
    check(!output.empty(), "expected --output with a folder");
    Tokenizer tokenizer = load_tokenizer(model);
    tokenizer.save(output);
    std::printf("%s: %s ids, sha256 %s\n", output.c_str(), with_commas(tokenizer.size()).c_str(),
                tokenizer.hash().c_str());
    return 0;
}

int main(int argc, char** argv) {
    return run_main("tokenizer", [&] {
        std::string command = argc > 1 ? argv[1] : "nothing";
        if (command == "train") return train(argc, argv);
        if (command == "encode") return encode(argc, argv);
        if (command == "decode") return decode(argc, argv);
        if (command == "convert") return convert(argc, argv);
        check(command == "--help" || command == "-h", "expected train, encode, decode or convert, found '%s'",
              printable(command).c_str());
        std::printf("tokenizer train --input FILES --vocab-size N --output DIR\n"
                    "tokenizer encode --model PATH [--special] [--json] [--text TEXT | --file FILE]\n"
                    "tokenizer decode --model PATH [--json] [--text IDS | --file FILE]\n"
                    "tokenizer convert --model PATH --output DIR\n"
                    "Each command answers --help.\n");
        return 0;
    });
}

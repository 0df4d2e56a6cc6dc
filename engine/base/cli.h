// Command lines: declared options, --help, one clear line for a mistake.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace nvl {

/// Declares, parses and holds the options of one command.
///   Args args("tokenizer train", "Trains a byte-level BPE.");
///   auto& n = args.option("vocab-size", 8192, "ids in the vocabulary");
///   args.parse(argc, argv);
/// Option values are read after parse. Unknown options, missing values and bad numbers throw Error with the
/// nearest name.
class Args {
public:
    Args(std::string command, std::string summary);
    ~Args();
    std::string& option(const std::string& name, const char* value, const std::string& help);
    int64_t& option(const std::string& name, int64_t value, const std::string& help);
    int64_t& option(const std::string& name, int value, const std::string& help) {
        return option(name, int64_t(value), help);
    }
    double& option(const std::string& name, double value, const std::string& help);
    bool& flag(const std::string& name, const std::string& help);
    /// Takes one or more values up to the next option: --input A B C.
    std::vector<std::string>& list(const std::string& name, const std::string& help);
    /// Words that are not options, in order; without this declaration they are errors.
    std::vector<std::string>& positional(const std::string& name, const std::string& help);
    /// --device, --dtype, --threads: the options every command takes. Applies threads when parsed.
    void common(const char* default_dtype = "f32");
    const std::string& device() const { return *device_; }
    const std::string& dtype() const { return *dtype_; }
    bool given(const std::string& name) const;
    /// Returns false after printing the help for --help.
    bool parse(int argc, char** argv, int first = 1);
    std::string help() const;

private:
    struct Option;
    Option& add(const std::string& name, const std::string& help);
    std::string command_, summary_;
    std::vector<std::unique_ptr<Option>> options_;
    Option* positional_ = nullptr;
    std::string *device_ = nullptr, *dtype_ = nullptr;
    int64_t* threads_ = nullptr;
};

/// Runs main's body; an exception becomes "name: error: ..." on stderr and exit status 1.
int run_main(const char* name, const std::function<int()>& body);

} // namespace nvl

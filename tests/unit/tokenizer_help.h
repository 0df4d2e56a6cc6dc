// Small tokenizers and random texts for the tokenizer's tests.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "data/tokenizer/train.h"
#include "engine/base/rng.h"
#include "engine/io/file.h"

namespace nvl::test {

inline Tokenizer train_on(const std::string& text, int size, const std::string& pattern = "gpt4-2") {
    TrainOptions options;
    options.vocabulary_size = size, options.pattern = pattern;
    BpeTrainer trainer(options);
    std::string_view view = text;
    trainer.add(std::span(&view, 1));
    return trainer.train();
}

inline std::string prose() {
    std::string text;
    for (int i = 0; i < 60; i++)
        text += "The quick brown fox, aged " + std::to_string(i * 37) +
                ", doesn't jump over the lazy dog; it's \"resting\" there.\n\n  It'll be there then, and "
                "they're the "
                "others: na\xC3\xAFve caf\xC3\xA9s, \xE4\xBD\xA0\xE5\xA5\xBD\xE4\xB8\x96\xE7\x95\x8C "
                "\xF0\x9F\x98\x80!\n";
    return text;
}

struct Dice {
    uint64_t seed, n = 0;
    uint32_t operator()(uint32_t below) { return philox(seed, n++, 0)[0] % below; }
};

/// A fresh folder under the test's temporary directory.
inline std::string folder(const std::string& name) {
    std::string path = ::testing::TempDir() + "/nvl_tokenizer_" + std::to_string(getpid()) + "_" + name;
    make_directories(path);
    return path;
}

} // namespace nvl::test

// Training: the merges of the definition, ties and threads.
#include <gtest/gtest.h>

#include <map>

#include "engine/base/check.h"
#include "engine/base/parallel.h"
#include "tokenizer_help.h"

using namespace nvl;
using namespace nvl::test;

using Merges = std::vector<std::pair<int, int>>;

// The definition: count all pairs of all chunks, merge the most frequent one (of equals, the smaller), start
// over.
static Merges slow_training(const std::string& text, int merges) {
    std::vector<uint32_t> ends;
    Splitter::named("gpt4-2").split(text, ends);
    std::vector<std::vector<int>> words;
    size_t begin = 0;
    for (uint32_t end : ends) {
        std::vector<int> word;
        for (; begin < end; begin++)
            word.push_back(int(std::find(bytes_by_letter(), bytes_by_letter() + 256, uint8_t(text[begin])) -
                               bytes_by_letter()));
        words.push_back(word);
    }
    Merges result;
    for (int id = 256; id < 256 + merges; id++) {
        std::map<std::pair<int, int>, int> counts;
        for (auto& w : words)
            for (size_t i = 1; i < w.size(); i++) counts[{w[i - 1], w[i]}]++;
        auto best = counts.begin();
        for (auto at = counts.begin(); at != counts.end(); ++at)
            if (at->second > best->second) best = at;
        result.push_back(best->first);
        for (auto& w : words)
            for (size_t i = 1; i < w.size(); i++)
                if (w[i - 1] == best->first.first && w[i] == best->first.second) {
                    w[i - 1] = id;
                    w.erase(w.begin() + long(i));
                }
    }
    return result;
}

TEST(TokenizerTrain, MergesFollowTheDefinition) {
    EXPECT_EQ(train_on(prose(), 272 + 120).parts().merges, slow_training(prose(), 120));
    std::string runs = "aaaaaaa aaaa aaa bbbb abab ababab\n";
    for (int i = 0; i < 4; i++) runs += runs + "aaaaa";
    EXPECT_EQ(train_on(runs, 272 + 10).parts().merges, slow_training(runs, 10));
}
TEST(TokenizerTrain, OfEqualPairsTheSmallerIdsAreMerged) {
    auto id = [](char c) {
        return int(std::find(bytes_by_letter(), bytes_by_letter() + 256, uint8_t(c)) - bytes_by_letter());
    };
    Merges expected{{id('a'), id('b')}, {id('c'), id('d')}, {id('x'), id('y')}};
    EXPECT_EQ(train_on("xy\ncd\nab\n", 272 + 3).parts().merges, expected);
}
TEST(TokenizerTrain, ThreadsAndBatchesDoNotMatter) {
    std::string hash;
    std::vector<std::string> texts;
    for (int i = 0; i < 50; i++) texts.push_back(prose().substr(size_t(i) * 20));
    for (int n : {1, 2, 5})
        for (size_t batch : {1, 7, 50}) {
            set_threads(n);
            TrainOptions options;
            options.vocabulary_size = 420;
            BpeTrainer trainer(options);
            std::vector<std::string_view> views(texts.begin(), texts.end());
            for (size_t i = 0; i < views.size(); i += batch)
                trainer.add(std::span(views).subspan(i, std::min(batch, views.size() - i)));
            std::string now = trainer.train().hash();
            if (hash.empty()) hash = now;
            EXPECT_EQ(now, hash);
        }
}
TEST(TokenizerTrain, SpecialsStandAtTheEnd) {
    Tokenizer t = train_on(prose(), 400);
    EXPECT_EQ(t.size(), 400);
    EXPECT_EQ(t.piece(0), "!");
    EXPECT_EQ(t.piece(384), "<|bos|>");
    for (size_t i = 0; i < conversation_specials().size(); i++)
        EXPECT_EQ(t.special(conversation_specials()[i]), 384 + int(i));
    EXPECT_EQ(conversation_specials()[8], "<|output_end|>"); // nanochat's nine come first
    EXPECT_TRUE(t.adds_bos());
}
TEST(TokenizerTrain, SizesThatCannotBe) {
    auto message = [](const std::string& text, int size) {
        try {
            train_on(text, size);
        } catch (const Error& e) {
            return std::string(e.what());
        }
        return std::string();
    };
    EXPECT_EQ(message("ab", 271),
              "tokenizer: expected a vocabulary of at least 272 (256 bytes and 16 special tokens), "
              "found 271");
    EXPECT_NE(message("", 300).find("the corpus is empty"), std::string::npos);
    EXPECT_NE(message("abc abc", 400).find("pairs for a vocabulary of 275 only, asked for 400"),
              std::string::npos);
    EXPECT_EQ(message("abc abc", 275), "");
    EXPECT_EQ(message("abc abc", 272), "");
}

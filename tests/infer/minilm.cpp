// A real sentence encoder against a trusted implementation: all-MiniLM-L6-v2.
#include <gtest/gtest.h>

#include "engine/io/file.h"
#include "infer/embed.h"

using namespace nvl;

namespace {

const std::string PATH = std::string(NVL_SOURCE) + "/models/cache/all-MiniLM-L6-v2";
const Json& golden() {
    static Json j = Json::parse(read_file(std::string(NVL_SOURCE) + "/tests/golden/real/minilm.json"));
    return j;
}
double dot(const std::vector<float>& a, const std::vector<float>& b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); i++) sum += double(a[i]) * b[i];
    return sum;
}

class MiniLM : public testing::Test {
protected:
    void SetUp() override {
        if (!exists(PATH)) GTEST_SKIP() << "no model in models/cache; tools/get_models.sh minilm obtains it";
    }
};

TEST_F(MiniLM, TokensOfTrickyTexts) {
    Tokenizer t = load_tokenizer(PATH);
    for (const Json& c : golden()["tokenization"])
        EXPECT_EQ(Json(t.encode(c["text"].get<std::string>(), false, true)), c["ids"]) << c["text"];
}

TEST_F(MiniLM, EmbeddingsOfTheReference) {
    Embedder embedder(PATH);
    std::vector<std::string> texts;
    for (const Json& e : golden()["embeddings"]) texts.push_back(e["text"]);
    auto ours = embedder.embed(texts);
    ASSERT_EQ(ours.size(), texts.size());
    double worst = 1;
    for (size_t i = 0; i < texts.size(); i++) {
        std::vector<float> theirs = golden()["embeddings"][i]["embedding"];
        ASSERT_EQ(ours[i].size(), theirs.size());
        worst =
            std::min(worst, dot(ours[i], theirs) / std::sqrt(dot(ours[i], ours[i]) * dot(theirs, theirs)));
        EXPECT_NEAR(dot(ours[i], ours[i]), 1, 1e-6);
        EXPECT_EQ(embedder.embed({&texts[i], 1})[0], ours[i]) << "alone, the same bits: " << texts[i];
        for (size_t k = 0; k < texts.size(); k++)
            EXPECT_NEAR(dot(ours[i], ours[k]), golden()["cosine"][i][k].get<double>(), 2e-3);
    }
    RecordProperty("worst_cosine", format("%.7f", worst));
    EXPECT_GE(worst, 0.9999);
    // longer than the model reads: cut, not refused
    std::string book;
    for (int i = 0; i < 2000; i++) book += "word ";
    embedder.embed({&book, 1});
    EXPECT_EQ(embedder.tokens_of_last(), embedder.max_tokens());
}

} // namespace

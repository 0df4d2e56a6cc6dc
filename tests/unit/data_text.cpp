// data/text: documents from files, their errors, and the split into training and validation.
#include <gtest/gtest.h>

#include <filesystem>

#include "data/text/documents.h"
#include "engine/base/check.h"
#include "engine/io/file.h"

using namespace nvl;
namespace fs = std::filesystem;

namespace {
struct Folder {
    std::string path = (fs::temp_directory_path() / ("nvl_text_" + std::to_string(getpid()))).string();
    Folder() { fs::create_directories(path + "/deep"); }
    ~Folder() { fs::remove_all(path); }
    std::string write(const std::string& name, std::string_view content) const {
        write_file(path + "/" + name, content);
        return path + "/" + name;
    }
};
std::string error_of(const std::function<void()>& f) {
    try {
        f();
    } catch (const Error& e) {
        return e.what();
    }
    return "no error";
}
std::string repeat(const std::string& s, int n) {
    std::string out;
    while (n--) out += s;
    return out;
}
} // namespace

TEST(DataText, FoldersInSortedOrder) {
    Folder f;
    f.write("b.jsonl", "{\"text\": \"two\"}\n\n{\"text\":\"three\", \"other\": 1}");
    f.write("a.txt", "\xEF\xBB\xBFone\r\nline\n\n");
    f.write("deep/c.jsonl", "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},"
                            "{\"role\":\"assistant\",\"content\":\"ho\"}]}\n");
    f.write("notes.md", "not a document");
    auto documents = read_documents({f.path});
    ASSERT_EQ(documents.size(), 4u);
    EXPECT_EQ(documents[0].text, "one\nline");
    EXPECT_EQ(documents[1].text, "two");
    EXPECT_EQ(documents[2].text, "three");
    EXPECT_EQ(documents[2].where, f.path + "/b.jsonl:3");
    ASSERT_TRUE(documents[3].conversation);
    EXPECT_EQ(text_of(documents[3].conversation->messages[1]), "ho");
}

TEST(DataText, LargeTextSplitsAtGaps) {
    std::string chapter = repeat("A line of prose that goes on.\n", 1500); // 45 kB
    auto parts = split_text(chapter + "\n\n\nCHAPTER II\n\n\n\n" + chapter + "\fAfter a form feed.\n");
    ASSERT_EQ(parts.size(), 3u);
    EXPECT_TRUE(parts[1].starts_with("CHAPTER II\n")); // the heading stays with its text
    EXPECT_EQ(parts[2], "After a form feed.");
    EXPECT_EQ(split_text("short\n\n\n\nstays whole").size(), 1u);
    EXPECT_EQ(split_text(repeat("x", 200000)).size(), 1u);
    EXPECT_EQ(split_text(" \n\f\n").size(), 0u);
    std::string no_text_lost;
    for (auto& p : split_text(repeat(chapter + "\n\n\n\n", 5))) no_text_lost += p + "\n";
    EXPECT_EQ(no_text_lost, repeat(chapter, 5));
}

TEST(DataText, ErrorsNameFileAndLine) {
    Folder f;
    auto error = [&](const std::string& name, std::string_view content) {
        std::string path = f.write(name, content);
        std::string text = error_of([&] { read_documents({path}); });
        EXPECT_EQ(text.find(path), 0u) << text;
        EXPECT_EQ(text.find('\n'), text.npos) << text;
        return text.substr(path.size());
    };
    EXPECT_TRUE(error("a.jsonl", "{\"text\":\"a\"}\n{\"text\":").starts_with(":2: not valid JSON"));
    EXPECT_TRUE(error("b.jsonl", "{\"txt\":\"a\"}").starts_with(":1: expected {\"text\""));
    EXPECT_TRUE(error("c.jsonl", "{\"text\":5}").starts_with(":1: expected {\"text\""));
    EXPECT_TRUE(error("d.jsonl", "\n[]").starts_with(":2: a conversation needs"));
    EXPECT_TRUE(error("e.txt", "fine\nbad \xff byte").starts_with(":2: not UTF-8 (byte 0xff)"));
    EXPECT_TRUE(error("f.txt", " \n\n").starts_with(": the corpus is empty"));
    EXPECT_TRUE(error("g.jsonl", "{\"text\":\"\"}").starts_with(": the corpus is empty"));
    EXPECT_TRUE(error("h.csv", "a,b").starts_with(": expected a .txt or .jsonl"));
    EXPECT_TRUE(error_of([&] { read_documents({f.path + "/none"}); }).ends_with("no such file or folder"));
    EXPECT_TRUE(error_of([&] { read_documents({f.path + "/deep"}); }).ends_with("no .txt or .jsonl file"));
    EXPECT_NE(error_of([&] { read_documents({}); }), "no error");
    EXPECT_NE(error("i.jsonl", repeat("[", 200000)), "no error"); // depth must not overflow the stack
}

TEST(DataText, ConversationsAreValidated) {
    auto error = [&](const std::string& messages) {
        Folder f;
        std::string path = f.write("c.jsonl", "{\"messages\":" + messages + "}");
        return error_of([&] { read_documents({path}); });
    };
    std::string u = R"({"role":"user","content":"a"})", a = R"({"role":"assistant","content":"b"})",
                s = R"({"role":"system","content":"c"})";
    EXPECT_EQ(error("[" + s + "," + u + "," + a + "," + u + "," + a + "]"), "no error");
    for (const std::string& bad :
         {"[" + a + "]", "[" + u + "," + u + "]", "[" + u + "," + s + "]", "[" + s + "]", std::string("7"),
          std::string("[7]"), std::string(R"([{"role":"user"}])"),
          std::string(R"([{"role":"user","content":[]}])"), std::string(R"([{"role":"boss","content":"x"}])"),
          std::string(R"([{"role":"user","content":[{"type":"python",)"
                      R"("text":"1"}]}])"),
          std::string(R"([{"role":"user","content":[{"type":"text"}]}])")})
        EXPECT_NE(error(bad), "no error") << bad;
}

TEST(DataText, HeldOutIsStateless) {
    std::vector<Document> documents;
    for (int i = 0; i < 2000; i++)
        documents.push_back({.text = "document " + std::to_string(i), .where = ""});
    auto out = held_out(documents, 0.1, 7);
    auto count = std::count(out.begin(), out.end(), true);
    EXPECT_GT(count, 150);
    EXPECT_LT(count, 250);
    std::vector<Document> reversed(documents.rbegin(), documents.rend());
    auto again = held_out(reversed, 0.1, 7);
    for (size_t i = 0; i < out.size(); i++) EXPECT_EQ(out[i], again[out.size() - 1 - i]);
    EXPECT_NE(out, held_out(documents, 0.1, 8));
    documents.resize(2);
    for (double fraction : {1e-9, 0.999999}) {
        auto two = held_out(documents, fraction, 1);
        EXPECT_NE(two[0], two[1]); // one on each side
    }
    documents.resize(1);
    EXPECT_FALSE(held_out(documents, 0.5, 1)[0]);
    EXPECT_THROW(held_out(documents, 1.0, 1), Error);
}

TEST(DataText, Utf8) {
    for (std::string_view good :
         {"", "a", "\xc2\x80", "\xe0\xa0\x80", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"})
        EXPECT_EQ(invalid_utf8(good), good.npos);
    for (std::string_view bad : {"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xed\xa0\x80",
                                 "\xf0\x80\x80\x80", "\xf4\x90\x80\x80", "\xf8\x80\x80\x80", "\xe2\x82"})
        EXPECT_EQ(invalid_utf8(bad), 0u);
}

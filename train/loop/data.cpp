#include "train/loop/data.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "data/chat/tasks.h"
#include "data/chat/with_tokenizer.h"
#include "data/pack/prepare.h"
#include "data/text/documents.h"
#include "data/tokenizer/train.h"
#include "engine/base/check.h"
#include "engine/base/clock.h"
#include "engine/base/rng.h"
#include "engine/base/text.h"
#include "engine/io/file.h"
#include "train/tasks/chat.h"

namespace nvl {
namespace fs = std::filesystem;

namespace {

constexpr uint64_t SPLIT_SEED = 1; // the same documents are held out whatever the seed of the run

// Name, size and time of every source file: what the shards were made from.
Json fingerprint(const std::vector<std::string>& paths) {
    Json files = Json::array();
    for (const std::string& path : corpus_files(paths))
        files.push_back(
            {path, int64_t(fs::file_size(path)), fs::last_write_time(path).time_since_epoch().count()});
    return files;
}

class ShardCache {
public:
    ShardCache(std::string folder, Json sources)
        : folder_(std::move(folder)), sources_(std::move(sources)), note_(folder_ + "/sources.json") {}
    bool fresh() const { return exists(note_) && Json::parse(read_file(note_), nullptr, false) == sources_; }
    /// Before writing: nothing half made may look complete.
    void clear() const {
        make_directories(folder_);
        fs::remove(note_);
        for (auto& entry : fs::directory_iterator(folder_))
            if (entry.path().extension() == ".shard") fs::remove(entry.path());
    }
    void complete() const { write_file(note_, sources_.dump(1) + "\n"); }

private:
    std::string folder_;
    Json sources_;
    std::string note_;
};

bool has_shards(const std::string& folder, const std::string& prefix) {
    if (!is_directory(folder)) return false;
    for (auto& entry : fs::directory_iterator(folder))
        if (entry.path().extension() == ".shard" &&
            entry.path().filename().string().rfind(prefix + "-", 0) == 0)
            return true;
    return false;
}

// Rows from the shards of the cache. A tokenizer other than the shards' is an error of Shard.
void open_rows(TrainingData& d, const TrainConfig& c, LongDocuments longer) {
    TokenizerId id = tokenizer_id(*d.tokenizer);
    int32_t padding = d.tokenizer->bos() >= 0 ? d.tokenizer->bos() : std::max(0, d.tokenizer->eos());
    DatasetOptions options{.long_documents = longer, .padding_id = padding};
    std::string folder = c.cache_folder();
    d.train = std::make_unique<PackedDataset>(find_shards(folder, "train"), id, c.row_length,
                                              uint64_t(c.seed), options);
    if (has_shards(folder, "validation"))
        d.validation = std::make_unique<PackedDataset>(find_shards(folder, "validation"), id, c.row_length,
                                                       uint64_t(c.seed), options);
    check(d.train->rows() > 0, "%s: the training split has no rows", folder.c_str());
    d.report += "training rows: " + d.train->packed().report() + "\n";
    if (d.validation) d.report += "validation rows: " + d.validation->packed().report() + "\n";
}

void train_tokenizer(const TrainConfig& c, const std::string& folder, const std::vector<std::string>& texts) {
    BpeTrainer trainer({.vocabulary_size = int(c.tokenizer_vocab)});
    std::vector<std::string_view> views(texts.begin(), texts.end());
    trainer.add(views);
    std::string temporary = folder + ".tmp";
    fs::remove_all(temporary);
    make_directories(temporary);
    trainer.train().save(temporary);
    publish_directory(temporary, folder);
}

// The training documents: a tokenizer must not see what is held out.
std::vector<std::string> training_texts(const TrainConfig& c) {
    std::vector<Document> documents = read_documents(c.data_path);
    std::vector<bool> held = held_out(documents, c.val_fraction, SPLIT_SEED);
    std::vector<std::string> texts;
    for (size_t i = 0; i < documents.size(); i++)
        if (!held[i]) texts.push_back(std::move(documents[i].text));
    return texts;
}

} // namespace

TrainingData prepare_text(const TrainConfig& c) {
    TrainingData d;
    std::string folder = c.cache_folder();
    d.tokenizer_folder = c.tokenizer_path.empty() ? folder + "/tokenizer" : c.tokenizer_path;
    make_directories(folder);
    check(!c.data_path.empty() || !c.data_cache.empty(), "data.path: name the text to train on");
    if (c.tokenizer_path.empty() && !exists(d.tokenizer_folder)) {
        check(!c.data_path.empty(),
              "tokenizer.path: shards of data.cache alone need the tokenizer they were made with");
        double start = seconds_now();
        train_tokenizer(c, d.tokenizer_folder, training_texts(c));
        d.report += format("tokenizer: %ld ids, trained in %s\n", c.tokenizer_vocab,
                           human_time(seconds_now() - start).c_str());
    }
    d.tokenizer = std::make_unique<Tokenizer>(load_tokenizer(d.tokenizer_folder));
    check(!c.tokenizer_path.empty() || d.tokenizer->size() == c.tokenizer_vocab,
          "%s: has %d ids, tokenizer.vocab asks for %ld; remove it or choose another data.cache",
          d.tokenizer_folder.c_str(), d.tokenizer->size(), c.tokenizer_vocab);
    if (!c.data_path.empty()) {
        PrepareOptions options{.validation_fraction = c.val_fraction, .seed = SPLIT_SEED};
        options.shards.begin = d.tokenizer->bos() >= 0 ? d.tokenizer->bos() : d.tokenizer->eos();
        d.report +=
            prepare_corpus(c.data_path, folder, encoder(*d.tokenizer), tokenizer_id(*d.tokenizer), options)
                .report() +
            "\n";
    }
    open_rows(d, c, LongDocuments::cut);
    return d;
}

// The share of n conversations, but at least one where a share is asked for and there are two.
static size_t held_out_count(size_t n, double share) {
    if (share <= 0 || n < 2) return 0;
    return std::clamp(size_t(std::llround(share * double(n))), size_t(1), n - 1);
}

TrainingData prepare_chat(const TrainConfig& c) {
    TrainingData d;
    std::string folder = c.cache_folder();
    d.tokenizer_folder = c.tokenizer_path.empty() ? c.init_from : c.tokenizer_path;
    check(!d.tokenizer_folder.empty(), "sft: set init_from to the checkpoint to tune (or tokenizer.path)");
    d.tokenizer = std::make_unique<Tokenizer>(load_tokenizer(d.tokenizer_folder));
    Json sources{{"tokenizer", d.tokenizer->hash()}, {"val", c.val_fraction}, {"row", c.row_length}};
    sources["files"] = c.data_path.empty() ? Json() : fingerprint(c.data_path);
    sources["tasks"] = {c.spelling,      c.letter_count, c.arithmetic, c.identity,
                        c.identity_path, c.words_path,   c.seed,       c.turns};
    ShardCache cache(folder, sources);
    if (!cache.fresh()) {
        std::vector<Conversation> all = chat_mixture(c), train, held;
        size_t out = held_out_count(all.size(), c.val_fraction);
        for (size_t i = 0; i < all.size(); i++) { // by position: the order of the mixture is fixed
            bool is_held = permuted(i, all.size(), SPLIT_SEED) < out;
            (is_held ? held : train).push_back(std::move(all[i]));
        }
        check(!train.empty(), "sft: no conversations; set data.path or the counts of tasks.*");
        ChatTemplate chat(chat_tokenizer(*d.tokenizer));
        TokenizerId id = tokenizer_id(*d.tokenizer);
        cache.clear();
        write_chat_shard(folder + "/train-00000.shard", train, chat, id, c.row_length);
        if (!held.empty()) write_chat_shard(folder + "/validation-00000.shard", held, chat, id, c.row_length);
        cache.complete();
        d.report += format("conversations: %zu for training, %zu held out\n", train.size(), held.size());
    }
    open_rows(d, c, LongDocuments::crop);
    return d;
}

} // namespace nvl

// Runs of the built commands, and small configs in temporary folders.
#pragma once
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <map>
#include <string>
#include <vector>

#include "engine/base/check.h"
#include "engine/io/file.h"
#include "tests/unit/files.h"
#include "train/loop/trainer.h"

namespace nvl::testing {

using Folder = TemporaryFolder;

struct Outcome {
    int status = -1; // exit status; -signal if killed
    std::string output;
};

/// Starts build/bin/NAME; its output goes to the file `log`.
/// `file_limit`: no file may grow beyond these bytes, as on a full disk.
inline pid_t start(const std::string& name, const std::vector<std::string>& words, const std::string& log,
                   int64_t file_limit = 0) {
    pid_t child = fork();
    if (child == 0) {
        if (file_limit) {
            signal(SIGXFSZ, SIG_IGN); // write() then fails instead
            rlimit limit{rlim_t(file_limit), rlim_t(file_limit)};
            setrlimit(RLIMIT_FSIZE, &limit);
        }
        int f = open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
        dup2(f, 1), dup2(f, 2);
        std::string path = std::string(NVL_BIN) + "/" + name;
        std::vector<char*> argv{path.data()};
        for (auto& w : words) argv.push_back(const_cast<char*>(w.c_str()));
        argv.push_back(nullptr);
        execv(path.c_str(), argv.data());
        _exit(127);
    }
    return child;
}
inline int wait_for(pid_t child) {
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}
inline Outcome command(const std::string& name, const std::vector<std::string>& words) {
    Folder f;
    Outcome o;
    o.status = wait_for(start(name, words, f / "log"));
    o.output = read_file(f / "log");
    return o;
}

inline const std::string TINY = std::string(NVL_SOURCE) + "/train/configs/tiny.yaml";

/// tiny.yaml, smaller still, with a common cache of tokens so that a test trains one tokenizer.
inline std::vector<std::string> tiny_words(const std::string& out, std::vector<std::string> more = {}) {
    static Folder cache;
    std::vector<std::string> words{"out_dir=" + out,
                                   "data.cache=" + cache / "data",
                                   "steps=12",
                                   "eval.every=0",
                                   "sample.every=0",
                                   "save.every=4",
                                   "model.num_hidden_layers=1",
                                   "data.row_length=32",
                                   "batch.rows=4"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
}
inline std::vector<std::string> with_config(std::vector<std::string> words) {
    words.insert(words.begin(), TINY);
    return words;
}

/// Trains in this process; returns the losses.
inline std::vector<double> train_here(const std::string& out, std::vector<std::string> more = {}) {
    TrainConfig c = read_config(TINY, tiny_words(out, std::move(more)));
    Trainer t(c, prepare_text(c));
    t.run();
    return t.losses();
}
inline std::string weights_sha(const std::string& out, int64_t step) {
    return sha256_file(checkpoint_folder(out, step) + "/model.safetensors") +
           sha256_file(checkpoint_folder(out, step) + "/optimizer.safetensors");
}

} // namespace nvl::testing

#include "engine/io/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "engine/base/check.h"

namespace nvl {
namespace fs = std::filesystem;

namespace {
struct Descriptor {
    int fd;
    explicit Descriptor(int f) : fd(f) {}
    ~Descriptor() {
        if (fd >= 0) close(fd);
    }
    Descriptor(const Descriptor&) = delete;
};
Descriptor open_to_read(const std::string& path) {
    int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    check(fd >= 0, "%s: cannot open: %s", path.c_str(), std::strerror(errno));
    return Descriptor(fd);
}
size_t regular_size(const Descriptor& f, const std::string& path) {
    struct stat s {};
    check(fstat(f.fd, &s) == 0, "%s: %s", path.c_str(), std::strerror(errno));
    check(S_ISREG(s.st_mode), "%s: expected a file, found %s", path.c_str(),
          S_ISDIR(s.st_mode) ? "a folder" : "something else");
    return size_t(s.st_size);
}
void sync_path(const std::string& path) {
    Descriptor f(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (f.fd >= 0) fsync(f.fd);
}
std::string parent_of(const std::string& path) {
    std::string parent = fs::path(path).parent_path().string();
    return parent.empty() ? "." : parent;
}
} // namespace

std::string read_file(const std::string& path) {
    Descriptor f = open_to_read(path);
    std::string text(regular_size(f, path), '\0');
    for (size_t at = 0; at < text.size();) {
        ssize_t n = read(f.fd, text.data() + at, text.size() - at);
        if (n < 0 && errno == EINTR) continue;
        check(n > 0, "%s: cannot read: %s", path.c_str(),
              n ? std::strerror(errno) : "the file became shorter");
        at += size_t(n);
    }
    return text;
}
bool is_directory(const std::string& path) { return fs::is_directory(path); }
bool exists(const std::string& path) { return fs::exists(path); }
void make_directories(const std::string& path) {
    std::error_code error;
    fs::create_directories(path, error);
    check(!error, "%s: cannot create the folder: %s", path.c_str(), error.message().c_str());
}

void write_file(const std::string& path,
                const std::function<void(const std::function<void(const void*, size_t)>&)>& produce) {
    std::string temporary = path + ".tmp" + std::to_string(getpid());
    try {
        Descriptor f(open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
        check(f.fd >= 0, "%s: cannot write: %s", path.c_str(), std::strerror(errno));
        produce([&](const void* data, size_t bytes) {
            for (auto* p = static_cast<const char*>(data); bytes;) {
                ssize_t n = write(f.fd, p, bytes);
                if (n < 0 && errno == EINTR) continue;
                check(n > 0, "%s: cannot write: %s", path.c_str(), std::strerror(n ? errno : ENOSPC));
                p += n, bytes -= size_t(n);
            }
        });
        check(fsync(f.fd) == 0, "%s: cannot write: %s", path.c_str(), std::strerror(errno));
    } catch (...) {
        unlink(temporary.c_str());
        throw;
    }
    check(rename(temporary.c_str(), path.c_str()) == 0, "%s: cannot write: %s", path.c_str(),
          std::strerror(errno));
    sync_path(parent_of(path));
}
void write_file(const std::string& path, std::string_view content) {
    write_file(path, [&](auto& write) { write(content.data(), content.size()); });
}

void publish_directory(const std::string& temporary, const std::string& path) {
    for (auto& entry : fs::recursive_directory_iterator(temporary)) sync_path(entry.path().string());
    sync_path(temporary);
    std::string old;
    if (exists(path)) { // a directory cannot be replaced in one call: move the old one aside, then remove it
        old = path + ".old" + std::to_string(getpid());
        check(rename(path.c_str(), old.c_str()) == 0, "%s: cannot replace: %s", path.c_str(),
              std::strerror(errno));
    }
    check(rename(temporary.c_str(), path.c_str()) == 0, "%s: cannot write: %s", path.c_str(),
          std::strerror(errno));
    sync_path(parent_of(path));
    if (!old.empty()) fs::remove_all(old);
}

MappedFile::MappedFile(const std::string& path) : path_(path) {
    Descriptor f = open_to_read(path);
    size_ = regular_size(f, path);
    if (!size_) return;
    void* p = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, f.fd, 0);
    check(p != MAP_FAILED, "%s: cannot map: %s", path.c_str(), std::strerror(errno));
    data_ = static_cast<const std::byte*>(p);
}
MappedFile::~MappedFile() {
    if (data_) munmap(const_cast<std::byte*>(data_), size_);
}

} // namespace nvl

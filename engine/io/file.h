// Files: whole reads, memory maps, and writes that are complete or not there at all.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace nvl {

std::string read_file(const std::string& path);
bool is_directory(const std::string& path);
bool exists(const std::string& path);
void make_directories(const std::string& path);
/// Writes to a temporary beside `path`, fsyncs, renames. A full disk or a crash leaves the old file
/// untouched.
void write_file(const std::string& path, std::string_view content);
/// The same for content that is produced piece by piece: produce(write) calls write(data, bytes) in order.
void write_file(const std::string& path,
                const std::function<void(const std::function<void(const void*, size_t)>&)>& produce);
/// Renames a finished temporary directory to `path`, replacing what is there, after syncing every file in it.
void publish_directory(const std::string& temporary, const std::string& path);
std::string sha256(std::span<const std::byte> bytes); // lower-case hex
std::string sha256_file(const std::string& path);

/// A read-only map of a whole file. The size is taken once: readers check offsets against it before they
/// touch bytes.
class MappedFile {
public:
    explicit MappedFile(const std::string& path);
    ~MappedFile();
    MappedFile(const MappedFile&) = delete;
    std::span<const std::byte> bytes() const { return {data_, size_}; }
    const std::string& path() const { return path_; }

private:
    std::string path_;
    const std::byte* data_ = nullptr;
    size_t size_ = 0;
};

} // namespace nvl

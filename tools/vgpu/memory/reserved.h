// Virtual memory that costs nothing until it is touched, and then reads as zero.
#pragma once
#include <cstddef>
#include <cstdint>

namespace vgpu {

class Reserved {
public:
    Reserved() = default;
    Reserved(size_t bytes, bool accessible);
    ~Reserved();
    Reserved(Reserved&& other) noexcept { *this = static_cast<Reserved&&>(other); }
    Reserved& operator=(Reserved&& other) noexcept;

    std::byte* data() const { return data_; }
    size_t size() const { return size_; }
    template <class T> T* as() const { return reinterpret_cast<T*>(data_); }
    /// Gives the whole pages inside of [offset, offset + bytes) back to the system; they read as zero again.
    void drop(size_t offset, size_t bytes);
    /// Makes pages (whole ones that contain the range) accessible, or not.
    void protect(size_t offset, size_t bytes, bool accessible);

private:
    std::byte* data_ = nullptr;
    size_t size_ = 0;
};

} // namespace vgpu

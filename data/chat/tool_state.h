// The tool protocol while text is generated: when the model closes a call, the calculator's answer is forced.
#pragma once
#include <vector>

#include "data/chat/template.h"

namespace nvl {

/// One per sequence. Feed it every sampled id; when it returns ids, the generator appends them as they are
/// (it does not feed them back) before it samples again.
class ToolState {
public:
    explicit ToolState(const ChatTemplate& chat) : chat_(&chat) {}

    /// <|python_end|> after a <|python_start|> answers <|output_start|> result <|output_end|>, where the
    /// result is "error" if the calculator has none. Everything else answers nothing. A turn that ends inside
    /// a call, or a call of more than 256 ids, drops it.
    std::vector<int32_t> feed(int32_t id);
    bool collecting() const { return collecting_; }
    void reset() { collecting_ = false, call_.clear(); }

private:
    const ChatTemplate* chat_;
    bool collecting_ = false;
    std::vector<int32_t> call_;
};

} // namespace nvl

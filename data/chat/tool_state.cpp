#include "data/chat/tool_state.h"

#include "data/chat/calculator.h"

namespace nvl {

std::vector<int32_t> ToolState::feed(int32_t id) {
    if (id == chat_->python_start) {
        reset();
        collecting_ = true;
        return {};
    }
    if (!collecting_) return {};
    if (id != chat_->python_end) {
        call_.push_back(id);
        if (chat_->ends_turn(id) || call_.size() > 256) reset();
        return {};
    }
    std::string result = calculate(chat_->tokenizer().decode(call_)).value_or("error");
    reset();
    std::vector<int32_t> forced = chat_->tokenizer().encode(result);
    forced.insert(forced.begin(), chat_->output_start);
    forced.push_back(chat_->output_end);
    return forced;
}

} // namespace nvl

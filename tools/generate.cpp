// generate: continues a prompt, as text or as JSON with log probabilities and speeds.
#include <charconv>
#include <cstdio>

#include "engine/base/cli.h"
#include "engine/base/text.h"
#include "infer/chat_format.h"
#include "infer/generate.h"
#include "infer/load.h"
#include "infer/read_bandwidth.h"
#include "tools/sampling_options.h"

using namespace nvl;

namespace {

std::vector<int32_t> parse_ids(const std::string& text) {
    std::vector<int32_t> ids;
    for (const std::string& part : split(text, ',')) {
        int32_t id = 0;
        auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), id);
        check(error == std::errc() && end == part.data() + part.size(),
              "--prompt-ids expects numbers with commas between them, found \"%s\"", part.c_str());
        ids.push_back(id);
    }
    return ids;
}

void print_json(const std::vector<int32_t>& prompt, const Generation& g, const GenerationSpeed& speed,
                Engine& engine) {
    Json out;
    out["prompt_ids"] = prompt;
    out["ids"] = g.ids;
    out["text"] = g.text;
    out["logprobs"] = g.logprobs;
    out["finish"] = name_of(g.finish);
    out["prefill_tokens_per_second"] = speed.prefill_per_second();
    out["decode_tokens_per_second"] = speed.decode_per_second();
    if (engine.program().device() != Device::cpu) { // whose memory bandwidth is not measured here
        std::printf("%s\n", out.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
        return;
    }
    double context = double(prompt.size()) + double(g.ids.size()) / 2, floor = read_bandwidth();
    double moved = engine.decode_bytes(int64_t(context)) * speed.decode_per_second();
    out["decode_bytes_per_second"] = moved;
    out["memory_bytes_per_second"] = floor;
    out["decode_share_of_memory_bandwidth"] = moved / floor;
    std::printf("%s\n", out.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
}

// What a user says, as the model was tuned to read it. `format` must live as long as the request.
Request say(const std::string& text, const Tokenizer& tokenizer, std::optional<ChatFormat>& format) {
    format.emplace(tokenizer);
    Request r;
    r.prompt = format->prompt({{user_says(text)}});
    r.stop_ids = format->stop_ids(), r.tools = format->tools();
    return r;
}

void print_ids(const std::vector<int32_t>& ids) {
    for (size_t i = 0; i < ids.size(); i++) std::printf("%d%c", ids[i], i + 1 < ids.size() ? ',' : '\n');
}

int run(int argc, char** argv) {
    Args args("generate", "Continues a prompt.");
    auto& path = args.option("model", "", "Hugging Face folder or .gguf file");
    auto& prompt = args.option("prompt", "", "text to continue");
    auto& prompt_ids = args.option("prompt-ids", "", "token ids to continue: 1,2,3");
    auto& chat = args.flag("chat", "the prompt is what a user says; the answer is the assistant's");
    auto& special = args.flag("special", "special tokens spelled out in the prompt become their ids");
    auto& max_tokens = args.option("max-tokens", 128, "most tokens to generate");
    SamplingOptions sampling(args, {.temperature = 0});
    auto& stop = args.list("stop", "end in front of any of these texts");
    auto& ignore_eos = args.flag("ignore-eos", "go on after the token that ends a text");
    auto& json = args.flag("json", "one JSON object instead of the text");
    args.common();
    if (!args.parse(argc, argv)) return 0;
    check(!path.empty(), "expected --model; see --help");
    check(args.given("prompt") != args.given("prompt-ids"), "expected one of --prompt and --prompt-ids");
    check(!chat || (args.given("prompt") && !special), "--chat goes with --prompt, without --special");

    auto loaded = load_for_inference(path, dtype_from(args.dtype()), device_from(args.device()));
    std::optional<ChatFormat> format;
    Request r = chat ? say(prompt, loaded->need_tokenizer(), format)
                : args.given("prompt")
                    ? Request{.prompt = loaded->need_tokenizer().encode(prompt, special, true)}
                    : Request{.prompt = parse_ids(prompt_ids)};
    r.sampling = sampling.params(), r.seed = sampling.seed();
    r.max_tokens = max_tokens;
    if (!chat) r.stop_ids = loaded->stop_ids;
    if (ignore_eos) r.stop_ids.clear();
    r.stop = stop;
    int64_t room = std::min(loaded->model->dims.context, int64_t(r.prompt.size()) + max_tokens);
    Engine engine(*loaded->model,
                  {.dtype = loaded->dtype, .tokens_per_sequence = std::max<int64_t>(room, 1), .pack = true});
    Generator generator(engine, loaded->tokenizer ? &*loaded->tokenizer : nullptr);
    Generation g = generator.run(r, [&](size_t, Part::Kind, std::string_view text) {
        if (!json) std::fwrite(text.data(), 1, text.size(), stdout), std::fflush(stdout);
        return true;
    });
    if (json)
        print_json(r.prompt, g, generator.speed, engine);
    else if (loaded->tokenizer)
        std::printf("\n");
    else
        print_ids(g.ids);
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    return run_main("generate", [&] { return run(argc, argv); });
}

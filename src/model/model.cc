#include "model/model.h"

#include <fmt/format.h>

#include <ctime>

namespace rung::model {

std::string ModelText::chat_identity() const {
  return time ? fmt::format("{}\ntime {}", chat_source(), *time) : chat_source();
}

int64_t Today() {
  constexpr int64_t kDay = 86400;
  return static_cast<int64_t>(std::time(nullptr)) / kDay * kDay;
}

Result<ModelText> LoadText(const Path& path, bool raw, const std::string& chat_template, int64_t vocabulary,
                           std::optional<int64_t> time) {
  const auto tokenizer = [&]() -> Result<text::Tokenizer> {
    if (!IsGgufFile(path)) return text::Tokenizer::FromFolder(path);
    Result<io::Gguf> gguf = io::Gguf::Open(path);
    if (!gguf.ok()) return gguf.failure();
    return text::Tokenizer::FromGguf(gguf.value());
  }();
  if (!tokenizer.ok()) return tokenizer.failure();
  if (const int64_t ids = tokenizer.value().vocab_size(); ids > vocabulary) {
    return Failure{
        fmt::format("{}: the tokenizer has ids up to {}, the model's vocabulary is {}: give the "
                    "tokenizer that belongs to the model",
                    path.string(), ids - 1, vocabulary)};
  }
  ModelText loaded{tokenizer.value(), std::nullopt};
  const std::string& source = chat_template.empty() ? loaded.tokenizer.chat_template() : chat_template;
  if (raw || source.empty()) return loaded;
  const std::string name = chat_template.empty() ? path.string() : "--chat-template or the adapter";
  Result<text::ChatTemplate> chat = text::ChatTemplate::Parse(source, name);
  if (!chat.ok())
    return Failure{fmt::format("{} (--raw goes on without a chat template)", chat.failure().message)};
  loaded.chat = std::move(chat).value();
  if (loaded.chat->asks_time()) loaded.time = time ? *time : Today();
  return loaded;
}

}  // namespace rung::model

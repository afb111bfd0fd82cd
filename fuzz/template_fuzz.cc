// Whatever the bytes: a message, or a rendering whose spans lie in its text. A NUL ends the template; the
// content of the assistant messages follows, and after another NUL the JSON of the other keys of the first of
// them, which is given as a tool too.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "text/chat_template.h"

namespace {

std::string TakePart(std::string_view& bytes, const char* otherwise) {
  const size_t cut = std::min(bytes.find('\0'), bytes.size());
  const std::string part(bytes.empty() ? otherwise : bytes.substr(0, cut));
  bytes.remove_prefix(std::min(cut + 1, bytes.size()));
  return part;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const rung::Result<rung::text::ChatTemplate> parsed =
      rung::text::ChatTemplate::Parse(TakePart(bytes, ""), "fuzz");
  if (!parsed.ok()) {
    if (parsed.failure().message.empty()) std::abort();
    return 0;
  }
  const std::string content = TakePart(bytes, " answer ");
  const std::string extra =
      TakePart(bytes, R"({"tool_calls": [{"function": {"name": "f", "arguments": {"a": [1, "x"]}}}]})");
  const std::vector<rung::text::Message> messages = {{"system", "s"},
                                                     {"user", "u"},
                                                     {"assistant", content, extra},
                                                     {"tool", "v", R"({"name": "f"})"},
                                                     {"assistant", content}};
  rung::text::RenderOptions options;
  options.add_generation_prompt = true;
  options.bos = "<s>";
  options.eos = "</s>";
  options.tools = "[" + extra + "]";
  options.now = 1721999109;
  const rung::Result<rung::text::Rendered> rendered = parsed.value().Render(messages, options);
  if (!rendered.ok()) {
    if (rendered.failure().message.empty()) std::abort();
    return 0;
  }
  size_t end = 0;
  for (const rung::text::Rendered::Span& span : rendered.value().assistant) {
    if (span.begin < end || span.begin >= span.end || span.end > rendered.value().text.size()) std::abort();
    end = span.end;
  }
  return 0;
}

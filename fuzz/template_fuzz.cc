// Whatever the bytes: a message, or a rendering whose spans lie in its text. A NUL ends the template; what
// follows is the content of the assistant message.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const size_t cut = std::min(bytes.find('\0'), bytes.size());
  const rung::Result<rung::text::ChatTemplate> parsed =
      rung::text::ChatTemplate::Parse(bytes.substr(0, cut), "fuzz");
  if (!parsed.ok()) {
    if (parsed.failure().message.empty()) std::abort();
    return 0;
  }
  const std::string content(cut < size ? bytes.substr(cut + 1) : " answer ");
  const rung::Result<rung::text::Rendered> rendered = parsed.value().Render(
      {{"system", "s"}, {"user", "u"}, {"assistant", content}, {"user", "v"}, {"assistant", content}}, true,
      "<s>", "</s>");
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

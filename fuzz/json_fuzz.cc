// Whatever the text: a message, or the document that nlohmann's own parser builds.
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "io/json_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const rung::Result<nlohmann::json> parsed = rung::io::ParseJson(text, "fuzz");
  if (!parsed.ok()) {
    if (parsed.failure().message.size() <= sizeof("fuzz:")) std::abort();
    return 0;
  }
  if (parsed.value() != nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false)) std::abort();
  return 0;
}

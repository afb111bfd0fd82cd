// Data sets: no bytes may do more than fail with a message, and what is read is a whole record.
#include <cstdint>
#include <string_view>

#include "base/text.h"
#include "data/jsonl.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  rung::data::JsonlOptions options;
  // Half of the inputs go on after bad lines.
  options.max_bad_lines = size % 2 == 0 ? 0 : 1000;
  const auto records = rung::data::ParseJsonl(bytes, "fuzz", options);
  if (!records.ok()) {
    RUNG_CHECK(!records.failure().message.empty(), "a failure says why");
    return 0;
  }
  RUNG_CHECK(!records.value().empty(), "a data set without a record is a failure");
  for (const rung::data::Record& record : records.value()) {
    RUNG_CHECK(record.row > 0 && record.shape == records.value().front().shape, "rows and one shape");
    RUNG_CHECK(rung::IsUtf8(record.prompt) && rung::IsUtf8(record.completion) && rung::IsUtf8(record.text),
               "text is UTF-8");
    RUNG_CHECK((record.shape == rung::data::Shape::kMessages) == !record.messages.empty(),
               "messages where due");
  }
  return 0;
}

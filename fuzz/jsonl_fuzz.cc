// Data sets of JSON: no bytes may do more than fail with a message, and what is read is a whole record.
#include <cstdint>
#include <string_view>

#include "base/text.h"
#include "data/reader.h"

using rung::data::Record;
using rung::data::Shape;

namespace {

void Check(const Record& record, const Record& first) {
  RUNG_CHECK(record.row > 0 && record.format == first.format, "rows and one format");
  RUNG_CHECK(rung::IsUtf8(record.prompt) && rung::IsUtf8(record.completion) && rung::IsUtf8(record.text),
             "text is UTF-8");
  RUNG_CHECK((record.shape == Shape::kMessages) == !record.messages.empty(), "messages where due");
  RUNG_CHECK((record.shape == Shape::kSegments) == !record.segments.empty(), "segments where due");
  RUNG_CHECK(record.learned.empty() || record.learned.size() == record.messages.size(), "a mark a message");
  RUNG_CHECK(rung::data::ContentHash(record) == rung::data::ContentHash(Record(record)),
             "a hash of the content");
}

}  // namespace

// The first byte chooses the kind of file, what is done with bad rows, the format and the columns.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const uint8_t choice = data[0];
  const std::string_view bytes(reinterpret_cast<const char*>(data + 1), size - 1);
  rung::data::ReadOptions options;
  options.max_bad_rows = choice & 1 ? 1000 : 0;
  options.record.format = static_cast<rung::data::Format>((choice >> 2) % 7);
  if (choice & 128) {
    RUNG_CHECK(options.record.columns.AddNames("messages=a,tools=b,text=c").ok(), "columns are right");
    RUNG_CHECK(options.record.columns.AddTemplate("prompt", "{a}{{{b}").ok(), "the template is right");
  }
  const auto kind = choice & 2 ? rung::data::FileKind::kJson : rung::data::FileKind::kJsonl;
  const auto records = rung::data::ParseRecords(bytes, "fuzz", kind, options);
  if (!records.ok()) {
    RUNG_CHECK(!records.failure().message.empty(), "a failure says why");
    return 0;
  }
  RUNG_CHECK(!records.value().empty(), "a data set without a record is a failure");
  for (const Record& record : records.value()) Check(record, records.value().front());
  return 0;
}

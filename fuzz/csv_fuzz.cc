// Tables and text files, packed or plain: no bytes may do more than fail with a message; a table's rows have
// as many fields as columns, and what is in no quotes comes out as it went in.
#include <algorithm>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>

#include "base/text.h"
#include "data/reader.h"
#include "data/rows.h"

namespace {

using rung::data::FileKind;
using rung::data::RawRow;
using rung::data::RowReader;
using rung::data::SampleBy;

// Fields joined again, when there are no quotes and no column without a name, which is left out.
void CheckPlain(std::string_view bytes, RowReader& reader, char separator) {
  const size_t begin = std::min(bytes.find_first_not_of("\r\n"), bytes.size());
  const std::string_view header = bytes.substr(begin, bytes.find('\n', begin) - begin);
  if (std::count(header.begin(), header.end(), separator) + 1 != std::ssize(reader.columns())) return;
  std::string joined;
  for (const std::string& column : reader.columns()) joined += column + separator;
  RawRow row;
  for (;;) {
    const auto more = reader.Next(&row);
    RUNG_CHECK(more.ok(), "without quotes every row is told apart");
    if (!more.value()) break;
    for (const std::string& field : row.fields) joined += field + separator;
  }
  std::string expected(bytes);
  const auto drop = [&](std::string& from) {
    std::erase_if(from, [&](char c) { return c == '\n' || c == '\r' || c == separator; });
  };
  drop(expected);
  drop(joined);
  RUNG_CHECK(joined == expected, "no byte of a field is lost");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const uint8_t choice = data[0];
  const std::string_view bytes(reinterpret_cast<const char*>(data + 1), size - 1);
  const FileKind kinds[] = {FileKind::kCsv, FileKind::kTsv, FileKind::kText, FileKind::kCsv};
  const FileKind kind = kinds[choice & 3];
  const auto by = static_cast<SampleBy>((choice >> 2) % 3);

  rung::data::ReadOptions options;
  options.sample_by = by;
  options.max_bad_rows = choice & 128 ? 1000 : 0;
  const auto records = rung::data::ParseRecords(bytes, "fuzz", kind, options);
  if (!records.ok()) RUNG_CHECK(!records.failure().message.empty(), "a failure says why");

  auto opened = RowReader::Over(rung::data::ByteSource::OfMemory(bytes), "fuzz", kind, by);
  if (!opened.ok() || kind == FileKind::kText) return 0;
  RowReader& reader = *opened.value();
  if (bytes.find('"') == bytes.npos && !bytes.starts_with("\xEF\xBB\xBF")) {
    CheckPlain(bytes, reader, kind == FileKind::kCsv ? ',' : '\t');
    return 0;
  }
  RawRow row;
  int64_t last = 0;
  for (;;) {
    const auto more = reader.Next(&row);
    if (!more.ok() || !more.value()) break;
    RUNG_CHECK(row.row > last, "rows ascend");
    last = row.row;
    RUNG_CHECK(!row.error.empty() || row.fields.size() == reader.columns().size(), "a field a column");
  }
  return 0;
}

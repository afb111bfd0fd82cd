#include "data/csv.h"

#include <fmt/format.h>

#include "data/rows.h"

namespace rung::data {

void CsvReader::Keep(std::string* field, int c) {
  if (++size_ <= kMaxRowBytes) *field += static_cast<char>(c);
}

void CsvReader::SkipLine() {
  for (int c = reader_.Get(); c != ByteReader::kEnd; c = reader_.Get()) {
    if (c != '\n') continue;
    ++line_;
    return;
  }
}

CsvReader::After CsvReader::Plain(std::string* field) {
  for (;;) {
    const int c = reader_.Get();
    if (c == separator_) return After::kField;
    if (c == ByteReader::kEnd || c == '\n') {
      if (field->ends_with('\r')) field->pop_back();
      if (c == ByteReader::kEnd) return After::kEnd;
      ++line_;
      return After::kRow;
    }
    Keep(field, c);
  }
}

CsvReader::After CsvReader::Quoted(std::string* field, std::string* error) {
  for (;;) {
    const int c = reader_.Get();
    if (c == ByteReader::kEnd) return After::kBroken;
    if (c == '\n') ++line_;
    if (c != '"') {
      Keep(field, c);
      continue;
    }
    if (reader_.Peek() == '"') {
      Keep(field, reader_.Get());
      continue;
    }
    int next = reader_.Get();
    if (next == '\r' && (reader_.Peek() == '\n' || reader_.Peek() == ByteReader::kEnd)) next = reader_.Get();
    if (next == separator_) return After::kField;
    if (next == ByteReader::kEnd) return After::kEnd;
    if (next == '\n') {
      ++line_;
      return After::kRow;
    }
    *error =
        "a quoted field goes on behind its closing quote: a quote inside a field is written twice (\"\")";
    SkipLine();
    return After::kRow;
  }
}

CsvReader::After CsvReader::Field(std::string* field, std::string* error) {
  if (reader_.Peek() != '"') return Plain(field);
  reader_.Get();
  return Quoted(field, error);
}

Result<bool> CsvReader::Next(std::vector<std::string>* fields, int64_t* line, std::string* error) {
  // Blank lines.
  for (int c = reader_.Peek(); c == '\n' || c == '\r'; c = reader_.Peek()) {
    reader_.Get();
    if (c == '\n') ++line_;
  }
  fields->clear();
  error->clear();
  *line = line_;
  size_ = 0;
  if (reader_.Peek() == ByteReader::kEnd) {
    if (!reader_.status().ok()) return reader_.status().failure();
    return false;
  }
  After after = After::kField;
  while (after == After::kField) {
    // Fields cost more than their bytes.
    size_ += sizeof(std::string);
    std::string field;
    after = Field(&field, error);
    if (size_ <= kMaxRowBytes) fields->push_back(std::move(field));
  }
  if (!reader_.status().ok()) return reader_.status().failure();
  if (after == After::kBroken) {
    return Failure{fmt::format(":{}: a quoted field does not end: its closing quote is missing", *line)};
  }
  if (size_ > kMaxRowBytes) {
    *error = fmt::format("the row has {} bytes, the limit is {}", size_, kMaxRowBytes);
  }
  return true;
}

}  // namespace rung::data

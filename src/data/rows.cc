#include "data/rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "data/byte_reader.h"
#include "data/csv.h"

namespace rung::data {
namespace {

using namespace std::string_view_literals;

constexpr std::string_view kUtf8Mark = "\xEF\xBB\xBF";

// What the first bytes give away: files that are no data set at all, for which a message about line 1 would
// only puzzle. nullptr: nothing.
const char* NotData(std::string_view head) {
  if (head.starts_with("\xFF\xFE"sv) || head.starts_with("\xFE\xFF"sv))
    return "it is UTF-16: save it as UTF-8";
  if (head.starts_with("PK\x03\x04"sv)) return "it is a zip archive: unpack it first";
  if (head.starts_with("BZh"sv) || head.starts_with("\xFD"
                                                    "7zXZ"sv)) {
    return "it is compressed in a format that is not read: unpack it, or pack it as .gz or .zst";
  }
  if (head.starts_with("PAR1"sv)) return "it is a Parquet file: convert it to one JSON object a line";
  if (head.starts_with("GGUF"sv)) return "it is a GGUF model: name it with --model";
  if (head.starts_with("version https://git-lfs"sv)) {
    return "it is a Git LFS pointer, not the data: fetch the file itself (git lfs pull)";
  }
  return nullptr;
}

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return text;
}

// A page that a browser would show. In a text file, angle brackets alone say nothing.
bool IsPage(std::string_view head) {
  const size_t first = head.find_first_not_of(" \t\r\n");
  if (first == head.npos || head[first] != '<') return false;
  const std::string begin = Lower(std::string(head.substr(first, 9)));
  return begin.starts_with("<!doctype") || begin.starts_with("<html") || begin.starts_with("<?xml");
}

// The same for files of JSON objects.
const char* NotJson(std::string_view head, FileKind kind) {
  const size_t first = head.find_first_not_of(" \t\r\n");
  if (first == head.npos) return nullptr;
  if (head[first] == '<') return "it is an HTML or XML page, not data: download the raw file";
  if (head[first] == '[' && kind == FileKind::kJsonl) {
    return "it is a JSON list: name the file .json, or write one object a line, without the brackets and "
           "commas";
  }
  if (head[first] != '{') return nullptr;
  // "{" alone on the first line: an object printed over several lines.
  const size_t next = head.find_first_not_of(" \t\r", first + 1);
  if (next != head.npos && head[next] == '\n') {
    return "its JSON is spread over several lines: "
           "write each object on one line, or all of them as a list in a .json file";
  }
  return nullptr;
}

bool IsBlank(std::string_view line) { return line.find_first_not_of(" \t\r") == line.npos; }

std::string TooLong(std::string_view what, uint64_t size) {
  return fmt::format("{} has {} bytes, the limit is {}: one record a line", what, size, kMaxRowBytes);
}

class LineRows : public RowReader {
 public:
  explicit LineRows(ByteReader reader) : reader_(std::move(reader)) {}

  Result<bool> Next(RawRow* row) override {
    *row = {};
    for (uint64_t size = 0; reader_.Line(kMaxRowBytes + 1, &row->text, &size);) {
      ++line_;
      if (size > kMaxRowBytes) {
        *row = {line_, {}, {}, TooLong("the line", size)};
        return true;
      }
      if (IsBlank(row->text)) continue;
      if (row->text.ends_with('\r')) row->text.pop_back();
      row->row = line_;
      return true;
    }
    if (!reader_.status().ok()) return reader_.status().failure();
    return false;
  }

 private:
  ByteReader reader_;
  int64_t line_ = 0;
};

// Lines of a text file until a blank one, or all of them.
class TextRows : public RowReader {
 public:
  TextRows(ByteReader reader, bool paragraphs) : reader_(std::move(reader)), paragraphs_(paragraphs) {}

  Result<bool> Next(RawRow* row) override {
    *row = {};
    uint64_t total = 0;
    for (uint64_t size = 0; reader_.Line(kMaxRowBytes + 1, &text_, &size);) {
      ++line_;
      if (IsBlank(text_) && size <= kMaxRowBytes) {
        if (row->row > 0 && paragraphs_) break;
        if (row->row == 0) continue;
      }
      if (text_.ends_with('\r')) text_.pop_back();
      total += size + 1;
      if (row->row == 0) {
        row->row = line_;
      } else if (total <= kMaxRowBytes) {
        row->text += '\n';
      }
      if (total <= kMaxRowBytes) row->text += text_;
    }
    if (!reader_.status().ok()) return reader_.status().failure();
    if (total > kMaxRowBytes) {
      *row = {row->row, {}, {}, TooLong(paragraphs_ ? "the paragraph" : "the document", total)};
    }
    while (row->text.ends_with('\n')) row->text.pop_back();
    return row->row > 0;
  }

 private:
  ByteReader reader_;
  bool paragraphs_;
  std::string text_;
  int64_t line_ = 0;
};

// The elements of a JSON list: text between the commas outside of strings and brackets.
class ListRows : public RowReader {
 public:
  ListRows(ByteReader reader, std::string name) : reader_(std::move(reader)) { name_ = std::move(name); }

  Result<bool> Next(RawRow* row) override {
    *row = {};
    if (ended_) return false;
    if (element_ == 0) {
      SkipBlanks();
      RUNG_CHECK(reader_.Get() == '[', "a list begins with a bracket");
    }
    SkipBlanks();
    row->row = ++element_;
    if (element_ == 1 && reader_.Peek() == ']') {
      reader_.Get();
      return End();
    }
    uint64_t size = 0;
    const int closing = Element(&row->text, &size);
    if (!reader_.status().ok()) return reader_.status().failure();
    if (closing == ByteReader::kEnd) {
      return Failure{
          fmt::format("{}: the list does not end: the file is cut off in its record {}", name_, element_)};
    }
    if (size > kMaxRowBytes) *row = {element_, {}, {}, TooLong("the record", size)};
    if (closing == ']') {
      if (Result<bool> ended = End(); !ended.ok()) return ended;
    }
    return true;
  }

 private:
  void SkipBlanks() {
    for (int c = reader_.Peek(); c == ' ' || c == '\t' || c == '\r' || c == '\n'; c = reader_.Peek())
      reader_.Get();
  }
  // Up to the comma or bracket that ends it, which is returned.
  int Element(std::string* text, uint64_t* size) {
    int64_t depth = 0;
    bool quoted = false, escaped = false;
    for (int c = reader_.Get(); c != ByteReader::kEnd; c = reader_.Get()) {
      if (depth == 0 && !quoted && (c == ',' || c == ']')) return c;
      if (++*size <= kMaxRowBytes) *text += static_cast<char>(c);
      if (quoted) {
        quoted = escaped || c != '"';
        escaped = !escaped && c == '\\';
      } else if (c == '"') {
        quoted = true;
      } else if (c == '{' || c == '[') {
        ++depth;
      } else if (c == '}' || c == ']') {
        --depth;
      }
      // A bracket too many: the rest of the list cannot be told apart, and the record is refused.
      depth = std::max<int64_t>(depth, 0);
    }
    return ByteReader::kEnd;
  }
  Result<bool> End() {
    ended_ = true;
    SkipBlanks();
    if (reader_.Peek() != ByteReader::kEnd) {
      return Failure{
          fmt::format("{}: something follows the list: a .json file is one list of records", name_)};
    }
    if (!reader_.status().ok()) return reader_.status().failure();
    return false;
  }

  ByteReader reader_;
  int64_t element_ = 0;
  bool ended_ = false;
};

class CsvRows : public RowReader {
 public:
  static Result<std::unique_ptr<RowReader>> Make(ByteReader reader, std::string name, char separator) {
    auto rows = std::make_unique<CsvRows>(std::move(reader), std::move(name), separator);
    if (Status header = rows->ReadHeader(); !header.ok()) return header.failure();
    return std::unique_ptr<RowReader>(std::move(rows));
  }
  CsvRows(ByteReader reader, std::string name, char separator) : csv_(std::move(reader), separator) {
    name_ = std::move(name);
  }

  Result<bool> Next(RawRow* row) override {
    *row = {};
    Result<bool> read = csv_.Next(&row->fields, &row->row, &row->error);
    if (!read.ok()) return Failure{fmt::format("{}{}", name_, read.failure().message), read.failure().code};
    if (!read.value() || !row->error.empty()) return read.value();
    if (row->fields.size() != named_.size()) {
      row->error = fmt::format(
          "expected {} fields, as the header has, found {}: quote a field with commas or line ends in it",
          named_.size(), row->fields.size());
    } else {
      KeepNamed(&row->fields);
    }
    return true;
  }

 private:
  Status ReadHeader() {
    int64_t row = 0;
    std::string error;
    Result<bool> read = csv_.Next(&columns_, &row, &error);
    if (!read.ok()) return Failure{fmt::format("{}{}", name_, read.failure().message), read.failure().code};
    if (!error.empty()) return Failure{fmt::format("{}:{}: {}", name_, row, error)};
    for (const std::string& column : columns_) named_.push_back(!column.empty());
    KeepNamed(&columns_);
    if (columns_.empty()) {
      return Failure{
          fmt::format("{}:{}: no column has a name: the first row must name the columns", name_, row)};
    }
    for (auto column = columns_.begin(); column != columns_.end(); ++column) {
      if (std::find(columns_.begin(), column, *column) != column)
        return Failure{fmt::format("{}:{}: the column {:?} is there twice", name_, row, *column)};
    }
    return Ok{};
  }
  // Of a row as the file has it.
  void KeepNamed(std::vector<std::string>* fields) const {
    size_t kept = 0;
    for (size_t i = 0; i < named_.size(); ++i) {
      if (!named_[i]) continue;
      if (kept != i) (*fields)[kept] = std::move((*fields)[i]);
      ++kept;
    }
    fields->resize(kept);
  }

  std::vector<bool> named_;  // of each column of the file
  CsvReader csv_;
};

}  // namespace

FileKind KindOf(const Path& path) {
  Path name = Lower(path.filename().string());
  if (name.extension() == ".gz" || name.extension() == ".zst") name = name.stem();
  constexpr std::array<std::pair<const char*, FileKind>, 4> kKinds = {{{".json", FileKind::kJson},
                                                                       {".csv", FileKind::kCsv},
                                                                       {".tsv", FileKind::kTsv},
                                                                       {".txt", FileKind::kText}}};
  for (const auto& [extension, kind] : kKinds) {
    if (name.extension() == extension) return kind;
  }
  return FileKind::kJsonl;
}

Result<std::unique_ptr<RowReader>> RowReader::Open(const Path& path, SampleBy sample_by, uint64_t* taken) {
  Result<std::unique_ptr<ByteSource>> source = ByteSource::Open(path, taken);
  if (!source.ok()) return source.failure();
  return Over(std::move(source).value(), path.string(), KindOf(path), sample_by);
}

Result<std::unique_ptr<RowReader>> RowReader::Over(std::unique_ptr<ByteSource> source, std::string name,
                                                   FileKind kind, SampleBy sample_by) {
  ByteReader reader(std::move(source));
  const std::string_view head = reader.Head();
  if (!reader.status().ok()) return reader.status().failure();
  const bool json = kind == FileKind::kJsonl || kind == FileKind::kJson;
  const char* reason = NotData(head.substr(0, 4096));
  if (!reason && IsPage(head.substr(0, 4096))) {
    reason = "it is an HTML or XML page, not data: download the raw file";
  }
  if (!reason && json) reason = NotJson(head.substr(0, 4096), kind);
  if (reason) return Failure{fmt::format("{}: not a data file: {}", name, reason)};
  if (head.starts_with(kUtf8Mark)) reader.Skip(kUtf8Mark.size());
  if (reader.Peek() == ByteReader::kEnd) {
    return Failure{fmt::format("{}: the file is empty: there is no record in it", name)};
  }

  std::unique_ptr<RowReader> rows;
  const std::string_view text = reader.Ahead();
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (kind == FileKind::kCsv || kind == FileKind::kTsv) {
    Result<std::unique_ptr<RowReader>> csv =
        CsvRows::Make(std::move(reader), name, kind == FileKind::kCsv ? ',' : '\t');
    if (!csv.ok()) return csv.failure();
    rows = std::move(csv).value();
  } else if (kind == FileKind::kJson && first != text.npos && text[first] == '[') {
    rows = std::make_unique<ListRows>(std::move(reader), name);
  } else if (kind == FileKind::kText && sample_by != SampleBy::kLine) {
    rows = std::make_unique<TextRows>(std::move(reader), sample_by == SampleBy::kParagraph);
  } else {
    rows = std::make_unique<LineRows>(std::move(reader));
  }
  rows->kind_ = kind;
  rows->name_ = std::move(name);
  return rows;
}

}  // namespace rung::data

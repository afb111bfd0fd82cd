#include "data/reader.h"

#include <fmt/format.h>

#include <memory>
#include <utility>

namespace rung::data {
namespace {

Result<std::vector<Record>> ReadAll(RowReader& reader, const ReadOptions& options,
                                    std::vector<std::string>* bad) {
  std::vector<Record> records;
  FileCheck check(reader.name(), options.max_bad_rows);
  for (RawRow row;;) {
    Result<bool> more = reader.Next(&row);
    if (!more.ok()) return more.failure();
    if (!more.value()) break;
    if (std::optional<Record> record = check.Take(RecordOfRow(row, reader, options), row.row, bad)) {
      records.push_back(std::move(*record));
    }
  }
  if (Status done = check.Finish(); !done.ok()) return done.failure();
  return records;
}

}  // namespace

std::string ReadOptions::Key() const {
  return fmt::format("format={} columns={} sample={} bad={}", NameOf(record.format), record.columns.Key(),
                     static_cast<int>(sample_by), max_bad_rows);
}

Result<Record> RecordOfRow(const RawRow& row, const RowReader& reader, const ReadOptions& options) {
  if (!row.error.empty()) return Failure{row.error};
  switch (reader.kind()) {
    case FileKind::kJsonl:
    case FileKind::kJson:
      return ParseRecord(row.text, options.record);
    case FileKind::kCsv:
    case FileKind::kTsv:
      return RecordOfFields(reader.columns(), row.fields, options.record);
    case FileKind::kText:
      return RecordOfText(row.text, options.record);
  }
  return Failure{"a file of no known kind"};
}

std::optional<Record> FileCheck::Take(Result<Record> parsed, int64_t row, std::vector<std::string>* bad) {
  std::string message;
  if (!parsed.ok()) {
    message = parsed.failure().message;
  } else if (records_ > 0 && parsed.value().format != format_) {
    message = fmt::format("this record is {}, the one in row {} is {}: one format a file",
                          NameOf(parsed.value().format), first_row_, NameOf(format_));
  } else {
    Record record = std::move(parsed).value();
    if (records_++ == 0) {
      format_ = record.format;
      first_row_ = row;
    }
    record.row = row;
    return record;
  }
  message = fmt::format("{}:{}: {}", name_, row, message);
  if (++bad_rows_ == 1) first_bad_ = message;
  if (bad && bad_rows_ <= allowed_) bad->push_back(std::move(message));
  return std::nullopt;
}

Status FileCheck::Finish() const {
  if (failed()) {
    std::string message = first_bad_;
    if (bad_rows_ > 1) {
      message += fmt::format("\n  and {} more bad row{}", bad_rows_ - 1, bad_rows_ == 2 ? "" : "s");
    }
    if (allowed_ > 0) message += fmt::format("; {} are allowed", allowed_);
    return Failure{std::move(message)};
  }
  if (records_ > 0) return Ok{};
  return Failure{fmt::format("{}: no row holds a record", name_)};
}

Result<std::vector<Record>> ReadRecords(const Path& path, const ReadOptions& options,
                                        std::vector<std::string>* bad) {
  Result<std::unique_ptr<RowReader>> reader = RowReader::Open(path, options.sample_by);
  if (!reader.ok()) return reader.failure();
  return ReadAll(*reader.value(), options, bad);
}

Result<std::vector<Record>> ParseRecords(std::string_view bytes, const std::string& name, FileKind kind,
                                         const ReadOptions& options, std::vector<std::string>* bad) {
  Result<std::unique_ptr<ByteSource>> source = ByteSource::Unpacked(ByteSource::OfMemory(bytes), name);
  if (!source.ok()) return source.failure();
  Result<std::unique_ptr<RowReader>> reader =
      RowReader::Over(std::move(source).value(), name, kind, options.sample_by);
  if (!reader.ok()) return reader.failure();
  return ReadAll(*reader.value(), options, bad);
}

}  // namespace rung::data

#include "data/jsonl.h"

#include <fmt/format.h>

#include <system_error>

namespace rung::data {
namespace {

constexpr std::string_view kUtf8Mark = "\xEF\xBB\xBF";

// What the first bytes give away: files that are no data set at all, for which a message about line 1 would
// only puzzle. nullptr: nothing.
const char* NotJsonl(std::string_view head) {
  using namespace std::string_view_literals;
  if (head.starts_with("\xFF\xFE"sv) || head.starts_with("\xFE\xFF"sv))
    return "it is UTF-16: save it as UTF-8";
  if (head.starts_with("\x1F\x8B"sv)) return "it is gzip-compressed: unpack it first";
  if (head.starts_with("\x28\xB5\x2F\xFD"sv)) return "it is zstd-compressed: unpack it first";
  if (head.starts_with("PK\x03\x04"sv)) return "it is a zip archive: unpack it first";
  if (head.starts_with("PAR1"sv)) return "it is a Parquet file: convert it to one JSON object a line";
  if (head.starts_with("version https://git-lfs"sv)) {
    return "it is a Git LFS pointer, not the data: fetch the file itself (git lfs pull)";
  }
  const size_t first = head.find_first_not_of(" \t\r\n");
  if (first == head.npos) return nullptr;
  if (head[first] == '<') return "it is an HTML or XML page, not data: download the raw file";
  if (head[first] == '[')
    return "it is a JSON list: write one object a line, without the brackets and commas";
  // "{" alone on the first line: an object printed over several lines.
  if (head[first] == '{') {
    const size_t next = head.find_first_not_of(" \t\r", first + 1);
    if (next != head.npos && head[next] == '\n') {
      return "its JSON is spread over several lines: write each object on one line";
    }
  }
  return nullptr;
}

bool IsBlank(std::string_view line) { return line.find_first_not_of(" \t\r") == line.npos; }

}  // namespace

Result<std::vector<Record>> ParseJsonl(std::string_view bytes, const std::string& name,
                                       const JsonlOptions& options, std::vector<std::string>* bad) {
  if (const char* reason = NotJsonl(bytes.substr(0, 4096))) {
    return Failure{fmt::format("{}: not a .jsonl file: {}", name, reason)};
  }
  if (bytes.starts_with(kUtf8Mark)) bytes.remove_prefix(kUtf8Mark.size());

  std::vector<Record> records;
  int64_t row = 0, bad_lines = 0;
  std::string first_bad;
  while (!bytes.empty()) {
    const size_t end = std::min(bytes.find('\n'), bytes.size());
    const std::string_view line = bytes.substr(0, end);
    bytes.remove_prefix(std::min(end + 1, bytes.size()));
    ++row;
    if (IsBlank(line)) continue;

    Result<Record> parsed = ParseRecord(line.ends_with('\r') ? line.substr(0, line.size() - 1) : line);
    std::string message;
    if (!parsed.ok()) {
      message = parsed.failure().message;
    } else if (!records.empty() && parsed.value().shape != records.front().shape) {
      message =
          fmt::format("this record is {}, the one in row {} is {}: one shape a file",
                      ShapeName(parsed.value().shape), records.front().row, ShapeName(records.front().shape));
    } else {
      Record record = std::move(parsed).value();
      record.row = row;
      records.push_back(std::move(record));
      continue;
    }
    message = fmt::format("{}:{}: {}", name, row, message);
    if (++bad_lines == 1) first_bad = message;
    if (bad && bad_lines <= options.max_bad_lines) bad->push_back(std::move(message));
  }

  if (bad_lines > options.max_bad_lines) {
    std::string message = first_bad;
    if (bad_lines > 1) {
      message += fmt::format("\n  and {} more bad line{}", bad_lines - 1, bad_lines == 2 ? "" : "s");
    }
    if (options.max_bad_lines > 0) message += fmt::format("; {} are allowed", options.max_bad_lines);
    return Failure{std::move(message)};
  }
  if (records.empty()) {
    return Failure{fmt::format("{}: {}: there is no record in it", name,
                               row == 0 ? "the file is empty" : "no line holds a record")};
  }
  return records;
}

Result<std::vector<Record>> ReadJsonl(const Path& path, const JsonlOptions& options,
                                      std::vector<std::string>* bad) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    return Failure{fmt::format("{}: it is a directory: name a .jsonl file in it", path.string())};
  }
  Result<MappedFile> file = MappedFile::Open(path);
  if (!file.ok()) return file.failure();
  const std::span<const std::byte> bytes = file.value().bytes();
  return ParseJsonl({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string(), options, bad);
}

}  // namespace rung::data

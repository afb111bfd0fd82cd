#include "train/checksums.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string>
#include <string_view>

#include "base/folders.h"
#include "base/text.h"
#include "io/sha256.h"

namespace rung::train {
namespace {

constexpr size_t kDigits = 64;
constexpr std::string_view kBetween = "  ";
// Of the list: some thousand files.
constexpr uint64_t kLimit = uint64_t{1} << 20;

Failure Damaged(const Path& file, std::string_view what) {
  return Failure{fmt::format("{}: {}", file.string(), what)};
}

bool IsDigest(std::string_view text) {
  return text.size() == kDigits && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

}  // namespace

Status WriteChecksums(const Path& folder) {
  std::set<std::string> names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (entry.path().filename() != kChecksums) names.insert(entry.path().filename().string());
  }
  if (error) {
    return Failure{fmt::format("cannot read {}: {}", folder.string(), error.message()), ExitCode::kFailed};
  }
  std::string text;
  for (const std::string& name : names) {
    Result<std::string> sum = io::Sha256OfFile(folder / name);
    if (!sum.ok()) return Failure{sum.failure().message, ExitCode::kFailed};
    text += fmt::format("{}{}{}\n", sum.value(), kBetween, name);
  }
  return WriteTextFile(folder / kChecksums, text);
}

Status VerifyChecksums(const Path& folder, std::initializer_list<const char*> required) {
  const Path list = folder / kChecksums;
  Result<std::string> text = ReadTextFile(list, kLimit);
  if (!text.ok()) return text.failure();
  std::set<std::string> names;
  std::string_view rest = text.value();
  for (int line = 1; !rest.empty(); ++line) {
    const size_t end = rest.find('\n');
    if (end == std::string_view::npos) return Damaged(list, fmt::format("line {} has no end", line));
    const std::string_view row = rest.substr(0, end);
    rest.remove_prefix(end + 1);
    const size_t begin = kDigits + kBetween.size();
    const bool shaped = row.size() > begin && IsDigest(row.substr(0, kDigits)) &&
                        row.substr(kDigits, kBetween.size()) == kBetween;
    const std::string name(shaped ? row.substr(begin) : "");
    // A name with a slash would leave the folder.
    if (!shaped || name.find('/') != std::string::npos || !names.insert(name).second) {
      return Damaged(list, fmt::format("line {} is not a SHA-256, two spaces and the name of a file", line));
    }
    Result<std::string> sum = io::Sha256OfFile(folder / name);
    if (!sum.ok()) return Damaged(list, fmt::format("line {}: {}", line, Printable(sum.failure().message)));
    if (sum.value() != row.substr(0, kDigits)) {
      return Damaged(folder / name,
                     fmt::format("its bytes are not those that {} has the checksum of", kChecksums));
    }
  }
  for (const char* name : required) {
    if (!names.contains(name)) return Damaged(folder / name, fmt::format("not in {}", kChecksums));
  }
  return Ok{};
}

Status WriteFolder(const Path& folder, const std::function<Status(const Path& unfinished)>& write) {
  const Path unfinished = UnfinishedName(folder);
  if (Status removed = RemoveAll(unfinished); !removed.ok()) return removed;
  Status written = write(unfinished);
  if (written.ok()) written = WriteChecksums(unfinished);
  if (written.ok()) written = ReplaceFolder(folder);
  // On a full disk its space is what the next attempt needs. What cannot be removed is removed then.
  if (!written.ok()) (void)RemoveAll(unfinished).ok();
  return written;
}

}  // namespace rung::train

#include "data/token_cache.h"

#include <encoder_sources.h>  // made by cmake/encoder_sources.cmake
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "base/evict.h"
#include "base/file_calls.h"
#include "data/byte_source.h"
#include "data/rows.h"
#include "io/sha256.h"

namespace rung::data {
namespace {

using std::filesystem::file_time_type;

constexpr size_t kKeyDigits = 32;
constexpr std::string_view kTokens = ".tokens", kTemporary = ".tmp";

// What a file of a cache is by its name. Half-written ones are locked while their process lives.
enum class Entry { kOther, kWhole, kUnfinished };

// "<key>.tokens" or "<key>.tokens.<process>.tmp".
Entry EntryOf(std::string_view name) {
  if (name.find_first_not_of("0123456789abcdef") != kKeyDigits) return Entry::kOther;
  name.remove_prefix(kKeyDigits);
  if (!name.starts_with(kTokens)) return Entry::kOther;
  name.remove_prefix(kTokens.size());
  if (name.empty()) return Entry::kWhole;
  if (!name.starts_with('.') || !name.ends_with(kTemporary)) return Entry::kOther;
  const size_t end = name.find_first_not_of("0123456789", 1);
  return end > 1 && end == name.size() - kTemporary.size() ? Entry::kUnfinished : Entry::kOther;
}

// Removes a file that nobody holds a lock on. False: it is in use, or cannot be removed.
bool RemoveUnused(const Path& path) {
  const int descriptor = Files().open(path.c_str(), O_RDONLY | O_CLOEXEC, 0);
  if (descriptor < 0) return false;
  const bool removed = ::flock(descriptor, LOCK_EX | LOCK_NB) == 0 && Files().unlink(path.c_str()) == 0;
  ::close(descriptor);
  return removed;
}

}  // namespace

Result<std::string> TokenFileName(std::span<const DataFile> files, std::span<const std::string> settings,
                                  const std::function<bool(uint64_t bytes)>& on_bytes) {
  io::Sha256 sum;
  const auto add = [&](std::string_view part) { sum.Add(fmt::format("{}:{}\n", part.size(), part)); };
  add(kEncoderSources);
  for (const std::string& setting : settings) add(setting);
  for (const DataFile& file : files) {
    Result<std::string> content = io::Sha256OfFile(file.path, on_bytes);
    if (!content.ok()) return content.failure();
    add(fmt::format("kind={} {}", static_cast<int>(KindOf(file.path)), content.value()));
  }
  return sum.Hex().substr(0, kKeyDigits) + std::string(kTokens);
}

Path OwnTokenFile(const Path& path) {
  Path own = path;
  own += fmt::format(".{}{}", ::getpid(), kTemporary);
  return own;
}

Tidied TidyCache(const Path& folder, uint64_t limit) {
  std::vector<Evictable> whole;
  std::error_code error;
  for (const auto& file : std::filesystem::directory_iterator(folder, error)) {
    const Entry entry = EntryOf(file.path().filename().string());
    if (entry == Entry::kOther || !file.is_regular_file(error)) continue;
    if (entry == Entry::kUnfinished) {
      RemoveUnused(file.path());
      continue;
    }
    const file_time_type time = file.last_write_time(error);
    const uintmax_t bytes = error ? 0 : file.file_size(error);
    if (!error) whole.push_back({file.path(), bytes, time});  // else removed meanwhile
  }
  uint64_t total = 0;
  for (const Evictable& file : whole) total += file.bytes;
  const Evicted evicted = EvictOldest(std::move(whole), total > limit ? total - limit : 0, RemoveUnused);
  return {evicted.count, evicted.bytes};
}

void MarkUsed(const Path& path) { (void)::utimensat(AT_FDCWD, path.c_str(), nullptr, 0); }

Path DefaultCache(std::span<const DataFile> files) {
  uint64_t bytes = 0;
  std::vector<char> buffer(size_t{256} << 10);
  for (const DataFile& file : files) {
    // What cannot be read is told by the one who reads it.
    Result<std::unique_ptr<ByteSource>> source = ByteSource::Open(file.path);
    while (source.ok() && bytes < kCacheFromBytes) {
      const Result<size_t> read = source.value()->Read(buffer);
      if (!read.ok() || read.value() == 0) break;
      bytes += read.value();
    }
  }
  if (bytes < kCacheFromBytes) return {};
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return Path(value ? value : "");
  };
  if (const Path own = variable("RUNG_CACHE"); !own.empty()) return own / "tokens";
  if (const Path cache = variable("XDG_CACHE_HOME"); !cache.empty()) return cache / "rung" / "tokens";
  if (const Path home = variable("HOME"); !home.empty()) return home / ".cache" / "rung" / "tokens";
  return {};
}

}  // namespace rung::data

#include "train/run_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "base/file_calls.h"
#include "base/text.h"

namespace rung::train {
namespace {

constexpr const char* kFile = "run.lock";
// A check holds the lock for less than a millisecond.
constexpr int kTries = 10;
constexpr std::chrono::milliseconds kPause{10};

// "process 4711 on hostname", as its holder wrote it.
std::string Holder(int descriptor) {
  std::array<char, 300> text{};
  const ssize_t n = ::pread(descriptor, text.data(), text.size() - 1, 0);
  const std::string_view line(text.data(), n > 0 ? static_cast<size_t>(n) : 0);
  const size_t space = line.find(' '), end = line.find('\n');
  if (space == std::string_view::npos || end == std::string_view::npos || space > end)
    return "another process";
  return Printable(
      fmt::format("process {} on {}", line.substr(0, space), line.substr(space + 1, end - space - 1)));
}

Failure Unwritable(const Path& file) {
  return Failure{fmt::format("cannot write {}: {}", file.string(), std::strerror(errno)), ExitCode::kFailed};
}

// Waits for whoever only checks. False, with errno: not locked.
bool LockAlone(int descriptor) {
  for (int tries = 1; ::flock(descriptor, LOCK_EX | LOCK_NB) != 0; ++tries) {
    if (errno != EWOULDBLOCK || tries == kTries) return false;
    std::this_thread::sleep_for(kPause);
  }
  return true;
}

Failure Held(const Path& folder, int descriptor) {
  return UsageFailure(
      fmt::format("{}: {} is working on this run: wait for it or end it, or choose another --out",
                  folder.string(), Holder(descriptor)));
}

}  // namespace

std::string HostName() {
  std::array<char, 256> name{};
  const bool named = ::gethostname(name.data(), name.size() - 1) == 0 && name[0] != '\0';
  return named ? name.data() : "localhost";
}

Status RunLock::Check(const Path& folder) {
  const Path file = folder / kFile;
  const int descriptor = Files().open(file.c_str(), O_RDWR | O_CLOEXEC, 0);
  if (descriptor < 0) return errno == ENOENT ? Status(Ok{}) : Unwritable(file);
  const RunLock closed_at_end(descriptor);
  // Shared: two checks at once do not see each other.
  if (::flock(descriptor, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK) return Held(folder, descriptor);
  return Ok{};
}

Result<std::optional<RunLock>> RunLock::TakeIfThere(const Path& folder) {
  const Path file = folder / kFile;
  const int descriptor = Files().open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0 && errno == ENOENT) return std::optional<RunLock>();
  if (descriptor < 0) return Unwritable(file);
  RunLock lock(descriptor);
  if (!LockAlone(descriptor)) {
    if (errno == EWOULDBLOCK) return Held(folder, descriptor);
    lock.note_ = fmt::format("cannot lock {}: {}: start no second run on this folder", file.string(),
                             std::strerror(errno));
    return std::optional(std::move(lock));
  }
  // What it says is for people: a full disk is no reason not to run.
  const std::string text = fmt::format("{} {}\n", ::getpid(), HostName());
  [[maybe_unused]] const bool told =
      Files().ftruncate(descriptor, 0) == 0 && Files().pwrite(descriptor, text.data(), text.size(), 0) > 0;
  return std::optional(std::move(lock));
}

RunLock::RunLock(RunLock&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), note_(std::move(other.note_)) {}

RunLock::~RunLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

}  // namespace rung::train

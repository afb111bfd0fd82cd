#include "base/folders.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <string>
#include <string_view>
#include <vector>

#include "base/descriptor.h"
#include "base/file_calls.h"

namespace rung {
namespace {

constexpr std::string_view kNew = ".rung-new-", kOld = ".rung-old-";
// Another process's ProbeFolder may take away the folder that one is to be made in. Then it is made again.
constexpr int kTries = 20;

Path Private(std::string_view prefix, const Path& folder) {
  return folder.parent_path() / (std::string(prefix) + folder.filename().string());
}

bool Exists(const Path& path) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0;
}

// Where a file system has no exchange of names: what is replaced waits here.
Path AsideName(const Path& folder) { return Private(kOld, folder); }

// Three renames instead of one exchange.
Status ReplaceByAside(const Path& whole, const Path& folder) {
  const Path aside = AsideName(folder);
  if (Status removed = RemoveAll(aside); !removed.ok()) return removed;
  if (Files().rename(folder.c_str(), aside.c_str()) != 0) return SystemFailure("cannot rename", folder);
  if (Files().rename(whole.c_str(), folder.c_str()) != 0) {
    Failure failure = SystemFailure("cannot rename", whole);
    // Where this fails too, CleanFolder does it later.
    Files().rename(aside.c_str(), folder.c_str());
    return failure;
  }
  return Ok{};
}

// `path` and the folders it is in, up to the first that exists.
std::vector<Path> Missing(const Path& path) {
  std::vector<Path> missing;
  for (Path at = path; !Exists(at) && at.has_relative_path(); at = at.parent_path()) missing.push_back(at);
  return missing;
}

// Without "..", links resolved as far as there is something, and no slash at its end.
Result<Path> WholePath(const Path& path) {
  std::error_code error;
  Path whole;
  for (int tries = 0; tries == 0 || (error == std::errc::no_such_file_or_directory && tries < kTries);
       ++tries)
    whole = std::filesystem::weakly_canonical(std::filesystem::absolute(path, error), error);
  if (error) {
    return Failure{fmt::format("cannot create {}: {}", path.string(), error.message()), ExitCode::kFailed};
  }
  return whole.has_filename() ? whole : whole.parent_path();
}

}  // namespace

Status ProbeFolder(const Path& folder) {
  const Result<Path> whole = WholePath(folder);
  if (!whole.ok()) return whole.failure();
  const std::vector<Path> missing = Missing(whole.value());
  const Path inside = Private(kNew, whole.value() / "probe");
  Status status = Ok{};
  for (int tries = 1;; ++tries) {
    status = MakeFolders(whole.value());
    if (!status.ok()) break;
    // What a process that died here left, or another one asks with, is as good.
    if (Files().mkdir(inside.c_str(), 0777) == 0 || errno == EEXIST) {
      Files().rmdir(inside.c_str());
      break;
    }
    const bool going = errno == ENOENT;
    status = SystemFailure("cannot write to", whole.value());
    if (!going || tries == kTries) break;
  }
  // One that somebody has put something into meanwhile stays.
  for (const Path& made : missing) Files().rmdir(made.c_str());
  return status;
}

std::optional<uint64_t> FreeBytes(const Path& path) {
  const Result<Path> whole = WholePath(path);
  if (!whole.ok()) return std::nullopt;
  Path there = whole.value();
  std::error_code error;
  while (!std::filesystem::exists(there, error) && there.has_relative_path()) there = there.parent_path();
  const std::filesystem::space_info space = std::filesystem::space(there, error);
  if (error) return std::nullopt;
  return space.available;
}

Status MakeFolders(const Path& folder) {
  std::error_code error;
  if (folder.empty() || std::filesystem::is_directory(folder, error)) return Ok{};
  const Path parent = folder.has_filename() ? folder.parent_path() : folder.parent_path().parent_path();
  for (int tries = 1;; ++tries) {
    if (Status made = MakeFolders(parent); !made.ok()) return made;
    if (Files().mkdir(folder.c_str(), 0777) == 0) break;
    const bool going = errno == ENOENT || errno == EEXIST;
    const Failure failure = SystemFailure("cannot create", folder);
    // Another process may have been first.
    if (std::filesystem::is_directory(folder, error)) break;
    if (!going || tries == kTries) return failure;
  }
  return SyncFolder(parent);
}

Status RemoveAll(const Path& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return Ok{};
    return SystemFailure("cannot remove", path);
  }
  if (!S_ISDIR(info.st_mode)) {
    if (Files().unlink(path.c_str()) != 0 && errno != ENOENT) return SystemFailure("cannot remove", path);
    return Ok{};
  }
  std::error_code error;
  for (std::filesystem::directory_iterator entry(path, error), end; !error && entry != end;
       entry.increment(error)) {
    if (Status removed = RemoveAll(entry->path()); !removed.ok()) return removed;
  }
  if (error) {
    return Failure{fmt::format("cannot remove {}: {}", path.string(), error.message()), ExitCode::kFailed};
  }
  if (Files().rmdir(path.c_str()) != 0 && errno != ENOENT) return SystemFailure("cannot remove", path);
  return Ok{};
}

Path UnfinishedName(const Path& folder) { return Private(kNew, folder); }

std::optional<Path> FolderOfPrivateName(const Path& path) {
  const std::string name = path.filename().string();
  for (const std::string_view prefix : {kNew, kOld}) {
    if (name.size() > prefix.size() && name.starts_with(prefix))
      return path.parent_path() / name.substr(prefix.size());
  }
  return std::nullopt;
}

Status ReplaceFolder(const Path& folder) {
  const Path whole = UnfinishedName(folder);
  if (Status synced = SyncFolder(whole); !synced.ok()) return synced;
  if (!Exists(folder)) {
    if (Files().rename(whole.c_str(), folder.c_str()) != 0) return SystemFailure("cannot rename", whole);
    return SyncFolder(folder.parent_path());
  }
  if (Files().exchange(whole.c_str(), folder.c_str()) != 0) {
    if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP)
      return SystemFailure("cannot rename", whole);
    if (Status replaced = ReplaceByAside(whole, folder); !replaced.ok()) return replaced;
  }
  if (Status synced = SyncFolder(folder.parent_path()); !synced.ok()) return synced;
  // What was replaced is in nobody's way: if it cannot be removed now, the next replacement does it.
  (void)RemoveAll(whole).ok();
  (void)RemoveAll(AsideName(folder)).ok();
  return Ok{};
}

Status RemoveFolder(const Path& folder) {
  if (!Exists(folder)) return Ok{};
  const Path going = UnfinishedName(folder);
  if (Status removed = RemoveAll(going); !removed.ok()) return removed;
  if (Files().rename(folder.c_str(), going.c_str()) != 0) return SystemFailure("cannot rename", folder);
  return RemoveAll(going);
}

Status CleanFolder(const Path& folder) {
  const Path aside = AsideName(folder);
  if (!Exists(folder) && Exists(aside)) {
    if (Files().rename(aside.c_str(), folder.c_str()) != 0) return SystemFailure("cannot rename", aside);
    if (Status synced = SyncFolder(folder.parent_path()); !synced.ok()) return synced;
  }
  if (Status removed = RemoveAll(UnfinishedName(folder)); !removed.ok()) return removed;
  return RemoveAll(aside);
}

}  // namespace rung

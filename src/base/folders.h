// Folders that appear, are replaced and go away as a whole, whatever happens meanwhile.
#pragma once

#include <cstdint>
#include <optional>

#include "base/files.h"

namespace rung {

// As mkdir -p. The entries of new folders are made durable.
Status MakeFolders(const Path& folder);

// Fails as MakeFolders would, or making something in the folder. Makes what is missing, and takes it away
// again.
Status ProbeFolder(const Path& folder);

// That are free on the disk which `path` is on, or would be; nothing: the system does not say.
std::optional<uint64_t> FreeBytes(const Path& path);

// A file, or a folder with all in it. Links are removed, not followed. Nothing there: done.
Status RemoveAll(const Path& path);

// Where a folder is made before it takes its name, and where it goes before it is removed: beside it, as
// `.rung-new-<name>`. A name that nobody gives to what is theirs. `folder` ends with its name.
Path UnfinishedName(const Path& folder);
// The folder that `path` is the unfinished one of, or that waits there (`.rung-old-<name>`) while it is
// replaced; nothing: it has another name.
std::optional<Path> FolderOfPrivateName(const Path& path);

// Puts `UnfinishedName(folder)`, whose files are synced, in the place of `folder`, which may exist, and makes
// that durable. At any moment `folder` is the old one or the new one, whole; where the file system cannot
// exchange two names there is a moment with neither, after which CleanFolder brings back the old one. After a
// failure `folder` is still one of the two.
Status ReplaceFolder(const Path& folder);

// Takes the folder away at once, then removes what was in it: a crash leaves no part of it under its name.
Status RemoveFolder(const Path& folder);

// Removes what an earlier process left of ReplaceFolder and RemoveFolder, and completes it. For the only
// process that works on `folder`.
Status CleanFolder(const Path& folder);

}  // namespace rung

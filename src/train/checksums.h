// A folder's checksums.sha256: a line "<64 hex digits>  <file name>" for each file, as sha256sum writes and
// `sha256sum -c` reads them.
#pragma once

#include <functional>
#include <initializer_list>

#include "base/files.h"

namespace rung::train {

inline constexpr const char* kChecksums = "checksums.sha256";

// Of every file in the folder, by reading them.
Status WriteChecksums(const Path& folder);
// Compares every file of the list with it, and looks for those that are `required` in it. A file that is not
// in the list is none of the folder's business. A failure names the file.
Status VerifyChecksums(const Path& folder, std::initializer_list<const char*> required = {});

// Makes the folder, or makes it anew: `write` puts files into another one, which gets their checksums and is
// renamed when complete. After a failure nothing of it is left, and an earlier folder stays.
Status WriteFolder(const Path& folder, const std::function<Status(const Path& unfinished)>& write);

}  // namespace rung::train

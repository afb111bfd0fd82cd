// A folder's checksums.sha256: a line "<64 hex digits>  <file name>" for each file, as sha256sum writes and
// `sha256sum -c` reads them.
#pragma once

#include <set>
#include <string>

#include "base/files.h"

namespace rung::train {

inline constexpr const char* kChecksums = "checksums.sha256";

// Of every file in the folder, by reading them.
Status WriteChecksums(const Path& folder);
// Compares every file of the list with it, and returns their names. A file that is not in the list is none
// of the folder's business. A failure names the file.
Result<std::set<std::string>> VerifyChecksums(const Path& folder);

}  // namespace rung::train

// Which files a data set is made of, as a person names them.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "base/result.h"

namespace rung::data {

struct DataFile {
  Path path;
  // How often each record stands in an epoch. Of a fraction, evenly spread records stand in it once more.
  double weight = 1.0;
};

enum class Split : uint8_t { kTrain, kValid, kTest };

// "a.jsonl", "a.jsonl:2", or a folder with train, valid and test files ("folder:0.5" too). Fails for a folder
// without a file of that split, or with several.
Result<DataFile> FindDataFile(std::string_view name, Split split);
// A name may be several, with commas between them.
Result<std::vector<DataFile>> FindDataFiles(std::span<const std::string> names, Split split);
// The folder that a name means, weight aside; an empty path: it is none.
Path FolderOf(std::string_view name);
// The split's file in a folder; an empty path when it has none.
Result<Path> FindInFolder(const Path& folder, Split split);

// "a.jsonl", or "a.jsonl and 2 more": for messages.
std::string Describe(std::span<const DataFile> files);

}  // namespace rung::data

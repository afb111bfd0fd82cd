// Folders that verbs make: there complete or not at all, and never in the place of anything that was.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/files.h"

namespace rung::convert {

// Tensors done, of how many; returns false to stop.
using OnProgress = std::function<bool(size_t done, size_t total)>;
// Throws Error (kInterrupted) where `on_progress`, which may be null, stops.
void Report(const OnProgress& on_progress, size_t done, size_t total);
// What a person should know.
using OnNote = std::function<void(const std::string& note)>;

// An option and the path it was given.
struct NamedPath {
  const char* option;
  Path path;
};

// Made beside `out` under a name of its own and renamed by Commit; without Commit it is removed. What a
// crashed run left behind stays. Throws Error.
class NewFolder {
 public:
  // Refuses (kUsage) an `out` that is there and no empty folder, or is one of `inputs`.
  NewFolder(const Path& out, std::span<const NamedPath> inputs);
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;
  ~NewFolder();
  const Path& path() const { return temporary_; }
  void Commit();

 private:
  Path final_, temporary_;
  bool committed_ = false;
};

// The same for one file: it is not there yet, neither is the `<out>.tmp` it will be written as, and it is not
// inside one of `inputs`. Throws Error (kUsage).
void CheckNewFile(const Path& out, std::span<const NamedPath> inputs);

// Throws Error, which names `out`, when the disk that it will be on has fewer free bytes.
void CheckSpace(const Path& out, uint64_t needed);

// A file of weights and the tensors [begin, end) in it.
struct Shard {
  std::string file;  // as Hugging Face names them
  size_t begin = 0, end = 0;
};
// Files of at most `limit` bytes, unless one tensor alone has more, for tensors of these sizes.
std::vector<Shard> ShardsOf(std::span<const uint64_t> bytes, uint64_t limit);
// model.safetensors.index.json: tensors and the files they are in. `bytes`: of all files. Throws Error.
void WriteShardIndex(const Path& folder, const std::map<std::string, std::string>& file_of, uint64_t bytes);

// Tokenizer, chat template and generation settings of a Hugging Face folder, by name. A link is followed
// within the folder, and within the Hugging Face cache that the folder is part of; any other, and what is no
// regular file, is refused: a folder from elsewhere must not decide which files of this machine are copied.
// Throws Error, as does WriteModelTexts.
using ModelTexts = std::map<std::string, std::string>;
ModelTexts ReadModelTexts(const Path& folder);
void WriteModelTexts(const Path& folder, const ModelTexts& texts);

}  // namespace rung::convert

// safetensors files: read by explicit offsets (nothing stays resident), written atomically.
// Format: docs/formats/safetensors.md. The header is capped at 100 MB, holes and overlaps are refused.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "base/result.h"

namespace rung::io {

inline constexpr uint64_t kSafetensorsPrefix = 8;                 // bytes: the header's length
inline constexpr uint64_t kSafetensorsHeaderLimit = 100'000'000;  // bytes: the reference implementation's

// Numbers of a shape: 0 where one dimension is, whatever the others; 2^63 - 1 stands for more.
int64_t ElementCount(std::span<const int64_t> shape);
// Bits of one number; 0 for a dtype the format does not know.
int BitsOfDtype(std::string_view dtype);

struct TensorEntry {
  std::string name;
  std::string dtype;               // as in the file: "F32", "F16", "BF16", "U8", "I64", ...
  std::vector<int64_t> shape;      // may be empty (a scalar); no dimension is negative
  uint64_t offset = 0, bytes = 0;  // in the file
  size_t file = 0;                 // which shard
};

// One file or a sharded checkpoint.
class Safetensors {
 public:
  static Result<Safetensors> Open(const Path& file);
  // <folder>/model.safetensors, or the shards named by <folder>/model.safetensors.index.json, which must lie
  // in the same folder. Tensors of a shard that the index does not place there are left out.
  static Result<Safetensors> OpenFolder(const Path& folder);

  const std::map<std::string, TensorEntry, std::less<>>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const TensorEntry* Find(std::string_view name) const;
  const Path& path(const TensorEntry& entry) const { return files_[entry.file].path(); }

  // All of `into`, from byte `begin` of the tensor on.
  Status Read(const TensorEntry& entry, uint64_t begin, std::span<std::byte> into) const;

 private:
  std::vector<RandomAccessFile> files_;
  std::map<std::string, TensorEntry, std::less<>> tensors_;
  std::map<std::string, std::string> metadata_;
};

// The header alone, parsed from bytes: what fuzzing reaches. `file_bytes` is the size of the whole file. The
// entries come in the order of their data. `metadata` may be null.
Result<std::vector<TensorEntry>> ParseSafetensorsHeader(std::string_view header, uint64_t file_bytes,
                                                        const std::string& name,
                                                        std::map<std::string, std::string>* metadata);

struct TensorToWrite {
  std::string name, dtype;
  std::vector<int64_t> shape;
  std::span<const std::byte> data;
};
// Written as temp + fsync + rename, tensors in the given order: put those of wide dtypes first where
// alignment matters. A shape that does not fit its data, or a name given twice, is a failure.
Status WriteSafetensors(const Path& path, std::span<const TensorToWrite> tensors,
                        const std::map<std::string, std::string>& metadata);

}  // namespace rung::io

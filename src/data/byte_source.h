// The bytes of a data file in order, unpacked where it is compressed; never all of them in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/files.h"
#include "base/result.h"

namespace rung::data {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Fills the front of `into`, which is not empty; 0: the end. After a failure there is nothing more to read.
  virtual Result<size_t> Read(std::span<char> into) = 0;

  // Bytes that outlive it, as they are.
  static std::unique_ptr<ByteSource> OfMemory(std::string_view bytes);
  // A regular file. gzip and zstd are known by their first bytes, whatever the file is called; a name that
  // ends in .gz or .zst must hold what it says. `taken`, if given, outlives the source and counts the bytes
  // that were read of the file, packed ones where it is packed.
  static Result<std::unique_ptr<ByteSource>> Open(const Path& path, uint64_t* taken = nullptr);
  // Unpacks `packed` if its first bytes say so. `name` stands in messages.
  static Result<std::unique_ptr<ByteSource>> Unpacked(std::unique_ptr<ByteSource> packed, std::string name);
};

}  // namespace rung::data

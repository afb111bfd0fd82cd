// A GGUF version 3 file written piece by piece: nothing but the header is held in memory.
// Format: docs/formats/gguf.md.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/files.h"
#include "base/result.h"
#include "io/gguf.h"

namespace rung::io {

// GgufRawValue: the bytes of another file, which outlives their use here.
using GgufField = std::variant<uint32_t, float, bool, std::string, std::vector<std::string>,
                               std::vector<float>, std::vector<int32_t>, std::vector<bool>, GgufRawValue>;
using GgufFields = std::vector<std::pair<std::string, GgufField>>;

struct GgufLayout {
  std::string name;
  int type = 0;               // ggml type number
  std::vector<int64_t> dims;  // ggml order: dims[0] is the contiguous one
};

class GgufWriter {
 public:
  // Tensors take their places in the given order, each at a multiple of 32 bytes. Written to a temporary file
  // until Commit. Refuses what readers refuse: a name given twice or longer than 63 bytes, a type or
  // dimension that does not exist.
  static Result<GgufWriter> Create(const Path& path, const GgufFields& fields,
                                   const std::vector<GgufLayout>& tensors);
  // Of the file that Create would make of the same; refuses the same.
  static Result<uint64_t> PlannedBytes(const Path& path, const GgufFields& fields,
                                       const std::vector<GgufLayout>& tensors);

  // Bytes of tensor number `tensor`, from its byte `begin` on; in any order. All of them must be written
  // before Commit.
  Status Write(size_t tensor, uint64_t begin, std::span<const std::byte> bytes);
  Status Commit();

  const Path& temporary() const { return file_.temporary(); }   // where it is until Commit
  uint64_t bytes() const { return data_begin_ + data_bytes_; }  // of the whole file

 private:
  struct Placed {
    uint64_t begin = 0, bytes = 0;  // within the data
  };
  explicit GgufWriter(AtomicFile file) : file_(std::move(file)) {}

  AtomicFile file_;
  std::vector<Placed> tensors_;
  uint64_t data_begin_ = 0, data_bytes_ = 0;
};

}  // namespace rung::io

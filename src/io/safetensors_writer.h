// A safetensors file written piece by piece: nothing but the header is held in memory.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/result.h"
#include "io/safetensors.h"

namespace rung::io {

struct TensorLayout {
  std::string name, dtype;
  std::vector<int64_t> shape;
};

class SafetensorsWriter {
 public:
  // `tensors` take their places in the given order, one behind the other: put those of wide dtypes first.
  // header_reserve: bytes of header for the tensors that Append will add. Written to a temporary file until
  // Commit.
  static Result<SafetensorsWriter> Create(const Path& path, std::vector<TensorLayout> tensors,
                                          const std::map<std::string, std::string>& metadata,
                                          uint64_t header_reserve);

  // Bytes of tensor number `tensor` of those given to Create, from its byte `begin` on; in any order. All of
  // them must be written before Commit.
  Status Write(size_t tensor, uint64_t begin, std::span<const std::byte> bytes);
  // One more tensor behind all others.
  Status Append(TensorLayout tensor, std::span<const std::byte> bytes);
  // Checks the header by the reader's rules, writes it, and puts the file in its place.
  Status Commit();

  // Of the whole file, as far as it is known.
  uint64_t bytes() const { return data_begin_ + data_bytes_; }

 private:
  struct Placed {
    TensorLayout layout;
    uint64_t begin = 0, bytes = 0;  // within the data
  };
  SafetensorsWriter(Path path, AtomicFile file) : path_(std::move(path)), file_(std::move(file)) {}
  Status Place(TensorLayout layout);
  std::string Header() const;

  Path path_;
  AtomicFile file_;
  std::map<std::string, std::string> metadata_;
  std::vector<Placed> tensors_;
  uint64_t data_begin_ = 0, data_bytes_ = 0;
};

}  // namespace rung::io

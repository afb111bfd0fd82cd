// What the makers of folders share: their files of weights, NF4 in bitsandbytes' layout
// (docs/formats/nf4.md), written piece by piece.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/files.h"
#include "convert/output_folder.h"
#include "format/nf4.h"
#include "io/safetensors_writer.h"

namespace rung::convert {

// A tensor of a model: kept as it is, or a matrix that becomes NF4, which takes several tensors of the file.
struct OutputTensor {
  std::string name, dtype;  // of the original
  std::vector<int64_t> shape;
  bool nf4 = false;
};
// Of the file, header included: at most.
uint64_t OutputBytes(const OutputTensor& tensor, bool nested);
// Of all files with these.
uint64_t OutputBytes(std::span<const OutputTensor> tensors, bool nested);

class Nf4File {
 public:
  // Tensors of wide dtypes are placed first, because readers want every tensor aligned to its own width.
  // Throws Error, as all members do.
  Nf4File(const Path& path, std::span<const OutputTensor> tensors, bool nested);

  // Bytes of a tensor from byte `begin` on: of one that is kept its data, of an NF4 matrix its codes.
  void Write(const std::string& name, uint64_t begin, std::span<const std::byte> bytes);
  // All of an NF4 matrix but its codes. `scales` as format::EncodeNf4 gives them.
  void WriteScales(const OutputTensor& tensor, const format::Nf4Encoded& scales);
  // Every tensor must be written by now.
  void Commit();

  uint64_t bytes() const { return writer_.bytes(); }
  // Of every tensor in the file, for an index; complete after Commit.
  const std::vector<std::string>& names() const { return names_; }

 private:
  bool nested_;
  std::vector<std::string> names_;
  std::map<std::string, size_t> place_;
  std::map<std::string, std::string> states_;  // of the NF4 matrices, by name; last in the file
  io::SafetensorsWriter writer_;
};

struct ShardOptions {
  Path folder;
  bool nested = false;  // NF4's scales in 8 bits (double quantisation)
  uint64_t bytes = 0;   // of a file, unless one tensor alone has more
  OnProgress on_progress;
};
// The files of weights of a folder, with their index where there are several. `write` is called once for each
// tensor, in their order. Returns the bytes of all files. Throws Error.
uint64_t WriteShards(const ShardOptions& options, std::span<const OutputTensor> tensors,
                     const std::function<void(size_t number, Nf4File* file)>& write);

// The JSON text of config.json with what transformers and bitsandbytes look for. `plain`: linear layers that
// are not NF4. Throws Error.
std::string WithQuantizationConfig(const std::string& config_json, bool nested,
                                   const std::vector<std::string>& plain);

// The JSON text that bitsandbytes keeps beside an NF4 weight, as Python's json.dumps writes it.
// `nested_offset` is written as Python's repr of a double; ignored without nesting.
std::string QuantStateJson(const std::string& dtype, int64_t rows, int64_t cols, bool nested,
                           float nested_offset);

}  // namespace rung::convert
